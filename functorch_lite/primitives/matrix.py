# SPDX-License-Identifier: MIT
"""Matrices in the last two axes: products, adjoints, triangles, diagonals, row exchanges.

All operands of one call have the same leading axes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, shape_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import DTypeError, ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import select, zero_like
from functorch_lite.primitives.complex_parts import conj
from functorch_lite.primitives.contraction import dot_general
from functorch_lite.primitives.declare import batch_unary, linear, linear_in_first, same_as_input, zero_derivative
from functorch_lite.primitives.elementwise import div, mul, scale
from functorch_lite.primitives.movement import permute_dims


def check_matrix(name: str, a: Any, square: bool = False) -> None:
    """Refuse what is not a (square) matrix of float32, float64, complex64 or complex128."""
    if len(a.shape) < 2 or (square and a.shape[-1] != a.shape[-2]):
        wanted = "square matrices [..., n, n]" if square else "matrices [..., m, n]"
        raise ShapeError(f"{name}: expected {wanted}, got shape {a.shape}.")
    if a.dtype.char not in "fdFD":
        raise DTypeError(f"{name}: expected float32, float64, complex64 or complex128, got {a.dtype}.")


def align(size: int, args: Sequence[Any], batched: Sequence[bool]) -> list[Any]:
    """All operands of a batch rule with the mapped axis in front."""
    return [
        a if b else broadcast_in_dim(a, (size, *a.shape), tuple(range(1, 1 + len(a.shape))))
        for a, b in zip(args, batched, strict=True)
    ]


def batch_leading(prim: Primitive) -> None:
    """File the batch rule of a primitive that treats leading axes alike."""

    def rule(size, args, batched, **params):
        out = bind1(prim, *align(size, args, batched), **params)
        return out, [True] * len(out) if prim.multiple else True

    batch_rules.add(prim, rule)


# --- products and transposes ----------------------------------------------------------------------------------------


def matmul(x: Any, y: Any) -> Any:
    """`x` [..., m, k] times `y` [..., k, n]."""
    n = len(x.shape)
    lead = tuple(range(n - 2))
    return dot_general(x, y, ((n - 1,), (n - 2,)), (lead, lead))


def transposed(x: Any) -> Any:
    """`x` [..., m, n] with its last two axes exchanged."""
    n = len(x.shape)
    return permute_dims(x, (*range(n - 2), n - 1, n - 2))


def conjugate(x: Any) -> Any:
    """The complex conjugate; a real `x` itself."""
    return conj(x) if dtypes.is_complex(x.dtype) else x


def adjoint(x: Any) -> Any:
    """The conjugate transpose of `x` [..., m, n]."""
    return conjugate(transposed(x))


def imaginary(x: Any) -> Any:
    """i x, for real `x`; linear."""
    wide = convert(x, dtypes.complex_dtype(x.dtype))
    return mul(wide, wide.dtype.type(1j))


def by_rows(v: Any, shape: tuple[int, ...]) -> Any:
    """`v` [..., m] repeated along the columns of `shape` [..., m, n]: entry i, j is v_i."""
    return broadcast_in_dim(v, shape, tuple(range(len(shape) - 1)))


def by_columns(v: Any, shape: tuple[int, ...]) -> Any:
    """`v` [..., n] repeated along the rows of `shape` [..., m, n]: entry i, j is v_j."""
    return broadcast_in_dim(v, shape, (*range(len(shape) - 2), len(shape) - 1))


def scale_columns(v: Any, x: Any) -> Any:
    """Column j of `x` [..., m, n] times v_j, in a derivative."""
    return scale(by_columns(v, x.shape), x)


# --- triangle: the part on one side of a diagonal -------------------------------------------------------------------
triangle_p = Primitive("triangle", Kind.MOVEMENT)


def tril(x: Any, k: int = 0) -> Any:
    """`x` [..., m, n] with zeros above diagonal number `k`."""
    return bind1(triangle_p, x, k=k, lower=True)


def triu(x: Any, k: int = 0) -> Any:
    """`x` [..., m, n] with zeros below diagonal number `k`."""
    return bind1(triangle_p, x, k=k, lower=False)


@shape_rules.register(triangle_p)
def _(x, *, k, lower):
    if x.ndim < 2:
        raise ShapeError(f"triangle: expected matrices [..., m, n], got shape {x.shape}.")
    return x


eval_rules.add(triangle_p, lambda xp, x, *, k, lower: (xp.tril if lower else xp.triu)(x, k))
batch_unary(triangle_p)(lambda x, *, k, lower: bind1(triangle_p, x, k=k, lower=lower))
linear(triangle_p, lambda ct, x, *, k, lower: bind1(triangle_p, ct, k=k, lower=lower))

# --- diagonal and its transpose diagonal_matrix ---------------------------------------------------------------------
diagonal_p = Primitive("diagonal", Kind.MOVEMENT)
diagonal_matrix_p = Primitive("diagonal_matrix", Kind.MOVEMENT)


def diagonal(x: Any) -> Any:
    """The main diagonals [..., n] of square matrices `x` [..., n, n]."""
    return bind1(diagonal_p, x)


def diagonal_matrix(v: Any) -> Any:
    """The matrices [..., n, n] with `v` [..., n] on the diagonal and zeros elsewhere."""
    return bind1(diagonal_matrix_p, v)


@shape_rules.register(diagonal_p)
def _(x):
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"diagonal: expected square matrices [..., n, n], got shape {x.shape}.")
    return Aval(x.shape[:-1], x.dtype)


shape_rules.add(diagonal_matrix_p, lambda v: Aval((*v.shape, v.shape[-1]), v.dtype))
eval_rules.add(diagonal_p, lambda xp, x: xp.diagonal(x, 0, -2, -1).copy())


@eval_rules.register(diagonal_matrix_p)
def _(xp, v):
    n = v.shape[-1]
    out = xp.zeros((*v.shape, n), v.dtype)
    out[..., xp.arange(n), xp.arange(n)] = v
    return out


batch_unary(diagonal_p)(diagonal)
batch_unary(diagonal_matrix_p)(diagonal_matrix)
linear(diagonal_p, lambda ct, x: diagonal_matrix(ct))
linear(diagonal_matrix_p, lambda ct, v: diagonal(ct))

# --- permute_rows: rows in the order of a permutation, or back ------------------------------------------------------
permute_rows_p = Primitive("permute_rows", Kind.INDEXING)


def permute_rows(x: Any, order: Any, inverse: bool = False) -> Any:
    """Row i of the result is row order[i] of `x` [..., m, n]; `inverse` puts them back. `order` [..., m] is int32."""
    return bind1(permute_rows_p, x, order, inverse=inverse)


same_as_input(permute_rows_p)
batch_leading(permute_rows_p)


@eval_rules.register(permute_rows_p)
def _(xp, x, order, *, inverse):
    if inverse:
        order = xp.argsort(order, -1)
    return xp.take_along_axis(x, order[..., None], -2)


linear_in_first(permute_rows_p, lambda ct, x, order, *, inverse: permute_rows(ct, order, not inverse))

# --- negligible: what rounding makes of zero ------------------------------------------------------------------------
negligible_p = Primitive("negligible", Kind.REDUCTION)


def negligible(x: Any, values: Any) -> Any:
    """Whether |x| [..., *any] is within rounding of zero, beside computed `values` [..., n]: 4 n eps max |values|."""
    return bind1(negligible_p, x, values)


shape_rules.add(negligible_p, lambda x, values: Aval(x.shape, np.dtype(bool)))
zero_derivative(negligible_p)
batch_leading(negligible_p)


@eval_rules.register(negligible_p)
def _(xp, x, values):
    n = values.shape[-1]
    largest = xp.abs(values).max(-1, initial=0.0)
    bound = largest * (4 * n * float(np.finfo(values.dtype).eps))
    return xp.abs(x) <= bound.reshape(*bound.shape, *(1,) * (x.ndim - bound.ndim))


def safe_reciprocal(x: Any, values: Any) -> Any:
    """1 / x, and 0 where x is within rounding of zero beside `values`."""
    zero = negligible(x, values)
    one = x.dtype.type(1)
    return select(zero, zero_like(x), div(one, select(zero, one, x)))

# --- identity: the unit matrix, where the operand lives -------------------------------------------------------------
identity_p = Primitive("identity", Kind.BROADCAST)
same_as_input(identity_p)
zero_derivative(identity_p)
batch_unary(identity_p)(lambda x: identity_like(x))


def identity_like(x: Any) -> Any:
    """The unit matrices with the shape [..., n, n], dtype and device of `x`."""
    return bind1(identity_p, x)


@eval_rules.register(identity_p)
def _(xp, x):
    out = xp.empty(x.shape, x.dtype)
    out[...] = xp.eye(x.shape[-1], dtype=x.dtype)
    return out
