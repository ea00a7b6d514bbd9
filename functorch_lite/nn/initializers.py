# SPDX-License-Identifier: MIT
"""Initial values of parameters: `initializer(key, shape, dtype) -> array`.

Weights are laid out as in PyTorch: [out, in, *kernel], so fan_in = in * prod(kernel) and fan_out = out * prod(kernel).

Sources: X. Glorot, Y. Bengio (2010); K. He and others, arXiv:1502.01852; A. Saxe and others, arXiv:1312.6120.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.core.dtypes import default_float
from functorch_lite.errors import ArgumentError

Initializer = Callable[..., Any]
Mode = Literal["fan_in", "fan_out", "fan_avg"]


def zeros(key: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Zeros of `shape`; `key` is not looked at."""
    return fnp.zeros(tuple(shape), dtype or default_float())


def ones(key: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Ones of `shape`; `key` is not looked at."""
    return fnp.ones(tuple(shape), dtype or default_float())


def constant(value: float) -> Initializer:
    """An initializer that fills with `value`."""
    return lambda key, shape, dtype=None: fnp.full(tuple(shape), value, dtype or default_float())


def uniform(low: float = 0.0, high: float = 1.0) -> Initializer:
    """An initializer that draws from [low, high)."""
    return lambda key, shape, dtype=None: random.uniform(key, tuple(shape), dtype or default_float(), low, high)


def normal(std: float = 1.0, mean: float = 0.0) -> Initializer:
    """An initializer that draws from the normal distribution."""

    def init(key, shape, dtype=None):
        return random.normal(key, tuple(shape), dtype or default_float()) * std + mean

    return init


def truncated_normal(std: float = 1.0, mean: float = 0.0, low: float = -2.0, high: float = 2.0) -> Initializer:
    """An initializer that draws from the normal distribution cut to [low, high], both in the unit of `mean`."""

    def init(key, shape, dtype=None):
        bounds = (low - mean) / std, (high - mean) / std
        return random.truncated_normal(key, *bounds, tuple(shape), dtype or default_float()) * std + mean

    return init


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight [out, in, *kernel].

    >>> fans((16, 8, 3, 3))
    (72, 144)
    """
    if len(shape) < 2:
        raise ArgumentError(f"fan_in and fan_out need a weight with 2 or more axes, but its shape is {tuple(shape)}.")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def variance_scaling(
    scale: float, mode: Mode, distribution: Literal["uniform", "normal", "truncated_normal"]
) -> Initializer:
    """An initializer with variance scale / n, where n is fan_in, fan_out or their mean.

    Raises ArgumentError for another mode or distribution, and for weights with fewer than 2 axes.
    """
    if mode not in ("fan_in", "fan_out", "fan_avg"):
        raise ArgumentError(f"variance_scaling: `mode` should be fan_in, fan_out or fan_avg, but is {mode!r}.")
    # 0.8796 is the standard deviation of the standard normal distribution cut to [-2, 2].
    draws = {
        "uniform": lambda std: uniform(-math.sqrt(3) * std, math.sqrt(3) * std),
        "normal": normal,
        "truncated_normal": lambda std: truncated_normal(std / _CUT_STD, 0.0, -2 * std / _CUT_STD, 2 * std / _CUT_STD),
    }
    if distribution not in draws:
        raise ArgumentError(f"variance_scaling: `distribution` should be one of {', '.join(draws)}.")

    def init(key, shape, dtype=None):
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        return draws[distribution](math.sqrt(scale / max(n, 1)))(key, shape, dtype)

    return init


_CUT_STD = 0.87962566103423978


def xavier_uniform(gain: float = 1.0) -> Initializer:
    """Uniform with variance 2 gain^2 / (fan_in + fan_out) (Glorot)."""
    return variance_scaling(gain**2, "fan_avg", "uniform")


def xavier_normal(gain: float = 1.0) -> Initializer:
    """Normal with variance 2 gain^2 / (fan_in + fan_out) (Glorot)."""
    return variance_scaling(gain**2, "fan_avg", "normal")


def kaiming_uniform(gain: float = math.sqrt(2), mode: Mode = "fan_in") -> Initializer:
    """Uniform with variance gain^2 / fan (He); the default gain is that of relu."""
    return variance_scaling(gain**2, mode, "uniform")


def kaiming_normal(gain: float = math.sqrt(2), mode: Mode = "fan_in") -> Initializer:
    """Normal with variance gain^2 / fan (He); the default gain is that of relu."""
    return variance_scaling(gain**2, mode, "normal")


def lecun_normal() -> Initializer:
    """Cut normal with variance 1 / fan_in, the default of Flax."""
    return variance_scaling(1.0, "fan_in", "truncated_normal")


def torch_default(fan_in: int) -> Initializer:
    """Uniform in +-1 / sqrt(fan_in): what PyTorch's Linear and Conv use for weight and bias alike."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    return uniform(-bound, bound)


def orthogonal(gain: float = 1.0) -> Initializer:
    """A weight whose rows (or columns, the fewer of the two) are orthonormal, times `gain`."""

    def init(key, shape, dtype=None):
        rows, columns = shape[0], math.prod(shape[1:])
        square = random.normal(key, (max(rows, columns), min(rows, columns)), dtype or default_float())
        q, r = fnp.linalg.qr(square)
        q = q * fnp.sign(fnp.diagonal(r))  # makes the decomposition unique, and so the draw uniform
        return (gain * (q if rows >= columns else q.T)).reshape(tuple(shape))

    return init


def identity(gain: float = 1.0) -> Initializer:
    """The identity matrix times `gain`, for a weight [out, in]."""
    return lambda key, shape, dtype=None: fnp.eye(*shape, dtype=dtype or default_float()) * gain
