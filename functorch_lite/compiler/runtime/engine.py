# SPDX-License-Identifier: MIT
"""From LLVM IR text to native code in this process: `load(ir).address("name")`.

An object file is looked for in memory and on disk first (object_cache.py); else LLVM makes it, which is where the time
goes. The object is then linked into the process. IR must hold no addresses of this process, or a cached object would
be wrong in the next one: what the code needs from outside it declares, and `load` is given as `symbols`. Functions of
libc and libm are found without being given.

No optimisation pipeline runs by default: IR written in explicit vectors gains 1 to 8 percent by it, at nearly twice the
compile time. LLVM is imported when something has to be compiled, or linked that our own linker does not know
(linking.py): where all is found on disk, it never is.
"""

import ast
import functools
import hashlib
import importlib
import platform
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import llvmlite  # its version only

from functorch_lite.compiler.codegen.x86 import assembler
from functorch_lite.compiler.runtime import linking
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.compiler.runtime.pieces import FORMAT

USUAL, QUICK = 2, 0
"""Levels of LLVM's code generation: the same bits come out; see tiers.py for when which is used."""
_ASSEMBLED = 64
"""Bytes of the vector registers that the assembler has code for: those of AVX-512."""
_WIDEST = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"}
_NO_SYMBOLS: Mapping[str, int] = MappingProxyType({})
_EXPORTED = re.compile(r'\ndefine (?!internal |private )[^@\n]*@(?:"([^"\n]+)"|([-\w.$]+))\(')
_DECLARED = re.compile(r"(?:\ndeclare [^@\n]*|\n)@((?!llvm\.)[-\w.$]+)(?:\(| = external )")
_OF_PROCESSOR = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")


class Target(NamedTuple):
    """A processor to make code for.

    lanes_bytes: bytes of its widest vector register worth using.
    has_fma: `llvm.fma` is an instruction; where it is not, it would be a slow library call.
    cpu, features: as LLVM names them.
    """

    lanes_bytes: int
    has_fma: bool
    cpu: str
    features: str = ""


HASWELL = Target(32, True, "haswell")
NEHALEM = Target(16, False, "nehalem")


@functools.cache
def _llvm() -> Any:
    """What needs LLVM, imported when first used."""
    return importlib.import_module("functorch_lite.compiler.runtime.llvm_code")


@functools.cache
def target() -> Target:
    """The processor of this machine; LLVM is asked once, the answer is kept with the object files."""
    key = hashlib.sha256(f"target {(processor(), versions())!r}".encode()).hexdigest()
    known = objects.find(key)
    if known is not None:
        return Target(*ast.literal_eval(known.decode()))
    found = _llvm().host()
    objects.store(key, repr(tuple(found)).encode())
    return found


class Vectors(NamedTuple):
    """Of a processor's vectors what a Target has of them."""

    lanes_bytes: int
    has_fma: bool


@functools.cache
def vectors() -> Vectors:
    """The vectors of this machine; LLVM is not asked where the system tells that they are the widest."""
    flags = next((line.split() for line in processor().splitlines() if line.startswith("flags")), [])
    if linking.is_for_this_platform() and _WIDEST <= set(flags):
        return Vectors(64, True)
    found = target()
    return Vectors(found.lanes_bytes, found.has_fma)


@functools.cache
def processor() -> str:
    """What tells the processor of this machine from others, found without LLVM where the system says it."""
    if sys.platform.startswith("linux") and platform.machine() == "x86_64":
        try:
            with open("/proc/cpuinfo", encoding="utf-8") as file:
                first = file.read(1 << 14).partition("\n\n")[0].splitlines()
        except OSError:
            first = []
        found = [line for line in first if line.split("\t")[0] in _OF_PROCESSOR]
        if found:
            return "\n".join(found)
    return repr(_llvm().host())


class Loaded:
    """Native code in memory, for as long as this object lives. owner: what keeps it there."""

    __slots__ = ("_addresses", "_owner")

    def __init__(self, addresses: dict[str, int], owner: object):
        self._addresses = addresses
        self._owner = owner

    def address(self, name: str) -> int:
        """The address of the function `name`; KeyError when the IR defines no such function for others to see."""
        return self._addresses[name]

    def keep(self) -> "Loaded":
        """Leave the code in memory to the end of the process: for threads that never leave it."""
        _kept.append(self)
        return self


