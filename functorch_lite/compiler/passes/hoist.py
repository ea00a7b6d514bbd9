# SPDX-License-Identifier: MIT
"""Loop-invariant code motion: what a loop computes anew in each step from its constants is computed once, before it.

    scan body: c, carry, x -> let a = sin c in carry + a x        becomes
    a = sin c ; scan body: a, carry, x -> carry + a x

So is what a program computes anew in each of its calls from arguments that are the same in all.

An equation of a scan's or while's body (or of a while's condition) moves if all its inputs are constants of the loop
or literals, and it has no effect and cannot raise: the loop may make no step at all. Right because it gives the same
value in each step. What only moves or repeats elements (a broadcast, an iota, a transposed view) moves along with
what reads it, but not for itself: inside the loop it costs nothing, before it an array.

A constant matrix that a scan's products read across its rows, `x @ w.T`, is transposed before the loop: a product
would copy it into another order in each step.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.passes.rewriting import program_pass, rebuilt, with_bodies
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.elementwise import integer_pow_p, pow_p
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.loops import scan_p, while_p
from functorch_lite.primitives.movement import permute_dims_p
from functorch_lite.primitives.random_bits import fold_in_key_p, random_bits_p, split_key_p

_FREE = frozenset((Kind.BROADCAST, Kind.MOVEMENT))
_SAFE_KINDS = frozenset((*_FREE, Kind.ELEMENTWISE, Kind.REDUCTION, Kind.CONTRACTION))
FEW_ROWS = 8  # products of so few rows read a matrix in any order
_SAFE_PRIMS = frozenset((random_bits_p, split_key_p, fold_in_key_p))


@program_pass
def hoist_invariants(program: Program) -> Program:
    """The program with loop-invariant equations before their loops."""
    equations: list[Equation] = []
    changed = False
    for eqn in program.equations:
        new = with_bodies(eqn, hoist_invariants)
        if new.prim is scan_p:
            new = _with_turned_matrices(_from_scan(new, equations), equations)
        elif new.prim is while_p:
            new = _from_while(new, equations)
        changed |= new is not eqn
        equations.append(new)
    moved = _from_calls(equations)
    return rebuilt(program, moved, program.outputs) if changed or moved is not equations else program


def can_raise(eqn: Equation) -> bool:
    """Whether running the equation may raise: an index out of range, a matrix that is singular, a call of Python."""
    prim = eqn.prim
    if prim is pow_p or prim is integer_pow_p:
        return not dtypes.is_inexact(eqn.outputs[0].aval.dtype)  # NumPy refuses negative integer powers
    if prim.kind is Kind.INDEXING:
        return eqn.params.get("mode") == "raise"
    return prim.kind not in _SAFE_KINDS and prim not in _SAFE_PRIMS


# --- one body ---------------------------------------------------------------------------------------------------------


class Split(NamedTuple):
    """A body in two: what moves out, as equations on the body's own variables, and what stays.

    moved: the equations that move, in order
    values: the variables they define that the rest reads: new constants of the body
    rest: the body with `values` in front of its inputs
    """

    moved: list[Equation]
    values: list[Var]
    rest: Program


def _split(body: Program, n_consts: int) -> Split | None:
    """Take the invariant equations out; None where there are none worth it."""
    known: set[Atom] = set(body.inputs[:n_consts])
    invariant: list[Equation] = []
    for eqn in body.equations:
        if all(type(a) is Literal or a in known for a in eqn.inputs) and not eqn.prim.effect and not can_raise(eqn):
            invariant.append(eqn)
            known.update(eqn.outputs)
    goal = {v for e in invariant if e.prim.kind not in _FREE for v in e.outputs}
    if not goal:
        return None
    moved: list[Equation] = []
    reads: set[Atom] = set(goal)
    for eqn in reversed(invariant):
        if any(v in reads for v in eqn.outputs):
            moved.append(eqn)
            reads.update(eqn.inputs)
    gone = {id(e) for e in moved if e.prim.kind not in _FREE}
    stays = [e for e in body.equations if id(e) not in gone]
    used = {a for e in stays for a in e.inputs} | set(body.outputs)
    values = [v for e in reversed(moved) if id(e) in gone for v in e.outputs if v in used]
    rest = Program((*values, *body.inputs), tuple(stays), body.outputs, body.name)
    return Split(moved[::-1], values, rest)


def _placed(split: Split, body: Program, given: Sequence[Atom], equations: list[Equation]) -> list[Atom]:
    """Append copies of the moved equations, on the constants `given`; the atoms of the moved values."""
    env: dict[Atom, Atom] = dict(zip(body.inputs, given, strict=False))
    for eqn in split.moved:
        outputs = tuple([Var(v.aval) for v in eqn.outputs])
        inputs = tuple([env.get(a, a) for a in eqn.inputs])
        env.update(zip(eqn.outputs, outputs, strict=True))
        equations.append(Equation(eqn.prim, inputs, outputs, eqn.params, eqn.source))
    return [env[v] for v in split.values]


def _parts(body: Program, n_consts: int) -> Split | None:
    """`_split`, made once for a body: loops that share one go on sharing one."""
    key = ("invariants", n_consts)
    if key not in body.memo:
        body.memo[key] = _split(body, n_consts)
    return body.memo[key]


# --- the two loops ----------------------------------------------------------------------------------------------------


def _from_scan(eqn: Equation, equations: list[Equation]) -> Equation:
    n = eqn.params["n_consts"]
    split = _parts(eqn.params["body"], n)
    if split is None:
        return eqn
    new = _placed(split, eqn.params["body"], eqn.inputs[:n], equations)
    params: dict[str, Any] = {**eqn.params, "body": split.rest, "n_consts": n + len(new)}
    return Equation(scan_p, (*new, *eqn.inputs), eqn.outputs, params, eqn.source)


def _with_turned_matrices(eqn: Equation, equations: list[Equation]) -> Equation:
    """The scan with the constant matrices that it reads across transposed before it."""
    n = eqn.params["n_consts"]
    body: Program = eqn.params["body"]
    if "turned" not in body.memo:
        body.memo["turned"] = _turned_matrices(body, n)
    body, numbers = body.memo["turned"]
    if not numbers:
        return eqn
    new = []
    for k in numbers:
        x = eqn.inputs[k]
        new.append(Var(Aval(x.aval.shape[::-1], x.aval.dtype)))
        equations.append(Equation(permute_dims_p, (x,), (new[-1],), {"axes": (1, 0)}, eqn.source))
    params: dict[str, Any] = {**eqn.params, "body": body, "n_consts": n + len(new)}
    return Equation(scan_p, (*new, *eqn.inputs), eqn.outputs, params, eqn.source)


def _turned_matrices(body: Program, n_consts: int) -> tuple[Program, list[int]]:
    """The body with transposed constants in front of its inputs, and the numbers of the constants they are made of."""
    turned: dict[Atom, Var] = {}
    equations = []
    for eqn in body.equations:
        y = eqn.inputs[1] if eqn.prim is dot_general_p else None
        if y is not None and y in body.inputs[:n_consts] and _reads_across(eqn):
            turned.setdefault(y, Var(Aval(y.aval.shape[::-1], y.aval.dtype)))
            params = {**eqn.params, "contract": (eqn.params["contract"][0], (0,))}
            eqn = Equation(eqn.prim, (eqn.inputs[0], turned[y]), eqn.outputs, params, eqn.source)
        equations.append(eqn)
    numbers = [body.inputs.index(v) for v in turned]
    return Program((*turned.values(), *body.inputs), tuple(equations), body.outputs, body.name), numbers


def _reads_across(eqn: Equation) -> bool:
    """Whether a product with a matrix y sums over y's last axis, for more rows of x than one tile has."""
    y, rows = eqn.inputs[1].aval, eqn.outputs[0].aval
    if len(y.shape) != 2 or eqn.params["contract"][1] != (1,):
        return False
    return math.prod(rows.shape) > FEW_ROWS * y.shape[0]


