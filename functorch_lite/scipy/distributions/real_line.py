# SPDX-License-Identifier: MIT
"""Distributions on the whole real line, of location and scale: normal, Laplace, Cauchy, logistic, t, Gumbel and others.

Source: N. L. Johnson, S. Kotz, N. Balakrishnan, "Continuous univariate distributions", 2nd ed., 1994-95. Student's t by
the symmetric beta distribution: DLMF 8.17.6.
"""

import math
from typing import Any

import functorch_lite.numpy as f
from functorch_lite.primitives import special as p
from functorch_lite.primitives import transcendental as fn
from functorch_lite.scipy.distributions.common import Continuous, WithCdf, log_complement, of_operands, probability
from functorch_lite.scipy.ufuncs import with_slopes

_HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2
_ROOT_HALF = math.sqrt(0.5)


def _log_logistic(x):
    """log of 1 / (1 + exp(-x))."""
    return f.minimum(x, 0.0) - f.log1p(f.exp(-f.absolute(x)))


class norm(WithCdf):
    """The normal distribution of mean `loc` and standard deviation `scale`."""

    @of_operands
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        return z * z * -0.5 - _HALF_LOG_TWO_PI - f.log(scale)

    @of_operands
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return p.erfc((x - loc) / scale * -_ROOT_HALF) * 0.5

    @of_operands
    def sf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return p.erfc((x - loc) / scale * _ROOT_HALF) * 0.5

    @of_operands
    def logcdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the distribution function, accurate in the lower tail."""
        return p.log_ndtr((x - loc) / scale)

    @of_operands
    def logsf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of 1 - cdf, accurate in the upper tail."""
        return p.log_ndtr((loc - x) / scale)

    @of_operands
    def ppf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return p.ndtri(q) * scale + loc

    @of_operands
    def isf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return loc - p.ndtri(q) * scale


def _laplace_below(z):
    """The distribution function at z and its logarithm."""
    low = z < 0
    half = f.exp(-f.absolute(z)) * 0.5
    return f.where(low, half, 1 - half), f.where(low, z - math.log(2), f.log1p(f.where(low, 0.0, -half)))


def _laplace_quantile(q):
    low = q < 0.5
    tail = f.log(2 * f.where(low, q, 1 - q))
    return probability(q, f.where(low, tail, -tail))


class laplace(Continuous):
    """The Laplace distribution."""

    @of_operands
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        return -f.absolute((x - loc) / scale) - f.log(scale * 2)

    @of_operands
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return _laplace_below((x - loc) / scale)[0]

    @of_operands
    def sf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return _laplace_below((loc - x) / scale)[0]

    @of_operands
    def logcdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the distribution function."""
        return _laplace_below((x - loc) / scale)[1]

    @of_operands
    def logsf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of 1 - cdf."""
        return _laplace_below((loc - x) / scale)[1]

    @of_operands
    def ppf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return _laplace_quantile(q) * scale + loc

    @of_operands
    def isf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return loc - _laplace_quantile(q) * scale


def _cauchy_quantile(q):
    low, high = q < 0.25, q > 0.75
    tail = 1 / f.tan(math.pi * f.where(low, q, f.where(high, 1 - q, 0.25)))
    middle = f.tan(math.pi * (f.where(low | high, 0.5, q) - 0.5))
    return probability(q, f.where(low, -tail, f.where(high, tail, middle)))


class cauchy(WithCdf):
    """The Cauchy distribution."""

    @of_operands
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        return -(f.log1p(z * z) + f.log(scale * math.pi))

    @of_operands
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return fn.atan2(f.ones_like(x), (loc - x) / scale) / math.pi

    @of_operands
    def sf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return fn.atan2(f.ones_like(x), (x - loc) / scale) / math.pi

    @of_operands
    def ppf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return _cauchy_quantile(q) * scale + loc

    @of_operands
    def isf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return loc - _cauchy_quantile(q) * scale


class logistic(Continuous):
    """The logistic distribution."""

    @of_operands
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        size = f.absolute((x - loc) / scale)
        return -(size + 2 * f.log1p(f.exp(-size)) + f.log(scale))

    @of_operands
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return fn.logistic((x - loc) / scale)

    @of_operands
    def sf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return fn.logistic((loc - x) / scale)

    @of_operands
    def logcdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the distribution function."""
        return _log_logistic((x - loc) / scale)

    @of_operands
    def logsf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of 1 - cdf."""
        return _log_logistic((loc - x) / scale)

    @of_operands
    def ppf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return (f.log(q) - f.log1p(-q)) * scale + loc

    @of_operands
    def isf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return loc - (f.log(q) - f.log1p(-q)) * scale


