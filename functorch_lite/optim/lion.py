# SPDX-License-Identifier: MIT
"""Lion: the sign of an interpolated momentum."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite.nn.select import Where
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    Schedule,
    average,
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


class LionState(NamedTuple):
    """mean: running average of the gradient, like the parameters."""

    mean: Any


def scale_by_lion(b1: float = 0.9, b2: float = 0.99) -> GradientTransformation:
    """sign(b1 m + (1 - b1) g), then m = b2 m + (1 - b2) g."""
    check_range("lion", "b1", b1, 0.0, 1.0)
    check_range("lion", "b2", b2, 0.0, 1.0)

    def each(g, p, m):
        return fnp.sign(average(b1, g, m)), average(b2, g, m)

    def begin(state, params):
        return Leafwise(each, (state.mean,), LionState)

    return GradientTransformation(lambda params: LionState(zeros_like(params)), LeafwiseUpdate(begin))


def lion(
    learning_rate: float | Schedule = 1e-4,
    b1: float = 0.9,
    b2: float = 0.99,
    *,
    weight_decay: float | None = None,
    where: Where = None,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate (sign(b1 m + (1 - b1) g) + weight_decay p).

        u = sign(b1 m + (1 - b1) g)          m = b2 m + (1 - b2) g          p = p - learning_rate (u + weight_decay p)

    learning_rate: at least 0, or a schedule; about a third to a tenth of that of AdamW. b1, b2: decays in [0, 1).
    weight_decay: at least 0, on the leaves `where` selects (see `add_decayed_weights`); 0 by default, with
    compat="optax" 1e-3.

    Raises ArgumentError for values outside these ranges.

    Source: X. Chen and others, arXiv:2302.06675.

    >>> import numpy as np
    >>> opt = lion(0.1)
    >>> opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))[0]
    array([0.9])
    """
    weight_decay = default(weight_decay, 0.0, 1e-3, is_optax("lion", compat))
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]
    return chain(scale_by_lion(b1, b2), *decay, scale_by_learning_rate(learning_rate))
