# SPDX-License-Identifier: MIT
"""custom_vjp: functions whose backward derivative the user gives.

It works in forward mode too: the jvp of a custom_vjp function is the transpose of its backward function.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.compiler.passes.inline import Callee, inline_rules
from functorch_lite.core import dtypes
from functorch_lite.core.aval import aval_of
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.linear import Tape, TapeTrace, TapeTracer, zeros_of
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, transpose_rules
from functorch_lite.core.staging import stage, stage_closed, staging_rules
from functorch_lite.core.tracer import bind, current_trace, root, tracing
from functorch_lite.errors import ArgumentError, ArgumentTypeError
from functorch_lite.primitives.broadcast import reduce_sum
from functorch_lite.primitives.higher_order import custom_linear_p, custom_vjp_p
from functorch_lite.transforms.arguments import canonical, check_callable, name_of, weakened
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
    hide,
    is_in_outline,
    result_text,
    rows,
    run_batched,
    stage_rule,
    sum_tangents,
    through,
    trace_tracer,
)
from functorch_lite.transforms.jvp import closure_rules, split


class custom_vjp(Custom):
    """A function with its own backward derivative.

    `defvjp(fwd, bwd)`: `fwd(*args)` returns (value, residuals); `bwd(*nondiff, residuals, ct)` returns a tuple with one
    cotangent for each differentiable argument (None: zero).

    >>> @custom_vjp
    ... def f(x):
    ...     return x * x
    >>> f.defvjp(lambda x: (x * x, x), lambda x, ct: (2.0 * x * ct,))
    >>> f(3.0)
    9.0
    """

    _fwd: Callable[..., Any] | None = None
    _bwd: Callable[..., Any] | None = None

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Set the forward function, which also returns residuals, and the backward function."""
        check_callable("defvjp", fwd)
        check_callable("defvjp", bwd)
        self._check_arity("defvjp", bwd, ("residuals", "ct"))
        self._fwd, self._bwd = fwd, bwd

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        user_fwd, user_bwd = self._fwd, self._bwd
        if user_fwd is None or user_bwd is None:
            raise ArgumentError(
                f"custom_vjp: {name_of(self._fun)} has no rule yet: call {name_of(self._fun)}.defvjp first."
            )
        values, weak, treedef, rebuild, fixed, names = self._flatten(args, kwargs)
        avals = [aval_of(v) for v in values]
        results, kept = Results(), Results()

        def fun(*flat):
            return results.flat(self._fun(*rebuild(flat)))

        def fwd(*flat):
            result = user_fwd(*rebuild(flat))
            if not (isinstance(result, tuple | list) and len(result) == 2):
                raise ArgumentTypeError(
                    f"custom_vjp: fwd of {name_of(self._fun)} must return a pair (value, residuals), it returned "
                    f"{result_text(result)}."
                )
            return results.flat(result[0]), kept.flat(result[1])

        def bwd(residuals, cts):
            result = user_bwd(*fixed, kept.like(residuals), results.like(cts))
            return self._check(result, treedef, names, avals, weak)

        outs = bind(custom_vjp_p, *values, fun=fun, fwd=fwd, bwd=bwd, owner=self)
        return tree.unflatten(results.tree, weakened(outs, results.weak))

    def _check(self, result, treedef, names, avals, weak):
        name = name_of(self._fun)
        if not isinstance(result, tuple | list) or len(result) != len(names):
            raise ArgumentTypeError(
                f"custom_vjp: bwd of {name} must return a tuple with one cotangent for each of its arguments: "
                f"({', '.join(names)}{',' * (len(names) == 1)}), it returned {result_text(result)}. "
                "Give None for a zero."
            )
        found: list[Any] = []
        for arg_name, part, sub in zip(names, result, treedef.children(), strict=True):
            if part is None:
                found += [None] * sub.num_leaves
                continue
            leaves = _cotangents(part, sub)
            if len(leaves) != sub.num_leaves:
                message = tree.first_difference(tree.unflatten(sub, [0.0] * sub.num_leaves), part)
                raise ArgumentError(
                    f"custom_vjp: bwd of {name} returned a cotangent for `{arg_name}` of another "
                    f"structure than the argument: {message}"
                )
            found += leaves
        paths = [n + p for n, sub in zip(names, treedef.children(), strict=True)
                 for p in tree.paths(tree.unflatten(sub, [0.0] * sub.num_leaves))]
        return [
            None if ct is None or not dtypes.is_inexact(aval.dtype)
            else checked_type("custom_vjp", self._fun, path, "cotangent", canonical(ct)[0], aval, w)
            for path, ct, aval, w in zip(paths, found, avals, weak, strict=True)
        ]


