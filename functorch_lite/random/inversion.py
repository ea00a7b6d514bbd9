# SPDX-License-Identifier: MIT
"""Distributions sampled by inverting their distribution function at one uniform number.

Source: L. Devroye, "Non-uniform random variate generation", 1986, chapter II.2.
"""

import math
from typing import Any

import ml_dtypes
import numpy as np

from functorch_lite.backends.random_floats import mantissa_bits
from functorch_lite.numpy.selection import where
from functorch_lite.numpy.ufuncs import absolute, exp, log, log1p, power, sign, sqrt, tan
from functorch_lite.primitives.casts import bitcast, convert
from functorch_lite.primitives.comparison import bit_and, bit_not, bit_or, eq, lt, select, shift_left, shift_right
from functorch_lite.primitives.elementwise import add, sub
from functorch_lite.random.blocks import random_bits
from functorch_lite.random.common import (
    as_shape,
    compute_dtype,
    float_dtype,
    one_of,
    parameter,
    rounded,
    sample_shape,
    spread,
    take_key,
)
from functorch_lite.random.uniform import drawn, unit
from functorch_lite.transforms.arguments import on_its_device


def _tiny(dtype: np.dtype) -> float:
    return float(ml_dtypes.finfo(dtype).tiny)


def _prepared(name: str, key: Any, shape: Any, dtype: Any):
    take_key(name, key)
    return as_shape(name, shape), float_dtype(name, dtype)


@on_its_device
def exponential(key: Any, shape: Any = (), dtype: Any = None) -> Any:
    """Exponential numbers of mean 1, -log(1 - u); in [0, inf).

    >>> from functorch_lite import random
    >>> bool((random.exponential(random.key(0), (100,)) >= 0).all())
    True
    """
    shape, dtype = _prepared("exponential", key, shape, dtype)
    return rounded(-log1p(-drawn(key, shape, dtype)), dtype)


@on_its_device
def laplace(key: Any, shape: Any = (), dtype: Any = None) -> Any:
    """Laplace numbers: density exp(-|x|) / 2."""
    shape, dtype = _prepared("laplace", key, shape, dtype)
    u = drawn(key, shape, dtype, -1 + float(ml_dtypes.finfo(dtype).epsneg), 1.0)
    return rounded(sign(u) * log1p(-absolute(u)), dtype)


@on_its_device
def logistic(key: Any, shape: Any = (), dtype: Any = None) -> Any:
    """Logistic numbers, log(u / (1 - u)): density e^x / (1 + e^x)^2."""
    shape, dtype = _prepared("logistic", key, shape, dtype)
    u = drawn(key, shape, dtype, _tiny(dtype), 1.0)
    return rounded(log(u) - log1p(-u), dtype)


@on_its_device
def cauchy(key: Any, shape: Any = (), dtype: Any = None) -> Any:
    """Cauchy numbers, tan(pi (u - 1/2)): density 1 / (pi (1 + x^2))."""
    shape, dtype = _prepared("cauchy", key, shape, dtype)
    u = drawn(key, shape, dtype, float(ml_dtypes.finfo(dtype).eps), 1.0)
    return rounded(tan((u - 0.5) * compute_dtype(dtype).type(math.pi)), dtype)


# --- gumbel ----------------------------------------------------------------------------------------------------------


@on_its_device
def gumbel(key: Any, shape: Any = (), dtype: Any = None, mode: str = "low") -> Any:
    """Gumbel numbers, -log(-log u): distribution function exp(-exp(-x)).

    mode: "low" has a spacing of eps in u; "high" resolves the upper tail with twice the bits; "highest" (float32; the
    same as "high" for others) resolves both tails with 64 bits.
    """
    shape, dtype = _prepared("gumbel", key, shape, dtype)
    return rounded(wide_gumbel(key, shape, dtype, one_of("gumbel", "mode", mode, MODES)), dtype)


MODES = ("low", "high", "highest")


def wide_gumbel(key: Any, shape: tuple[int, ...], dtype: np.dtype, mode: str = "low") -> Any:
    """`gumbel` of checked arguments, in the dtype that samples are computed in."""
    if mode == "highest" and dtype == np.float32:
        return _gumbel_highest(key, shape)
    if mode == "low":
        return -log(-log(drawn(key, shape, dtype, _tiny(dtype), 1.0)))
    wide = compute_dtype(dtype)
    pair = convert(unit(key, (2, *shape), dtype), wide)
    high, low = pair[0], pair[1]
    fine = high + (low * wide.type(2.0 ** -mantissa_bits(dtype)) + wide.type(_tiny(dtype)))
    x = where(high >= 0.5, high, fine)
    return -log(-log1p(-x))


