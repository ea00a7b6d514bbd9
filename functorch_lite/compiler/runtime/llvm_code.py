# SPDX-License-Identifier: MIT
"""What only LLVM can do: tell what the processor has, make object files, and link those of any platform.

Importing this imports llvmlite, which takes longer than most first calls: engine.py does it when it comes to that.
"""

import contextlib
import ctypes
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm

from functorch_lite.compiler.runtime.engine import QUICK, USUAL, Target
from functorch_lite.compiler.runtime.pieces import cut, joined, parts_of

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
    """LLVM's target machine, and what a module for it says of it, in its first lines. busy: while it makes code."""

    def __init__(self, wanted: Target, level: int):
        # Position-independent code reaches symbols of the process anywhere in the address space.
        self.llvm = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
            cpu=wanted.cpu, features=wanted.features, opt=level, reloc="pic", codemodel="small"
        )
        self.head = f'target datalayout = "{self.llvm.target_data}"\ntarget triple = "{self.llvm.triple}"\n'
        self.busy = threading.Lock()


@functools.cache
def _machine(wanted: Target, level: int = USUAL, number: int = 0) -> _Machine:
    """A machine; those of other numbers are for other pieces of a module, which they make at the same time."""
    return _Machine(wanted, level)


def compile_object(ir_text: str, wanted: Target, passes: int, level: int, pieces: int = 1) -> bytes:
    """The object file of the LLVM module `ir_text` for a processor. pieces: how many may be made at the same time.

    Raises RuntimeError when the IR is wrong.
    """
    parts = cut(ir_text, pieces)
    if len(parts) == 1:
        return _object(ir_text, wanted, passes, level, 0)
    tasks = [functools.partial(_object, text, wanted, passes, QUICK if hot is False else level, k)
             for k, (text, hot) in enumerate(parts)]  # fmt: skip
    return joined(_Beside(tasks, pieces).results())


def _object(ir_text: str, wanted: Target, passes: int, level: int, number: int) -> bytes:
    machine = _machine(wanted, level, number)
    with (
        machine.busy, _contexts.one(len(ir_text)) as context,
        llvm.parse_assembly(machine.head + ir_text, context) as module,
    ):  # fmt: skip
        module.verify()
        if passes:
            options = llvm.create_pipeline_tuning_options(speed_level=passes)
            builder = llvm.create_pass_builder(machine.llvm, options)
            builder.getModulePassManager().run(module, builder)
        return _emitted(machine.llvm, module)


def _emitted(machine: llvm.TargetMachine, module: llvm.ModuleRef) -> bytes:
    """The object file, made without llvmlite's lock: LLVM asks no more than a context and a machine of one's own."""
    emit, library = _emit(), llvm.ffi.lib
    with llvm.ffi.OutputString() as error:
        found = emit(machine, module, 1, error)
        if not found:
            raise RuntimeError(str(error))
    try:
        return ctypes.string_at(library.LLVMPY_GetBufferStart(found), library.LLVMPY_GetBufferSize(found))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(found)


@functools.cache
def _emit() -> Callable[..., Any]:
    locking = llvm.ffi.lib.LLVMPY_TargetMachineEmitToMemory
    found = ctypes.CDLL(llvm.ffi.lib._name)["LLVMPY_TargetMachineEmitToMemory"]
    found.argtypes, found.restype = locking.argtypes, locking.restype
    return found


class _Beside:
    """Tasks that run at the same time, in this thread and some others."""

    def __init__(self, tasks: Sequence[Callable[[], Any]], threads: int):
        self._threads = min(threads, len(tasks))
        self._left = list(enumerate(tasks))[::-1]
        self._found: list[Any] = [None] * len(tasks)
        self._errors: list[BaseException] = []

    def results(self) -> list[Any]:
        """What they return, in their order. Raises the first error of one, when all threads have ended."""
        others = [threading.Thread(target=self._run, daemon=True) for _ in range(1, self._threads)]
        for thread in others:
            thread.start()
        try:
            self._run()
        finally:
            for thread in others:
                thread.join()
        if self._errors:
            raise self._errors[0]
        return self._found

    def _run(self) -> None:
        while not self._errors:
            try:
                number, task = self._left.pop()
            except IndexError:
                return
            try:
                self._found[number] = task()
            except BaseException as error:  # for the thread that waits
                self._errors.append(error)


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
    builder = llvm.JITLibraryBuilder().add_current_process()
    for part in parts_of(data):
        builder.add_object_img(part)
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
