# SPDX-License-Identifier: MIT
"""Figures of a run as files: TensorBoard's event files, which tensorboardX writes, and lines of JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functorch_lite.files import FilePath, whole_file
from functorch_lite.packages import need
from functorch_lite.train.callbacks import Callback, Run

Rows = Sequence[tuple[int, Mapping[str, Any]]]


class JsonLog(Callback):
    """Writes a line of JSON for each step that has figures: {"step": 3, "loss": 0.25}.

    What is not finite is a text, "nan" or "inf". A resumed run goes on in the same file; lines of steps after its
    checkpoint are removed first.

    >>> log = JsonLog("out/metrics.jsonl")
    """

    def __init__(self, path: FilePath):
        self.path = Path(path)

    def on_start(self, run: Run) -> None:
        kept = [line for line in self._lines() if _step_of(line) <= run.step] if run.step else []
        with whole_file(self.path) as file:
            file.write("".join(kept).encode())

    def on_rows(self, run: Run, rows: Rows) -> None:
        with self.path.open("a") as file:
            for step, figures in rows:
                file.write(json.dumps({"step": step, **{name: _for_json(v) for name, v in figures.items()}}) + "\n")

    def _lines(self) -> list[str]:
        text = self.path.read_text() if self.path.exists() else ""
        return [line for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def _for_json(value: Any) -> Any:
    """Lists of numbers; JSON has no NaN nor infinity, so they become texts that `float` reads."""
    found = value if type(value) is float else np.asarray(value).tolist()
    if isinstance(found, list):
        return [_for_json(item) for item in found]
    return str(found) if isinstance(found, float) and not math.isfinite(found) else found


def _step_of(line: str) -> int:
    return json.loads(line)["step"]


class TensorBoard(Callback):
    """Writes figures where TensorBoard finds them: `tensorboard --logdir <folder>`. Needs the package tensorboardX.

    `writer` is tensorboardX's `SummaryWriter`, for pictures, histograms and texts: `board.writer.add_image(...)`. A
    resumed run hides what an earlier process wrote after the checkpoint.

    Raises MissingPackageError without tensorboardX.

    >>> board = TensorBoard("out/logs")
    """

    def __init__(self, folder: FilePath):
        self.folder = Path(folder)
        self._package = need("tensorboardX", by="TensorBoard", install="'functorch_lite[train]'")
        self._writer: Any = None

    @property
    def writer(self) -> Any:
        """The writer, opened when it is first used."""
        return self._opened(None)

    def on_start(self, run: Run) -> None:
        self._opened(run.step + 1 if run.step else None)

    def on_rows(self, run: Run, rows: Rows) -> None:
        for step, figures in rows:
            for name, value in figures.items():
                if np.ndim(value) == 0:
                    self.writer.add_scalar(name, _single(value), step)

    def on_end(self, run: Run) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what is written next opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self, purge_step: int | None) -> Any:
        if self._writer is None:
            self._writer = self._package.SummaryWriter(str(self.folder), purge_step=purge_step)
        return self._writer


def _single(value: Any) -> float:
    """A number within the range of float32, which event files hold: infinite beyond it."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))
