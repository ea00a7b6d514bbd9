# SPDX-License-Identifier: MIT

import sys

import numpy as np
import pytest

from functorch_lite import train
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.train import display, plots


def test_accuracy_counts_the_largest_logits():
    logits = np.eye(4)[[0, 1, 2, 2]]
    assert train.accuracy(logits, np.array([0, 1, 2, 3])) == 0.75
    with pytest.raises(ShapeError, match=r"need labels \(4,\), got \(3,\)"):
        train.accuracy(logits, np.zeros(3, int))


def test_the_confusion_matrix_has_labels_in_rows():
    np.testing.assert_array_equal(
        train.confusion_matrix(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]), 2), [[2, 1], [0, 1]]
    )


def test_progress_prints_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0.0)
    with train.progress(4, "epoch 1") as bar:
        bar.update(loss=0.5)
        bar.line("a line")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epoch 1: step 1/4  loss 0.5000") and "steps/s" in lines[0]
    assert lines[1] == "a line"


def test_progress_draws_on_a_terminal(capsys, monkeypatch):
    pytest.importorskip("rich", reason="the terminal display is drawn by Rich")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with train.progress(2, "epoch 1") as bar:
        bar.update(loss=0.5)
        bar.update(loss=0.4)
    assert bar.done == 2 and bar.display.tasks[0].completed == 2


def test_plots_are_written(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    history = {"loss": list(np.linspace(2, 1, 300)), "accuracy": [(10, 0.5), (20, 0.7)]}
    path = train.plot_curves(tmp_path / "deep" / "curves.png", history, title="run")
    assert path.read_bytes().startswith(b"\x89PNG")
    images, labels = np.zeros((5, 4, 4)), np.array([0, 1, 2, 0, 1])
    path = train.plot_predictions(tmp_path / "p.png", images, np.array([0, 1, 1, 0, 1]), labels, ["a", "b", "c"])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_evaluation_is_drawn_beside_what_it_evaluates(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    names = ["loss", "a", "eval/loss", "eval/b", "c", "d"]
    assert plots._groups(dict.fromkeys(names)) == {
        "loss": ["loss", "eval/loss"], "a": ["a"], "eval/b": ["eval/b"], "c": ["c"], "d": ["d"],
    }  # fmt: skip
    path = train.plot_curves(tmp_path / "x.png", {name: list(np.linspace(2, 1, 300)) for name in names})
    assert path.read_bytes().startswith(b"\x89PNG")


def test_an_empty_history_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="`history` has no series"):
        train.plot_curves(tmp_path / "x.png", {})


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ImportError, match=r"pip install 'functorch_lite\[train\]'"):
        train.plot_curves(tmp_path / "x.png", {"loss": [1.0]})
