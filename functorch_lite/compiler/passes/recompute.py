# SPDX-License-Identifier: MIT
"""What a scan leaves for another is not kept where it is cheap to compute from the rest of what is kept.

    scan: x_t -> u_t = tanh x_t, w_t = 1 - u_t u_t           becomes     scan: x_t -> u_t
    scan: u_t, w_t -> ... w_t ...                                        scan: u_t -> w_t = 1 - u_t u_t, ... w_t ...

A recurrent network's reverse pass reads what its forward pass wrote, of all steps, which is more than caches hold: two
operations cost less than writing and reading a number. Exact: the second loop makes the same operations on the same
numbers. A value goes if a few cheap element-wise equations make it from other values that are kept for the same
readers, and if nothing but scans of the same length reads it, a step at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from functorch_lite.compiler.passes.rewriting import program_pass, rebuilt, with_bodies
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var
from functorch_lite.primitives.elementwise import add_p, max_p, min_p, mul_p, neg_p, scale_p, sub_p
from functorch_lite.primitives.loops import scan_p
from functorch_lite.primitives.transcendental import square_p

MOST = 3
"""Equations that are made once more for one value."""
_CHEAP = frozenset((add_p, sub_p, mul_p, neg_p, scale_p, square_p, max_p, min_p))


class Cheap(NamedTuple):
    """A value of a scan's body that need not be kept: its equations in order, and the kept values that they read."""

    value: Var
    equations: list[Equation]
    reads: list[Var]


@program_pass
def recompute_in_scans(program: Program) -> Program:
    """The program whose scans compute anew what is cheap; what is then kept for nothing is dead code."""
    equations = [with_bodies(e, recompute_in_scans) for e in program.equations]
    readers = _readers(equations, program) if any(e.prim is scan_p for e in equations) else {}
    gone: dict[Var, tuple[Cheap, Mapping[Var, Var]]] = {}  # by the stacked values
    for eqn in equations:
        if eqn.prim is scan_p:
            stacked = _stacked(eqn)
            for cheap in _cheap_values(eqn, stacked, readers):
                gone[stacked[cheap.value]] = cheap, stacked
    if gone:
        equations = [_recomputing(e, gone) if e.prim is scan_p else e for e in equations]
    if all(a is b for a, b in zip(equations, program.equations, strict=True)):
        return program
    return rebuilt(program, equations, program.outputs)


def _readers(equations: list[Equation], program: Program) -> dict[Atom, list[Equation] | None]:
    """The scans that read a variable a step at a time; None where something else reads it, too."""
    found: dict[Atom, list[Equation] | None] = dict.fromkeys(program.outputs)
    for eqn in equations:
        whole = len(eqn.inputs) if eqn.prim is not scan_p else eqn.params["n_consts"] + eqn.params["n_carry"]
        for k, atom in enumerate(eqn.inputs):
            known = found.setdefault(atom, [])
            if k < whole:
                found[atom] = None
            elif known is not None:
                known.append(eqn)
    return found


def _stacked(eqn: Equation) -> dict[Var, Var]:
    """The arrays of all steps, by the values of the body that they are made of."""
    n = eqn.params["n_carry"]
    pairs = zip(eqn.params["body"].outputs[n:], eqn.outputs[n:], strict=True)
    return {v: out for v, out in reversed(list(pairs)) if type(v) is Var}


def _cheap_values(
    eqn: Equation, stacked: Mapping[Var, Var], readers: Mapping[Atom, list[Equation] | None]
) -> Iterator[Cheap]:
    """The values that need not be kept, in order: what one is computed from has been decided before."""
    made = {e.outputs[0]: e for e in eqn.params["body"].equations if len(e.outputs) == 1}
    order = {e: k for k, e in enumerate(made.values())}
    kept = set(stacked)
    for value in sorted((v for v in stacked if v in made), key=lambda v: order[made[v]]):
        scans = readers.get(stacked[value])
        if not scans or any(s.params["length"] != eqn.params["length"] for s in scans):
            continue
        cheap = _recipe(value, made, kept - {value})
        if cheap is None or not all(stacked[v] in _steps(s) for v in cheap.reads for s in scans):
            continue
        cheap.equations.sort(key=order.__getitem__)
        kept.discard(value)
        yield cheap


def _steps(scan: Equation) -> Sequence[Atom]:
    """What a scan reads a step at a time."""
    return scan.inputs[scan.params["n_consts"] + scan.params["n_carry"] :]


def _recipe(value: Var, made: Mapping[Var, Equation], kept: set[Var]) -> Cheap | None:
    """How to compute a value from kept ones by a few cheap equations, in any order."""
    found = Cheap(value, [], [])
    waiting: list[Atom] = [value]
    while waiting:
        atom = waiting.pop()
        if type(atom) is Literal:
            continue
        if atom in kept:
            found.reads.append(atom)  # type: ignore[arg-type]
            continue
        eqn = made.get(atom)  # type: ignore[call-overload]
        if eqn is None or eqn.prim not in _CHEAP:
            return None
        if eqn not in found.equations:
            found.equations.append(eqn)
            waiting += eqn.inputs
        if len(found.equations) > MOST:
            return None
    return found if found.reads else None


def _recomputing(eqn: Equation, gone: Mapping[Var, tuple[Cheap, Mapping[Var, Var]]]) -> Equation:
    """A scan that computes what is gone, where it has read it."""
    body: Program = eqn.params["body"]
    first = eqn.params["n_consts"] + eqn.params["n_carry"]
    places = {x: body.inputs[k] for k, x in enumerate(eqn.inputs) if k >= first}
    new: list[Equation] = []
    env: dict[Atom, Atom] = {}
    for k in range(first, len(eqn.inputs)):
        if eqn.inputs[k] not in gone:
            continue
        cheap, stacked = gone[eqn.inputs[k]]  # type: ignore[index]
        values: dict[Atom, Atom] = {v: places[stacked[v]] for v in cheap.reads}
        for e in cheap.equations:
            out = Var(e.outputs[0].aval)
            values[e.outputs[0]] = out
            new.append(Equation(e.prim, tuple([values.get(a, a) for a in e.inputs]), (out,), e.params, e.source))
        env[body.inputs[k]] = values[cheap.value]
    if not env:
        return eqn
    equations = [Equation(e.prim, tuple([env.get(a, a) for a in e.inputs]), e.outputs, e.params, e.source)
                 for e in body.equations]
    stays = [k for k in range(len(eqn.inputs)) if body.inputs[k] not in env]
    params = {**eqn.params, "body": Program(tuple([body.inputs[k] for k in stays]), (*new, *equations),
                                            tuple([env.get(a, a) for a in body.outputs]), body.name)}
    return Equation(scan_p, tuple([eqn.inputs[k] for k in stays]), eqn.outputs, params, eqn.source)
