# SPDX-License-Identifier: MIT
"""Lookup: `x[index]` on tracers, and take, take_along_axis, choose, searchsorted, digitize."""

import functools
from typing import Any, Literal

import numpy as np

from functorch_lite.core.tracer import Tracer, current_trace
from functorch_lite.errors import ArgumentError, BoundsError, ShapeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis, size_of
from functorch_lite.numpy.dispatch import implement, is_eager_call, public
from functorch_lite.numpy.index_plan import (
    arrays_first,
    basic_box,
    basic_key,
    common_to_position,
    cut_box,
    index_arrays,
    make_box,
    make_plan,
    mode_of,
)
from functorch_lite.numpy.promotion import (
    asarray,
    broadcast_shapes,
    broadcast_to,
    cast,
    promote,
    shape_of,
)
from functorch_lite.primitives.indexing import gather
from functorch_lite.transforms.composites import of_indices, of_named

_i64 = np.dtype(np.int64)
LARGEST_PLANNED = 8
"""The largest integer index that is planned under eager `grad`: what counts through a long axis would get a plan for
each of its values."""
TakeMode = Literal["raise", "wrap", "clip", "fill"]


def _permuted(x: Any, order: tuple[int, ...]) -> Any:
    return x if order == tuple(range(len(order))) else e.permute_dims(x, order)


def _reshaped(x: Any, shape: tuple[int, ...]) -> Any:
    return x if x.shape == shape else e.reshape(x, shape)


def getitem(x: Any, index: Any) -> Any:
    """`x[index]`, with NumPy's rules; an index out of bounds is an IndexError."""
    key = basic_key(index)
    trace = current_trace()
    if trace.composites is not None:
        out = None
        if key is None:
            if _is_of_arrays(index):
                out = of_indices(trace, lookup, (x, index))
        elif not [i for i in key if type(i) is int and abs(i) > LARGEST_PLANNED]:
            out = of_named(trace, _cut, x, key, key)
        if out is not None:
            return out
    return lookup(x, index) if key is None else _cut(x, key)


def _cut(x, key):
    return cut_box(x, basic_box(x.shape, key))


def _is_of_arrays(index):
    return all([type(i) is np.ndarray for i in index]) if type(index) is tuple else type(index) is np.ndarray


def lookup(x: Any, index: Any, mode: str | None = None, fill_value: Any = None) -> Any:
    """`x[index]`; `mode` says what an index array out of bounds gives: an error, the nearest element, `fill_value`."""
    mode = mode_of(mode)
    plan = make_plan(x.shape, index, mode == "raise")
    out = cut_box(x, make_box(plan))
    if plan.arrays:
        out = _permuted(out, arrays_first(plan))
        arrays = index_arrays(plan)
        if mode == "fill":
            out = _gather_or_fill(out, arrays, fill_value)
        else:
            out = gather(out, *_in_mode(arrays, out.shape, mode), mode=_gather_mode(plan, mode))
        out = _permuted(out, common_to_position(plan))
    return _reshaped(out, plan.shape_out)


def _gather_mode(plan, mode):
    return "unchecked" if mode == "raise" and plan.is_static else mode


def _in_mode(arrays, sizes, mode):
    """Index arrays for the primitive: negative ones count from the end before they are clipped."""
    if mode != "clip":
        return arrays
    return [_from_end(a, n) for a, n in zip(arrays, sizes, strict=False)]


def _from_end(index, n):
    index = cast(index, _i64)
    zero = np.int64(0)
    return e.add(index, e.mul(e.convert(e.lt(index, zero), _i64), np.int64(n)))


def _gather_or_fill(x, arrays, fill_value):
    valid, safe = [], []
    for index, n in zip(arrays, x.shape, strict=False):
        index = _from_end(index, n)
        valid.append(e.bit_and(e.ge(index, np.int64(0)), e.lt(index, np.int64(n))))
        safe.append(e.select(valid[-1], index, np.int64(0)))
    inside = functools.reduce(e.bit_and, valid)
    out = gather(x, *safe, mode="unchecked")
    missing = cast(_default_fill(x.dtype) if fill_value is None else fill_value, x.dtype)
    dims = tuple(range(len(inside.shape)))
    return e.select(e.broadcast_in_dim(inside, out.shape, dims), out, broadcast_to(missing, out.shape))


def _default_fill(dtype):
    """What stands for a missing element: NaN, the smallest signed or the largest unsigned integer, True (as in JAX)."""
    if dtype.kind == "b":
        return True
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max)
    return float("nan")


def whole(n: int) -> tuple[slice, ...]:
    """`:` n times."""
    return (slice(None),) * n


# --- take and its kin ---------------------------------------------------------------------------------------------


def take_body(x: Any, indices: Any, axis: int | None = None, mode: str = "raise", fill_value: Any = None) -> Any:
    """The elements of x at `indices` along `axis` (None: of x flattened)."""
    x, indices = asarray(x), asarray(indices)
    if indices.dtype.kind not in "iu":
        raise BoundsError(f"take: indices must be integers, got {indices.dtype}.")
    if axis is None:
        x, axis = e.reshape(x, (size_of(x.shape),)), 0
    axis = normal_axis(axis, len(x.shape))
    if mode == "clip":  # NumPy's take clips a negative index to 0
        indices = e.maximum(cast(indices, _i64), np.int64(0))
    if isinstance(indices, np.generic):
        indices = int(indices)
    return lookup(x, (*whole(axis), indices), mode, fill_value)


