# SPDX-License-Identifier: MIT
"""Adagrad: steps scaled by the sum of all squared gradients."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.nn.select import Where
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    Schedule,
    check_at_least,
    default,
    is_optax,
    is_zero,
)
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate
from functorch_lite.optim.scale import scale_by_learning_rate


class AdagradState(NamedTuple):
    """total: the sum of g^2 so far, like the parameters."""

    total: Any


def scale_by_sum_of_squares(
    initial: float | None = None, eps: float | None = None, *, compat: Compat = "torch"
) -> GradientTransformation:
    """g / (sqrt(s) + eps) with s = s + g^2, which starts at `initial`: 0 and 1e-10 by default.

    compat="optax": g / sqrt(s + eps), 0 where s is 0, and 0.1 and 1e-7 by default.
    """
    optax = is_optax("adagrad", compat)
    initial, eps = default(initial, 0.0, 0.1, optax), default(eps, 1e-10, 1e-7, optax)
    check_at_least("adagrad", "initial_accumulator_value", initial, 0.0)
    check_at_least("adagrad", "eps", eps, 0.0)

    def scaled(g, s):
        if optax:
            return fnp.where(s > 0, g / fnp.sqrt(fnp.where(s > 0, s, 1) + eps), 0)
        return g / (fnp.sqrt(s) + eps)

    def each(g, p, s):
        s = s + g * g
        return scaled(g, s), s

    def begin(state, params):
        return Leafwise(each, (state.total,), AdagradState)

    return GradientTransformation(
        lambda params: AdagradState(tree.map(lambda p: fnp.full_like(p, initial), params)), LeafwiseUpdate(begin)
    )


def adagrad(
    learning_rate: float | Schedule = 1e-2,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
    initial_accumulator_value: float | None = None,
    eps: float | None = None,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate * g / (sqrt(sum g^2) + eps), g with weight_decay p added. As torch.optim.Adagrad.

        s = s + g^2          p = p - learning_rate g / (sqrt(s) + eps)

    learning_rate: at least 0, or a schedule. initial_accumulator_value (the first s), eps, weight_decay: at least 0;
    by default 0, 1e-10 and 0; decay on the leaves `where` selects (see `add_decayed_weights`).
    compat="optax": p - learning_rate g / sqrt(s + eps), and 0.1 and 1e-7 are the defaults of the first two.

    Raises ArgumentError for values outside these ranges.

    Source: J. Duchi, E. Hazan, Y. Singer, JMLR 12 (2011).

    >>> import numpy as np
    >>> opt = adagrad(0.1)
    >>> opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))[0]
    array([0.9])
    """
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]
    scaled = scale_by_sum_of_squares(initial_accumulator_value, eps, compat=compat)
    return chain(*decay, scaled, scale_by_learning_rate(learning_rate))
