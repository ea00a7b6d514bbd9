# SPDX-License-Identifier: MIT
"""Functions of arrays whose eager gradient is planned as a whole: `x + b` with its promotion and broadcasting.

What NumPy's `x + b` does on traced arrays (compare dtypes, repeat b, add) depends on the types of the operands alone.
Under eager `grad` it is therefore staged once for each signature that comes often; a call is then one lookup, one call
of generated code and one entry on the tape:

    add f32[32,64] f32[64]:   forward  y = add(x, broadcast_in_dim b)      backward  ct -> ct, reduce_sum ct

A signature is what the short way takes: float32 or float64 arrays of one dtype, one of them traced by the gradient, and
settings that can be compared. Everything else takes the long way, and so does what fails here, so that errors are
those of the long way.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.core.aval import Aval
from functorch_lite.core.linear import Linear
from functorch_lite.core.program import Literal, Program, Var
from functorch_lite.core.staging import StagingTracer, stage_closed
from functorch_lite.core.tracer import current_trace, root, tracing
from functorch_lite.transforms.linearize import LinearizeTrace, LinearTracer
from functorch_lite.transforms.pullbacks import (
    MAX_PLANS,
    Plan,
    Plans,
    Step,
    has_plan,
    plan_key,
    plan_of,
    walk_back,
    without_unused,
)

_f32, _f64 = np.dtype(np.float32), np.dtype(np.float64)
_DIFFERENTIATED = frozenset((_f32, _f64))
_DTYPES = frozenset(map(np.dtype, "?bhilBHILfd"))
_COMPARABLE = frozenset((int, bool, str, type(None)))
LARGEST_CONSTANTS = 1 << 16
"""Bytes of the constants that a plan may keep."""
ARRAYS = frozenset((ndarray, LinearTracer))
SIGHTINGS = 20
"""How often a signature comes before it gets a plan: making one takes as long as hundreds of calls the long way."""
_LONG = object()
"""What stands for a signature that has no plan; one that has not come often enough has the number of times."""


def of_one(trace: Any, fun: Callable[..., Any], x: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
    """`fun(x, *args, **kwargs)` the short way, where x is the only array; None if it must go the long way.

    trace: the current one, whose `composites` are not None.
    """
    if type(x) is not LinearTracer or x.tag is not trace.tag or x.weak:
        return None
    p = x.primal
    if type(p) is not ndarray or not (p.dtype is _f32 or p.dtype is _f64):
        return None
    call = fun
    key: Any = (fun, p.dtype, p.shape)
    if args or kwargs:
        kwargs = kwargs or {}
        if not all(map(_is_setting, args)) or not all(map(_is_setting, kwargs.values())):
            return None
        key = (*key, args, *map(type, args), *kwargs.items(), *map(type, kwargs.values()))
        call = lambda x: fun(x, *args, **kwargs)  # noqa: E731
    plan = trace.composites.get(key)
    if type(plan) is not Plan:
        plan = _plan(trace, key, call, (p,), (True,))
    return None if plan is None else _applied(trace, plan, (p,), [x.linear])


def _is_setting(value):
    kind = type(value)
    if kind is float:
        return value == value and value != 0.0  # 0.0 equals -0.0
    return kind in _COMPARABLE or (kind is tuple and all(type(v) is int for v in value))


def planned(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a function of arrays that computes the same operations for all arrays of the same types: under eager
    `grad`, calls go the short way where they can."""

    @functools.wraps(fun)
    def call(*args: Any) -> Any:
        trace = current_trace()
        out = None if trace.composites is None else of_arrays(trace, fun, args)
        return fun(*args) if out is None else out

    return call


def of_arrays(trace: Any, fun: Callable[..., Any], args: tuple) -> Any:
    """`fun(*args)` the short way for arrays of any dtypes, of which those traced are float32 or float64; else None."""
    tag = trace.tag
    primals, linears = [], []
    key: list[Any] = [fun]
    for a in args:
        p = a
        if type(a) is LinearTracer and a.tag is tag and not a.weak:
            p = a.primal
            linears.append(a.linear)
        if type(p) is not ndarray or p.dtype not in (_DTYPES if p is a else _DIFFERENTIATED):
            return None
        primals.append(p)
        key += (p.dtype, p.shape, p is a)
    if not linears:
        return None
    key = tuple(key)  # type: ignore[assignment]
    plan = trace.composites.get(key)
    if type(plan) is not Plan:
        plan = _plan(trace, key, fun, primals, [p is not a for p, a in zip(primals, args, strict=True)])
    return None if plan is None else _applied(trace, plan, primals, linears)


