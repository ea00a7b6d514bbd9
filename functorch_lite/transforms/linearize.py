# SPDX-License-Identifier: MIT
"""Reverse mode in two steps: compute primal values now, and write the linear part on a tape.

The tape runs forwards (`linearize`, `jvp`) or backwards (`vjp`, `grad`); see `core.linear`. Primal values are
computed in the parent trace, eagerly where they are concrete, so Python's `if` and `print` work under `grad`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from numpy import float32, float64, ndarray

from functorch_lite.backends.registry import enter_home, leave_home
from functorch_lite.core.aval import Stack, aval_of
from functorch_lite.core.linear import Linear, Tape, TapeTrace, TapeTracer
from functorch_lite.core.primitive import Kind
from functorch_lite.core.rules import jvp_rules, linearize_rules
from functorch_lite.core.tracer import Tag, Trace, Tracer, current_trace, reset_trace, root, set_trace
from functorch_lite.transforms.arguments import weak_copy
from functorch_lite.transforms.jvp import PrimalTracer, apply_jvp_rule, closure_rules, split
from functorch_lite.transforms.pullbacks import (
    Plan,
    Signature,
    has_plan,
    plan_key,
    plan_of,
    plans_in_force,
    signature_of,
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
    def index(self) -> int:
        """The number of the entry."""
        return self.linear.index

    @property
    def tangent(self) -> TapeTracer:
        """The entry as jvp rules see it."""
        return TapeTracer(self.tape.tag, self.linear)


class LinearizeTrace(Trace):
    """Computes primals in the parent and writes tangents on the tape."""

    __slots__ = ("tape",)

    def __init__(self, tag: Tag, parent: Trace):
        self.tag = tag
        self.parent = parent
        self.tape = TapeTrace(parent, see_through=tag)

    def inputs(self, primals: Sequence[Any]) -> list[Any]:
        """The tracers of arguments."""
        return [self.input(p) for p in primals]

    def input(self, primal: Any, weak: bool = False) -> Tracer:
        """The tracer of an argument."""
        return LinearTracer(self.tag, primal, self.tape.unknown((primal.shape, primal.dtype)), self.tape, weak)

    def box(self, primal: Any, tangent: Any) -> LinearTracer:
        """A tracer of this trace."""
        return LinearTracer(self.tag, primal, tangent.linear, self.tape)

    def process(self, prim, args, params):
        """The primitive's value, computed in the parent, with its tangent written on the tape."""
        primals, tangents, found = split(args, self.tag)
        if not found and (prim.kind is not Kind.HIGHER_ORDER or prim not in closure_rules):
            return self.parent.process(prim, args, params)
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
        return self.box(outs, dots)

    def _linearized(self, prim, primals, tangents, params):
        if prim.kind is Kind.HIGHER_ORDER:
            closure, special = closure_rules.get(prim), linearize_rules.get(prim)
            if closure is not None:
                return closure(self, self.tape, primals, tangents, **params)
            if special is not None:
                return special(self.tape, primals, tangents, **params)
        return apply_jvp_rule(self.parent, prim, primals, tangents, params)


# --- tapes that only run backwards ------------------------------------------------------------------------------------


class PlannedTracer(PrimalTracer):
    """A primal value of an eager gradient, and the number of its tangent on the tape.

    signature: stands for its type, where it is one for which functions of arrays are planned; see `signature_of`.
    """

    __slots__ = ("index", "tape", "signature")

    def __init__(
        self, tag: Tag, primal: Any, index: int, tape: TapeTrace, signature: Signature | None, weak: bool = False
    ):
        self.tag = tag
        self.primal = primal
        self.index = index
        self.tape = tape
        self.signature = signature
        self.weak = weak

    @property
    def tangent(self) -> TapeTracer:
        """The entry as jvp rules see it."""
        return TapeTracer(self.tape.tag, Linear(self.index, None, (), {}, aval_of(self.primal)))


