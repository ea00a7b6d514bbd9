# SPDX-License-Identifier: MIT
"""Special functions of an array library: scipy.special for NumPy arrays, cupyx.scipy.special for CuPy's.

Both are imported when first used, not with the package. What the GPU library lacks (Bessel functions of order two and
above, which derivatives need) is computed here from what it has.

Source: M. Abramowitz, I. A. Stegun, "Handbook of mathematical functions", 9.1.27, 9.6.26 and 9.6.10.
"""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

SERIES_BELOW = 8.0  # the power series is accurate to rounding up to here; beyond, the upward recurrence is stable
SERIES_TERMS = 40


@functools.cache
def special_module(name: str) -> ModuleType:
    """scipy.special for "numpy", cupyx.scipy.special for "cupy"."""
    return importlib.import_module("scipy.special" if name == "numpy" else f"{name}x.scipy.special")


def apply(xp: Any, name: str, *args: Any) -> Any:
    """The special function `name` of arrays of one dtype, in that dtype; 16-bit floats are computed in float32."""
    dtype = args[0].dtype
    if dtype.itemsize < 4:
        args = tuple(a.astype(np.float32) for a in args)
    out = getattr(special_module(xp.__name__), name)(*args)
    return out if out.dtype == dtype else out.astype(dtype)


def bessel(xp: Any, kind: str, order: int, x: Any) -> Any:
    """The Bessel function of the first kind ("j"), modified ("i") or that times exp(-|x|) ("ie"), order >= 0."""
    named = {("j", 0): "j0", ("j", 1): "j1", ("i", 0): "i0", ("i", 1): "i1", ("ie", 0): "i0e", ("ie", 1): "i1e"}
    if (kind, order) in named:
        return apply(xp, named[kind, order], x)
    if xp is np:
        wide = x.astype(np.float64)
        name = {"j": "jv", "i": "iv", "ie": "ive"}[kind]
        return getattr(special_module("numpy"), name)(order, wide).astype(x.dtype)
    return bessel_by_recurrence(xp, kind, order, x)


def bessel_by_recurrence(xp: Any, kind: str, order: int, x: Any) -> Any:
    """`bessel` for order >= 2: the power series near zero, else upwards from orders 0 and 1."""
    wide = x.astype(np.float64)
    far = xp.where(xp.abs(wide) < SERIES_BELOW, SERIES_BELOW + 1.0, wide)
    sign = 1.0 if kind == "j" else -1.0
    lower, upper = bessel(xp, kind, 0, far), bessel(xp, kind, 1, far)
    for n in range(1, order):
        lower, upper = upper, sign * (2 * n / far * upper - lower)
    near = xp.where(xp.abs(wide) < SERIES_BELOW, wide, 0.0)
    total = _series(xp, near, order, sign)
    if kind == "ie":
        total = total * xp.exp(-xp.abs(near))
    return xp.where(xp.abs(wide) < SERIES_BELOW, total, upper).astype(x.dtype)


def _series(xp, x, order, sign):
    """sum over m of (-sign x^2 / 4)^m / (m! (m + order)!) times (x / 2)^order."""
    term = (x / 2) ** order
    for n in range(1, order + 1):
        term = term / n
    total = term
    for m in range(1, SERIES_TERMS):
        term = term * (-sign * x * x / 4) / (m * (m + order))
        total = total + term
    return total


# --- derivatives of the incomplete gamma function in its first argument ---------------------------------------------
GAMMA_STEPS = 2000


def gammainc_derivative(xp: Any, a: Any, x: Any) -> Any:
    """d/da of the regularized lower incomplete gamma function P(a, x), for a > 0 and x >= 0.

    Below x = max(1, a) by the power series, beyond by the continued fraction, each differentiated term by term.
    Source: R. J. Moore, "Algorithm AS 187", Applied Statistics 31 (1982); the series of Abramowitz, Stegun 6.5.29.
    """
    special = special_module(xp.__name__)
    a64, x64 = xp.broadcast_arrays(a.astype(np.float64), x.astype(np.float64))
    legal = (a64 > 0) & (x64 > 0) & xp.isfinite(x64)
    a64, x64 = xp.where(legal, a64, 1.0), xp.where(legal, x64, 1.0)
    log_x = xp.log(x64)
    near = (x64 <= 1) | (x64 <= a64)
    with np.errstate(all="ignore"):
        low = _series_derivative(xp, special, xp.where(near, a64, 1.0), xp.where(near, x64, 0.5), log_x)
        high = _fraction_derivative(xp, special, xp.where(near, 1.0, a64), xp.where(near, 2.0, x64), log_x)
    out = xp.where(near, low, high)
    outside = xp.where((x64 == x64) & (a > 0) & ((x == 0) | (x == np.inf)), 0.0, np.nan)  # noqa: PLR0124 (NaN test)
    return xp.where(legal, out, outside).astype(a.dtype)


def _series_derivative(xp, special, a, x, log_x):
    """P = x^a e^-x / Gamma(a + 1) * S with S = sum of x^n / ((a + 1) ... (a + n))."""
    total, slope = xp.ones_like(a), xp.zeros_like(a)
    term, term_slope = total, slope
    for n in range(1, GAMMA_STEPS):
        ratio = x / (a + n)
        term_slope = term_slope * ratio - term * ratio / (a + n)
        term = term * ratio
        total, slope = total + term, slope + term_slope
        if float(xp.abs(term).max(initial=0.0)) <= 1e-17 and float(xp.abs(term_slope).max(initial=0.0)) <= 1e-17:
            break
    front = xp.exp(a * log_x - x - special.gammaln(a + 1))
    return front * (slope + total * (log_x - special.digamma(a + 1)))


def _fraction_derivative(xp, special, a, x, log_x):
    """1 - P = x^a e^-x / Gamma(a) * F, F = 1/(x+1-a- 1(1-a)/(x+3-a- 2(2-a)/(x+5-a- ...))), from the tail inwards."""
    depth = int(min(GAMMA_STEPS, 60 + 12 * float(xp.sqrt(xp.abs(a).max(initial=1.0)))))
    tail, slope = xp.zeros_like(a), xp.zeros_like(a)
    for n in range(depth, 0, -1):
        below = x + (2 * n + 1) - a + tail
        below_slope = slope - 1
        top = -n * (n - a)
        tail, slope = top / below, n / below - top * below_slope / (below * below)
    below = x + 1 - a + tail
    fraction, fraction_slope = 1 / below, -(slope - 1) / (below * below)
    front = xp.exp(a * log_x - x - special.gammaln(a))
    return -front * (fraction_slope + fraction * (log_x - special.digamma(a)))


def by_name(name: str) -> Callable[..., Any]:
    """An eval rule that calls the special function of that name."""
    return lambda xp, *args: apply(xp, name, *args)
