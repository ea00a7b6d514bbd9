# SPDX-License-Identifier: MIT
"""x^y, the cube root and the reciprocal square root.

x^y = exp(y log |x|) needs the logarithm to more than the precision of the result: float32 computes in float64 (without
the last bits of it), float64 with pairs of numbers. Signs, zeros, infinities and NaN are set apart in a rare branch.

    log m = 2s + s z (2/3 + z Q(z)),  s = (m - 1) / (m + 1),  z = s^2

Source: cube root: the first guess by exponent division is W. Kahan's, the steps are Halley's and Newton's.
"""

from functorch_lite.compiler.codegen.llvm.maths import coefficients as table
from functorch_lite.compiler.codegen.llvm.maths.logarithm import split
from functorch_lite.compiler.codegen.llvm.maths.terms import (
    Term,
    absolute,
    at_least,
    at_most,
    copy_sign,
    exact_product,
    exact_sum,
    fma,
    intrinsic,
    nearest_integer,
    negative_bit,
    polynomial,
    rarely,
    scale_by_power,
    select,
    square_root,
)

INFINITY = float("inf")
NAN = float("nan")


def pow(x: Term, y: Term) -> Term:
    """x to the power y, with C's signs and special values (1^NaN = NaN^0 = 1)."""
    a = absolute(x)
    size = _power_f64(a, y) if x.is_double else _power_f32(a, y)
    usual = (x > 0.0) & (x < INFINITY) & (absolute(y) < INFINITY)
    return rarely(~usual, (size,), lambda: (_special_power(x, a, y, size),))[0]


def _special_power(x, a, y, size):
    """x^y of any x and y, given `size` = |x|^y for finite non-zero x and finite y."""
    zero, falls, infinite = a.equals(0.0), y < 0.0, a.constant(INFINITY)
    size = select(zero | a.equals(INFINITY), select(zero ^ falls, 0.0, infinite), size)
    size = select(absolute(y).equals(INFINITY), select((a > 1.0) ^ falls, infinite, 0.0), size)
    size = select(a.equals(1.0) & ~y.unordered(y), 1.0, size)
    whole, half = intrinsic("rint", y).equals(y), y * 0.5
    odd = whole & ~intrinsic("rint", half).equals(half)
    size = select(odd & negative_bit(x), -size, size)
    finite = a < INFINITY
    size = select((x < 0.0) & finite & ~whole, NAN, size)
    size = select(x.unordered(y), NAN, size)
    return select(y.equals(0.0) | x.equals(1.0), 1.0, size)


def _power_f32(a, y):
    m, e = split(a)
    f = (m - 1.0).convert("fpext", "f64")
    log2 = fma(f, polynomial(table.LOG2_FOR_POW, f), e.convert("fpext", "f64"))
    t = at_least(at_most(log2 * y.convert("fpext", "f64"), 200.0), -200.0)
    n, whole = nearest_integer(t + t.format.magic)
    mantissa = polynomial(table.EXP2_FOR_POW, t - n)
    return (mantissa.bits() + (whole << 52)).as_float().convert("fptrunc", "f32")


def _log_pair(a):
    """log(a) of a float64 > 0 as high + low, to about 68 bits."""
    m, e = split(a)
    top, bottom = m - 1.0, m + 1.0
    bottom_low = m - (bottom - 1.0)
    inverse = 1.0 / bottom
    s = top * inverse
    product, error = exact_product(s, bottom)
    s_low = ((top - product) - error - s * bottom_low) * inverse
    z, z_low = exact_product(s, s)
    z_low = fma(s * 2.0, s_low, z_low)
    p, p_low = exact_sum(table.TWO_THIRDS[0], fma(z, polynomial(table.LOG_FOR_POW, z), table.TWO_THIRDS[1]))
    q, q_low = exact_product(z, p)
    q_low = fma(z, p_low, fma(z_low, p, q_low))
    u, u_low = exact_product(s, q)
    u_low = fma(s, q_low, fma(s_low, q, u_low))
    high, error = exact_sum(s * 2.0, u)
    low = error + fma(s_low, 2.0, u_low)
    ln2_high, ln2_low = table.LN2_F64
    total, error = exact_sum(e * ln2_high, high)
    return total, error + fma(e, ln2_low, low)


def _power_f64(a, y):
    log_high, log_low = _log_pair(a)
    if not a.emitter.has_fma:  # the exact product by halves overflows; beyond, the result does so anyway
        y = at_least(at_most(y, 2.0**900), -(2.0**900))
    t, t_low = exact_product(y, log_high)
    t_low = fma(y, log_low, t_low)
    within = absolute(t) < 800.0
    t = at_least(at_most(t, 800.0), -800.0)
    t_low = select(within, t_low, 0.0)
    return _exp_of_pair(t, t_low)


def _exp_of_pair(x, x_low):
    """exp(x + x_low) with little more than the last rounding."""
    ln2_high, ln2_low = table.LN2_F64
    n, whole = nearest_integer(fma(x, 1.4426950408889634, x.format.magic))
    start = fma(n, -ln2_high, x)
    r, r_low = exact_sum(start, fma(n, -ln2_low, x_low))
    rest = fma(r * r, polynomial(table.EXP_F64, r), fma(r, r_low, r_low))
    y, error = exact_sum(1.0, r)
    return scale_by_power(y + (error + rest), whole)


def cbrt(x: Term) -> Term:
    """The real cube root: t near the root of a, then t (1 - d)^(-1/3) with d = (a - t^3) / a, twice."""
    a = absolute(x)
    least, up, down = (2.0**-1000, 2.0**54, 2.0**-18) if x.is_double else (2.0**-100, 2.0**24, 2.0**-8)
    small = a < least
    a = select(small, a * up, a)
    inverse = 1.0 / a
    t = _cube_root_guess(a)
    t = t * polynomial(table.CUBE_ROOT, 1.0 - t * t * (t * inverse))
    square, square_low = exact_product(t, t)
    cube, cube_low = exact_product(square, t * 0.25)  # a quarter: no overflow
    quarter = ((a * 0.25 - cube) - fma(square_low, t * 0.25, cube_low)) * inverse
    t = fma(t * quarter, fma(quarter, 32 / 9, 4 / 3), t)
    t = select(small, t * down, t)
    return copy_sign(select((a > 0.0) & (a < INFINITY), t, a), x)


def _cube_root_guess(a):
    """The cube root of a normal number to about 3 %: its bits (the high word of them) divided by 3."""
    if not a.is_double:
        third = (a.bits().convert("sitofp", "f32") * (1 / 3)).convert("fptosi", "i32")
        return (third + 0x2A50E000).as_float()
    third = (((a.bits() >> 32) * 0x55555556) >> 32) + 715094163
    return (third << 32).as_float()


def rsqrt(x: Term) -> Term:
    """1 / sqrt(x)."""
    return 1.0 / square_root(x)
