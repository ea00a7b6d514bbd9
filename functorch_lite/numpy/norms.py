# SPDX-License-Identifier: MIT
"""Norms of vectors and matrices, and what is made of singular values: cond, matrix_rank.

The derivative of the 2-norm at 0 is 0, the middle of its kink (SEMANTICS B11).
"""

from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import kept_shape, normal_axis, reduction_axes
from functorch_lite.numpy.dispatch import public
from functorch_lite.numpy.promotion import asarray, broadcast_to, to_float
from functorch_lite.primitives import spectral
from functorch_lite.primitives.linalg import solve
from functorch_lite.primitives.matrix import identity_like
from functorch_lite.primitives.reduction import reduce_max, reduce_min
from functorch_lite.primitives.transcendental import sqrt


def singular_values(x: Any) -> Any:
    """The singular values [..., k] of x [..., m, n], descending."""
    return spectral.svd(x, compute_uv=False)[0]


def _squares(x):
    if not dtypes.is_complex(x.dtype):
        return e.mul(x, x)
    a, b = e.real(x), e.imag(x)
    return e.add(e.mul(a, a), e.mul(b, b))


def _root(x, degree):
    """x ** (1 / degree) for x >= 0, with derivative 0 at 0."""
    zero = e.eq(x, x.dtype.type(0))
    safe = e.select(zero, x.dtype.type(1), x)
    root = sqrt(safe) if degree == 2 else e.pow(safe, x.dtype.type(1 / degree))
    return e.select(zero, x.dtype.type(0), root)


def _vector(x, axes, order):
    """The vector norm of order `order` over `axes`."""
    if order in (2, None):
        return _root(e.reduce_sum(_squares(x), axes), 2)
    if order == 0:
        return e.reduce_sum(e.convert(e.ne(x, x.dtype.type(0)), dtypes.real_dtype(x.dtype)), axes)
    size = e.absolute(x)
    if order == np.inf:
        return reduce_max(size, axes)
    if order == -np.inf:
        return reduce_min(size, axes)
    if order == 1:
        return e.reduce_sum(size, axes)
    if not isinstance(order, (int, float, np.number)):
        raise ArgumentError(f"norm: order {order!r} is not one of a vector's: a number, inf or -inf.")
    return _root(e.reduce_sum(e.pow(size, size.dtype.type(order)), axes), order)


def _matrix(x, axes, order):
    """The matrix norm of order `order`; `axes` are the axes of rows and of columns."""
    row, column = axes
    if order in (None, "fro"):
        return _vector(x, tuple(sorted(axes)), 2)
    if order in (2, -2, "nuc"):
        rest = tuple(i for i in range(len(x.shape)) if i not in axes)
        values = singular_values(e.permute_dims(x, (*rest, row, column)))
        last = (len(values.shape) - 1,)
        return {2: reduce_max, -2: reduce_min, "nuc": e.reduce_sum}[order](values, last)
    if order not in (1, -1, np.inf, -np.inf):
        raise ArgumentError(f"norm: order {order!r} is not one of a matrix's: 'fro', 'nuc', 1, -1, 2, -2, inf, -inf.")
    inner, outer = (row, column) if order in (1, -1) else (column, row)
    sums = e.reduce_sum(e.absolute(x), (inner,))
    extreme = reduce_max if order > 0 else reduce_min
    return extreme(sums, (outer - (outer > inner),))


@public(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """The norm of a vector or matrix, or of all elements; over one axis a vector's, over two a matrix's."""
    x = to_float(asarray(x))
    n = len(x.shape)
    if axis is None and (ord is None or (ord in ("f", "fro") and n == 2) or (ord == 2 and n == 1)):
        axes = tuple(range(n))
        out = _vector(x, axes, 2)
    else:
        axes = tuple(range(n)) if axis is None else _axes_in_order(axis, n)
        if len(axes) not in (1, 2):
            raise ArgumentError(f"norm: order {ord!r} needs one or two axes, got {len(axes)}.")
        out = _vector(x, axes, ord) if len(axes) == 1 else _matrix(x, axes, "fro" if ord == "f" else ord)
    return e.reshape(out, kept_shape(x.shape, axes)) if keepdims else out


def _axes_in_order(axis, n):
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    found = tuple(normal_axis(int(a), n) for a in axes)
    reduction_axes(found, n)  # refuses duplicates
    return found


@public(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """The vector norm over one axis, several, or all of them, flattened."""
    x = to_float(asarray(x))
    axes = reduction_axes(axis, len(x.shape))
    out = _vector(x, axes, ord)
    return e.reshape(out, kept_shape(x.shape, axes)) if keepdims else out


@public(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """The norm of the matrices in the last two axes."""
    return norm(x, ord, (-2, -1), keepdims)


@public(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    """The condition number in the norm `p`; None is 2, the quotient of the extreme singular values."""
    x = to_float(asarray(x))
    if p in (None, 2, -2):
        values = singular_values(x)
        last = (len(values.shape) - 1,)
        low, high = reduce_min(values, last), reduce_max(values, last)
        return e.div(low, high) if p == -2 else e.div(high, low)
    return e.mul(norm(x, p, (-2, -1)), norm(solve(x, identity_like(x)), p, (-2, -1)))


@public(np.linalg.matrix_rank)
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """How many singular values of A are above `tol` (default: rtol, or max(m, n) eps, times the largest): int64."""
    x = to_float(asarray(A))
    if len(x.shape) < 2:
        axes = tuple(range(len(x.shape)))
        return e.convert(reduce_max(e.convert(e.ne(x, x.dtype.type(0)), np.int64), axes), np.int64)
    values = singular_values(x)
    bound = _rank_bound(values, x.shape, tol, rtol)
    return e.reduce_sum(e.convert(e.gt(values, bound), np.int64), (len(values.shape) - 1,))


def _rank_bound(values, shape, tol, rtol):
    """The bound below which a singular value counts as zero, repeated to the shape of `values`."""
    last = len(values.shape) - 1
    dtype = values.dtype
    if tol is not None:
        bound = e.convert(asarray(tol), dtype)
        return broadcast_to(e.reshape(bound, (*bound.shape, 1)), values.shape)
    if rtol is None:
        factor = dtype.type(max(shape[-2:]) * np.finfo(dtype).eps)
    else:
        factor = e.convert(asarray(rtol), dtype)
        factor = broadcast_to(e.reshape(factor, (*factor.shape, 1)), values.shape)
    largest = e.broadcast_in_dim(reduce_max(values, (last,)), values.shape, tuple(range(last)))
    return e.mul(largest, factor)
