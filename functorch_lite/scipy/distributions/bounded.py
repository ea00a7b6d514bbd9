# SPDX-License-Identifier: MIT
"""Distributions on a part of the real line (exponential, gamma, beta, ...) and on the circle.

Source: N. L. Johnson, S. Kotz, N. Balakrishnan, "Continuous univariate distributions", 2nd ed., 1994-95. K. V. Mardia,
P. E. Jupp, "Directional statistics", 2000: von Mises and wrapped Cauchy.
"""

import math
from typing import Any

import functorch_lite.numpy as f
from functorch_lite.primitives import special as p
from functorch_lite.scipy.distributions.common import (
    Continuous,
    WithCdf,
    inside,
    log_complement,
    of_operands,
    probability,
)
from functorch_lite.scipy.ufuncs import with_slopes

_HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2
_ROOT_HALF = math.sqrt(0.5)


class expon(Continuous):
    """The exponential distribution on [loc, inf)."""

    @of_operands
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        return inside(~(z < 0), -(z + f.log(scale)))

    @of_operands
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return -f.expm1(-_from(0.0, x, loc, scale))

    @of_operands
    def logcdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the distribution function."""
        return log_complement(_from(0.0, x, loc, scale))

    @of_operands
    def sf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return f.exp(-_from(0.0, x, loc, scale))

    @of_operands
    def logsf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of 1 - cdf."""
        return -_from(0.0, x, loc, scale)

    @of_operands
    def ppf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return probability(q, loc - f.log1p(-q) * scale)

    @of_operands
    def isf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return probability(q, loc - f.log(q) * scale)


def _from(low, x, loc, scale):
    """(x - loc) / scale, and `low` below it."""
    z = (x - loc) / scale
    return f.where(z < low, low, z)


def _part(z):
    """z within [0, 1]."""
    return f.where(z < 0, 0.0, f.where(z > 1, 1.0, z))


