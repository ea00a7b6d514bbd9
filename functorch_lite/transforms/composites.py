# SPDX-License-Identifier: MIT
"""Functions of arrays whose eager gradient is planned as a whole: `x + b` with its promotion and broadcasting.

What NumPy's `x + b` does on traced arrays (compare dtypes, repeat b, add) depends on the types of the operands alone.
Under eager `grad` it is therefore staged once for each signature that comes often; a call is then one lookup, one call
of generated code and one entry on the tape:

    add f32[32,64] f32[64]:   forward  y = add(x, broadcast_in_dim b)      backward  ct -> ct, reduce_sum ct

A signature is what the short way takes: NumPy arrays, those traced by the gradient of float32 or float64, and settings
that can be compared. A tracer carries its part of the key with it (`Signature`), and a plan knows that of its output.
Everything else takes the long way, and so does what fails here, so that errors are those of the long way.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Literal, Program, Var
from functorch_lite.core.staging import StagingTracer, stage_closed
from functorch_lite.core.tracer import current_trace, root, tracing
from functorch_lite.transforms.linearize import PlannedTracer
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

_INTEGERS = frozenset(map(np.dtype, "bhilBHIL"))
_FLOATS = frozenset(map(np.dtype, "fd"))
_SCALARS = frozenset((float, np.float32, np.float64))
_COMPARABLE = frozenset((int, bool, str, type(None)))
LARGEST_CONSTANTS = 1 << 16
"""Bytes of the constants that a plan may keep."""
ARRAYS = frozenset((ndarray, PlannedTracer))
SIGHTINGS = 20
"""How often a signature comes before it gets a plan: making one takes as long as hundreds of calls the long way."""
_LONG = object()
"""What stands for a signature that has no plan; one that has not come often enough has the number of times."""

# In what follows, `trace` is the current one, whose `composites` are not None. A result of None says: the long way.


def of_one(trace: Any, fun: Callable[[Any], Any], x: Any) -> Any:
    """`fun(x)` the short way."""
    if type(x) is not PlannedTracer or x.tag is not trace.tag or x.weak or x.signature is None:
        return None
    key = (fun, x.signature)
    plan = trace.composites.get(key)
    if type(plan) is not Plan:
        plan = _plan(trace, key, fun, (x,))
        if plan is None:
            return None
    try:
        out, values = plan.code(x.primal)
    except Exception:
        return None  # the long way raises it again
    return trace.planned(plan, out, values, (x.index,))


def of_two(trace: Any, fun: Callable[[Any, Any], Any], x: Any, y: Any) -> Any:
    """`fun(x, y)` the short way, for arrays of one dtype."""
    tag = trace.tag
    if type(x) is PlannedTracer and x.tag is tag and not x.weak:
        p, s = x.primal, x.signature
        if type(y) is PlannedTracer and y.tag is tag and not y.weak:
            q, t, operands = y.primal, y.signature, (x.index, y.index)
        elif type(y) is ndarray:
            q, t, operands = y, (y.dtype, y.shape), (x.index,)
        else:
            return None
    elif type(x) is ndarray and type(y) is PlannedTracer and y.tag is tag and not y.weak:
        p, s, q, t, operands = x, (x.dtype, x.shape), y.primal, y.signature, (y.index,)
    else:
        return None
    key = (fun, s, t)
    plan = trace.composites.get(key)
    if type(plan) is not Plan:
        if s is None or t is None or s[0] is not t[0]:
            return None
        plan = _plan(trace, key, fun, (x, y))
        if plan is None:
            return None
    try:
        out, values = plan.code(p, q)
    except Exception:
        return None
    return trace.planned(plan, out, values, operands)


def of_setting(trace: Any, fun: Callable[[Any, Any], Any], x: Any, setting: Any) -> Any:
    """`fun(x, setting)` the short way."""
    name = _name_of(setting)
    return None if name is None else of_named(trace, fun, x, setting, name)


def of_named(trace: Any, fun: Callable[[Any, Any], Any], x: Any, setting: Any, name: Any) -> Any:
    """`of_setting` where `name` stands for the setting: it is the same for those that mean the same."""
    if type(x) is not PlannedTracer or x.tag is not trace.tag or x.weak or x.signature is None:
        return None
    key = (fun, x.signature, name)
    plan = trace.composites.get(key)
    if type(plan) is not Plan:
        if type(setting) in (np.float32, np.float64) and setting.dtype is not x.signature.dtype:
            return None
        plan = _plan(trace, key, lambda x: fun(x, setting), (x,))
        if plan is None:
            return None
    try:
        out, values = plan.code(x.primal)
    except Exception:
        return None
    return trace.planned(plan, out, values, (x.index,))


def _name_of(value):
    """Something that is equal for settings that mean the same; None for what is no setting."""
    kind = type(value)
    if kind in _COMPARABLE or (kind is tuple and all(type(v) is int for v in value)):
        return kind, value
    if kind not in _SCALARS or value != value:
        return None
    return kind, value or repr(value)  # 0.0 equals -0.0


def of_any(trace: Any, fun: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    """`fun(*args, **kwargs)` the short way, for float arrays of one dtype, booleans and settings, and lists of them."""
    if not kwargs:
        if len(args) == 1 and type(args[0]) is PlannedTracer:
            return of_one(trace, fun, args[0])
        if len(args) == 2 and type(args[0]) in ARRAYS and type(args[1]) in ARRAYS:
            return of_two(trace, fun, *args)
    return _of_all(trace, fun, args, kwargs, False)


def of_indices(trace: Any, fun: Callable[..., Any], args: tuple) -> Any:
    """`fun(*args)` the short way as by `of_any`, where integer arrays are taken too: they do not meet floats."""
    return _of_all(trace, fun, args, {}, True)


def planned(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a function of arrays and settings that computes the same operations for all arrays of the same
    types, and whose integer arrays do not meet floats: under eager `grad`, calls go the short way where they can."""

    @functools.wraps(fun)
    def call(*args: Any) -> Any:
        trace = current_trace()
        out = None if trace.composites is None else of_indices(trace, fun, args)
        return fun(*args) if out is None else out

    return call