class PlannedTrace(LinearizeTrace):
    """Where the tape will only run backwards and primals are arrays: entries are pullbacks planned in advance.

    See `transforms.pullbacks`; `composites` are the plans of functions of arrays (`transforms.composites`).
    """

    __slots__ = ("plans", "composites")

    def __init__(self, tag: Tag, parent: Trace):
        self.tag = tag
        self.parent = parent
        self.tape = TapeTrace(parent, see_through=tag)
        self.plans, self.composites = plans_in_force()

    def inputs(self, primals: Sequence[Any]) -> list[Any]:
        tag, tape = self.tag, self.tape
        tape.count = len(primals)
        return [PlannedTracer(tag, p, i, tape, signature_of(p)) for i, p in enumerate(primals)]

    def input(self, primal: Any, weak: bool = False) -> Tracer:
        tape = self.tape
        index = tape.count
        tape.count = index + 1
        return PlannedTracer(self.tag, primal, index, tape, signature_of(primal), weak)

    def box(self, primal: Any, tangent: Any) -> Tracer:
        return PlannedTracer(self.tag, primal, tangent.index, self.tape, signature_of(primal))

    def process(self, prim, args, params):
        """The primitive's value, and one entry that stands for its whole derivative."""
        if not has_plan(prim):
            return super().process(prim, args, params)
        tag = self.tag
        primals, active, operands = [], [], []
        on_numpy = True
        for a in args:
            is_active = type(a) is PlannedTracer and a.tag is tag
            if is_active:
                operands.append(a.index)
                a = a.primal
            active.append(is_active)
            primals.append(a)
            if type(a) not in _ON_NUMPY:
                on_numpy = False
        if not operands or not jvp_rules[prim]:
            return root.process(prim, primals, params)
        if type(primals[0]) is Stack:
            return super().process(prim, args, params)
        key = plan_key(prim, primals, active, params)
        plan = self.plans.get(key)
        if plan is None or not on_numpy:
            return self._first(key, prim, primals, active, params, operands)
        try:
            out, values = plan.code(*primals)
        except Exception:
            return root.process(prim, primals, params)  # raises it again, with its place
        return self.planned(plan, out, values, tuple(operands))

    def _first(self, key, prim, primals, active, params, operands):
        """The value by the primitive's own rule, and the entry; the plan is there from now on."""
        out = root.process(prim, primals, params)
        plan = plan_of(self.plans, key, prim, primals, active, out, params)
        if plan is None:
            return out
        every = (*primals, out)
        traced = self.planned(plan, out, [every[i] for i in plan.needed], tuple(operands))
        traced.signature = signature_of(out)
        return traced

    def planned(self, plan: Plan, out: Any, values: Sequence[Any] | None, operands: tuple[int, ...]) -> Any:
        """The tracer of `out`, whose derivative in `operands` is the pullback of `plan` with the `values` it needs;
        `out` itself where the values are None: it has none."""
        if values is None:
            return out
        tape = self.tape
        index = tape.count
        tape.count = index + 1
        tape.entries.append((plan, operands, values, index))
        return PlannedTracer(self.tag, out, index, tape, plan.signature)


_ON_NUMPY = frozenset((ndarray, float32, float64))


def linearize_flat(
    fun: Callable[..., Sequence[Any]], primals: Sequence[Any], active: Sequence[bool], *,
    transform: str = "grad", name: str = "f", weak: Sequence[bool] = (), paths: Callable[[], list[str]] | None = None,
    backwards_only: bool = False,
) -> tuple[list[Any], Tape]:
    """Outputs of `fun` and the tape of its derivative in the `active` arguments; `paths` names them in errors.

    active, weak: one flag for each argument; () where all are active, and none is weak.
    backwards_only: the tape will not be replayed forwards.
    """
    tag = Tag(transform, name)
    parent = current_trace()
    trace = (PlannedTrace if backwards_only and parent is root else LinearizeTrace)(tag, parent)
    if active or weak:
        flags = zip(primals, active or [True] * len(primals), weak or [False] * len(primals), strict=True)
        args = [trace.input(p, w) if on else weak_copy(p) if w else p for p, on, w in flags]
    else:
        args = trace.inputs(primals)
    if paths is not None:
        tag.arguments = args, paths
    token, away = set_trace(trace), enter_home(primals)
    try:
        try:
            outs = fun(*args)
        finally:
            reset_trace(token)
            tag.end()
        mine = [o if isinstance(o, Tracer) and o.tag is tag else None for o in outs]
        out_primals = [getattr(t, "primal", o) for o, t in zip(outs, mine, strict=True)]
        inputs = [a for a, on in zip(args, active, strict=True) if on] if active else args
        return out_primals, Tape(trace.tape, inputs, mine)
    finally:
        leave_home(away)
