# SPDX-License-Identifier: MIT
"""Rprop: steps from the signs of the gradients alone; for full batches, not for noisy gradients."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.base import (
    GradientTransformation,
    check_at_least,
    check_positive,
    map_state,
    map_updates,
    zeros_like,
)


class RpropState(NamedTuple):
    """previous: the gradients of the step before, 0 where the sign had turned; size: the sizes of the steps; both like
    the parameters."""

    previous: Any
    size: Any


def rprop(
    learning_rate: float = 1e-2,
    *,
    shrink: float = 0.5,
    grow: float = 1.2,
    smallest: float = 1e-6,
    largest: float = 50.0,
) -> GradientTransformation:
    """p - sign(g) size, where each size grows while its sign stays and shrinks when it turns. As torch.optim.Rprop.

        s = g g_previous
        size = clip(size * (grow if s > 0, shrink if s < 0, else 1), smallest, largest)
        g = 0 where s < 0          p = p - sign(g) size          g_previous = g

    learning_rate: the first size of every step, at least 0 (no schedule: sizes set themselves). shrink in (0, 1), grow
    above 1. smallest, largest: bounds of the sizes, 0 < smallest <= largest.

    Raises ArgumentError for values outside these ranges.

    Source: M. Riedmiller, H. Braun, "A direct adaptive method for faster backpropagation learning", ICNN 1993.

    >>> import numpy as np
    >>> opt = rprop(0.1)
    >>> p, state = opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))
    >>> opt.step(p, np.array([2.0]), state)[0]
    array([0.78])
    """
    _check(learning_rate, shrink, grow, smallest, largest)

    def init(params):
        return RpropState(zeros_like(params), tree.map(lambda p: fnp.full_like(p, learning_rate), params))

    def resize(g, size, previous):
        turn = g * previous
        factor = fnp.where(turn > 0, grow, fnp.where(turn < 0, shrink, 1.0)).astype(g.dtype)
        return fnp.clip(size * factor, smallest, largest)

    def update(grads, state, params=None):
        size = map_state(resize, grads, state.size, state.previous)
        kept = map_state(lambda g, last: fnp.where(g * last < 0, fnp.zeros_like(g), g), grads, state.previous)
        return map_updates(lambda g, k, s: -fnp.sign(k) * s, grads, kept, size), RpropState(kept, size)

    return GradientTransformation(init, update)


def _check(learning_rate: float, shrink: float, grow: float, smallest: float, largest: float) -> None:
    check_at_least("rprop", "learning_rate", learning_rate, 0.0)
    check_positive("rprop", "smallest", smallest)
    check_at_least("rprop", "largest", largest, smallest)
    known = isinstance(shrink, int | float) and isinstance(grow, int | float)
    if known and not 0.0 < shrink < 1.0 < grow:
        raise ArgumentError(f"rprop: `shrink` and `grow` should be in (0, 1) and above 1, but are {shrink} and {grow}.")
