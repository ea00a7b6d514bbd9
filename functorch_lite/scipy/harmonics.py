# SPDX-License-Identifier: MIT
"""Spherical harmonics of given degree and order, by the three-term recurrence of normalized Legendre functions.

    P_m^m     = (-1)^m sqrt((2m + 1)!! / (2m)!! / (4 pi)) sin^m theta
    P_n^m     = sqrt((4n^2 - 1) / (n^2 - m^2)) (cos theta P_(n-1)^m - sqrt(((n-1)^2 - m^2) / (4(n-1)^2 - 1)) P_(n-2)^m)
    Y_n^m     = P_n^m exp(i m phi),  Y_n^-m = (-1)^m conj Y_n^m

Source: DLMF 14.30.1, 14.10.3; normalized so that no factorial overflows.
"""

import math
from typing import Any

import numpy as np
import scipy.special

import functorch_lite.numpy as f
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError
from functorch_lite.numpy.promotion import promote, to_float
from functorch_lite.scipy.dispatch import is_of_scipy
from functorch_lite.transforms.arguments import on_its_device, quiet


def sph_harm_y(n: Any, m: Any, theta: Any, phi: Any, diff_n: int = 0, n_max: int | None = None) -> Any:
    """The spherical harmonic Y_n^m of the polar angle theta and the azimuth phi, in radians: complex.

    n, m: the degree >= 0 and order, integers or integer arrays that are known while tracing; all four broadcast.
    diff_n: SciPy's, of plain arrays only; derivatives of traced ones are those of the transforms. `n_max` is jax's, and
    not needed. Relative errors are near n times that of one product.

    Raises: ArgumentError for traced or negative degrees, and for diff_n of traced angles.
    """
    if is_of_scipy((n, m, theta, phi), {}):
        return scipy.special.sph_harm_y(n, m, theta, phi, diff_n=diff_n)
    if isinstance(n, Tracer) or isinstance(m, Tracer) or diff_n:
        raise ArgumentError("sph_harm_y: n and m must be known while tracing, and diff_n be 0. Make them static.")
    degrees, orders = np.broadcast_arrays(np.asarray(n), np.asarray(m))
    if degrees.dtype.kind not in "iu" or orders.dtype.kind not in "iu" or (degrees < 0).any():
        raise ArgumentError(f"sph_harm_y: n and m must be integers with n >= 0, got {n!r}, {m!r}.")
    return _of_angles(degrees, orders, *[to_float(v) for v in promote(theta, phi)])


@on_its_device
def _of_angles(degrees, orders, theta, phi):
    shape = np.broadcast_shapes(degrees.shape, theta.shape, phi.shape)
    theta, phi = f.broadcast_to(theta, shape), f.broadcast_to(phi, shape)
    out = None
    with quiet():
        for n, m in sorted({(int(a), int(b)) for a, b in zip(degrees.flat, orders.flat, strict=True)}):
            value = _harmonic(n, m, theta, phi)
            here = np.broadcast_to((degrees == n) & (orders == m), shape)
            out = value if out is None else f.where(here, value, out)
    return out


def _harmonic(n, m, theta, phi):
    size = abs(m)
    sin = f.sin(theta)
    along = _legendre(n, size, f.cos(theta), f.where(sin < 0, -sin, sin))
    along = along * (-1) ** size if m < 0 else along
    return along * f.cos(m * phi) + 1j * (along * f.sin(m * phi))


def _legendre(n, m, cos, sin):
    if m > n:
        return 0 * cos
    before, value = 0 * cos, (-1) ** m * math.sqrt(_first_square(m)) * sin**m
    for k in range(m + 1, n + 1):
        back = math.sqrt(((k - 1) ** 2 - m * m) / (4 * (k - 1) ** 2 - 1))
        before, value = value, math.sqrt((4 * k * k - 1) / (k * k - m * m)) * (cos * value - back * before)
    return value


def _first_square(m):
    """(2m + 1)!! / (2m)!! / (4 pi)."""
    return math.prod((2 * k + 1) / (2 * k) for k in range(1, m + 1)) / (4 * math.pi)
