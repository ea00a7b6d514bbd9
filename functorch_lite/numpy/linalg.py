# SPDX-License-Identifier: MIT
"""`functorch_lite.numpy.linalg`: numpy.linalg on traced arrays. Plain arrays go to NumPy (or CuPy) itself.

Integers are computed in float64, as in NumPy. Where a NumPy result depends on values in its dtype or shape, the traced
one does not: `eig` is always complex, and `lstsq` gives residuals whenever m > n. Beside NumPy's functions:
`householder_product`, `cholesky_solve`, `cholesky_inverse`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis, size_of
from functorch_lite.numpy.contractions import matmul_body
from functorch_lite.numpy.contractions import outer as _flat_outer
from functorch_lite.numpy.contractions import tensordot as _tensordot
from functorch_lite.numpy.contractions import vecdot as _vecdot
from functorch_lite.numpy.dispatch import implement, public
from functorch_lite.numpy.norms import cond as cond
from functorch_lite.numpy.norms import matrix_norm as matrix_norm
from functorch_lite.numpy.norms import matrix_rank as matrix_rank
from functorch_lite.numpy.norms import norm as norm
from functorch_lite.numpy.norms import singular_values
from functorch_lite.numpy.norms import vector_norm as vector_norm
from functorch_lite.numpy.promotion import asarray, broadcast_shapes, broadcast_to, cast, promote, to_float
from functorch_lite.primitives import linalg as p
from functorch_lite.primitives import matrix_functions, spectral
from functorch_lite.primitives.matrix import (
    adjoint,
    by_columns,
    identity_like,
    transposed,
    triu,
)
from functorch_lite.primitives.matrix import diagonal as main_diagonal

LinAlgError = np.linalg.LinAlgError


class EigResult(NamedTuple):
    """What `eig` returns."""

    eigenvalues: Any
    eigenvectors: Any


class EighResult(NamedTuple):
    """What `eigh` returns."""

    eigenvalues: Any
    eigenvectors: Any


class QRResult(NamedTuple):
    """What `qr` returns."""

    Q: Any
    R: Any


class SlogdetResult(NamedTuple):
    """What `slogdet` returns."""

    sign: Any
    logabsdet: Any


class SVDResult(NamedTuple):
    """What `svd` returns."""

    U: Any
    S: Any
    Vh: Any


def _floats(*values):
    """The operands as floating-point arrays of one dtype."""
    return [to_float(v) for v in promote(*values)]


def _lead(shape, *arrays):
    """Matrices with their leading axes broadcast to `shape`."""
    return [broadcast_to(x, (*shape, *x.shape[-2:])) for x in arrays]


# --- solving --------------------------------------------------------------------------------------------------------
@public(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    """X with a X = b for a [..., n, n]; b is a vector [n], or matrices [..., n, k]. Leading axes broadcast."""
    a, b = _floats(a, b)
    if len(b.shape) == 1:
        b = e.reshape(b, (*b.shape, 1))
        out = solve(a, b)
        return e.reshape(out, out.shape[:-1])
    a, b = _lead(broadcast_shapes(a.shape[:-2], b.shape[:-2]), a, b)
    return p.solve(a, b)


@public(np.linalg.inv)
def inv(a: Any) -> Any:
    """The inverse of each matrix of a [..., n, n]."""
    a = to_float(asarray(a))
    return p.solve(a, identity_like(a))


@public(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Sequence[int] | None = None) -> Any:
    """x with tensordot(a, x, x.ndim) = b."""
    a, b = _floats(a, b)
    if axes is not None:
        moved = [normal_axis(i, len(a.shape)) for i in axes]
        a = e.permute_dims(a, (*(i for i in range(len(a.shape)) if i not in moved), *moved))
    shape = a.shape[len(b.shape) :]
    out = solve(e.reshape(a, (size_of(b.shape), size_of(shape))), e.reshape(b, (size_of(b.shape),)))
    return e.reshape(out, shape)


@public(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Any:
    """The inverse with respect to tensordot over `ind` axes."""
    a = to_float(asarray(a))
    if ind <= 0:
        raise ArgumentError(f"tensorinv: ind must be positive, got {ind}.")
    left, right = a.shape[:ind], a.shape[ind:]
    return e.reshape(inv(e.reshape(a, (size_of(left), size_of(right)))), (*right, *left))


def _pinv_tolerance(a, rcond, rtol):
    given = rtol if rtol is not None else rcond
    return float(given) if given is not None else max(a.shape[-2:]) * float(np.finfo(a.dtype).eps)


@public(np.linalg.pinv)
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """The Moore-Penrose inverse; singular values up to `rtol` (a number) times the largest count as zero."""
    a = to_float(asarray(a))
    default = 1e-15 if rcond is None and rtol is None else None
    return matrix_functions.pinv(a, default if default is not None else _pinv_tolerance(a, rcond, rtol))


@public(np.linalg.lstsq)
def lstsq(a: Any, b: Any, rcond: Any = None) -> tuple[Any, Any, Any, Any]:
    """(x, residuals, rank, singular values): x of least norm with least |a x - b|, a [m, n] and b [m] or [m, k]."""
    a, b = _floats(a, b)
    if len(a.shape) != 2 or a.shape[0] != b.shape[0]:
        raise ShapeError(f"lstsq: expected a [m, n] and b [m] or [m, k], got {a.shape} and {b.shape}.")
    tolerance = _pinv_tolerance(a, rcond, None)
    x = matmul_body(matrix_functions.pinv(a, tolerance), b)
    values = singular_values(a)
    rank = e.convert(matrix_rank(a, rtol=tolerance), np.int32)
    if a.shape[0] <= a.shape[1]:
        return x, np.empty(0, dtypes.real_dtype(a.dtype)), rank, values
    rest = e.absolute(e.sub(matmul_body(a, x), b))
    residuals = e.reduce_sum(e.mul(rest, rest), (0,))
    return x, e.reshape(residuals, (size_of(residuals.shape),)), rank, values


# --- decompositions -------------------------------------------------------------------------------------------------
@public(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The lower triangular L with L L^H = a, or the upper U with U^H U = a. Gradients are Hermitian."""
    a = to_float(asarray(a))
    return adjoint(p.cholesky(adjoint(a))) if upper else p.cholesky(a)


