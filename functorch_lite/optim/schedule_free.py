# SPDX-License-Identifier: MIT
"""Schedule-free learning: interpolation and averaging in place of momentum and of a decaying learning rate.

The parameters that are trained are y, where gradients are taken; those to evaluate and keep are x:

    z = z - update(g(y))          x = (1 - c) x + c z          y = b1 x + (1 - b1) z

Source: A. Defazio and others, "The road less scheduled", arXiv:2405.15682.
"""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.select import Where
from functorch_lite.optim.adamw import adamw
from functorch_lite.optim.base import (
    GradientTransformation,
    Params,
    Schedule,
    cast,
    check_at_least,
    map_state,
    map_updates,
    need_params,
    rate_at,
    zero_count,
)
from functorch_lite.optim.sgd import sgd


class ScheduleFreeState(NamedTuple):
    """count: steps taken, int64 []; b1, weight (sum of the weights), peak (largest learning rate so far): float64 [];
    z: the iterates, like the parameters; inner: the state of the optimizer that moves them."""

    count: Any
    b1: Any
    weight: Any
    peak: Any
    z: Any
    inner: Any


def schedule_free(
    opt: GradientTransformation, learning_rate: float | Schedule, b1: float = 0.9, *, weight_power: float = 2.0
) -> GradientTransformation:
    """`opt`, which should have no momentum of its own, on the iterates z; parameters are y.

    c = w / (sum of all w), with w = (largest learning rate so far)^weight_power. learning_rate: that of `opt`, which
    weighs the average. b1: in (0, 1), how near y is to the average x. `schedule_free_params` gives x.

    Raises ArgumentError for a b1 outside (0, 1), or a weight_power or learning_rate below 0.

    >>> import numpy as np
    >>> from functorch_lite import optim
    >>> opt = optim.schedule_free(optim.rmsprop(0.1), 0.1)
    """
    if isinstance(b1, int | float) and not 0.0 < b1 < 1.0:
        raise ArgumentError(f"schedule_free: `b1` should be in (0, 1), but is {b1}.")
    check_at_least("schedule_free", "learning_rate", learning_rate, 0.0)
    check_at_least("schedule_free", "weight_power", weight_power, 0.0)

    def init(params):
        count = zero_count(params)
        zero = count.astype(fnp.float64)
        return ScheduleFreeState(count, zero + b1, zero, zero, tree.map(fnp.positive, params), opt.init(params))

    def update(grads, state, params=None):
        need_params("schedule_free", params)
        peak = fnp.maximum(state.peak, rate_at(learning_rate, state.count))
        weight = peak**weight_power
        total = state.weight + weight
        c = weight / fnp.where(total > 0, total, 1.0)
        moves, inner = opt.update(grads, state.inner, params)
        z = map_state(lambda u, old: (old + u).astype(old.dtype), moves, state.z)

        def step(u, y, old, new):
            x = (y - (1 - b1) * old) / b1
            return b1 * (x + cast(c, x) * (new - x)) + (1 - b1) * new - y

        updates = map_updates(step, moves, params, state.z, z)
        return updates, ScheduleFreeState(state.count + 1, state.b1, total, peak, z, inner)

    return GradientTransformation(init, update)


def schedule_free_params(state: ScheduleFreeState, params: Params) -> Params:
    """The averaged parameters x, to evaluate and to keep, from the trained ones y: (y - (1 - b1) z) / b1."""
    b1 = state.b1
    return tree.map(lambda y, z: ((y - cast(1 - b1, y) * z) / cast(b1, y)).astype(y.dtype), params, state.z)


def schedule_free_sgd(
    learning_rate: float | Schedule = 1.0,
    b1: float = 0.9,
    *,
    weight_decay: float = 0.0,
    weight_power: float = 2.0,
) -> GradientTransformation:
    """Schedule-free gradient descent: z = z - learning_rate (g(y) + weight_decay y).

    learning_rate: at least 0, or a schedule that warms up and does not decay. See `schedule_free`.

    >>> import numpy as np
    >>> opt = schedule_free_sgd(0.1)
    >>> p = np.array([1.0])
    >>> p, state = opt.step(p, np.array([5.0]), opt.init(p))
    >>> schedule_free_params(state, p).round(6)
    array([0.5])
    """
    return schedule_free(sgd(learning_rate, weight_decay=weight_decay), learning_rate, b1, weight_power=weight_power)


def schedule_free_adamw(
    learning_rate: float | Schedule = 2.5e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
    weight_power: float = 2.0,
) -> GradientTransformation:
    """Schedule-free AdamW: z = z - learning_rate (g(y) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay y).

    v = b2 v + (1 - b2) g^2. learning_rate: at least 0, or a schedule that warms up and does not decay. b2 in [0, 1),
    eps and weight_decay at least 0; decay on the leaves `where` selects. See `schedule_free`.

    >>> import numpy as np
    >>> opt = schedule_free_adamw(0.1)
    >>> p = np.array([1.0])
    >>> p, state = opt.step(p, np.array([5.0]), opt.init(p))
    >>> schedule_free_params(state, p).round(6)
    array([0.9])
    """
    check_at_least("schedule_free_adamw", "eps", eps, 0.0)
    inner = adamw(learning_rate, 0.0, b2, eps, weight_decay=weight_decay, where=where)
    return schedule_free(inner, learning_rate, b1, weight_power=weight_power)
