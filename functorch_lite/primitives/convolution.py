# SPDX-License-Identifier: MIT
"""Convolution: conv_general_dilated in the layout NCHW/OIHW, with any number of spatial axes.

    out[n, o, p] = sum over c, k of  x[n, c, p * stride + k * dilation - low] * w[o, c, k]

It is bilinear, and each of its transposes is another convolution, so one evaluation rule serves forward and backward.
That rule brings every group to `x [G, N, C, *S]`, `w [G, O, C, *K]` and picks one of five plans by these tests:

    plan      when                               work
    scatter   x is dilated and the stride is 1   one product for each input position, added at its shifted places
    scale     C = O = 1 (depthwise)              one multiply-add over the output for each kernel position
    inner     N = O = 1 and K > P (its gradient) one inner product for each output position
    gather    K <= P positions                   patches [C K, P] of a few examples at a time, times w [O, C K]
    reduce    K > P (a weight gradient)          patches [N P, C K] of a few channels at a time, times w^T [C K, O]

Patches are copied with the longer of the kernel's and the output's positions innermost, into a buffer that stays in
the second-level cache while BLAS reads it.

Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv 1603.07285; K. Chellapilla,
S. Puri, P. Simard, "High performance convolutional neural networks for document processing", 2006 (patch matrices).
"""

import itertools
import math
from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, shape_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import ShapeError
from functorch_lite.primitives.declare import bilinear, check_dtypes
from functorch_lite.primitives.movement import pad_p, permute_dims, reshape, rev

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]

PATCH_BYTES = 1 << 18  # of the patch buffer: a quarter of a megabyte stays in the second-level cache

# --- conv_general_dilated: a sum of products over a sliding window --------------------------------------------------
# The compiler (passes/turn.py), and nobody else, gives it two more parameters, `order`: the order of the output's axes;
# and `flipped`: the axes along which the kernel is reversed.
conv_general_dilated_p = Primitive("conv_general_dilated", Kind.CONTRACTION)


def conv_general_dilated(
    x: Any, w: Any, strides: Ints, padding: Padding, lhs_dilation: Ints | None = None, rhs_dilation: Ints | None = None,
    groups: int = 1, batch_groups: int = 1,
) -> Any:
    """The convolution (cross-correlation) of `x` [N, C, *S] with `w` [O, C / groups, *K]: [N / batch_groups, O, *P].

    padding: (low, high) for each spatial axis, in elements of the dilated x; negative removes elements.
    lhs_dilation, rhs_dilation: the step between neighbours of x and of the kernel (1: none).
    groups: channels and filters are split in as many parts, each convolved alone.
    batch_groups: examples and filters are split in as many parts, each convolved alone.

    Raises ShapeError where sizes do not fit, DTypeError where the dtypes differ.

    Example: `conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)))` keeps the size under a 3 x 3 kernel.
    """
    ones = (1,) * len(strides)
    return bind1(
        conv_general_dilated_p, x, w, strides=tuple(strides), padding=tuple(tuple(p) for p in padding),
        lhs_dilation=tuple(lhs_dilation or ones), rhs_dilation=tuple(rhs_dilation or ones),
        groups=groups, batch_groups=batch_groups,
    )


def _dilated(n: int, step: int) -> int:
    return (n - 1) * step + 1 if n else 0


