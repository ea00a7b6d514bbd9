# SPDX-License-Identifier: MIT
"""log, log2, log10, log1p.

    x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)

float32: log(1 + f) = f - f^2 / 2 + f^3 P(f). float64, with s = f / (2 + f), z = s^2, R = z Q(z):
log(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + R)).

Where there are tables (lookup.py), log m = log(1 + r) - log c with r = m c - 1, and c near 1 / m from a table; other
bases have tables of their own.

Source: the form for float64 is that of fdlibm (Sun Microsystems, 1993); coefficients and code are our own.
"""

from functorch_lite.compiler.codegen.llvm.maths import coefficients as table
from functorch_lite.compiler.codegen.llvm.maths import intervals
from functorch_lite.compiler.codegen.llvm.maths.lookup import (
    has_tables,
    is_whole,
    look_up,
    whole_mantissa_and_exponent,
)
from functorch_lite.compiler.codegen.llvm.maths.terms import (
    Term,
    absolute,
    exact_sum,
    fma,
    polynomial,
    power_of_two,
    select,
)

SQRT_HALF_BITS = {"f32": 0x3F3504F3, "f64": 0x3FE6A09E667F3BCD}
THREE_QUARTERS_BITS = {"f32": 0x3F400000, "f64": 0x3FE8000000000000}
INFINITY = float("inf")
NAN = float("nan")


def mantissa_and_exponent(x: Term, least_bits: int = 0) -> tuple[Term, Term]:
    """(m, e) with x = m 2^e and m in [sqrt(1/2), sqrt(2)), for normal x > 0; e is an integer.

    least_bits: those of another least m.
    """
    facts, bits = x.format, x.bits()
    exponent = (bits - (least_bits or SQRT_HALF_BITS[x.kind])) >> facts.mantissa
    return (bits - (exponent << facts.mantissa)).as_float(), exponent


def split(x: Term, least_bits: int = 0) -> tuple[Term, Term]:
    """(m, e) for any finite x > 0; e is a float."""
    facts = x.format
    up = facts.mantissa + 2
    small = x < facts.least
    m, e = mantissa_and_exponent(select(small, x * 2.0**up, x), least_bits)
    shift = select(small, x.constant(-float(up)), x.constant(0.0))
    return m, e.convert("sitofp", x.kind) + shift


def _series(f):
    """(f^2 / 2, s (f^2 / 2 + R)): log(1 + f) = f - (first - second)."""
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    return half, s * fma(z, polynomial(table.LOG_F64, z), half)


def log_of_parts(f: Term, e: Term) -> Term:
    """log(1 + f) + e ln 2."""
    high, low = table.LN2_F64 if f.is_double else table.LN2_F32
    if f.is_double:
        half, rest = _series(f)
        return fma(e, high, f - (half - (rest + e * low)))
    z = f * f
    rest = fma(z, -0.5, fma(e, low, polynomial(table.LOG_F32, f) * f * z))
    return fma(e, high, f + rest)


def at_edges(x: Term, y: Term, pole: float = 0.0) -> Term:
    """`y`, and the logarithm's values at its pole (-inf), below it (NaN), at infinity and NaN."""
    y = select(x.equals(INFINITY), x, y)
    y = select(x.equals(pole), -INFINITY, y)
    return select((x < pole) | x.unordered(x), NAN, y)


def log(x: Term) -> Term:
    """The natural logarithm."""
    if has_tables(x):
        return _log_by_table(x)
    m, e = split(x)
    return at_edges(x, log_of_parts(m - 1.0, e))


def _log_by_table(x):
    """log x = e ln 2 - log c + log(1 + r), 3/4 <= m < 3/2; next to 1, c is 1, so that the last term is all there is.

    Where e is infinite the rest is finite, and both parts of ln 2 are positive.
    """
    high, low = table.LN2_F64 if x.is_double else table.LN2_F32
    e, r, start, series = _looked_up(x, "log", *(intervals.LOG_F64 if x.is_double else intervals.LOG_F32))
    rest = fma(r * r, polynomial(series, r), fma(e, low, r))
    y = fma(e, high, start + rest)
    return y if is_whole(x) else at_edges(x, y)


