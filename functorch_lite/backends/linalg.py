# SPDX-License-Identifier: MIT
"""Linear algebra that numpy.linalg lacks: triangular solves and LU from BLAS and LAPACK (through SciPy or CuPy).

SciPy is imported when first used, not with the package. Arrays are [..., m, n]; each matrix is handled alone.
"""

import functools
import importlib
from typing import Any

import numpy as np


@functools.cache
def _module(name: str) -> Any:
    return importlib.import_module(name)


def triangular_solve(xp: Any, a: Any, b: Any, left_side: bool, lower: bool, trans: str, unit_diagonal: bool) -> Any:
    """X with op(a) X = b, or X op(a) = b if not `left_side`; op is "N" (a), "T" (transposed) or "C" (adjoint).

    a [..., n, n] is triangular: only its lower or upper half is read. A zero on the diagonal gives infinities.
    """
    out = xp.empty(b.shape, b.dtype)
    if not out.size:
        return out
    solve = _solve_numpy if xp is np else functools.partial(_solve_on_device, xp)
    for place in np.ndindex(*b.shape[:-2]):
        out[place] = solve(a[place], b[place], left_side, lower, trans, unit_diagonal)
    return out


def _solve_numpy(a, b, left_side, lower, trans, unit_diagonal):
    """BLAS is column-major: it is given the transposed problem, whose matrices are plain views of ours."""
    blas = _module("scipy.linalg.blas")
    trsm = getattr(blas, {"f": "strsm", "d": "dtrsm", "F": "ctrsm", "D": "ztrsm"}[a.dtype.char])
    out = trsm(1.0, a.T, b.T, side=int(left_side), lower=int(not lower), trans_a="NTC".index(trans),
               diag=int(unit_diagonal))
    return out.T


def _solve_on_device(xp, a, b, left_side, lower, trans, unit_diagonal):
    solve = _module(f"{xp.__name__}x.scipy.linalg").solve_triangular
    if left_side:
        return solve(a, b, trans="NTC".index(trans), lower=lower, unit_diagonal=unit_diagonal, check_finite=False)
    if trans == "C":
        a, trans = a.conj(), "T"
    flipped = 0 if trans == "T" else 1
    return solve(a, b.T, trans=flipped, lower=lower, unit_diagonal=unit_diagonal, check_finite=False).T


def lu(xp: Any, a: Any) -> list[Any]:
    """Packed factors [..., m, n], the row exchanges [..., k] (int32) and the permutation of rows [..., m] (int32)."""
    m, n = a.shape[-2:]
    packed = xp.empty(a.shape, a.dtype)
    pivots = np.empty((*a.shape[:-2], min(m, n)), np.int32)
    for place in np.ndindex(*a.shape[:-2]):
        if a.size:
            packed[place], pivots[place] = _factor(xp, a[place])
    return [packed, xp.asarray(pivots), xp.asarray(permutation_of(pivots, m))]


def _factor(xp, a):
    if xp is not np:
        factors, pivots = _module(f"{xp.__name__}x.scipy.linalg").lu_factor(a, check_finite=False)
        return factors, pivots.get()
    lapack = _module("scipy.linalg.lapack")
    getrf = getattr(lapack, {"f": "sgetrf", "d": "dgetrf", "F": "cgetrf", "D": "zgetrf"}[a.dtype.char])
    factors, pivots, _ = getrf(a)
    return factors, pivots


def permutation_of(pivots: np.ndarray, m: int) -> np.ndarray:
    """The rows' order after the exchanges row i <-> row pivots[i], in turn: pivots [..., k] gives [..., m], int32."""
    order = np.empty((*pivots.shape[:-1], m), np.int32)
    order[...] = np.arange(m, dtype=np.int32)
    for place in np.ndindex(*pivots.shape[:-1]):
        row = order[place]
        for i, j in enumerate(pivots[place]):
            row[i], row[j] = row[j], row[i]
    return order


def expm(xp: Any, a: Any) -> Any:
    """The matrix exponential of a [..., n, n]."""
    if not a.size:
        return a.copy()
    module = _module("scipy.linalg" if xp is np else f"{xp.__name__}x.scipy.linalg")
    return module.expm(a).astype(a.dtype, copy=False)
