# SPDX-License-Identifier: MIT
"""A progress display: step, figures such as the loss, rate and time to go.

On a terminal it is one line that Rich redraws; elsewhere (a log file, CI, or without Rich) plain lines now and then.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts steps and shows them; made by `progress`."""

    def __init__(self, n_steps: int, title: str):
        self.n_steps = n_steps
        self.title = title
        self.done = 0
        self.start = self.shown = time.perf_counter()

    def update(self, **figures: float) -> None:
        """One more step is done; `figures` (loss=0.31) are shown beside it."""
        self.done += 1
        self._show(figures)

    def line(self, text: str) -> None:
        """Print `text` as a line of its own."""
        print(text, flush=True)

    def rate(self) -> float:
        """Steps a second so far."""
        return self.done / max(time.perf_counter() - self.start, 1e-9)

    def _show(self, figures: dict[str, float]) -> None:
        now = time.perf_counter()
        if now - self.shown < _SECONDS_BETWEEN_LINES:
            return
        self.shown = now
        to_go = (self.n_steps - self.done) / self.rate()
        done = f"{self.title}: step {self.done}/{self.n_steps}"
        print(f"{done}  {_text(figures)}  {self.rate():.1f} steps/s  {to_go:.0f} s to go", flush=True)


class _RichProgress(Progress):
    def __init__(self, n_steps: int, title: str, display: Any):
        super().__init__(n_steps, title)
        self.display = display
        self.task = display.add_task(title, total=n_steps, figures="", rate="")

    def line(self, text: str) -> None:
        self.display.console.print(text, highlight=False)

    def _show(self, figures: dict[str, float]) -> None:
        self.display.update(self.task, completed=self.done, figures=_text(figures), rate=f"{self.rate():.1f} steps/s")


@contextmanager
def progress(n_steps: int, title: str = "training") -> Iterator[Progress]:
    """A `Progress` over `n_steps` steps for a `with` block.

    >>> with progress(3, "epoch 1") as bar:
    ...     for _ in range(3):
    ...         bar.update(loss=0.5)
    >>> bar.done
    3
    """
    display = _rich_display() if sys.stdout.isatty() else None
    if display is None:
        yield Progress(n_steps, title)
        return
    with display:
        yield _RichProgress(n_steps, title, display)


def _rich_display() -> Any:
    try:
        from rich import progress as rich
    except ImportError:
        return None
    columns = ("{task.description}", rich.BarColumn(bar_width=30), rich.MofNCompleteColumn(), "{task.fields[figures]}",
               "{task.fields[rate]}", rich.TimeRemainingColumn())  # fmt: skip
    return rich.Progress(*columns, transient=True)


def _text(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {float(value):.4f}" for name, value in figures.items())