def _t_tail(z, df):
    """P(T > |z|), smooth at 0: with s^2 = z^2 + df that of beta(df / 2, df / 2) below df / (2 s (s + |z|))."""
    z = f.where(z < 0, -z, z)
    s = f.sqrt(z * z + df)
    return p.betainc(df / 2, df / 2, df / (2 * s * (s + z)))


class t(WithCdf):
    """Student's t distribution of `df` degrees of freedom. The derivative of cdf and sf in `df` is not known."""

    @of_operands
    def logpdf(x: Any, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        upper = (df + 1) * 0.5
        front = p.lgamma(upper) - p.lgamma(df * 0.5)
        spread = f.log(df * math.pi) * 0.5 + f.log(scale)
        return front - spread - upper * f.log1p(z * z / df)

    @of_operands
    def cdf(x: Any, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        z = (x - loc) / scale
        tail = _t_tail(z, df)
        return f.where(z < 0, tail, 1 - tail)

    @of_operands
    def sf(x: Any, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        z = (x - loc) / scale
        tail = _t_tail(z, df)
        return f.where(z < 0, 1 - tail, tail)


class gumbel_r(Continuous):
    """The Gumbel distribution of maxima (right-skewed)."""

    @of_operands
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        return -z - f.exp(-z) - f.log(scale)

    @of_operands
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return f.exp(-f.exp((loc - x) / scale))

    @of_operands
    def logcdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the distribution function."""
        return -f.exp((loc - x) / scale)

    @of_operands
    def sf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return -f.expm1(-f.exp((loc - x) / scale))

    @of_operands
    def logsf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of 1 - cdf."""
        return log_complement(f.exp((loc - x) / scale))

    @of_operands
    def ppf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return loc - f.log(-f.log(q)) * scale

    @of_operands
    def isf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return loc - f.log(-f.log1p(-q)) * scale


class gumbel_l(Continuous):
    """The Gumbel distribution of minima (left-skewed): that of -X for X of `gumbel_r`."""

    @of_operands
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        return gumbel_r.logpdf(-x, -loc, scale)

    @of_operands
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return gumbel_r.sf(-x, -loc, scale)

    @of_operands
    def logcdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the distribution function."""
        return gumbel_r.logsf(-x, -loc, scale)

    @of_operands
    def sf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return gumbel_r.cdf(-x, -loc, scale)

    @of_operands
    def logsf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of 1 - cdf."""
        return gumbel_r.logcdf(-x, -loc, scale)

    @of_operands
    def ppf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        return -gumbel_r.isf(q, -loc, scale)

    @of_operands
    def isf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile of 1 - q."""
        return -gumbel_r.ppf(q, -loc, scale)


def _gennorm_tail(z, beta):
    """P(|Z| > |z|) / 2."""
    return p.gammaincc(1 / beta, f.absolute(z) ** beta) / 2


def _gennorm_shape_slope(z, beta):
    """In beta, by the shape 1 / beta and the argument |z|^beta of the incomplete gamma function."""
    a, size = 1 / beta, f.absolute(z)
    power = size**beta
    return (p.gammainc_slope(a, power) * a * a - p.xlogy(size, size) * f.exp(-power) / p.gamma(a)) / 2


_gennorm_upper = with_slopes(
    lambda z, beta: f.where(z < 0, 1 - _gennorm_tail(z, beta), _gennorm_tail(z, beta)),
    lambda out, z, beta: -f.exp(gennorm.logpdf(z, beta)),
    lambda out, z, beta: f.where(z < 0, -1.0, 1.0) * _gennorm_shape_slope(z, beta),
)


class gennorm(WithCdf):
    """The generalized normal distribution: density proportional to exp(-|z|^beta)."""

    @of_operands
    def logpdf(x: Any, beta: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z = (x - loc) / scale
        return f.log(beta * 0.5) - p.lgamma(1 / beta) - f.absolute(z) ** beta - f.log(scale)

    @of_operands
    def cdf(x: Any, beta: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return _gennorm_upper((loc - x) / scale, beta)

    @of_operands
    def sf(x: Any, beta: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        return _gennorm_upper((x - loc) / scale, beta)
