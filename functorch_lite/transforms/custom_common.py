# SPDX-License-Identifier: MIT
"""What custom_jvp and custom_vjp share: arguments, captured values, rules as programs, mapped axes.

The functions stay Python functions until a program is staged; then function and rule become programs whose captured
values are inputs. A rule may close over values that are being differentiated; the derivative with respect to those is
the ordinary one.
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
from functorch_lite.core.linear import TapeTrace, add_tangents
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Program, Var, memoized
from functorch_lite.core.staging import stage
from functorch_lite.core.tracer import Tracer, bind, current_trace, root, tracing
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from functorch_lite.primitives.casts import convert
from functorch_lite.transforms.arguments import (
    argument_names,
    as_weak,
    canonical,
    canonical_leaves,
    check_callable,
    is_weak,
    leaf_paths,
    name_of,
    type_text,
)
from functorch_lite.transforms.batching import BatchTrace, BatchTracer, materialize
from functorch_lite.transforms.jvp import split


class Custom:
    """What custom_jvp and custom_vjp share: arguments, and which of them are not differentiated."""

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: int | Sequence[int] = ()):
        check_callable(type(self).__name__, fun)
        functools.update_wrapper(self, fun)
        self._fun = fun
        self._nondiff = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
        self._n_positional = fun.__code__.co_argcount if inspect.isfunction(fun) else 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's value; derivatives of it go by its rule."""
        raise NotImplementedError

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
                raise ArgumentError(
                    f"{type(self).__name__}: {name_of(self._fun)} takes keyword-only arguments; not supported."
                )
            args = args.args
        keep = [i for i in range(len(args)) if i not in self._nondiff]
        fixed = [args[i] for i in self._nondiff]
        leaves, treedef = tree.flatten([args[i] for i in keep])
        paths = functools.partial(leaf_paths, self._fun, args)
        values, weak = canonical_leaves(type(self).__name__, self._fun, leaves, paths)

        def rebuild(flat):
            full = list(args)
            for i, arg in zip(keep, tree.unflatten(treedef, as_weak(flat, weak)), strict=True):
                full[i] = arg
            return full

        return values, weak, treedef, rebuild, fixed, [argument_names(self._fun, len(args))[i] for i in keep]


class Results:
    """What a user's function returned, as flat values; the structure, and which leaves are Python scalars, are kept.

    Staging runs the function, then its rule: which leaves are Python scalars is decided by the first.
    """

    __slots__ = ("tree", "weak")

    def __init__(self):
        self.tree: Any = None
        self.weak: list[bool] = []

    def flat(self, result: Any) -> list[Any]:
        """The leaves of `result`, as arrays or tracers."""
        leaves, self.tree = tree.flatten(result)
        if len(self.weak) != len(leaves):
            self.weak = [is_weak(leaf) for leaf in leaves]
        return [canonical(leaf)[0] for leaf in leaves]

    def like(self, values: Sequence[Any]) -> Any:
        """`values` in the structure of the result, Python scalars where it has them."""
        return tree.unflatten(self.tree, as_weak(values, self.weak))


def result_text(result: Any) -> str:
    """What a rule returned, in words."""
    n = len(result) if isinstance(result, tuple | list) else -1
    return type_text(result) if n < 0 else f"{n} value{'s' * (n != 1)}"


def checked_type(
    transform: str, fun: Callable[..., Any], path: str, what: str, value: Any, want: Aval, weak: bool = False
) -> Any:
    """A tangent or cotangent with the type of its value. A Python scalar takes it, and so does what belongs to one.

    weak: what it belongs to is a Python scalar.
    """
    got = aval_of(value)
    if not dtypes.is_inexact(want.dtype):
        return value
    if got.shape != want.shape:
        raise ShapeError(
            f"{transform}: the rule of {name_of(fun)} gives `{path}` a {what} of shape {got.shape}, "
            f"expected {want.shape}: that of its value."
        )
    if got.dtype == want.dtype:
        return value
    if not weak and not (got.dtype == np.float64 and not got.shape):
        raise DTypeError(
            f"{transform}: the rule of {name_of(fun)} gives `{path}` a {what} of dtype {got.dtype}, "
            f"expected {want.dtype}: that of its value."
        )
    return convert(value, want.dtype)


# --- a trace that must not look into the functions: they see its tracers as primal values -----------------------------


def is_of(value: Any, tag: Any) -> bool:
    """Whether `value` is a tracer of the trace with this tag."""
    return isinstance(value, Tracer) and value.tag is tag


def trace_tracer(trace: Any, primal: Any, tangent: Any) -> Any:
    """A primal and tangent boxed again as a tracer of `trace`."""
    return primal if tangent is None else trace.box(primal, tangent)


def hide(fun: Callable[..., Any], tag: Any, seen: list[bool]) -> Callable[..., Any]:
    """`fun`, run where tracers of `tag` stand for their primal values; `seen` tells whether it met one."""

    def hidden(*args):
        inner = TapeTrace(current_trace(), tag)
        with tracing(inner):
            result = tree.map(lambda x: x.primal if is_of(x, tag) else x, fun(*args),
                              is_leaf=lambda x: x is None)
        seen[0] = seen[0] or inner.saw_hidden
        return result

    return hidden


