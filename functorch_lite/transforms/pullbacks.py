# SPDX-License-Identifier: MIT
"""Pullbacks of single primitives, derived once for each signature: what makes eager gradients fast.

Under eager `grad` the linear part of `y = tanh(x)` is the same few operations each time. The jvp rule and the transpose
rules are therefore staged once for the types of the operands, and what remains at each call is one tape entry
with the values that the pullback needs, and one call of generated code on the way back:

    tanh f32[32,64]:   (ct, y) -> scale(1 - y*y, ct)

No rule is written twice: the plan is the jvp rule transposed, by the machinery that does it for whole functions. Plans
of several applications join to one program (`walk_back`): of a function of arrays (`transforms.composites`), or of a
whole tape (`transforms.backward`).
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy

from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.config import config
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import evaluator, interpret
from functorch_lite.core.linear import Tape, TapeTrace
from functorch_lite.core.numpy_code import numpy_code
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Atom, Equation, Program, Var
from functorch_lite.core.rules import jvp_rules
from functorch_lite.core.staging import StagingTracer, stage_closed
from functorch_lite.core.tracer import current_trace, root, tracing
from functorch_lite.primitives.elementwise import add_any_p
from functorch_lite.transforms.jvp import per_argument_tangent

_f32, _f64 = numpy.dtype(numpy.float32), numpy.dtype(numpy.float64)
_ARRAYS = frozenset((numpy.ndarray, numpy.float32, numpy.float64))
MAX_PLANS = 10_000


class Signature(NamedTuple):
    """The type of an array; one object stands for each (`signature_of`), so that keys of plans are soon compared."""

    dtype: Any
    shape: tuple[int, ...]

    __hash__ = object.__hash__
    __eq__ = object.__eq__


_signatures: dict[Any, Signature] = {}


def signature_of(x: Any) -> Signature | None:
    """The signature of a NumPy array or scalar of float32 or float64 in the machine's byte order; None of all else."""
    if type(x) not in _ARRAYS:
        return None
    key = (x.dtype, x.shape)
    return _signatures.get(key) or _signature(*key)


def _signature(dtype, shape):
    if dtype is not _f32 and dtype is not _f64:
        return None
    if len(_signatures) >= MAX_PLANS:
        _signatures.clear()
    return _signatures.setdefault((dtype, shape), Signature(dtype, shape))


class Plan:
    """How to get the output of one application, and the cotangents of its active operands.

    forward: operands -> output and what else `program` needs
    program: needed values, then the output's cotangent -> the cotangents that are not zero
    needed: which of (operands..., results of `forward`...) those values are
    nonzero: for each active operand, whether it gets a cotangent; () where the output has no derivative
    signature: of the output; None where functions of it are not planned
    code: `forward` on NumPy arrays, written when it is first called: operands -> output, the needed values (None where
        the output has no derivative)
    """

    __slots__ = ("forward", "program", "needed", "nonzero", "signature", "code")

    def __init__(self, forward: Program, program: Program, needed: tuple[int, ...], nonzero: tuple[bool, ...]):
        self.forward = forward
        self.program = program
        self.needed = needed
        self.nonzero = nonzero
        out = forward.outputs[0].aval
        self.signature = _signature(out.dtype, out.shape)
        self.code: Callable[..., tuple[Any, tuple[Any, ...] | None]] = self._write

    def _write(self, *operands):
        f = self.forward
        if not self.nonzero:
            run = numpy_code(f)
            self.code = lambda *operands: (run(*operands)[0], None)
            return self.code(*operands)
        every = (*f.inputs, *f.outputs)
        outputs = (f.outputs[0], *[every[i] for i in self.needed])
        self.code = numpy_code(Program(f.inputs, f.equations, outputs, f.name), apart=True)
        return self.code(*operands)

    def pull(self, ct: Any, values: Sequence[Any]) -> list[Any]:
        """The cotangents of the active operands (None: zero) for that of the output, in the current trace."""
        if current_trace() is root:
            run = evaluator(self.program)
            found = run.on_numpy(numpy, *values, ct) if type(ct) is numpy.ndarray else run(*values, ct)
        else:
            found = interpret(self.program, [*values, ct])
        if len(found) == len(self.nonzero):
            return found
        it = iter(found)
        return [next(it) if f else None for f in self.nonzero]


Plans = dict[Any, Plan | None]
_plans: dict[bool, tuple[Plans, dict[Any, Any]]] = {False: ({}, {}), True: ({}, {})}


def plans_in_force() -> tuple[Plans, dict[Any, Any]]:
    """The plans of primitives, and those of functions of arrays (`transforms.composites`), that were made under the
    present `config.strong_zero`, on which rules depend."""
    return _plans[config.strong_zero]


_LOCAL = frozenset((Kind.ELEMENTWISE, Kind.MOVEMENT, Kind.INDEXING))


@functools.cache
def has_plan(prim: Primitive) -> bool:
    """Whether the derivative of `prim` may be planned from the types of its operands.

    A rule that computes output and tangent together is planned where nothing it computes is worth keeping.
    """
    rule = jvp_rules.get(prim)
    return type(rule) is tuple or (rule is not None and prim.kind in _LOCAL and not prim.multiple and not prim.effect)


