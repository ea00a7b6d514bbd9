# SPDX-License-Identifier: MIT
"""Compiled programs on disk, found by the program itself: a second process neither lowers nor imports what lowers.

The key is the text of the optimized program, the processor, the versions, and the state of the compiler's own source
files. What is kept is the object, the constants it reads and the few numbers that a call needs. A program with steps in
Python, with functions among its parameters, or that calls a library, is compiled anew in each process (its object is
still found on disk, by its LLVM IR).
"""

import ast
import functools
import hashlib
import importlib
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.runtime.native_code import NativeCode
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.config import config
from functorch_lite.core.program import Program, program_text

if TYPE_CHECKING:  # it imports what lowers
    from functorch_lite.compiler.runtime.executable import Executable

_PROCESS_BOUND = re.compile(r"@[0-9a-f]{6,}| at 0x")  # functions and objects among the parameters
_SOURCES = Path(__file__).parent.parent


class SavedExecutable(NativeCode):
    """A program whose native code was found on disk."""

    def __init__(self, program: Program, optimized: Program, data: bytes):
        self._prepare(program, optimized)
        size = int.from_bytes(data[:8], "little")
        facts = ast.literal_eval(data[8 : 8 + size].decode())
        self.constants, start = [], 8 + size
        for count in facts["constants"]:
            self.constants.append(np.frombuffer(data, np.uint8, count, start).copy())
            start += count
        end = start + facts["packed_ir"]
        self._packed_ir = data[start:end]
        self.symbols = _runtime("interrupts").addresses(facts["symbols"]) if facts["symbols"] else {}
        self._enter(engine.link(data[end:], ["run"], self.symbols), end > start)
        self.arena_bytes = facts["arena_bytes"]
        self.work = facts["work"]
        self.donations = facts["donations"]
        self.shares = facts["shares"]
        self.threads = config.num_threads
        self.alone = self.threads if facts["alone"] else 0
        self.short = facts["short"]
        self._whole = ""
        self._give(self.constants, pool=_runtime("threads").pool_address(config.num_threads) if self.shares else 0)

    def fail(self, status: int) -> None:
        """Raise what ended a call that came back with this status."""
        _runtime("interrupts").raise_for(status)
        super().fail(status)

    @property
    def ir(self) -> str:  # type: ignore[override]
        """The LLVM module of code that was made quickly; that of other code is not kept."""
        return self._whole or zlib.decompress(self._packed_ir).decode()

    def improve(self) -> None:
        """Run well made code from now on, whose loops are shared and whose tiles fill the registers."""
        if self.is_quick:
            native = importlib.import_module("functorch_lite.compiler.native")
            lowered = native.lower_program(self.optimized, donated=[*self.donations.values()])
            plan = lowered.plan()
            if native.may_replace(self, lowered, plan):
                self._whole = native.dumps.module_of(lowered, plan)
                self.share_loops()
            self.short = False
        super().improve()

    @functools.cached_property
    def lowered(self) -> Any:
        """The program as loop IR, made anew for who wants to look at it."""
        return importlib.import_module("functorch_lite.compiler.native").lower_program(self.optimized)


def _runtime(name: str) -> Any:
    """A module of the runtime that not every program needs."""
    return importlib.import_module(f"functorch_lite.compiler.runtime.{name}")


def key_of(optimized: Program, donated: Sequence[int]) -> str | None:
    """The key of a program, or None where it means something in this process only, or nothing is kept on disk."""
    if config.cache_dir == "":
        return None
    text = program_text(optimized, exact=True)
    if _PROCESS_BOUND.search(text):
        return None
    rest = repr((tuple(donated), engine.processor(), engine.versions(), _source_stamp()))
    return hashlib.sha256(f"program {rest}\n{text}".encode()).hexdigest()


@functools.cache
def _source_stamp() -> tuple[int, int, int]:
    """Number, bytes and newest change of the compiler's source files: another compiler makes other code."""
    count = total = newest = 0
    for folder, _, names in os.walk(_SOURCES):
        for name in names:
            if name.endswith(".py"):
                status = os.stat(os.path.join(folder, name))
                count, total, newest = count + 1, total + status.st_size, max(newest, status.st_mtime_ns)
    return count, total, newest


def find(program: Program, optimized: Program, key: str, quick: bool) -> SavedExecutable | None:
    """The code kept under a key. quick: code that was made quickly will do; its arena may be larger than the usual."""
    data = objects.find(key)
    if data is None:
        return None
    executable = SavedExecutable(program, optimized, data)
    if executable.short and not quick:
        return None
    _store_when_improved(key, executable)
    return executable


def keep(key: str, executable: "Executable") -> None:
    """Keep the code of an executable that needs nothing of this process, and again when it has better code."""
    if executable.stands_alone:
        _store(key, executable)
        _store_when_improved(key, executable)


def _store_when_improved(key: str, executable: NativeCode) -> None:
    executable.when_improved = lambda: _store(key, executable)


def _store(key: str, executable: Any) -> None:
    ir, is_quick = executable.ir, executable.is_quick
    packed_ir = zlib.compress(ir.encode(), 1) if is_quick else b""  # to make better code of in another process
    facts = {
        "arena_bytes": executable.arena_bytes, "work": executable.work, "shares": executable.shares,
        "alone": bool(executable.alone), "short": executable.short,
        "donations": executable.donations, "symbols": list(executable.symbols),
        "constants": [c.nbytes for c in executable.constants], "packed_ir": len(packed_ir),
    }
    head = repr(facts).encode()
    constants = b"".join(c.tobytes() for c in executable.constants)
    code = engine.object_of(ir, level=executable.level if is_quick else engine.USUAL)
    objects.store(key, len(head).to_bytes(8, "little") + head + constants + packed_ir + code)
