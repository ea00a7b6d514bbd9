# SPDX-License-Identifier: MIT
"""Negative log-likelihoods of counts and measurements, and losses for rare classes, overlap and contrast.

Definitions and defaults are PyTorch's where it has the loss; `reduction` is "mean", "sum" or "none".
"""

import math
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.activations import log_softmax, sigmoid
from functorch_lite.nn.islands import float32_loss
from functorch_lite.nn.losses import bce_with_logits
from functorch_lite.nn.reductions import Reduction, reduced, same_shapes
from functorch_lite.transforms.arguments import on_its_device

Array = Any


@float32_loss
def poisson_nll(
    x: Array,
    counts: Array,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: Reduction = "mean",
) -> Array:
    """exp(x) - counts x, x being the log of the rate; with log_input=False x is the rate: x - counts log(x + eps).

    full: add Stirling's approximation of log(counts!) where counts > 1. x and counts have one shape.
    """
    same_shapes("poisson_nll", x=x, counts=counts)
    losses = fnp.exp(x) - counts * x if log_input else x - counts * fnp.log(x + eps)
    if full:
        n = fnp.where(counts > 1, counts, 1)
        stirling = n * fnp.log(n) - n + 0.5 * fnp.log(2 * math.pi * n)
        losses = losses + fnp.where(counts > 1, stirling, 0)
    return reduced(losses, reduction)


@float32_loss
def gaussian_nll(
    x: Array,
    targets: Array,
    variance: Array | float,
    *,
    full: bool = False,
    eps: float = 1e-6,
    reduction: Reduction = "mean",
) -> Array:
    """(log v + (x - targets)^2 / v) / 2 with v = max(variance, eps): x and targets of one shape.

    variance: a number, the shape of x, or that without its last axis or with 1 there. The maximum passes gradients as
    if it were the identity, as in PyTorch. full: add log(2 pi) / 2.

    Raises ShapeError when the variance does not fit, ArgumentError unless `eps` is positive.
    """
    same_shapes("gaussian_nll", x=x, targets=targets)
    if eps <= 0:
        raise ArgumentError(f"gaussian_nll: `eps` should be positive, but is {eps}.")
    variance = _fitting_variance(fnp.asarray(variance, x.dtype), x)
    v = variance + lax.stop_gradient(fnp.maximum(variance, eps) - variance)
    distance = x - targets
    losses = 0.5 * (fnp.log(v) + distance * distance / v)
    return reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


def _fitting_variance(variance: Array, x: Array) -> Array:
    if variance.ndim == 0 or variance.shape in (x.shape, (*x.shape[:-1], 1)):
        return variance
    if variance.shape == x.shape[:-1]:
        return variance[..., None]
    raise ShapeError(f"gaussian_nll: `variance` {variance.shape} does not fit x {x.shape}.")


@float32_loss
def focal(
    logits: Array,
    targets: Array,
    *,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
) -> Array:
    """(1 - p)^gamma times the binary cross-entropy, p being the probability given to the target in [0, 1].

    logits and targets have one shape. alpha: positive targets weigh alpha, negative ones 1 - alpha; None: all weigh 1.
    Source: T.-Y. Lin and others, arXiv:1708.02002.
    """
    losses = bce_with_logits(logits, targets, reduction="none")
    p = sigmoid(logits)
    losses = losses * (p * (1 - targets) + (1 - p) * targets) ** gamma
    if alpha is not None:
        losses = losses * (alpha * targets + (1 - alpha) * (1 - targets))
    return reduced(losses, reduction)


@float32_loss
def dice(probabilities: Array, targets: Array, *, smooth: float = 1.0, axis: Any = -1) -> Array:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), the sums along `axis`, and the mean of what is left.

    probabilities p and targets t lie in [0, 1] and have one shape; axis: the axes of the pixels, an int or a tuple.
    Source: F. Milletari and others, arXiv:1606.04797.
    """
    same_shapes("dice", probabilities=probabilities, targets=targets)
    both = fnp.sum(probabilities * targets, axis=axis)
    each = fnp.sum(probabilities, axis=axis) + fnp.sum(targets, axis=axis)
    return fnp.mean(1 - (2 * both + smooth) / (each + smooth))


@float32_loss
@on_its_device
def ntxent(x: Array, y: Array, *, temperature: float = 0.5, reduction: Reduction = "mean") -> Array:
    """The contrastive loss of SimCLR for two views x, y [n, features] of the same n examples.

    Of each of the 2n embeddings -log softmax(cosines / temperature) at its partner, among all but itself.
    "none" gives [2n], first those of x. Raises ArgumentError unless `temperature` is positive, ShapeError for other
    shapes. Source: T. Chen and others, arXiv:2002.05709.
    """
    same_shapes("ntxent", x=x, y=y)
    if temperature <= 0 or x.ndim != 2:
        if x.ndim != 2:
            raise ShapeError(f"ntxent: `x` should be [n, features], but is {x.shape}.")
        raise ArgumentError(f"ntxent: `temperature` should be positive, but is {temperature}.")
    n = x.shape[0]
    both = fnp.concatenate([x, y])
    both = both * lax.rsqrt(fnp.sum(both * both, axis=-1, keepdims=True) + 1e-12)
    cosines = fnp.where(fnp.eye(2 * n, dtype=bool), -fnp.inf, fnp.matmul(both, both.T) / temperature)
    log_p = log_softmax(cosines)
    rows = fnp.arange(2 * n)
    return reduced(-log_p[rows, (rows + n) % (2 * n)], reduction)
