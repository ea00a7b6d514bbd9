# SPDX-License-Identifier: MIT
"""RMSprop: steps scaled by a running average of the squared gradient."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite.nn.select import Where
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    Schedule,
    average,
    check_at_least,
    check_range,
    default,
    is_optax,
    is_zero,
    zeros_like,
)
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate
from functorch_lite.optim.scale import scale_by_learning_rate
from functorch_lite.optim.sgd import trace


class RmsState(NamedTuple):
    """square: running average of g^2, like the parameters; mean: that of g (centered) or None."""

    square: Any
    mean: Any


def scale_by_rms(
    alpha: float | None = None, eps: float = 1e-8, *, centered: bool = False, compat: Compat = "torch"
) -> GradientTransformation:
    """g / (sqrt(v) + eps) with v = alpha v + (1 - alpha) g^2; `centered` subtracts the squared mean of g from v.

    alpha is 0.99 by default. compat="optax": g / sqrt(v + eps), and alpha is 0.9 by default.
    """
    optax = is_optax("rmsprop", compat)
    alpha = default(alpha, 0.99, 0.9, optax)
    check_range("rmsprop", "alpha", alpha, 0.0, 1.0)
    check_at_least("rmsprop", "eps", eps, 0.0)

    def init(params):
        return RmsState(zeros_like(params), zeros_like(params) if centered else None)

    def scaled(g, v):
        return g / fnp.sqrt(v + eps) if optax else g / (fnp.sqrt(v) + eps)

    def each(g, p, v, *m):
        v = average(alpha, g * g, v)
        if not centered:
            return scaled(g, v), v
        mean = average(alpha, g, *m)
        return scaled(g, v - mean * mean), v, mean

    def begin(state, params):
        averages = (state.square, state.mean) if centered else (state.square,)
        return Leafwise(each, averages, lambda v, m=None: RmsState(v, m))

    return GradientTransformation(init, LeafwiseUpdate(begin))


def rmsprop(
    learning_rate: float | Schedule = 1e-2,
    alpha: float | None = None,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
    momentum: float = 0.0,
    centered: bool = False,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate * velocity(scale_by_rms(g + weight_decay p)). As torch.optim.RMSprop: eps outside the root.

        v = alpha v + (1 - alpha) g^2          a = alpha a + (1 - alpha) g with `centered`, else 0
        u = momentum u + g / (sqrt(v - a^2) + eps)          p = p - learning_rate u

    learning_rate: at least 0, or a schedule. alpha: decay in [0, 1), 0.99 by default. eps, momentum, weight_decay: at
    least 0; decay on the leaves `where` selects (see `add_decayed_weights`). compat="optax": alpha is 0.9 by default,
    eps inside the root, and u = momentum u + learning_rate g / sqrt(v - a^2 + eps), p = p - u.

    Raises ArgumentError for values outside these ranges.

    Source: T. Hinton, "Neural networks for machine learning", lecture 6e (2012).

    >>> import numpy as np
    >>> opt = rmsprop(0.1, alpha=0.75)
    >>> opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))[0].round(6)
    array([0.8])
    """
    check_at_least("rmsprop", "momentum", momentum, 0.0)
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]
    velocity = [] if is_zero(momentum) else [trace(momentum)]
    scaled, rated = scale_by_rms(alpha, eps, centered=centered, compat=compat), scale_by_learning_rate(learning_rate)
    return chain(*decay, scaled, *([rated, *velocity] if compat == "optax" else [*velocity, rated]))
