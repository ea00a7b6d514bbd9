# SPDX-License-Identifier: MIT
"""Loop IR as text: `function_text` for people, and `function_key`, equal for functions that differ only in names.

    kernel total(x:f32[64] in, out:f32[1] out)
      for i in 64 vector
        carry a = 0.0 by add
        b = load x[i]
        c = add a b
        next a = c
      d = last a
      store out[0] = d
"""

import itertools
from typing import Any

from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import Buffer, Function, Index, Value

_LOOP_LETTERS = "ijklmn"
_VALUE_LETTERS = "abcdefghopqrstuvwxyz"
_CONVERSIONS = ("convert", "bitcast")


def function_text(function: Function) -> str:
    """The function, then each kernel it calls, once, in the order of the calls.

    Values are named a, b, ... in the order of definition, the variables of loops i, j, ... by how deep they nest.
    """
    functions = [function]
    texts = []
    for f in functions:  # grows while it is walked
        printer = _Printer(f)
        texts.append(printer.text())
        functions += [k for k in printer.kernels if k not in functions]
    return "\n".join(texts)


def statement_text(statement: Any) -> str:
    """One statement by itself, with what is inside it: for messages about it."""
    printer = _Printer(Function("statement", []))
    printer.block([statement], 0)
    return "\n".join(printer.lines)