implement(np.take)(take_body)


def take(x: Any, indices: Any, axis: int | None = None, mode: TakeMode = "raise", fill_value: Any = None) -> Any:
    """The elements of x at `indices` along `axis` (None: of x flattened).

    mode: "raise", "wrap", "clip" (NumPy's) or "fill" (`fill_value` where an index is out of bounds).
    """
    if mode != "fill" and is_eager_call((x, indices), {}):
        return np.take(x, indices, axis=axis, mode=mode)
    return take_body(x, indices, axis, mode, fill_value)


def along_axis(x: Any, indices: Any, axis: int) -> tuple[Any, ...]:
    """The index arrays that pair `indices` with the other axes' own positions."""
    axis = normal_axis(axis, len(x.shape))
    if len(indices.shape) != len(x.shape):
        raise ShapeError(
            f"indices of rank {len(indices.shape)} for an array of rank {len(x.shape)}: they must be equal."
        )
    n = len(x.shape)
    found = []
    for i in range(n):
        positions = np.arange(x.shape[i]).reshape([-1 if j == i else 1 for j in range(n)])
        found.append(indices if i == axis else positions)
    return tuple(found)


@public(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: int | None = -1, mode: str | None = None) -> Any:
    """For each position of `indices`, the element of x at that index along `axis` and that position elsewhere."""
    x, indices = asarray(arr), asarray(indices)
    if axis is None:
        x, axis = e.reshape(x, (size_of(x.shape),)), 0
    return lookup(x, along_axis(x, indices, axis), mode)


@public(np.choose)
def choose(a: Any, choices: Any, out: None = None, mode: str = "raise") -> Any:
    """The array whose element comes from `choices[a]` at the same position."""
    options = promote(*choices) if isinstance(choices, (list, tuple)) else [c for c in asarray(choices)]
    index = asarray(a)
    shape = broadcast_shapes(index.shape, *[o.shape for o in options])
    index = broadcast_to(index, shape)
    flat = [e.reshape(broadcast_to(o, shape), (1, *shape)) for o in options]
    picked = e.reshape(index, (1, *shape))
    stacked = e.concatenate(flat, 0)
    if mode == "clip":
        picked = e.maximum(cast(picked, _i64), np.int64(0))
    return e.reshape(lookup(stacked, along_axis(stacked, picked, 0), mode), shape)


# --- ordered search -----------------------------------------------------------------------------------------------


@public(np.searchsorted)
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    """Where each of `v` is to be inserted in the sorted vector `a` to keep it sorted."""
    a, v = promote(asarray(a), v)
    if len(a.shape) != 1:
        raise ShapeError(f"searchsorted: expected a vector to search, got shape {a.shape}.")
    if sorter is not None:
        a = lookup(a, asarray(sorter))
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: side must be 'left' or 'right', got {side!r}.")
    shape = v.shape
    low = e.full(shape, 0, _i64)
    high = e.full(shape, a.shape[0], _i64)
    if not a.shape[0]:
        return low
    for _ in range(int(a.shape[0]).bit_length()):
        open_ = e.lt(low, high)
        middle = e.shift_right(e.add(low, high), np.int64(1))
        probe = gather(a, e.minimum(middle, np.int64(a.shape[0] - 1)), mode="unchecked")
        right = before(probe, v, side == "right")
        low = e.select(e.bit_and(open_, right), e.add(middle, np.int64(1)), low)
        high = e.select(e.bit_and(open_, e.bit_not(right)), middle, high)
    return low


def before(x: Any, y: Any, or_equal: bool) -> Any:
    """x < y (or <=) in sorted order, where NaN comes last."""
    if x.dtype.kind in "biu":
        return e.le(x, y) if or_equal else e.lt(x, y)
    x_nan, y_nan = e.ne(x, x), e.ne(y, y)
    smaller = e.bit_or(e.lt(x, y), e.bit_and(e.bit_not(x_nan), y_nan))
    return e.bit_or(smaller, e.bit_or(e.eq(x, y), e.bit_and(x_nan, y_nan))) if or_equal else smaller


@public(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """The number of the bin (between the monotonic `bins`) in which each element of x falls."""
    bins = asarray(bins)
    n = shape_of(bins)[0]
    known = bins.concrete() if isinstance(bins, Tracer) else bins
    ascending = searchsorted(bins, x, side="left" if right else "right")
    if n < 2 or (known is not None and known[0] <= known[-1]):
        return ascending
    backwards = searchsorted(e.rev(bins, (0,)), x, side="right" if right else "left")
    descending = e.sub(broadcast_to(np.int64(n), backwards.shape), backwards)
    if known is not None:
        return descending
    falls = e.gt(lookup(bins, 0), lookup(bins, n - 1))
    return e.select(broadcast_to(falls, ascending.shape), descending, ascending)
