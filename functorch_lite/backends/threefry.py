# SPDX-License-Identifier: MIT
"""Threefry-2x32 with 20 rounds: the counter-based hash behind every random number, on NumPy or CuPy.

A key is a uint32 array `[..., 2]`; the number at flat position i of a random array is a function of (key, i) alone:

    (y0, y1) = threefry(key, (i >> 32, i & 0xffffffff))        bits = y0 ^ y1    (one word of 32 bits)

so results do not depend on the order or on the chunks they are computed in, and a shorter array is a prefix of a longer
one. The layout is JAX's partitionable scheme, and the bits are JAX's. Relies on NumPy alone; a CuPy array goes to the
kernels in `kernels/cuda/threefry.cu`.

A round is `x0 += x1; x1 = rotl(x1, r) ^ x0`. NumPy has no rotate and fuses nothing, so a hash is about 110 passes over
the data; what makes it fast is that each pass is SIMD code over a chunk that stays in the second-level cache.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11, section 4.2.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.backends.cuda_kernels import threefry_bits_cupy, threefry_words_cupy
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError

# Skein's key-schedule parity constant, cut to 32 bits (SC'11, section 4.2).
_PARITY = 0x1BD11BDA
_MASK = 0xFFFFFFFF
# Rotation distances of four rounds; even and odd groups alternate.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
# Elements a chunk: three work arrays of 64 KiB stay in L2. A power of two, so no chunk straddles a change of the high
# counter word.
_CHUNK = 1 << 14
# Up to this many hashes with one key, Python integers beat the ~110 ufunc calls of a chunk.
_FEW = 12

_UINT = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


class Injection(NamedTuple):
    """What is added to the two state words between groups of rounds: 0-d or chunk-shaped uint32."""

    to_x0: Any
    to_x1: Any


def threefry2x32(xp: Any, k0: Any, k1: Any, x0: Any, x1: Any) -> tuple[Any, Any]:
    """The two output words of Threefry-2x32-20 for key words `k0, k1` and counter words `x0, x1`.

    All are uint32 arrays or scalars that broadcast together; the results have the broadcast shape.

    >>> y0, y1 = threefry2x32(np, np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(0))
    >>> hex(y0), hex(y1)
    ('0x6b200159', '0x99ba4efe')

    Source: SC'11; known answers from the Random123 distribution, `kat_vectors`.
    """
    words = [xp.asarray(w) for w in (k0, k1, x0, x1)]
    for name, word in zip(("k0", "k1", "x0", "x1"), words, strict=True):
        if word.dtype != np.uint32:
            raise DTypeError(f"threefry2x32: expected uint32 for `{name}`, got {word.dtype}. Use .astype('uint32').")
    shape = np.broadcast_shapes(*(w.shape for w in words))
    if xp is not np:
        return _hash_whole(xp, words, shape)
    y0, y1 = np.empty(shape, np.uint32), np.empty(shape, np.uint32)
    # A word with one element stays 0-d; any other is walked flat beside the outputs.
    k0, k1, x0, x1 = (w.reshape(()) if w.size == 1 else np.broadcast_to(w, shape).reshape(-1) for w in words)
    out0, out1, scratch = y0.reshape(-1), y1.reshape(-1), np.empty(min(y0.size, _CHUNK), np.uint32)
    for start in range(0, y0.size, _CHUNK):
        part = slice(start, min(start + _CHUNK, y0.size))
        first, *rest = _injections(np, _part(k0, part), _part(k1, part))
        np.add(_part(x0, part), first.to_x0, out=out0[part])
        np.add(_part(x1, part), first.to_x1, out=out1[part])
        np.add(out0[part], out1[part], out=out0[part])
        _mix(np, out0[part], out1[part], scratch[: part.stop - start], rest)
    return (y0, y1) if shape else (y0[()], y1[()])


def random_bits(xp: Any, key: Any, shape: Sequence[int], bit_width: int) -> Any:
    """Uniform random unsigned integers of 8, 16, 32 or 64 bits, `key [..., 2]` to `[..., *shape]`.

    Each key of a batch fills its own `shape`, as `jax.vmap(jax.random.bits)` does. 64 bits join both words of a hash,
    `y0 << 32 | y1`; 32 bits are `y0 ^ y1`, and 8 and 16 bits are the low ones of that.

    >>> random_bits(np, np.array([0, 0], np.uint32), (2,), 32)
    array([4070199207, 4202968722], dtype=uint32)

    *Raises* ArgumentError when `bit_width` is none of the four, ShapeError or DTypeError when `key` is no key.
    """
    shape = _checked_shape("random_bits", shape)
    key = _checked_key(xp, "random_bits", key)
    if bit_width not in _UINT:
        raise ArgumentError(f"random_bits: expected bit_width 8, 16, 32 or 64, got {bit_width}.")
    if xp.__name__ == "cupy":
        return threefry_bits_cupy(key, shape, bit_width)
    if xp is not np:
        y0, y1 = _hash_counters(xp, key, shape)
        return _combined(xp, y0, y1, bit_width)
    size, out = math.prod(shape), np.empty(key.shape[:-1] + shape, _UINT[bit_width])
    flat = out.reshape(-1)
    for part, y0, y1 in _hashed_counters(key.reshape(-1, 2), size):
        _combine(y0, y1, flat[part], bit_width)
    return out


def split_key(xp: Any, key: Any, shape: Sequence[int]) -> Any:
    """New keys `[..., *shape, 2]` from `key [..., 2]`: key i of a split is both words of the hash of counter i.

    >>> split_key(np, np.array([0, 0], np.uint32), (2,)).tolist()
    [[1797259609, 2579123966], [928981903, 3453687069]]
    """
    shape = _checked_shape("split", shape)
    key = _checked_key(xp, "split", key)
    if xp.__name__ == "cupy":
        return threefry_words_cupy(key, shape)
    if xp is not np:
        return xp.stack(_hash_counters(xp, key, shape), axis=-1)
    out = np.empty(key.shape[:-1] + shape + (2,), np.uint32)
    flat = out.reshape(-1, 2)
    for part, y0, y1 in _hashed_counters(key.reshape(-1, 2), math.prod(shape)):
        flat[part, 0], flat[part, 1] = y0, y1
    return out


def fold_in_key(xp: Any, key: Any, data: Any) -> Any:
    """A new key `[..., 2]` from `key [..., 2]` and the integers `data [...]`: the hash of (0, data modulo 2**32)."""
    key = _checked_key(xp, "fold_in", key)
    if isinstance(data, int):
        data = xp.asarray(data & _MASK, dtype=np.uint32)
    data = xp.asarray(data)
    if data.dtype.kind not in "iu":
        raise ArgumentTypeError(f"fold_in: expected integer data, got {data.dtype}.")
    if xp is np and key.ndim == 1 and data.ndim == 0:
        return np.array(_hash_int(int(key[0]), int(key[1]), 0, int(data) & _MASK), np.uint32)
    data = data.astype(np.uint32)
    y0, y1 = threefry2x32(xp, key[..., 0], key[..., 1], xp.zeros_like(data), data)
    return xp.stack([xp.asarray(y0), xp.asarray(y1)], axis=-1)


def seed_key(xp: Any, seed: Any) -> Any:
    """The key `[2]` of an integer seed: its high and low 32-bit words, in two's complement.

    A seed of a NumPy type of 32 bits or fewer has the high word 0. This is what JAX does in 64-bit mode; its 32-bit
    mode first cuts the seed to 32 bits, so there seeds outside [0, 2**32) give other keys.

    >>> seed_key(np, 5 + 2**32).tolist()
    [1, 5]

    *Raises* ArgumentError for an integer that 64 bits cannot hold, ArgumentTypeError for what is no integer scalar.
    """
    dtype = getattr(seed, "dtype", np.dtype(np.int64) if type(seed) is int else None)
    if dtype is None or dtype.kind not in "iu" or np.ndim(seed):
        raise ArgumentTypeError(f"key: expected an integer scalar as seed, got {seed!r}.")
    value = int(seed)
    if not -(2**63) <= value < 2**64:
        raise ArgumentError(f"key: expected a seed of 64 bits, got {value}. Take it modulo 2**64.")
    high = (value >> 32) & _MASK if dtype.itemsize == 8 else 0
    return xp.asarray(np.array([high, value & _MASK], np.uint32))


# --- the hash itself ---

def _injections(xp, k0, k1):
    """The six key injections of 20 rounds; the group number is folded into the second word's."""
    words = (k0, k1, xp.bitwise_xor(xp.bitwise_xor(k0, k1), np.uint32(_PARITY)))
    return [Injection(words[i % 3], xp.add(words[(i + 1) % 3], np.uint32(i))) for i in range(6)]


