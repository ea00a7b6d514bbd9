# SPDX-License-Identifier: MIT
"""Averages of the parameters along the way: exponential (EMA) and equal (SWA).

Both are the last link of a chain, pass the updates on, and keep the average of the parameters after them:

    opt = optim.chain(optim.adam(1e-3), optim.ema(0.999))
    ...
    model = state[-1].average
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.optim.base import (
    GradientTransformation,
    cast,
    check_at_least,
    check_range,
    map_state,
    need_params,
    zero_count,
)


class AverageState(NamedTuple):
    """count: steps taken, int64 []; average: of the parameters, like the parameters."""

    count: Any
    average: Any


def ema(decay: float = 0.999) -> GradientTransformation:
    """average = decay average + (1 - decay) p after each step; after the first it is p itself. As torch's
    `get_ema_avg_fn`.

    decay: in [0, 1), else ArgumentError.

    >>> import numpy as np
    >>> from functorch_lite import optim
    >>> opt = optim.chain(optim.sgd(1.0), optim.ema(0.5))
    >>> p, state = np.array([4.0]), opt.init(np.array([4.0]))
    >>> for _ in range(3):
    ...     p, state = opt.step(p, np.array([1.0]), state)
    >>> p, state[-1].average
    (array([1.]), array([1.75]))
    """
    check_range("ema", "decay", decay, 0.0, 1.0)
    return _average("ema", lambda count: fnp.where(count == 0, 1.0, 1.0 - decay))


def swa(start: int = 0, every: int = 1) -> GradientTransformation:
    """The plain mean of p after step `start` and each `every`-th one from there; p itself before. As torch's
    `AveragedModel`.

    start: the number of steps taken before the first one averaged, at least 0; every: at least 1, else ArgumentError.
    A model with BatchNorm needs its statistics taken again with the averaged weights.

    Source: P. Izmailov and others, arXiv:1803.05407.

    >>> import numpy as np
    >>> from functorch_lite import optim
    >>> opt = optim.chain(optim.sgd(1.0), optim.swa(start=1))
    >>> p, state = np.array([4.0]), opt.init(np.array([4.0]))
    >>> for _ in range(3):
    ...     p, state = opt.step(p, np.array([1.0]), state)
    >>> p, state[-1].average
    (array([1.]), array([1.5]))
    """
    check_at_least("swa", "start", start, 0)
    check_at_least("swa", "every", every, 1)

    def share(count):
        past = fnp.maximum(count - start, 0)
        taken = 1.0 / (1.0 + fnp.asarray(past // every, dtype=fnp.float64))
        return fnp.where(count <= start, 1.0, fnp.where(past % every == 0, taken, 0.0))

    return _average("swa", share)


def _average(name: str, share: Callable[[Any], Any]) -> GradientTransformation:
    """average + share(count) (p - average), p after the updates, count that of the steps before."""

    def update(updates, state, params=None):
        need_params(name, params)
        weight = share(state.count)

        def averaged(u, a, p):
            new = (p + u).astype(p.dtype)
            # Exactly p where the weight is 1: a + (p - a) would round.
            return fnp.where(weight == 1.0, new, a + cast(weight, a) * (new - a))

        average = map_state(averaged, updates, state.average, params)
        return updates, AverageState(state.count + 1, average)

    return GradientTransformation(
        lambda params: AverageState(zero_count(params), tree.map(fnp.positive, params)), update
    )
