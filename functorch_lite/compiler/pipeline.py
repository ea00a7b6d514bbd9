# SPDX-License-Identifier: MIT
"""The compile pipeline, and the seam that `jit` calls.

Today a program is cleaned of dead code and run by the evaluator, one NumPy or CuPy call for each equation. A code
generator takes the evaluator's place behind the same two names.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.core.program import Program, memoized


class Executable(Protocol):
    """A compiled program: called with one array for each input, it returns a list of outputs."""

    def __call__(self, *args: Any) -> list[Any]: ...


PASSES: Sequence[Callable[[Program], Program]] = (eliminate_dead_code,)


def optimize(program: Program) -> Program:
    """The program after every pass, in order."""
    for transform in PASSES:
        program = transform(program)
    return program


def compile(program: Program, device: str = "cpu") -> Executable:
    """An executable of `program`; made once for a program and device."""
    return memoized(program, ("executable", device), lambda: Evaluator(optimize(program)))
