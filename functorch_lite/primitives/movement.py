# SPDX-License-Identifier: MIT
"""Movement family: reshape, permute_dims, slice, pad, concatenate, rev. Each moves elements and computes nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.core.aval import Aval
from functorch_lite.core.linear import is_linear
from functorch_lite.core.numpy_code import numpy_form
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, shape_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim, full, reduce_sum
from functorch_lite.primitives.comparison import select, zero_like
from functorch_lite.primitives.declare import batch_unary, check_axes, check_dtypes, linear, linear_in_all
from functorch_lite.primitives.elementwise import sub

# --- reshape: the same elements in row-major order under another shape ------------------------------------------------
reshape_p = Primitive("reshape", Kind.MOVEMENT)


def reshape(x: Any, shape: tuple[int, ...]) -> Any:
    """`x` with its elements, in row-major order, arranged as `shape`."""
    return bind1(reshape_p, x, shape=shape)


@shape_rules.register(reshape_p)
def _(x, *, shape):
    out = Aval(shape, x.dtype)
    if out.size != x.size or any(n < 0 for n in shape):
        raise ShapeError(f"reshape: cannot arrange shape {x.shape} ({x.size} elements) as {shape}.")
    return out


eval_rules.add(reshape_p, lambda xp, x, *, shape: xp.reshape(x, shape))
numpy_form(reshape_p)(lambda x, *, shape: f"{{0}}.reshape({shape})")
batch_unary(reshape_p)(lambda x, *, shape: reshape(x, (x.shape[0], *shape)))
linear(reshape_p, lambda ct, x, *, shape: reshape(ct, x.shape))

# --- permute_dims: the axes in another order --------------------------------------------------------------------------
permute_dims_p = Primitive("permute_dims", Kind.MOVEMENT)


def permute_dims(x: Any, axes: tuple[int, ...]) -> Any:
    """`x` whose axis i is axis `axes[i]` of the argument."""
    return bind1(permute_dims_p, x, axes=axes)


def inverse_permutation(axes: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `axes`."""
    inverse = [0] * len(axes)
    for i, a in enumerate(axes):
        inverse[a] = i
    return tuple(inverse)


def moveaxis(x: Any, source: int, destination: int) -> Any:
    """`x` with one axis moved (non-negative axes)."""
    if source == destination:
        return x
    axes = [i for i in range(len(x.shape)) if i != source]
    axes.insert(destination, source)
    return permute_dims(x, tuple(axes))


@shape_rules.register(permute_dims_p)
def _(x, *, axes):
    check_axes("permute_dims", axes, x.ndim)
    if len(axes) != x.ndim:
        raise ShapeError(f"permute_dims: {axes} is not a permutation of the {x.ndim} axes.")
    return Aval(tuple(x.shape[a] for a in axes), x.dtype)


eval_rules.add(permute_dims_p, lambda xp, x, *, axes: x.transpose(axes))
batch_unary(permute_dims_p)(lambda x, *, axes: permute_dims(x, (0, *(a + 1 for a in axes))))
linear(permute_dims_p, lambda ct, x, *, axes: permute_dims(ct, inverse_permutation(axes)))

# --- slice: a regular grid of elements --------------------------------------------------------------------------------
slice_p = Primitive("slice", Kind.MOVEMENT)


