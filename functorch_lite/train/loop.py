# SPDX-License-Identifier: MIT
"""The loop around a user's own pure training step.

    state, metrics = step(state, batch)      stays the user's, usually under `jit`
    fit(step, state, batches, ...)           progress, history, evaluation, callbacks, logs, checkpoints, exact resume

After each step, in this order: history, callbacks, evaluation where it is due, checkpoint where it is due. So a
checkpoint holds everything up to its step, and a resumed run does what an uninterrupted one does.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from functorch_lite.errors import ArgumentError, ArgumentTypeError
from functorch_lite.train.callbacks import Callback, Run, as_callback
from functorch_lite.train.checkpoints import Checkpoints, extra_of
from functorch_lite.train.display import Progress, Silent, progress
from functorch_lite.train.feed import END, Batches, Feed
from functorch_lite.train.history import History, Series, computed, is_metric, plain
from functorch_lite.train.interrupts import Interrupts
from functorch_lite.train.logs import JsonLog, TensorBoard
from functorch_lite.train.nan_watch import NanWatch
from functorch_lite.train.plots import plot_curves

Step = Callable[[Any, Any], tuple[Any, Mapping[str, Any]]]
_TICK = 0.1  # seconds
_SECONDS_BETWEEN_FLUSHES = 5.0
_SECONDS_BETWEEN_PLOTS = 60.0

_NO_PAIR = """\
fit: the step should return a pair (state, metrics), but returned {}.
    return loss                         # wrong
    return state, {{"loss": loss}}        # right"""


class Result(NamedTuple):
    """What a run ends with. history: {name: [(step, value), ...]}; figures of the evaluation are `eval/<name>`."""

    state: Any
    history: Series
    step: int


def fit(
    step: Step,
    state: Any,
    batches: Batches,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    evaluate: Callable[[Any], Mapping[str, Any]] | None = None,
    every: int | None = None,
    callbacks: Sequence[Callback | Callable[[Run], Any]] = (),
    checkpoint: str | os.PathLike[str] | Checkpoints | None = None,
    log_dir: str | os.PathLike[str] | None = None,
    plot: str | os.PathLike[str] | None = None,
    nan_watch: bool = False,
    title: str = "training",
    show: bool = True,
) -> Result:
    """Run `state, metrics = step(state, batch)` over `batches`; the last state, the history and the number of steps.

    step: a pure function, usually jitted; `metrics` is a dict of scalars, or of metric objects such as `train.Mean`,
        which are merged and reported at each evaluation or, without one, at the end of each epoch.
    state: any pytree: model, optimizer state, random key ...
    batches: an iterable, iterated anew each epoch; or a function of the epoch (from 0) that returns one; or a loader
        with `state()` and `restore(state)`, whose own place is then kept in checkpoints.
    steps, epochs: the run ends when either number is reached, counted from the very beginning of the run, before any
        resume. Without both it is one epoch.
    evaluate: `evaluate(state)` returns a dict of figures, `eval/<name>` in the history; see `train.evaluate`.
    every: steps between evaluations; by default each epoch is followed by one. The end of the run always is.
    callbacks: `train.Callback`s, such as `EarlyStopping`, and functions of the run, called after each step.
    checkpoint: a folder, or `Checkpoints`. If it holds a checkpoint the run goes on from there, bit for bit as if it
        had never been interrupted. By default one is written after each evaluation, or epoch, every ten minutes, and
        at the end. Ctrl-C and SIGTERM write one after the step under way.
    log_dir: a folder for TensorBoard's event files (needs tensorboardX) and metrics.jsonl.
    plot: a file for a picture of all series, drawn at evaluations and at the end; needs matplotlib.
    nan_watch: look at each step's metrics and state; where a number that was finite is not, find the line.
    show: whether anything is printed.

    Raises ArgumentError or ArgumentTypeError for arguments that do not fit, NonFiniteError from `nan_watch`,
    CheckpointError when a checkpoint can be neither written nor read.

    >>> import functorch_lite as fl
    >>> @fl.jit
    ... def step(w, batch):
    ...     loss, grad = fl.value_and_grad(lambda w: ((w - batch) ** 2).mean())(w)
    ...     return w - 0.1 * grad, {"loss": loss}
    >>> result = fit(step, np.zeros(3), [np.ones(3)] * 10, epochs=5, show=False)
    >>> result.step, [name for name in result.history], result.history["loss"][0]
    (50, ['loss'], (1, 1.0))
    """
    if not callable(step):
        raise ArgumentTypeError(f"fit: `step` should be a function of (state, batch), got {type(step).__name__}.")
    _check_counts(steps=steps, epochs=epochs, every=every)
    around = [as_callback(given) for given in callbacks]
    if log_dir is not None:
        around += [TensorBoard(log_dir), JsonLog(Path(log_dir) / "metrics.jsonl")]
    epochs = 1 if steps is None and epochs is None else epochs
    watch = NanWatch(step) if nan_watch else None
    with _opened(checkpoint) as checkpoints:
        options = _Options(step, steps, epochs, evaluate, every, around, checkpoints, plot, watch, title, show)
        return _Loop(state, batches, options).run()


