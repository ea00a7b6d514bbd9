# SPDX-License-Identifier: MIT
"""What may happen beside the steps of `fit`: callbacks, and stopping early.

A callback is a `Callback` with the methods it needs, or a function of the run, which is called after each step.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from functorch_lite.errors import ArgumentError, ArgumentTypeError


class Run:
    """A run of `fit` as callbacks see it, after `step` whole steps.

    state: that of the last step; a callback may assign another one. step: whole steps so far. epoch: from 0.
    metrics: what the last step returned. history: {name: [(step, value), ...]} as far as it was read.
    """

    state: Any
    step: int
    epoch: int
    metrics: Mapping[str, Any]
    reason: str

    @property
    def history(self) -> Mapping[str, list[tuple[int, Any]]]:
        """Each figure so far as pairs (step, value)."""
        raise NotImplementedError

    def stop(self, reason: str) -> None:
        """End the run after this step; `reason` is shown."""
        raise NotImplementedError

    def log(self, **figures: Any) -> None:
        """Put figures of this step into the history and the logs."""
        raise NotImplementedError

    def line(self, text: str) -> None:
        """Show a line above the progress bar."""
        raise NotImplementedError


class Callback:
    """Base of callbacks; override what is needed.

    `state()` and `restore(state)` carry what a resumed run must know: a dict that JSON can hold.

    >>> class Announce(Callback):
    ...     def on_evaluate(self, run, figures):
    ...         print(run.step, figures)
    """

    def on_start(self, run: Run) -> None:
        """Before the first step, after a checkpoint was restored."""

    def on_step(self, run: Run) -> None:
        """After each step."""

    def on_evaluate(self, run: Run, figures: Mapping[str, Any]) -> None:
        """After each evaluation, with all figures of this moment under the names of the history."""

    def on_epoch(self, run: Run) -> None:
        """After an epoch; `run.epoch` is the number of whole epochs."""

    def on_rows(self, run: Run, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Figures (step, {name: value}) that have come into the history; for logs, in groups."""

    def on_end(self, run: Run) -> None:
        """When the run ends, for whatever reason."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state()` returned."""


class _Function(Callback):
    def __init__(self, function: Callable[[Run], Any]):
        self._function = function

    def on_step(self, run: Run) -> None:
        self._function(run)


def as_callback(given: Any) -> Callback:
    """`given`, or the callback for a function of the run. Raises ArgumentTypeError for anything else."""
    if isinstance(given, Callback):
        return given
    if callable(given) and not isinstance(given, type):
        return _Function(given)
    raise ArgumentTypeError(f"fit: a callback should be a train.Callback or a function of the run, got {given!r}.")


class EarlyStopping(Callback):
    """Stops a run when a figure of the evaluation has not become better for `patience` evaluations in a row.

    figure: its name in the history, `"eval/loss"` say. least_change: a value counts as better only when it is better
    by more than this. largest_is_best: for accuracies. What it remembers is part of checkpoints.

    >>> stopping = EarlyStopping("eval/accuracy", patience=3, largest_is_best=True)
    """

    def __init__(self, figure: str, *, patience: int, least_change: float = 0.0, largest_is_best: bool = False):
        if patience < 1 or least_change < 0:
            raise ArgumentError(
                f"EarlyStopping: `patience` should be at least 1 and `least_change` at least 0, but they are "
                f"{patience} and {least_change}."
            )
        self.figure = figure
        self.patience = patience
        self.least_change = least_change
        self.largest_is_best = largest_is_best
        self.best, self.best_step, self.n_bad = math.inf, 0, 0  # best: the smaller the better

    def on_evaluate(self, run: Run, figures: Mapping[str, Any]) -> None:
        if self.figure not in figures:
            raise ArgumentError(
                f"EarlyStopping: the evaluation has no figure `{self.figure}`; it has {', '.join(figures) or 'none'}."
            )
        value = -figures[self.figure] if self.largest_is_best else figures[self.figure]
        if value < self.best - self.least_change or (value < math.inf and self.best == math.inf):
            self.best, self.best_step, self.n_bad = value, run.step, 0
            return
        self.n_bad += 1
        if self.n_bad >= self.patience:
            best = -self.best if self.largest_is_best else self.best
            run.stop(f"{self.figure} was best, {best:.6g}, at step {self.best_step}")

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "n_bad": self.n_bad}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.best_step, self.n_bad = state["best"], state["best_step"], state["n_bad"]
