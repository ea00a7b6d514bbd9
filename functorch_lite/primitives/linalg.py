# SPDX-License-Identifier: MIT
"""Linear algebra: solve, triangular_solve, cholesky, lu, qr.

`primitives.spectral` has eigh, eig and svd, `primitives.matrix_functions` the determinant, pinv and expm.

Matrices are the last two axes; leading axes are batches. Derivatives are written with primitives that have
derivatives themselves, so they are right to any order.

Source: M. Giles, "Collected matrix derivative results for forward and reverse mode algorithmic differentiation", 2008;
I. Murray, "Differentiation of the Cholesky decomposition", arXiv 1602.07527; J. Roberts and others, "QR and LQ
decomposition matrix backpropagation algorithms", arXiv 2009.10071.
"""

from typing import Any

import numpy as np

from functorch_lite.backends import linalg as backend
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind, bind1
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.primitives.complex_parts import imag
from functorch_lite.primitives.declare import check_dtypes, derivatives, not_linear, zero_derivative
from functorch_lite.primitives.elementwise import add, mul, neg, sub
from functorch_lite.primitives.matrix import (
    adjoint,
    batch_leading,
    check_matrix,
    conjugate,
    diagonal,
    diagonal_matrix,
    imaginary,
    matmul,
    permute_rows,
    transposed,
    tril,
    triu,
)
from functorch_lite.primitives.movement import concatenate, slice_in_axis


def rows(x: Any, start: int, stop: int) -> Any:
    """Rows `start` up to `stop` of `x` [..., m, n]."""
    return slice_in_axis(x, start, stop, len(x.shape) - 2)


def columns(x: Any, start: int, stop: int) -> Any:
    """Columns `start` up to `stop` of `x` [..., m, n]."""
    return slice_in_axis(x, start, stop, len(x.shape) - 1)


def hermitian_part(x: Any) -> Any:
    """(x + x^H) / 2."""
    return mul(add(x, adjoint(x)), x.dtype.type(0.5))


# --- solve: a X = b -------------------------------------------------------------------------------------------------
solve_p = Primitive("solve", Kind.OPAQUE)
batch_leading(solve_p)


def solve(a: Any, b: Any) -> Any:
    """X with a X = b, for a [..., n, n] and b [..., n, k]. Raises LinAlgError where a matrix is exactly singular."""
    return bind1(solve_p, a, b)


@shape_rules.register(solve_p)
def _(a, b):
    check_dtypes("solve", (a, b))
    check_matrix("solve", a, square=True)
    check_matrix("solve", b)
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"solve: shapes {a.shape} and {b.shape} do not fit: expected [..., n, n] and [..., n, k].")
    return b


eval_rules.add(solve_p, lambda xp, a, b: xp.linalg.solve(a, b))
derivatives(solve_p, lambda t, out, a, b: neg(solve(a, matmul(t, out))), lambda t, out, a, b: solve(a, t))
transpose_rules.add(solve_p, lambda ct, a, b: (None, solve(transposed(a), ct)))

# --- triangular_solve -----------------------------------------------------------------------------------------------
triangular_solve_p = Primitive("triangular_solve", Kind.OPAQUE)
batch_leading(triangular_solve_p)


def triangular_solve(
    a: Any, b: Any, left_side: bool = True, lower: bool = True, trans: str = "N", unit_diagonal: bool = False
) -> Any:
    """X with op(a) X = b, or with X op(a) = b if not `left_side`; op: "N" a itself, "T" transposed, "C" adjoint.

    Only the lower (or upper) half of a [..., n, n] is read, and not its diagonal if `unit_diagonal`. A zero on the
    diagonal gives infinities, as in BLAS. Raises ShapeError where b [..., n, k] (or [..., k, n]) does not fit.
    """
    return bind1(
        triangular_solve_p, a, b, left_side=left_side, lower=lower, trans=trans, unit_diagonal=unit_diagonal
    )


@shape_rules.register(triangular_solve_p)
def _(a, b, *, left_side, lower, trans, unit_diagonal):
    check_dtypes("triangular_solve", (a, b))
    check_matrix("triangular_solve", a, square=True)
    if trans not in ("N", "T", "C"):
        raise ArgumentError(f"triangular_solve: trans must be 'N', 'T' or 'C', got {trans!r}.")
    if b.ndim != a.ndim or a.shape[:-2] != b.shape[:-2] or b.shape[-2 if left_side else -1] != a.shape[-1]:
        raise ShapeError(f"triangular_solve: shapes {a.shape} and {b.shape} do not fit.")
    return b


