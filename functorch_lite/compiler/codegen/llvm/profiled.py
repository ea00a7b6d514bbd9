# SPDX-License-Identifier: MIT
"""The module of a program that counts: ticks and calls of each kernel, step in Python, library call and large copy.

Around each, `run` reads the processor's clock and adds to two 64-bit words, which the last pointer of its context
points to: ticks and calls of site 0 (the whole program), of site 1, and so on. `i64 cycles()` reads the clock.
"""

import platform
from collections.abc import Callable
from typing import Any, NamedTuple

from functorch_lite.compiler.codegen.llvm.emitter import Emitter
from functorch_lite.compiler.codegen.llvm.program import ProgramWriter
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Function
from functorch_lite.compiler.memory.plan import Part

SMALL_BYTES = 256  # a copy of less is not worth reading the clock for
PROGRAM, KERNEL, STEP, LIBRARY, COPY = "program", "kernel", "step", "library", "copy"


class Site(NamedTuple):
    """What is counted: a kernel by its name, a step by its number, a library function by its symbol, copies by the
    bytes they move."""

    kind: str
    name: Any


class ProfiledWriter(ProgramWriter):
    """Writes `run` with clocks in it; `sites` numbers what they time."""

    has_table = False

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.sites: dict[Site, int] = {}
        self._slot = 2 + sum(1 for array, _ in self._sources.values() if array == "%context")

    def write(self, function: Function) -> str:
        """The text of `run` and `cycles`."""
        self._find_counters()
        return f"{super().write(function)}\ndefine i64 @cycles() {{\n  %now = {_CLOCK}\n  ret i64 %now\n}}\n"

    def for_part(self, emitter: Emitter, part: Part) -> "ProfiledWriter":
        """The writer of a part, which counts beside this one."""
        writer = super().for_part(emitter, part)
        assert isinstance(writer, ProfiledWriter)
        writer.sites, writer._slot = self.sites, self._slot
        writer._find_counters()
        return writer

    def _find_counters(self) -> None:
        self._entry.append(f"  %counters_at = getelementptr ptr, ptr %context, i64 {self._slot}")
        self._entry.append("  %counters = load ptr, ptr %counters_at")
        self.e.declarations |= _CLOCK_DECLARATION

    def block(self, statements: list[Any]) -> None:
        """The outermost block is the whole program."""
        if self.sites:
            super().block(statements)
        else:
            self.timed(Site(PROGRAM, ""), lambda: super(ProfiledWriter, self).block(statements))

    def kernel_call(self, s: nodes.KernelCall) -> None:
        if s.kernel.arena is not None:
            super().kernel_call(s)
            return
        self.timed(Site(KERNEL, s.kernel.name), lambda: super(ProfiledWriter, self).kernel_call(s))

    def host_call(self, s: nodes.HostCall) -> None:
        self.timed(Site(STEP, s.number), lambda: super(ProfiledWriter, self).host_call(s))

    def library_call(self, s: nodes.LibraryCall) -> None:
        self.timed(Site(LIBRARY, s.symbol), lambda: super(ProfiledWriter, self).library_call(s))

    def copy(self, s: nodes.Copy) -> None:
        size = s.count * ITEM_BYTES[s.target.kind]
        if size < SMALL_BYTES:
            super().copy(s)
        else:
            self.timed(Site(COPY, 2 * size), lambda: super(ProfiledWriter, self).copy(s))

    def timed(self, site: Site, write: Callable[[], None]) -> None:
        """Write something with the clock read before and after it."""
        e = self.e
        number = self.sites.setdefault(site, len(self.sites))
        start = e.new(_CLOCK, "i64")
        write()
        end = e.new(_CLOCK, "i64")
        spent = e.binary("sub", end, start)
        for word, more in ((2 * number, spent.text), (2 * number + 1, "1")):
            at = e.fresh()
            e.line(f"{at} = getelementptr i64, ptr %counters, i64 {word}")
            old = e.new(f"load i64, ptr {at}", "i64")
            e.line(f"store i64 {e.new(f'add i64 {old.text}, {more}', 'i64').text}, ptr {at}")


_ARM = platform.machine() in ("aarch64", "arm64")
_CLOCK = ('call i64 asm sideeffect "mrs $0, cntvct_el0", "=r"()' if _ARM  # user code may not read ARM's cycle counter
          else "call i64 @llvm.readcyclecounter()")
_CLOCK_DECLARATION = {} if _ARM else {"llvm.readcyclecounter": "declare i64 @llvm.readcyclecounter()"}
