# SPDX-License-Identifier: MIT
"""Small groups in the bodies of loops: their code stands in the loop, where single numbers need no memory.

A call of a kernel costs more than a few numbers' arithmetic. So in a loop or branch a group of single elements, or one
of few, is written in place: what it reads of one element is a value of the code, and what it gives of one element too.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.loop_ir.nodes import ZERO, Index
from functorch_lite.compiler.lowering.carries import same_memory
from functorch_lite.compiler.lowering.group import CHEAP, GroupLowering
from functorch_lite.compiler.lowering.places import Place, is_one
from functorch_lite.compiler.lowering.rules import Element, kind_of
from functorch_lite.compiler.schedule.fusion import Group, is_number
from functorch_lite.core.program import Equation, Var
from functorch_lite.primitives.movement import concatenate_p

if TYPE_CHECKING:
    from functorch_lite.compiler.lowering.program import ProgramLowering

SMALL = 64  # elements of a domain
UNROLLED = 8


def can_inline(group: Group) -> bool:
    """Whether a group is small, and needs no memory of its own between its passes."""
    return not group.ends and math.prod(group.domain or ()) <= SMALL


class InlineGroup(GroupLowering):
    """Writes a group into the program itself."""

    def __init__(self, low: "ProgramLowering", group: Group, stored: Sequence[Var] = ()):
        super().__init__("inline", group, low.scope.schedule, stored)
        self.b = low.b
        self.low = low
        self.elements: dict[Any, Element] = {}
        self.places: dict[Any, Place] = {}
        self.depth = low.b.depth
        self.unrolls = math.prod(group.domain or ()) <= UNROLLED and all(e.prim.name in CHEAP for e in group.equations)

    def write(self) -> None:
        """Compute `stored`: single elements become values, others go to memory."""
        for equation in self.group.equations:
            for atom in equation.inputs:
                self._fetch(atom)
        self.places.update((v, self.low.out_place(v)) for v in self.stored if not is_one(v))
        self.outputs = dict.fromkeys(self.stored)  # type: ignore[assignment]
        self._find_levels()
        rows, inner = self._loops()
        self._over(rows, lambda: self._row(inner))

    def read_one(self, atom: Any) -> Element:
        """The element of an index map that has only one."""
        self._fetch(atom)
        return self.read(atom, [ZERO] * len(atom.aval.shape))

    def _fetch(self, atom: Any) -> None:
        """Find what is read before any loop of the group begins, so that it is known after the loop too."""
        if is_number(atom):
            return
        for source in self.schedule.sources(atom):
            if source in self.makers or source in self.elements or source in self.places:
                continue
            if is_one(source):
                self.elements[source] = self.low.element(source)
            else:
                self.places[source] = self.low.place(source)

    def load(self, atom: Any, at: Index) -> Element:
        """The element at a position: what the program's block knows of a small array is not read again."""
        found = self.elements.get(atom)
        if found is not None:
            return found
        key = self._key(atom, at)
        found = self.low.scope.elements.get(key) if key else None
        if found is None:
            found = self.low.load(self.places[atom], at)
            self._know(key, found)
        return found

    def _key(self, atom: Any, at: Index) -> tuple[Any, int] | None:
        return None if at.terms else (same_memory(self.schedule, atom), at.constant)

    def _know(self, key: tuple[Any, int] | None, element: Element) -> None:
        if key and self.low.b.depth == self.depth:
            self.low.scope.elements[key] = element

    def put(self, var: Var, element: Element) -> None:
        place = self.places.get(var)
        if place is None:
            self.low.scope.held[var] = element
        else:
            at = self._own_position(var)
            self.low.store(place, element, at)
            self._know(self._key(var, at), element)

    def _over(self, loops: list[tuple[int, int]], body: Callable[[], None]) -> None:
        """A few elements are computed one by one, which hands them on in registers."""
        if not loops or not self.unrolls:
            super()._over(loops, body)
            return
        (position, extent), rest = loops[0], loops[1:]
        for i in range(extent):
            self.position[position] = Index(i)
            self._over(rest, body)
        self.position[position] = ZERO

    def _is_in_memory(self, var: Var) -> bool:
        return False

    def _is_costly_later(self, equation: Any) -> bool:
        return False


def read_one(low: "ProgramLowering", atom: Any) -> Element:
    """The element of an index map that has only one."""
    return InlineGroup(low, Group([], (), 0, 0, 0)).read_one(atom)


def is_stack_of_numbers(equation: Equation) -> bool:
    """Whether an equation puts single elements in a row."""
    return equation.prim is concatenate_p and all(is_one(a) and kind_of(a.aval.dtype) for a in equation.inputs)


def write_numbers(low: "ProgramLowering", equation: Equation) -> None:
    """Write single elements in a row where the result is."""
    elements = [low.element(a) for a in equation.inputs]
    place = low.out_place(equation.outputs[0])
    for k, element in enumerate(elements):
        low.store(place, element, Index(k))
        low.scope.elements[equation.outputs[0], k] = element