_kept: list[Loaded] = []
_compiling = threading.Lock()


def load(
    ir_text: str,
    symbols: Mapping[str, int] = _NO_SYMBOLS,
    *,
    cache: bool = True,
    target: Target | None = None,
    passes: int = 0,
    level: int = USUAL,
    pieces: int = 1,
) -> Loaded:
    """The functions that the LLVM module `ir_text` defines, as native code.

    symbols: addresses of what the module declares and libc and libm do not have.
    cache: look for the object file, and leave it, in memory and on disk.
    target: the processor to make code for; it must be one whose code this machine can run.
    passes: level of LLVM's optimisation pipeline; 0 is none. level: that of its code generation.
    pieces: of a long module, how many may be made at the same time.

    Raises RuntimeError when the IR is wrong, or when it declares a symbol that is found nowhere.

    >>> import ctypes
    >>> code = load("define i64 @one() { ret i64 1 }", cache=False)
    >>> ctypes.CFUNCTYPE(ctypes.c_int64)(code.address("one"))()
    1
    """
    data = object_of(ir_text, target, passes, cache, level, pieces)
    names = [quoted or plain for quoted, plain in _EXPORTED.findall(f"\n{ir_text}")]
    try:
        return link(data, names, symbols)
    except RuntimeError as e:
        absent = sorted(set(_DECLARED.findall(f"\n{ir_text}")) - set(symbols))
        unknown = [name for name in absent if not _llvm().is_in_process(name)]
        raise RuntimeError(f"{e}; not found: {', '.join(unknown) or 'none'}") from e


def link(data: bytes, names: Sequence[str], symbols: Mapping[str, int] = _NO_SYMBOLS) -> Loaded:
    """The functions `names` of an object file, put into memory by our own linker, or by LLVM's."""
    image = linking.link(data, names, symbols)
    if image is not None:
        return Loaded(image.addresses, image)
    return Loaded(*_llvm().link(data, names, symbols, target()))


def object_of(
    ir_text: str, wanted: Target | None = None, passes: int = 0, cache: bool = True, level: int = USUAL,
    pieces: int = 1,
) -> bytes:
    """The object file of a module: the one that is kept, or a new one."""
    if not cache:
        return _made(ir_text, wanted, passes, level, pieces)
    key = _key(ir_text, wanted, passes, level)
    found = objects.find(key)
    if found is None:
        with _compiling:  # LLVM works on one module at a time anyway; the second caller finds the first one's object
            found = objects.find(key)
            if found is None:
                found = _made(ir_text, wanted, passes, level, pieces)
                objects.store(key, found)
    return found


def _made(ir_text: str, wanted: Target | None, passes: int, level: int, pieces: int) -> bytes:
    """A new object file. What is to be made quickly is assembled without LLVM, where all that is in it is known."""
    if level == QUICK and wanted is None and not passes and linking.is_for_this_platform():
        found = assembler.assembled(ir_text) if vectors().lanes_bytes == _ASSEMBLED else None
        if found is not None:
            return found
    return compile_object(ir_text, wanted or target(), passes, level, pieces)


def versions() -> tuple[object, ...]:
    """What an object file depends on besides its module: versions, the platform, how pieces are put together, what
    the assembler knows."""
    return llvmlite.__version__, sys.platform, platform.machine(), FORMAT, assembler.FORMAT


def _key(ir_text: str, wanted: Target | None, passes: int, level: int) -> str:
    digest = _key_start(wanted, passes, level).copy()
    digest.update(ir_text.encode())
    return digest.hexdigest()


@functools.cache
def _key_start(wanted: Target | None, passes: int, level: int) -> Any:
    if wanted is not None and wanted == target():
        return _key_start(None, passes, level)
    what = processor() if wanted is None else (wanted.cpu, wanted.features)
    return hashlib.sha256(f"{(what, versions(), level, passes)!r}\n".encode())


def compile_object(ir_text: str, wanted: Target, passes: int = 0, level: int = USUAL, pieces: int = 1) -> bytes:
    """The object file of the LLVM module `ir_text` for a processor. pieces: how many may be made at the same time.

    Raises RuntimeError when the IR is wrong.
    """
    return _llvm().compile_object(ir_text, wanted, passes, level, pieces)
