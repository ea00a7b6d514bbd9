# SPDX-License-Identifier: MIT
"""Reading images and volumes at given points, as in spatial transformers; channels first.

A point is (x, y) or (x, y, z): the last spatial axis comes first. -1 and 1 are the borders of the input: the centres of
its outermost elements with align_corners, else their outer edges, as in PyTorch.

Source: M. Jaderberg and others, "Spatial transformer networks", arXiv:1506.02025.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.module import Array
from functorch_lite.transforms.arguments import on_its_device

Mode = Literal["bilinear", "nearest", "bicubic"]
PaddingMode = Literal["zeros", "border", "reflection"]

_PADDINGS = ("zeros", "border", "reflection")


@on_its_device
def affine_grid(theta: Array, size: Sequence[int], *, align_corners: bool = False) -> Array:
    """The points of an output of spatial `size`, each (x, y, 1) or (x, y, z, 1) multiplied by theta.

    theta [..., 2, 3] and a size (height, width) give [..., height, width, 2]; theta [..., 3, 4] and (depth, height,
    width) give [..., depth, height, width, 3]: the `grid` of `grid_sample`.

    Raises ShapeError for another theta, ArgumentError for a size with another number of axes.

    >>> affine_grid(np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), (1, 2))
    array([[[-0.5,  0. ],
            [ 0.5,  0. ]]])
    """
    n = theta.shape[-2] if theta.ndim >= 2 else 0
    if n not in (2, 3) or theta.shape[-1] != n + 1:
        raise ShapeError(f"affine_grid: `theta` should be [..., 2, 3] or [..., 3, 4], but is {theta.shape}.")
    if len(size) != n or min(size) < 1:
        raise ArgumentError(f"affine_grid: `size` should be {n} positive ints for this theta, but is {tuple(size)}.")
    axes = [_centres(length, align_corners) for length in size]
    points = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(tuple(size))], axis=-1)
    flat = constant(points.reshape(-1, n + 1).astype(theta.dtype), theta)
    out = fnp.matmul(flat, fnp.swapaxes(theta, -1, -2))
    return fnp.reshape(out, (*theta.shape[:-2], *size, n))


def _centres(length: int, align_corners: bool) -> np.ndarray:
    if length == 1:
        return np.zeros(1)
    ends = np.linspace(-1, 1, length)
    return ends if align_corners else ends * (length - 1) / length


@on_its_device
def grid_sample(
    x: Array,
    grid: Array,
    *,
    mode: Mode = "bilinear",
    padding_mode: PaddingMode = "zeros",
    align_corners: bool = False,
) -> Array:
    """x [..., channels, *spatial] read at the points grid [..., *out, n] -> [..., channels, *out], n = 1, 2 or 3.

    mode: "bilinear" (trilinear for n = 3), "nearest" (the even one of two equally near) or "bicubic".
    padding_mode: what is read outside of the input: zeros, its nearest border, or its reflection at the border. The
    result is differentiable in x and, but for "nearest", in the grid.

    Raises ArgumentError for another mode, ShapeError when the leading axes of x and grid differ.

    >>> image = np.array([[[0.0, 1.0], [2.0, 3.0]]])
    >>> grid_sample(image, np.array([[[0.0, 0.0], [0.5, -0.5]]]))
    array([[[1.5, 1. ]]])
    """
    if mode not in _TAPS:
        raise ArgumentError(f"grid_sample: `mode` should be one of {', '.join(_TAPS)}, but is {mode!r}.")
    if padding_mode not in _PADDINGS:
        raise ArgumentError(
            f"grid_sample: `padding_mode` should be one of {', '.join(_PADDINGS)}, but is {padding_mode!r}."
        )
    lead, n = _checked(x, grid)
    channels, spatial = x.shape[len(lead)], x.shape[len(lead) + 1 :]
    count = math.prod(lead)
    images = fnp.moveaxis(fnp.reshape(x, (count, channels, *spatial)), 1, -1)
    points = fnp.reshape(grid, (count, -1, n))
    values = _sampled(images, points, mode, padding_mode, align_corners)
    return fnp.reshape(fnp.moveaxis(values, -1, 1), (*lead, channels, *grid.shape[len(lead) : -1]))


def _checked(x: Array, grid: Array) -> tuple[tuple[int, ...], int]:
    """The common leading axes, and how many spatial ones there are."""
    n = grid.shape[-1] if grid.ndim else 0
    if n not in (1, 2, 3) or x.ndim < n + 1 or 0 in x.shape[-n:]:
        raise ShapeError(
            f"grid_sample: the last axis of `grid` {grid.shape} should hold 1, 2 or 3 coordinates, and `x` {x.shape} "
            "be [..., channels, *spatial] with as many spatial axes, none of them empty."
        )
    lead = x.shape[: x.ndim - n - 1]
    if grid.shape[: len(lead)] != lead or grid.ndim != len(lead) + n + 1:
        raise ShapeError(
            f"grid_sample: for `x` {x.shape} the `grid` should be [{', '.join(map(str, lead))}{', ' * bool(lead)}"
            f"*out, {n}] with {n} axes `out`, but is {grid.shape}."
        )
    return lead, n


def _sampled(images: Array, points: Array, mode: Mode, padding_mode: PaddingMode, align_corners: bool) -> Array:
    """images [b, *spatial, channels] at points [b, m, n] -> [b, m, channels]."""
    taps = []
    for axis, size in enumerate(images.shape[1:-1]):
        place = _unnormalized(points[..., points.shape[-1] - 1 - axis], size, align_corners)
        taps.append(_TAPS[mode](place, size, padding_mode, align_corners))
    rows = constant(np.arange(images.shape[0])[:, None], images)
    total = None
    for chosen in itertools.product(*taps):
        value = images[(rows, *(index for index, _ in chosen))]
        weights = [weight for _, weight in chosen if weight is not None]
        for weight in weights:
            value = value * weight.astype(images.dtype)[..., None]
        total = value if total is None else total + value
    return total


def _unnormalized(place: Array, size: int, align_corners: bool) -> Array:
    """-1..1 -> the number of the element, as a floating point number."""
    return (place + 1) / 2 * (size - 1) if align_corners else ((place + 1) * size - 1) / 2


def _inside(place: Array, size: int, padding_mode: PaddingMode, align_corners: bool) -> Array:
    """Coordinates brought into the input as `padding_mode` says; "zeros" leaves them where they are."""
    if padding_mode == "zeros":
        return place
    if padding_mode == "reflection":
        low, span = (0.0, size - 1) if align_corners else (-0.5, size)
        if span == 0:
            return fnp.zeros_like(place)
        distance = fnp.abs(place - low)
        turns = fnp.floor(distance / span)
        rest = distance - turns * span
        place = fnp.where(turns % 2 == 0, rest + low, span - rest + low)
    # A place at the border or past it does not move with the grid.
    return fnp.where(place <= 0, 0, fnp.where(place >= size - 1, size - 1, place)).astype(place.dtype)


def _tap(place: Array, size: int, weight: Array | None, padding_mode: PaddingMode) -> tuple[Array, Array | None]:
    """(index, weight) of the element at the whole number `place`; outside of the input the weight is 0."""
    index = fnp.clip(fnp.where(fnp.isnan(place), -1, place), -1, size).astype(np.int64)
    if padding_mode == "zeros":
        seen = (index >= 0) & (index < size)
        weight = seen if weight is None else fnp.where(seen, weight, 0)
    return fnp.clip(index, 0, size - 1), weight


def _nearest(place: Array, size: int, padding_mode: PaddingMode, align_corners: bool) -> list[Any]:
    place = fnp.round(_inside(place, size, padding_mode, align_corners))
    return [_tap(place, size, None, padding_mode)]


def _linear(place: Array, size: int, padding_mode: PaddingMode, align_corners: bool) -> list[Any]:
    place = _inside(place, size, padding_mode, align_corners)
    low = fnp.floor(place)
    rest = place - low
    return [_tap(low, size, 1 - rest, padding_mode), _tap(low + 1, size, rest, padding_mode)]


def _cubic(place: Array, size: int, padding_mode: PaddingMode, align_corners: bool) -> list[Any]:
    # Each of the four elements is brought inside by itself.
    low = fnp.floor(place)
    rest = place - low
    weights = _far(rest + 1), _near(rest), _near(1 - rest), _far(2 - rest)
    places = [_inside(low + k, size, padding_mode, align_corners) for k in (-1, 0, 1, 2)]
    return [_tap(p, size, weight, padding_mode) for p, weight in zip(places, weights, strict=True)]


def _near(d: Array, a: float = -0.75) -> Array:
    return ((a + 2) * d - (a + 3)) * d * d + 1


def _far(d: Array, a: float = -0.75) -> Array:
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a


_TAPS = {"bilinear": _linear, "nearest": _nearest, "bicubic": _cubic}
