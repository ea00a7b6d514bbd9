# SPDX-License-Identifier: MIT
"""Losses that hold their last linear layer, so that the logits of many classes are never all in memory."""

from collections.abc import Sequence
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import lax, random
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.activations import log_softmax
from functorch_lite.nn.containers import Sequential
from functorch_lite.nn.linear import Linear
from functorch_lite.nn.losses import cross_entropy
from functorch_lite.nn.module import Module
from functorch_lite.nn.reductions import Reduction, reduced
from functorch_lite.transforms.checkpoint import checkpoint

Array = Any


def linear_cross_entropy(
    x: Array,
    linear_weight: Array,
    targets: Array,
    *,
    linear_bias: Array | None = None,
    weight: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    chunk_size: int = 256,
    reduction: Reduction = "mean",
) -> Array:
    """cross_entropy(x @ linear_weight.T + linear_bias, targets), `chunk_size` rows at a time.

    x [..., features], linear_weight [n_classes, features], linear_bias [n_classes], targets integer [...]; the other
    arguments are those of `cross_entropy`. Memory for logits is chunk_size * n_classes in both passes: the reverse pass
    computes them again.

    Raises ShapeError, ArgumentError unless `chunk_size` is positive. Source: E. Wijmans and others, arXiv:2411.09009.
    """
    _check(x, linear_weight, linear_bias, targets, chunk_size)
    n_rows = targets.size
    n_chunks = -(-n_rows // chunk_size)
    extra = n_chunks * chunk_size - n_rows
    rows = fnp.pad(fnp.reshape(x, (n_rows, x.shape[-1])), ((0, extra), (0, 0)))
    labels = fnp.pad(fnp.reshape(targets, (n_rows,)), (0, extra), constant_values=targets.dtype.type(0))

    @checkpoint
    def losses_of(linear_weight, linear_bias, rows, labels):
        logits = fnp.matmul(rows, linear_weight.T)
        logits = logits if linear_bias is None else logits + linear_bias
        options = {"weight": weight, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
        return cross_entropy(logits, labels, **options, reduction="none")

    def step(carry, chunk):
        return carry, losses_of(linear_weight, linear_bias, *chunk)

    chunks = fnp.reshape(rows, (n_chunks, chunk_size, -1)), fnp.reshape(labels, (n_chunks, chunk_size))
    losses = fnp.reshape(lax.scan(step, None, chunks)[1], (-1,))[:n_rows]
    if reduction == "mean":
        return fnp.sum(losses) / fnp.sum(_importance(targets, weight, ignore_index, losses.dtype))
    return reduced(fnp.reshape(losses, targets.shape), reduction)


def _check(x, linear_weight, linear_bias, targets, chunk_size):
    if chunk_size < 1:
        raise ArgumentError(f"linear_cross_entropy: `chunk_size` should be positive, but is {chunk_size}.")
    if targets.shape != x.shape[:-1]:
        raise ShapeError(f"linear_cross_entropy: `targets` {targets.shape} should be {x.shape[:-1]}.")
    if linear_weight.ndim != 2 or linear_weight.shape[1] != x.shape[-1]:
        raise ShapeError(
            f"linear_cross_entropy: `linear_weight` {linear_weight.shape} should be [n_classes, {x.shape[-1]}]."
        )
    if linear_bias is not None and linear_bias.shape != linear_weight.shape[:1]:
        raise ShapeError(
            f"linear_cross_entropy: `linear_bias` {linear_bias.shape} should be {linear_weight.shape[:1]}."
        )


def _importance(targets: Array, weight: Array | None, ignore_index: int, dtype: Any) -> Array:
    kept = targets != ignore_index
    if weight is None:
        return kept.astype(dtype)
    return fnp.where(kept, fnp.take(weight, fnp.where(kept, targets, 0), axis=0), 0)


class AdaptiveLogSoftmax(Module):
    """log softmax over many classes, rare ones in clusters with a smaller projection each.

    x [..., in_features] -> log-probabilities [..., n_classes]; `loss(x, targets)` is their mean negative at targets.
    cutoffs: increasing; classes below the first are in the head, those from cutoffs[i] on in cluster i, which projects
    to in_features / div_value^(i + 1) first. Classes should be sorted by falling frequency.

    Raises ArgumentError for cutoffs that do not increase within 1..n_classes - 1.
    Source: E. Grave and others, arXiv:1609.04309.
    """

    head: Linear
    tail: tuple[Sequential, ...]
    cutoffs: tuple[int, ...]

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        *,
        div_value: float = 4.0,
        head_bias: bool = False,
        dtype: Any = None,
        key: Array,
    ):
        bounds = (*cutoffs, n_classes)
        if not cutoffs or cutoffs[0] < 1 or any(a >= b for a, b in zip(bounds[:-1], bounds[1:], strict=True)):
            raise ArgumentError(
                f"AdaptiveLogSoftmax: `cutoffs` {tuple(cutoffs)} should rise within 1..{n_classes - 1}."
            )
        head_key, *keys = random.split(key, 1 + len(cutoffs))
        self.cutoffs = bounds
        self.head = Linear(in_features, bounds[0] + len(cutoffs), bias=head_bias, dtype=dtype, key=head_key)
        self.tail = tuple(
            _cluster(in_features, int(in_features // div_value ** (i + 1)), high - low, dtype, k)
            for i, (low, high, k) in enumerate(zip(bounds[:-1], bounds[1:], keys, strict=True))
        )

    def __call__(self, x: Array) -> Array:
        head = log_softmax(self.head(x))
        n = self.cutoffs[0]
        clusters = [log_softmax(layer(x)) + head[..., n + i, None] for i, layer in enumerate(self.tail)]
        return fnp.concatenate([head[..., :n], *clusters], axis=-1)

    def loss(self, x: Array, targets: Array, *, reduction: Reduction = "mean") -> Array:
        """-log p of `targets`, integer [...]; no array [..., n_classes] is made beyond a cluster at a time."""
        if targets.shape != x.shape[:-1]:
            raise ShapeError(f"AdaptiveLogSoftmax: `targets` {targets.shape} should be {x.shape[:-1]}.")
        head, n = log_softmax(self.head(x)), self.cutoffs[0]
        out = _pick(head, fnp.where(targets < n, targets, 0))
        for i, (low, layer) in enumerate(zip(self.cutoffs[:-1], self.tail, strict=True)):
            inside = (targets >= low) & (targets < self.cutoffs[i + 1])
            log_p = head[..., n + i] + _pick(log_softmax(layer(x)), fnp.where(inside, targets - low, 0))
            out = fnp.where(inside, log_p, out)
        return reduced(-out, reduction)


def _cluster(in_features: int, hidden: int, n_classes: int, dtype: Any, key: Array) -> Sequential:
    one, two = random.split(key)
    first = Linear(in_features, hidden, bias=False, dtype=dtype, key=one)
    return Sequential(first, Linear(hidden, n_classes, bias=False, dtype=dtype, key=two))


def _pick(values: Array, labels: Array) -> Array:
    return fnp.take_along_axis(values, labels[..., None], axis=-1)[..., 0]
