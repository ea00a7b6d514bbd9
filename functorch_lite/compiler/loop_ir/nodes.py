# SPDX-License-Identifier: MIT
"""The nodes of loop IR.

A function has buffers (flat arrays of one scalar kind) and a body of statements in order. A value is defined once, by
the statement that is the value itself (`Value`: a constant, load, index or scalar operation) or by a loop or branch
(its variable, carried values and results). Indices into buffers are `Index`: a linear form of integer values.

    kernel add_relu(x:f32[64] in, y:f32[64] in, out:f32[64] out)
      for i in 64 vector
        a = load x[i]
        b = load y[i]
        c = add a b
        d = max c 0.0
        store out[i] = d

A loop marked `vector` has independent iterations, but for carried values, which combine by an associative operation:
a target may run its iterations in any order and many at a time.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal

KINDS = ("bool", "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f16", "bf16", "f32", "f64")
ITEM_BYTES = {
    "bool": 1, "i8": 1, "u8": 1, "i16": 2, "u16": 2, "f16": 2, "bf16": 2, "i32": 4, "u32": 4, "f32": 4, "i64": 8,
    "u64": 8, "f64": 8,
}
NO_MEMORY = 2
"""The status of a program that found no memory for a growing buffer."""
INTERRUPTED = 3
"""The status of a program that a signal ended."""
ASSOCIATIVE = ("add", "mul", "max", "min", "and", "or", "xor")

Role = Literal["in", "out", "inout", "local", "scratch", "growing"]


class Buffer:
    """A flat array of `size` elements of one kind. Its role says whether a function reads or writes it.

    A growing buffer has as many elements as `Grow` made room for; at first none.
    """

    __slots__ = ("name", "kind", "size", "role")

    def __init__(self, name: str, kind: str, size: int, role: Role):
        self.name = name
        self.kind = kind
        self.size = size
        self.role = role

    @property
    def nbytes(self) -> int:
        return self.size * ITEM_BYTES[self.kind]

    def __repr__(self):
        return f"{self.name}:{self.kind}[{self.size}]"


class Value:
    """A scalar of one kind, defined once.

    op: "constant" (attr: the number), "load" (attr: buffer, index), "index" (attr: an Index), "variable" (of a loop),
    "carried" or "result" (of a loop or branch), else the scalar operation applied to args.
    depth: how many blocks enclose its definition.
    """

    __slots__ = ("op", "kind", "args", "attr", "depth")

    def __init__(self, op: str, kind: str, args: tuple["Value", ...] = (), attr: Any = None, depth: int = 0):
        self.op = op
        self.kind = kind
        self.args = args
        self.attr = attr
        self.depth = depth


class Index:
    """constant + sum of coefficient * value: a position in a buffer."""

    __slots__ = ("constant", "terms")

    def __init__(self, constant: int = 0, terms: tuple[tuple[Value, int], ...] = ()):
        self.constant = constant
        self.terms = terms

    @staticmethod
    def of(value: Value) -> "Index":
        """The index that is one integer value."""
        return Index(0, ((value, 1),))

    def __add__(self, other: "Index | int") -> "Index":
        if isinstance(other, int):
            return Index(self.constant + other, self.terms) if other else self
        if not other.terms:
            return self + other.constant
        if not self.terms:
            return other + self.constant
        terms = self.terms
        if len(other.terms) == 1:  # as most are
            value = other.terms[0][0]
            for v, _ in terms:
                if v is value:
                    break
            else:
                return Index(self.constant + other.constant, terms + other.terms)
        total = dict(terms)
        for value, coefficient in other.terms:
            total[value] = total.get(value, 0) + coefficient
        return Index(self.constant + other.constant, tuple([(v, c) for v, c in total.items() if c]))

    __radd__ = __add__

    def __sub__(self, other: "Index | int") -> "Index":
        return self + (other * -1)

    def __rsub__(self, other: int) -> "Index":
        return self * -1 + other

    def __mul__(self, factor: int) -> "Index":
        if factor == 1:
            return self
        if factor == 0:
            return ZERO
        return Index(self.constant * factor, tuple([(v, c * factor) for v, c in self.terms]))

    __rmul__ = __mul__

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal indices."""
        if len(self.terms) < 2:
            return (self.constant, self.terms)
        return (self.constant, frozenset(self.terms))

    @property
    def depth(self) -> int:
        return max((v.depth for v, _ in self.terms), default=0)

    def coefficient(self, value: Value) -> int:
        """How much the index grows when the value grows by one."""
        for term, coefficient in self.terms:
            if term is value:
                return coefficient
        return 0


