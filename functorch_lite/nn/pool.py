# SPDX-License-Identifier: MIT
"""Pooling over windows, channels first: x [..., channels, *spatial]; every leading axis is left as it is.

The gradient of a maximum goes to the first of equal elements in the window, as in PyTorch.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.conv import sizes
from functorch_lite.nn.max_indices import flat_places, max_with_indices
from functorch_lite.nn.module import Array, Module
from functorch_lite.primitives.windows import reduce_window_max, reduce_window_sum


class _Pool(Module):
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool
    n_spatial: ClassVar[int]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        *,
        ceil_mode: bool = False,
    ):
        n = self.n_spatial
        self.kernel_size = sizes(kernel_size, n, "kernel_size")
        self.stride = self.kernel_size if stride is None else sizes(stride, n, "stride")
        self.padding = sizes(padding, n, "padding")
        self.ceil_mode = ceil_mode
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ArgumentError(f"`padding` {self.padding} should be at most half the kernel size {self.kernel_size}.")

    def _windows(self, x: Array, dilation: tuple[int, ...]) -> Any:
        """window, strides, padding pairs and dilation for every axis of x."""
        n = self.n_spatial
        if x.ndim < n:
            raise ShapeError(f"{type(self).__name__}: expected at least {n} axes, got {x.shape}.")
        lead = (1,) * (x.ndim - n)
        pairs = [
            (p, p + self._overhang(size, k, s, p, d))
            for size, k, s, p, d in zip(
                x.shape[-n:], self.kernel_size, self.stride, self.padding, dilation, strict=True
            )
        ]
        no_pad = ((0, 0),) * len(lead)
        return (*lead, *self.kernel_size), (*lead, *self.stride), (*no_pad, *pairs), (*lead, *dilation)

    def _overhang(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
        if not self.ceil_mode:
            return 0
        span = size + 2 * padding - dilation * (kernel - 1) - 1
        n_out = -(-span // stride) + 1
        if (n_out - 1) * stride >= size + padding:  # a window must start inside the input or its left padding
            n_out -= 1
        return max((n_out - 1) * stride - span, 0)


class _MaxPool(_Pool):
    dilation: tuple[int, ...]
    return_indices: bool

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        *,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode)
        self.dilation = sizes(dilation, self.n_spatial, "dilation")
        self.return_indices = return_indices

    def __call__(self, x: Array) -> Any:
        windows = self._windows(x, self.dilation)
        return max_with_indices(x, self._places(x, windows)) if self.return_indices else reduce_window_max(x, *windows)

    def _places(self, x: Array, windows: Any) -> np.ndarray:
        n = self.n_spatial
        per_axis = []
        for size, window, stride, pair, dilation in zip(x.shape, *windows, strict=True):
            span = dilation * (window - 1) + 1
            starts = np.arange((size + sum(pair) - span) // stride + 1) * stride - pair[0]
            per_axis.append(starts[:, None] + dilation * np.arange(window))
        return flat_places(per_axis[-n:], x.shape[-n:])


class _AvgPool(_Pool):
    count_include_pad: bool

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode=ceil_mode)
        self.count_include_pad = count_include_pad

    def __call__(self, x: Array) -> Array:
        windows = self._windows(x, (1,) * self.n_spatial)
        total = reduce_window_sum(x, *windows)
        if any(self.padding) or self.ceil_mode:
            return total / constant(self._counts(x).astype(x.dtype), x)
        return total / math.prod(self.kernel_size)

    def _counts(self, x: Array) -> np.ndarray:
        """How many elements each window covers: the input's, and with `count_include_pad` those of the padding."""
        per_axis = []
        spatial = zip(x.shape[-self.n_spatial :], self.kernel_size, self.stride, self.padding, strict=True)
        for size, kernel, stride, padding in spatial:
            n_out = (size + 2 * padding + self._overhang(size, kernel, stride, padding, 1) - kernel) // stride + 1
            start = np.arange(n_out) * stride - padding
            low, high = (-padding, size + padding) if self.count_include_pad else (0, size)
            per_axis.append(np.minimum(start + kernel, high) - np.maximum(start, low))
        return math.prod(np.ix_(*per_axis), start=np.ones((), np.int64))  # type: ignore[return-value]


class MaxPool1d(_MaxPool):
    """The largest element of each window of x [..., length]. Arguments as in `MaxPool2d`."""

    n_spatial = 1


class MaxPool2d(_MaxPool):
    """The largest element of each window of x [..., height, width].

    stride defaults to kernel_size; padding counts as -inf; ceil_mode lets the last window overhang. return_indices: the
    result is a pair with the index of each element in the flattened [height, width], as `MaxUnpool2d` takes it.

    >>> MaxPool2d(2)(np.arange(16.0).reshape(1, 4, 4))
    array([[[ 5.,  7.],
            [13., 15.]]])
    """

    n_spatial = 2


class MaxPool3d(_MaxPool):
    """The largest element of each window of x [..., depth, height, width]. Arguments as in `MaxPool2d`."""

    n_spatial = 3


class AvgPool1d(_AvgPool):
    """The mean of each window of x [..., length]. Arguments as in `AvgPool2d`."""

    n_spatial = 1


class AvgPool2d(_AvgPool):
    """The mean of each window of x [..., height, width]; count_include_pad=False leaves out the padding."""

    n_spatial = 2


class AvgPool3d(_AvgPool):
    """The mean of each window of x [..., depth, height, width]. Arguments as in `AvgPool2d`."""

    n_spatial = 3


class GlobalAvgPool2d(Module):
    """x [..., channels, height, width] -> the mean over height and width [..., channels]."""

    def __call__(self, x: Array) -> Array:
        return fnp.mean(x, axis=(-2, -1))
