# SPDX-License-Identifier: MIT
"""Integrals of Gaussians that are not error functions: Dawson's, Fresnel's and Owen's.

All are sums by the trapezoidal or by Gauss's rule, which converge geometrically for such integrands, and power series
where the function is small. Relative errors stay below 1e-13 (owens_t 1e-12); of Fresnel's for large x that of x^2.

Source: G. B. Rybicki, "Dawson's integral and the sampling theorem", Computers in Physics 3, 1989. M. Alazah,
S. N. Chandler-Wilde, S. La Porte, "Computing Fresnel integrals via modified trapezium rules", Numer. Math. 128, 2014.
D. B. Owen, "Tables for computing bivariate normal probabilities", Ann. Math. Stat. 27, 1956. DLMF 7.6.4-7.6.7.
"""

import functools
import math

import numpy as np

import functorch_lite.numpy as f
from functorch_lite.primitives import special as p
from functorch_lite.scipy.ufuncs import horner, in_double, with_slopes

# --- Dawson's integral: exp(-x^2) times the integral of exp(t^2) from 0 to x ------------------------------------------
_STEP = 0.25  # the sum's error is exp(-(pi / 2 / 0.25)^2) = 7e-18
_ODD = range(25, 0, -2)  # exp(-(0.25 * 25)^2) = 1e-17


def _dawsn(x):
    size = f.absolute(x)
    near, far = size < 0.5, size > 1e7
    small = f.where(near, x, 0.0)
    series = small * horner(-2 * small * small, [1 / math.prod(range(1, 2 * k + 2, 2)) for k in range(12)])
    out = f.where(near, series, _sampled(f.where(near | far, 1.0, x)))
    return f.where(far, 0.5 / f.where(far, x, 1.0), out)


def _sampled(x):
    """The sum over odd n of exp(-(x - n h)^2) / n, from the terms around the even multiple of h nearest to x."""
    even = 2 * f.rint(x / (2 * _STEP))
    rest = x - even * _STEP
    grow = f.exp(2 * _STEP * rest)
    square, shrink = grow * grow, 1 / grow
    below = shrink * shrink
    up, down, total = grow, shrink, 0.0
    for n in reversed(_ODD):
        total = total + math.exp(-((n * _STEP) ** 2)) * (up / (even + n) + down / (even - n))
        up, down = up * square, down * below
    return total * f.exp(-rest * rest) / math.sqrt(math.pi)


def _dawsn_slope(out, x):
    """1 - 2 x F(x): by its asymptotic series, minus the sum of (2k - 1)!! / (2 x^2)^k, where that cancels."""
    far = f.absolute(x) > 10
    large = f.where(far, x, 10.0)
    t = 0.5 / (large * large)
    series = -t * horner(t, [float(math.prod(range(1, 2 * k, 2))) for k in range(1, 19)])
    return f.where(far, series, 1 - 2 * x * out)


dawsn = in_double("dawsn", with_slopes(_dawsn, _dawsn_slope))

# --- Fresnel's integrals: of sin and cos of pi t^2 / 2 from 0 to x ----------------------------------------------------
_NODES = 12
_WIDTH = math.sqrt((_NODES + 0.5) * math.pi)
_SQUARES = [((k + 0.5) * math.pi / _WIDTH) ** 2 for k in range(_NODES)]


def _fresnel(x):
    size = f.absolute(x)
    near = size < 1.25
    s_near, c_near = _fresnel_series(f.where(near, x, 0.0))
    finite = size < np.inf
    s_far, c_far = _fresnel_sum(f.where(finite & ~near, size, 1.5))
    s_far, c_far = [f.where(finite, v, 0.5) for v in (s_far, c_far)]
    sign = f.where(x < 0, -1.0, f.where(x == x, 1.0, x))
    return f.where(near, s_near, sign * s_far), f.where(near, c_near, sign * c_far)


def _fresnel_series(x):
    u = math.pi / 2 * x * x
    square = -u * u
    s = horner(square, [1 / (math.factorial(2 * k + 1) * (4 * k + 3)) for k in range(14)])
    c = horner(square, [1 / (math.factorial(2 * k) * (4 * k + 1)) for k in range(14)])
    return s * u * x, c * x


def _fresnel_sum(x):
    """The midpoint rule for erfc(exp(-i pi/4) y), y^2 = pi x^2 / 2, and the residue at its pole, as C and S."""
    y2 = math.pi / 2 * x * x
    y4 = y2 * y2
    a = b = 0.0
    for t2 in _SQUARES:
        weight = math.exp(-t2) / (y4 + t2 * t2)
        a, b = a + weight, b + t2 * weight
    a = a * y2
    angle = math.pi / 2 * f.remainder(x * x, 4.0)
    sin, cos = f.sin(angle), f.cos(angle)
    phase = f.minimum(math.sqrt(math.pi) * _WIDTH * x, 350.0)
    sinh, cosh, sine, cosine = f.sinh(phase), f.cosh(phase), f.sin(phase), f.cos(phase)
    front = math.sqrt(math.pi) * x / _WIDTH
    half = 0.5 / (cosh + cosine)
    c = half * (sinh + sine) + front * (a * sin - b * cos)
    s = half * (sinh - sine) - front * (a * cos + b * sin)
    return s, c


def _fresnel_slopes(out, x):
    angle = math.pi / 2 * f.remainder(x * x, 4.0)
    return f.sin(angle), f.cos(angle)


fresnel = in_double("fresnel", with_slopes(_fresnel, _fresnel_slopes))


# --- Owen's T: the integral of exp(-h^2 (1 + s^2) / 2) / (1 + s^2) / (2 pi) from 0 to a -------------------------------


@functools.cache
def _gauss(count):
    """Nodes and weights of Gauss's rule on [0, 1], as Python floats."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return [(float(s), float(w)) for s, w in zip((nodes + 1) / 2, weights / 2, strict=True)]


def _owens_t(h, a):
    size, slope = f.absolute(h), f.absolute(a)
    steep = slope > 1
    product = f.where(size == 0, 0.0, size * slope)
    swapped_a = f.where(steep, 1 / f.where(steep, slope, 1.0), slope)
    out = _owens_integral(f.where(steep, product, size), swapped_a)
    above, above_product = p.erfc(size * math.sqrt(0.5)) / 2, p.erfc(product * math.sqrt(0.5)) / 2
    out = f.where(steep, (above + above_product) / 2 - above * above_product - out, out)
    out = f.where(size == np.inf, 0.0, out)
    return f.where(a < 0, -out, f.where((h == h) & (a == a), out, h + a))


def _owens_integral(h, a):
    """T for h >= 0 and 0 <= a <= 1; beyond s = 9 / h nothing is left of the integrand."""
    h = f.minimum(h, 50.0)
    end = f.minimum(a, 9 / f.where(h > 1, h, 1.0))
    half = -h * h / 2
    total = 0.0
    for node, weight in _gauss(36):
        s = 1 + (end * node) ** 2
        total = total + weight * f.exp(half * s) / s
    return total * end / (2 * math.pi)


owens_t = in_double("owens_t", with_slopes(
    _owens_t,
    lambda out, h, a: f.exp(-h * h / 2) * p.erf(a * h * math.sqrt(0.5)) * (-0.5 / math.sqrt(2 * math.pi)),
    lambda out, h, a: f.exp(-h * h * (1 + a * a) / 2) / (2 * math.pi * (1 + a * a)),
))
