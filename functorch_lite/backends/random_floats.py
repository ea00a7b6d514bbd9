# SPDX-License-Identifier: MIT
"""From random bits to random floats, on NumPy or CuPy arrays: [0, 1), the standard normal, and gamma variables.

    unit_floats(bits)       the top bits become the mantissa of a number in [1, 2), less 1
    standard_normal(bits)   sqrt(2) erf_inv(2 unit_floats - 1 + ulp)
    gamma_samples(keys, a)  Marsaglia and Tsang's rejection: every element walks its own chain of keys

Samples are those of jax.random: equal bits for float32 (and 16-bit) uniforms and normals, a few eps for the others.

Source: G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000).
"""

import math
from typing import Any

import ml_dtypes
import numpy as np

from functorch_lite.backends.inverse_erf import erf_inv
from functorch_lite.backends.threefry import random_bits, split_key

CHUNK = 1 << 15  # elements: a chunk of bits, of uniforms and of normals stay in the second-level cache

_UNSIGNED = {2: np.dtype(np.uint16), 4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}


def mantissa_bits(dtype: np.dtype) -> int:
    """The explicit mantissa bits of a float dtype: 23 for float32."""
    return ml_dtypes.finfo(dtype).nmant


def bits_per_float(dtype: np.dtype) -> int:
    """How many random bits a uniform number of this dtype takes: its width, but 8 for bfloat16 (7 mantissa bits)."""
    return dtype.itemsize * 8 if mantissa_bits(dtype) >= 8 else 8


def unit_words(dtype: np.dtype) -> tuple[np.dtype, int, Any]:
    """The unsigned dtype of a float, the shift that leaves its mantissa of `bits_per_float`, and the bits of 1.0."""
    word = _UNSIGNED[dtype.itemsize]
    return word, bits_per_float(dtype) - mantissa_bits(dtype), np.ones((), dtype).view(word)[()]


def unit_floats(xp: Any, bits: Any, dtype: np.dtype) -> Any:
    """Numbers in [0, 1) from `bits`, a fresh array of words of `bits_per_float(dtype)` bits; the spacing is eps.

    The memory of `bits` becomes that of the result where the widths agree.
    """
    word, shift, one = unit_words(dtype)
    words = bits.astype(word, copy=False).reshape(-1)
    floats = words.view(dtype)
    for part in _chunks(xp, words.size):
        piece, number = words[part], floats[part]
        if shift:
            xp.right_shift(piece, word.type(shift), out=piece)
        xp.bitwise_or(piece, one, out=piece)
        xp.subtract(number, dtype.type(1), out=number)
    return floats.reshape(bits.shape)


def _chunks(xp, size):
    """Slices of a flat array: that keep to the cache on a CPU, the whole on a GPU."""
    length = CHUNK if xp is np else max(size, 1)
    return [slice(start, start + length) for start in range(0, size, length)]


def normal_limit(dtype: np.dtype) -> Any:
    """The smallest argument of the inverse error function: the number after -1."""
    return np.nextafter(dtype.type(-1), dtype.type(0), dtype=dtype)


def standard_normal(xp: Any, bits: Any, dtype: np.dtype) -> Any:
    """Standard normal numbers from `bits`, as `unit_floats` takes them."""
    low, out = normal_limit(dtype), unit_floats(xp, bits, dtype)
    flat = out.reshape(-1)
    for part in _chunks(xp, flat.size):
        u = flat[part]
        xp.add(u, u, out=u)  # u (1 - low) + low: 1 - low rounds to 2, so only the sum rounds
        xp.add(u, low, out=u)
        xp.maximum(u, low, out=u)
    erf_inv(xp, flat, out=flat)
    xp.multiply(flat, dtype.type(math.sqrt(2)), out=flat)
    return out


# --- gamma -----------------------------------------------------------------------------------------------------------


def gamma_samples(xp: Any, keys: Any, a: Any, log_space: bool) -> Any:
    """One gamma(a, 1) number for each of `keys` [..., 2] and `a` [...] (float32 or float64), or its logarithm.

    For a < 1 a gamma(a + 1) number is multiplied by U^(1/a). NaN where a is negative or NaN.
    """
    flat = a.reshape(-1)
    with np.errstate(all="ignore"):
        return _gamma_lanes(xp, keys.reshape(-1, 2), flat, log_space).reshape(a.shape)


def _gamma_lanes(xp, keys, a, log_space):
    boosted = a >= 1
    d = xp.where(boosted, a, a + 1) - a.dtype.type(1 / 3)
    pairs = split_key(xp, keys, (2,))
    v = _accepted_cubes(xp, pairs[:, 0], d)
    u = _uniforms(xp, pairs[:, 1], a.dtype)
    if not log_space:
        return d * v * xp.where(boosted, a.dtype.type(1), (1 - u) ** (1 / a))
    log_u = xp.log1p(-u)
    return (xp.log(d) + xp.log(v)) + xp.where(boosted | (log_u == 0), a.dtype.type(0), log_u * (1 / a))


def _accepted_cubes(xp, keys, d):
    """v such that d v is gamma(d + 1/3): only the elements still without one take part in a round."""
    out = xp.ones_like(d)
    live = xp.arange(d.size)
    c = d.dtype.type(1 / 3) / xp.sqrt(d)
    while live.size:
        triples = split_key(xp, keys, (3,))
        x, v = _positive_cubes(xp, triples[:, 1], c[live])
        square, u = x * x, _uniforms(xp, triples[:, 2], d.dtype)
        out[live] = v
        # The square is squared once more here: the reference's quick test, which only saves logarithms.
        again = u >= 1 - d.dtype.type(0.0331) * (square * square)
        again &= xp.log(u) >= square * d.dtype.type(0.5) + d[live] * ((1 - v) + xp.log(v))
        live, keys = live[again], triples[:, 0][again]
    return out


def _positive_cubes(xp, keys, c):
    """A normal x and (1 + c x)^3 for each key, x drawn again while the cube is not positive."""
    x, base = xp.empty_like(c), xp.empty_like(c)
    live = xp.arange(c.size)
    while live.size:
        pairs = split_key(xp, keys, (2,))
        drawn = standard_normal(xp, random_bits(xp, pairs[:, 1], (), c.dtype.itemsize * 8), c.dtype)
        x[live], base[live] = drawn, 1 + drawn * c[live]
        again = base[live] <= 0
        live, keys = live[again], pairs[:, 0][again]
    return x, base * base * base


def _uniforms(xp, keys, dtype):
    return unit_floats(xp, random_bits(xp, keys, (), dtype.itemsize * 8), dtype)