def _cotangents(part: Any, argument: tree.TreeDef) -> list[Any]:
    """The leaves of a cotangent for an argument: None is a zero, but nothing where the argument itself has None."""
    try:
        matched = argument.flatten_up_to(part)
    except ValueError:
        matched = part
    return tree.leaves(matched, is_leaf=lambda x: x is None)


# --- rules of custom_vjp: as functions before staging, as programs in a staged equation -------------------------------


def _vjp_functions(
    args, program: Any = None, fwd_outline=None, fwd_rule: Any = None, bwd_outline=None, bwd_rule: Any = None, n=(),
    bwd_some: Any = (), fun=None, fwd=None, bwd=None, owner=None,
) -> tuple[Any, dict[str, Any]]:
    if program is None:
        return args, {"fun": fun, "fwd": fwd, "bwd": bwd, "owner": owner}
    n_out = len(program.outputs)

    of_bwd = args[n[0] + n[1] : sum(n)]  # go through the residuals, so that bwd itself closes over nothing

    def forward(captured, *xs):
        result = interpret(fwd_rule.program, [*captured, *xs])
        return result[:n_out], [*of_bwd, *result[n_out:]]

    def backward(residuals, cts):
        some = iter(interpret(bwd_rule.program, [*residuals, *cts]))
        return [next(some) if f else None for f in bwd_some]

    own, functions = as_functions(args, program, n, fwd=forward)
    return own, {**functions, "bwd": backward, "owner": fwd_rule.owner}


@eval_rules.register(custom_vjp_p)
def _(xp, *args, **params):
    return evaluate_functions(args, _vjp_functions, params)


@closure_rules.register(custom_vjp_p)
def _(trace, inner, primals, tangents, **params):
    if "program" in params:
        return as_functions_again(trace, custom_vjp_p, primals, tangents, _vjp_functions, params)
    if all(t is None for t in tangents):
        return through(trace, primals, custom_vjp_p, params)
    seen = [False]
    with tracing(trace.parent):
        outs, residuals = hide(params["fwd"], trace.tag, seen)(*primals)
    closure = closure_tangents(trace, params["fun"], primals) if seen[0] else None
    backward = hide(params["bwd"], trace.tag, [False])
    active = [t is not None for t in tangents]
    out_avals = tuple(aval_of(o) for o in outs)
    with tracing(inner):
        values = [*residuals, *(t for t in tangents if t is not None)]
        facts = {"bwd": backward, "n_res": len(residuals), "active": tuple(active), "out_avals": out_avals}
        dots = bind(custom_linear_p, *values, **facts) if inner.count else _transposed(*values, **facts)
        dots = [t if dtypes.is_inexact(a.dtype) else None for t, a in zip(dots, out_avals, strict=True)]
        return outs, sum_tangents(dots, closure)


@staging_rules.register(custom_vjp_p)
def _(trace, args, **params):
    if "program" in params:
        return trace.emit(custom_vjp_p, args, params)
    owner = params["owner"]
    avals = [aval_of(a) for a in args]
    kept: dict[str, Any] = {}

    def flat_fwd(*flat):
        outs, residuals = params["fwd"](*flat)
        kept["res"] = [aval_of(r) for r in residuals]
        return [*outs, *residuals]

    def flat_bwd(*flat):
        found = params["bwd"](list(flat[: len(kept["res"])]), list(flat[len(kept["res"]) :]))
        kept["some"] = tuple(c is not None for c in found)
        return [c for c in found if c is not None]

    with tracing(trace):
        if is_in_outline(owner):
            return params["fun"](*args)
        fun = stage(params["fun"], avals, name="custom_vjp")
        fwd, of_fwd = stage_rule(flat_fwd, avals, "custom_vjp_fwd", owner)
        bwd, of_bwd = stage_rule(flat_bwd, [*kept["res"], *fun.program.out_avals], "custom_vjp_bwd", owner)
    counts = (len(fun.captured), len(of_fwd), len(of_bwd))
    facts = {"program": fun.program, "fwd_outline": fwd.outline, "fwd_rule": fwd, "bwd_outline": bwd.outline,
             "bwd_rule": bwd, "bwd_some": kept["some"]}
    return trace.emit(custom_vjp_p, [*fun.captured, *of_fwd, *of_bwd, *args], {**facts, "n": counts})


