# SPDX-License-Identifier: MIT
"""LARS: gradient descent for large batches, with a rate for each leaf."""

import functorch_lite.numpy as fnp
from functorch_lite.nn.select import Where, mask, trainable_mask
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    Schedule,
    check_at_least,
    check_positive,
    check_range,
    is_optax,
    map_updates,
    need_params,
    stateless,
)
from functorch_lite.optim.chain import chain
from functorch_lite.optim.scale import scale_by_learning_rate
from functorch_lite.optim.sgd import trace
from functorch_lite.optim.trust import leaf_norm, ratio


def scale_by_lars(
    trust: float = 1e-3,
    weight_decay: float = 0.0,
    eps: float = 0.0,
    where: Where = None,
    *,
    compat: Compat = "torch",
) -> GradientTransformation:
    """trust |p| / (|g| + weight_decay |p| + eps) (g + weight_decay p) for each leaf that `where` selects, g elsewhere.

    compat="optax": u = g + weight_decay p, times trust |p| / (|u| + eps), or 1 where |p| or |u| is 0.
    """
    optax = is_optax("lars", compat)
    check_positive("lars", "trust", trust)
    check_at_least("lars", "weight_decay", weight_decay, 0.0)
    check_at_least("lars", "eps", eps, 0.0)

    def scaled(g, p, adapt):
        if not adapt:
            return g
        if optax:
            return as_in_optax(g + weight_decay * p, p)
        of_p, of_g = leaf_norm(p), leaf_norm(g)
        local = trust * ratio(of_p, of_g + weight_decay * of_p + eps)
        return local * (g + weight_decay * p)

    def as_in_optax(u, p):
        of_p, of_u = leaf_norm(p), leaf_norm(u)
        usable = (of_p > 0) & (of_u > 0)
        return u * fnp.where(usable, trust * of_p / fnp.where(usable, of_u + eps, 1), 1).astype(u.dtype)

    def update(grads, params):
        need_params("lars", params)
        selected = trainable_mask(params) if where is None else mask(params, where)
        return map_updates(scaled, grads, params, selected)

    return stateless(update)


def lars(
    learning_rate: float | Schedule,
    momentum: float = 0.9,
    *,
    trust: float = 1e-3,
    weight_decay: float = 0.0,
    eps: float = 0.0,
    where: Where = None,
    compat: Compat = "torch",
) -> GradientTransformation:
    """Momentum descent whose rate for each leaf grows with |p| / |g|.

        local = trust |p| / (|g| + weight_decay |p| + eps)          (|p| / ... is 1 where either is 0)
        v = momentum v + learning_rate local (g + weight_decay p)          p = p - v

    learning_rate: at least 0, or a schedule. momentum in [0, 1). trust above 0. weight_decay, eps: at least 0. where:
    the leaves that are scaled and decay, as in `add_decayed_weights`; the others (biases, normalizations) take g as it
    is. compat="optax": local = trust |p| / (|g + weight_decay p| + eps), and 1 where either norm is 0.

    Raises ArgumentError for values outside these ranges.

    Source: Y. You, I. Gitman, B. Ginsburg, arXiv:1708.03888, algorithm 1.

    >>> import numpy as np
    >>> opt = lars(1.0, trust=0.1)
    >>> opt.step(np.array([3.0]), np.array([7.0]), opt.init(np.array([3.0])))[0].round(6)
    array([2.7])
    """
    check_range("lars", "momentum", momentum, 0.0, 1.0)
    return chain(
        scale_by_lars(trust, weight_decay, eps, where, compat=compat),
        scale_by_learning_rate(learning_rate),
        trace(momentum),
    )
