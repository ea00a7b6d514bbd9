# SPDX-License-Identifier: MIT
"""exp, exp2, expm1 and the logistic function.

    x = n ln 2 + r, |r| <= ln 2 / 2;   exp(x) = 2^n (1 + r + r^2 P(r))

n ln 2 is taken off in two parts, the first of which has so few bits that its product with n is exact.
"""

from functorch_lite.compiler.codegen.llvm.maths import coefficients as table
from functorch_lite.compiler.codegen.llvm.maths.terms import (
    Term,
    absolute,
    at_least,
    at_most,
    fma,
    nearest_integer,
    polynomial,
    power_of_two,
    scale_by_power,
    select,
)

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453


def reduce_by_ln2(x: Term) -> tuple[Term, Term]:
    """(r, n) with x = n ln 2 + r, n an integer."""
    high, low = table.LN2_F64 if x.is_double else table.LN2_F32
    n, whole = nearest_integer(fma(x, LOG2_E, x.format.magic))
    return fma(n, -low, fma(n, -high, x)), whole


def exp_of_reduced(r: Term) -> Term:
    """exp(r) for |r| <= ln 2 / 2."""
    return fma(r * r, polynomial(table.EXP_F64 if r.is_double else table.EXP_F32, r), r) + 1.0


def expm1_of_reduced(r: Term) -> Term:
    """exp(r) - 1 for |r| <= ln 2 / 2."""
    return fma(r * r, polynomial(table.EXPM1_F64 if r.is_double else table.EXPM1_F32, r), r)


def exp_of_negative(x: Term) -> Term:
    """exp(x) for x <= 0 whose result is a normal number."""
    r, n = reduce_by_ln2(x)
    return exp_of_reduced(r) * power_of_two(n, x.kind)


def exp(x: Term) -> Term:
    """e^x. What is far below all numbers, such as e^-inf, is zero at once: to underflow takes a hundred cycles."""
    top, bottom = (710.0, -746.5) if x.is_double else (89.0, -104.5)
    none = x < bottom
    r, n = reduce_by_ln2(select(none, 0.0, at_most(x, top)))
    return select(none, 0.0, scale_by_power(exp_of_reduced(r), n))


def exp2(x: Term) -> Term:
    """2^x: x less its nearest integer is exact."""
    top, bottom = (1025.0, -1077.0) if x.is_double else (129.0, -152.0)
    x = at_least(at_most(x, top), bottom)
    n, whole = nearest_integer(x + x.format.magic)
    return scale_by_power(exp_of_reduced((x - n) * LN_2), whole)


def half_expm1(x: Term) -> Term:
    """(e^x - 1) / 2 for x up to one ln 2 beyond the overflow of exp: 2^(n-1) (exp(r) - 1) + (2^(n-1) - 1/2)."""
    r, n = reduce_by_ln2(x)
    quarter = power_of_two(n - 2, x.kind)
    return fma(quarter, expm1_of_reduced(r), quarter - 0.25) * 2.0


def expm1(x: Term) -> Term:
    """e^x - 1: 2 (2^(n-1) (exp(r) - 1) + (2^(n-1) - 1/2))."""
    top, bottom, tiny = (710.0, -38.0, 2.0**-54) if x.is_double else (89.0, -18.0, 2.0**-25)
    r, n = reduce_by_ln2(at_least(at_most(x, top), bottom))
    half = power_of_two(n - 1, x.kind)
    y = fma(half, expm1_of_reduced(r), half - 0.5) * 2.0
    return select(absolute(x) < tiny, x, y)


def logistic(x: Term) -> Term:
    """1 / (1 + e^-x), from t = e^-|x| so that nothing overflows; the quotient is corrected by its remainder."""
    t = exp(-absolute(x))
    d = t + 1.0
    top = select(x >= 0.0, 1.0, t)
    if x.is_double:
        return top / d
    missing = t - (d - 1.0)
    inverse = 1.0 / d
    y = top * inverse
    return fma(fma(-y, missing, fma(-y, d, top)), inverse, y)
