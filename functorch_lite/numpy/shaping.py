# SPDX-License-Identifier: MIT
"""Functions that move elements: reshape, transpose, broadcast_to, tile, repeat, roll, flip, tril, diag, trace."""

import builtins
import math
from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core.tracer import Tracer, argument_path
from functorch_lite.errors import ArgumentError, ConcretizationError, ShapeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis, reduction_axes, size_of
from functorch_lite.numpy.dispatch import either, public
from functorch_lite.numpy.indexing import lookup, whole
from functorch_lite.numpy.promotion import (
    asarray,
    broadcast_shapes,
    cast,
    operand_text,
    unfit,
)
from functorch_lite.numpy.promotion import broadcast_to as _broadcast_to

# --- reshape ------------------------------------------------------------------------------------------------------


def sizes_of(shape: Any) -> tuple[int, ...]:
    """A shape argument as a tuple of Python integers; a traced size is refused with the way out."""
    shape = (shape,) if isinstance(shape, (int, np.integer, Tracer)) else tuple(shape)
    for n in shape:
        if isinstance(n, Tracer) and n.concrete() is None:
            raise ConcretizationError(
                f"a shape needs Python integers, got {_named(n)} of {n.tag!r}. Take the size from x.shape, or mark the "
                "argument with jit(..., static_argnums=...)."
            )
    return tuple(int(n) for n in shape)


def _named(x):
    path = argument_path(x)
    return f"`{path}`, a traced {x.aval}" if path else f"a traced {x.aval}"


