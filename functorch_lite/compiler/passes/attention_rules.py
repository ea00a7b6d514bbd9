# SPDX-License-Identifier: MIT
"""What each primitive makes of the values around a softmax: the rules of attention_algebra.py."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.passes.attention_algebra import (
    OUT,
    SAME,
    L,
    N,
    Poly,
    Result,
    Role,
    Roles,
    Softmax,
    Value,
    W,
    has,
    inverse,
    of,
    plus,
    power_of,
    single,
    times,
    unified,
)
from functorch_lite.compiler.passes.rewriting import scalar
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Atom, Equation
from functorch_lite.primitives.broadcast import broadcast_in_dim_p, reduce_sum_p
from functorch_lite.primitives.comparison import eq_p, is_finite_p, ne_p, select_p
from functorch_lite.primitives.contraction import dot_general_p
from functorch_lite.primitives.elementwise import (
    add_any_p,
    add_p,
    div_p,
    mul_p,
    neg_p,
    safe_div_p,
    scale_p,
    sub_p,
)
from functorch_lite.primitives.movement import permute_dims_p, reshape_p
from functorch_lite.primitives.transcendental import log_p


def step(m: Softmax, i: int, eqn: Equation) -> bool:
    """Look at equation i, which reads a known value; whether its own is known, too."""
    rule = _STEPS.get(eqn.prim)
    value = None if rule is None else rule(m, eqn)
    if value is None:
        return eqn.outputs[0] in m.logs
    found = single(value.poly)
    if found is not None and (found[0][0] in ("dq", "dk", "dv") or (found[0] == OUT and abs(found[1] - 1) < SAME)):
        m.results.append(Result(i, eqn, *found, value.roles))
        if found[0] != OUT:
            return False
    m.known[eqn.outputs[0]] = value
    return True


def _operands(m: Softmax, eqn: Equation) -> tuple[Roles, list[Poly | None]] | None:
    """The roles of an element-wise equation's operands, and what they are."""
    values = [m.known[a] for a in eqn.inputs if a in m.known]
    if all(single(v.poly) == (OUT, 1.0) for v in values):
        return None  # what is done with the result of an attention is not part of it
    roles: Roles | None = values[0].roles
    for v in values[1:]:
        roles = unified(roles, v.roles) if roles is not None else None
    return None if roles is None else (roles, [m.resolve(a, roles) for a in eqn.inputs])


def _spelled(roles: Roles, *polys: Poly) -> Roles:
    """Roles with "?" told by what is in the sums."""
    if "?" not in roles or not any(has(t, "W", "D", "O", "C") for p in polys for t in p):
        return roles
    last = "k" if any(has(t, "W", "D") for p in polys for t in p) else "f"
    return tuple([last if r == "?" else r for r in roles])


def _multiplied(m: Softmax, eqn: Equation) -> Value | None:
    found = _operands(m, eqn)
    if found is None:
        return None
    roles, (x, y) = found
    if x == {} or y == {}:
        return Value(roles, {})
    return None if x is None or y is None else Value(_spelled(roles, x, y), times(x, y))


def _divided(m: Softmax, eqn: Equation) -> Value | None:
    found = _operands(m, eqn)
    if found is None:
        return None
    roles, (x, y) = found
    below = None if not y else inverse(y)
    return None if x is None or below is None else Value(_spelled(roles, x), times(x, below))


def _added(ratio: float) -> Callable[[Softmax, Equation], Value | None]:
    def rule(m: Softmax, eqn: Equation) -> Value | None:
        found = None if _is_log(m, eqn) else _operands(m, eqn)
        if found is None:
            return None
        roles, (x, y) = found
        return None if x is None or y is None else Value(_spelled(roles, x, y), plus(x, y, ratio))

    return rule


def _is_log(m: Softmax, eqn: Equation) -> bool:
    """Whether an equation adds the maximum to the logarithm of the sum; that is noted."""
    if eqn.prim is not add_p or not any(without_units(m.made, a) in m.tops for a in eqn.inputs):
        return False
    if any(a in m.known and m.known[a].poly == of(L) for a in eqn.inputs):
        m.logs.add(eqn.outputs[0])
    return True


def _negated(m: Softmax, eqn: Equation) -> Value | None:
    value = m.known.get(eqn.inputs[0])
    if value is None or single(value.poly) == (OUT, 1.0):
        return None
    return Value(value.roles, plus({}, value.poly, -1.0))


def _summed(m: Softmax, eqn: Equation) -> Value | None:
    value = m.known.get(eqn.inputs[0])
    axes = eqn.params["axes"]
    if value is None or len(axes) != 1 or value.roles[axes[0]] not in ("k", "f"):
        return None
    terms: Poly = {}
    for term, c in value.poly.items():
        new = _row_sum(term) if value.roles[axes[0]] == "k" else _feature_sum(term)
        if new is None:
            return None
        terms = plus(terms, {new: c})
    return Value(tuple([r for i, r in enumerate(value.roles) if i != axes[0]]), terms)


def _row_sum(term: Any) -> Any:
    """The sum over k of a product: of W it is 1, of W D it is T."""
    rest = frozenset(p for p in term if p[0] != W and p[0][0] != "D")
    across = [p for p in term if p[0][0] == "D"]
    if power_of(term, W) != 1 or len(across) > 1 or (across and across[0][1] != 1) or has(rest, "O", "C"):
        return None
    return times({rest: 1.0}, of(("T", across[0][0][1]))).popitem()[0] if across else rest