eval_rules.add(triangular_solve_p, lambda xp, a, b, **params: backend.triangular_solve(xp, a, b, **params))


def _triangular_in_a(t, out, a, b, *, left_side, lower, trans, unit_diagonal):
    """op(a) X = b gives dX = -op(a)^-1 op(da) X, da being the triangle that is read."""
    t = (tril if lower else triu)(t, (-1 if lower else 1) if unit_diagonal else 0)
    t = {"N": lambda x: x, "T": transposed, "C": adjoint}[trans](t)
    right = matmul(t, out) if left_side else matmul(out, t)
    return neg(triangular_solve(a, right, left_side, lower, trans, unit_diagonal))


def _triangular_transpose(ct, a, b, *, left_side, lower, trans, unit_diagonal):
    if trans == "C":
        a, trans = conjugate(a), "T"
    return None, triangular_solve(a, ct, left_side, lower, "T" if trans == "N" else "N", unit_diagonal)


derivatives(triangular_solve_p, _triangular_in_a, lambda t, out, a, b, **params: triangular_solve(a, t, **params))
transpose_rules.add(triangular_solve_p, _triangular_transpose)

# --- cholesky: a = L L^H --------------------------------------------------------------------------------------------
cholesky_p = Primitive("cholesky", Kind.OPAQUE)
not_linear(cholesky_p)
batch_leading(cholesky_p)


def cholesky(a: Any) -> Any:
    """The lower triangular L with L L^H = a, for Hermitian positive definite a [..., n, n]; the lower half is read.

    Its derivative is that of the Hermitian part, so gradients are Hermitian. Raises LinAlgError if not definite.
    """
    return bind1(cholesky_p, a)


@shape_rules.register(cholesky_p)
def _(a):
    check_matrix("cholesky", a, square=True)
    return a


def _lower_with_half_diagonal(x):
    return add(tril(x, -1), diagonal_matrix(mul(diagonal(x), x.dtype.type(0.5))))


def _cholesky_jvp(t, out, a):  # dL = L phi(L^-1 da L^-H), phi: lower half, diagonal halved
    inner = triangular_solve(out, hermitian_part(t))
    inner = triangular_solve(out, inner, left_side=False, trans="C")
    return matmul(out, _lower_with_half_diagonal(inner))


eval_rules.add(cholesky_p, lambda xp, a: xp.linalg.cholesky(a))
derivatives(cholesky_p, _cholesky_jvp)

# --- lu: a[order] = L U ---------------------------------------------------------------------------------------------
lu_p = Primitive("lu", Kind.OPAQUE, multiple=True)
not_linear(lu_p)
batch_leading(lu_p)
_int32 = np.dtype(np.int32)


def lu(a: Any) -> list[Any]:
    """[packed, pivots, order] of a [..., m, n]: unit lower L below and U on and above the diagonal of `packed`.

    L U is `a` with row i replaced by row order[i] (order [..., m], int32); `pivots` [..., min(m, n)] lists the row
    exchanges as LAPACK's getrf does, counted from 0.
    """
    return bind(lu_p, a)


@shape_rules.register(lu_p)
def _(a):
    check_matrix("lu", a)
    m, n = a.shape[-2:]
    lead = a.shape[:-2]
    return [a, Aval((*lead, min(m, n)), _int32), Aval((*lead, m), _int32)]


eval_rules.add(lu_p, lambda xp, a: backend.lu(xp, a))


pivots_to_order_p = Primitive("pivots_to_order", Kind.OPAQUE)
zero_derivative(pivots_to_order_p)
batch_leading(pivots_to_order_p)


def pivots_to_order(pivots: Any, m: int) -> Any:
    """The permutation [..., m] (int32) of m rows that the row exchanges `pivots` [..., k] make, one after the other."""
    return bind1(pivots_to_order_p, pivots, m=m)


shape_rules.add(pivots_to_order_p, lambda pivots, *, m: Aval((*pivots.shape[:-1], m), _int32))


