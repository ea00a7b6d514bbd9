# SPDX-License-Identifier: MIT
"""Instructions of x86-64 as bytes: integers with REX, vectors and floating-point numbers with EVEX (AVX-512).

A register is its number: 0 to 15 of rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15; 0 to 31 of vectors; 0 to 7 of
masks. A place in memory is (base, displacement in bytes), or (DATA, key) for a constant, whose address is known last.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, sections 2.1 to 2.3 and 2.7.
"""

from typing import Any

DATA = -1
RSP = 4
Form = tuple[int, int, int, int]
"""Of an instruction on vectors: opcode map, prefix, W and opcode."""
_INT32 = range(-(1 << 31), 1 << 31)
_IMMEDIATE = {"add": 0, "or": 1, "and": 4, "sub": 5, "xor": 6, "cmp": 7}
_OPERATION = {"add": b"\x03", "or": b"\x0b", "and": b"\x23", "sub": b"\x2b", "xor": b"\x33", "cmp": b"\x3b",
              "mul": b"\x0f\xaf"}
_SHIFT = {"shl": 4, "lshr": 5, "ashr": 7}


def fits(number: int) -> bool:
    """Whether an instruction can hold a number: 32 bits with sign."""
    return number in _INT32


class Code:
    """The bytes of one function.

    calls: where the distance to a function goes, and its name. uses: where that to a constant or a function goes, its
    content or name, and the bytes of the instruction behind it.
    """

    def __init__(self) -> None:
        self.bytes = bytearray()
        self.calls: list[tuple[int, str]] = []
        self.uses: list[tuple[int, Any, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def label(self, name: str) -> None:
        """Here is the label `name`."""
        self._labels[name] = len(self.bytes)

    def jump(self, name: str, condition: int | None = None) -> None:
        """A jump to a label. condition: in Intel's numbers; None is always."""
        self.bytes += b"\xe9" if condition is None else bytes((0x0F, 0x80 | condition))
        self._jumps.append((len(self.bytes), name))
        self.bytes += bytes(4)

    def call(self, name: str) -> None:
        """A call of a function of this module."""
        self.bytes += b"\xe8"
        self.calls.append((len(self.bytes), name))
        self.bytes += bytes(4)

    def settle(self) -> None:
        """Write the distances of the jumps. Raises KeyError where one has no label."""
        for at, name in self._jumps:
            self.write(self.bytes, at, self._labels[name], 0)

    @staticmethod
    def write(code: bytearray, at: int, target: int, tail: int) -> None:
        """Write a distance. tail: the bytes of the instruction behind it."""
        code[at : at + 4] = (target - at - 4 - tail).to_bytes(4, "little", signed=True)

    def raw(self, *numbers: int) -> None:
        """These bytes."""
        self.bytes += bytes(numbers)

    # --- integers ---------------------------------------------------------------------------------------------------

    def registers(self, opcode: bytes, reg: int, rm: int, wide: bool = True) -> None:
        """An instruction on two registers. wide: 64 bits, else 32."""
        rex = 0x40 | wide << 3 | reg >> 3 << 2 | rm >> 3
        self.bytes += b"" if rex == 0x40 else bytes((rex,))
        self.bytes += opcode
        self.bytes.append(0xC0 | (reg & 7) << 3 | rm & 7)

    def memory(self, opcode: bytes, reg: int, place: tuple[int, Any], wide: bool = True, tail: int = 0) -> None:
        """An instruction on a register and memory. tail: the bytes that the caller adds to it."""
        base = place[0]
        rex = 0x40 | wide << 3 | reg >> 3 << 2 | (base >> 3 if base >= 0 else 0)
        self.bytes += b"" if rex == 0x40 else bytes((rex,))
        self.bytes += opcode
        self._place(reg, place, tail)

    def _place(self, reg: int, place: tuple[int, Any], tail: int) -> None:
        base, displacement = place
        field = (reg & 7) << 3
        if base < 0:
            self.bytes.append(field | 5)
            self.uses.append((len(self.bytes), displacement, tail))
            displacement = 0
        else:
            self.bytes.append(0x80 | field | base & 7)
            if base & 7 == RSP:
                self.bytes.append(0x24)
        self.bytes += displacement.to_bytes(4, "little", signed=True)

    def move(self, reg: int, source: int) -> None:
        """Copy a register of 64 bits."""
        if reg != source:
            self.registers(b"\x8b", reg, source)

    def number(self, reg: int, number: int) -> None:
        """Set a register to a number; the flags stay as they are."""
        if fits(number):
            self.registers(b"\xc7", 0, reg)
            self.bytes += number.to_bytes(4, "little", signed=True)
        else:
            self.raw(0x48 | reg >> 3, 0xB8 | reg & 7)
            self.bytes += (number & (1 << 64) - 1).to_bytes(8, "little")

    def operate(self, name: str, reg: int, operand: int, wide: bool) -> None:
        """reg = reg name operand, a register; "cmp" sets the flags only."""
        self.registers(_OPERATION[name], reg, operand, wide)

    def operate_by(self, name: str, reg: int, number: int, wide: bool) -> None:
        """reg = reg name number, which fits."""
        if name in _SHIFT:
            self.registers(b"\xc1", _SHIFT[name], reg, wide)
            self.bytes.append(number)
            return
        if name == "mul":
            self.registers(b"\x69", reg, reg, wide)
        else:
            self.registers(b"\x81", _IMMEDIATE[name], reg, wide)
        self.bytes += number.to_bytes(4, "little", signed=True)

    def scaled(self, reg: int, base: int, index: int, scale: int) -> None:
        """reg = base + index * scale, of which scale is 1, 2, 4 or 8."""
        rex = 0x48 | reg >> 3 << 2 | index >> 3 << 1 | base >> 3
        scale = (scale.bit_length() - 1) << 6
        self.raw(rex, 0x8D, 0x44 | (reg & 7) << 3, scale | (index & 7) << 3 | base & 7, 0)

    # --- vectors ----------------------------------------------------------------------------------------------------

    def vector(self, form: Form, reg: int, first: int, rm: int, length: int, mask: int = 0) -> None:
        """An instruction on vectors: reg = first op rm.

        first: 0 where there is none. length: 0, 1, 2 for 16, 32, 64 bytes. mask: the lanes, or what it selects by.
        """
        table, prefix, w, opcode = form
        self.bytes += bytes((
            0x62, (~reg & 8) << 4 | (~rm & 16) << 2 | (~rm & 8) << 2 | ~reg & 16 | table,
            w << 7 | (~first & 15) << 3 | 4 | prefix, length << 5 | (~first & 16) >> 1 | mask, opcode,
            0xC0 | (reg & 7) << 3 | rm & 7,
        ))  # fmt: skip

    def vector_memory(
        self, form: Form, reg: int, first: int, place: tuple[int, Any], length: int,
        mask: int = 0, spread: bool = False, tail: int = 0, zeros: bool = False,
    ) -> None:
        """The same with memory. spread: one element there is that of all lanes. tail: as of `memory`. zeros: what the
        lanes have that the mask leaves out."""
        table, prefix, w, opcode = form
        base = max(place[0], 0)
        self.bytes += bytes((
            0x62, (~reg & 8) << 4 | 64 | (~base & 8) << 2 | ~reg & 16 | table, w << 7 | (~first & 15) << 3 | 4 | prefix,
            zeros << 7 | length << 5 | spread << 4 | (~first & 16) >> 1 | mask, opcode,
        ))  # fmt: skip
        self._place(reg, place, tail)

    def register_to_mask(self, mask: int, reg: int) -> None:
        """A mask of up to 16 lanes of the bits of one of the first eight registers."""
        self.raw(0xC5, 0xF8, 0x92, 0xC0 | mask << 3 | reg)

    def mask_to_register(self, reg: int, mask: int) -> None:
        """The bits of a mask of up to 16 lanes as an integer of 32."""
        self.raw(0xC5, 0x78 if reg >> 3 else 0xF8, 0x93, 0xC0 | (reg & 7) << 3 | mask)
