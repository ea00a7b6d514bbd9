# SPDX-License-Identifier: MIT
"""Counts: poisson, binomial, multinomial. Each joins an algorithm for small means and a rejection for large ones.

All elements of an array go through the loop together, with one key a round, and a later acceptance overwrites an
earlier one: so the samples are those of jax.random. No derivatives: a count does not move with its mean.

Source: D. E. Knuth, "The art of computer programming", volume 2, 3.4.1; W. Hormann, "The transformed rejection method
for generating Poisson random variables", 1993, and "The generation of binomial random variates", 1993.
"""

from typing import Any

import numpy as np

from functorch_lite.control_flow import scan, while_loop
from functorch_lite.core import dtypes
from functorch_lite.errors import DTypeError, ShapeError
from functorch_lite.numpy.selection import where
from functorch_lite.numpy.ufuncs import absolute, ceil, floor, isinf, isnan, log, log1p, maximum, sqrt
from functorch_lite.primitives.broadcast import full
from functorch_lite.primitives.casts import convert, stop_gradient_of
from functorch_lite.primitives.comparison import bit_not, select
from functorch_lite.primitives.cumulative import cumsum
from functorch_lite.primitives.elementwise import clamp
from functorch_lite.primitives.movement import moveaxis, rev
from functorch_lite.primitives.random_bits import split_key
from functorch_lite.primitives.reduction import reduce_and, reduce_or
from functorch_lite.primitives.special import lgamma
from functorch_lite.random.common import (
    compute_dtype,
    float_dtype,
    own_float,
    parameter,
    sample_shape,
    spread,
    take_key,
)
from functorch_lite.random.discrete import int_dtype
from functorch_lite.random.uniform import unit
from functorch_lite.transforms.arguments import on_its_device

_FLOAT32 = np.dtype(np.float32)
# Where a uniform number is 0 the formulas divide by zero or take its logarithm. These bounds decide the same there.
_NEAR_ZERO = 1e-10
_STIRLING = (0.0810614667953272, 0.0413406959554092, 0.0276779256849983, 0.02079067210376509, 0.0166446911898211,
             0.0138761288230707, 0.0118967099458917, 0.0104112652619720, 0.00925546218271273, 0.00833056343336287)


def _axes(x):
    return tuple(range(len(x.shape)))


def _any(x):
    return reduce_or(x, _axes(x))


def _log(x):
    """log x, that of the smallest number where x is 0."""
    return log(maximum(x, x.dtype.type(np.finfo(x.dtype).tiny)))


def _next(key, n):
    keys = split_key(key, (n,))
    return [keys[i] for i in range(n)]


# --- poisson ---------------------------------------------------------------------------------------------------------


