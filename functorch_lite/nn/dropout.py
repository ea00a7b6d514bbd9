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
        kept = random.bernoulli(next_key("Dropout"), 1 - self.p, _drawn_shape(x, self.shared_axes))
        return fnp.where(kept, x / (1 - self.p), 0)


def _drawn_shape(x: Array, shared_axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of x with size 1 on the axes that get one draw together."""
    shared = {axis % x.ndim for axis in shared_axes}
    return tuple(1 if i in shared else n for i, n in enumerate(x.shape))


class Dropout1d(Dropout):
    """x [..., channels, length] with whole channels dropped, otherwise as `Dropout`."""

    def __init__(self, p: float = 0.5):
        super().__init__(p, shared_axes=(-1,))


class Dropout2d(Dropout):
    """x [..., channels, height, width] with whole channels dropped, otherwise as `Dropout`."""

    def __init__(self, p: float = 0.5):
        super().__init__(p, shared_axes=(-2, -1))


class Dropout3d(Dropout):
    """x [..., channels, depth, height, width] with whole channels dropped, otherwise as `Dropout`."""

    def __init__(self, p: float = 0.5):
        super().__init__(p, shared_axes=(-3, -2, -1))


class DropPath(Module):
    """x with whole examples, along axis 0, zeroed with probability `p` and the others divided by 1 - p, in training.

    For the branch of a residual block: x + drop_path(block(x)). Source: G. Huang and others, arXiv:1603.09382.
    """

    p: float

    def __init__(self, p: float = 0.5):
        if not 0 <= p < 1:
            raise ArgumentError(f"DropPath: `p` should be in [0, 1), but is {p}.")
        self.p = p

    def __call__(self, x: Array) -> Array:
        if not is_training() or self.p == 0:
            return x
        kept = random.bernoulli(next_key("DropPath"), 1 - self.p, (*x.shape[:1], *(1,) * (x.ndim - 1)))
        return fnp.where(kept, x / (1 - self.p), 0)


class AlphaDropout(Module):
    """Dropout for `selu`: dropped elements become its lowest value, and mean 0 and variance 1 stay; in training.

    shared_axes get one draw together, as in `Dropout`: (-2, -1) makes PyTorch's FeatureAlphaDropout of images.
    Source: G. Klambauer and others, arXiv:1706.02515.
    """

    p: float
    shared_axes: tuple[int, ...]

    def __init__(self, p: float = 0.5, *, shared_axes: tuple[int, ...] = ()):
        if not 0 <= p < 1:
            raise ArgumentError(f"AlphaDropout: `p` should be in [0, 1), but is {p}.")
        self.p, self.shared_axes = p, tuple(shared_axes)

    def __call__(self, x: Array) -> Array:
        if not is_training() or self.p == 0:
            return x
        lowest = -1.7580993408473766
        scale = ((1 - self.p) * (1 + self.p * lowest**2)) ** -0.5
        kept = random.bernoulli(next_key("AlphaDropout"), 1 - self.p, _drawn_shape(x, self.shared_axes))
        return scale * (fnp.where(kept, x, lowest) - self.p * lowest)
