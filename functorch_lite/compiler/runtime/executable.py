# SPDX-License-Identifier: MIT
"""A compiled program that can be called: native code, its arena and constants, and the steps that run in Python."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.compiler.cost import cost_of, multiplications
from functorch_lite.compiler.dumps import module_of
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.polls import POLL, has_polls
from functorch_lite.compiler.lowering.program import HostStep, Lowered, lower_program
from functorch_lite.compiler.memory.plan import Plan, plan_donations, plan_memory
from functorch_lite.compiler.runtime import engine, interrupts, libraries, threads
from functorch_lite.compiler.runtime.native_code import NativeCode
from functorch_lite.compiler.runtime.tiers import ALONE, pays
from functorch_lite.config import config
from functorch_lite.core.program import Literal, Program
from functorch_lite.core.rules import eval_rules
from functorch_lite.core.tracer import reset_trace, root, set_trace
from functorch_lite.errors import FunctorchLiteError, add_place, replays


class Executable(NativeCode):
    """A program that was compiled in this process; quickly at first, if that is asked for and pays.

    short: it was lowered for quickly made code, with small tiles.
    """

    def __init__(self, program: Program, optimized: Program, lowered: Lowered, donated: Sequence[int] = (),
                 quick: bool = False, short: bool = False):
        self._prepare(program, optimized)
        self._set(lowered)
        self.short = short
        self.ir = ""
        level = self._write_quick(config.num_threads) if quick else None
        if short and level is None:
            self._set(lower_program(optimized))
            self.short = False
        self.arena_bytes = self.plan.size
        self.ir = self.ir or self._module()
        self.symbols = {**libraries.symbols(self.ir), **interrupts.symbols(self.ir)}
        self.level = engine.USUAL if level is None else level
        self._enter(engine.load(self.ir, self.symbols, level=self.level), level is not None)
        self.shares = threads.SHARES in self.ir
        self.stands_alone = self.symbols.keys() <= {POLL} and not lowered.steps
        self._step = self._in_python  # kept alive: native code has its address
        self._give(self.constants, self._step, threads.pool_address(config.num_threads) if self.shares else 0)
        self._donated = donated
        self.donations = self._donations(self.lowered)

    def _set(self, lowered: Lowered) -> None:
        self.lowered = lowered
        self.plan: Plan = plan_memory(lowered.function, lowered.in_place)

    def _donations(self, lowered: Lowered) -> dict[int, int]:
        return plan_donations(lowered.function, lowered.in_place, lowered.inputs, lowered.outputs, self._donated)

    def _module(self) -> str:
        """The LLVM module, whose `run` a call runs."""
        return module_of(self.lowered, self.plan)

    @property
    def is_native(self) -> bool:  # type: ignore[override]
        """Whether `entry` can be called with nothing around it: no value passes between steps in Python."""
        return all(out is None for step in self.lowered.steps for out in step.outputs)

    @property
    def constants(self) -> Sequence[np.ndarray]:
        """The arrays that the code reads besides its inputs."""
        return self.lowered.constants

    def _write_quick(self, number: int) -> int | None:
        """Write the module, and tell the level of code generation at which a first call ends earlier with quickly made
        code of it; None if at none.

        It shares no loops where a first call ends earlier without. number: of the threads that share loops.
        """
        if not _is_bounded(self.lowered.function, set()):
            return None
        alone = self.work < ALONE[threads.is_made(number)]
        self.ir = module_of(self.lowered, self.plan, sharing=not alone)
        fast = pays(self.work, self.ir, multiplications(self.optimized), self.short)
        level = engine.QUICK if fast else engine.USUAL if self.short else None
        if level is not None and not engine.is_made(self.ir):
            self.alone, self.threads = number if alone else 0, number
            return level
        self.ir = "" if alone or self.short else self.ir
        return None

    def improve(self) -> None:
        """Run well made code from now on, whose loops are shared and whose tiles fill the registers."""
        if self.alone or self.short:
            if self.short:
                self._lower_as_usual()
            self.ir = self._module()
            self.share_loops()
        super().improve()

    def _lower_as_usual(self) -> None:
        """Have what was lowered with small tiles lowered as usual, unless that would need another context or arena."""
        usual, known = lower_program(self.optimized), self.lowered
        plan = plan_memory(usual.function, usual.in_place)
        same = [c.tobytes() for c in usual.constants] == [c.tobytes() for c in known.constants]
        if same and plan.size <= self.arena_bytes and self._donations(usual) == self.donations:
            self.lowered, self.plan = usual, plan
        self.short = False

    @functools.cached_property
    def work(self) -> int:
        """A rough count of operations and elements moved in one call; a loop of unknown length counts as many."""
        cost, loops = cost_of(self.lowered), has_polls(self.lowered.function.body)
        return cost.flops + 8 * cost.transcendentals + cost.bytes // 4 + 10**6 * (cost.python_steps + loops)

    def fail(self, status: int) -> None:
        """Raise what a step in Python raised during the call that came back with this status."""
        interrupts.raise_for(status)
        error, self._calls.error = self._calls.error, None
        raise error

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


def _is_bounded(function: nodes.Function, seen: set[nodes.Function]) -> bool:
    """Whether the loops of a program or a part, those of kernels aside, run a number of times that is known."""
    seen.add(function)
    return all(_is_bounded_statement(s, seen) for s in function.body)


def _is_bounded_statement(s: Any, seen: set[nodes.Function]) -> bool:
    if isinstance(s, nodes.KernelCall):
        return s.kernel in seen or s.kernel.arena is None or _is_bounded(s.kernel, seen)
    if isinstance(s, nodes.While) or (isinstance(s, nodes.Loop) and not isinstance(s.extent, int)):
        return False
    return all(_is_bounded_statement(inside, seen) for block in nodes.blocks(s) for inside in block)


def _view(pointer: int | None, aval: Any) -> np.ndarray:
    if not aval.size:
        return np.empty(aval.shape, aval.dtype)
    raw = (ctypes.c_char * (aval.size * aval.dtype.itemsize)).from_address(pointer)
    return np.ndarray(aval.shape, aval.dtype, raw)
