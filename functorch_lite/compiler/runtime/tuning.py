# SPDX-License-Identifier: MIT
"""Choices made by the clock: `jit(f, autotune=True)` and `config(autotune=True)`.

The first call of a program compiles it by each of a few choices (schedule/choices.py), runs each on the caller's
arguments some times, in turns, and goes on with the fastest: first what threads share and what is streamed, then, for
programs with products or convolutions, how these are cut. The usual stays unless another takes `MARGIN` less time. What
was chosen is kept beside the object files, by the code that would be usual, the processor and the number of threads; a
later process takes it over and measures nothing. What is no record of a choice is taken as absent, and written anew.
Inputs are only read while it is measured, donated ones too.

Programs with steps in Python are not tuned: the steps would run more than once.
"""

import ast
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.cost import cost_of
from functorch_lite.compiler.dumps import module_of
from functorch_lite.compiler.lowering.cutting import Cutting
from functorch_lite.compiler.lowering.program import Lowered, lower_program
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.runtime.executable import Executable
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.compiler.schedule.choices import PRODUCTS, USUAL, Choices, candidates, cuttings
from functorch_lite.config import config
from functorch_lite.core.program import Program

MARGIN = 0.03
SECONDS = 0.5
COMPILING = 5.0  # seconds, after which no further candidate is made
FEWEST_ROUNDS, MOST_ROUNDS = 3, 15  # between, as many as fit into SECONDS


class Record(NamedTuple):
    """What was chosen, and the least seconds that each candidate took, by its name."""

    choices: Choices
    seconds: Mapping[str, float]

    def packed(self) -> bytes:
        """As it is kept on disk."""
        worth_ns, streams, cutting = self.choices.worth_ns, self.choices.streams, self.choices.cutting
        return repr((worth_ns, streams, tuple(cutting), dict(self.seconds))).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> "Record | None":
        """The record that these bytes are, or None."""
        try:
            worth_ns, streams, cutting, seconds = ast.literal_eval(data.decode())
            choices = Choices(worth_ns, bool(streams), Cutting(*cutting))
            found = cls(choices, {str(name): float(s) for name, s in seconds.items()})
        except (ValueError, TypeError, SyntaxError, AttributeError, MemoryError, RecursionError):
            return None
        return found if choices in _known_choices() else None


def _known_choices() -> Iterator[Choices]:
    """All that may have been chosen."""
    every = [Cutting(), *cuttings(PRODUCTS)]
    return (Choices(c.worth_ns, c.streams, cutting) for c in candidates(2) for cutting in every)


class Candidate(Executable):
    """A program compiled by given choices. lowered, ir: where they are there already."""

    def __init__(
        self, program: Program, optimized: Program, donated: Sequence[int], choices: Choices,
        lowered: Lowered | None = None, ir: str = "",
    ):
        self.choices = choices
        self._written = ir
        lowered = lower_program(optimized, choices.cutting, donated) if lowered is None else lowered
        super().__init__(program, optimized, lowered, donated)

    def _module(self) -> str:
        return self._written or module_of(self.lowered, self.plan, choices=self.choices)


