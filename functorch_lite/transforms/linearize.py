# SPDX-License-Identifier: MIT
"""Reverse mode in two steps: compute primal values now, and write the linear part on a tape.

The tape runs forwards (`linearize`, `jvp`) or backwards (`vjp`, `grad`); see `core.linear`. Primal values are
computed in the parent trace, eagerly where they are concrete, so Python's `if` and `print` work under `grad`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from numpy import ndarray

from functorch_lite.backends.registry import enter_home, leave_home
from functorch_lite.core.aval import Stack
from functorch_lite.core.linear import Linear, Tape, TapeTrace, TapeTracer
from functorch_lite.core.primitive import Kind
from functorch_lite.core.rules import jvp_rules, linearize_rules
from functorch_lite.core.tracer import Tag, Trace, current_trace, reset_trace, root, set_trace
from functorch_lite.transforms.arguments import weak_copy
from functorch_lite.transforms.jvp import PrimalTracer, apply_jvp_rule, closure_rules, split
from functorch_lite.transforms.pullbacks import (
    Plan,
    Plans,
    has_plan,
    plan_key,
    plan_of,
    plans_in_force,
    pullback_p,
)


class LinearTracer(PrimalTracer):
    """A primal value and the tape entry of its tangent."""

    __slots__ = ("linear", "tape")

    def __init__(self, tag: Tag, primal: Any, linear: Linear, tape: TapeTrace, weak: bool = False):
        self.tag = tag
        self.primal = primal
        self.linear = linear
        self.tape = tape
        self.weak = weak

    @property
    def tangent(self) -> TapeTracer:
        """The entry as jvp rules see it."""
        return TapeTracer(self.tape.tag, self.linear)


class LinearizeTrace(Trace):
    """Computes primals in the parent and writes tangents on the tape.

    by_plan: the tape will only run backwards and primals are arrays, so entries are pullbacks planned in advance
    (see `transforms.pullbacks`).
    """

    __slots__ = ("tape", "plans", "composites")

    def __init__(self, tag: Tag, parent: Trace, by_plan: bool = False):
        self.tag = tag
        self.parent = parent
        self.tape = TapeTrace(parent, see_through=tag)
        self.plans, self.composites = plans_in_force() if by_plan else (None, None)

    def box(self, primal: Any, tangent: Any) -> LinearTracer:
        """A tracer of this trace."""
        return LinearTracer(self.tag, primal, tangent.linear, self.tape)

    def process(self, prim, args, params):
        """The primitive's value, computed in the parent, with its tangent written on the tape."""
        if self.plans is not None and has_plan(prim):
            return self._planned(self.plans, prim, args, params)
        tag = self.tag
        primals, linears = [], []
        found = False
        for a in args:
            if type(a) is LinearTracer and a.tag is tag:
                primals.append(a.primal)
                linears.append(a.linear)
                found = True
            else:
                primals.append(a)
                linears.append(None)
        if not found and (prim.kind is not Kind.HIGHER_ORDER or prim not in closure_rules):
            return self.parent.process(prim, args, params)
        return self._by_rule(prim, primals, linears, params)

    def _by_rule(self, prim, primals, linears, params):
        """The primitive's value, with entries for what its jvp rule does to the tangents."""
        tape_tag = self.tape.tag
        tangents = [None if n is None else TapeTracer(tape_tag, n) for n in linears]
        token = set_trace(self.tape)
        try:
            outs, dots = self._linearized(prim, primals, tangents, params)
        finally:
            reset_trace(token)
        if dots is None:
            return outs
        if prim.multiple:
            return [o if t is None else self.box(o, t) for o, t in zip(outs, dots, strict=True)]
        # a tangent has the type of its primal: no need to ask the shape rule
        dots.linear.known_aval = outs.aval if type(outs) is Stack else (outs.shape, outs.dtype)
        return LinearTracer(self.tag, outs, dots.linear, self.tape)

    def _planned(self, plans: Plans, prim, args, params):
        """Eager: the primitive's value, and one entry that stands for its whole derivative."""
        tag = self.tag
        primals, linears, active = [], [], []
        on_numpy = True
        for a in args:
            if type(a) is LinearTracer and a.tag is tag:
                active.append(a.linear)
                linears.append(a.linear)
                a = a.primal
            else:
                linears.append(None)
            primals.append(a)
            if type(a) is not ndarray:
                on_numpy = False
        if not active or not jvp_rules[prim]:
            return root.process(prim, primals, params)
        if type(primals[0]) is Stack:
            return self._by_rule(prim, primals, linears, params)
        key = plan_key(prim, primals, linears, params)
        plan = plans.get(key)
        if plan is not None and on_numpy:
            try:
                (out,) = (plan.code or plan.write())(*primals)
            except Exception:
                out = root.process(prim, primals, params)  # raises it again, with its place
        else:
            out = root.process(prim, primals, params)
            plan = plan_of(plans, key, prim, primals, linears, out, params)
        if plan is None:
            return out
        every = (*primals, out)
        return self.planned(plan, out, [every[i] for i in plan.needed], active)

    def planned(self, plan: Plan, out: Any, values: list[Any], linears: list[Linear]) -> LinearTracer:
        """The tracer of `out`, whose derivative in `linears` is the pullback of `plan` with the `values` it needs."""
        tape = self.tape
        entry = Linear(tape.count, pullback_p, linears, {"plan": plan, "values": values}, (out.shape, out.dtype))
        tape.entries.append(entry)
        tape.count += 1
        return LinearTracer(self.tag, out, entry, tape)

    def _linearized(self, prim, primals, tangents, params):
        if prim.kind is Kind.HIGHER_ORDER:
            closure, special = closure_rules.get(prim), linearize_rules.get(prim)
            if closure is not None:
                return closure(self, self.tape, primals, tangents, **params)
            if special is not None:
                return special(self.tape, primals, tangents, **params)
        return apply_jvp_rule(self.parent, prim, primals, tangents, params)


def linearize_flat(
    fun: Callable[..., Sequence[Any]], primals: Sequence[Any], active: Sequence[bool], *,
    transform: str = "grad", name: str = "f", weak: Sequence[bool] = (), paths: Callable[[], list[str]] | None = None,
    backwards_only: bool = False,
) -> tuple[list[Any], Tape]:
    """Outputs of `fun` and the tape of its derivative in the `active` arguments; `paths` names them in errors.

    backwards_only: the tape will not be replayed forwards.
    """
    tag = Tag(transform, name)
    parent = current_trace()
    trace = LinearizeTrace(tag, parent, backwards_only and parent is root)
    tape = trace.tape
    flags = weak or [False] * len(primals)
    args = [
        LinearTracer(tag, p, tape.unknown((p.shape, p.dtype)), tape, w) if on else weak_copy(p) if w else p
        for p, on, w in zip(primals, active, flags, strict=True)
    ]
    if paths is not None:
        tag.arguments = args, paths
    token, away = set_trace(trace), enter_home(primals)
    try:
        try:
            outs = fun(*args)
        finally:
            reset_trace(token)
            tag.end()
        out_primals, out_tangents, _ = split(outs, tag)
        return out_primals, Tape(tape, [a for a, on in zip(args, active, strict=True) if on], out_tangents)
    finally:
        leave_home(away)
