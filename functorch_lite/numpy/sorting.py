# SPDX-License-Identifier: MIT
"""Order: sort, argsort, lexsort, partition, argpartition, sort_complex, median and quantile, unique and set operations.

A set operation has a result of data-dependent size; under `jit` and `vmap` give `size=` (see `unique`).
"""

from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core import dtypes
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, ConcretizationError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy import reductions
from functorch_lite.numpy.axes import kept_shape, normal_axis, reduction_axes, size_of
from functorch_lite.numpy.dispatch import implement, is_eager_call, public
from functorch_lite.numpy.indexing import lookup, searchsorted, take_along_axis, whole
from functorch_lite.numpy.joining import concatenate
from functorch_lite.numpy.promotion import asarray, broadcast_to, cast, promote, to_float
from functorch_lite.numpy.selection import nonzero_body
from functorch_lite.numpy.shaping import ravel
from functorch_lite.primitives.sorting import argsort as sort_positions
from functorch_lite.primitives.sorting import sort as sort_operands
from functorch_lite.transforms.arguments import on_its_device

_i64 = np.dtype(np.int64)


def _last(x: Any, axis: int | None) -> tuple[Any, int]:
    if axis is None:
        x, axis = ravel(x), 0
    axis = normal_axis(axis, len(x.shape))
    return e.moveaxis(x, axis, len(x.shape) - 1), axis


def _back(x: Any, axis: int) -> Any:
    return e.moveaxis(x, len(x.shape) - 1, axis)


def _is_stable(kind: Any, stable: Any) -> bool:
    return bool(stable) or kind in ("stable", "mergesort")


@public(np.sort)
def sort(a: Any, axis: int | None = -1, kind: Any = None, order: None = None, *, stable: Any = None) -> Any:
    """x with its elements in ascending order along an axis; NaN last."""
    x, axis = _last(asarray(a), axis)
    return _back(sort_operands(x, stable=_is_stable(kind, stable))[0], axis)


@public(np.argsort)
def argsort(a: Any, axis: int | None = -1, kind: Any = None, order: None = None, *, stable: Any = None) -> Any:
    """The positions that put x in ascending order along an axis."""
    x, axis = _last(asarray(a), axis)
    return _back(sort_positions(x, _is_stable(kind, stable)), axis)


@public(np.sort_complex)
def sort_complex(a: Any) -> Any:
    """x, as complex, sorted by real part, then imaginary part."""
    x = asarray(a)
    x = cast(x, dtypes.complex_dtype(x.dtype))
    parts = sort_operands(e.real(x), e.imag(x), num_keys=2)
    return e.make_complex(parts[0], parts[1])


@public(np.lexsort)
def lexsort(keys: Any, axis: int = -1) -> Any:
    """The positions that sort by several keys, the last one first."""
    found = [asarray(k) for k in keys]
    moved = [_last(k, axis) for k in found][::-1]
    places = e.iota(_i64, moved[0][0].shape, len(moved[0][0].shape) - 1)
    out = sort_operands(*[k for k, _ in moved], places, num_keys=len(moved), stable=True)[-1]
    return _back(out, moved[0][1])


