# SPDX-License-Identifier: MIT
"""The partial inverse of max pooling, channels first: every element goes back to where it was found.

Source: M. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks", arXiv:1311.2901.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentTypeError, ShapeError
from functorch_lite.nn.conv import sizes
from functorch_lite.nn.module import Array, Module
from functorch_lite.transforms.arguments import on_its_device


class _MaxUnpool(Module):
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    n_spatial: ClassVar[int]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
    ):
        n = self.n_spatial
        self.kernel_size = sizes(kernel_size, n, "kernel_size")
        self.stride = self.kernel_size if stride is None else sizes(stride, n, "stride")
        self.padding = sizes(padding, n, "padding")

    @on_its_device
    def __call__(self, x: Array, indices: Array, output_size: Sequence[int] | None = None) -> Array:
        self._check(x, indices)
        n = self.n_spatial
        spatial = self._output_size(x.shape[-n:], output_size)
        lead = x.shape[:-n]
        planes = math.prod(lead)
        out = fnp.zeros((planes, math.prod(spatial)), x.dtype)
        rows = constant(np.arange(planes)[:, None], x)
        places = fnp.reshape(indices, (planes, -1))
        out = fnp.at(out)[rows, places].set(fnp.reshape(x, (planes, -1)))
        return fnp.reshape(out, (*lead, *spatial))

    def _check(self, x: Array, indices: Array) -> None:
        name, n = type(self).__name__, self.n_spatial
        if indices.dtype.kind not in "iu":
            raise ArgumentTypeError(
                f"{name}: `indices` should be the integers of a pool with return_indices=True, but are {indices.dtype}."
            )
        if x.ndim < n or x.shape != indices.shape:
            raise ShapeError(
                f"{name}: `x` should have {n} spatial axes or more and the shape of `indices`, but x is {x.shape} and "
                f"indices are {indices.shape}."
            )

    def _output_size(self, spatial: Sequence[int], wanted: Sequence[int] | None) -> tuple[int, ...]:
        """The size of the pool's input: what `wanted` says, which the strides leave open, or the smallest."""
        settings = zip(spatial, self.kernel_size, self.stride, self.padding, strict=True)
        usual = tuple((size - 1) * s - 2 * p + k for size, k, s, p in settings)
        if wanted is None:
            return usual
        found = tuple(wanted)[-self.n_spatial :]
        if len(found) != len(usual) or any(abs(a - b) >= s for a, b, s in zip(found, usual, self.stride, strict=False)):
            raise ShapeError(
                f"{type(self).__name__}: `output_size` should differ from {usual} by less than the stride "
                f"{self.stride} on each axis, but is {tuple(wanted)}."
            )
        return found


class MaxUnpool1d(_MaxUnpool):
    """x and indices [..., length] -> [..., length']; see `MaxUnpool2d`."""

    n_spatial = 1


class MaxUnpool2d(_MaxUnpool):
    """x [..., height, width] put at `indices`, zeros elsewhere: [..., height', width'].

    `layer(x, indices, output_size=None)`: indices are those of `MaxPool2d(..., return_indices=True)` with the same
    settings; output_size is the shape of that pool's input, when the smallest that fits is not meant. Where windows
    overlapped and met in one element, the last of them is written.

    Raises ShapeError when x and indices differ in shape and for an output_size that does not fit, ArgumentTypeError for
    indices that are no integers, IndexError for those outside of the output.

    >>> from functorch_lite.nn import MaxPool2d
    >>> x, indices = MaxPool2d(2, return_indices=True)(np.arange(8.0).reshape(1, 2, 4))
    >>> MaxUnpool2d(2)(x, indices)
    array([[[0., 0., 0., 0.],
            [0., 5., 0., 7.]]])
    """

    n_spatial = 2


class MaxUnpool3d(_MaxUnpool):
    """x and indices [..., depth, height, width] -> [..., depth', height', width']; see `MaxUnpool2d`."""

    n_spatial = 3
