# SPDX-License-Identifier: MIT
"""Loops and branches: `scan`, `while` and `cond` are loops and branches of the one native function.

A carried value has a place of its own, which an iteration reads and, at its end, overwrites. What an iteration gives
goes straight into its row of the stacked output.
"""

from typing import Any

from functorch_lite.compiler.loop_ir.nodes import Index
from functorch_lite.compiler.lowering.program import Place, ProgramLowering
from functorch_lite.compiler.lowering.rules import step_rules, words
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Program
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.loops import cond_p, scan_p, while_p


def _plain(*programs: Program) -> bool:
    """Whether the programs take and give arrays only: run-time stacks are kept in Python."""
    return all(type(a) is Aval for p in programs for a in (*p.in_avals, *p.out_avals))


@step_rules.register(jit_p)
def _(low: ProgramLowering, equation: Equation):
    program = equation.params["program"]
    targets = [low.out_place(v) for v in equation.outputs]
    low.call(program, [low.place(a) for a in equation.inputs], targets)


@step_rules.register(scan_p)
def _(low: ProgramLowering, equation: Equation):
    params = equation.params
    body, n_consts, n_carry, length = params["body"], params["n_consts"], params["n_carry"], params["length"]
    if length is None or not _plain(body):
        return NotImplemented
    places = [low.place(a) for a in equation.inputs]
    consts, initial, xs = places[:n_consts], places[n_consts : n_consts + n_carry], places[n_consts + n_carry :]
    carry = [low.out_place(v) for v in equation.outputs[:n_carry]]
    ys = [low.out_place(v) for v in equation.outputs[n_carry:]]
    start_carry(low, initial, carry)
    if not length:
        return None
    with low.b.loop(length) as i:
        row = (length - 1) - i if params["reverse"] else i
        inputs = [*consts, *carry, *(_row(x, row, v) for x, v in zip(xs, body.in_avals[n_consts + n_carry :],
                                                                    strict=True))]
        rows = [_row(y, row, v) for y, v in zip(ys, body.out_avals[n_carry:], strict=True)]
        following = low.body(body, inputs, [*[None] * n_carry, *rows])[:n_carry]
        move_carry(low, following, carry)
    return None


def _row(place: Place, row: Index, aval: Any) -> Place:
    return Place(place.buffer, place.start + row * words(aval), aval)


def start_carry(low: ProgramLowering, initial: list[Place], carry: list[Place]) -> None:
    """Copy the first values into the places of the carry."""
    for source, target in zip(initial, carry, strict=True):
        low.b.copy(target.buffer, source.buffer, words(target.aval), at=target.start, start=source.start)


def move_carry(low: ProgramLowering, following: list[Place], carry: list[Place]) -> None:
    """Copy the next values into the places of the carry; one that is another's old place is saved first."""
    places = {(c.buffer, c.start.key) for c in carry}
    saved = []
    for k, (source, target) in enumerate(zip(following, carry, strict=True)):
        here = (source.buffer, source.start.key)
        if here in places and here != (target.buffer, target.start.key):
            fresh = low.temp(source.aval)
            low.b.copy(fresh.buffer, source.buffer, words(source.aval), start=source.start)
            source = fresh
        saved.append((k, source, target))
    for _, source, target in saved:
        if (source.buffer, source.start.key) != (target.buffer, target.start.key):
            low.b.copy(target.buffer, source.buffer, words(target.aval), at=target.start, start=source.start)


@step_rules.register(while_p)
def _(low: ProgramLowering, equation: Equation):
    params = equation.params
    cond, body, n_cond, n_body = params["cond"], params["body"], params["n_cond_consts"], params["n_body_consts"]
    if not _plain(cond, body):
        return NotImplemented
    places = [low.place(a) for a in equation.inputs]
    cond_consts, body_consts = places[:n_cond], places[n_cond : n_cond + n_body]
    carry = [low.out_place(v) for v in equation.outputs]
    start_carry(low, places[n_cond + n_body :], carry)

    def test():
        found = low.body(cond, [*cond_consts, *carry], [None])[0]
        return low.b.load(found.buffer, found.start)

    def step():
        move_carry(low, low.body(body, [*body_consts, *carry], [None] * len(carry)), carry)
        return ()

    low.b.loop_while((), test, step)
    return None


@step_rules.register(cond_p)
def _(low: ProgramLowering, equation: Equation):
    branches = equation.params["branches"]
    if not _plain(*branches):
        return NotImplemented
    index, *operands = [low.place(a) for a in equation.inputs]
    targets = [low.out_place(v) for v in equation.outputs]
    chosen = low.b.load(index.buffer, index.start)

    def choose(k: int):
        if k == len(branches) - 1:
            low.body(branches[k], operands, targets)
            return
        here = low.b.op("le", chosen, low.b.constant(k, chosen.kind))
        low.b.branch(here, lambda: low.body(branches[k], operands, targets) and None, lambda: choose(k + 1))

    if chosen.kind == "bool":
        chosen = low.b.op("convert", chosen, kind="i32")
    choose(0)
    return None
