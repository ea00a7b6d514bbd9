# SPDX-License-Identifier: MIT
"""Functions of the scipy namespaces that make constants of their own, on the stand-in device."""

import functools

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.scipy import fft, integrate, interpolate, linalg, ndimage, signal
from tests.device.programs import assert_same_on

rng = np.random.default_rng(9)
X, Y, ROW = rng.standard_normal((6, 8)), rng.standard_normal((3, 4)), rng.standard_normal(40)
SQUARE = rng.standard_normal((3, 3)) + 4 * np.eye(3)
GRID = (np.arange(6.0), np.arange(8.0))
PLACES = rng.uniform(0, 5, (2, 7))


def _interpolated(values, xi, *points, method="linear"):
    return interpolate.RegularGridInterpolator(points, values, method, False)(xi)


CASES = {
    "convolve": (functools.partial(signal.convolve, method="direct"), X, Y), "correlate": (signal.correlate, X, Y),
    "fftconvolve": (signal.fftconvolve, X, Y),
    "convolve2d": (functools.partial(signal.convolve2d, boundary="symm"), X, Y),
    "detrend": (signal.detrend, X), "stft": (functools.partial(signal.stft, nperseg=8), ROW),
    "stft in steps of one": (lambda x: signal.stft(x, nperseg=20, noverlap=19, boundary="odd")[2], ROW),
    "istft": (lambda x: signal.istft(signal.stft(x, nperseg=8)[2], nperseg=8)[1], ROW),
    "welch": (lambda x: signal.welch(x, nperseg=8, average="median", detrend="linear")[1], ROW),
    "csd": (lambda x, y: signal.csd(x, y, nperseg=8)[1], ROW, ROW[:30]),
    **{f"{name} {k}": (functools.partial(getattr(fft, name), type=k, norm="ortho"), X)
       for name in ("dct", "idst") for k in (1, 2, 3, 4)},
    **{f"map_coordinates {mode}": (functools.partial(ndimage.map_coordinates, order=1, mode=mode), X, PLACES)
       for mode in ("constant", "mirror", "grid-wrap", "grid-constant")},
    "interpolator": (_interpolated, X, PLACES.T.copy(), *GRID),
    "nearest": (functools.partial(_interpolated, method="nearest"), X, PLACES.T.copy(), *GRID),
    "trapezoid": (integrate.trapezoid, X, X[0]), "toeplitz": (linalg.toeplitz, ROW[:3], ROW[:4]),
    "circulant": (linalg.circulant, ROW[:3]), "hankel": (linalg.hankel, ROW[:3]),
    "companion": (linalg.companion, ROW[:4]), "leslie": (linalg.leslie, ROW[:4], ROW[:3]),
    "fiedler": (linalg.fiedler, ROW[:4]),
    "convolution_matrix": (functools.partial(linalg.convolution_matrix, n=3, mode="same"), ROW[:4]),
    "polar": (linalg.polar, SQUARE), "sqrtm": (lambda x: np.real(linalg.sqrtm(x @ x.T)), SQUARE),
    "solve_sylvester": (linalg.solve_sylvester, SQUARE, SQUARE, SQUARE),
    "eigh_tridiagonal": (functools.partial(linalg.eigh_tridiagonal, eigvals_only=True), ROW[:4], ROW[:3]),
}


@pytest.mark.parametrize("name", CASES)
def test_function(device, name):
    function, *args = CASES[name]
    assert_same_on(device, function, args)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", CASES)
def test_gradient(device, name, jitted):
    function, *args = CASES[name]
    gradient = fl.grad(lambda *xs: sum(np.sum(np.abs(y) ** 2) for y in fl.tree.leaves(function(*xs))))
    assert_same_on(device, fl.jit(gradient) if jitted else gradient, args)