@public(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    """(Q, R) with a = Q R; mode "complete" for square Q, "r" for R alone."""
    if mode not in ("reduced", "complete", "r"):
        raise ArgumentError(f"qr: mode must be 'reduced', 'complete' or 'r' for a traced array, got {mode!r}.")
    q, r = p.qr(to_float(asarray(a)), mode == "complete")
    return r if mode == "r" else QRResult(q, r)


def _hermitian(a, UPLO):
    if UPLO.upper() not in ("L", "U"):
        raise ArgumentError(f"eigh: UPLO must be 'L' or 'U', got {UPLO!r}.")
    a = to_float(asarray(a))
    return adjoint(a) if UPLO.upper() == "U" else a


@public(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:
    """Ascending real eigenvalues [..., n] and eigenvectors, the columns of [..., n, n], of Hermitian a."""
    return EighResult(*spectral.eigh(_hermitian(a, UPLO)))


@public(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Any:
    """The ascending real eigenvalues of Hermitian a."""
    return spectral.eigh(_hermitian(a, UPLO))[0]


@public(np.linalg.eig)
def eig(a: Any) -> Any:
    """Complex eigenvalues [..., n] and unit eigenvectors, the columns of [..., n, n], of any square a."""
    return EigResult(*spectral.eig(to_float(asarray(a))))


@public(np.linalg.eigvals)
def eigvals(a: Any) -> Any:
    """The complex eigenvalues of any square a."""
    return spectral.eig(to_float(asarray(a)))[0]


@public(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """(U, S, Vh) with a = U diag(S) Vh, S descending; S alone without `compute_uv`. `hermitian` changes nothing."""
    a = to_float(asarray(a))
    return SVDResult(*spectral.svd(a, full_matrices)) if compute_uv else singular_values(a)


@public(np.linalg.svdvals)
def svdvals(x: Any, /) -> Any:
    """The singular values [..., k] of x [..., m, n], descending."""
    return singular_values(to_float(asarray(x)))


# --- determinants and powers ----------------------------------------------------------------------------------------
@public(np.linalg.det)
def det(a: Any) -> Any:
    """The determinants [...] of a [..., n, n]. The gradient is right for singular matrices, too."""
    return matrix_functions.det(to_float(asarray(a)))


@public(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    """The sign and the logarithm of the absolute value of the determinants of a [..., n, n]."""
    return SlogdetResult(*matrix_functions.slogdet(to_float(asarray(a))))


@public(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Any:
    """a [..., n, n] to the integer power n, by repeated squaring; negative powers are those of the inverse."""
    a = asarray(a)
    if n == 0:
        return identity_like(a)
    if n < 0:
        a, n = inv(a), -n
    result = None
    while n:
        if n & 1:
            result = a if result is None else matmul_body(result, a)
        n >>= 1
        a = matmul_body(a, a) if n else a
    return result


@public(np.linalg.multi_dot)
def multi_dot(arrays: Sequence[Any], *, out: None = None) -> Any:
    """The matrix product of all arrays, in the order that takes the fewest multiplications."""
    parts = promote(*arrays)
    if len(parts) < 2:
        raise ArgumentError("multi_dot: expected at least two arrays.")
    sizes = [parts[0].shape[0] if len(parts[0].shape) == 2 else 1]
    sizes += [x.shape[0] for x in parts[1:]] + [parts[-1].shape[1] if len(parts[-1].shape) == 2 else 1]
    return _chain(parts, _best_splits(sizes), 0, len(parts) - 1)


def _best_splits(sizes):
    """Where to split the chain i..j last: dynamic programming over the lengths (Cormen and others, chapter 14.2)."""
    n = len(sizes) - 1
    cost, split = {(i, i): 0 for i in range(n)}, {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            choices = [(cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)]
            cost[i, j], split[i, j] = min(choices)
    return split


def _chain(parts, split, i, j):
    if i == j:
        return parts[i]
    k = split[i, j]
    return matmul_body(_chain(parts, split, i, k), _chain(parts, split, k + 1, j))


# --- products and views ---------------------------------------------------------------------------------------------
@public(np.linalg.cross)
def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """The cross products of 3-vectors along one axis."""
    x, y = promote(x1, x2)
    shape = broadcast_shapes(x.shape, y.shape)
    x, y = broadcast_to(x, shape), broadcast_to(y, shape)
    axis = normal_axis(axis, len(shape))
    if shape[axis] != 3:
        raise ShapeError(f"cross: expected vectors of 3 elements along axis {axis}, got shape {shape}.")

    def part(v, i):
        return e.slice_in_axis(v, i % 3, i % 3 + 1, axis)

    rows = [
        e.sub(e.mul(part(x, i + 1), part(y, i + 2)), e.mul(part(x, i + 2), part(y, i + 1))) for i in range(3)
    ]
    return e.concatenate(rows, axis)


@public(np.linalg.outer)
def outer(x1: Any, x2: Any, /) -> Any:
    """The products of all pairs of elements of two vectors."""
    x1, x2 = asarray(x1), asarray(x2)
    if len(x1.shape) != 1 or len(x2.shape) != 1:
        raise ShapeError(f"outer: expected two vectors, got shapes {x1.shape} and {x2.shape}.")
    return _flat_outer(x1, x2)


@public(np.linalg.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    """x [..., m, n] with its last two axes exchanged."""
    return transposed(asarray(x))


@public(np.linalg.diagonal)
def diagonal(x: Any, /, *, offset: int = 0) -> Any:
    """Diagonal number `offset` of the matrices in the last two axes."""
    x = asarray(x)
    m, n = x.shape[-2:]
    start, shift = max(-offset, 0), max(offset, 0)
    length = max(min(m - start, n - shift), 0)
    start, shift = min(start, m), min(shift, n)
    return main_diagonal(p.columns(p.rows(x, start, start + length), shift, shift + length))


@public(np.linalg.trace)
def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sums of diagonal number `offset` of the matrices in the last two axes; small integers widen."""
    found = diagonal(x, offset=offset)
    if dtype is None and found.dtype.kind in "biu":
        dtype = np.uint64 if found.dtype.kind == "u" else np.int64
    found = cast(found, np.dtype(dtype)) if dtype is not None else found
    return e.reduce_sum(found, (len(found.shape) - 1,))


implement(np.linalg.matmul)(matmul_body)
implement(np.linalg.tensordot)(_tensordot)


@public(np.linalg.vecdot)
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """The inner products over one axis; x1 is conjugated."""
    return _vecdot(x1, x2, axis=axis)


def matmul(x1: Any, x2: Any, /) -> Any:
    """The matrix product over the last two axes."""
    return np.linalg.matmul(x1, x2)


def tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Any:
    """The sum product over pairs of axes."""
    return np.linalg.tensordot(x1, x2, axes=axes)


# --- beside NumPy ---------------------------------------------------------------------------------------------------


def householder_product(a: Any, taus: Any) -> Any:
    """The first n columns of H_1 ... H_k, H_i = 1 - tau_i v_i v_i^H; v_i is column i of a [..., m, n] below a 1.

    taus [..., k], k <= n <= m: what LAPACK's geqrf gives and orgqr takes.
    """
    a, taus = _floats(a, taus)
    out = _unit_columns(a)
    vectors = e.add(e.sub(a, triu(a)), out)
    for i in reversed(range(taus.shape[-1])):
        v = p.columns(vectors, i, i + 1)
        tau = e.slice_in_axis(taus, i, i + 1, len(taus.shape) - 1)
        out = e.sub(out, matmul_body(e.mul(v, by_columns(tau, v.shape)), matmul_body(adjoint(v), out)))
    return out


def _unit_columns(a):
    """The first columns of the unit matrices, with the shape [..., m, n] of `a`."""
    m, n = a.shape[-2:]
    lead = ((0, 0, 0),) * (len(a.shape) - 2)
    return e.pad(identity_like(p.rows(a, 0, n)), a.dtype.type(0), (*lead, (0, m - n, 0), (0, 0, 0)))


def cholesky_solve(b: Any, factor: Any, upper: bool = False) -> Any:
    """X with a X = b [..., n, k], from the Cholesky factor L of a = L L^H (or U of a = U^H U)."""
    b, factor = _floats(b, factor)
    factor, b = _lead(broadcast_shapes(factor.shape[:-2], b.shape[:-2]), factor, b)
    first = p.triangular_solve(factor, b, lower=not upper, trans="C" if upper else "N")
    return p.triangular_solve(factor, first, lower=not upper, trans="N" if upper else "C")


def cholesky_inverse(factor: Any, upper: bool = False) -> Any:
    """The inverse of a from its Cholesky factor."""
    factor = to_float(asarray(factor))
    return cholesky_solve(identity_like(factor), factor, upper)
