# SPDX-License-Identifier: MIT
"""Large random arrays, drawn eagerly: filled block after block by a compiled program.

NumPy goes over its data a hundred times for a hash, and forty times more for an inverse error function; a program keeps
what it computes in registers. Number i is a function of (key, i) alone, so one program of BLOCK numbers, given the
position of its first, fills arrays of all shapes. The bits are those of `backends.threefry`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.numpy.dispatch import is_eager_call
from functorch_lite.primitives import random_bits as primitives
from functorch_lite.primitives.broadcast import broadcast_in_dim, iota
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import bit_or, bit_xor, shift_left
from functorch_lite.primitives.elementwise import add
from functorch_lite.primitives.movement import reshape, slice_in_axis
from functorch_lite.transforms.jit import jit

BLOCK = 1 << 17  # numbers: 0.2 ms, and 2 to 6 of NumPy, for less of which no program is made
_MOST = 1 << 32  # numbers: from here on the upper word of a position is not 0
_UINT32 = np.dtype(np.uint32)


def random_bits(key: Any, shape: tuple[int, ...], bit_width: int) -> Any:
    """Uniform unsigned integers of 8, 16, 32 or 64 bits: `key` [2] to [*shape]."""
    if is_large(key, shape):
        return filled(_words, key, shape, bit_width, primitives.UNSIGNED[bit_width])
    return primitives.random_bits(key, shape, bit_width)


def is_large(key: Any, shape: tuple[int, ...]) -> bool:
    """Whether an array is worth a program: it is drawn eagerly, by NumPy, and has a block or more."""
    return BLOCK <= math.prod(shape) <= _MOST - BLOCK and type(key) is np.ndarray and is_eager_call((key,), {})


def filled(
    fun: Callable[[Any, np.dtype], Any], key: np.ndarray, shape: tuple[int, ...], bit_width: int, dtype: np.dtype
) -> np.ndarray:
    """fun(random_bits(key, shape, bit_width), dtype), in `dtype`, of an array that `is_large`.

    fun: a function of a module, element-wise, and made of primitives.
    """
    program, size = _program(fun, bit_width, dtype), math.prod(shape)
    out = np.empty(size, dtype)
    for start in range(0, size, BLOCK):
        out[start : start + BLOCK] = program(key, np.uint32(start))[: size - start]
    return out.reshape(shape)


@functools.cache
def _program(fun, bit_width, dtype):
    """The compiled function of (key, position of the first) for BLOCK numbers."""

    def block(key, start):
        positions = add(iota(_UINT32, (BLOCK,)), broadcast_in_dim(start, (BLOCK,), ()))
        hashes = primitives.fold_in_key(broadcast_in_dim(key, (BLOCK, 2), (1,)), positions)
        y0, y1 = (reshape(slice_in_axis(hashes, k, k + 1, 1), (BLOCK,)) for k in range(2))
        return fun(_combined(y0, y1, bit_width), dtype)

    return jit(block)


def _combined(y0, y1, bit_width):
    """The random word of a hash."""
    if bit_width == 64:
        high, low = (convert(y, primitives.UNSIGNED[64]) for y in (y0, y1))
        return bit_or(shift_left(high, np.uint64(32)), low)
    word = bit_xor(y0, y1)
    return word if bit_width == 32 else convert(word, primitives.UNSIGNED[bit_width])


def _words(words, dtype):
    return words
