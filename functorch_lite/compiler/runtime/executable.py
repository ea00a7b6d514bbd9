# SPDX-License-Identifier: MIT
"""A compiled program that can be called: native code, its arena and constants, and the steps that run in Python."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.compiler.codegen.llvm.levels import Levels
from functorch_lite.compiler.cost import TRANSCENDENTAL, cost_of, multiplications
from functorch_lite.compiler.dumps import module_of
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.polls import POLL, has_polls
from functorch_lite.compiler.lowering.program import HostStep, Lowered, lower_program
from functorch_lite.compiler.memory.plan import Plan, plan_donations
from functorch_lite.compiler.runtime import engine, interrupts, libraries, threads
from functorch_lite.compiler.runtime.native_code import NativeCode
from functorch_lite.compiler.runtime.tiers import ALONE, pays
from functorch_lite.compiler.schedule.choices import Choices
from functorch_lite.config import config
from functorch_lite.core.program import Literal, Program
from functorch_lite.core.rules import eval_rules
from functorch_lite.core.tracer import reset_trace, root, set_trace
from functorch_lite.errors import FunctorchLiteError, add_place, replays

_IN_QUICK_CODE = Choices(streams=False)  # first calls write to new pages, which are in the cache when they are there
_WORTH = 100  # lines of functions that are not made well, of code that otherwise is


class Executable(NativeCode):
    """A program that was compiled in this process; quickly at first, if that is asked for and pays.

    short: it was lowered for quickly made code, with small tiles, or short loops that stay loops.
    """

    def __init__(self, program: Program, optimized: Program, lowered: Lowered, donated: Sequence[int] = (),
                 quick: bool = False, short: bool = False):
        self._prepare(program, optimized)
        self._set(lowered)
        self.short = short
        self._donated = donated
        self.ir = ""
        level = self._write_quick(config.num_threads) if quick else None
        if short and level is None:
            self._set(lower_program(optimized, donated=donated))
            self.short = False
        self.arena_bytes = self.plan.size
        self.ir = self.ir or self._module()
        self.symbols = {**libraries.symbols(self.ir), **interrupts.symbols(self.ir)}
        self.level = engine.USUAL if level is None else level
        code = engine.load(self.ir, self.symbols, level=self.level, pieces=config.num_threads)
        self._enter(code, level is not None)
        self.shares = threads.SHARES in self.ir
        self.stands_alone = self.symbols.keys() <= {POLL} and not lowered.steps
        self._step = self._in_python  # kept alive: native code has its address
        self.constants = self.lowered.constants
        self._give(self.constants, self._step, threads.pool_address(config.num_threads) if self.shares else 0)
        self.donations = donations_of(self.lowered, donated)

    def _set(self, lowered: Lowered) -> None:
        self.lowered = lowered
        self.plan: Plan = lowered.plan()

    def _module(self) -> str:
        """The LLVM module, whose `run` a call runs."""
        return module_of(self.lowered, self.plan)

    @property
    def is_native(self) -> bool:  # type: ignore[override]
        """Whether `entry` can be called with nothing around it: no value passes between steps in Python."""
        return all(out is None for step in self.lowered.steps for out in step.outputs)

    def _write_quick(self, number: int) -> int | None:
        """Write the module, and tell the level of code generation at which a first call ends earlier with quickly made
        code of it; None if at none. Where it is the usual one, that is for some functions, and the lowest for others.

        It shares no loops where a first call ends earlier without. number: of the threads that share loops.
        """
        if not _is_bounded(self.lowered.function, set()):
            return None
        alone = self.work < ALONE[threads.is_made(number)]
        levels = Levels(self.lowered.function, self.short, self.work)
        self.ir = module_of(self.lowered, self.plan, sharing=not alone, choices=_IN_QUICK_CODE, levels=levels)
        fast = not levels.lines and pays(self.work, self.ir, multiplications(self.optimized), self.short)
        if fast or self.short or (levels.lines and self.ir.count("\n") > levels.lines + _WORTH):
            self.alone, self.threads = number if alone else 0, number
            return engine.QUICK if fast else engine.USUAL
        self.ir = ""
        return None

    def improve(self) -> None:
        """Run well made code from now on, whose loops are shared and whose tiles fill the registers."""
        if self.is_quick:
            if self.short:
                self._lower_as_usual()
            self.ir = self._module()
            self.share_loops()
        super().improve()

    def _lower_as_usual(self) -> None:
        """Have what was lowered with small tiles lowered as usual, unless that would need another context or arena."""
        usual = lower_program(self.optimized, donated=self._donated)
        plan = usual.plan()
        if may_replace(self, usual, plan):
            self.lowered, self.plan = usual, plan
        self.short = False

    @functools.cached_property
    def work(self) -> int:
        """A rough count of operations and elements moved in one call; a loop of unknown length counts as many."""
        cost, loops = cost_of(self.lowered), has_polls(self.lowered.function.body)
        operations = cost.flops + TRANSCENDENTAL * cost.transcendentals
        return operations + cost.bytes // 4 + 10**6 * (cost.python_steps + loops)

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


def donations_of(lowered: Lowered, donated: Sequence[int]) -> dict[int, int]:
    """For an output that may take over the memory of a donated input, the numbers of the two."""
    return plan_donations(lowered.function, lowered.in_place, lowered.inputs, lowered.outputs, donated)


def may_replace(code: NativeCode, lowered: Lowered, plan: Plan) -> bool:
    """Whether code of a program that was lowered anew can be called like this code: with its context, arena, donations.
    """
    constants = [c.tobytes() for c in lowered.constants] == [c.tobytes() for c in code.constants]
    return constants and plan.size <= code.arena_bytes and code.donations == donations_of(
        lowered, sorted(code.donations.values()))


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
