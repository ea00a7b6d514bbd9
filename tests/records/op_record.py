# SPDX-License-Identifier: MIT
"""What the laws need to know of an operation: the function, its samples, and what it must equal.

A family's table is a list `RECORDS` in `tests/records/<family>.py`; `tests/laws/` runs every law over every record.
`fun` is built from functions of `functorch_lite.primitives`, so it works on arrays and on tracers.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.core import dtypes


class Sample(NamedTuple):
    """One call: `args` are arrays; `smooth` says that `fun` is differentiable there with finite differences in reach.

    derive: derivatives are defined there at all (False where a value is infinite, say): else only values are checked.
    """

    args: tuple[Any, ...]
    note: str = "ordinary"
    smooth: bool = True
    derive: bool = True


@dataclass(frozen=True)
class OpRecord:
    """An operation under test.

    name: unique; it also seeds the samples.
    fun: arrays -> an array or a list of arrays, built from primitives' functions.
    samples: rng -> samples. Called with several generators: shapes and dtypes must not depend on the draw.
    reference: the same function in NumPy or SciPy, or None (then eval is only checked against the other laws).
    dtypes: further dtypes in which the floating-point samples are evaluated (complex samples take the complex ones).
    order: the highest derivative order checked (0: values only).
    wrt: which arguments to differentiate; None means every inexact one.
    rtol, atol: tolerances in float64 for derivatives; `reason` says why where they differ from the defaults.
    plain: the function written with plain `np` calls only, for tracers that reach NumPy's own functions.
    """

    name: str
    fun: Callable[..., Any]
    samples: Callable[[np.random.Generator], list[Sample]]
    reference: Callable[..., Any] | None = None
    dtypes: tuple[str, ...] = ("float32",)
    order: int = 2
    wrt: tuple[bool, ...] | None = None
    rtol: float = 1e-6
    atol: float = 1e-7
    eval_rtol: float = 1e-12
    reason: str = ""
    plain: Callable[..., Any] | None = None

    def draw(self, lane: int = 0) -> list[Sample]:
        """The samples of one seed; `lane` gives other values of the same shapes."""
        return self.samples(np.random.default_rng([zlib.crc32(self.name.encode()), lane]))

    def active(self, args: Sequence[Any]) -> list[bool]:
        """Which arguments are differentiated."""
        wanted = self.wrt or (True,) * len(args)
        return [w and dtypes.is_inexact(np.asarray(a).dtype) for a, w in zip(args, wanted, strict=True)]

    def flat(self, *args: Any) -> list[Any]:
        """The outputs as a list."""
        out = self.fun(*args)
        return list(out) if isinstance(out, (list, tuple)) else [out]


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Standard normal float64 numbers."""
    return rng.standard_normal(shape)


def complex_normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Complex128 numbers with standard normal parts."""
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def positive(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Float64 numbers in [0.5, 2.5]."""
    return rng.uniform(0.5, 2.5, shape)


def distinct(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Float64 numbers in random order, at least 0.1 apart and 0.05 away from 0: no ties, no kink nearby."""
    size = int(np.prod(shape))
    return (rng.permutation(np.arange(size) - size // 2 + 0.5) * 0.2).reshape(shape)


def calls(*makers: Callable[[np.random.Generator], Any]) -> Callable[[np.random.Generator], list[Sample]]:
    """A `samples` function of ordinary samples, one for each `rng -> tuple of arrays` (or `rng -> Sample`)."""

    def samples(rng):
        made = [make(rng) for make in makers]
        return [m if isinstance(m, Sample) else Sample(m) for m in made]

    return samples
