# SPDX-License-Identifier: MIT
"""The verifier of loop IR: `verify(function)` raises LoopIRError at the first statement that breaks a rule.

Checked are definition before use, the kinds of operands, positions in buffers as far as they are known (those over
loops of known extents), and what a vector loop asks for: iterations that do not depend on one another, and conditions,
extents and copies that are the same in all of them.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from functorch_lite.compiler.codegen.llvm.maths import MATHS
from functorch_lite.compiler.codegen.llvm.scalar_ops import CONVERSIONS, SCALAR_OPS
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.builder import COMPARISONS
from functorch_lite.compiler.loop_ir.effects import Effects
from functorch_lite.compiler.loop_ir.nodes import ASSOCIATIVE, ITEM_BYTES, Buffer, Function, Index, Value, blocks
from functorch_lite.compiler.loop_ir.printer import statement_text
from functorch_lite.compiler.loop_ir.varying import index_varies, varying_values

FLOATS = frozenset({"f16", "bf16", "f32", "f64"})
INTEGERS = frozenset(ITEM_BYTES) - FLOATS - {"bool"}
_ARITY = {"neg": 1, "abs": 1, "not": 1, "is_nan": 1, "is_finite": 1, "convert": 1, "bitcast": 1, "fma": 3, "select": 3}
_OF_FLOATS = frozenset({"fma", "copysign", "is_nan", "is_finite"}) | frozenset(MATHS) - frozenset(SCALAR_OPS)
_OF_BITS = frozenset({"and", "or", "xor", "not", "shl", "shr"})
_NAMES = frozenset(SCALAR_OPS) | frozenset(CONVERSIONS) | frozenset(MATHS)


class LoopIRError(AssertionError):
    """A function of loop IR is malformed: a mistake of the compiler, never of a user."""


def verify(function: Function) -> None:
    """Check the function and the kernels it calls.

    Raises LoopIRError, which prints the statement.
    """
    checked: list[Function] = []
    waiting = [function]
    while waiting:
        f = waiting.pop()
        checked.append(f)
        _Verifier(f).run()
        called = [s.kernel for s in _statements(f.body) if isinstance(s, nodes.KernelCall)]
        waiting += [k for k in dict.fromkeys(called) if k not in checked and k not in waiting]


def _statements(body: Iterable[Any]) -> Iterable[Any]:
    for s in body:
        yield s
        for block in blocks(s):
            yield from _statements(block)


class _Verifier:
    def __init__(self, function: Function):
        self.function = function
        self.buffers = {*function.params, *function.locals, *function.growing}
        self.known: set[Value] = set(function.integers)  # the values that may be used here
        self.defined: set[Value] = set(function.integers)  # every value defined so far
        self.intervals: dict[Value, tuple[int, int]] = {}  # the ends of the values with known ranges, both included
        self.lanes: list[set[Value]] = []  # for each vector loop around, the values that vary in it
        self.conditions = 0  # how many branches and loops that may not run are around

    def run(self) -> None:
        names = [b.name for b in (*self.function.params, *self.function.locals, *self.function.growing)]
        self.check(len(set(names)) == len(names), self.function.name, "two buffers have one name")
        self.check(all(b.role == "local" for b in self.function.locals), self.function.name, "a local has another role")
        self.check(all(b.role != "local" for b in self.function.params), self.function.name, "a parameter is local")
        scratch, params = self.function.scratch, self.function.params
        self.check(params[len(params) - len(scratch) :] == scratch, self.function.name, "scratch must come last")
        self.check(all(v.kind == "i64" for v in self.function.integers), self.function.name, "a parameter is not i64")
        self.block(self.function.body, self.function.name, (), ())

    def check(self, holds: bool, statement: Any, problem: str) -> None:
        if not holds:
            self.refuse(statement, problem)

    def refuse(self, statement: Any, problem: str) -> NoReturn:
        text = statement if isinstance(statement, str) else statement_text(statement)
        raise LoopIRError(f"kernel {self.function.name}: {problem}, in:\n{text}")

    # --- definitions and uses -----------------------------------------------------------------------------------------

    def block(self, statements: Sequence[Any], around: Any, values: Sequence[Value], at_end: Sequence[Value]) -> None:
        """Check a block of a statement, in which `values` are known besides, and that `at_end` are at its end."""
        outside = self.known
        self.known = set(outside)
        for v in values:
            self.define(v, around)
        for s in statements:
            self.statement(s)
        for v in at_end:
            self.use(v, around)
        self.known = outside

    def define(self, v: Value, statement: Any) -> None:
        self.check(v not in self.defined, statement, "a value is defined twice")
        if v.kind not in ITEM_BYTES:
            self.refuse(statement, f"there is no kind {v.kind}")
        self.known.add(v)
        self.defined.add(v)

    def use(self, v: Value, statement: Any) -> None:
        if v in self.known:
            return
        if v.op != "constant":
            where = "outside the block where it is defined" if v in self.defined else "before it is defined"
            self.refuse(statement, f"a value ({v.op}, {v.kind}) is used {where}")
        if not _fits(v.attr, v.kind):
            self.refuse(statement, f"{v.attr!r} is no number of kind {v.kind}")

    def uniform(self, v: Value, statement: Any, what: str) -> None:
        self.check(not any(v in varying for varying in self.lanes), statement, f"{what} varies in a vector loop")

    # --- statements ---------------------------------------------------------------------------------------------------

    def statement(self, s: Any) -> None:
        """Check one statement, and make known what it defines."""
        kind = type(s)
        if kind is Value:
            self.value(s)
        elif kind is nodes.Store:
            self.store(s)
        elif kind is nodes.Loop:
            self.loop(s)
        elif kind is nodes.While:
            self.loop_while(s)
        elif kind is nodes.If:
            self.branch(s)
        elif kind is nodes.Sections:
            self.sections(s)
        elif kind in (nodes.Copy, nodes.Fill):
            self.move(s)
        elif kind is nodes.Transpose:
            self.transpose(s)
        elif kind is nodes.Prefetch:
            self.prefetch(s)
        elif kind is nodes.Exit:
            self.use(s.status, s)
            self.uniform(s.status, s, "the status of an exit")
            self.check(s.status.kind == "i32", s, "a status must be i32")
            self.check(self.function.can_fail, s, "an exit in a function that cannot fail")
        elif kind in (nodes.KernelCall, nodes.LibraryCall, nodes.HostCall):
            self.call(s)
        elif kind in (nodes.Grow, nodes.Release):
            self.grow(s)
        else:
            self.refuse(self.function.name, f"{kind.__name__} is no statement")

    def value(self, v: Value) -> None:
        """Check a load, an index or an operation."""
        if v.op == "load":
            buffer, index = v.attr
            self.position(buffer, index, v)
            if v.kind != buffer.kind:
                self.refuse(v, f"a load of {v.kind} from {buffer}")
        elif v.op == "index":
            self.index(v.attr, v)
            self.check(v.kind in INTEGERS, v, f"an index as {v.kind}")
            self.keep_interval(v, self.interval(v.attr))
        elif v.op in _NAMES:
            self.operation(v)
        else:
            self.refuse(v, f"there is no scalar operation {v.op}")
        self.define(v, v)

    def operation(self, v: Value) -> None:
        for a in v.args:
            self.use(a, v)
        arity = _ARITY.get(v.op, 2 if v.op in SCALAR_OPS else len(v.args))
        if not len(v.args) == arity > 0:
            self.refuse(v, f"{v.op} takes {arity} operands")
        problem = self.conversion(v) if v.op in CONVERSIONS else _kinds_problem(v)
        if problem:
            self.refuse(v, problem)

    def conversion(self, v: Value) -> str | None:
        """What is wrong with a conversion; the range of an integer stays known."""
        source = v.args[0].kind
        if v.op == "bitcast":
            same = ITEM_BYTES[source] == ITEM_BYTES[v.kind] and "bool" not in (source, v.kind)
            return None if same else f"a bitcast of {source} to {v.kind}"
        if source in INTEGERS and v.kind in INTEGERS:
            self.keep_interval(v, self.interval(Index.of(v.args[0])))
        return None

    def store(self, s: nodes.Store) -> None:
        self.position(s.buffer, s.index, s)
        self.use(s.value, s)
        if s.value.kind != s.buffer.kind:
            self.refuse(s, f"a store of {s.value.kind} into {s.buffer}")
        self.writable(s.buffer, s)

    def writable(self, buffer: Buffer, s: Any) -> None:
        if buffer.role == "in":
            self.refuse(s, f"{buffer} is only read by this function, but written here")

    # --- blocks -------------------------------------------------------------------------------------------------------

    def loop(self, s: nodes.Loop) -> None:
        """Check a loop; in one marked `vector` also that its iterations are independent."""
        self.starts(s)
        if isinstance(s.extent, Value):
            self.use(s.extent, s)
            self.uniform(s.extent, s, "the extent of a loop")
            self.check(s.extent.kind == "i64", s, f"an extent of kind {s.extent.kind}")
        else:
            self.check(s.extent > 0, s, "a loop of no iterations")
            self.intervals[s.variable] = (0, s.extent - 1)
        self.check(s.variable.kind == "i64", s, "a variable that is not i64")
        if s.vector:
            self.combined(s)
            self.lanes.append(varying_values(s))
            self.independent(s)
        self.conditions += isinstance(s.extent, Value)
        self.block(s.body, s, [s.variable, *(c.value for c in s.carried)], [c.next for c in s.carried])
        self.conditions -= isinstance(s.extent, Value)
        if s.vector:
            self.lanes.pop()
        for c in s.carried:
            self.define(c.result, s)

    def starts(self, s: nodes.Loop | nodes.While) -> None:
        for c in s.carried:
            self.use(c.initial, s)
            kinds = [c.value.kind, c.initial.kind, c.next.kind, c.result.kind]
            self.check(len(set(kinds)) == 1, s, f"a carried value of kinds {', '.join(kinds)}")

    def combined(self, s: nodes.Loop) -> None:
        for c in s.carried:
            self.check(c.combine in ASSOCIATIVE, s, "a vector loop carries a value that does not combine")
            args = c.next.args
            right = c.next.op == c.combine and len(args) == 2 and (args[0] is c.value) != (args[1] is c.value)
            self.check(right, s, f"what follows a carried value is not {c.combine} of it and another")
            used = _uses(s.body, c.value) + sum(other.next is c.value for other in s.carried)
            self.check(used == 1, s, "a vector loop uses a carried value for more than to combine it")

    def independent(self, s: nodes.Loop) -> None:
        """What one iteration puts at a place that all share, none may read."""
        varying = self.lanes[-1]
        body = list(_statements(s.body))
        shared = {t.buffer for t in body if isinstance(t, nodes.Store)
                  and t.value in varying and not index_varies(t.index, varying)}
        for t in body:
            read = isinstance(t, Value) and t.op == "load" and t.attr[0] in shared
            self.check(not read, t, "iterations of a vector loop share an element that they write and read")

    def loop_while(self, s: nodes.While) -> None:
        """The test block's carried values are known in the body too, what it computes is not."""
        self.starts(s)
        values = [c.value for c in s.carried]
        self.uniform(s.condition, s, "the condition of a while")
        self.check(s.condition.kind == "bool", s, f"a condition of kind {s.condition.kind}")
        outside, self.known = self.known, set(self.known)
        self.block(s.test, s, values, [s.condition])
        self.known.update(values)
        self.conditions += 1
        self.block(s.body, s, (), [c.next for c in s.carried])
        self.conditions -= 1
        self.known = outside
        for c in s.carried:
            self.define(c.result, s)

    def branch(self, s: nodes.If) -> None:
        self.use(s.condition, s)
        self.uniform(s.condition, s, "the condition of a branch")
        self.check(s.condition.kind == "bool", s, f"a condition of kind {s.condition.kind}")
        self.conditions += 1
        self.block(s.then, s, (), [r[1] for r in s.results])
        self.block(s.otherwise, s, (), [r[2] for r in s.results])
        self.conditions -= 1
        for values in s.results:
            kinds = [v.kind for v in values]
            self.check(len(set(kinds)) == 1, s, f"a branch with a result of kinds {', '.join(kinds)}")
            self.define(values[0], s)

    def sections(self, s: nodes.Sections) -> None:
        """Sections know nothing of one another, and what one writes no other touches."""
        self.check(any(x is s for x in self.function.body), s, "sections in a loop or branch")
        effects = [Effects(block) for block in s.blocks]
        for k, one in enumerate(effects):
            others = {b for other in effects[:k] + effects[k + 1 :] for b in (*other.reads, *other.writes)}
            self.check(not others.intersection(one.writes), s, "a section touches what another one writes")
            self.check(not (one.calls_python or one.grows), s, "a section with a step in Python, or memory that grows")
        for block, results in zip(s.blocks, s.results, strict=True):
            self.block(block, s, (), results)
        for results in s.results:
            self.known.update(results)

    # --- other statements ---------------------------------------------------------------------------------------------

    def move(self, s: nodes.Copy | nodes.Fill) -> None:
        self.check(s.count > 0, s, "nothing is moved")
        self.place(s.target, s.at, s, s.count)
        self.writable(s.target, s)
        if isinstance(s, nodes.Copy):
            self.place(s.source, s.start, s, s.count)
            self.check(s.source.kind == s.target.kind, s, f"a copy of {s.source} into {s.target}")

    def transpose(self, s: nodes.Transpose) -> None:
        self.check(min(s.rows, s.columns) > 0 and s.stride >= 0, s, "nothing is moved")
        self.check(s.step >= s.rows, s, "columns that overlap")
        self.place(s.target, s.at, s, s.writes)
        self.place(s.source, s.start, s, s.reads)
        self.writable(s.target, s)
        self.check(s.source.kind == s.target.kind, s, f"a copy of {s.source} into {s.target}")
        self.check(s.source is not s.target, s, "a transpose of a buffer into itself")

    def prefetch(self, s: nodes.Prefetch) -> None:
        self.index(s.index, s)
        for v, _ in s.index.terms:
            if v.op != "variable":  # that of a vector loop stands for the first lane
                self.uniform(v, s, "the place of a prefetch")
        self.check(s.buffer in self.buffers, s, f"{s.buffer} is not a buffer of this function")

    def call(self, s: Any) -> None:
        if isinstance(s, nodes.KernelCall):
            self.kernel_call(s)
        elif isinstance(s, nodes.HostCall):
            self.host_call(s)
        else:
            self.library_call(s)

    def grow(self, s: nodes.Grow | nodes.Release) -> None:
        buffers = [b for b, _ in s.buffers] if isinstance(s, nodes.Grow) else s.buffers
        self.check(all(b in self.function.growing for b in buffers), s, "a buffer that does not grow")
        if isinstance(s, nodes.Grow):
            self.use(s.rows, s)
            self.uniform(s.rows, s, "the size of a buffer")
            self.check(s.rows.kind == "i64", s, f"rows of kind {s.rows.kind}")

    def host_call(self, s: nodes.HostCall) -> None:
        self.check(0 <= s.reads <= len(s.places), s, "a call reads more places than it has")
        for k, (buffer, index) in enumerate(s.places):
            self.place(buffer, index, s, 0)
            if k >= s.reads:
                self.writable(buffer, s)

    def kernel_call(self, s: nodes.KernelCall) -> None:
        right = len(s.places) == len(s.kernel.params) and not s.kernel.integers
        self.check(right, s, f"a call with other parameters than {s.kernel.name} has")
        for (buffer, index), param in zip(s.places, s.kernel.params, strict=True):
            self.place(buffer, index, s, param.size)
            self.check(buffer.kind == param.kind, s, f"{buffer} is given for {param}")
            if param.role != "in":
                self.writable(buffer, s)
        if s.failure is not None:
            self.host_call(s.failure)

    def library_call(self, s: nodes.LibraryCall) -> None:
        """Its arguments are checked; what it does to memory is not known."""
        for a in s.args:
            if isinstance(a, Value):
                self.use(a, s)
                self.uniform(a, s, "an argument of a call")
                self.check(a.kind in ("i32", "i64"), s, f"an argument of kind {a.kind}")
            elif isinstance(a[0], Buffer):
                self.place(a[0], a[1], s, 0)
            else:
                self.check(a[0] in ITEM_BYTES and _fits(a[1], a[0]), s, f"{a[1]!r} is no number of kind {a[0]}")
        if s.result is not None:
            self.check(s.result.kind == "i32", s, "a library call gives an i32")
            self.define(s.result, s)

    # --- positions ----------------------------------------------------------------------------------------------------

    def position(self, buffer: Buffer, index: Index, s: Any) -> None:
        """Check the position of one element."""
        self.index(index, s)
        self.inside(buffer, index, s, 1)

    def place(self, buffer: Buffer, index: Index, s: Any, count: int) -> None:
        """Check the position of `count` elements, for all lanes of vector loops alike."""
        self.index(index, s)
        for v, _ in index.terms:
            self.uniform(v, s, "the place of a copy or call")
        self.inside(buffer, index, s, count)

    def index(self, index: Index, s: Any) -> None:
        self.check(isinstance(index.constant, int), s, "an index with a constant that is no integer")
        for v, c in index.terms:
            self.use(v, s)
            if v.kind not in INTEGERS or not isinstance(c, int):
                self.refuse(s, f"an index of a term of kind {v.kind}")

    def inside(self, buffer: Buffer, index: Index, s: Any, count: int) -> None:
        """Known positions lie in the buffer; under a condition, which may exclude some, at least one does."""
        if buffer not in self.buffers:
            self.refuse(s, f"{buffer} is not a buffer of this function")
        ends = self.interval(index)
        if ends is None or buffer.role == "growing":
            return
        low, high = ends
        if self.conditions:
            low, high = max(low, 0) if high >= 0 else low, min(high, max(low, buffer.size - count))
        if low < 0 or high + count > buffer.size:
            text = f"positions {low} to {high + count - 1}" if count != 1 or low != high else f"position {low}"
            self.refuse(s, f"{text} of {buffer}")

    def interval(self, index: Index) -> tuple[int, int] | None:
        """The least and the greatest position over the loops around; None if it depends on data."""
        index = _expanded(index)
        low = high = index.constant
        for v, c in index.terms:
            ends = self.ends(v)
            if ends is None:
                return None
            low, high = low + min(c * ends[0], c * ends[1]), high + max(c * ends[0], c * ends[1])
        return low, high

    def ends(self, v: Value) -> tuple[int, int] | None:
        return (v.attr, v.attr) if v.op == "constant" else self.intervals.get(v)

    def keep_interval(self, v: Value, ends: tuple[int, int] | None) -> None:
        if ends is not None and _fits(ends[0], v.kind) and _fits(ends[1], v.kind):
            self.intervals[v] = ends


