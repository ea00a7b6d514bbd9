# SPDX-License-Identifier: MIT
"""What distributions share: operands of one dtype and shape, and the functions that follow from others.

A distribution is a namespace of static methods, never an object. Outside the support the logarithm of a density is
minus infinity, and its gradient 0: what is computed there is computed of a point inside.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

import functorch_lite.numpy as f
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.promotion import broadcast_shapes, broadcast_to, promote, to_float
from functorch_lite.primitives import transcendental as fn
from functorch_lite.transforms.arguments import on_its_device, quiet


def of_operands(fun: Callable[..., Any]) -> Any:
    """Decorator of a static method: its arguments come as floating-point arrays of one dtype and one shape."""
    signature = inspect.signature(fun)

    @functools.wraps(fun)
    @on_its_device
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = [to_float(v) for v in promote(*bound.arguments.values())]
        shape = broadcast_shapes(*(v.shape for v in values))
        with quiet():
            out = fun(*[broadcast_to(v, shape) for v in values])
            return out if out.dtype == values[0].dtype else e.convert(out, values[0].dtype)

    return staticmethod(call)


def inside(support: Any, value: Any) -> Any:
    """`value` on the support, minus infinity elsewhere."""
    return e.select(support, value, broadcast_to(value.dtype.type(-np.inf), value.shape))


def is_count(k: Any) -> Any:
    """Whether k is a whole number >= 0, or NaN: what is computed of it is NaN too."""
    return ~((k < 0) | (f.floor(k) < k))


def probability(q: Any, value: Any) -> Any:
    """A quantile of q: NaN unless 0 <= q <= 1."""
    return f.where((q >= 0) & (q <= 1), value, np.nan)


def log_of(x: Any) -> Any:
    """log x of a probability x; minus infinity with gradient 0 where it is 0."""
    none = x == 0
    return inside(~none, f.log(f.where(none, 1.0, x)))


@on_its_device
def log_share(part: Any, rest: Any) -> Any:
    """log of the probability `part`, by that of the `rest` where it is the smaller: then it keeps its digits."""
    with quiet():
        small = part <= 0.5
        return f.where(small, log_of(f.where(small, part, 0.5)), f.log1p(-f.where(small, 0.5, rest)))


def log_complement(x: Any) -> Any:
    """log(1 - exp(-x)) for x >= 0."""
    some = ~(x <= 0)
    small = some & (x < 0.7)
    near = f.log(-f.expm1(-f.where(small, x, 0.5)))
    return inside(some, f.where(small, near, f.log1p(-f.exp(-f.where(small | ~some, 1.0, x)))))


class Continuous:
    """A distribution with a density."""

    logpdf: Callable[..., Any]

    @classmethod
    def pdf(cls, *args: Any, **kwargs: Any) -> Any:
        """The density."""
        return fn.exp(cls.logpdf(*args, **kwargs))


class WithLogs:
    """What follows from a distribution function and its complement."""

    cdf: Callable[..., Any]
    sf: Callable[..., Any]

    @classmethod
    def logcdf(cls, *args: Any, **kwargs: Any) -> Any:
        """The logarithm of the distribution function."""
        return log_share(cls.cdf(*args, **kwargs), cls.sf(*args, **kwargs))

    @classmethod
    def logsf(cls, *args: Any, **kwargs: Any) -> Any:
        """The logarithm of 1 - cdf, accurate in the upper tail."""
        return log_share(cls.sf(*args, **kwargs), cls.cdf(*args, **kwargs))


class WithCdf(WithLogs, Continuous):
    """A distribution with a density and a distribution function."""


class Discrete:
    """A distribution on whole numbers."""

    logpmf: Callable[..., Any]

    @classmethod
    def pmf(cls, *args: Any, **kwargs: Any) -> Any:
        """The probability of k."""
        return fn.exp(cls.logpmf(*args, **kwargs))


class DiscreteWithCdf(WithLogs, Discrete):
    """A distribution on whole numbers with a distribution function."""