def _of_all(trace, fun, args, kwargs, integers):
    key: list[Any] = [fun, *kwargs]
    primals: list[Any] = []
    operands: list[int] = []
    if not _take(trace.tag, (*args, *kwargs.values()) if kwargs else args, key, primals, operands) or not operands:
        return None
    key = tuple(key)  # type: ignore[assignment]
    plan = trace.composites.get(key)
    if type(plan) is not Plan:
        found = list(_arrays_in((*args, *kwargs.values())))
        if not _meet(found, integers):
            return None
        arrays = [a for a in found if type(a) in ARRAYS]
        plan = _plan(trace, key, functools.partial(_call_again, fun, args, kwargs), arrays)
        if plan is None:
            return None
    try:
        out, values = plan.code(*primals)
    except Exception:
        return None
    return trace.planned(plan, out, values, tuple(operands))


def _take(tag, values, key, primals, operands):
    """Take arguments apart: what a plan depends on, the arrays, and the places of the traced ones on the tape.

    False if one of the arguments is not for the short way.
    """
    for a in values:
        kind = type(a)
        if kind is PlannedTracer:
            if a.tag is not tag or a.weak or a.signature is None:
                return False
            key.append(a.signature)
            primals.append(a.primal)
            operands.append(a.index)
        elif kind is ndarray:
            key.append((a.dtype, a.shape))
            primals.append(a)
        else:
            name = _name_of(a)
            if name is not None:
                key.append(name)
            elif kind is list or kind is tuple:
                key += (kind, len(a))
                if not _take(tag, a, key, primals, operands):
                    return False
            else:
                return False
    return True


def _arrays_in(values: Iterable[Any]) -> Iterator[Any]:
    """The arrays and NumPy's scalars among arguments."""
    for v in values:
        if type(v) in ARRAYS or type(v) in (np.float32, np.float64):
            yield v
        elif type(v) in (list, tuple):
            yield from _arrays_in(v)


def _meet(arrays: Sequence[Any], integers: bool) -> bool:
    """Whether all floats are of one dtype, and the rest booleans, or integers where these are taken."""
    floats = {a.dtype for a in arrays if a.dtype in _FLOATS}
    others = {a.dtype for a in arrays} - floats
    return len(floats) == 1 and all(d.char == "?" or (integers and d in _INTEGERS) for d in others)


def _call_again(fun, args, kwargs, *arrays):
    """`fun(*args, **kwargs)` with other arrays in the places of its own."""
    rest = iter(arrays)
    args = _with(args, rest)
    return fun(*args, **dict(zip(kwargs, _with(kwargs.values(), rest), strict=True)))


def _with(values: Iterable[Any], arrays: Iterator[Any]) -> list[Any]:
    """The arguments with arrays in place of their own."""
    return [
        next(arrays) if type(v) in ARRAYS else type(v)(_with(v, arrays)) if type(v) in (list, tuple) else v
        for v in values
    ]


def _plan(trace: Any, key: Any, fun: Callable[..., Any], args: Sequence[Any]) -> Any:
    """The plan of this signature, once it has come often enough; None before, and where there is none.

    args: the arrays, traced or not.
    """
    known = trace.composites
    seen = known.get(key, 0)
    if type(seen) is not int:
        return None if seen is _LONG else seen
    if len(known) >= MAX_PLANS:
        known.clear()
    if seen + 1 < SIGHTINGS:
        known[key] = seen + 1
        return None
    avals = [Aval(a.shape, a.dtype) for a in args]
    plan = _make_plan(trace.plans, fun, avals, [type(a) is PlannedTracer for a in args])
    known[key] = _LONG if plan is None else plan
    return plan


# --- making a plan ----------------------------------------------------------------------------------------------------


def _make_plan(plans: Plans, fun: Callable[..., Any], avals: list[Aval], active: Sequence[bool]) -> Plan | None:
    """The plan of `fun` for arrays of these types; None where it has other results than one array."""
    outs: list[Any] = []  # of the last staging

    def staged(*args):
        outs.append(fun(*args))
        return [outs[-1]] if type(outs[-1]) is StagingTracer else []

    try:
        with tracing(root):
            program = eliminate_dead_code(stage_closed(staged, avals, name="f"))
    except Exception:
        return None  # the long way raises it again
    if not program.outputs or outs[-1].weak or _constant_bytes(program) > LARGEST_CONSTANTS:
        return None
    steps = _steps(plans, program, active)
    if steps is None:
        return None
    if not steps or steps[-1].output is not program.outputs[0]:
        return _without_derivative(program) if not steps else None
    return _joined(program, steps, active)


def _without_derivative(program: Program) -> Plan | None:
    """The plan of a function that is constant, but for jumps: `x > 0`.

    None where it only passes on its operand, or gives one array again and again.
    """
    computed: set[Any] = set()
    for e in program.equations:
        if any(a in computed or a in program.inputs for a in e.inputs):
            computed.update(e.outputs)
    return Plan(program, Program((), (), ()), (), ()) if program.outputs[0] in computed else None


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
        flags = [a in moving for a in e.inputs]
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
