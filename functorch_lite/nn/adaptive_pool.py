# SPDX-License-Identifier: MIT
"""Pooling to a given size, and pooling by a norm; channels first, every leading axis is left as it is.

Element i of n of an axis covers floor(i size / n) to ceil((i + 1) size / n), as in PyTorch.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.conv import sizes
from functorch_lite.nn.max_indices import flat_places, max_with_indices
from functorch_lite.nn.module import Array, Module
from functorch_lite.primitives.windows import reduce_window_sum


class _AdaptivePool(Module):
    output_size: tuple[int, ...]
    n_spatial: ClassVar[int]

    def __init__(self, output_size: int | Sequence[int]):
        self.output_size = sizes(output_size, self.n_spatial, "output_size")
        if min(self.output_size) < 1:
            raise ArgumentError(f"`output_size` should be positive, but is {self.output_size}.")

    def __call__(self, x: Array) -> Array:
        self._check(x)
        for axis, size in zip(range(-1, -self.n_spatial - 1, -1), reversed(self.output_size), strict=True):
            x = fnp.moveaxis(self._pooled(fnp.moveaxis(x, axis, -1), size), -1, axis)
        return x

    def _check(self, x: Array) -> None:
        n = self.n_spatial
        if x.ndim < n or 0 in x.shape[-n:]:
            raise ShapeError(f"{type(self).__name__}: expected at least {n} axes with elements, got {x.shape}.")

    def _pooled(self, x: Array, size: int) -> Array:
        """x with its last axis pooled to `size`."""
        raise NotImplementedError


class _AdaptiveAvgPool(_AdaptivePool):
    def _pooled(self, x: Array, size: int) -> Array:
        start, stop = _windows(x.shape[-1], size)
        places = np.arange(x.shape[-1])
        inside = (places >= start[:, None]) & (places < stop[:, None])
        averaging = inside / inside.sum(axis=1, keepdims=True)
        return fnp.matmul(x, constant(averaging.T.astype(x.dtype), x))


class _AdaptiveMaxPool(_AdaptivePool):
    return_indices: bool

    def __init__(self, output_size: int | Sequence[int], *, return_indices: bool = False):
        super().__init__(output_size)
        self.return_indices = return_indices

    def __call__(self, x: Array) -> Any:
        if not self.return_indices:
            return super().__call__(x)
        self._check(x)
        spatial = x.shape[-self.n_spatial :]
        per_axis = [_covered(*_windows(n, size)) for n, size in zip(spatial, self.output_size, strict=True)]
        return max_with_indices(x, flat_places(per_axis, spatial))

    def _pooled(self, x: Array, size: int) -> Array:
        start, stop = _windows(x.shape[-1], size)
        windows = fnp.take(x, constant(_covered(start, stop), x), axis=-1)
        first = fnp.argmax(windows, axis=-1)
        return fnp.take_along_axis(windows, first[..., None], axis=-1)[..., 0]


def _covered(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """The places of each window, all as long as the longest: the shorter ones repeat their last element."""
    return np.minimum(start[:, None] + np.arange((stop - start).max()), stop[:, None] - 1)


def _windows(n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of the n_out windows starts and stops."""
    i = np.arange(n_out)
    return i * n_in // n_out, -(-(i + 1) * n_in // n_out)


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """x [..., length] -> means of windows that tile the input [..., output_size]."""

    n_spatial = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """x [..., height, width] -> means of windows that tile the input [..., *output_size]."""

    n_spatial = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """x [..., depth, height, width] -> means of windows that tile the input [..., *output_size]."""

    n_spatial = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """x [..., length] -> the largest elements of windows that tile the input [..., output_size].

    The gradient goes to the first of equal elements. return_indices: the result is a pair with the index of each
    element in the flattened spatial axes.
    """

    n_spatial = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """x [..., height, width] -> [..., *output_size]; see `AdaptiveMaxPool1d`."""

    n_spatial = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """x [..., depth, height, width] -> [..., *output_size]; see `AdaptiveMaxPool1d`."""

    n_spatial = 3


class _LPPool(Module):
    norm_type: float
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    n_spatial: ClassVar[int]

    def __init__(self, norm_type: float, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None):
        if norm_type <= 0:
            raise ArgumentError(f"`norm_type` should be positive, but is {norm_type}.")
        self.norm_type = norm_type
        self.kernel_size = sizes(kernel_size, self.n_spatial, "kernel_size")
        self.stride = self.kernel_size if stride is None else sizes(stride, self.n_spatial, "stride")

    def __call__(self, x: Array) -> Array:
        lead = (1,) * (x.ndim - self.n_spatial)
        ones, no_padding = (1,) * x.ndim, ((0, 0),) * x.ndim
        powers = reduce_window_sum(
            x**self.norm_type, (*lead, *self.kernel_size), (*lead, *self.stride), no_padding, ones
        )
        return powers ** (1 / self.norm_type)


class LPPool1d(_LPPool):
    """(sum of x^p)^(1 / p), p = norm_type, over each window of x [..., length]."""

    n_spatial = 1


class LPPool2d(_LPPool):
    """(sum of x^p)^(1 / p), p = norm_type, over each window of x [..., height, width]."""

    n_spatial = 2


class LPPool3d(_LPPool):
    """(sum of x^p)^(1 / p), p = norm_type, over each window of x [..., depth, height, width]."""

    n_spatial = 3
