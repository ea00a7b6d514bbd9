# SPDX-License-Identifier: MIT
"""A kernel with loops that threads share (schedule/parallel.py) as LLVM functions.

The body of such a loop becomes a function of its own, which runs a range of iterations,

    void kernel_part0(ptr environment, i64 begin, i64 end)

and finds in the environment, an array of 64-bit words, the values and pointers that the loop has from outside. Where
the loop was, the kernel calls the pool's `share` with it, or without a pool the function itself for all iterations.
The kernel gets the pool as its last parameter. A vector loop is cut at multiples of its lanes only: the same
iterations are in one vector, and only the last has a mask, whoever runs them.

A loop that streams (schedule/streaming.py) has a second function, which is called where its outputs lie alike and are
not where inputs are: it leaves the iterations before a full vector of the outputs, and after the last one, to the first
function, and in between writes past the caches. The pool's counting of ranges, a locked instruction, waits for that.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.codegen.llvm.emitter import TYPES, Emitter, Value
from functorch_lite.compiler.codegen.llvm.function import FunctionWriter
from functorch_lite.compiler.codegen.llvm.levels import Levels, marked
from functorch_lite.compiler.codegen.llvm.outlined import used_often
from functorch_lite.compiler.codegen.llvm.scalar_ops import REGISTER
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.effects import Effects
from functorch_lite.compiler.loop_ir.nodes import Buffer, Function, Loop, blocks
from functorch_lite.compiler.loop_ir.varying import varying_values
from functorch_lite.compiler.runtime.pool_ir import WORDS
from functorch_lite.compiler.schedule.parallel import Shared, accesses, every


class Outside(NamedTuple):
    """What a loop has from outside: values that are not constants, and buffers."""

    values: list[nodes.Value]
    buffers: list[Buffer]


class SharingWriter(FunctionWriter):
    """Writes a kernel; the parts of its shared loops are in `functions`, and what goes to its entry in `entry`."""

    def __init__(self, emitter: Emitter, name: str, loops: Mapping[int, Shared], levels: Levels | None = None):
        super().__init__(emitter)
        self._levels = levels
        self.functions: list[str] = []
        self.entry: list[str] = []
        self._name = name
        self._loops = loops

    def allocate_locals(self, function: Function) -> None:
        """Have the locals on the stack, but for those that only shared loops use, which have them for themselves."""
        own = {b for shared in self._loops.values() for b in shared.own}
        own -= set(_used_outside(function.body, self._loops, own))
        for buffer in function.locals:
            if buffer not in own:
                allocate(self, buffer)

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
        hot = self._levels is not None and self._levels.is_hot(self._name, [loop])
        quick = self._levels is not None and not hot
        text = _part(name, loop, shared, outside, given, e, quick)
        self.functions.append(marked(text) if hot else text)
        if shared.streams:
            self.functions.append(_part(f"{name}_stream", loop, shared, outside, given, e, quick, plain=name))
        environment = e.fresh()
        self.entry.append(f"  {environment} = alloca [{max(len(given) + len(outside.buffers), 1)} x i64], align 16")
        words = [(v.type, v.text) for v in given] + [("ptr", self.pointer(b)) for b in outside.buffers]
        for k, (kind, text) in enumerate(words):
            at = e.fresh()
            e.line(f"{at} = getelementptr i64, ptr {environment}, i64 {k}")
            e.line(f"store {kind} {text}, ptr {at}")
        function = self._which(f"@{name}", loop, shared.streams) if shared.streams else f"@{name}"
        copied = _copied(loop)
        if copied is None:
            self._call_pool(function, environment, loop, shared)
            return
        copy, there = e.label("copy"), e.label("there")  # an output may lie where an input is (memory/plan.py)
        same = e.new(f"icmp eq ptr {self.pointer(copied[0])}, {self.pointer(copied[1])}", "i1")
        e.line(f"br i1 {same.text}, label %{there}, label %{copy}")
        e.start(copy)
        self._call_pool(function, environment, loop, shared)
        e.line(f"br label %{there}")
        e.start(there)

    def _which(self, plain: str, loop: Loop, streams: Sequence[Buffer]) -> str:
        """The function of a loop that streams, or the plain one where its outputs lie otherwise, or where inputs do."""
        e = self.e
        starts = [e.new(f"ptrtoint ptr {self.pointer(b)} to i64", "i64") for b in streams]
        first, *others = [e.binary("and", start, e.constant(e.lanes_bytes - 1, "i64")) for start in starts]
        bad = [e.compare("ne", first, other) for other in others]
        read = dict.fromkeys(a.buffer for s in every(loop.body) for a in accesses(s) if a.buffer.role == "in")
        bad += [e.new(f"icmp eq ptr {self.pointer(b)}, {self.pointer(other)}", "i1") for b in streams for other in read]
        fits = e.constant(True, "i1")
        for condition in bad:
            fits = e.select(condition, e.constant(False, "i1"), fits)
        return e.new(f"select i1 {fits.text}, ptr {plain}_stream, ptr {plain}", "i64").text

    def _call_pool(self, function: str, environment: str, loop: Loop, shared: Shared) -> None:
        assert isinstance(loop.extent, int)
        word = "short" if shared.short else "share"
        call_pool(self.e, word, function, environment, loop.extent, f"i64 {shared.grain}")


class PartWriter(FunctionWriter):
    """Writes the function of a range of a loop's iterations. streams: the buffers that it writes past the caches."""

    streams: Sequence[Buffer] = ()
    _is_full = False  # the vectors being written, and aligned

    def store(self, s: nodes.Store) -> None:
        if not self._is_full or s.buffer not in self.streams:
            super().store(s)
            return
        value = self.e.splat(self.get(s.value), self.lanes)
        self.e.stream(value, self.address(s.buffer, s.index))

    def streaming_range_of(self, loop: Loop, plain: str) -> None:
        """The iterations from %begin to %end, full vectors of the outputs streamed, the rest by the function `plain`.

        It does a whole vector at each end, so some iterations run twice, to the same effect.
        """
        e, lanes = self.e, self.lanes_of(loop)
        begin, last = Value("%begin", "i64"), e.binary("sub", Value("%end", "i64"), e.constant(lanes, "i64"))
        buffer, at = self.streams[0], e.fresh()
        e.line(f"{at} = getelementptr {TYPES[REGISTER[buffer.kind]]}, ptr {self.pointer(buffer)}, i64 %begin")
        start = e.binary("add", begin, before_full(e, at, buffer, lanes))
        short, long = e.label("short"), e.label("long")
        few = e.compare("slt", last, e.binary("add", begin, e.constant(lanes, "i64")))
        e.line(f"br i1 {few.text}, label %{short}, label %{long}")
        e.start(short)
        e.line(f"call void @{plain}(ptr %environment, i64 %begin, i64 %end)")
        e.line("ret void")
        e.start(long)
        one = e.binary("add", begin, e.constant(1, "i64"))
        e.line(f"call void @{plain}(ptr %environment, i64 %begin, i64 {one.text})")
        self.full_vectors(loop, lanes, start, last)
        e.line(f"call void @{plain}(ptr %environment, i64 {last.text}, i64 %end)")

    def vector_loop(self, loop: Loop, lanes: int) -> None:
        """A vector loop in the loop that is shared: where it streams, the parts of vectors at both ends are not."""
        store = next((s for s in loop.body if type(s) is nodes.Store and s.buffer in self.streams), None)
        extent = loop.extent
        assert isinstance(extent, int)
        if store is None or extent < 2 * lanes:
            super().vector_loop(loop, lanes)
            return
        e, size = self.e, self.e.constant(extent, "i64")
        self.values[loop.variable] = e.constant(0, "i64")
        head = before_full(e, self.address(store.buffer, store.index), store.buffer, lanes)
        left = e.binary("and", e.binary("sub", size, head), e.constant(-lanes, "i64"))
        self.ends_of_row(loop, lanes, head, e.binary("add", head, left), size)
        self.full_vectors(loop, lanes, head, e.constant(extent - lanes, "i64"))

    def ends_of_row(self, loop: Loop, lanes: int, head: Value, tail: Value, size: Value) -> None:
        """The iterations of a vector loop before `head`, and from `tail` to `size`: fewer than `lanes` of each."""
        e = self.e
        variable, header, after = self.open_loop(loop.variable)
        self.lanes, self.variable, self.varying = lanes, loop.variable, varying_values(loop)
        first = e.compare("eq", variable, e.constant(0, "i64"))
        count = e.select(first, head, e.binary("sub", size, variable))
        self.mask = e.compare("slt", e.lane_numbers("i64", lanes), e.splat(count, lanes))
        self.block(loop.body)
        self.lanes, self.variable, self.mask, self.varying = 1, None, None, set()
        e.close()
        latch = e.block
        e.line(f"br i1 {first.text}, label %{header}, label %{after}")
        self.close_loop(variable, tail, latch, [], [])
        e.start(after)

    def full_vectors(self, loop: Loop, lanes: int, start: Value, last: Value) -> None:
        """The iterations of a vector loop from `start` on while a vector begins at `last` or before; at least one."""
        e = self.e
        variable, header, after = self.open_loop(loop.variable, start.text)
        self.lanes, self.variable, self.varying, self._is_full = lanes, loop.variable, varying_values(loop), True
        self.block(loop.body)
        self.lanes, self.variable, self.varying, self._is_full = 1, None, set(), False
        e.close()
        step = e.new(f"add i64 {variable.text}, {lanes}", "i64")
        more = e.compare("sle", step, last)
        e.line(f"br i1 {more.text}, label %{header}, label %{after}")
        self.close_loop(variable, step, e.block, [], [])
        e.start(after)

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


