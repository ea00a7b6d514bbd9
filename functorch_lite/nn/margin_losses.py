# SPDX-License-Identifier: MIT
"""Losses that ask for a margin, with PyTorch's definitions and defaults; `reduction` is "mean", "sum" or "none".

Signs are +1 and -1. Classes and embeddings lie on the last axis; every axis before it is a batch.
"""

from collections.abc import Callable
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.activations import log_sigmoid, one_hot, relu, softplus
from functorch_lite.nn.islands import float32_loss
from functorch_lite.nn.reductions import Reduction, reduced, same_shapes

Array = Any


@float32_loss
def pairwise_distance(x: Array, y: Array, *, p: float = 2.0, eps: float = 1e-6, keepdims: bool = False) -> Array:
    """The p-norm of x - y + eps along the last axis: x, y [..., n] that broadcast -> [...]; p may be infinite.

    `eps` keeps the gradient finite where x = y. Raises ArgumentError unless `p` is positive.
    """
    if p <= 0:
        raise ArgumentError(f"pairwise_distance: `p` should be positive, but is {p}.")
    distance = fnp.abs(x - y + eps)
    if p == 2:
        return fnp.sqrt(fnp.sum(distance * distance, axis=-1, keepdims=keepdims))
    if p == 1:
        return fnp.sum(distance, axis=-1, keepdims=keepdims)
    if p == float("inf"):
        return fnp.max(distance, axis=-1, keepdims=keepdims)
    return fnp.sum(distance**p, axis=-1, keepdims=keepdims) ** (1 / p)


@float32_loss
def soft_margin(x: Array, y: Array, *, reduction: Reduction = "mean") -> Array:
    """log(1 + exp(-y x)) for scores x and signs y of one shape."""
    same_shapes("soft_margin", x=x, y=y)
    return reduced(softplus(-y * x), reduction)


@float32_loss
def hinge_embedding(x: Array, y: Array, *, margin: float = 1.0, reduction: Reduction = "mean") -> Array:
    """x where y = 1, max(0, margin - x) where y = -1: x are distances, y signs of the same shape."""
    same_shapes("hinge_embedding", x=x, y=y)
    return reduced(fnp.where(y == 1, x, 0) + fnp.where(y == -1, relu(margin - x), 0), reduction)


@float32_loss
def margin_ranking(x1: Array, x2: Array, y: Array, *, margin: float = 0.0, reduction: Reduction = "mean") -> Array:
    """max(0, margin - y (x1 - x2)): y = 1 where x1 should rank higher than x2, -1 where lower; all of one shape."""
    same_shapes("margin_ranking", x1=x1, x2=x2, y=y)
    return reduced(relu(margin - y * (x1 - x2)), reduction)


@float32_loss
def cosine_embedding(x1: Array, x2: Array, y: Array, *, margin: float = 0.0, reduction: Reduction = "mean") -> Array:
    """1 - cos(x1, x2) where y = 1, max(0, cos(x1, x2) - margin) where y = -1: x1, x2 [..., n], y [...].

    The squared norms are raised by 1e-12, as in PyTorch.
    """
    same_shapes("cosine_embedding", x1=x1, x2=x2)
    if y.shape != x1.shape[:-1]:
        raise ShapeError(f"cosine_embedding: `y` should be {x1.shape[:-1]} for x1 {x1.shape}, but is {y.shape}.")
    squares = [fnp.sum(x * x, axis=-1) + 1e-12 for x in (x1, x2)]
    cosine = fnp.sum(x1 * x2, axis=-1) / fnp.sqrt(squares[0] * squares[1])
    return reduced(fnp.where(y == 1, 1 - cosine, 0) + fnp.where(y == -1, relu(cosine - margin), 0), reduction)