def slice(x: Any, start: tuple[int, ...], limit: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """The elements of `x` from `start` up to, not including, `limit`, in positive steps of `strides`."""
    return bind1(slice_p, x, start=start, limit=limit, strides=strides)


def slice_in_axis(x: Any, start: int, limit: int, axis: int, stride: int = 1) -> Any:
    """`slice` along one axis only."""
    n = len(x.shape)
    starts, limits, strides = [0] * n, list(x.shape), [1] * n
    starts[axis], limits[axis], strides[axis] = start, limit, stride
    return slice(x, tuple(starts), tuple(limits), tuple(strides))


@shape_rules.register(slice_p)
def _(x, *, start, limit, strides):
    bad = len(start) != x.ndim or any(
        not 0 <= a <= b <= n or s < 1 for a, b, n, s in zip(start, limit, x.shape, strides, strict=True)
    )
    if bad:
        raise ShapeError(f"slice: start {start}, limit {limit}, strides {strides} do not fit shape {x.shape}.")
    return Aval(tuple(-(-(b - a) // s) for a, b, s in zip(start, limit, strides, strict=True)), x.dtype)


@eval_rules.register(slice_p)
def _(xp, x, *, start, limit, strides):
    return x[tuple(np.s_[a:b:s] for a, b, s in zip(start, limit, strides, strict=True))]


@batch_unary(slice_p)
def _(x, *, start, limit, strides):
    return slice(x, (0, *start), (x.shape[0], *limit), (1, *strides))


def _slice_transpose(ct, x, *, start, limit, strides):
    high = tuple(
        n - a - ((m - 1) * s + 1 if m else 0) for n, a, m, s in zip(x.shape, start, ct.shape, strides, strict=True)
    )
    config = tuple((a, h, s - 1) for a, h, s in zip(start, high, strides, strict=True))
    return pad(ct, zero_like(ct), config)


linear(slice_p, _slice_transpose)

# --- pad: a border, and gaps between elements -------------------------------------------------------------------------
pad_p = Primitive("pad", Kind.MOVEMENT)

PadConfig = tuple[tuple[int, int, int], ...]


def pad(x: Any, value: Any, config: PadConfig) -> Any:
    """`x` with (low, high, interior) elements `value` added along each axis; negative low or high removes elements."""
    return bind1(pad_p, x, value, config=config)


@shape_rules.register(pad_p)
def _(x, value, *, config):
    check_dtypes("pad", (x, value))
    shape = tuple(n + lo + hi + max(n - 1, 0) * i for n, (lo, hi, i) in zip(x.shape, config, strict=True))
    if value.ndim or any(n < 0 for n in shape):
        raise ShapeError(
            f"pad: configuration {config} does not fit shape {x.shape} and a value of shape {value.shape}."
        )
    return Aval(shape, x.dtype)


@eval_rules.register(pad_p)
def _(xp, x, value, *, config):
    grown = [n + max(n - 1, 0) * i for n, (_, _, i) in zip(x.shape, config, strict=True)]
    shape = tuple(g + lo + hi for g, (lo, hi, _) in zip(grown, config, strict=True))
    out = xp.empty(shape, x.dtype)
    out[...] = value
    target, source = [], []
    for n, (lo, hi, i), g in zip(x.shape, config, grown, strict=True):
        step = i + 1
        first = 0 if lo >= 0 else -(lo // step)  # elements cut off by a negative low
        last = n if hi >= 0 else (g + hi - 1) // step + 1
        last = max(last, first)
        begin = lo + first * step
        end = begin + max((last - first - 1) * step + 1, 0)
        target.append(np.s_[begin:end:step] if last > first else np.s_[0:0])
        source.append(np.s_[first:last])
    out[tuple(target)] = x[tuple(source)]
    return out


@batch_rules.register(pad_p)
def _(size, args, batched, *, config):
    x, value = args
    if not batched[1]:
        return pad(x, value, ((0, 0, 0), *config)), True
    if not batched[0]:
        x = broadcast_in_dim(x, (size, *x.shape), tuple(range(1, len(x.shape) + 1)))
    inside = pad(x, zero_like(x), ((0, 0, 0), *config))
    kept = full(x.shape[1:], True, np.dtype(bool))
    kept = pad(kept, np.False_, config)
    kept = broadcast_in_dim(kept, inside.shape, tuple(range(1, len(inside.shape))))
    return select(kept, inside, broadcast_in_dim(value, inside.shape, (0,))), True


def _pad_transpose(ct, x, value, *, config):
    ct_x = ct_value = None
    undone = pad(ct, zero_like(ct), tuple((-lo, -hi, 0) for lo, hi, _ in config))
    inner = slice(undone, (0,) * len(config), undone.shape, tuple(i + 1 for _, _, i in config))
    if is_linear(x):
        ct_x = inner
    if is_linear(value):
        every = tuple(range(len(ct.shape)))
        ct_value = sub(reduce_sum(ct, every), reduce_sum(inner, every))
    return ct_x, ct_value


linear_in_all(pad_p, _pad_transpose)

# --- concatenate: end to end along one axis ---------------------------------------------------------------------------
concatenate_p = Primitive("concatenate", Kind.MOVEMENT)


def concatenate(arrays: Sequence[Any], axis: int) -> Any:
    """The arrays one after the other along `axis` (non-negative)."""
    return arrays[0] if len(arrays) == 1 else bind1(concatenate_p, *arrays, axis=axis)


@shape_rules.register(concatenate_p)
def _(*avals, axis):
    dtype = check_dtypes("concatenate", avals)
    first = avals[0].shape
    check_axes("concatenate", (axis,), len(first))
    rest = first[:axis] + first[axis + 1 :]
    for a in avals[1:]:
        if a.shape[:axis] + a.shape[axis + 1 :] != rest or len(a.shape) != len(first):
            raise ShapeError(f"concatenate: shapes {first} and {a.shape} differ elsewhere than on axis {axis}.")
    return Aval((*first[:axis], sum(a.shape[axis] for a in avals), *first[axis + 1 :]), dtype)


eval_rules.add(concatenate_p, lambda xp, *arrays, axis: xp.concatenate(arrays, axis))


@batch_rules.register(concatenate_p)
def _(size, args, batched, *, axis):
    wide = [
        x if b else broadcast_in_dim(x, (size, *x.shape), tuple(range(1, len(x.shape) + 1)))
        for x, b in zip(args, batched, strict=True)
    ]
    return concatenate(wide, axis + 1), True


def _concatenate_transpose(ct, *args, axis):
    found, start = [], 0
    for x in args:
        limit = start + x.shape[axis]
        found.append(slice_in_axis(ct, start, limit, axis) if is_linear(x) else None)
        start = limit
    return tuple(found)


linear_in_all(concatenate_p, _concatenate_transpose)

# --- rev: reverse along axes ------------------------------------------------------------------------------------------
rev_p = Primitive("rev", Kind.MOVEMENT)


def rev(x: Any, axes: tuple[int, ...]) -> Any:
    """`x` with the order of its elements reversed along `axes`."""
    return bind1(rev_p, x, axes=axes)


@shape_rules.register(rev_p)
def _(x, *, axes):
    check_axes("rev", axes, x.ndim)
    return x


eval_rules.add(rev_p, lambda xp, x, *, axes: xp.flip(x, axes))
batch_unary(rev_p)(lambda x, *, axes: rev(x, tuple(a + 1 for a in axes)))
linear(rev_p, lambda ct, x, *, axes: rev(ct, axes))
