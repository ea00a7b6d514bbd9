# SPDX-License-Identifier: MIT
"""Reductions and running reductions: sum prod mean var std max min any all argmax cumsum ... and their nan-forms.

Dtypes are NumPy's: sums and products of small integers widen; 16-bit floats are accumulated in float32. The derivative
of `std` of a constant is 0 (the middle of its kink), and ties of `max` share equally.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import kept_shape, normal_axis, reduction_axes, size_of
from functorch_lite.numpy.dispatch import public
from functorch_lite.numpy.promotion import asarray, broadcast_to, cast, common_dtype, loop_operands, promote, to_float
from functorch_lite.numpy.selection import where_body
from functorch_lite.numpy.ufuncs import truth
from functorch_lite.primitives import cumulative, reduction
from functorch_lite.primitives.transcendental import sqrt

_f64 = np.dtype(np.float64)
_no_value = np._NoValue


def summed_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of NumPy's sum: small integers and booleans widen to 64 bits."""
    if dtype.kind in "bi" and dtype.itemsize < 8:
        return np.dtype(np.int64)
    return np.dtype(np.uint64) if dtype.kind == "u" and dtype.itemsize < 8 else dtype


def _given(value: Any, default: Any) -> Any:
    return default if value is None or value is _no_value else value


def _kept(out: Any, x: Any, axes: tuple[int, ...], keepdims: Any) -> Any:
    return e.reshape(out, kept_shape(x.shape, axes)) if _given(keepdims, False) else out


def _masked(x: Any, where: Any, neutral: Any) -> Any:
    """x with the elements where the mask does not hold replaced by the neutral element."""
    if where is None or where is True or where is _no_value:
        return x
    mask = broadcast_to(truth(asarray(where)), x.shape)
    return e.select(mask, x, broadcast_to(cast(neutral, x.dtype), x.shape))


def _sum_like(numpy_function: Any, primitive: Callable[..., Any], neutral: int, combine: Any) -> Callable[..., Any]:
    def body(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: None = None,
        keepdims: Any = False,
        initial: Any = None,
        where: Any = None,
    ) -> Any:
        x = asarray(a)
        x = cast(x, np.dtype(dtype) if dtype is not None else summed_dtype(x.dtype))
        x = _masked(x, where, neutral)
        axes = reduction_axes(axis, len(x.shape))
        found = _kept(primitive(x, axes) if axes else x, x, axes, keepdims)
        initial = _given(initial, None)
        return found if initial is None else combine(found, broadcast_to(cast(initial, x.dtype), found.shape))

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function)(body)


sum = _sum_like(np.sum, e.reduce_sum, 0, e.add)
prod = _sum_like(np.prod, reduction.reduce_prod, 1, e.mul)


def _lowest(dtype: np.dtype) -> Any:
    if dtype.kind == "b":
        return False
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _highest(dtype: np.dtype) -> Any:
    if dtype.kind == "b":
        return True
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def _extremum(numpy_function: Any, alias: Any, primitive: Any, neutral: Any, combine: Any) -> Callable[..., Any]:
    def body(
        a: Any,
        axis: Any = None,
        out: None = None,
        keepdims: Any = False,
        initial: Any = None,
        where: Any = None,
    ) -> Any:
        x = asarray(a)
        initial = _given(initial, None)
        axes = reduction_axes(axis, len(x.shape))
        if 0 in [x.shape[i] for i in axes]:
            if initial is None:
                raise ArgumentError(
                    f"zero-size array to reduction operation {numpy_function.__name__} which has no identity"
                )
            rest = tuple(n for i, n in enumerate(x.shape) if i not in axes)
            return _kept(e.full(rest, initial, x.dtype), x, axes, keepdims)
        x = _masked(x, where, neutral(x.dtype))
        found = _kept(primitive(x, axes) if axes else x, x, axes, keepdims)
        return found if initial is None else combine(found, broadcast_to(cast(initial, x.dtype), found.shape))

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function, alias)(body)


max = amax = _extremum(np.max, np.amax, reduction.reduce_max, _lowest, e.maximum)
min = amin = _extremum(np.min, np.amin, reduction.reduce_min, _highest, e.minimum)


