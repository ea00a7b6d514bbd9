# SPDX-License-Identifier: MIT
"""Integers, coins and signs: randint, bernoulli, rademacher, geometric.

Random integers are int32 unless a dtype is given: the width decides which bits are drawn, and this is JAX's default.
"""

from typing import Any

import numpy as np

from functorch_lite.backends.random_floats import mantissa_bits
from functorch_lite.core import dtypes
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentTypeError, DTypeError
from functorch_lite.numpy.promotion import asarray
from functorch_lite.numpy.selection import where
from functorch_lite.numpy.ufuncs import floor, log, log1p
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import bit_and, bit_not, eq, gt, le, lt, select
from functorch_lite.primitives.elementwise import add, clamp, mul, rem, sub
from functorch_lite.primitives.random_bits import split_key
from functorch_lite.random.blocks import random_bits
from functorch_lite.random.common import (
    DEFAULT_INT,
    as_shape,
    compute_dtype,
    one_of,
    own_float,
    rounded,
    sample_shape,
    spread,
    take_key,
)
from functorch_lite.random.uniform import drawn, unit
from functorch_lite.transforms.arguments import on_its_device

_UNSIGNED = {4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}


def int_dtype(name: str, dtype: Any) -> np.dtype:
    """The integer dtype asked for; None means int32."""
    found = DEFAULT_INT if dtype is None else np.dtype(dtype)
    if found.kind not in "iu":
        raise DTypeError(f"{name}: `dtype` must be an integer dtype, got {found}.")
    return found


# --- randint ---------------------------------------------------------------------------------------------------------


@on_its_device
def randint(key: Any, shape: Any, minval: Any, maxval: Any, dtype: Any = None) -> Any:
    """Integers uniform in [minval, maxval); `minval` where that is empty. Bounds broadcast to `shape`.

    Twice as many bits as the dtype has are taken modulo the span, so the bias is below span / 2^64 (2^32 bits: int32).

    >>> from functorch_lite import random
    >>> random.randint(random.key(0), (5,), 0, 10).tolist()
    [9, 0, 2, 3, 1]
    """
    return integers(take_key("randint", key), shape, minval, maxval, dtype)


def integers(key: Any, shape: Any, minval: Any, maxval: Any, dtype: Any = None) -> Any:
    """`randint` of a key that is already taken."""
    dtype = int_dtype("randint", dtype)
    low, high = _bound("minval", minval), _bound("maxval", maxval)
    shape = sample_shape("randint", shape, minval=low, maxval=high)
    if dtype.itemsize >= 4:
        return _random_integers(key, shape, low, high, dtype, np.iinfo(dtype).max)
    # Small dtypes are drawn as int32, where maxval may be one more than they hold.
    info, wide = np.iinfo(dtype), np.dtype(np.int32)
    low, high = _clipped(low, info.min, info.max, wide), _clipped(high, info.min, info.max + 1, wide)
    return convert(_random_integers(key, shape, low, high, wide, np.iinfo(wide).max), dtype)


def _bound(label, value):
    value = np.asarray(value) if type(value) is int else asarray(value)
    if value.dtype.kind not in "iuO" or (value.dtype.kind == "O" and not all(isinstance(v, int) for v in value.flat)):
        raise ArgumentTypeError(f"randint: `{label}` must be an integer or an array of integers, got {value.dtype}.")
    return value


def _clipped(value, low, high, dtype):
    """`value` limited to [low, high], which `dtype` holds, as `dtype`."""
    if value.dtype.kind == "O":
        return np.array([min(max(v, low), high) for v in value.flat], dtype).reshape(value.shape)
    own = np.iinfo(value.dtype)
    low, high = (value.dtype.type(min(max(b, own.min), own.max)) for b in (low, high))
    if isinstance(value, (np.ndarray, np.generic)):
        return np.clip(value, low, high).astype(dtype)
    return convert(clamp(low, value, high), dtype)


def _beyond(value, limit):
    """Whether `value` is above the integer `limit`."""
    if value.dtype.kind == "O":
        return np.array([v > limit for v in value.flat], bool).reshape(value.shape)
    if np.iinfo(value.dtype).max <= limit:
        return np.zeros(value.shape, bool)
    return (np.greater if isinstance(value, (np.ndarray, np.generic)) else gt)(value, value.dtype.type(limit))


