# SPDX-License-Identifier: MIT
"""Norms and distances of vectors, which lie on the last axis unless an axis is given.

All have derivative 0 where a distance is 0, as in PyTorch.
"""

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.losses import cosine_similarity
from functorch_lite.nn.margin_losses import pairwise_distance
from functorch_lite.nn.module import Array, Module


def normalize(x: Array, p: float = 2.0, axis: int | tuple[int, ...] = -1, eps: float = 1e-12) -> Array:
    """x / max(|x|, eps) with the p-norm along `axis`, which PyTorch takes to be 1; p may be infinite.

    Raises ArgumentError unless p is positive.

    >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    return x / fnp.maximum(_norm("normalize", x, p, axis, keepdims=True), eps)


def pdist(x: Array, p: float = 2.0) -> Array:
    """The distances of each two rows of x [..., n, m]: [..., n (n - 1) / 2], those of row 0 first.

    Raises ArgumentError unless p is positive, ShapeError for fewer than 2 axes.

    >>> pdist(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])).round(3)
    array([5.   , 1.   , 4.243])
    """
    if x.ndim < 2:
        raise ShapeError(f"pdist: `x` should be [..., n, m], but is {x.shape}.")
    first, second = (constant(rows, x) for rows in np.triu_indices(x.shape[-2], 1))
    return _norm("pdist", fnp.take(x, first, axis=-2) - fnp.take(x, second, axis=-2), p, -1)


def cdist(x: Array, y: Array, p: float = 2.0) -> Array:
    """The distance of each row of x [..., n, m] to each of y [..., k, m]: [..., n, k].

    Raises ArgumentError unless p is positive, ShapeError when the rows differ in length.
    """
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise ShapeError(f"cdist: `x` should be [..., n, m] and `y` [..., k, m], but they are {x.shape} and {y.shape}.")
    return _norm("cdist", x[..., :, None, :] - y[..., None, :, :], p, -1)


def _norm(what: str, x: Array, p: float, axis: int | tuple[int, ...], keepdims: bool = False) -> Array:
    if p <= 0:
        raise ArgumentError(f"{what}: `p` should be positive, but is {p}.")
    size = fnp.abs(x)
    if p == 1:
        return fnp.sum(size, axis=axis, keepdims=keepdims)
    if p == float("inf"):
        return fnp.max(size, axis=axis, keepdims=keepdims)
    total = fnp.sum(x * x if p == 2 else size**p, axis=axis, keepdims=keepdims)
    # The root has no derivative at 0.
    positive = total > 0
    safe = fnp.where(positive, total, 1)
    return fnp.where(positive, fnp.sqrt(safe) if p == 2 else safe ** (1 / p), 0)


class CosineSimilarity(Module):
    """x, y -> x . y / (|x| |y|) along `axis`, which PyTorch takes to be 1; see `cosine_similarity`."""

    axis: int = -1
    eps: float = 1e-8

    def __call__(self, x: Array, y: Array) -> Array:
        return cosine_similarity(x, y, axis=self.axis, eps=self.eps)


class PairwiseDistance(Module):
    """x, y [..., n] -> the p-norm of x - y + eps [...]; see `pairwise_distance`."""

    p: float = 2.0
    eps: float = 1e-6
    keepdims: bool = False

    def __call__(self, x: Array, y: Array) -> Array:
        return pairwise_distance(x, y, p=self.p, eps=self.eps, keepdims=self.keepdims)