ZERO = Index()
_AT_START = frozenset({ZERO})
BUFFER: Callable[[Any], Buffer] = itemgetter(0)
START: Callable[[Any], Index] = itemgetter(1)
"""The buffer and the start of a place, for builtins to go through the thousands of a long program."""


@dataclass(eq=False, slots=True)
class Carried:
    """A value that a loop hands from one iteration to the next: starts at `initial`, becomes `next`, ends as `result`.

    combine: in a vector loop, the associative operation that `next` is of the value so far and something else.
    """

    value: Value
    initial: Value
    next: Value
    result: Value
    combine: str | None = None


@dataclass(eq=False, slots=True)
class Loop:
    """`for variable in range(extent)`: body. The extent is a number (at least 1) or an i64 value (may be 0).

    poll: if the loop is to look for signals, roughly how many nanoseconds an iteration takes, else 0. apart: buffers in
    which no iteration touches what another one writes, as the kernel's writer knows though the indices do not show it.
    """

    variable: Value
    extent: int | Value
    body: list[Any] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)
    vector: bool = False
    poll: float = 0
    apart: tuple[Buffer, ...] = ()


@dataclass(eq=False, slots=True)
class While:
    """`while condition`: the test block computes `condition` from the carried values, then the body the next ones."""

    test: list[Any]
    condition: Value
    body: list[Any]
    carried: list[Carried]
    poll: float = 0


