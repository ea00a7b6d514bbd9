# SPDX-License-Identifier: MIT
"""The normal distribution and its relatives: truncated, log-normal, Maxwell.

    normal = sqrt(2) erf_inv(u),  u uniform in (-1, 1)

Source: M. Giles, "Approximating the erfinv function", GPU Computing Gems, volume 2, 2012.
"""

import math
from typing import Any

import numpy as np

from functorch_lite.backends import random_floats
from functorch_lite.backends.registry import module_of_arrays
from functorch_lite.core import dtypes
from functorch_lite.core.tracer import raise_leak
from functorch_lite.numpy.dispatch import is_eager_call
from functorch_lite.primitives.broadcast import reduce_sum
from functorch_lite.primitives.complex_parts import make_complex
from functorch_lite.primitives.elementwise import clamp, div, mul
from functorch_lite.primitives.random_bits import erf_inv, split_key
from functorch_lite.primitives.rounding import nextafter
from functorch_lite.primitives.special import erf
from functorch_lite.primitives.transcendental import exp, sqrt
from functorch_lite.random.blocks import filled, is_large, random_bits
from functorch_lite.random.common import (
    as_shape,
    compute_dtype,
    float_dtype,
    parameter,
    rounded,
    sample_shape,
    spread,
    take_key,
)
from functorch_lite.random.discrete import rademacher
from functorch_lite.random.uniform import between, stretched, unit_of
from functorch_lite.transforms.arguments import on_its_device

_SQRT_TWO = math.sqrt(2)


@on_its_device
def normal(key: Any, shape: Any = (), dtype: Any = None) -> Any:
    """Standard normal numbers. Complex ones have independent parts of variance 1/2.

    Scale and shift them yourself: `loc + scale * random.normal(key, shape)` is differentiable in both.

    >>> from functorch_lite import random
    >>> random.normal(random.key(0), (2,))
    array([1.6226422, 2.0252647], dtype=float32)
    """
    take_key("normal", key)
    dtype = float_dtype("normal", dtype, complex_too=True)
    shape = as_shape("normal", shape)
    return _complex_normal(key, shape, dtype) if dtypes.is_complex(dtype) else standard_normal(key, shape, dtype)


def standard_normal(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """`normal` of checked arguments: in one pass over arrays, composed of primitives where it is traced or large."""
    width = random_floats.bits_per_float(dtype)
    # Compiled code has a logarithm of its own, which in float64 shows.
    if dtype.char == "f" and is_large(key, shape):
        return filled(_normal_of, key, shape, width, dtype)
    bits = random_bits(key, shape, width)
    if is_eager_call((key,), {}):
        return random_floats.standard_normal(module_of_arrays((bits,), raise_leak), bits, dtype)
    return _normal_of(bits, dtype)


def _normal_of(bits, dtype):
    u = stretched(unit_of(bits, dtype), random_floats.normal_limit(dtype), dtype.type(1))
    return mul(erf_inv(u), dtype.type(_SQRT_TWO))


def _complex_normal(key, shape, dtype):
    part = dtypes.real_dtype(dtype)
    keys = split_key(key, (2,))
    pair = make_complex(standard_normal(keys[0], shape, part), standard_normal(keys[1], shape, part))
    return div(pair, dtype.type(_SQRT_TWO))


def wide_normal(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Standard normal numbers with the bits of `dtype`, in the dtype that samples are computed in."""
    return rounded(standard_normal(key, shape, dtype), compute_dtype(dtype))


@on_its_device
def truncated_normal(key: Any, lower: Any, upper: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Standard normal numbers conditioned to lie in (lower, upper): sqrt(2) erf_inv of a uniform number between erfs.

    >>> from functorch_lite import random
    >>> bool((abs(random.truncated_normal(random.key(0), -1, 1, (100,))) < 1).all())
    True
    """
    take_key("truncated_normal", key)
    dtype = float_dtype("truncated_normal", dtype)
    wide = compute_dtype(dtype)
    lower, upper = parameter(lower, wide), parameter(upper, wide)
    shape = sample_shape("truncated_normal", shape, lower=lower, upper=upper)
    lower, upper = spread(lower, shape), spread(upper, shape)
    root = wide.type(_SQRT_TWO)
    u = between(key, shape, wide, erf(div(lower, root)), erf(div(upper, root)))
    infinite = wide.type(np.inf)
    inside = clamp(nextafter(lower, spread(infinite, shape)), mul(erf_inv(u), root),
                   nextafter(upper, spread(-infinite, shape)))
    return rounded(inside, dtype)


@on_its_device
def lognormal(key: Any, sigma: Any = 1.0, shape: Any = None, dtype: Any = None) -> Any:
    """exp(sigma n) for standard normal n; positive. Differentiable in `sigma`."""
    take_key("lognormal", key)
    dtype = float_dtype("lognormal", dtype)
    sigma = parameter(sigma, compute_dtype(dtype))
    shape = sample_shape("lognormal", shape, sigma=sigma)
    return rounded(exp(mul(wide_normal(key, shape, dtype), spread(sigma, shape))), dtype)


@on_its_device
def maxwell(key: Any, shape: Any = (), dtype: Any = None) -> Any:
    """The length of a vector of three standard normal numbers: density sqrt(2/pi) x^2 exp(-x^2 / 2), x >= 0."""
    take_key("maxwell", key)
    dtype = float_dtype("maxwell", dtype)
    shape = as_shape("maxwell", shape)
    parts = wide_normal(key, (*shape, 3), dtype)
    return rounded(sqrt(reduce_sum(mul(parts, parts), (len(shape),))), dtype)


@on_its_device
def double_sided_maxwell(key: Any, loc: Any, scale: Any, shape: Any = (), dtype: Any = None) -> Any:
    """loc + scale s m for a random sign s and a Maxwell number m.

    The result has the shape `shape` + that of the parameters. Differentiable in both.
    """
    take_key("double_sided_maxwell", key)
    dtype = float_dtype("double_sided_maxwell", dtype)
    wide = compute_dtype(dtype)
    loc, scale = parameter(loc, wide), parameter(scale, wide)
    inner = sample_shape("double_sided_maxwell", None, loc=loc, scale=scale)
    shape = (*as_shape("double_sided_maxwell", shape), *inner)
    keys = split_key(key, (2,))
    sizes = rounded(maxwell(keys[0], shape, dtype), wide)
    return rounded(rademacher(keys[1], shape, wide) * sizes * scale + loc, dtype)