def _random_integers(key, shape, low, high, dtype, largest):
    unsigned = _UNSIGNED[dtype.itemsize]
    beyond = _beyond(high, largest)
    info = np.iinfo(dtype)
    low, high = (_clipped(b, info.min, info.max, dtype) for b in (low, high))
    low, high, beyond = _aligned(low, high, beyond)
    span = _span(low, high, beyond, unsigned)
    width = dtype.itemsize * 8
    keys = split_key(key, (2,))
    upper, lower = random_bits(keys[0], shape, width), random_bits(keys[1], shape, width)
    half = _modulo(spread(unsigned.type(2 ** (width // 2)), span.shape), span)
    factor = _modulo(mul(half, half), span)  # 2^width modulo span
    span, factor, low = (spread(v, shape) if v.shape else v for v in (span, factor, low))
    offset = _modulo(add(mul(_modulo(upper, span), factor), _modulo(lower, span)), span)
    return add(convert(offset, dtype), low)


def _aligned(*values):
    shape = np.broadcast_shapes(*(v.shape for v in values))
    return [spread(v, shape) for v in values]


def _span(low, high, beyond, unsigned):
    """maxval - minval; 1 where that is not positive, and 0 for all 2^width integers."""
    empty = le(high, low)
    span = sub(convert(high, unsigned), convert(low, unsigned))
    one, zero = unsigned.type(1), unsigned.type(0)
    span = select(empty, spread(one, span.shape), span)
    return add(span, select(bit_and(beyond, bit_not(empty)), spread(one, span.shape), spread(zero, span.shape)))


def _modulo(x, span):
    """x modulo span; x where span is 0."""
    zero = eq(span, span.dtype.type(0))
    divisor = select(zero, span.dtype.type(1), span)
    if not divisor.shape and not isinstance(divisor, Tracer):
        return x if zero else rem(x, divisor)
    zero, divisor = spread(zero, x.shape), spread(divisor, x.shape)
    return select(zero, x, rem(x, divisor))


# --- coins and signs -------------------------------------------------------------------------------------------------


@on_its_device
def bernoulli(key: Any, p: Any = 0.5, shape: Any = None, mode: str = "low") -> Any:
    """Booleans, true with probability `p`.

    mode: "high" draws twice as many bits, so that probabilities below eps are right too.

    >>> from functorch_lite import random
    >>> random.bernoulli(random.key(0), 0.5, (4,)).tolist()
    [False, False, True, True]
    """
    take_key("bernoulli", key)
    one_of("bernoulli", "mode", mode, ("low", "high"))
    p = own_float(p)
    shape = sample_shape("bernoulli", shape, p=p)
    if mode == "low":
        return lt(unit(key, shape, p.dtype), spread(p, shape))
    pair = unit(key, (2, *shape), p.dtype)
    first, second = pair[0], mul(pair[1], p.dtype.type(2.0 ** -mantissa_bits(p.dtype)))
    return lt(second, sub(spread(p, shape), first))


@on_its_device
def rademacher(key: Any, shape: Any = (), dtype: Any = None) -> Any:
    """-1 or 1, each with probability 1/2; int32 unless a dtype is given."""
    take_key("rademacher", key)
    dtype = DEFAULT_INT if dtype is None else np.dtype(dtype)
    if dtypes.dtype_kind(dtype) not in "ifc":
        raise DTypeError(f"rademacher: `dtype` must hold -1, got {dtype}.")
    shape, default = as_shape("rademacher", shape), dtypes.default_float()
    heads = lt(unit(key, shape, default), default.type(0.5))
    return sub(mul(convert(heads, dtype), dtype.type(2)), dtype.type(1))


@on_its_device
def geometric(key: Any, p: Any, shape: Any = None, dtype: Any = None) -> Any:
    """The number of trials up to the first success of probability `p`: floor(log u / log(1 - p)) + 1, at least 1."""
    take_key("geometric", key)
    dtype = int_dtype("geometric", dtype)
    p = own_float(p)
    shape = sample_shape("geometric", shape, p=p)
    u = drawn(key, shape, p.dtype)
    u = where(u == 0, u.dtype.type(1), u)
    certain = p >= 1  # log(1 - p) is infinite there: the first trial succeeds
    ratio = log(u) / log1p(-rounded(where(certain, p.dtype.type(0.5), p), compute_dtype(p.dtype)))
    trials = where(certain, ratio.dtype.type(0), floor(ratio))
    return convert(spread(trials, shape), dtype) + dtype.type(1)
