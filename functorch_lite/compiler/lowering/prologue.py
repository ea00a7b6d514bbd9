# SPDX-License-Identifier: MIT
"""Prologues: an operand of a product that is computed element by element while the product copies it.

The schedule decides what is fused (`schedule/prologues.py`), and `lowering/computed_product.py` which part of it is
computed when. To the tiles it is a copied operand like others, so what a prologue costs is its own operations; it
saves the store and the loads of a whole array.

Half precision that is no other prologue's is widened in the same way.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.group_key import group_key
from functorch_lite.compiler.lowering.rules import kind_of
from functorch_lite.compiler.lowering.tiles import Computed
from functorch_lite.compiler.lowering.walked_group import WalkedGroup
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.core.program import Var


class Source(Computed, Protocol):
    """An operand of a product that is computed."""

    def follows(self, strides: Sequence[int], size: int) -> bool:
        """Whether it can be computed along axes with these strides in it."""
        ...

    def write(self, target: Buffer) -> None:
        """Compute all of it."""
        ...


Operand = Buffer | Source


class Prologue(WalkedGroup):
    """The equations that compute an operand; parameters of the kernel are what they read."""

    def __init__(self, group: Group, schedule: Schedule, operand: Var):
        super().__init__("prologue", group, schedule, [])
        self.operand = operand
        self.aval: Any = operand.aval
        self.kind = wide_kind(operand.aval.dtype)
        self.size = self.aval.size

    def key(self) -> tuple[Any, list[Any]]:
        """What equal prologues have in common (None: nothing is equal), and the arrays they read."""
        return group_key(self.group, self.schedule, [self.operand])

    def begin(self, b: Builder, name: str) -> None:
        """Declare what it reads as parameters of a kernel."""
        self.b, self.inputs, self.prefix = b, {}, name
        self.find_inputs()
        self._find_levels()

    def element(self, at: Index) -> Value:
        """The operand's number at a position, widened if it is half precision."""
        self.go_to(at)
        found = self._present()
        self.position = [ZERO] * len(self.position)
        return found

    def _present(self) -> Value:
        self.pass_values = {}
        self._compute([self.operand], [])
        return self.b.op("convert", self.value(self.operand), kind=self.kind)

    def write(self, target: Buffer) -> None:
        """Compute the whole operand."""
        rows, inner = self._loops()
        self._over([*rows, *inner], lambda: self.b.store(target, self.here(), self._present()))


class Widened:
    """An operand in half precision, as float32."""

    kind = "f32"

    def __init__(self, b: Builder, buffer: Buffer):
        self.b, self.buffer, self.size = b, buffer, buffer.size

    def follows(self, strides: Sequence[int], size: int) -> bool:
        return True

    def element(self, at: Index) -> Value:
        return self.b.op("convert", self.b.load(self.buffer, at), kind=self.kind)

    def write(self, target: Buffer) -> None:
        with self.b.loop(self.size, vector=True) as i:
            self.b.store(target, i, self.element(i))


def in_memory(b: Builder, source: Operand, name: str) -> Buffer:
    """An operand in memory: one that is computed, in working space."""
    if isinstance(source, Buffer):
        return source
    target = b.scratch(name, source.kind, source.size)
    source.write(target)
    return target


def wide_kind(dtype: Any) -> str:
    """The kind in which numbers of a type are added up."""
    kind = kind_of(dtype) or ""
    return "f32" if kind in ("f16", "bf16") else kind
