# SPDX-License-Identifier: MIT
"""Forward mode: carry a tangent beside each value.

    jvp(f, (x,), (x_dot,)) = f(x), df(x)[x_dot]
"""

from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite.backends.registry import enter_home, leave_home
from functorch_lite.core.aval import aval_of
from functorch_lite.core.linear import TapeTrace, add_tangents
from functorch_lite.core.primitive import Kind
from functorch_lite.core.rules import RuleTable, jvp_rules
from functorch_lite.core.tracer import Tag, Trace, Tracer, current_trace, reset_trace, set_trace
from functorch_lite.primitives.broadcast import broadcast_in_dim
from functorch_lite.transforms.arguments import weak_copy

closure_rules = RuleTable(
    "closure",
    "(trace, inner, primals, tangents, **params) -> (outs, out tangents): a primitive whose parameters are Python "
    "functions, which may close over tracers of `trace`; in `inner` those stand for their primal values",
)


class PrimalTracer(Tracer):
    """A tracer with a primal value, whose type and concrete value are its own."""

    __slots__ = ("primal",)

    primal: Any

    @property
    def aval(self):
        return aval_of(self.primal)

    @property
    def shape(self):
        return self.primal.shape

    @property
    def dtype(self):
        return self.primal.dtype

    def concrete(self):
        return self.primal.concrete() if isinstance(self.primal, Tracer) else self.primal


class JVPTracer(PrimalTracer):
    """A primal value and its tangent (an array; a zero tangent has no tracer)."""

    __slots__ = ("tangent",)

    def __init__(self, tag: Tag, primal: Any, tangent: Any, weak: bool = False):
        self.tag = tag
        self.primal = primal
        self.tangent = tangent
        self.weak = weak


class JVPTrace(Trace):
    """Computes primal and tangent of each primitive in the parent, by its jvp rule."""

    __slots__ = ()

    def __init__(self, tag: Tag, parent: Trace):
        self.tag = tag
        self.parent = parent

    def box(self, primal: Any, tangent: Any) -> JVPTracer:
        """A tracer of this trace."""
        return JVPTracer(self.tag, primal, tangent)

    def process(self, prim, args, params):
        """The primitive's value and tangent, by its jvp rule; the parent's result where no argument has a tangent."""
        primals, tangents, found = split(args, self.tag)
        special = closure_rules.get(prim)
        if not found and special is None:
            return self.parent.process(prim, args, params)
        token = set_trace(self.parent)
        try:
            if special is not None:
                outs, out_dots = special(self, TapeTrace(self.parent, self.tag), primals, tangents, **params)
            else:
                outs, out_dots = apply_jvp_rule(self.parent, prim, primals, tangents, params)
        finally:
            reset_trace(token)
        if out_dots is None:
            return outs
        tag = self.tag
        if prim.multiple:
            return [o if t is None else JVPTracer(tag, o, t) for o, t in zip(outs, out_dots, strict=True)]
        return JVPTracer(tag, outs, out_dots)


def split(args: Sequence[Any], tag: Tag) -> tuple[list[Any], list[Any], bool]:
    """Primals and tangents of `args`, where the tracers of `tag` have one, and whether any has."""
    primals, tangents, found = [], [], False
    for a in args:
        if isinstance(a, Tracer) and a.tag is tag:
            primals.append(a.primal)  # type: ignore[attr-defined]
            tangents.append(a.tangent)  # type: ignore[attr-defined]
            found = True
        else:
            primals.append(a)
            tangents.append(None)
    return primals, tangents, found


def apply_jvp_rule(parent: Trace, prim, primals, tangents, params) -> tuple[Any, Any]:
    """The outputs of `prim`, computed in `parent`, and its output tangents, computed in the current trace."""
    rule = jvp_rules[prim]
    if type(rule) is not tuple:
        return rule(primals, tangents, **params)
    out = parent.process(prim, primals, params)
    return out, per_argument_tangent(prim, out, primals, tangents, params) if rule else None


def per_argument_tangent(prim, out, primals, tangents, params) -> Any:
    """The output tangent of a primitive with one rule for each argument; None if it is zero."""
    total = None
    for one, t, primal in zip(jvp_rules[prim], tangents, primals, strict=False):  # index arguments have no rule
        if t is None or one is None:
            continue
        if prim.kind is Kind.ELEMENTWISE and not primal.shape and out.shape:
            t = broadcast_in_dim(t, out.shape, ())
        t = one(t, out, *primals, **params)
        total = t if total is None else add_tangents(total, t)
    return total


def jvp_flat(
    fun, primals: Sequence[Any], tangents: Sequence[Any], name: str = "f",
    paths: Callable[[], list[str]] | None = None, weak: Sequence[bool] = (),
) -> tuple[list[Any], list[Any]]:
    """Outputs and output tangents (None: zero) of a function of flat lists.

    paths: the names of the arguments in errors. weak: which of them are Python scalars.
    """
    tag = Tag("jvp", name)
    trace = JVPTrace(tag, current_trace())
    flags = weak or [False] * len(primals)
    inputs = [
        JVPTracer(tag, p, t, w) if t is not None else weak_copy(p) if w else p
        for p, t, w in zip(primals, tangents, flags, strict=True)
    ]
    if paths is not None:
        tag.arguments = inputs, paths
    token, away = set_trace(trace), enter_home([*primals, *tangents])
    try:
        outs = fun(*inputs)
    finally:
        reset_trace(token)
        leave_home(away)
        tag.end()
    out_primals, out_tangents, _ = split(outs, tag)
    return out_primals, out_tangents
