# SPDX-License-Identifier: MIT
"""Activation functions: element-wise, or along one axis (softmax, glu). Any shape, floating dtype, same dtype out.

Where JAX and PyTorch differ in a default, PyTorch's holds: `gelu` is the exact one.
"""

import math
from typing import Any, Literal

from numpy.lib.array_utils import normalize_axis_tuple

import functorch_lite.numpy as fnp
from functorch_lite import lax, random
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.islands import in_float32
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
    return fnp.where(x > 0, x, alpha * fnp.expm1(fnp.where(x > 0, 0, x)))


def celu(x: Array, alpha: float = 1.0) -> Array:
    """x where positive, else alpha (exp(x / alpha) - 1)."""
    return fnp.where(x > 0, x, alpha * fnp.expm1(fnp.where(x > 0, 0, x) / alpha))


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
    """log(1 + exp(beta x)) / beta, everywhere: PyTorch puts x itself where beta x > 20, an error of up to 2e-9."""
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


def gelu(x: Array, approximate: bool | Literal["none", "tanh"] = False) -> Array:
    """x Phi(x) with the normal distribution function Phi; `approximate` uses tanh, which is the default of jax.nn.

    PyTorch's words for `approximate`, "none" and "tanh", do too. Source: D. Hendrycks, K. Gimpel, arXiv:1606.08415.
    """
    if approximate not in (True, False, "none", "tanh"):
        raise ArgumentError(f"gelu: `approximate` should be a bool, 'none' or 'tanh', but is {approximate!r}.")
    if approximate in (True, "tanh"):
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + fnp.tanh(inner))
    return 0.5 * x * (1 + lax.erf(x * math.sqrt(0.5)))


def hard_tanh(x: Array, low: float = -1.0, high: float = 1.0) -> Array:
    """x cut to [low, high], with derivative 0 at both ends."""
    if low > high:
        raise ArgumentError(f"hard_tanh: `low` {low} is above `high` {high}.")
    return fnp.where(x <= low, low, fnp.where(x >= high, high, x))


def hard_sigmoid(x: Array) -> Array:
    """relu6(x + 3) / 6."""
    return relu6(x + 3) / 6


def hard_swish(x: Array) -> Array:
    """x relu6(x + 3) / 6."""
    return x * hard_sigmoid(x)


def hard_shrink(x: Array, lambd: float = 0.5) -> Array:
    """0 where |x| <= lambd, else x."""
    return fnp.where(fnp.abs(x) <= lambd, 0, x)


def soft_shrink(x: Array, lambd: float = 0.5) -> Array:
    """0 where |x| <= lambd, else x moved towards 0 by lambd. Raises ArgumentError for a negative `lambd`."""
    if lambd < 0:
        raise ArgumentError(f"soft_shrink: `lambd` should not be negative, but is {lambd}.")
    return fnp.where(fnp.abs(x) <= lambd, 0, fnp.where(x > 0, x - lambd, x + lambd))


def tanh_shrink(x: Array) -> Array:
    """x - tanh(x)."""
    return x - fnp.tanh(x)


def threshold(x: Array, threshold: float, value: float) -> Array:
    """x where x > threshold, else value."""
    return fnp.where(x <= threshold, value, x)


def squareplus(x: Array, b: float = 4.0) -> Array:
    """(x + sqrt(x^2 + b)) / 2: softplus by algebra. Source: J. Barron, arXiv:2112.11687."""
    return 0.5 * (x + fnp.sqrt(x * x + b))


def prelu(x: Array, weight: Array, axis: int = 1) -> Array:
    """x where positive, else weight * x; weight has one element, or one for each channel along `axis` of x.

    Raises ShapeError when the weight fits neither. Source: K. He and others, arXiv:1502.01852.
    """
    if weight.size == 1:
        return fnp.where(x > 0, x, fnp.reshape(weight, (1,) * x.ndim) * x)
    if not -x.ndim <= axis < x.ndim or weight.shape != (x.shape[axis],):
        raise ShapeError(f"prelu: `weight` {weight.shape} does not fit axis {axis} of x {x.shape}.")
    channels = [1] * x.ndim
    channels[axis] = -1
    return fnp.where(x > 0, x, fnp.reshape(weight, channels) * x)


