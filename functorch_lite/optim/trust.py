# SPDX-License-Identifier: MIT
"""The trust ratio of LARS and LAMB: steps in proportion to the size of what they change."""

from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite.optim.base import GradientTransformation, map_updates, need_params, stateless


def scale_by_trust_ratio() -> GradientTransformation:
    """u |p| / |u| for each leaf, norms over the whole leaf; u where either norm is 0."""

    def update(grads, params):
        need_params("scale_by_trust_ratio", params)
        return map_updates(lambda u, p: u * ratio(leaf_norm(p), leaf_norm(u)), grads, params)

    return stateless(update)


def leaf_norm(x: Any) -> Any:
    """The Euclidean norm of all elements of `x`: [], in its dtype."""
    return fnp.sqrt(fnp.sum(x * x))


def ratio(of: Any, to: Any) -> Any:
    """of / to for norms [], 1 where either is 0."""
    usable = (of > 0) & (to > 0)
    one = fnp.ones_like(of)
    return fnp.where(usable, of, one) / fnp.where(usable, to, one)
