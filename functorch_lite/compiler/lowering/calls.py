# SPDX-License-Identifier: MIT
"""Calls of programs: what a program calls many times is a part of it, a function that is lowered and compiled once.

A part has its inputs, its outputs and the constants it reads as parameters, and its temporaries in an arena that the
caller provides: working space that is free again after the call. Where an output is wanted in the place of an input,
and what a loop calls if it is made of numbers or could be one kernel, the equations are lowered in place.
"""

from collections.abc import Sequence

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import BUFFER, ZERO, Buffer, Function, KernelCall, blocks
from functorch_lite.compiler.loop_ir.polls import has_polls, mark_polls
from functorch_lite.compiler.lowering.places import Place, is_one
from functorch_lite.compiler.lowering.program import ProgramLowering, can_lower
from functorch_lite.compiler.lowering.rules import layout, step_rules
from functorch_lite.compiler.memory.plan import Part, by_input, plan_memory, takeovers, touched
from functorch_lite.compiler.schedule.sections import in_sections
from functorch_lite.core.program import Equation, Program
from functorch_lite.primitives.higher_order import jit_p


@step_rules.register(jit_p)
def _(low: ProgramLowering, equation: Equation):
    program = low.called(equation.params["program"])
    if _may_be_apart(low, program):
        sources = low.places(equation.inputs)
        if _is_apart(low, equation, sources):
            _call(low, equation, part_of(low, program), sources)
            return
    targets = [low.target_of(v) for v in equation.outputs]
    found = low.call(program, [low.given(a) for a in equation.inputs], targets)
    for var, result in zip(equation.outputs, found, strict=True):
        low.define(var, result)


def _may_be_apart(low: ProgramLowering, program: Program) -> bool:
    """Whether calls of a program may be of a part: outside loops, or of steps on arrays."""
    return can_lower(program) and (not low.b.depth or _is_worth(low, program))


def _is_apart(low: ProgramLowering, equation: Equation, sources: Sequence[Place]) -> bool:
    """Whether no output of a call is wanted where an input is."""
    wanted = filter(None, map(low.scope.wanted.get, equation.outputs))
    return {*map(BUFFER, sources)}.isdisjoint(map(BUFFER, wanted))


def _is_worth(low: ProgramLowering, program: Program) -> bool:
    """Whether a program called in a loop has steps of its own, and takes and gives no numbers."""
    groups = low.schedule(program).groups
    return any(g.domain is None or g.chain is not None or g.pool is not None for g in groups) and not any(
        map(is_one, (*program.inputs, *program.outputs)))


def _call(low: ProgramLowering, equation: Equation, part: Part, sources: Sequence[Place]) -> None:
    """Call a part. sources: where its inputs are."""
    function = part.function
    targets = low.out_places(equation.outputs)
    constants = [(b, ZERO) for b in function.params[len(sources) + len(targets) : -1]]
    assert function.arena is not None
    low.b.add(KernelCall(function, [*sources, *targets, *constants, low.scratch(function.arena)]))
    low.share(sources, targets, part.in_place)


def part_of(low: ProgramLowering, program: Program) -> Part:
    """The part that a program is, made once."""
    found = low.parts.get(program)
    if found is None:
        found = low.parts[program] = _Making(low, program).part()
    return found


class _Making:
    """The lowering of one part, into a function of its own."""

    def __init__(self, low: ProgramLowering, program: Program):
        self.low = low
        self.program = program
        self.b = Builder("part")

    def part(self) -> Part:
        """The part: its statements, its parameters, its memory."""
        low, program, around = self.low, self.program, self.low.b
        low.b = self.b
        inputs = [self._place(self.b.input, f"in{k}", a.aval) for k, a in enumerate(program.inputs)]
        outputs = [self._place(self.b.output, f"out{k}", a.aval) for k, a in enumerate(program.outputs)]
        low.body(program, inputs, outputs)
        low.b = around
        return self._finished(in_sections(self.b.finish(), low.in_place, program))

    def _place(self, new, name: str, aval) -> Place:
        return Place(new(name, *layout(aval)), ZERO, aval)

    def _finished(self, function: Function) -> Part:
        function.params += _constants(function, set(self.low.constant_buffers))
        function.name = f"part{len(self.low.parts)}"  # parts inside this one came first
        mark_polls(function)
        function.can_fail = _can_fail(function.body) or has_polls(function.body)
        function.has_steps = _has_steps(function.body)
        plan = plan_memory(function, self.low.in_place)
        ins, outs = function.params[: len(self.program.inputs)], function.params[len(self.program.inputs) :]
        in_place = by_input(takeovers(function, self.low.in_place, ins, outs[: len(self.program.outputs)]))
        function.arena = Buffer("arena", "u8", max(plan.size, 1), "scratch")
        function.params.append(function.arena)
        function.scratch.append(function.arena)
        return Part(function, plan, in_place)


def _constants(function: Function, constants: set[Buffer]) -> list[Buffer]:
    """The constants that a function reads, in the order it does."""
    found: dict[Buffer, None] = {}

    def block(statements):
        for s in statements:
            found.update((b, None) for b in touched(s) if b in constants)
            for inner in blocks(s):
                block(inner)

    block(function.body)
    return list(found)


def _can_fail(statements) -> bool:
    """Whether one of the statements may end the program: a step in Python, a kernel that can fail, growing memory."""
    return any(
        isinstance(s, nodes.HostCall | nodes.Grow | nodes.Exit)
        or (isinstance(s, KernelCall) and s.kernel.can_fail)
        or any(map(_can_fail, blocks(s)))
        for s in statements
    )


def _has_steps(statements) -> bool:
    """Whether one of the statements is a step in Python, other than to raise an error."""
    return any(
        isinstance(s, nodes.HostCall) or (isinstance(s, KernelCall) and s.kernel.has_steps)
        or any(map(_has_steps, blocks(s)))
        for s in statements
    )
