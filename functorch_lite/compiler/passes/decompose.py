# SPDX-License-Identifier: MIT
"""Composite primitives as what they are composed of, so that the parts fuse with what is around them.

    logsumexp x  =  log(sum(exp(x - m))) + m,   m = max(x), or 0 where that is not finite
    attention_tangent: see primitives/attention.py

They are filed as calls: inlining puts the equations in their place.
"""

import functools
from typing import Any

import numpy as np

from functorch_lite.compiler.passes.inline import Callee, inline_rules
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Program
from functorch_lite.core.staging import stage_closed
from functorch_lite.primitives.attention import attention_tangent_p, composed_tangent
from functorch_lite.primitives.broadcast import reduce_sum
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import is_finite, select
from functorch_lite.primitives.elementwise import add, sub
from functorch_lite.primitives.reduction import along, logsumexp_p, reduce_max
from functorch_lite.primitives.transcendental import exp, log


@inline_rules.register(logsumexp_p)
def _(equation: Equation) -> Callee:
    aval = equation.inputs[0].aval
    program = _logsumexp(aval, equation.params["axes"])
    return Callee(_at_line(program, equation.source), equation.inputs)


@functools.lru_cache(256)
def _logsumexp(aval: Aval, axes: tuple[int, ...]) -> Program:
    wide = np.dtype(dtypes.accumulator(aval.dtype))

    def fun(x):
        x = convert(x, wide) if wide != aval.dtype else x
        if 0 in aval.shape:
            out = log(reduce_sum(x, axes))  # the sum of nothing
        else:
            top = reduce_max(x, axes)
            top = select(is_finite(top), top, wide.type(0))
            out = add(log(reduce_sum(exp(sub(x, along(top, x, axes))), axes)), top)
        return [convert(out, aval.dtype) if wide != aval.dtype else out]

    return stage_closed(fun, [aval], name="logsumexp")


@inline_rules.register(attention_tangent_p)
def _(equation: Equation) -> Callee:
    avals = [a.aval for a in equation.inputs]
    program = stage_closed(lambda *args: [composed_tangent(*args, **equation.params)], avals, name="attention_tangent")
    return Callee(_at_line(program, equation.source), equation.inputs)


def _at_line(program: Program, source: Any) -> Program:
    equations = tuple(Equation(e.prim, e.inputs, e.outputs, e.params, source) for e in program.equations)
    return Program(program.inputs, equations, program.outputs, program.name)
