# SPDX-License-Identifier: MIT
"""A progress display: step, figures such as the loss, rate and time to go.

On a terminal it is one line that Rich redraws; elsewhere (a log file, CI, or without Rich) plain lines now and then.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_DRAWINGS = 0.1
_WINDOW = 20.0  # seconds over which the rate is measured


class Progress:
    """Counts steps and shows them; made by `progress`. `n_steps` is None where the number of steps is not known."""

    def __init__(self, n_steps: int | None, title: str, done: int = 0):
        self.n_steps = n_steps
        self.title = title
        self.done = done
        self.shown = self._mark = self._last_mark = time.perf_counter()
        self._mark_done = self._last_done = done

    def update(self, **figures: float) -> None:
        """One more step is done; `figures` (loss=0.31) are shown beside it."""
        self.show(self.done + 1, figures)

    def show(self, done: int, figures: Mapping[str, float]) -> None:
        """`done` steps are done."""
        self.done = done
        now = time.perf_counter()
        if now - self.shown >= self._wait():
            self.shown = now
            self._show(figures)

    def due(self) -> bool:
        """Whether `show` would show something now."""
        return time.perf_counter() - self.shown >= self._wait()

    def line(self, text: str) -> None:
        """Print `text` as a line of its own."""
        print(text, flush=True)

    def rate(self) -> float:
        """Steps a second of late: over the last twenty to forty seconds."""
        now = time.perf_counter()
        if now - self._last_mark > _WINDOW:
            self._mark, self._mark_done = self._last_mark, self._last_done
            self._last_mark, self._last_done = now, self.done
        return (self.done - self._mark_done) / max(now - self._mark, 1e-9)

    def _wait(self) -> float:
        return _SECONDS_BETWEEN_LINES

    def _show(self, figures: Mapping[str, float]) -> None:
        rate = self.rate()
        of = f"/{self.n_steps}" if self.n_steps is not None else ""
        parts = [f"{self.title}: step {self.done}{of}", _text(figures), f"{rate:.1f} steps/s"]
        if self.n_steps is not None and rate:
            parts.append(f"{(self.n_steps - self.done) / rate:.0f} s to go")
        print("  ".join(part for part in parts if part), flush=True)


class _RichProgress(Progress):
    def __init__(self, n_steps: int | None, title: str, done: int, display: Any):
        super().__init__(n_steps, title, done)
        self.display = display
        self.task = display.add_task(title, total=n_steps, completed=done, figures="", rate="")

    def line(self, text: str) -> None:
        self.display.console.print(text, highlight=False, markup=False)

    def _wait(self) -> float:
        return 0.0 if self.done == self.n_steps else _SECONDS_BETWEEN_DRAWINGS

    def _show(self, figures: Mapping[str, float]) -> None:
        self.display.update(self.task, completed=self.done, figures=_text(figures), rate=f"{self.rate():.1f} steps/s")


@contextmanager
def progress(n_steps: int | None, title: str = "training", *, done: int = 0) -> Iterator[Progress]:
    """A `Progress` over `n_steps` steps (None: not known) for a `with` block; `done` of them are behind already.

    >>> with progress(3, "epoch 1") as bar:
    ...     for _ in range(3):
    ...         bar.update(loss=0.5)
    >>> bar.done
    3
    """
    display = _rich_display() if sys.stdout.isatty() else None
    if display is None:
        yield Progress(n_steps, title, done)
        return
    with display:
        yield _RichProgress(n_steps, title, done, display)


class Silent(Progress):
    """Shows nothing."""

    def due(self) -> bool:
        return False

    def line(self, text: str) -> None:
        del text


def _rich_display() -> Any:
    try:
        from rich import progress as rich
    except ImportError:
        return None
    columns = ("{task.description}", rich.BarColumn(bar_width=30), rich.MofNCompleteColumn(), "{task.fields[figures]}",
               "{task.fields[rate]}", rich.TimeRemainingColumn())  # fmt: skip
    return rich.Progress(*columns, transient=True)


def _text(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {float(value):.4f}" for name, value in figures.items())
