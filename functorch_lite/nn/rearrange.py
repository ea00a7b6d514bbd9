# SPDX-License-Identifier: MIT
"""Layers without parameters that move elements: patches, pixel shuffles, padding, axes. Channels first.

Source of the pixel shuffle: W. Shi and others, arXiv:1609.05158; of the channel shuffle: X. Zhang and others,
arXiv:1707.01083.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.conv import sizes
from functorch_lite.nn.module import Array, Module


class _Patches(Module):
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    stride: tuple[int, ...]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        stride: int | Sequence[int] = 1,
    ):
        self.kernel_size = sizes(kernel_size, 2, "kernel_size")
        self.dilation = sizes(dilation, 2, "dilation")
        self.padding = sizes(padding, 2, "padding")
        self.stride = sizes(stride, 2, "stride")

    def _counts(self, size: Sequence[int]) -> tuple[int, ...]:
        """How many patches there are along each axis of an image of this size."""
        counts = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(size, self.padding, self.dilation, self.kernel_size, self.stride, strict=True)
        )
        if min(counts) < 1:
            raise ShapeError(f"{type(self).__name__}: an image of {tuple(size)} is smaller than a patch.")
        return counts

    def _offsets(self) -> list[tuple[int, int]]:
        """Where the elements of the first patch lie."""
        (rows, columns), (down, right) = self.kernel_size, self.dilation
        return [(i * down, j * right) for i, j in itertools.product(range(rows), range(columns))]


class Unfold(_Patches):
    """x [..., c, h, w] -> patches [..., c * kernel elements, n]: the columns of a convolution as a matrix product.

    Raises ShapeError for an image smaller than a patch.

    >>> import numpy as np
    >>> Unfold(2)(np.arange(9.0).reshape(1, 3, 3))[:, 0]
    array([0., 1., 3., 4.])
    """

    def __call__(self, x: Array) -> Array:
        if x.ndim < 3:
            raise ShapeError(f"Unfold: `x` should be [..., channels, height, width], but is {x.shape}.")
        rows, columns = self._counts(x.shape[-2:])
        x = fnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(p, p) for p in self.padding])
        (down, right) = self.stride
        parts = [
            x[..., i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
            for i, j in self._offsets()
        ]
        patches = fnp.stack(parts, axis=-3)
        return fnp.reshape(patches, (*x.shape[:-3], -1, rows * columns))


class Fold(_Patches):
    """Patches [..., c * kernel elements, n] -> x [..., c, *output_size], overlaps summed: the transpose of `Unfold`.

    Raises ShapeError when the patches are not those of an image of this size.
    """

    output_size: tuple[int, ...]

    def __init__(
        self,
        output_size: int | Sequence[int],
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        stride: int | Sequence[int] = 1,
    ):
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = sizes(output_size, 2, "output_size")

    def __call__(self, x: Array) -> Array:
        rows, columns = self._counts(self.output_size)
        per_channel = math.prod(self.kernel_size)
        if x.ndim < 2 or x.shape[-1] != rows * columns or x.shape[-2] % per_channel:
            raise ShapeError(
                f"Fold: `x` should be [..., channels * {per_channel}, {rows * columns}], but is {x.shape}."
            )
        lead = (*x.shape[:-2], x.shape[-2] // per_channel)
        patches = fnp.reshape(x, (*lead, per_channel, rows, columns))
        zero, kept = x.dtype.type(0), ((0, 0, 0),) * len(lead)
        total = None
        for k, offset in enumerate(self._offsets()):
            spread = lax.pad(patches[..., k, :, :], zero, (*kept, *self._placed(offset, (rows, columns))))
            total = spread if total is None else total + spread
        return total

    def _placed(self, offset: tuple[int, int], counts: tuple[int, int]) -> tuple[tuple[int, int, int], ...]:
        """(before, after, between) to put one element of each patch in its place; negative ones crop the padding."""
        placed = []
        for size, p, s, o, n in zip(self.output_size, self.padding, self.stride, offset, counts, strict=True):
            before = o - p
            placed.append((before, size - before - (n - 1) * s - 1, s - 1))
        return tuple(placed)


class PixelShuffle(Module):
    """x [..., c * factor^2, h, w] -> [..., c, h * factor, w * factor]: channels become blocks of pixels.

    Raises ShapeError when the channels do not divide.
    """

    upscale_factor: int

    def __call__(self, x: Array) -> Array:
        r = self.upscale_factor
        if x.ndim < 3 or x.shape[-3] % r**2:
            raise ShapeError(f"PixelShuffle: `x` should be [..., channels * {r**2}, height, width], but is {x.shape}.")
        *lead, channels, h, w = x.shape
        blocks = fnp.reshape(x, (*lead, channels // r**2, r, r, h, w))
        blocks = fnp.moveaxis(blocks, (-4, -3), (-3, -1))
        return fnp.reshape(blocks, (*lead, channels // r**2, h * r, w * r))


class PixelUnshuffle(Module):
    """x [..., c, h * factor, w * factor] -> [..., c * factor^2, h, w]: the inverse of `PixelShuffle`.

    Raises ShapeError when height or width do not divide.
    """

    downscale_factor: int

    def __call__(self, x: Array) -> Array:
        r = self.downscale_factor
        if x.ndim < 3 or x.shape[-2] % r or x.shape[-1] % r:
            raise ShapeError(f"PixelUnshuffle: height and width of `x` {x.shape} should be multiples of {r}.")
        *lead, channels, h, w = x.shape
        blocks = fnp.reshape(x, (*lead, channels, h // r, r, w // r, r))
        blocks = fnp.moveaxis(blocks, (-3, -1), (-4, -3))
        return fnp.reshape(blocks, (*lead, channels * r**2, h // r, w // r))


class ChannelShuffle(Module):
    """x [..., c, h, w] with the channels of `groups` groups dealt out in turn. Raises ShapeError unless they divide."""

    groups: int

    def __call__(self, x: Array) -> Array:
        if x.ndim < 3 or x.shape[-3] % self.groups:
            raise ShapeError(f"ChannelShuffle: {self.groups} `groups` should divide the channels of {x.shape}.")
        *lead, channels, h, w = x.shape
        grouped = fnp.reshape(x, (*lead, self.groups, channels // self.groups, h, w))
        return fnp.reshape(fnp.swapaxes(grouped, -4, -3), x.shape)


class Unflatten(Module):
    """x with `axis` split into the axes `shape`, of which one may be -1."""

    axis: int
    shape: tuple[int, ...]

    def __call__(self, x: Array) -> Array:
        if not -x.ndim <= self.axis < x.ndim:
            raise ShapeError(f"Unflatten: `axis` {self.axis} is not in shape {x.shape}.")
        axis = self.axis % x.ndim
        return fnp.reshape(x, (*x.shape[:axis], *self.shape, *x.shape[axis + 1 :]))


_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class Pad(Module):
    """x with its last axes padded: padding is (left, right), (left, right, top, bottom) ... in PyTorch's order.

    mode: constant (with `value`), reflect, replicate or circular. Raises ArgumentError for an odd number of paddings or
    another mode, ShapeError for more axes than x has.
    """

    padding: tuple[int, ...]
    mode: Literal["constant", "reflect", "replicate", "circular"]
    value: float

    def __init__(
        self,
        padding: Sequence[int],
        mode: Literal["constant", "reflect", "replicate", "circular"] = "constant",
        value: float = 0.0,
    ):
        if len(padding) % 2 or not padding:
            raise ArgumentError(f"Pad: `padding` should be pairs (before, after), last axis first; it is {padding}.")
        if mode != "constant" and mode not in _MODES:
            raise ArgumentError(f"Pad: `mode` should be constant, {', '.join(_MODES)}; it is {mode!r}.")
        self.padding, self.mode, self.value = tuple(padding), mode, value

    def __call__(self, x: Array) -> Array:
        n = len(self.padding) // 2
        if x.ndim < n:
            raise ShapeError(f"Pad: `padding` is for {n} axes, but x is {x.shape}.")
        pairs = [self.padding[2 * i : 2 * i + 2] for i in reversed(range(n))]
        widths = [(0, 0)] * (x.ndim - n) + pairs
        if self.mode == "constant":
            return fnp.pad(x, widths, constant_values=self.value)
        return fnp.pad(x, widths, mode=_MODES[self.mode])
