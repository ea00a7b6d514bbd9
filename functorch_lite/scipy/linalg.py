# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.linalg`: decompositions, solvers and functions of matrices with SciPy's signatures.

All have derivatives to any order (sqrtm, polar and large Sylvester equations: to the third, see `matrix_equations`)
and take leading batch axes. Options that only save memory or checks in SciPy
(overwrite_a, check_finite) are accepted and change nothing.
"""

from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentError
from functorch_lite.numpy import linalg as n
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.linalg import cholesky_solve
from functorch_lite.numpy.linalg import det as det
from functorch_lite.numpy.linalg import inv as inv
from functorch_lite.numpy.linalg import norm as norm
from functorch_lite.numpy.linalg import pinv as pinv
from functorch_lite.numpy.promotion import asarray, broadcast_shapes, broadcast_to, promote, to_float
from functorch_lite.primitives import linalg as p
from functorch_lite.primitives import matrix_functions
from functorch_lite.primitives.matrix import adjoint, identity_like, permute_rows, tril, triu
from functorch_lite.scipy.matrix_equations import eigh_tridiagonal as eigh_tridiagonal
from functorch_lite.scipy.matrix_equations import polar as polar
from functorch_lite.scipy.matrix_equations import solve_sylvester as solve_sylvester
from functorch_lite.scipy.matrix_equations import sqrtm as sqrtm
from functorch_lite.scipy.special_matrices import circulant as circulant
from functorch_lite.scipy.special_matrices import companion as companion
from functorch_lite.scipy.special_matrices import convolution_matrix as convolution_matrix
from functorch_lite.scipy.special_matrices import dft as dft
from functorch_lite.scipy.special_matrices import fiedler as fiedler
from functorch_lite.scipy.special_matrices import hadamard as hadamard
from functorch_lite.scipy.special_matrices import hankel as hankel
from functorch_lite.scipy.special_matrices import helmert as helmert
from functorch_lite.scipy.special_matrices import hilbert as hilbert
from functorch_lite.scipy.special_matrices import invhilbert as invhilbert
from functorch_lite.scipy.special_matrices import invpascal as invpascal
from functorch_lite.scipy.special_matrices import leslie as leslie
from functorch_lite.scipy.special_matrices import pascal as pascal
from functorch_lite.scipy.special_matrices import toeplitz as toeplitz


def _float(x):
    return to_float(asarray(x))


def _floats(*values):
    return [to_float(v) for v in promote(*values)]


def _as_columns(solve, a, b):
    """`solve(a, b)` for b [n] or [..., n, k], leading axes broadcast."""
    vector = len(b.shape) == 1
    b = e.reshape(b, (*b.shape, 1)) if vector else b
    lead = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = solve(broadcast_to(a, (*lead, *a.shape[-2:])), broadcast_to(b, (*lead, *b.shape[-2:])))
    return e.reshape(out, out.shape[:-1]) if vector else out


# --- Cholesky -------------------------------------------------------------------------------------------------------


def cholesky(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The upper U with U^H U = a, or the lower L with L L^H = a, of Hermitian positive definite a."""
    a = _float(a)
    return p.cholesky(a) if lower else adjoint(p.cholesky(adjoint(a)))


