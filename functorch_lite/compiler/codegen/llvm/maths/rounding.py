# SPDX-License-Identifier: MIT
"""Rounding to integers, the remainder, the next number, and a fused multiply-add: exact operations."""

from functorch_lite.compiler.codegen.llvm.maths.lookup import inverse_root_estimate, is_whole
from functorch_lite.compiler.codegen.llvm.maths.terms import (
    Term,
    absolute,
    copy_sign,
    exact_product,
    fma,
    intrinsic,
    library_call,
    rarely,
    select,
    square_root,
)

LEAST_BY_STEPS = {"f32": (0x0D800000, 0x7F800000), "f64": (0x0370000000000000, 0x7FF0000000000000)}
"""The bits of 2^-100 and 2^-968, from which on x - sqrt(x)^2 has no bits below all numbers, and those of infinity."""


def sqrt(x: Term) -> Term:
    """The square root, correctly rounded; by steps where AVX-512's instruction takes as long as 12 (24) others."""
    if not is_whole(x) or not x.emitter.roots_by_steps:
        return square_root(x)
    least, infinite = LEAST_BY_STEPS[x.kind]
    half = 1 << (31 if x.kind == "f32" else 63)
    usual = (x.bits() + (half - least)) < infinite - least - half  # least <= x < infinity
    zero = x.equals(0.0)
    root = select(zero, x, _root_by_steps(x))
    return rarely(~(usual | zero), (root,), lambda: (square_root(x),))[0]


def _root_by_steps(x):
    """s = sqrt(x) and h = 1 / (2 s) from 14 bits of h, by Newton's steps together; the last one of s rounds correctly.

    There s is within a unit of sqrt(x), x - s^2 is exact, and the correction errs by less than what is between sqrt(x)
    and the middle of two neighbours, for all x: tests/compiler/test_maths.py looks at those that are nearest to one.
    """
    estimate = inverse_root_estimate(x)
    s, h = x * estimate, estimate * 0.5
    for _ in range(2 if x.is_double else 1):
        e = fma(-s, h, 0.5)
        s, h = fma(s, e, s), fma(h, e, h)
    return fma(fma(-s, s, x), h, s)


def floor(x: Term) -> Term:
    """The largest integer not above x."""
    return intrinsic("floor", x)


def ceil(x: Term) -> Term:
    """The smallest integer not below x."""
    return intrinsic("ceil", x)


def trunc(x: Term) -> Term:
    """The integer part."""
    return intrinsic("trunc", x)


def round_to_even(x: Term) -> Term:
    """The nearest integer; halves go to the even one."""
    return intrinsic("rint", x)


def rem(x: Term, y: Term) -> Term:
    """C's fmod: x - y trunc(x / y), exact. Quotients beyond the mantissa, infinities and y = 0 go to the library.

    The rounded quotient's integer part is that of x / y or one more, so the remainder is off by y at most.
    """
    a, b = absolute(x), absolute(y)
    quotient = intrinsic("trunc", a / b)
    if x.emitter.has_fma:
        r = fma(-quotient, b, a)
    else:
        product, error = exact_product(quotient, b)
        r = (a - product) - error
    r = select(r < 0.0, r + b, r)
    top, most = (2.0**52, 2.0**980) if x.is_double else (2.0**23, 2.0**110)
    hard = ~((quotient < top) & (b < most))
    return rarely(hard, (copy_sign(r, x),), lambda: (select(hard, library_call("fmod", x, y), copy_sign(r, x)),))[0]


def nextafter(x: Term, y: Term) -> Term:
    """The next number of the kind (float16 too) after x towards y, NaN where either is.

    Where they are equal it is y, which tells zeros of two signs apart (C99, 7.12.11.3).
    """
    bits = x.bits()
    outward = (x < y) ^ (bits < 0)
    step = select(outward, bits + 1, bits - 1).as_float()
    least = copy_sign(bits.constant(1).as_float(), y)
    step = select(x.equals(0.0), least, step)
    step = select(x.equals(y), y, step)
    return select(x.unordered(y), x + y, step)


# --- fused_multiply_add: the operations of backends.inverse_erf, in its order ----------------------------------------
def fused_multiply_add(x: Term, y: Term, z: Term) -> Term:
    """x y + z with one rounding: float32 in float64, float64 by error-free transformations (in rare cases two)."""
    if not x.is_double:
        wide = [t.convert("fpext", "f64") for t in (x, y, z)]
        return (wide[0] * wide[1] + wide[2]).convert("fptrunc", "f32")
    product, error = exact_product(x, y)
    total = product + z
    back = total - product
    return total + (error + ((product - (total - back)) + (z - back)))