@shape_rules.register(conv_general_dilated_p)
def _(x, w, *, strides, padding, lhs_dilation, rhs_dilation, groups, batch_groups, order=None, flipped=()):
    dtype = check_dtypes("convolution", (x, w))
    _check_ranks(x, w, strides, padding, lhs_dilation, rhs_dilation)
    _check_groups(x, w, groups, batch_groups)
    spatial = []
    for i, (lo, hi) in enumerate(padding):
        room = _dilated(x.shape[i + 2], lhs_dilation[i]) + lo + hi - _dilated(w.shape[i + 2], rhs_dilation[i])
        spatial.append(max(room // strides[i] + 1, 0))
    shape = (x.shape[0] // batch_groups, w.shape[0], *spatial)
    return Aval(shape if order is None else tuple([shape[a] for a in order]), dtype)


def _check_ranks(x, w, *settings):
    n = x.ndim - 2
    if n < 0 or w.ndim != x.ndim or any(len(s) != n for s in settings):
        raise ShapeError(
            f"convolution: input {x.shape} [N, C, *spatial], kernel {w.shape} [O, C, *spatial] and the settings for "
            f"{[len(s) for s in settings]} spatial axes do not have the same number of spatial axes."
        )
    if any(s < 1 for s in (*settings[0], *settings[2], *settings[3])):
        raise ShapeError(f"convolution: strides {settings[0]} and dilations {settings[2:]} must be at least 1.")


def _check_groups(x, w, groups, batch_groups):
    if groups > 1 and batch_groups > 1:
        raise ShapeError("convolution: groups and batch_groups cannot both be above 1.")
    if x.shape[1] != w.shape[1] * groups:
        raise ShapeError(
            f"convolution: the input has {x.shape[1]} channels, but kernel {w.shape} with groups={groups} takes "
            f"{w.shape[1] * groups}."
        )
    if w.shape[0] % (groups * batch_groups) or x.shape[0] % batch_groups:
        raise ShapeError(
            f"convolution: {w.shape[0]} filters and {x.shape[0]} examples cannot be split into groups={groups}, "
            f"batch_groups={batch_groups}."
        )


# --- its transposes -------------------------------------------------------------------------------------------------


def _input_padding(x, w, ct, strides, padding, lhs_dilation, rhs_dilation):
    for i, (lo, _) in enumerate(padding):
        kernel = _dilated(w.shape[i + 2], rhs_dilation[i])
        low = kernel - lo - 1
        total = _dilated(x.shape[i + 2], lhs_dilation[i]) + kernel - 1 - _dilated(ct.shape[i + 2], strides[i])
        yield low, total - low


def _input_cotangent(ct, x, w, *, strides, padding, lhs_dilation, rhs_dilation, groups, batch_groups):
    """x's cotangent: the convolution of ct, dilated by the stride, with the reversed kernel."""
    parts = groups * batch_groups
    filters, channels, kernel = w.shape[0] // parts, w.shape[1], w.shape[2:]
    flipped = rev(w, tuple(range(2, len(w.shape))))
    flipped = permute_dims(reshape(flipped, (parts, filters, channels, *kernel)), _swap(len(w.shape) + 1, 1, 2))
    flipped = reshape(flipped, (parts * channels, filters, *kernel))
    pads = tuple(_input_padding(x, w, ct, strides, padding, lhs_dilation, rhs_dilation))
    out = conv_general_dilated(ct, flipped, lhs_dilation, pads, strides, rhs_dilation, parts)
    if batch_groups == 1:
        return out
    out = reshape(out, (out.shape[0], batch_groups, channels, *out.shape[2:]))
    return reshape(permute_dims(out, _swap(len(out.shape), 0, 1)), x.shape)


def _kernel_cotangent(ct, x, w, *, strides, padding, lhs_dilation, rhs_dilation, groups, batch_groups):
    """w's cotangent: the convolution of x with ct, examples and channels exchanged."""
    pads = []
    for i, (lo, _) in enumerate(padding):
        total = _dilated(ct.shape[i + 2], strides[i]) + _dilated(w.shape[i + 2], rhs_dilation[i])
        pads.append((lo, total - _dilated(x.shape[i + 2], lhs_dilation[i]) - 1 - lo))
    order = _swap(len(x.shape), 0, 1)
    out = conv_general_dilated(
        permute_dims(x, order), permute_dims(ct, order), rhs_dilation, tuple(pads), lhs_dilation, strides,
        batch_groups, groups,
    )
    return permute_dims(out, order)


def _swap(ndim: int, i: int, j: int) -> Ints:
    axes = list(range(ndim))
    axes[i], axes[j] = j, i
    return tuple(axes)


bilinear(conv_general_dilated_p, _input_cotangent, _kernel_cotangent)


# --- under vmap: the mapped axis joins the examples, the filters, or the groups -------------------------------------
@batch_rules.register(conv_general_dilated_p)
def _(size, args, batched, *, groups, batch_groups, **params):
    x, w = args
    if all(batched):
        return _batch_both(size, x, w, groups, batch_groups, params), True
    if batched[0]:
        return _batch_input(size, x, w, groups, batch_groups, params), True
    return _batch_kernel(size, x, w, groups, batch_groups, params), True


def _front(x, axis):
    return permute_dims(x, (axis, *(i for i in range(len(x.shape)) if i != axis)))


def _batch_both(size, x, w, groups, batch_groups, params):
    w = reshape(w, (size * w.shape[1], *w.shape[2:]))
    if batch_groups > 1:
        x = reshape(x, (size * x.shape[1], *x.shape[2:]))
        out = conv_general_dilated(x, w, groups=1, batch_groups=size * batch_groups, **params)
    else:
        x = permute_dims(x, _swap(len(x.shape), 0, 1))
        x = reshape(x, (x.shape[0], size * x.shape[2], *x.shape[3:]))
        out = conv_general_dilated(x, w, groups=size * groups, batch_groups=1, **params)
    return _front(reshape(out, (out.shape[0], size, out.shape[1] // size, *out.shape[2:])), 1)


def _batch_input(size, x, w, groups, batch_groups, params):
    _, n, *rest = x.shape
    split = reshape(x, (size, batch_groups, n // batch_groups, *rest))
    merged = reshape(permute_dims(split, _swap(len(split.shape), 0, 1)), (size * n, *rest))
    out = conv_general_dilated(merged, w, groups=groups, batch_groups=batch_groups, **params)
    return reshape(out, (size, n // batch_groups, *out.shape[1:]))


def _batch_kernel(size, x, w, groups, batch_groups, params):
    parts = groups * batch_groups
    _, filters, *rest = w.shape
    split = reshape(w, (size, parts, filters // parts, *rest))
    merged = reshape(permute_dims(split, _swap(len(split.shape), 0, 1)), (size * filters, *rest))
    out = conv_general_dilated(x, merged, groups=groups, batch_groups=batch_groups, **params)
    out = _front(reshape(out, (out.shape[0], parts, size, filters // parts, *out.shape[2:])), 2)
    return reshape(out, (size, out.shape[1], filters, *out.shape[4:]))


# --- evaluation -----------------------------------------------------------------------------------------------------
@eval_rules.register(conv_general_dilated_p)
def _(xp, x, w, *, strides, padding, lhs_dilation, rhs_dilation, groups, batch_groups, order=None, flipped=()):
    dtype, w = x.dtype, xp.flip(w, flipped)
    wide = dtypes.accumulator(dtype)
    if wide != dtype:
        x, w = x.astype(wide), w.astype(wide)
    w = w.reshape(groups * batch_groups, w.shape[0] // (groups * batch_groups), *w.shape[1:])
    if batch_groups > 1:
        x = x.reshape(batch_groups, x.shape[0] // batch_groups, *x.shape[1:])
    else:
        x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]).swapaxes(0, 1)
    out = _grouped(xp, x, w, strides, padding, lhs_dilation, rhs_dilation)
    g, n, o, *rest = out.shape
    out = out.swapaxes(0, 1).reshape(n, g * o, *rest)
    out = out if order is None else xp.ascontiguousarray(xp.transpose(out, order))
    return out if wide == dtype else out.astype(dtype)


def _grouped(xp, x, w, strides, padding, lhs_dilation, rhs_dilation):
    """x [G, N, C, *S] with w [G, O, C, *K]: [G, N, O, *P]."""
    n = len(strides)
    out_shape = tuple(
        max((_dilated(s, a) + lo + hi - _dilated(k, b)) // step + 1, 0)
        for s, k, a, b, step, (lo, hi) in zip(
            x.shape[3:], w.shape[3:], lhs_dilation, rhs_dilation, strides, padding, strict=True
        )
    )
    if 0 in out_shape or 0 in x.shape or 0 in w.shape:
        return xp.zeros((*x.shape[:2], w.shape[1], *out_shape), x.dtype)
    if max(lhs_dilation, default=1) > 1 and max(strides) == 1:
        return _scatter(xp, x, w, padding, lhs_dilation, rhs_dilation, out_shape)
    if any(p != (0, 0) for p in padding) or max(lhs_dilation, default=1) > 1:
        config = ((0, 0, 0),) * 3 + tuple((lo, hi, a - 1) for (lo, hi), a in zip(padding, lhs_dilation, strict=True))
        x = eval_rules[pad_p](xp, x, x.dtype.type(0), config=config)
    kernel_longer = math.prod(w.shape[3:]) > math.prod(out_shape)
    if w.shape[1] == 1 and x.shape[1 if kernel_longer else 2] == 1 and n:
        plan = _inner if kernel_longer else _scale
    else:
        plan = _reduce if kernel_longer else _gather
    return plan(xp, x, w, strides, rhs_dilation, out_shape)


def _windows(xp, x, lead, sizes, steps):
    """A view of `x` [*lead, *S] as [*lead, *sizes[0], *sizes[1]]; an axis of S is walked by the two with `steps`."""
    inner = x.strides[lead:]
    strides = [s * step for row in steps for s, step in zip(inner, row, strict=True)]
    return xp.lib.stride_tricks.as_strided(x, (*x.shape[:lead], *sizes[0], *sizes[1]), (*x.strides[:lead], *strides))


def _chunk(total: int, bytes_of_one: int) -> int:
    return max(1, min(total, PATCH_BYTES // max(bytes_of_one, 1)))


def _gather(xp, x, w, strides, dilation, out_shape):
    g, n, c = x.shape[:3]
    o, kernel = w.shape[1], w.shape[3:]
    depth, positions = c * math.prod(kernel), math.prod(out_shape)
    view = _windows(xp, x, 3, (kernel, out_shape), (dilation, strides))
    out = xp.empty((n, g, o, positions), x.dtype).swapaxes(0, 1)
    w = w.reshape(g, 1, o, depth)
    count = _chunk(n, g * depth * positions * x.itemsize)
    buffer = xp.empty((g, count, *view.shape[2:]), x.dtype)
    for i in range(0, n, count):
        m = min(count, n - i)
        buffer[:, :m] = view[:, i : i + m]
        xp.matmul(w, buffer[:, :m].reshape(g, m, depth, positions), out=out[:, i : i + m])
    return out.reshape(g, n, o, *out_shape)


def _reduce(xp, x, w, strides, dilation, out_shape):
    g, n, c = x.shape[:3]
    o, kernel = w.shape[1], w.shape[3:]
    depth, positions = math.prod(kernel), math.prod(out_shape)
    view = _windows(xp, x, 3, (out_shape, kernel), (strides, dilation))
    spatial = len(kernel)
    view = view.transpose(0, 1, *range(3, 3 + spatial), 2, *range(3 + spatial, 3 + 2 * spatial))
    total = xp.zeros((g, n * positions, o), x.dtype)
    count = _chunk(c, g * n * positions * depth * x.itemsize)
    for i in range(0, c, count):
        m = min(count, c - i)
        patches = view[(*(np.s_[:],) * (2 + spatial), np.s_[i : i + m])].reshape(g, n * positions, m * depth)
        total += xp.matmul(patches, w[:, :, i : i + m].reshape(g, o, m * depth).swapaxes(1, 2))
    return xp.moveaxis(total.reshape(g, n, *out_shape, o), -1, 2)


def _places(shape):
    return itertools.product(*(range(n) for n in shape))


def _shifted(start, step, size):
    """The index of a window position: `size` elements from `start`, `step` apart, along each spatial axis."""
    return tuple(np.s_[a : a + (n - 1) * s + 1 : s] for a, s, n in zip(start, step, size, strict=True))


def _scale(xp, x, w, strides, dilation, out_shape):
    g, n = x.shape[:2]
    out = xp.empty((n, g, 1, *out_shape), x.dtype).swapaxes(0, 1)
    count = _chunk(n, g * math.prod(out_shape) * x.itemsize)
    lead, kernel = (np.s_[:],) * 3, w.shape[3:]
    for i in range(0, n, count):
        part, rows = out[:, i : i + count], x[:, i : i + count]
        for k in _places(kernel):
            start = tuple(a * d for a, d in zip(k, dilation, strict=True))
            factor = w[(*lead, *k)].reshape(g, 1, 1, *(1,) * len(kernel))
            term = rows[(*lead, *_shifted(start, strides, out_shape))] * factor
            if any(k):
                part += term
            else:
                part[...] = term
    return out


def _inner(xp, x, w, strides, dilation, out_shape):
    g = x.shape[0]
    out = xp.empty((g, 1, 1, *out_shape), x.dtype)
    kernel, lead = w.shape[3:], (np.s_[:],) * 3
    for p in _places(out_shape):
        start = tuple(a * s for a, s in zip(p, strides, strict=True))
        rows = x[(*lead, *_shifted(start, dilation, kernel))]
        out[(*lead, *p)] = _inner_products(xp, rows, w).reshape(g, 1, 1)
    return out


def _inner_products(xp, x, y):
    letters = "abcdefghijklmnopqrstuvwxyz"[: x.ndim]
    return xp.einsum(f"{letters},{letters}->a", x, y)


def _scatter(xp, x, w, padding, lhs_dilation, rhs_dilation, out_shape):
    """A transposed convolution: input position q meets output position q * lhs_dilation - k * rhs_dilation + low."""
    g, n, c, *size = x.shape
    o, kernel = w.shape[1], w.shape[3:]
    last = tuple((k - 1) * d for k, d in zip(kernel, rhs_dilation, strict=True))
    whole = tuple(_dilated(s, a) + r for s, a, r in zip(size, lhs_dilation, last, strict=True))
    w = xp.moveaxis(w, 2, -1).reshape(g, 1, o * math.prod(kernel), c)
    total = xp.zeros((n, g, o, *whole), x.dtype).swapaxes(0, 1)
    count = _chunk(n, g * w.shape[2] * math.prod(size) * x.itemsize)
    for i in range(0, n, count):
        part = total[:, i : i + count]
        terms = xp.matmul(w, x[:, i : i + count].reshape(g, part.shape[1], c, math.prod(size)))
        terms = terms.reshape(g, part.shape[1], o, *kernel, *size)
        for k in _places(kernel):
            start = tuple(r - a * d for r, a, d in zip(last, k, rhs_dilation, strict=True))
            part[(*(np.s_[:],) * 3, *_shifted(start, lhs_dilation, size))] += terms[(*(np.s_[:],) * 3, *k)]
    config = ((0, 0, 0),) * 3 + tuple(
        (lo - r, n_out - (full + lo - r), 0)
        for (lo, _), r, full, n_out in zip(padding, last, whole, out_shape, strict=True)
    )
    return eval_rules[pad_p](xp, total, total.dtype.type(0), config=config)
