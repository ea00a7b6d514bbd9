# SPDX-License-Identifier: MIT
"""Convolutions in one to three dimensions, channels first: x [..., channels, *spatial].

    out_i = floor((in_i + 2 padding - dilation (kernel - 1) - 1) / stride) + 1

Weights are [out_channels, in_channels / groups, *kernel]; defaults and initial values are PyTorch's.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import functorch_lite.numpy as fnp
from functorch_lite import lax, random
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.initializers import Initializer, torch_default
from functorch_lite.nn.module import Array, Module

Padding = int | Sequence[int] | Literal["same", "valid"]
Pairs = tuple[tuple[int, int], ...]

_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def sizes(value: int | Sequence[int], n: int, name: str) -> tuple[int, ...]:
    """`value` for each of `n` spatial dimensions: (3, 3) for 3, or the n values given."""
    found = (value,) * n if isinstance(value, int) else tuple(value)
    if len(found) != n:
        raise ArgumentError(f"`{name}` should be an int or {n} ints, but is {value!r}.")
    return found


def padding_pairs(padding: Padding, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> Pairs:
    """(before, after) of each dimension; "same" keeps the size at stride 1, its odd element after."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(padding, str):
        raise ArgumentError(f"`padding` should be 'same', 'valid' or ints, but is {padding!r}.")
    return tuple((p, p) for p in sizes(padding, len(kernel), "padding"))


def with_one_batch_axis(function: Any, x: Array, n_axes: int) -> Array:
    """`function` of x [batch, ...], for x with any number of axes before its last `n_axes`."""
    lead = x.shape[: x.ndim - n_axes]
    if len(lead) == 1:
        return function(x)
    out = function(fnp.reshape(x, (math.prod(lead), *x.shape[len(lead) :])))
    return fnp.reshape(out, (*lead, *out.shape[1:]))


class _ConvBase(Module):
    """What all convolutions have in common: parameters and the settings per dimension."""

    weight: Array
    bias: Array | None
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    n_spatial: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = 0,
        *,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        init: Initializer | None = None,
        dtype: Any = None,
        key: Array,
    ):
        n = self.n_spatial
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(f"`groups` {groups} should divide both {in_channels} and {out_channels} channels.")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = sizes(kernel_size, n, "kernel_size")
        self.stride = sizes(stride, n, "stride")
        self.dilation = sizes(dilation, n, "dilation")
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ArgumentError("padding='same' needs stride 1.")
        self.padding = padding_pairs(padding, self.kernel_size, self.dilation)
        shape = self._weight_shape()
        default = torch_default(math.prod(shape[1:]))
        weight_key, bias_key = random.split(key)
        self.weight = (init or default)(weight_key, shape, dtype)
        self.bias = default(bias_key, (out_channels,), dtype) if bias else None

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def _checked(self, x: Array) -> Array:
        n = self.n_spatial
        if x.ndim <= n or x.shape[-n - 1] != self.in_channels:
            axes = ", ".join(["...", str(self.in_channels), *"dhw"[-n:]])
            raise ShapeError(f"{type(self).__name__}: expected [{axes}], got {x.shape}.")
        return x

    def _with_bias(self, out: Array) -> Array:
        return out if self.bias is None else out + fnp.reshape(self.bias, (-1, *(1,) * self.n_spatial))


class _Conv(_ConvBase):
    padding_mode: str

    def __init__(self, *args: Any, padding_mode: str = "zeros", **kwargs: Any):
        super().__init__(*args, **kwargs)
        if padding_mode not in ("zeros", *_MODES):
            raise ArgumentError(f"`padding_mode` should be one of zeros, {', '.join(_MODES)}; it is {padding_mode!r}.")
        self.padding_mode = padding_mode

    def __call__(self, x: Array) -> Array:
        return self._with_bias(with_one_batch_axis(self._convolve, self._checked(x), self.n_spatial + 1))

    def _convolve(self, x):
        padding = self.padding
        if self.padding_mode != "zeros":
            x = fnp.pad(x, ((0, 0), (0, 0), *padding), mode=_MODES[self.padding_mode])
            padding = ((0, 0),) * self.n_spatial
        return lax.conv_general_dilated(
            x, self.weight, self.stride, padding, rhs_dilation=self.dilation, feature_group_count=self.groups
        )


class Conv1d(_Conv):
    """x [..., in_channels, length] -> [..., out_channels, length']. Arguments as in `Conv2d`."""

    n_spatial = 1


class Conv2d(_Conv):
    """x [..., in_channels, height, width] -> [..., out_channels, height', width'].

    kernel_size, stride, padding, dilation: one int, or one for each dimension; padding also "same" or "valid".
    padding_mode: zeros, reflect, replicate or circular. groups: channels are connected within their group only.

    >>> import numpy as np
    >>> Conv2d(1, 8, 3, padding=1, key=random.key(0))(np.ones((2, 1, 28, 28), np.float32)).shape
    (2, 8, 28, 28)
    """

    n_spatial = 2


class Conv3d(_Conv):
    """x [..., in_channels, depth, height, width] -> [..., out_channels, ...]. Arguments as in `Conv2d`."""

    n_spatial = 3


class _ConvTranspose(_ConvBase):
    """The transpose of a convolution: weight [in_channels, out_channels / groups, *kernel]."""

    output_padding: tuple[int, ...]

    def __init__(self, *args: Any, output_padding: int | Sequence[int] = 0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.output_padding = sizes(output_padding, self.n_spatial, "output_padding")

    def _weight_shape(self):
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def __call__(self, x: Array) -> Array:
        return self._with_bias(with_one_batch_axis(self._convolve, self._checked(x), self.n_spatial + 1))

    def _convolve(self, x):
        # A convolution of the input, spread by the stride, with the flipped kernel, in and out exchanged per group.
        n, groups = self.n_spatial, self.groups
        kernel = fnp.flip(self.weight, axis=tuple(range(2, 2 + n)))
        kernel = fnp.reshape(kernel, (groups, self.in_channels // groups, -1, *self.kernel_size))
        kernel = fnp.reshape(fnp.swapaxes(kernel, 1, 2), (self.out_channels, -1, *self.kernel_size))
        spans = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        padding = tuple(
            (span - low, span - high + extra)
            for span, (low, high), extra in zip(spans, self.padding, self.output_padding, strict=True)
        )
        return lax.conv_general_dilated(
            x,
            kernel,
            (1,) * n,
            padding,
            lhs_dilation=self.stride,
            rhs_dilation=self.dilation,
            feature_group_count=groups,
        )


class ConvTranspose1d(_ConvTranspose):
    """x [..., in_channels, length] -> [..., out_channels, length']. Arguments as in `ConvTranspose2d`."""

    n_spatial = 1


class ConvTranspose2d(_ConvTranspose):
    """x [..., in_channels, height, width] -> [..., out_channels, height', width'], upsampling by the stride.

    out_i = (in_i - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1
    """

    n_spatial = 2


class ConvTranspose3d(_ConvTranspose):
    """x [..., in_channels, depth, height, width] -> [..., out_channels, ...]. Arguments as in `ConvTranspose2d`."""

    n_spatial = 3
