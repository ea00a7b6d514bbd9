# SPDX-License-Identifier: MIT
"""Compiled programs on disk, found by the program itself: a second process neither lowers nor imports what lowers.

The key is the text of the optimized program, the processor, the versions, and the state of the compiler's own source
files. What is kept is the object, the constants it reads and the few numbers that a call needs. A program with steps in
Python, with functions among its parameters, or that calls a library, is compiled anew in each process (its object is
still found on disk, by its LLVM IR).
"""

import functools
import hashlib
import importlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.runtime.native_code import NativeCode
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.config import config
from functorch_lite.core.program import Program, program_text

_PROCESS_BOUND = re.compile(r"@[0-9a-f]{6,}| at 0x")  # functions and objects among the parameters
_SOURCES = Path(__file__).parent.parent


class SavedExecutable(NativeCode):
    """A program whose native code was found on disk."""

    def __init__(self, program: Program, optimized: Program, data: bytes):
        size = int.from_bytes(data[:8], "little")
        facts = json.loads(data[8 : 8 + size])
        self._constants, start = [], 8 + size
        for count in facts["constants"]:
            self._constants.append(np.frombuffer(data, np.uint8, count, start).copy())
            start += count
        self._loaded = engine.link(data[start:], ["run"])
        self.entry = self._loaded.address("run")
        self.arena_bytes = facts["arena_bytes"]
        self.work = facts["work"]
        self.donations = {k: i for k, i in facts["donations"]}
        self._context = np.zeros(3 + len(self._constants), np.uintp)
        for k, constant in enumerate(self._constants):
            self._context[k + 1] = constant.ctypes.data
        if facts["shares"]:
            self._context[len(self._constants) + 1] = _pool_address()
        self.context = self._context.ctypes.data
        self._prepare(program, optimized)

    @functools.cached_property
    def lowered(self) -> Any:
        """The program as loop IR, made anew for who wants to look at it."""
        return importlib.import_module("functorch_lite.compiler.native").lower_program(self.optimized)


def _pool_address() -> int:
    threads = importlib.import_module("functorch_lite.compiler.runtime.threads")
    return threads.pool_address(config.num_threads)


def key_of(optimized: Program, donated: Sequence[int]) -> str | None:
    """The key of a program, or None where it means something in this process only, or nothing is kept on disk."""
    if config.cache_dir == "":
        return None
    text = program_text(optimized, exact=True)
    if _PROCESS_BOUND.search(text):
        return None
    rest = repr((tuple(donated), engine.target(), engine.versions(), _source_stamp()))
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


def find(program: Program, optimized: Program, key: str) -> SavedExecutable | None:
    """The code kept under a key."""
    data = objects.find(key)
    return None if data is None else SavedExecutable(program, optimized, data)


def keep(key: str, executable: Any, shares: bool) -> None:
    """Keep the code of an executable that needs nothing of this process."""
    lowered = executable.lowered
    facts = {
        "arena_bytes": executable.arena_bytes, "work": executable.work, "shares": shares,
        "donations": list(executable.donations.items()),
        "constants": [c.nbytes for c in lowered.constants],
    }
    head = json.dumps(facts).encode()
    constants = b"".join(c.tobytes() for c in lowered.constants)
    objects.store(key, len(head).to_bytes(8, "little") + head + constants + engine.object_of(executable.ir))
