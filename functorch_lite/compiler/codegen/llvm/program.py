# SPDX-License-Identifier: MIT
"""A lowered program as an LLVM module: the kernels, and `run`, which calls them.

    i32 run(ptr inputs, ptr outputs, ptr arena, ptr context)

A part of the program that is called many times is a function beside it, which gets a pointer for each of its buffers,
its arena, and the context.

`inputs` and `outputs` are arrays of pointers to data. `context` points to what the process gives: the Python function
that runs steps in Python, then the pointers of constant arrays, then the thread pool or null.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from functorch_lite.compiler.codegen.llvm import growing, sections
from functorch_lite.compiler.codegen.llvm.call_table import (
    ARENA,
    CONTEXT,
    INPUTS,
    LONG,
    OUTPUTS,
    PLACES,
    SELF,
    CallTable,
    pointer,
)
from functorch_lite.compiler.codegen.llvm.emitter import BYTES, TYPES, Emitter, Value
from functorch_lite.compiler.codegen.llvm.function import FunctionWriter, write_kernel
from functorch_lite.compiler.codegen.llvm.levels import Levels, marked
from functorch_lite.compiler.codegen.llvm.outlined import used_often
from functorch_lite.compiler.codegen.llvm.scalar_ops import REGISTER
from functorch_lite.compiler.codegen.llvm.shared import SharingWriter, write_sharing_kernel
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Buffer, Function
from functorch_lite.compiler.loop_ir.polls import EVERY, POLL, has_polls
from functorch_lite.compiler.memory.plan import Part, Plan
from functorch_lite.compiler.runtime.interrupts import RUN_STEP
from functorch_lite.compiler.runtime.pieces import HOT
from functorch_lite.compiler.schedule.choices import USUAL, Choices, shared_loops
from functorch_lite.compiler.schedule.parallel import Shared, every

SHORT = 4  # kernels: so many may be written in one function
STACK_BYTES = 1 << 14  # of the locals of kernels in `run`
_ARRAYS = {"%inputs": INPUTS, "%outputs": OUTPUTS, "%context": CONTEXT}


def write_module(
    function: Function, kernels: list[Function], inputs: list[Buffer], outputs: list[Buffer],
    constants: list[Buffer], plan: Plan, *, parts: Sequence[Part] = (), has_fma: bool = True, lanes_bytes: int = 64,
    sharing: bool = True, choices: Choices = USUAL, writer: "Callable[..., ProgramWriter] | None" = None,
    levels: Levels | None = None,
) -> str:
    """The module of a program and its parts.

    sharing: whether threads share long loops. choices: which, and what they stream. writer: what writes `run`, a
    ProgramWriter if None. levels: for code that is made quickly, tells which functions are made well all the same.
    """
    new_emitter = functools.partial(Emitter, has_fma, lanes_bytes, brief=levels is not None)
    declarations: dict[str, str] = {}
    tables: dict[str, str] = {}
    texts = []
    loops = {kernel.name: shared_loops(kernel, choices) if sharing else {} for kernel in kernels}
    in_place = written_in_place(function) if writer is None and not parts else ()
    for kernel in kernels:
        if kernel in in_place:
            continue
        shared = loops[kernel.name]
        hot = levels is not None and levels.is_hot(kernel.name, kernel.body, shared)
        emitter = new_emitter(quick=levels is not None and not hot)
        if shared:
            texts.append(write_sharing_kernel(kernel, emitter, shared, levels))
        else:
            texts.append(marked(write_kernel(kernel, emitter)) if hot else write_kernel(kernel, emitter))
        declarations |= emitter.declarations
        tables |= emitter.tables
    own = [*function.body, *(s for kernel in in_place for s in kernel.body)]
    hot = levels is not None and levels.is_hot("run", own, {k for kernel in in_place for k in loops[kernel.name]})
    new_emitter = functools.partial(new_emitter, quick=levels is not None and not hot)
    emitter = new_emitter()
    run = (writer or ProgramWriter)(emitter, inputs, outputs, constants, plan)
    functions = [function, *(part.function for part in parts)]
    if sharing and writer is None and sections.has_sections(functions):
        run.section, run.places_of_steps, run.long = "null", sections.most_places(functions), LONG // 4
    run.sharing = frozenset(name for name, shared in loops.items() if shared)
    run.in_place = {kernel: loops[kernel.name] for kernel in in_place}
    run.levels = levels
    own = [run.write(function), *(run.part(new_emitter(), part) for part in parts)]
    texts += map(marked, own) if hot else own
    texts += run.functions
    declarations |= emitter.declarations
    tables |= emitter.tables
    texts += [growing.TEXT] if any(f.growing for f in functions) else []
    texts.append(run.table.text)
    groups = ["#0"] if levels is None or not levels.lines else ["#0", HOT]
    attributes = [f'attributes {g} = {{ nounwind "prefer-vector-width"="{8 * lanes_bytes}" }}' for g in groups]
    return "\n".join([*declarations.values(), *tables.values(), *texts, *attributes, ""])


def written_in_place(function: Function) -> Sequence[Function]:
    """The kernels of a short program that `run` holds itself, as each is called once: to make a function has its cost.

    Calls in loops stay calls, so that no loop is around code whose pointers would fill its registers.
    """
    called = [s.kernel for s in every(function.body) if type(s) is nodes.KernelCall]
    outside = {s.kernel for s in function.body if type(s) is nodes.KernelCall}
    if len(called) > SHORT or len(called) != len(outside):
        return ()
    stack = sum(b.nbytes for kernel in called for b in kernel.locals)
    return () if stack > STACK_BYTES or any(k.can_fail or k.integers for k in called) else called


class ProgramWriter(FunctionWriter):
    """Writes `run`. sharing: the kernels that take the thread pool. has_table: whether calls may go into a table.

    long: how many make a run of calls for it, or fewer with many places: fewer where sections cut runs short.
    in_place: the kernels that are written where they are called, and the loops of each that threads share.
    functions: the parts of those loops, and sections. bases: the pointers that it has from its parameters.
    section: where the record of the section is that this may be in, "null" in `run`, "" if the module has no sections.
    levels: of quickly made code.
    """

    sharing: frozenset[str] = frozenset()
    in_place: Mapping[Function, Mapping[int, Shared]] = MappingProxyType({})
    has_table = True
    long = LONG
    counts = True
    levels: Levels | None = None
    section = ""
    section_number = -1  # of the section that this is, and of the statement in it that is being written
    statement_number = 0
    places_of_steps = 0
    bases: Sequence[str] = ("%inputs", "%outputs", "%arena", "%context")
    _can_fail = True

    def __init__(self, emitter: Emitter, inputs, outputs, constants, plan: Plan):
        super().__init__(emitter)
        self._pool_slot = 1 + len(constants)
        self._sources = {b: ("%inputs", k) for k, b in enumerate(inputs)}
        self._sources |= {b: ("%outputs", k) for k, b in enumerate(outputs)}
        self._sources |= {b: ("%context", k + 1) for k, b in enumerate(constants)}
        self._plan = plan
        self._most_places = 0
        self._entry: list[str] = []
        self._growing: dict[Buffer, int] = {}
        self._has_pool = False
        self._params: dict[Buffer, str] = {}  # of a part
        self.table = CallTable(plan.size)
        self.functions: list[str] = []
        self._name = ""
        self._names = 0
        self._polls = 0  # how many loops that look for signals are around
        self._has_clock = False

    def write(self, function: Function) -> str:
        """The text of `run`."""
        text = self._body(function)
        return f"define i32 @run(ptr %inputs, ptr %outputs, ptr %arena, ptr %context) #0 {{\n{text}\n}}\n"

    def part(self, emitter: Emitter, part: Part) -> str:
        """The text of a part."""
        writer = self.for_part(emitter, part)
        function = part.function
        writer._params = {b: f"%p{k}" for k, b in enumerate(function.params[:-1])}
        writer.has_table = False
        writer.bases = [*writer._params.values(), "%arena", "%context"]
        text = writer._body(function)
        self.e.declarations |= emitter.declarations
        self.e.tables |= emitter.tables
        self.functions += writer.functions
        own = [] if writer.section in ("", "null") else [writer.section]
        given = ", ".join(f"ptr {name}" for name in [*writer.bases, *own])
        result = "i32" if function.can_fail else "void"
        return f"define internal {result} @{function.name}({given}) #0 {{\n{text}\n}}\n"

    def for_part(self, emitter: Emitter, part: Part) -> "ProgramWriter":
        """The writer of a part."""
        writer = self._beside(emitter, part.plan)
        writer._can_fail = part.function.can_fail
        if self.section:
            writer.section = "%section" if part.function.can_fail else "null"
        return writer

    def _beside(self, emitter: Emitter, plan: Plan) -> "ProgramWriter":
        """The writer of another function of the same module."""
        writer = type(self)(emitter, [], [], [], plan)
        writer.sharing, writer._pool_slot, writer.places_of_steps = self.sharing, self._pool_slot, self.places_of_steps
        return writer

    def for_section(self, number: int) -> "ProgramWriter":
        """The writer of a section of this function."""
        writer = self._beside(Emitter(self.e.has_fma, self.e.lanes_bytes), self._plan)
        writer._sources, writer._params = self._sources, self._params
        writer.table, writer.has_table, writer.long = self.table, self.has_table, self.long
        writer.section, writer.section_number = "%section", number
        return writer

    def _body(self, function: Function) -> str:
        e, self._name = self.e, function.name
        self._growing = {b: k for k, b in enumerate(function.growing)}
        if self._growing:
            e.declarations |= growing.DECLARATIONS
            slots = f"[{2 * len(self._growing)} x i64]"
            self._entry += [f"  %growing = alloca {slots}, align 16", f"  store {slots} zeroinitializer, ptr %growing"]
        return self.assembled(function.body, lambda: self.block(function.body))

    def assembled(self, statements: Sequence[Any], write: Callable[[], None], head: Sequence[str] = ()) -> str:
        """The text of a function of these statements, which `write` writes. head: what it begins with."""
        e = self.e
        e.lines.append("entry:")
        e.line("br label %begin")
        e.start("begin")
        self.outlined = used_often(list(statements), e)
        write()
        self.leave("0")
        if self._has_clock:
            self._entry += ["  %last_look = alloca i64", "  store i64 0, ptr %last_look"]
            self._entry += ["  %time_run = alloca i64", "  store i64 0, ptr %time_run"]
        places = [f"  %places = alloca [{self._most_places} x ptr], align 16"] if self._most_places else []
        e.lines[1:1] = [*head, *places, *self._entry]
        return e.text

    def pointer(self, buffer: Buffer) -> str:
        """The pointer to a buffer: computed before a loop, else where it is used, so that no register holds it long."""
        if buffer in self._growing:
            return self.e.new(f"load ptr, ptr {self.slot(buffer)}", "i64").text
        if buffer in self._params:
            return self._params[buffer]
        found = self.e.known.get(buffer)
        if found is None:
            depth, lines = self.level(0)
            found = self.e.fresh()
            if buffer in self._sources:
                array, number = self._sources[buffer]
                if number:
                    lines.append(f"  {found}a = getelementptr ptr, ptr {array}, i64 {number}")
                lines.append(f"  {found} = load ptr, ptr {f'{found}a' if number else array}")
            else:
                lines.append(f"  {found} = getelementptr i8, ptr %arena, i64 {self._plan.offsets[buffer]}")
            if len(self.e.scopes) > 1:
                self.e.know(buffer, found, depth)
        return found

    def is_fixed(self, buffer: Buffer) -> bool:
        return buffer not in self._growing

    # --- calls ------------------------------------------------------------------------------------------------------

    def block(self, statements: list[Any]) -> None:
        """The statements in order; outside loops, long runs of calls go into the table."""
        if len(self.e.scopes) > 1 or not self.has_table:
            super().block(statements)
            return
        for listed, run in itertools.groupby(statements, self._is_listed):
            part = list(run)
            if listed and (len(part) >= self.long or sum(len(s.buffers) for s in part) >= self.long * PLACES):
                self.e.line(self.table.add((s.kernel.name, self._pointers(s)) for s in part))
            else:
                super().block(part)

    def _is_listed(self, s: Any) -> bool:
        """Whether a statement is a call that the table can hold: of a kernel that cannot fail, on fixed places."""
        if type(s) is not nodes.KernelCall or s.kernel.can_fail:
            return False
        if not self._growing.keys().isdisjoint(s.buffers):
            return False
        return s.starts is None or all(not at.terms and not (at.constant and b in self._sources) for b, at in s.places)

    @functools.cached_property
    def _words(self) -> dict[Buffer, int]:
        """Where the table finds each buffer."""
        arena = {b: pointer(ARENA, offset) for b, offset in self._plan.offsets.items()}
        return arena | {b: pointer(_ARRAYS[array], number) for b, (array, number) in self._sources.items()}

    def _pointers(self, s: nodes.KernelCall) -> list[int]:
        words = self._words
        found = list(map(words.__getitem__, s.buffers))
        if s.starts is not None:
            found = [word + pointer(0, at.constant * ITEM_BYTES[b.kind])
                     for word, (b, at) in zip(found, s.places, strict=True)]
        if s.kernel.arena is not None:
            return [*found, pointer(SELF, 0)]
        return found + [pointer(CONTEXT, self._pool_slot)] * (s.kernel.name in self.sharing)

    def other(self, statement: Any) -> None:
        kind = type(statement)
        if kind is nodes.KernelCall:
            self.kernel_call(statement)
        elif kind is nodes.HostCall:
            self.host_call(statement)
        elif kind is nodes.LibraryCall:
            self.library_call(statement)
        elif kind is nodes.Sections:
            self.sections(statement)
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
        return self.address(buffer, start)

    def kernel_call(self, s: nodes.KernelCall) -> None:
        """A call of a kernel; where it left with a status, the failure runs in Python, and the program leaves too."""
        e = self.e
        if s.kernel in self.in_place:
            self.kernel_in_place(s)
            return
        given = ", ".join([*(f"ptr {self.place(p)}" for p in s.places), *self._pool(s.kernel)])
        if not s.kernel.can_fail:
            e.line(f"call void @{s.kernel.name}({given})")
            return
        status = e.new(f"call i32 @{s.kernel.name}({given})", "i32")
        failed, fine = e.label("failed"), e.label("fine")
        bad = e.compare("ne", status, e.constant(0, "i32"))
        e.line(f"br i1 {bad.text}, label %{failed}, label %{fine}")
        e.start(failed)
        if s.failure is not None:
            e.open()
            self.in_python(s.failure)
            e.close()
        self.leave(status.text)
        e.start(fine)

    def kernel_in_place(self, s: nodes.KernelCall) -> None:
        """A kernel where it is called."""
        e, kernel = self.e, s.kernel
        writer = SharingWriter(e, kernel.name, self.in_place[kernel], self.levels)
        writer.outlined = used_often(kernel.body, e)
        writer.pointers |= {b: self.place(p) for b, p in zip(kernel.params, s.places, strict=True)}
        self._pool(kernel)
        start = len(e.lines)
        writer.allocate_locals(kernel)
        self._entry += e.lines[start:]
        del e.lines[start:]
        writer.block(kernel.body)
        self._entry += writer.entry
        self.functions += writer.functions

    def _pool(self, kernel: Function) -> list[str]:
        """The last argument of a part, and of a kernel that shares loops."""
        if kernel.arena is not None:
            return ["ptr %context", *([f"ptr {self.section}"] if self.section and kernel.can_fail else [])]
        if kernel.name not in self.sharing:
            return []
        self.need_pool()
        return ["ptr %pool"]

    def need_pool(self) -> None:
        """Have the pool as %pool."""
        if not self._has_pool:
            self._has_pool = True
            self._entry.append(f"  %pool.at = getelementptr ptr, ptr %context, i64 {self._pool_slot}")
            self._entry.append("  %pool = load ptr, ptr %pool.at")

    def sections(self, s: nodes.Sections) -> None:
        """Sections, or their statements in order."""
        if self.section:
            sections.write_sections(self, s)
        else:
            self.block(s.in_order)

    def next_name(self) -> str:
        """A new name for functions beside this one."""
        self._names += 1
        return f"{self._name}_sections{self._names - 1}"

    def entry_line(self, text: str) -> None:
        """One instruction that runs first."""
        self._entry.append(f"  {text}")

    def in_python(self, s: nodes.HostCall) -> Value:
        """Call the function that runs a step in Python; returns its status."""
        e = self.e
        self._most_places = max(self._most_places, len(s.places), 1)
        for k, place in enumerate(s.places):
            pointer = self.place(place)
            slot = e.fresh()
            e.line(f"{slot} = getelementptr ptr, ptr %places, i64 {k}")
            e.line(f"store ptr {pointer}, ptr {slot}")
        if self.section not in ("", "null"):
            return sections.run_step(self, str(s.number), "%places", len(s.places))
        function = e.fresh()
        e.line(f"{function} = load ptr, ptr %context")
        e.declarations[RUN_STEP] = f"declare i32 @{RUN_STEP}(ptr, i64, ptr)"
        return e.new(f"call i32 @{RUN_STEP}(ptr {function}, i64 {s.number}, ptr %places)", "i32")

    # --- signals ----------------------------------------------------------------------------------------------------

    def scalar_loop(self, loop: nodes.Loop) -> None:
        self._polls += loop.poll > 0
        super().scalar_loop(loop)
        self._polls -= loop.poll > 0

    def loop_while(self, s: nodes.While) -> None:
        self._polls += s.poll > 0
        super().loop_while(s)
        self._polls -= s.poll > 0

    def back_edge(self, loop: nodes.Loop | nodes.While, count: Value) -> None:
        """Look for signals every millisecond or so: by the number of iterations, or the time run if loops are in it."""
        if not loop.poll:
            return
        e = self.e
        if has_polls(loop.body):
            total = self.add_time(e.constant(max(int(loop.poll), 1), "i64"))
            due = e.compare("sgt", total, e.constant(int(EVERY), "i64"))
            self.look_if(due, reset=True)
        else:
            every = 1 << max(int(EVERY / loop.poll), 1).bit_length() - 1
            left = e.binary("and", count, e.constant(every - 1, "i64"))
            self.look_if(e.compare("eq", left, e.constant(0, "i64")), reset=False)

    def has_left(self, loop: nodes.While, count: Value) -> None:
        if loop.poll and self._polls > 1 and not has_polls(loop.body):
            self.add_time(self.e.binary("mul", count, self.e.constant(max(int(loop.poll), 1), "i64")))

    def add_time(self, time: Value) -> Value:
        """Add to the time that loops have run since the last look; returns the sum."""
        self._has_clock = True
        total = self.e.binary("add", self.e.load("%time_run", "i64"), time)
        self.e.store(total, "%time_run")
        return total

    def look_if(self, due: Value, reset: bool) -> None:
        """Look for signals if it is time to."""
        e, self._has_clock = self.e, True
        look, past = e.label("look"), e.label("past")
        e.line(f"br i1 {due.text}, label %{look}, label %{past}")
        e.start(look)
        if reset:
            e.line("store i64 0, ptr %time_run")
        self.look("%last_look")
        e.line(f"br label %{past}")
        e.start(past)

    def look(self, last: str) -> None:
        """Leave if a signal came whose handler raises."""
        if self.section not in ("", "null"):
            self.leave_if_failed(sections.look(self, last))
            return
        self.e.declarations[POLL] = f"declare i32 @{POLL}(ptr)"
        self.leave_if_failed(self.e.new(f"call i32 @{POLL}(ptr {last})", "i32"))

    def host_call(self, s: nodes.HostCall) -> None:
        if self._polls:
            self.look("null")
        self._most_places = max(self._most_places, 1)
        self.leave_if_failed(self.in_python(s))

    def leave_if_failed(self, status: Value) -> None:
        """Return the status if it is not 0."""
        self.leave_if(self.e.compare("ne", status, self.e.constant(0, "i32")), status.text)

    def leave_if(self, condition: Value, status: str) -> None:
        """Return the status if a condition holds."""
        e = self.e
        failed, fine = e.label("failed"), e.label("fine")
        e.line(f"br i1 {condition.text}, label %{failed}, label %{fine}")
        e.start(failed)
        self.leave(status)
        e.start(fine)

    def leave(self, status: str) -> None:
        """Return, once the memory of growing buffers is given back."""
        if self._growing:
            self.e.line(f"call void @release(ptr %growing, i64 {len(self._growing)})")
        if self.section_number >= 0:
            self.e.line(f"ret i64 {sections.code_of(self, status).text}")
            return
        self.e.line(f"ret i32 {status}" if self._can_fail else "ret void")

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
