# SPDX-License-Identifier: MIT
"""Dropout: zeros at random in training, the identity in inference.

Source: N. Srivastava and others, "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014).
"""

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.context import is_training, next_key
from functorch_lite.nn.module import Array, Module


class Dropout(Module):
    """x with each element zeroed with probability `p`, the others divided by 1 - p, so that the mean stays.

    Acts in `nn.apply(model, x, key=key, training=True)` only. `shared_axes` get one draw together: (-2, -1) drops
    whole channels of an image, as PyTorch's Dropout2d.
    """

    p: float
    shared_axes: tuple[int, ...]

    def __init__(self, p: float = 0.5, *, shared_axes: tuple[int, ...] = ()):
        if not 0 <= p <= 1:
            raise ArgumentError(f"Dropout: `p` should be in 0..1, but is {p}.")
        self.p, self.shared_axes = p, tuple(shared_axes)

    def __call__(self, x: Array) -> Array:
        if not is_training() or self.p == 0:
            return x
        if self.p == 1:
            return fnp.zeros_like(x)
        shared = {axis % x.ndim for axis in self.shared_axes}
        shape = tuple(1 if i in shared else n for i, n in enumerate(x.shape))
        kept = random.bernoulli(next_key("Dropout"), 1 - self.p, shape)
        return fnp.where(kept, x / (1 - self.p), 0)
