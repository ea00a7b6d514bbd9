# SPDX-License-Identifier: MIT
"""A compiled program that can be called: native code, its arena and constants, and the steps that run in Python."""

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.compiler.codegen.llvm.shared import SHARES
from functorch_lite.compiler.cost import cost_of
from functorch_lite.compiler.dumps import module_of
from functorch_lite.compiler.loop_ir.nodes import INTERRUPTED, NO_MEMORY
from functorch_lite.compiler.loop_ir.polls import has_polls
from functorch_lite.compiler.lowering.program import HostStep, Lowered
from functorch_lite.compiler.memory.plan import Plan, plan_donations, plan_memory
from functorch_lite.compiler.runtime import engine, interrupts, libraries, threads
from functorch_lite.config import config
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.core.program import Literal, Program
from functorch_lite.core.rules import eval_rules
from functorch_lite.core.tracer import reset_trace, root, set_trace
from functorch_lite.errors import FunctorchLiteError, add_place, replays

_RUN = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)
_HOST = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p)


class Executable:
    """A program as native code. Called with one array for each input, it returns a list of new arrays.

    Safe to call from several threads and from within itself: each call has an arena of its own.

    fill: a byte written all over outputs and scratch memory before a call, by who checks that none is left unset.
    """

    fill: int | None = None

    def __init__(self, program: Program, optimized: Program, lowered: Lowered, donated: Sequence[int] = ()):
        self.program = program
        self.optimized = optimized
        self.lowered = lowered
        self.plan: Plan = plan_memory(lowered.function, lowered.in_place)
        self.ir = self._module()
        self._loaded = engine.load(self.ir, {**libraries.symbols(self.ir), **interrupts.symbols(self.ir)})
        self.entry = self._loaded.address("run")
        self._run = _RUN(self.entry)
        self._host = _HOST(self._in_python) if lowered.steps else None
        self._context = np.zeros(3 + len(lowered.constants), np.uintp)  # the last is for subclasses
        if self._host is not None:
            self._context[0] = ctypes.cast(self._host, ctypes.c_void_p).value or 0
        for k, constant in enumerate(lowered.constants):
            self._context[k + 1] = constant.ctypes.data
        self._context[len(lowered.constants) + 1] = threads.pool_address(config.num_threads) if SHARES in self.ir else 0
        self.context = self._context.ctypes.data
        self._in = [(a.shape, a.dtype) for a in program.in_avals]
        self._out = [(a.shape, a.dtype) for a in program.out_avals]
        self.donations = plan_donations(lowered.function, lowered.in_place, lowered.inputs, lowered.outputs, donated)
        self._arenas: list[np.ndarray] = []
        self._calls = threading.local()
        self._elsewhere: Evaluator | None = None

    def _module(self) -> str:
        """The LLVM module, whose `run` a call runs."""
        return module_of(self.lowered, self.plan)

    @property
    def arena_bytes(self) -> int:
        """Bytes of scratch memory that a call needs."""
        return self.plan.size

    @property
    def is_native(self) -> bool:
        """Whether `entry` can be called with nothing around it: no value passes between steps in Python."""
        return all(out is None for step in self.lowered.steps for out in step.outputs)

    @property
    def work(self) -> int:
        """A rough count of operations and elements moved in one call; a loop of unknown length counts as many."""
        cost, loops = cost_of(self.lowered), has_polls(self.lowered.function.body)
        return cost.flops + 8 * cost.transcendentals + cost.bytes // 4 + 10**6 * (cost.python_steps + loops)

    # --- calling ----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any) -> list[Any]:
        return self.donating(args, ())

    def donating(self, args: Sequence[Any], given_up: Sequence[int]) -> list[Any]:
        """Call with inputs that the caller has given up (their numbers): outputs may take over their memory."""
        if len(args) != len(self._in):
            raise TypeError(f"a program of {len(self._in)} inputs was called with {len(args)}.")
        if any(type(a) is not np.ndarray and not isinstance(a, np.generic | np.ndarray) for a in args):
            return self._evaluate(args)
        arrays = [_plain_array(a, dtype) for a, (_, dtype) in zip(args, self._in, strict=True)]
        outs, arena = [np.empty(shape, dtype) for shape, dtype in self._out], self._take_arena()
        if self.fill is not None:
            for memory in (*outs, arena):
                memory.reshape(-1).view(np.uint8)[...] = self.fill
        for k, i in self.donations.items():
            if i in given_up and arrays[i] is args[i] and arrays[i].flags.writeable and _is_apart(args, i):
                outs[k] = np.ndarray(*self._out[k], arrays[i])
        n = len(arrays)
        pointers = np.fromiter((a.ctypes.data for a in (*arrays, *outs)), np.uintp, n + len(outs))
        where = pointers.ctypes.data
        frame = {}, getattr(self._calls, "frame", None)
        self._calls.frame = frame
        try:
            status = self._run(where, where + 8 * n, arena.ctypes.data, self.context)
        finally:
            self._calls.frame = frame[1]
            self._arenas.append(arena)
        if status:
            self.fail(status)
        return [o if o.ndim else o[()] for o in outs]

    def fail(self, status: int) -> None:
        """Raise what a step in Python raised during the call that came back with this status."""
        if status == INTERRUPTED:
            interrupts.reraise()
        if status == NO_MEMORY:
            raise MemoryError("there is no memory for what the iterations of a loop leave for its reverse pass.")
        error, self._calls.error = self._calls.error, None
        raise error

    def _take_arena(self) -> np.ndarray:
        try:
            return self._arenas.pop()
        except IndexError:
            raw = np.empty(self.plan.size + 64, np.uint8)
            start = -raw.ctypes.data % 64
            return raw[start : start + max(self.plan.size, 1)]

    def _evaluate(self, args):
        """Arrays of another library than NumPy: one call of it for each equation."""
        if self._elsewhere is None:
            self._elsewhere = Evaluator(self.optimized)
        return self._elsewhere(*args)

    # --- steps in Python --------------------------------------------------------------------------------------------

    def _in_python(self, number: int, places: int) -> int:
        step = self.lowered.steps[number]
        try:
            self._run_step(step, places)
        except BaseException as error:
            if not isinstance(error, FunctorchLiteError):
                add_place(error, step.equation.prim.name, step.equation.source)
            self._calls.error = error
            return 1
        return 0

    @replays("equation")
    def _run_step(self, step: HostStep, places: int) -> None:
        equation = step.equation
        pointers = (ctypes.c_void_p * (len(step.inputs) + len(step.outputs))).from_address(places)
        names: dict[Any, Any] = (getattr(self._calls, "frame", None) or ({},))[0]
        given = iter(range(len(pointers)))
        args = [self._argument(a, atom, pointers, given, names)
                for a, atom in zip(step.inputs, equation.inputs, strict=True)]
        token = set_trace(root)
        try:
            found = eval_rules[equation.prim](np, *args, **equation.params)
        finally:
            reset_trace(token)
        results = found if equation.prim.multiple else [found]
        for value, out, var in zip(results, step.outputs, equation.outputs, strict=True):
            if out is None:
                _view(pointers[next(given)], var.aval)[...] = value
            else:
                names[out] = value

    def _argument(self, atom, of, pointers, given, names):
        if atom is None:
            view = _view(pointers[next(given)], of.aval).copy()
            return view if view.ndim else view[()]
        return atom.value if type(atom) is Literal else names[atom]


def _is_apart(args: Sequence[Any], number: int) -> bool:
    """Whether no other array of a call shares memory with this one."""
    mine = args[number]
    return not any(k != number and a.ndim and np.may_share_memory(a, mine) for k, a in enumerate(args))


def _plain_array(value: Any, dtype: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != dtype or not array.dtype.isnative:
        array = array.astype(dtype)
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.require(array, requirements=("C", "A"))


def _view(pointer: int | None, aval: Any) -> np.ndarray:
    if not aval.size:
        return np.empty(aval.shape, aval.dtype)
    raw = (ctypes.c_char * (aval.size * aval.dtype.itemsize)).from_address(pointer)
    return np.ndarray(aval.shape, aval.dtype, raw)
