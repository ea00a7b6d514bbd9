# SPDX-License-Identifier: MIT
"""Adamax: Adam with the largest recent gradient in place of the root mean square."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite.nn.select import Where
from functorch_lite.optim.base import (
    GradientTransformation,
    Schedule,
    average,
    bias_correction,
    cast,
    check_at_least,
    check_range,
    zero_count,
    zeros_like,
)
from functorch_lite.optim.descent import descent
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate


class AdamaxState(NamedTuple):
    """count: steps taken, int64 []; mean: running average of g, peak: decayed largest |g|, both like the parameters."""

    count: Any
    mean: Any
    peak: Any


def scale_by_adamax(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> GradientTransformation:
    """m / ((1 - b1^t) u), with m = b1 m + (1 - b1) g and u = max(b2 u, |g| + eps)."""
    check_range("adamax", "b1", b1, 0.0, 1.0)
    check_range("adamax", "b2", b2, 0.0, 1.0)
    check_at_least("adamax", "eps", eps, 0.0)

    def begin(state, params):
        count = state.count + 1
        correction = 1.0 / bias_correction(b1, count)

        def each(g, p, m, u):
            m, u = average(b1, g, m), fnp.maximum(b2 * u, fnp.abs(g) + eps)
            return cast(correction, m) * m / u, m, u

        return Leafwise(each, (state.mean, state.peak), lambda m, u: AdamaxState(count, m, u))

    return GradientTransformation(
        lambda params: AdamaxState(zero_count(params), zeros_like(params), zeros_like(params)), LeafwiseUpdate(begin)
    )


def adamax(
    learning_rate: float | Schedule = 2e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
) -> GradientTransformation:
    """p - learning_rate * scale_by_adamax(g + weight_decay p). As torch.optim.Adamax.

        m = b1 m + (1 - b1) g        u = max(b2 u, |g| + eps)        p = p - learning_rate m / ((1 - b1^t) u)

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1). eps: at least 0. weight_decay: at least 0, on
    the leaves `where` selects (see `add_decayed_weights`). Raises ArgumentError for values outside these ranges.

    Source: D. Kingma, J. Ba, arXiv:1412.6980, section 7.1.

    >>> import numpy as np
    >>> opt = adamax(0.1)
    >>> p, state = opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))
    >>> p
    array([0.9])
    """
    return descent(scale_by_adamax(b1, b2, eps), learning_rate=learning_rate, weight_decay=weight_decay, where=where)
