# SPDX-License-Identifier: MIT
"""custom_jvp and custom_vjp: functions whose derivative the user gives.

Both work in forward and in reverse mode: the jvp of a custom_vjp function is the transpose of its backward function.
A rule may close over values that are being differentiated; the derivative with respect to those is the ordinary one.

The functions stay Python functions until a program is staged; then function and rule become programs whose captured
values are inputs.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, aval_of
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.linear import (
    Tape,
    TapeTrace,
    TapeTracer,
    add_tangents,
    zeros_of,
)
from functorch_lite.core.program import Program, Var, memoized
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, transpose_rules
from functorch_lite.core.staging import stage, staging_rules
from functorch_lite.core.tracer import Tracer, bind, current_trace, root, tracing
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from functorch_lite.primitives.broadcast import reduce_sum
from functorch_lite.primitives.higher_order import custom_jvp_p, custom_linear_p, custom_vjp_p
from functorch_lite.transforms.arguments import (
    argument_names,
    canonical_leaves,
    check_callable,
    leaf_paths,
    name_of,
    type_text,
)
from functorch_lite.transforms.batching import BatchTrace, BatchTracer, materialize, program_batch_rules
from functorch_lite.transforms.jvp import closure_rules, split

Flat = Callable[..., list[Any]]


class _Custom:
    """What custom_jvp and custom_vjp share: arguments, and which of them are not differentiated."""

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: int | Sequence[int] = ()):
        check_callable(type(self).__name__, fun)
        functools.update_wrapper(self, fun)
        self._fun = fun
        self._nondiff = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
        self._n_positional = fun.__code__.co_argcount if inspect.isfunction(fun) else 0

    def __get__(self, instance, owner=None):
        return self if instance is None else functools.partial(self, instance)

    def _check_arity(self, what, rule, last):
        """Refuse a rule that cannot be called as it will be."""
        wanted = [f"argument {i}" for i in self._nondiff] + list(last)
        try:
            signature = inspect.signature(rule)
        except (TypeError, ValueError):  # a builtin that does not tell
            return
        try:
            signature.bind(*wanted)
        except TypeError as error:
            raise ArgumentTypeError(
                f"{what}: the rule of {name_of(self._fun)} is called with ({', '.join(wanted)}), but "
                f"{name_of(rule)} takes {signature}."
            ) from error

    def _flatten(self, args, kwargs):
        """The differentiable leaves, how to put them back, and the nondifferentiable arguments."""
        if kwargs or len(args) < self._n_positional:
            args = inspect.signature(self._fun).bind(*args, **kwargs)
            args.apply_defaults()
            if args.kwargs:
                raise ArgumentError(f"{type(self).__name__}: {name_of(self._fun)} takes keyword-only arguments; not supported.")
            args = args.args
        keep = [i for i in range(len(args)) if i not in self._nondiff]
        fixed = [args[i] for i in self._nondiff]
        leaves, treedef = tree.flatten([args[i] for i in keep])
        paths = functools.partial(leaf_paths, self._fun, args)
        values, _ = canonical_leaves(type(self).__name__, self._fun, leaves, paths)

        def rebuild(flat):
            full = list(args)
            for i, arg in zip(keep, tree.unflatten(treedef, flat), strict=True):
                full[i] = arg
            return full

        return values, treedef, rebuild, fixed, [argument_names(self._fun, len(args))[i] for i in keep]


class custom_jvp(_Custom):
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
    np.float64(9.0)
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
        if self._rule is None:
            raise ArgumentError(f"custom_jvp: {name_of(self._fun)} has no rule yet: call {name_of(self._fun)}.defjvp first.")
        values, treedef, rebuild, fixed, _ = self._flatten(args, kwargs)
        out_tree: list[Any] = [None]

        def fun(*flat):
            out, out_tree[0] = tree.flatten(self._fun(*rebuild(flat)))
            return out

        def jvp(primals, tangents):
            filled = [_float0(p) if t is None else t for p, t in zip(primals, tangents, strict=True)]
            result = self._rule(*fixed, tuple(tree.unflatten(treedef, primals)), tuple(tree.unflatten(treedef, filled)))
            return self._check(result, out_tree)

        outs = bind(custom_jvp_p, *values, fun=fun, jvp=jvp, owner=self)
        return tree.unflatten(out_tree[0], outs)

    def _check(self, result, out_tree):
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise ArgumentTypeError(
                f"custom_jvp: the rule of {name_of(self._fun)} must return a pair (value, tangent), it returned "
                f"{_result_text(result)}."
            )
        outs, out_tree[0] = tree.flatten(result[0])
        dots, dot_tree = tree.flatten(result[1])
        if dot_tree != out_tree[0]:
            message = tree.first_difference(result[0], result[1])
            raise ArgumentError(f"custom_jvp: the rule of {name_of(self._fun)} returned value and tangent of different "
                                f"structure: {message}")
        for i, (o, t) in enumerate(zip(outs, dots, strict=True)):
            _check_type("custom_jvp", self._fun, f"output{tree.paths(result[0])[i]}", "tangent", aval_of(t), aval_of(o))
        return outs, dots


class custom_vjp(_Custom):
    """A function with its own backward derivative.

    `defvjp(fwd, bwd)`: `fwd(*args)` returns (value, residuals); `bwd(*nondiff, residuals, ct)` returns a tuple with one
    cotangent for each differentiable argument (None: zero).

    >>> @custom_vjp
    ... def f(x):
    ...     return x * x
    >>> f.defvjp(lambda x: (x * x, x), lambda x, ct: (2.0 * x * ct,))
    >>> f(3.0)
    np.float64(9.0)
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
        if self._fwd is None or self._bwd is None:
            raise ArgumentError(f"custom_vjp: {name_of(self._fun)} has no rule yet: call {name_of(self._fun)}.defvjp first.")
        values, treedef, rebuild, fixed, names = self._flatten(args, kwargs)
        avals = [aval_of(v) for v in values]
        out_tree: list[Any] = [None]
        res_tree: list[Any] = [None]

        def fun(*flat):
            out, out_tree[0] = tree.flatten(self._fun(*rebuild(flat)))
            return out

        def fwd(*flat):
            result = self._fwd(*rebuild(flat))
            if not (isinstance(result, tuple | list) and len(result) == 2):
                raise ArgumentTypeError(
                    f"custom_vjp: fwd of {name_of(self._fun)} must return a pair (value, residuals), it returned "
                    f"{_result_text(result)}."
                )
            outs, out_tree[0] = tree.flatten(result[0])
            residuals, res_tree[0] = tree.flatten(result[1])
            return outs, residuals

        def bwd(residuals, cts):
            ct = tree.unflatten(out_tree[0], cts)
            result = self._bwd(*fixed, tree.unflatten(res_tree[0], residuals), ct)
            return self._check(result, treedef, names, avals)

        outs = bind(custom_vjp_p, *values, fun=fun, fwd=fwd, bwd=bwd, owner=self)
        return tree.unflatten(out_tree[0], outs)

    def _check(self, result, treedef, names, avals):
        name = name_of(self._fun)
        if not isinstance(result, tuple | list) or len(result) != len(names):
            raise ArgumentTypeError(
                f"custom_vjp: bwd of {name} must return a tuple with one cotangent for each of its arguments: "
                f"({', '.join(names)}{',' * (len(names) == 1)}), it returned {_result_text(result)}. Give None for a zero."
            )
        found: list[Any] = []
        for arg_name, part, sub in zip(names, result, treedef.children(), strict=True):
            if part is None:
                found += [None] * sub.num_leaves
                continue
            leaves, got = tree.flatten(part, is_leaf=lambda x: x is None)
            if len(leaves) != sub.num_leaves:
                message = tree.first_difference(tree.unflatten(sub, [0.0] * sub.num_leaves), part)
                raise ArgumentError(f"custom_vjp: bwd of {name} returned a cotangent for `{arg_name}` of another structure "
                                    f"than the argument: {message}")
            found += leaves
        paths = [n + p for n, sub in zip(names, treedef.children(), strict=True)
                 for p in tree.paths(tree.unflatten(sub, [0.0] * sub.num_leaves))]
        for path, ct, aval in zip(paths, found, avals, strict=True):
            if ct is not None and dtypes.is_inexact(aval.dtype):
                _check_type("custom_vjp", self._fun, path, "cotangent", aval_of(ct), aval)
        return [None if not dtypes.is_inexact(a.dtype) else c for c, a in zip(found, avals, strict=True)]


