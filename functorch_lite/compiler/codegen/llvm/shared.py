# SPDX-License-Identifier: MIT
"""A kernel with loops that threads share (schedule/parallel.py) as LLVM functions.

The body of such a loop becomes a function of its own, which runs a range of iterations,

    void kernel_part0(ptr environment, i64 begin, i64 end)

and finds in the environment, an array of 64-bit words, the values and pointers that the loop has from outside. Where
the loop was, the kernel calls the pool's `share` with it, or without a pool the function itself for all iterations.
The kernel gets the pool as its last parameter. A vector loop is cut at multiples of its lanes only: the same
iterations are in one vector, and only the last has a mask, whoever runs them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from functorch_lite.compiler.codegen.llvm.emitter import TYPES, Emitter, Value
from functorch_lite.compiler.codegen.llvm.function import FunctionWriter
from functorch_lite.compiler.codegen.llvm.outlined import used_often
from functorch_lite.compiler.codegen.llvm.scalar_ops import REGISTER
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import Buffer, Function, Index, Loop, blocks
from functorch_lite.compiler.loop_ir.varying import varying_values
from functorch_lite.compiler.schedule.parallel import Shared

SHARES = "ptr %pool)"
"""What the text of a module with such a kernel has in it, and no other's."""


class Outside(NamedTuple):
    """What a loop has from outside: values that are not constants, and buffers."""

    values: list[nodes.Value]
    buffers: list[Buffer]


class SharingWriter(FunctionWriter):
    """Writes a kernel; the parts of its shared loops are in `functions`, and what goes to its entry in `entry`."""

    def __init__(self, emitter: Emitter, name: str, loops: Mapping[int, Shared]):
        super().__init__(emitter)
        self.functions: list[str] = []
        self.entry: list[str] = []
        self._name = name
        self._loops = loops

    def loop(self, loop: Loop) -> None:
        shared = self._loops.get(id(loop))
        if shared is None or self.lanes > 1:
            super().loop(loop)
        else:
            self._share(loop, shared)

    def _share(self, loop: Loop, shared: Shared) -> None:
        e = self.e
        outside = outside_of(loop, shared.own)
        name = f"{self._name}_part{len(self.functions)}"
        given = [self.get(v) for v in outside.values]
        self.functions.append(_part(name, loop, shared, outside, given, e))
        environment = e.fresh()
        self.entry.append(f"  {environment} = alloca [{max(len(given) + len(outside.buffers), 1)} x i64], align 16")
        words = [(v.type, v.text) for v in given] + [("ptr", self.pointer(b)) for b in outside.buffers]
        for k, (kind, text) in enumerate(words):
            at = e.fresh()
            e.line(f"{at} = getelementptr i64, ptr {environment}, i64 {k}")
            e.line(f"store {kind} {text}, ptr {at}")
        self._call(name, environment, loop, shared)

    def _call(self, name: str, environment: str, loop: Loop, shared: Shared) -> None:
        e = self.e
        alone, together, after = e.label("alone"), e.label("together"), e.label("after")
        none = e.new("icmp eq ptr %pool, null", "i1")
        e.line(f"br i1 {none.text}, label %{alone}, label %{together}")
        e.start(alone)
        e.line(f"call void @{name}(ptr {environment}, i64 0, i64 {loop.extent})")
        e.line(f"br label %{after}")
        e.start(together)
        share = e.fresh()
        e.line(f"{share} = load ptr, ptr %pool")
        e.line(f"call void {share}(ptr %pool, ptr @{name}, ptr {environment}, i64 {loop.extent}, i64 {shared.grain})")
        e.line(f"br label %{after}")
        e.start(after)


class PartWriter(FunctionWriter):
    """Writes the function of a range of a loop's iterations."""

    def range_of(self, loop: Loop) -> None:
        """The iterations from %begin to %end, at least one."""
        assert isinstance(loop.extent, int)
        lanes = self.lanes_of(loop) if loop.vector else 1
        variable, header, after = self.open_loop(loop.variable, "%begin")
        if lanes > 1:
            self.lanes, self.variable, self.varying = lanes, loop.variable, varying_values(loop)
            self.mask = self.mask_of_last(variable, loop.extent, lanes)
        self.block(loop.body)
        self.lanes, self.variable, self.mask, self.varying = 1, None, None, set()
        e = self.e
        e.close()
        step = e.new(f"add i64 {variable.text}, {lanes}", "i64")
        latch = e.block
        more = e.compare("slt", step, Value("%end", "i64"))
        e.line(f"br i1 {more.text}, label %{header}, label %{after}")
        self.close_loop(variable, step, latch, [], [])
        e.start(after)