def plan_key(
    prim: Primitive, primals: Sequence[Any], active: Sequence[bool], params: dict[str, Any]
) -> tuple[Any, ...]:
    """What a plan depends on: the types of the operands, and which are active."""
    if len(primals) == 1:
        (x,) = primals
        return (prim, x.shape, x.dtype, *params.values())
    key: list[Any] = [prim, *params.values()]
    for p, a in zip(primals, active, strict=True):
        key += (p.shape, p.dtype, a)
    return tuple(key)


def plan_of(
    plans: Plans, key: Any, prim: Primitive, primals: Sequence[Any], active: Sequence[bool], out: Any,
    params: dict[str, Any],
) -> Plan | None:
    """The plan for operands of these types, of which some are active; None where the derivative is zero.

    key: as `plan_key` gives it.
    """
    try:
        return plans[key]
    except KeyError:
        if len(plans) >= MAX_PLANS:
            plans.clear()
        plan = plans[key] = _make_plan(prim, primals, active, out, params)
        return plan


def _make_plan(prim, primals, active, out, params):
    avals = [Aval(p.shape, p.dtype) for p in primals]
    out_aval = Aval(out.shape, out.dtype)
    n = len(avals)
    found: list[tuple[Any, tuple[bool, ...]]] = []

    def fun(*args):
        tape = TapeTrace(current_trace())
        dots = [tape.input(a) if on else None for a, on in zip(avals, active, strict=True)]
        with tracing(tape):
            y, total = _tangent_of(prim, args[n], args[:n], dots, params)
        inputs = [t for t in dots if t is not None]
        cts = [None] * len(inputs) if total is None else Tape(tape, inputs, [total]).backward([args[n + 1]])
        found.append((y, tuple(c is not None for c in cts)))
        return [c for c in cts if c is not None]

    with tracing(root):
        program = stage_closed(fun, [*avals, out_aval, out_aval], name=prim.name)
    y, nonzero = found[-1]
    if not any(nonzero):
        return None
    return _pruned(_with_output(program, n, y), nonzero, _applied(prim, avals, out_aval, params))


def _applied(prim, avals, out_aval, params):
    """The program that applies one primitive."""
    inputs, out = tuple(map(Var, avals)), Var(out_aval)
    return Program(inputs, (Equation(prim, inputs, (out,), params),), (out,), prim.name)


def _tangent_of(prim, out, primals, dots, params):
    """The output, as the rule has it, and the output's tangent."""
    rule = jvp_rules[prim]
    if type(rule) is tuple:
        return out, per_argument_tangent(prim, out, primals, dots, params)
    return rule(primals, dots, **params)


def _with_output(program, n, y):
    """The program with the output as its input `n`, where the rule computed it itself."""
    if type(y) is not StagingTracer or y.variable in program.inputs:
        return program
    equations = tuple(e for e in program.equations if y.variable not in e.outputs)
    inputs = (*program.inputs[:n], y.variable, *program.inputs[n + 1 :])
    return Program(inputs, equations, program.outputs, program.name)


def _pruned(program, nonzero, forward):
    """The plan of a program from operands, output and the output's cotangent; it takes what it needs of these."""
    program, needed = without_unused(program)
    return Plan(forward, program, needed, nonzero)


def without_unused(program: Program) -> tuple[Program, tuple[int, ...]]:
    """The program without dead code and without inputs (but the last) that it does not use; which inputs are left."""
    program = eliminate_dead_code(program)
    used = {a for e in program.equations for a in e.inputs} | set(program.outputs)
    needed = tuple(i for i, v in enumerate(program.inputs[:-1]) if v in used)
    inputs = (*(program.inputs[i] for i in needed), program.inputs[-1])
    return Program(inputs, program.equations, program.outputs, program.name), needed


# --- several applications ---------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One application: its plan, the atoms of the needed values, and names of its active operands and its output."""

    plan: Plan
    values: Sequence[Atom]
    operands: Sequence[Hashable]
    output: Hashable


def walk_back(steps: Sequence[Step], cts: dict[Any, Atom]) -> list[Equation]:
    """The equations that carry the cotangents `cts`, by name, backwards through `steps`; `cts` becomes the result.

    Cotangents of one name are added in the order in which `Tape.backward` adds them.
    """
    equations: list[Equation] = []
    for plan, values, operands, output in reversed(steps):
        ct = cts.pop(output, None)
        if ct is None:
            continue
        found = iter(_inlined(plan.program, [*values, ct], equations))
        for name in [o for o, f in zip(operands, plan.nonzero, strict=True) if f]:
            add_to(cts, name, next(found), equations)
    return equations


def _inlined(program, atoms, equations):
    """The program's outputs for these inputs; its equations, with variables of their own, are appended."""
    env: dict[Any, Any] = dict(zip(program.inputs, atoms, strict=True))
    for e in program.equations:
        outputs = tuple([Var(v.aval) for v in e.outputs])
        equations.append(Equation(e.prim, tuple([env.get(a, a) for a in e.inputs]), outputs, e.params, e.source))
        env.update(zip(e.outputs, outputs, strict=True))
    return [env.get(a, a) for a in program.outputs]


def add_to(cts: dict[Any, Atom], name: Hashable, ct: Atom, equations: list[Equation]) -> None:
    """Add a cotangent to what is there under this name."""
    old = cts.get(name)
    if old is not None:
        ct, new = Var(ct.aval), ct
        equations.append(Equation(add_any_p, (old, new), (ct,), {}))
    cts[name] = ct