def _feature_sum(term: Any) -> Any:
    """The sum over f of a product: of O C it is T."""
    cts = [p for p in term if p[0][0] == "C"]
    if power_of(term, OUT) != 1 or len(cts) != 1 or cts[0][1] != 1 or has(term, "W", "D"):
        return None
    rest = frozenset(p for p in term if p[0] != OUT and p[0][0] != "C")
    return times({rest: 1.0}, of(("T", cts[0][0][1]))).popitem()[0]


def _spread(m: Softmax, eqn: Equation) -> Value | None:
    value = m.known.get(eqn.inputs[0])
    if value is None:
        return None
    shape = eqn.params["shape"]
    roles: list[Role] = ["1" if n == 1 else "?" for n in shape]
    for role, axis in zip(value.roles, eqn.params["dims"], strict=True):
        if role != "1":
            roles[axis] = role
    return Value(tuple(roles), value.poly) if roles.count("?") <= 1 else None


def _reshaped(m: Softmax, eqn: Equation) -> Value | None:
    """Axes of size 1 are put in or taken out."""
    x, shape = eqn.inputs[0], eqn.params["shape"]
    if x in m.logs:
        m.logs.add(eqn.outputs[0])
    value = m.known.get(x)
    if value is None or single(value.poly) == (OUT, 1.0):
        return None
    left = [(r, n) for r, n in zip(value.roles, x.aval.shape, strict=True) if r != "1"]
    roles: list[Role] = []
    for n in shape:
        if left and left[0][1] == n:
            roles.append(left.pop(0)[0])
        elif n == 1:
            roles.append("1")
        else:
            return None
    return None if left else Value(tuple(roles), value.poly)


def without_units(made: Mapping[Atom, Equation], atom: Atom) -> Atom:
    """The array that this one is, but for axes of size 1."""
    maker = made.get(atom)
    if maker is None or maker.prim is not reshape_p:
        return atom
    source = maker.inputs[0]
    same = [n for n in source.aval.shape if n != 1] == [n for n in atom.aval.shape if n != 1]
    return without_units(made, source) if same else atom


def _turned(m: Softmax, eqn: Equation) -> Value | None:
    value = m.known.get(eqn.inputs[0])
    if value is None or single(value.poly) == (OUT, 1.0):
        return None
    return Value(tuple([value.roles[a] for a in eqn.params["axes"]]), value.poly)


def _selected(m: Softmax, eqn: Equation) -> Value | None:
    """Guarded sums and their logarithms; and what is zero where a query does not look stays what it is."""
    condition, *branches = eqn.inputs
    guard = guard_of(m.made, condition)
    for i, (x, y) in enumerate((branches, branches[::-1])):
        constant, value = scalar(y), m.known.get(x)
        if constant is None:
            continue
        if guard is not None and guard.value is x and guard.fine == i:
            if x in m.logs and guard.infinite:
                m.logs.add(eqn.outputs[0])
                return None
            if value is not None and value.poly == of(N) and not guard.infinite and constant == 1:
                m.guards[condition] = i
                m.plain_sum = False
                return value
        if value is not None and constant == 0 and (m.guards.get(condition) == i or _is_masked(m, condition, i, value)):
            return value
    return None


def _is_masked(m: Softmax, condition: Atom, branch: int, value: Value) -> bool:
    """Whether a condition leaves a value, in this branch, where queries look, and it is zero elsewhere."""
    if condition is not m.mask or m.added or branch != m.inverted:
        return False
    return bool(value.poly) and all(power_of(t, W) > 0 for t in value.poly)


class Guard(NamedTuple):
    """A condition that asks whether a value is infinite (else: zero), and the branch of a select where it is not."""

    value: Atom
    infinite: bool
    fine: int


def guard_of(made: Mapping[Atom, Equation], condition: Atom) -> Guard | None:
    """The condition as a guard, if it is one."""
    maker = made.get(condition)
    if maker is not None and maker.prim is is_finite_p:
        return Guard(maker.inputs[0], True, 0)
    if maker is None or maker.prim not in (eq_p, ne_p):
        return None
    constant = scalar(maker.inputs[1])
    if constant is None or (constant != 0 and constant != -np.inf):
        return None
    return Guard(maker.inputs[0], bool(constant != 0), int(maker.prim is eq_p))


def _logarithm(m: Softmax, eqn: Equation) -> Value | None:
    value = m.known.get(eqn.inputs[0])
    return Value(value.roles, of(L)) if value is not None and value.poly == of(N) else None


_STEPS: dict[Primitive, Callable[[Softmax, Equation], Value | None]] = {
    mul_p: _multiplied, scale_p: _multiplied, div_p: _divided, safe_div_p: _divided, add_p: _added(1.0),
    add_any_p: _added(1.0), sub_p: _added(-1.0), neg_p: _negated, reduce_sum_p: _summed, broadcast_in_dim_p: _spread,
    permute_dims_p: _turned, reshape_p: _reshaped, select_p: _selected, log_p: _logarithm,
    dot_general_p: Softmax.product_of,
}  # fmt: skip
