# SPDX-License-Identifier: MIT
"""A compiled program that is checked in every call: the evaluator runs on copies of the same arguments, too.

    verified = VerifiedExecutable(program, optimize(program))
    outs = verified(*args)          # MiscompilationError if the binary's outputs are not the evaluator's

Outputs agree by the rule in `trust.bounds`. Effects (debug callbacks) happen once, in the binary; host callbacks with
results run several times. Arrays that are not NumPy's are not checked: they never run in native code.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functorch_lite.compiler.lowering.program import can_lower
from functorch_lite.compiler.trust.bounds import Difference
from functorch_lite.compiler.trust.locate import (
    Fault,
    Raised,
    compare,
    compiled_alone,
    copied,
    locate,
    outcome,
    without_effects,
)
from functorch_lite.compiler.trust.reproduce import Unwritable, write_reproducer
from functorch_lite.core.evaluate import Evaluator, evaluator
from functorch_lite.core.program import Equation, Program, program_text
from functorch_lite.errors import MiscompilationError

MOST_EQUATIONS = 2
WIDTH = 110


class VerifiedExecutable:
    """The executable of `optimized`, checked against the evaluation of `program` whenever it is called.

    executable: one that there is already. donated: as for `compile`. folder: where reproducers go (the current
    directory if None).
    """

    is_native = False  # each call goes through Python

    def __init__(
        self, program: Program, optimized: Program, executable: Any = None, folder: str | Path | None = None,
        donated: Sequence[int] = (),
    ):
        self.program = program
        self.folder = folder
        if executable is None:
            executable = compiled_alone(program, optimized, donated) if can_lower(optimized) else Evaluator(optimized)
        self.executable = executable
        self._truth = without_effects(program) if program.has_effects else program

    def __call__(self, *args: Any) -> list[Any]:
        return self._checked(self.executable, args, ())

    def donating(self, args: Sequence[Any], given_up: Sequence[int]) -> list[Any]:
        """Call with inputs that the caller has given up; the binary takes over the memory of copies of them."""
        return self._checked(lambda *own: self.executable.donating(own, given_up), args, given_up)

    def _checked(self, run: Callable[..., list[Any]], args: Sequence[Any], given_up: Sequence[int]) -> list[Any]:
        if len(args) != len(self.program.inputs) or not all(isinstance(a, np.ndarray | np.generic) for a in args):
            return run(*args)
        given = [copied(a) for a in args]
        found = outcome(run, given, given_up)
        expected = outcome(evaluator(self._truth), given)
        difference = compare(self._truth, given, found, expected)
        if difference is not None:
            self._report(given, difference)
        if isinstance(found, Exception):
            raise found
        return found

    def _report(self, args: list[Any], difference: Difference | Raised) -> None:
        lowered = getattr(self.executable, "lowered", None)
        sources: Mapping[str, list[Equation]] = lowered.sources if lowered is not None else {}
        fault = locate(self.program, args, sources)
        if fault is None:
            fault = Fault("the executable, in this call only", "native", self._truth, args, difference)
        source = next((e.source for e in reversed(fault.program.equations) if e.source is not None), None)
        raise MiscompilationError(_message(fault, difference, self._written(fault)), source=source)

    def _written(self, fault: Fault) -> str:
        try:
            path = write_reproducer(fault, Path(self.folder) if self.folder is not None else Path.cwd())
        except (OSError, Unwritable) as error:
            return f"A reproducer could not be written: {error}. Please report this message."
        return f"Please report {path.name} and {path.with_suffix('.npz').name}, in {path.parent}: they reproduce it."


def _message(fault: Fault, difference: Difference | Raised, written: str) -> str:
    """At most 7 lines; the error adds the user's line."""
    lines = [f"verify: compiled wrongly by {fault.what}: {fault.difference}."]
    equations = [line for line in program_text(fault.program).splitlines() if line[:4].isspace() and line[4:5] != " "]
    lines += [line[:WIDTH] for line in equations[:MOST_EQUATIONS]]
    if len(equations) > MOST_EQUATIONS:
        lines.append(f"    ... and {len(equations) - MOST_EQUATIONS} more")
    if str(difference) != str(fault.difference):
        lines.append(f"In the whole program, {difference}.")
    lines.append("This is a bug of functorch_lite, not of your function.")
    lines.append(written)
    return "\n".join(lines)
