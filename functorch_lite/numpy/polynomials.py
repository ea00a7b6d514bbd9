# SPDX-License-Identifier: MIT
"""Polynomials as vectors of coefficients, highest power first: values, arithmetic, derivatives, roots, fits.

Sizes of results do not depend on values, as traced ones are not known: no leading zeros are cut off.
"""

import builtins
from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy import joining, reductions, shaping, ufuncs
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.creation import eye, ones, vander, zeros
from functorch_lite.numpy.dispatch import public
from functorch_lite.numpy.functions import convolve
from functorch_lite.numpy.promotion import asarray, broadcast_to, cast, operand, promote, to_float, to_inexact


@public(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    """The polynomial with coefficients p, highest power first, at x (Horner's rule)."""
    p, x = promote(asarray(p), asarray(x))
    out = broadcast_to(p.dtype.type(0), x.shape)
    for i in range(p.shape[0]):
        out = e.add(e.mul(out, x), broadcast_to(p[i], x.shape))
    return out


def _padded_front(x, n):
    return e.pad(x, x.dtype.type(0), ((n - x.shape[0], 0, 0),))


def _padded_back(x):
    return e.pad(x, x.dtype.type(0), ((0, 1, 0),))


@public(np.polyadd)
def polyadd(a1: Any, a2: Any) -> Any:
    """The sum of two polynomials, highest power first."""
    x, y = (shaping.atleast_1d(v) for v in promote(a1, a2))
    n = builtins.max(x.shape[0], y.shape[0])
    return e.add(_padded_front(x, n), _padded_front(y, n))


@public(np.polysub)
def polysub(a1: Any, a2: Any) -> Any:
    """The difference of two polynomials, highest power first."""
    x, y = (shaping.atleast_1d(v) for v in promote(a1, a2))
    n = builtins.max(x.shape[0], y.shape[0])
    return e.sub(_padded_front(x, n), _padded_front(y, n))


@public(np.polymul)
def polymul(a1: Any, a2: Any) -> Any:
    """The product of two polynomials, highest power first."""
    return convolve(shaping.atleast_1d(a1), shaping.atleast_1d(a2))


@public(np.polyder)
def polyder(p: Any, m: int = 1) -> Any:
    """The m-th derivative of a polynomial, highest power first."""
    x = asarray(p)
    for _ in range(m):
        n = x.shape[0] - 1
        x = ufuncs.multiply(x[:-1], constant(np.arange(n, 0, -1), x))
    return x


@public(np.polyint)
def polyint(p: Any, m: int = 1, k: Any = None) -> Any:
    """The m-th antiderivative of a polynomial, highest power first, with integration constants k."""
    x = to_float(p)
    constants = [0.0] * m if k is None else ([k] * m if not hasattr(k, "__len__") else list(k))
    for i in range(m):
        n = x.shape[0]
        scaled = ufuncs.divide(x, constant(np.arange(n, 0, -1).astype(x.dtype), x))
        x = joining.concatenate([scaled, shaping.reshape(cast(operand(constants[i]), x.dtype), (1,))])
    return x


@public(np.polydiv)
def polydiv(u: Any, v: Any) -> tuple[Any, Any]:
    """(quotient, remainder) of two polynomials; the remainder has as many coefficients as v but one, and one at least.

    The first coefficient of v must not be 0.
    """
    x, y = (shaping.atleast_1d(to_inexact(w)) for w in promote(u, v))
    degree, steps = y.shape[0] - 1, x.shape[0] - y.shape[0] + 1
    if steps < 1:
        return zeros(1, x.dtype), x
    scale, quotient = ufuncs.reciprocal(y[0]), []
    for k in range(steps):
        quotient.append(e.mul(scale, x[k]))
        product = e.mul(broadcast_to(quotient[k], y.shape), y)
        x = e.sub(x, e.pad(product, x.dtype.type(0), ((k, steps - 1 - k, 0),)))
    return joining.stack(quotient), x[steps if degree else -1 :]


@public(np.poly)
def poly(seq_of_zeros: Any) -> Any:
    """The polynomial with these roots, or the characteristic one of a square matrix; its first coefficient is 1.

    Complex roots give complex coefficients, also where they come in conjugate pairs; a real matrix gives real ones.
    """
    x = shaping.atleast_1d(to_inexact(seq_of_zeros))
    is_matrix = len(x.shape) == 2
    if len(x.shape) > 2 or (is_matrix and x.shape[0] != x.shape[1]):
        raise ShapeError(f"poly: expected a vector of roots or a square matrix, got shape {x.shape}.")
    zeros_of = np.linalg.eigvals(x) if is_matrix else x
    out = ones(1, zeros_of.dtype)
    for k in range(zeros_of.shape[0]):
        shifted = e.mul(broadcast_to(zeros_of[k], out.shape), out)
        out = e.sub(_padded_back(out), _padded_front(shifted, k + 2))
    return e.real(out) if is_matrix and x.dtype.kind == "f" else out


@public(np.roots)
def roots(p: Any) -> Any:
    """The complex roots of a polynomial: the eigenvalues of its companion matrix. The first coefficient must not be 0.

    Source: Horn and Johnson, Matrix Analysis, 1999, pp. 146-147, as NumPy's.
    """
    x = to_float(asarray(p))
    if len(x.shape) != 1:
        raise ShapeError(f"roots: expected a vector of coefficients, got shape {x.shape}.")
    n = x.shape[0] - 1
    if n < 1:
        return zeros(0, np.result_type(x.dtype, np.complex64))
    first = ufuncs.negative(ufuncs.divide(x[1:], x[0]))
    return np.linalg.eigvals(joining.concatenate([shaping.reshape(first, (1, n)), eye(n - 1, n, dtype=x.dtype)]))


@public(np.polyfit)
def polyfit(x: Any, y: Any, deg: int, rcond: Any = None, full: bool = False, w: Any = None, cov: Any = False) -> Any:
    """The polynomial of degree `deg` with the least sum of squared errors, weighted by w**2, at points x [m].

    y: [m], or [m, k] for k polynomials, the columns of the result. rcond: singular values up to this times the largest
    count as zero; by default m times the precision. full: also residuals, rank, singular values and rcond. cov: also
    the covariance of the coefficients, scaled by chi squared over the degrees of freedom unless it is "unscaled".
    """
    x, y = to_float(x), to_float(y)
    _check_points(x, y, deg)
    columns, wanted = vander(x, deg + 1), y
    if w is not None:
        weights = shaping.reshape(to_float(w), (x.shape[0], 1))
        columns = ufuncs.multiply(columns, weights)
        wanted = ufuncs.multiply(y, shaping.reshape(weights, (x.shape[0],) + (1,) * (len(y.shape) - 1)))
    rcond = x.shape[0] * np.finfo(x.dtype).eps if rcond is None else rcond
    scale = ufuncs.sqrt(reductions.sum(ufuncs.square(columns), 0))
    columns = ufuncs.divide(columns, scale)
    found, residuals, rank, values = np.linalg.lstsq(columns, wanted, rcond)
    found = ufuncs.divide(found, scale if len(y.shape) == 1 else shaping.reshape(scale, (deg + 1, 1)))
    if full:
        return found, residuals, rank, values, rcond
    return (found, _covariance(columns, scale, residuals, y, cov)) if cov else found


def _check_points(x, y, deg):
    if deg < 0:
        raise ArgumentError(f"polyfit: the degree cannot be negative, got {deg}.")
    if len(x.shape) != 1 or not x.shape[0] or len(y.shape) not in (1, 2) or y.shape[0] != x.shape[0]:
        raise ShapeError(f"polyfit: expected x [m] and y [m] or [m, k], m at least 1, got {x.shape} and {y.shape}.")


def _covariance(columns, scale, residuals, y, cov):
    """Of the coefficients [deg + 1, deg + 1], or of each of k polynomials [deg + 1, deg + 1, k]."""
    product = shaping.transpose(columns) @ columns
    base = ufuncs.divide(np.linalg.inv(product), scale[:, None] * scale)
    freedom = columns.shape[0] - columns.shape[1]
    if cov == "unscaled":
        factor = ones(residuals.shape[:1] if len(y.shape) == 2 else (1,), columns.dtype)
    elif freedom > 0:
        factor = ufuncs.divide(residuals, freedom)
    else:
        raise ArgumentError(
            f"polyfit: {columns.shape[0]} points do not tell the covariance of {columns.shape[1]} coefficients. "
            'Give more points than coefficients, or cov="unscaled".'
        )
    return base * factor if len(y.shape) == 1 else base[:, :, None] * factor