class _Printer:
    def __init__(self, function: Function):
        self.function = function
        self.lines: list[str] = []
        self.kernels: list[Function] = []
        self.names: dict[Value, str] = {}
        self.loops = 0
        taken = {buffer.name for buffer in (*function.params, *function.locals)}
        self.fresh = (n for n in _letters(_VALUE_LETTERS) if n not in taken)
        self.fresh_variables = (n for n in _letters(_LOOP_LETTERS) if n not in taken)
        self.variables: list[str] = []  # of the loops around, and of those that nested deeper before

    def text(self) -> str:
        f = self.function
        params = [f"{b!r} {b.role}" for b in f.params] + [f"{self.define(v)}:i64" for v in f.integers]
        self.lines.append(f"kernel {f.name}({', '.join(params)}){' can fail' if f.can_fail else ''}")
        self.lines += [f"  local {b!r}" for b in f.locals]
        self.lines += [f"  growing {b.name}:{b.kind}" for b in f.growing]
        self.block(f.body, 1)
        return "\n".join(self.lines) + "\n"

    # --- names --------------------------------------------------------------------------------------------------------

    def define(self, value: Value) -> str:
        name = self.names[value] = next(self.fresh)
        return name

    def variable(self, value: Value) -> str:
        while len(self.variables) <= self.loops:
            self.variables.append(next(self.fresh_variables))
        name = self.names[value] = self.variables[self.loops]
        return name

    def name(self, value: Value) -> str:
        if value.op == "constant":
            return _number(value.attr)
        return self.names.get(value) or self.define(value)

    def index(self, index: Index) -> str:
        terms = [self.name(v) if c == 1 else f"{c}*{self.name(v)}" for v, c in index.terms]
        if index.constant or not terms:
            terms.append(str(index.constant))
        return " + ".join(terms).replace("+ -", "- ")

    def place(self, buffer: Buffer, index: Index) -> str:
        return f"{buffer.name}[{self.index(index)}]"

    # --- statements ---------------------------------------------------------------------------------------------------

    def block(self, statements: list[Any], depth: int) -> None:
        for s in statements:
            if isinstance(s, nodes.Loop):
                self.loop(s, depth)
            elif isinstance(s, nodes.While):
                self.loop_while(s, depth)
            elif isinstance(s, nodes.If):
                self.branch(s, depth)
            elif isinstance(s, nodes.Sections):
                self.sections(s, depth)
            else:
                self.line(depth, self.simple(s))

    def line(self, depth: int, text: str) -> None:
        self.lines.append("  " * depth + text)

    def simple(self, s: Any) -> str:
        """A statement of one line."""
        if isinstance(s, Value):
            right = self.right(s)
            return f"{self.define(s)} = {right}"
        if isinstance(s, nodes.Store):
            return f"store {self.place(s.buffer, s.index)} = {self.name(s.value)}"
        if isinstance(s, nodes.Copy):
            return f"copy {self.place(s.target, s.at)} = {self.place(s.source, s.start)} count {s.count}"
        if isinstance(s, nodes.Transpose):
            what = f"rows {s.rows} columns {s.columns} stride {s.stride} step {s.step}"
            return f"transpose {self.place(s.target, s.at)} = {self.place(s.source, s.start)} {what}"
        if isinstance(s, nodes.Fill):
            return f"fill {self.place(s.target, s.at)} count {s.count}"
        if isinstance(s, nodes.Prefetch):
            return f"prefetch {self.place(s.buffer, s.index)}{' near' * s.near}"
        if isinstance(s, nodes.Exit):
            return f"exit {self.name(s.status)}"
        return self.call(s)

    def right(self, v: Value) -> str:
        if v.op == "load":
            return f"load {self.place(*v.attr)}"
        if v.op == "index":
            return f"index {self.index(v.attr)}" + (f" to {v.kind}" if v.kind != "i64" else "")
        words = " ".join([v.op, *map(self.name, v.args)])
        return f"{words} to {v.kind}" if v.op in _CONVERSIONS else words

    def call(self, s: Any) -> str:
        """A call of a kernel, a library or Python."""
        if isinstance(s, nodes.KernelCall):
            if s.kernel not in self.kernels:
                self.kernels.append(s.kernel)
            failure = f" or fail by {self.call(s.failure)}" if s.failure is not None else ""
            return f"call {s.kernel.name}({', '.join(self.place(*p) for p in s.places)}){failure}"
        if isinstance(s, nodes.HostCall):
            places = [self.place(*p) for p in s.places]
            return f"host {s.number}({', '.join(places[: s.reads])}) -> ({', '.join(places[s.reads :])})"
        if isinstance(s, nodes.Grow):
            return f"grow {', '.join(f'{b.name} by rows of {n}' for b, n in s.buffers)} to {self.name(s.rows)} rows"
        if isinstance(s, nodes.Release):
            return f"release {', '.join(b.name for b in s.buffers)}"
        if isinstance(s, nodes.LibraryCall):
            text = f"library {s.symbol}({', '.join(map(self.argument, s.args))})"
            return text if s.result is None else f"{self.define(s.result)} = {text}"
        raise AssertionError(f"{type(s).__name__} is no statement")

    def argument(self, a: Any) -> str:
        if isinstance(a, Value):
            return self.name(a)
        return self.place(*a) if isinstance(a[0], Buffer) else f"&{a[0]} {_number(a[1])}"

    # --- blocks -------------------------------------------------------------------------------------------------------

    def loop(self, s: nodes.Loop, depth: int) -> None:
        extent = self.name(s.extent) if isinstance(s.extent, Value) else str(s.extent)
        starts = [self.name(c.initial) for c in s.carried]
        kind = " vector" * s.vector + "".join(f" apart {b.name}" for b in s.apart)
        self.line(depth, f"for {self.variable(s.variable)} in {extent}{kind}")
        self.loops += 1
        self.carry(s.carried, starts, depth + 1)
        self.block(s.body, depth + 1)
        self.following(s.carried, depth + 1)
        self.loops -= 1
        self.results(s.carried, depth)

    def loop_while(self, s: nodes.While, depth: int) -> None:
        starts = [self.name(c.initial) for c in s.carried]
        self.line(depth, "while")
        self.carry(s.carried, starts, depth + 1)
        self.block(s.test, depth + 1)
        self.line(depth, f"holds {self.name(s.condition)}")
        self.block(s.body, depth + 1)
        self.following(s.carried, depth + 1)
        self.results(s.carried, depth)

    def carry(self, carried: list[nodes.Carried], starts: list[str], depth: int) -> None:
        for c, start in zip(carried, starts, strict=True):
            self.line(depth, f"carry {self.define(c.value)} = {start}" + (f" by {c.combine}" if c.combine else ""))

    def following(self, carried: list[nodes.Carried], depth: int) -> None:
        for c in carried:
            self.line(depth, f"next {self.name(c.value)} = {self.name(c.next)}")

    def results(self, carried: list[nodes.Carried], depth: int) -> None:
        for c in carried:
            self.line(depth, f"{self.define(c.result)} = last {self.name(c.value)}")

    def branch(self, s: nodes.If, depth: int) -> None:
        self.line(depth, f"if {self.name(s.condition)}")
        self.block(s.then, depth + 1)
        if s.otherwise:
            self.line(depth, "else")
            self.block(s.otherwise, depth + 1)
        for result, first, second in s.results:
            merged = f"{self.name(first)} or {self.name(second)}"
            self.line(depth, f"{self.define(result)} = {merged}")

    def sections(self, s: nodes.Sections, depth: int) -> None:
        self.line(depth, "at the same time")
        for block in s.blocks:
            self.line(depth + 1, "section")
            self.block(block, depth + 2)


def _letters(letters: str):
    for k in itertools.count():
        for letter in letters:
            yield f"{letter}{k or ''}"


def _number(number: Any) -> str:
    return str(number).lower() if isinstance(number, bool) else repr(number)


# --- keys -----------------------------------------------------------------------------------------------------------


def function_key(function: Function) -> str:
    """A text equal for two functions that do the same statements on buffers of the same kinds, sizes and roles."""
    return _Key().function(function)