def _mix(xp, x0, x1, scratch, injections):
    """Run the 20 rounds in place. On entry the first injection and the first addition of round one are done."""
    for group, inject in enumerate(injections):
        for step, distance in enumerate(_ROTATIONS[group % 2]):
            if group or step:
                xp.add(x0, x1, out=x0)
            xp.left_shift(x1, np.uint32(distance), out=scratch)
            xp.right_shift(x1, np.uint32(32 - distance), out=x1)
            xp.bitwise_or(x1, scratch, out=x1)
            xp.bitwise_xor(x1, x0, out=x1)
        xp.add(x0, inject.to_x0, out=x0)
        xp.add(x1, inject.to_x1, out=x1)


def _hash_whole(xp, words, shape):
    k0, k1, x0, x1 = (xp.broadcast_to(w, shape) for w in words)
    first, *rest = _injections(xp, k0, k1)
    y1 = xp.add(x1, first.to_x1)
    y0 = xp.add(xp.add(x0, first.to_x0), y1)
    _mix(xp, y0, y1, xp.empty_like(y1), rest)
    return y0, y1


def _hash_int(k0: int, k1: int, x0: int, x1: int) -> tuple[int, int]:
    """The same hash on Python integers, for a handful of values."""
    words = (k0, k1, k0 ^ k1 ^ _PARITY)
    x0, x1 = (x0 + k0) & _MASK, (x1 + k1) & _MASK
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = (x0 + x1) & _MASK
            x1 = ((x1 << distance) & _MASK | x1 >> (32 - distance)) ^ x0
        x0 = (x0 + words[(group + 1) % 3]) & _MASK
        x1 = (x1 + words[(group + 2) % 3] + group + 1) & _MASK
    return x0, x1


