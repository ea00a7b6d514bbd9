# SPDX-License-Identifier: MIT
"""NovoGrad: gradients scaled by one running norm for each leaf."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.nn.select import Where
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    Schedule,
    check_at_least,
    check_range,
    default,
    is_optax,
    is_zero,
    map_state,
    map_updates,
    zero_count,
)
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.scale import scale_by_learning_rate
from functorch_lite.optim.sgd import trace


class NovogradState(NamedTuple):
    """count: steps taken, int64 []; square: for each leaf the running average of |g|^2, []."""

    count: Any
    square: Any


def scale_by_novograd(b2: float = 0.98, eps: float = 1e-8) -> GradientTransformation:
    """g / (sqrt(v) + eps), with v = b2 v + (1 - b2) |g|^2 for each leaf, the first v is |g|^2."""
    check_range("novograd", "b2", b2, 0.0, 1.0)
    check_at_least("novograd", "eps", eps, 0.0)

    def init(params):
        return NovogradState(zero_count(params), tree.map(lambda p: fnp.sum(fnp.zeros_like(p)), params))

    def update(grads, state, params=None):
        def averaged(g, v):
            norm = fnp.sum(g * g)
            return fnp.where(state.count == 0, norm, b2 * v + (1 - b2) * norm)

        square = map_state(averaged, grads, state.square)
        scaled = map_updates(lambda g, v: g / (fnp.sqrt(v) + eps), grads, square)
        return scaled, NovogradState(state.count + 1, square)

    return GradientTransformation(init, update)


def novograd(
    learning_rate: float | Schedule = 1e-2,
    b1: float | None = None,
    b2: float | None = None,
    eps: float | None = None,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
    compat: Compat = "torch",
) -> GradientTransformation:
    """Momentum descent on gradients scaled leaf by leaf.

        v = b2 v + (1 - b2) |g|^2          (the first v is |g|^2)
        m = b1 m + g / (sqrt(v) + eps) + weight_decay p          p = p - learning_rate m

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1), by default 0.95 and 0.98, the paper's. eps,
    weight_decay: at least 0, by default 1e-8 and 0; decay on the leaves `where` selects (see `add_decayed_weights`).
    compat="optax": b1, b2 and eps are 0.9, 0.25 and 1e-6 by default.

    Raises ArgumentError for values outside these ranges.

    Source: B. Ginsburg and others, arXiv:1905.11286, algorithm 1.

    >>> import numpy as np
    >>> opt = novograd(0.1)
    >>> opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))[0].round(6)
    array([0.9])
    """
    optax = is_optax("novograd", compat)
    b1, b2, eps = default(b1, 0.95, 0.9, optax), default(b2, 0.98, 0.25, optax), default(eps, 1e-8, 1e-6, optax)
    check_range("novograd", "b1", b1, 0.0, 1.0)
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]
    return chain(scale_by_novograd(b2, eps), *decay, trace(b1), scale_by_learning_rate(learning_rate))