def _logical(numpy_function: Any, primitive: Any, neutral: bool) -> Callable[..., Any]:
    def body(a: Any, axis: Any = None, out: None = None, keepdims: Any = False, *, where: Any = None) -> Any:
        x = _masked(truth(asarray(a)), where, neutral)
        axes = reduction_axes(axis, len(x.shape))
        return _kept(primitive(x, axes) if axes else x, x, axes, keepdims)

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function)(body)


all = _logical(np.all, reduction.reduce_and, True)
any = _logical(np.any, reduction.reduce_or, False)


@public(np.ptp)
def ptp(a: Any, axis: Any = None, out: None = None, keepdims: Any = False) -> Any:
    """The range of values: maximum minus minimum."""
    x = asarray(a)
    return e.sub(max(x, axis=axis, keepdims=keepdims), min(x, axis=axis, keepdims=keepdims))


# --- mean and variance --------------------------------------------------------------------------------------------


def _count(x, axes, where):
    """The number of elements averaged: a Python number, or an array where a mask leaves some out."""
    if where is None or where is True or where is _no_value:
        return size_of(tuple(x.shape[i] for i in axes))
    mask = broadcast_to(truth(asarray(where)), x.shape)
    return e.reduce_sum(e.convert(mask, np.int64), axes)


def _over_count(total, count):
    if isinstance(count, (int, float)):
        return e.div(total, total.dtype.type(count))
    return e.div(total, cast(count, total.dtype))


@public(np.mean)
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: Any = False, *, where: Any = None
) -> Any:
    """The arithmetic mean over the axes; of integers in float64. 16-bit floats are accumulated in float32."""
    x = asarray(a)
    x = to_float(x) if dtype is None else cast(x, np.dtype(dtype))
    axes = reduction_axes(axis, len(x.shape))
    total = e.reduce_sum(_masked(x, where, 0), axes) if axes else x
    return _kept(_over_count(total, _count(x, axes, where)), x, axes, keepdims)


def _variance(a, axis, dtype, ddof, keepdims, where, mean, correction):
    x = asarray(a)
    x = to_float(x) if dtype is None else cast(x, np.dtype(dtype))
    ddof = correction if correction is not None and correction is not _no_value else ddof
    narrow = x.dtype
    x = cast(x, dtypes.accumulator(narrow))
    axes = reduction_axes(axis, len(x.shape))
    count = _count(x, axes, where)
    if _given(mean, None) is None:
        center = _kept(_over_count(e.reduce_sum(_masked(x, where, 0), axes), count), x, axes, True)
    else:
        center = cast(asarray(mean), x.dtype)
    gap = e.sub(x, broadcast_to(center, x.shape))
    square = e.mul(gap, gap) if x.dtype.kind != "c" else e.real(e.mul(gap, e.conj(gap)))
    total = e.reduce_sum(_masked(square, where, 0), axes)
    if isinstance(count, int):
        count = np.maximum(count - ddof, 0)
        out = e.div(total, total.dtype.type(count))
    else:
        rest = e.sub(cast(count, total.dtype), total.dtype.type(ddof))
        out = e.div(total, e.maximum(rest, total.dtype.type(0)))
    return cast(_kept(out, x, axes, keepdims), dtypes.real_dtype(narrow))


@public(np.var)
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = None,
    mean: Any = None,
    correction: Any = None,
) -> Any:
    """The variance over the axes: the mean of |x - mean|^2, divided by count - ddof."""
    return _variance(a, axis, dtype, ddof, keepdims, where, mean, correction)


@public(np.std)
def std(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = None,
    mean: Any = None,
    correction: Any = None,
) -> Any:
    """The standard deviation over the axes. Its derivative where all elements are equal is 0."""
    return sqrt(_variance(a, axis, dtype, ddof, keepdims, where, mean, correction))


