# SPDX-License-Identifier: MIT
"""The usual chain of an optimizer: weight decay, the scaling of the gradient, the learning rate."""

from functorch_lite.nn.select import Where
from functorch_lite.optim.base import GradientTransformation, Schedule, is_zero
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.scale import scale_by_learning_rate


def descent(
    *scaled: GradientTransformation,
    learning_rate: float | Schedule,
    weight_decay: float = 0.0,
    where: Where = None,
    decoupled: bool = False,
) -> GradientTransformation:
    """p - learning_rate * scaled(g + weight_decay p), or with `decoupled` p - learning_rate (scaled(g) + weight_decay
    p).

    `where`: which leaves decay, as in `add_decayed_weights`.
    """
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]
    before, after = ([], decay) if decoupled else (decay, [])
    return chain(*before, *scaled, *after, scale_by_learning_rate(learning_rate))