def of_any(trace: Any, fun: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """`fun(*args, **kwargs)` the short way; None if it must go the long way."""
    if len(args) == 2 and not kwargs and type(args[1]) in ARRAYS:
        return of_two(trace, fun, *args)
    return of_one(trace, fun, args[0], args[1:], kwargs) if args else None


def of_two(trace: Any, fun: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
    """`fun(x, y)` the short way; None if it must go the long way.

    trace: the current one, whose `composites` are not None.
    """
    tag = trace.tag
    p, q, linears = x, y, []
    if type(x) is LinearTracer and x.tag is tag and not x.weak:
        p = x.primal
        linears.append(x.linear)
    if type(y) is LinearTracer and y.tag is tag and not y.weak:
        q = y.primal
        linears.append(y.linear)
    if type(p) is not ndarray or type(q) is not ndarray or not linears:
        return None
    dtype = p.dtype
    if dtype is not q.dtype or not (dtype is _f32 or dtype is _f64):
        return None
    key = (fun, dtype, p.shape, q.shape, p is x, q is y)
    plan = trace.composites.get(key)
    if type(plan) is not Plan:
        plan = _plan(trace, key, fun, (p, q), (p is not x, q is not y))
    return None if plan is None else _applied(trace, plan, (p, q), linears)


def _applied(trace: LinearizeTrace, plan: Plan, primals: Sequence[Any], linears: list[Linear]) -> Any:
    """The output, with one entry that stands for its whole derivative; None where an error is to name the operation."""
    try:
        found = (plan.code or plan.write())(*primals)
    except Exception:
        return None  # the long way raises it again
    needed = plan.needed
    if needed:
        every = (*primals, *found)
        return trace.planned(plan, found[0], [every[i] for i in needed], linears)
    return trace.planned(plan, found[0], [], linears)


def _plan(trace: Any, key: Any, fun: Callable[..., Any], primals: Sequence[Any], active: Sequence[bool]) -> Any:
    """The plan of this signature, once it has come often enough; None before, and where there is none."""
    known = trace.composites
    seen = known.get(key, 0)
    if type(seen) is not int:
        return None if seen is _LONG else seen
    if len(known) >= MAX_PLANS:
        known.clear()
    if seen + 1 < SIGHTINGS:
        known[key] = seen + 1
        return None
    plan = _make_plan(trace.plans, fun, [Aval(p.shape, p.dtype) for p in primals], active)
    known[key] = _LONG if plan is None else plan
    return plan


# --- making a plan ----------------------------------------------------------------------------------------------------


def _make_plan(plans: Plans, fun: Callable[..., Any], avals: list[Aval], active: Sequence[bool]) -> Plan | None:
    """The plan of `fun` for arrays of these types; None where it has other results than one array."""
    outs: list[Any] = []

    def staged(*args):
        outs.append(fun(*args))
        return [outs[-1]] if type(outs[-1]) is StagingTracer else []

    try:
        with tracing(root):
            program = eliminate_dead_code(stage_closed(staged, avals, name=getattr(fun, "__name__", "f")))
    except Exception:
        return None  # the long way raises it again
    if not program.outputs or outs[-1].weak or _constant_bytes(program) > LARGEST_CONSTANTS:
        return None
    steps = _steps(plans, program, active)
    return None if not steps or steps[-1].output is not program.outputs[0] else _joined(program, steps, active)


def _constant_bytes(program):
    return sum(a.aval.size * a.aval.dtype.itemsize for e in program.equations for a in e.inputs if type(a) is Literal)


def _steps(plans: Plans, program: Program, active: Sequence[bool]) -> list[Step] | None:
    """The applications that carry a derivative, with their plans; None if one has no plan."""
    moving = {v for v, on in zip(program.inputs, active, strict=True) if on}
    steps = []
    for e in program.equations:
        if moving.isdisjoint(e.inputs):
            continue
        if not has_plan(e.prim):
            return None
        flags = [a if a in moving else None for a in e.inputs]
        avals = [a.aval for a in e.inputs]
        key = plan_key(e.prim, avals, flags, e.params)
        plan = plan_of(plans, key, e.prim, avals, flags, e.outputs[0].aval, e.params)
        if plan is not None:
            every = (*e.inputs, e.outputs[0])
            operands = [a for a in e.inputs if a in moving]
            steps.append(Step(plan, [every[i] for i in plan.needed], operands, e.outputs[0]))
            moving.add(e.outputs[0])
    return steps


def _joined(program: Program, steps: Sequence[Step], active: Sequence[bool]) -> Plan | None:
    """The plan of the whole program."""
    (out,) = program.outputs
    ct = Var(out.aval)
    known: dict[Any, Any] = {out: ct}
    equations = tuple(walk_back(steps, known))
    found = [known.get(v) for v, on in zip(program.inputs, active, strict=True) if on]
    cts = tuple([c for c in found if c is not None])
    if not cts:
        return None
    n = len(program.inputs)
    others = [v for e in program.equations for v in e.outputs if v is not out]
    available: Any = (*program.inputs, out, *others, ct)
    back, needed = without_unused(Program(available, equations, cts, program.name))
    kept = [others[i - n - 1] for i in needed if i > n]
    forward = eliminate_dead_code(Program(program.inputs, program.equations, (out, *kept), program.name))
    places = tuple([i if i <= n else n + 1 + kept.index(others[i - n - 1]) for i in needed])
    return Plan(forward, back, places, tuple(c is not None for c in found))