def _kinds_problem(v: Value) -> str | None:
    """What is wrong with the kinds of an operation's operands and result."""
    kinds = [a.kind for a in v.args]
    if v.op == "select":
        if kinds[0] != "bool":
            return f"a condition of kind {kinds[0]}"
        kinds = kinds[1:]
    kind = kinds[0]
    if any(k != kind for k in kinds):
        return f"operands of kinds {', '.join(kinds)}"
    if v.kind != ("bool" if v.op in COMPARISONS else kind):
        return f"{v.op} of {kind} as {v.kind}"
    if (v.op in _OF_FLOATS and kind not in FLOATS) or (v.op in _OF_BITS and kind in FLOATS):
        return f"{v.op} of {kind}"
    return None


def _expanded(index: Index) -> Index:
    """The index with terms that are i64 indices themselves written out, so that what cancels does."""
    if not any(v.op == "index" and v.kind == "i64" for v, _ in index.terms):
        return index
    total = Index(index.constant)
    for v, c in index.terms:
        total = total + (_expanded(v.attr) * c if v.op == "index" and v.kind == "i64" else Index(0, ((v, c),)))
    return total


def _uses(body: list[Any], value: Value) -> int:
    """How often statements use a value as an operand."""
    count = 0
    for s in _statements(body):
        if isinstance(s, Value):
            operands = [*s.args, *(v for v, _ in _index_terms(s))]
        elif isinstance(s, nodes.Store):
            operands = [s.value, *(v for v, _ in s.index.terms)]
        elif isinstance(s, nodes.Loop | nodes.While):
            operands = [v for c in s.carried for v in (c.initial, c.next)]
        elif isinstance(s, nodes.If):
            operands = [v for _, *values in s.results for v in values]
        else:
            operands = []
        count += sum(v is value for v in operands)
    return count


def _index_terms(v: Value):
    if v.op == "load":
        return v.attr[1].terms
    return v.attr.terms if v.op == "index" else ()


def _fits(number: Any, kind: str) -> bool:
    """Whether a Python number is a constant of this kind."""
    if kind == "bool":
        return isinstance(number, bool)
    if kind in FLOATS:
        return isinstance(number, float)
    width = 8 * ITEM_BYTES[kind]
    low = -(1 << width - 1) if kind[0] == "i" else 0
    return isinstance(number, int) and not isinstance(number, bool) and low <= number < low + (1 << width)
