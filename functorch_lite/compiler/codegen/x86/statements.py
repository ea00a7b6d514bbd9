# SPDX-License-Identifier: MIT
"""What each statement of LLVM text is in machine code, but for control and calls of functions (functions.py)."""

import re
from collections.abc import Sequence
from typing import Any

from functorch_lite.compiler.codegen.x86.encoding import DATA, RSP, Code, fits
from functorch_lite.compiler.codegen.x86.kinds import Kind, content, kind_of, lane, operands, typed
from functorch_lite.compiler.codegen.x86.reading import SIZES, Reading, Unknown
from functorch_lite.compiler.codegen.x86.registers import RAX, SPARE, SPARE_MASK, Registers

CONDITIONS = {"eq": 4, "ne": 5, "slt": 12, "sge": 13, "sle": 14, "sgt": 15, "ult": 2, "uge": 3, "ule": 6, "ugt": 7}
"""Of integers, in Intel's numbers."""
_ORDERS = {"oeq": 0, "olt": 1, "ole": 2, "uno": 3, "une": 4, "uge": 5, "ugt": 6, "ord": 7, "ueq": 8, "ult": 9,
           "ule": 10, "one": 12, "oge": 13, "ogt": 14}  # fmt: skip
_WHOLE_ORDERS = {"eq": 0, "slt": 1, "sle": 2, "ne": 4, "sge": 5, "sgt": 6}
_LOADED = re.compile(r"ptr align \d+ ([%@][-\w.]+), <\d+ x i1> (%[-\w.]+|<[^>]*>), <[^>]*> zeroinitializer")
_STORED = re.compile(r"(<[^>]*> .*), ptr align \d+ ([%@][-\w.]+), <\d+ x i1> (%[-\w.]+|<[^>]*>)")
FLOATING = {"fadd": 0x58, "fmul": 0x59, "fsub": 0x5C, "fdiv": 0x5E}
_LOGIC = {"and": 0xDB, "or": 0xEB, "xor": 0xEF}
_SUMS = {"add": (0xFE, 0xD4), "sub": (0xFA, 0xFB)}
_SHIFTS = ("shl", "lshr", "ashr")
INTEGER = ("add", "sub", "mul", "and", "or", "xor", *_SHIFTS)
_COMMUTES = ("fadd", "fmul", "add", "mul", "and", "or", "xor")
_ADDRESS = re.compile(r"(?:\[(\d+) x (\w+)\]|(\w+)), ptr (%[-\w.]+), i64 (%[-\w.]+)")
_ALLOCA = re.compile(r"\[(\d+) x (\w+)\], align (\d+)")
_SIGN = bytes(7) + b"\x80"
_WIDTHS = ((64, 2, (1, 0, 0, 0x11)), (32, 1, (1, 0, 0, 0x11)), (16, 0, (1, 0, 0, 0x11)), (8, 0, (1, 3, 1, 0x11)),
           (4, 0, (1, 2, 0, 0x11)))  # fmt: skip
"""Bytes, length and form of stores."""


