# SPDX-License-Identifier: MIT
"""Run-time stacks in native memory: what the iterations of a while loop leave for a scan over them.

A stack is a buffer that grows: before an iteration writes row i there is room for it. The stacks of one loop have the
same capacity, which doubles, so an iteration makes one comparison for all. Memory is kept for the next time the loop
runs, given back after the last reader outside of loops, and on every way out of the program.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Buffer, Grow, Release, Value
from functorch_lite.compiler.lowering.places import Place, Stacked
from functorch_lite.compiler.lowering.rules import kind_of, words
from functorch_lite.core.aval import Aval, StackAval
from functorch_lite.core.program import Equation, Program, Var, memoized
from functorch_lite.primitives.loops import scan_p, while_p

if TYPE_CHECKING:
    from functorch_lite.compiler.lowering.program import ProgramLowering

FIRST_ROWS = 16


def stacks_are_native(program: Program) -> bool:
    """Whether every run-time stack of a program is made by a while loop and read by scans, all of plain arrays."""
    return memoized(program, ("native stacks",), lambda: _only_loops(program))


def _only_loops(program: Program) -> bool:
    ends = [*program.in_avals, *program.out_avals]
    return all(_is_held(a) for a in ends) and all(_is_native(e) for e in program.equations)


def _is_native(equation: Equation) -> bool:
    stacked = [v for v in (*equation.inputs, *equation.outputs) if isinstance(v.aval, StackAval)]
    if not stacked:
        return True
    if equation.prim is not while_p and (equation.prim is not scan_p or equation.params["length"] is not None):
        return False
    first = equation.params.get("n_consts", len(equation.inputs)) + equation.params["n_carry"]
    if any(isinstance(a.aval, StackAval) for a in equation.inputs[:first]):
        return False
    bodies = [equation.params[name] for name in ("cond", "body") if name in equation.params]
    return all(_is_held(a) for body in bodies for a in (*body.in_avals, *body.out_avals))


def _is_held(aval: Any) -> bool:
    return type(aval) is Aval and kind_of(aval.dtype) is not None


class Growing:
    """The stacks that one loop writes."""

    def __init__(self, low: "ProgramLowering", variables: Sequence[Var]):
        self.rows = [v.aval.element for v in variables if isinstance(v.aval, StackAval)]
        self.buffers = [low.growing(a) for a in self.rows]

    def places(self, at: Any) -> list[Place]:
        """Where row `at` (an index) of each stack is."""
        return [Place(b, at * words(a), a) for b, a in zip(self.buffers, self.rows, strict=True)]

    def with_room(self, b: Builder, count: Value, capacity: Value) -> Value:
        """Make room for one more row than `count`; returns the rows that there is room for."""
        if not self.buffers:
            return capacity

        def grow():
            doubled = b.op("max", b.op("add", capacity, capacity), b.constant(FIRST_ROWS, "i64"))
            self.reserve(b, doubled)
            return [doubled]

        return b.branch(b.op("ge", count, capacity), grow, lambda: [capacity])[0]

    def reserve(self, b: Builder, rows: Value) -> None:
        """Make room for so many rows."""
        sizes = [words(a) for a in self.rows]
        if self.buffers:
            b.add(Grow(list(zip(self.buffers, sizes, strict=True)), rows))

    def stacked(self, count: Value) -> list[Stacked]:
        """The stacks once the loop has run `count` times."""
        return [Stacked(b, count, a) for b, a in zip(self.buffers, self.rows, strict=True)]


def rows_of(stacks: Sequence[Stacked], at: Any) -> list[Place]:
    """Row `at` of each stack."""
    return [Place(s.buffer, at * words(s.aval), s.aval) for s in stacks]


def release_read(low: "ProgramLowering", equation: Equation, stacks: Sequence[Stacked]) -> None:
    """Give the memory of stacks back if an equation was the last to read them, and will not run again."""
    if low.b.depth:
        return
    order = [e for g in low.scope.schedule.groups for e in g.equations]
    later = {a for e in order[order.index(equation) + 1 :] for a in e.inputs}
    read = {s.buffer: v for v, s in low.scope.stacks.items() if s in stacks}
    dead: list[Buffer] = [buffer for buffer, v in read.items() if v not in later]
    if dead:
        low.b.add(Release(dead))


__all__ = ["Growing", "release_read", "rows_of", "stacks_are_native"]