def _result_text(result):
    n = len(result) if isinstance(result, tuple | list) else -1
    return type_text(result) if n < 0 else f"{n} value{'s' * (n != 1)}"


def _check_type(transform, fun, path, what, got: Aval, want: Aval):
    if not dtypes.is_inexact(want.dtype):
        return
    if got.shape != want.shape:
        raise ShapeError(f"{transform}: the rule of {name_of(fun)} gives `{path}` a {what} of shape {got.shape}, expected "
                         f"{want.shape}: that of its value.")
    if got.dtype != want.dtype and not (got.dtype == np.float64 and not got.shape):
        raise DTypeError(f"{transform}: the rule of {name_of(fun)} gives `{path}` a {what} of dtype {got.dtype}, expected "
                         f"{want.dtype}: that of its value.")


def _float0(primal):
    aval = aval_of(primal)
    return zeros_of(aval) if dtypes.is_inexact(aval.dtype) else np.zeros(aval.shape, dtypes.float0)


# --- a trace that must not look into the functions: they see its tracers as primal values ---------------------------


def _hide(fun: Callable[..., Any], tag: Any, seen: list[bool]) -> Callable[..., Any]:
    """`fun`, run where tracers of `tag` stand for their primal values; `seen` tells whether it met one."""

    def hidden(*args):
        inner = TapeTrace(current_trace(), tag)
        with tracing(inner):
            result = tree.map(lambda x: x.primal if isinstance(x, Tracer) and x.tag is tag else x, fun(*args),
                              is_leaf=lambda x: x is None)
        seen[0] = seen[0] or inner.saw_hidden
        return result

    return hidden


