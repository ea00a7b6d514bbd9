# SPDX-License-Identifier: MIT
"""Sections (schedule/sections.py) as LLVM functions that the thread pool runs at the same time.

A section is a function beside the one it stands in,

    i64 program_sections0_1(ptr environment)

which returns 0, or where it left: a status, with the number of the section and of the statement above it. In the
environment, an array of 64-bit words, it finds what it has from outside, and puts the values that are used after it:

    0          1: leave as soon as possible, for a signal came     1   when the caller last looked for signals
    2          where the word is that says so: word 0, or that of the section which these sections are in
    3 ...      what each section returned
    then       pointers and values from outside, results, and for each section a record:
               word 2, the number of the step in Python that is to raise its error, or -1, and the places it is given

A worker must not call Python. So a section, and a part that is called in one, gets a pointer to the record; where an
error is to be raised the step is put off, and the caller takes it, once all sections have ended, of the one that left
at the first statement in the order of the program. Without a pool the caller runs one section after another.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from functorch_lite.compiler.codegen.llvm.emitter import Emitter, Value
from functorch_lite.compiler.codegen.llvm.scalar_ops import REGISTER
from functorch_lite.compiler.codegen.llvm.shared import call_pool
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.effects import Effects
from functorch_lite.compiler.loop_ir.nodes import INTERRUPTED, Function, Sections
from functorch_lite.compiler.loop_ir.polls import POLL, has_polls
from functorch_lite.compiler.runtime.interrupts import RUN_STEP
from functorch_lite.compiler.schedule.parallel import every

if TYPE_CHECKING:
    from functorch_lite.compiler.codegen.llvm.program import ProgramWriter

_STOP, _WHICH, _CODES = 0, 2, 3
_HEAD = 2  # words of a record before the places


def has_sections(functions: Iterable[Function]) -> bool:
    """Whether one of the functions has sections."""
    return any(type(s) is Sections for f in functions for s in f.body)


def most_places(functions: Iterable[Function]) -> int:
    """How many places a step has at most that raises the error of a kernel."""
    calls = (s for f in functions for s in every(f.body) if type(s) is nodes.KernelCall)
    return max((len(s.failure.places) for s in calls if s.failure is not None), default=0)


class Environment:
    """Where in the environment of some sections the words are."""

    def __init__(self, count: int, pointers: Sequence[str], given: Sequence[Any], results: Sequence[Any], places: int):
        self.pointers = {name: _CODES + count + k for k, name in enumerate(pointers)}
        start = _CODES + count + len(pointers)
        self.values = {v: start + k for k, v in enumerate([*given, *results])}
        self.records = start + len(self.values)
        self.record_words = _HEAD + places
        self.words = self.records + count * self.record_words

    def record(self, k: int) -> int:
        """The first word of a section's record."""
        return self.records + k * self.record_words


def write_sections(writer: "ProgramWriter", s: Sections) -> None:
    """Have the pool run the sections, then leave if one did, else go on with their results."""
    e = writer.e
    needs = [Effects(block).needs for block in s.blocks]
    given = list(dict.fromkeys(v for found in needs for v in found))
    results = [v for found in s.results for v in found]
    name = writer.next_name()
    env = Environment(len(s.blocks), writer.bases, given, results, writer.places_of_steps)
    kinds: dict[nodes.Value, str] = {}
    for k in range(len(s.blocks)):
        writer.functions.append(_section(writer, f"{name}_{k}", s, k, env, needs[k], kinds))
    writer.functions.append(_dispatch(name, len(s.blocks)))
    at = e.fresh()
    writer.entry_line(f"{at} = alloca [{env.words} x i64], align 16")
    _fill(writer, at, env, given, len(s.blocks))
    looks = any(map(_looks, s.blocks))
    if looks:
        helper(e, "look_in_section")
    idle = helper(e, "idle_in_sections") if looks else "null"
    writer.need_pool()
    call_pool(e, "sections", f"@{name}", at, len(s.blocks), f"i64 {s.uneven}, ptr {idle}")
    if looks or any(Effects(block).can_fail for block in s.blocks):
        _leave_if_one_did(writer, at, env, len(s.blocks))
    for v in results:
        writer.values[v] = e.new(f"load {_type(kinds[v])}, ptr {_word(e, at, env.values[v])}", kinds[v])


def _word(e: Emitter, at: str, k: int) -> str:
    return e.new(f"getelementptr i64, ptr {at}, i64 {k}", "i64").text


def _type(kind: str) -> str:
    return Value("", kind).type