@eval_rules.register(pivots_to_order_p)
def _(xp, pivots, *, m):
    on_host = pivots if xp is np else pivots.get()
    return xp.asarray(backend.permutation_of(on_host, m))


@jvp_rules.register(lu_p)
def _(primals, tangents):
    packed, pivots, order = bind(lu_p, *primals)
    t = permute_rows(tangents[0], order)
    m, n = packed.shape[-2:]
    dot = _lu_tangent_tall(packed, t, m, n) if m >= n else _lu_tangent_wide(packed, t, m, n)
    return [packed, pivots, order], [dot, None, None]


def _lu_tangent_tall(packed, t, m, n):
    """m >= n, rows [L1; L2]: Y = L1^-1 da1 U^-1, dL1 = L1 lower(Y), dU = upper(Y) U, dL2 = da2 U^-1 - L2 upper(Y)."""
    top = rows(packed, 0, n)
    x = triangular_solve(top, t, left_side=False, lower=False)
    y = triangular_solve(top, rows(x, 0, n), unit_diagonal=True)
    below, above = tril(y, -1), triu(y)
    dot = add(add(below, matmul(tril(top, -1), below)), matmul(above, triu(top)))
    if m == n:
        return dot
    rest = sub(rows(x, n, m), matmul(rows(packed, n, m), above))
    return concatenate([dot, rest], len(packed.shape) - 2)


def _lu_tangent_wide(packed, t, m, n):
    """m < n, columns [U1 U2]: from da2 = dL U2 + L dU2."""
    left = columns(packed, 0, m)
    dot = _lu_tangent_tall(left, columns(t, 0, m), m, m)
    rest = sub(columns(t, m, n), matmul(tril(dot, -1), columns(packed, m, n)))
    rest = triangular_solve(left, rest, unit_diagonal=True)
    return concatenate([dot, rest], len(packed.shape) - 1)


# --- qr: a = Q R ----------------------------------------------------------------------------------------------------
qr_p = Primitive("qr", Kind.OPAQUE, multiple=True)
not_linear(qr_p)
batch_leading(qr_p)


def qr(a: Any, complete: bool = False) -> list[Any]:
    """[Q, R] of a [..., m, n]: Q [..., m, k] with orthonormal columns, R [..., k, n] upper triangular, k = min(m, n).

    complete: k = m. The columns of Q past n are then fixed only up to a rotation; functions that do not depend on it
    have the right derivative.
    """
    return bind(qr_p, a, complete=complete)


@shape_rules.register(qr_p)
def _(a, *, complete):
    check_matrix("qr", a)
    m, n = a.shape[-2:]
    k = m if complete else min(m, n)
    return [Aval((*a.shape[:-2], m, k), a.dtype), Aval((*a.shape[:-2], k, n), a.dtype)]


@eval_rules.register(qr_p)
def _(xp, a, *, complete):
    q, r = xp.linalg.qr(a, "complete" if complete else "reduced")
    return [q, r]


@jvp_rules.register(qr_p)
def _(primals, tangents, *, complete):
    q, r = bind(qr_p, *primals, complete=complete)
    t = tangents[0]
    k = min(primals[0].shape[-2:])
    q_dot = _q_tangent(q, columns(rows(r, 0, k), 0, k), columns(t, 0, k), k)
    q_adjoint = adjoint(q)
    r_dot = triu(sub(matmul(q_adjoint, t), matmul(matmul(q_adjoint, q_dot), r)))
    return [q, r], [q_dot, r_dot]


def _q_tangent(q, r, t, k):
    """With X = da R^-1, Omega = Q^H dQ is skew-Hermitian and its lower half is that of Q^H X."""
    x = triangular_solve(r, t, left_side=False, lower=False)
    thin = columns(q, 0, k)
    inner = matmul(adjoint(thin), x)
    below = tril(inner, -1)
    omega = sub(below, adjoint(below))
    if dtypes.is_complex(q.dtype):
        omega = add(omega, diagonal_matrix(imaginary(imag(diagonal(inner)))))
    dot = add(x, matmul(thin, sub(omega, inner)))
    extra = q.shape[-1] - k
    if not extra:
        return dot
    rest = columns(q, k, k + extra)
    across = adjoint(matmul(adjoint(rest), dot))
    return concatenate([dot, neg(matmul(thin, across))], len(q.shape) - 1)
