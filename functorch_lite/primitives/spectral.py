# SPDX-License-Identifier: MIT
"""Spectral decompositions: eigh, eig and svd. Leading axes are batches.

The derivative of a vector divides by differences of eigen- or singular values. Where two of them agree within rounding
the vectors are only known up to a rotation, and that term is left out: a function that does not depend on the rotation
has the right, finite gradient (SEMANTICS decision 7). A sum of singular values is never left out with it: the svd's
rotation is split in a symmetric part, over s_j - s_i, and a skew one, over s_j + s_i.

Source: M. Giles, "Collected matrix derivative results", 2008; J. Townsend, "Differentiating the singular value
decomposition", 2016; C. Boeddeker and others, "On the computation of complex-valued gradients", arXiv 1701.00392.
"""

from typing import Any

from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import eval_rules, jvp_rules, shape_rules
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.broadcast import reduce_sum
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.complex_parts import real
from functorch_lite.primitives.declare import not_linear
from functorch_lite.primitives.elementwise import add, neg, scale, sub
from functorch_lite.primitives.linalg import columns, hermitian_part, rows, solve
from functorch_lite.primitives.matrix import (
    adjoint,
    batch_leading,
    by_columns,
    by_rows,
    check_matrix,
    conjugate,
    diagonal,
    matmul,
    safe_reciprocal,
    scale_columns,
)
from functorch_lite.primitives.movement import concatenate


def _pairs(w, combine, dtype):
    """1 / combine(w_j, w_i) as a matrix of `dtype`, 0 where the combination is negligible (the diagonal, too)."""
    shape = (*w.shape, w.shape[-1])
    found = safe_reciprocal(combine(by_columns(w, shape), by_rows(w, shape)), w)
    return found if found.dtype == dtype else convert(found, dtype)


def _real_diagonal(x):
    return real(diagonal(x)) if dtypes.is_complex(x.dtype) else diagonal(x)


# --- eigh: a = V diag(w) V^H ----------------------------------------------------------------------------------------
eigh_p = Primitive("eigh", Kind.OPAQUE, multiple=True)
not_linear(eigh_p)
batch_leading(eigh_p)


def eigh(a: Any) -> list[Any]:
    """[w, V] of Hermitian a [..., n, n]: real eigenvalues w [..., n], ascending, and orthonormal eigenvectors, columns.

    The lower half is read; the derivative is that of the Hermitian part, so gradients are Hermitian.
    """
    return bind(eigh_p, a)


@shape_rules.register(eigh_p)
def _(a):
    check_matrix("eigh", a, square=True)
    return [Aval(a.shape[:-1], dtypes.real_dtype(a.dtype)), a]


eval_rules.add(eigh_p, lambda xp, a: list(xp.linalg.eigh(a)))


@jvp_rules.register(eigh_p)
def _(primals, tangents):
    w, v = bind(eigh_p, *primals)
    inner = matmul(adjoint(v), matmul(hermitian_part(tangents[0]), v))
    v_dot = matmul(v, scale(_pairs(w, sub, v.dtype), inner))
    return [w, v], [_real_diagonal(inner), v_dot]


# --- eig: a V = V diag(w) -------------------------------------------------------------------------------------------
eig_p = Primitive("eig", Kind.OPAQUE, multiple=True)
not_linear(eig_p)
batch_leading(eig_p)


def eig(a: Any) -> list[Any]:
    """[w, V] of any square a [..., n, n]: complex eigenvalues w [..., n] and unit eigenvectors, the columns of V.

    The phase of an eigenvector is arbitrary; functions that do not depend on it have the right derivative.
    """
    return bind(eig_p, a)


@shape_rules.register(eig_p)
def _(a):
    check_matrix("eig", a, square=True)
    dtype = dtypes.complex_dtype(a.dtype)
    return [Aval(a.shape[:-1], dtype), Aval(a.shape, dtype)]


@eval_rules.register(eig_p)
def _(xp, a):
    dtype = dtypes.complex_dtype(a.dtype)
    w, v = xp.linalg.eig(a)
    return [w.astype(dtype, copy=False), v.astype(dtype, copy=False)]