@float32_loss
def multi_margin(
    x: Array,
    labels: Array,
    *,
    p: int = 1,
    margin: float = 1.0,
    weight: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """sum over i != y of weight[y] max(0, margin - x[y] + x[i])^p / n: x [..., n], labels y integer [...], weight [n].

    Raises ArgumentError unless `p` is 1 or 2, ShapeError for labels of another shape.
    """
    if p not in (1, 2):
        raise ArgumentError(f"multi_margin: `p` should be 1 or 2, but is {p}.")
    if labels.shape != x.shape[:-1]:
        raise ShapeError(f"multi_margin: `labels` should be {x.shape[:-1]} for x {x.shape}, but are {labels.shape}.")
    at_label = fnp.take_along_axis(x, labels[..., None], axis=-1)
    short = relu(margin - at_label + x)
    short = fnp.where(one_hot(labels, x.shape[-1], bool), 0, short if p == 1 else short * short)
    losses = fnp.sum(short, axis=-1) / x.shape[-1]
    return reduced(losses if weight is None else losses * fnp.take(weight, labels, axis=0), reduction)


@float32_loss
def multilabel_margin(x: Array, labels: Array, *, reduction: Reduction = "mean") -> Array:
    """sum over labels j and other classes i of max(0, 1 - (x[j] - x[i])) / n: x [..., n], labels integer [..., n].

    The labels of an example are those before its first -1.
    """
    same_shapes("multilabel_margin", x=x, labels=labels)
    n = x.shape[-1]
    named = fnp.cumsum((labels < 0).astype(fnp.int32), axis=-1) == 0
    safe = fnp.where(named, labels, 0)
    is_label = fnp.any(one_hot(safe, n, bool) & named[..., None], axis=-2)
    short = relu(1 - fnp.take_along_axis(x, safe, axis=-1)[..., :, None] + x[..., None, :])
    counts = named[..., :, None] & ~is_label[..., None, :]
    return reduced(fnp.sum(fnp.where(counts, short, 0), axis=(-2, -1)) / n, reduction)


@float32_loss
def multilabel_soft_margin(x: Array, y: Array, *, weight: Array | None = None, reduction: Reduction = "mean") -> Array:
    """The mean over classes of -(y log sigmoid(x) + (1 - y) log sigmoid(-x)): x, y in [0, 1] [..., n], weight [n]."""
    same_shapes("multilabel_soft_margin", x=x, y=y)
    losses = -(y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x))
    return reduced(fnp.mean(losses if weight is None else losses * weight, axis=-1), reduction)


@float32_loss
def triplet_margin(
    anchor: Array,
    positive: Array,
    negative: Array,
    *,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
) -> Array:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d = pairwise_distance(p, eps): arrays [..., n].

    swap: the second distance is the smaller of those of anchor and positive to negative. Source: V. Balntas and others,
    "Learning local feature descriptors with triplets and shallow convolutional neural networks", BMVC 2016.
    """

    def distance(x, y):
        return pairwise_distance(x, y, p=p, eps=eps)

    return triplet_margin_with_distance(
        anchor, positive, negative, distance_function=distance, margin=margin, swap=swap, reduction=reduction
    )


@float32_loss
def triplet_margin_with_distance(
    anchor: Array,
    positive: Array,
    negative: Array,
    *,
    distance_function: Callable[[Array, Array], Array] = pairwise_distance,
    margin: float = 1.0,
    swap: bool = False,
    reduction: Reduction = "mean",
) -> Array:
    """`triplet_margin` with any distance [..., n], [..., n] -> [...]. Raises ArgumentError unless margin > 0."""
    if margin <= 0:
        raise ArgumentError(f"triplet_margin: `margin` should be positive, but is {margin}.")
    same_shapes("triplet_margin", anchor=anchor, positive=positive, negative=negative)
    near, far = distance_function(anchor, positive), distance_function(anchor, negative)
    if swap:
        far = fnp.minimum(far, distance_function(positive, negative))
    return reduced(relu(margin + near - far), reduction)