class TunedExecutable:
    """A program that runs by the choices that were fastest: the usual ones before the first call.

    chosen: the executable in force, which is asked for all else. seconds: what each candidate took, by its name.
    """

    def __init__(self, program: Program, optimized: Program, donated: Sequence[int] = ()):
        self._make = functools.partial(Candidate, program, optimized, donated)
        self._threads = config.num_threads
        lowered = lower_program(optimized, donated=donated)
        usual = module_of(lowered, lowered.plan())
        self._names = frozenset(e.prim.name for equations in lowered.sources.values() for e in equations)
        self._key = _key_of(usual, self._threads)
        found = objects.find(self._key)
        record = Record.unpacked(found) if found is not None else None
        self.seconds: Mapping[str, float] = record.seconds if record is not None else {}
        choices = USUAL if record is None else record.choices
        self.chosen = self._make(USUAL, lowered, usual) if choices == USUAL else self._make(choices)
        self._is_begun = self._is_tuned = record is not None or cost_of(lowered).python_steps > 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "chosen":
            raise AttributeError(name)
        return getattr(self.chosen, name)

    @property
    def choices(self) -> Choices:
        """What is in force."""
        return self.chosen.choices

    @property
    def is_native(self) -> bool:
        """Whether the code in force is what later calls run, and can be called with nothing around it."""
        return self._is_tuned and self.chosen.is_native

    def __call__(self, *args: Any) -> list[Any]:
        return self.donating(args, ())

    def donating(self, args: Sequence[Any], given_up: Sequence[int]) -> list[Any]:
        """Call; the first call measures before, and gives nothing up for that."""
        if not self._is_begun and all(isinstance(a, np.ndarray | np.generic) for a in args):
            self._is_begun = True  # for other threads, which go on with what there is
            self._is_begun = self._is_tuned = self._tune(args)
        return self.chosen.donating(args, given_up)

    def text(self) -> str:
        """What was measured, a line."""
        if not self.seconds:
            return "nothing was measured" if self._is_tuned else "to be measured by the first call"
        return "measured, in ms: " + ", ".join(f"{name} {s * 1e3:.4g}" for name, s in self.seconds.items())

    def _tune(self, args: Sequence[Any]) -> bool:
        """Go on with the fastest candidate; False where a run ends in an error, as the call itself then does."""
        seconds: dict[str, float] = {}
        try:
            with config(num_threads=self._threads):
                best = self._fastest(candidates(self._threads)[1:], self.chosen, args, seconds)
                cut = [Choices(best.choices.worth_ns, best.choices.streams, c) for c in cuttings(self._names)]
                best = self._fastest(cut, best, args, seconds)
        except Exception:  # an index out of range, which the call that follows raises anew
            return False
        self.seconds, self.chosen = seconds, best
        objects.store(self._key, Record(best.choices, seconds).packed())
        return True

    def _fastest(
        self, tried: Sequence[Choices], usual: Candidate, args: Sequence[Any], seconds: dict[str, float]
    ) -> Candidate:
        """The fastest of some candidates and what is in force; what each took is added to `seconds`."""
        made = [usual, *self._made(tried, usual)]
        if len(made) == 1:
            return usual
        times = measured([functools.partial(candidate.donating, args, ()) for candidate in made])
        seconds.update((str(m.choices), t) for m, t in zip(made, times, strict=True))
        return made[fastest(times)]

    def _made(self, tried: Sequence[Choices], usual: Candidate) -> Iterator[Candidate]:
        """The candidates that are other code than those before, and take over the same inputs."""
        known, start = {usual.ir}, time.perf_counter()
        for choices in tried:
            if time.perf_counter() - start > COMPILING:
                return
            found = self._make(choices)
            if found.ir not in known and found.donations == usual.donations:
                yield found
            known.add(found.ir)


def _key_of(ir: str, number: int) -> str:
    facts = engine.processor(), engine.versions(), number, list(_known_choices())
    return hashlib.sha256(f"choices {facts!r}\n{ir}".encode()).hexdigest()


def measured(runs: Sequence[Callable[[], Any]]) -> list[float]:
    """The least seconds that each of some functions takes, of a few runs each, in turns."""
    for run in runs:
        run()
    best, start = [math.inf] * len(runs), time.perf_counter()
    for number in range(MOST_ROUNDS):
        for k, run in enumerate(runs):
            before = time.perf_counter()
            run()
            best[k] = min(best[k], time.perf_counter() - before)
        if number >= FEWEST_ROUNDS - 1 and time.perf_counter() - start > SECONDS:
            break
    return best


def fastest(times: Sequence[float]) -> int:
    """The number of the least time, or 0 where that is hardly less than the first."""
    number = min(range(len(times)), key=times.__getitem__)
    return number if times[number] < (1 - MARGIN) * times[0] else 0
