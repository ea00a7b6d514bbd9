# SPDX-License-Identifier: MIT
"""Resizing of images and other grids, channels first: each axis by itself, from one, two or four neighbours.

Coordinates and the cubic kernel (a = -0.75) are PyTorch's. Source of the kernel: R. Keys, "Cubic convolution
interpolation for digital image processing" (1981).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.conv import sizes
from functorch_lite.nn.module import Array, Module

Mode = Literal["nearest", "nearest-exact", "linear", "cubic"]
Taps = list[tuple[np.ndarray, np.ndarray | None]]


def interpolate(
    x: Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    *,
    mode: Mode = "nearest",
    align_corners: bool = False,
    n_spatial: int = 2,
) -> Array:
    """x [..., *spatial] with its last `n_spatial` axes brought to `size`, or to floor(scale_factor * size).

    mode: "nearest" (PyTorch's, which rounds coordinates down), "nearest-exact", "linear" (bilinear, trilinear) and
    "cubic" (bicubic, along any number of axes). align_corners: the outermost elements stay at the border.

    Raises ArgumentError unless exactly one of `size` and `scale_factor` is given, and for another mode.

    >>> interpolate(np.array([[1.0, 3.0]]), (1, 4), mode="linear")
    array([[1. , 1.5, 2.5, 3. ]])
    """
    if (size is None) == (scale_factor is None):
        raise ArgumentError("interpolate: give either `size` or `scale_factor`.")
    if mode not in _TAPS:
        raise ArgumentError(f"interpolate: `mode` should be one of {', '.join(_TAPS)}, but is {mode!r}.")
    if x.ndim < n_spatial:
        raise ShapeError(f"interpolate: `x` {x.shape} has no {n_spatial} spatial axes.")
    for i, (n_out, ratio) in enumerate(_targets(x.shape[-n_spatial:], size, scale_factor)):
        x = _resized(x, x.ndim - n_spatial + i, n_out, ratio, mode, align_corners)
    return x


def _targets(shape, size, scale_factor):
    """For each axis the new size, and the step in the input for one in the output."""
    n = len(shape)
    if size is not None:
        return [(new, old / new) for new, old in zip(sizes(size, n, "size"), shape, strict=True)]
    factors = (scale_factor,) * n if isinstance(scale_factor, int | float) else tuple(scale_factor)
    if len(factors) != n or min(factors) <= 0:
        raise ArgumentError(f"interpolate: `scale_factor` should be {n} positive numbers, but is {scale_factor}.")
    return [(int(old * factor), 1 / factor) for old, factor in zip(shape, factors, strict=True)]


def _resized(x: Array, axis: int, n_out: int, ratio: float, mode: Mode, align_corners: bool) -> Array:
    n_in = x.shape[axis]
    if n_out < 1 or n_in < 1:
        raise ArgumentError(f"interpolate: axis {axis} of size {n_in} cannot become {n_out}.")
    if align_corners and mode in ("linear", "cubic"):
        centres = np.arange(n_out) * ((n_in - 1) / (n_out - 1) if n_out > 1 else 0.0)
    else:
        centres = (np.arange(n_out) + 0.5) * ratio - 0.5
    columns = [1] * x.ndim
    columns[axis] = n_out
    total = None
    for index, weight in _TAPS[mode](centres, ratio):
        part = fnp.take(x, constant(np.clip(index, 0, n_in - 1).astype(np.int64), x), axis=axis)
        part = part if weight is None else part * constant(weight.reshape(columns).astype(x.dtype), x)
        total = part if total is None else total + part
    return total


def _nearest(centres: np.ndarray, ratio: float) -> Taps:
    return [(np.floor(np.arange(len(centres)) * ratio), None)]


def _nearest_exact(centres: np.ndarray, ratio: float) -> Taps:
    return [(np.floor(centres + 0.5), None)]


def _linear(centres: np.ndarray, ratio: float) -> Taps:
    centres = np.maximum(centres, 0)
    low = np.floor(centres)
    return [(low, 1 - (centres - low)), (low + 1, centres - low)]


def _cubic(centres: np.ndarray, ratio: float) -> Taps:
    low = np.floor(centres)
    return [(low + k, _cubic_kernel(np.abs(centres - low - k))) for k in (-1, 0, 1, 2)]


def _cubic_kernel(d: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)


_TAPS = {"nearest": _nearest, "nearest-exact": _nearest_exact, "linear": _linear, "cubic": _cubic}


class Upsample(Module):
    """`interpolate` as a layer: x [..., *spatial] -> the last `n_spatial` axes resized."""

    size: int | tuple[int, ...] | None = None
    scale_factor: float | tuple[float, ...] | None = None
    mode: Mode = "nearest"
    align_corners: bool = False
    n_spatial: int = 2

    def __call__(self, x: Array) -> Array:
        return interpolate(
            x,
            self.size,
            self.scale_factor,
            mode=self.mode,
            align_corners=self.align_corners,
            n_spatial=self.n_spatial,
        )