@public(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    """The mean over the axes, weighted."""
    x = asarray(a)
    if weights is None:
        out = mean(x, axis=axis, keepdims=keepdims)
        count = size_of(tuple(x.shape[i] for i in reduction_axes(axis, len(x.shape))))
        return (out, e.full(out.shape, count, out.dtype)) if returned else out
    w = asarray(weights)
    dtype = common_dtype(x, w) if x.dtype.kind not in "biu" else common_dtype(x, w, np.float64(0))
    x, w = cast(x, dtype), cast(w, dtype)
    axes = reduction_axes(axis, len(x.shape))
    if w.shape != x.shape:
        if len(axes) != 1 or w.shape != (x.shape[axes[0]],):
            raise ArgumentError(
                f"average: weights of shape {w.shape} do not fit axis {axis} of an array of shape {x.shape}."
            )
        w = e.broadcast_in_dim(w, x.shape, axes)
    total = _kept(e.reduce_sum(w, axes), x, axes, keepdims)
    out = e.div(_kept(e.reduce_sum(e.mul(x, w), axes), x, axes, keepdims), total)
    return (out, total) if returned else out


# --- arguments of extrema -----------------------------------------------------------------------------------------


def _argument(numpy_function: Any, primitive: Any) -> Callable[..., Any]:
    def body(a: Any, axis: Any = None, out: None = None, *, keepdims: Any = False) -> Any:
        x = asarray(a)
        shape = x.shape
        if axis is None:
            found = primitive(e.reshape(x, (size_of(shape),)), 0)
            return e.reshape(found, (1,) * len(shape)) if _given(keepdims, False) else found
        axis = normal_axis(axis, len(shape))
        return _kept(primitive(x, axis), x, (axis,), keepdims)

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function)(body)


argmax = _argument(np.argmax, reduction.argmax)
argmin = _argument(np.argmin, reduction.argmin)

# --- running reductions -------------------------------------------------------------------------------------------


def _running(x: Any, axis: int | None, primitive: Any) -> Any:
    if axis is None:
        x, axis = e.reshape(x, (size_of(x.shape),)), 0
    return primitive(x, normal_axis(axis, len(x.shape)))


def _cumulative(numpy_function: Any, primitive: Any) -> Callable[..., Any]:
    def body(a: Any, axis: int | None = None, dtype: Any = None, out: None = None) -> Any:
        x = asarray(a)
        return _running(cast(x, np.dtype(dtype) if dtype is not None else summed_dtype(x.dtype)), axis, primitive)

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function)(body)


cumsum = _cumulative(np.cumsum, cumulative.cumsum)
cumprod = _cumulative(np.cumprod, cumulative.cumprod)


def _cumulative_array_api(numpy_function: Any, base: Any, neutral: int) -> Callable[..., Any]:
    def body(
        x: Any, /, *, axis: int | None = None, dtype: Any = None, out: None = None, include_initial: bool = False
    ) -> Any:
        x = asarray(x)
        if axis is None and len(x.shape) != 1:
            raise ArgumentError(f"{numpy_function.__name__}: axis is needed for an array of rank {len(x.shape)}.")
        axis = normal_axis(axis or 0, len(x.shape))
        found = base(x, axis=axis, dtype=dtype)
        if not include_initial:
            return found
        config = tuple((1 if i == axis else 0, 0, 0) for i in range(len(found.shape)))
        return e.pad(found, found.dtype.type(neutral), config)

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function)(body)


cumulative_sum = _cumulative_array_api(np.cumulative_sum, cumsum, 0)
cumulative_prod = _cumulative_array_api(np.cumulative_prod, cumprod, 1)

# --- ignoring NaN -------------------------------------------------------------------------------------------------


def _without_nan(x: Any, value: Any) -> Any:
    x = asarray(x)
    return (
        x if not dtypes.is_inexact(x.dtype) else where_body(e.ne(x, x), broadcast_to(cast(value, x.dtype), x.shape), x)
    )


def _present(x: Any) -> Any:
    x = asarray(x)
    return e.eq(x, x)


@public(np.nansum)
def nansum(a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: Any = False, **options: Any) -> Any:
    """The sum over the axes, NaN counted as 0."""
    return sum(_without_nan(a, 0), axis=axis, dtype=dtype, keepdims=keepdims)


@public(np.nanprod)
def nanprod(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: Any = False, **options: Any
) -> Any:
    """The product over the axes, NaN counted as 1."""
    return prod(_without_nan(a, 1), axis=axis, dtype=dtype, keepdims=keepdims)


