# SPDX-License-Identifier: MIT
"""Matrices defined by equations: Sylvester's, square roots, polar factors; eigenvalues of tridiagonal matrices.

Plain arrays go to SciPy itself. For traced ones the solution is found from decompositions that are held constant, and
then corrected: with X0 solving F(X, a) = 0 at this a, and S the constant inverse of the derivative of F by X,

    X1 = X0 - S F(X0, a)          X2 = X1 - S F(X1, a)

change nothing but rounding errors in the value, which they reduce, and have the derivatives of the solution: X1 the
first, X2 the second, and so on. So gradients are right for equal eigenvalues and singular values, where those of the
decompositions are not. `CORRECTIONS` is the order up to which derivatives are right.

Source: N. Higham, "Functions of Matrices: Theory and Computation", 2008, chapters 6 and 8; P. Lancaster, "Explicit
solutions of linear matrix equations", 1970.
"""

from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ShapeError
from functorch_lite.numpy import linalg as n
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.promotion import broadcast_shapes, broadcast_to, operands_text, promote, to_float
from functorch_lite.primitives import linalg as p
from functorch_lite.primitives import spectral
from functorch_lite.primitives import transcendental as t
from functorch_lite.primitives.matrix import (
    adjoint,
    by_columns,
    by_rows,
    check_matrix,
    diagonal_matrix,
    identity_like,
    matmul,
    safe_reciprocal,
    scale_columns,
    transposed,
)
from functorch_lite.scipy.dispatch import check_known, public

CORRECTIONS = 3
LARGEST_KRONECKER = 400
"""Up to so many unknowns Sylvester's equation is solved as one linear system: exact derivatives of any order."""


def _floats(*values: Any) -> list[Any]:
    found = [to_float(v) for v in promote(*values)]
    wide = dtypes.accumulator(found[0].dtype)
    return [v if v.dtype == wide else e.convert(v, wide) for v in found]


def _constant(x: Any) -> Any:
    return e.stop_gradient_of(x)


def _pair_sums(v: Any, w: Any) -> Any:
    """v_i + w_j [..., m, n]."""
    shape = (*v.shape, w.shape[-1])
    return e.add(by_rows(v, shape), by_columns(w, shape))


def _in_basis(left: Any, x: Any, right: Any) -> Any:
    return matmul(left, matmul(x, right))


# --- Sylvester's equation: a X + X b = q ----------------------------------------------------------------------------


@public("scipy.linalg.solve_sylvester")
def solve_sylvester(a: Any, b: Any, q: Any) -> Any:
    """X [..., m, n] with a X + X b = q, for a [..., m, m], b [..., n, n] and q [..., m, n].

    Traced: up to m n = 400 as one linear system (the Kronecker sum), beyond by the eigenvectors of a and b with
    corrections, which asks that these can be diagonalized. Unique where no eigenvalues of a and of b add up to 0.

    >>> solve_sylvester(np.diag([1.0, 2.0]), np.eye(2), np.array([[2.0, 4.0], [3.0, 6.0]]))
    array([[1., 2.],
           [1., 2.]])
    """
    a, b, q = _floats(a, b, q)
    check_matrix("solve_sylvester", a, square=True)
    check_matrix("solve_sylvester", b, square=True)
    rows, columns = a.shape[-1], b.shape[-1]
    if q.shape[-2:] != (rows, columns):
        raise ShapeError(
            f"solve_sylvester: {operands_text((a, b, q))} do not fit: expected a [m, m], b [n, n] and q [m, n]."
        )
    lead = broadcast_shapes(a.shape[:-2], b.shape[:-2], q.shape[:-2])
    a, b, q = (broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b, q))
    return (_by_kronecker if rows * columns <= LARGEST_KRONECKER else _by_eigenvectors)(a, b, q)


