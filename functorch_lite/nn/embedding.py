# SPDX-License-Identifier: MIT
"""Embedding: a table of vectors looked up by integer."""

from typing import Any, Literal

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ShapeError
from functorch_lite.nn.initializers import Initializer, normal
from functorch_lite.nn.module import Array, Module


class Embedding(Module):
    """ids integer [...] -> weight[ids] [..., embedding_dim]; weight [num_embeddings, embedding_dim].

    The weight starts normal(0, 1). padding_idx: this row starts at zero and its lookups carry no gradient.

    >>> import numpy as np
    >>> from functorch_lite import random
    >>> Embedding(10, 4, key=random.key(0))(np.array([[1, 2, 9]])).shape
    (1, 3, 4)
    """

    weight: Array
    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        padding_idx: int | None = None,
        init: Initializer | None = None,
        dtype: Any = None,
        key: Array,
    ):
        weight = (init or normal())(key, (num_embeddings, embedding_dim), dtype)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = weight if padding_idx is None else fnp.where(self._is_not_padding(), weight, 0)

    def _is_not_padding(self) -> Array:
        return (fnp.arange(self.num_embeddings) != self.padding_idx)[:, None]

    def __call__(self, ids: Array) -> Array:
        if ids.dtype.kind not in "iu":
            raise ArgumentTypeError(f"Embedding: ids should be integers, but are {ids.dtype}.")
        weight = self.weight
        if self.padding_idx is not None:
            weight = fnp.where(self._is_not_padding(), weight, lax.stop_gradient(weight))
        return fnp.take(weight, ids, axis=0)

    def attend(self, x: Array) -> Array:
        """x [..., embedding_dim] -> x @ weight.T [..., num_embeddings]: the logits of tied weights."""
        return fnp.matmul(x, self.weight.T)


class EmbeddingBag(Module):
    """ids integer [..., n] -> the sum, mean or maximum of their n rows of weight: [..., embedding_dim].

    padding_idx: ids that do not count; a bag of these alone gives zeros. `layer(ids, weights)`, weights [..., n],
    multiplies the rows, for mode "sum". Raises ArgumentError for another mode, ShapeError for weights that do not fit.
    """

    embedding: Embedding
    mode: Literal["mean", "sum", "max"]

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        mode: Literal["mean", "sum", "max"] = "mean",
        padding_idx: int | None = None,
        dtype: Any = None,
        key: Array,
    ):
        if mode not in ("mean", "sum", "max"):
            raise ArgumentError(f"EmbeddingBag: `mode` should be 'mean', 'sum' or 'max', but is {mode!r}.")
        self.embedding = Embedding(num_embeddings, embedding_dim, padding_idx=padding_idx, dtype=dtype, key=key)
        self.mode = mode

    def __call__(self, ids: Array, weights: Array | None = None) -> Array:
        if weights is not None and (self.mode != "sum" or weights.shape != ids.shape):
            raise ShapeError(
                f"EmbeddingBag: `weights` {weights.shape} need mode 'sum' and the shape of ids {ids.shape}."
            )
        rows = self.embedding(ids)
        rows = rows if weights is None else rows * weights[..., None]
        padding = self.embedding.padding_idx
        counts = None if padding is None else (ids != padding)[..., None]
        if self.mode == "max":
            return _largest(rows, counts)
        total = fnp.sum(rows if counts is None else fnp.where(counts, rows, 0), axis=-2)
        if self.mode == "sum":
            return total
        return total / (
            ids.shape[-1] if counts is None else fnp.maximum(fnp.sum(counts, axis=-2), 1).astype(total.dtype)
        )


def _largest(rows: Array, counts: Array | None) -> Array:
    if counts is None:
        return fnp.max(rows, axis=-2)
    highest = fnp.max(fnp.where(counts, rows, -fnp.inf), axis=-2)
    return fnp.where(fnp.any(counts, axis=-2), highest, 0)
