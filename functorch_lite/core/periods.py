# SPDX-License-Identifier: MIT
"""Runs of equal blocks in a row of keys: a b c a b c a b c d is three blocks of three, and a rest."""

from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

_PERIODS = 8  # how many distances between equal keys are looked at


class Run(NamedTuple):
    """`count` blocks of `period` keys each, the first at `start`; `rest` more keys go on like that."""

    start: int
    period: int
    count: int
    rest: int = 0

    @property
    def end(self) -> int:
        """The end of the last whole block."""
        return self.start + self.period * self.count

    @property
    def starts(self) -> range:
        """Where the blocks begin."""
        return range(self.start, self.end, self.period)


def numbered(keys: Iterable[Hashable]) -> np.ndarray:
    """A number for each key, the same for equal ones; int64 [n]."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(k, len(known)) for k in keys], np.int64)


def find_runs(keys: np.ndarray, least_count: int, least_period: int, start: int = 0) -> list[Run]:
    """The runs of at least so many blocks, of at least so many keys each, in order: the one that covers most, then
    what is beside it. keys: int64 [n]; `start` is the place of the first."""
    best = max(_candidates(keys, least_count, least_period), key=lambda r: (r.period * r.count, -r.period),
               default=None)
    if best is None:
        return []
    end = best.end + best.rest
    return [
        *find_runs(keys[: best.start], least_count, least_period, start),
        best._replace(start=start + best.start),
        *find_runs(keys[end:], least_count, least_period, start + end),
    ]


def _candidates(keys: np.ndarray, least_count: int, least_period: int) -> Iterator[Run]:
    """Runs of the most frequent periods, each as long as the keys repeat."""
    if len(keys) < least_count * least_period:
        return
    order = np.argsort(keys, kind="stable")
    distances = np.diff(order)[np.diff(keys[order]) == 0]
    distances = distances * -(-least_period // distances)  # of short periods, a multiple
    periods, counts = np.unique(distances, return_counts=True)
    for period in periods[np.argsort(-counts, kind="stable")][:_PERIODS].tolist():
        for first, length in _stretches(keys[period:] == keys[:-period]):
            count, rest = divmod(length + period, period)
            if count >= least_count:
                yield Run(first, period, count, rest)


def _stretches(flags: np.ndarray) -> list[tuple[int, int]]:
    """(start, length) of each stretch of true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.view(np.int8), [0]]))).reshape(-1, 2)
    return [(a, b - a) for a, b in edges.tolist()]