def write_sharing_kernel(
    function: Function, emitter: Emitter, loops: Mapping[int, Shared], levels: Levels | None = None
) -> str:
    """A kernel with shared loops, and their parts, as the text of LLVM functions. levels: of quickly made code."""
    writer = SharingWriter(emitter, function.name, loops, levels)
    writer.outlined = used_often(function.body, emitter)
    params = []
    for k, buffer in enumerate(function.params):
        writer.pointers[buffer] = f"%p{k}"
        params.append(f"ptr %p{k}")
    emitter.lines.append("entry:")
    writer.allocate_locals(function)
    writer.block(function.body)
    emitter.line("ret i32 0" if function.can_fail else "ret void")
    emitter.lines[1:1] = writer.entry
    result = "i32" if function.can_fail else "void"
    head = f"define internal {result} @{function.name}({', '.join([*params, 'ptr %pool'])}) #0"
    text = f"{head} {{\n{emitter.text}\n}}\n"
    hot = levels is not None and not emitter.quick
    return "\n".join([*writer.functions, marked(text) if hot else text])


def call_pool(e: Emitter, word: str, function: str, environment: str, count: int, how: str) -> None:
    """Have a function of the pool, by its word, run `function` on 0 ... count; without a pool it does all at once.

    how: what else is given to the function of the pool.
    """
    alone, together, after = e.label("alone"), e.label("together"), e.label("after")
    none = e.new("icmp eq ptr %pool, null", "i1")
    e.line(f"br i1 {none.text}, label %{alone}, label %{together}")
    e.start(alone)
    e.line(f"call void {function}(ptr {environment}, i64 0, i64 {count})")
    e.line(f"br label %{after}")
    e.start(together)
    share = e.fresh()
    e.line(f"{share} = load ptr, ptr {e.moved('%pool', 'i64', WORDS[word])}")
    e.line(f"call void {share}(ptr %pool, ptr {function}, ptr {environment}, i64 {count}, {how})")
    e.line(f"br label %{after}")
    e.start(after)