def _fill(writer: "ProgramWriter", at: str, env: Environment, given: Sequence[nodes.Value], count: int) -> None:
    """Write the environment: nobody stops, no section has run, no step is put off."""
    e = writer.e
    e.line(f"store i64 0, ptr {at}")
    e.line(f"store i64 0, ptr {_word(e, at, 1)}")
    which = _word(e, at, _WHICH)
    e.line(f"store ptr {at}, ptr {which}")
    if writer.section != "null":
        none = e.new(f"icmp eq ptr {writer.section}, null", "i1")
        place = e.new(f"select i1 {none.text}, ptr {which}, ptr {writer.section}", "i64")
        outer = e.new(f"load ptr, ptr {place.text}", "i64")
        e.line(f"store ptr {outer.text}, ptr {which}")
    stop = e.new(f"load ptr, ptr {which}", "i64")
    for k in range(count):
        lost = k << 8 | INTERRUPTED  # what it stays for one that a fork has lost
        e.line(f"store i64 {lost}, ptr {_word(e, at, _CODES + k)}")
        e.line(f"store ptr {stop.text}, ptr {_word(e, at, env.record(k))}")
        e.line(f"store i64 -1, ptr {_word(e, at, env.record(k) + 1)}")
    for name, k in env.pointers.items():
        e.line(f"store ptr {name}, ptr {_word(e, at, k)}")
    for v in given:
        value = writer.get(v)
        e.line(f"store {value.type} {value.text}, ptr {_word(e, at, env.values[v])}")


def _leave_if_one_did(writer: "ProgramWriter", at: str, env: Environment, count: int) -> None:
    """Leave for a signal, or for the first failure in the order of the program."""
    e = writer.e
    stop = e.new(f"load ptr, ptr {_word(e, at, _WHICH)}", "i64")
    stopped = e.compare("ne", e.load(stop.text, "i64"), e.constant(0, "i64"))
    writer.leave_if(stopped, str(INTERRUPTED))
    first = e.constant(-1, "i64")
    for k in range(count):  # 0 comes last, as the largest number
        code = e.binary("sub", e.load(_word(e, at, _CODES + k), "i64"), e.constant(1, "i64"))
        first = e.select(e.compare("ult", code, first), code, first)
    failed, fine = e.label("failed"), e.label("fine")
    bad = e.compare("ne", first, e.constant(-1, "i64"))
    e.line(f"br i1 {bad.text}, label %{failed}, label %{fine}")
    e.start(failed)
    code = e.binary("add", first, e.constant(1, "i64"))
    number = e.binary("and", e.binary("lshr", code, e.constant(8, "i64")), e.constant(255, "i64"))
    words = e.binary("mul", number, e.constant(env.record_words, "i64"))
    record = e.new(f"getelementptr i64, ptr {_word(e, at, env.records)}, i64 {words.text}", "i64").text
    step = e.load(_word(e, record, 1), "i64")
    put_off, leave = e.label("put_off"), e.label("leave")
    has = e.compare("sge", step, e.constant(0, "i64"))
    e.line(f"br i1 {has.text}, label %{put_off}, label %{leave}")
    e.start(put_off)
    run_step(writer, step.text, _word(e, record, _HEAD), env.record_words - _HEAD)
    e.line(f"br label %{leave}")
    e.start(leave)
    writer.leave(e.convert("trunc", e.binary("and", code, e.constant(255, "i64")), "i32").text)
    e.start(fine)


def run_step(writer: "ProgramWriter", number: str, places: str, count: int) -> Value:
    """Run a step in Python that raises an error, or put it off if this is in a section; returns a status."""
    given = f"ptr {writer.section}, ptr %context, i64 {number}, ptr {places}, i64 {8 * count}"
    return writer.e.new(f"call i32 {helper(writer.e, 'run_or_put_off')}({given})", "i32")


def look(writer: "ProgramWriter", last: str) -> Value:
    """Look for signals, in what may be a section; returns a status."""
    return writer.e.new(f"call i32 {helper(writer.e, 'look_in_section')}(ptr {writer.section}, ptr {last})", "i32")


def _looks(statements: Sequence[Any]) -> bool:
    """Whether one of the loops in a section, or in a part that it calls, looks for signals."""
    return has_polls(statements) or any(
        type(s) is nodes.KernelCall and s.kernel.arena is not None and _looks(s.kernel.body) for s in every(statements))


# --- a section --------------------------------------------------------------------------------------------------------


def _section(
    outer: "ProgramWriter", name: str, s: Sections, k: int, env: Environment, needs: Sequence[nodes.Value],
    kinds: dict[nodes.Value, str],
) -> str:
    """The function of section k; notes the kinds of its results."""
    writer, block, numbers = outer.for_section(k), s.blocks[k], s.numbers[k]
    e, head = writer.e, []

    def word(number: int) -> str:
        head.append(f"  {(found := e.fresh())} = getelementptr i64, ptr %environment, i64 {number}")
        return found

    for pointer, number in env.pointers.items():
        head.append(f"  {pointer} = load ptr, ptr {word(number)}")
    head.append(f"  %section = getelementptr i64, ptr %environment, i64 {env.record(k)}")
    for v in needs:
        kind, text = REGISTER[v.kind], e.fresh()
        head.append(f"  {text} = load {_type(kind)}, ptr {word(env.values[v])}")
        writer.values[v] = Value(text, kind)

    def body() -> None:
        pairs = zip(numbers, block, strict=True)
        for fails, run in itertools.groupby(pairs, lambda pair: Effects([pair[1]]).can_fail):
            _run(writer, list(run), fails)
        for v in s.results[k]:
            value = writer.get(v)
            kinds[v] = value.kind
            e.line(f"store {value.type} {value.text}, ptr {_word(e, '%environment', env.values[v])}")

    text = writer.assembled(block, body, head)
    outer.e.declarations |= e.declarations
    outer.e.tables |= e.tables
    outer.functions += writer.functions
    return f"define internal i64 @{name}(ptr %environment) #0 {{\n{text}\n}}\n"


