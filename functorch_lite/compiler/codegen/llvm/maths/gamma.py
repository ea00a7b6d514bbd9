# SPDX-License-Identifier: MIT
"""lgamma and digamma, of float64 values.

    log Gamma(x) = (x - 1)(x - 2) R(x) on [1, 5/2], moved there by Gamma(x + 1) = x Gamma(x);  Stirling's series from 8
    digamma(x) = (x - x0) R(x) on [1, 2], moved there by digamma(x + 1) = digamma(x) + 1/x;  its series from 10

R is a polynomial, so the zeros keep their relative precision; below 0 both come by reflection, which near the zeros
there keeps the absolute precision only.

Source: M. Abramowitz, I. A. Stegun, "Handbook of mathematical functions", 6.1.15, 6.1.17, 6.1.41, 6.3.5, 6.3.7, 6.3.18.
"""

from functorch_lite.compiler.codegen.llvm.maths import coefficients as table
from functorch_lite.compiler.codegen.llvm.maths.logarithm import log
from functorch_lite.compiler.codegen.llvm.maths.terms import (
    Term,
    absolute,
    copy_sign,
    fma,
    intrinsic,
    polynomial,
    rarely,
    select,
)
from functorch_lite.compiler.codegen.llvm.maths.trigonometric import cos_of_reduced, sin_of_reduced

PI = 3.141592653589793
INFINITY = float("inf")
STIRLING_FROM, DIGAMMA_SERIES_FROM = 8.0, 10.0


def _sin_cos_of_pi(a):
    """(|sin(pi a)|, cos(pi a) with the sign that makes their quotient the cotangent) of a >= 0."""
    part = a - intrinsic("floor", a)
    upper = part > 0.5
    part = select(upper, 1.0 - part, part)
    steep = part > 0.25
    r = select(steep, 0.5 - part, part) * PI
    z = r * r
    s, c = sin_of_reduced(r, z), cos_of_reduced(z)
    sine, cosine = select(steep, c, s), select(steep, s, c)
    return sine, select(upper, -cosine, cosine)


# --- lgamma ----------------------------------------------------------------------------------------------------------
def lgamma(x: Term) -> Term:
    """log |Gamma(x)|; infinite at 0, -1, -2, ..."""
    a = absolute(x)
    y = _lgamma_of_positive(a)
    negative = x < 0.0
    return rarely(negative, (y,), lambda: (select(negative, _lgamma_reflected(a, y), y),))[0]


def _lgamma_of_positive(a):
    below, far = a < 1.0, a >= STIRLING_FROM
    u, product = select(below, a + 1.0, a), a.constant(1.0)
    for _ in range(6):
        over = u >= 2.5
        u = select(over, u - 1.0, u)
        product = select(over, product * u, product)
    log_of = log(select(below | far, a, product))
    factors = select(below, a, u - 1.0) * select(below, a - 1.0, u - 2.0)  # exact differences: a + 1 may round
    core = factors * polynomial(table.LGAMMA_F64, u - 1.75)
    near = core + select(below, -log_of, log_of)
    inverse = 1.0 / a
    series = fma(polynomial(table.STIRLING_F64, inverse * inverse), inverse, table.HALF_LOG_TWO_PI - 0.5)
    return select(far, fma(a - 0.5, log_of - 1.0, series), near)


def _lgamma_reflected(a, y):
    """log(pi / (a |sin(pi a)|)) - lgamma(a); next to 0 the two values are equal."""
    sine, _ = _sin_cos_of_pi(a)
    reflected = log(PI / (a * sine)) - y
    reflected = select(sine.equals(0.0), INFINITY, reflected)
    return select(a < 2.0**-60, y, select(a.equals(INFINITY), -INFINITY, reflected))


# --- digamma ---------------------------------------------------------------------------------------------------------
def digamma(x: Term) -> Term:
    """The derivative of log Gamma: infinite at 0, NaN at -1, -2, ..."""
    a = absolute(x)
    y = _digamma_of_positive(a)
    rare = ~(x > 0.0)
    return rarely(rare, (y,), lambda: (select(x < 0.0, _digamma_reflected(a, y), _digamma_at_zero(x, y)),))[0]


def _digamma_of_positive(a):
    below = a < 1.0
    u = select(below, a + 1.0, a)
    top, bottom = select(below, a.constant(-1.0), 0.0), select(below, a, 1.0)
    for _ in range(8):
        over = u >= 2.0
        u = select(over, u - 1.0, u)
        top, bottom = select(over, fma(top, u, bottom), top), select(over, bottom * u, bottom)
    zero, zero_low = table.DIGAMMA_ZERO
    near = fma(u - zero - zero_low, polynomial(table.DIGAMMA_F64, u - 1.5), top / bottom)
    inverse = 1.0 / a
    square = inverse * inverse
    far = log(a) - fma(polynomial(table.DIGAMMA_TAIL_F64, square), square, inverse * 0.5)
    return select(a >= DIGAMMA_SERIES_FROM, far, near)


def _digamma_reflected(a, y):
    """digamma(a) + 1/a + pi / tan(pi a)."""
    sine, cosine = _sin_cos_of_pi(a)
    reflected = y + (1.0 / a + PI * cosine / sine)
    reflected = select(a < 2.0**-60, 1.0 / a, reflected)
    return select(sine.equals(0.0) | a.equals(INFINITY), float("nan"), reflected)


def _digamma_at_zero(x, y):
    return select(x.equals(0.0), copy_sign(x.constant(INFINITY), -x), y)
