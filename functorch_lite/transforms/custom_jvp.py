# SPDX-License-Identifier: MIT
"""custom_jvp: functions whose forward derivative the user gives; reverse mode transposes it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.core import dtypes
from functorch_lite.core.aval import aval_of
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.linear import TapeTracer, zeros_of
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, transpose_rules
from functorch_lite.core.staging import stage, staging_rules
from functorch_lite.core.tracer import bind, tracing
from functorch_lite.errors import ArgumentError, ArgumentTypeError
from functorch_lite.primitives.higher_order import custom_jvp_p
from functorch_lite.transforms.arguments import as_weak, canonical, check_callable, name_of, weakened
from functorch_lite.transforms.batching import program_batch_rules
from functorch_lite.transforms.custom_common import (
    Custom,
    Results,
    as_functions,
    as_functions_again,
    batched_fun,
    batched_functions,
    checked_type,
    closure_tangents,
    evaluate_functions,
    is_in_outline,
    is_of,
    result_text,
    rows,
    run_batched,
    stage_rule,
    sum_tangents,
    through,
)
from functorch_lite.transforms.jvp import closure_rules


class custom_jvp(Custom):
    """A function with its own forward derivative.

    `defjvp(rule)`: `rule(*nondiff, primals, tangents)` returns (value, tangent), linear in the tangents.

    >>> @custom_jvp
    ... def f(x):
    ...     return x * x
    >>> @f.defjvp
    ... def f_jvp(primals, tangents):
    ...     (x,), (x_dot,) = primals, tangents
    ...     return x * x, 2.0 * x * x_dot
    >>> f(3.0)
    9.0
    """

    _rule: Callable[..., Any] | None = None

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Set the derivative; usable as a decorator."""
        check_callable("defjvp", rule)
        self._check_arity("defjvp", rule, ("primals", "tangents"))
        self._rule = rule
        return rule

    def defjvps(self, *rules: Callable[..., Any] | None) -> None:
        """Set one `(tangent, out, *primals) -> out tangent` for each argument; None: no contribution."""

        def rule(primals, tangents):
            out = self(*primals)
            parts = [r(t, out, *primals) for r, t in zip(rules, tangents, strict=True) if r is not None]
            total = parts[0]
            for part in parts[1:]:
                total = tree.map(lambda a, b: a + b, total, part)
            return out, total

        self._rule = rule

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rule = self._rule
        if rule is None:
            raise ArgumentError(
                f"custom_jvp: {name_of(self._fun)} has no rule yet: call {name_of(self._fun)}.defjvp first."
            )
        values, weak, treedef, rebuild, fixed, _ = self._flatten(args, kwargs)
        results = Results()

        def fun(*flat):
            return results.flat(self._fun(*rebuild(flat)))

        def jvp(primals, tangents):
            filled = [_float0(p) if t is None else t for p, t in zip(primals, tangents, strict=True)]
            given = [tuple(tree.unflatten(treedef, as_weak(v, weak))) for v in (primals, filled)]
            return self._check(rule(*fixed, *given), results)

        outs = bind(custom_jvp_p, *values, fun=fun, jvp=jvp, owner=self)
        return tree.unflatten(results.tree, weakened(outs, results.weak))

    def _check(self, result, results):
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise ArgumentTypeError(
                f"custom_jvp: the rule of {name_of(self._fun)} must return a pair (value, tangent), it returned "
                f"{result_text(result)}."
            )
        outs = results.flat(result[0])
        dots, dot_tree = tree.flatten(result[1])
        if dot_tree != results.tree:
            message = tree.first_difference(result[0], result[1])
            raise ArgumentError(f"custom_jvp: the rule of {name_of(self._fun)} returned value and tangent of different "
                                f"structure: {message}")
        paths = [f"output{path}" for path in tree.paths(result[0])]
        checked = [
            checked_type("custom_jvp", self._fun, path, "tangent", canonical(t)[0], aval_of(o), w)
            for path, t, o, w in zip(paths, dots, outs, results.weak, strict=True)
        ]
        return outs, checked


def _float0(primal):
    aval = aval_of(primal)
    return zeros_of(aval) if dtypes.is_inexact(aval.dtype) else np.zeros(aval.shape, dtypes.float0)


# --- rules ------------------------------------------------------------------------------------------------------------
#
# Two forms share the primitive: functions (`fun`, `jvp`) before staging, programs (`program`, `jvp_rule`, `n` counts
# of captured values) in a staged equation.


