# SPDX-License-Identifier: MIT
"""Choices made by the clock: `config(autotune=True)`.

The first call of a program compiles it by each of a few choices (schedule/choices.py), runs each on the caller's
arguments some times, in turns, and goes on with the fastest. The usual one stays unless another takes `MARGIN` less
time. What was chosen is kept beside the object files, by the program, the processor and the number of threads; a later
process takes it over and measures nothing. Inputs are only read while it is measured, donated ones too.

Programs with steps in Python are not tuned: the steps would run more than once.
"""

import ast
import functools
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite.compiler.cost import cost_of
from functorch_lite.compiler.dumps import module_of
from functorch_lite.compiler.runtime import engine, threads
from functorch_lite.compiler.runtime.executable import Executable
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.compiler.schedule.choices import USUAL, Choices, candidates
from functorch_lite.config import config

MARGIN = 0.03
SECONDS = 0.5
FEWEST_ROUNDS, MOST_ROUNDS = 3, 15  # between, as many as fit into SECONDS


class TunedExecutable(Executable):
    """A program that runs by the choices that were fastest. choices: those in force, the usual ones before a call."""

    choices: Choices = USUAL
    _key = ""
    _is_tuned = False

    def _module(self) -> str:
        """The module by what was chosen in this process or an earlier one."""
        usual = module_of(self.lowered, self.plan)
        self._key = _key_of(usual, config.num_threads)
        found = objects.find(self._key)
        if found is not None:
            self.choices = Choices(*ast.literal_eval(found.decode()))
        self._is_tuned = found is not None or cost_of(self.lowered).python_steps > 0
        return usual if self.choices == USUAL else module_of(self.lowered, self.plan, choices=self.choices)

    def donating(self, args: Sequence[Any], given_up: Sequence[int]) -> list[Any]:
        """Call; the first call measures before, and gives nothing up for that."""
        if not self._is_tuned and all(isinstance(a, np.ndarray | np.generic) for a in args):
            self._is_tuned = True  # for other threads, which go on with what there is
            self._is_tuned = self._tune(args)
        return super().donating(args, given_up)

    def _tune(self, args: Sequence[Any]) -> bool:
        """Go on with the fastest candidate; False where a run ends in an error, as the call itself then does."""
        modules = self._modules(config.num_threads)
        codes = [engine.load(ir, self.symbols) for ir in modules]
        try:
            times = measured([functools.partial(self._run_code, code, args) for code in codes])
        except Exception:  # an index out of range, which the call that follows raises anew
            times = []
        number = fastest(times) if times else 0
        self.ir, self.choices = list(modules.items())[number]
        self._enter(codes[number], False)
        if times:
            objects.store(self._key, repr((self.choices.worth_ns, self.choices.streams)).encode())
        return bool(times)

    def _modules(self, number: int) -> dict[str, Choices]:
        """The modules that candidates make, each once, the usual first; and a pool of `number` threads for them."""
        found: dict[str, Choices] = {}
        for choices in candidates(number):
            self.ir = module_of(self.lowered, self.plan, choices=choices)
            found.setdefault(self.ir, choices)
            if threads.SHARES in self.ir:
                self.alone = number
                self.share_loops()
        return found

    def _run_code(self, code: engine.Loaded, args: Sequence[Any]) -> None:
        self._enter(code, False)
        super().donating(args, ())


def _key_of(ir: str, number: int) -> str:
    facts = engine.processor(), engine.versions(), number, candidates(number)
    return hashlib.sha256(f"choices {facts!r}\n{ir}".encode()).hexdigest()


def measured(runs: Sequence[Callable[[], None]]) -> list[float]:
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
