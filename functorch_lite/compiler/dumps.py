# SPDX-License-Identifier: MIT
"""Every stage of a program's compilation as text, by name: what `f.lower(...).as_text(stage=...)` prints."""

from collections.abc import Callable, Sequence

from functorch_lite.compiler.codegen.llvm.levels import Levels
from functorch_lite.compiler.codegen.llvm.program import write_module
from functorch_lite.compiler.loop_ir.printer import function_text
from functorch_lite.compiler.lowering.program import Lowered, lower_program
from functorch_lite.compiler.memory.plan import Plan
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.schedule.choices import USUAL, Choices, choices_text
from functorch_lite.compiler.schedule.fusion import Schedule
from functorch_lite.compiler.schedule.printer import schedule_text
from functorch_lite.core.program import Program

Pass = Callable[[Program], Program]


def stage_text(program: Program, passes: Sequence[Pass], stage: str, choices: Choices = USUAL) -> str:
    """The text of one of `stage_names(passes)`. choices: those in force."""
    if stage == "program":
        return str(program)
    for transform in passes:
        program = transform(program)
        if stage == transform.__name__:
            return str(program)
    return _LATER[stage](program, choices)


def stage_names(passes: Sequence[Pass]) -> list[str]:
    """The stages in order; a pass that runs twice is shown after its first run."""
    return ["program", *dict.fromkeys(p.__name__ for p in passes), *_LATER]


def _memory(program: Program, choices: Choices) -> str:
    lowered = lower_program(program, choices.cutting)
    plan = lowered.plan()
    lines = [f"arena of {plan.size} bytes"]
    for buffer, (first, last) in plan.lifetimes.items():
        lines.append(f"  {buffer} at {plan.offsets[buffer]}, alive from statement {first} to {last}")
    return "\n".join(lines)


def module_of(
    lowered: Lowered, plan: Plan, *, sharing: bool = True, choices: Choices = USUAL, levels: Levels | None = None
) -> str:
    """The LLVM module of a lowered program for this machine.

    sharing: whether threads share its long loops. choices: which of them, and what they stream. levels: for code that
    is made quickly, tells which functions are made well all the same.
    """
    machine = engine.vectors()
    return write_module(
        lowered.function, lowered.kernels, lowered.inputs, lowered.outputs, lowered.constant_buffers, plan,
        parts=lowered.parts, has_fma=machine.has_fma, lanes_bytes=machine.lanes_bytes, sharing=sharing,
        choices=choices, levels=levels,
    )


def _choices(program: Program, choices: Choices) -> str:
    return choices_text(lower_program(program, choices.cutting).kernels, choices)


def _llvm(program: Program, choices: Choices) -> str:
    lowered = lower_program(program, choices.cutting)
    return module_of(lowered, lowered.plan(), choices=choices)


_LATER: dict[str, Callable[[Program, Choices], str]] = {
    "optimized": lambda program, choices: str(program),
    "schedule": lambda program, choices: schedule_text(Schedule(program)),
    "loop_ir": lambda program, choices: function_text(lower_program(program, choices.cutting).function),
    "memory": _memory,
    "choices": _choices,
    "llvm": _llvm,
}
