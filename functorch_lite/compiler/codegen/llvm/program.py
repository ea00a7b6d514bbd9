# SPDX-License-Identifier: MIT
"""A lowered program as an LLVM module: the kernels, and `run`, which calls them.

    i32 run(ptr inputs, ptr outputs, ptr arena, ptr context)

`inputs` and `outputs` are arrays of pointers to data. `context` points to what the process gives: the function that
runs steps in Python (`i32 (i64 step, ptr places)`), then the pointers of constant arrays.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from functorch_lite.compiler.codegen.llvm import growing
from functorch_lite.compiler.codegen.llvm.emitter import BYTES, TYPES, Emitter, Value
from functorch_lite.compiler.codegen.llvm.function import FunctionWriter, write_kernel
from functorch_lite.compiler.codegen.llvm.scalar_ops import REGISTER
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import Buffer, Function
from functorch_lite.compiler.memory.plan import Plan


class Module(NamedTuple):
    """The text of an LLVM module."""

    text: str


def write_module(
    function: Function, kernels: list[Function], inputs: list[Buffer], outputs: list[Buffer],
    constants: list[Buffer], plan: Plan, *, has_fma: bool = True, lanes_bytes: int = 64,
    writer: "Callable[..., ProgramWriter] | None" = None,
) -> str:
    """The module of a program. writer: what writes `run`, a ProgramWriter if None."""
    declarations: dict[str, str] = {}
    tables: dict[str, str] = {}
    texts = []
    for kernel in kernels:
        emitter = Emitter(has_fma, lanes_bytes)
        texts.append(write_kernel(kernel, emitter))
        declarations |= emitter.declarations
        tables |= emitter.tables
    emitter = Emitter(has_fma, lanes_bytes)
    texts.append((writer or ProgramWriter)(emitter, inputs, outputs, constants, plan).write(function))
    declarations |= emitter.declarations
    tables |= emitter.tables
    texts += [growing.TEXT] if function.growing else []
    attributes = f'attributes #0 = {{ nounwind "prefer-vector-width"="{8 * lanes_bytes}" }}\n'
    return "\n".join([*declarations.values(), *tables.values(), *texts, attributes])


class ProgramWriter(FunctionWriter):
    """Writes `run`."""

    def __init__(self, emitter: Emitter, inputs, outputs, constants, plan: Plan):
        super().__init__(emitter)
        self._sources = {b: ("%inputs", k) for k, b in enumerate(inputs)}
        self._sources |= {b: ("%outputs", k) for k, b in enumerate(outputs)}
        self._sources |= {b: ("%context", k + 1) for k, b in enumerate(constants)}
        self._plan = plan
        self._most_places = 0
        self._entry: list[str] = []
        self._growing: dict[Buffer, int] = {}

    def write(self, function: Function) -> str:
        """The text of `run`."""
        e = self.e
        self._growing = {b: k for k, b in enumerate(function.growing)}
        if self._growing:
            e.declarations |= growing.DECLARATIONS
            slots = f"[{2 * len(self._growing)} x i64]"
            self._entry += [f"  %growing = alloca {slots}, align 16", f"  store {slots} zeroinitializer, ptr %growing"]
        e.lines.append("entry:")
        e.line("br label %begin")
        e.start("begin")
        self.block(function.body)
        self.leave("0")
        places = [f"  %places = alloca [{self._most_places} x ptr], align 16"] if self._most_places else []
        e.lines[1:1] = [*places, *self._entry]
        body = "\n".join(e.lines)
        return f"define i32 @run(ptr %inputs, ptr %outputs, ptr %arena, ptr %context) #0 {{\n{body}\n}}\n"

    def pointer(self, buffer: Buffer) -> str:
        """The pointer to a buffer, computed once at the entry unless the buffer grows."""
        if buffer in self._growing:
            return self.e.new(f"load ptr, ptr {self.slot(buffer)}", "i64").text
        found = self.pointers.get(buffer)
        if found is None:
            found = self.pointers[buffer] = self.e.fresh()
            if buffer in self._sources:
                array, number = self._sources[buffer]
                self._entry.append(f"  {found}a = getelementptr ptr, ptr {array}, i64 {number}")
                self._entry.append(f"  {found} = load ptr, ptr {found}a")
            else:
                offset = self._plan.offsets[buffer]
                self._entry.append(f"  {found} = getelementptr i8, ptr %arena, i64 {offset}")
        return found

    def other(self, statement: Any) -> None:
        kind = type(statement)
        if kind is nodes.KernelCall:
            self.kernel_call(statement)
        elif kind is nodes.HostCall:
            self.host_call(statement)
        elif kind is nodes.LibraryCall:
            self.library_call(statement)
        elif kind is nodes.Grow:
            self.grow(statement)
        elif kind is nodes.Release:
            for buffer in statement.buffers:
                self.e.line(f"call void @release(ptr {self.slot(buffer)}, i64 1)")
        else:
            super().other(statement)

    def place(self, place: tuple[Buffer, nodes.Index]) -> str:
        """The pointer to a place."""
        buffer, start = place
        return self.address(buffer, self.parts(start)[0])

    def kernel_call(self, s: nodes.KernelCall) -> None:
        e = self.e
        given = ", ".join(f"ptr {self.place(p)}" for p in s.places)
        if not s.kernel.can_fail:
            e.line(f"call void @{s.kernel.name}({given})")
            return
        status = e.new(f"call i32 @{s.kernel.name}({given})", "i32")
        failed, fine = e.label("failed"), e.label("fine")
        bad = e.compare("ne", status, e.constant(0, "i32"))
        e.line(f"br i1 {bad.text}, label %{failed}, label %{fine}")
        e.start(failed)
        if s.failure is not None:
            self.in_python(s.failure)
        self.leave(status.text)
        e.start(fine)

    def in_python(self, s: nodes.HostCall) -> Value:
        """Call the function that runs a step in Python; returns its status."""
        e = self.e
        self._most_places = max(self._most_places, len(s.places), 1)
        for k, place in enumerate(s.places):
            pointer = self.place(place)
            slot = e.fresh()
            e.line(f"{slot} = getelementptr ptr, ptr %places, i64 {k}")
            e.line(f"store ptr {pointer}, ptr {slot}")
        function = e.fresh()
        e.line(f"{function} = load ptr, ptr %context")
        return e.new(f"call i32 {function}(i64 {s.number}, ptr %places)", "i32")

    def host_call(self, s: nodes.HostCall) -> None:
        self._most_places = max(self._most_places, 1)
        self.leave_if_failed(self.in_python(s))

    def leave_if_failed(self, status: Value) -> None:
        """Return the status if it is not 0."""
        e = self.e
        failed, fine = e.label("failed"), e.label("fine")
        bad = e.compare("ne", status, e.constant(0, "i32"))
        e.line(f"br i1 {bad.text}, label %{failed}, label %{fine}")
        e.start(failed)
        self.leave(status.text)
        e.start(fine)

    def leave(self, status: str) -> None:
        """Return, once the memory of growing buffers is given back."""
        if self._growing:
            self.e.line(f"call void @release(ptr %growing, i64 {len(self._growing)})")
        self.e.line(f"ret i32 {status}")

    def exit(self, s: nodes.Exit) -> None:
        self.leave(self.get(s.status).text)
        self.e.start(self.e.label("unreachable"))

    def slot(self, buffer: Buffer) -> str:
        """Where the pointer and the size of a growing buffer are."""
        return self.e.new(f"getelementptr i64, ptr %growing, i64 {2 * self._growing[buffer]}", "i64").text

    def grow(self, s: nodes.Grow) -> None:
        """Room for the rows in every buffer."""
        e, rows = self.e, self.get(s.rows)
        for buffer, words in s.buffers:
            size = words * BYTES["i8" if buffer.kind == "bool" else REGISTER[buffer.kind]]
            needed = e.binary("mul", rows, e.constant(size, "i64"))
            self.leave_if_failed(e.new(f"call i32 @grow(ptr {self.slot(buffer)}, i64 {needed.text})", "i32"))

    def library_call(self, s: nodes.LibraryCall) -> None:
        """A call of a C function. A plain number goes by pointer, as Fortran has it; a value as itself."""
        e = self.e
        given = []
        for arg in s.args:
            if isinstance(arg, tuple) and isinstance(arg[0], Buffer):
                given.append(f"ptr {self.place(arg)}")
            elif isinstance(arg, nodes.Value):
                value = self.get(arg)
                given.append(f"{value.type} {value.text}")
            else:
                given.append(f"ptr {self.number(*arg)}")
        types = ", ".join(g.split(" ", 1)[0] for g in given)
        result = "void" if s.result is None else "i32"
        e.declarations[s.symbol] = f"declare {result} @{s.symbol}({types})"
        text = f"call {result} @{s.symbol}({', '.join(given)})"
        if s.result is None:
            e.line(text)
        else:
            self.values[s.result] = e.new(text, "i32")

    def number(self, kind: str, number: Any) -> str:
        """A constant in memory: ("i32", 3) or ("u8", ord("U"))."""
        register = REGISTER[kind]
        name = f"n_{kind}_{str(number).replace('-', 'm').replace('.', '_')}"
        text = self.e.constant(number, register).text
        self.e.tables[name] = f"@{name} = private unnamed_addr constant {TYPES[register]} {text}, align 8"
        return f"@{name}"
