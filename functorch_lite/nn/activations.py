# SPDX-License-Identifier: MIT
"""Activation functions: element-wise, or along one axis (softmax, glu). Any shape, floating dtype, same dtype out.

Where JAX and PyTorch differ in a default, PyTorch's holds: `gelu` is the exact one.
"""

import math
from typing import Any

from numpy.lib.array_utils import normalize_axis_tuple

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.primitives.reduction import logsumexp as reduce_logsumexp
from functorch_lite.transforms.arguments import on_its_device

Array = Any


def relu(x: Array) -> Array:
    """max(x, 0), with derivative 0 at 0; NaN stays NaN."""
    return fnp.where(x <= 0, 0, x)


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6), with derivative 0 at 0 and at 6."""
    return fnp.where(x <= 0, 0, fnp.where(x >= 6, 6, x))


def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """x where positive, else negative_slope * x."""
    return fnp.where(x > 0, x, negative_slope * x)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """x where positive, else alpha (exp(x) - 1)."""
    return fnp.where(x > 0, x, alpha * fnp.expm1(fnp.minimum(x, 0)))


def celu(x: Array, alpha: float = 1.0) -> Array:
    """x where positive, else alpha (exp(x / alpha) - 1)."""
    return fnp.where(x > 0, x, alpha * fnp.expm1(fnp.minimum(x, 0) / alpha))


def selu(x: Array) -> Array:
    """The self-normalising elu. Source: G. Klambauer and others, arXiv:1706.02515."""
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return lax.logistic(x)


def log_sigmoid(x: Array) -> Array:
    """log(sigmoid(x)), exact for large negative x."""
    return -softplus(-x)


def softplus(x: Array, beta: float = 1.0) -> Array:
    """log(1 + exp(beta x)) / beta."""
    return fnp.logaddexp(x, 0) if beta == 1.0 else fnp.logaddexp(beta * x, 0) / beta


def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    return x / (1 + fnp.abs(x))


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return fnp.tanh(x)


def silu(x: Array) -> Array:
    """x sigmoid(x), also called swish."""
    return x * sigmoid(x)


def mish(x: Array) -> Array:
    """x tanh(softplus(x))."""
    return x * fnp.tanh(softplus(x))


def gelu(x: Array, approximate: bool = False) -> Array:
    """x Phi(x) with the normal distribution function Phi; `approximate` uses tanh, which is the default of jax.nn.

    Source: D. Hendrycks, K. Gimpel, arXiv:1606.08415.
    """
    if approximate:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + fnp.tanh(inner))
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


def hard_tanh(x: Array, low: float = -1.0, high: float = 1.0) -> Array:
    """x cut to [low, high]."""
    return fnp.clip(x, low, high)


def hard_sigmoid(x: Array) -> Array:
    """relu6(x + 3) / 6."""
    return relu6(x + 3) / 6


def hard_swish(x: Array) -> Array:
    """x relu6(x + 3) / 6."""
    return x * hard_sigmoid(x)


def logsumexp(x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """log(sum(exp(x))) along `axis` (all axes by default), without overflow; -inf, with gradient 0, for all -inf."""
    axes = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    out = reduce_logsumexp(x, axes)
    return out.reshape([1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdims else out


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along `axis`."""
    exponentials = fnp.exp(x - fnp.max(lax.stop_gradient(x), axis=axis, keepdims=True))
    return exponentials / fnp.sum(exponentials, axis=axis, keepdims=True)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """x - logsumexp(x) along `axis`."""
    shifted = x - fnp.max(lax.stop_gradient(x), axis=axis, keepdims=True)
    return shifted - logsumexp(shifted, axis, keepdims=True)


def glu(x: Array, axis: int = -1) -> Array:
    """a sigmoid(b) for the halves a, b of `x` along `axis`."""
    a, b = fnp.split(x, 2, axis=axis)
    return a * sigmoid(b)


@on_its_device
def one_hot(labels: Array, n_classes: int, dtype: Any = None) -> Array:
    """Ones at the places `labels` [...] and zeros elsewhere: [..., n_classes]; a label out of range gives zeros.

    >>> import numpy as np
    >>> one_hot(np.array([0, 2]), 3)
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    classes = fnp.arange(n_classes, dtype=labels.dtype)
    return (labels[..., None] == classes).astype(dtype or fnp.float32)
