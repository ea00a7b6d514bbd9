# SPDX-License-Identifier: MIT
"""Arrays of zeros and ones in the bits of bytes."""

from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentError, DTypeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy import reductions, shaping, ufuncs
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.creation import asarray
from functorch_lite.numpy.dispatch import public
from functorch_lite.numpy.promotion import cast

_BYTE = np.dtype(np.uint8)
_PLACES = {"big": np.arange(8, dtype=_BYTE)[::-1], "little": np.arange(8, dtype=_BYTE)}


def _places(name: str, bitorder: str) -> np.ndarray:
    """By how much each of eight bits is shifted."""
    if bitorder not in _PLACES:
        raise ArgumentError(f"{name}: bitorder must be 'big' or 'little', got {bitorder!r}.")
    return _PLACES[bitorder]


def _with_axis_last(a: Any, axis: int | None) -> tuple[Any, int]:
    x = asarray(a)
    if axis is None:
        return shaping.ravel(x), 0
    axis = normal_axis(axis, len(x.shape))
    return shaping.moveaxis(x, axis, -1), axis


@public(np.packbits)
def packbits(a: Any, axis: int | None = None, bitorder: str = "big") -> Any:
    """Bytes whose bits are whether elements of integers or booleans differ from 0; the last byte is filled with zeros.

    axis: the one that becomes an eighth as long; by default of the flattened array. bitorder: "big" puts the first
    element into the highest bit.
    """
    x, axis = _with_axis_last(a, axis)
    if x.dtype.kind not in "biu":
        raise DTypeError(f"packbits: expected integers or booleans, got {x.dtype}. Compare it with 0 first.")
    bits = cast(ufuncs.not_equal(x, x.dtype.type(0)), _BYTE)
    *rows, n = bits.shape
    bits = e.pad(bits, _BYTE.type(0), (*[(0, 0, 0)] * len(rows), (0, -n % 8, 0)))
    parts = shaping.reshape(bits, (*rows, -(-n // 8), 8))
    packed = reductions.sum(ufuncs.left_shift(parts, _places("packbits", bitorder)), -1, _BYTE)
    return shaping.moveaxis(packed, -1, axis)


@public(np.unpackbits)
def unpackbits(a: Any, axis: int | None = None, count: int | None = None, bitorder: str = "big") -> Any:
    """The bits of bytes as zeros and ones, uint8.

    axis: the one that becomes eight times as long; by default of the flattened array. count: how many are kept along
    it, zeros added where there are fewer; a negative number is how many are dropped at the end.
    """
    x, axis = _with_axis_last(a, axis)
    if x.dtype != _BYTE:
        raise DTypeError(f"unpackbits: expected bytes (uint8), got {x.dtype}.")
    bits = ufuncs.bitwise_and(ufuncs.right_shift(x[..., None], _places("unpackbits", bitorder)), _BYTE.type(1))
    *rows, n = x.shape
    bits = shaping.reshape(bits, (*rows, 8 * n))
    if count is not None:
        wanted = count if count >= 0 else max(8 * n + count, 0)
        bits = e.pad(bits[..., :wanted], _BYTE.type(0), (*[(0, 0, 0)] * len(rows), (0, max(wanted - 8 * n, 0), 0)))
    return shaping.moveaxis(bits, -1, axis)
