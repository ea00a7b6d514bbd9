# SPDX-License-Identifier: MIT
"""Activations that have a parameter or draw random numbers. The others are functions, which `Sequential` takes too."""

from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.core.dtypes import default_float
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.activations import leaky_relu, prelu
from functorch_lite.nn.context import is_training, next_key
from functorch_lite.nn.module import Array, Module


class PReLU(Module):
    """x where positive, else weight * x, with a weight for all elements or for each channel.

    weight [num_parameters] starts at `init`. axis: where the channels are; 1 as in PyTorch, a negative one lets one
    example without a batch axis work too. Raises ShapeError when the axis has another size.
    Source: K. He and others, arXiv:1502.01852.
    """

    weight: Array
    axis: int

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, axis: int = 1, dtype: Any = None):
        self.weight = fnp.full((num_parameters,), init, dtype or default_float())
        self.axis = axis

    def __call__(self, x: Array) -> Array:
        return prelu(x, self.weight, self.axis)


class RReLU(Module):
    """x where positive, else a x: a is drawn from [lower, upper) for each element in training, else their mean.

    Draws in `nn.apply(model, x, key=key, training=True)` only. Raises ArgumentError when lower > upper.
    Source: B. Xu and others, arXiv:1505.00853.
    """

    lower: float
    upper: float

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3):
        if lower > upper:
            raise ArgumentError(f"RReLU: `lower` {lower} is above `upper` {upper}.")
        self.lower, self.upper = lower, upper

    def __call__(self, x: Array) -> Array:
        if not is_training():
            return leaky_relu(x, (self.lower + self.upper) / 2)
        slopes = random.uniform(next_key("RReLU"), x.shape, x.dtype, self.lower, self.upper)
        return fnp.where(x > 0, x, slopes * x)