@public(np.reshape)
def reshape(a: Any, /, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: Any = None) -> Any:
    """The elements in row-major order, arranged as `shape`; one size may be -1."""
    x = asarray(a)
    target = sizes_of(newshape if shape is None else shape)
    if builtins.sum(n == -1 for n in target) > 1:
        raise ArgumentError(f"reshape: only one size of {target} can be -1.")
    if -1 in target:
        known = math.prod(n for n in target if n != -1)
        total = size_of(x.shape)
        if known == 0 or total % known:
            raise unfit("reshape", (x,), f"has {total} elements, no multiple of {known} as {target} needs")
        target = tuple(total // known if n == -1 else n for n in target)
    if order == "F":
        flipped = e.permute_dims(x, tuple(range(len(x.shape)))[::-1])
        return e.permute_dims(e.reshape(flipped, target[::-1]), tuple(range(len(target)))[::-1])
    return x if target == x.shape else _rearranged(x, target)


def _rearranged(x, target):
    try:
        return e.reshape(x, target)
    except ValueError:
        raise unfit("reshape", (x,), f"has {size_of(x.shape)} elements, {target} has {math.prod(target)}") from None


@public(np.ravel)
def ravel(a: Any, order: str = "C") -> Any:
    """The elements in row-major order, as a vector."""
    return reshape(asarray(a), (-1,) if size_of(asarray(a).shape) else (0,), order=order)


@public(np.squeeze)
def squeeze(a: Any, axis: Any = None) -> Any:
    """x without its axes of size 1, or without those given."""
    x = asarray(a)
    axes = [i for i, n in enumerate(x.shape) if n == 1] if axis is None else reduction_axes(axis, len(x.shape))
    if builtins.any(x.shape[i] != 1 for i in axes):
        raise unfit("squeeze", (x,), f"has no size 1 at each of the axes {tuple(axes)}; only those can be left out")
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


@public(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Any:
    """x with new axes of size 1 at these positions of the result."""
    x = asarray(a)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    n = len(x.shape) + len(axes)
    places = reduction_axes(axes, n)
    rest = iter(x.shape)
    return reshape(x, tuple(1 if i in places else next(rest) for i in range(n)))


def _at_least(numpy_function: Any, grow: Any) -> Any:
    def body(*arys: Any) -> Any:
        found = tuple(grow(asarray(a)) for a in arys)
        return found[0] if len(found) == 1 else found

    body.__doc__ = numpy_function.__doc__.strip().splitlines()[0]
    return public(numpy_function)(body)


def grow2(x: Any) -> Any:
    """x with leading axes of size 1 up to two axes."""
    return reshape(x, (1,) * (2 - len(x.shape)) + tuple(x.shape)) if len(x.shape) < 2 else x


def grow3(x: Any) -> Any:
    """x with three axes, as numpy.atleast_3d places them."""
    if len(x.shape) >= 3:
        return x
    shape = {0: (1, 1, 1), 1: (1, *x.shape, 1), 2: (*x.shape, 1)}[len(x.shape)]
    return reshape(x, shape)


atleast_1d = _at_least(np.atleast_1d, lambda x: x if x.shape else reshape(x, (1,)))
atleast_2d = _at_least(np.atleast_2d, grow2)
atleast_3d = _at_least(np.atleast_3d, grow3)

# --- order of axes ------------------------------------------------------------------------------------------------


def _transpose(a: Any, axes: Any = None) -> Any:
    """x with its axes in another order; reversed if none is given."""
    x = asarray(a)
    n = len(x.shape)
    order = tuple(range(n))[::-1] if axes is None else tuple(normal_axis(int(i), n) for i in axes)
    if sorted(order) != list(range(n)):
        raise ArgumentError(f"transpose: axes {order} don't match {operand_text(x)}: name each axis once.")
    return x if order == tuple(range(n)) else e.permute_dims(x, order)


transpose = public(np.transpose)(_transpose)
permute_dims = either(np.permute_dims, _transpose)


@public(np.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    """x with its last two axes exchanged."""
    x = asarray(x)
    if len(x.shape) < 2:
        raise ShapeError(f"matrix_transpose: expected at least two axes, got shape {x.shape}.")
    return swapaxes(x, -1, -2)


@public(np.swapaxes)
def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """x with two axes exchanged."""
    x = asarray(a)
    order = list(range(len(x.shape)))
    i, j = normal_axis(axis1, len(order)), normal_axis(axis2, len(order))
    order[i], order[j] = order[j], order[i]
    return _transpose(x, order)


@public(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    """x with the axes `source` moved to the positions `destination`."""
    x = asarray(a)
    n = len(x.shape)
    source = [normal_axis(i, n) for i in (source if isinstance(source, (tuple, list)) else (source,))]
    destination = [
        normal_axis(i, n) for i in (destination if isinstance(destination, (tuple, list)) else (destination,))
    ]
    if len(source) != len(destination):
        raise ArgumentError("`source` and `destination` arguments must have the same number of elements")
    order = [i for i in range(n) if i not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return _transpose(x, order)


@public(np.rollaxis)
def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    """x with `axis` moved before the axis that is at `start`."""
    x = asarray(a)
    n = len(x.shape)
    axis, start = normal_axis(axis, n), start + n if start < 0 else start
    return moveaxis(x, axis, start - (1 if axis < start else 0))


# --- broadcasting -------------------------------------------------------------------------------------------------


@public(np.broadcast_to)
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Any:
    """x repeated to `shape`."""
    return _broadcast_to(asarray(array), sizes_of(shape))


@public(np.broadcast_arrays)
def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Any, ...]:
    """The arrays, repeated to their common shape."""
    arrays = [asarray(a) for a in args]
    shape = broadcast_shapes(*[a.shape for a in arrays])
    return tuple(_broadcast_to(a, shape) for a in arrays)


# --- repetition ---------------------------------------------------------------------------------------------------


@public(np.tile)
def tile(A: Any, reps: Any) -> Any:
    """x repeated as a block along each axis."""
    x = asarray(A)
    reps = (int(reps),) if isinstance(reps, (int, np.integer)) else tuple(int(r) for r in reps)
    n = builtins.max(len(reps), len(x.shape))
    reps = (1,) * (n - len(reps)) + reps
    shape = (1,) * (n - len(x.shape)) + tuple(x.shape)
    wide = tuple(m for r, size in zip(reps, shape, strict=True) for m in (r, size))
    dims = tuple(2 * i + 1 for i in range(n))
    out = e.broadcast_in_dim(reshape(x, shape), wide, dims)
    return reshape(out, tuple(r * size for r, size in zip(reps, shape, strict=True)))


@public(np.repeat)
def repeat(a: Any, repeats: Any, axis: int | None = None, *, total_repeat_length: int | None = None) -> Any:
    """Each element along an axis repeated; `repeats` must be known while tracing."""
    x = asarray(a)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normal_axis(axis, len(x.shape))
    if isinstance(repeats, Tracer):
        if repeats.concrete() is None:
            raise ConcretizationError("repeat: the counts decide the size of the result, so they cannot be traced.")
        repeats = repeats.concrete()
    counts = np.asarray(repeats)
    if counts.size == 1:
        k, shape = int(counts.reshape(())), x.shape
        out = e.broadcast_in_dim(
            x, (*shape[: axis + 1], k, *shape[axis + 1 :]), (*range(axis + 1), *range(axis + 2, len(shape) + 1))
        )
        return reshape(out, (*shape[:axis], shape[axis] * k, *shape[axis + 1 :]))
    return lookup(x, (*whole(axis), np.repeat(np.arange(x.shape[axis]), counts)))


@public(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """x with its elements moved along the axes, those that leave at one end coming back at the other."""
    x = asarray(a)
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,)
    if len(shifts) == 1:
        shifts = tuple(shifts) * len(axes)
    for i, s in zip(axes, shifts, strict=True):
        x = _roll_one(x, s, normal_axis(i, len(x.shape)))
    return x


def _roll_one(x, shift, axis):
    n = x.shape[axis]
    if not n:
        return x
    if isinstance(shift, Tracer):
        places = (constant(np.arange(n), x) - cast(shift, np.dtype(np.int64))) % n
        return lookup(x, (*whole(axis), places), mode="unchecked")
    s = int(shift) % n
    if not s:
        return x
    return e.concatenate([e.slice_in_axis(x, n - s, n, axis), e.slice_in_axis(x, 0, n - s, axis)], axis)


@public(np.flip)
def flip(m: Any, axis: Any = None) -> Any:
    """x with the order of its elements reversed along the axes."""
    x = asarray(m)
    axes = reduction_axes(axis, len(x.shape))
    return e.rev(x, axes) if axes else x


@public(np.fliplr)
def fliplr(m: Any) -> Any:
    """x reversed along the second axis."""
    return flip(m, 1)


@public(np.flipud)
def flipud(m: Any) -> Any:
    """x reversed along the first axis."""
    return flip(m, 0)


@public(np.rot90)
def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    """x turned k times by 90 degrees in the plane of two axes."""
    x = asarray(m)
    i, j = (normal_axis(a, len(x.shape)) for a in axes)
    k %= 4
    if k == 0:
        return x
    if k == 2:
        return flip(x, (i, j))
    if k == 1:
        return swapaxes(flip(x, j), i, j)
    return flip(swapaxes(x, i, j), j)


@public(np.resize)
def resize(a: Any, new_shape: Any) -> Any:
    """The elements of x, repeated as often as needed, arranged as `new_shape`."""
    shape = sizes_of(new_shape)
    flat = ravel(a)
    total = size_of(shape)
    if not flat.shape[0] or not total:
        return e.full(shape, 0, flat.dtype)
    copies = -(-total // flat.shape[0])
    return reshape(e.slice_in_axis(tile(flat, copies), 0, total, 0), shape)


# --- parts of matrices --------------------------------------------------------------------------------------------


def _triangle(x: Any, k: int, lower: bool) -> Any:
    rows, cols = x.shape[-2:]
    mask = constant(np.tri(rows, cols, k if lower else k - 1, dtype=bool), x)
    mask = _broadcast_to(mask if lower else ~mask, x.shape)
    return e.select(mask, x, x.dtype.type(0))


@public(np.tril)
def tril(m: Any, k: int = 0) -> Any:
    """The matrices x with zeros above the k-th diagonal."""
    x = asarray(m)
    x = _broadcast_to(x, (x.shape[0], x.shape[0])) if len(x.shape) == 1 else x
    return _triangle(x, k, True)


@public(np.triu)
def triu(m: Any, k: int = 0) -> Any:
    """The matrices x with zeros below the k-th diagonal."""
    x = asarray(m)
    x = _broadcast_to(x, (x.shape[0], x.shape[0])) if len(x.shape) == 1 else x
    return _triangle(x, k, False)


@public(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonals of x in the plane of two axes, along a new last axis."""
    x = moveaxis(asarray(a), (axis1, axis2), (0, 1))
    rows, cols = x.shape[:2]
    i = np.arange(builtins.max(builtins.min(rows + builtins.min(offset, 0), cols - builtins.max(offset, 0)), 0))
    out = lookup(x, (i - builtins.min(offset, 0), i + builtins.max(offset, 0)))
    return moveaxis(out, 0, -1)


@public(np.diag)
def diag(v: Any, k: int = 0) -> Any:
    """The k-th diagonal of a matrix, or the matrix with a vector as its k-th diagonal."""
    x = asarray(v)
    if len(x.shape) == 2:
        return diagonal(x, k)
    if len(x.shape) != 1:
        raise ShapeError("Input must be 1- or 2-d.")
    n = x.shape[0] + builtins.abs(k)
    rows = e.broadcast_in_dim(x, (x.shape[0], n), (0,))
    eye = np.eye(x.shape[0], n, builtins.max(k, 0), dtype=bool)
    part = e.select(constant(eye, x), rows, x.dtype.type(0))
    return e.pad(part, x.dtype.type(0), ((builtins.max(-k, 0), builtins.max(k, 0), 0), (0, 0, 0)))


@public(np.diagflat)
def diagflat(v: Any, k: int = 0) -> Any:
    """The matrix whose k-th diagonal is x flattened."""
    return diag(ravel(v), k)


@public(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: None = None) -> Any:
    """The sums of the diagonals of x in the plane of two axes."""
    x = diagonal(a, offset, axis1, axis2)
    wide = np.dtype(np.int64) if x.dtype.kind in "bi" and x.dtype.itemsize < 8 else x.dtype
    wide = np.dtype(np.uint64) if x.dtype.kind == "u" else wide
    return e.reduce_sum(cast(x, np.dtype(dtype) if dtype is not None else wide), (len(x.shape) - 1,))


@public(np.copy)
def copy(a: Any, order: str = "K", subok: bool = False) -> Any:
    """x itself: traced arrays do not change."""
    return asarray(a)
