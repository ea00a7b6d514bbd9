# SPDX-License-Identifier: MIT
"""Bounding gradients.

Source: R. Pascanu, T. Mikolov, Y. Bengio, arXiv:1211.5063.
"""

from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.optim.base import GradientTransformation, cast, is_absent, map_updates, stateless


def clip(bound: float) -> GradientTransformation:
    """Each element cut to [-bound, bound]."""
    return stateless(lambda grads, params: map_updates(lambda g: fnp.clip(g, -bound, bound), grads))


def clip_by_global_norm(bound: float) -> GradientTransformation:
    """All gradients times bound / norm where their common norm exceeds `bound`; as they are where it does not."""

    def update(grads, params):
        norm = global_norm(grads)
        # The 1e-6 is PyTorch's: it keeps 0 / 0 out.
        factor = fnp.minimum(bound / (norm + 1e-6), 1.0)
        return map_updates(lambda g: g * cast(factor, g), grads)

    return stateless(update)


def global_norm(values: Any) -> Any:
    """The Euclidean norm of all leaves together; at least float32, 0 for a tree without leaves."""
    leaves = [leaf for leaf in tree.leaves(values) if not is_absent(leaf)]
    squares = [fnp.sum(fnp.real(x * fnp.conj(x))) for x in leaves]
    return fnp.sqrt(sum(squares[1:], squares[0])) if squares else fnp.zeros((), fnp.float32)
