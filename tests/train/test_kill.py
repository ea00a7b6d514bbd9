# SPDX-License-Identifier: MIT
"""kill -9 at any moment and resume: bit for bit the weights, optimizer, history of an uninterrupted run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from functorch_lite import train
from functorch_lite.train.files import read

TRAINER = Path(__file__).with_name("trainer_to_kill.py")
N_KILLS = 25


@pytest.mark.slow
def test_a_run_killed_at_25_random_moments_ends_as_one_that_was_not(tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints are safetensors files")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, str(TRAINER), str(tmp_path), str(N_KILLS), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["places"]) == N_KILLS
    assert told["torn"] > 0, "no kill came while a file was written: write more often"
    assert told["places"] == sorted(told["places"]) and len(set(told["places"])) > 1 and told["left"] == 0

    steps = max(train.Checkpoints(whole).steps())
    expected, found = (read(folder / f"step-{steps:08d}.safetensors") for folder in (whole, killed))
    assert found.metadata == expected.metadata
    assert list(found.values) == list(expected.values) and len(found.values) > 20
    for name, value in expected.values.items():
        assert value.dtype == found.values[name].dtype and value.tobytes() == found.values[name].tobytes(), name
    best, expected_best = (read(folder / "best.safetensors") for folder in (killed, whole))
    for name, value in expected_best.values.items():
        np.testing.assert_array_equal(best.values[name], value)
    rows = [json.loads(line) for line in (killed / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, steps + 1))
