# SPDX-License-Identifier: MIT
"""One step for several minibatches."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.optim.base import (
    GradientTransformation,
    cast,
    check_at_least,
    map_state,
    map_updates,
    present,
    zero_count,
    zeros_like,
)


class AccumulateState(NamedTuple):
    """count: gradients taken in since the last step, int64 []; mean: their mean, like the parameters; inner: the state
    of the optimizer."""

    count: Any
    mean: Any
    inner: Any


def accumulate(opt: GradientTransformation, every: int) -> GradientTransformation:
    """`opt` on the mean of `every` gradients, at each `every`-th call; updates are 0 at the others.

    every: at least 1, else ArgumentError. Schedules of `opt` count its steps, not the calls.

    >>> import numpy as np
    >>> from functorch_lite import optim
    >>> opt = optim.accumulate(optim.sgd(1.0), every=2)
    >>> p, state = np.array([1.0]), opt.init(np.array([1.0]))
    >>> for g in (0.5, 1.5):
    ...     p, state = opt.step(p, np.array([g]), state)
    >>> p
    array([0.])
    """
    check_at_least("accumulate", "every", every, 1)

    def init(params):
        return AccumulateState(zero_count(params), zeros_like(params), opt.init(params))

    def update(grads, state, params=None):
        grads = present(grads)
        count = state.count + 1
        share = 1.0 / fnp.asarray(count, dtype=fnp.float64)
        mean = map_state(lambda g, m: m + (g - m) * cast(share, g), grads, state.mean)

        def step(mean, inner):
            updates, inner = opt.update(map_updates(lambda g, m: m, grads, mean), inner, params)
            updates = map_updates(lambda g, u: fnp.asarray(u, dtype=g.dtype), grads, updates)
            return updates, zeros_like(mean), inner

        def wait(mean, inner):
            return map_updates(fnp.zeros_like, grads), mean, inner

        full = count >= every
        updates, mean, inner = lax.cond(full, step, wait, mean, state.inner)
        return updates, AccumulateState(fnp.where(full, 0, count), mean, inner)

    return GradientTransformation(init, update)
