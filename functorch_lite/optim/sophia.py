# SPDX-License-Identifier: MIT
"""Sophia: momentum divided by an estimate of the Hessian's diagonal, cut elementwise.

The estimate is made every ten steps or so, outside of the step:

    params, state = opt.step(params, grads, state)
    if i % 10 == 0:
        state = optim.observe_hessian(state, optim.hutchinson(loss, params, key))
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import random, tree
from functorch_lite.nn.select import Where
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    Params,
    Schedule,
    bias_correction,
    cast,
    check_positive,
    check_range,
    default,
    is_optax,
    map_state,
    map_updates,
    moving_average,
    zero_count,
    zeros_like,
)
from functorch_lite.optim.descent import descent
from functorch_lite.transforms import hvp


class SophiaState(NamedTuple):
    """count: steps taken, int64 []; b2: the decay of `hessian`, float64 []; mean: running average of g, hessian: that
    of the estimates of the diagonal, both like the parameters."""

    count: Any
    b2: Any
    mean: Any
    hessian: Any


def scale_by_sophia(
    b1: float = 0.965, b2: float = 0.99, *, gamma: float = 0.01, eps: float = 1e-12, bound: float = 1.0
) -> GradientTransformation:
    """clip(m / (1 - b1^t) / max(gamma h, eps), -bound, bound), with m = b1 m + (1 - b1) g."""
    check_range("sophia", "b1", b1, 0.0, 1.0)
    check_range("sophia", "b2", b2, 0.0, 1.0)
    for name, value in {"gamma": gamma, "eps": eps, "bound": bound}.items():
        check_positive("sophia", name, value)

    def init(params):
        count = zero_count(params)
        return SophiaState(count, count.astype(fnp.float64) + b2, zeros_like(params), zeros_like(params))

    def update(grads, state, params=None):
        count = state.count + 1
        mean = moving_average(b1, grads, state.mean)
        correction = bias_correction(b1, count)

        def cut(g, m, h):
            # m / d in [-bound, bound] without dividing, for d may be as small as eps.
            m = m / cast(correction, m)
            d = fnp.maximum(gamma * h, eps)
            inside = fnp.abs(m) < bound * d
            return fnp.where(inside, m / fnp.where(inside, d, fnp.ones_like(d)), bound * fnp.sign(m))

        return map_updates(cut, grads, mean, state.hessian), SophiaState(count, state.b2, mean, state.hessian)

    return GradientTransformation(init, update)


def sophia(
    learning_rate: float | Schedule = 1e-4,
    b1: float = 0.965,
    b2: float = 0.99,
    *,
    gamma: float = 0.01,
    eps: float | None = None,
    bound: float = 1.0,
    weight_decay: float | None = None,
    where: Where = None,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate (scale_by_sophia(g) + weight_decay p); `observe_hessian` gives it the curvature.

        m = b1 m + (1 - b1) g          h = b2 h + (1 - b2) estimate          (h when an estimate is observed)
        p = p - learning_rate (clip(m / (1 - b1^t) / max(gamma h, eps), -bound, bound) + weight_decay p)

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1). gamma, eps, bound: above 0; gamma so that
    between a tenth and a half of the elements are not cut. weight_decay: at least 0, on the leaves `where` selects (see
    `add_decayed_weights`). eps and weight_decay are 1e-12 and 0.1 by default, with compat="optax" 1e-8 and 1e-4.
    Before the first estimate h is 0 and the step is that of the sign of m.

    Raises ArgumentError for values outside these ranges.

    Source: H. Liu and others, arXiv:2305.14342, algorithm 3.

    >>> import numpy as np
    >>> opt = sophia(0.1, weight_decay=0.0)
    >>> p = np.array([1.0])
    >>> state = observe_hessian(opt.init(p), np.array([4e4]))
    >>> opt.step(p, np.array([2.0]), state)[0].round(3)
    array([0.95])
    """
    optax = is_optax("sophia", compat)
    eps, weight_decay = default(eps, 1e-12, 1e-8, optax), default(weight_decay, 0.1, 1e-4, optax)
    scaled = scale_by_sophia(b1, b2, gamma=gamma, eps=eps, bound=bound)
    return descent(scaled, learning_rate=learning_rate, weight_decay=weight_decay, where=where, decoupled=True)


def observe_hessian(state: Any, estimate: Any) -> Any:
    """`state`, an optimizer's with `SophiaState` somewhere in it, whose averages have taken in an estimate of the
    diagonal.

    estimate: like the parameters, such as `hutchinson` gives.
    """
    return tree.map(
        lambda part: _observed(part, estimate) if isinstance(part, SophiaState) else part,
        state,
        is_leaf=lambda part: isinstance(part, SophiaState),
    )


def _observed(state: SophiaState, estimate: Any) -> SophiaState:
    b2 = state.b2
    hessian = map_state(lambda e, h: cast(b2, h) * h + cast(1 - b2, h) * e, estimate, state.hessian)
    return state._replace(hessian=hessian)


def hutchinson(loss: Callable[[Params], Any], params: Params, key: Any) -> Params:
    """u * (H u) for random signs u: its mean over keys is the diagonal of the Hessian of `loss` at `params`.

    >>> import numpy as np, functorch_lite as fl
    >>> hutchinson(lambda p: (p**2).sum(), np.ones(2), fl.random.key(0))
    array([2., 2.])
    """
    leaves, treedef = tree.flatten(params)
    keys = random.split(key, len(leaves))
    signs = tree.unflatten(treedef, [random.rademacher(k, p.shape, p.dtype) for k, p in zip(keys, leaves, strict=True)])
    return tree.map(fnp.multiply, signs, hvp(loss, (params,), (signs,)))
