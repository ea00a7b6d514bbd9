# SPDX-License-Identifier: MIT
"""Machine code of a function: branches, the values that phis take, calls, and what is around the statements."""

import re
from collections.abc import Callable, Sequence

from functorch_lite.compiler.codegen.x86.encoding import RSP
from functorch_lite.compiler.codegen.x86.kinds import Kind, kind_of, typed
from functorch_lite.compiler.codegen.x86.reading import Edge, Reading, Unknown
from functorch_lite.compiler.codegen.x86.registers import ARGUMENTS, RAX, SAVED
from functorch_lite.compiler.codegen.x86.statements import FLOATING, INTEGER, Statements

_CALL = re.compile(r"void ([@%][-\w.]+)\((.*)\)")
_END = ""  # the label of the end of a function


class FunctionWriter(Statements):
    """Writes one function. head: the bytes before what `code` has."""

    def __init__(self, reading: Reading, constants: dict[str, bytes]):
        super().__init__(reading, constants)
        labels, code = reading.labels, self.code
        for self.number, (result, operation, rest) in enumerate(reading.statements):
            for label in labels.get(self.number, ()):
                code.label(label)
            write = _STATEMENTS.get(operation)
            if write is None:
                raise Unknown
            write(self, result, rest, operation)
            self.expire()
        code.label(_END)
        self.head = 0

    def finished(self) -> bytes:
        """The function, but for the distances to what is outside of it."""
        saved = [r for r in SAVED if r in self.used]
        before, after = bytearray(), bytearray()
        for r in saved:
            before += bytes((0x41, 0x50 | r & 7) if r > 7 else (0x50 | r,))
            after[:0] = bytes((0x41, 0x58 | r & 7) if r > 7 else (0x58 | r,))
        if self.frame:  # mov rax, rsp; and rsp, -64; sub rsp, frame; mov [rsp + frame - 8], rax
            frame = self.frame + 8 + -(self.frame + 8) % 64
            size, last = frame.to_bytes(4, "little"), (frame - 8).to_bytes(4, "little")
            before += b"\x48\x89\xe0\x48\x83\xe4\xc0\x48\x81\xec%s\x48\x89\x84\x24%s" % (size, last)
            after[:0] = b"\x48\x8b\xa4\x24" + last  # mov rsp, [rsp + frame - 8]
        self.head = len(before)
        self.code.settle()
        return bytes(before + self.code.bytes + b"\xc5\xf8\x77" + after + b"\xc3")  # vzeroupper; ret

    # --- control ----------------------------------------------------------------------------------------------------

    def branch(self, _: str, rest: str, __: str) -> None:
        """br label <block>, or br i1 <condition>, label <block>, label <block>"""
        edges = self.of.edges.get(self.number, ())
        if rest.startswith("label "):
            self._moves(edges)
            self._go(rest[6:])
            return
        condition, *targets = rest.split(", ")
        yes, no = [t[6:] for t in targets]
        test = self.test(condition[3:])
        for edge in edges:
            self._begin(edge)
        to_yes = [e for e in edges if self._goes_to(e, yes)]
        if any(self._move_of(e) is not None for e in to_yes):
            other = f"{self.number}"
            self.code.jump(other, test ^ 1)
            self._moves(to_yes)
            self.code.jump(yes)
            self.code.label(other)
        else:
            self.code.jump(yes, test)
        self._moves([e for e in edges if not self._goes_to(e, yes)])
        self._go(no)

    def _goes_to(self, edge: Edge, block: str) -> bool:
        return edge.block == block

    def _go(self, block: str) -> None:
        if block not in self.of.labels.get(self.number + 1, ()):
            self.code.jump(block)

    def phi(self, _: str, __: str, ___: str) -> None:
        """Its register has its value already: the jumps to here put it there."""

    def _begin(self, edge: Edge) -> int:
        """The register of a phi, which it has from the first jump to it on."""
        register = self.places.get(edge.phi)
        return self.new(edge.phi, kind_of(edge.type).where) if register is None else register

    def _move_of(self, edge: Edge) -> tuple[str, int, int | str] | None:
        """Which registers, the phi's, and what goes into it, a register or a constant; None if that is there."""
        where, register = kind_of(edge.type).where, self._begin(edge)
        if edge.value[0] != "%":
            return where, register, edge.value
        source = self.value(edge.value, where)
        return None if source == register else (where, register, source)

    def _moves(self, edges: Sequence[Edge]) -> None:
        """Give the phis of a block their values, as if at once."""
        for edge in edges:
            self._begin(edge)
        left = [(move, kind_of(e.type)) for e in edges if (move := self._move_of(e)) is not None]
        while left:
            sources = {(where, source) for (where, _, source), _ in left}
            ready = [item for item in left if item[0][:2] not in sources]
            if not ready:
                raise Unknown
            for item in ready:
                self._move(*item[0], item[1])
                left.remove(item)

    def _move(self, where: str, register: int, source: int | str, kind: Kind) -> None:
        if type(source) is str:
            if where == "g":
                self.code.number(register, int(source))
            else:
                self.in_vector(source, kind, register)
        elif type(source) is int:
            (self.code.move if where == "g" else self.copy)(register, source)

    def leave(self, _: str, rest: str, __: str) -> None:
        """ret void or ret i32 <status>"""
        if rest != "void":
            of, text = typed(rest)
            if of != "i32":
                raise Unknown
            self.code.move(RAX, self.in_register(text))
        if self.number + 1 < len(self.of.statements):
            self.code.jump(_END)

    # --- calls ------------------------------------------------------------------------------------------------------

    def call(self, result: str, rest: str, _: str) -> None:
        """A call of an intrinsic, or of a function of the module or one whose address is a value."""
        of, at, after = rest.partition(" @llvm.")
        if not at:
            self._call_function(result, rest)
            return
        name, _, given = after[:-1].partition("(")
        if name == "memset.p0.i64":
            self.set_to_zero(given)
            return
        if name.startswith("masked.load."):
            self.load_masked(result, kind_of(of), given)
            return
        if name.startswith("masked.store."):
            self.store_masked(given)
            return
        texts = [typed(part)[1] for part in given.split(", ")]
        if name.startswith("fma."):
            self.multiply_add(result, kind_of(of), texts)
        else:
            self.function(result, kind_of(of), name, texts)

    def _call_function(self, result: str, rest: str) -> None:
        found = _CALL.fullmatch(rest)
        arguments = found[2].split(", ") if found and found[2] else []
        ends = self.of.ends.get(self.number, ())
        kept = [n for n in self.places if n not in ends]
        if found is None or result or len(arguments) > len(ARGUMENTS) or any(self.kinds[n] != "g" for n in kept):
            raise Unknown
        kept = [n for n in kept if self.places[n] not in SAVED]
        slots = self._set_aside(kept, arguments, found[1])
        if found[1][0] == "@":
            self.code.call(found[1][1:])
        else:
            self.code.raw(0xFF, 0xD0)  # call rax
        for name, slot in slots.items():
            self.code.memory(b"\x8b", self.places[name], (RSP, slot))

    def _set_aside(self, kept: Sequence[str], arguments: Sequence[str], function: str) -> dict[str, int]:
        """Put values that live on, and arguments, on the stack; then the arguments and the function's address in place.

        Returns where the values are.
        """
        self.frame += -self.frame % 64
        start, code = self.frame, self.code
        self.frame += 8 * (len(kept) + len(arguments)) or 8  # a frame is what aligns the stack
        slots = {name: start + 8 * k for k, name in enumerate(kept)}
        for name, slot in slots.items():
            code.memory(b"\x89", self.places[name], (RSP, slot))
        given = [start + 8 * k for k in range(len(kept), len(kept) + len(arguments))]
        for argument, slot in zip(arguments, given, strict=True):
            of, text = typed(argument)
            if of not in ("ptr", "i64"):
                raise Unknown
            code.memory(b"\x89", self.in_register(text), (RSP, slot))
        if function[0] == "%":
            code.move(RAX, self.value(function, "g"))
        for register, slot in zip(ARGUMENTS, given, strict=False):
            code.memory(b"\x8b", register, (RSP, slot))
        return slots


_STATEMENTS: dict[str, Callable[..., None]] = {
    "load": FunctionWriter.load, "store": FunctionWriter.store, "alloca": FunctionWriter.alloca,
    "getelementptr": FunctionWriter.address, "fcmp": FunctionWriter.compare, "select": FunctionWriter.select,
    "fneg": FunctionWriter.negate, "shufflevector": FunctionWriter.shuffle, "phi": FunctionWriter.phi,
    "icmp": FunctionWriter.compare, "br": FunctionWriter.branch, "ret": FunctionWriter.leave,
    "call": FunctionWriter.call,
    **dict.fromkeys(("bitcast", "sext", "zext", "sitofp"), FunctionWriter.convert),
    **dict.fromkeys((*INTEGER, *FLOATING), FunctionWriter.number_of),
}  # fmt: skip
