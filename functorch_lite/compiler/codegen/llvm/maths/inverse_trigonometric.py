# SPDX-License-Identifier: MIT
"""asin, acos, atan, atan2.

    atan t = t + t^3 P(t^2) for |t| <= tan(pi/8); beyond, pi/4 + atan((t - 1)/(t + 1)) and pi/2 - atan(1/t)
    asin t = t + t^3 P(t^2) for |t| <= 1/2;       beyond, pi/2 - 2 asin(sqrt((1 - t)/2))
"""

from functorch_lite.compiler.codegen.llvm.maths import coefficients as table
from functorch_lite.compiler.codegen.llvm.maths.terms import (
    Term,
    absolute,
    copy_sign,
    fma,
    negative_bit,
    polynomial,
    rarely,
    select,
    square_root,
)

TAN_PI_8 = 0.41421356237309503
TAN_3PI_8 = 2.414213562373095
INFINITY = float("inf")


def _angle(y, x):
    """(high, low) of the angle in [0, pi/2] of the point (x, y), x and y >= 0, not both 0, x + y finite."""
    middle, steep = y > x * TAN_PI_8, y > x * TAN_3PI_8
    top = select(steep, -x, select(middle, y - x, y))
    bottom = select(steep, y, select(middle, y + x, x))
    quarter, half = (table.QUARTER_PI_F64, table.PI_F64) if x.is_double else (table.QUARTER_PI_F32, table.PI_F32)
    base, base_low = (
        select(steep, x.constant(half[i] / 2), select(middle, x.constant(quarter[i]), 0.0)) for i in (0, 1)
    )
    t = top / bottom
    z = t * t
    p = polynomial(table.ATAN_F64 if x.is_double else table.ATAN_F32, z)
    return base, fma(t * z, p, base_low) + t


def atan(x: Term) -> Term:
    """The angle in [-pi/2, pi/2] whose tangent is x."""
    a = absolute(x)
    base, rest = _angle(a, x.constant(1.0))
    return copy_sign(base + rest, x)


def atan2(y: Term, x: Term) -> Term:
    """The angle of the point (x, y), with C's signs and infinities."""
    b, a = absolute(y), absolute(x)
    high = 2.0**1000 if x.is_double else 2.0**120
    rare = ~((a < high) & (b < high) & (a + b > 0.0))
    b, a = rarely(rare, (b, a), lambda: _tame(b, a, high))
    base, rest = _angle(b, a)
    pi, pi_low = table.PI_F64 if x.is_double else table.PI_F32
    obtuse = (pi - base) - (rest - pi_low)
    return copy_sign(select(negative_bit(x), obtuse, base + rest), y)


def _tame(y, x, high):
    """The point (x, y) moved along its ray to where nothing overflows; (0, 0) becomes (1, 0)."""
    far = (y.equals(INFINITY) | x.equals(INFINITY)) & ~y.unordered(x)
    shrink = select((y >= high) | (x >= high), y.constant(0.25), 1.0)
    origin = y.equals(0.0) & x.equals(0.0)
    tame_y = select(far, select(y.equals(INFINITY), y.constant(1.0), 0.0), y * shrink)
    tame_x = select(far, select(x.equals(INFINITY), x.constant(1.0), 0.0), x * shrink)
    return tame_y, select(origin, 1.0, tame_x)


def _arcsine_parts(x):
    """(t, t^3 P(t^2)) of asin t, t = |x| up to 1/2 and sqrt((1 - |x|) / 2) beyond, and whether it is beyond."""
    a = absolute(x)
    beyond = a > 0.5
    z = select(beyond, (1.0 - a) * 0.5, a * a)
    t = select(beyond, square_root(z), a)
    return t, t * z * polynomial(table.ASIN_F64 if x.is_double else table.ASIN_F32, z), beyond


def asin(x: Term) -> Term:
    """The angle in [-pi/2, pi/2] whose sine is x; NaN beyond 1."""
    t, rest, beyond = _arcsine_parts(x)
    pi, pi_low = table.PI_F64 if x.is_double else table.PI_F32
    far = pi / 2 - (2.0 * t - (pi_low / 2 - 2.0 * rest))
    return copy_sign(select(beyond, far, t + rest), x)


def acos(x: Term) -> Term:
    """The angle in [0, pi] whose cosine is x; NaN beyond 1."""
    t, rest, beyond = _arcsine_parts(x)
    pi, pi_low = table.PI_F64 if x.is_double else table.PI_F32
    near = pi / 2 - (copy_sign(t, x) - (pi_low / 2 - copy_sign(rest, x)))
    twice = 2.0 * (t + rest)
    return select(beyond, select(x < 0.0, pi - (2.0 * t - (pi_low - 2.0 * rest)), twice), near)
