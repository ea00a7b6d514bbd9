# SPDX-License-Identifier: MIT
"""Adaptive gradient clipping: gradients bounded by the size of what they change."""

from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite.optim.base import GradientTransformation, check_positive, map_updates, need_params, stateless


def clip_adaptive(bound: float = 0.01, eps: float = 1e-3) -> GradientTransformation:
    """Each unit of g times bound max(|p|, eps) / |g| where its norm exceeds bound max(|p|, eps).

    A unit is what feeds one output: a leaf of [n] or [] as a whole, a row of a weight [n_out, ...]. bound, eps: above
    0. Leave the last layer out with `masked`. Raises ArgumentError for a bound or eps not above 0.

    Source: A. Brock and others, arXiv:2102.06171, section 4.1.

    >>> import numpy as np
    >>> opt = clip_adaptive(0.1)
    >>> p = np.array([[3.0, 4.0], [1.0, 0.0]])
    >>> opt.update(np.array([[0.0, 1.0], [0.0, 0.05]]), opt.init(p), p)[0]
    array([[0.  , 0.5 ],
           [0.  , 0.05]])
    """
    check_positive("clip_adaptive", "bound", bound)
    check_positive("clip_adaptive", "eps", eps)

    def cut(g, p):
        largest = bound * fnp.maximum(_unit_norm(p), eps)
        norm = _unit_norm(g)
        over = norm > largest
        return fnp.where(over, g * (largest / fnp.where(over, norm, fnp.ones_like(norm))), g)

    def update(grads, params):
        need_params("clip_adaptive", params)
        return map_updates(cut, grads, params)

    return stateless(update)


def _unit_norm(x: Any) -> Any:
    """Norms over all axes but the first of a leaf with two or more, else over the whole: kept axes."""
    axes = tuple(range(1 if x.ndim > 1 else 0, x.ndim))
    return fnp.sqrt(fnp.sum(x * x, axis=axes, keepdims=True))