@in_float32
def logsumexp(x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """log(sum(exp(x))) along `axis` (all axes by default), without overflow; -inf, with gradient 0, for all -inf."""
    axes = tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    out = reduce_logsumexp(x, axes)
    return out.reshape([1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdims else out


@in_float32
def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along `axis`."""
    exponentials = fnp.exp(x - fnp.max(lax.stop_gradient(x), axis=axis, keepdims=True))
    return exponentials / fnp.sum(exponentials, axis=axis, keepdims=True)


@in_float32
def log_softmax(x: Array, axis: int = -1) -> Array:
    """x - logsumexp(x) along `axis`."""
    shifted = x - fnp.max(lax.stop_gradient(x), axis=axis, keepdims=True)
    return shifted - logsumexp(shifted, axis, keepdims=True)


def softmin(x: Array, axis: int = -1) -> Array:
    """softmax(-x)."""
    return softmax(-x, axis)


@on_its_device
def sparsemax(x: Array, axis: int = -1) -> Array:
    """The point of the probability simplex nearest to x along `axis`; unlike softmax it has zeros.

    max(x - t, 0) with t such that the sum is 1. Source: A. Martins, R. Astudillo, arXiv:1602.02068.

    >>> import numpy as np
    >>> sparsemax(np.array([2.0, 1.5, 0.0]))
    array([0.75, 0.25, 0.  ])
    """
    x = fnp.moveaxis(x, axis, -1)
    falling = -fnp.sort(-x, axis=-1)
    ranks = fnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    in_support = 1 + ranks * falling > fnp.cumsum(falling, axis=-1)
    size = fnp.sum(in_support.astype(x.dtype), axis=-1, keepdims=True)
    level = (fnp.sum(fnp.where(in_support, falling, 0), axis=-1, keepdims=True) - 1) / size
    return fnp.moveaxis(relu(x - level), -1, axis)


def gumbel_softmax(logits: Array, key: Array, *, tau: float = 1.0, hard: bool = False, axis: int = -1) -> Array:
    """softmax((logits + Gumbel noise) / tau): a differentiable draw of a category, of the shape of logits.

    hard: the value is one-hot, the gradient that of the soft draw. Raises ArgumentError unless `tau` is positive.
    Source: E. Jang and others, arXiv:1611.01144.
    """
    if tau <= 0:
        raise ArgumentError(f"gumbel_softmax: `tau` should be positive, but is {tau}.")
    soft = softmax((logits + random.gumbel(key, logits.shape, logits.dtype)) / tau, axis)
    if not hard:
        return soft
    n = soft.shape[axis]
    drawn = fnp.moveaxis(one_hot(fnp.argmax(soft, axis=axis), n, soft.dtype), -1, axis)
    return drawn + soft - lax.stop_gradient(soft)


def glu(x: Array, axis: int = -1) -> Array:
    """a sigmoid(b) for the halves a, b of `x` along `axis`."""
    a, b = _halves("glu", x, axis)
    return a * sigmoid(b)


def reglu(x: Array, axis: int = -1) -> Array:
    """relu(a) b for the halves a, b of `x` along `axis`. Source: N. Shazeer, arXiv:2002.05202."""
    a, b = _halves("reglu", x, axis)
    return relu(a) * b


def geglu(x: Array, axis: int = -1) -> Array:
    """gelu(a) b for the halves a, b of `x` along `axis`. Source: N. Shazeer, arXiv:2002.05202."""
    a, b = _halves("geglu", x, axis)
    return gelu(a) * b


def swiglu(x: Array, axis: int = -1) -> Array:
    """silu(a) b for the halves a, b of `x` along `axis`. Source: N. Shazeer, arXiv:2002.05202."""
    a, b = _halves("swiglu", x, axis)
    return silu(a) * b


def _halves(name: str, x: Array, axis: int) -> Any:
    if not -x.ndim <= axis < x.ndim or x.shape[axis] % 2:
        raise ShapeError(f"{name}: x {x.shape} has no two halves along axis {axis}.")
    return fnp.split(x, 2, axis=axis)


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
