# SPDX-License-Identifier: MIT
"""Exponential, sine and cosine integrals, the dilogarithm, Box-Cox: functions made of exp and log.

Series where their terms do not cancel, continued fractions and asymptotic series elsewhere, each of a length that is
enough for float64 on the whole of its range. Relative errors stay below 1e-13, but near a zero of the function, where
that much of the largest term is left. Operands are real; the order of expn is a whole number (a fraction is dropped, as
in SciPy) and held constant.

Source: DLMF 6.6 (series), 6.9.1 and 8.19.17 (continued fractions), 6.12 (asymptotic), 8.19.8, 25.12 (dilogarithm).
"""

import math

import numpy as np

import functorch_lite.numpy as f
from functorch_lite.primitives import special as p
from functorch_lite.scipy.ufuncs import horner, in_double, with_slopes

_EULER = float(np.euler_gamma)
_DEPTH = 42  # of continued fractions at |x| >= 2: the error is near exp(-4 sqrt(42 x))


def _entire(count):
    """1 / (k k!) for k = 1, 2, ...: the coefficients of Ein."""
    return [1 / (k * math.factorial(k)) for k in range(1, count + 1)]


# --- E1 and Ei: integrals of exp(-t) / t from x on, and of exp(t) / t up to x ----------------------------------------


def _exp1(x):
    small = f.where(x <= 2, x, 1.0)
    series = -(_EULER + f.log(small)) + small * horner(-small, _entire(26))
    out = f.where(x <= 2, series, _exp1_fraction(f.where(x > 2, x, 2.0)))
    return f.where(x == np.inf, 0.0, f.where(x >= 0, out, np.nan))


def _exp1_fraction(x):
    tail = 0.0
    for k in range(_DEPTH, 0, -1):
        tail = k * k / (x + (2 * k + 1) - tail)
    return f.exp(-x) / (x + 1 - tail)


_exp1_function = with_slopes(_exp1, lambda out, x: -f.exp(-x) / x)


def _expi(x):
    above = x > 0
    small = f.where(above & (x <= 40), x, 1.0)
    series = _EULER + f.log(small) + small * horner(small, _entire(106))
    large = f.where(x > 40, x, 40.0)
    half = f.exp(large / 2)  # twice half of it: exp(x) overflows before exp(x) / x
    asymptotic = half / large * horner(1 / large, [float(math.factorial(k)) for k in range(41)]) * half
    right = f.where(x <= 40, series, f.where(x == np.inf, np.inf, asymptotic))
    return f.where(above, right, f.where(x == -np.inf, -0.0, -_exp1(f.where(above, 1.0, -x))))


_expi_function = with_slopes(_expi, lambda out, x: f.exp(x) / x)
exp1 = in_double("exp1", _exp1_function)
expi = in_double("expi", _expi_function)


# --- En: the integral of exp(-x t) / t^n from 1 on --------------------------------------------------------------------


def _expn(n, x):
    n = f.floor(n)
    order = f.where(n >= 1, n, 1.0)
    near = (x > 0) & (x < 2)
    out = f.where(near, _expn_series(order, f.where(near, x, 1.0)), _expn_fraction(order, f.where(x >= 2, x, 2.0)))
    out = f.where(x == 0, f.where(n > 1, 1 / f.where(n > 1, n - 1, 1.0), np.inf), out)
    out = f.where(n == 0, f.exp(-x) / x, out)
    return f.where((n >= 0) & (x >= 0), f.where(x == np.inf, 0.0, out), np.nan)


def _expn_series(n, x):
    """(-x)^(n-1) / (n-1)! (psi(n) - log x) minus the sum of (-x)^m / ((m - n + 1) m!) over m but n - 1."""
    total = 0.0
    for m in range(30, -1, -1):
        gap = m + 1 - n
        total = total + f.where(gap == 0, 0.0, (-1) ** m / math.factorial(m) / f.where(gap == 0, 1.0, gap)) * x**m
    sign = f.where(n % 2 == 1, 1.0, -1.0)
    felt = f.minimum(n, 150.0)  # beyond, the logarithm's term is below 1e-200
    return sign * x ** (felt - 1) / p.gamma(felt) * (p.digamma(felt) - f.log(x)) - total


def _expn_fraction(n, x):
    tail = 0.0
    for k in range(_DEPTH, 0, -1):
        tail = k * (n + (k - 1)) / (x + n + 2 * k - tail)
    return f.exp(-x) / (x + n - tail)


def _expn_slope(out, n, x):
    """-E_(n-1); E_0 is exp(-x) / x."""
    first = -f.exp(-x) * (1 + 1 / x) / x
    return f.where(n == 0, first, -_expn_function(f.where(n == 0, 1.0, n - 1), x))


_expn_function = with_slopes(_expn, None, _expn_slope)
expn = in_double("expn", _expn_function)


# --- Si and Ci: integrals of sin t / t from 0 and of cos t / t from infinity -----------------------------------------


def _sici(x):
    size = f.absolute(x)
    small = f.where(size <= 4, size, 1.0)
    square = -small * small
    si = small * horner(square, [1 / ((2 * k + 1) * math.factorial(2 * k + 1)) for k in range(18)])
    ci = _EULER + f.log(small) + square * horner(square, [1 / (2 * k * math.factorial(2 * k)) for k in range(1, 18)])
    si_far, ci_far = _sici_fraction(f.where((size > 4) & (size < np.inf), size, 4.0))
    far = size > 4
    si = f.where(size == np.inf, math.pi / 2, f.where(far, si_far, si))
    ci = f.where(size == np.inf, f.where(x > 0, 0.0, np.nan), f.where(far, ci_far, ci))
    si = f.where(x < 0, -si, f.where(size == size, si, x))
    return si, f.where(size == size, ci, x)


