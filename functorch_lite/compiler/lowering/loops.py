# SPDX-License-Identifier: MIT
"""Loops and branches: `scan`, `while` and `cond` are loops and branches of the one native function.

A carried number is a value of the code. A carried array has a place of its own, where its next value is computed if
nothing reads the present one any more (see `carries`). Where something does, as in a step of a grid's equations, a
scan of few steps' code has two places for it, and iterations in pairs that go from one to the other and back. What an
iteration gives goes straight into its row of the stacked output.
"""

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from functorch_lite.compiler.loop_ir.nodes import ZERO, Index, Value
from functorch_lite.compiler.lowering.carries import find_overlaps
from functorch_lite.compiler.lowering.places import HELD, Held, Place, is_one, of_parts, parts
from functorch_lite.compiler.lowering.program import ProgramLowering
from functorch_lite.compiler.lowering.rules import step_rules, words
from functorch_lite.compiler.lowering.stacks import Growing, release_read, rows_of
from functorch_lite.core.aval import Aval, StackAval
from functorch_lite.core.program import Equation, Program, Var
from functorch_lite.primitives.loops import batched_cond_p, cond_p, scan_p, while_p

LEAST = 3  # iterations, of fewer there are no pairs
LARGE = 1 << 10  # elements of a carried array that is worth a second place
FEW = 16  # steps and kernels of a body that is written twice


def _plain(*programs: Program) -> bool:
    """Whether the programs take and give arrays only."""
    return all(type(a) is Aval for p in programs for a in (*p.in_avals, *p.out_avals))


# --- carries ----------------------------------------------------------------------------------------------------------


class Carry:
    """The carry of a loop: numbers as values that the loop hands on, arrays in places of their own.

    next: where the body's results are wanted: in the same places, or for some in second ones (`double`).
    """

    def __init__(self, low: ProgramLowering, initial: Sequence[Any], variables: Sequence[Var]):
        self.low = low
        self.avals = [v.aval for v in variables]
        self.variables = variables
        self.places = self.next = [None if is_one(v) else low.out_place(v) for v in variables]
        self.counts = [0 if p else len(parts(x.element)) for p, x in zip(self.places, initial, strict=True)]
        self.first = [v for p, x in zip(self.places, initial, strict=True) if not p for v in parts(x.element)]
        for source, target in zip(initial, self.places, strict=True):
            if target is not None and source.key != target.key:
                low.b.copy(target.buffer, source.buffer, words(target.aval), at=target.start, start=source.start)

    @property
    def targets(self) -> list[Any]:
        """Where the body's results are wanted."""
        return [HELD if p is None else p for p in self.next]

    def double(self, which: Collection[int]) -> None:
        """Have second places for some arrays, which the next iteration writes; `turn` after each."""
        self.next = [self.low.temp(p.aval) if p is not None and k in which else p for k, p in enumerate(self.places)]

    def turn(self) -> None:
        """Go on from where the last iteration wrote, to where it read."""
        self.places, self.next = self.next, self.places

    def inputs(self, values: Sequence[Value]) -> list[Any]:
        """The carry as inputs of the body, from the values that the loop hands on."""
        left = list(values)
        found: list[Any] = []
        for place, aval, n in zip(self.places, self.avals, self.counts, strict=True):
            found.append(place or Held(of_parts(left[:n]), aval))
            del left[:n]
        return found

    def following(self, results: Sequence[Any]) -> list[Value]:
        """The values to hand on, from what the body returned."""
        return [v for r, p in zip(results, self.places, strict=True) if p is None for v in parts(r.element)]

    def finish(self, values: Sequence[Value]) -> None:
        """Define the loop's results."""
        for var, result in zip(self.variables, self.inputs(values), strict=True):
            self.low.define(var, result)


def _row(place: Place, row: Index, aval: Any) -> Place:
    return Place(place.buffer, place.start + row * words(aval), aval)


# --- scans ------------------------------------------------------------------------------------------------------------


