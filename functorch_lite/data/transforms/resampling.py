# SPDX-License-Identifier: MIT
"""Images of another size: each output pixel a weighted mean of input pixels, along each axis by itself.

    out = W_rows @ image @ W_columns.T        W[o, i] = kernel((place of o in the input - i) / width), rows sum to 1

With antialiasing the kernel grows with the reduction, as in Pillow, `jax.image.resize` and torch's antialias=True
(cubic: a = -0.5). Without it `nn.interpolate` does the work, with torch's numbers (cubic: a = -0.75).
"""

from typing import Any, Literal

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.backends.registry import constant
from functorch_lite.data.transforms.checks import Array, Size, check_image, in_floats, pair
from functorch_lite.data.transforms.geometry import random_box
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.resize import interpolate

Method = Literal["nearest", "linear", "cubic"]


def resize(image: Array, size: Size, *, method: Method = "linear", antialias: bool = True) -> Array:
    """`image` [..., h, w] brought to `size`: bilinear, bicubic, or the nearest pixel. Integers are rounded.

    antialias: where the image becomes smaller, average over all input pixels; without effect on "nearest".

    Raises ArgumentError for another method.

    >>> resize(np.array([[0, 100, 200, 40]], np.uint8), (1, 2))
    array([[ 71, 117]], dtype=uint8)
    """
    height, width = pair("resize", "size", size)
    h, w = check_image("resize", image)
    _check_method("resize", method)
    if method == "nearest":
        return interpolate(image, (height, width), mode="nearest-exact")
    if not antialias:
        return in_floats(image, lambda x: interpolate(x, (height, width), mode=method))
    rows, columns = _weights(0.0, h, h, height, method), _weights(0.0, w, w, width, method)
    return in_floats(image, lambda x: _applied(x, rows, columns))


def crop_and_resize(image: Array, box: Any, size: Size, *, method: Method = "linear", antialias: bool = True) -> Array:
    """The `box` of `image` [..., h, w] brought to `size`; box: (top, left, height, width), floats that may be traced.

    Coordinates are pixels, where pixel i is the interval from i to i + 1; at the rim of the box pixels beyond it
    count too, outside of the image nothing does.

    Raises ArgumentError for another method, and for "nearest".
    """
    height, width = pair("crop_and_resize", "size", size)
    h, w = check_image("crop_and_resize", image)
    if method == "nearest":
        raise ArgumentError("crop_and_resize: `method` should be 'linear' or 'cubic', but is 'nearest'.")
    _check_method("crop_and_resize", method)
    rows = _weights(box[0], box[2], h, height, method, antialias, image)
    columns = _weights(box[1], box[3], w, width, method, antialias, image)
    return in_floats(image, lambda x: _applied(x, rows, columns))


def random_resized_crop(
    key: Array,
    image: Array,
    size: Size,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    method: Method = "linear",
    antialias: bool = True,
) -> Array:
    """A box of `image` [..., h, w] with a random size, shape and place, brought to `size`.

    scale: the range of its share of the area; ratio: that of height / width, uniform in the logarithm.

    Source: C. Szegedy and others, "Going deeper with convolutions", arXiv:1409.4842, section 6.
    """
    h, w = check_image("random_resized_crop", image)
    key_box, key_place = random.split(key)
    height, width = random_box(key_box, h, w, scale, ratio)
    place = random.uniform(key_place, (2,), np.float32)
    box = (place[0] * (h - height), place[1] * (w - width), height, width)
    return crop_and_resize(image, box, size, method=method, antialias=antialias)


def _applied(x: Array, rows: Array, columns: Array) -> Array:
    rows, columns = (constant(part, x).astype(x.dtype) for part in (rows, columns))
    return fnp.matmul(fnp.matmul(rows, x), fnp.swapaxes(columns, -1, -2))


def _weights(
    start: Any, length: Any, n_in: int, n_out: int, method: str, antialias: bool = True, beside: Any = None
) -> Array:
    """W [n_out, n_in]; NumPy's for a box of plain numbers, else traced, or where `beside` lives."""
    step = length / n_out
    dtype = np.float64 if isinstance(length, int | float) else np.float32
    outputs = constant(np.arange(n_out, dtype=dtype) + dtype(0.5), beside)
    inputs = constant(np.arange(n_in, dtype=dtype) + dtype(0.5), beside)
    centres = outputs * step + start
    reach = fnp.maximum(step, 1.0) if antialias else 1.0
    weights = _KERNELS[method](fnp.abs(centres[:, None] - inputs[None, :]) / reach)
    total = weights.sum(-1, keepdims=True)
    return fnp.where(total == 0, 0.0, weights / fnp.where(total == 0, 1.0, total))


def _linear(d: Array) -> Array:
    return fnp.maximum(1 - d, 0.0)


def _cubic(d: Array) -> Array:
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return fnp.where(d <= 1, near, fnp.where(d < 2, far, 0.0))


_KERNELS = {"linear": _linear, "cubic": _cubic}


def _check_method(function: str, method: str) -> None:
    if method not in ("nearest", *_KERNELS):
        raise ArgumentError(f"{function}: `method` should be 'nearest', 'linear' or 'cubic', but is {method!r}.")
