# SPDX-License-Identifier: MIT
"""A learning rate that falls when a metric stops improving, as a pure update of a state.

plateau = optim.reduce_on_plateau(1e-3)
watched = plateau.init()
...
watched = plateau.update(watched, validation_loss)
state = optim.set_hyperparameters(state, learning_rate=watched.value)      # of an injected optimizer
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.base import check_at_least, check_range


class PlateauState(NamedTuple):
    """value: the learning rate, best: the best metric so far, float64 []; n_bad: metrics since then that were no
    better, cooldown: metrics still not to be judged, int64 []."""

    value: Any
    best: Any
    n_bad: Any
    cooldown: Any


class Plateau(NamedTuple):
    """init: () -> state. update: (state, metric) -> state; `state.value` is the learning rate from then on."""

    init: Callable[[], PlateauState]
    update: Callable[[PlateauState, Any], PlateauState]


def reduce_on_plateau(
    start: float,
    *,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    relative: bool = True,
    largest_is_best: bool = False,
    cooldown: int = 0,
    lowest: float = 0.0,
    least_change: float = 1e-8,
) -> Plateau:
    """`start`, times `factor` when more than `patience` metrics in a row were no better. torch: ReduceLROnPlateau.

    factor: in [0, 1). threshold: a metric is better when below best (1 - threshold), or best - threshold without
    `relative`; for `largest_is_best` above best (1 + threshold) or best + threshold. cooldown: metrics after a change
    that do not count as bad. lowest: bound of the value. least_change: smaller changes are not made. All at least 0.

    Raises ArgumentError for values outside these ranges.

    >>> plateau = reduce_on_plateau(1.0, patience=1)
    >>> state = plateau.init()
    >>> for metric in (3.0, 3.0, 3.0):
    ...     state = plateau.update(state, metric)
    >>> float(state.value)
    0.1
    """
    check_range("reduce_on_plateau", "factor", factor, 0.0, 1.0)
    counts = {"start": start, "patience": patience, "threshold": threshold, "cooldown": cooldown}
    for name, given in {**counts, "lowest": lowest, "least_change": least_change}.items():
        check_at_least("reduce_on_plateau", name, given, 0)

    def is_better(metric, best):
        # An infinite best times 1 - threshold stays infinite, so the first metric is better than it.
        if largest_is_best:
            return metric > (best * (1.0 + threshold) if relative else best + threshold)
        return metric < (best * (1.0 - threshold) if relative else best - threshold)

    def init():
        worst = -fnp.inf if largest_is_best else fnp.inf
        zero = fnp.zeros((), fnp.int64)
        return PlateauState(_number(start), _number(worst), zero, zero)

    def update(state, metric):
        metric = _number(metric)
        better = is_better(metric, state.best)
        cooling = state.cooldown > 0
        n_bad = fnp.where(better | cooling, 0, state.n_bad + 1)
        reduce = n_bad > patience
        lower = fnp.maximum(state.value * factor, lowest)
        return PlateauState(
            fnp.where(reduce & (state.value - lower > least_change), lower, state.value),
            fnp.where(better, metric, state.best),
            fnp.where(reduce, 0, n_bad),
            fnp.where(reduce, cooldown, fnp.maximum(state.cooldown - 1, 0)),
        )

    return Plateau(init, update)


def _number(value: Any) -> Any:
    if getattr(value, "shape", ()) != ():
        raise ArgumentError(f"reduce_on_plateau: the metric should be a scalar, but has shape {value.shape}.")
    return fnp.asarray(value, dtype=fnp.float64)
