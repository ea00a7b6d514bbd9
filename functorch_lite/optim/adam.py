# SPDX-License-Identifier: MIT
"""Adam: steps scaled by running averages of the gradient and of its square."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite.nn.select import Where
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
    is_zero,
    zero_count,
    zeros_like,
)
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate
from functorch_lite.optim.scale import scale_by_learning_rate


class AdamState(NamedTuple):
    """count: steps taken, int64 []; mean, square: running averages, like the parameters; peak: largest square so far
    (amsgrad) or None."""

    count: Any
    mean: Any
    square: Any
    peak: Any


def scale_by_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, *, amsgrad: bool = False, compat: Compat = "torch"
) -> GradientTransformation:
    """m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), with m = b1 m + (1 - b1) g and v = b2 v + (1 - b2) g^2.

    amsgrad: the largest v so far; with compat="optax" the largest v / (1 - b2^t).
    """
    optax = is_optax("adam", compat)
    check_range("adam", "b1", b1, 0.0, 1.0)
    check_range("adam", "b2", b2, 0.0, 1.0)
    check_at_least("adam", "eps", eps, 0.0)

    def init(params):
        peak = zeros_like(params) if amsgrad else None
        return AdamState(zero_count(params), zeros_like(params), zeros_like(params), peak)

    def begin(state, params):
        count = state.count + 1
        c1, c2 = bias_correction(b1, count), fnp.sqrt(bias_correction(b2, count))
        scaled = _scaled(c1, 1.0 if amsgrad and optax else c2, eps)

        def each(g, p, m, v, *peak):
            m, v = average(b1, g, m), average(b2, g * g, v)
            if not amsgrad:
                return scaled(m, v), m, v
            largest = fnp.maximum(*peak, v * cast(1.0 / (c2 * c2), v) if optax else v)
            return scaled(m, largest), m, v, largest

        averages = (state.mean, state.square, state.peak) if amsgrad else (state.mean, state.square)
        return Leafwise(each, averages, lambda m, v, peak=None: AdamState(count, m, v, peak))

    return GradientTransformation(init, LeafwiseUpdate(begin))


def _scaled(c1: Any, c2: Any, eps: Any) -> Any:
    """m / c1 / (sqrt(v) / c2 + eps) as a function of m and v."""
    of_m, of_v = 1.0 / c1, 1.0 / c2  # scalars: one division for each element instead of three
    return lambda m, v: cast(of_m, m) * m / (cast(of_v, v) * fnp.sqrt(v) + eps)


def adam(
    learning_rate: float | Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
    amsgrad: bool = False,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate * scale_by_adam(g + weight_decay p). As torch.optim.Adam; for decoupled decay see `adamw`.

        m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2          (with amsgrad the largest v so far)
        p = p - learning_rate m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1). eps, weight_decay: at least 0; decay on the
    leaves `where` selects (see `add_decayed_weights`). compat="optax": amsgrad takes the largest v / (1 - b2^t).
    Raises ArgumentError for values outside these ranges.

    Source: D. Kingma, J. Ba, arXiv:1412.6980; amsgrad: S. Reddi and others, arXiv:1904.09237.

    >>> import numpy as np
    >>> opt = adam(0.1)
    >>> opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))[0].round(6)
    array([0.9])
    """
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]
    scaled = scale_by_adam(b1, b2, eps, amsgrad=amsgrad, compat=compat)
    return chain(*decay, scaled, scale_by_learning_rate(learning_rate))
