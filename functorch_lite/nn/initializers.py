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


def lecun_uniform() -> Initializer:
    """Uniform with variance 1 / fan_in (LeCun)."""
    return variance_scaling(1.0, "fan_in", "uniform")


def glorot_uniform() -> Initializer:
    """Uniform with variance 2 / (fan_in + fan_out): JAX's name of `xavier_uniform`."""
    return variance_scaling(1.0, "fan_avg", "uniform")


def glorot_normal() -> Initializer:
    """Cut normal with variance 2 / (fan_in + fan_out), as in JAX; PyTorch's `xavier_normal` is not cut."""
    return variance_scaling(1.0, "fan_avg", "truncated_normal")


def he_uniform() -> Initializer:
    """Uniform with variance 2 / fan_in: JAX's name of `kaiming_uniform`."""
    return variance_scaling(2.0, "fan_in", "uniform")


def he_normal() -> Initializer:
    """Cut normal with variance 2 / fan_in, as in JAX; PyTorch's `kaiming_normal` is not cut."""
    return variance_scaling(2.0, "fan_in", "truncated_normal")


def calculate_gain(nonlinearity: str, negative_slope: float = 0.01) -> float:
    """The `gain` that keeps the variance of what passes a function: linear (and convolutions), sigmoid, tanh, relu,
    leaky_relu with its negative_slope, or selu; PyTorch's values.

    Raises ArgumentError for another name.

    >>> round(calculate_gain("leaky_relu", 0.2), 3)
    1.387
    """
    if nonlinearity.startswith(("linear", "conv", "sigmoid")):
        return 1.0
    gains = {"tanh": 5 / 3, "relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + negative_slope**2)), "selu": 3 / 4}
    if nonlinearity not in gains:
        raise ArgumentError(
            f"calculate_gain: `nonlinearity` should be linear, sigmoid, {', '.join(gains)}, but is {nonlinearity!r}."
        )
    return gains[nonlinearity]


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


def dirac(groups: int = 1) -> Initializer:
    """A convolution [out, in / groups, *kernel] that copies as many input channels as it can, each group by itself.

    Raises ArgumentError for a weight that is not of 3, 4 or 5 axes, or when `groups` does not divide the channels.
    """

    def init(key, shape, dtype=None):
        if len(shape) not in (3, 4, 5) or shape[0] % groups:
            raise ArgumentError(
                f"dirac: the weight should have 3, 4 or 5 axes and `groups` {groups} divide the first, but its "
                f"shape is {tuple(shape)}."
            )
        per_group = fnp.eye(shape[0] // groups, shape[1], dtype=dtype or default_float())
        return _at_centre(fnp.tile(per_group, (groups, 1)), shape[2:], [size // 2 for size in shape[2:]])

    return init


def delta_orthogonal(gain: float = 1.0) -> Initializer:
    """A convolution [out, in, *kernel], out >= in, that is an `orthogonal` matrix at its centre and else 0.

    Raises ArgumentError for a weight that is not of 3, 4 or 5 axes, or with fewer output than input channels.
    Source: L. Xiao and others, arXiv:1806.05393.
    """

    def init(key, shape, dtype=None):
        if len(shape) not in (3, 4, 5) or shape[0] < shape[1]:
            raise ArgumentError(
                "delta_orthogonal: the weight should have 3, 4 or 5 axes and as many output as input channels or more, "
                f"but its shape is {tuple(shape)}."
            )
        matrix = orthogonal(gain)(key, shape[:2], dtype)
        return _at_centre(matrix, shape[2:], [(size - 1) // 2 for size in shape[2:]])

    return init


def _at_centre(matrix: Any, kernel: Sequence[int], centre: list[int]) -> Any:
    """[out, in, *kernel]: `matrix` at the place `centre` of the kernel, zeros elsewhere."""
    widths = [(0, 0), (0, 0)] + [(c, size - c - 1) for c, size in zip(centre, kernel, strict=True)]
    return fnp.pad(fnp.reshape(matrix, (*matrix.shape, *(1,) * len(kernel))), widths)


def sparse(sparsity: float, std: float = 0.01) -> Initializer:
    """Normal draws for a weight of 2 axes, with the part `sparsity` (0 to 1, rounded up) of each column set to 0.

    Raises ArgumentError for another number of axes or a sparsity outside of 0..1.
    Source: J. Martens, "Deep learning via Hessian-free optimization" (2010).
    """
    if not 0 <= sparsity <= 1:
        raise ArgumentError(f"sparse: `sparsity` should be in 0..1, but is {sparsity}.")

    def init(key, shape, dtype=None):
        if len(shape) != 2:
            raise ArgumentError(f"sparse: the weight should have 2 axes, but its shape is {tuple(shape)}.")
        values_key, places_key = random.split(key)
        order = fnp.argsort(fnp.argsort(random.uniform(places_key, tuple(shape)), axis=0), axis=0)
        values = normal(std)(values_key, shape, dtype)
        return fnp.where(order < math.ceil(sparsity * shape[0]), 0, values)

    return init