def _sici_fraction(x):
    """From E1(i x) = -Ci x + i (Si x - pi / 2), whose fraction over exp(-i x) is u + i v.

    It is computed at no more than 1e10, where it is 1 / (i x) already: squares must not overflow.
    """
    y = f.minimum(x, 1e10)
    u, v = 0.0 * y, 0.0 * y
    for k in range(_DEPTH, -1, -1):  # k^2 of the term before over (2 k + 1 + i x - rest)
        real, imag = 2 * k + 1 - u, y - v
        factor = (k * k if k else 1) / (real * real + imag * imag)
        u, v = real * factor, -imag * factor
    back = y / x
    sin, cos, u, v = f.sin(x), f.cos(x), u * back * back, v * back
    return math.pi / 2 + cos * v - sin * u, -(cos * u + sin * v)


_sici_function = with_slopes(_sici, lambda out, x: (f.sinc(x / math.pi), f.cos(x) / x))
sici = in_double("sici", _sici_function)


# --- exprel and its derivatives: the integrals of s^n exp(x s) from 0 to 1 -------------------------------------------


def _moment(n, slope=None):
    """The integral of s^n exp(x s) over [0, 1] as a function of x: a series near 0, n integrations by parts away.

    Its derivative is the next moment, `slope`; without it that is made of the same terms.
    """

    def value(x):
        near = f.absolute(x) < 2 + n / 2
        small = f.where(near, x, 0.0)
        series = horner(small, [1 / (math.factorial(k) * (n + k + 1)) for k in range(24 + 6 * n)])
        away = f.where(near, 4.0, x)
        out = f.expm1(away) / away
        for k in range(1, n + 1):
            out = (f.exp(away) - k * out) / away
        series = f.expm1(small) / f.where(small == 0, 1.0, small) if n == 0 else series
        series = f.where(small == 0, 1.0, series) if n == 0 else series
        return f.where(near, series, f.where(x == np.inf, np.inf, out))

    return value if slope is None else with_slopes(value, lambda out, x: slope(x))


_first_moment = _moment(1, _moment(2))
_exprel = _moment(0, _first_moment)
exprel = in_double("exprel", _exprel)


# --- Box-Cox: (x^lmbda - 1) / lmbda -----------------------------------------------------------------------------------


def _power_from_log(log_x, lmbda):
    """expm1(lmbda log_x) / lmbda, and log_x for lmbda 0."""
    none = f.absolute(lmbda) < 1e-19
    safe = f.where(none, 1.0, lmbda)
    return f.where(none, log_x, f.expm1(safe * log_x) / safe)


def _power_slope(out, log_x, lmbda):  # of exprel(u) log_x with u = lmbda log_x: log_x^2 exprel'(u)
    finite = log_x != -np.inf
    safe = f.where(finite, log_x, 0.0)
    positive = lmbda > 0
    at_zero = f.where(positive, 1 / f.where(positive, lmbda * lmbda, 1.0), np.inf)
    return f.where(finite, safe * safe * _first_moment(lmbda * safe), at_zero)


_box = with_slopes(_power_from_log, lambda out, log_x, lmbda: f.exp(lmbda * log_x), _power_slope)
_boxcox = with_slopes(
    lambda x, lmbda: _box(f.log(x), lmbda),
    lambda out, x, lmbda: x ** (lmbda - 1),
    lambda out, x, lmbda: _power_slope(out, f.log(x), lmbda),
)
boxcox = in_double("boxcox", _boxcox)
boxcox1p = in_double("boxcox1p", with_slopes(
    lambda x, lmbda: _box(f.log1p(x), lmbda),
    lambda out, x, lmbda: (1 + x) ** (lmbda - 1),
    lambda out, x, lmbda: _power_slope(out, f.log1p(x), lmbda),
))


# --- the dilogarithm of 1 - x -----------------------------------------------------------------------------------------
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798)


def _spence(x):
    """u - u^2 / 4 + sum of B_2k u^(2k+1) / (2k+1)! of u = -log x in [1/2, 2]; by reflection and inversion elsewhere."""
    inverted = x > 2
    inside = f.where(inverted, 1 / f.where(inverted, x, 1.0), x)
    low = inside < 0.5
    u = -f.log(f.where(low, 1 - inside, inside))
    square = u * u
    series = u * (1 - u / 4 + square * horner(square, [
        b / math.factorial(2 * k + 3) for k, b in enumerate(_BERNOULLI)
    ]))
    positive = f.where(inside > 0, inside, 1.0)
    reflected = math.pi**2 / 6 - f.where(inside > 0, f.log(positive) * f.log1p(-positive), 0.0) - series
    out = f.where(low, reflected, series)
    log = f.log(f.where(inverted, x, 1.0))
    out = f.where(inverted, -(log * log) / 2 - out, out)
    return f.where((x >= 0) & (x < np.inf), out, np.nan)


# log x / (1 - x), smooth at 1
spence = in_double("spence", with_slopes(_spence, lambda out, x: -1 / _exprel(f.log(x))))
