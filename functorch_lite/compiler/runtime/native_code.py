# SPDX-License-Identifier: MIT
"""Calling native code from Python: what executables share, whether compiled now or found on disk."""

import ctypes
import functools
import importlib
import struct
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from functorch_lite.backends.copies import c_ordered
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.runtime.tiers import improver
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.core.program import Program

_content_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_word_at = ctypes.c_size_t.from_address
_DATA = struct.calcsize("iiciiPP")  # what comes before `data` in PyArrayInterface
_POOL = -2  # the pool's word in the context
_WORD = next(code for code in "QLI" if array(code).itemsize == struct.calcsize("P"))
_RUN = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)


class NativeCode:
    """A program as native code. Called with one array for each input, it returns a list of new arrays.

    Safe to call from several threads and from within itself: each call has an arena of its own.

    entry: address of the word that holds the address of `i32 run(ptr inputs, ptr outputs, ptr arena, ptr context)`.
    donations: for an output that may take over the memory of a donated input, the numbers of the two.
    constants: the arrays that the code reads besides its inputs, of which it has the addresses: they live as it does.
    work: a rough count of operations and elements moved. ir, symbols: the LLVM module, and what it is linked to.
    is_quick: the code was made quickly; the second call asks for better (see tiers.py). when_improved: called then.
    shares: whether threads share loops of the code. alone: where quickly made code shares none, how many threads are to
    share those of the better code, else 0. short: quickly made code was lowered to little, the better is lowered anew.
    threads: of the pool that shares loops of the better code. level: of the code generation of quickly made code.
    fill: a byte written all over outputs and scratch memory before a call, by who checks that none is left unset.
    """

    fill: int | None = None
    is_native = True

    program: Program
    optimized: Program
    ir: str
    symbols: Mapping[str, int] = MappingProxyType({})
    is_quick = False
    shares = False
    alone = 0
    short = False
    threads = 0
    level = engine.USUAL
    when_improved: Callable[[], None] | None = None
    entry: int
    context: int
    arena_bytes: int
    donations: dict[int, int]
    constants: Sequence[np.ndarray]

    def _prepare(self, program: Program, optimized: Program) -> None:
        """Set what calls need, but for the code."""
        self.program = program
        self.optimized = optimized
        self._in: list[Any] = program.in_avals
        self._out: list[Any] = program.out_avals
        self._arenas: list[np.ndarray] = []
        self._calls = threading.local()
        self._elsewhere: Evaluator | None = None
        self._times = 0
        self._code: list[engine.Loaded] = []
        self._word = array(_WORD, [0])
        self.entry = self._word.buffer_info()[0]

    def _enter(self, code: engine.Loaded, is_quick: bool) -> None:
        """Let calls run this code. What they ran before stays in memory: some may be inside it."""
        self._code.append(code)
        self._word[0] = address = code.address("run")
        self._run = _RUN(address)
        self.is_quick = is_quick

    def _give(self, constants: Sequence[np.ndarray], step: Any = None, pool: int = 0) -> None:
        """Make the context: the function that runs steps in Python, constants, the pool, a word for subclasses."""
        self._context = array(_WORD, [id(step) if step is not None else 0, *map(_address, constants), pool, 0])
        self.context = self._context.buffer_info()[0]

    def share_loops(self) -> None:
        """Have the code that is made next share loops, where its module has such."""
        threads = importlib.import_module("functorch_lite.compiler.runtime.threads")
        self.shares = threads.SHARES in self.ir
        if self.shares:
            self._context[_POOL] = threads.pool_address(self.threads)
        self.alone = 0

    def improve(self) -> None:
        """Run well made code from now on."""
        if not self.is_quick:
            return
        self._enter(engine.load(self.ir, self.symbols), False)
        if self.when_improved is not None:
            self.when_improved()

    def __call__(self, *args: Any) -> list[Any]:
        return self.donating(args, ())

    def donating(self, args: Sequence[Any], given_up: Sequence[int]) -> list[Any]:
        """Call with inputs that the caller has given up (their numbers): outputs may take over their memory."""
        if len(args) != len(self._in):
            raise TypeError(f"a program of {len(self._in)} inputs was called with {len(args)}.")
        if any(type(a) is not np.ndarray and not isinstance(a, np.generic | np.ndarray) for a in args):
            return self._evaluate(args)
        arrays = [_plain_array(a, aval.dtype) for a, aval in zip(args, self._in, strict=True)]
        if self.is_quick:
            self._called()
        outs, arena = [np.empty(a.shape, a.dtype) for a in self._out], self._take_arena()
        if self.fill is not None:
            for memory in (*outs, arena):
                memory.reshape(-1).view(np.uint8)[...] = self.fill
        n = len(arrays)
        pointers = np.fromiter(map(_address, (*arrays, *outs)), np.uintp, n + len(outs))
        if given_up:
            self._take_over(args, arrays, given_up, outs, pointers)
        where = _address(pointers)
        frame = {}, getattr(self._calls, "frame", None)
        self._calls.frame = frame
        try:
            status = self._run(where, where + 8 * n, _address(arena), self.context)
        finally:
            self._calls.frame = frame[1]
            self._arenas.append(arena)
        if status:
            self.fail(status)
        return [o if o.ndim else o[()] for o in outs]

    def _take_over(
        self, args: Sequence[Any], arrays: Sequence[np.ndarray], given_up: Sequence[int], outs: list[np.ndarray],
        pointers: np.ndarray,
    ) -> None:
        """Give outputs the memory of inputs that the caller has given up and that no other input shares."""
        n, given, shared = len(arrays), set(given_up), share_memory(pointers[: len(arrays)], self._in_bytes)
        for k, i in self.donations.items():
            if i in given and not shared[i] and arrays[i] is args[i] and arrays[i].flags.writeable:
                outs[k] = np.ndarray(self._out[k].shape, self._out[k].dtype, arrays[i])
                pointers[n + k] = pointers[i]

    @functools.cached_property
    def _in_bytes(self) -> np.ndarray:
        return np.array([a.size * a.dtype.itemsize for a in self._in], np.uintp)

    def _called(self) -> None:
        """Have better code made at the second call."""
        self._times += 1
        if self._times == 2:
            improver.add(self.improve)

    def fail(self, status: int) -> None:
        """Raise the error of a call that came back with this status."""
        raise RuntimeError(f"compiled code left with status {status}.")

    def _take_arena(self) -> np.ndarray:
        try:
            return self._arenas.pop()
        except IndexError:
            raw = np.empty(self.arena_bytes + 64, np.uint8)
            start = -_address(raw) % 64
            return raw[start : start + max(self.arena_bytes, 1)]

    def _evaluate(self, args):
        """Arrays of another library than NumPy: one call of it for each equation."""
        if self._elsewhere is None:
            self._elsewhere = Evaluator(self.optimized)
        return self._elsewhere(*args)


def _address(array: np.ndarray) -> int:
    """The address of the data, as NumPy's C array interface has it: `array.ctypes.data` takes three times as long."""
    interface = array.__array_struct__  # lives while it is read
    return _word_at(_content_of(interface, None) + _DATA).value


def share_memory(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """For pieces of memory, each `sizes[i]` bytes from `starts[i]` on, whether it meets another; bool [n].

    Of an empty piece it may say so without need.
    """
    order = np.argsort(starts)
    starts, ends = starts[order], (starts + sizes)[order]
    meets = np.maximum.accumulate(ends)[:-1] > starts[1:]  # the piece after with one before it
    found = np.zeros(len(order), bool)
    found[order[1:]] = meets
    found[order[:-1]] |= ends[:-1] > starts[1:]
    return found


def _plain_array(value: Any, dtype: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != dtype or not array.dtype.isnative:
        array = array.astype(dtype)
    return c_ordered(array)
