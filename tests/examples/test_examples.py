# SPDX-License-Identifier: MIT
"""The examples run, on small data and without a network."""

import runpy

import pytest

from tests.examples.loading import EXAMPLES, load


def test_quickstart_finds_the_curve(capsys):
    runpy.run_path(str(EXAMPLES / "quickstart.py"), run_name="__main__")
    assert "a = 1.5" in capsys.readouterr().out


def test_two_steps_of_the_trainer_write_its_pictures(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    pytest.importorskip("matplotlib", reason="the pictures need matplotlib")
    argv = ["--data", "digits", "--steps", "2", "--batch-size", "16", "--out", str(tmp_path)]
    load("fashion_mnist").main(argv)
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "predictions.png"}
    out = capsys.readouterr().out
    assert "eval/accuracy" in out and "test accuracy" in out


def test_the_trainer_learns_the_digits(capsys):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    argv = ["--data", "digits", "--epochs", "4", "--batch-size", "32", "--no-plot"]
    assert load("fashion_mnist").main(argv) > 0.9
