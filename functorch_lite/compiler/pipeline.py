# SPDX-License-Identifier: MIT
"""The compile pipeline, and the seam that `jit` calls.

    trace      Python -> Program        transforms.jit, core.staging
    passes     Program -> Program       PASSES below, each pure
    schedule   Program -> groups        schedule.fusion
    lower      groups -> loop IR        lowering
    memory     loop IR -> offsets       memory.plan
    codegen    loop IR -> LLVM IR       codegen.llvm
    runtime    LLVM IR -> Executable    runtime

A program with values that loop IR does not hold (float8, run-time stacks at its boundary), and any program called with
CuPy arrays, is run by the evaluator: one NumPy or CuPy call for each equation.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from functorch_lite.compiler.passes import decompose as decompose
from functorch_lite.compiler.passes.accumulate import accumulate_after
from functorch_lite.compiler.passes.algebra import simplify
from functorch_lite.compiler.passes.attention import fuse_attention
from functorch_lite.compiler.passes.canonical import canonicalize
from functorch_lite.compiler.passes.common import eliminate_common
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.compiler.passes.fold import fold_constants
from functorch_lite.compiler.passes.hoist import hoist_invariants
from functorch_lite.compiler.passes.inline import inline_calls
from functorch_lite.compiler.passes.keys import hold_keys
from functorch_lite.compiler.passes.merge import merge_calls
from functorch_lite.compiler.passes.recompute import recompute_in_scans
from functorch_lite.compiler.passes.roll import roll_blocks
from functorch_lite.compiler.passes.turn import turn_products
from functorch_lite.compiler.passes.turn_gathers import turn_gathers
from functorch_lite.compiler.passes.turn_reductions import turn_reductions
from functorch_lite.config import config
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.core.program import Program, memoized


class Executable(Protocol):
    """A compiled program: called with one array for each input, it returns a list of outputs."""

    def __call__(self, *args: Any) -> list[Any]: ...


PASSES: Sequence[Callable[[Program], Program]] = (
    merge_calls, inline_calls, eliminate_dead_code, fold_constants, canonicalize, eliminate_common, fuse_attention,
    roll_blocks, simplify, eliminate_common, hoist_invariants, accumulate_after, eliminate_common, recompute_in_scans,
    turn_gathers, eliminate_dead_code, turn_reductions, turn_products, hold_keys,
)


def optimize(program: Program) -> Program:
    """The program after every pass, in order."""
    for transform in PASSES:
        program = transform(program)
    return program


def compile(
    program: Program, donated: Sequence[int] = (), mode: str = "plain", quick: bool = False,
    autotune: bool | None = None,
) -> Executable:
    """An executable of `program`; made once. donated: inputs whose memory outputs may take over.

    mode: "plain"; "verify" runs the evaluator beside it and compares; "profile" has clocks in it.
    quick: where that pays, make code quickly for the first call, and better code in the background after the second.
    autotune: whether a plain program measures its choices in its first call (runtime/tuning.py); None: the config's.
    """
    tunes = mode == "plain" and (config.autotune if autotune is None else autotune)
    key = ("executable", mode, config.num_threads, tunes, *donated)
    executable = memoized(program, key, lambda: _compile(program, donated, mode, quick, tunes))
    if not quick and getattr(executable, "is_quick", False):
        executable.improve()
    return executable


def _compile(program: Program, donated: Sequence[int], mode: str, quick: bool, tunes: bool) -> Executable:
    optimized = optimize(program)
    saved = _loaded("runtime.saved") if mode == "plain" and not tunes else None
    key = saved.key_of(optimized, donated) if saved is not None else None
    if saved is not None and key is not None:
        found = saved.find(program, optimized, key, quick)
        if found is not None:
            return found
    native = _native()
    if not native.can_lower(optimized):
        return Evaluator(optimized)
    if mode == "verify":
        return _loaded("trust.verify").VerifiedExecutable(program, optimized, donated=donated)
    if tunes:
        return _loaded("runtime.tuning").TunedExecutable(program, optimized, donated)
    executable = native.compile_native(program, optimized, donated, quick and mode == "plain")
    if mode == "profile":
        return _loaded("runtime.profile").profiled_executable(executable)
    if saved is not None and key is not None:
        saved.keep(key, executable)
    return executable


def _native() -> Any:
    """The native compiler, loaded when first used: it imports LLVM."""
    return _loaded("native")


@functools.cache
def _loaded(name: str) -> Any:
    return importlib.import_module(f"functorch_lite.compiler.{name}")


# --- looking at it, without running -----------------------------------------------------------------------------------


def stage_names() -> list[str]:
    """The names of the stages that `stage_text` prints, in order."""
    return _native().dumps.stage_names(PASSES)


def stage_text(program: Program, stage: str, executable: Any = None) -> str:
    """The program at a stage of its compilation. executable: what it was compiled to, whose choices are shown."""
    tuned = getattr(executable, "text", None) if stage == "choices" else None
    chosen = (executable.choices,) if hasattr(executable, "choices") else ()
    found = _native().dumps.stage_text(program, PASSES, stage, *chosen)
    return found if tuned is None else f"{found}\n{tuned()}"


def forecast(program: Program, captured: Sequence[Any], quick: bool = False) -> Any:
    """The memory that a call of the program will need."""
    return _native().forecast(program, optimize(program), captured, quick)


def cost(program: Program) -> Any:
    """The operations and bytes of a call of the program."""
    return _native().cost(optimize(program))
