# SPDX-License-Identifier: MIT
"""RAdam: Adam whose scaling is held back while too few gradients have been seen to trust their variance."""

from typing import Any

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
    is_optax,
    zero_count,
    zeros_like,
)
from functorch_lite.optim.descent import descent
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate

TRUSTED = 5.0
"""Above this length of the average its variance is finite, and the scaling is used."""


def scale_by_radam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, *, compat: Compat = "torch"
) -> GradientTransformation:
    """m / (1 - b1^t), times r_t sqrt(1 - b2^t) / (sqrt(v) + eps) where rho_t > 5; `radam` has the equations."""
    optax = is_optax("radam", compat)
    check_range("radam", "b1", b1, 0.0, 1.0)
    check_range("radam", "b2", b2, 0.0, 1.0)
    check_at_least("radam", "eps", eps, 0.0)

    def begin(state, params):
        count = state.count + 1
        c1, c2 = bias_correction(b1, count), bias_correction(b2, count)
        trusted, factor = _rectification(b2, count, c2)
        root = fnp.sqrt(c2)
        factor, of_v = (factor, 1.0 / root) if optax else (factor * root, 1.0)
        of_m = 1.0 / c1

        def each(g, p, m, v):
            m, v = average(b1, g, m), average(b2, g * g, v)
            scaling = fnp.where(trusted, cast(factor, v) / (cast(of_v, v) * fnp.sqrt(v) + eps), fnp.ones_like(v))
            return cast(of_m, m) * m * scaling, m, v

        return Leafwise(each, (state.mean, state.square), lambda m, v: AdamState(count, m, v, None))

    return GradientTransformation(
        lambda params: AdamState(zero_count(params), zeros_like(params), zeros_like(params), None),
        LeafwiseUpdate(begin),
    )


def _rectification(b2: Any, count: Any, correction: Any) -> tuple[Any, Any]:
    """Whether rho_t is above 5, and r_t (any finite number where it is not)."""
    longest = 2.0 / (1.0 - b2) - 1.0
    length = longest - 2.0 * count * (1.0 - correction) / correction
    trusted = length > TRUSTED
    length = fnp.where(trusted, length, TRUSTED)
    below = fnp.maximum((longest - 4.0) * (longest - 2.0), 1e-12) * length
    return trusted, fnp.sqrt((length - 4.0) * (length - 2.0) * longest / below)


def radam(
    learning_rate: float | Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
    decoupled: bool = False,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate * scale_by_radam(g + weight_decay p). As torch.optim.RAdam.

        m = b1 m + (1 - b1) g     v = b2 v + (1 - b2) g^2     rho = 2 / (1 - b2) - 1
        rho_t = rho - 2 t b2^t / (1 - b2^t)
        r_t = sqrt((rho_t - 4) (rho_t - 2) rho / ((rho - 4) (rho - 2) rho_t))
        p = p - learning_rate m / (1 - b1^t) * (r_t sqrt(1 - b2^t) / (sqrt(v) + eps) if rho_t > 5 else 1)

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1). eps: at least 0. weight_decay: at least 0, on
    the leaves `where` selects (see `add_decayed_weights`); `decoupled` takes it out of the averages, as AdamW does.
    compat="optax": eps is added to sqrt(v / (1 - b2^t)).

    Raises ArgumentError for values outside these ranges.

    Source: L. Liu and others, arXiv:1908.03265.

    >>> import numpy as np
    >>> opt = radam(0.1)
    >>> p, state = opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))
    >>> p
    array([0.5])
    """
    scaled = scale_by_radam(b1, b2, eps, compat=compat)
    return descent(scaled, learning_rate=learning_rate, weight_decay=weight_decay, where=where, decoupled=decoupled)
