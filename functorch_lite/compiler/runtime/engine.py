# SPDX-License-Identifier: MIT
"""From LLVM IR text to native code in this process: `load(ir).address("name")`.

An object file is looked for in memory and on disk first (object_cache.py); else LLVM makes it, which is where the time
goes. The object is then linked into the process. IR must hold no addresses of this process, or a cached object would
be wrong in the next one: what the code needs from outside it declares, and `load` is given as `symbols`. Functions of
libc and libm are found without being given.

No optimisation pipeline runs by default: IR written in explicit vectors gains 1 to 8 percent by it, at nearly twice the
compile time. Importing this module imports llvmlite; elsewhere write `runtime.engine`, which does it when first used.
"""

import functools
import hashlib
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import llvmlite
import llvmlite.binding as llvm

from functorch_lite.compiler.runtime.object_cache import objects

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

USUAL, QUICK = 2, 0
"""Levels of LLVM's code generation: the same bits come out; see tiers.py for when which is used."""
LIBRARIES_PER_LINKER = 64
_NO_SYMBOLS: Mapping[str, int] = MappingProxyType({})
_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
_EXPORTED = re.compile(r'\ndefine (?!internal |private )[^@\n]*@(?:"([^"\n]+)"|([-\w.$]+))\(')
_DECLARED = re.compile(r"(?:\ndeclare [^@\n]*|\n)@((?!llvm\.)[-\w.$]+)(?:\(| = external )")


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
def target() -> Target:
    """The processor of this machine."""
    features = llvm.get_host_cpu_features()
    arm = llvm.get_process_triple().startswith(("aarch64", "arm64"))
    if all(features.get(name) for name in _AVX512):
        lanes = 64
    else:
        lanes = 32 if features.get("avx2") else 16
    return Target(lanes, arm or bool(features.get("fma")), llvm.get_host_cpu_name(), features.flatten())


@functools.cache
def _machine(wanted: Target, level: int = USUAL) -> llvm.TargetMachine:
    # Position-independent code reaches symbols of the process anywhere in the address space.
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=wanted.cpu, features=wanted.features, opt=level, reloc="pic", codemodel="small"
    )


class Loaded:
    """Native code in memory, for as long as this object lives."""

    __slots__ = ("_addresses", "_linker", "_tracker")

    def __init__(self, linker: llvm.LLJIT, tracker: llvm.ResourceTracker, names: list[str]):
        self._linker = linker
        self._tracker = tracker
        self._addresses = {name: tracker[name] for name in names}

    def address(self, name: str) -> int:
        """The address of the function `name`; KeyError when the IR defines no such function for others to see."""
        return self._addresses[name]

    def keep(self) -> "Loaded":
        """Leave the code in memory to the end of the process: for threads that never leave it."""
        _kept.append(self)
        return self


_kept: list[Loaded] = []
_compiling = threading.Lock()


class _Linkers:
    """Hands out LLVM linkers, a new one after some uses: each keeps 9 kB for every library it ever linked."""

    def __init__(self):
        self._lock = threading.Lock()
        self._uses = 0
        self._current: llvm.LLJIT | None = None

    def next(self) -> tuple[llvm.LLJIT, str]:
        """A linker, and a library name that it has not seen."""
        with self._lock:
            number = self._uses % LIBRARIES_PER_LINKER
            self._uses += 1
            if self._current is None or number == 0:
                jit_link = sys.platform != "win32"  # as LLVM chooses by itself
                self._current = llvm.create_lljit_compiler(
                    _machine(target()), use_jit_link=jit_link, suppress_errors=True
                )
            return self._current, f"library{number}"


_linkers = _Linkers()


def load(
    ir_text: str,
    symbols: Mapping[str, int] = _NO_SYMBOLS,
    *,
    cache: bool = True,
    target: Target | None = None,
    passes: int = 0,
    level: int = USUAL,
) -> Loaded:
    """The functions that the LLVM module `ir_text` defines, as native code.

    symbols: addresses of what the module declares and libc and libm do not have.
    cache: look for the object file, and leave it, in memory and on disk.
    target: the processor to make code for; it must be one whose code this machine can run.
    passes: level of LLVM's optimisation pipeline; 0 is none. level: that of its code generation.

    Raises RuntimeError when the IR is wrong, or when it declares a symbol that is found nowhere.

    >>> import ctypes
    >>> code = load("define i64 @one() { ret i64 1 }", cache=False)
    >>> ctypes.CFUNCTYPE(ctypes.c_int64)(code.address("one"))()
    1
    """
    data = object_of(ir_text, target, passes, cache, level)
    names = [quoted or plain for quoted, plain in _EXPORTED.findall(f"\n{ir_text}")]
    try:
        return link(data, names, symbols)
    except RuntimeError as e:
        absent = sorted(set(_DECLARED.findall(f"\n{ir_text}")) - set(symbols))
        unknown = [name for name in absent if llvm.address_of_symbol(name) is None]
        raise RuntimeError(f"{e}; not found: {', '.join(unknown) or 'none'}") from e


def link(data: bytes, names: Sequence[str], symbols: Mapping[str, int] = _NO_SYMBOLS) -> Loaded:
    """The functions `names` of an object file."""
    builder = llvm.JITLibraryBuilder().add_object_img(data).add_current_process()
    for name, address in symbols.items():
        builder.import_symbol(name, address)
    for name in names:
        builder.export_symbol(name)
    linker, library = _linkers.next()
    return Loaded(linker, builder.link(linker, library), list(names))


def is_made(ir_text: str) -> bool:
    """Whether the object file of a module at the usual level is kept."""
    return objects.find(_key(ir_text, target(), 0, USUAL)) is not None


def object_of(
    ir_text: str, wanted: Target | None = None, passes: int = 0, cache: bool = True, level: int = USUAL
) -> bytes:
    """The object file of a module: the one that is kept, or a new one."""
    wanted = wanted or target()
    if not cache:
        return compile_object(ir_text, wanted, passes, level)
    key = _key(ir_text, wanted, passes, level)
    found = objects.find(key)
    if found is None:
        with _compiling:  # LLVM works on one module at a time anyway; the second caller finds the first one's object
            found = objects.find(key)
            if found is None:
                found = compile_object(ir_text, wanted, passes, level)
                objects.store(key, found)
    return found


def versions() -> tuple[object, ...]:
    """The versions and the platform that an object file depends on."""
    return llvmlite.__version__, llvm.llvm_version_info, llvm.get_process_triple()


def _key(ir_text: str, wanted: Target, passes: int, level: int) -> str:
    rest = repr((wanted.cpu, wanted.features, versions(), level, passes))
    return hashlib.sha256(f"{rest}\n{ir_text}".encode()).hexdigest()


def compile_object(ir_text: str, wanted: Target, passes: int = 0, level: int = USUAL) -> bytes:
    """The object file of the LLVM module `ir_text` for a processor.

    Raises RuntimeError when the IR is wrong.
    """
    machine = _machine(wanted, level)
    with llvm.create_context() as context, llvm.parse_assembly(ir_text, context) as module:
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
        if passes:
            options = llvm.create_pipeline_tuning_options(speed_level=passes)
            builder = llvm.create_pass_builder(machine, options)
            builder.getModulePassManager().run(module, builder)
        return machine.emit_object(module)