@program_batch_rules.register(custom_vjp_p)
def _(trace, args, batched, **params):
    own, functions, flags = batched_functions(trace, args, batched, _vjp_functions, params)

    def fwd(*xs):
        return run_batched(trace, lambda: functions["fwd"](*rows(trace, xs, flags)))

    def bwd(residuals, cts):
        every = [True] * len(residuals), [True] * len(cts)
        found = run_batched(
            trace, lambda: functions["bwd"](rows(trace, residuals, every[0]), rows(trace, cts, every[1]))
        )
        return [c if c is None or f else reduce_sum(c, (0,)) for c, f in zip(found, flags, strict=True)]

    fun = batched_fun(trace, functions["fun"], flags)
    return bind(custom_vjp_p, *own, fun=fun, fwd=fwd, bwd=bwd, owner=functions["owner"]), None


jvp_rules.absent(custom_vjp_p, "its functions may close over tracers: see closure_rules in transforms")
transpose_rules.absent(custom_vjp_p, "it is not linear; its rule is")
batch_rules.absent(custom_vjp_p, "its functions are batched: see transforms.custom_vjp")


# --- custom_linear: the tangents, as the transpose of the backward function -------------------------------------------


def _transposed(*values, bwd, n_res, active, out_avals):
    """The tangents of the outputs: the transpose of the backward function, which is linear in its cotangents."""
    residuals, tangents = values[:n_res], values[n_res:]
    tape = TapeTrace(current_trace())
    cts = [tape.input(a) if dtypes.is_inexact(a.dtype) else np.zeros(a.shape, dtypes.float0) for a in out_avals]
    with tracing(tape):
        found = [c for c, on in zip(bwd(list(residuals), cts), active, strict=True) if on]
    unknown = [c for c in cts if isinstance(c, TapeTracer)]
    outs = [c if isinstance(c, TapeTracer) and c.tag is tape.tag else None for c in found]
    dots = iter(Tape(tape, unknown, outs).backward(tangents))
    return [next(dots) if isinstance(c, TapeTracer) else None for c in cts]


def _filled(dots, out_avals):
    pairs = zip(dots, out_avals, strict=True)
    return [zeros_of(a) if t is None and dtypes.is_inexact(a.dtype) else t for t, a in pairs]


@eval_rules.register(custom_linear_p)
def _(xp, *values, **facts):
    with tracing(root):
        return _filled(_transposed(*values, **facts), facts["out_avals"])


@inline_rules.register(custom_linear_p)
def _(eqn):
    def fun(*values):
        avals = eqn.params["out_avals"]
        dots = _filled(_transposed(*values, **eqn.params), avals)
        return [np.zeros(a.shape, a.dtype) if t is None else t for t, a in zip(dots, avals, strict=True)]

    return Callee(stage_closed(fun, [a.aval for a in eqn.inputs], name="custom_linear"), eqn.inputs)


@closure_rules.register(custom_linear_p)
def _(trace, inner, primals, tangents, **facts):
    with tracing(trace):
        boxed = [trace_tracer(trace, p, t) for p, t in zip(primals, tangents, strict=True)]
        outs, dots, _ = split(_filled(_transposed(*boxed, **facts), facts["out_avals"]), trace.tag)
    return outs, dots


@program_batch_rules.register(custom_linear_p)
def _(trace, args, batched, **facts):
    def run():
        return _filled(_transposed(*rows(trace, args, batched), **facts), facts["out_avals"])

    return run_batched(trace, run), None


@transpose_rules.register(custom_linear_p)
def _(cts, *values, bwd, n_res, active, out_avals):
    filled = [
        (zeros_of(a) if dtypes.is_inexact(a.dtype) else np.zeros(a.shape, dtypes.float0)) if c is None else c
        for c, a in zip(cts, out_avals, strict=True)
    ]
    found = bwd(list(values[:n_res]), filled)
    return (*[None] * n_res, *(c for c, on in zip(found, active, strict=True) if on))


jvp_rules.absent(custom_linear_p, "it is re-run under the trace: see closure_rules in transforms")
batch_rules.absent(custom_linear_p, "it is re-run under the trace: see transforms.custom_vjp")
