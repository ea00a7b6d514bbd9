# SPDX-License-Identifier: MIT
"""sinh, cosh, tanh and their inverses, by way of expm1 and log1p.

    sinh x = h + h / (2h + 1), cosh x = H + 1 / (4H), with h = (e^x - 1) / 2 and H = e^x / 2;  tanh x = h / (h + 1)
"""

from functorch_lite.compiler.codegen.llvm.maths import coefficients as table
from functorch_lite.compiler.codegen.llvm.maths import intervals
from functorch_lite.compiler.codegen.llvm.maths.exponential import (
    LN_2,
    exp_of_negative,
    exp_of_reduced,
    half_expm1,
    reduce_by_ln2,
)
from functorch_lite.compiler.codegen.llvm.maths.logarithm import log1p
from functorch_lite.compiler.codegen.llvm.maths.lookup import has_tables, piecewise
from functorch_lite.compiler.codegen.llvm.maths.terms import (
    Term,
    absolute,
    at_most,
    copy_sign,
    fma,
    polynomial,
    scale_by_power,
    select,
    square_root,
)


def sinh(x: Term) -> Term:
    """(e^x - e^-x) / 2: by expm1, for float32 by a polynomial up to 1 and by H - 1 / (4H) beyond."""
    a = absolute(x)
    if not x.is_double:
        z = x * x
        near = fma(x * z, polynomial(table.SINH_F32, z), x)
        half = _half_exp(at_most(a, 90.0))
        return select(a < 1.0, near, copy_sign(half - 0.25 / half, x))
    h = half_expm1(at_most(a, 710.4758600739439))
    y = h + h / (h * 2.0 + 1.0)
    y = select(a > 710.4758600739439, float("inf"), y)
    return copy_sign(select(a < 2.0**-28, a, y), x)


def _half_exp(a):
    """e^a / 2 of a >= 0, without overflow before the result's."""
    r, n = reduce_by_ln2(a)
    return scale_by_power(exp_of_reduced(r), n - 1)


def cosh(x: Term) -> Term:
    """(e^x + e^-x) / 2."""
    half = _half_exp(at_most(absolute(x), 711.0 if x.is_double else 90.0))
    return half + 0.25 / half


def tanh(x: Term) -> Term:
    """tanh(x): for float32 a polynomial of each interval, or up to 5/8 and 1 - 2 / (e^2x + 1) beyond."""
    a = absolute(x)
    if has_tables(x) and not x.is_double:
        return copy_sign(piecewise("tanh", intervals.TANH_INTERVALS_F32, intervals.TANH_STEP_F32, at_most(a, 9.3)), x)
    if x.is_double:
        h = half_expm1(at_most(a, 22.0) * 2.0)
        return copy_sign(select(a < 2.0**-28, a, h / (h + 1.0)), x)
    z = x * x
    near = fma(x * z, polynomial(table.TANH_F32, z), x)
    power = exp_of_negative(at_most(a, 10.0) * 2.0)
    return copy_sign(select(a < 0.625, near, 1.0 - 2.0 / (power + 1.0)), x)


def _near_or(x, coefficients, far):
    """x + x^3 P(x^2) up to 1/2 and `far`, with the sign of x, beyond."""
    z = x * x
    return copy_sign(select(absolute(x) < 0.5, fma(x * z, polynomial(coefficients, z), x), far), x)


def asinh(x: Term) -> Term:
    """log(x + sqrt(x^2 + 1)) as log1p(a + a^2 / (1 + sqrt(a^2 + 1)))."""
    a = absolute(x)
    large = a > (2.0**60 if x.is_double else 2.0**30)
    square = a * a
    y = log1p(select(large, a, a + square / (1.0 + square_root(square + 1.0))))
    y = select(large, y + LN_2, y)
    return copy_sign(y, x) if x.is_double else _near_or(x, table.ASINH_F32, y)


def acosh(x: Term) -> Term:
    """log(x + sqrt(x^2 - 1)) as log1p(t + sqrt(2t + t^2)) with t = x - 1, of a float64; NaN below 1."""
    large = x > 2.0**60
    t = x - 1.0
    y = log1p(select(large, x, t + square_root(t * 2.0 + t * t)))
    return select(x < 1.0, float("nan"), select(large, y + LN_2, y))


def atanh(x: Term) -> Term:
    """log((1 + x) / (1 - x)) / 2 as log1p(2a / (1 - a)) / 2; NaN beyond 1."""
    a = absolute(x)
    y = log1p(a * 2.0 / (1.0 - a)) * 0.5
    return copy_sign(y, x) if x.is_double else _near_or(x, table.ATANH_F32, y)