def _through(trace, primals, prim, functions: dict[str, Any]):
    """No argument has a tangent in `trace`: the parent applies the custom call; captured values may have tangents."""
    seen = [False]
    owner = functions["owner"]
    hidden = {name: _hide(f, trace.tag, seen) for name, f in functions.items() if name != "owner"}
    outs = trace.parent.process(prim, primals, {**hidden, "owner": owner})
    return outs, _closure_tangents(trace, functions["fun"], primals) if seen[0] else None


def _closure_tangents(trace, fun, primals):
    with tracing(trace):
        outs = fun(*primals)
    return split(outs, trace.tag)[1]


def _sum_tangents(dots, closure):
    return dots if closure is None else [add_tangents(a, b) for a, b in zip(dots, closure, strict=True)]


def _as_functions(args, program, n, **rules):
    """A staged custom call as functions again, closing over the captured values, and its own arguments."""
    captured = args[: sum(n)]
    own = args[sum(n) :]
    starts = [sum(n[:i]) for i in range(len(n))]
    parts = [captured[s : s + k] for s, k in zip(starts, n, strict=True)]
    functions: dict[str, Any] = {"fun": lambda *xs: interpret(program, [*parts[0], *xs])}
    functions.update({name: functools.partial(r, parts[i + 1]) for i, (name, r) in enumerate(rules.items())})
    return own, functions


# --- staging: rules as programs -------------------------------------------------------------------------------------
#
# A rule may call the function that it belongs to (`out = f(x)`), whose equation has that rule again. So a rule is
# staged in outline first, with such calls replaced by the plain function: this ends, and finds what the rule captures.
# The exact program, in which the call is the custom function, is staged when a derivative asks for it.


class _Rule:
    """A staged rule of the custom function `owner`. outline: its program, in which `owner` is applied plainly."""

    __slots__ = ("outline", "owner", "_exact")

    def __init__(self, outline: Program, owner: Any, exact: Callable[[], Program] | None):
        self.outline = outline
        self.owner = owner
        self._exact = exact

    @property
    def program(self) -> Program:
        """The program of the rule: its captured values, then its arguments."""
        return self.outline if self._exact is None else memoized(self.outline, "exact", self._exact)

    def __repr__(self):
        return "rule"  # the outline, which stands beside it in the equation, says which


