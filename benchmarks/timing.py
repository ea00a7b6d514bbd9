# SPDX-License-Identifier: MIT
"""Interleaved timing: every candidate is called in turn, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable


def interleaved(
    candidates: dict[str, Callable[[], object]], *, rounds: int = 20, target: float = 2e-2
) -> dict[str, float]:
    """Median seconds of one call of each candidate.

    rounds: how often each has its turn, of about `target` seconds (long enough that caches are warm).
    """
    repeats = {}
    for name, fun in candidates.items():
        _calls_in(fun, target)  # what is made in the first calls is there from here on
        repeats[name] = _calls_in(fun, target)
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, fun in candidates.items():
            n = repeats[name]
            start = time.perf_counter()
            for _ in range(n):
                fun()
            samples[name].append((time.perf_counter() - start) / n)
    return {name: statistics.median(values) for name, values in samples.items()}


def _calls_in(fun: Callable[[], object], seconds: float) -> int:
    """How many calls begin in so many seconds, of which two are made at least."""
    fun()
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < seconds:
        fun()
        calls += 1
    return calls


def show(title: str, seconds: dict[str, float], base: str) -> None:
    """Print a table: microseconds of each candidate, and how many times the time of `base` it takes."""
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:<28} {value * 1e6:12.2f} us   x{value / seconds[base]:.2f}")
