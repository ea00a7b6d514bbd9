# SPDX-License-Identifier: MIT
"""Steps left out where a gradient is not finite."""

import functools
import operator
from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import lax, tree
from functorch_lite.optim.base import (
    GradientTransformation,
    check_at_least,
    map_updates,
    present,
    zero_count,
)


class SkipState(NamedTuple):
    """consecutive, total: steps left out in a row until now, and in all, int64 []; inner: the state of the
    optimizer."""

    consecutive: Any
    total: Any
    inner: Any


def skip_nonfinite(opt: GradientTransformation, max_consecutive: int = 10) -> GradientTransformation:
    """`opt`, whose parameters and state stay where a gradient has an infinity or a NaN.

    After `max_consecutive` (at least 0, else ArgumentError) steps left out in a row the gradients are let through, so
    that a model that is lost is seen to be. Read `state.consecutive` and `state.total` to watch it.

    >>> import numpy as np
    >>> from functorch_lite import optim
    >>> opt = optim.skip_nonfinite(optim.sgd(1.0))
    >>> p, state = opt.step(np.array([1.0]), np.array([np.nan]), opt.init(np.array([1.0])))
    >>> p, int(state.total)
    (array([1.]), 1)
    """
    check_at_least("skip_nonfinite", "max_consecutive", max_consecutive, 0)

    def init(params):
        count = zero_count(params)
        return SkipState(count, count, opt.init(params))

    def update(grads, state, params=None):
        grads = present(grads)
        finite = all_finite(grads)
        consecutive = fnp.where(finite, 0, state.consecutive + 1)

        def step(grads, inner):
            updates, inner = opt.update(grads, inner, params)
            return map_updates(lambda g, u: fnp.asarray(u, dtype=g.dtype), grads, updates), inner

        def stay(grads, inner):
            return map_updates(fnp.zeros_like, grads), inner

        through = finite | (consecutive > max_consecutive)
        updates, inner = lax.cond(through, step, stay, grads, state.inner)
        return updates, SkipState(consecutive, state.total + fnp.where(through, 0, 1), inner)

    return GradientTransformation(init, update)


def all_finite(grads: Any) -> Any:
    """Whether the gradients hold no infinity and no NaN: a boolean []."""
    finite = [fnp.all(fnp.isfinite(g)) for g in tree.leaves(grads)]
    return functools.reduce(operator.and_, finite) if finite else fnp.ones((), bool)