@jvp_rules.register(eig_p)
def _(primals, tangents):
    w, v = bind(eig_p, *primals)
    inner = solve(v, matmul(convert(tangents[0], v.dtype), v))
    turned = matmul(v, scale(_pairs(w, sub, v.dtype), inner))
    growth = _column_products(conjugate(v), turned)  # columns keep length 1: take out the part along themselves
    along = convert(real(growth), v.dtype)
    return [w, v], [diagonal(inner), sub(turned, scale(v, by_columns(along, v.shape)))]


def _column_products(x, y):
    """The sums [..., n] over each column of x * y."""
    return reduce_sum(scale(x, y), (len(y.shape) - 2,))


# --- svd: a = U diag(s) V^H -----------------------------------------------------------------------------------------
svd_p = Primitive("svd", Kind.OPAQUE, multiple=True)
not_linear(svd_p)
batch_leading(svd_p)


def svd(a: Any, full_matrices: bool = False, compute_uv: bool = True) -> list[Any]:
    """[U, s, V^H] of a [..., m, n], or [s] without `compute_uv`: singular values s [..., k], descending, k = min(m, n).

    U [..., m, k] and V^H [..., k, n] have orthonormal columns and rows; `full_matrices` makes both square. What lies
    past k is fixed only up to a rotation.
    """
    return bind(svd_p, a, full_matrices=full_matrices, compute_uv=compute_uv)


@shape_rules.register(svd_p)
def _(a, *, full_matrices, compute_uv):
    check_matrix("svd", a)
    *lead, m, n = a.shape
    k = min(m, n)
    values = Aval((*lead, k), dtypes.real_dtype(a.dtype))
    if not compute_uv:
        return [values]
    left, right = (m, n) if full_matrices else (k, k)
    return [Aval((*lead, m, left), a.dtype), values, Aval((*lead, right, n), a.dtype)]


@eval_rules.register(svd_p)
def _(xp, a, *, full_matrices, compute_uv):
    out = xp.linalg.svd(a, full_matrices=full_matrices, compute_uv=compute_uv)
    return list(out) if compute_uv else [out]


@jvp_rules.register(svd_p)
def _(primals, tangents, *, full_matrices, compute_uv):
    (a,), (t,) = primals, tangents
    u, s, vh = bind(svd_p, a, full_matrices=full_matrices and compute_uv, compute_uv=True)
    k = s.shape[-1]
    thin_u, thin_v = columns(u, 0, k), adjoint(rows(vh, 0, k))
    inner = matmul(adjoint(thin_u), matmul(t, thin_v))
    s_dot = _real_diagonal(inner)
    if not compute_uv:
        return [s], [s_dot]
    u_dot, v_dot = _rotations(thin_u, s, thin_v, inner, t)
    u_dot = _with_complement(u, thin_u, u_dot, k)
    v_dot = _with_complement(adjoint(vh), thin_v, v_dot, k)
    return [u, s, vh], [u_dot, s_dot, adjoint(v_dot)]


def _rotations(u, s, v, inner, t):
    """dU and dV of the thin factors, with U^H da V = H + K, Hermitian and skew: dU = U (H/(sj-si) + K/(sj+si)) + ..."""
    symmetric = hermitian_part(inner)
    skew = sub(inner, symmetric)
    by_difference = scale(_pairs(s, sub, inner.dtype), symmetric)
    by_sum = scale(_pairs(s, add, inner.dtype), skew)
    u_dot = matmul(u, add(by_difference, by_sum))
    v_dot = matmul(v, sub(by_difference, by_sum))
    inverse = safe_reciprocal(s, s)
    if u.shape[-2] > u.shape[-1]:  # the part of da V outside the span of U
        u_dot = add(u_dot, _outside(u, matmul(t, v), inverse))
    if v.shape[-2] > v.shape[-1]:
        v_dot = add(v_dot, _outside(v, matmul(adjoint(t), u), inverse))
    return u_dot, v_dot


def _outside(u, image, inverse):
    rest = sub(image, matmul(u, matmul(adjoint(u), image)))
    return scale_columns(inverse, rest)


def _with_complement(u, thin, dot, k):
    """The tangent of square `u`, whose columns past k only have to stay orthogonal to the first k."""
    n = u.shape[-1]
    if n == k:
        return dot
    across = adjoint(matmul(adjoint(columns(u, k, n)), dot))
    return concatenate([dot, neg(matmul(thin, across))], len(u.shape) - 1)
