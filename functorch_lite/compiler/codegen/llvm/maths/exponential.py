# SPDX-License-Identifier: MIT
"""exp, exp2, expm1 and the logistic function.

    x = n ln 2 + r, |r| <= ln 2 / 2;   exp(x) = 2^n (1 + r + r^2 P(r))

n ln 2 is taken off in two parts, the first of which has so few bits that its product with n is exact. Where there are
tables (lookup.py), n is a multiple of 1 / 16 (float64: of 1 / 8), so that r is as much smaller and P has fewer terms.
"""

from functorch_lite.compiler.codegen.llvm.maths import coefficients as table
from functorch_lite.compiler.codegen.llvm.maths import intervals
from functorch_lite.compiler.codegen.llvm.maths.lookup import has_tables, is_whole, look_up, scale_whole
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
    return _exp(x, closely=False)


def _exp(x, closely):
    top, bottom = (710.0, -746.5) if x.is_double else (89.0, -104.5)
    none = x < bottom
    x = select(none, 0.0, at_most(x, top))
    if has_tables(x):
        return select(none, 0.0, _exp_by_table(x, closely))
    r, n = reduce_by_ln2(x)
    return select(none, 0.0, scale_by_power(exp_of_reduced(r), n))


def _exp_by_table(x, closely):
    """e^x = 2^(n / c) e^r, |r| <= ln 2 / (2c): c roots of two are a table, 16 for float32, 8 for float64.

    closely: with what the rounded roots of float32 lack, so that there is little more than the last rounding.
    """
    root, more, shifted = exp_parts(x, 0.0, closely)
    return scaled_by_parts(fma(root, more, root), shifted)


def exp_parts(x: Term, missing: Term | float, closely: bool) -> tuple[Term, Term, Term]:
    """(y, d, n) with e^(x - missing) = 2^floor(n) y (1 + d), y in [1, 2) and d small; n is for `scaled_by_parts`."""
    high, low = table.LN2_F64 if x.is_double else table.LN2_F32
    roots, series = intervals.EXP_F64 if x.is_double else intervals.EXP_F32
    magic = x.format.magic / len(roots)
    shifted = fma(x, LOG2_E, magic)
    bits = shifted.bits()
    n = shifted - magic
    r = fma(n, -low, fma(n, -high, x))
    root = look_up("root_of_two", roots, bits, x.kind)
    more = r - missing if isinstance(missing, Term) else r
    if closely and not x.is_double:
        more = more + look_up("rest_of_root", intervals.RESTS_OF_ROOTS_F32, bits, x.kind)
    return root, fma(r * r, polynomial(series, r), more), shifted


def scaled_by_parts(y: Term, shifted: Term) -> Term:
    """2^floor(n) y, rounded once, with the third of `exp_parts`."""
    count = len(intervals.EXP_F64[0] if y.is_double else intervals.EXP_F32[0])
    if is_whole(y):
        return scale_whole(y, shifted - y.format.magic / count)
    places = count.bit_length() - 1  # of n behind the point
    magic_bits = y.format.magic_bits - (places << y.format.mantissa)
    return scale_by_power(y, (shifted.bits() - magic_bits) >> places)


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
    t = _exp(-absolute(x), closely=True)
    d = t + 1.0
    top = select(x >= 0.0, 1.0, t)
    if x.is_double:
        return top / d
    missing = t - (d - 1.0)
    inverse = 1.0 / d
    y = top * inverse
    return fma(fma(-y, missing, fma(-y, d, top)), inverse, y)
