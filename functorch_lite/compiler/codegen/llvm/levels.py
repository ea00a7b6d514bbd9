# SPDX-License-Identifier: MIT
"""Which functions of a quickly made module are made well: those in which its one call spends its time.

Where a first call is too long for LLVM's lowest level, most of the time goes to a few functions, and most of the code
is in others. The few are marked, and made at the usual level; the others are made at the lowest all the same
(runtime/tiers.py, runtime/pieces.py).
"""

import functools
from collections.abc import Container, Iterable
from typing import Any

from functorch_lite.compiler.cost import operations
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import Function, blocks
from functorch_lite.compiler.runtime.pieces import HOT
from functorch_lite.compiler.runtime.tiers import pays_for

LINES = 2  # of LLVM IR for a statement, where many are in tiles
MORE_LINES = 100  # that a function is worth as much more: to make a short one well takes some 5 ms, too
LITTLE = 3e7
"""Operations of a call up to which all is made quickly."""


class Levels:
    """Tells the functions that are worth good code, by their operations and statements.

    short: products have small tiles. work: a rough count of the operations of a call. lines: of what was found.
    """

    def __init__(self, function: Function, short: bool, work: int):
        self._function = function
        self._short = short
        self._looks = work > LITTLE
        self.lines = 0

    @functools.cached_property
    def _calls(self) -> dict[str, int]:
        return _calls_of(self._function, {})

    def is_hot(self, kernel: str, statements: Iterable[Any], without: Container[int] = ()) -> bool:
        """Whether these statements of a kernel should be made well. without: loops that are functions of their own."""
        if not self._looks:
            return False
        times = self._calls.get(kernel, 1)
        others, in_tiles, count = operations(statements, without)
        work = times * (others + in_tiles)
        lines = LINES * count
        if pays_for(work, lines + MORE_LINES, times * in_tiles, self._short):
            return False
        self.lines += lines
        return True


def marked(text: str) -> str:
    """The text of functions with the mark that they are to be made well."""
    return text.replace(" #0 {\n", f" {HOT} {{\n")


def _calls_of(function: Function, known: dict[str, dict[str, int]]) -> dict[str, int]:
    """How often each kernel is called in one call of a program or a part."""
    found: dict[str, int] = {}
    _count(function.body, 1, found, known)
    return found


def _count(statements: Iterable[Any], times: int, found: dict[str, int], known: dict[str, dict[str, int]]) -> None:
    for s in statements:
        if type(s) is nodes.KernelCall:
            kernel = s.kernel
            if kernel.arena is None:
                found[kernel.name] = found.get(kernel.name, 0) + times
                continue
            if kernel.name not in known:
                known[kernel.name] = _calls_of(kernel, known)
            for name, number in known[kernel.name].items():
                found[name] = found.get(name, 0) + times * number
            continue
        many = times * s.extent if type(s) is nodes.Loop and isinstance(s.extent, int) else times
        for block in blocks(s):
            _count(block, many, found, known)
