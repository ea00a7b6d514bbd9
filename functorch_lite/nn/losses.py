# SPDX-License-Identifier: MIT
"""Losses, with PyTorch's definitions and defaults; `reduction` is "mean", "sum" or "none".

Classes lie on the last axis (`axis` says otherwise). Labels are integers of any width.
"""

from typing import Any, Literal

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.core.dtypes import is_inexact
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.activations import log_softmax, logsumexp, softplus
from functorch_lite.nn.islands import float32_loss
from functorch_lite.nn.reductions import Reduction, difference, reduced, same_shapes, weighted
from functorch_lite.primitives.indexing import gather
from functorch_lite.transforms.composites import planned

Array = Any


@float32_loss
def cross_entropy(
    logits: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    axis: int = -1,
    reduction: Reduction = "mean",
) -> Array:
    """-log softmax(logits) at the target class; for soft targets, the cross-entropy with that distribution.

    logits [..., n_classes]; targets: integer labels [...] or probabilities [..., n_classes]; weight [n_classes].
    Labels equal to `ignore_index` count neither in sum nor in mean. With weights the mean over labels is weighted.

    >>> import numpy as np
    >>> float(cross_entropy(np.zeros((2, 4), np.float32), np.array([1, 3])))  # log(4)
    1.3862943649291992
    """
    if axis not in (-1, logits.ndim - 1):
        logits = fnp.moveaxis(logits, axis, -1)
    if is_inexact(targets.dtype):
        targets = fnp.moveaxis(targets, axis, -1)
        return _soft_cross_entropy(log_softmax(logits), targets, weight, label_smoothing, reduction)
    if targets.shape != logits.shape[:-1]:
        raise ShapeError(f"cross_entropy: logits {logits.shape} need labels {logits.shape[:-1]}, got {targets.shape}.")
    if weight is not None or label_smoothing:
        return _nll(log_softmax(logits), targets, weight, ignore_index, label_smoothing, reduction)
    labels, importance = _kept(targets, ignore_index, logits.dtype)
    if importance is None:
        return _label_loss(logits, labels, reduction)
    return _weighted(_label_losses(logits, labels), importance, reduction)


@planned
def _label_loss(logits, labels, reduction):
    return reduced(_label_losses(logits, labels), reduction)


@planned
def _label_losses(logits, labels):
    """-log softmax(logits) at the labels."""
    shifted = logits - fnp.max(lax.stop_gradient(logits), axis=-1, keepdims=True)
    return logsumexp(shifted, -1) - _at(shifted, labels)  # no matrix of log-probabilities


@float32_loss
def nll(
    log_p: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    axis: int = -1,
    reduction: Reduction = "mean",
) -> Array:
    """-log_p at the target class: log_p [..., n_classes] (log-probabilities), targets integer [...]."""
    return _nll(fnp.moveaxis(log_p, axis, -1), targets, weight, ignore_index, 0.0, reduction)


def _soft_cross_entropy(log_p, targets, weight, smoothing, reduction):
    if targets.shape != log_p.shape:
        raise ShapeError(f"cross_entropy: logits {log_p.shape} and soft targets {targets.shape} differ in shape.")
    if smoothing:
        targets = targets * (1 - smoothing) + smoothing / log_p.shape[-1]
    weighted = log_p if weight is None else log_p * weight
    return reduced(-fnp.sum(targets * weighted, axis=-1), reduction)


def _kept(targets, ignore_index, dtype):
    """Labels that can be looked up, and 1 for those that count and 0 for the others; None if all are known to count."""
    kept = targets != ignore_index
    if isinstance(kept, np.ndarray) and np.count_nonzero(kept) == kept.size:
        return targets, None
    return fnp.where(kept, targets, 0), kept.astype(dtype)


def _at(values, labels):
    """values [..., n_classes] at the classes `labels` [...]."""
    if values.ndim != 2:
        return _at(values.reshape(-1, values.shape[-1]), labels.reshape(-1)).reshape(labels.shape)
    return gather(values, np.arange(values.shape[0]), labels)


def _weighted(losses, importance, reduction):
    if importance is None:
        return reduced(losses, reduction)
    losses = losses * importance
    return fnp.sum(losses) / fnp.sum(importance) if reduction == "mean" else reduced(losses, reduction)


