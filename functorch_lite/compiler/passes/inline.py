# SPDX-License-Identifier: MIT
"""Inlining: a call becomes the equations of what it calls.

    y = jit[program={ lambda a ; let b = sin a in (b) }] x      becomes      y = sin x

What is called: the program of `jit` and `checkpoint`; of a custom derivative its own function, not its rules; of a
linear solve its solver. This is what the eval rules of these primitives compute, since by now every derivative has
been taken. Primitives whose parameters are Python functions file how to get their program in `inline_rules`.
Equations are copied with new variables for each call, and keep the user's line.

What a checkpointed function computes again starts behind a `barrier`, which common-subexpression elimination
respects.

A program of `MIN_EQUATIONS` or more that is called `MIN_CALLS` times or more stays a call of one program: many equal
blocks are then optimized and compiled as one body.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.passes.rewriting import program_pass, rebuilt, with_bodies
from functorch_lite.core.program import Atom, Equation, Program, Var
from functorch_lite.core.rules import RuleTable
from functorch_lite.primitives.higher_order import (
    checkpoint_p,
    custom_jvp_p,
    custom_vjp_p,
    jit_p,
    linear_solve_p,
)

MIN_CALLS = 3
MIN_EQUATIONS = 30

inline_rules = RuleTable("inline", "(equation) -> the program that the call evaluates, and the inputs it gets")


class Callee(NamedTuple):
    """The program that a call evaluates, and what it is applied to."""

    program: Program
    inputs: Sequence[Atom]


for _prim in (jit_p, checkpoint_p):
    inline_rules.add(_prim, lambda eqn: Callee(eqn.params["program"], eqn.inputs))
inline_rules.add(linear_solve_p, lambda eqn: Callee(eqn.params["solve"], eqn.inputs))


def _custom_function(eqn):
    """What the function captured comes first, then what its rules captured, then the arguments."""
    n = eqn.params["n"]
    return Callee(eqn.params["program"], (*eqn.inputs[: n[0]], *eqn.inputs[sum(n) :]))


for _prim in (custom_jvp_p, custom_vjp_p):
    inline_rules.add(_prim, _custom_function)


@program_pass
def inline_calls(program: Program) -> Program:
    """The same function without calls, but those of a large program that is called many times."""
    if not _has_calls(program):
        return program
    writer = _Writer(_kept(program))
    outputs = writer.write(program, {v: v for v in program.inputs}, top=True)
    return rebuilt(program, writer.equations, outputs) if writer.changed else program


def _has_calls(program):
    for eqn in program.equations:
        if eqn.prim in inline_rules or with_bodies(eqn, inline_calls) is not eqn:
            return True
    return False


class _Writer:
    def __init__(self, kept: dict[int, Program]):
        self.equations: list[Equation] = []
        self.changed = False
        self._kept = kept

    def write(self, program: Program, env: dict[Atom, Atom], top: bool = False) -> list[Atom]:
        """Append the program's equations with variables from `env`; its outputs."""
        append = self.equations.append
        for eqn in program.equations:
            if eqn.prim in inline_rules:
                self._call(eqn, env, top)
                continue
            new = with_bodies(eqn, inline_calls)
            if not top:
                new = _copied(new, env)
            elif len(env) > len(program.inputs):
                new = _substituted(new, env)
            self.changed |= new is not eqn
            append(new)
        return list(map(env.get, program.outputs, program.outputs))

    def _call(self, eqn, env, top):
        kept = self._kept.get(id(eqn.params["program"])) if eqn.prim is jit_p else None
        if kept is None:
            self.changed = True
            callee = inline_rules[eqn.prim](eqn)
            given = [env.get(a, a) for a in callee.inputs]
            inner: dict[Atom, Atom] = dict(zip(callee.program.inputs, given, strict=True))
            env.update(zip(eqn.outputs, self.write(callee.program, inner), strict=True))
            return
        body = inline_calls(kept)
        same = body is eqn.params["program"]
        call = eqn if same else Equation(jit_p, eqn.inputs, eqn.outputs, {"program": body}, eqn.source)
        call = _substituted(call, env) if top else _copied(call, env)
        self.changed |= call is not eqn
        self.equations.append(call)


def _substituted(eqn: Equation, env: dict[Atom, Atom]) -> Equation:
    """The equation with inputs looked up in `env`; it keeps its outputs."""
    inputs = tuple(map(env.get, eqn.inputs, eqn.inputs))
    return eqn if inputs == eqn.inputs else Equation(eqn.prim, inputs, eqn.outputs, eqn.params, eqn.source)


def _copied(eqn: Equation, env: dict[Atom, Atom]) -> Equation:
    """The equation with inputs looked up in `env` and new outputs, which are noted there."""
    outputs = tuple([Var(v.aval) for v in eqn.outputs])
    inputs = tuple(map(env.get, eqn.inputs, eqn.inputs))
    env.update(zip(eqn.outputs, outputs, strict=True))
    return Equation(eqn.prim, inputs, outputs, eqn.params, eqn.source)


# --- which calls stay -------------------------------------------------------------------------------------------------


class _Count(NamedTuple):
    """How often a program is called."""

    program: Program
    calls: int


def _kept(program: Program) -> dict[int, Program]:
    """By identity, the programs whose calls stay; the first of equal ones stands for all."""
    groups: dict[Any, list[_Count]] = {}
    for count in _called(program).values():
        callee = count.program
        if _size(callee) >= MIN_EQUATIONS:
            groups.setdefault((_size(callee), len(callee.inputs), len(callee.outputs)), []).append(count)
    kept: dict[int, Program] = {}
    for group in groups.values():
        if sum(c.calls for c in group) >= MIN_CALLS:  # else there cannot be enough equal ones among them
            for equal in _equal_ones(group):
                if sum(c.calls for c in equal) >= MIN_CALLS:
                    kept.update((id(c.program), equal[0].program) for c in equal)
    return kept


def _equal_ones(group: list[_Count]) -> Iterable[list[_Count]]:
    if len(group) == 1:
        return [group]
    found: dict[str, list[_Count]] = {}
    for count in group:
        found.setdefault(count.program.fingerprint, []).append(count)
    return found.values()


def _called(program: Program) -> dict[int, _Count]:
    """By identity, the programs that `jit` calls, and how often inlining everything would meet each."""
    found = program.memo.get("called")
    if found is None:
        found = program.memo["called"] = {}
        for eqn in program.equations:
            if eqn.prim in inline_rules:
                callee = inline_rules[eqn.prim](eqn).program
                inside = [_Count(callee, 1)] if eqn.prim is jit_p else []
                for inner, calls in (*inside, *_called(callee).values()):
                    before = found.get(id(inner), _Count(inner, 0))
                    found[id(inner)] = _Count(inner, before.calls + calls)
    return found


def _size(program: Program) -> int:
    """The number of equations after inlining everything."""
    found = program.memo.get("inlined size")
    if found is None:
        calls = [inline_rules[e.prim](e).program for e in program.equations if e.prim in inline_rules]
        found = program.memo["inlined size"] = len(program.equations) - len(calls) + sum(map(_size, calls))
    return found
