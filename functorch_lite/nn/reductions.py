# SPDX-License-Identifier: MIT
"""What all losses have in common: the reduction over elements, and operands of one shape."""

from typing import Any, Literal

import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError, ShapeError

Array = Any
Reduction = Literal["mean", "sum", "none"]


def difference(name: str, predictions: Array, targets: Array) -> Array:
    """predictions - targets of one shape; ShapeError otherwise: [n] against [n, 1] is the classical silent mistake."""
    if predictions.shape != targets.shape:
        raise ShapeError(f"{name}: predictions {predictions.shape} and targets {targets.shape} differ in shape.")
    return predictions - targets


def same_shapes(name: str, **operands: Array) -> None:
    """Raises ShapeError, naming the argument, unless all `operands` have the shape of the first."""
    (first, x), *others = operands.items()
    for other, y in others:
        if y.shape != x.shape:
            raise ShapeError(f"{name}: `{other}` {y.shape} should have the shape of `{first}` {x.shape}.")


def reduced(losses: Array, reduction: str) -> Array:
    """The mean or sum of `losses`, or for "none" themselves. Raises ArgumentError for another word."""
    if reduction == "none":
        return losses
    if reduction not in ("mean", "sum"):
        raise ArgumentError(f"`reduction` should be 'mean', 'sum' or 'none', but is {reduction!r}.")
    return fnp.mean(losses) if reduction == "mean" else fnp.sum(losses)


def weighted(name: str, losses: Array, weight: Array | None, reduction: str) -> Array:
    """`losses` times `weight` of their shape, reduced; the mean divides by the sum of the weights."""
    if weight is None:
        return reduced(losses, reduction)
    same_shapes(name, targets=losses, weight=weight)
    losses = losses * weight
    return fnp.sum(losses) / fnp.sum(weight) if reduction == "mean" else reduced(losses, reduction)