def _opened(checkpoint: Any) -> AbstractContextManager[Checkpoints | None]:
    """The user's own `Checkpoints`, which stay open, or those of a folder."""
    if checkpoint is None or isinstance(checkpoint, Checkpoints):
        return nullcontext(checkpoint)
    return Checkpoints(checkpoint)


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        least = 1 if name == "every" else 0
        if value is not None and value < least:
            raise ArgumentError(f"fit: `{name}` should be at least {least}, but is {value}.")


class _Options(NamedTuple):
    step: Step
    steps: int | None
    epochs: int | None
    evaluate: Callable[[Any], Mapping[str, Any]] | None
    every: int | None
    callbacks: list[Callback]
    checkpoints: Checkpoints | None
    plot: str | os.PathLike[str] | None
    watch: NanWatch | None
    title: str
    show: bool


class _Loop(Run):
    def __init__(self, state: Any, batches: Batches, options: _Options):
        self.state, self.step, self.epoch = state, 0, 0
        self.metrics: Mapping[str, Any] = {}
        self.reason = ""
        self._options = options
        self._callbacks, self._checkpoints = options.callbacks, options.checkpoints
        self._feed = Feed(batches)
        self._history = History(any(type(c).on_rows is not Callback.on_rows for c in self._callbacks))
        self._flushed = self._plotted = time.perf_counter()
        self._evaluated_step: int | None = None
        self._saved_at: Any = None
        self._is_best = False
        self._bar: Progress = Silent(None, "")
        self._interrupts = Interrupts()

    # --- what callbacks may use ---------------------------------------------------------------------------------------

    @property
    def history(self) -> Series:
        self._history.read()
        return self._history.series

    def stop(self, reason: str) -> None:
        self.reason = self.reason or reason

    def log(self, **figures: Any) -> None:
        self._history.put(self.step, figures)

    def line(self, text: str) -> None:
        self._bar.line(text)

    # --- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        if self._checkpoints is not None:
            self._resume(self._checkpoints)
        with self._interrupts:
            with self._progress() as self._bar:
                try:
                    self._call("on_start")
                    self._steps_until_done()
                    self._finish()
                finally:
                    self._close()
            self._interrupts.deliver()
        return Result(self.state, self.history, self.step)

    def _steps_until_done(self) -> None:
        on_step = [c.on_step for c in self._callbacks if type(c).on_step is not Callback.on_step]
        step, feed, add = self._options.step, self._feed, self._history.add
        watch, interrupts, clock = self._options.watch, self._interrupts, time.perf_counter
        due, tick = self._next_due(), clock() + _TICK
        steps, epochs = self._limits()
        while self.step < steps and feed.epoch < epochs and not self.reason:
            batch = feed.next()
            if batch is END:
                self._events(at_end=True)
                continue
            before = watch.before(self.state) if watch is not None else None
            out = step(self.state, batch)
            try:
                self.state, self.metrics = out
            except (TypeError, ValueError) as e:
                raise ArgumentTypeError(_NO_PAIR.format(type(out).__name__)) from e
            self.step += 1
            add(self.step, self.metrics)
            if watch is not None:
                watch.check(before, batch, self.state, self.metrics, self.step)
            for call in on_step:
                call(self)
            at_end = feed.at_end()
            must_save = interrupts.pending is not None
            if clock() >= tick:
                must_save |= self._tick()
                tick = clock() + _TICK
            if at_end or must_save or self.step >= due:
                self._events(at_end or feed.look_ahead(), must_save)
                due = self._next_due()
            if interrupts.pending is not None:
                return

    def _tick(self) -> bool:
        """What depends on time: the display, the logs; whether a checkpoint is due after so many seconds."""
        if self._bar.due():
            self._bar.show(self.step, self._history.shown())
        if time.perf_counter() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self._flush_logs()
        if self._checkpoints is None:
            return False
        self._checkpoints.check()
        return self._checkpoints.is_late()

    def _limits(self) -> tuple[float, float]:
        """Steps and epochs at which the run ends; infinite where there is no limit."""
        given = (self._options.steps, self._options.epochs)
        return tuple(math.inf if n is None else n for n in given)  # type: ignore[return-value]

    def _next_due(self) -> float:
        """The step at which something but the end of an epoch is due next."""
        periods = [self._options.every, self._checkpoints.every if self._checkpoints is not None else None]
        return min((self.step - self.step % n + n for n in periods if n is not None), default=math.inf)

    def _events(self, at_end: bool, must_save: bool = False) -> None:
        self.epoch = self._feed.epoch
        is_due = at_end if self._options.every is None else self.step % self._options.every == 0
        if is_due and self._evaluated_step != self.step:
            self._report()
        if at_end:
            self._call("on_epoch")
        if must_save or self._is_best or self._is_checkpoint_due(is_due):
            self._save()

    def _is_checkpoint_due(self, is_evaluated: bool) -> bool:
        if self._checkpoints is None:
            return False
        if self._checkpoints.every is not None:
            return self.step % self._checkpoints.every == 0
        return is_evaluated and self._checkpoints.seconds is None

    def _report(self) -> None:
        """Evaluate, report the metric objects, tell the callbacks."""
        means = self._history.means(after=self._evaluated_step or 0)
        figures = self._history.report(self.step)
        if self._options.evaluate is not None:
            found = self._options.evaluate(self.state)
            if not isinstance(found, Mapping):
                raise ArgumentTypeError(
                    f"fit: `evaluate` should return a dict of figures, but returned {type(found).__name__}."
                )
            found = {f"eval/{name}": computed(v) if is_metric(v) else plain(v) for name, v in found.items()}
            self._history.put(self.step, found)
            figures |= found
        self._evaluated_step = self.step
        if means or figures:
            self._bar.line(self._summary(means | figures))
        told = {name: points[-1][1] for name, points in self.history.items() if points[-1][0] == self.step}
        for callback in self._callbacks:
            callback.on_evaluate(self, told | figures)
        if self._checkpoints is not None:
            self._is_best = self._checkpoints.judge(told | figures)
        self._flush_logs()
        if self._options.plot is not None and time.perf_counter() - self._plotted > _SECONDS_BETWEEN_PLOTS:
            self._draw()

    def _summary(self, figures: Mapping[str, Any]) -> str:
        parts = [f"{name} {value:.4f}" for name, value in figures.items() if isinstance(value, float)]
        return f"{self._options.title}: step {self.step}  " + "  ".join(parts)

    def _finish(self) -> None:
        if self._interrupts.pending is None and self._evaluated_step != self.step:
            self._report()
        self._save()
        if self.reason:
            self._bar.line(f"{self._options.title}: stopped at step {self.step}: {self.reason}")

    def _close(self) -> None:
        """Whatever happened, here or before: each of these comes about, the last one first."""
        with ExitStack() as stack:
            if self._checkpoints is not None:
                stack.callback(self._checkpoints.wait)
            for callback in reversed(self._callbacks):
                stack.callback(callback.on_end, self)
            stack.callback(self._draw)
            stack.callback(self._flush_logs)

    def _draw(self) -> None:
        curves = {n: points for n, points in self.history.items() if points and isinstance(points[-1][1], float)}
        if curves and self._options.plot is not None:
            plot_curves(self._options.plot, curves, title=self._options.title)
        self._plotted = time.perf_counter()

    def _flush_logs(self) -> None:
        self._flushed = time.perf_counter()
        rows = self._history.take_rows()
        if rows:
            for callback in self._callbacks:
                callback.on_rows(self, rows)

    def _call(self, name: str) -> None:
        for callback in self._callbacks:
            getattr(callback, name)(self)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        place = (self.step, self._feed.epoch, self._evaluated_step, self.reason)
        if self._checkpoints is None or place == self._saved_at:
            return
        self._saved_at, self._is_best = place, False
        self._flush_logs()
        loop = {
            "feed": self._feed.state(),
            "evaluated": self._evaluated_step,
            "reason": self.reason,
            "callbacks": dict(zip(self._callback_names(), [c.state() for c in self._callbacks], strict=True)),
        }
        self._checkpoints.save(self.step, self.state, extra=self._history.saved(), metadata={"fit": loop})

    def _resume(self, checkpoints: Checkpoints) -> None:
        found = checkpoints.load_newest()
        if found is None:
            return
        self.state = found.tree(self.state, "state")
        self.step = found.metadata["step"]
        loop = found.metadata["user"].get("fit")
        if loop is None:
            raise ArgumentError(f"fit: {found.path} was not saved by `fit`; restore it by hand with `Checkpoints`.")
        self._feed.restore(loop["feed"])
        self._history.restore(extra_of(found))
        self._evaluated_step, self.reason = loop["evaluated"], loop["reason"]
        self.epoch = self._feed.epoch
        for name, callback in zip(self._callback_names(), self._callbacks, strict=True):
            if name in loop["callbacks"]:
                callback.restore(loop["callbacks"][name])

    def _callback_names(self) -> list[str]:
        """`EarlyStopping`, and for another one of that class `EarlyStopping 2`."""
        kinds = [type(callback).__name__ for callback in self._callbacks]
        counts = [kinds[: i + 1].count(kind) for i, kind in enumerate(kinds)]
        return [kind if n == 1 else f"{kind} {n}" for kind, n in zip(kinds, counts, strict=True)]

    # --- the display --------------------------------------------------------------------------------------------------

    @contextmanager
    def _progress(self):
        if not self._options.show:
            yield Silent(None, "")
            return
        with progress(self._n_steps(), self._options.title, done=self.step) as bar:
            yield bar

    def _n_steps(self) -> int | None:
        steps, epochs = self._limits()
        n_left = epochs - self._feed.epoch
        length = self._feed.length() if math.isfinite(n_left) and n_left > 0 and self.step < steps else None
        if length is not None:
            steps = min(steps, self.step - self._feed.index + length * n_left)
        return int(steps) if math.isfinite(steps) else None
