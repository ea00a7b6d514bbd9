# SPDX-License-Identifier: MIT
"""What every loader of this package keeps: a place among its batches, which can be saved and gone back to.

    for batch in loader:   the rest of the present epoch; the next `for` is the next epoch, in another order
    loader.state()         the place of the next batch, as a small dict that JSON can hold
    loader.restore(state)  go there: the batches that follow have the same bytes as if nothing had happened
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentError

Seed = int | Sequence[int]


class Place(ABC):
    """Counters that say what comes next; `epoch` is the first of them. All iterators of one loader share them."""

    def __init__(self, **counters: int):
        self._place: dict[str, int] = {"epoch": 0, **counters}

    @abstractmethod
    def _signature(self) -> dict[str, Any]:
        """What has to be the same in the loader that saved a state and the one that restores it."""

    @abstractmethod
    def _is_place(self, place: dict[str, int]) -> bool:
        """Whether counters, whole numbers from 0, are a place of this loader."""

    @property
    def epoch(self) -> int:
        """The epoch, from 0, of the next batch."""
        return self._place["epoch"]

    def state(self) -> dict[str, Any]:
        """The place of the next batch, as a dict for JSON, with what tells this loader from others."""
        return {**self._place, "loader": self._signature()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to the place that `state()` returned, in this process or another.

        Raises ArgumentError when `state` is of another kind of loader, or of other data, batch size or seed.
        """
        saved, own = state.get("loader"), self._signature()
        if saved != own:
            saved = saved if isinstance(saved, dict) else {}
            parts = (f"`{k}` was {saved.get(k)!r} and is {own[k]!r}" for k in own if saved.get(k) != own[k])
            raise ArgumentError(f"restore: the state was saved by another loader: {', '.join(parts)}.")
        place: dict[str, Any] = {name: state.get(name) for name in self._place}
        if not (all(isinstance(i, int) and i >= 0 for i in place.values()) and self._is_place(place)):
            raise ArgumentError(f"restore: the place {place} is not in this loader.")
        self._place = place


def generator(seed: Seed, *more: int) -> np.random.Generator:
    """NumPy's counter-based generator for `seed` and the numbers after it, the same on every platform.

    >>> generator(0, 1).integers(100, size=3).tolist() == generator((0, 1)).integers(100, size=3).tolist()
    True
    """
    entropy = (seed,) if isinstance(seed, int | np.integer) else tuple(seed)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((*entropy, *more))))


def plain_seed(seed: Seed | None) -> int | list[int] | None:
    """`seed` as JSON gives it back."""
    if seed is None or isinstance(seed, int | np.integer):
        return seed if seed is None else int(seed)
    return [int(part) for part in seed]


def check_counts(function: str, **counts: int) -> None:
    """Raise ArgumentError unless each of `counts` is a whole number of at least 1."""
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
            raise ArgumentError(f"{function}: `{name}` should be at least 1, but is {count!r}.")


def check_shard(function: str, shard: tuple[int, int]) -> tuple[int, int]:
    """(index, count) of a process among those that share the data. Raises ArgumentError unless 0 <= index < count."""
    index, count = shard
    if not 0 <= index < count:
        raise ArgumentError(f"{function}: a shard should be (index, count) with 0 <= index < count, but is {shard}.")
    return int(index), int(count)
