# SPDX-License-Identifier: MIT
"""Building loop IR: each call places one statement; a value already computed is found instead of computed again.

A value goes into the outermost block where its operands are known, so what does not change in a loop is computed before
it. Loads move too, from buffers that the function only reads.

    b = Builder("scale")
    x, out = b.input("x", "f32", 64), b.output("out", "f32", 64)
    with b.loop(64, vector=True) as i:
        b.store(out, i, b.op("mul", b.load(x, i), b.constant(2.0, "f32")))
    kernel = b.finish()
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from functorch_lite.compiler.loop_ir.nodes import (
    ITEM_BYTES,
    ZERO,
    Buffer,
    Carried,
    Copy,
    Exit,
    Fill,
    Function,
    If,
    Index,
    Loop,
    Prefetch,
    Store,
    Transpose,
    Value,
    While,
)

LOCAL_BYTES = 1 << 14
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "is_nan", "is_finite"})
_COMMUTATIVE = frozenset({"add", "mul", "and", "or", "xor", "eq", "ne"})


class Builder:
    """Builds one function. Blocks nest: the innermost open one is where new statements go."""

    def __init__(self, name: str):
        self.function = Function(name, [])
        self._blocks: list[list[Any]] = [self.function.body]
        self._memos: list[dict[Any, Value]] = [{}]
        self.brief = False  # whether there should be little code, which runs longer
        self._floor = 0  # values are not placed outside this block: the innermost branch or while

    # --- parameters and locals --------------------------------------------------------------------------------------

    def input(self, name: str, kind: str, size: int) -> Buffer:
        """A parameter that the function only reads."""
        return self._param(Buffer(name, kind, size, "in"))

    def output(self, name: str, kind: str, size: int) -> Buffer:
        """A parameter that the function writes (and may read back)."""
        return self._param(Buffer(name, kind, size, "out"))

    def inout(self, name: str, kind: str, size: int) -> Buffer:
        """A parameter that the function reads and updates in place."""
        return self._param(Buffer(name, kind, size, "inout"))

    def local(self, name: str, kind: str, size: int) -> Buffer:
        """Scratch space of the function; what it holds at first is unknown."""
        buffer = Buffer(name, kind, size, "local")
        self.function.locals.append(buffer)
        return buffer

    def scratch(self, name: str, kind: str, size: int) -> Buffer:
        """Scratch space too large for a local: a parameter after all inputs and outputs, which the caller provides."""
        buffer = self._param(Buffer(name, kind, size, "scratch"))
        self.function.scratch.append(buffer)
        return buffer

    def workspace(self, name: str, kind: str, size: int) -> Buffer:
        """A local, or scratch where that would be too much for a stack."""
        make = self.local if size * ITEM_BYTES[kind] <= LOCAL_BYTES else self.scratch
        return make(name, kind, size)

    def integer(self) -> Value:
        """An i64 parameter."""
        value = Value("parameter", "i64")
        self.function.integers.append(value)
        return value

    def _param(self, buffer: Buffer) -> Buffer:
        self.function.params.append(buffer)
        return buffer

    # --- values -----------------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """How many blocks are open inside the function's body."""
        return len(self._blocks) - 1

    def constant(self, number: Any, kind: str) -> Value:
        """A number of this kind."""
        number = _plain(number, kind)
        key = ("constant", kind, repr(number))
        found = self._memos[0].get(key)
        if found is None:
            found = self._memos[0][key] = Value("constant", kind, (), number, 0)
        return found

    def op(self, name: str, *args: Value, kind: str | None = None) -> Value:
        """The scalar operation applied to values of one kind; a comparison gives bool. `convert` needs the kind."""
        if kind is None:
            kind = "bool" if name in COMPARISONS else args[-1].kind
        if name == "convert" and args[0].kind == kind:
            return args[0]
        ids = tuple(map(id, args))
        if name in _COMMUTATIVE and ids[0] > ids[1]:
            ids = (ids[1], ids[0])
        depth = 0
        for a in args:
            if a.depth > depth:
                depth = a.depth
        return self._placed((name, kind, ids), depth, name, kind, args, None)

    def load(self, buffer: Buffer, index: Index | int) -> Value:
        """The element of the buffer at this position."""
        index = Index(index) if isinstance(index, int) else index
        if buffer.role == "in":
            return self._placed(("load", id(buffer), index.key), index.depth, "load", buffer.kind, (), (buffer, index))
        return self._append(Value("load", buffer.kind, (), (buffer, index), self.depth))

    def value_of(self, index: Index | int, kind: str = "i64") -> Value:
        """An index as an integer value."""
        index = Index(index) if isinstance(index, int) else index
        if not index.terms:
            return self.constant(index.constant, kind)
        if index.constant == 0 and len(index.terms) == 1 and index.terms[0][1] == 1:
            value = index.terms[0][0]
            if value.kind == kind and value.op != "variable":  # in a vector loop a variable is lane 0's
                return value
        return self._placed(("index", kind, index.key), index.depth, "index", kind, (), index)

    def index_of(self, value: Value) -> Index:
        """An integer value (signed, or small enough) as an index."""
        if value.op == "constant":
            return Index(int(value.attr))
        return value.attr if value.op == "index" else Index.of(value)

    def _placed(self, key, depth, name, kind, args, attr) -> Value:
        memos, known = self._memos, depth  # no such value is placed before what it is made of
        depth = max(depth, self._floor)
        for k in range(known, depth + 1):
            found = memos[k].get(key)
            if found is not None:
                return found
        value = Value(name, kind, args, attr, depth)
        memos[depth][key] = value
        self._blocks[depth].append(value)
        return value

    def _append(self, statement):
        self._blocks[-1].append(statement)
        return statement

    # --- statements -------------------------------------------------------------------------------------------------

    def store(self, buffer: Buffer, index: Index | int, value: Value) -> None:
        """`buffer[index] = value`."""
        assert value.kind == buffer.kind, f"store of {value.kind} into {buffer}"
        self._append(Store(buffer, Index(index) if isinstance(index, int) else index, value))

    def add(self, statement: Any) -> Any:
        """Append a statement made by the caller."""
        return self._append(statement)

    def copy(self, target: Buffer, source: Buffer, count: int, at: Index = ZERO, start: Index = ZERO) -> None:
        """`target[at : at + count] = source[start : start + count]`."""
        if count:
            self._append(Copy(target, at, source, start, count))

    def transpose(
        self, target: Buffer, at: Index, source: Buffer, start: Index, rows: int, columns: int, stride: int, step: int
    ) -> None:
        """`target[at + c * step + r] = source[start + r * stride + c]` for r below rows, c below columns."""
        self._append(Transpose(target, at, source, start, rows, columns, stride, step))

    def fill(self, target: Buffer, count: int, at: Index = ZERO) -> None:
        """Zeros."""
        if count:
            self._append(Fill(target, at, count))

    def prefetch(self, buffer: Buffer, index: Index, near: bool = False) -> None:
        """A hint that buffer[index] will be read soon, or very soon; it may be no place of the buffer."""
        self._append(Prefetch(buffer, index, near))

    def exit(self, status: int | Value) -> None:
        """Leave the whole program with this status."""
        self.function.can_fail = True
        self._append(Exit(self.constant(status, "i32") if isinstance(status, int) else status))

    @contextmanager
    def _block(self, statements: list[Any], floor: bool = False) -> Iterator[None]:
        before = self._floor
        self._blocks.append(statements)
        self._memos.append({})
        if floor:
            self._floor = self.depth
        try:
            yield
        finally:
            self._blocks.pop()
            self._memos.pop()
            self._floor = before

    @contextmanager
    def loop(self, extent: int | Value, vector: bool = False, apart: Sequence[Buffer] = ()) -> Iterator[Index]:
        """`for i in range(extent)`, i as an index. A loop of one iteration is no loop. apart: see `nodes.Loop`."""
        if extent == 1:
            yield ZERO
            return
        loop = Loop(Value("variable", "i64", depth=self.depth + 1), extent, vector=vector, apart=tuple(apart))
        with self._block(loop.body, floor=not isinstance(extent, int)):
            yield Index.of(loop.variable)
        self._append(loop)

    def reduce(
        self, extent: int | Value, initial: Sequence[Value], body: Callable[..., Sequence[Value]], *,
        combine: Sequence[str | None] = (), vector: bool = False,
    ) -> list[Value]:
        """A loop that carries values: `body(i, *values) -> next values`; returns the last ones.

        In a vector loop each next value must be `op(combine, value, something)`.
        """
        if extent == 1:
            return list(body(ZERO, *initial))
        inner = self.depth + 1
        loop = Loop(Value("variable", "i64", depth=inner), extent, vector=vector)
        carried = [Value("carried", v.kind, depth=inner) for v in initial]
        with self._block(loop.body, floor=not isinstance(extent, int)):
            following = list(body(Index.of(loop.variable), *carried))
        results = [Value("result", v.kind, depth=self.depth) for v in initial]
        how = combine or [None] * len(results)
        loop.carried = [Carried(*group) for group in zip(carried, initial, following, results, how, strict=True)]
        self._append(loop)
        return results

    def loop_while(
        self, initial: Sequence[Value], test: Callable[..., Value], body: Callable[..., Sequence[Value]]
    ) -> list[Value]:
        """`while test(*values): values = body(*values)`; returns the last values."""
        inner = self.depth + 1
        carried = [Value("carried", v.kind, depth=inner) for v in initial]
        tests: list[Any] = []
        statements: list[Any] = []
        with self._block(tests, floor=True):
            condition = test(*carried)
        with self._block(statements, floor=True):
            following = list(body(*carried))
        results = [Value("result", v.kind, depth=self.depth) for v in initial]
        pairs = [Carried(*group) for group in zip(carried, initial, following, results, strict=True)]
        self._append(While(tests, condition, statements, pairs))
        return results

    def branch(
        self, condition: Value, then: Callable[[], Sequence[Value] | None],
        otherwise: Callable[[], Sequence[Value] | None] = lambda: None,
    ) -> list[Value]:
        """`if condition: then() else: otherwise()`; both return values of the same kinds, which are merged."""
        statement = If(condition, [], [])
        with self._block(statement.then, floor=True):
            first = list(then() or ())
        with self._block(statement.otherwise, floor=True):
            second = list(otherwise() or ())
        results = [Value("result", v.kind, depth=self.depth) for v in first]
        statement.results = list(zip(results, first, second, strict=True))
        self._append(statement)
        return results

    def finish(self) -> Function:
        """The function."""
        return self.function


def identity(combine: str, kind: str) -> Any:
    """The number that changes nothing when combined."""
    if combine in ("add", "or", "xor"):
        return False if kind == "bool" else 0
    if combine == "mul":
        return True if kind == "bool" else 1
    if kind == "bool":
        return combine in ("and", "min")
    if combine == "and":
        return -1 if kind[0] == "i" else (1 << 8 * ITEM_BYTES[kind]) - 1
    if kind[0] in "fb":
        return -np.inf if combine == "max" else np.inf
    info = np.iinfo({"i": "int", "u": "uint"}[kind[0]] + kind[1:])
    return int(info.min) if combine == "max" else int(info.max)


def _plain(number, kind):
    if kind == "bool":
        return bool(number)
    return float(number) if kind[0] == "f" or kind == "bf16" else int(number)
