# SPDX-License-Identifier: MIT
"""What is transposed for reductions alone is not: they reduce the array's own axes.

    b = permute_dims[axes=(1, 0)] a ; c = mul b b ; d = reduce_sum[axes=(0,)] c
    becomes
    e = mul a a ; d = reduce_sum[axes=(1,)] e

A kernel would read a across its rows. Element-wise equations between are computed in the array's order too, where
nothing but reductions needs what they make; what is reduced is permuted where more than one axis is left, in another
order. A transposed array that something else reads as well stays, since one kernel may do both.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.passes.rewriting import WITH_BODIES, program_pass, rebuilt, replaced, with_bodies
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var
from functorch_lite.primitives.broadcast import broadcast_in_dim_p, reduce_sum_p
from functorch_lite.primitives.movement import permute_dims_p
from functorch_lite.primitives.reduction import (
    argmax_p,
    argmin_p,
    reduce_and_p,
    reduce_max_p,
    reduce_min_p,
    reduce_or_p,
    reduce_prod_p,
)

_OF_AXES: frozenset[Primitive] = frozenset(
    (reduce_sum_p, reduce_max_p, reduce_min_p, reduce_prod_p, reduce_and_p, reduce_or_p)
)
_OF_AXIS: frozenset[Primitive] = frozenset((argmax_p, argmin_p))
_REDUCTIONS = _OF_AXES | _OF_AXIS

Order = tuple[int, ...]


@program_pass
def turn_reductions(program: Program) -> Program:
    """The program with what only reductions read permuted in the order in which it is."""
    if all(e.prim is not permute_dims_p and e.prim not in WITH_BODIES for e in program.equations):
        return program
    turned = _turned(program)
    writer = _Writer(turned)
    changed = False
    for eqn in program.equations:
        new = with_bodies(eqn, turn_reductions)
        changed |= new is not eqn
        writer.write(new)
    if not changed and not turned:
        return program
    return rebuilt(program, writer.equations, program.outputs)


# --- what is turned ---------------------------------------------------------------------------------------------------


def _turned(program: Program) -> dict[Atom, Order]:
    """The values that only reductions need, with the order of their axes: axis k is axis order[k] once turned."""
    orders: dict[Atom, Order] = {}
    spread: set[Atom] = set()
    for eqn in program.equations:
        if eqn.prim is permute_dims_p:
            orders[eqn.outputs[0]] = eqn.params["axes"]
        elif eqn.prim is broadcast_in_dim_p:
            spread.add(eqn.outputs[0])
        elif orders and eqn.prim.kind is Kind.ELEMENTWISE:
            order = _order_of(eqn, orders, spread)
            if order is not None:
                orders[eqn.outputs[0]] = order
    _drop(orders, program.outputs)
    before = -1
    while orders and len(orders) != before:
        before = len(orders)
        for eqn in reversed(program.equations):
            if eqn.prim is permute_dims_p or (eqn.prim not in _REDUCTIONS and orders.keys().isdisjoint(eqn.outputs)):
                _drop(orders, eqn.inputs)
        for eqn in program.equations:  # an operand may be needed by something else
            if eqn.prim.kind is Kind.ELEMENTWISE and eqn.outputs[0] in orders and not _order_of(eqn, orders, spread):
                _drop(orders, eqn.outputs)
    return orders if _is_reduced(program, orders) else {}


def _order_of(eqn: Equation, orders: dict[Atom, Order], spread: set[Atom]) -> Order | None:
    """The order of an element-wise result: that of all operands but those that are the same along axes anyway."""
    found: set[Order] = set()
    for x in eqn.inputs:
        if x in orders:
            found.add(orders[x])
        elif x.aval.shape and x not in spread:
            return None
    return found.pop() if len(found) == 1 and len(eqn.outputs) == 1 else None


def _drop(orders: dict[Atom, Order], atoms: Sequence[Atom]) -> None:
    for x in orders.keys() & atoms:
        del orders[x]


def _is_reduced(program: Program, orders: dict[Atom, Order]) -> bool:
    return bool(orders) and any(e.prim in _REDUCTIONS and e.inputs[0] in orders for e in program.equations)


# --- the new program --------------------------------------------------------------------------------------------------


class _Spread(NamedTuple):
    """A broadcast for each order in which it is read."""

    equation: Equation
    made: dict[Order, Atom]


class _Writer:
    """Writes the equations. turned: the orders of values that are computed in the order of their array."""

    def __init__(self, turned: dict[Atom, Order]):
        self.turned = turned
        self.equations: list[Equation] = []
        self._own: dict[Atom, Atom] = {}  # what stands for a turned value
        self._spread: dict[Atom, _Spread] = {}

    def write(self, eqn: Equation) -> None:
        """Write what stands for an equation."""
        out = eqn.outputs[0] if eqn.outputs else None
        if out is not None and out in self.turned:
            self._own[out] = eqn.inputs[0] if eqn.prim is permute_dims_p else self._elementwise(eqn, self.turned[out])
        elif eqn.prim in _REDUCTIONS and eqn.inputs[0] in self.turned:
            self._reduction(eqn, self.turned[eqn.inputs[0]])
        else:
            self.equations.append(eqn)
            if eqn.prim is broadcast_in_dim_p and self.turned:
                self._spread[eqn.outputs[0]] = _Spread(eqn, {})

    def _elementwise(self, eqn: Equation, order: Order) -> Atom:
        inputs = [self._operand(x, order) for x in eqn.inputs]
        return self._emit(eqn, eqn.prim, inputs, _before(eqn.outputs[0].aval, order), eqn.params)

    def _emit(self, eqn: Equation, prim: Primitive, inputs: Sequence[Atom], aval: Aval, params: dict) -> Var:
        out = Var(aval)
        self.equations.append(Equation(prim, tuple(inputs), (out,), params, eqn.source))
        return out

    def _operand(self, x: Atom, order: Order) -> Atom:
        if x in self.turned:
            return self._own[x]
        if isinstance(x, Literal) or not x.aval.shape:
            return x
        eqn, made = self._spread[x]
        if order not in made:
            aval = _before(x.aval, order)
            params = {"shape": aval.shape, "dims": tuple([order[d] for d in eqn.params["dims"]])}
            made[order] = self._emit(eqn, broadcast_in_dim_p, eqn.inputs, aval, params)
        return made[order]

    def _reduction(self, eqn: Equation, order: Order) -> None:
        x = self._own[eqn.inputs[0]]
        axes = (eqn.params["axis"],) if eqn.prim in _OF_AXIS else eqn.params["axes"]
        own = tuple(sorted(order[a] for a in axes))
        params = {**eqn.params, "axis": own[0]} if eqn.prim in _OF_AXIS else {**eqn.params, "axes": own}
        kept = [a for a in order if a not in own]
        ranks = sorted(kept)
        if kept == ranks:
            self.equations.append(replaced(eqn, eqn.prim, x, **params))
            return
        places = tuple([ranks.index(a) for a in kept])
        found = self._emit(eqn, eqn.prim, [x], _before(eqn.outputs[0].aval, places), params)
        self.equations.append(replaced(eqn, permute_dims_p, found, axes=places))


def _before(aval: Any, order: Order) -> Aval:
    """The type of an array that `permute_dims` in an order makes one of this type of."""
    shape = [0] * len(order)
    for n, axis in zip(aval.shape, order, strict=True):
        shape[axis] = n
    return Aval(tuple(shape), aval.dtype)