_in_outline: ContextVar[tuple[tuple[Any, list[bool]], ...]] = ContextVar("functorch_lite_rules_in_outline", default=())


def _is_in_outline(owner) -> bool:
    """Whether a rule of this custom function is being outlined, which then notes that it calls the function."""
    for other, called in _in_outline.get():
        if other is owner and owner is not None:
            called[0] = True
            return True
    return False


def _stage_rule(rule: Callable[..., Any], avals: Sequence[Any], name: str, owner: Any) -> tuple[_Rule, list[Any]]:
    """The staged rule and what it captures."""
    called = [False]
    token = _in_outline.set((*_in_outline.get(), (owner, called)))
    try:
        outline, captured = stage(rule, avals, name=name)
    finally:
        _in_outline.reset(token)

    def exact():
        token = _in_outline.set(())
        try:
            again, found = stage(rule, avals, name=name)
        finally:
            _in_outline.reset(token)
        variables = {id(v): var for v, var in zip(found, again.inputs, strict=False)}
        front = [variables.get(id(v)) or Var(aval_of(v)) for v in captured]
        return Program((*front, *again.inputs[len(found) :]), again.equations, again.outputs, again.name)

    return _Rule(outline, owner, exact if called[0] else None), captured


# --- custom_jvp -----------------------------------------------------------------------------------------------------
#
# Two forms share the primitive: functions (`fun`, `jvp`) before staging, programs (`program`, `jvp_rule`, `n` counts
# of captured values) in a staged equation.


def _jvp_functions(args, program=None, jvp_outline=None, jvp_rule=None, n=(), fun=None, jvp=None, owner=None):
    if program is None:
        return args, {"fun": fun, "jvp": jvp, "owner": owner}
    n_out = len(program.outputs)

    def rule(captured, primals, tangents):
        some = [t for t, p in zip(tangents, primals, strict=True) if dtypes.is_inexact(aval_of(p).dtype)]
        result = interpret(jvp_rule.program, [*captured, *primals, *some])
        return result[:n_out], result[n_out:]

    own, functions = _as_functions(args, program, n, jvp=rule)
    return own, {**functions, "owner": jvp_rule.owner}


@eval_rules.register(custom_jvp_p)
def _(xp, *args, **params):
    args, functions = _jvp_functions(args, **params)
    with tracing(root):
        return functions["fun"](*args)


@closure_rules.register(custom_jvp_p)
def _(trace, inner, primals, tangents, **params):
    if "program" in params:
        boxed = [trace_tracer(trace, p, t) for p, t in zip(primals, tangents, strict=True)]
        own, functions = _jvp_functions(boxed, **params)
        with tracing(trace):
            outs = bind(custom_jvp_p, *own, **functions)
        outs, dots, _ = split(outs, trace.tag)
        return outs, dots
    if all(t is None for t in tangents):
        return _through(trace, primals, custom_jvp_p, params)
    before, inner.saw_hidden = inner.saw_hidden, False
    with tracing(inner):
        filled = [_instantiate(p, t) for p, t in zip(primals, tangents, strict=True)]
        outs, dots = params["jvp"](primals, filled)
    outs = [o.primal if isinstance(o, Tracer) and o.tag is trace.tag else o for o in outs]
    dots = [_own_tangent(inner, o, t) for o, t in zip(outs, dots, strict=True)]
    closure = _closure_tangents(trace, params["fun"], primals) if inner.saw_hidden else None
    inner.saw_hidden |= before
    with tracing(inner):
        return outs, _sum_tangents(dots, closure)


def trace_tracer(trace, primal, tangent):
    """A primal and tangent boxed again as a tracer of `trace`."""
    return primal if tangent is None else trace.box(primal, tangent)


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
        if _is_in_outline(owner):
            return params["fun"](*args)
        fun = stage(params["fun"], avals, name="custom_jvp")

        def flat_jvp(*flat):
            tangents = iter(flat[len(avals) :])
            full = [next(tangents) if dtypes.is_inexact(a.dtype) else None for a in avals]
            outs, dots = params["jvp"](flat[: len(avals)], full)
            return [*outs, *(_float_dot(o, t) for o, t in zip(outs, dots, strict=True))]

        rule, of_rule = _stage_rule(flat_jvp, [*avals, *float_avals], "custom_jvp_rule", owner)
    facts = {"program": fun.program, "jvp_outline": rule.outline, "jvp_rule": rule}
    values = [*fun.captured, *of_rule, *args]
    return trace.emit(custom_jvp_p, values, {**facts, "n": (len(fun.captured), len(of_rule))})