def _jvp_functions(
    args, program: Any = None, jvp_outline=None, jvp_rule: Any = None, n=(), fun=None, jvp=None, owner=None
) -> tuple[Any, dict[str, Any]]:
    if program is None:
        return args, {"fun": fun, "jvp": jvp, "owner": owner}
    n_out = len(program.outputs)

    def rule(captured, primals, tangents):
        some = [t for t, p in zip(tangents, primals, strict=True) if dtypes.is_inexact(aval_of(p).dtype)]
        result = interpret(jvp_rule.program, [*captured, *primals, *some])
        return result[:n_out], result[n_out:]

    own, functions = as_functions(args, program, n, jvp=rule)
    return own, {**functions, "owner": jvp_rule.owner}


@eval_rules.register(custom_jvp_p)
def _(xp, *args, **params):
    return evaluate_functions(args, _jvp_functions, params)


@closure_rules.register(custom_jvp_p)
def _(trace, inner, primals, tangents, **params):
    if "program" in params:
        return as_functions_again(trace, custom_jvp_p, primals, tangents, _jvp_functions, params)
    if all(t is None for t in tangents):
        return through(trace, primals, custom_jvp_p, params)
    before, inner.saw_hidden = inner.saw_hidden, False
    with tracing(inner):
        filled = [_instantiate(p, t) for p, t in zip(primals, tangents, strict=True)]
        outs, dots = params["jvp"](primals, filled)
    outs = [o.primal if is_of(o, trace.tag) else o for o in outs]
    dots = [_own_tangent(inner, o, t) for o, t in zip(outs, dots, strict=True)]
    closure = closure_tangents(trace, params["fun"], primals) if inner.saw_hidden else None
    inner.saw_hidden |= before
    with tracing(inner):
        return outs, sum_tangents(dots, closure)


def _instantiate(primal, tangent):
    aval = aval_of(primal)
    if tangent is not None or not dtypes.is_inexact(aval.dtype):
        return tangent
    return zeros_of(aval)


def _own_tangent(inner, out, dot):
    """The tangent of one output; None where the rule gave an integer output or, on a tape, a constant zero."""
    if not dtypes.is_inexact(aval_of(out).dtype):
        return None
    on_tape = not isinstance(dot, TapeTracer) and inner.count > 0
    return None if on_tape else dot


@staging_rules.register(custom_jvp_p)
def _(trace, args, **params):
    if "program" in params:
        return trace.emit(custom_jvp_p, args, params)
    owner = params["owner"]
    avals = [aval_of(a) for a in args]
    float_avals = [a for a in avals if dtypes.is_inexact(a.dtype)]
    with tracing(trace):
        if is_in_outline(owner):
            return params["fun"](*args)
        fun = stage(params["fun"], avals, name="custom_jvp")

        def flat_jvp(*flat):
            tangents = iter(flat[len(avals) :])
            full = [next(tangents) if dtypes.is_inexact(a.dtype) else None for a in avals]
            outs, dots = params["jvp"](flat[: len(avals)], full)
            return [*outs, *(_float_dot(o, t) for o, t in zip(outs, dots, strict=True))]

        rule, of_rule = stage_rule(flat_jvp, [*avals, *float_avals], "custom_jvp_rule", owner)
    facts = {"program": fun.program, "jvp_outline": rule.outline, "jvp_rule": rule}
    values = [*fun.captured, *of_rule, *args]
    return trace.emit(custom_jvp_p, values, {**facts, "n": (len(fun.captured), len(of_rule))})


def _float_dot(out, dot):
    aval = aval_of(out)
    return dot if dtypes.is_inexact(aval.dtype) else np.zeros(aval.shape, np.float32)


@program_batch_rules.register(custom_jvp_p)
def _(trace, args, batched, **params):
    own, functions, flags = batched_functions(trace, args, batched, _jvp_functions, params)

    def jvp(primals, tangents):
        values, dots = rows(trace, primals, flags), rows(trace, tangents, flags)
        return run_batched(trace, lambda: functions["jvp"](values, dots))

    fun = batched_fun(trace, functions["fun"], flags)
    return bind(custom_jvp_p, *own, fun=fun, jvp=jvp, owner=functions["owner"]), None


jvp_rules.absent(custom_jvp_p, "its functions may close over tracers: see closure_rules in transforms")
transpose_rules.absent(custom_jvp_p, "it is not linear; its rule is")
batch_rules.absent(custom_jvp_p, "its functions are batched: see transforms.custom_jvp")
