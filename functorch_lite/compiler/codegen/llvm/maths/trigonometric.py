# SPDX-License-Identifier: MIT
"""sin, cos, tan.

    x = q pi/2 + r, |r| <= pi/4: sin r = r + r^3 P(r^2), cos r = 1 - r^2/2 + r^4 Q(r^2), chosen and signed by q mod 4

q pi/2 is taken off in parts (Cody and Waite); beyond the range of that the C library computes those lanes.
"""

from functorch_lite.compiler.codegen.llvm.maths import coefficients as table
from functorch_lite.compiler.codegen.llvm.maths.terms import (
    Term,
    absolute,
    exact_sum,
    fma,
    library_call,
    nearest_integer,
    polynomial,
    rarely,
    select,
)

TWO_OVER_PI = 0.6366197723675814
REDUCIBLE = {"f32": 1.0e5, "f64": 2.0**19}


def _reduced(x):
    """(r, q) of x = q pi/2 + r."""
    parts = table.HALF_PI_F64 if x.is_double else table.HALF_PI_F32
    if not x.emitter.has_fma:
        parts = table.HALF_PI_SHORT_F64
    n, q = nearest_integer(fma(x, TWO_OVER_PI, x.format.magic))
    r = x
    for part in parts:
        r = fma(n, -part, r)
    return r, q


def _reduced_pair(x):
    """(r, low, q) of x = q pi/2 + r + low, of a float32."""
    first, second, third = table.HALF_PI_F32
    n, q = nearest_integer(fma(x, TWO_OVER_PI, x.format.magic))
    start = fma(n, -first, x)
    r = fma(n, -second, start)
    large = absolute(start) > 2.0**-5  # more than 2 |n second|, so start - r is exact
    low = select(large, fma(n, -second, start - r), 0.0)
    return *exact_sum(r, fma(n, -third, low)), q


def sin_of_reduced(r: Term, z: Term) -> Term:
    """sin(r), z = r^2."""
    return fma(r * z, polynomial(table.SIN_F64 if r.is_double else table.SIN_F32, z), r)


def cos_of_reduced(z: Term) -> Term:
    """cos(r), z = r^2."""
    return fma(z, fma(z, polynomial(table.COS_F64 if z.is_double else table.COS_F32, z), -0.5), 1.0)


def _or_library(name, x, y):
    """`y`, and the library's value in the lanes whose argument is too large."""
    large = ~(absolute(x) < REDUCIBLE[x.kind])
    return rarely(large, (y,), lambda: (select(large, library_call(name, x), y),))[0]


def _sine(x, quarter):
    """sin(x + quarter pi/2) of a reducible argument."""
    r, q = _reduced(x)
    if quarter:
        q = q + quarter
    z = r * r
    y = select((q & 1).equals(0), sin_of_reduced(r, z), cos_of_reduced(z))
    sign = (q & 2) << (62 if x.is_double else 30)
    return (y.bits() ^ sign).as_float()


def sin(x: Term) -> Term:
    """sin(x)."""
    return _or_library("sin", x, select(x.equals(0.0), x, _sine(x, 0)))


def cos(x: Term) -> Term:
    """cos(x)."""
    return _or_library("cos", x, _sine(x, 1))


def tan(x: Term) -> Term:
    """tan(x): float64 by sin / cos, float32 by r + r^3 P(r^2) or minus its inverse."""
    y = _tan_f64(x) if x.is_double else _tan_f32(x)
    return _or_library("tan", x, select(x.equals(0.0), x, y))


def _tan_f64(x):
    r, q = _reduced(x)
    z = r * r
    s, c = sin_of_reduced(r, z), cos_of_reduced(z)
    even = (q & 1).equals(0)
    return select(even, s, -c) / select(even, c, s)


def _tan_f32(x):
    r, low, q = _reduced_pair(x)
    z = r * r
    t, error = exact_sum(r, fma(r * z, polynomial(table.TAN_F32, z), fma(low, z, low)))
    inverse = -1.0 / t
    inverse = fma(inverse, fma(inverse, error, fma(inverse, t, 1.0)), inverse)
    return select((q & 1).equals(0), t, inverse)
