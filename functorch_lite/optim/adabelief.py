# SPDX-License-Identifier: MIT
"""AdaBelief: Adam that trusts gradients by how near they are to their average."""


import functorch_lite.numpy as fnp
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
    default,
    is_optax,
    zero_count,
    zeros_like,
)
from functorch_lite.optim.descent import descent
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate


def scale_by_belief(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> GradientTransformation:
    """m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps), with s = b2 s + (1 - b2) (g - m)^2 + eps."""
    check_range("adabelief", "b1", b1, 0.0, 1.0)
    check_range("adabelief", "b2", b2, 0.0, 1.0)
    check_at_least("adabelief", "eps", eps, 0.0)

    def begin(state, params):
        count = state.count + 1
        c1, c2 = 1.0 / bias_correction(b1, count), 1.0 / bias_correction(b2, count)

        def each(g, p, m, s):
            m = average(b1, g, m)
            s = average(b2, (g - m) * (g - m), s) + eps
            return cast(c1, m) * m / (fnp.sqrt(cast(c2, s) * s) + eps), m, s

        return Leafwise(each, (state.mean, state.square), lambda m, s: AdamState(count, m, s, None))

    return GradientTransformation(
        lambda params: AdamState(zero_count(params), zeros_like(params), zeros_like(params), None),
        LeafwiseUpdate(begin),
    )


def adabelief(
    learning_rate: float | Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float | None = None,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate (scale_by_belief(g) + weight_decay p).

        m = b1 m + (1 - b1) g          s = b2 s + (1 - b2) (g - m)^2 + eps
        p = p - learning_rate (m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps) + weight_decay p)

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1). eps: at least 0, by default 1e-8, with
    compat="optax" 1e-16. weight_decay: at least 0, on the leaves `where` selects (see `add_decayed_weights`).

    Raises ArgumentError for values outside these ranges.

    Source: J. Zhuang and others, arXiv:2010.07468, algorithm 2.

    >>> import numpy as np
    >>> opt = adabelief(0.1)
    >>> p, state = opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))
    >>> bool(p[0] < 0.95)
    True
    """
    eps = default(eps, 1e-8, 1e-16, is_optax("adabelief", compat))
    return descent(
        scale_by_belief(b1, b2, eps),
        learning_rate=learning_rate, weight_decay=weight_decay, where=where, decoupled=True,
    )  # fmt: skip