def _float_dot(out, dot):
    aval = aval_of(out)
    return dot if dtypes.is_inexact(aval.dtype) else np.zeros(aval.shape, np.float32)


@program_batch_rules.register(custom_jvp_p)
def _(trace, args, batched, **params):
    own, functions, flags = _batched_functions(trace, args, batched, _jvp_functions, params)

    def jvp(primals, tangents):
        values, dots = _rows(trace, primals, flags), _rows(trace, tangents, flags)
        return _run_batched(trace, lambda: functions["jvp"](values, dots))

    fun = _batched_fun(trace, functions["fun"], flags)
    return bind(custom_jvp_p, *own, fun=fun, jvp=jvp, owner=functions["owner"]), None


# --- batching of function parameters --------------------------------------------------------------------------------


def _batched_functions(trace, args, batched, unpack, params):
    """Functions and own arguments under the mapped axis; captured values close over batch tracers."""
    if "program" in params:
        boxed = [BatchTracer(trace.tag, a) if b else a for a, b in zip(args, batched, strict=True)]
        own, functions = unpack(boxed, **params)
        flags = [isinstance(a, Tracer) and a.tag is trace.tag for a in own]
        own = [a.value if f else a for a, f in zip(own, flags, strict=True)]
        return own, functions, flags
    return args, params, batched


def _rows(trace, values, flags):
    return [v if v is None or not f else BatchTracer(trace.tag, v) for v, f in zip(values, flags, strict=True)]


def _run_batched(trace, fun):
    """Run `fun` with this mapped axis below whatever trace is current; every result gets the axis."""
    again = BatchTrace(trace.tag, current_trace(), trace.size, trace.axis_name)
    with tracing(again):
        result = fun()
    return tree.map(lambda x: _unbox(trace, x), result, is_leaf=lambda x: x is None)


def _unbox(trace, x):
    if x is None:
        return None
    if isinstance(x, Tracer) and x.tag is trace.tag:
        return x.value
    return materialize(x, trace.size)


def _batched_fun(trace, fun, flags):
    return lambda *args: _run_batched(trace, lambda: fun(*_rows(trace, args, flags)))


# --- custom_vjp -----------------------------------------------------------------------------------------------------


def _vjp_functions(args, program=None, fwd_outline=None, fwd_rule=None, bwd_outline=None, bwd_rule=None, n=(),
                   bwd_some=None, fun=None, fwd=None, bwd=None, owner=None):
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

    own, functions = _as_functions(args, program, n, fwd=forward)
    return own, {**functions, "bwd": backward, "owner": fwd_rule.owner}


@eval_rules.register(custom_vjp_p)
def _(xp, *args, **params):
    args, functions = _vjp_functions(args, **params)
    with tracing(root):
        return functions["fun"](*args)


@closure_rules.register(custom_vjp_p)
def _(trace, inner, primals, tangents, **params):
    if "program" in params:
        boxed = [trace_tracer(trace, p, t) for p, t in zip(primals, tangents, strict=True)]
        own, functions = _vjp_functions(boxed, **params)
        with tracing(trace):
            outs = bind(custom_vjp_p, *own, **functions)
        outs, dots, _ = split(outs, trace.tag)
        return outs, dots
    if all(t is None for t in tangents):
        return _through(trace, primals, custom_vjp_p, params)
    seen = [False]
    with tracing(trace.parent):
        outs, residuals = _hide(params["fwd"], trace.tag, seen)(*primals)
    closure = _closure_tangents(trace, params["fun"], primals) if seen[0] else None
    backward = _hide(params["bwd"], trace.tag, [False])
    active = [t is not None for t in tangents]
    out_avals = tuple(aval_of(o) for o in outs)
    with tracing(inner):
        values = [*residuals, *(t for t in tangents if t is not None)]
        facts = {"bwd": backward, "n_res": len(residuals), "active": tuple(active), "out_avals": out_avals}
        dots = bind(custom_linear_p, *values, **facts) if inner.count else _transposed(*values, **facts)
        dots = [t if dtypes.is_inexact(a.dtype) else None for t, a in zip(dots, out_avals, strict=True)]
        return outs, _sum_tangents(dots, closure)


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
    return [zeros_of(a) if t is None and dtypes.is_inexact(a.dtype) else t for t, a in zip(dots, out_avals, strict=True)]


