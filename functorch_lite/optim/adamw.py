# SPDX-License-Identifier: MIT
"""Adam with decoupled weight decay."""

from functorch_lite.nn.select import Where
from functorch_lite.optim.adam import scale_by_adam
from functorch_lite.optim.base import Compat, GradientTransformation, Schedule, default, is_optax
from functorch_lite.optim.chain import chain
from functorch_lite.optim.decay import add_decayed_weights
from functorch_lite.optim.scale import scale_by_learning_rate


def adamw(
    learning_rate: float | Schedule = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float | None = None,
    where: Where = None,
    amsgrad: bool = False,
    compat: Compat = "torch",
) -> GradientTransformation:
    """p - learning_rate (scale_by_adam(g) + weight_decay p). As torch.optim.AdamW.

        m = b1 m + (1 - b1) g          v = b2 v + (1 - b2) g^2          (with amsgrad the largest v so far)
        p = p - learning_rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p)

    learning_rate: at least 0, or a schedule. b1, b2: decays in [0, 1). eps, weight_decay: at least 0; the latter is
    1e-2 by default. where: which leaves decay, as in `add_decayed_weights`; ("*.weight",) leaves the biases out.
    compat="optax": weight_decay is 1e-4 by default, and amsgrad takes the largest v / (1 - b2^t).

    Raises ArgumentError for values outside these ranges.

    Source: I. Loshchilov, F. Hutter, arXiv:1711.05101.

    >>> import numpy as np
    >>> opt = adamw(0.1, weight_decay=0.5)
    >>> opt.step(np.array([1.0]), np.array([5.0]), opt.init(np.array([1.0])))[0].round(6)
    array([0.85])
    """
    weight_decay = default(weight_decay, 1e-2, 1e-4, is_optax("adamw", compat))
    return chain(
        scale_by_adam(b1, b2, eps, amsgrad=amsgrad, compat=compat),
        add_decayed_weights(weight_decay, where),
        scale_by_learning_rate(learning_rate),
    )
