# SPDX-License-Identifier: MIT
"""Brightness, contrast, saturation and hue; floats from integers, and normalized floats.

Floats are taken as 0..1 and kept there, integers as 0 up to the highest value of their dtype. A factor of 1 changes
nothing; definitions are those of torchvision and Pillow, with one rounding at the end.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.backends.registry import constant
from functorch_lite.data.transforms.checks import Array, check_image, in_floats, is_integer
from functorch_lite.errors import ArgumentError, DTypeError

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue: ITU-R BT.601


def to_float(image: Array, dtype: Any = np.float32) -> Array:
    """Integers from 0 to the highest of their dtype as floats in 0..1; floats keep their values.

    >>> to_float(np.array([0, 51, 255], np.uint8))
    array([0. , 0.2, 1. ], dtype=float32)
    """
    if not is_integer(image):
        return image.astype(dtype)
    return image.astype(dtype) / np.dtype(dtype).type(np.iinfo(image.dtype).max)


def normalize(image: Array, mean: float | Sequence[float], std: float | Sequence[float]) -> Array:
    """(image - mean) / std for floats [..., h, w]; several means and deviations belong to the channels, axis -3.

    Raises DTypeError for integers, whose range should be settled first, by `to_float` or otherwise.

    >>> normalize(np.array([[0.5, 1.0]]), 0.5, 0.25)
    array([[0., 2.]])
    """
    check_image("normalize", image)
    if is_integer(image):
        raise DTypeError(f"normalize: `image` should be floats, but is {image.dtype}. Use to_float(image) first.")
    return (image - _per_channel("mean", mean, image)) / _per_channel("std", std, image)


def _per_channel(name: str, values: float | Sequence[float], image: Array) -> Array:
    found = np.asarray(values, image.dtype)
    if found.ndim == 0:
        return constant(found, image)
    if found.ndim > 1 or image.ndim < 3 or found.size not in (1, image.shape[-3]):
        raise ArgumentError(
            f"normalize: `{name}` should be a number, or one for each channel of {image.shape}, but is {values}."
        )
    return constant(found.reshape(-1, 1, 1), image)


def grayscale(image: Array) -> Array:
    """The luma of `image` [..., 3, h, w], in all three channels."""
    check_image("grayscale", image, has_colors=True)
    return in_floats(image, lambda x: fnp.broadcast_to(_luma(x), x.shape))


def adjust_brightness(image: Array, factor: Any) -> Array:
    """`image` [..., h, w] times `factor`, a number from 0 on."""
    return _in_unit_floats(image, lambda x: _blend(x, fnp.zeros_like(x), factor))


def adjust_contrast(image: Array, factor: Any) -> Array:
    """`image` [..., 3, h, w] moved away from its mean luma; factor 0 gives the mean."""
    check_image("adjust_contrast", image, has_colors=True)
    return _in_unit_floats(image, lambda x: _blend(x, _luma(x).mean((-3, -2, -1), keepdims=True), factor))


def adjust_saturation(image: Array, factor: Any) -> Array:
    """`image` [..., 3, h, w] moved away from its luma; factor 0 gives greys."""
    check_image("adjust_saturation", image, has_colors=True)
    return _in_unit_floats(image, lambda x: _blend(x, _luma(x), factor))


def adjust_hue(image: Array, turn: Any) -> Array:
    """`image` [..., 3, h, w] with its hues turned by `turn` of the whole circle: -0.5..0.5, both the complement."""
    check_image("adjust_hue", image, has_colors=True)
    return _in_unit_floats(image, lambda x: _turned(x, turn))


def color_jitter(
    key: Array,
    image: Array,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> Array:
    """`image` [..., 3, h, w] with its colours changed at random, in the order of the arguments.

    brightness, contrast, saturation: factors are uniform in [max(0, 1 - value), 1 + value]. hue: the turn is uniform in
    [-hue, hue], with hue at most 0.5. What is 0 is left out.

    Raises ArgumentError for a value out of its range.
    """
    check_image("color_jitter", image, has_colors=True)
    amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    for name, amount in amounts.items():
        if amount < 0 or (name == "hue" and amount > 0.5):
            raise ArgumentError(f"color_jitter: `{name}` should be from 0 {'to 0.5' * (name == 'hue')}, not {amount}.")
    u = random.uniform(key, (4,), np.float32, -1.0, 1.0)

    def changed(x):
        for i, (name, amount) in enumerate(amounts.items()):
            if amount:
                drawn = fnp.maximum(u[i] * amount + 1, 0.0) if name != "hue" else u[i] * amount
                x = _CHANGES[name](x, drawn.astype(x.dtype))
        return x

    return _in_unit_floats(image, changed)


def _in_unit_floats(image: Array, change: Any) -> Array:
    """`change` of floats in 0..1 kept there; of integers in 0..highest, with one rounding at the end."""
    highest = float(np.iinfo(image.dtype).max) if is_integer(image) else 1.0
    return in_floats(image, lambda x: fnp.clip(change(x / highest), 0.0, 1.0) * highest)


def _luma(x: Array) -> Array:
    weights = constant(_LUMA.astype(x.dtype).reshape(3, 1, 1), x)
    return (x * weights).sum(-3, keepdims=True)


def _blend(x: Array, other: Array, factor: Any) -> Array:
    factor = factor if isinstance(factor, int | float) else factor.astype(x.dtype)
    return fnp.clip(x * factor + other * (1 - factor), 0.0, 1.0)


def _turned(x: Array, turn: Any) -> Array:
    """Colours through hue, saturation and value, and back."""
    turn = turn if isinstance(turn, int | float) else turn.astype(x.dtype)
    r, g, b = (x[..., i, :, :] for i in range(3))
    value, low = fnp.maximum(fnp.maximum(r, g), b), fnp.minimum(fnp.minimum(r, g), b)
    span = value - low
    safe = fnp.where(span == 0, 1.0, span)
    sixths = fnp.where(value == r, (g - b) / safe, fnp.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = sixths + 6 * turn
    # Channel n of (5, 3, 1) is value - span * clip(min(k, 4 - k), 0, 1) with k = (n + hue) mod 6.
    channels = []
    for n in (5.0, 3.0, 1.0):
        k = (hue + n) % 6
        channels.append(value - span * fnp.clip(fnp.minimum(k, 4 - k), 0.0, 1.0))
    return fnp.stack(channels, axis=-3)


_CHANGES = {
    "brightness": lambda x, factor: _blend(x, fnp.zeros_like(x), factor),
    "contrast": lambda x, factor: _blend(x, _luma(x).mean((-3, -2, -1), keepdims=True), factor),
    "saturation": lambda x, factor: _blend(x, _luma(x), factor),
    "hue": lambda x, turn: _turned(x, turn),
}
