# SPDX-License-Identifier: MIT
"""Lowering of roots, exponentials, logarithms, trigonometric and hyperbolic functions.

Of real numbers they are scalar operations of the code generator; of complex ones, `complex_maths`.
"""

from functorch_lite.compiler.lowering import complex_maths
from functorch_lite.compiler.lowering.elementwise import product, quotient
from functorch_lite.compiler.lowering.rules import Pair, elementwise_rules, scalar
from functorch_lite.primitives import transcendental as p


def _real_or_complex(name):
    of_pair = getattr(complex_maths, name)
    return lambda at, x: of_pair(at, x) if isinstance(x, Pair) else at.op(name, x)


def _rsqrt(at, x):
    if isinstance(x, Pair):
        return quotient(at, Pair(at.constant(1), at.constant(0)), complex_maths.sqrt(at, x))
    return at.op("div", at.constant(1), at.op("sqrt", x))


for _prim in (
    p.sqrt_p, p.exp_p, p.expm1_p, p.log_p, p.log2_p, p.log10_p, p.log1p_p, p.sin_p, p.cos_p, p.tan_p, p.asin_p,
    p.acos_p, p.atan_p, p.sinh_p, p.cosh_p, p.tanh_p, p.asinh_p, p.acosh_p, p.atanh_p, p.logistic_p,
):
    elementwise_rules.add(_prim, _real_or_complex(_prim.name))
for _prim in (p.cbrt_p, p.exp2_p, p.atan2_p):
    elementwise_rules.add(_prim, scalar(_prim.name))
elementwise_rules.add(p.square_p, lambda at, x: product(at, x, x))
elementwise_rules.add(p.rsqrt_p, _rsqrt)
