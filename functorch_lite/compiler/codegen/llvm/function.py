# SPDX-License-Identifier: MIT
"""A loop IR function as an LLVM function.

A vector loop runs many iterations at a time, in the lanes of vectors: a value that depends on the loop's variable has
lanes, one that does not stays scalar. The last iterations run under a mask. Sums of floats are kept one a lane, or
several (`ways`), and added up after the loop; nothing else is ever reordered.
"""

from typing import Any

import numpy as np

from functorch_lite.compiler.codegen.llvm import carried
from functorch_lite.compiler.codegen.llvm.bits import conditions_as_bits
from functorch_lite.compiler.codegen.llvm.emitter import BYTES, TYPES, Emitter, Value
from functorch_lite.compiler.codegen.llvm.outlined import call_outlined, used_often
from functorch_lite.compiler.codegen.llvm.scalar_ops import CONVERSIONS, REGISTER, emit_op
from functorch_lite.compiler.codegen.llvm.strided import is_near, load_near, store_row, stores_beside
from functorch_lite.compiler.codegen.llvm.transposed import call_transpose
from functorch_lite.compiler.codegen.llvm.ways import has_ways, whole_ways
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Function, Index, blocks
from functorch_lite.compiler.loop_ir.varying import varying_values

MAX_LANES = 16
Term = tuple[nodes.Value, int]
"""A value and its coefficient in an index."""