@public(np.partition)
def partition(a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect", order: None = None) -> Any:
    """x with the element that sorting puts at `kth` in its place, smaller ones before and larger ones after it."""
    return sort(a, axis=axis)


@public(np.argpartition)
def argpartition(a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect", order: None = None) -> Any:
    """The positions that `partition` would take."""
    return argsort(a, axis=axis)


# --- quantiles ----------------------------------------------------------------------------------------------------

_METHODS = ("linear", "lower", "higher", "nearest", "midpoint")


def _quantile(a, q, axis, method, keepdims, skip_nan):
    x = to_float(asarray(a))
    q = asarray(q)
    q = cast(q, x.dtype) if q.dtype != x.dtype else q
    if method not in _METHODS:
        raise ArgumentError(f"quantile: method {method!r} cannot be traced; choose one of {', '.join(_METHODS)}.")
    axes = reduction_axes(axis, len(x.shape))
    kept = tuple(i for i in range(len(x.shape)) if i not in axes)
    lead = tuple(x.shape[i] for i in kept)
    n = size_of(tuple(x.shape[i] for i in axes))
    rows = e.reshape(e.permute_dims(x, (*kept, *axes)), (*lead, n))
    rows = sort_operands(rows)[0]
    last = broadcast_to(x.dtype.type(n - 1), lead)
    if skip_nan:
        count = e.reduce_sum(e.convert(e.eq(rows, rows), x.dtype), (len(lead),))
        last = e.maximum(e.sub(count, x.dtype.type(1)), x.dtype.type(0))
    shape = (*q.shape, *lead)
    place = e.mul(e.broadcast_in_dim(q, shape, tuple(range(len(q.shape)))), broadcast_to(last, shape))
    out = _at_place(rows, e.stop_gradient_of(place), lead, method)
    if not skip_nan:
        top = lookup(rows, (..., n - 1))
        out = e.select(broadcast_to(e.ne(top, top), shape), broadcast_to(x.dtype.type(np.nan), shape), out)
    return e.reshape(out, (*q.shape, *kept_shape(x.shape, axes))) if keepdims and keepdims is not np._NoValue else out


def _at_place(rows, place, lead, method):
    shape = place.shape
    low, high = e.floor(place), e.ceil(place)
    index = {"lower": low, "higher": high, "nearest": e.round_to_even(place)}.get(method)
    rows = broadcast_to(rows, (*shape[: len(shape) - len(lead)], *rows.shape))

    def pick(position):
        picked = e.reshape(e.convert(position, _i64), (*shape, 1))
        return e.reshape(take_along_axis(rows, picked, axis=-1, mode="clip"), shape)

    if index is not None:
        return pick(index)
    a, b = pick(low), pick(high)
    weight = e.sub(place, low) if method == "linear" else e.full(shape, 0.5, place.dtype)
    weight = e.select(e.eq(low, high), broadcast_to(place.dtype.type(0), shape), weight)
    gap = e.select(e.eq(a, b), broadcast_to(a.dtype.type(0), shape), e.sub(b, a))
    return e.add(a, e.mul(gap, weight))


def _quantile_function(numpy_function: Any, scale: float, skip_nan: bool) -> Any:
    def body(
        a: Any,
        q: Any,
        axis: Any = None,
        out: None = None,
        overwrite_input: bool = False,
        method: str = "linear",
        keepdims: Any = False,
        *,
        weights: None = None,
        interpolation: None = None,
    ) -> Any:
        if weights is not None:
            raise ArgumentError(f"{numpy_function.__name__}: weights cannot be traced.")
        return _quantile(a, q if scale == 1 else _hundredth(q), axis, method, keepdims, skip_nan)

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function)(body)


def _hundredth(q):
    q = to_float(asarray(q))
    return e.div(q, q.dtype.type(100))


quantile = _quantile_function(np.quantile, 1, False)
percentile = _quantile_function(np.percentile, 0.01, False)
nanquantile = _quantile_function(np.nanquantile, 1, True)
nanpercentile = _quantile_function(np.nanpercentile, 0.01, True)


@public(np.median)
def median(a: Any, axis: Any = None, out: None = None, overwrite_input: bool = False, keepdims: Any = False) -> Any:
    """The middle of the sorted elements over the axes, or the mean of the two middle ones."""
    return _quantile(a, np.float64(0.5), axis, "midpoint", keepdims, False)


@public(np.nanmedian)
def nanmedian(a: Any, axis: Any = None, out: None = None, overwrite_input: bool = False, keepdims: Any = False) -> Any:
    """The median over the axes of what is not NaN."""
    return _quantile(a, np.float64(0.5), axis, "linear", keepdims, True)


# --- unique and sets ----------------------------------------------------------------------------------------------


def _value(x: Any, name: str) -> np.ndarray:
    found = x.concrete() if isinstance(x, Tracer) else x
    if found is None:
        raise ConcretizationError(
            f"{name}: the size of the result depends on values that are not known. Give size=n, the most there can be."
        )
    return np.asarray(found)


def unique(
    ar: Any,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
    *,
    equal_nan: bool = True,
    sorted: bool = True,
    size: int | None = None,
    fill_value: Any = None,
) -> Any:
    """The different elements of x in ascending order.

    size: the number of results, cut or filled with `fill_value` (default: the smallest element) to fit; needed under
    jit and vmap.
    """
    flags: dict[str, Any] = {
        "return_index": return_index, "return_inverse": return_inverse, "return_counts": return_counts
    }
    if size is None and is_eager_call((ar,), {}):
        return np.unique(ar, **flags, axis=axis, equal_nan=equal_nan)
    x = asarray(ar)
    if size is None:
        return _unique_known(x, flags, axis, equal_nan)
    if axis is not None:
        raise ArgumentError("unique: size= works with axis=None only.")
    return _unique_of_size(x, flags, size, fill_value)


implement(np.unique)(unique)


def _unique_known(x, flags, axis, equal_nan):
    """The size is known: take the first occurrences, so that derivatives flow to them."""
    value = _value(x, "unique")
    found = np.unique(value, return_index=True, return_inverse=True, return_counts=True, axis=axis, equal_nan=equal_nan)
    picked = lookup(ravel(x), found[1]) if axis is None else lookup(x, (*whole(axis), found[1]))
    chosen = [
        v for v, name in zip(found[1:], ("return_index", "return_inverse", "return_counts"), strict=True) if flags[name]
    ]
    return (picked, *chosen) if chosen else picked


@on_its_device
def _unique_of_size(x, flags, size, fill_value):
    flat = ravel(x)
    n = flat.shape[0]
    ordered, order = sort_operands(flat, constant(np.arange(n), flat), stable=True)
    first = e.ne(e.slice(ordered, (1,), (n,), (1,)), e.slice(ordered, (0,), (n - 1,), (1,)))
    first = e.concatenate([e.full((1,), 1, np.dtype(bool)), first], 0)
    (places,) = nonzero_body(first, size=size, fill_value=n)
    present = e.lt(places, np.int64(n))
    values = lookup(ordered, places, mode="clip")
    missing = lookup(ordered, 0) if fill_value is None else cast(fill_value, x.dtype)
    found = [e.select(present, values, broadcast_to(missing, (size,)))]
    group = e.sub(reductions.cumsum(first), np.int64(1))
    if flags["return_index"]:
        found.append(e.select(present, lookup(order, places, mode="clip"), np.int64(0)))
    if flags["return_inverse"]:
        found.append(e.reshape(lookup(group, sort_positions(order)), x.shape))
    if flags["return_counts"]:
        ends = e.concatenate([e.slice(places, (1,), (size,), (1,)), constant(np.full(1, n), x)], 0)
        found.append(e.select(present, e.sub(ends, places), np.int64(0)))
    return tuple(found) if len(found) > 1 else found[0]


def _named_unique(numpy_function: Any, flags: dict[str, bool]) -> Any:
    def body(x: Any, /, *, size: int | None = None, fill_value: Any = None) -> Any:
        out = unique(x, **flags, size=size, fill_value=fill_value)
        kind = type(numpy_function(np.zeros(1)))
        return kind(*out) if isinstance(out, tuple) else out

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    body.__name__ = numpy_function.__name__
    return implement(numpy_function)(body)


unique_values = _named_unique(np.unique_values, {})
unique_counts = _named_unique(np.unique_counts, {"return_counts": True})
unique_inverse = _named_unique(np.unique_inverse, {"return_inverse": True})
unique_all = _named_unique(np.unique_all, {"return_index": True, "return_inverse": True, "return_counts": True})


@public(np.isin)
def isin(
    element: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False, *, kind: Any = None
) -> Any:
    """Whether each element occurs in `test_elements`."""
    x, pool = promote(asarray(element), asarray(test_elements))
    pool = sort_operands(ravel(pool))[0]
    if not pool.shape[0]:
        found = e.full(x.shape, 0, np.dtype(bool))
    else:
        found = e.eq(lookup(pool, searchsorted(pool, x), mode="clip"), x)
    return e.bit_not(found) if invert else found


def _set_operation(numpy_function: Any, select: Any) -> Any:
    def body(ar1: Any, ar2: Any, assume_unique: bool = False, **options: Any) -> Any:
        x, y = promote(asarray(ar1), asarray(ar2))
        return select(ravel(x), ravel(y))

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function)(body)


def _members(x, y, inside):
    x = unique(x)
    mask = np.isin(_value(x, "a set operation"), _value(y, "a set operation"))
    return lookup(x, np.nonzero(mask if inside else ~mask)[0])


intersect1d = _set_operation(np.intersect1d, lambda x, y: _members(x, y, True))
setdiff1d = _set_operation(np.setdiff1d, lambda x, y: _members(x, y, False))
union1d = _set_operation(np.union1d, lambda x, y: unique(concatenate([x, y])))
setxor1d = _set_operation(np.setxor1d, lambda x, y: sort(concatenate([_members(x, y, False), _members(y, x, False)])))