def allocate(writer: FunctionWriter, buffer: Buffer) -> None:
    """Have a buffer on the stack."""
    scalar = "i8" if buffer.kind == "bool" else TYPES[REGISTER[buffer.kind]]
    name = writer.pointers[buffer] = writer.e.fresh()
    writer.e.line(f"{name} = alloca [{buffer.size} x {scalar}], align 64")


def _used_outside(statements: Sequence[Any], loops: Mapping[int, Shared], own: set[Buffer]) -> Iterator[Buffer]:
    """Those of some buffers that are used outside of the shared loops that have them for themselves."""
    if not own:
        return
    for s in statements:
        yield from (a.buffer for a in accesses(s) if a.buffer in own)
        shared = loops.get(id(s))
        for block in blocks(s):
            yield from _used_outside(block, loops, own.difference(shared.own) if shared is not None else own)


def outside_of(loop: Loop, own: tuple[Buffer, ...]) -> Outside:
    """What a loop has from outside, in the order it is met."""
    found = Effects(loop.body)
    return Outside([v for v in found.needs if v is not loop.variable], [b for b in found.touches if b not in own])


def _copied(loop: Loop) -> tuple[Buffer, Buffer] | None:
    """The two buffers of a loop that copies one into the other, place by place; None for other loops."""
    if len(loop.body) != 2 or type(loop.body[0]) is not nodes.Value or type(loop.body[1]) is not nodes.Store:
        return None
    value, store = loop.body
    if value.op != "load" or store.value is not value or value.attr[1].key != store.index.key:
        return None
    return store.buffer, value.attr[0]


def before_full(e: Emitter, pointer: str, buffer: Buffer, lanes: int) -> Value:
    """How many elements of a buffer lie between a pointer and the next vector that is aligned."""
    address = e.new(f"ptrtoint ptr {pointer} to i64", "i64")
    number = e.binary("udiv", address, e.constant(nodes.ITEM_BYTES[buffer.kind], "i64"))
    return e.binary("and", e.binary("sub", e.constant(0, "i64"), number), e.constant(lanes - 1, "i64"))


def _part(
    name: str, loop: Loop, shared: Shared, outside: Outside, given: list[Value], e: Emitter, quick: bool,
    plain: str = "",
) -> str:
    """The function of a range of iterations. given: the values from outside as the kernel has them.

    plain: for the function that streams, the one that does not.
    """
    emitter = Emitter(e.has_fma, e.lanes_bytes, quick, e.brief)
    writer = PartWriter(emitter)
    writer.streams = shared.streams if plain else ()
    writer.outlined = used_often(loop.body, emitter)
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
    if plain and loop.vector:
        writer.streaming_range_of(loop, plain)
    else:
        writer.range_of(loop)
    emitter.line("ret void")
    e.declarations |= emitter.declarations
    e.tables |= emitter.tables
    return f"define internal void @{name}(ptr %environment, i64 %begin, i64 %end) #0 {{\n{emitter.text}\n}}\n"