def write_sharing_kernel(function: Function, emitter: Emitter, loops: Mapping[int, Shared]) -> str:
    """A kernel with shared loops, and their parts, as the text of LLVM functions."""
    writer = SharingWriter(emitter, function.name, loops)
    writer.outlined = used_often(function.body)
    params = []
    for k, buffer in enumerate(function.params):
        writer.pointers[buffer] = f"%p{k}"
        params.append(f"ptr %p{k}")
    emitter.lines.append("entry:")
    own = {b for shared in loops.values() for b in shared.own}
    for buffer in function.locals:
        if buffer not in own:
            allocate(writer, buffer)
    writer.block(function.body)
    emitter.line("ret i32 0" if function.can_fail else "ret void")
    emitter.lines[1:1] = writer.entry
    result = "i32" if function.can_fail else "void"
    head = f"define internal {result} @{function.name}({', '.join([*params, 'ptr %pool'])}) #0"
    return "\n".join([*writer.functions, f"{head} {{\n{emitter.text}\n}}\n"])


def allocate(writer: FunctionWriter, buffer: Buffer) -> None:
    """Have a buffer on the stack."""
    scalar = "i8" if buffer.kind == "bool" else TYPES[REGISTER[buffer.kind]]
    name = writer.pointers[buffer] = writer.e.fresh()
    writer.e.line(f"{name} = alloca [{buffer.size} x {scalar}], align 64")


def outside_of(loop: Loop, own: tuple[Buffer, ...]) -> Outside:
    """What a loop has from outside, in the order it is met."""
    found = _Uses(loop)
    values = [v for v in found.values if v not in found.defined and v.op != "constant"]
    return Outside(values, [b for b in found.buffers if b not in own])


class _Uses:
    """The values and buffers that a loop uses, and the values it defines."""

    def __init__(self, loop: Loop):
        self.values: dict[nodes.Value, None] = {}
        self.buffers: dict[Buffer, None] = {}
        self.defined: set[nodes.Value] = {loop.variable}
        self._block(loop.body)

    def _block(self, statements: list[Any]) -> None:
        for s in statements:
            self._statement(s)
            for block in blocks(s):
                self._block(block)

    def _statement(self, s: Any) -> None:
        if isinstance(s, nodes.Value):
            self.defined.add(s)
            self._use(*s.args)
            if s.op == "load":
                self._at(*s.attr)
            elif s.op == "index":
                self._use(*(v for v, _ in s.attr.terms))
        elif isinstance(s, Loop | nodes.While):
            self._carry(s)
        elif isinstance(s, nodes.If):
            self._use(s.condition, *(v for _, *values in s.results for v in values))
            self.defined |= {result for result, _, _ in s.results}
        elif isinstance(s, nodes.Store):
            self._use(s.value)
            self._at(s.buffer, s.index)
        elif isinstance(s, nodes.Copy | nodes.Transpose):
            self._at(s.target, s.at)
            self._at(s.source, s.start)
        else:
            assert isinstance(s, nodes.Fill), f"{type(s).__name__} in a shared loop"
            self._at(s.target, s.at)

    def _carry(self, s: Loop | nodes.While) -> None:
        for c in s.carried:
            self._use(c.initial, c.next)
            self.defined |= {c.value, c.result}
        if isinstance(s, nodes.While):
            self._use(s.condition)
        else:
            self.defined.add(s.variable)
            self._use(*([s.extent] if isinstance(s.extent, nodes.Value) else []))

    def _use(self, *values: nodes.Value) -> None:
        self.values.update(dict.fromkeys(values))

    def _at(self, buffer: Buffer, index: Index) -> None:
        self.buffers[buffer] = None
        self._use(*(v for v, _ in index.terms))


def _part(name: str, loop: Loop, shared: Shared, outside: Outside, given: list[Value], e: Emitter) -> str:
    """The function of a range of iterations. given: the values from outside as the kernel has them."""
    emitter = Emitter(e.has_fma, e.lanes_bytes)
    writer = PartWriter(emitter)
    writer.outlined = used_often(loop.body)
    emitter.lines.append("entry:")
    types = [(v.type, v.kind) for v in given] + [("ptr", "")] * len(outside.buffers)
    for k, (what, (kind, scalar)) in enumerate(zip([*outside.values, *outside.buffers], types, strict=True)):
        at, text = emitter.fresh(), emitter.fresh()
        emitter.line(f"{at} = getelementptr i64, ptr %environment, i64 {k}")
        emitter.line(f"{text} = load {kind}, ptr {at}")
        if isinstance(what, Buffer):
            writer.pointers[what] = text
        else:
            writer.values[what] = Value(text, scalar)
    for buffer in shared.own:
        allocate(writer, buffer)
    emitter.line("br label %begin.range")
    emitter.start("begin.range")
    for _ in range(1, loop.variable.depth):  # the loops around it
        emitter.open()
    writer.range_of(loop)
    emitter.line("ret void")
    e.declarations |= emitter.declarations
    e.tables |= emitter.tables
    return f"define internal void @{name}(ptr %environment, i64 %begin, i64 %end) #0 {{\n{emitter.text}\n}}\n"
