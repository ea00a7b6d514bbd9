# SPDX-License-Identifier: MIT
"""Editing along an axis: delete, insert, trim_zeros, pad."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, ConcretizationError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.dispatch import public
from functorch_lite.numpy.indexing import lookup, whole
from functorch_lite.numpy.promotion import asarray, cast
from functorch_lite.numpy.promotion import broadcast_to as _broadcast_to
from functorch_lite.numpy.shaping import flip, moveaxis, ravel, repeat

# --- editing ------------------------------------------------------------------------------------------------------


@public(np.delete)
def delete(arr: Any, obj: Any, axis: int | None = None) -> Any:
    """x without the slices at `obj`, which must be known while tracing."""
    x = asarray(arr)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normal_axis(axis, len(x.shape))
    return lookup(x, (*whole(axis), np.delete(np.arange(x.shape[axis]), obj)))


@public(np.insert)
def insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """x with `values` put before the positions `obj`, which must be known while tracing."""
    x = asarray(arr)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normal_axis(axis, len(x.shape))
    n = x.shape[axis]
    where = np.insert(np.arange(n), obj, -1 - np.arange(np.size(np.arange(n + 1)[obj])), axis=0)
    count = int((where < 0).sum())
    values = cast(asarray(values), x.dtype)
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    if np.ndim(obj) == 0 and not isinstance(obj, slice):
        values = moveaxis(values, 0, axis) if len(values.shape) == len(shape) else values
        if len(values.shape) == 1 and len(shape) == 1 and values.shape[0] > 1:
            where = np.insert(np.arange(n), [int(obj)] * values.shape[0], -1 - np.arange(values.shape[0]))
            shape = (values.shape[0],)
    values = _broadcast_to(values, shape)
    joined = e.concatenate([x, values], axis)
    return lookup(joined, (*whole(axis), np.where(where < 0, n - 1 - where, where)))


@public(np.trim_zeros)
def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Any:
    """A vector without its leading and trailing zeros; its values must be known (eager, or under grad)."""
    x = asarray(filt)
    value = x.concrete() if isinstance(x, Tracer) else x
    if value is None:
        raise ConcretizationError("trim_zeros: the size of the result depends on the values, which are not known yet.")
    (found,) = np.nonzero(value)
    first = found[0] if len(found) and "f" in trim.lower() else (len(value) if not len(found) else 0)
    last = found[-1] + 1 if len(found) and "b" in trim.lower() else len(value)
    return lookup(x, slice(int(first), int(last)))


# --- padding ------------------------------------------------------------------------------------------------------


def _pad_widths(pad_width: Any, n: int) -> list[tuple[int, int]]:
    if isinstance(pad_width, dict):
        found = [(0, 0)] * n
        for axis, width in pad_width.items():
            found[normal_axis(axis, n)] = (width, width) if isinstance(width, int) else tuple(width)
        return found
    return [(int(a), int(b)) for a, b in np.broadcast_to(np.asarray(pad_width), (n, 2))]


def _pad_constant(x: Any, widths: Sequence[tuple[int, int]], values: Any) -> Any:
    if not isinstance(values, (list, tuple)):
        return e.pad(x, cast(values, x.dtype), tuple((a, b, 0) for a, b in widths))
    pairs = np.broadcast_to(np.asarray(values), (len(widths), 2))
    for axis, ((a, b), (low, high)) in enumerate(zip(widths, pairs, strict=True)):
        none = [(0, 0, 0)] * len(widths)
        x = e.pad(x, cast(low.item(), x.dtype), (*none[:axis], (a, 0, 0), *none[axis + 1 :]))
        x = e.pad(x, cast(high.item(), x.dtype), (*none[:axis], (0, b, 0), *none[axis + 1 :]))
    return x


_INDEX_MODES = ("edge", "wrap", "reflect", "symmetric")


@public(np.pad)
def pad(array: Any, pad_width: Any, mode: str = "constant", **options: Any) -> Any:
    """x with a border: constant, edge, wrap, reflect, symmetric, linear_ramp, maximum, minimum, mean, empty (0)."""
    x = asarray(array)
    widths = _pad_widths(pad_width, len(x.shape))
    if mode in ("constant", "empty"):
        return _pad_constant(x, widths, options.get("constant_values", 0))
    if mode not in _INDEX_MODES:
        return _pad_computed(x, widths, mode, options)
    for axis, (a, b) in enumerate(widths):
        if a or b:
            places = np.pad(np.arange(x.shape[axis]), (a, b), mode=mode)  # type: ignore[call-overload]
            x = lookup(x, (*whole(axis), places))
    return x


def _pad_computed(x, widths, mode, options):
    if mode not in ("linear_ramp", "maximum", "minimum", "mean") or options.get("stat_length") is not None:
        raise ArgumentError(f"pad: mode {mode!r} with {options} cannot be traced.")
    ends = np.broadcast_to(np.asarray(options.get("end_values", 0)), (len(widths), 2))
    reduce = {"maximum": np.max, "minimum": np.min, "mean": np.mean}.get(mode)
    for axis, (a, b) in enumerate(widths):
        if not a and not b:
            continue
        if reduce is not None:
            border = cast(reduce(x, axis=axis, keepdims=True), x.dtype)
            parts = [repeat(border, a, axis), x, repeat(border, b, axis)]
        else:
            parts = [_ramp(x, axis, a, ends[axis][0], 0), x, flip(_ramp(x, axis, b, ends[axis][1], -1), axis)]
        x = e.concatenate(parts, axis)
    return x


def _ramp(x, axis, count, end, edge):
    """`count` values from `end` to (not including) the edge of x."""
    first = 0 if edge == 0 else x.shape[axis] - 1
    border = e.slice_in_axis(x, first, first + 1, axis)
    shape = [1] * len(x.shape)
    shape[axis] = count
    weight = np.linspace(0, 1, count, endpoint=False).reshape(shape).astype(x.dtype if x.dtype.kind in "fc" else float)
    weight = constant(weight, x)
    return cast(end + (border - end) * weight, x.dtype)
