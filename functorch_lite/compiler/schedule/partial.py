# SPDX-License-Identifier: MIT
"""Long sums in parts, so that threads can share them: `in_parts(kernel)`.

    for i in N                                      for p in P
      carry a by add                                  for i in N / P
      a = add a x[i]                                    carry b by add
      sums[j] = add sums[j] y[i, j]                     b = add b x[N / P * p + i]
                                                        more[p, j] = add more[p, j] y[N / P * p + i, j]
                                                      part[p] = b
                                                    a = add a part[p] for all p;  the same for sums and more

An outermost loop whose iterations meet in nothing but sums (or products, extrema: what is associative), carried or in
memory, becomes a loop of parts that are apart, and one after it over what does not divide evenly. How many parts there
are follows from the sizes alone, so results are the same for any number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.builder import identity
from functorch_lite.compiler.loop_ir.nodes import (
    ASSOCIATIVE,
    ZERO,
    Buffer,
    Carried,
    Function,
    Index,
    Loop,
    Store,
    Value,
)
from functorch_lite.compiler.schedule import parallel

PARTS = 16
VECTOR_STEP = 64  # elements: parts of a vector loop are whole vectors
_SUM_NS = 0.1  # for a byte of a part's sums: to begin and to add up
_MOST = 0.2  # of the loop's own time, for that


def in_parts(function: Function) -> Function:
    """The kernel with its long sums in parts; itself where there are none."""
    if function.integers:
        return function
    for number, s in enumerate(function.body):
        if isinstance(s, Loop) and _may_sum(s) and _is_worth(s) and parallel.own_buffers(s, function) is None:
            function = _split(function, number, s) or function
    return function


def _is_worth(loop: Loop) -> bool:
    if not isinstance(loop.extent, int) or loop.extent < (PARTS * VECTOR_STEP if loop.vector else PARTS):
        return False
    return parallel.time_of(loop) >= parallel.WORTH_NS


def _may_sum(loop: Loop) -> bool:
    """Whether a loop carries something, or has a store that adds to what is there: a look that takes little time."""
    return bool(loop.carried) or _adds(loop.body)


def _adds(statements: Sequence[Any]) -> bool:
    for s in statements:
        kind = type(s)
        if kind is Store:
            if s.value.op in ASSOCIATIVE and any(_reads(a, s) for a in s.value.args):
                return True
        elif kind is not Value and any(map(_adds, nodes.blocks(s))):
            return True
    return False


def _split(function: Function, number: int, loop: Loop) -> Function | None:
    """The kernel with a loop of its body in parts; None where that cannot be, or costs too much."""
    found = None if parallel.Inside(loop).leaves else sums_in_memory(loop)
    if found is None or not (found or loop.carried) or any(c.combine not in ASSOCIATIVE for c in loop.carried):
        return None
    made = _Split(loop, found, number)
    sums = list(made.memory.values())
    if _SUM_NS * sum(b.nbytes for b in sums) > _MOST * parallel.time_of(loop):
        return None
    main, *rest = made.statements()
    place = next(k for k, s in enumerate(function.body) if s is loop)
    body = [*function.body[:place], main, *rest, *function.body[place + 1 :]]
    whole = replace(function, params=[*function.params, *sums], body=body, locals=[*function.locals, *made.carried],
                    scratch=[*function.scratch, *sums])
    return None if parallel.own_buffers(main, whole) is None else whole


# --- sums in memory ---------------------------------------------------------------------------------------------------


def sums_in_memory(loop: Loop) -> dict[Buffer, str] | None:
    """The buffers that all iterations add into (or combine otherwise), and the operation.

    Each is touched only by `b[at] = op(b[at], more)`, with `at` the same in all iterations. None where a buffer is
    touched so and otherwise, or by several operations.
    """
    found: dict[Buffer, str] = {}
    others: set[Buffer] = set()
    loads: dict[Value, int] = {}
    every = list(parallel.every([loop]))
    for s in every:
        for v in _used(s):
            loads[v] = loads.get(v, 0) + 1
    updates = [s for s in every if isinstance(s, Store) and _is_update(s, loop, loads)]
    read = {id(s.value.args[k]) for s in updates for k in (0, 1) if _reads(s.value.args[k], s)}
    for s in updates:
        if found.setdefault(s.buffer, s.value.op) != s.value.op:
            others.add(s.buffer)
    for s in every:
        if s in updates or id(s) in read:
            continue
        others.update(a.buffer for a in parallel.accesses(s))
    return None if others & set(found) else found


def _is_update(s: Store, loop: Loop, uses: dict[Value, int]) -> bool:
    """Whether a store adds to what is there, at a place that is the same in all iterations of a loop."""
    v = s.value
    if v.op not in ASSOCIATIVE or any(t is loop.variable for t, _ in s.index.terms):
        return False
    there = [a for a in v.args if _reads(a, s)]
    return len(there) == 1 and uses.get(there[0]) == 1 and uses.get(v) == 1


def _reads(v: Value, s: Store) -> bool:
    return v.op == "load" and v.attr[0] is s.buffer and v.attr[1].key == s.index.key


def _used(s: Any) -> Sequence[Value]:
    """The values that a statement uses, but in positions."""
    if isinstance(s, Value):
        return s.args
    if isinstance(s, Store):
        return [s.value]
    if isinstance(s, Loop | nodes.While):
        return [v for c in s.carried for v in (c.initial, c.next)]
    if isinstance(s, nodes.If):
        return [s.condition, *(v for _, *both in s.results for v in both)]
    return ()


# --- the loops of parts -----------------------------------------------------------------------------------------------


class _Split:
    def __init__(self, loop: Loop, found: dict[Buffer, str], number: int):
        assert isinstance(loop.extent, int)
        self.loop = loop
        self.found = found
        step = VECTOR_STEP if loop.vector else 1
        self.size = loop.extent // (PARTS * step) * step
        self.rest = loop.extent - PARTS * self.size
        self.count = PARTS + bool(self.rest)
        self.carried = [Buffer(f"parts{number}_{k}", c.value.kind, self.count, "local")
                        for k, c in enumerate(loop.carried)]
        self.memory = {b: Buffer(f"{b.name}_parts{number}", b.kind, self.count * b.size, "scratch") for b in found}

    def statements(self) -> list[Any]:
        """The loop of parts, the part of what is left, and the sums of all parts."""
        variable = Value("variable", "i64", depth=1)
        main = Loop(variable, PARTS, self._part(Index.of(variable), Index.of(variable) * self.size, self.size))
        rest = self._part(Index(PARTS), Index(PARTS * self.size), self.rest) if self.rest else []
        return [main, *rest, *map(self._total, self.loop.carried, self.carried),
                *(self._total_in_memory(b, op) for b, op in self.found.items())]

    def _part(self, number: Index, start: Index, extent: int) -> list[Any]:
        """The iterations from `start` on, into the sums of part `number`."""
        starts: list[Any] = []
        copy = Copier({b: (more, number * b.size) for b, more in self.memory.items()})
        for b, op in self.found.items():
            j = Value("variable", "i64", depth=2)
            store = Store(self.memory[b], number * b.size + Index.of(j), _constant(identity(op, b.kind), b.kind))
            starts.append(Loop(j, b.size, [store], vector=True))
        inner = Loop(Value("variable", "i64", depth=2), extent, vector=self.loop.vector)
        copy.indices[self.loop.variable] = start + Index.of(inner.variable)
        for c in self.loop.carried:
            copy.values[c.value] = Value("carried", c.value.kind, depth=2)
        inner.body = copy.block(self.loop.body)
        for c in self.loop.carried:
            first = _constant(identity(c.combine or "", c.value.kind), c.value.kind)
            result = Value("result", c.value.kind, depth=1)
            inner.carried.append(Carried(copy.values[c.value], first, copy.value(c.next), result, c.combine))
        return [*starts, inner, *(Store(b, number, c.result) for b, c in zip(self.carried, inner.carried, strict=True))]

    def _total(self, c: Carried, parts: Buffer) -> Loop:
        p, so_far = Value("variable", "i64", depth=1), Value("carried", c.value.kind, depth=1)
        more = Value("load", parts.kind, (), (parts, Index.of(p)), 1)
        after = Value(c.combine or "", c.value.kind, (so_far, more), None, 1)
        return Loop(p, self.count, [more, after], [Carried(so_far, c.initial, after, c.result, c.combine)])

    def _total_in_memory(self, b: Buffer, op: str) -> Loop:
        j, p = Value("variable", "i64", depth=1), Value("variable", "i64", depth=2)
        first = Value("load", b.kind, (), (b, Index.of(j)), 1)
        so_far, result = Value("carried", b.kind, depth=2), Value("result", b.kind, depth=1)
        more = Value("load", b.kind, (), (self.memory[b], Index(0, ((p, b.size), (j, 1)))), 2)
        after = Value(op, b.kind, (so_far, more), None, 2)
        add = Loop(p, self.count, [more, after], [Carried(so_far, first, after, result, op)])
        return Loop(j, b.size, [first, add, Store(b, Index.of(j), result)], vector=True)


def _constant(number: Any, kind: str) -> Value:
    if kind == "bool":
        return Value("constant", kind, (), bool(number))
    return Value("constant", kind, (), float(number) if kind[0] == "f" or kind == "bf16" else int(number))


# --- copies of statements ---------------------------------------------------------------------------------------------


@dataclass
class Copier:
    """Copies statements: values anew, loop variables as `indices` says, some buffers moved to a place in another."""

    buffers: dict[Buffer, tuple[Buffer, Index]]
    values: dict[Value, Value] = field(default_factory=dict)
    indices: dict[Value, Index] = field(default_factory=dict)

    def block(self, statements: Sequence[Any]) -> list[Any]:
        """The statements anew, in order."""
        return [self.statement(s) for s in statements]

    def value(self, v: Value) -> Value:
        """What stands for a value in the copy: itself where it comes from outside."""
        return self.values.get(v, v)

    def index(self, index: Index) -> Index:
        """A position in the copy."""
        total = Index(index.constant)
        for v, c in index.terms:
            total = total + self.indices.get(v, Index.of(self.value(v))) * c
        return total

    def place(self, buffer: Buffer, index: Index) -> tuple[Buffer, Index]:
        """A place in a buffer in the copy."""
        target, start = self.buffers.get(buffer, (buffer, ZERO))
        return target, start + self.index(index)

    def statement(self, s: Any) -> Any:
        """One statement anew."""
        if isinstance(s, Value):
            return self._value(s)
        if isinstance(s, Store):
            return Store(*self.place(s.buffer, s.index), self.value(s.value))
        if isinstance(s, nodes.Copy):
            return nodes.Copy(*self.place(s.target, s.at), *self.place(s.source, s.start), s.count)
        if isinstance(s, nodes.Transpose):
            places = *self.place(s.target, s.at), *self.place(s.source, s.start)
            return nodes.Transpose(*places, s.rows, s.columns, s.stride, s.step)
        if isinstance(s, nodes.Fill):
            return nodes.Fill(*self.place(s.target, s.at), s.count)
        if isinstance(s, nodes.Prefetch):
            return nodes.Prefetch(*self.place(s.buffer, s.index), s.near)
        if isinstance(s, nodes.If):
            return self._branch(s)
        assert isinstance(s, Loop | nodes.While), f"a copy of {type(s).__name__}"
        return self._loop(s)

    def _value(self, v: Value) -> Value:
        attr = v.attr
        if v.op == "load":
            attr = self.place(*v.attr)
        elif v.op == "index":
            attr = self.index(v.attr)
        made = self.values[v] = Value(v.op, v.kind, tuple(map(self.value, v.args)), attr, v.depth + 1)
        return made

    def _new(self, v: Value) -> Value:
        made = self.values[v] = Value(v.op, v.kind, v.args, v.attr, v.depth + 1)
        return made

    def _branch(self, s: nodes.If) -> nodes.If:
        condition, then, otherwise = self.value(s.condition), self.block(s.then), self.block(s.otherwise)
        results = [(self._new(r), self.value(a), self.value(b)) for r, a, b in s.results]
        return nodes.If(condition, then, otherwise, results)

    def _loop(self, s: Loop | nodes.While) -> Loop | nodes.While:
        starts = [self.value(c.initial) for c in s.carried]
        values = [self._new(c.value) for c in s.carried]
        if isinstance(s, Loop):
            extent = s.extent if isinstance(s.extent, int) else self.value(s.extent)
            made: Any = Loop(self._new(s.variable), extent, self.block(s.body), vector=s.vector, apart=s.apart)
        else:
            test = self.block(s.test)
            made = nodes.While(test, self.value(s.condition), self.block(s.body), [])
        made.carried = [Carried(v, first, self.value(c.next), self._new(c.result), c.combine)
                        for v, first, c in zip(values, starts, s.carried, strict=True)]
        return made


__all__ = ["Copier", "in_parts", "sums_in_memory"]
