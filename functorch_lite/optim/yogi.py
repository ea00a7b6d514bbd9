# SPDX-License-Identifier: MIT
"""Yogi: Adam whose average of squares grows and shrinks at a bounded pace."""


import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.nn.select import Where
from functorch_lite.optim.adam import AdamState
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    Schedule,
    average,
    bias_correction,
    cast,
    check_at_least,
    check_range,
    is_optax,
    zero_count,
)
from functorch_lite.optim.descent import descent
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate


def scale_by_yogi(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3, initial: float = 1e-6, *, compat: Compat = "torch"
) -> GradientTransformation:
    """m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), with v = v - (1 - b2) sign(v - g^2) g^2, `initial` at first.

    compat="optax": m is `initial` at first too.
    """
    optax = is_optax("yogi", compat)
    check_range("yogi", "b1", b1, 0.0, 1.0)
    check_range("yogi", "b2", b2, 0.0, 1.0)
    check_at_least("yogi", "eps", eps, 0.0)
    check_at_least("yogi", "initial", initial, 0.0)

    def init(params):
        first = (initial if optax else 0.0, initial)
        mean, square = (tree.map(lambda p, x=x: fnp.full_like(p, x), params) for x in first)
        return AdamState(zero_count(params), mean, square, None)

    def begin(state, params):
        count = state.count + 1
        c1, c2 = 1.0 / bias_correction(b1, count), 1.0 / bias_correction(b2, count)

        def each(g, p, m, v):
            m, v = average(b1, g, m), v - (1 - b2) * fnp.sign(v - g * g) * (g * g)
            return cast(c1, m) * m / (fnp.sqrt(cast(c2, v) * v) + eps), m, v

        return Leafwise(each, (state.mean, state.square), lambda m, v: AdamState(count, m, v, None))

    return GradientTransformation(init, LeafwiseUpdate(begin))


def yogi(
    learning_rate: float | Schedule = 1e-2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    *,
    initial: float = 1e-6,
    weight_decay: float = 0.0,
    where: Where = None,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate * scale_by_yogi(g + weight_decay p).

        m = b1 m + (1 - b1) g          v = v - (1 - b2) sign(v - g^2) g^2
        p = p - learning_rate m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1). eps, initial (the first v), weight_decay: at
    least 0; decay on the leaves `where` selects (see `add_decayed_weights`). The paper leaves the corrections
    1 - b^t out; TensorFlow Addons and Optax have them. compat="optax": the first m is `initial` too.

    Raises ArgumentError for values outside these ranges.

    Source: M. Zaheer and others, "Adaptive methods for nonconvex optimization", NeurIPS 2018.

    >>> import numpy as np
    >>> opt = yogi(0.1)
    >>> p, state = opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))
    >>> p.round(3)
    array([0.9])
    """
    scaled = scale_by_yogi(b1, b2, eps, initial, compat=compat)
    return descent(scaled, learning_rate=learning_rate, weight_decay=weight_decay, where=where)
