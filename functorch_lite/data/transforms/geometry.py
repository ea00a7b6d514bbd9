# SPDX-License-Identifier: MIT
"""Crops, flips, borders and erased boxes: pixels move or go, none is calculated."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import lax, random
from functorch_lite.backends.registry import constant
from functorch_lite.data.transforms.checks import Array, Size, check_image, pair
from functorch_lite.errors import ArgumentError

PadMode = Literal["constant", "edge", "reflect", "symmetric", "wrap"]


def pad(image: Array, padding: int | Sequence[Any], *, mode: PadMode = "constant", value: float = 0) -> Array:
    """`image` [..., h, w] with a border: `padding` is n, (vertical, horizontal) or ((top, bottom), (left, right)).

    mode: NumPy's; value: of the border in mode "constant".

    >>> pad(np.ones((1, 2), np.uint8), (0, 1))
    array([[0, 1, 1, 0]], dtype=uint8)
    """
    check_image("pad", image)
    both = (padding, padding) if isinstance(padding, int | np.integer) else tuple(padding)
    if len(both) != 2:
        raise ArgumentError(f"pad: `padding` should be n, (v, h) or ((top, bottom), (left, right)), but is {padding}.")
    widths = [(n, n) if isinstance(n, int | np.integer) else tuple(n) for n in both]
    options = {"constant_values": value} if mode == "constant" else {}
    return fnp.pad(image, [(0, 0)] * (image.ndim - 2) + widths, mode=mode, **options)


def center_crop(image: Array, size: Size) -> Array:
    """The middle of `image` [..., h, w], of `size`; where it cannot be even, the upper left of the two middles.

    Raises ArgumentError when `size` is larger than the image.
    """
    (height, width), (h, w) = pair("center_crop", "size", size), check_image("center_crop", image)
    _check_fits("center_crop", (height, width), (h, w))
    top, left = (h - height) // 2, (w - width) // 2
    return image[..., top : top + height, left : left + width]


def random_crop(
    key: Array,
    image: Array,
    size: Size,
    *,
    padding: int | Sequence[Any] = 0,
    mode: PadMode = "constant",
    value: float = 0,
) -> Array:
    """A box of `size` of `image` [..., h, w], anywhere with the same probability, after `pad(image, padding)`.

    Raises ArgumentError when `size` is larger than the padded image.
    """
    height, width = pair("random_crop", "size", size)
    image = pad(image, padding, mode=mode, value=value)
    h, w = image.shape[-2:]
    _check_fits("random_crop", (height, width), (h, w))
    n_places = constant(np.array([h - height + 1, w - width + 1], np.int32), key)
    top, left = random.randint(key, (2,), 0, n_places)
    starts = [constant(np.zeros((), np.int32), key)] * (image.ndim - 2) + [top, left]
    return lax.dynamic_slice(image, starts, (*image.shape[:-2], height, width))


def flip_horizontal(image: Array) -> Array:
    """`image` [..., h, w] with left and right exchanged."""
    return fnp.flip(image, -1)


def flip_vertical(image: Array) -> Array:
    """`image` [..., h, w] with top and bottom exchanged."""
    check_image("flip_vertical", image)
    return fnp.flip(image, -2)


def random_flip_horizontal(key: Array, image: Array, p: float = 0.5) -> Array:
    """`image` [..., h, w], with left and right exchanged with probability `p`."""
    return fnp.where(random.bernoulli(key, p), flip_horizontal(image), image)


def random_flip_vertical(key: Array, image: Array, p: float = 0.5) -> Array:
    """`image` [..., h, w], with top and bottom exchanged with probability `p`."""
    return fnp.where(random.bernoulli(key, p), flip_vertical(image), image)


def random_erasing(
    key: Array,
    image: Array,
    *,
    p: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: float = 0,
) -> Array:
    """`image` [..., h, w], where with probability `p` a box is filled with `value`.

    scale: the range of its share of the area; ratio: that of height / width, uniform in the logarithm. A box that is
    larger than the image along an axis is as large as the image there.

    Source: Z. Zhong and others, "Random erasing data augmentation", arXiv:1708.04896.
    """
    h, w = check_image("random_erasing", image)
    key_p, key_box, key_place = random.split(key, 3)
    height, width = random_box(key_box, h, w, scale, ratio)
    height, width = fnp.round(height), fnp.round(width)
    place = random.uniform(key_place, (2,))
    rows = _inside(fnp.floor(place[0] * (h - height + 1)), height, h, key)
    columns = _inside(fnp.floor(place[1] * (w - width + 1)), width, w, key)
    is_erased = rows[:, None] & columns[None, :] & random.bernoulli(key_p, p)
    return fnp.where(is_erased, constant(np.asarray(value, image.dtype), image), image)


def random_box(key: Array, h: int, w: int, scale: tuple[float, float], ratio: tuple[float, float]) -> tuple[Any, Any]:
    """Height and width, float32, at most h and w, of a box with a share of the area and a ratio drawn from ranges."""
    key_area, key_ratio = random.split(key)
    area = random.uniform(key_area, (), np.float32, *scale) * np.float32(h * w)
    log_ratio = random.uniform(key_ratio, (), np.float32, math.log(ratio[0]), math.log(ratio[1]))
    root = fnp.exp(log_ratio * np.float32(0.5))
    side = fnp.sqrt(area)
    return fnp.minimum(side * root, np.float32(h)), fnp.minimum(side / root, np.float32(w))


def _inside(start: Array, length: Array, n: int, key: Array) -> Array:
    """Which of the places 0..n-1 are from `start` on, before `start + length`."""
    places = constant(np.arange(n, dtype=np.float32), key)
    return (places >= start) & (places < start + length)


def _check_fits(function: str, size: tuple[int, int], image: tuple[int, int]) -> None:
    if size[0] > image[0] or size[1] > image[1]:
        raise ArgumentError(f"{function}: a crop of {size} does not fit into an image of {image}; pad it first.")