class _Key:
    """Numbers values and buffers in the order they are met: a name is what the function calls itself, no more."""

    def __init__(self):
        self.numbers: dict[Any, Any] = {}
        self.called: dict[int, int] = {}  # kernels, by identity, to their places in `kernels`
        self.kernels: list[str] = []
        self.out: list[str] = []

    def function(self, f: Function) -> str:
        numbers = self.numbers
        for b in (*f.params, *f.locals):
            numbers[b] = len(numbers)
            self.out.append(f"{b.kind}{b.size}{b.role}")
        for v in f.integers:
            numbers[v] = len(numbers)
        self.out.append(f"{len(f.integers)} {len(f.scratch)} {f.can_fail}")
        self.block(f.body)
        return "\n".join([*self.out, *self.kernels])

    def block(self, statements: list[Any]) -> None:
        """Statements in order; the frequent ones are written out here."""
        out, numbers, of = self.out, self.numbers, self.of
        for s in statements:
            kind = type(s)
            if kind is Value:
                if s.op == "load":
                    right = f"{numbers[s.attr[0]]}[{self.index(s.attr[1])}"
                elif s.op == "index":
                    right = self.index(s.attr)
                else:
                    right = " ".join([of(a) for a in s.args])
                numbers[s] = len(numbers)
                out.append(f"{s.op} {s.kind} {right}")
            elif kind is nodes.Store:
                out.append(f"={numbers[s.buffer]}[{self.index(s.index)} {of(s.value)}")
            else:
                self.rare(s, kind)

    def of(self, v: Value) -> str:
        return f"{v.kind}{v.attr!r}" if v.op == "constant" else f"%{self.numbers[v]}"

    def index(self, index: Index) -> str:
        terms = index.terms
        if len(terms) == 1:
            v, c = terms[0]
            return f"{index.constant}+{c}*{self.of(v)}"
        return f"{index.constant}+" + "+".join([f"{c}*{self.of(v)}" for v, c in terms])

    def place(self, place: Any) -> str:
        return f"{self.numbers[place[0]]}[{self.index(place[1])}"

    def new(self, v: Value) -> str:
        self.numbers[v] = len(self.numbers)
        return v.kind

    def rare(self, s: Any, kind: type) -> None:
        """A statement that is no value and no store."""
        if kind is nodes.Loop:
            self.loop(s)
        elif kind is nodes.While:
            self.open("while", s.carried)
            self.block(s.test)
            self.out.append(f"? {self.of(s.condition)}")
            self.close(s.body, s.carried)
        elif kind is nodes.If:
            self.branch(s)
        elif kind is nodes.Sections:
            for block, numbers in zip(s.blocks, s.numbers, strict=True):
                self.out.append(f"section {numbers}")
                self.block(block)
        elif kind is nodes.Copy:
            self.out.append(f"copy {self.place((s.target, s.at))} {self.place((s.source, s.start))} {s.count}")
        elif kind is nodes.Transpose:
            places = f"{self.place((s.target, s.at))} {self.place((s.source, s.start))}"
            self.out.append(f"transpose {places} {s.rows} {s.columns} {s.stride} {s.step}")
        elif kind is nodes.Fill:
            self.out.append(f"fill {self.place((s.target, s.at))} {s.count}")
        elif kind is nodes.Prefetch:
            self.out.append(f"prefetch {self.place((s.buffer, s.index))} {s.near}")
        elif kind is nodes.Exit:
            self.out.append(f"exit {self.of(s.status)}")
        else:
            self.call(s, kind)

    def loop(self, s: nodes.Loop) -> None:
        extent = s.extent if isinstance(s.extent, int) else self.of(s.extent)
        self.open(f"for {extent} {s.vector} {[self.numbers[b] for b in s.apart]}", s.carried)
        self.new(s.variable)
        self.close(s.body, s.carried)

    def open(self, head: str, carried: list[nodes.Carried]) -> None:
        starts = [f"{self.of(c.initial)} {c.combine}" for c in carried]
        self.out.append(f"{head} {starts}")
        for c in carried:
            self.new(c.value)

    def close(self, body: list[Any], carried: list[nodes.Carried]) -> None:
        self.block(body)
        self.out.append(f"end {[self.of(c.next) for c in carried]}")
        for c in carried:
            self.new(c.result)

    def branch(self, s: nodes.If) -> None:
        self.out.append(f"if {self.of(s.condition)}")
        self.block(s.then)
        self.out.append("else")
        self.block(s.otherwise)
        self.out.append(f"end {[(self.of(a), self.of(b)) for _, a, b in s.results]}")
        for result, _, _ in s.results:
            self.new(result)

    def call(self, s: Any, kind: type) -> None:
        if kind is nodes.HostCall:
            self.out.append(f"host {s.number} {[self.place(p) for p in s.places]} {s.reads}")
        elif kind is nodes.KernelCall:
            self.out.append(f"call {self.kernel(s.kernel)} {list(map(self.place, s.places))}")
            if s.failure is not None:
                self.call(s.failure, nodes.HostCall)
        else:
            self.out.append(f"library {s.symbol} {list(map(self.argument, s.args))} {s.result is not None}")
            if s.result is not None:
                self.new(s.result)

    def argument(self, a: Any) -> str:
        if isinstance(a, Value):
            return self.of(a)
        return self.place(a) if isinstance(a[0], Buffer) else f"&{a!r}"

    def kernel(self, kernel: Function) -> int:
        """The place of a called kernel's key below this function's; equal kernels share one."""
        if id(kernel) not in self.called:
            key = function_key(kernel)
            if key not in self.kernels:
                self.kernels.append(key)
            self.called[id(kernel)] = self.kernels.index(key)
        return self.called[id(kernel)]
