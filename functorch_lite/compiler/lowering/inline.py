# SPDX-License-Identifier: MIT
"""Small groups in the bodies of loops: their code stands in the loop, where single numbers need no memory.

A call of a kernel costs more than a few numbers' arithmetic. So in a loop or branch a group of single elements, or one
of few, is written in place: what it reads of one element is a value of the code, and what it gives of one element too.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.loop_ir.nodes import ZERO, Index
from functorch_lite.compiler.lowering.group import GroupLowering
from functorch_lite.compiler.lowering.places import Place
from functorch_lite.compiler.lowering.rules import Element
from functorch_lite.compiler.schedule.fusion import Group, is_number
from functorch_lite.core.program import Var

if TYPE_CHECKING:
    from functorch_lite.compiler.lowering.program import ProgramLowering

SMALL = 64  # elements of a domain


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

    def write(self) -> None:
        """Compute `stored`: single elements become values, others go to memory."""
        for equation in self.group.equations:
            for atom in equation.inputs:
                self._fetch(atom)
        self.places.update((v, self.low.out_place(v)) for v in self.stored if v.aval.size != 1)
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
            if source.aval.size == 1:
                self.elements[source] = self.low.element(source)
            else:
                self.places[source] = self.low.place(source)

    def load(self, atom: Any, at: Index) -> Element:
        found = self.elements.get(atom)
        return self.low.load(self.places[atom], at) if found is None else found

    def put(self, var: Var, element: Element) -> None:
        place = self.places.get(var)
        if place is None:
            self.low.scope.held[var] = element
        else:
            self.low.store(place, element, self._own_position(var))

    def _is_in_memory(self, var: Var) -> bool:
        return False

    def _is_costly_later(self, equation: Any) -> bool:
        return False


def read_one(low: "ProgramLowering", atom: Any) -> Element:
    """The element of an index map that has only one."""
    return InlineGroup(low, Group([], (), 0, 0, 0)).read_one(atom)
