# SPDX-License-Identifier: MIT
"""Stochastic gradient descent with momentum."""

from typing import Any, NamedTuple

import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.select import Where
from functorch_lite.optim.base import (
    GradientTransformation,
    Schedule,
    check_at_least,
    is_zero,
    zero_count,
    zeros_like,
)
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate
from functorch_lite.optim.scale import scale_by_learning_rate


class TraceState(NamedTuple):
    """count: steps taken, int64 []; trace: the velocity, like the parameters."""

    count: Any
    trace: Any


def trace(momentum: float, *, dampening: float = 0.0, nesterov: bool = False) -> GradientTransformation:
    """v = momentum v + (1 - dampening) g, where the first v is g; gives v, or with `nesterov` g + momentum v."""

    def init(params):
        return TraceState(zero_count(params), zeros_like(params))

    def begin(state, params):
        def each(g, p, v):
            v = momentum * v + weight(g, state.count) * g
            return (g + momentum * v if nesterov else v), v

        return Leafwise(each, (state.trace,), lambda velocity: TraceState(state.count + 1, velocity))

    def weight(g, count):
        return fnp.where(count == 0, 1.0, 1.0 - dampening).astype(g.dtype) if not is_zero(dampening) else 1

    return GradientTransformation(init, LeafwiseUpdate(begin))


def sgd(
    learning_rate: float | Schedule,
    momentum: float = 0.0,
    *,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    where: Where = None,
    nesterov: bool = False,
) -> GradientTransformation:
    """p - learning_rate v, where v is the velocity of g + weight_decay p (see `trace`). As torch.optim.SGD.

        v = momentum v + (1 - dampening) g          (the first v is g)
        p = p - learning_rate v          or with `nesterov` p - learning_rate (g + momentum v)

    learning_rate: at least 0, or a schedule of the step. momentum: at least 0. weight_decay: at least 0, on the leaves
    `where` selects (see `add_decayed_weights`). Raises ArgumentError for other values, and for nesterov without
    momentum or with dampening.

    Source: I. Sutskever and others, "On the importance of initialization and momentum in deep learning", ICML 2013.

    >>> import numpy as np
    >>> opt = sgd(0.1, momentum=0.9)
    >>> p, state = opt.step(np.array([1.0]), np.array([1.0]), opt.init(np.array([1.0])))
    >>> opt.step(p, np.array([1.0]), state)[0].round(6)
    array([0.71])
    """
    check_at_least("sgd", "momentum", momentum, 0.0)
    if nesterov and (is_zero(momentum) or not is_zero(dampening)):
        raise ArgumentError("sgd: nesterov needs a momentum above 0 and no dampening.")
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]
    velocity = [] if is_zero(momentum) else [trace(momentum, dampening=dampening, nesterov=nesterov)]
    return chain(*decay, *velocity, scale_by_learning_rate(learning_rate))
