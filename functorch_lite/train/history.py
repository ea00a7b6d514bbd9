# SPDX-License-Identifier: MIT
"""What is known of a run so far: each figure as a series of (step, value).

Values are read from the device late: when they are shown, logged, saved or asked for.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.backends.registry import home_of, knows_devices, on_device
from functorch_lite.errors import ArgumentTypeError

MOST_PENDING = 1000
MOST_AVERAGED = 10_000

Series = dict[str, list[tuple[int, Any]]]


class History:
    """The series of a run, and the metric objects that gather since the last report.

    keeps_rows: whether `take_rows` will be called, for logs.
    """

    def __init__(self, keeps_rows: bool = False) -> None:
        self.series: Series = {}
        self.last: Mapping[str, Any] = {}
        self.keeps_rows = keeps_rows
        self._rows: list[tuple[int, dict[str, Any]]] = []
        self._pending: list[tuple[int, Mapping[str, Any]]] = []
        self._running: dict[str, Any] = {}
        self._saved_running: dict[str, list[Any]] = {}
        self._names: tuple[list[str], list[str]] | None = None

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take in what a step returned: scalars, and metric objects, which are merged."""
        if self._names is None:
            self._names = _sorted_out(metrics)
        self.last = metrics
        self._pending.append((step, metrics))
        if self._names[1]:
            self._merge(metrics)
        if len(self._pending) >= MOST_PENDING:
            self.read()

    def _merge(self, metrics: Mapping[str, Any]) -> None:
        for name in self._names[1]:  # type: ignore[index]
            new, so_far = metrics[name], self._running.get(name)
            if name in self._saved_running:
                so_far = tree.unflatten(tree.structure(new), self._saved_running.pop(name))
            self._running[name] = new if so_far is None else so_far.merge(new)

    def read(self) -> None:
        """Turn the scalars taken in so far into points of their series."""
        if self._names is None or not self._pending:
            return
        scalars, pending = self._names[0], self._pending
        self._pending = []
        steps = [step for step, _ in pending]
        read = {name: _numbers([metrics[name] for _, metrics in pending]) for name in scalars}
        for name, numbers in read.items():
            self.series.setdefault(name, []).extend(zip(steps, numbers, strict=True))
        if self.keeps_rows and scalars:
            rows = zip(*read.values(), strict=True)
            self._rows += [(step, dict(zip(scalars, row, strict=True))) for step, row in zip(steps, rows, strict=True)]

    def report(self, step: int) -> dict[str, Any]:
        """What the metric objects have gathered, as points at `step`; they begin anew."""
        self.read()
        found = {name: computed(metric) for name, metric in self._running.items()}
        self._running.clear()
        self._store(step, found)
        return found

    def put(self, step: int, figures: Mapping[str, Any]) -> None:
        """Points at `step`, of any names."""
        self.read()
        self._store(step, {name: plain(value) for name, value in figures.items()})

    def _store(self, step: int, row: dict[str, Any]) -> None:
        for name, value in row.items():
            points = self.series.setdefault(name, [])
            if points and points[-1][0] == step:
                points.pop()
            points.append((step, value))
        if row and self.keeps_rows:
            self._rows.append((step, row))

    def means(self, after: int) -> dict[str, float]:
        """The mean of each scalar that the step returned over the steps beyond `after`."""
        self.read()
        found = {}
        for name in self._names[0] if self._names is not None else ():
            recent = [value for step, value in reversed(self.series[name][-MOST_AVERAGED:]) if step > after]
            if recent:
                found[name] = sum(recent) / len(recent)
        return found

    def shown(self) -> dict[str, float]:
        """The figures to show beside the progress: the last scalars, and what metric objects have gathered."""
        if self._names is None:
            return {}
        values = {name: float(self.last[name]) for name in self._names[0]}
        gathered = {name: computed(metric) for name, metric in self._running.items()}
        return values | {name: value for name, value in gathered.items() if np.ndim(value) == 0}

    def take_rows(self) -> list[tuple[int, dict[str, Any]]]:
        """The rows (step, figures) that came since the last call."""
        self.read()
        rows, self._rows = self._rows, []
        return rows

    # --- what a checkpoint keeps --------------------------------------------------------------------------------------

    def saved(self) -> dict[str, Any]:
        """Everything, as a tree of arrays with plain keys."""
        self.read()
        series = {
            name: {"steps": np.array([s for s, _ in points], np.int64), "values": np.array([v for _, v in points])}
            for name, points in self.series.items()
        }
        running = {name: dict(enumerate(tree.leaves(metric))) for name, metric in self._running.items()}
        waiting = {name: dict(enumerate(leaves)) for name, leaves in self._saved_running.items()}
        return {"series": series, "running": running | waiting}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to what `saved` returned."""
        self.series = {
            name: [(int(s), plain(v)) for s, v in zip(points["steps"], points["values"], strict=True)]
            for name, points in saved.get("series", {}).items()
        }
        self._saved_running = {
            name: [leaves[i] for i in sorted(leaves)] for name, leaves in saved.get("running", {}).items()
        }
        self._running, self._pending, self._rows = {}, [], []


def _numbers(values: list[Any]) -> list[float]:
    """Scalars as Python numbers; from a device they come in one transfer."""
    if knows_devices() and all(map(on_device, values)):
        values = home_of(values).stack(values).get().tolist()
    return [float(value) for value in values]


def is_metric(value: Any) -> bool:
    """Whether `value` is a metric object: something that merges and computes."""
    return hasattr(value, "merge") and hasattr(value, "compute")


def computed(metric: Any) -> Any:
    """The result of a metric object on the host."""
    return plain(metric.compute())


def plain(value: Any) -> Any:
    """A scalar as a Python number, an array as one of NumPy."""
    array = np.asarray(value.get() if on_device(value) else value)
    return float(array) if array.ndim == 0 else array


def _sorted_out(metrics: Any) -> tuple[list[str], list[str]]:
    """The names of the scalars and those of the metric objects."""
    if not isinstance(metrics, Mapping):
        raise ArgumentTypeError(
            f"fit: the step should return (state, metrics) with a dict of metrics, but they are "
            f"{type(metrics).__name__}. Return for example {{'loss': loss}}, or {{}}."
        )
    scalars = [name for name, value in metrics.items() if not is_metric(value)]
    for name in scalars:
        if np.shape(metrics[name]) != ():
            raise ArgumentTypeError(
                f"fit: the metric `{name}` should be a scalar or a metric object such as train.Mean, but is "
                f"{type(metrics[name]).__name__}{list(np.shape(metrics[name]))}."
            )
    return scalars, [name for name in metrics if name not in scalars]
