# SPDX-License-Identifier: MIT
"""Bounding gradients.

Source: R. Pascanu, T. Mikolov, Y. Bengio, arXiv:1211.5063.
"""

from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    cast,
    check_positive,
    is_absent,
    is_optax,
    map_updates,
    stateless,
    stateless_leafwise,
)
from functorch_lite.optim.leafwise import Leafwise

SMALLEST = 1e-6
"""PyTorch adds it to norms, which keeps 0 / 0 out."""


def clip(bound: float) -> GradientTransformation:
    """Each element cut to [-bound, bound], bound above 0."""
    check_positive("clip", "bound", bound)
    return stateless_leafwise(lambda params: Leafwise(lambda g, p: (fnp.clip(g, -bound, bound),)))


def clip_by_global_norm(bound: float, *, compat: Compat = "torch") -> GradientTransformation:
    """All gradients times bound / norm where their common norm exceeds `bound`; as they are where it does not.

    bound: above 0. As torch.nn.utils.clip_grad_norm_, which adds 1e-6 to the norm; compat="optax" does not.
    """
    check_positive("clip_by_global_norm", "bound", bound)
    optax = is_optax("clip_by_global_norm", compat)

    def update(grads, params):
        norm = global_norm(grads)
        factor = bound / fnp.maximum(norm, bound) if optax else fnp.minimum(bound / (norm + SMALLEST), 1.0)
        return map_updates(lambda g: g * cast(factor, g), grads)

    return stateless(update)


def clip_by_norm(bound: float) -> GradientTransformation:
    """Each leaf times bound / |leaf| where its own norm exceeds `bound`, above 0.

    >>> import numpy as np
    >>> opt = clip_by_norm(1.0)
    >>> opt.update(np.array([3.0, 4.0]), opt.init(np.zeros(2)))[0].round(6)
    array([0.6, 0.8])
    """
    check_positive("clip_by_norm", "bound", bound)

    def cut(g, p):
        norm = fnp.sqrt(fnp.sum(fnp.real(g * fnp.conj(g))))
        return (g * fnp.minimum(bound / (norm + SMALLEST), 1.0),)

    return stateless_leafwise(lambda params: Leafwise(cut))


def global_norm(values: Any) -> Any:
    """The Euclidean norm of all leaves together; at least float32, 0 for a tree without leaves."""
    leaves = [leaf for leaf in tree.leaves(values) if not is_absent(leaf)]
    squares = [fnp.sum(fnp.real(x * fnp.conj(x))) for x in leaves]
    return fnp.sqrt(sum(squares[1:], squares[0])) if squares else fnp.zeros((), fnp.float32)
