# SPDX-License-Identifier: MIT
"""Batches for language models: windows at random places of one long sequence, and the same moved on by one."""

from typing import Any

import numpy as np

from functorch_lite.data.epochs import EpochLoader
from functorch_lite.data.place import Seed, check_counts, check_shard, generator, plain_seed
from functorch_lite.errors import ArgumentError, ShapeError


class Windows(EpochLoader[tuple[np.ndarray, np.ndarray]]):
    """Next-token batches (inputs, targets), both [batch_size, length] of the dtype of `tokens`.

    tokens: [n], a text as numbers; may be a memory map, of which only the windows are read.
    targets[i, j] is the token after inputs[i, j]; windows start anywhere and may overlap.
    n_batches: of an epoch; by default as many as hold n tokens, at least one.
    seed: decides, with the epoch, all starts. shard: (index, count), for one of several processes: together they
    get, in each step, the batch of `count * batch_size` windows that one process would get.
    repeat: one iteration runs through epoch after epoch without end, else through one epoch.

    `state()` and `restore(state)` keep the place exactly, in the middle of an epoch too.

    Raises ShapeError unless `tokens` has one axis, ArgumentError when it is shorter than length + 1.

    >>> batches = Windows(np.arange(100), 5, batch_size=2, seed=0)
    >>> x, y = next(iter(batches))
    >>> x.shape, (y == x + 1).all(), len(batches)
    ((2, 5), np.True_, 10)
    """

    def __init__(
        self,
        tokens: np.ndarray,
        length: int,
        batch_size: int,
        *,
        seed: Seed,
        n_batches: int | None = None,
        shard: tuple[int, int] = (0, 1),
        repeat: bool = False,
    ):
        check_counts("Windows", length=length, batch_size=batch_size)
        self._tokens = np.asarray(tokens)
        if self._tokens.ndim != 1:
            raise ShapeError(f"Windows: `tokens` should have one axis, but has shape {self._tokens.shape}.")
        n = len(self._tokens)
        if n < length + 1:
            raise ArgumentError(f"Windows: {n} tokens hold no window of {length} and the token after it.")
        self._shard = check_shard("Windows", shard)
        self._length, self._batch_size, self._seed = length, batch_size, seed
        n_batches = max(1, n // (length * batch_size * self._shard[1])) if n_batches is None else n_batches
        check_counts("Windows", n_batches=n_batches)
        super().__init__(n_batches, repeat)

    def _plan(self, epoch: int) -> np.ndarray:
        """Starts [n_batches, batch_size] of this process's windows."""
        index, count = self._shard
        shape = (self._n_batches, self._batch_size, count)
        starts = generator(self._seed, epoch).integers(len(self._tokens) - self._length, size=shape)
        return starts[..., index]

    def _make(self, plan: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        places = plan[index][:, None] + np.arange(self._length)
        return self._tokens[places], self._tokens[places + 1]

    def _signature(self) -> dict[str, Any]:
        return {
            "kind": "Windows",
            "n_tokens": len(self._tokens),
            "length": self._length,
            "batch_size": self._batch_size,
            "n_batches": self._n_batches,
            "seed": plain_seed(self._seed),
            "shards": self._shard[1],
        }
