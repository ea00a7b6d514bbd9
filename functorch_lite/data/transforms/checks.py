# SPDX-License-Identifier: MIT
"""What the transforms share: sizes and their checks, and calculating in floats with integers at both ends."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError, ShapeError

Array = Any
Size = int | Sequence[int]


def pair(function: str, name: str, value: Size) -> tuple[int, int]:
    """(height, width) of a size given as one number or two. Raises ArgumentError unless both are at least 1."""
    both = (value, value) if isinstance(value, int | np.integer) else tuple(value)
    if len(both) != 2 or not all(isinstance(n, int | np.integer) and n >= 1 for n in both):
        raise ArgumentError(f"{function}: `{name}` should be one or two numbers of at least 1, but is {value!r}.")
    return int(both[0]), int(both[1])


def check_image(function: str, image: Array, *, has_colors: bool = False) -> tuple[int, int]:
    """(height, width) of `image`. Raises ShapeError unless it has them, and three colours where asked."""
    wanted = "[..., 3, height, width]" if has_colors else "[..., height, width]"
    if image.ndim < 2 + has_colors or (has_colors and image.shape[-3] != 3):
        raise ShapeError(f"{function}: `image` should be {wanted}, but has shape {image.shape}.")
    return image.shape[-2], image.shape[-1]


def is_integer(x: Array) -> bool:
    """Whether `x` holds integers."""
    return np.issubdtype(x.dtype, np.integer)


def in_floats(x: Array, calculate: Callable[[Array], Array]) -> Array:
    """`calculate(x)` in at least float32, as the dtype of `x` again: integers are rounded and kept in their range."""
    if is_integer(x):
        bounds = np.iinfo(x.dtype)
        y = fnp.clip(fnp.round(calculate(x.astype(np.float32))), float(bounds.min), float(bounds.max))
        return y.astype(x.dtype)
    wide = np.float32 if dtypes_width(x) < 32 else x.dtype
    return calculate(x.astype(wide)).astype(x.dtype)


def dtypes_width(x: Array) -> int:
    """Bits of an element."""
    return 8 * x.dtype.itemsize