def through(trace: Any, primals: Sequence[Any], prim: Primitive, functions: dict[str, Any]) -> tuple[Any, Any]:
    """No argument has a tangent in `trace`: the parent applies the custom call; captured values may have tangents."""
    seen = [False]
    owner = functions["owner"]
    hidden = {name: hide(f, trace.tag, seen) for name, f in functions.items() if name != "owner"}
    outs = trace.parent.process(prim, primals, {**hidden, "owner": owner})
    return outs, closure_tangents(trace, functions["fun"], primals) if seen[0] else None


def closure_tangents(trace: Any, fun: Callable[..., Any], primals: Sequence[Any]) -> Any:
    """The output tangents that come from what `fun` closes over."""
    with tracing(trace):
        outs = fun(*primals)
    return split(outs, trace.tag)[1]


def sum_tangents(dots: Sequence[Any], closure: Any) -> Sequence[Any]:
    """Tangents by the rule plus those through captured values, where there are any."""
    return dots if closure is None else [add_tangents(a, b) for a, b in zip(dots, closure, strict=True)]


# --- staging: rules as programs ---------------------------------------------------------------------------------------
#
# A rule may call the function that it belongs to (`out = f(x)`), whose equation has that rule again. So a rule is
# staged in outline first, with such calls replaced by the plain function: this ends, and finds what the rule captures.
# The exact program, in which the call is the custom function, is staged when a derivative asks for it.


class Rule:
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


def is_in_outline(owner: Any) -> bool:
    """Whether a rule of this custom function is being outlined, which then notes that it calls the function."""
    for other, called in _in_outline.get():
        if other is owner and owner is not None:
            called[0] = True
            return True
    return False


def stage_rule(rule: Callable[..., Any], avals: Sequence[Any], name: str, owner: Any) -> tuple[Rule, list[Any]]:
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

    return Rule(outline, owner, exact if called[0] else None), captured


def as_functions(
    args: Sequence[Any], program: Program, n: Sequence[int], **rules: Callable[..., Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    """A staged custom call as functions again, closing over the captured values, and its own arguments."""
    captured = args[: sum(n)]
    own = args[sum(n) :]
    starts = [sum(n[:i]) for i in range(len(n))]
    parts = [captured[s : s + k] for s, k in zip(starts, n, strict=True)]
    functions: dict[str, Any] = {"fun": lambda *xs: interpret(program, [*parts[0], *xs])}
    functions.update({name: functools.partial(r, parts[i + 1]) for i, (name, r) in enumerate(rules.items())})
    return own, functions


# --- batching of function parameters ----------------------------------------------------------------------------------


def batched_functions(
    trace: Any, args: Sequence[Any], batched: Sequence[bool], unpack: Callable[..., Any], params: dict[str, Any]
) -> tuple[Sequence[Any], dict[str, Any], Sequence[bool]]:
    """Functions and own arguments under the mapped axis; captured values close over batch tracers."""
    if "program" in params:
        boxed = [BatchTracer(trace.tag, a) if b else a for a, b in zip(args, batched, strict=True)]
        own, functions = unpack(boxed, **params)
        flags = [is_of(a, trace.tag) for a in own]
        own = [a.value if f else a for a, f in zip(own, flags, strict=True)]
        return own, functions, flags
    return args, params, batched


def rows(trace: Any, values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """The mapped values as tracers of `trace`: what one row sees."""
    return [v if v is None or not f else BatchTracer(trace.tag, v) for v, f in zip(values, flags, strict=True)]


def run_batched(trace: Any, fun: Callable[[], Any]) -> Any:
    """Run `fun` with this mapped axis below whatever trace is current; every result gets the axis."""
    again = BatchTrace(trace.tag, current_trace(), trace.size, trace.axis_name)
    with tracing(again):
        result = fun()
    return tree.map(lambda x: _unbox(trace, x), result, is_leaf=lambda x: x is None)


def _unbox(trace, x):
    if x is None:
        return None
    if is_of(x, trace.tag):
        return x.value
    return materialize(x, trace.size)


def batched_fun(trace: Any, fun: Callable[..., Any], flags: Sequence[bool]) -> Callable[..., Any]:
    """`fun` of whole batches, by `fun` of rows."""
    return lambda *args: run_batched(trace, lambda: fun(*rows(trace, args, flags)))


def as_functions_again(trace, prim, primals, tangents, unpack, params) -> tuple[list[Any], list[Any]]:
    """Outputs and tangents of a staged custom call: applied again, in `trace`, as the functions it was staged from."""
    boxed = [trace_tracer(trace, p, t) for p, t in zip(primals, tangents, strict=True)]
    own, functions = unpack(boxed, **params)
    with tracing(trace):
        outs = bind(prim, *own, **functions)
    outs, dots, _ = split(outs, trace.tag)
    return outs, dots


def evaluate_functions(args, unpack, params) -> list[Any]:
    """The value of a custom call: its own function on arrays."""
    args, functions = unpack(args, **params)
    with tracing(root):
        return functions["fun"](*args)
