# SPDX-License-Identifier: MIT
"""erf, erfc, and the inverse error function of the normal samples.

    erf x = x + x P(x^2) up to 1;  erfc a = e^(-a^2) S(q) / (1 + 2a),  q = (a - 4) / (a + 4), for all a >= 0

Where there are tables (lookup.py), erf, and e^(a^2) erfc a of float32, are polynomials of intervals.

Source: the transformed variable: M. M. Shepherd, J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2)
erfc x in 0 <= x < infinity", Mathematics of Computation 36 (1981). Coefficients and code are our own.
"""

import math
from collections.abc import Sequence

import numpy as np

from functorch_lite.backends import inverse_erf
from functorch_lite.compiler.codegen.llvm.maths import coefficients as table
from functorch_lite.compiler.codegen.llvm.maths import intervals
from functorch_lite.compiler.codegen.llvm.maths.exponential import (
    exp,
    exp_of_negative,
    exp_of_reduced,
    exp_parts,
    reduce_by_ln2,
    scaled_by_parts,
)
from functorch_lite.compiler.codegen.llvm.maths.logarithm import INFINITY, log
from functorch_lite.compiler.codegen.llvm.maths.lookup import has_tables, piecewise, piecewise_in_parts
from functorch_lite.compiler.codegen.llvm.maths.terms import (
    Operand,
    Term,
    absolute,
    at_most,
    copy_sign,
    exact_product,
    fma,
    polynomial,
    rarely,
    scale_by_power,
    select,
    square_root,
)


def _erfc_of_positive(a):
    """erfc(a) of a float64 a >= 0."""
    a = at_most(a, 28.0)
    square, missing = exact_product(a, a)
    r, n = reduce_by_ln2(-square)
    scaled = polynomial(table.ERFC_F64, (a - 4.0) / (a + 4.0)) / fma(a, 2.0, 1.0)
    return scale_by_power(exp_of_reduced(r - missing) * scaled, n)


def erf(x: Term) -> Term:
    """The error function: a polynomial of each interval where there are tables (lookup.py).

    Else the series up to 1, beyond it 1 - erfc (float32: erfc a = exp(-Q(a))).
    """
    a = absolute(x)
    if has_tables(x):
        return copy_sign(_erf_by_intervals(a), x)
    z = x * x
    near = fma(x, polynomial(table.ERF_F64 if x.is_double else table.ERF_F32, z), x)
    if x.is_double:
        rest = _erfc_of_positive(a)
    else:
        t = at_most(a, 4.0)
        rest = exp_of_negative(-(t + polynomial(table.ERFC_F32, t)))
    return select(a < 1.0, near, copy_sign(1.0 - rest, x))


def _erf_by_intervals(a):
    if a.is_double:
        return piecewise("erf", intervals.ERF_INTERVALS_F64, intervals.ERF_STEP_F64, at_most(a, 6.0))
    parts = intervals.ERF_INTERVALS_F32, intervals.ERF_STEP_F32
    return piecewise("erf", *parts, at_most(a, 4.1), intervals.ERF_REST_OF_SLOPE_F32)


def _erfc_by_intervals(a):
    """erfc(a) = (e^(a^2) erfc a) e^(-a^2) of a float32 a >= 0; what is rounded on the way is added at the end."""
    a = at_most(a, 10.25)
    parts = intervals.ERFCX_INTERVALS_F32, intervals.ERFCX_RESTS_F32, intervals.ERFCX_STEP_F32
    first, second = piecewise_in_parts("erfcx", *parts, a)
    square, missing = exact_product(a, a)
    root, more, n = exp_parts(-square, missing, closely=True)
    product, rest = exact_product(root, first)
    rest = fma(root, second, rest)
    return scaled_by_parts(product + fma(product + rest, more, rest), n)


def erfc(x: Term) -> Term:
    """1 - erf(x) without cancellation; of a float32 only where there are tables."""
    a = absolute(x)
    if not x.is_double:
        rest = _erfc_by_intervals(a)
        return select(x < 0.0, 2.0 - rest, rest)
    near = fma(x, polynomial(table.ERF_F64, x * x), x)
    rest = _erfc_of_positive(a)
    return select(a < 0.5, 1.0 - near, select(x < 0.0, 2.0 - rest, rest))


# --- erfinv: x P(w), w = -log(1 - x^2), in which little is lost; with P of sqrt(w) next to -1 and 1 -------------------
def erfinv(x: Term) -> Term:
    """The y with erf(y) = x: by Giles' polynomials in float64, and a step of Newton's next to -1 and 1."""
    a = absolute(x)
    w = -log(fma(-a, a, 1.0) if x.emitter.has_fma else (1.0 - a) * (a + 1.0))
    if x.is_double:
        y, far = _multiple(a, inverse_erf._CENTRE64[::-1], w - 3.125), ~(w < 6.25)
    else:
        y, far = _multiple(a, table.ERFINV_CENTRE_F32, w - 1.0), ~(w < 4.5)
    repair = _far_erfinv64 if x.is_double else _far_erfinv32
    return copy_sign(rarely(far, (y,), lambda: (select(far, repair(a, w), y),))[0], x)