class uniform(WithCdf):
    """The uniform distribution on [loc, loc + scale]."""

    @of_operands
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        support = ~((z < 0) | (z > 1))
        return inside(support, 0 * f.where(support, z, 0.0) - f.log(scale))

    @of_operands
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return _part((x - loc) / scale)

    @of_operands
    def sf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf."""
        return 1 - _part((x - loc) / scale)

    @of_operands
    def ppf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return probability(q, loc + q * scale)

    @of_operands
    def isf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return probability(q, loc + (1 - q) * scale)


class gamma(WithCdf):
    """The gamma distribution of shape `a`."""

    @of_operands
    def logpdf(x: Any, a: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        support = ~(z < 0)
        safe = f.where(support, z, 1.0)
        return inside(support, p.xlogy(a - 1, safe) - safe - (p.lgamma(a) + f.log(scale)))

    @of_operands
    def cdf(x: Any, a: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return p.gammainc(a, _from(0.0, x, loc, scale))

    @of_operands
    def sf(x: Any, a: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return p.gammaincc(a, _from(0.0, x, loc, scale))


class chi2(WithCdf):
    """The chi-squared distribution of `df` degrees of freedom."""

    @of_operands
    def logpdf(x: Any, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        return gamma.logpdf(x, df / 2, loc, 2 * scale)

    @of_operands
    def cdf(x: Any, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return gamma.cdf(x, df / 2, loc, 2 * scale)

    @of_operands
    def sf(x: Any, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return gamma.sf(x, df / 2, loc, 2 * scale)


class beta(WithCdf):
    """The beta distribution of shapes `a` and `b`. The derivatives of cdf and sf in the shapes are not known."""

    @of_operands
    def logpdf(x: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        support = ~((z < 0) | (z > 1))
        safe = f.where(support, z, 0.5)
        powers = p.xlogy(a - 1, safe) + p.xlog1py(b - 1, -safe)
        constant = p.lgamma(a) + p.lgamma(b) - p.lgamma(a + b)
        return inside(support, powers - constant - f.log(scale))

    @of_operands
    def cdf(x: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return p.betainc(a, b, _part((x - loc) / scale))

    @of_operands
    def sf(x: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return p.betainc(b, a, 1 - _part((x - loc) / scale))


class pareto(WithCdf):
    """The Pareto distribution of index `b`: P(X > x) = x^-b for x >= 1."""

    @of_operands
    def logpdf(x: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        support = ~(z < 1)
        safe = f.where(support, z, 1.0)
        return inside(support, f.log(b) - (b + 1) * f.log(safe) - f.log(scale))

    @of_operands
    def cdf(x: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return -f.expm1(-b * f.log(_from(1.0, x, loc, scale)))

    @of_operands
    def sf(x: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return _from(1.0, x, loc, scale) ** -b

    @of_operands
    def logsf(x: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of 1 - cdf."""
        return -b * f.log(_from(1.0, x, loc, scale))

    @of_operands
    def ppf(q: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return probability(q, f.exp(-f.log1p(-q) / b) * scale + loc)

    @of_operands
    def isf(q: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return probability(q, f.exp(-f.log(q) / b) * scale + loc)


# --- truncated normal -------------------------------------------------------------------------------------------------


def _log_mass(a, b):
    """The logarithm of the standard normal probability of [a, b], minus infinity unless a < b: in the lower half."""
    some = ~(a >= b)
    flip = a > 0
    low, high = f.where(flip, -b, a), f.where(flip, -a, b)
    central = (low <= 0) & (high > 0)
    below, above = f.where(central, -low, 1.0) * _ROOT_HALF, f.where(central, high, 1.0) * _ROOT_HALF
    tail = some & ~central
    top, bottom = p.log_ndtr(f.where(tail, high, 0.0)), p.log_ndtr(f.where(tail, low, -1.0))
    middle = f.log1p(-(p.erfc(below) + p.erfc(above)) / 2)
    return inside(some, f.where(central, middle, top + f.log(-f.expm1(bottom - top))))


def _log_share(part, rest, total):
    """part - total, by the rest where that is nearly 0."""
    share, other = part - total, rest - total
    nearly_all = share > -0.5
    return f.where(nearly_all, f.log1p(-f.exp(f.where(nearly_all, other, -1.0))), share)


def _clipped(x, a, b, loc, scale):
    z = (x - loc) / scale
    return f.where(z < a, a, f.where(z > b, b, z))


def _truncnorm_quantile(q, a, b):
    """From the side where the probabilities are small."""
    right = a > 0
    low, high = [p.erfc(-v * _ROOT_HALF) / 2 for v in (f.where(right, -b, a), f.where(right, -a, b))]
    share = f.where(right, 1 - q, q)
    z = p.ndtri(low * (1 - share) + high * share)
    z = f.where(right, -z, z)
    return probability(q, f.where(q == 0, a, f.where(q == 1, b, f.where(z < a, a, f.where(z > b, b, z)))))


class truncnorm(Continuous):
    """The normal distribution limited to loc + scale [a, b]. Quantiles lose digits for a > 5, are `a` beyond 37."""

    @of_operands
    def logpdf(x: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        support = ~((z < a) | (z > b))
        safe = f.where(support, z, 0.0)
        return inside(support, safe * safe * -0.5 - _HALF_LOG_TWO_PI - f.log(scale) - _log_mass(a, b))

    @of_operands
    def logcdf(x: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the distribution function."""
        z = _clipped(x, a, b, loc, scale)
        return _log_share(_log_mass(a, z), _log_mass(z, b), _log_mass(a, b))

    @of_operands
    def logsf(x: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of 1 - cdf, accurate in the upper tail."""
        z = _clipped(x, a, b, loc, scale)
        return _log_share(_log_mass(z, b), _log_mass(a, z), _log_mass(a, b))

    @of_operands
    def cdf(x: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return f.exp(truncnorm.logcdf(x, a, b, loc, scale))

    @of_operands
    def sf(x: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return f.exp(truncnorm.logsf(x, a, b, loc, scale))

    @of_operands
    def ppf(q: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return _truncnorm_quantile(q, a, b) * scale + loc

    @of_operands
    def isf(q: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return loc - _truncnorm_quantile(q, -b, -a) * scale


# --- on the circle ------------------------------------------------------------------------------------------------


class vonmises(Continuous):
    """The von Mises distribution of concentration `kappa`, periodic in x."""

    @of_operands
    def logpdf(x: Any, kappa: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        half = f.sin((x - loc) / scale / 2)  # cos z - 1 = -2 sin^2(z / 2)
        return -2 * kappa * half * half - f.log(2 * math.pi * p.bessel_ie(0, kappa)) - f.log(scale)


def _wrapped_cdf(z, c):
    """The distribution function on [0, 2 pi]: its tangent is that of z / 2, stretched."""
    low = z < math.pi
    half = f.where(low, z, 2 * math.pi - z) / 2
    share = f.arctan2((1 + c) * f.sin(half), (1 - c) * f.cos(half)) / math.pi
    return f.where(low, share, 1 - share)


def _wrapped_density(z, c):
    sine = f.sin(z / 2)
    return (1 - c * c) / (2 * math.pi * ((1 - c) ** 2 + 4 * c * sine * sine))


_wrapped = with_slopes(
    _wrapped_cdf,
    lambda out, z, c: _wrapped_density(z, c),
    lambda out, z, c: 2 * f.sin(z) / (1 - c * c) * _wrapped_density(z, c),
)


def _wrapped_quantile(q, c):
    low = q < 0.5
    angle = math.pi * f.where(low, q, 1 - q)
    z = 2 * f.arctan2((1 - c) * f.sin(angle), (1 + c) * f.cos(angle))
    return probability(q, f.where(low, z, 2 * math.pi - z))


class wrapcauchy(WithCdf):
    """The wrapped Cauchy distribution of mean resultant length 0 < `c` < 1, on [loc, loc + 2 pi scale]."""

    @of_operands
    def logpdf(x: Any, c: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        support = ~((z < 0) | (z > 2 * math.pi))
        return inside(support, f.log(_wrapped_density(z, c)) - f.log(scale))

    @of_operands
    def cdf(x: Any, c: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return _wrapped(f.clip((x - loc) / scale, 0.0, 2 * math.pi), c)

    @of_operands
    def sf(x: Any, c: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf."""
        return _wrapped(2 * math.pi - f.clip((x - loc) / scale, 0.0, 2 * math.pi), c)

    @of_operands
    def ppf(q: Any, c: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return _wrapped_quantile(q, c) * scale + loc

    @of_operands
    def isf(q: Any, c: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return loc + (2 * math.pi - _wrapped_quantile(q, c)) * scale
