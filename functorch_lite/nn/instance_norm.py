# SPDX-License-Identifier: MIT
"""Normalisation of each example and channel by itself, and by neighbouring channels.

Sources: D. Ulyanov and others, arXiv:1607.08022; A. Krizhevsky and others, "ImageNet classification with deep
convolutional neural networks", NIPS 2012.
"""

from typing import Any, ClassVar

import functorch_lite.numpy as fnp
from functorch_lite.errors import ShapeError
from functorch_lite.nn.islands import in_float32
from functorch_lite.nn.module import Array, Module
from functorch_lite.nn.norm import GroupNorm
from functorch_lite.primitives.windows import reduce_window_sum


class _InstanceNorm(GroupNorm):
    dimensions: ClassVar[int]

    def __init__(self, num_features: int, eps: float = 1e-5, *, affine: bool = False, dtype: Any = None):
        super().__init__(num_features, num_features, eps, affine=affine, n_spatial=self.dimensions, dtype=dtype)


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each example of x [..., num_features, length]; affine adds weight and bias."""

    dimensions = 1


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each example of x [..., num_features, height, width]; affine adds weight and bias."""

    dimensions = 2


class InstanceNorm3d(_InstanceNorm):
    """Normalises each channel of each example of x [..., num_features, depth, height, width]; see `InstanceNorm2d`."""

    dimensions = 3


class LocalResponseNorm(Module):
    """x / (k + alpha m)^beta for x [..., channels, *spatial], m being the mean of x^2 over `size` channels around each.

    n_spatial: how many axes follow the channels. Channels outside count as 0. Raises ShapeError without a channel axis.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    n_spatial: int = 2

    @in_float32
    def __call__(self, x: Array) -> Array:
        axis = x.ndim - self.n_spatial - 1
        if axis < 0:
            raise ShapeError(f"LocalResponseNorm: `x` {x.shape} needs channels and {self.n_spatial} spatial axes.")
        ones = (1,) * x.ndim
        window = tuple(self.size if i == axis else 1 for i in range(x.ndim))
        around = tuple((self.size // 2, (self.size - 1) // 2) if i == axis else (0, 0) for i in range(x.ndim))
        mean = reduce_window_sum(x * x, window, ones, around, ones) / self.size
        return x / fnp.power(self.k + self.alpha * mean, self.beta)