def _run(writer: "ProgramWriter", pairs: Sequence[tuple[int, Any]], fails: bool) -> None:
    """Statements in order; of each that may fail its number is noted."""
    if not fails:
        writer.block([s for _, s in pairs])
        return
    for number, s in pairs:
        writer.statement_number = number
        writer.block([s])


def code_of(writer: "ProgramWriter", status: str) -> Value:
    """What a section returns when it leaves with a status."""
    e = writer.e
    if status == "0":
        return e.constant(0, "i64")
    above = writer.statement_number << 16 | writer.section_number << 8
    wide = e.new(f"zext i32 {status} to i64", "i64")
    return e.binary("or", wide, e.constant(above, "i64"))


def _dispatch(name: str, count: int) -> str:
    """The function that the pool calls: runs the sections from %begin to %end, and notes what they return."""
    cases = " ".join(f"i64 {k}, label %run{k}" for k in range(1, count))
    runs = "".join(f"run{k}:\n  %code{k} = call i64 @{name}_{k}(ptr %environment)\n  br label %done\n"
                   for k in range(count))
    codes = ", ".join(f"[%code{k}, %run{k}]" for k in range(count))
    return f"""define internal void @{name}(ptr %environment, i64 %begin, i64 %end) #0 {{
entry:
  %codes = getelementptr i64, ptr %environment, i64 {_CODES}
  br label %next
next:
  %k = phi i64 [%begin, %entry], [%k.next, %done]
  switch i64 %k, label %run0 [{cases}]
{runs}done:
  %code = phi i64 {codes}
  %at = getelementptr i64, ptr %codes, i64 %k
  store i64 %code, ptr %at
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, %end
  br i1 %more, label %next, label %out
out:
  ret void
}}
"""


_LOOK = f"""; look for signals, or for whether another section has found one
define internal i32 @look_in_section(ptr %section, ptr %last) #0 {{
entry:
  %outside = icmp eq ptr %section, null
  br i1 %outside, label %plain, label %inside
plain:
  %found = call i32 @{POLL}(ptr %last)
  ret i32 %found
inside:
  %stop.at = load ptr, ptr %section
  %stop = load atomic i64, ptr %stop.at monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %leave, label %look
look:
  %status = call i32 @{POLL}(ptr %last)
  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %go.on, label %tell
tell:
  store atomic i64 1, ptr %stop.at monotonic, align 8
  br label %leave
leave:
  ret i32 {INTERRUPTED}
go.on:
  ret i32 0
}}
"""
_IDLE = f"""; what the caller of sections does while it waits for others: word 2 of the environment is as in a record
define internal void @idle_in_sections(ptr %environment) #0 {{
entry:
  %which = getelementptr i64, ptr %environment, i64 {_WHICH}
  %last = getelementptr i64, ptr %environment, i64 1
  %status = call i32 @look_in_section(ptr %which, ptr %last)
  ret void
}}
"""
_PUT_OFF = f"""; run a step in Python, or note it in the record of the section that this is in
define internal i32 @run_or_put_off(ptr %section, ptr %context, i64 %number, ptr %places, i64 %bytes) #0 {{
entry:
  %outside = icmp eq ptr %section, null
  br i1 %outside, label %now, label %later
now:
  %function = load ptr, ptr %context
  %status = call i32 @{RUN_STEP}(ptr %function, i64 %number, ptr %places)
  ret i32 %status
later:
  %number.at = getelementptr i64, ptr %section, i64 1
  store i64 %number, ptr %number.at
  %places.at = getelementptr i64, ptr %section, i64 {_HEAD}
  call void @llvm.memcpy.p0.p0.i64(ptr %places.at, ptr %places, i64 %bytes, i1 false)
  ret i32 1
}}
"""
_HELPERS = {
    "look_in_section": (_LOOK, {POLL: f"declare i32 @{POLL}(ptr)"}),
    "run_or_put_off": (_PUT_OFF, {
        RUN_STEP: f"declare i32 @{RUN_STEP}(ptr, i64, ptr)",
        "llvm.memcpy.p0.p0.i64": "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
    }),
    "idle_in_sections": (_IDLE, {}),
}


def helper(e: Emitter, name: str) -> str:
    """A function of the module that sections call, which is written when first called."""
    text, declarations = _HELPERS[name]
    if name not in e.declarations:
        e.declarations |= declarations
        e.declarations[name] = text
    return f"@{name}"
