# SPDX-License-Identifier: MIT
"""Pullbacks of single primitives, derived once for each signature: what makes eager gradients fast.

Under eager `grad` the linear part of `y = tanh(x)` is the same few operations each time. The jvp rule and the transpose
rules are therefore staged once for the types of the operands, and what remains at each call is one tape entry
with the values that the pullback needs, and one call of generated code on the way back:

    tanh f32[32,64]:   (ct, y) -> scale(1 - y*y, ct)

No rule is written twice: the plan is the jvp rule transposed, by the machinery that does it for whole functions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.config import config
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import Evaluator, interpret
from functorch_lite.core.linear import Tape, TapeTrace
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Program
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.staging import stage_closed
from functorch_lite.core.tracer import current_trace, root, tracing
from functorch_lite.transforms.jvp import per_argument_tangent

pullback_p = Primitive("pullback", Kind.OPAQUE)


class Plan(NamedTuple):
    """How to get the cotangents of a primitive's active operands.

    program: needed values, then the output's cotangent -> the cotangents that are not zero
    needed: which of (operands..., output) those values are
    nonzero: for each active operand, whether it gets a cotangent
    """

    program: Program
    run: Evaluator
    needed: tuple[int, ...]
    nonzero: tuple[bool, ...]


Plans = dict[Any, Plan | None]
_plans: dict[bool, Plans] = {False: {}, True: {}}
MAX_PLANS = 10_000


def plans_in_force() -> Plans:
    """The plans made under the present `config.strong_zero`, on which rules depend."""
    return _plans[config.strong_zero]


def plan_of(
    plans: Plans, prim: Primitive, primals: Sequence[Any], active: Sequence[Any], out: Any, params: dict[str, Any]
) -> Plan | None:
    """The plan for operands of these types, those active that are not None; None where the derivative is zero."""
    if len(primals) == 1:
        (x,) = primals
        key = (prim, x.shape, x.dtype, *params.values())
    else:
        key = (
            prim, *[p.shape for p in primals], *[p.dtype for p in primals], *[a is not None for a in active],
            *params.values(),
        )
    try:
        return plans[key]
    except KeyError:
        if len(plans) >= MAX_PLANS:
            plans.clear()
        plan = plans[key] = _make_plan(prim, primals, active, out, params)
        return plan


def _make_plan(prim, primals, active, out, params):
    active = [a is not None for a in active]
    avals = [Aval(p.shape, p.dtype) for p in primals]
    out_aval = Aval(out.shape, out.dtype)
    n = len(avals)
    found: list[tuple[bool, ...]] = []

    def fun(*args):
        tape = TapeTrace(current_trace())
        dots = [tape.input(a) if on else None for a, on in zip(avals, active, strict=True)]
        with tracing(tape):
            total = per_argument_tangent(prim, args[n], args[:n], dots, params)
        inputs = [t for t in dots if t is not None]
        cts = [None] * len(inputs) if total is None else Tape(tape, inputs, [total]).backward([args[n + 1]])
        found.append(tuple(c is not None for c in cts))
        return [c for c in cts if c is not None]

    with tracing(root):
        program = eliminate_dead_code(stage_closed(fun, [*avals, out_aval, out_aval], name=prim.name))
    if not any(found[-1]):
        return None
    used = {a for e in program.equations for a in e.inputs} | set(program.outputs)
    needed = tuple(i for i, v in enumerate(program.inputs[:-1]) if v in used)
    inputs = (*(program.inputs[i] for i in needed), program.inputs[-1])
    program = Program(inputs, program.equations, program.outputs, program.name)
    return Plan(program, Evaluator(program), needed, found[-1])


@transpose_rules.register(pullback_p)
def _(ct, *operands, plan, values):
    if current_trace() is root:
        found = plan.run.on_numpy(numpy, *values, ct) if type(ct) is numpy.ndarray else plan.run(*values, ct)
    else:
        found = interpret(plan.program, [*values, ct])
    if len(found) == len(operands):
        return found
    it = iter(found)
    return [next(it) if f else None for f in plan.nonzero]


for _table in (shape_rules, eval_rules, jvp_rules, batch_rules):
    _table.absent(pullback_p, "it stands on the tape of an eager gradient only, which runs backwards")
