# SPDX-License-Identifier: MIT
"""Encodings of positions: rotations of queries and keys, biases on scores, and waves added to embeddings.

Sources: J. Su and others, arXiv:2104.09864; O. Press and others, arXiv:2108.12409; A. Vaswani and others,
arXiv:1706.03762.
"""

import math
from typing import Any

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.core.dtypes import default_float
from functorch_lite.errors import ArgumentTypeError, ShapeError
from functorch_lite.nn.module import Array, Module


def rotary_embedding(
    x: Array, positions: Array | None = None, *, base: float = 10000.0, interleaved: bool = False
) -> Array:
    """x [..., n, e] with pairs of features rotated by position / base^(2 i / e), so that products see distances.

    positions: [..., n], 0..n-1 by default. The pairs are (i, i + e / 2), or (2 i, 2 i + 1) when interleaved.
    Raises ShapeError unless e is even.
    """
    if x.ndim < 2 or x.shape[-1] % 2:
        raise ShapeError(f"rotary_embedding: `x` should be [..., n, e] with an even e, but is {x.shape}.")
    half = x.shape[-1] // 2
    positions = constant(np.arange(x.shape[-2]), x) if positions is None else positions
    angles = _angles(positions, half, base, x)
    cos, sin = fnp.cos(angles).astype(x.dtype), fnp.sin(angles).astype(x.dtype)
    a, b = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    rotated = a * cos - b * sin, a * sin + b * cos
    if interleaved:
        return fnp.reshape(fnp.stack(rotated, axis=-1), x.shape)
    return fnp.concatenate(rotated, axis=-1)


def _angles(positions: Array, n: int, base: float, like: Array) -> Array:
    """positions [...] / base^(i / n), [..., n]; in float32 at least, where a half would lose the position."""
    dtype = like.dtype if like.dtype.itemsize >= 4 else np.dtype(np.float32)
    frequencies = constant((base ** (-np.arange(n) / n)).astype(dtype), like)
    return positions[..., None].astype(dtype) * frequencies


class RotaryEmbedding(Module):
    """`rotary_embedding` as a layer without parameters, for `MultiheadAttention(rotary=...)`."""

    base: float = 10000.0
    interleaved: bool = False

    def __call__(self, x: Array, positions: Array | None = None) -> Array:
        return rotary_embedding(x, positions, base=self.base, interleaved=self.interleaved)


def sinusoidal_positions(positions: Array, dim: int, *, base: float = 10000.0, dtype: Any = None) -> Array:
    """positions [...] -> [..., dim]: sin(position / base^(2 i / dim)) at 2 i and cos of the same at 2 i + 1.

    Raises ShapeError unless `dim` is even, ArgumentTypeError for a number in the place of positions.
    """
    if dim % 2:
        raise ShapeError(f"sinusoidal_positions: `dim` should be even, but is {dim}.")
    if isinstance(positions, int):
        raise ArgumentTypeError(
            f"sinusoidal_positions: `positions` should be an array, but is {positions}. "
            f"For the first {positions} write np.arange({positions})."
        )
    dtype = np.dtype(dtype or default_float())
    frequencies = constant(base ** (-np.arange(dim // 2) / (dim // 2)), positions)
    angles = positions[..., None].astype(np.float64) * frequencies
    waves = fnp.stack([fnp.sin(angles), fnp.cos(angles)], axis=-1)
    return fnp.reshape(waves, (*positions.shape, dim)).astype(dtype)


class SinusoidalPositions(Module):
    """x [..., n, e] + sinusoidal_positions(0..n-1, e): has no parameters and any length."""

    base: float = 10000.0

    def __call__(self, x: Array) -> Array:
        positions = constant(np.arange(x.shape[-2]), x)
        return x + sinusoidal_positions(positions, x.shape[-1], base=self.base, dtype=x.dtype)


def alibi_bias(num_heads: int, n: int, m: int | None = None, *, dtype: Any = None) -> np.ndarray:
    """The bias -slope |i - j| [num_heads, n, m] of attention with linear biases, for `mask`; m is n by default.

    The n queries are the last of the m positions. Slopes are 2^(-8 h / num_heads) for h = 1, 2 ...; when num_heads is
    no power of two, those of the power below, then every other one of the power above.
    """
    m = n if m is None else m
    distance = np.abs(np.arange(m) - (np.arange(n) + m - n)[:, None])
    slopes = np.array(_slopes(num_heads))
    return (-slopes[:, None, None] * distance).astype(dtype or default_float())


def _slopes(heads: int) -> list[float]:
    power = 2 ** int(math.log2(heads))
    slopes = [2.0 ** (-8 * (h + 1) / power) for h in range(power)]
    return slopes if power == heads else slopes + _slopes(2 * power)[::2][: heads - power]
