# SPDX-License-Identifier: MIT
"""Figures of a state over a whole data set."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.errors import ArgumentError
from functorch_lite.train.history import computed, is_metric


def evaluate(
    step: Callable[[Any, Any], Mapping[str, Any]], state: Any, batches: Iterable[Any] | Callable[[], Iterable[Any]]
) -> dict[str, Any]:
    """`step(state, batch)`, a dict of metrics, taken together over all batches; numbers on the host, by name.

    Metric objects such as `train.Accuracy` are merged, so the result is exact. Plain scalars are averaged, each
    weighted with the number of examples in its batch: the length of the batch's first leaf. batches: an iterable, or a
    function without arguments that returns one.

    Raises ArgumentError when there are no batches.

    >>> evaluate(lambda w, x: {"loss": ((x - w) ** 2).mean()}, 1.0, [np.array([1.0, 3.0]), np.array([4.0])])
    {'loss': 4.333333333333333}
    """
    metrics: dict[str, Any] = {}
    sums: dict[str, Any] = {}
    n = 0
    for batch in batches() if callable(batches) else batches:
        size = _n_examples(batch)
        n += size
        for name, value in step(state, batch).items():
            if is_metric(value):
                metrics[name] = metrics[name].merge(value) if name in metrics else value
            else:
                sums[name] = sums.get(name, 0.0) + size * float(value)
    if n == 0:
        raise ArgumentError("evaluate: there are no batches, or no examples in them.")
    return {name: total / n for name, total in sums.items()} | {name: computed(m) for name, m in metrics.items()}


def _n_examples(batch: Any) -> int:
    leaves = [leaf for leaf in tree.leaves(batch) if np.ndim(leaf)]
    return leaves[0].shape[0] if leaves else 1
