# SPDX-License-Identifier: MIT
"""Every stage of a program's compilation as text, by name: what `f.lower(...).as_text(stage=...)` prints."""

from collections.abc import Callable, Sequence

from functorch_lite.compiler.codegen.llvm.program import write_module
from functorch_lite.compiler.loop_ir.printer import function_text
from functorch_lite.compiler.lowering.program import Lowered, lower_program
from functorch_lite.compiler.memory.plan import Plan, plan_memory
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.schedule.choices import USUAL, Choices
from functorch_lite.compiler.schedule.fusion import Schedule
from functorch_lite.compiler.schedule.printer import schedule_text
from functorch_lite.core.program import Program

Pass = Callable[[Program], Program]


def stage_text(program: Program, passes: Sequence[Pass], stage: str) -> str:
    """The text of one of `stage_names(passes)`."""
    if stage == "program":
        return str(program)
    for transform in passes:
        program = transform(program)
        if stage == transform.__name__:
            return str(program)
    return _LATER[stage](program)


def stage_names(passes: Sequence[Pass]) -> list[str]:
    """The stages in order; a pass that runs twice is shown after its first run."""
    return ["program", *dict.fromkeys(p.__name__ for p in passes), *_LATER]


def _memory(program: Program) -> str:
    lowered = lower_program(program)
    plan = plan_memory(lowered.function, lowered.in_place)
    lines = [f"arena of {plan.size} bytes"]
    for buffer, (first, last) in plan.lifetimes.items():
        lines.append(f"  {buffer} at {plan.offsets[buffer]}, alive from statement {first} to {last}")
    return "\n".join(lines)


def module_of(lowered: Lowered, plan: Plan, *, sharing: bool = True, choices: Choices = USUAL) -> str:
    """The LLVM module of a lowered program for this machine.

    sharing: whether threads share its long loops. choices: which of them, and what they stream.
    """
    machine = engine.target()
    return write_module(
        lowered.function, lowered.kernels, lowered.inputs, lowered.outputs, lowered.constant_buffers, plan,
        parts=lowered.parts, has_fma=machine.has_fma, lanes_bytes=machine.lanes_bytes, sharing=sharing,
        choices=choices,
    )


def _llvm(program: Program) -> str:
    lowered = lower_program(program)
    return module_of(lowered, plan_memory(lowered.function, lowered.in_place))


_LATER: dict[str, Callable[[Program], str]] = {
    "optimized": str,
    "schedule": lambda program: schedule_text(Schedule(program)),
    "loop_ir": lambda program: function_text(lower_program(program).function),
    "memory": _memory,
    "llvm": _llvm,
}
