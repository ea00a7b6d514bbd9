# SPDX-License-Identifier: MIT
"""Adadelta: steps in the units of the parameters, from the sizes of the steps before."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite.nn.select import Where
from functorch_lite.optim.base import GradientTransformation, Schedule, average, check_at_least, check_range, zeros_like
from functorch_lite.optim.descent import descent
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate


class AdadeltaState(NamedTuple):
    """square: running average of g^2; step: running average of the squared steps; both like the parameters."""

    square: Any
    step: Any


def scale_by_adadelta(rho: float = 0.9, eps: float = 1e-6) -> GradientTransformation:
    """d = sqrt(s + eps) / sqrt(v + eps) g, with v = rho v + (1 - rho) g^2, and then s = rho s + (1 - rho) d^2."""
    check_range("adadelta", "rho", rho, 0.0, 1.0)
    check_at_least("adadelta", "eps", eps, 0.0)

    def each(g, p, v, s):
        v = average(rho, g * g, v)
        step = fnp.sqrt(s + eps) / fnp.sqrt(v + eps) * g
        return step, v, average(rho, step * step, s)

    def begin(state, params):
        return Leafwise(each, (state.square, state.step), AdadeltaState)

    return GradientTransformation(
        lambda params: AdadeltaState(zeros_like(params), zeros_like(params)), LeafwiseUpdate(begin)
    )


def adadelta(
    learning_rate: float | Schedule = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
) -> GradientTransformation:
    """p - learning_rate * scale_by_adadelta(g + weight_decay p). As torch.optim.Adadelta.

        v = rho v + (1 - rho) g^2     d = sqrt(s + eps) / sqrt(v + eps) g     s = rho s + (1 - rho) d^2
        p = p - learning_rate d

    learning_rate: at least 0, or a schedule. rho: decay of the averages, in [0, 1). eps: at least 0; it also sets the
    first steps. weight_decay: at least 0, on the leaves `where` selects (see `add_decayed_weights`).

    Raises ArgumentError for values outside these ranges.

    Source: M. Zeiler, arXiv:1212.5701.

    >>> import numpy as np
    >>> opt = adadelta(eps=0.1)
    >>> p, state = opt.step(np.array([1.0]), np.array([3.0]), opt.init(np.array([1.0])))
    >>> p.round(3)
    array([0.051])
    """
    return descent(scale_by_adadelta(rho, eps), learning_rate=learning_rate, weight_decay=weight_decay, where=where)
