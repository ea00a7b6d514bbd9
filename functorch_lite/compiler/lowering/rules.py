# SPDX-License-Identifier: MIT
"""The tables that say how primitives become loop IR, and what their rules are given.

A primitive is in one of them. Without any, it runs in Python between the kernels, by its eval rule.

    elementwise_rules   scalar operations on the operands' elements
    movement_rules      which elements of the operands an output element is: an index map, never a copy
    reduction_rules     the associative operation that reduces axes
    kernel_rules        loops of its own over whole operands
    step_rules          statements of the program: loops, branches, library calls
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.rules import RuleTable

elementwise_rules = RuleTable("element-wise lowering", "(at: Point, *values, **params) -> value (a Pair if complex)")
movement_rules = RuleTable(
    "movement lowering",
    "(at: Point, reads, index, **params) -> value: reads[k](indices) is the element of operand k there",
)
reduction_rules = RuleTable("reduction lowering", "a `Reduction`; the parameter `axes` says what is reduced")
kernel_rules = RuleTable("kernel lowering", "(b: Builder, inputs, outputs, **params) -> None, on `Operand`s")
step_rules = RuleTable("step lowering", "(program: ProgramLowering, equation) -> None")
LOWERINGS = (elementwise_rules, movement_rules, reduction_rules, kernel_rules, step_rules)


class Pair(NamedTuple):
    """A complex value in loop IR: two real ones."""

    real: Value
    imag: Value


Element = Any  # a loop IR Value, or a Pair of them

_KINDS = {
    np.dtype(t): k
    for t, k in {
        np.bool_: "bool", np.int8: "i8", np.int16: "i16", np.int32: "i32", np.int64: "i64", np.uint8: "u8",
        np.uint16: "u16", np.uint32: "u32", np.uint64: "u64", np.float16: "f16", np.float32: "f32",
        np.float64: "f64", np.complex64: "f32", np.complex128: "f64", dtypes.bfloat16: "bf16",
    }.items()
}


_KINDS_BY_ID = {id(d): k for d, k in _KINDS.items()}  # of the objects that nearly all arrays have: hashing is slow


def kind_of(dtype: Any) -> str | None:
    """The loop IR kind of a dtype (of its parts, if complex); None for what loop IR does not hold."""
    return _KINDS_BY_ID.get(id(dtype)) or _KINDS.get(dtype)


def is_complex(dtype: Any) -> bool:
    """Whether values of this dtype are Pairs."""
    return dtype.kind == "c"


def words(aval: Any) -> int:
    """How many loop IR elements an array of this type has."""
    return aval.size * (2 if is_complex(aval.dtype) else 1)


@functools.lru_cache(4096)
def layout(aval: Aval) -> tuple[str, int]:
    """The loop IR kind and the number of elements of an array of this type, which loop IR can hold."""
    kind = kind_of(aval.dtype)
    assert kind is not None
    return kind, words(aval)


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a C-ordered array."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def linear(index: Sequence[Index | int], shape: Sequence[int]) -> Index:
    """The position of an element in a C-ordered array of this shape."""
    total: Any = ZERO
    for i, stride in zip(index, strides_of(shape), strict=True):
        total = total + i * stride
    return total if isinstance(total, Index) else Index(total)


@dataclass(slots=True)
class Point:
    """Where a rule computes one output element: the builder, the operands' types and the output's."""

    b: Builder
    avals: Sequence[Any]
    out: Any

    @property
    def kind(self) -> str:
        """The loop IR kind of the output's elements (of their parts)."""
        return _KINDS[self.out.dtype]

    def op(self, name: str, *args: Value, kind: str | None = None) -> Value:
        """A scalar operation."""
        return self.b.op(name, *args, kind=kind)

    def constant(self, number: Any, kind: str | None = None) -> Value:
        """A number, of the output's kind unless said otherwise."""
        return self.b.constant(number, kind or self.kind)

    def select(self, condition: Value, a: Element, b: Element) -> Element:
        """a where the condition holds, else b."""
        if isinstance(a, Pair):
            return Pair(self.select(condition, a.real, b.real), self.select(condition, a.imag, b.imag))
        return self.b.op("select", condition, a, b)


@dataclass(frozen=True, slots=True)
class Reduction:
    """How a reduction lowers: elements are combined by an associative operation.

    Half precision accumulates in float32, and the result is rounded once.
    """

    combine: str


@dataclass(frozen=True, slots=True)
class Operand:
    """A whole array that a kernel reads or writes: a C-ordered buffer and its type."""

    buffer: Buffer
    aval: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def kind(self) -> str:
        """The loop IR kind of the elements (of their parts)."""
        return self.buffer.kind

    def load(self, b: Builder, index: Index | Sequence[Index | int]) -> Element:
        """The element at an index, or at a position if the index is one linear `Index`."""
        at = index if isinstance(index, Index) else linear(index, self.aval.shape)
        return load_element(b, self.buffer, at, self.aval.dtype)

    def store(self, b: Builder, index: Index | Sequence[Index | int], element: Element) -> None:
        """Write an element."""
        at = index if isinstance(index, Index) else linear(index, self.aval.shape)
        store_element(b, self.buffer, at, element)


def load_element(b: Builder, buffer: Buffer, at: Index, dtype: Any) -> Element:
    """The element at a position of an array."""
    if is_complex(dtype):
        return Pair(b.load(buffer, at * 2), b.load(buffer, at * 2 + 1))
    return b.load(buffer, at)


def store_element(b: Builder, buffer: Buffer, at: Index, element: Element) -> None:
    """Write the element at a position of an array."""
    if isinstance(element, Pair):
        b.store(buffer, at * 2, element.real)
        b.store(buffer, at * 2 + 1, element.imag)
    else:
        b.store(buffer, at, element)


def scalar(name: str) -> Callable[..., Value]:
    """The element-wise rule that is one scalar operation of loop IR."""

    def rule(at: Point, *values: Value) -> Value:
        return at.b.op(name, *values)

    return rule