@public(np.nanmean)
def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, keepdims: Any = False, **options: Any
) -> Any:
    """The mean over the axes of what is not NaN."""
    return mean(a, axis=axis, dtype=dtype, keepdims=keepdims, where=_present(a))


@public(np.nanvar)
def nanvar(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: Any = 0, keepdims: Any = False, **options: Any
) -> Any:
    """The variance over the axes of what is not NaN."""
    return var(a, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims, where=_present(a))


@public(np.nanstd)
def nanstd(
    a: Any, axis: Any = None, dtype: Any = None, out: None = None, ddof: Any = 0, keepdims: Any = False, **options: Any
) -> Any:
    """The standard deviation over the axes of what is not NaN."""
    return std(a, axis=axis, dtype=dtype, ddof=ddof, keepdims=keepdims, where=_present(a))


def _nan_extremum(numpy_function: Any, base: Any, neutral: Any) -> Callable[..., Any]:
    def body(a: Any, axis: Any = None, out: None = None, keepdims: Any = False, **options: Any) -> Any:
        x = asarray(a)
        found = base(_without_nan(x, neutral), axis=axis, keepdims=keepdims)
        if not dtypes.is_inexact(x.dtype):
            return found
        empty = all(e.ne(x, x), axis=axis, keepdims=keepdims)
        return where_body(empty, broadcast_to(cast(np.nan, x.dtype), found.shape), found)

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function)(body)


nanmax = _nan_extremum(np.nanmax, max, -np.inf)
nanmin = _nan_extremum(np.nanmin, min, np.inf)


@public(np.nanargmax)
def nanargmax(a: Any, axis: Any = None, out: None = None, *, keepdims: Any = False) -> Any:
    """The position of the largest element that is not NaN."""
    return argmax(_without_nan(a, -np.inf), axis=axis, keepdims=keepdims)


@public(np.nanargmin)
def nanargmin(a: Any, axis: Any = None, out: None = None, *, keepdims: Any = False) -> Any:
    """The position of the smallest element that is not NaN."""
    return argmin(_without_nan(a, np.inf), axis=axis, keepdims=keepdims)


@public(np.nancumsum)
def nancumsum(a: Any, axis: int | None = None, dtype: Any = None, out: None = None) -> Any:
    """The running sum, NaN counted as 0."""
    return cumsum(_without_nan(a, 0), axis=axis, dtype=dtype)


@public(np.nancumprod)
def nancumprod(a: Any, axis: int | None = None, dtype: Any = None, out: None = None) -> Any:
    """The running product, NaN counted as 1."""
    return cumprod(_without_nan(a, 1), axis=axis, dtype=dtype)


@public(np.clip)
def clip(
    a: Any, a_min: Any = None, a_max: Any = None, out: None = None, *, min: Any = None, max: Any = None, **options: Any
) -> Any:
    """x limited to [a_min, a_max] (None: no limit). Its derivative is 1 at both bounds."""
    low = _given(a_min, _given(min, None))
    high = _given(a_max, _given(max, None))
    if low is None and high is None:
        return asarray(a)
    if low is None or high is None:
        x, bound = loop_operands(np.maximum, a, high if low is None else low)
        x, bound = promote(x, bound)
        shape = np.broadcast_shapes(x.shape, bound.shape)
        x, bound = broadcast_to(x, shape), broadcast_to(bound, shape)
        limit = e.gt if low is None else e.lt
        return e.select(
            limit(x, bound), bound, e.select(e.ne(bound, bound), bound, x) if bound.dtype.kind == "f" else x
        )
    x, low, high = _clip_operands(a, low, high)
    return e.clamp(low, x, high)


def _clip_operands(a, low, high):
    from_array = [v for v in (a, low, high)]
    dtype = common_dtype(*from_array)
    values = [cast(asarray(v) if not isinstance(v, (bool, int, float, complex)) else v, dtype) for v in from_array]
    shape = np.broadcast_shapes(*[v.shape for v in values])
    x, low, high = [broadcast_to(v, shape) if v.shape or i == 0 else v for i, v in enumerate(values)]
    return (x, *[v if v.shape or not hasattr(v, "tag") else broadcast_to(v, shape) for v in (low, high)])
