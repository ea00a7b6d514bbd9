# SPDX-License-Identifier: MIT
"""Sums that a scan only adds products to are taken after it, of all steps at once.

    scan: total, x_t, g_t -> total + x_t' g_t             becomes
    scan: x_t, g_t -> g_t ;  total + x' g                 x, g: of all steps, summed over the steps too

That is the gradient of a weight that every step multiplies with: one product of long matrices, in the place of many
small ones that each read and write the whole weight. A carry qualifies if the body only adds to it, and adds a
product, or a sum over axes, of values of the step (transposed, perhaps). Such values are kept for all steps if they
are not already, where a step's product is at least as large as they are and they do not add more to what the loop
reads and writes than is there. Right because addition is associative, up to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from functorch_lite.compiler.passes.rewriting import program_pass, rebuilt, with_bodies
from functorch_lite.core.aval import Aval
from functorch_lite.core.dtypes import is_inexact
from functorch_lite.core.program import Atom, Equation, Program, Var
from functorch_lite.primitives.broadcast import reduce_sum_p
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.elementwise import add_any_p, add_p
from functorch_lite.primitives.loops import scan_p
from functorch_lite.primitives.movement import permute_dims_p


class Sum(NamedTuple):
    """A carry that the body only adds to: its number, and the equations of that, the last one first.

    The first adds, the last is the product or sum; transpositions may stand between.
    """

    number: int
    steps: tuple[Equation, ...]

    @property
    def core(self) -> Equation:
        """The product or sum."""
        return self.steps[-1]


@program_pass
def accumulate_after(program: Program) -> Program:
    """The program with sums over the steps of its scans after them."""
    equations: list[Equation] = []
    changed = False
    for eqn in program.equations:
        new = with_bodies(eqn, accumulate_after)
        found = _after(new) if new.prim is scan_p else None
        changed |= new is not eqn or found is not None
        equations += [new] if found is None else found
    return rebuilt(program, equations, program.outputs) if changed else program


@dataclass
class _Loop:
    """A scan taken apart."""

    eqn: Equation
    kept: list[Var] = field(default_factory=list)  # values of the body that become new outputs

    def __post_init__(self):
        p = self.eqn.params
        self.body: Program = p["body"]
        self.length: int = p["length"]
        self.n_consts, self.n_carry = p["n_consts"], p["n_carry"]
        self.carry = self.body.inputs[self.n_consts : self.n_consts + self.n_carry]
        self.xs = self.body.inputs[self.n_consts + self.n_carry :]
        self.made = {v: e for e in self.body.equations for v in e.outputs}
        self.uses: dict[Atom, int] = {}
        for atom in (*(a for e in self.body.equations for a in e.inputs), *self.body.outputs):
            if type(atom) is Var:
                self.uses[atom] = self.uses.get(atom, 0) + 1

    def sum_of(self, number: int) -> Sum | None:
        """The carry of this number as a sum, if it is one."""
        carry, out = self.carry[number], self.body.outputs[number]
        eqn = self.made.get(out) if type(out) is Var else None
        if eqn is None or eqn.prim not in (add_p, add_any_p) or not is_inexact(carry.aval.dtype):
            return None
        if self.uses.get(carry) != 1 or self.uses[out] != 1 or carry not in eqn.inputs:
            return None
        term = eqn.inputs[1] if eqn.inputs[0] is carry else eqn.inputs[0]
        steps = [eqn]
        while type(term) is Var and self.uses[term] == 1 and term in self.made:
            step = self.made[term]
            steps.append(step)
            if step.prim in (dot_general_p, reduce_sum_p):
                return Sum(number, tuple(steps)) if self._is_of_the_step(step) else None
            if step.prim is not permute_dims_p:
                return None
            term = step.inputs[0]
        return None

    def _is_of_the_step(self, eqn: Equation) -> bool:
        consts = self.body.inputs[: self.n_consts]
        return all(type(a) is Var and a not in consts and type(a.aval) is Aval for a in eqn.inputs)

    def is_kept(self, value: Atom) -> bool:
        """Whether a value of the body is there for all steps after the loop."""
        return value in self.xs or value in self.body.outputs[self.n_carry :] or value in self.kept

    def pays(self, found: Sum) -> bool:
        """Whether to take a sum after the loop; what it needs is then kept."""
        new = [a for a in dict.fromkeys(found.core.inputs) if not self.is_kept(a)]
        if found.core.prim is reduce_sum_p:
            return not new
        there = sum(_bytes(v.aval) for v in (*self.xs, *self.body.outputs[self.n_carry :], *self.kept))
        added = sum(_bytes(a.aval) for a in new)
        if added > _bytes(found.core.outputs[0].aval) or added > there:
            return False
        self.kept += new  # type: ignore[arg-type]
        return True


def _bytes(aval: Any) -> int:
    return aval.size * aval.dtype.itemsize


def _after(eqn: Equation) -> list[Equation] | None:
    """The scan without such carries, and the equations after it; None where there are none."""
    if not eqn.params["length"]:
        return None
    loop = _Loop(eqn)
    sums = [s for k in range(loop.n_carry) if (s := loop.sum_of(k)) is not None]
    products = [s for s in sums if s.core.prim is dot_general_p and loop.pays(s)]
    if not products:
        return None
    gone = products + [s for s in sums if s.core.prim is reduce_sum_p and loop.pays(s)]
    scan, env = _without(loop, gone)
    after: list[Equation] = [scan]
    for found in gone:
        _take(loop, found, env, after)
    return after


def _without(loop: _Loop, sums: Sequence[Sum]) -> tuple[Equation, dict[Atom, Atom]]:
    """The scan without these carries, with what is kept; and the arrays of all steps, by the values of the body."""
    eqn, body, n, m = loop.eqn, loop.body, loop.n_consts, loop.n_carry
    stays = [k for k in range(m) if all(k != s.number for s in sums)]
    gone = {id(e) for s in sums for e in s.steps}
    equations = tuple([e for e in body.equations if id(e) not in gone])
    inputs = (*body.inputs[:n], *(loop.carry[k] for k in stays), *loop.xs)
    outputs = (*(body.outputs[k] for k in stays), *body.outputs[m:], *loop.kept)
    params = {**eqn.params, "body": Program(inputs, equations, outputs, body.name), "n_carry": len(stays)}
    given = (*eqn.inputs[:n], *(eqn.inputs[n + k] for k in stays), *eqn.inputs[n + m :])
    new = [Var(_stacked(v.aval, loop.length)) for v in loop.kept]
    found = Equation(scan_p, given, (*(eqn.outputs[k] for k in stays), *eqn.outputs[m:], *new), params, eqn.source)
    env: dict[Atom, Atom] = dict(zip(loop.xs, eqn.inputs[n + m :], strict=True))
    env |= {v: o for v, o in zip(body.outputs[m:], eqn.outputs[m:], strict=True) if type(v) is Var and v not in env}
    return found, env | dict(zip(loop.kept, new, strict=True))


def _take(loop: _Loop, found: Sum, env: dict[Atom, Atom], after: list[Equation]) -> None:
    """Append the sum over all steps, added to what the carry began with."""
    core = found.core
    params: dict[str, Any]
    if core.prim is dot_general_p:
        (left, right), (bl, br) = core.params["contract"], core.params["batch"]
        params = {"contract": ((0, *_moved(left)), (0, *_moved(right))), "batch": (_moved(bl), _moved(br))}
    else:
        params = {"axes": (0, *_moved(core.params["axes"]))}
    value = _append(after, core, tuple([env[a] for a in core.inputs]), params)
    for step in reversed(found.steps[1:-1]):
        value = _append(after, step, (value,), step.params)
    first = loop.eqn.inputs[loop.n_consts + found.number]
    after.append(Equation(add_p, (first, value), (loop.eqn.outputs[found.number],), {}, core.source))


def _append(after: list[Equation], like: Equation, inputs: tuple[Atom, ...], params: dict[str, Any]) -> Var:
    out = Var(like.outputs[0].aval)
    after.append(Equation(like.prim, inputs, (out,), params, like.source))
    return out


def _moved(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple([a + 1 for a in axes])


def _stacked(aval: Any, length: int) -> Aval:
    return Aval((length, *aval.shape), aval.dtype)


