# SPDX-License-Identifier: MIT
"""Matrices with a structure: those made of vectors, which may be traced, and those that only have a size.

Vectors [..., n] give matrices [..., n, n]. Plain arrays go to SciPy itself.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite import numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.promotion import asarray, broadcast_shapes, broadcast_to, promote
from functorch_lite.primitives.matrix import diagonal_matrix
from functorch_lite.scipy.dispatch import check_known, of_scipy, public


def _row(x: Any) -> Any:
    """x [..., n]; a scalar is a vector of one element."""
    x = asarray(x)
    return x if x.shape else e.reshape(x, (1,))


def _joined(x: Any, y: Any) -> Any:
    """x [..., m] and y [..., n] one after the other, in their common dtype."""
    x, y = promote(x, y)
    lead = broadcast_shapes(x.shape[:-1], y.shape[:-1])
    parts = [broadcast_to(v, (*lead, v.shape[-1])) for v in (x, y)]
    return e.concatenate(parts, len(lead))


def _diagonals(v: Any, m: int, n: int) -> Any:
    """The matrix [..., m, n] with the element v_(m - 1 - i + j) of v [..., m + n - 1] at i, j.

    m copies of v in a row, cut into rows that are shorter by one: each begins one element earlier in v.
    """
    *lead, size = v.shape
    if not m or not n:
        return fnp.zeros((*lead, m, n), v.dtype)
    if m == 1:
        return e.reshape(v, (*lead, 1, n))
    first = tuple(range(len(lead)))
    copies = e.reshape(e.broadcast_in_dim(v, (*lead, m, size), (*first, len(lead) + 1)), (*lead, m * size))
    shifted = e.slice_in_axis(copies, m - 1, m - 1 + m * (size - 1), len(lead))
    return e.slice_in_axis(e.reshape(shifted, (*lead, m, size - 1)), 0, n, len(lead) + 1)


# --- of vectors -----------------------------------------------------------------------------------------------------


@public("scipy.linalg.toeplitz")
def toeplitz(c: Any, r: Any = None) -> Any:
    """The matrix [..., m, n] with constant diagonals, first column c [..., m] and first row r [..., n].

    r: conj(c) by default; its first element is not used.

    >>> toeplitz(np.array([1, 2, 3]), np.array([1, 4, 5]))
    array([[1, 4, 5],
           [2, 1, 4],
           [3, 2, 1]])
    """
    c = _row(c)
    r = fnp.conjugate(c) if r is None else _row(r)
    return _diagonals(_joined(fnp.flip(c, -1), r[..., 1:]), c.shape[-1], r.shape[-1])


@public("scipy.linalg.circulant")
def circulant(c: Any) -> Any:
    """The matrix [..., n, n] whose columns are c [..., n] rolled on by one from each to the next."""
    c = _row(c)
    back = fnp.flip(c, -1)
    return _diagonals(_joined(back, back[..., :-1]), c.shape[-1], c.shape[-1])


@public("scipy.linalg.hankel")
def hankel(c: Any, r: Any = None) -> Any:
    """The matrix [m, n] with constant anti-diagonals, first column c [m] and last row r [n] (zeros by default).

    The first element of r is not used. Raises ShapeError for what is no vector.
    """
    c = asarray(c)
    r = fnp.zeros_like(c) if r is None else asarray(r)
    if len(c.shape) != 1 or len(r.shape) != 1:
        raise ShapeError(f"hankel: expected vectors, got shapes {c.shape} and {r.shape}. Map it with vmap.")
    return fnp.flip(_diagonals(_joined(c, r[1:]), c.shape[0], r.shape[0]), 0)


@public("scipy.linalg.companion")
def companion(a: Any) -> Any:
    """The companion matrix [..., n - 1, n - 1] of the polynomial with coefficients a [..., n], highest power first.

    The first coefficient must not be 0: infinite elements where a traced one is. Raises ShapeError for n < 2.
    """
    a = _row(a)
    n = a.shape[-1]
    if n < 2:
        raise ShapeError(f"companion: expected at least two coefficients along the last axis, got shape {a.shape}.")
    first = fnp.divide(fnp.negative(a[..., 1:]), fnp.multiply(1.0, a[..., 0:1]))
    below = constant(np.eye(n - 2, n - 1).astype(first.dtype))
    below = broadcast_to(below, (*first.shape[:-1], n - 2, n - 1))
    return fnp.concatenate([fnp.expand_dims(first, -2), below], axis=-2)


@public("scipy.linalg.fiedler")
def fiedler(a: Any) -> Any:
    """The symmetric matrix [..., n, n] of the distances |a_i - a_j| of the elements of a [..., n]."""
    a = _row(a)
    if fnp.size(a) < 2:  # SciPy's dtype
        return fnp.zeros((1, 1) if fnp.size(a) else (0,), np.float64)
    return fnp.absolute(fnp.subtract(a[..., :, None], a[..., None, :]))


@public("scipy.linalg.leslie")
def leslie(f: Any, s: Any) -> Any:
    """The matrix [..., n, n] of a population: fecundities f [..., n] in the first row, survival s [..., n - 1] below.

    Raises ShapeError where the lengths do not fit.
    """
    f, s = promote(_row(f), _row(s))
    n = f.shape[-1]
    if s.shape[-1] != n - 1 or n < 2:
        raise ShapeError(f"leslie: expected f [..., n] and s [..., n - 1], n >= 2, got shapes {f.shape} and {s.shape}.")
    lead = broadcast_shapes(f.shape[:-1], s.shape[:-1])
    f, s = broadcast_to(f, (*lead, n)), broadcast_to(s, (*lead, n - 1))
    below = e.pad(diagonal_matrix(s), s.dtype.type(0), (*((0, 0, 0),) * (len(lead) + 1), (0, 1, 0)))
    return e.concatenate([e.reshape(f, (*lead, 1, n)), below], len(lead))


@public("scipy.linalg.convolution_matrix")
def convolution_matrix(a: Any, n: int, mode: str = "full") -> Any:
    """The matrix [..., m, n] whose product with v [n] is numpy.convolve(a, v, mode), for a [..., k].

    >>> convolution_matrix(np.array([1, 2]), 3)
    array([[1, 0, 0],
           [2, 1, 0],
           [0, 2, 1],
           [0, 0, 2]])
    """
    check_known("convolution_matrix", n=n)
    a = asarray(a)
    if n <= 0 or not a.shape or not a.shape[-1]:
        raise ArgumentError(f"convolution_matrix: n and the length of a must be at least 1, got {n} and {a.shape}.")
    if mode not in ("full", "same", "valid"):
        raise ArgumentError(f"convolution_matrix: mode must be 'full', 'same' or 'valid', got {mode!r}.")
    k = a.shape[-1]
    spare = min(n, k) - 1
    before, after = {"full": (0, 0), "same": (spare // 2, spare - spare // 2), "valid": (spare, spare)}[mode]
    rows = k + n - 1 - before - after
    config = (*((0, 0, 0),) * (len(a.shape) - 1), (n - 1 - after, n - 1 - before, 0))
    return _diagonals(e.pad(fnp.flip(a, -1), a.dtype.type(0), config), rows, n)


# --- of a size ------------------------------------------------------------------------------------------------------


def _of_size(name: str, text: str) -> Callable[..., Any]:
    """SciPy's function of a size, which must be known."""

    def function(n: int, *args: Any, **kwargs: Any) -> Any:
        check_known(name, n=n)
        return of_scipy(f"scipy.linalg.{name}")(n, *args, **kwargs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{text} n is a Python integer; options are those of scipy.linalg.{name}."
    return function


hilbert = _of_size("hilbert", "The Hilbert matrix [n, n] of 1 / (i + j + 1), float64.")
invhilbert = _of_size("invhilbert", "The inverse of the Hilbert matrix [n, n]; float64, or integers with `exact`.")
pascal = _of_size("pascal", "The matrix [n, n] of binomial coefficients, symmetric, lower or upper (`kind`).")
invpascal = _of_size("invpascal", "The inverse of the matrix [n, n] of binomial coefficients.")
hadamard = _of_size("hadamard", "The Hadamard matrix [n, n] of 1 and -1 with orthogonal rows, n a power of 2.")
helmert = _of_size("helmert", "The Helmert matrix [n - 1, n], or [n, n] if `full`, with orthonormal rows, float64.")
dft = _of_size("dft", "The matrix [n, n] of the discrete Fourier transform, complex128.")
