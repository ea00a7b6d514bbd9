# SPDX-License-Identifier: MIT
"""Reverse mode in two steps: compute primal values now, and write the linear part on a tape.

The tape runs forwards (`linearize`, `jvp`) or backwards (`vjp`, `grad`); see `core.linear`. Primal values are
computed in the parent trace, eagerly where they are concrete, so Python's `if` and `print` work under `grad`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite.core.aval import Aval, Stack, aval_of
from functorch_lite.core.linear import Tape, TapeTrace, TapeTracer
from functorch_lite.core.primitive import Kind
from functorch_lite.core.rules import jvp_rules, linearize_rules
from functorch_lite.core.tracer import Tag, Trace, Tracer, current_trace, reset_trace, set_trace
from functorch_lite.transforms.jvp import apply_jvp_rule, closure_rules, split


class LinearTracer(Tracer):
    """A primal value and the tape entry of its tangent."""

    __slots__ = ("primal", "tangent")

    def __init__(self, tag: Tag, primal: Any, tangent: TapeTracer, weak: bool = False):
        self.tag = tag
        self.primal = primal
        self.tangent = tangent
        self.weak = weak

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


class LinearizeTrace(Trace):
    """Computes primals in the parent and writes tangents on the tape."""

    __slots__ = ("tape",)

    def __init__(self, tag: Tag, parent: Trace):
        self.tag = tag
        self.parent = parent
        self.tape = TapeTrace(parent, see_through=tag)

    def box(self, primal: Any, tangent: Any) -> LinearTracer:
        """A tracer of this trace."""
        return LinearTracer(self.tag, primal, tangent)

    def process(self, prim, args, params):
        tag = self.tag
        if len(args) == 1 and type(args[0]) is LinearTracer and args[0].tag is tag:
            rule = jvp_rules.get(prim)
            if type(rule) is tuple:
                return self._unary(prim, rule, args[0], params)
        primals, tangents, found = [], [], False
        for a in args:  # `split`, written out: this is the hot path of eager gradients
            if type(a) is LinearTracer and a.tag is tag:
                primals.append(a.primal)
                tangents.append(a.tangent)
                found = True
            else:
                primals.append(a)
                tangents.append(None)
        if not found and (prim.kind is not Kind.HIGHER_ORDER or prim not in closure_rules):
            return self.parent.process(prim, args, params)
        token = set_trace(self.tape)
        try:
            outs, out_dots = self._linearized(prim, primals, tangents, params)
        finally:
            reset_trace(token)
        if out_dots is None:
            return outs
        if prim.multiple:
            return [o if t is None else LinearTracer(tag, o, t) for o, t in zip(outs, out_dots, strict=True)]
        return self._boxed(outs, out_dots)

    def _boxed(self, out, dot):
        # a tangent has the type of its primal: no need to ask the shape rule
        dot.linear.known_aval = out.aval if type(out) is Stack else (out.shape, out.dtype)
        return LinearTracer(self.tag, out, dot)

    def _unary(self, prim, rule, a, params):
        """`process` for one argument and a rule for its tangent, with nothing that this case does not need."""
        out = self.parent.process(prim, (a.primal,), params)
        if not rule:
            return out
        token = set_trace(self.tape)
        try:
            dot = rule[0](a.tangent, out, a.primal, **params)
        finally:
            reset_trace(token)
        return out if dot is None else self._boxed(out, dot)

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
) -> tuple[list[Any], Tape]:
    """Outputs of `fun` and the tape of its derivative in the `active` arguments; `paths` names them in errors."""
    tag = Tag(transform, name)
    trace = LinearizeTrace(tag, current_trace())
    tape = trace.tape
    flags = weak or [False] * len(primals)
    args = [
        LinearTracer(tag, p, tape.input(Aval(p.shape, p.dtype)), w) if on else p
        for p, on, w in zip(primals, active, flags, strict=True)
    ]
    if paths is not None:
        tag.arguments = args, paths
    token = set_trace(trace)
    try:
        outs = fun(*args)
    finally:
        reset_trace(token)
        tag.end()
    out_primals, out_tangents, _ = split(outs, tag)
    return out_primals, Tape(tape, [a.tangent for a, on in zip(args, active, strict=True) if on], out_tangents)
