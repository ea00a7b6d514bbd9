# SPDX-License-Identifier: MIT
"""Minibatches of arrays that are in memory, epoch after epoch, with a place that can be saved."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from functorch_lite.data.batches import length_of, rows_of
from functorch_lite.data.epochs import EpochLoader
from functorch_lite.data.place import Seed, check_counts, check_shard, generator, plain_seed
from functorch_lite.errors import ArgumentError

Tree = TypeVar("Tree")


class Loader(EpochLoader[Tree], Generic[Tree]):
    """Minibatches: trees like `arrays`, every leaf [n, ...] cut to [batch_size, ...]; each example once an epoch.

    seed: decides, with the epoch, the order: epoch e has the order of `batches(arrays, batch_size, seed=(seed, e))`.
        None keeps the order of the arrays.
    drop_last: examples that fill no batch are left out of this epoch; else they form a shorter last batch.
    shard: (index, count), for one of several processes: together they get, in each step, the batch of
        `count * batch_size` examples that one process would get. With `drop_last` all have equally many batches;
        without it every example comes to just one of them, so the last ones may have a batch less.
    repeat: one iteration runs through epoch after epoch without end, else through one epoch.
    transform: a function of a batch, applied to each.

    A batch is gathered by one indexing of each leaf, in this process: quick for what is in memory or in a memory map.
    `state()` and `restore(state)` keep the place exactly, in the middle of an epoch too.

    Raises ShapeError when the leaves differ in length, ArgumentError when no batch can be made.

    >>> loader = Loader((np.arange(6), np.arange(6) * 10), 4, seed=0, drop_last=False)
    >>> [(x.tolist(), y.tolist()) for x, y in loader]
    [([4, 0, 3, 5], [40, 0, 30, 50]), ([2, 1], [20, 10])]
    >>> loader.epoch, len(loader)
    (1, 2)
    """

    def __init__(
        self,
        arrays: Tree,
        batch_size: int,
        *,
        seed: Seed | None,
        drop_last: bool = True,
        shard: tuple[int, int] = (0, 1),
        repeat: bool = False,
        transform: Callable[[Tree], Any] | None = None,
    ):
        check_counts("Loader", batch_size=batch_size)
        index, count = self._shard = check_shard("Loader", shard)
        self._arrays, self._batch_size, self._seed = arrays, batch_size, seed
        self._drop_last, self._transform = drop_last, transform
        self._n = length_of("Loader", arrays)
        own = self._n // count if drop_last else len(range(index, self._n, count))
        n_batches = own // batch_size if drop_last else -(-own // batch_size)
        if n_batches == 0 and drop_last:
            raise ArgumentError(
                f"Loader: {own} examples make no batch of {batch_size}. Use a smaller batch_size or drop_last=False."
            )
        super().__init__(n_batches, repeat)

    def _plan(self, epoch: int) -> np.ndarray:
        """The rows of this process's examples, in their order."""
        index, count = self._shard
        rows = np.arange(self._n) if self._seed is None else generator(self._seed, epoch).permutation(self._n)
        return rows[index::count]

    def _make(self, plan: np.ndarray, index: int) -> Tree:
        batch = rows_of(self._arrays, plan[index * self._batch_size : (index + 1) * self._batch_size])
        return batch if self._transform is None else self._transform(batch)

    def _signature(self) -> dict[str, Any]:
        return {
            "kind": "Loader",
            "n": self._n,
            "batch_size": self._batch_size,
            "seed": plain_seed(self._seed),
            "drop_last": self._drop_last,
            "shards": self._shard[1],
        }
