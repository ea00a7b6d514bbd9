# SPDX-License-Identifier: MIT
"""Bits, and uniform floats made of them.

A float in [1, 2) has the random bits as its mantissa; less 1 it is uniform in [0, 1) with spacing eps.
"""

import math
from typing import Any

import numpy as np

from functorch_lite.backends.random_floats import bits_per_float, unit_floats, unit_words
from functorch_lite.backends.registry import module_of_arrays
from functorch_lite.core.tracer import Tracer, raise_leak
from functorch_lite.errors import DTypeError
from functorch_lite.numpy.dispatch import is_eager_call
from functorch_lite.primitives.casts import bitcast, convert
from functorch_lite.primitives.comparison import bit_or, shift_right
from functorch_lite.primitives.elementwise import add, maximum, mul, sub
from functorch_lite.primitives.random_bits import fused_multiply_add
from functorch_lite.random.blocks import filled, is_large, random_bits
from functorch_lite.random.common import (
    as_shape,
    compute_dtype,
    float_dtype,
    parameter,
    sample_shape,
    spread,
    take_key,
)
from functorch_lite.transforms.arguments import on_its_device


@on_its_device
def bits(key: Any, shape: Any = (), dtype: Any = np.uint32) -> Any:
    """Uniform random unsigned integers over the whole range of `dtype` (uint8, uint16, uint32 or uint64).

    >>> from functorch_lite import random
    >>> random.bits(random.key(0), (2,)).tolist()
    [4070199207, 4202968722]
    """
    take_key("bits", key)
    dtype = np.dtype(np.uint32 if dtype is None else dtype)
    if dtype.kind != "u":
        raise DTypeError(f"bits: `dtype` must be an unsigned integer dtype, got {dtype}.")
    return random_bits(key, as_shape("bits", shape), dtype.itemsize * 8)


@on_its_device
def uniform(key: Any, shape: Any = (), dtype: Any = None, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
    """Uniform floats in [minval, maxval); bounds broadcast to `shape` and are differentiable.

    The result is max(minval, u (maxval - minval) + minval) with one rounding of the product and sum.

    >>> from functorch_lite import random
    >>> random.uniform(random.key(0), (2,))
    array([0.947667 , 0.9785799], dtype=float32)

    Raises: DTypeError for a dtype that is no real float, ShapeError where a bound does not broadcast.
    """
    take_key("uniform", key)
    dtype = float_dtype("uniform", dtype)
    low, high = parameter(minval, dtype), parameter(maxval, dtype)
    shape = sample_shape("uniform", shape, minval=low, maxval=high)
    return between(key, shape, dtype, low, high)


def unit(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Uniform floats in [0, 1): in place on the bits, composed of primitives where it is traced or large."""
    if is_large(key, shape):
        return filled(unit_of, key, shape, bits_per_float(dtype), dtype)
    words = random_bits(key, shape, bits_per_float(dtype))
    if is_eager_call((words,), {}):
        return unit_floats(module_of_arrays((words,), raise_leak), words, dtype)
    return unit_of(words, dtype)


def unit_of(words: Any, dtype: np.dtype) -> Any:
    """Uniform floats in [0, 1) of random words of `bits_per_float(dtype)` bits, composed of primitives."""
    word, shift, one = unit_words(dtype)
    if words.dtype != word:
        words = convert(words, word)
    if shift:
        words = shift_right(words, word.type(shift))
    return sub(bitcast(bit_or(words, one), dtype), dtype.type(1))


def between(key: Any, shape: tuple[int, ...], dtype: np.dtype, low: Any, high: Any) -> Any:
    """Uniform floats in [low, high), bounds of dtype `dtype`."""
    return stretched(unit(key, shape, dtype), low, high)


def stretched(floats: Any, low: Any, high: Any) -> Any:
    """Uniform floats in [low, high) of those in [0, 1)."""
    if _is_number(low) and _is_number(high):
        if low == 0 and high == 1:
            return floats
        span = high - low
        if math.frexp(span)[0] == 0.5:  # the product is exact: the sum alone rounds
            return maximum(add(mul(floats, span), low), low)
    low, span = spread(low, floats.shape), spread(_difference(high, low), floats.shape)
    return maximum(fused_multiply_add(floats, span, low), low)


def drawn(key: Any, shape: tuple[int, ...], dtype: np.dtype, low: float = 0.0, high: float = 1.0) -> Any:
    """`between` with the bits of `dtype`, in the dtype that samples are computed in."""
    u = between(key, shape, dtype, dtype.type(low), dtype.type(high))
    wide = compute_dtype(dtype)
    return u if wide == dtype else convert(u, wide)


def _is_number(value):
    return not isinstance(value, Tracer) and not value.shape


def _difference(high, low):
    shape = np.broadcast_shapes(high.shape, low.shape)
    return sub(spread(high, shape), spread(low, shape))
