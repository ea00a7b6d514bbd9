# SPDX-License-Identifier: MIT
"""Adafactor: the second moments of a matrix kept as one row and one column."""

from typing import Any, NamedTuple

import ml_dtypes

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.nn.select import Where, mask, trainable_mask
from functorch_lite.optim.base import (
    GradientTransformation,
    Schedule,
    cast,
    check_at_least,
    check_positive,
    is_zero,
    map_state,
    map_updates,
    need_params,
    rate_at,
    zero_count,
)


class Factors(NamedTuple):
    """rows [..., n, 1], columns [..., 1, m]: means of g^2 over the last axis and the one before; for a leaf [..., n,
    m]."""

    rows: Any
    columns: Any


class AdafactorState(NamedTuple):
    """count: steps taken, int64 []; square: for each leaf of the parameters `Factors`, or below two axes the running
    average of g^2 like the leaf."""

    count: Any
    square: Any


def adafactor(
    learning_rate: float | Schedule = 1e-2,
    *,
    b2_decay: float = -0.8,
    eps1: float | None = None,
    eps2: float = 1e-3,
    clip: float = 1.0,
    weight_decay: float = 0.0,
    where: Where = None,
) -> GradientTransformation:
    """Adam-like steps with the memory of a row and a column for each matrix. As torch.optim.Adafactor.

        w = t^b2_decay          rows = (1 - w) rows + w mean(g^2, -1)          columns likewise over -2
        v = rows columns / max(mean(rows), eps1)          (below two axes: v = (1 - w) v + w g^2)
        u = g / sqrt(max(v, eps1^2))                      u = u / max(1, rms(u) / clip)
        p = p (1 - learning_rate weight_decay) - max(eps2, rms(p)) min(learning_rate, 1 / sqrt(t)) u

    learning_rate: at least 0, or a schedule. b2_decay: at most 0. eps1: above 0; None is the resolution of the leaf's
    dtype. eps2, weight_decay: at least 0; the last on the leaves `where` selects (see `add_decayed_weights`). clip
    (torch's d): bound of the root mean square of u, above 0.

    Raises ArgumentError for values outside these ranges.

    Source: N. Shazeer, M. Stern, arXiv:1804.04235.

    >>> import numpy as np
    >>> opt = adafactor(0.1)
    >>> state = opt.init(np.ones((3, 4)))
    >>> state.square.rows.shape, state.square.columns.shape
    ((3, 1), (1, 4))
    """
    check_at_least("adafactor", "learning_rate", learning_rate, 0.0)
    check_at_least("adafactor", "-b2_decay", -b2_decay, 0.0)
    check_at_least("adafactor", "eps2", eps2, 0.0)
    check_positive("adafactor", "eps1", eps1)
    check_positive("adafactor", "clip", clip)
    check_at_least("adafactor", "weight_decay", weight_decay, 0.0)

    def init(params):
        return AdafactorState(zero_count(params), tree.map(_no_moments, params))

    def update(grads, state, params=None):
        need_params("adafactor", params)
        count = state.count + 1
        t = fnp.asarray(count, dtype=fnp.float64)
        rate = rate_at(learning_rate, state.count)
        share, bound = t**b2_decay, fnp.minimum(rate, 1.0 / fnp.sqrt(t))
        square = map_state(lambda g, s: _moments(g, s, cast(share, g)), grads, state.square)

        def step(g, s, p, keep):
            low = float(ml_dtypes.finfo(g.dtype).eps) if eps1 is None else eps1
            u = g / fnp.sqrt(fnp.maximum(_estimate(s, low), low * low))
            u = u / fnp.maximum(_rms(u) / clip, 1.0)
            u = -fnp.maximum(_rms(p), eps2) * cast(bound, g) * u
            return u if is_zero(weight_decay) or not keep else u - cast(rate * weight_decay, p) * p

        selected = trainable_mask(params) if where is None else mask(params, where)
        return map_updates(step, grads, square, params, selected), AdafactorState(count, square)

    return GradientTransformation(init, update)


def _no_moments(p: Any) -> Any:
    if p.ndim < 2:
        return fnp.zeros_like(p)
    zeros = fnp.zeros_like(p)
    return Factors(zeros[..., :1], zeros[..., :1, :])


def _moments(g: Any, square: Any, share: Any) -> Any:
    new = g * g
    if not isinstance(square, Factors):
        return square + share * (new - square)
    rows = square.rows + share * (fnp.mean(new, axis=-1, keepdims=True) - square.rows)
    columns = square.columns + share * (fnp.mean(new, axis=-2, keepdims=True) - square.columns)
    return Factors(rows, columns)


def _estimate(square: Any, low: float) -> Any:
    if not isinstance(square, Factors):
        return square
    return square.rows * square.columns / fnp.maximum(fnp.mean(square.rows, axis=-2, keepdims=True), low)


def _rms(x: Any) -> Any:
    return fnp.sqrt(fnp.mean(x * x))