@step_rules.register(scan_p)
def _(low: ProgramLowering, equation: Equation):
    params = equation.params
    body, n_consts, n_carry, length = params["body"], params["n_consts"], params["n_carry"], params["length"]
    if not _plain(body):
        return NotImplemented
    if length is None:
        return _scan_stacks(low, equation)
    given = [low.given(a) for a in equation.inputs[: n_consts + n_carry]]
    xs = [low.place(a) for a in equation.inputs[n_consts + n_carry :]]
    carry = Carry(low, given[n_consts:], equation.outputs[:n_carry])
    ys = [low.out_place(v) for v in equation.outputs[n_carry:]]
    x_avals, y_avals = body.in_avals[n_consts + n_carry :], body.out_avals[n_carry:]

    def around(i: Index, values: Sequence[Value]) -> tuple[list[Any], list[Any]]:
        """Inputs and targets of the body in iteration i."""
        row = (length - 1) - i if params["reverse"] else i
        inputs = [_row(x, row, v) for x, v in zip(xs, x_avals, strict=True)]
        rows = [_row(y, row, v) for y, v in zip(ys, y_avals, strict=True)]
        return [*given[:n_consts], *carry.inputs(values), *inputs], [*carry.targets, *rows]

    def step(i: Index, *values: Value) -> list[Value]:
        return carry.following(low.body(body, *around(i, values))[:n_carry])

    copied = _copied(low, body, *around(ZERO, carry.first)) & {*range(n_carry)} if length > LEAST else set()
    if copied:
        carry.finish(_in_pairs(low, carry, copied, length, step))
    else:
        carry.finish(low.b.reduce(length, carry.first, step) if length else carry.first)
    return None


def _copied(low: ProgramLowering, body: Program, inputs: Sequence[Any], targets: Sequence[Any]) -> set[int]:
    """The large results of a short body that would be copied to their targets, as the body reads there to its end."""
    if body.has_effects or len(low.schedule(body).groups) > FEW:
        return set()
    late = find_overlaps(low, body, inputs, targets).late
    return {k for k in late if math.prod(body.out_avals[k].shape) >= LARGE}


