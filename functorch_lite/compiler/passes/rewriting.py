# SPDX-License-Identifier: MIT
"""What the passes share: memo and recursion (`program_pass`), and local rewriting of equations by rules (`rewrite`).

A pass is a pure function from Program to Program. It gives back the very same object where it finds nothing to do, so
that "unchanged" is an identity test and an unchanged loop body keeps what was derived from it.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from functorch_lite.core.aval import Aval, StackAval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var
from functorch_lite.core.rules import shape_rules
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.loops import batched_cond_p, cond_p, scan_p, while_p

Pass = Callable[[Program], Program]
WITH_BODIES = frozenset((scan_p, while_p, cond_p, batched_cond_p, jit_p))
"""The primitives whose sub-programs are run as they are, so that a pass acts on them, too."""


def program_pass(transform: Pass) -> Pass:
    """Decorator: the result is kept on the program, so a body that several equations share is transformed once."""

    @functools.wraps(transform)
    def run(program: Program) -> Program:
        found = program.memo.get(run)
        if found is None:
            found = program.memo[run] = transform(program)
        return found

    return run


def with_bodies(eqn: Equation, transform: Pass) -> Equation:
    """The equation with `transform` applied to its loop bodies, branches or called program; itself if none changed."""
    if eqn.prim not in WITH_BODIES:
        return eqn
    if eqn.prim is jit_p:
        called = transform(eqn.params["program"])
        return eqn if called is eqn.params["program"] else with_program(eqn, called)
    params = {name: _transformed(value, transform) for name, value in eqn.params.items()}
    if all(params[name] is value for name, value in eqn.params.items()):
        return eqn
    return Equation(eqn.prim, eqn.inputs, eqn.outputs, params, eqn.source)


def with_program(eqn: Equation, program: Program) -> Equation:
    """A call with another program in its place."""
    return Equation(eqn.prim, eqn.inputs, eqn.outputs, {**eqn.params, "program": program}, eqn.source)


def _transformed(value, transform):
    if isinstance(value, Program):
        return transform(value)
    if type(value) is tuple and any(isinstance(v, Program) for v in value):
        parts = tuple([transform(v) for v in value])
        return value if all(a is b for a, b in zip(parts, value, strict=True)) else parts
    return value


def rebuilt(program: Program, equations: Sequence[Equation], outputs: Sequence[Atom]) -> Program:
    """A program with the inputs and name of `program`."""
    return Program(program.inputs, tuple(equations), tuple(outputs), program.name)


# --- local rewriting --------------------------------------------------------------------------------------------------


class Rewriter:
    """The program being rewritten: what rules can look at, and how they write.

    made: the equation that defines a variable (of equations with one output)
    """

    __slots__ = ("made", "equations", "source", "_order", "_inputs", "_numbered")

    def __init__(self, inputs: Sequence[Var]):
        self.made: dict[Atom, Equation] = {}
        self.equations: list[Equation] = []
        self.source: Any = None
        self._inputs = inputs
        self._order: dict[Var, int] = {}
        self._numbered = 0  # of the equations, those whose outputs are in `_order`

    def emit(self, prim: Primitive, *inputs: Atom, **params: Any) -> Var:
        """The result of a new equation, placed before the one that is being rewritten."""
        out = Var(shape_rules[prim](*[a.aval for a in inputs], **params))
        self._append(Equation(prim, inputs, (out,), params, self.source))
        return out

    def filled(self, aval: Any, value: Any) -> Atom:
        """An array of this type filled with one value: a literal if it has rank 0."""
        literal = Literal(aval.dtype.type(value), Aval((), aval.dtype))
        return self.emit(broadcast_in_dim_p, literal, shape=aval.shape, dims=()) if aval.shape else literal

    def maker(self, atom: Atom, prim: Primitive) -> Equation | None:
        """The equation of `prim` that defines `atom`, if it is one."""
        found = self.made.get(atom)
        return found if found is not None and found.prim is prim else None

    def position(self, var: Var) -> int:
        """The number of a variable, inputs first."""
        if var not in self._order:
            new = [] if self._order else [*self._inputs]
            new += [v for e in self.equations[self._numbered :] for v in e.outputs]
            self._order.update(zip(new, itertools.count(len(self._order)), strict=False))
            self._numbered = len(self.equations)
        return self._order[var]

    def _append(self, eqn: Equation) -> None:
        self.equations.append(eqn)
        if len(eqn.outputs) == 1:
            self.made[eqn.outputs[0]] = eqn


Rule = Callable[[Equation, Rewriter], Any]
"""(equation, rewriter) -> None (leave it), an atom that stands for its one output, or an equation in its place."""


def rewrite(program: Program, rules: Mapping[Primitive, Rule | None], transform: Pass) -> Program:
    """Each equation rewritten by the rule of its primitive until none applies; `transform` acts on loop bodies."""
    rewriter = Rewriter(program.inputs)
    env: dict[Atom, Atom] = {}
    append, find = rewriter._append, rules.get
    changed = False
    for eqn in program.equations:
        inputs = eqn.inputs
        if env and not env.keys().isdisjoint(inputs):
            inputs = tuple(map(env.get, inputs, inputs))
            eqn = Equation(eqn.prim, inputs, eqn.outputs, eqn.params, eqn.source)
            changed = True
        rule = find(eqn.prim)
        if rule is None:
            if eqn.prim in WITH_BODIES:
                new = with_bodies(eqn, transform)
                changed |= new is not eqn
                eqn = new
            append(eqn)
            continue
        result = _settled(eqn, rule, find, rewriter)
        changed |= result is not eqn
        if isinstance(result, Equation):
            append(result)
        else:
            env[eqn.outputs[0]] = result
    if not changed:
        return program
    return rebuilt(program, rewriter.equations, list(map(env.get, program.outputs, program.outputs)))


def _settled(eqn, rule, find, rewriter):
    """What the equation becomes when no rule applies any more."""
    rewriter.source = eqn.source
    while rule is not None:
        result = rule(eqn, rewriter)
        if result is None:
            return eqn
        if type(result) is not Equation:
            return result
        eqn = result
        rule = find(eqn.prim)
    return eqn


def replaced(eqn: Equation, prim: Primitive, *inputs: Atom, **params: Any) -> Equation:
    """Another equation for the same output, with the same source."""
    return Equation(prim, inputs, eqn.outputs, params, eqn.source)


# --- literals ---------------------------------------------------------------------------------------------------------


def scalar(atom: Atom) -> Any:
    """The value of a rank-0 literal, None for anything else."""
    return atom.value if type(atom) is Literal and not atom.aval.shape else None


def literal(value: Any, dtype: np.dtype) -> Literal:
    """A literal of exactly this dtype: a NumPy scalar if `value` has rank 0."""
    array = np.asarray(value, dtype)
    return Literal(array if array.ndim else array[()], Aval(array.shape, dtype))


def literal_key(atom: Literal) -> tuple[Any, ...]:
    """A hashable key, equal for literals of equal dtype, shape and bytes."""
    value = atom.value
    array = np.asarray(value, atom.aval.dtype) if not hasattr(value, "get") else value.get()
    return "literal", atom.aval, array.tobytes()


def is_heavy(eqn: Equation) -> bool:
    """Whether an equation is a step of its own, which fuses with nothing."""
    return eqn.prim.effect or eqn.prim.kind in _HEAVY


_HEAVY = frozenset((Kind.CONTRACTION, Kind.INDEXING, Kind.OPAQUE, Kind.HIGHER_ORDER, Kind.COLLECTIVE))


def is_stack(atom: Atom) -> bool:
    """Whether the value is a run-time stack."""
    return isinstance(atom.aval, StackAval)