def _by_kronecker(a, b, q):
    """(a x 1 + 1 x b^T) vec X = vec q, rows after rows."""
    *lead, m, k = q.shape
    shape, first = (*lead, m, k, m, k), tuple(range(len(lead)))
    r = len(lead)

    def spread(x, *axes):
        return e.broadcast_in_dim(x, shape, (*first, *(r + i for i in axes)))

    left = e.mul(spread(a, 0, 2), spread(identity_like(b), 1, 3))
    right = e.mul(spread(identity_like(a), 0, 2), spread(transposed(b), 1, 3))
    whole = e.reshape(e.add(left, right), (*lead, m * k, m * k))
    return e.reshape(p.solve(whole, e.reshape(q, (*lead, m * k, 1))), q.shape)


def _by_eigenvectors(a, b, q):
    values_a, vectors_a = spectral.eig(_constant(a))
    values_b, vectors_b = spectral.eig(_constant(b))
    inverse_a, inverse_b = n.inv(vectors_a), n.inv(vectors_b)
    sums = _pair_sums(values_a, values_b)

    def solved(x):
        inner = e.div(_in_basis(inverse_a, e.convert(x, sums.dtype), vectors_b), sums)
        found = _in_basis(vectors_a, inner, inverse_b)
        return found if dtypes.is_complex(x.dtype) else e.real(found)

    out = solved(q)
    for _ in range(CORRECTIONS):
        out = e.add(out, solved(e.sub(e.sub(q, matmul(a, out)), matmul(out, b))))
    return out


# --- the square root: X X = a ---------------------------------------------------------------------------------------


@public("scipy.linalg.sqrtm")
def sqrtm(A: Any) -> Any:
    """The principal square root X [..., n, n], X X = A, of A [..., n, n].

    Traced, it is complex also for real A, as whether X is real depends on values: take `.real` where it is. Its
    eigenvectors give X, Newton's corrections the derivative dX, X dX + dX X = dA. Where A is singular X is not
    differentiable, and what is infinite is left out.

    >>> sqrtm(np.array([[5.0, 4.0], [4.0, 5.0]]))
    array([[2., 1.],
           [1., 2.]])
    """
    (a,) = _floats(A)
    check_matrix("sqrtm", a, square=True)
    a = e.convert(a, dtypes.complex_dtype(a.dtype))
    values, vectors = spectral.eig(_constant(a))
    inverse, roots = n.inv(vectors), t.sqrt(values)
    weights = safe_reciprocal(_pair_sums(roots, roots), roots)
    out = _in_basis(vectors, diagonal_matrix(roots), inverse)
    for _ in range(CORRECTIONS):
        rest = _in_basis(inverse, e.sub(a, matmul(out, out)), vectors)
        out = e.add(out, _in_basis(vectors, e.mul(rest, weights), inverse))
    return out


# --- polar factors: a = U P -----------------------------------------------------------------------------------------


@public("scipy.linalg.polar")
def polar(a: Any, side: str = "right") -> tuple[Any, Any]:
    """(U, P) of a [..., m, n]: a = U P with P [..., n, n] ("right"), or a = P U with P [..., m, m] ("left").

    P is Hermitian and not negative; U has orthonormal columns (m >= n) or rows. From the singular value decomposition;
    the derivative is right for equal singular values, and leaves out what is infinite where a has not full rank.

    >>> u, p = polar(np.array([[0.0, -2.0], [3.0, 0.0]]))
    >>> u
    array([[ 0., -1.],
           [ 1.,  0.]])
    """
    if side not in ("right", "left"):
        raise ArgumentError(f"polar: side must be 'right' or 'left', got {side!r}.")
    (a,) = _floats(a)
    check_matrix("polar", a)
    wide = a.shape[-2] < a.shape[-1]
    u = adjoint(_unitary_factor(adjoint(a))) if wide else _unitary_factor(a)
    product = matmul(adjoint(u), a) if side == "right" else matmul(a, adjoint(u))
    return u, p.hermitian_part(product)


