# SPDX-License-Identifier: MIT
"""Higher-order family: primitives whose parameters are programs or functions.

Declared here (shape); `jit`, `checkpoint` and the custom rules get their other rules in `transforms`, loops and
branches in `control_flow`.
"""

from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Program
from functorch_lite.core.rules import shape_rules

jit_p = Primitive("jit", Kind.HIGHER_ORDER, multiple=True)
checkpoint_p = Primitive("checkpoint", Kind.HIGHER_ORDER, multiple=True)
checkpoint_linear_p = Primitive("checkpoint_linear", Kind.HIGHER_ORDER, multiple=True)
custom_jvp_p = Primitive("custom_jvp", Kind.HIGHER_ORDER, multiple=True)
custom_vjp_p = Primitive("custom_vjp", Kind.HIGHER_ORDER, multiple=True)
custom_linear_p = Primitive("custom_linear", Kind.HIGHER_ORDER, multiple=True)
linear_solve_p = Primitive("linear_solve", Kind.HIGHER_ORDER, multiple=True)


def _program_type(*avals, program: Program, **params):
    return program.out_avals


for _prim in (jit_p, checkpoint_p, custom_jvp_p, custom_vjp_p):
    shape_rules.add(_prim, _program_type)
for _prim in (checkpoint_linear_p, custom_linear_p):
    shape_rules.add(_prim, lambda *avals, out_avals, **params: list(out_avals))
shape_rules.add(linear_solve_p, lambda *avals, solve, **params: solve.out_avals)