def cho_factor(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> tuple[Any, bool]:
    """(factor, lower) for `cho_solve`."""
    return cholesky(a, lower), lower


def cho_solve(c_and_lower: tuple[Any, bool], b: Any, overwrite_b: bool = False, check_finite: bool = True) -> Any:
    """X with a X = b, from `cho_factor(a)`."""
    factor, b = _floats(c_and_lower[0], b)
    return _as_columns(lambda f, y: cholesky_solve(y, f, upper=not c_and_lower[1]), factor, b)


# --- solvers --------------------------------------------------------------------------------------------------------


def solve(
    a: Any, b: Any, lower: bool = False, overwrite_a: bool = False, overwrite_b: bool = False,
    check_finite: bool = True, assume_a: str | None = None, transposed: bool = False,
) -> Any:
    """X with a X = b (or a^T X = b); assume_a="pos" solves by Cholesky, everything else by LU."""
    a, b = _floats(a, b)
    if assume_a == "pos":
        return cho_solve(cho_factor(a, lower), b)
    return _as_columns(p.solve, e.permute_dims(a, _last_swapped(a)) if transposed else a, b)


def _last_swapped(a):
    k = len(a.shape)
    return (*range(k - 2), k - 1, k - 2)


def solve_triangular(
    a: Any, b: Any, trans: Any = 0, lower: bool = False, unit_diagonal: bool = False, overwrite_b: bool = False,
    check_finite: bool = True,
) -> Any:
    """X with a X = b, a^T X = b (trans 1 or "T") or a^H X = b (trans 2 or "C"), for triangular a."""
    code = {0: "N", 1: "T", 2: "C"}.get(trans, trans)
    if code not in ("N", "T", "C"):
        raise ArgumentError(f"solve_triangular: trans must be 0, 1, 2, 'N', 'T' or 'C', got {trans!r}.")
    a, b = _floats(a, b)
    return _as_columns(
        lambda x, y: p.triangular_solve(x, y, lower=lower, trans=code, unit_diagonal=unit_diagonal), a, b
    )


# --- LU -------------------------------------------------------------------------------------------------------------


def _factors(packed):
    """Unit lower L [..., m, k] and upper U [..., k, n] of packed factors [..., m, n]."""
    m, width = packed.shape[-2:]
    k = min(m, width)
    low = tril(p.columns(packed, 0, k), -1)
    ones = identity_like(p.rows(low, 0, k))
    lead = ((0, 0, 0),) * (len(packed.shape) - 2)
    low = e.add(low, e.pad(ones, packed.dtype.type(0), (*lead, (0, m - k, 0), (0, 0, 0))))
    return low, triu(p.rows(packed, 0, k))


def lu(
    a: Any, permute_l: bool = False, overwrite_a: bool = False, check_finite: bool = True, p_indices: bool = False
) -> Any:
    """(P, L, U) with a = P L U; (P L, U) if `permute_l`; P as row numbers (a = L[P] U) if `p_indices`."""
    a = _float(a)
    packed, _, order = p.lu(a)
    low, up = _factors(packed)
    if permute_l:
        return permute_rows(low, order, inverse=True), up
    if p_indices:
        return _inverse_order(order), low, up
    m = a.shape[-2]
    wide = m if a.shape[-1] < m else a.shape[-1]
    lead = ((0, 0, 0),) * (len(a.shape) - 2)
    filled = e.pad(a, a.dtype.type(0), (*lead, (0, wide - m, 0), (0, wide - a.shape[-1], 0)))
    unit = identity_like(p.columns(p.rows(filled, 0, m), 0, m))
    return permute_rows(unit, order, inverse=True), low, up


def _inverse_order(order):
    """The inverse of a permutation: row numbers put back in its order."""
    m = order.shape[-1]
    numbers = e.convert(e.iota(np.dtype(np.int32), order.shape, len(order.shape) - 1), np.int32)
    back = permute_rows(e.reshape(numbers, (*order.shape, 1)), order, inverse=True)
    return e.reshape(back, (*order.shape[:-1], m))


def lu_factor(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> tuple[Any, Any]:
    """(packed factors, row exchanges) for `lu_solve`."""
    packed, pivots, _ = p.lu(_float(a))
    return packed, pivots


def lu_solve(
    lu_and_piv: tuple[Any, Any], b: Any, trans: int = 0, overwrite_b: bool = False, check_finite: bool = True
) -> Any:
    """X with a X = b (trans 0), a^T X = b (1) or a^H X = b (2), from `lu_factor(a)`."""
    packed, b = _floats(lu_and_piv[0], b)
    order = p.pivots_to_order(lu_and_piv[1], packed.shape[-2])

    def solve_columns(x, y):
        rows_order = broadcast_to(order, y.shape[:-1])
        if trans == 0:
            y = p.triangular_solve(x, permute_rows(y, rows_order), unit_diagonal=True)
            return p.triangular_solve(x, y, lower=False)
        code = {1: "T", 2: "C"}[trans]
        y = p.triangular_solve(x, y, lower=False, trans=code)
        return permute_rows(p.triangular_solve(x, y, trans=code, unit_diagonal=True), rows_order, inverse=True)

    return _as_columns(solve_columns, packed, b)


# --- orthogonal and spectral decompositions -------------------------------------------------------------------------


def qr(
    a: Any, overwrite_a: bool = False, lwork: Any = None, mode: str = "full", pivoting: bool = False,
    check_finite: bool = True,
) -> Any:
    """(Q, R); mode "full" for square Q, "economic" for the thin one, "r" for (R,)."""
    if pivoting or mode not in ("full", "economic", "r"):
        raise ArgumentError(f"qr: mode must be 'full', 'economic' or 'r', without pivoting; got {mode!r}.")
    q, r = p.qr(_float(a), mode != "economic")
    return (r,) if mode == "r" else (q, r)


def svd(
    a: Any, full_matrices: bool = True, compute_uv: bool = True, overwrite_a: bool = False, check_finite: bool = True,
    lapack_driver: str = "gesdd",
) -> Any:
    """(U, s, Vh) with a = U diag(s) Vh, or s alone."""
    out = n.svd(_float(a), full_matrices, compute_uv)
    return tuple(out) if compute_uv else out


def svdvals(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The singular values, descending."""
    return n.svdvals(_float(a))


def eigh(a: Any, b: Any = None, lower: bool = True, eigvals_only: bool = False, **options: Any) -> Any:
    """(w, V) with a V = V diag(w), or a V = b V diag(w) for positive definite `b`; w alone if `eigvals_only`."""
    unknown = set(options) - {"overwrite_a", "overwrite_b", "check_finite"}
    if unknown:
        raise ArgumentError(f"eigh: {', '.join(sorted(unknown))} is not supported.")
    side = "L" if lower else "U"
    if b is None:
        w, v = n.eigh(_float(a), side)
    else:
        a, b = _floats(a, b)
        w, v = _generalized(a, b, lower)
    return w if eigvals_only else (w, v)


def _generalized(a, b, lower):
    """With b = L L^H, the problem L^-1 a L^-H y = w y and V = L^-H y."""
    factor = p.cholesky(b if lower else adjoint(b))
    inner = p.triangular_solve(factor, a if lower else adjoint(a))
    inner = p.triangular_solve(factor, inner, left_side=False, trans="C")
    w, y = n.eigh(inner)
    return w, p.triangular_solve(factor, y, trans="C")


def eigvalsh(a: Any, b: Any = None, lower: bool = True) -> Any:
    """The ascending eigenvalues of `eigh`."""
    return eigh(a, b, lower, eigvals_only=True)


# --- functions and structure ----------------------------------------------------------------------------------------


def expm(A: Any) -> Any:
    """The matrix exponential."""
    return matrix_functions.expm(_float(A))


def expm_frechet(
    A: Any, E: Any, method: str | None = None, compute_expm: bool = True, check_finite: bool = True
) -> Any:
    """(expm(A), its derivative in the direction E), or the latter alone."""
    a, direction = _floats(A, E)
    change = matrix_functions.expm_frechet(a, direction)
    return (matrix_functions.expm(a), change) if compute_expm else change


def block_diag(*arrs: Any) -> Any:
    """The matrix with the given matrices (vectors are rows) along its diagonal and zeros elsewhere."""
    blocks = [e.reshape(x, (1,) * (2 - len(x.shape)) + tuple(x.shape)) for x in promote(*arrs)]
    height, width = (sum(x.shape[i] for x in blocks) for i in (0, 1))
    out, row, column = None, 0, 0
    for x in blocks:
        m, k = x.shape
        placed = e.pad(x, x.dtype.type(0), ((row, height - row - m, 0), (column, width - column - k, 0)))
        out = placed if out is None else e.add(out, placed)
        row, column = row + m, column + k
    return out