def _multiple(a, coefficients, t):
    """a P(t), with what the last sum of P rounds off."""
    lowest = t.constant(coefficients[0])
    rest = polynomial(coefficients[1:], t)
    factor = fma(rest, t, lowest)
    return fma(factor, a, fma(rest, t, lowest - factor) * a)


def _far_erfinv64(a, w):
    root = square_root(w)
    middle = polynomial(inverse_erf._MIDDLE64[::-1], root - 3.25)
    tail = polynomial(inverse_erf._TAIL64[::-1], root - 5.0)
    y = select(w < 16.0, middle, tail) * a
    slope = exp(y * y) * (0.5 * math.sqrt(math.pi))
    return select(a.equals(1.0), INFINITY, fma(_erfc_of_positive(y) - (1.0 - a), slope, y))


def _far_erfinv32(a, w):
    return select(w.equals(INFINITY), w, _multiple(a, table.ERFINV_TAIL_F32, square_root(w) - 3.0))


# --- erf_inv: the operations of backends.inverse_erf, in its order ---------------------------------------------------
def erf_inv(x: Term) -> Term:
    """The y with erf(y) = x, with the roundings of `backends.inverse_erf`."""
    return _erf_inv64(x) if x.is_double else _erf_inv32(x)


def _fused32(x: Term, y: Operand, z: Operand) -> Term:
    """x y + z of float32 operands, rounded once.

    In `backends.inverse_erf`, and here without the instruction, it is computed in float64 and rounded back: that is two
    roundings, which give the same erf_inv for every one of the 2^32 arguments.
    """
    if x.emitter.has_fma:
        return fma(x, y, z)
    wide_x, wide_y, wide_z = (x.constant(t).convert("fpext", "f64") for t in (x, y, z))
    return (wide_x * wide_y + wide_z).convert("fptrunc", "f32")


def _horner32(coefficients: Sequence[float], x: Term) -> Term:
    total = x.constant(coefficients[0])
    for c in coefficients[1:]:
        total = _fused32(total, x, float(np.float32(c)))
    return total


def _erf_inv32(x):
    w = -_log1p32(-(x * x))
    factor = _horner32(inverse_erf._CENTRE32, w - 2.5)
    far = ~(w < 5.0)
    tail = rarely(far, (factor,), lambda: (_tail32(x, w, far, factor),))[0]
    return tail * x


def _tail32(x, w, far, factor):
    tail = _horner32(inverse_erf._TAIL32, square_root(w) - 3.0)
    return select(absolute(x).equals(1.0), float("inf"), select(far, tail, factor))


def _log1p32(x):
    """log(1 + x) of a float32 x <= 0, NaN below -1."""
    return select(x > -float(inverse_erf._SMALL32), _log1p_small32(x), _log_after_add32(x))


def _log1p_small32(x):
    ratio = _horner32(inverse_erf._NUMERATOR32, x) / _horner32(inverse_erf._DENOMINATOR32, x)
    square = x * x
    return x + _fused32(square, -0.5, x * square * ratio)


def _log_after_add32(x):
    x = x + 1.0
    bits = select(x < 2.0**-126, 2.0**-126, x).bits()
    exponent = (bits >> 23).convert("sitofp", "f32") - 126.0
    mantissa = ((bits & 0x007FFFFF) | 0x3F000000).as_float()
    low = mantissa < float(inverse_erf._SQRT_HALF)
    exponent = exponent - select(low, x.constant(1.0), 0.0)
    z = (mantissa - 1.0) + select(low, mantissa, 0.0)
    square = z * z
    cube = square * z
    a, b, c = (_horner32(inverse_erf._LOG[3 * i : 3 * i + 3], z) for i in range(3))
    y = _fused32(_fused32(a, cube, b), cube, c)
    y = _fused32(y, cube, exponent * float(inverse_erf._LN2_LOW))
    y = _fused32(square, -0.5, z) + y
    y = _fused32(exponent, float(inverse_erf._LN2_HIGH), y)
    return select(x > 0.0, y, select(x.equals(0.0), x.constant(-float("inf")), float("nan")))


def _horner64(x: Term, coefficients: Sequence[float]) -> Term:
    """Each product and each sum rounded; highest power first."""
    total = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        total = total * x + c
    return total


def _erf_inv64(x):
    w = -_log1p64(x * -x)
    factor = _horner64(w - 3.125, inverse_erf._CENTRE64)
    far = ~(w < 6.25)
    return rarely(far, (factor,), lambda: (_tail64(x, w, far, factor),))[0] * x


def _tail64(x, w, far, factor):
    root = square_root(w)
    middle, tail = _horner64(root - 3.25, inverse_erf._MIDDLE64), _horner64(root - 5.0, inverse_erf._TAIL64)
    factor = select(far, select(w < 16.0, middle, tail), factor)
    return select(absolute(x).equals(1.0), float("inf"), factor)


def _log1p64(x):
    """log(1 + x) of a float64 x <= 0."""
    square = x * x
    ratio = _horner64(x, inverse_erf._NUMERATOR64) / _horner64(x, inverse_erf._DENOMINATOR64)
    near = x + (square * -0.5 + x * square * ratio)
    return select(absolute(x) < float(inverse_erf._SMALL64), near, log(x + 1.0))