def _nll(log_p, targets, weight, ignore_index, smoothing, reduction):
    labels, kept = _kept(targets, ignore_index, log_p.dtype)
    importance = kept
    if weight is not None:
        importance = fnp.take(weight, labels, axis=0) if kept is None else kept * fnp.take(weight, labels, axis=0)
    losses = -_at(log_p, labels)
    if not smoothing:
        return _weighted(losses, importance, reduction)
    spread = -fnp.mean(log_p if weight is None else log_p * weight, axis=-1)
    losses = losses if importance is None else losses * importance
    losses = (1 - smoothing) * losses + smoothing * (spread if kept is None else spread * kept)
    if importance is None or reduction != "mean":
        return reduced(losses, reduction)
    return fnp.sum(losses) / fnp.sum(importance)


@float32_loss
def mse(predictions: Array, targets: Array, *, weight: Array | None = None, reduction: Reduction = "mean") -> Array:
    """(predictions - targets)^2, each times `weight` of the same shape, by whose sum the mean then divides."""
    distance = difference("mse", predictions, targets)
    return weighted("mse", distance * distance, weight, reduction)


@float32_loss
def l1(predictions: Array, targets: Array, *, weight: Array | None = None, reduction: Reduction = "mean") -> Array:
    """|predictions - targets|, each times `weight` as in `mse`."""
    return weighted("l1", fnp.abs(difference("l1", predictions, targets)), weight, reduction)


@float32_loss
def huber(
    predictions: Array,
    targets: Array,
    *,
    delta: float = 1.0,
    weight: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), each times `weight` of the same shape.

    With weights the mean divides by the number of elements, unlike that of `mse`: so it is in PyTorch.
    Raises ArgumentError unless `delta` is positive.
    """
    if delta <= 0:
        raise ArgumentError(f"huber: `delta` should be positive, but is {delta}.")
    distance = fnp.abs(difference("huber", predictions, targets))
    small = fnp.minimum(distance, delta)
    losses = 0.5 * small * small + delta * (distance - small)
    if weight is not None:
        same_shapes("huber", targets=targets, weight=weight)
        losses = losses * weight
    return reduced(losses, reduction)


@float32_loss
def smooth_l1(predictions: Array, targets: Array, *, beta: float = 1.0, reduction: Reduction = "mean") -> Array:
    """huber(delta=beta) / beta; l1 when beta is 0."""
    if beta == 0:
        return l1(predictions, targets, reduction=reduction)
    return huber(predictions, targets, delta=beta, reduction=reduction) / beta


@float32_loss
def bce(probabilities: Array, targets: Array, *, weight: Array | None = None, reduction: Reduction = "mean") -> Array:
    """Binary cross-entropy of probabilities in [0, 1]; logarithms are cut at -100 as in PyTorch.

    `weight`, of a shape that broadcasts to that of the targets, multiplies each element; the mean divides by how many.
    """
    difference("bce", probabilities, targets)
    log_p = fnp.maximum(fnp.log(probabilities), -100)
    log_q = fnp.maximum(fnp.log1p(-probabilities), -100)
    losses = -(targets * log_p + (1 - targets) * log_q)
    return reduced(losses if weight is None else losses * weight, reduction)


@float32_loss
def bce_with_logits(
    logits: Array,
    targets: Array,
    *,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """Binary cross-entropy of sigmoid(logits), without overflow; `pos_weight` multiplies the positive part.

    `weight` multiplies each element, as in `bce`.
    """
    difference("bce_with_logits", logits, targets)
    positive = targets if pos_weight is None else targets * pos_weight
    losses = positive * softplus(-logits) + (1 - targets) * softplus(logits)
    return reduced(losses if weight is None else losses * weight, reduction)


@float32_loss
def kl_div(
    log_q: Array,
    p: Array,
    *,
    log_target: bool = False,
    reduction: Literal["mean", "sum", "none", "batchmean"] = "batchmean",
) -> Array:
    """p (log p - log_q), with 0 where p is 0; log_q and p (or with `log_target` log p) of one shape.

    "batchmean", the default, divides the sum by the size of axis 0 and is the divergence of a batch.
    """
    difference("kl_div", log_q, p)
    if log_target:
        each = fnp.exp(p) * (p - log_q)
    else:
        each = fnp.where(p > 0, p * (fnp.log(fnp.where(p > 0, p, 1)) - log_q), 0)
    return fnp.sum(each) / log_q.shape[0] if reduction == "batchmean" else reduced(each, reduction)


@float32_loss
def cosine_similarity(x: Array, y: Array, *, axis: int = -1, eps: float = 1e-8) -> Array:
    """x . y / (|x| |y|) along `axis`, each norm at least `eps`."""
    norms = [fnp.maximum(fnp.sqrt(fnp.sum(z * z, axis=axis)), eps) for z in (x, y)]
    return fnp.sum(x * y, axis=axis) / (norms[0] * norms[1])
