# SPDX-License-Identifier: MIT
"""The activations as layers, under PyTorch's names: a function together with its settings.

    nn.Sequential(nn.Linear(4, 8, key=key), nn.LeakyReLU(0.2))      # nn.relu, a plain function, does as well

Two layers with the same settings are equal, which two `functools.partial` are not: models made by one program have one
structure.
"""

from typing import Literal

from functorch_lite.nn import activations
from functorch_lite.nn.module import Array, Module


class CELU(Module):
    """x -> x where positive, else alpha (exp(x / alpha) - 1); see `celu`."""

    alpha: float = 1.0

    def __call__(self, x: Array) -> Array:
        return activations.celu(x, self.alpha)


class ELU(Module):
    """x -> x where positive, else alpha (exp(x) - 1); see `elu`."""

    alpha: float = 1.0

    def __call__(self, x: Array) -> Array:
        return activations.elu(x, self.alpha)


class GELU(Module):
    """x -> x Phi(x), exact or by tanh; see `gelu`."""

    approximate: bool | Literal["none", "tanh"] = False

    def __call__(self, x: Array) -> Array:
        return activations.gelu(x, self.approximate)


class GLU(Module):
    """x -> a sigmoid(b) for the halves a, b of the axis; see `glu`."""

    axis: int = -1

    def __call__(self, x: Array) -> Array:
        return activations.glu(x, self.axis)


class Hardshrink(Module):
    """x -> x where |x| > lambd, else 0; see `hard_shrink`."""

    lambd: float = 0.5

    def __call__(self, x: Array) -> Array:
        return activations.hard_shrink(x, self.lambd)


class Hardsigmoid(Module):
    """x -> min(max(x / 6 + 1 / 2, 0), 1); see `hard_sigmoid`."""

    def __call__(self, x: Array) -> Array:
        return activations.hard_sigmoid(x)


class Hardswish(Module):
    """x -> x min(max(x / 6 + 1 / 2, 0), 1); see `hard_swish`."""

    def __call__(self, x: Array) -> Array:
        return activations.hard_swish(x)


class Hardtanh(Module):
    """x -> min(max(x, low), high); see `hard_tanh`."""

    low: float = -1.0
    high: float = 1.0

    def __call__(self, x: Array) -> Array:
        return activations.hard_tanh(x, self.low, self.high)


class LeakyReLU(Module):
    """x -> x where positive, else negative_slope * x; see `leaky_relu`."""

    negative_slope: float = 0.01

    def __call__(self, x: Array) -> Array:
        return activations.leaky_relu(x, self.negative_slope)


class LogSigmoid(Module):
    """x -> log(1 / (1 + exp(-x))); see `log_sigmoid`."""

    def __call__(self, x: Array) -> Array:
        return activations.log_sigmoid(x)


class LogSoftmax(Module):
    """x -> log(softmax(x)) along the axis; see `log_softmax`."""

    axis: int = -1

    def __call__(self, x: Array) -> Array:
        return activations.log_softmax(x, self.axis)


class Mish(Module):
    """x -> x tanh(softplus(x)); see `mish`."""

    def __call__(self, x: Array) -> Array:
        return activations.mish(x)


class ReLU(Module):
    """x -> max(x, 0); see `relu`."""

    def __call__(self, x: Array) -> Array:
        return activations.relu(x)


class ReLU6(Module):
    """x -> min(max(x, 0), 6); see `relu6`."""

    def __call__(self, x: Array) -> Array:
        return activations.relu6(x)


class SELU(Module):
    """x -> the self-normalising elu; see `selu`."""

    def __call__(self, x: Array) -> Array:
        return activations.selu(x)


class SiLU(Module):
    """x -> x / (1 + exp(-x)), also called swish; see `silu`."""

    def __call__(self, x: Array) -> Array:
        return activations.silu(x)


class Sigmoid(Module):
    """x -> 1 / (1 + exp(-x)); see `sigmoid`."""

    def __call__(self, x: Array) -> Array:
        return activations.sigmoid(x)


class Softmax(Module):
    """x -> exp(x) / sum(exp(x)) along the axis; -3 for the channels of images; see `softmax`."""

    axis: int = -1

    def __call__(self, x: Array) -> Array:
        return activations.softmax(x, self.axis)


class Softmin(Module):
    """x -> softmax(-x) along the axis; see `softmin`."""

    axis: int = -1

    def __call__(self, x: Array) -> Array:
        return activations.softmin(x, self.axis)


class Softplus(Module):
    """x -> log(1 + exp(beta x)) / beta; see `softplus`."""

    beta: float = 1.0

    def __call__(self, x: Array) -> Array:
        return activations.softplus(x, self.beta)


class Softshrink(Module):
    """x -> x brought lambd closer to 0, and 0 within; see `soft_shrink`."""

    lambd: float = 0.5

    def __call__(self, x: Array) -> Array:
        return activations.soft_shrink(x, self.lambd)


class Softsign(Module):
    """x -> x / (1 + |x|); see `softsign`."""

    def __call__(self, x: Array) -> Array:
        return activations.softsign(x)


class Tanh(Module):
    """x -> the hyperbolic tangent; see `tanh`."""

    def __call__(self, x: Array) -> Array:
        return activations.tanh(x)


class Tanhshrink(Module):
    """x -> x - tanh(x); see `tanh_shrink`."""

    def __call__(self, x: Array) -> Array:
        return activations.tanh_shrink(x)


class Threshold(Module):
    """x -> x where above threshold, else value; see `threshold`."""

    threshold: float
    value: float

    def __call__(self, x: Array) -> Array:
        return activations.threshold(x, self.threshold, self.value)