@on_its_device
def poisson(key: Any, lam: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Poisson counts of mean `lam` >= 0; int32 unless a dtype is given. `lam` is taken as float32.

    >>> from functorch_lite import random
    >>> bool((random.poisson(random.key(0), 4.0, (100,)) >= 0).all())
    True
    """
    take_key("poisson", key)
    dtype = int_dtype("poisson", dtype)
    lam = stop_gradient_of(parameter(lam, _FLOAT32))
    shape = sample_shape("poisson", shape, lam=lam)
    lam = spread(lam, shape)
    if 0 in shape:
        return full(shape, 0, dtype)
    small = isnan(lam) | (lam < 10)
    count = _poisson_product(key, where(small, lam, lam.dtype.type(0)), dtype)
    large = _poisson_rejection(key, where(small, lam.dtype.type(1e5), lam), _any(bit_not(small)), dtype)
    return where(lam == 0, dtype.type(0), where(small, count, large))


def _poisson_product(key, lam, dtype):
    """Knuth: the number of uniforms whose product stays above exp(-lam)."""
    zeros = full(lam.shape, 0, dtype)

    def body(state):
        key, count, log_product = state
        key, sub = _next(key, 2)
        count = where(log_product > -lam, count + dtype.type(1), count)
        return key, count, log_product + _log(unit(sub, lam.shape, _FLOAT32))

    state = (key, zeros, full(lam.shape, 0, _FLOAT32))
    return while_loop(lambda state: _any(state[2] > -lam), body, state)[1] - dtype.type(1)


def _poisson_rejection(key, lam, needed, dtype):
    """Hormann's transformed rejection, in no round at all where it is not `needed`."""
    log_lam = log(lam)
    b = 0.931 + 2.53 * sqrt(lam)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    v_r = 0.9277 - 3.6224 / (b - 2)

    def body(state):
        key, out, accepted = state
        key, sub_u, sub_v = _next(key, 3)
        u, v = unit(sub_u, lam.shape, _FLOAT32) - 0.5, unit(sub_v, lam.shape, _FLOAT32)
        us = 0.5 - absolute(u)
        away = maximum(us, _NEAR_ZERO)
        k = floor((2 * a / away + b) * u + lam + 0.43)
        s = _log(v * inverse_alpha / (a / (away * away) + b))
        t = -lam + k * log_lam - lgamma(k + 1)
        quick = (us >= 0.07) & (v <= v_r)
        refused = (k < 0) | ((us < 0.013) & (v > us))
        accept = quick | (bit_not(refused) & (s <= t))
        return key, where(accept, k, out), accepted | accept

    done = spread(bit_not(needed), lam.shape)
    state = (key, full(lam.shape, -1, _FLOAT32), done)
    out = while_loop(lambda state: bit_not(reduce_and(state[2], _axes(lam))), body, state)[1]
    return convert(out, dtype)


# --- binomial --------------------------------------------------------------------------------------------------------


@on_its_device
def binomial(key: Any, n: Any, p: Any, shape: Any = None, dtype: Any = None) -> Any:
    """The number of successes among `n` trials of probability `p`, as floats (`dtype`).

    NaN where n is negative or NaN or p is not in [0, 1]; infinite where n is.
    """
    take_key("binomial", key)
    dtype = float_dtype("binomial", dtype)
    wide = compute_dtype(dtype)
    p = stop_gradient_of(own_float(p, wide))
    wide = np.promote_types(wide, compute_dtype(p.dtype))
    n, p = stop_gradient_of(parameter(n, wide)), parameter(p, wide)
    shape = sample_shape("binomial", shape, n=n, p=p)
    n, p = spread(n, shape), spread(p, shape)
    return convert(_binomial(key, n, p, shape), dtype)


def _binomial(key, n, p, shape):
    dtype = p.dtype
    if 0 in shape:
        return full(shape, 0, dtype)
    invalid = isnan(n) | (n < 0) | isnan(p) | (p < 0) | (p > 1)
    flipped = p >= 0.5
    q = where(flipped, 1 - p, p)
    q = where(isnan(q) | (q < 0), dtype.type(0.01), q)
    bad = isnan(n) | (n < 0)
    infinite = isinf(n)
    count = floor(where(bad | infinite, dtype.type(0), n))
    few = bad | (n * q <= 10) | (infinite & (q == 0))
    small = _binomial_inversion(key, where(few, count, dtype.type(0)), where(few, q, dtype.type(0.5)))
    plain = few | infinite
    large = _binomial_rejection(
        key, where(plain, dtype.type(10000), count), where(plain, dtype.type(0.5), q), _any(bit_not(few)))
    samples = where(few, small, large)
    samples = where(flipped, count - samples, samples)
    samples = where(infinite & bit_not(invalid), dtype.type(np.inf), samples)
    return where(invalid, dtype.type(np.nan), samples)


def _binomial_inversion(key, count, q):
    """The number of geometric waiting times that fit in `count` trials."""
    scale = log1p(-q)
    scale = where(scale == 0, scale.dtype.type(-np.finfo(q.dtype).tiny), scale)
    zeros = full(count.shape, 0, count.dtype)

    def body(state):
        key, number, total = state
        sub, key = _next(key, 2)
        waiting = ceil(maximum(_log(unit(sub, count.shape, count.dtype)), -80.0) / scale)
        return key, where(total <= count, number + 1, number), total + waiting

    return while_loop(lambda state: _any(state[2] <= count), body, (key, zeros, zeros))[1] - 1


def _stirling_tail(k):
    """log k! less Stirling's approximation of it: tabulated to 9, then three terms of the series."""
    table = full(k.shape, 0, k.dtype)
    for i, value in enumerate(_STIRLING):
        table = where(k == i, k.dtype.type(value), table)
    one = maximum(k, 0.0) + 1
    square = one * one
    return where(k <= 9, table, (1 / 12 - (1 / 360 - 1 / 1260 / square) / square) / one)


def _binomial_rejection(key, n, q, needed):
    """Hormann's BTRS, for n q >= 10, in no round at all where it is not `needed`."""
    deviation = sqrt(n * q * (1 - q))
    b = 1.15 + 2.53 * deviation
    a = -0.0873 + 0.0248 * b + 0.01 * q
    centre, v_r, r = n * q + 0.5, 0.92 - 4.2 / b, q / (1 - q)
    alpha = (2.83 + 5.1 / b) * deviation
    mode = floor((n + 1) * q)
    dtype = n.dtype

    def bound(k):
        return (
            (mode + 0.5) * log((mode + 1) / (r * (n - mode + 1)))
            + (n + 1) * log((n - mode + 1) / (n - k + 1))
            + (k + 0.5) * log(r * (n - k + 1) / (k + 1))
            + _stirling_tail(mode) + _stirling_tail(n - mode) - _stirling_tail(k) - _stirling_tail(n - k)
        )

    def body(state):
        key, out, accepted = state
        key, sub_u, sub_v = _next(key, 3)
        u, v = unit(sub_u, n.shape, dtype) - 0.5, unit(sub_v, n.shape, dtype)
        us = 0.5 - absolute(u)
        away = maximum(us, _NEAR_ZERO)
        k = floor((2 * a / away + b) * u + centre)
        refused = (k < 0) | (k > n)
        log_v = _log(v * alpha / (a / (away * away) + b))
        accept = log_v <= bound(clamp(full(n.shape, 0, dtype), k, n))
        accept = ((us >= 0.07) & (v <= v_r)) | (bit_not(refused) & accept)
        return key, where(accept, k, out), accepted | accept

    state = (key, full(n.shape, -1, dtype), spread(bit_not(needed), n.shape))
    return while_loop(lambda state: bit_not(reduce_and(state[2], _axes(n))), body, state)[1]


# --- multinomial -----------------------------------------------------------------------------------------------------


@on_its_device
def multinomial(key: Any, n: Any, p: Any, *, shape: Any = None, dtype: Any = None, unroll: int = 1) -> Any:
    """How often each of k outcomes comes among `n` [...] trials with probabilities `p` [..., k]: floats [..., k].

    Outcome after outcome, each count is binomial among the trials that remain. `shape` includes the outcomes.
    """
    take_key("multinomial", key)
    dtype = float_dtype("multinomial", dtype)
    p = stop_gradient_of(own_float(p, compute_dtype(dtype)))
    if not p.shape:
        raise ShapeError("multinomial: `p` must have at least one axis, the outcomes, got a scalar.")
    if dtypes.dtype_kind(p.dtype) == "c":
        raise DTypeError(f"multinomial: `p` must be real, got {p.dtype}.")
    shape = sample_shape("multinomial", p.shape if shape is None else shape, p=p)
    n = spread(stop_gradient_of(parameter(n, dtype)), shape[:-1])
    ratios = _conditional(spread(p, shape))
    keys = split_key(key, (shape[-1],))

    def step(remaining, row):
        sub, ratio = row
        ratio = maximum(ratio, 0.0)
        count = binomial(sub, remaining, where(ratio > 1, ratio.dtype.type(1), ratio), shape[:-1], dtype)
        return remaining - count, count

    counts = scan(step, n, (keys, moveaxis(ratios, len(shape) - 1, 0)), unroll=unroll)[1]
    return moveaxis(counts, 0, len(shape) - 1)


def _conditional(p):
    """Each probability over the sum of itself and the later ones; over 1 where that is 0."""
    last = len(p.shape) - 1
    remaining = rev(cumsum(rev(p, (last,)), last), (last,))
    zero = remaining == 0
    return p / select(zero, remaining.dtype.type(1), remaining)
