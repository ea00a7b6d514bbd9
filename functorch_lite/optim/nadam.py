# SPDX-License-Identifier: MIT
"""NAdam: Adam with Nesterov's momentum."""

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
    zero_count,
    zeros_like,
)
from functorch_lite.optim.descent import descent
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate


class NadamState(NamedTuple):
    """count: steps taken, int64 []; product: of all momenta so far, float64 []; mean, square: running averages of g and
    g^2, like the parameters."""

    count: Any
    product: Any
    mean: Any
    square: Any


def scale_by_nadam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    momentum_decay: float = 4e-3,
    compat: Compat = "torch",
) -> GradientTransformation:
    """(c_t g + d_t m) / (sqrt(v / (1 - b2^t)) + eps); `nadam` has the equations."""
    optax = is_optax("nadam", compat)
    check_range("nadam", "b1", b1, 0.0, 1.0)
    check_range("nadam", "b2", b2, 0.0, 1.0)
    check_at_least("nadam", "eps", eps, 0.0)
    check_at_least("nadam", "momentum_decay", momentum_decay, 0.0)

    def init(params):
        count = zero_count(params)
        return NadamState(count, count.astype(fnp.float64) + 1.0, zeros_like(params), zeros_like(params))

    def momentum(count):
        return b1 * (1.0 - 0.5 * 0.96 ** (fnp.asarray(count, dtype=fnp.float64) * momentum_decay))

    def begin(state, params):
        count = state.count + 1
        now, following = (b1, b1) if optax else (momentum(count), momentum(count + 1))
        product = state.product * now
        of_gradient = (1.0 - now) / (1.0 - product)
        of_mean = following / (1.0 - product * following)
        correction = 1.0 / bias_correction(b2, count)

        def each(g, p, m, v):
            m, v = average(b1, g, m), average(b2, g * g, v)
            update = (cast(of_gradient, g) * g + cast(of_mean, m) * m) / (fnp.sqrt(cast(correction, v) * v) + eps)
            return update, m, v

        return Leafwise(each, (state.mean, state.square), lambda m, v: NadamState(count, product, m, v))

    return GradientTransformation(init, LeafwiseUpdate(begin))


def nadam(
    learning_rate: float | Schedule = 2e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    momentum_decay: float = 4e-3,
    weight_decay: float = 0.0,
    where: Where = None,
    decoupled: bool = False,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate * scale_by_nadam(g + weight_decay p). As torch.optim.NAdam.

        mu_t = b1 (1 - 0.96^(t momentum_decay) / 2)     m = b1 m + (1 - b1) g     v = b2 v + (1 - b2) g^2
        n = (1 - mu_t) g / (1 - prod_{i<=t} mu_i) + mu_{t+1} m / (1 - prod_{i<=t+1} mu_i)
        p = p - learning_rate n / (sqrt(v / (1 - b2^t)) + eps)

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1). eps, momentum_decay: at least 0. weight_decay:
    at least 0, on the leaves `where` selects (see `add_decayed_weights`); `decoupled` takes it out of the averages, as
    AdamW does. compat="optax": mu_t is b1 throughout, whatever momentum_decay is.

    Raises ArgumentError for values outside these ranges.

    Source: T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.

    >>> import numpy as np
    >>> opt = nadam(0.1)
    >>> p, state = opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))
    >>> bool(p[0] < 1)
    True
    """
    scaled = scale_by_nadam(b1, b2, eps, momentum_decay=momentum_decay, compat=compat)
    return descent(scaled, learning_rate=learning_rate, weight_decay=weight_decay, where=where, decoupled=decoupled)
