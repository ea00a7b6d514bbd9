# SPDX-License-Identifier: MIT
"""LAMB: Adam for large batches, with a trust ratio for each leaf."""

from functorch_lite.nn.select import Where
from functorch_lite.optim.adam import scale_by_adam
from functorch_lite.optim.base import GradientTransformation, Schedule, check_at_least, is_zero
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.scale import scale_by_learning_rate
from functorch_lite.optim.trust import scale_by_trust_ratio


def lamb(
    learning_rate: float | Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    *,
    weight_decay: float = 0.0,
    where: Where = None,
) -> GradientTransformation:
    """AdamW whose step of each leaf is as long as the leaf, times the learning rate.

        u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p          (m, v as in `scale_by_adam`)
        p = p - learning_rate |p| / |u| u          (|p| / |u| is 1 where either norm is 0)

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1). eps, weight_decay: at least 0; decay on the
    leaves `where` selects (see `add_decayed_weights`). Raises ArgumentError for values outside these ranges.

    Source: Y. You and others, arXiv:1904.00962, algorithm 2.

    >>> import numpy as np
    >>> opt = lamb(0.1)
    >>> opt.step(np.array([3.0]), np.array([1.0]), opt.init(np.array([3.0])))[0].round(6)
    array([2.7])
    """
    check_at_least("lamb", "eps", eps, 0.0)
    decay = [] if is_zero(weight_decay) else [add_decayed_weights(weight_decay, where)]
    return chain(scale_by_adam(b1, b2, eps), *decay, scale_by_trust_ratio(), scale_by_learning_rate(learning_rate))
