# SPDX-License-Identifier: MIT
"""Finding what is wrong in a miscompiled program: the pass, kernel or step, and few equations that show it.

The evaluator's values are the truth. First every pass is checked: the program before it and after it, evaluated. Then
every group of the schedule is compiled as a program of its own and run on the evaluator's values; of a loop or branch,
every iteration's body. Where all groups are right by themselves, what is wrong lies between them. What was found is
made smaller: equations are left out, their values given as inputs, as long as the rest is still compiled wrongly.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.lowering.program import INLINE, can_lower
from functorch_lite.compiler.lowering.scope import needed
from functorch_lite.compiler.native import compile_native
from functorch_lite.compiler.passes.inline import inline_calls
from functorch_lite.compiler.passes.rewriting import program_pass, with_bodies
from functorch_lite.compiler.pipeline import PASSES
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.compiler.trust.bounds import Difference, worst_difference
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import Evaluator, evaluator
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var, memoized
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.loops import cond_p, scan_p, while_p

NATIVE = "native"
UNSET = 0xFF  # in every byte: NaN, or -1
MOST_TRIES = 150
MOST_ITERATIONS = 50


class Raised(NamedTuple):
    """One of the two raised an exception where the other returned, or raised another one."""

    found: str
    expected: str

    def __str__(self):
        return f"the compiled program {self.found}, the evaluator {self.expected}"


class Fault(NamedTuple):
    """What is wrong. stage: "native", or the name of a pass. program, args: few equations that show it."""

    what: str
    stage: str
    program: Program
    args: list[Any]
    difference: Difference | Raised


class Part(NamedTuple):
    """Equations as a program of their own, and the values of its inputs."""

    program: Program
    args: list[Any]


Values = Mapping[Any, Any]


# --- running and comparing ------------------------------------------------------------------------------------------


class Overwritten(Exception):
    """A program wrote to one of its arguments."""


def outcome(
    run: Callable[..., list[Any]], args: Sequence[Any], given_up: Sequence[int] = ()
) -> list[Any] | Exception:
    """What a call on copies of the arguments returns, or the exception it raises.

    Overwritten if it changes them, but for those that are given up.
    """
    own = [copied(a) for a in args]
    try:
        with np.errstate(all="ignore"):
            found = run(*own)
    except Exception as error:
        return error
    changed = [k for k, (a, b) in enumerate(zip(own, args, strict=True))
               if k not in given_up and isinstance(a, np.ndarray) and a.tobytes() != b.tobytes()]
    return Overwritten(f"argument {changed[0]}") if changed else found


def copied(value: Any) -> Any:
    """A copy of an array; anything else itself."""
    return value.copy() if isinstance(value, np.ndarray) else value


def compare(program: Program, args: Sequence[Any], found: Any, expected: Any) -> Difference | Raised | None:
    """How two outcomes of a program differ, or None if they agree."""
    if isinstance(found, Exception) or isinstance(expected, Exception):
        same = type(found) is type(expected)
        return None if same else Raised(_told(found), _told(expected))
    return worst_difference(program, args, found, expected)


def _told(result) -> str:
    if not isinstance(result, Exception):
        return "returns"
    if isinstance(result, Overwritten):
        return f"overwrites its {result}"
    return f"raises {type(result).__name__} ({str(result).splitlines()[0] if str(result) else ''})"


def compiled_by(stage: str, program: Program) -> Callable[..., list[Any]]:
    """The program after one pass, evaluated; or all of it ("native") as native code without any pass."""
    if stage == NATIVE:
        return memoized(program, "native alone", lambda: compiled_alone(program))
    transform = next(p for p in PASSES if p.__name__ == stage)
    return Evaluator(transform(program))


def compiled_alone(program: Program, optimized: Program | None = None, donated: Sequence[int] = ()) -> Any:
    """The executable of a program as it is (or of its optimized form), which is given memory full of NaN."""
    executable = compile_native(program, program if optimized is None else optimized, donated)
    executable.fill = UNSET
    return executable


def check(stage: str, part: Part) -> Difference | Raised | None:
    """How a program that one stage compiles differs from the evaluator."""
    found = outcome(compiled_by(stage, part.program), part.args)
    return compare(part.program, part.args, found, outcome(evaluator(part.program), part.args))


@program_pass
def without_effects(program: Program) -> Program:
    """The program without equations that only have an effect: verification runs it again, the effect happens once."""
    program = inline_calls(program)
    kept = [with_bodies(e, without_effects) for e in program.equations if not e.prim.effect or e.outputs]
    return Program(program.inputs, tuple(kept), program.outputs, program.name)


# --- finding --------------------------------------------------------------------------------------------------------


def locate(program: Program, args: Sequence[Any], sources: Mapping[str, list[Equation]]) -> Fault | None:
    """What makes a program go wrong on these arguments, or None if nothing does, tried again.

    sources: the equations of each kernel of the executable, for its kernels' names.
    """
    now = without_effects(program) if program.has_effects else program
    for transform in PASSES:
        after = transform(now)
        found = outcome(evaluator(after), args)
        if compare(now, args, found, outcome(evaluator(now), args)) is not None:
            return _of_pass(transform.__name__, now, list(args))
        now = after
    return _first_fault(Part(now, list(args)), sources) if can_lower(now) else None


def _of_pass(name: str, program: Program, args: list[Any]) -> Fault | None:
    part, difference = shrink(name, Part(program, args))
    return Fault(f"pass {name}", name, part.program, part.args, difference) if difference is not None else None


def _first_fault(part: Part, sources) -> Fault | None:
    """The first group, step or body that is compiled wrongly; what lies between groups if all are right alone."""
    if check(NATIVE, part) is None:
        return None
    schedule = Schedule(part.program)
    read = needed(schedule)
    values = values_of(part)
    for group in schedule.groups:
        alone = _group_part(schedule, group, read, values)
        if alone is not None and check(NATIVE, alone) is not None:
            return _inside(group, values, sources) or _of_group(group, alone, sources)
    smaller, difference = shrink(NATIVE, part)
    if difference is None:
        return None
    kinds = ", ".join(dict.fromkeys(e.prim.name for e in smaller.program.equations))
    what = f"what lies between kernels (of {kinds}): memory, order or copies"
    return Fault(what, NATIVE, smaller.program, smaller.args, difference)


def _of_group(group: Group, alone: Part, sources) -> Fault | None:
    part, difference = shrink(NATIVE, alone)
    if difference is None:
        return None
    kinds = ", ".join(dict.fromkeys(e.prim.name for e in part.program.equations))
    name = next(filter(None, (_name_of(e, sources) for e in group.equations)), "")
    what = f"inline code ({kinds})" if name == INLINE else f"kernel {name} ({kinds})" if name else f"step {kinds}"
    return Fault(what, NATIVE, part.program, part.args, difference)


def _name_of(equation: Equation, sources) -> str:
    """The kernel that computes an equation, or a copy of it that lowering made."""
    key = _key(equation)
    return next((name for name, equations in sources.items() if any(_key(e) == key for e in equations)), "")


def _key(equation: Equation) -> Any:
    return equation.prim, equation.source, [v.aval for v in equation.outputs]


def _group_part(schedule: Schedule, group: Group, read: set[Var], values: Values) -> Part | None:
    """A group's equations, with the movement operations through which it reads, as a program."""
    chosen = {id(e): e for e in group.equations}
    waiting = [a for e in group.equations for a in e.inputs]
    while waiting:
        atom = waiting.pop()
        equation = schedule.movement.get(atom) if type(atom) is Var else None
        if equation is not None and id(equation) not in chosen:
            chosen[id(equation)] = equation
            waiting += equation.inputs
    ordered = [e for e in schedule.program.equations if id(e) in chosen]
    outputs = [v for e in group.equations for v in e.outputs if v in read or group.domain is None]
    part = make_part(ordered, outputs, values)
    return part if outputs and can_lower(part.program) else None


