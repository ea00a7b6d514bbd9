# SPDX-License-Identifier: MIT
"""Lowering of concatenate: a kernel that writes each operand to its part of the output.

Operands that are index maps (slices, transposes, broadcasts) are read through them. Operands of one element along the
axis and after it, as of a stack along the last axis, are written side by side in one loop.
"""

import math
from collections.abc import Sequence
from typing import Any

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Buffer, Function, Index, KernelCall
from functorch_lite.compiler.lowering.group import GroupLowering
from functorch_lite.compiler.lowering.inline import is_stack_of_numbers
from functorch_lite.compiler.lowering.program import ProgramLowering
from functorch_lite.compiler.lowering.rules import kind_of, linear, step_rules, strides_of, words
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.compiler.schedule.partial import in_parts
from functorch_lite.compiler.schedule.turned import in_tiles
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Var
from functorch_lite.primitives.casts import stop_gradient_p
from functorch_lite.primitives.movement import concatenate_p

MANY = 16
"""Operands, of which each has a loop of its own; more are copied by rows (lowering/movement.py): that is less code."""


class Piece(GroupLowering):
    """One operand, read where it is and written from `start` on along an axis of the output."""

    def __init__(self, b: Builder, equation: Equation, number: int, schedule: Schedule, inputs: dict[Any, Buffer]):
        atom = equation.inputs[number]
        self.var = Var(atom.aval)
        group = Group([Equation(stop_gradient_p, (atom,), (self.var,), {}, equation.source)],
                      tuple(n for n in atom.aval.shape if n != 1), 0, 0, 0)
        group.axes[self.var] = tuple(range(len(group.domain or ())))
        super().__init__(b.function.name, group, schedule, [self.var])
        self.b, self.inputs = b, inputs
        self.whole: tuple[int, ...] = equation.outputs[0].aval.shape
        self.axis: int = equation.params["axis"]
        self.start = sum(a.aval.shape[self.axis] for a in equation.inputs[:number])
        self.find_inputs()

    def _own_position(self, var: Var) -> Index:
        index = self._index(var.aval.shape, self.group.axes[var])
        index[self.axis] = index[self.axis] + self.start
        return linear(index, self.whole)

    def _own_walk(self, var: Var) -> tuple[int, ...]:
        return tuple(s for s, n in zip(strides_of(self.whole), var.aval.shape, strict=True) if n != 1)

    def write(self, out: Buffer, others: Sequence["Piece"] = ()) -> None:
        """Loops that write this operand, and others of its shape at the same positions."""
        pieces = [self, *others]
        for p in pieces:
            p.outputs[p.var], p.position, p.levels = out, self.position, {p.var: 0}
        walks: set[tuple[int, ...]] | None = set()
        for p in pieces:
            found = p._walks()
            walks = None if walks is None or found is None else walks | found
        loops = self._merged(range(len(self.group.domain or ())), walks)
        self._over(loops, lambda: _write_all(pieces))


def _write_all(pieces: Sequence[Piece]) -> None:
    elements = []
    for p in pieces:
        p.pass_values = {}
        elements.append(p.value(p.var))
    for p, element in zip(pieces, elements, strict=True):
        p.put(p.var, element)


@step_rules.register(concatenate_p)
def _(low: ProgramLowering, equation: Equation):
    avals = [a.aval for a in (*equation.inputs, *equation.outputs)]
    if (low.b.depth and is_stack_of_numbers(equation)) or not all(type(a) is Aval and a.size for a in avals):
        return NotImplemented
    if len(equation.inputs) > MANY:
        return NotImplemented
    wanted = low.scope.wanted.get(equation.outputs[0])
    if wanted is not None and any(low.place(s).buffer is wanted.buffer for s in _sources(low, equation)):
        return NotImplemented
    kernel, inputs = _kernel(low, equation)
    places = [low.place(a) for a in inputs]
    low.b.add(KernelCall(kernel, [p.operand for p in (*places, low.out_place(equation.outputs[0]))]))
    return None


def _sources(low: ProgramLowering, equation: Equation) -> list[Any]:
    """The arrays in memory that the operands are, or are index maps of."""
    return [s for a in equation.inputs for s in low.scope.schedule.sources(a) if type(s) is Var]


def _kernel(low: ProgramLowering, equation: Equation) -> tuple[Function, list[Any]]:
    """The kernel, and the arrays that it reads."""
    b, inputs = Builder(f"concatenate_{len(low.kernels)}"), {}
    pieces = [Piece(b, equation, k, low.scope.schedule, inputs) for k in range(len(equation.inputs))]
    out = equation.outputs[0].aval
    kind = kind_of(out.dtype)
    assert kind is not None
    target = b.output("out0", kind, words(out))
    axis = equation.params["axis"]
    if all(math.prod(a.aval.shape[axis:]) == 1 for a in equation.inputs):
        pieces[0].write(target, pieces[1:])
    else:
        for p in pieces:
            p.write(target)
    return low.kernel(in_parts(in_tiles(b.finish())), [equation]), list(inputs)
