# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.stats`: densities and distribution functions with derivatives.

Each distribution is a namespace with logpdf or logpmf and, where there is one, cdf, sf, logcdf, ppf; arguments
broadcast. Outside the support the logarithm of the density is minus infinity, and its gradient 0.
"""

import math
from typing import Any

import numpy as np

from functorch_lite.numpy import ops as e
from functorch_lite.numpy.promotion import broadcast_shapes, broadcast_to, promote, to_float
from functorch_lite.primitives import special as p
from functorch_lite.primitives import transcendental as fn
from functorch_lite.transforms.arguments import on_its_device

_HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2


@on_its_device
def _operands(*values):
    """Floating-point operands of one dtype and one shape."""
    values = [to_float(v) for v in promote(*values)]
    shape = broadcast_shapes(*(v.shape for v in values))
    return [broadcast_to(v, shape) for v in values]


def _c(x, value):
    return x.dtype.type(value)


def _standard(x, loc, scale):
    """((x - loc) / scale, scale)."""
    x, loc, scale = _operands(x, loc, scale)
    return e.div(e.sub(x, loc), scale), scale


def _inside(support, value):
    return e.select(support, value, _c(value, -np.inf))


class _Namespace:
    """A distribution: its functions as static methods."""

    @classmethod
    def pdf(cls, *args: Any, **kwargs: Any) -> Any:
        """The density."""
        return fn.exp(cls.logpdf(*args, **kwargs))  # type: ignore[attr-defined]


class norm(_Namespace):
    """The normal distribution of mean `loc` and standard deviation `scale`."""

    @staticmethod
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z, scale = _standard(x, loc, scale)
        return e.sub(e.sub(e.mul(fn.square(z), _c(z, -0.5)), _c(z, _HALF_LOG_TWO_PI)), fn.log(scale))

    @staticmethod
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        z, _ = _standard(x, loc, scale)
        return e.mul(p.erfc(e.mul(z, _c(z, -math.sqrt(0.5)))), _c(z, 0.5))

    @staticmethod
    def sf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """1 - cdf, accurate in the upper tail."""
        z, _ = _standard(x, loc, scale)
        return e.mul(p.erfc(e.mul(z, _c(z, math.sqrt(0.5)))), _c(z, 0.5))

    @staticmethod
    def logcdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the distribution function, accurate in the lower tail."""
        return p.log_ndtr(_standard(x, loc, scale)[0])

    @staticmethod
    def ppf(q: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The quantile function."""
        q, loc, scale = _operands(q, loc, scale)
        return e.add(e.mul(p.ndtri(q), scale), loc)


class laplace(_Namespace):
    """The Laplace distribution."""

    @staticmethod
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z, scale = _standard(x, loc, scale)
        return e.sub(e.neg(e.absolute(z)), fn.log(e.mul(scale, _c(scale, 2))))


class cauchy(_Namespace):
    """The Cauchy distribution."""

    @staticmethod
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z, scale = _standard(x, loc, scale)
        return e.neg(e.add(fn.log1p(fn.square(z)), fn.log(e.mul(scale, _c(scale, math.pi)))))


class logistic(_Namespace):
    """The logistic distribution."""

    @staticmethod
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z, scale = _standard(x, loc, scale)
        size = e.absolute(z)
        tail = fn.log1p(fn.exp(e.neg(size)))
        return e.neg(e.add(e.add(size, e.mul(tail, _c(z, 2))), fn.log(scale)))

    @staticmethod
    def cdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        return fn.logistic(_standard(x, loc, scale)[0])


class expon(_Namespace):
    """The exponential distribution."""

    @staticmethod
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z, scale = _standard(x, loc, scale)
        return _inside(e.ge(z, _c(z, 0)), e.neg(e.add(z, fn.log(scale))))


class uniform(_Namespace):
    """The uniform distribution on [loc, loc + scale]."""

    @staticmethod
    def logpdf(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        z, scale = _standard(x, loc, scale)
        support = e.bit_and(e.ge(z, _c(z, 0)), e.le(z, _c(z, 1)))
        return _inside(support, e.neg(fn.log(scale)))


class gamma(_Namespace):
    """The gamma distribution of shape `a`."""

    @staticmethod
    def logpdf(x: Any, a: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        x, a, loc, scale = _operands(x, a, loc, scale)
        z = e.div(e.sub(x, loc), scale)
        support = e.ge(z, _c(z, 0))
        safe = e.select(support, z, _c(z, 1))
        value = e.sub(e.sub(p.xlogy(e.sub(a, _c(a, 1)), safe), safe), e.add(p.lgamma(a), fn.log(scale)))
        return _inside(support, value)

    @staticmethod
    def cdf(x: Any, a: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The distribution function."""
        x, a, loc, scale = _operands(x, a, loc, scale)
        z = e.div(e.sub(x, loc), scale)
        return p.gammainc(a, e.maximum(z, _c(z, 0)))


class beta(_Namespace):
    """The beta distribution of shapes `a` and `b`."""

    @staticmethod
    def logpdf(x: Any, a: Any, b: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        x, a, b, loc, scale = _operands(x, a, b, loc, scale)
        z = e.div(e.sub(x, loc), scale)
        support = e.bit_and(e.ge(z, _c(z, 0)), e.le(z, _c(z, 1)))
        safe = e.select(support, z, _c(z, 0.5))
        one = _c(a, 1)
        powers = e.add(p.xlogy(e.sub(a, one), safe), p.xlog1py(e.sub(b, one), e.neg(safe)))
        constant = e.sub(e.add(p.lgamma(a), p.lgamma(b)), p.lgamma(e.add(a, b)))
        return _inside(support, e.sub(e.sub(powers, constant), fn.log(scale)))


class t(_Namespace):
    """Student's t distribution of `df` degrees of freedom."""

    @staticmethod
    def logpdf(x: Any, df: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
        """The logarithm of the density."""
        x, df, loc, scale = _operands(x, df, loc, scale)
        z = e.div(e.sub(x, loc), scale)
        half = _c(df, 0.5)
        upper = e.mul(e.add(df, _c(df, 1)), half)
        front = e.sub(p.lgamma(upper), p.lgamma(e.mul(df, half)))
        spread = e.add(e.mul(fn.log(e.mul(df, _c(df, math.pi))), half), fn.log(scale))
        return e.sub(e.sub(front, spread), e.mul(upper, fn.log1p(e.div(fn.square(z), df))))


class poisson:
    """The Poisson distribution of mean `mu`."""

    @staticmethod
    def logpmf(k: Any, mu: Any, loc: Any = 0.0) -> Any:
        """The logarithm of the probability of the count k."""
        k, mu, loc = _operands(k, mu, loc)
        k = e.sub(k, loc)
        support = e.bit_and(e.ge(k, _c(k, 0)), e.eq(e.floor(k), k))
        safe = e.select(support, k, _c(k, 0))
        value = e.sub(e.sub(p.xlogy(safe, mu), mu), p.lgamma(e.add(safe, _c(k, 1))))
        return _inside(support, value)


class bernoulli:
    """The Bernoulli distribution: 1 with probability `probability`."""

    @staticmethod
    def logpmf(k: Any, probability: Any, loc: Any = 0.0) -> Any:
        """The logarithm of the probability of k."""
        k, q, loc = _operands(k, probability, loc)
        k = e.sub(k, loc)
        support = e.bit_or(e.eq(k, _c(k, 0)), e.eq(k, _c(k, 1)))
        safe = e.select(support, k, _c(k, 0))
        value = e.add(p.xlogy(safe, q), p.xlog1py(e.sub(_c(k, 1), safe), e.neg(q)))
        return _inside(support, value)


