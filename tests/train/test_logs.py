# SPDX-License-Identifier: MIT
import json
import struct
import sys

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from functorch_lite import train
from functorch_lite.errors import MissingPackageError


def events(folder):
    """All events in a folder of logs, read back by tensorboardX's own protocol buffers."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(event_pb2.Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def step(state, batch):
    return state + batch, {"loss": 1.0 / batch}


def run(folder, batches, **options):
    return train.fit(step, 0.0, batches, log_dir=folder, show=False, evaluate=lambda s: {"sum": s}, **options)


def test_tensorboard_finds_the_figures(tmp_path):
    run(tmp_path, [1.0, 2.0, 4.0])
    first, *rest = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    scalars = [(e.step, v.tag, v.simple_value) for e in rest for v in e.summary.value]
    assert scalars == [(1, "loss", 1.0), (2, "loss", 0.5), (3, "loss", 0.25), (3, "eval/sum", 7.0)]


def test_figures_beyond_single_precision_are_infinite(tmp_path):
    def step(state, batch):
        return state, {"a": 1e300, "b": -1e300, "c": float("nan")}

    train.fit(step, 0, [1], log_dir=tmp_path, show=False)
    found = {v.tag: v.simple_value for e in events(tmp_path) for v in e.summary.value}
    assert (found["a"], found["b"]) == (np.inf, -np.inf) and np.isnan(found["c"])


def test_a_resumed_run_hides_what_came_after_its_checkpoint(tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints are safetensors files")
    run(tmp_path / "logs", [1.0, 2.0], checkpoint=tmp_path)
    run(tmp_path / "logs", [1.0, 2.0], epochs=2, checkpoint=tmp_path)
    starts = [e.step for e in events(tmp_path / "logs") if e.HasField("session_log")]
    assert starts == [3]


def test_lines_of_json_hold_the_figures(tmp_path):
    run(tmp_path, [1.0, 2.0])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 2, "eval/sum": 3.0}]


def test_lines_after_the_checkpoint_are_written_again_once(tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints are safetensors files")
    run(tmp_path, [1.0, 2.0], checkpoint=tmp_path / "c")
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "loss": 9.0}\n{"step": 4, "lo')
    run(tmp_path, [1.0, 2.0], epochs=2, checkpoint=tmp_path / "c")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4] and rows[-2]["loss"] == 0.5


def test_a_new_run_begins_a_new_file(tmp_path):
    for _ in range(2):
        run(tmp_path, [1.0, 2.0])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_every_line_is_strict_json(tmp_path):
    def step(state, batch):
        return state, {"loss": np.float32(batch)}

    train.fit(step, 0, [1.0, np.nan, -np.inf], log_dir=tmp_path, show=False)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=lambda name: pytest.fail(name)) for line in lines]
    assert [row["loss"] for row in rows] == [1.0, "nan", "-inf"]


def test_matrices_go_to_json_alone(tmp_path):
    def step(state, batch):
        return state, {"confusion": train.ConfusionMatrix.of(batch, batch, n_classes=2)}

    train.fit(step, 0, [np.array([0, 1])], log_dir=tmp_path, show=False)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["confusion"] == [[1, 0], [0, 1]]
    assert [v for e in events(tmp_path) for v in e.summary.value] == []


def test_the_writer_takes_histograms_and_texts(tmp_path):
    board = train.TensorBoard(tmp_path)
    board.writer.add_histogram("weights", np.arange(100.0), 6)
    board.writer.add_text("note", "**bold**", 7)
    board.close()
    histogram, note = (e.summary.value[0] for e in events(tmp_path) if e.summary.value)
    assert histogram.histo.num == 100 and note.metadata.plugin_data.plugin_name == "text"


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingPackageError, match="TensorBoard needs tensorboardX.*pip install"):
        run(tmp_path, [1.0])