class Statements(Registers):
    """Writes the statements of a function to `code`. A method has a statement's result and what follows its operation.

    frame: bytes of the stack that it uses. constants: of the module.
    """

    def __init__(self, reading: Reading, constants: dict[str, bytes]):
        super().__init__(reading)
        self.code = Code()
        self.frame = 0
        self._constants = constants
        self._slots: dict[str, int] = {}  # of alloca, from the stack pointer on

    # --- operands ---------------------------------------------------------------------------------------------------

    def value(self, text: str, where: str) -> int:
        """The register of a value that is no constant."""
        name, offset = self.of.same.get(text, (text, 0))
        if offset or self.kinds.get(name) != where:
            raise Unknown
        return self.places[name]

    def place(self, text: str) -> tuple[int, Any]:
        """The place in memory that a pointer is to. A function's address is data, too, by its name."""
        if text[0] == "@":
            return DATA, self._constants.get(text[1:], text[1:])
        name, offset = self.of.same.get(text, (text, 0))
        if name in self._slots:
            return RSP, self._slots[name] + offset
        if self.kinds.get(name) != "g" or not fits(offset):
            raise Unknown
        return self.places[name], offset

    def in_register(self, text: str) -> int:
        """The register of an integer or an address: rax of one that no instruction made."""
        if text[0] not in "%@":
            self.code.number(RAX, 0 if text == "null" else int(text))
            return RAX
        name, offset = self.of.same.get(text, (text, 0))
        if not offset and text[0] == "%" and name not in self._slots:
            return self.value(text, "g")
        self.code.memory(b"\x8d", RAX, self.place(text))  # lea
        return RAX

    def in_vector(self, text: str, kind: Kind, register: int = SPARE) -> int:
        """The register of a value, or the one given, with a constant in it."""
        if text[0] == "%":
            return self.value(text, "v")
        if text[0] == "<":
            data = DATA, content(f"<{kind.lanes} x {kind.element}> {text}")
            self.code.vector_memory((1, 0, 0, 0x10), register, 0, data, kind.length)
            return register
        data = DATA, lane(text, kind)
        if not any(data[1]):
            self.code.vector((1, 1, 0, 0xEF), register, register, register, kind.length)
        elif kind.lanes == 1:
            self.code.vector_memory((1, kind.prefix, kind.w, 0x10), register, 0, data, 0)
        elif kind.w and not kind.length:  # no instruction spreads a double over 16 bytes
            raise Unknown
        else:
            self.code.vector_memory((2, 1, kind.w, 0x59 if kind.w else 0x58), register, 0, data, kind.length)
        return register

    def _second(self, text: str, kind: Kind) -> int | bytes:
        """The register of a value, or one lane of a constant, which instructions read from memory."""
        return self.value(text, "v") if text[0] == "%" else lane(text, kind)

    def _three(self, form, register: int, first: int, second: int | bytes, kind: Kind, mask: int = 0, tail: int = 0):
        """register = first op second."""
        if type(second) is int:
            self.code.vector(form, register, first, second, kind.length, mask)
        else:
            place = DATA, second
            self.code.vector_memory(form, register, first, place, kind.length, mask, kind.lanes > 1, tail)

    # --- memory -----------------------------------------------------------------------------------------------------

    def load(self, result: str, rest: str, _: str) -> None:
        """load <type>, ptr <place>[, align <bytes>]"""
        of, pointer = rest.split(", ")[:2]
        kind, place = kind_of(of), self.place(pointer[4:])
        if kind.where == "v":
            self._move_vector(0x10, self.result(result, "v"), place, kind)
            return
        self._check_width(kind)
        self.code.memory(b"\x8b", self.result(result, "g"), place, kind.bytes == 8)

    def store(self, _: str, rest: str, __: str) -> None:
        """store <type> <value>, ptr <place>[, align <bytes>]"""
        value, pointer = rest.split(", ")[:2]
        of, text = typed(value)
        kind, place = kind_of(of), self.place(pointer[4:])
        if kind.where == "v":
            self._move_vector(0x11, self.in_vector(text, kind), place, kind)
            return
        self._check_width(kind)
        self.code.memory(b"\x89", self.in_register(text), place, kind.bytes == 8)

    def _check_width(self, kind: Kind) -> None:
        if kind.where != "g" or kind.bytes < 4:
            raise Unknown

    def _move_vector(self, opcode: int, register: int, place: tuple[int, Any], kind: Kind) -> None:
        if kind.lanes > 1 and kind.bytes == 8:  # as one double
            form = 1, 3, 1, opcode
        elif kind.is_float:
            form = 1, kind.prefix, kind.w, opcode
        else:
            form = 1, 0, 0, opcode
        self.code.vector_memory(form, register, 0, place, kind.length)

    def load_masked(self, result: str, kind: Kind, arguments: str) -> None:
        """llvm.masked.load, of zeros elsewhere."""
        found = _LOADED.fullmatch(arguments)
        if found is None or kind.where != "v" or kind.bytes < 16:  # a mask is of 16 bytes at least
            raise Unknown
        mask, place = self._mask(found[2]), self.place(found[1])
        form = 1, kind.w, kind.w, 0x10
        self.code.vector_memory(form, self.result(result, "v"), 0, place, kind.length, mask, zeros=True)

    def store_masked(self, arguments: str) -> None:
        """llvm.masked.store"""
        found = _STORED.fullmatch(arguments)
        if found is None:
            raise Unknown
        of, text = typed(found[1])
        kind, mask, place = kind_of(of), self._mask(found[3]), self.place(found[2])
        if kind.bytes < 16:
            raise Unknown
        self.code.vector_memory((1, kind.w, kind.w, 0x11), self.in_vector(text, kind), 0, place, kind.length, mask)

    def _mask(self, text: str) -> int:
        """The register of a mask; of a constant one the spare."""
        if text[0] == "%":
            return self.value(text, "k")
        bits = [("i1 false", "i1 true").index(bit) for bit in text[1:-1].split(", ")]
        self.code.number(RAX, sum(bit << k for k, bit in enumerate(bits)))
        self.code.register_to_mask(SPARE_MASK, RAX)
        return SPARE_MASK

    def alloca(self, result: str, rest: str, _: str) -> None:
        """alloca [<number> x <type>], align <bytes>"""
        found = _ALLOCA.fullmatch(rest)
        if found is None or int(found[3]) > 64:
            raise Unknown
        self.frame += -self.frame % 64
        self._slots[result] = self.frame
        self.frame += int(found[1]) * SIZES[found[2]]

    def address(self, result: str, rest: str, _: str) -> None:
        """getelementptr <type>, ptr <base>, i64 <index>, where the index is no constant."""
        found = _ADDRESS.fullmatch(rest)
        if found is None:
            raise Unknown
        size = int(found[1] or 1) * SIZES[found[2] or found[3]]
        base, index = self.in_register(found[4]), self.value(found[5], "g")
        if size in (1, 2, 4, 8):
            self.code.scaled(self.result(result, "g"), base, index, size)
            return
        register = self.over(result, index, "g", (base,))
        if register == base or not fits(size):
            raise Unknown
        self.code.registers(b"\x69", register, index)
        self.code.bytes += size.to_bytes(4, "little", signed=True)
        self.code.operate("add", register, base, True)

    def set_to_zero(self, arguments: str) -> None:
        """llvm.memset of zeros."""
        pointer, value, size, _ = arguments.split(", ")
        left, (base, offset) = int(size[4:]), self.place(pointer[4:])
        if value != "i8 0" or left > 4096 or left % 4 or base == DATA:
            raise Unknown
        self.code.vector((1, 1, 0, 0xEF), SPARE, SPARE, SPARE, 2)
        for width, length, form in _WIDTHS:
            while left >= width:
                self.code.vector_memory(form, SPARE, 0, (base, offset), length)
                left, offset = left - width, offset + width

    # --- numbers ----------------------------------------------------------------------------------------------------

    def number_of(self, result: str, rest: str, operation: str) -> None:
        """<operation> <type> <a>, <b>"""
        kind, a, b = operands(rest)
        if a[0] != "%" and operation in _COMMUTES:
            a, b = b, a
        if kind.where == "g":
            self._integer(result, operation, kind, a, b)
            return
        form, first, second = _form(operation, kind), self.in_vector(a, kind), self._second(b, kind)
        self._three(form, self.result(result, "v"), first, second, kind)

    def _integer(self, result: str, operation: str, kind: Kind, a: str, b: str) -> None:
        self._check_width(kind)
        code, left, number = self.code, self._operand(a), 0 if b[0] == "%" else int(b)
        if b[0] == "%":
            right = self.value(b, "g")
        else:
            right = None if fits(number) else self.in_register(b)
        if operation in FLOATING or (operation in _SHIFTS and (right is not None or not 0 <= number < 8 * kind.bytes)):
            raise Unknown
        register = self.over(result, left, "g", () if right is None or right == left else (right,))
        if left is None:
            code.number(register, int(a))
        else:
            code.move(register, left)
        if right is None:
            code.operate_by(operation, register, number, kind.bytes == 8)
        else:
            code.operate(operation, register, right, kind.bytes == 8)

    def _operand(self, text: str) -> int | None:
        return self.value(text, "g") if text[0] == "%" else None

    def negate(self, result: str, rest: str, _: str) -> None:
        """fneg <type> <a>: another sign."""
        of, text = typed(rest)
        kind = kind_of(of)
        if not kind.is_float or kind.lanes == 1:
            raise Unknown
        source = self.value(text, "v")
        self._three((1, 1, kind.w, 0xEF), self.result(result, "v"), source, _SIGN[-SIZES[kind.element] :], kind)

    def compare(self, result: str, rest: str, _: str) -> None:
        """fcmp <condition> <type> <a>, <b>, and icmp of vectors"""
        condition, _, texts = rest.partition(" ")
        kind, a, b = operands(texts)
        form = (1, kind.prefix, kind.w, 0xC2) if kind.is_float else (3, 1, kind.w, 0x1F)
        first, second = self.in_vector(a, kind), self._second(b, kind)
        self._three(form, self.new(result, "k"), first, second, kind, tail=1)
        self.code.bytes.append((_ORDERS if kind.is_float else _WHOLE_ORDERS)[condition])

    def select(self, result: str, rest: str, _: str) -> None:
        """select <type of bits> <condition>, <type> <a>, <type> <b>"""
        condition, a, b = rest.split(", ")
        (bits, name), (of, first), (_, second) = typed(condition), typed(a), typed(b)
        kind = kind_of(of)
        if kind.where == "g":
            self._select_integer(result, kind, name, first, second)
            return
        mask, other, chosen = self.value(name, "k"), self.in_vector(second, kind), self._second(first, kind)
        if (kind.lanes > 1) != (bits[0] == "<") or (kind.lanes == 1 and type(chosen) is not int):
            raise Unknown  # a blend reads a whole vector
        form = 2, 1, kind.w, 0x65 if kind.is_float else 0x64
        self._three(form, self.result(result, "v"), other, chosen, kind, mask)

    def _select_integer(self, result: str, kind: Kind, name: str, first: str, second: str) -> None:
        self._check_width(kind)
        condition, left, right = self.test(name), self._operand(first), self._operand(second)
        register = self.over(result, right, "g", () if left is None else (left,))
        if left is not None and register == left != right:
            raise Unknown
        if right is None:
            self.code.number(register, int(second))
        else:
            self.code.move(register, right)
        if left is None:
            left = self.in_register(first)
        self.code.registers(bytes((0x0F, 0x40 | condition)), register, left)

    def test(self, name: str) -> int:
        """Set the flags by a condition; returns the one to ask for."""
        rest = self.of.comparisons.get(name)
        if rest is None:
            self.code.mask_to_register(RAX, self.value(name, "k"))
            self.code.registers(b"\xf7", 0, RAX, False)  # test eax, 1
            self.code.bytes += b"\x01\x00\x00\x00"
            return CONDITIONS["ne"]
        condition, _, texts = rest.partition(" ")
        kind, a, b = operands(texts)
        self._check_width(kind)
        left = self.value(a, "g")
        if b[0] == "%":
            self.code.operate("cmp", left, self.value(b, "g"), kind.bytes == 8)
        else:
            number = 0 if b == "null" else int(b)
            if not fits(number):
                raise Unknown
            self.code.operate_by("cmp", left, number, kind.bytes == 8)
        return CONDITIONS[condition]

    def multiply_add(self, result: str, kind: Kind, texts: Sequence[str]) -> None:
        """llvm.fma: a * b + c"""
        a, b, c = texts
        if not kind.is_float:
            raise Unknown
        if b[0] == "%" and a[0] != "%":
            a, b = b, a
        first, second = self.in_vector(a, kind), self._second(b, kind)
        added = self.value(c, "v") if c[0] == "%" else None
        register = self.over(result, added, "v", (first, second) if type(second) is int else (first,))
        if register in (first, second) and register != added:
            raise Unknown
        if added is None:
            self.in_vector(c, kind, register)
        else:
            self.copy(register, added)
        self._three((2, 1, kind.w, 0xB8 if kind.lanes > 1 else 0xB9), register, first, second, kind)

    def copy(self, register: int, source: int) -> None:
        """Copy a vector register."""
        if register != source:
            self.code.vector((1, 0, 0, 0x28), register, 0, source, 2)

    def function(self, result: str, kind: Kind, name: str, texts: Sequence[str]) -> None:
        """A function of numbers that is an instruction. name: of the intrinsic, with its type."""
        sources = [self.value(text, "v") for text in texts if text[0] == "%"]
        if name.startswith("sqrt.") and kind.is_float:
            first = sources[0] if kind.lanes == 1 else 0
            self.code.vector((1, kind.prefix, kind.w, 0x51), self.result(result, "v"), first, sources[0], kind.length)
        elif name == "x86.avx512.permvar.sf.512":
            self.code.vector((2, 1, 0, 0x16), self.result(result, "v"), sources[1], sources[0], 2)
        elif name == "x86.avx512.mask.scalef.ps.512" and texts[2:] == ["zeroinitializer", "-1", "4"]:
            self.code.vector((2, 1, 0, 0x2C), self.result(result, "v"), sources[0], sources[1], 2)
        else:
            raise Unknown

    # --- other types ------------------------------------------------------------------------------------------------

    def convert(self, result: str, rest: str, operation: str) -> None:
        """bitcast, sext, zext or sitofp <type> <value> to <type>, of some types."""
        value, _, to = rest.partition(" to ")
        of, text = typed(value)
        names, code = f"{operation} {of} {to}", self.code
        if names in ("zext i16 i32", "zext i32 i64"):
            source = self.value(text, "g")
            code.registers(b"\x8b", self.result(result, "g"), source, False)
        elif names == "sext i32 i64":
            source = self.value(text, "g")
            code.registers(b"\x63", self.result(result, "g"), source)
        elif names == "bitcast <16 x i1> i16":
            mask = self.value(text, "k")
            code.mask_to_register(self.result(result, "g"), mask)
        elif names == "bitcast float i32":
            source = self.value(text, "v")
            code.vector((1, 1, 0, 0x7E), source, 0, self.result(result, "g"), 0)
        elif names == "bitcast i32 float":
            source = self.value(text, "g")
            code.vector((1, 1, 0, 0x6E), self.result(result, "v"), 0, source, 0)
        elif names == "sitofp i32 float":
            source = self.value(text, "g")
            code.vector((1, 2, 0, 0x2A), self.result(result, "v"), SPARE, source, 0)
        else:
            raise Unknown

    def shuffle(self, result: str, rest: str, _: str) -> None:
        """shufflevector of lane 0 into all."""
        of, text = typed(rest)
        kind, (name, _, others) = kind_of(of), text.partition(", ")
        if others != f"{of} poison, <{kind.lanes} x i32> zeroinitializer" or kind.lanes == 2:
            raise Unknown
        source = self.value(name, "v" if kind.is_float else "g")
        form = 2, 1, kind.w, (0x19 if kind.w else 0x18) if kind.is_float else 0x7C
        self.code.vector(form, self.result(result, "v"), 0, source, kind.length)


def _form(operation: str, kind: Kind) -> tuple[int, int, int, int]:
    """The instruction of an operation on vectors, or on floating-point numbers."""
    if kind.is_float:
        return 1, kind.prefix, kind.w, FLOATING[operation]
    if operation in _LOGIC:
        return 1, 1, kind.w, _LOGIC[operation]
    return 1, 1, kind.w, _SUMS[operation][kind.w]
