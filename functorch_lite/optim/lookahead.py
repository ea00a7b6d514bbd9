# SPDX-License-Identifier: MIT
"""Lookahead: slow parameters that follow fast ones."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.base import (
    GradientTransformation,
    check_at_least,
    map_state,
    map_updates,
    need_params,
    zero_count,
)


class LookaheadState(NamedTuple):
    """count: steps taken, int64 []; slow: the slow parameters, like the parameters; inner: the state of the
    optimizer."""

    count: Any
    slow: Any
    inner: Any


def lookahead(opt: GradientTransformation, every: int = 5, share: float = 0.5) -> GradientTransformation:
    """`opt`, whose parameters go back to slow + share (p - slow) at each `every`-th step; that is the new slow.

    every: at least 1; share in (0, 1], else ArgumentError. The state of `opt` goes on.

    Source: M. Zhang and others, arXiv:1907.08610, algorithm 1.

    >>> import numpy as np
    >>> from functorch_lite import optim
    >>> opt = optim.lookahead(optim.sgd(1.0), every=2)
    >>> p, state = np.array([4.0]), opt.init(np.array([4.0]))
    >>> for _ in range(2):
    ...     p, state = opt.step(p, np.array([1.0]), state)
    >>> p
    array([3.])
    """
    check_at_least("lookahead", "every", every, 1)
    if isinstance(share, int | float) and not 0.0 < share <= 1.0:
        raise ArgumentError(f"lookahead: `share` should be in (0, 1], but is {share}.")

    def init(params):
        return LookaheadState(zero_count(params), tree.map(fnp.positive, params), opt.init(params))

    def update(grads, state, params=None):
        need_params("lookahead", params)
        count = state.count + 1
        meet = count % every == 0
        updates, inner = opt.update(grads, state.inner, params)
        slow = map_state(lambda u, s, p: fnp.where(meet, s + share * (p + u - s), s), updates, state.slow, params)
        updates = map_updates(lambda u, s, p: fnp.where(meet, s - p, u), updates, slow, params)
        return updates, LookaheadState(count, slow, inner)

    return GradientTransformation(init, update)