def values_of(part: Part) -> dict[Any, Any]:
    """The value of every variable of a program, by the evaluator."""
    program = part.program
    every = tuple(v for e in program.equations for v in e.outputs)
    with np.errstate(all="ignore"):
        found = Evaluator(Program(program.inputs, program.equations, every))(*map(copied, part.args))
    return dict(zip((*program.inputs, *every), (*part.args, *found), strict=True))


def make_part(equations: Sequence[Equation], outputs: Sequence[Atom], values: Values) -> Part:
    """Equations as a program: what they do not compute are its inputs."""
    made = {v for e in equations for v in e.outputs}
    inputs = dict.fromkeys(a for e in equations for a in e.inputs if type(a) is Var and a not in made)
    program = Program(tuple(inputs), tuple(equations), tuple(outputs))
    return Part(program, [copied(values[v]) for v in inputs])


# --- inside loops and branches --------------------------------------------------------------------------------------


def _inside(group: Group, values: Values, sources) -> Fault | None:
    """The fault in a body that a step runs, if there is one."""
    equation = group.equations[0]
    bodies = BODY_RUNS.get(equation.prim)
    if group.domain is not None or bodies is None:
        return None
    args = [a.value if type(a) is Literal else values[a] for a in equation.inputs]
    for number, part in enumerate(bodies(args, **equation.params)):
        if number == MOST_ITERATIONS:
            break
        if can_lower(part.program):
            fault = _first_fault(part, sources)
            if fault is not None:
                return fault
    return None