def _unitary_factor(a):
    """U of a = U P, m >= n: U^H a is Hermitian, U^H U = 1, and U has the columns of a.

    In the bases of a = W S V^H, held constant, the corrections are dU = W (K + H) V^H + Z V^H: H for U^H U = 1, K skew
    for U^H a = P, and Z for the part of a outside of the columns of W.
    """
    w, s, vh = spectral.svd(_constant(a))
    v = adjoint(vh)
    u = first = matmul(w, vh)
    sums, inverse = safe_reciprocal(_pair_sums(s, s), s), safe_reciprocal(s, s)
    sums = e.convert(sums, a.dtype)
    for _ in range(CORRECTIONS):
        turned = matmul(u, v)
        square = matmul(adjoint(turned), turned)
        stretch = e.mul(e.sub(identity_like(square), square), a.dtype.type(0.5))
        inner = matmul(adjoint(turned), matmul(a, v))
        tilt = e.add(e.sub(inner, adjoint(inner)), e.sub(_columns(s, stretch), adjoint(_columns(s, stretch))))
        outside = e.sub(matmul(a, v), matmul(turned, inner))
        outside = _columns(inverse, e.sub(outside, matmul(w, matmul(adjoint(w), outside))))
        inside = matmul(w, e.add(stretch, e.mul(tilt, sums)))
        u = e.add(u, matmul(e.add(inside, outside), vh))
    return e.add(first, e.sub(u, _constant(u)))


def _columns(s, x):
    """Column j of x [..., m, n] times s_j."""
    return scale_columns(s if s.dtype == x.dtype else e.convert(s, x.dtype), x)


# --- tridiagonal matrices -------------------------------------------------------------------------------------------


@public("scipy.linalg.eigh_tridiagonal")
def eigh_tridiagonal(
    d: Any, e: Any, eigvals_only: bool = False, select: str = "a", select_range: Any = None, check_finite: bool = True,
    tol: float = 0.0, lapack_driver: str = "auto",
) -> Any:
    """(w, V) of the real symmetric tridiagonal matrix with diagonal d [..., n] and e [..., n - 1] beside it.

    Ascending eigenvalues w and orthonormal eigenvectors, the columns of V; w alone if `eigvals_only`. Traced, the whole
    matrix is decomposed by `eigh`: n^3 steps. select "i" takes those with numbers select_range[0] to [1], included;
    "v", those within an interval, is for plain arrays only, as their number depends on values.
    """
    return _tridiagonal(d, e, eigvals_only, select, select_range)


def _tridiagonal(d, beside, eigvals_only, select, select_range):
    d, beside = _floats(d, beside)
    if dtypes.is_complex(d.dtype):
        raise ArgumentTypeError("eigh_tridiagonal: expected real d and e, got complex ones.")
    size = d.shape[-1] if d.shape else 0
    if not size or beside.shape[-1:] != (size - 1,):
        raise ShapeError(f"eigh_tridiagonal: expected d [..., n] and e [..., n - 1], got {d.shape} and {beside.shape}.")
    start, stop = _selected(select, select_range, size)
    lead = broadcast_shapes(d.shape[:-1], beside.shape[:-1])
    whole = diagonal_matrix(broadcast_to(d, (*lead, size)))
    if size > 1:
        below = diagonal_matrix(broadcast_to(beside, (*lead, size - 1)))
        config = (*((0, 0, 0),) * len(lead), (1, 0, 0), (0, 1, 0))
        below = e.pad(below, below.dtype.type(0), config)
        whole = e.add(whole, e.add(below, transposed(below)))
    w, v = spectral.eigh(whole)
    w = e.slice_in_axis(w, start, stop, len(lead))
    return w if eigvals_only else (w, p.columns(v, start, stop))


def _selected(select, select_range, size):
    if select in ("a", "all", 0):
        return 0, size
    if select in ("i", "index", 2):
        check_known("eigh_tridiagonal", select_range=select_range)
        low, high = (int(i) for i in np.asarray(select_range))
        if not 0 <= low <= high < size:
            raise ArgumentError(f"eigh_tridiagonal: select_range {low}..{high} is not within 0..{size - 1}.")
        return low, high + 1
    raise ArgumentError(
        f"eigh_tridiagonal: how many eigenvalues select={select!r} finds depends on values. Take select='a' and choose "
        "among all with numpy.where, or select='i'."
    )