@dataclass(eq=False, slots=True)
class If:
    """`if condition`: then, otherwise. results: (result, its value in then, its value in otherwise)."""

    condition: Value
    then: list[Any]
    otherwise: list[Any]
    results: list[tuple[Value, Value, Value]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Sections:
    """Blocks that need nothing of one another, which may run at the same time; outside loops and branches only.

    What they define is known after them. numbers: of each statement, its place in the order of the program, in which
    failures count. results: of each block, the values that are used after it. uneven: about how many times as long as
    one block another may take.
    """

    blocks: list[list[Any]]
    numbers: list[list[int]]
    results: list[list[Value]]
    uneven: int = 1

    @property
    def in_order(self) -> list[Any]:
        """All statements in the order of the program."""
        pairs = [(n, s) for block, numbers in zip(self.blocks, self.numbers, strict=True)
                 for n, s in zip(numbers, block, strict=True)]
        return [s for _, s in sorted(pairs, key=lambda pair: pair[0])]


@dataclass(eq=False, slots=True)
class Store:
    """`buffer[index] = value`."""

    buffer: Buffer
    index: Index
    value: Value


@dataclass(eq=False, slots=True)
class Copy:
    """`target[at : at + count] = source[start : start + count]`, one kind; the ranges do not overlap."""

    target: Buffer
    at: Index
    source: Buffer
    start: Index
    count: int


@dataclass(eq=False, slots=True)
class Transpose:
    """`target[at + c * step + r] = source[start + r * stride + c]` for r below rows and c below columns, one kind.

    step is at least rows; the two buffers are different ones.
    """

    target: Buffer
    at: Index
    source: Buffer
    start: Index
    rows: int
    columns: int
    stride: int
    step: int

    @property
    def reads(self) -> int:
        """The length of the range that it reads in."""
        return (self.rows - 1) * self.stride + self.columns

    @property
    def writes(self) -> int:
        """The length of the range that it writes in."""
        return (self.columns - 1) * self.step + self.rows


@dataclass(eq=False, slots=True)
class Fill:
    """`target[at : at + count] = 0`."""

    target: Buffer
    at: Index
    count: int


@dataclass(eq=False, slots=True)
class Prefetch:
    """A hint that what lies at buffer[index] will be read soon; the place may be outside of the buffer.

    near: so soon that it should be in the first-level cache.
    """

    buffer: Buffer
    index: Index
    near: bool = False


@dataclass(eq=False, slots=True)
class HostCall:
    """Run step `number` of the executable in Python, on arrays at these places; the first `reads` are its inputs.

    rare: only a failure leads here.
    """

    number: int
    places: list[tuple[Buffer, Index]]
    reads: int
    rare: bool = False


class KernelCall:
    """Run a kernel with its parameters bound to places: (buffer, index of its first element).

    Long programs have tens of thousands of places. They are kept apart: buffers, and starts, None where all are 0.
    failure: what to run in Python, which raises, when the kernel leaves with a status other than 0.
    """

    __slots__ = ("kernel", "buffers", "starts", "failure")

    def __init__(self, kernel: "Function", places: Sequence[Any], failure: HostCall | None = None):
        self.kernel = kernel
        self.buffers: list[Buffer] = list(map(BUFFER, places))
        self.starts = None if _AT_START.issuperset(map(START, places)) else list(map(START, places))
        self.failure = failure

    @property
    def places(self) -> list[tuple[Buffer, Index]]:
        """(buffer, index of its first element) for each parameter."""
        return list(zip(self.buffers, self.starts or itertools.repeat(ZERO), strict=False))


@dataclass(eq=False, slots=True)
class LibraryCall:
    """Call a C function: each argument is a place (passed as a pointer), an i32 or i64 value, or a number by pointer.

    result: the i32 it returns, if used. interpret: what it does, on NumPy arrays, for the interpreter. flops: about how
    many operations it makes.
    """

    symbol: str
    args: list[Any]
    result: Value | None = None
    interpret: Any = None
    flops: int = 0


@dataclass(eq=False, slots=True)
class Grow:
    """Make room for this many rows (an i64 value) in growing buffers, each with the elements of its row.

    What they hold stays. Leaves the program with status NO_MEMORY if there is none.
    """

    buffers: list[tuple[Buffer, int]]
    rows: Value


@dataclass(eq=False, slots=True)
class Release:
    """Give the memory of growing buffers back: they have no elements any more."""

    buffers: list[Buffer]


@dataclass(eq=False, slots=True)
class Exit:
    """Leave the program with this status (an i32 other than 0)."""

    status: Value


@dataclass(eq=False, slots=True)
class Function:
    """A kernel, the whole program, or a part of it that is called many times and calls kernels itself.

    integers: i64 parameters after the buffers. scratch: the parameters at the end of `params` that are working space,
    which the caller provides and nothing else uses meanwhile. arena: of a part, the last parameter, in which its locals
    live. can_fail: it may leave with a status. has_steps: of a part, it calls Python, other than to raise an error.
    facts: what was found out about this body (schedule/parallel.py).
    """

    name: str
    params: list[Buffer]
    body: list[Any] = field(default_factory=list)
    integers: list[Value] = field(default_factory=list)
    locals: list[Buffer] = field(default_factory=list)
    growing: list[Buffer] = field(default_factory=list)
    scratch: list[Buffer] = field(default_factory=list)
    arena: Buffer | None = None
    can_fail: bool = False
    has_steps: bool = False
    facts: Any = field(default=None, repr=False)

    def with_body(self, body: list[Any]) -> "Function":
        """The same function of another body."""
        return Function(self.name, self.params, body, self.integers, self.locals, self.growing, self.scratch,
                        self.arena, self.can_fail, self.has_steps)


Statement = (
    Value | Loop | While | If | Sections | Store | Copy | Transpose | Fill | Prefetch | KernelCall | LibraryCall
    | HostCall | Grow | Release | Exit
)


def blocks(statement: Any) -> Sequence[list[Any]]:
    """The blocks inside a statement."""
    kind = type(statement)
    if kind is Value or kind is Store:  # by far the most
        return ()
    if kind is Loop:
        return (statement.body,)
    if kind is While:
        return (statement.test, statement.body)
    if kind is If:
        return (statement.then, statement.otherwise)
    if kind is Sections:
        return statement.blocks
    return ()