def _scan_runs(args, *, body, n_consts, n_carry, length, reverse, **_) -> Iterator[Part]:
    consts, carry, xs = args[:n_consts], list(args[n_consts : n_consts + n_carry]), args[n_consts + n_carry :]
    count = len(xs[0]) if length is None else length
    for i in reversed(range(count)) if reverse else range(count):
        part = Part(body, [*consts, *carry, *[x[i] for x in xs]])
        yield part
        carry = evaluator(body)(*part.args)[:n_carry]


def _while_runs(args, *, cond, body, n_cond_consts, n_body_consts, n_carry) -> Iterator[Part]:
    first = n_cond_consts + n_body_consts
    cond_consts, consts, carry = args[:n_cond_consts], args[n_cond_consts:first], list(args[first:])
    while True:
        test = Part(cond, [*cond_consts, *carry])
        yield test
        if not evaluator(cond)(*test.args)[0]:
            return
        part = Part(body, [*consts, *carry])
        yield part
        carry = evaluator(body)(*part.args)[:n_carry]


def _cond_runs(args, *, branches) -> Iterator[Part]:
    yield Part(branches[min(max(int(args[0]), 0), len(branches) - 1)], list(args[1:]))


def _jit_runs(args, *, program) -> Iterator[Part]:
    yield Part(program, list(args))


BODY_RUNS: dict[Any, Callable[..., Iterator[Part]]] = {
    scan_p: _scan_runs, while_p: _while_runs, cond_p: _cond_runs, jit_p: _jit_runs,
}
"""By primitive: (values of the inputs, **params) -> what it runs, each body with its own inputs, in order."""


# --- making it smaller ----------------------------------------------------------------------------------------------


def shrink(stage: str, part: Part) -> tuple[Part, Difference | Raised | None]:
    """A smaller program that a stage still compiles wrongly, and how it differs; None if this one is compiled right."""
    difference = check(stage, part)
    if difference is None:
        return part, None
    return _Shrinking(stage, part, difference).run()


class _Shrinking:
    def __init__(self, stage: str, part: Part, difference: Difference | Raised):
        self.stage = stage
        self.part = part
        self.difference = difference
        self.values = values_of(part) if not isinstance(difference, Raised) else {}
        self.tries = 0

    def run(self) -> tuple[Part, Difference | Raised]:
        if isinstance(self.difference, Difference):  # an exception leaves no values to give as inputs
            self._one_output(self.part.program.outputs[self.difference.output])
            self._end_early()
            self._leave_out()
        return self.part, self.difference

    def _accept(self, equations: Sequence[Equation], outputs: Sequence[Atom]) -> bool:
        """Go on with these equations if they are still compiled wrongly."""
        part = make_part(_used(equations, outputs), outputs, self.values)
        if self.tries >= MOST_TRIES or not all(type(v.aval) is Aval for v in (*part.program.inputs, *outputs)):
            return False
        self.tries += 1
        difference = check(self.stage, part) if self.stage != NATIVE or can_lower(part.program) else None
        if not isinstance(difference, Difference):
            return False
        self.part, self.difference = part, difference
        return True

    def _one_output(self, output: Atom) -> None:
        if len(self.part.program.outputs) > 1:
            self._accept(self.part.program.equations, [output])

    def _end_early(self) -> None:
        """The first equation whose result is wrong becomes the output."""
        equations = self.part.program.equations
        low, high = 0, len(equations) - 1
        while low < high:
            middle = (low + high) // 2
            before = self.part
            if self._accept(equations[: middle + 1], equations[middle].outputs):
                high = middle
            else:
                self.part, low = before, middle + 1

    def _leave_out(self) -> None:
        """Leave out as many equations as can be: half of them, a quarter, ..., each."""
        size = len(self.part.program.equations) // 2
        while size:
            start = 0
            while start < len(self.part.program.equations):
                equations = self.part.program.equations
                outputs = self.part.program.outputs
                rest = [*equations[:start], *equations[start + size :]]
                kept = {v for e in rest for v in e.outputs}
                if not all(a in kept for a in outputs) or not self._accept(rest, outputs):
                    start += size
            size //= 2


def _used(equations: Sequence[Equation], outputs: Sequence[Atom]) -> list[Equation]:
    """The equations that outputs depend on."""
    wanted = set(outputs)
    found = []
    for equation in reversed(equations):
        if any(v in wanted for v in equation.outputs):
            found.append(equation)
            wanted.update(equation.inputs)
    return found[::-1]
