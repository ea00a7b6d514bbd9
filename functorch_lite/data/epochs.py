# SPDX-License-Identifier: MIT
"""Loaders whose epochs all have the same number of batches, each made on its own from a plan of the epoch."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from functorch_lite.data.place import Place
from functorch_lite.data.prefetch import CanPrefetch

Batch = TypeVar("Batch")


class EpochLoader(Place, CanPrefetch, Generic[Batch]):
    """Epochs of batches, each epoch laid out by `_plan`, each batch made from it by `_make`; iterable many times."""

    def __init__(self, n_batches: int, repeat: bool):
        super().__init__(batch=0)
        self._n_batches = n_batches
        self._repeat = repeat

    @abstractmethod
    def _plan(self, epoch: int) -> Any:
        """What decides the batches of `epoch`; a function of `epoch` alone."""

    @abstractmethod
    def _make(self, plan: Any, index: int) -> Batch:
        """The batch of number `index` in 0..n_batches-1."""

    def _is_place(self, place: dict[str, int]) -> bool:
        return place["batch"] < max(self._n_batches, 1)

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return self._n_batches

    def __len__(self) -> int:
        """Batches that one whole iteration gives. Raises TypeError when it never ends (`repeat=True`)."""
        if self._repeat:
            raise TypeError("a loader with repeat=True has no len(); `n_batches` is that of one epoch.")
        return self._n_batches

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the present epoch, or with `repeat=True` of all epochs."""
        epoch, plan = self.epoch, self._plan(self.epoch)
        while self._n_batches:
            if self.epoch != epoch:
                if not self._repeat:
                    return
                epoch, plan = self.epoch, self._plan(self.epoch)
            index = self._place["batch"]
            batch = self._make(plan, index)
            is_last = index + 1 == self._n_batches
            self._place = {"epoch": epoch + is_last, "batch": 0 if is_last else index + 1}
            yield batch