def _in_pairs(
    low: ProgramLowering, carry: Carry, copied: Collection[int], length: int, step: Callable[..., list[Value]]
) -> list[Value]:
    """The loop, two iterations at a time, after the first one if their number is odd; returns the last values."""
    odd = length % 2
    first = step(ZERO, *carry.first) if odd else carry.first
    carry.double(copied)

    def pair(i: Index, *values: Value) -> list[Value]:
        found = list(values)
        for k in (odd, odd + 1):
            found = step(i * 2 + k, *found)
            carry.turn()
        return found

    return low.b.reduce(length // 2, first, pair)


def _scan_stacks(low: ProgramLowering, equation: Equation) -> None:
    """A scan over the stacks that a while loop left."""
    params, b = equation.params, low.b
    body, n_consts, n_carry = params["body"], params["n_consts"], params["n_carry"]
    given = [low.given(a) for a in equation.inputs]
    stacks = given[n_consts + n_carry :]
    carry = Carry(low, given[n_consts : n_consts + n_carry], equation.outputs[:n_carry])
    ys = Growing(low, equation.outputs[n_carry:])
    count = stacks[0].count if stacks else b.constant(0, "i64")
    ys.reserve(b, count)

    def step(i: Index, *values: Value):
        row = b.index_of(count) - 1 - i if params["reverse"] else i
        inputs = [*given[:n_consts], *carry.inputs(values), *rows_of(stacks, row)]
        return carry.following(low.body(body, inputs, [*carry.targets, *ys.places(row)])[:n_carry])

    carry.finish(b.reduce(count, carry.first, step))
    for var, stack in zip(equation.outputs[n_carry:], ys.stacked(count), strict=True):
        low.define(var, stack)
    release_read(low, equation, stacks)


# --- while ------------------------------------------------------------------------------------------------------------


@step_rules.register(while_p)
def _(low: ProgramLowering, equation: Equation):
    params, b = equation.params, low.b
    cond, body, n_cond, n_body = params["cond"], params["body"], params["n_cond_consts"], params["n_body_consts"]
    if not _plain(cond, body):
        return NotImplemented
    n_carry = params["n_carry"]
    given = [low.given(a) for a in equation.inputs]
    cond_consts, body_consts = given[:n_cond], given[n_cond : n_cond + n_body]
    carry = Carry(low, given[n_cond + n_body :], equation.outputs[:n_carry])
    stacks = Growing(low, equation.outputs[n_carry:])
    counters = [b.constant(0, "i64")] * 2 if stacks.buffers else []
    n = len(counters)

    def test(*values: Value):
        return low.body(cond, [*cond_consts, *carry.inputs(values[n:])], [HELD])[0].element

    def step(*values: Value):
        inputs = [*body_consts, *carry.inputs(values[n:])]
        if not n:
            return carry.following(low.body(body, inputs, carry.targets))
        count, capacity = values[0], stacks.with_room(b, values[0], values[1])
        found = low.body(body, inputs, [*carry.targets, *stacks.places(Index.of(count))])
        return [b.op("add", count, b.constant(1, "i64")), capacity, *carry.following(found[:n_carry])]

    last = b.loop_while([*counters, *carry.first], test, step)
    carry.finish(last[n:])
    for var, stack in zip(equation.outputs[n_carry:], stacks.stacked(last[0]) if n else [], strict=True):
        low.define(var, stack)
    return None


# --- branches ---------------------------------------------------------------------------------------------------------


@step_rules.register(cond_p)
def _(low: ProgramLowering, equation: Equation):
    branches = equation.params["branches"]
    if not _plain(*branches):
        return NotImplemented
    given = [low.given(a) for a in equation.inputs]
    targets = [HELD if is_one(v) else low.out_place(v) for v in equation.outputs]
    values = _choose(low, parts(given[0].element)[0], branches, given[1:], targets)
    for var, target in zip(equation.outputs, targets, strict=True):
        if target is HELD:
            n = 2 if var.aval.dtype.kind == "c" else 1
            low.define(var, Held(of_parts(values[:n]), var.aval))
            del values[:n]
    return None


def _choose(low: ProgramLowering, index: Value, branches: Sequence[Program], inputs, targets) -> list[Value]:
    """Run the branch that an index (limited to those there are) names; returns the results that are values."""
    b = low.b
    index = b.op("convert", index, kind="i32") if index.kind == "bool" else index

    def run(k: int) -> list[Value]:
        found = low.body(branches[k], inputs, targets)
        return [v for r in found if type(r) is Held for v in parts(r.element)]

    def choose(k: int) -> list[Value]:
        if k == len(branches) - 1:
            return run(k)
        return b.branch(b.op("le", index, b.constant(k, index.kind)), lambda: run(k), lambda: choose(k + 1))

    return choose(0)


@step_rules.register(batched_cond_p)
def _(low: ProgramLowering, equation: Equation):
    """Row by row: the row's branch, on its elements of the operands that have rows."""
    branches, batched = equation.params["branches"], equation.params["batched"]
    if not _plain(*branches) or any(isinstance(a.aval, StackAval) for a in equation.outputs):
        return NotImplemented
    if any(b.has_effects for b in branches):  # an effect that is the same for all rows happens once
        return NotImplemented
    index, *operands = equation.inputs
    rows = low.place(index)
    given = [low.place(a) if f else low.given(a) for a, f in zip(operands, batched, strict=True)]
    outs = [low.out_place(v) for v in equation.outputs]
    count = index.aval.shape[0]
    if not count:
        return None
    with low.b.loop(count) as i:
        inputs = [_row(g, i, v.aval) if f else g
                  for g, f, v in zip(given, batched, branches[0].inputs, strict=True)]
        targets = [_row(o, i, a) for o, a in zip(outs, branches[0].out_avals, strict=True)]
        _choose(low, low.load(rows, i), branches, inputs, targets)
    return None
