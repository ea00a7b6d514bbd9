# SPDX-License-Identifier: MIT
"""Adam with decoupled weight decay."""

from functorch_lite.nn.select import Where
from functorch_lite.optim.adam import scale_by_adam
from functorch_lite.optim.base import GradientTransformation, Schedule
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.scale import scale_by_learning_rate


def adamw(
    learning_rate: float | Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 1e-2,
    where: Where = None,
    amsgrad: bool = False,
) -> GradientTransformation:
    """p - learning_rate (scale_by_adam(g) + weight_decay p). As torch.optim.AdamW.

    where: which leaves decay, as in `add_decayed_weights`; ("*.weight",) leaves the biases out. Optax's default
    weight_decay is 1e-4.

    Source: I. Loshchilov, F. Hutter, arXiv:1711.05101.
    """
    return chain(
        scale_by_adam(b1, b2, eps, amsgrad=amsgrad),
        add_decayed_weights(weight_decay, where),
        scale_by_learning_rate(learning_rate),
    )