# --- counters ---

def _hashed_counters(keys, size):
    """Yield (slice of the flat result, y0, y1) for counters 0..size-1 under every row of `keys [n, 2]`.

    The arrays yielded are overwritten by the next step.
    """
    if len(keys) * size <= _FEW:
        pairs = [_hash_int(k0, k1, 0, i) for k0, k1 in keys.tolist() for i in range(size)]
        if pairs:
            words = np.array(pairs, np.uint32)
            yield slice(0, len(pairs)), words[:, 0], words[:, 1]
    elif size * 2 > _CHUNK or len(keys) == 1:
        yield from _many_counters(keys, size)
    else:
        yield from _many_keys(keys, size)


def _many_counters(keys, size):
    """One key at a time: its words are scalars, and the first injection joins the counter's own addition."""
    length = min(size, _CHUNK)
    iota = np.arange(length, dtype=np.uint32)
    work = np.empty((3, length), np.uint32)
    for row, (k0, k1) in enumerate(keys.tolist()):
        _, *rest = _injections(np, np.array(k0, np.uint32), np.array(k1, np.uint32))
        for start in range(0, size, _CHUNK):
            stop = min(start + _CHUNK, size)
            x0, x1, scratch = work[:, : stop - start]
            np.add(iota[: stop - start], np.uint32((start + k1) & _MASK), out=x1)
            # x0 is the same number everywhere until x1 is added to it.
            np.add(x1, np.uint32(((start >> 32) + k0) & _MASK), out=x0)
            _mix(np, x0, x1, scratch, rest)
            yield slice(row * size + start, row * size + stop), x0, x1


def _many_keys(keys, size):
    """Several keys a chunk, each repeated along its counters."""
    n_rows = max(1, _CHUNK // size)
    iota = np.arange(size, dtype=np.uint32)
    for start in range(0, len(keys), n_rows):
        rows = keys[start : start + n_rows]
        k0, k1 = np.repeat(rows[:, 0], size), np.repeat(rows[:, 1], size)
        _, *rest = _injections(np, k0, k1)
        x1 = np.tile(iota, len(rows)) + k1
        x0 = x1 + k0
        _mix(np, x0, x1, np.empty_like(x0), rest)
        yield slice(start * size, (start + len(rows)) * size), x0, x1


def _hash_counters(xp, key, shape):
    """Both words of the hashes of counters 0, 1, ... under each key `[..., 2]`, on another module than NumPy."""
    counter = xp.arange(math.prod(shape), dtype=np.uint64)
    high, low = (counter >> np.uint64(32)).astype(np.uint32), counter.astype(np.uint32)
    words = threefry2x32(xp, key[..., :1], key[..., 1:], high, low)
    return [w.reshape(key.shape[:-1] + shape) for w in words]


def _combined(xp, y0, y1, bit_width):
    if bit_width == 64:
        return xp.bitwise_or(xp.left_shift(y0.astype(np.uint64), np.uint64(32)), y1.astype(np.uint64))
    return xp.bitwise_xor(y0, y1).astype(_UINT[bit_width])


def _combine(y0, y1, out, bit_width):
    if bit_width == 64:
        np.left_shift(y0, np.uint64(32), out=out, dtype=np.uint64)
        np.bitwise_or(out, y1, out=out)
    else:
        # The cast to 8 or 16 bits keeps the low ones.
        np.bitwise_xor(y0, y1, out=out, dtype=np.uint32, casting="unsafe")


def _part(words, part):
    return words[part] if words.ndim else words


# --- what may come in ---

def _checked_key(xp, name, key):
    key = xp.asarray(key)
    if key.dtype != np.uint32:
        raise DTypeError(f"{name}: expected a key of dtype uint32, got {key.dtype}. Make one with random.key(seed).")
    if key.ndim < 1 or key.shape[-1] != 2:
        raise ShapeError(f"{name}: expected a key of shape [..., 2], got {list(key.shape)}. "
                         "Make one with random.key(seed).")
    return key


def _checked_shape(name, shape):
    shape = tuple(int(n) for n in shape)
    if any(n < 0 for n in shape):
        raise ShapeError(f"{name}: expected a shape without negative sizes, got {list(shape)}.")
    return shape
