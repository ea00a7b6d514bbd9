# SPDX-License-Identifier: MIT
"""Where the arrays of a program are while it is lowered: in memory, or as values of the code."""

from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.nodes import Buffer, Index, Value
from functorch_lite.compiler.lowering.rules import Element, Pair
from functorch_lite.core.aval import Aval


class Place(NamedTuple):
    """An array in memory: C-ordered, from element `start` of a buffer on."""

    buffer: Buffer
    start: Index
    aval: Any

    @property
    def operand(self) -> tuple[Buffer, Index]:
        return self.buffer, self.start

    @property
    def key(self) -> tuple[Buffer, Any]:
        """Equal for equal places."""
        return self.buffer, self.start.key


class Held(NamedTuple):
    """An array of one element as a value of the code, and where it is in memory, if it is there too."""

    element: Element
    aval: Any
    place: Place | None = None


class Stacked(NamedTuple):
    """A run-time stack in native memory: `count` arrays (an i64 value) in a buffer that grows."""

    buffer: Buffer
    count: Value
    aval: Any


HELD = Held(None, None)
"""As the target of an output of one element: it is wanted as a value."""


def is_one(atom: Any) -> bool:
    """Whether an atom is an array of one element."""
    return type(atom.aval) is Aval and atom.aval.size == 1


def parts(element: Element) -> tuple[Value, ...]:
    """The loop IR values that an element is: one, or two if complex."""
    return tuple(element) if isinstance(element, Pair) else (element,)


def of_parts(values: Any) -> Element:
    """The element that `parts` took apart."""
    return Pair(*values) if len(values) == 2 else values[0]
