# SPDX-License-Identifier: MIT
"""Writing LLVM IR text: values, scalar or of several lanes, and the instructions between them.

Text and not a builder of objects, because it is several times faster. A value has a kind (`f32`, `i64`, ...) and a
number of lanes; where a scalar meets a vector it is splatted, once in a scope. No flag that lets LLVM change a
floating-point value is ever set.
"""

import math
import re
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

TYPES = {
    "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "f16": "half", "f32": "float", "f64": "double",
}
BYTES = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "f16": 2, "f32": 4, "f64": 8}

LONG_COPY = 4096  # bytes
QUICK_KINDS = ("f32", "f64", "i32", "i64")
"""Kinds whose vectors go through memory where code is made quickly."""
_NOT_A_NAME = re.compile(r"[^0-9A-Za-z-]+")
SLOT, LANES_BYTES = "%lanes", 64  # where the lanes of a vector go through memory, and its size


class Value(NamedTuple):
    """An LLVM value: its text (`%12` or a constant), the kind of each lane, and the number of lanes (1: a scalar)."""

    text: str
    kind: str
    lanes: int = 1

    @property
    def type(self) -> str:
        return type_text(self.kind, self.lanes)


_FALSE = ("false", "splat (i1 false)")
_TYPE_TEXTS: dict[tuple[str, int], str] = {}


def type_text(kind: str, lanes: int = 1) -> str:
    """`<16 x float>`, or `float` for one lane."""
    found = _TYPE_TEXTS.get((kind, lanes))
    if found is None:
        found = _TYPE_TEXTS[kind, lanes] = TYPES[kind] if lanes == 1 else f"<{lanes} x {TYPES[kind]}>"
    return found