@eval_rules.register(custom_linear_p)
def _(xp, *values, **facts):
    with tracing(root):
        return _filled(_transposed(*values, **facts), facts["out_avals"])


@closure_rules.register(custom_linear_p)
def _(trace, inner, primals, tangents, **facts):
    with tracing(trace):
        boxed = [trace_tracer(trace, p, t) for p, t in zip(primals, tangents, strict=True)]
        outs, dots, _ = split(_filled(_transposed(*boxed, **facts), facts["out_avals"]), trace.tag)
    return outs, dots


@program_batch_rules.register(custom_linear_p)
def _(trace, args, batched, **facts):
    def run():
        return _filled(_transposed(*_rows(trace, args, batched), **facts), facts["out_avals"])

    return _run_batched(trace, run), None


@transpose_rules.register(custom_linear_p)
def _(cts, *values, bwd, n_res, active, out_avals):
    filled = [
        (zeros_of(a) if dtypes.is_inexact(a.dtype) else np.zeros(a.shape, dtypes.float0)) if c is None else c
        for c, a in zip(cts, out_avals, strict=True)
    ]
    found = bwd(list(values[:n_res]), filled)
    return (*[None] * n_res, *(c for c, on in zip(found, active, strict=True) if on))


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
        if _is_in_outline(owner):
            return params["fun"](*args)
        fun = stage(params["fun"], avals, name="custom_vjp")
        fwd, of_fwd = _stage_rule(flat_fwd, avals, "custom_vjp_fwd", owner)
        bwd, of_bwd = _stage_rule(flat_bwd, [*kept["res"], *fun.program.out_avals], "custom_vjp_bwd", owner)
    counts = (len(fun.captured), len(of_fwd), len(of_bwd))
    facts = {"program": fun.program, "fwd_outline": fwd.outline, "fwd_rule": fwd, "bwd_outline": bwd.outline,
             "bwd_rule": bwd, "bwd_some": kept["some"]}
    return trace.emit(custom_vjp_p, [*fun.captured, *of_fwd, *of_bwd, *args], {**facts, "n": counts})


@program_batch_rules.register(custom_vjp_p)
def _(trace, args, batched, **params):
    own, functions, flags = _batched_functions(trace, args, batched, _vjp_functions, params)

    def fwd(*xs):
        return _run_batched(trace, lambda: functions["fwd"](*_rows(trace, xs, flags)))

    def bwd(residuals, cts):
        every = [True] * len(residuals), [True] * len(cts)
        found = _run_batched(
            trace, lambda: functions["bwd"](_rows(trace, residuals, every[0]), _rows(trace, cts, every[1]))
        )
        return [c if c is None or f else reduce_sum(c, (0,)) for c, f in zip(found, flags, strict=True)]

    fun = _batched_fun(trace, functions["fun"], flags)
    return bind(custom_vjp_p, *own, fun=fun, fwd=fwd, bwd=bwd, owner=functions["owner"]), None


for _prim in (custom_jvp_p, custom_vjp_p):
    jvp_rules.absent(_prim, "its functions may close over tracers: see closure_rules in transforms")
    transpose_rules.absent(_prim, "it is not linear; its rule is")
    batch_rules.absent(_prim, "its functions are batched: see transforms.custom_rules")
jvp_rules.absent(custom_linear_p, "it is re-run under the trace: see closure_rules in transforms")
batch_rules.absent(custom_linear_p, "it is re-run under the trace: see transforms.custom_rules")