class FunctionWriter:
    """Writes one function. Subclasses know where buffers are (`pointer`) and how programs call (`other`).

    counts: whether the iterations of `while` loops are counted.
    """

    counts = False

    def __init__(self, emitter: Emitter):
        self.e = emitter
        self.values: dict[nodes.Value, Value] = {}
        self.pointers: dict[nodes.Buffer, str] = {}
        self.lanes = 1
        self.variable: nodes.Value | None = None  # of the vector loop being written
        self.ahead = 0  # how many iterations further than the variable says is what is written
        self.mask: Value | None = None
        self.ends: list[int] = []
        self.varying: set[nodes.Value] = set()  # the values with lanes in the vector loop being written
        self.outlined: frozenset[str] = frozenset()  # operations on single numbers that are calls

    # --- blocks -----------------------------------------------------------------------------------------------------

    def block(self, statements: list[Any]) -> None:
        """Write the statements in order."""
        beside = stores_beside(statements, self.variable, self.lanes, self.varying) if self.lanes > 1 else {}
        for statement in statements:
            kind = type(statement)
            if kind is nodes.Value:
                self.value(statement)
            elif kind is nodes.Store:
                if statement not in beside:
                    self.store(statement)
                elif beside[statement]:
                    store_row(self, beside[statement])
            elif kind is nodes.Loop:
                self.loop(statement)
            else:
                self.other(statement)

    def other(self, statement: Any) -> None:
        """Write a statement of a rarer kind."""
        kind = type(statement)
        if kind is nodes.If:
            self.branch(statement)
        elif kind is nodes.While:
            self.loop_while(statement)
        elif kind is nodes.Copy:
            self.copy(statement)
        elif kind is nodes.Transpose:
            self.transpose(statement)
        elif kind is nodes.Fill:
            self.fill(statement)
        elif kind is nodes.Prefetch:
            self.e.prefetch(self.address(statement.buffer, statement.index), statement.near)
        elif kind is nodes.Exit:
            self.exit(statement)
        else:
            raise AssertionError(f"cannot write {kind.__name__}")

    # --- values -----------------------------------------------------------------------------------------------------

    def value(self, v: nodes.Value) -> None:
        """Write the statement that defines a value."""
        if v.op == "load":
            self.values[v] = self.load(*v.attr)
        elif v.op == "index":
            self.values[v] = self.index_value(v.attr, v.kind)
        elif v.op in CONVERSIONS:
            self.values[v] = CONVERSIONS[v.op](self.e, v.args[0].kind, v.kind, self.get(v.args[0]))
        else:
            self.values[v] = self.operation(v)

    def operation(self, v: nodes.Value) -> Value:
        """A scalar operation; half precision is computed in float32 and rounded."""
        return self.operation_on(v.op, v.kind, [a.kind for a in v.args], [self.get(a) for a in v.args])

    def operation_on(self, op: str, result: str, kinds: list[str], args: list[Value]) -> Value:
        kind = kinds[-1]
        if kind in ("f16", "bf16") and op != "select":
            wide = [CONVERSIONS["convert"](self.e, k, "f32", x) if k == kind else x
                    for k, x in zip(kinds, args, strict=True)]
            return CONVERSIONS["convert"](self.e, "f32" if result == kind else result, result,
                                          self.emit_op(op, "f32", wide))
        return self.emit_op(op, kind, args)

    def emit_op(self, op: str, kind: str, args: list[Value]) -> Value:
        """The operation written out, or a call of it."""
        if op in self.outlined and all(a.lanes == 1 for a in args):
            return call_outlined(self.e, op, kind, args)
        return emit_op(self.e, op, kind, *args)

    def get(self, v: nodes.Value) -> Value:
        """The LLVM value of a value."""
        found = self.values.get(v)
        if found is None:
            assert v.op == "constant", f"{v.op} is used before it is defined"
            found = self.values[v] = self.constant(v)
        return found

    def constant(self, v: nodes.Value) -> Value:
        if v.kind == "bf16":
            return self.e.constant(_bf16_bits(v.attr), "i16")
        if v.kind in ("u8", "u16", "u32", "u64") and v.attr >= 1 << (8 * ITEM_BYTES[v.kind] - 1):
            return self.e.constant(v.attr - (1 << 8 * ITEM_BYTES[v.kind]), REGISTER[v.kind])
        return self.e.constant(v.attr, REGISTER[v.kind])

    # --- indices and memory -----------------------------------------------------------------------------------------

    def split(self, index: Index) -> tuple[list[Term], int, list[tuple[Value, int]]]:
        """An index as its scalar terms (of lane 0), its growth from lane to lane, and terms that vary otherwise."""
        step, scalar, varying = 0, [], []
        for term in index.terms:
            v, coefficient = term
            value = self.get(v)
            if v is self.variable:
                step += coefficient
            elif value.lanes > 1:
                varying.append((self.wide(v, value), coefficient))
                continue
            if value.text != "0":  # the variable of a loop that is one vector
                scalar.append(term)
        if len(scalar) > 1:
            scalar.sort(key=_depth)
        return scalar, step, varying

    def wide(self, v: nodes.Value, value: Value) -> Value:
        """An integer as an i64."""
        return value if value.kind == "i64" else self.e.convert("zext" if v.kind[0] == "u" else "sext", value, "i64")

    def scalar(self, terms: list[Term], constant: int) -> Value:
        """The sum of scalar terms and a number."""
        e = self.e
        total: Value | None = None
        for v, coefficient in terms:
            value = self.wide(v, self.get(v))
            if coefficient != 1:
                value = e.binary("mul", value, e.constant(coefficient, "i64"))
            total = value if total is None else e.binary("add", total, value)
        if total is None:
            return e.constant(constant, "i64")
        return e.binary("add", total, e.constant(constant, "i64")) if constant else total

    def locate(self, buffer: nodes.Buffer, index: Index) -> tuple[str, int, list[tuple[Value, int]]]:
        """The pointer to lane 0 of buffer[index], and how the other lanes differ."""
        terms, step, varying = self.split(index)
        pointer = self.walked(buffer, terms) if terms else self.pointer(buffer)
        constant = index.constant + step * self.ahead
        if constant:
            base, pointer = pointer, self.e.fresh()
            self.e.line(f"{pointer} = getelementptr {_scalar_type(buffer)}, ptr {base}, i64 {constant}")
        return pointer, step, varying

    def address(self, buffer: nodes.Buffer, index: Index) -> str:
        """The pointer to buffer[index]."""
        return self.locate(buffer, index)[0]

    def walked(self, buffer: nodes.Buffer, terms: list[Term]) -> str:
        """The pointer to a buffer's element at a sum of terms, outer loops first.

        It is written once, before the outermost loop that it does not change in.
        """
        e = self.e
        key = (buffer, *terms)
        found = e.known.get(key)
        if found is not None:
            return found
        rest = terms[:-1]
        base = self.walked(buffer, rest) if rest else self.pointer(buffer)
        v, coefficient = terms[-1]
        depth, lines = self.level(v.depth) if self.is_fixed(buffer) else (-1, e.lines)
        value, pointer = self.get(v), e.fresh()
        number = value.text
        if value.kind != "i64":
            number = e.fresh()
            lines.append(f"  {number} = {'zext' if v.kind[0] == 'u' else 'sext'} {value.type} {value.text} to i64")
        element = _scalar_type(buffer)
        if coefficient > 1:
            element = f"[{coefficient} x {element}]"
        elif coefficient < 0:
            before, number = number, e.fresh()
            lines.append(f"  {number} = mul i64 {before}, {coefficient}")
        lines.append(f"  {pointer} = getelementptr {element}, ptr {base}, i64 {number}")
        if self.is_fixed(buffer):
            e.know(key, pointer, depth)
        return pointer

    def level(self, depth: int) -> tuple[int, list[Any]]:
        """Where to write what depends on values of this depth: the depth it is known at, and the lines."""
        scopes = self.e.scopes
        for k in range(depth + 1, len(scopes)):
            before = scopes[k].before
            if before is not None:
                return k - 1, before
        return len(scopes) - 1, self.e.lines

    def is_fixed(self, buffer: nodes.Buffer) -> bool:
        """Whether a buffer stays where it is."""
        return True

    def pointer(self, buffer: nodes.Buffer) -> str:
        """The pointer to the first element of a buffer."""
        return self.pointers[buffer]

    def load(self, buffer: nodes.Buffer, index: Index) -> Value:
        kind = "i8" if buffer.kind == "bool" else REGISTER[buffer.kind]
        pointer, step, varying = self.locate(buffer, index)
        if not varying and step == 0:
            value = self.e.load(pointer, kind)
        elif not varying and step == 1:
            value = self.e.load(pointer, kind, self.lanes, self.mask)
        elif not varying and is_near(step, self.lanes) and not (self.e.quick and self.e.gathers(kind)):
            value = load_near(self.e, pointer, kind, self.lanes, step, self.mask)
        else:
            value = self.e.gather(pointer, self.offsets(step, varying), kind, self.mask)
        if buffer.kind == "bool":
            return self.e.compare("ne", value, self.e.constant(0, "i8", value.lanes))
        return value

    def store(self, s: nodes.Store) -> None:
        """Write a store; to one place from many lanes, the last one counts."""
        value = self.get(s.value)
        if s.buffer.kind == "bool":
            value = self.e.convert("zext", value, "i8")
        pointer, step, varying = self.locate(s.buffer, s.index)
        if self.lanes == 1 or (not varying and step == 0 and value.lanes == 1):
            self.e.store(value, pointer)
        elif not varying and step == 1:
            self.e.store(self.e.splat(value, self.lanes), pointer, self.mask)
        else:
            self.e.scatter(value, pointer, self.offsets(step, varying), self.mask)

    def offsets(self, step: int, varying: list[tuple[Value, int]]) -> Value:
        """Element offsets of the lanes from the scalar part of an index."""
        e, lanes = self.e, self.lanes
        if step or not varying:
            text = "<" + ", ".join(f"i64 {step * i}" for i in range(lanes)) + ">"
            total: Value | None = Value(text, "i64", lanes)
        else:
            total = None
        for value, coefficient in varying:
            if coefficient != 1:
                value = e.binary("mul", value, e.constant(coefficient, "i64", lanes))
            total = value if total is None else e.binary("add", total, value)
        assert total is not None
        return total

    def index_value(self, index: Index, kind: str) -> Value:
        """An index as a value of an integer kind, with lanes where it varies."""
        terms, step, varying = self.split(index)
        if step and not terms and not varying:
            return self.e.lane_numbers(REGISTER[kind], self.lanes, index.constant, step)
        scalar = self.scalar(terms, index.constant + step * self.ahead)
        if step or varying:
            value = self.e.binary("add", self.e.splat(scalar, self.lanes), self.offsets(step, varying))
        else:
            value = scalar
        register = REGISTER[kind]
        return value if register == "i64" else self.e.convert("trunc", value, register)

    # --- loops ------------------------------------------------------------------------------------------------------

    def loop(self, loop: nodes.Loop) -> None:
        """A loop, in vectors where it is marked so and is not inside another that already is."""
        if loop.vector and self.lanes == 1 and isinstance(loop.extent, int):
            lanes = self.lanes_of(loop)
            if lanes > 1:
                self.vector_loop(loop, lanes)
                return
        self.scalar_loop(loop)

    def lanes_of(self, loop: nodes.Loop) -> int:
        """As many lanes as the widest kind in the loop leaves room for, no more than the loop needs."""
        widest = max(_item_sizes(loop.body), default=8)
        lanes = min(MAX_LANES, self.e.lanes_bytes // widest)
        assert isinstance(loop.extent, int)
        while lanes > 1 and lanes // 2 >= loop.extent:
            lanes //= 2
        return lanes

    def scalar_loop(self, loop: nodes.Loop) -> None:
        """A loop, one iteration at a time (in the lanes of a vector loop around it)."""
        e = self.e
        dynamic = not isinstance(loop.extent, int)
        end = self.get(loop.extent).text if isinstance(loop.extent, nodes.Value) else str(loop.extent)
        variable, header, after = self.open_loop(loop.variable)
        phis = [self.phi(c, self.get(c.initial)) for c in loop.carried]
        if dynamic:
            self.enter_dynamic(variable, end, after)
        self.block(loop.body)
        following = [self.matched(c.next, self.values[c.value]) for c in loop.carried]
        e.close()
        step = e.new(f"add i64 {variable.text}, 1", "i64")
        self.back_edge(loop, step)
        latch = e.block
        if dynamic:
            e.line(f"br label %{header}")
        else:
            e.line(f"br i1 {e.compare('slt', step, Value(end, 'i64')).text}, label %{header}, label %{after}")
        self.close_loop(variable, step, latch, phis, following)
        e.start(after)
        for c, value in zip(loop.carried, following, strict=True):
            self.values[c.result] = self.values[c.value] if dynamic else value

    def back_edge(self, loop: nodes.Loop | nodes.While, count: Value) -> None:
        """Where an iteration of a scalar loop ends; count: how many have."""

    def has_left(self, loop: nodes.While, count: Value) -> None:
        """After a `while`; count: how many iterations there were."""

    def enter_dynamic(self, variable: Value, end: str, after: str) -> None:
        """The test at the top of a loop that may run zero times."""
        inside = self.e.compare("slt", variable, Value(end, "i64"))
        label = self.e.label("body")
        self.e.line(f"br i1 {inside.text}, label %{label}, label %{after}")
        self.e.start(label)

    def vector_loop(self, loop: nodes.Loop, lanes: int) -> None:
        """A loop, `lanes` iterations at a time, the last ones under a mask."""
        e = self.e
        extent = loop.extent
        assert isinstance(extent, int)
        if extent <= lanes:
            self.one_vector(loop, lanes)
            return
        start, totals = whole_ways(self, loop, lanes) if has_ways(loop, lanes) else (0, [])
        if start == extent:
            self.leave_vectors(loop, totals)
            return
        variable, header, after = self.open_loop(loop.variable, str(start))
        bits, body = self.noted_as_bits(loop, lanes)
        given = totals or [
            self.get(c.initial) if c.next in bits else carried.loaded_before(self, carried.lane_start(self, c, lanes))
            for c in loop.carried]
        phis = [self.phi(c, value) for c, value in zip(loop.carried, given, strict=True)]
        self.mask = self.mask_of_last(variable, extent, lanes)
        self.block(body)
        nexts = [carried.following(self, c, bits, lanes) for c in loop.carried]
        e.close()
        carried.go_on(self, variable, lanes, extent, (header, after), phis, nexts)
        self.leave_vectors(loop, nexts)

    def mask_of_last(self, variable: Value, extent: int, lanes: int) -> Value | None:
        """The lanes that are iterations of a vector loop, if the last vector is not full."""
        e = self.e
        if extent % lanes == 0:
            return None
        left = e.binary("sub", e.constant(extent, "i64"), variable)
        count = e.splat(e.convert("trunc", left, "i32") if extent < 1 << 31 else left, lanes)
        return e.compare("slt", e.lane_numbers(count.kind, lanes), count)

    def one_vector(self, loop: nodes.Loop, lanes: int) -> None:
        """A vector loop whose iterations are all in one vector: no loop, and a mask that is known."""
        e = self.e
        bits, body = self.noted_as_bits(loop, lanes)
        self.values[loop.variable] = e.constant(0, "i64")
        for c in loop.carried:
            self.values[c.value] = self.get(c.initial) if c.next in bits else carried.lane_start(self, c, lanes)
        extent = loop.extent
        assert isinstance(extent, int)
        if extent != lanes:
            on = (f"i1 {'true' if k < extent else 'false'}" for k in range(lanes))
            self.mask = Value(f"<{', '.join(on)}>", "i1", lanes)
        e.open()
        self.block(body)
        nexts = [carried.following(self, c, bits, lanes) for c in loop.carried]
        e.close()
        self.leave_vectors(loop, nexts)

    def noted_as_bits(self, loop: nodes.Loop, lanes: int) -> tuple[dict[nodes.Value, nodes.Value], list[Any]]:
        """Enter a vector loop. Returns the conditions that it notes as bits, and its body without what that takes."""
        self.lanes, self.variable, self.varying = lanes, loop.variable, varying_values(loop)
        found = conditions_as_bits(loop)
        if not found:
            return {}, loop.body
        self.varying.difference_update(c.value for c in loop.carried if c.next in found)
        hidden = {v for _, parts in found.values() for v in parts}
        return {v: condition for v, (condition, _) in found.items()}, [s for s in loop.body if s not in hidden]

    def leave_vectors(self, loop: nodes.Loop, nexts: list[Value]) -> None:
        """After a vector loop: combine the lanes of what it carried."""
        self.lanes, self.variable, self.mask, self.varying = 1, None, None, set()
        for c, value in zip(loop.carried, nexts, strict=True):
            total = carried.across(self, c, value)
            self.values[c.result] = total if carried.starts_neutral(c) else self.combined(c, self.get(c.initial), total)

    def open_loop(self, variable: nodes.Value, start: str = "0") -> tuple[Value, str, str]:
        """Begin the block of a loop, and its scope, which the caller closes.

        The phi of its variable is completed by `close_loop`.
        """
        e = self.e
        before, header, after = e.block, e.label("loop"), e.label("after")
        preceding: list[str] = []
        e.lines.append(preceding)
        e.line(f"br label %{header}")
        e.open(preceding)
        e.start(header)
        value = Value(e.fresh(), "i64")
        self.values[variable] = value
        self.ends.append(len(e.lines))
        e.lines.append(f"  {value.text} = phi i64 [{start}, %{before}], ")
        self._before = before
        return value, header, after

    def phi(self, c: nodes.Carried, initial: Value) -> int:
        """The phi of a carried value; returns its line, which `close_loop` completes."""
        e = self.e
        lanes = self.lanes if c.value in self.varying else initial.lanes
        if lanes > initial.lanes:  # splatted before the loop: the block that came before still dominates
            initial = self.splat_before(initial, lanes)
        value = Value(e.fresh(), initial.kind, initial.lanes)
        self.values[c.value] = value
        e.lines.append(f"  {value.text} = phi {initial.type} [{initial.text}, %{self._before}], ")
        return len(e.lines) - 1

    def splat_before(self, value: Value, lanes: int) -> Value:
        """A splat written before the loop whose phis are being written."""
        e = self.e
        if value.text[0] != "%":
            return e.splat(value, lanes)
        at = len(e.lines)
        splatted = e.splat(value, lanes)
        before = e.scopes[-1].before
        assert before is not None
        before += e.lines[at:]
        del e.lines[at:]
        return splatted

    def matched(self, v: nodes.Value, like: Value) -> Value:
        return self.e.splat(self.get(v), like.lanes)

    def close_loop(self, variable: Value, step: Value, latch: str, phis: list[int], following: list[Value]) -> None:
        """Complete the phis with what comes around the loop."""
        e, first = self.e, self.ends.pop()
        e.lines[first] += f"[{step.text}, %{latch}]"
        for k, value in enumerate(following):
            e.lines[first + 1 + k] += f"[{value.text}, %{latch}]"

    def combined(self, c: nodes.Carried, a: Value, b: Value) -> Value:
        """Two values of one kind combined."""
        return self.operation_on(c.combine or "", c.value.kind, [c.value.kind, c.value.kind], [a, b])

    # --- branches and other statements ------------------------------------------------------------------------------

    def branch(self, s: nodes.If) -> None:
        """`if`, of a condition that is the same for all lanes."""
        e, condition = self.e, self.get(s.condition)
        assert condition.lanes == 1, "a branch needs one condition for all lanes"
        then, otherwise, after = e.label("then"), e.label("else"), e.label("join")
        sides = [(then, s.then, 1), (otherwise, s.otherwise, 2)]
        if not s.otherwise and not s.results:
            otherwise = after
            del sides[1]
        e.line(f"br i1 {condition.text}, label %{then}, label %{otherwise}")
        ends = []
        for label, body, which in sides:
            e.start(label)
            e.open()
            self.block(body)
            lanes = [self.lanes if r[0] in self.varying else 1 for r in s.results]
            ends.append(([e.splat(self.get(r[which]), n) for r, n in zip(s.results, lanes, strict=True)], e.block))
            e.close()
            e.line(f"br label %{after}")
        e.start(after)
        for k, (result, _, _) in enumerate(s.results):
            first, second = (values[k] for values, _ in ends)
            self.values[result] = e.new(
                f"phi {first.type} [{first.text}, %{ends[0][1]}], [{second.text}, %{ends[1][1]}]", first.kind,
                first.lanes)

    def loop_while(self, s: nodes.While) -> None:
        """`while`: the test, then the body, again and again."""
        e = self.e
        variable, header, after = self.open_loop(nodes.Value("variable", "i64"))
        first = self.ends[-1]
        phis = [self.phi(c, self.get(c.initial)) for c in s.carried]
        self.block(s.test)
        body = e.label("body")
        e.line(f"br i1 {self.get(s.condition).text}, label %{body}, label %{after}")
        e.start(body)
        self.block(s.body)
        following = [self.matched(c.next, self.values[c.value]) for c in s.carried]
        e.close()
        step = e.new(f"add i64 {variable.text}, 1", "i64") if self.counts else variable
        self.back_edge(s, step)
        latch = e.block
        e.line(f"br label %{header}")
        self.close_loop(variable, step, latch, phis, following)
        if not self.counts:
            e.lines[first] = ""
        e.start(after)
        self.has_left(s, variable)
        for c in s.carried:
            self.values[c.result] = self.values[c.value]

    def copy(self, s: nodes.Copy) -> None:
        """A copy of a range: a few values by one load and store, more by `memcpy`."""
        e = self.e
        target = self.address(s.target, s.at)
        source = self.address(s.source, s.start)
        kind = "i8" if s.target.kind == "bool" else REGISTER[s.target.kind]
        if s.count in (1, 2, 4, 8, 16) and s.count * BYTES[kind] <= 64:
            e.store(e.load(source, kind, s.count), target)
            return
        e.copy(target, source, s.count * BYTES[kind], s.target.role == "out" and s.at.key == s.start.key)

    def transpose(self, s: nodes.Transpose) -> None:
        kind = "i8" if s.target.kind == "bool" else REGISTER[s.target.kind]
        places = self.address(s.target, s.at), self.address(s.source, s.start)
        call_transpose(self.e, kind, s, *places)

    def fill(self, s: nodes.Fill) -> None:
        e = self.e
        target = self.address(s.target, s.at)
        e.declarations["llvm.memset.p0.i64"] = "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"
        size = s.count * ITEM_BYTES[s.target.kind]
        e.line(f"call void @llvm.memset.p0.i64(ptr {target}, i8 0, i64 {size}, i1 false)")

    def exit(self, s: nodes.Exit) -> None:
        e = self.e
        e.line(f"ret i32 {self.get(s.status).text}")
        e.start(e.label("unreachable"))


def write_kernel(function: Function, emitter: Emitter) -> str:
    """The kernel as the text of an LLVM function."""
    writer = FunctionWriter(emitter)
    params = []
    for k, buffer in enumerate(function.params):
        writer.pointers[buffer] = f"%p{k}"
        params.append(f"ptr %p{k}")
    for k, value in enumerate(function.integers):
        writer.values[value] = Value(f"%n{k}", "i64")
        params.append(f"i64 %n{k}")
    emitter.lines.append("entry:")
    for buffer in function.locals:
        name = writer.pointers[buffer] = emitter.fresh()
        emitter.line(f"{name} = alloca [{buffer.size} x {_scalar_type(buffer)}], align 64")
    writer.outlined = used_often(function.body, emitter)
    writer.block(function.body)
    emitter.line("ret i32 0" if function.can_fail else "ret void")
    result = "i32" if function.can_fail else "void"
    return f"define internal {result} @{function.name}({', '.join(params)}) #0 {{\n{emitter.text}\n}}\n"


def _scalar_type(buffer: nodes.Buffer) -> str:
    return "i8" if buffer.kind == "bool" else TYPES[REGISTER[buffer.kind]]


def _depth(term: Term) -> int:
    return term[0].depth


def _item_sizes(statements):
    for s in statements:
        if type(s) is nodes.Value:
            if s.op not in ("index", "constant") and s.kind != "bool":
                yield ITEM_BYTES[s.kind]
        elif type(s) is nodes.Store:
            yield ITEM_BYTES[s.value.kind]
        for block in blocks(s):
            yield from _item_sizes(block)


def _bf16_bits(number):
    with np.errstate(over="ignore"):
        word = int(np.float32(number).view(np.uint32))
    if number != number:
        return (word >> 16) | 0x40
    return (word + 0x7FFF + ((word >> 16) & 1)) >> 16
