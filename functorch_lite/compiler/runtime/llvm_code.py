# SPDX-License-Identifier: MIT
"""What only LLVM can do: tell what the processor has, make object files, and link those of any platform.

Importing this imports llvmlite, which takes longer than most first calls: engine.py does it when it comes to that.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

import llvmlite.binding as llvm

from functorch_lite.compiler.runtime.engine import USUAL, Target

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

LIBRARIES_PER_LINKER = 64
CONTEXT_TEXT = 1 << 18
_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")


def host() -> Target:
    """The processor of this machine."""
    features = llvm.get_host_cpu_features()
    arm = llvm.get_process_triple().startswith(("aarch64", "arm64"))
    if all(features.get(name) for name in _AVX512):
        lanes = 64
    else:
        lanes = 32 if features.get("avx2") else 16
    return Target(lanes, arm or bool(features.get("fma")), llvm.get_host_cpu_name(), features.flatten())


class _Machine:
    """LLVM's target machine, and what a module for it says of it, in its first lines."""

    def __init__(self, wanted: Target, level: int):
        # Position-independent code reaches symbols of the process anywhere in the address space.
        self.llvm = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
            cpu=wanted.cpu, features=wanted.features, opt=level, reloc="pic", codemodel="small"
        )
        self.head = f'target datalayout = "{self.llvm.target_data}"\ntarget triple = "{self.llvm.triple}"\n'


@functools.cache
def _machine(wanted: Target, level: int = USUAL) -> _Machine:
    return _Machine(wanted, level)


def compile_object(ir_text: str, wanted: Target, passes: int, level: int) -> bytes:
    """The object file of the LLVM module `ir_text` for a processor.

    Raises RuntimeError when the IR is wrong.
    """
    machine = _machine(wanted, level)
    with _contexts.one(len(ir_text)) as context, llvm.parse_assembly(machine.head + ir_text, context) as module:
        module.verify()
        if passes:
            options = llvm.create_pipeline_tuning_options(speed_level=passes)
            builder = llvm.create_pass_builder(machine.llvm, options)
            builder.getModulePassManager().run(module, builder)
        return machine.llvm.emit_object(module)


class _Contexts:
    """Lends LLVM contexts, which modules are made in, each to one thread at a time.

    A context takes time to make and keeps the types and constants of its modules, so one is used again until it has
    seen `CONTEXT_TEXT` characters of them.
    """

    def __init__(self):
        self._free: list[tuple[llvm.ContextRef, int]] = []

    @contextlib.contextmanager
    def one(self, size: int) -> Iterator[llvm.ContextRef]:
        """A context for a module of so many characters; one that met an error is not used again."""
        try:
            context, seen = self._free.pop()
        except IndexError:
            context, seen = llvm.create_context(), 0
        again = False
        try:
            yield context
            again = seen + size < CONTEXT_TEXT
        finally:
            if again:
                self._free.append((context, seen + size))
            else:
                context.close()


_contexts = _Contexts()


class _Linkers:
    """Hands out LLVM linkers, a new one after some uses: each keeps 9 kB for every library it ever linked."""

    def __init__(self):
        self._lock = threading.Lock()
        self._uses = 0
        self._current: llvm.LLJIT | None = None

    def next(self, target: Target) -> tuple[llvm.LLJIT, str]:
        """A linker, and a library name that it has not seen."""
        with self._lock:
            number = self._uses % LIBRARIES_PER_LINKER
            self._uses += 1
            if self._current is None or number == 0:
                jit_link = sys.platform != "win32"  # as LLVM chooses by itself
                self._current = llvm.create_lljit_compiler(
                    _machine(target).llvm, use_jit_link=jit_link, suppress_errors=True
                )
            return self._current, f"library{number}"


_linkers = _Linkers()


def link(
    data: bytes, names: Sequence[str], symbols: Mapping[str, int], target: Target
) -> tuple[dict[str, int], object]:
    """The addresses of the functions `names` of an object file, and what keeps them in memory.

    Raises RuntimeError when a symbol is found nowhere.
    """
    builder = llvm.JITLibraryBuilder().add_object_img(data).add_current_process()
    for name, address in symbols.items():
        builder.import_symbol(name, address)
    for name in names:
        builder.export_symbol(name)
    linker, library = _linkers.next(target)
    tracker = builder.link(linker, library)
    return {name: tracker[name] for name in names}, (linker, tracker)


def is_in_process(name: str) -> bool:
    """Whether the process has a symbol, such as a function of libc or libm."""
    return llvm.address_of_symbol(name) is not None