def _looked_up(x, name, inverses, logs, series):
    """(e, r, -log c, the series of log(1 + r)) of x = 2^e (1 + r) / c."""
    if is_whole(x):
        m, e = whole_mantissa_and_exponent(x)
    else:
        m, e = split(x, THREE_QUARTERS_BITS[x.kind])
    index = m.bits() >> (x.format.mantissa - len(inverses).bit_length() + 1)
    inverse, start = (
        look_up(f"{name}_{part}", row, index, x.kind) for part, row in (("inverse", inverses), ("start", logs))
    )
    return e, fma(m, inverse, -1.0), start, series


def _scaled_log_by_table(x, name, tables, scale):
    """The same to another base: the slope of log(1 + r) at 0 has two parts. scale: the logarithm of 2, in two parts."""
    *tables, (slope, rest_of_slope) = tables
    e, r, start, series = _looked_up(x, name, *tables)
    high, low = scale
    rest = r * rest_of_slope
    if low:
        rest = fma(e, low, rest)
    y = fma(e, high, start + fma(r, slope, fma(r * r, polynomial(series, r), rest)))
    return y if is_whole(x) else at_edges(x, y)


def _log_pair(f):
    """log(1 + f) as high + low; the high part of a float64 has 20 bits."""
    if not f.is_double:
        z = f * f
        rest = fma(z, -0.5, polynomial(table.LOG_F32, f) * f * z)
        return exact_sum(f, rest)
    half, rest = _series(f)
    high = ((f - half).bits() & -(1 << 32)).as_float()
    return high, (f - high) - half + rest


def _scaled_log(x, inverse, scale):
    """log(x) / log(base), given 1 / ln(base) and ln(2) / ln(base) in two parts."""
    m, e = split(x)
    high, low = _log_pair(m - 1.0)
    (inverse_high, inverse_low), (scale_high, scale_low) = inverse, scale
    rest = fma(low, inverse_high, (low + high) * inverse_low)
    if scale_low:
        rest = fma(e, scale_low, rest)
    if not x.is_double:
        return at_edges(x, fma(e, scale_high, fma(high, inverse_high, rest)))
    whole, error = exact_sum(e * scale_high, high * inverse_high)
    return at_edges(x, whole + (error + rest))


def log2(x: Term) -> Term:
    """The logarithm to base 2."""
    if has_tables(x):
        return _scaled_log_by_table(x, "log2", intervals.LOG2_F64 if x.is_double else intervals.LOG2_F32, (1.0, 0.0))
    return _scaled_log(x, table.LOG2_E if x.is_double else table.LOG2_E_F32, (1.0, 0.0))


def log10(x: Term) -> Term:
    """The logarithm to base 10."""
    if has_tables(x):
        tables = intervals.LOG10_F64 if x.is_double else intervals.LOG10_F32
        return _scaled_log_by_table(x, "log10", tables, table.LOG10_2 if x.is_double else table.LOG10_2_F32)
    if x.is_double:
        return _scaled_log(x, table.LOG10_E, table.LOG10_2)
    return _scaled_log(x, table.LOG10_E_F32, table.LOG10_2_F32)


def log1p(x: Term) -> Term:
    """log(1 + x): with 1 + x = 2^e m, m - 1 = x 2^-e + (2^-e - 1) has one rounding."""
    large, tiny = (2.0**60, 2.0**-54) if x.is_double else (2.0**30, 2.0**-25)
    m, exponent = mantissa_and_exponent(x + 1.0)
    scale = power_of_two(0 - exponent, x.kind)
    f = select(x > large, m - 1.0, fma(x, scale, scale - 1.0))
    y = at_edges(x, log_of_parts(f, exponent.convert("sitofp", x.kind)), -1.0)
    return select(absolute(x) < tiny, x, y)


def log_or_zero(x: Term) -> Term:
    """log(x), and 0 where x is 0."""
    return select(x.equals(0.0), 0.0, log(x))


def xlogy(x: Term, y: Term) -> Term:
    """x log(y), and 0 where x is 0 and y is not NaN."""
    return select(x.equals(0.0) & ~y.unordered(y), 0.0, x * log(y))


def xlog1py(x: Term, y: Term) -> Term:
    """x log(1 + y), and 0 where x is 0 and y is not NaN."""
    return select(x.equals(0.0) & ~y.unordered(y), 0.0, x * log1p(y))