def scalar_text(value: float | int | bool, kind: str) -> str:
    """A constant of this kind, as LLVM writes it."""
    if kind == "i1":
        return "true" if value else "false"
    if kind[0] == "i":
        return str(int(value))
    if kind == "f16":
        with np.errstate(over="ignore"):
            return f"0xH{struct.unpack('<H', np.float16(value).tobytes())[0]:04X}"
    exact = _nearest_f32(value) if kind == "f32" else float(value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"


def _nearest_f32(value: float) -> float:
    """The number rounded to float32, to an infinity beyond its range."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def wrapped(number: int, bits: int) -> int:
    """The signed integer of so many bits that agrees with a number in them."""
    half = 1 << bits - 1
    return (number + half) % (2 * half) - half


class Scope(NamedTuple):
    """A block whose values are of use in it only. before: the lines that run once before it, if it is a loop."""

    before: list[str] | None
    keys: list[Any]


class Emitter:
    """The text of one function body, and what it needs around it: declarations and constant tables.

    quick: write what LLVM's fast instruction selection knows, where the usual code has what it does not.
    brief: what functions share, such as transposes, is written for it in any case.
    roots_by_steps: a square root is multiply-adds, where its instruction takes longer.
    """

    def __init__(self, has_fma: bool = True, lanes_bytes: int = 64, quick: bool = False, brief: bool = False):
        self.has_fma = has_fma
        self.lanes_bytes = lanes_bytes
        self.quick = quick
        self.brief = quick or brief
        self.roots_by_steps = True
        self._has_slot = False
        self.lines: list[Any] = []  # a list among them holds what runs before a loop
        self.declarations: dict[str, str] = {}
        self.tables: dict[str, str] = {}
        self.outlined: dict[str, str] = {}  # functions of the module that are called, with the kind of their result
        self.block = "entry"
        self.known: dict[Any, Any] = {}  # what the open scopes have written, for use again
        self.scopes: list[Scope] = [Scope(None, [])]
        self._count = 0

    @property
    def text(self) -> str:
        """The lines written so far."""
        lines = [line if type(line) is str else "\n".join(line) for line in self.lines if line or line == ""]
        if self._has_slot:
            lines.insert(1, f"  {SLOT} = alloca [{LANES_BYTES} x i8], align {LANES_BYTES}")
        return "\n".join(lines)

    # --- names and blocks -------------------------------------------------------------------------------------------

    def fresh(self) -> str:
        """A new register name."""
        self._count += 1
        return f"%v{self._count}"

    def label(self, stem: str) -> str:
        """A new block name."""
        self._count += 1
        return f"{stem}{self._count}"

    def start(self, label: str) -> None:
        """Begin the block `label`; the one before must have ended in a branch."""
        self.lines.append(f"{label}:")
        self.block = label

    def open(self, before: list[str] | None = None) -> None:
        """Begin a scope: what is written in it is not known after it. before: lines that run once before it."""
        self.scopes.append(Scope(before, []))

    def close(self) -> None:
        """End the innermost scope."""
        for key in self.scopes.pop().keys:
            del self.known[key]

    def know(self, key: Any, found: Any, depth: int | None = None) -> None:
        """Note what a key stands for, to the end of the innermost scope, or of the one at a depth."""
        self.known[key] = found
        self.scopes[-1 if depth is None else depth].keys.append(key)

    def line(self, text: str) -> None:
        """One instruction without a result."""
        self.lines.append("  " + text)

    def new(self, text: str, kind: str, lanes: int = 1) -> Value:
        """One instruction with a result."""
        self._count = count = self._count + 1
        self.lines.append(f"  %v{count} = {text}")
        return Value(f"%v{count}", kind, lanes)

    # --- constants and lanes ----------------------------------------------------------------------------------------

    def constant(self, value: float | int | bool, kind: str, lanes: int = 1) -> Value:
        """The same constant in every lane."""
        text = scalar_text(value, kind)
        return Value(text if lanes == 1 else f"splat ({TYPES[kind]} {text})", kind, lanes)

    def splat(self, value: Value, lanes: int) -> Value:
        """A scalar in every lane."""
        if value.lanes == lanes:
            return value
        if value.text[0] != "%":
            return Value(f"splat ({TYPES[value.kind]} {value.text})", value.kind, lanes)
        key = value.text, lanes
        found = self.known.get(key)
        if found is None:
            vector = type_text(value.kind, lanes)
            one = self.new(f"insertelement {vector} poison, {value.type} {value.text}, i64 0", value.kind, lanes)
            found = self.new(
                f"shufflevector {vector} {one.text}, {vector} poison, <{lanes} x i32> zeroinitializer", value.kind,
                lanes)
            self.know(key, found)
        return found

    def lane_numbers(self, kind: str, lanes: int, start: int = 0, step: int = 1) -> Value:
        """0, 1, 2, ... in the lanes, or the integers from another start by another step."""
        scalar = TYPES[kind]
        numbers = (wrapped(start + step * i, 8 * BYTES[kind]) for i in range(lanes))
        return Value("<" + ", ".join(f"{scalar} {number}" for number in numbers) + ">", kind, lanes)

    def shuffled(self, a: Value, b: Value, order: Sequence[int]) -> Value:
        """Lanes of two vectors, by number; any for -1."""
        text = ", ".join("i32 poison" if k < 0 else f"i32 {k}" for k in order)
        both = f"{a.type} {a.text}, {b.type} {b.text}"
        return self.new(f"shufflevector {both}, <{len(order)} x i32> <{text}>", a.kind, len(order))

    def same_lanes(self, *values: Value) -> tuple[Value, ...]:
        """The values with scalars splatted to the lanes of the widest."""
        lanes = max(v.lanes for v in values)
        return values if lanes == 1 else tuple(v if v.lanes == lanes else self.splat(v, lanes) for v in values)

    # --- instructions -----------------------------------------------------------------------------------------------

    def binary(self, opcode: str, a: Value, b: Value) -> Value:
        """`fadd`, `mul`, `and`, `shl`, ... of two values of one kind."""
        if opcode == "or" and a.lanes <= b.lanes and a.text in _FALSE:  # what a search begins with
            return b
        if a.lanes != b.lanes:
            a, b = self.same_lanes(a, b)
        if self.quick and a.lanes > 1:
            a, b = self._loaded(a), self._loaded(b)
        return self.new(f"{opcode} {a.type} {a.text}, {b.text}", a.kind, a.lanes)

    def _loaded(self, value: Value) -> Value:
        """An operand in a form that is quickly selected: a constant vector is loaded, once in a scope."""
        if not self.is_slow(value):
            return value
        found = self.known.get(value)
        if found is None:
            found = self.new(self.load_of_constant(value), value.kind, value.lanes)
            self.know(value, found)
        return found

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        """`olt`, `une`, ... of floats; `slt`, `eq`, `ult`, ... of integers."""
        if a.lanes != b.lanes:
            a, b = self.same_lanes(a, b)
        opcode = "fcmp" if a.kind[0] == "f" else "icmp"
        return self.new(f"{opcode} {predicate} {a.type} {a.text}, {b.text}", "i1", a.lanes)

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """a where the condition holds, else b."""
        if a.lanes != b.lanes:
            a, b = self.same_lanes(a, b)
        if condition.lanes > a.lanes:
            a, b = self.splat(a, condition.lanes), self.splat(b, condition.lanes)
        return self.new(
            f"select {condition.type} {condition.text}, {a.type} {a.text}, {b.type} {b.text}", a.kind, a.lanes
        )

    def convert(self, opcode: str, a: Value, kind: str) -> Value:
        """`fpext`, `sitofp`, `trunc`, `bitcast`, ... to another kind, lane by lane."""
        return self.new(f"{opcode} {a.type} {a.text} to {type_text(kind, a.lanes)}", kind, a.lanes)

    def negate(self, a: Value) -> Value:
        """-a, sign bit flipped (floats)."""
        return self.new(f"fneg {a.type} {a.text}", a.kind, a.lanes)

    def intrinsic(self, name: str, *args: Value, overload: Value | None = None) -> Value:
        """`llvm.<name>` overloaded on the type of its first argument, which is the result's too."""
        args = self.same_lanes(*args)
        first = overload or args[0]
        suffix = first.kind if first.lanes == 1 else f"v{first.lanes}{first.kind}"
        return self.call(f"llvm.{name}.{suffix}", first.kind, first.lanes, *args)

    def call(self, function: str, kind: str, lanes: int, *args: Value) -> Value:
        """A call of a declared function."""
        result = type_text(kind, lanes)
        if function not in self.declarations:
            self.declarations[function] = f"declare {result} @{function}({', '.join(a.type for a in args)})"
        given = ", ".join(f"{a.type} {a.text}" for a in args)
        return self.new(f"call {result} @{function}({given})", kind, lanes)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a b + c, rounded once where the machine has it (without, `llvm.fma` would be a slow library call)."""
        if self.has_fma:  # by far the most frequent call
            if not a.lanes == b.lanes == c.lanes:
                a, b, c = self.same_lanes(a, b, c)
            kind = a.type
            name = f"llvm.fma.{a.kind}" if a.lanes == 1 else f"llvm.fma.v{a.lanes}{a.kind}"
            if name not in self.declarations:
                self.declarations[name] = f"declare {kind} @{name}({kind}, {kind}, {kind})"
            return self.new(f"call {kind} @{name}({kind} {a.text}, {kind} {b.text}, {kind} {c.text})", a.kind, a.lanes)
        return self.binary("fadd", self.binary("fmul", a, b), c)

    def any_lane(self, condition: Value) -> Value:
        """Whether a condition holds in any lane."""
        if condition.lanes == 1:
            return condition
        return self.call(f"llvm.vector.reduce.or.v{condition.lanes}i1", "i1", 1, condition)

    # --- memory -----------------------------------------------------------------------------------------------------

    def parts(self, value: Value, lanes: int) -> list[Value]:
        """A vector cut into vectors of fewer lanes, or into scalars, by way of memory."""
        self._has_slot = True
        self.store(value, SLOT)
        found = []
        for start in range(0, value.lanes, lanes):
            found.append(self.load(self.moved(SLOT, value.kind, start), value.kind, lanes))
        return found

    def moved(self, pointer: str, kind: str, count: int) -> str:
        """A pointer some elements further."""
        if not count:
            return pointer
        found = self.fresh()
        self.line(f"{found} = getelementptr {TYPES[kind]}, ptr {pointer}, i64 {count}")
        return found

    def load(self, pointer: str, kind: str, lanes: int = 1, mask: Value | None = None) -> Value:
        """The value at a pointer, which need be aligned to one element only; 0 where the mask is off."""
        size = BYTES[kind]
        vector = type_text(kind, lanes)
        if mask is None or lanes == 1:
            return self.new(f"load {vector}, ptr {pointer}, align {size}", kind, lanes)
        name = f"llvm.masked.load.v{lanes}{kind}.p0"
        self.declarations[name] = f"declare {vector} @{name}(ptr, <{lanes} x i1>, {vector})"
        return self.new(
            f"call {vector} @{name}(ptr align {size} {pointer}, {mask.type} {mask.text}, {vector} zeroinitializer)",
            kind, lanes,
        )

    def store(self, value: Value, pointer: str, mask: Value | None = None) -> None:
        """Write a value, only the lanes that the mask has on."""
        size = BYTES[value.kind]
        if mask is None or value.lanes == 1:
            if value.lanes > 1 and self.is_slow(value):
                value = self.new(self.load_of_constant(value), value.kind, value.lanes)
            self.line(f"store {value.type} {value.text}, ptr {pointer}, align {size}")
            return
        name = f"llvm.masked.store.v{value.lanes}{value.kind}.p0"
        self.declarations[name] = f"declare void @{name}({value.type}, ptr, {mask.type})"
        given = f"{value.type} {value.text}, ptr align {size} {pointer}, {mask.type} {mask.text}"
        self.line(f"call void @{name}({given})")

    def is_slow(self, value: Value) -> bool:
        """Whether code is made quickly, and its selection does not know this constant vector; see carried.py."""
        return self.quick and value.text[0] != "%" and value.kind in QUICK_KINDS

    def load_of_constant(self, value: Value) -> str:
        """The instruction that loads a constant vector from a table of the module."""
        name = f"constant_{value.lanes}_{value.kind}_{_NOT_A_NAME.sub('_', value.text)}"
        self.tables[name] = f"@{name} = private unnamed_addr constant {value.type} {value.text}, align {LANES_BYTES}"
        return f"load {value.type}, ptr @{name}, align {LANES_BYTES}"

    def stream(self, value: Value, pointer: str) -> None:
        """Write a vector past the caches; the pointer is aligned to its size."""
        size = value.lanes * BYTES[value.kind]
        self.line(f"store {value.type} {value.text}, ptr {pointer}, align {size}, !nontemporal !{{i32 1}}")

    def prefetch(self, pointer: str, near: bool = False) -> None:
        """A hint to have a line of memory in the second-level cache, or in the first; quick selection has none."""
        if self.quick:
            return
        self.declarations["llvm.prefetch.p0"] = "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"
        self.line(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 {3 if near else 2}, i32 1)")

    def copy(self, target: str, source: str, size: int, may_be_there: bool) -> None:
        """Copy `size` bytes. may_be_there: the two may be one place (memory/plan.py), so a long copy looks first."""
        self.declarations["llvm.memcpy.p0.p0.i64"] = "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)"
        text = f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {size}, i1 false)"
        if size < LONG_COPY or not may_be_there:
            self.line(text)
            return
        copy, there = self.label("copy"), self.label("there")
        same = self.new(f"icmp eq ptr {target}, {source}", "i1")
        self.line(f"br i1 {same.text}, label %{there}, label %{copy}")
        self.start(copy)
        self.line(text)
        self.line(f"br label %{there}")
        self.start(there)

    def gathers(self, kind: str) -> bool:
        """Whether the processor has an instruction that gathers lanes of this kind."""
        return self.lanes_bytes >= 32 and BYTES[kind] >= 4

    def gather(self, pointer: str, offsets: Value, kind: str, mask: Value | None = None) -> Value:
        """The elements at pointer[offsets]."""
        lanes, size = offsets.lanes, BYTES[kind]
        vector = type_text(kind, lanes)
        pointers = self.fresh()
        self.line(f"{pointers} = getelementptr {TYPES[kind]}, ptr {pointer}, {offsets.type} {offsets.text}")
        on = "splat (i1 true)" if mask is None else mask.text
        name = f"llvm.masked.gather.v{lanes}{kind}.v{lanes}p0"
        self.declarations[name] = f"declare {vector} @{name}(<{lanes} x ptr>, <{lanes} x i1>, {vector})"
        return self.new(
            f"call {vector} @{name}(<{lanes} x ptr> align {size} {pointers}, <{lanes} x i1> {on}, "
            f"{vector} zeroinitializer)", kind, lanes,
        )

    def scatter(self, value: Value, pointer: str, offsets: Value, mask: Value | None = None) -> None:
        """Write the lanes to pointer[offsets], in lane order."""
        lanes, size = offsets.lanes, BYTES[value.kind]
        value = self.splat(value, lanes)
        pointers = self.fresh()
        self.line(f"{pointers} = getelementptr {TYPES[value.kind]}, ptr {pointer}, {offsets.type} {offsets.text}")
        on = "splat (i1 true)" if mask is None else mask.text
        name = f"llvm.masked.scatter.v{lanes}{value.kind}.v{lanes}p0"
        self.declarations[name] = f"declare void @{name}({value.type}, <{lanes} x ptr>, <{lanes} x i1>)"
        self.line(
            f"call void @{name}({value.type} {value.text}, <{lanes} x ptr> align {size} {pointers}, "
            f"<{lanes} x i1> {on})"
        )

    def table(self, name: str, values: list[float] | list[int], kind: str) -> str:
        """A constant array of the module; returns the pointer's text."""
        scalar = TYPES[kind]
        items = ", ".join(f"{scalar} {scalar_text(v, kind)}" for v in values)
        self.tables[name] = f"@{name} = private unnamed_addr constant [{len(values)} x {scalar}] [{items}], align 64"
        return f"@{name}"
