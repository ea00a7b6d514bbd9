# SPDX-License-Identifier: MIT
"""Embedding: a table of vectors looked up by integer."""

from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.errors import ArgumentTypeError
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
