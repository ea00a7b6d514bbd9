# SPDX-License-Identifier: MIT
"""Attention that is written out becomes the primitive, whose kernels do not keep the n x m weights.

    s = dot_general q k ; e = exp(s - max s) ; w = e / sum e ; o = dot_general w v      becomes
    o, lse = attention q k v

and its gradients, if they are there, `attention_cotangents`. Scores may be multiplied or divided by a number, masked
by a boolean array (`select(mask, s, -inf)`) or by an added one; a mask that the compiler can compute and that is
causal or a window becomes bounds, any other one an operand. Weights may be a quotient, before or after the product with
the values, or the exponential of scores less their logsumexp; attention_algebra.py says how they are followed. Queries
may have axes that keys do not have (grouped queries), and operands any order of axes.

A softmax is replaced only if nothing is left that reads the scores: one whose weights are returned, dropped out or have
a derivative of their own stays as it is. So does one whose heads have fewer than `MIN_WEIGHTS` weights, which fit in a
cache and are as fast as they are, or fewer than `MIN_KEYS` keys or `MIN_QUERIES` queries.

Right up to rounding: sums run in another order, and a row's quotient is taken after its product with the values. The
attention is a strict one, so a row that sees nothing stays NaN, unless the program guards against that in the maximum
and in the sum, as nn does. Where a row of the result is NaN for another reason, so is its part of the gradient, also
where it would be written as zero times NaN.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.compiler.passes.attention_algebra import (
    N,
    Product,
    Role,
    Softmax,
    Value,
    W,
    of,
    operand,
    times,
)
from functorch_lite.compiler.passes.attention_rules import guard_of, step, without_units
from functorch_lite.compiler.passes.attention_writing import Writer
from functorch_lite.compiler.passes.rewriting import program_pass, rebuilt, scalar, with_bodies
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Atom, Equation, Program
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.comparison import select_p
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.elementwise import add_p, div_p, mul_p, sub_p
from functorch_lite.primitives.movement import permute_dims_p
from functorch_lite.primitives.reduction import reduce_max_p
from functorch_lite.primitives.transcendental import exp_p

MIN_WEIGHTS = 1 << 13
MIN_QUERIES = 8
MIN_KEYS = 16


@program_pass
def fuse_attention(program: Program) -> Program:
    """The program with attention in the place of what computes it."""
    equations = [with_bodies(e, fuse_attention) for e in program.equations]
    if any(a is not b for a, b in zip(equations, program.equations, strict=True)):
        program = rebuilt(program, equations, program.outputs)
    if not any(e.prim is exp_p and math.prod(e.outputs[0].aval.shape) >= MIN_WEIGHTS for e in equations):
        return program
    found = _Finder(program).found
    while found:
        new = Writer(program, found).write()
        used = {v for e in new.equations for v in e.outputs}
        stay = [m for m in found if m.product.outputs[0] not in used]
        if len(stay) == len(found):
            return new
        found = stay
    return program


# --- finding ----------------------------------------------------------------------------------------------------------


class _Finder:
    """Follows every softmax of a program."""

    def __init__(self, program: Program):
        self.made: dict[Atom, Equation] = {e.outputs[0]: e for e in program.equations if len(e.outputs) == 1}
        self.by_scores: dict[Atom, Softmax | None] = {}
        self.owners: dict[Atom, Softmax] = {}
        self.program = program
        for i, eqn in enumerate(program.equations):
            if eqn.prim is exp_p:
                self._start(eqn)
            else:
                self._follow(i, eqn)

    @property
    def found(self) -> list[Softmax]:
        """Each softmax of scores that has results, and values when the first of them is needed."""
        return [m for m in self.by_scores.values() if m is not None and self._is_whole(m)]

    def _is_whole(self, m: Softmax) -> bool:
        before = self.program.equations[: m.results[0].number] if m.results else ()
        if m.v is None or not before or m.v.atom not in (*self.program.inputs, *(v for e in before for v in e.outputs)):
            return False
        # of rows that see nothing: weights NaN, their derivative zero, which the primitive does not have
        return not m.added or m.plain_top or not m.plain_sum or bool(m.logs)

    def _follow(self, i: int, eqn: Equation) -> None:
        owners = [self.owners[a] for a in eqn.inputs if a in self.owners]
        for m in dict.fromkeys(owners) if owners else ():
            if step(m, i, eqn):
                self.owners[eqn.outputs[0]] = m

    def _start(self, eqn: Equation) -> None:
        """Exponentials of scores less their maximum, or less the logarithm of the sum of those."""
        maker = self._maker(eqn.inputs[0], sub_p)
        spread = self._maker(maker.inputs[1], broadcast_in_dim_p) if maker is not None else None
        if maker is None or spread is None:
            return
        x, row = maker.inputs[0], spread.inputs[0]
        m = self.owners.get(row)
        if m is not None:
            is_log = row in m.logs and x is m.scores
            is_late = row in m.known and m.known[row].poly == of(("L",)) and x in m.shifted
            if (is_log or is_late) and _is_along(m, spread):
                m.known[eqn.outputs[0]] = Value(m.roles, of(W))
                self.owners[eqn.outputs[0]] = m
            return
        top, plain = self._top(row)
        if top is None or top.inputs[0] is not x or len(top.params["axes"]) != 1:
            return
        if x not in self.by_scores:
            self.by_scores[x] = _softmax(self.made, x, top.params["axes"][0])
        m = self.by_scores[x]
        if m is None or m.tops or not _is_along(m, spread):
            return
        m.plain_top = plain
        m.tops |= {row, without_units(self.made, row)}
        m.shifted.add(eqn.inputs[0])
        m.known[eqn.outputs[0]] = Value(m.roles, times(of(W), of(N)))
        self.owners[eqn.outputs[0]] = m

    def _top(self, row: Atom) -> tuple[Equation | None, bool]:
        """The maximum that this is, guarded or not, and whether it is not."""
        row = without_units(self.made, row)
        found = self._maker(row, reduce_max_p)
        if found is not None:
            return found, True
        guarded = self._maker(row, select_p)
        guard = guard_of(self.made, guarded.inputs[0]) if guarded is not None else None
        if guarded is None or guard is None or not guard.infinite:
            return None, True
        fine, other = guarded.inputs[1 + guard.fine], guarded.inputs[2 - guard.fine]
        if fine is not guard.value or scalar(other) != 0:
            return None, False
        return self._maker(without_units(self.made, fine), reduce_max_p), False

    def _maker(self, atom: Atom, prim: Primitive) -> Equation | None:
        found = self.made.get(atom)
        return found if found is not None and found.prim is prim else None


def _is_along(m: Softmax, spread: Equation) -> bool:
    """Whether a number for each row, with an axis of size 1 for the keys or without, is broadcast to the scores."""
    shape, dims = spread.inputs[0].aval.shape, spread.params["dims"]
    key = m.roles.index("k")
    rows = [d for d, n in zip(dims, shape, strict=True) if d != key or n != 1]
    return rows == [a for a in range(len(m.roles)) if a != key]


def _softmax(made: dict[Atom, Equation], scores: Atom, axis: int) -> Softmax | None:
    """The scores taken apart; None if they are not a product of queries and keys."""
    if scores.aval.dtype not in (np.float32, np.float64):
        return None
    masks: dict[str, Any] = {}
    order: list[int] = list(range(len(scores.aval.shape)))
    atom, factor = scores, 1.0
    while True:
        eqn = made.get(atom)
        if eqn is None or eqn.prim is dot_general_p:
            break
        if eqn.prim is permute_dims_p:
            order = [eqn.params["axes"][a] for a in order]
            atom = eqn.inputs[0]
            continue
        number = scalar(eqn.inputs[-1])
        if eqn.prim in (mul_p, div_p) and number is not None:
            number = float(number)
            if not 0 < number < np.inf:
                return None
            factor *= number if eqn.prim is mul_p else 1 / number
            atom = eqn.inputs[0]
            continue
        taken = None if masks or order != sorted(order) else _mask(made, eqn, factor)
        if taken is None:
            return None
        atom, masks = taken
    return None if eqn is None else _of_product(made, eqn, scores, axis, order, factor, masks)


def _mask(made: dict[Atom, Equation], eqn: Equation, factor: float) -> tuple[Atom, dict[str, Any]] | None:
    """The scores that are masked here, and by what."""
    shape = eqn.outputs[0].aval.shape
    if eqn.prim is select_p and eqn.inputs[0].aval.shape == shape:
        condition, x, y = eqn.inputs
        for inside, outside in ((x, y), (y, x)):
            if scalar(outside) == -np.inf:
                return inside, {"mask": condition, "inverted": inside is y}
    if eqn.prim is add_p and factor == 1:
        for inside, mask in (eqn.inputs, eqn.inputs[::-1]):
            makers = made.get(inside), made.get(mask)
            is_product = makers[0] is not None and makers[0].prim in (dot_general_p, mul_p, div_p, permute_dims_p)
            if is_product and mask.aval.shape == shape and (makers[1] is None or makers[1].prim is not dot_general_p):
                return inside, {"mask": mask, "added": True}
    return None


def _of_product(
    made: dict[Atom, Equation], eqn: Equation, scores: Atom, axis: int, order: Sequence[int], factor: float,
    masks: dict[str, Any],
) -> Softmax | None:  # fmt: skip
    """The softmax over this axis of scores; order: the axis of the product that each of their axes is."""
    product = Product(eqn)
    side = product.side_of(order[axis])
    if side is None or len(product.free[side]) != 1 or not product.free[1 - side] or len(product.contract[0]) != 1:
        return None
    roles: list[Role] = list(range(product.rank))
    roles[order[axis]] = "k"
    roles[max((a for a in order if product.side_of(a) == 1 - side), key=order.index)] = "q"
    lead = tuple([r for r in roles if r not in ("q", "k")])
    q, k = (operand(made, eqn.inputs[s], product.roles_of(s, roles, ("e",))) for s in (1 - side, side))
    sizes = dict(zip(roles, eqn.outputs[0].aval.shape, strict=True))
    ours = tuple([roles[a] for a in order])
    if sizes["q"] < MIN_QUERIES or sizes["k"] < MIN_KEYS or sizes["q"] * sizes["k"] < MIN_WEIGHTS:
        return None
    return Softmax(made, eqn, scores, ours, sizes, q, k, lead, product.n_batch, factor, **masks)
