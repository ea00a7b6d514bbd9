# SPDX-License-Identifier: MIT
"""Adafactor: the second moments of a matrix kept as one row and one column."""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.nn.select import Where, mask, trainable_mask
from functorch_lite.optim.base import (
    Compat,
    GradientTransformation,
    Schedule,
    cast,
    check_at_least,
    check_positive,
    is_optax,
    is_zero,
    map_state,
    map_updates,
    need_params,
    rate_at,
    zero_count,
)

LONG = 128
"""Optax factors leaves whose two longest axes are at least so long."""


class Factors(NamedTuple):
    """rows [..., n, 1], columns [..., 1, m]: means of g^2 over the last axis and the one before, for a leaf [..., n,
    m]; with compat="optax" over the longest axis and the next."""

    rows: Any
    columns: Any


class AdafactorState(NamedTuple):
    """count: steps taken, int64 []; square: for each leaf of the parameters `Factors`, or where these do not pay the
    running average of g^2 like the leaf."""

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
    compat: Compat = "torch",
) -> GradientTransformation:
    """Adam-like steps with the memory of a row and a column for each matrix. As torch.optim.Adafactor.

        w = t^b2_decay          rows = (1 - w) rows + w mean(g^2, -1)          columns likewise over -2
        v = rows columns / max(mean(rows), eps1)          (below two axes: v = (1 - w) v + w g^2)
        u = g / sqrt(max(v, eps1^2))                      u = u / max(1, rms(u) / clip)
        p = p (1 - learning_rate weight_decay) - max(eps2, rms(p)) min(learning_rate, 1 / sqrt(t)) u

    learning_rate: at least 0, or a schedule. b2_decay: at most 0. eps1: above 0; None is the resolution of the leaf's
    dtype. eps2, weight_decay: at least 0; the last on the leaves `where` selects (see `add_decayed_weights`). clip
    (torch's d): bound of the root mean square of u, above 0.

    compat="optax": eps1, 1e-30 by default, is added to g^2 in place of both bounds, `learning_rate` is taken as it is
    and not decay: p = p - weight_decay p - max(eps2, rms(p)) learning_rate u. Leaves are factored by their two longest
    axes, where both are 128 or longer.

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
    optax = is_optax("adafactor", compat)

    def init(params):
        return AdafactorState(zero_count(params), tree.map(lambda p: _no_moments(p, _axes(p, optax)), params))

    def update(grads, state, params=None):
        need_params("adafactor", params)
        count, rate = state.count + 1, rate_at(learning_rate, state.count)
        t = fnp.asarray(count, dtype=fnp.float64)
        bound = rate if optax else fnp.minimum(rate, 1.0 / fnp.sqrt(t))
        decay = weight_decay if optax else rate * weight_decay
        added = 0.0 if not optax else 1e-30 if eps1 is None else eps1
        square = map_state(lambda g, s: _moments(g * g + added, s, _axes(g, optax), t**b2_decay), grads, state.square)

        def step(g, s, p, keep):
            u = _divided(g, s, _axes(g, optax), eps1, optax)
            u = u / fnp.maximum(_rms(u) / clip, 1.0)
            u = -fnp.maximum(_rms(p), eps2) * cast(bound, g) * u
            return u if is_zero(weight_decay) or not keep else u - cast(decay, p) * p

        selected = trainable_mask(params) if where is None else mask(params, where)
        return map_updates(step, grads, square, params, selected), AdafactorState(count, square)

    return GradientTransformation(init, update)


def _axes(p: Any, optax: bool) -> tuple[int, int] | None:
    """The axes over which columns and rows are means, in this order; None where a leaf is not factored."""
    if p.ndim < 2:
        return None
    if not optax:
        return -2, -1
    *_, second, first = np.argsort(p.shape)
    return (int(second), int(first)) if p.shape[second] >= LONG else None


def _no_moments(p: Any, axes: tuple[int, int] | None) -> Any:
    zeros = fnp.zeros_like(p)
    return zeros if axes is None else _means(zeros, axes)


def _means(x: Any, axes: tuple[int, int]) -> Factors:
    return Factors(fnp.mean(x, axis=axes[1], keepdims=True), fnp.mean(x, axis=axes[0], keepdims=True))


def _moments(new: Any, square: Any, axes: tuple[int, int] | None, share: Any) -> Any:
    share = cast(share, new)
    if axes is None:
        return square + share * (new - square)
    return Factors(*(old + share * (mean - old) for old, mean in zip(square, _means(new, axes), strict=True)))


def _divided(g: Any, square: Any, axes: tuple[int, int] | None, eps: float | None, optax: bool) -> Any:
    """g / sqrt(v), with the bounds of `adafactor`; Optax has none, and takes the roots of both factors apart."""
    mean = None if axes is None else fnp.mean(square.rows, axis=axes[0], keepdims=True)
    if optax:
        return g / fnp.sqrt(square) if mean is None else g / fnp.sqrt(square.rows / mean) / fnp.sqrt(square.columns)
    low = float(ml_dtypes.finfo(g.dtype).eps) if eps is None else eps
    v = square if mean is None else square.rows * square.columns / fnp.maximum(mean, low)
    return g / fnp.sqrt(fnp.maximum(v, low * low))


def _rms(x: Any) -> Any:
    return fnp.sqrt(fnp.mean(x * x))