def _from_while(eqn: Equation, equations: list[Equation]) -> Equation:
    params: dict[str, Any] = dict(eqn.params)
    n_cond, n_body = params["n_cond_consts"], params["n_body_consts"]
    groups = [list(eqn.inputs[:n_cond]), list(eqn.inputs[n_cond : n_cond + n_body])]
    for name, count, consts in zip(("cond", "body"), ("n_cond_consts", "n_body_consts"), groups, strict=True):
        split = _parts(params[name], len(consts))
        if split is not None:
            consts[:0] = _placed(split, params[name], consts, equations)
            params[name], params[count] = split.rest, len(consts)
    if all(params[name] is value for name, value in eqn.params.items()):
        return eqn
    return Equation(while_p, (*groups[0], *groups[1], *eqn.inputs[n_cond + n_body :]), eqn.outputs, params, eqn.source)


# --- calls ------------------------------------------------------------------------------------------------------------


def _from_calls(equations: list[Equation]) -> list[Equation]:
    """The equations, with what all calls of a program have in common before the first; the same list if nothing."""
    places: dict[int, list[int]] = {}
    for i, eqn in enumerate(equations):
        if eqn.prim is jit_p:
            places.setdefault(id(eqn.params["program"]), []).append(i)
    before: dict[int, list[Equation]] = {}
    calls: dict[int, Equation] = {}
    for group in places.values():
        if len(group) > 1:
            _from_group([equations[i] for i in group], group, before, calls)
    if not calls:
        return equations
    return [e for i, eqn in enumerate(equations) for e in (*before.get(i, ()), calls.get(i, eqn))]


def _from_group(
    group: Sequence[Equation], places: Sequence[int], before: dict[int, list[Equation]], calls: dict[int, Equation]
) -> None:
    first, body = group[0], group[0].params["program"]
    same = [len({*map(id, column)}) == 1 for column in zip(*[e.inputs for e in group], strict=True)]
    order = sorted(range(len(same)), key=lambda k: not same[k])
    turned = Program(tuple([body.inputs[k] for k in order]), body.equations, body.outputs, body.name)
    split = _split(turned, sum(same))
    if split is None:
        return
    new = _placed(split, turned, [first.inputs[k] for k in order], before.setdefault(places[0], []))
    for place, eqn in zip(places, group, strict=True):
        inputs = (*new, *map(eqn.inputs.__getitem__, order))
        calls[place] = Equation(jit_p, inputs, eqn.outputs, {"program": split.rest}, eqn.source)
