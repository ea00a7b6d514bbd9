# SPDX-License-Identifier: MIT
"""Ranks, the most frequent value, and the standard error of the mean, along an axis of arrays of one size.

All by sorting once: equal neighbours are a run, and its first and last position are running extrema.
"""

import math
from typing import Any, NamedTuple

import numpy as np

import functorch_lite.numpy as f
from functorch_lite import lax
from functorch_lite.errors import ArgumentError
from functorch_lite.numpy.promotion import asarray, to_inexact
from functorch_lite.transforms.arguments import on_its_device, quiet

_METHODS = ("average", "min", "max", "dense", "ordinal")


class ModeResult(NamedTuple):
    """The most frequent values, and how often they occur."""

    mode: Any
    count: Any


def _check_nan_policy(name, policy):
    if policy != "propagate":
        raise ArgumentError(f"{name}: nan_policy must be 'propagate', got {policy!r}: sizes must not depend on values.")


def _last(a, axis):
    """`a` with `axis` last; all of it as one axis where it is None."""
    a = asarray(a)
    return f.reshape(a, (-1,)) if axis is None else f.moveaxis(a, axis, -1)


def _runs(x):
    """Of sorted x [..., n]: whether each element is the first of its run, and the run's first and last position.

    NaNs, which sort last, are equal.
    """
    n, lead = x.shape[-1], x.shape[:-1]
    same = x[..., 1:] == x[..., :-1]
    if x.dtype.kind in "fc":
        same = same | (f.isnan(x[..., 1:]) & f.isnan(x[..., :-1]))
    edge = f.ones((*lead, 1), bool)
    first, last = f.concatenate([edge, ~same], -1), f.concatenate([~same, edge], -1)
    at = f.broadcast_to(f.arange(n), x.shape)
    axis = len(lead)
    begin = lax.cummax(f.where(first, at, 0), axis)
    end = lax.cummin(f.where(last, at, n - 1), axis, reverse=True)
    return first, begin, end


@on_its_device
def rankdata(a: Any, method: str = "average", *, axis: int | None = None, nan_policy: str = "propagate") -> Any:
    """The ranks of the elements of `a` along `axis` (of all of them if None), from 1, in the shape of `a`.

    method: what equal elements get: the "average" of their ranks (float64), the "min" or "max" of them, one more than
    the next smaller value ("dense"), or different ranks in their order ("ordinal"). A line with a NaN is all NaN:
    for that the ranks of floating-point numbers are float64 (SciPy's where there is one); others are int64.

    Raises: ArgumentError for another method or nan_policy.
    """
    _check_nan_policy("rankdata", nan_policy)
    if method not in _METHODS:
        raise ArgumentError(f"rankdata: method must be one of {', '.join(_METHODS)}, got {method!r}.")
    shape = asarray(a).shape
    x = _last(a, axis)
    if x.shape[-1]:
        order = f.argsort(x, axis=-1, stable=True)
        ranks = _ranks_of_sorted(f.take_along_axis(x, order, -1), method)
        out = f.take_along_axis(ranks, f.argsort(order, axis=-1, stable=True), -1)
    else:
        out = f.zeros(x.shape, np.float64 if method == "average" else np.int64)
    if x.dtype.kind == "f":
        out = f.where(f.any(f.isnan(x), axis=-1, keepdims=True), np.nan, out)
    return f.reshape(out, shape) if axis is None else f.moveaxis(out, -1, axis)


def _ranks_of_sorted(x, method):
    first, begin, end = _runs(x)
    if method == "average":
        return (begin + end) / 2 + 1
    if method == "dense":
        return f.cumsum(first.astype(np.int64), axis=-1)
    if method == "ordinal":
        return f.broadcast_to(f.arange(1, x.shape[-1] + 1), x.shape)
    return (begin if method == "min" else end) + 1


@on_its_device
def mode(a: Any, axis: int | None = 0, nan_policy: str = "propagate", keepdims: bool = False) -> ModeResult:
    """The most frequent value along `axis` (of all of `a` if None), the smallest of several, and how often it occurs.

    Raises: ArgumentError for another nan_policy, or where there is no element.
    """
    _check_nan_policy("mode", nan_policy)
    a = asarray(a)
    axis = None if not a.shape else axis
    x = f.sort(_last(a, axis), axis=-1)
    if not x.shape[-1]:
        raise ArgumentError("mode: there is no element along the axis.")
    _, begin, end = _runs(x)
    size = end - begin + 1
    at = f.argmax(size, axis=-1, keepdims=True)
    found = [f.take_along_axis(v, at, -1) for v in (x, size)]
    if keepdims:
        whole = (1,) * len(a.shape)
        return ModeResult(*[f.reshape(v, whole) if axis is None else f.moveaxis(v, -1, axis) for v in found])
    return ModeResult(*[v[..., 0] for v in found])


@on_its_device
def sem(
    a: Any, axis: int | None = 0, ddof: int = 1, nan_policy: str = "propagate", *, keepdims: bool = False
) -> Any:
    """The standard error of the mean along `axis` (of all of `a` if None): the standard deviation over sqrt(n)."""
    _check_nan_policy("sem", nan_policy)
    a = to_inexact(asarray(a))
    n = math.prod(a.shape) if axis is None else a.shape[axis]
    with quiet():
        return f.std(a, axis=axis, ddof=ddof, keepdims=keepdims) / math.sqrt(n)