def _gumbel_highest(key, shape):
    words = random_bits(key, (2, *shape), 32)
    high, low = words[0], words[1]
    carry = convert(eq(bit_not(low), np.uint32(0xFFFFFFFF)), np.dtype(np.uint32))
    below = lt(high, np.uint32(0x80000000))
    x = _fraction(select(below, high, add(bit_not(high), carry)), select(below, low, add(bit_not(low), np.uint32(1))))
    return where(below, -log(-log1p(-x)), -log(-log(x)))


def _fraction(high, low):
    """The float32 nearest below (high 2^32 + low) / 2^64, to 24 bits."""
    zeros = _leading_zeros(high)
    empty = eq(zeros, np.uint32(32))
    low_zeros = _leading_zeros(low)
    filled = _shifted(shift_right, low, sub(np.uint32(32), zeros))
    mantissa = bit_or(_shifted(shift_left, high, zeros), select(empty, _shifted(shift_left, low, low_zeros), filled))
    mantissa = bit_and(shift_right(mantissa, np.uint32(8)), np.uint32(0x7FFFFF))
    shift = select(empty, add(low_zeros, np.uint32(32)), zeros)
    exponent = shift_left(sub(np.uint32(126), shift), np.uint32(23))
    exponent = bit_and(exponent, np.uint32((1 << 30) - (1 << 22)))
    return bitcast(bit_or(exponent, mantissa), np.dtype(np.float32))


def _shifted(shift, x, n):
    """A shift of 0 to 32 bits; 32 leave nothing."""
    inside = lt(n, np.uint32(32))
    return select(inside, shift(x, select(inside, n, np.uint32(0))), np.uint32(0))


def _leading_zeros(x):
    """The number of zero bits in front of the first one; 32 for 0."""
    count = select(eq(x, np.uint32(0)), np.uint32(1), np.uint32(0))
    for width in (16, 8, 4, 2, 1):
        empty = lt(x, np.uint32(1 << (32 - width)))
        step = select(empty, np.uint32(width), np.uint32(0))
        count, x = add(count, step), shift_left(x, step)
    return count


# --- with parameters -------------------------------------------------------------------------------------------------


def _with_parameters(name: str, key: Any, shape: Any, dtype: Any, **given: Any):
    """Checked: the shape, the dtype, a uniform sample and the parameters, in the computing dtype."""
    take_key(name, key)
    dtype = float_dtype(name, dtype)
    values = {label: parameter(v, compute_dtype(dtype)) for label, v in given.items()}
    shape = sample_shape(name, shape, **values)
    return shape, dtype, drawn(key, shape, dtype), *values.values()


@on_its_device
def weibull_min(key: Any, scale: Any, concentration: Any, shape: Any = None, dtype: Any = None) -> Any:
    """scale e^(1 / concentration) for exponential e: distribution function 1 - exp(-(x / scale)^concentration)."""
    _, dtype, u, scale, concentration = _with_parameters(
        "weibull_min", key, shape, dtype, scale=scale, concentration=concentration)
    return rounded(power(-log1p(-u), 1 / concentration) * scale, dtype)


@on_its_device
def pareto(key: Any, b: Any, shape: Any = None, dtype: Any = None) -> Any:
    """exp(e / b) for exponential e: density b / x^(b + 1), x >= 1."""
    _, dtype, u, b = _with_parameters("pareto", key, shape, dtype, b=b)
    return rounded(exp(-log1p(-u) / b), dtype)


@on_its_device
def rayleigh(key: Any, scale: Any, shape: Any = None, dtype: Any = None) -> Any:
    """scale sqrt(-2 log u): density x / scale^2 exp(-x^2 / (2 scale^2)); infinite where u is 0."""
    _, dtype, u, scale = _with_parameters("rayleigh", key, shape, dtype, scale=scale)
    positive = u > 0
    size = where(positive, sqrt(log(where(positive, u, u.dtype.type(1))) * -2), u.dtype.type(np.inf))
    return rounded(size * scale, dtype)


@on_its_device
def triangular(key: Any, left: Any, mode: Any, right: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Numbers whose density rises linearly from `left` to `mode` and falls to `right`.

    Source: D. E. Kotz, J. R. van Dorp, "Beyond beta", 2004, chapter 1.
    """
    shape, dtype, u, left, mode, right = _with_parameters(
        "triangular", key, shape, dtype, left=left, mode=mode, right=right)
    width, below, above = right - left, mode - left, right - mode
    rising = u < spread(parameter(below / width, u.dtype), shape)
    # Each square root is taken where its branch applies, so that no derivative is infinite elsewhere.
    up = left + sqrt(where(rising, u, u.dtype.type(0.5)) * width * below)
    down = right - sqrt((1 - where(rising, u.dtype.type(0.5), u)) * width * above)
    return rounded(where(rising, up, down), dtype)
