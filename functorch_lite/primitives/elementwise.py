# SPDX-License-Identifier: MIT
"""Element-wise arithmetic: sums, products, quotients, powers, maximum and minimum.

Operands have one shape and one dtype; a constant scalar (rank 0) may go with any shape. A tangent rule multiplies by
`scale`, the product in which zero times anything is zero, so a masked branch never poisons a gradient.
Beside this: `comparison`, `casts`, `rounding`, `complex_parts`, `transcendental`, `special`.
"""

from typing import Any

import numpy as np

from functorch_lite.config import config
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, Stack
from functorch_lite.core.linear import helper, is_linear
from functorch_lite.core.numpy_code import numpy_form
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Literal
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.primitives.broadcast import fit
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import bit_and, eq, ge, gt, le, lt, select, zero_like
from functorch_lite.primitives.declare import (
    BY_KIND,
    check_dtypes,
    check_same,
    derivatives,
    elementwise,
    linear,
    not_linear,
    refuse_both,
    ufunc,
)
from functorch_lite.primitives.rounding import round_to_even


# --- add_any and scale: the sum and product of the linear part -------------------------------------------------------
def _add_values(xp, x, y):
    return Stack(x.element, [a + b for a, b in zip(x, y, strict=True)]) if type(x) is Stack else x + y


add_any_p = elementwise("add_any", _add_values)
numpy_form(add_any_p, broadcasts=True)(lambda x, y: "{0} + {1}")
scale_p = Primitive("scale", Kind.ELEMENTWISE)


@helper("add")
def add_any(x: Any, y: Any) -> Any:
    """The sum of two tangents or cotangents of one type."""
    return bind1(add_any_p, x, y)


jvp_rules.add(add_any_p, (lambda t, out, x, y: t, lambda t, out, x, y: t))
transpose_rules.add(add_any_p, lambda ct, x, y: (ct if is_linear(x) else None, ct if is_linear(y) else None))


def scale(c: Any, t: Any) -> Any:
    """`c * t` in a derivative: zero where either is zero, even if the other is infinite or NaN; dtype of t."""
    if c.dtype != t.dtype:
        c = convert(c, t.dtype)
    return bind1(scale_p if config.strong_zero else mul_p, c, t)


@shape_rules.register(scale_p)
def _(c, t):
    check_dtypes("scale", (c, t))
    return Aval(check_same("scale", (c, t)), t.dtype)


@eval_rules.register(scale_p)
def _(xp, c, t):
    if xp is np and t.dtype.char in "fd":
        return _float_product(c, t)
    return xp.where((c == 0) | (t == 0), xp.zeros((), t.dtype), c * t)


def _float_product(c, t):
    out = c * t
    if _has_nan(out):  # has a zero met an infinity?
        return np.where((c == 0) | (t == 0), np.zeros((), out.dtype), out)
    return out


def _has_nan(x):
    """Whether a float array has NaN, in one cheap pass: its norm is NaN, too."""
    flat = x.ravel("K")
    norm = flat.dot(flat)
    return norm != norm


@numpy_form(scale_p, broadcasts=True)
def _(c, t):
    return _float_product if t.aval.dtype.char in "fd" else None


batch_rules.absent(scale_p, BY_KIND)
jvp_rules.add(scale_p, (lambda t, out, c, x: scale(t, x), lambda t, out, c, x: scale(c, t)))


def _product_transpose(product):
    def rule(ct, c, t):
        if is_linear(c):
            refuse_both("mul", t)
            return fit(product(t, ct), c), None
        return None, fit(product(c, ct), t)

    return rule


transpose_rules.add(scale_p, _product_transpose(lambda c, ct: bind1(scale_p, c, ct)))

# --- arithmetic ------------------------------------------------------------------------------------------------------
neg_p = elementwise("neg", ufunc("negative"), allowed="iufc")
add_p = elementwise("add", ufunc("add"))
sub_p = elementwise("sub", ufunc("subtract"), allowed="iufc")
mul_p = elementwise("mul", ufunc("multiply"))


def _truncating_or_true_divide(xp, x, y):
    if dtypes.dtype_kind(np.result_type(x) if not hasattr(x, "dtype") else x.dtype) in "fc":
        return xp.true_divide(x, y)
    return xp.asarray(_truncated_quotient(xp, x, y))


def _truncated_quotient(xp, x, y):
    quotient = xp.floor_divide(x, y)
    inexact = (xp.remainder(x, y) != 0) & ((x < 0) != (y < 0))
    return (quotient + inexact).astype(x.dtype)


div_p = elementwise("div", _truncating_or_true_divide, allowed="iufc")


@numpy_form(div_p, broadcasts=True)
def _(x, y):
    if x.aval.dtype.char not in "fd":
        return None
    return "np.true_divide({0}, {1})" if x.aval.shape or y.aval.shape else "{0} / {1}"


rem_p = elementwise("rem", ufunc("fmod"), allowed="iuf")
pow_p = elementwise("pow", ufunc("power"), allowed="iufc")
max_p = elementwise("max", ufunc("maximum"), allowed="biuf")
min_p = elementwise("min", ufunc("minimum"), allowed="biuf")


def neg(x: Any) -> Any:
    """-x."""
    return bind1(neg_p, x)


def add(x: Any, y: Any) -> Any:
    """x + y."""
    return bind1(add_p, x, y)


def sub(x: Any, y: Any) -> Any:
    """x - y."""
    return bind1(sub_p, x, y)


def mul(x: Any, y: Any) -> Any:
    """x * y."""
    return bind1(mul_p, x, y)


def div(x: Any, y: Any) -> Any:
    """x / y; integers truncate towards zero."""
    return bind1(div_p, x, y)


def rem(x: Any, y: Any) -> Any:
    """The remainder of truncated division: it has the sign of x."""
    return bind1(rem_p, x, y)


def pow(x: Any, y: Any) -> Any:
    """x to the power y."""
    return bind1(pow_p, x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger of x and y; NaN if either is."""
    return bind1(max_p, x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller of x and y; NaN if either is."""
    return bind1(min_p, x, y)


linear(neg_p, lambda ct, x: neg(ct))
jvp_rules.add(add_p, (lambda t, out, x, y: t, lambda t, out, x, y: t))
transpose_rules.add(
    add_p, lambda ct, x, y: (fit(ct, x) if is_linear(x) else None, fit(ct, y) if is_linear(y) else None)
)
jvp_rules.add(sub_p, (lambda t, out, x, y: t, lambda t, out, x, y: neg(t)))
transpose_rules.add(
    sub_p, lambda ct, x, y: (fit(ct, x) if is_linear(x) else None, neg(fit(ct, y)) if is_linear(y) else None)
)
derivatives(mul_p, lambda t, out, x, y: scale(y, t), lambda t, out, x, y: scale(x, t))
transpose_rules.add(mul_p, _product_transpose(lambda c, ct: scale(c, ct)))


def _div_left(t, out, x, y):  # d(x / y) = dx / y
    return bind1(safe_div_p, t, y) if config.strong_zero else div(t, y)


derivatives(div_p, _div_left, lambda t, out, x, y: neg(scale(div(out, y), t)))  # d(x / y) = -(x / y) / y dy


@transpose_rules.register(div_p)
def _(ct, x, y):
    refuse_both("div", y)
    return fit(div(ct, y), x), None


# --- safe_div: t / c in a derivative, zero where t is zero -----------------------------------------------------------
safe_div_p = Primitive("safe_div", Kind.ELEMENTWISE)
shape_rules.add(safe_div_p, shape_rules[div_p])
batch_rules.absent(safe_div_p, BY_KIND)


@eval_rules.register(safe_div_p)
def _(xp, t, c):
    if xp is not np:
        return xp.where(t == 0, xp.zeros((), t.dtype), t / c)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _float_quotient(t, c) if t.dtype.char in "fd" else np.where(t == 0, np.zeros((), t.dtype), t / c)


def _float_quotient(t, c):
    out = t / c
    return np.where(t == 0, np.zeros((), out.dtype), out) if _has_nan(out) else out


@numpy_form(safe_div_p, broadcasts=True)
def _(t, c):
    if t.aval.dtype.char not in "fd":
        return None
    if type(c) is Literal and not t.aval.shape and not c.aval.shape and np.isfinite(c.value) and c.value != 0:
        return "{0} / {1}"  # zero over this is zero
    return _float_quotient


derivatives(
    safe_div_p,
    lambda t, out, x, y: bind1(safe_div_p, t, y),
    lambda t, out, x, y: neg(scale(bind1(safe_div_p, out, y), t)),
)
transpose_rules.add(safe_div_p, lambda ct, x, y: (fit(bind1(safe_div_p, ct, y), x), None))


# --- pow: x**0 has derivative 0 everywhere, and 0**y in y ------------------------------------------------------------
def _pow_base(t, out, x, y):  # d x^y = y x^(y-1) dx, and 0 where y = 0
    one, zero = y.dtype.type(1), zero_like(y)
    flat = bit_and(eq(x, zero), eq(y, zero))
    power = pow(x, select(flat, one, sub(y, one)))
    return scale(mul(y, power), t)


def _pow_exponent(t, out, x, y):  # d x^y = log(x) x^y dy; 0 where the base is 0 and y >= 0
    from_log = bind1(log_for_pow_p, x)
    return scale(scale(from_log, out), t)


def _log_or_zero(xp, x):
    positive = x != 0
    return xp.where(positive, xp.log(xp.where(positive, x, xp.ones((), x.dtype))), xp.zeros((), x.dtype))


log_for_pow_p = elementwise("log_or_zero", _log_or_zero, allowed="fc")
derivatives(log_for_pow_p, lambda t, out, x: bind1(safe_div_p, t, x))
not_linear(log_for_pow_p, pow_p)
derivatives(pow_p, _pow_base, _pow_exponent)


# --- integer_pow: x**n for a Python integer n ------------------------------------------------------------------------
def _integer_pow(xp, x, *, n):
    if n < 0:
        return xp.reciprocal(_integer_pow(xp, x, n=-n))
    if n == 0:
        return xp.ones_like(x)
    while not n & 1:
        x, n = x * x, n >> 1
    result, n = x, n >> 1
    while n:
        x = x * x
        if n & 1:
            result = result * x
        n >>= 1
    return +result


integer_pow_p = elementwise("integer_pow", _integer_pow, allowed="iufc")


def integer_pow(x: Any, n: int) -> Any:
    """x to the integer power n, by repeated squaring."""
    return bind1(integer_pow_p, x, n=n)


def _integer_pow_jvp(t, out, x, *, n):  # d x^n = n x^(n-1) dx
    if n == 0:
        return None
    return scale(mul(integer_pow(x, n - 1), x.dtype.type(n)), t)


derivatives(integer_pow_p, _integer_pow_jvp)
not_linear(integer_pow_p)


# --- maximum and minimum: ties share the derivative equally ----------------------------------------------------------
def _share(t, out, own, other):
    share = select(eq(own, other), t.dtype.type(0.5), t.dtype.type(1))
    return scale(select(eq(own, out), share, zero_like(t)), t)


derivatives(max_p, lambda t, out, x, y: _share(t, out, x, y), lambda t, out, x, y: _share(t, out, y, x))
derivatives(min_p, lambda t, out, x, y: _share(t, out, x, y), lambda t, out, x, y: _share(t, out, y, x))
not_linear(max_p, min_p, rem_p)
derivatives(rem_p, lambda t, out, x, y: t, lambda t, out, x, y: neg(scale(round_to_even(div(sub(x, out), y)), t)))


# --- clamp: the derivative passes at both bounds ---------------------------------------------------------------------
clamp_p = Primitive("clamp", Kind.ELEMENTWISE)


def clamp(low: Any, x: Any, high: Any) -> Any:
    """`x` limited to [low, high]. Its derivative in x is 1 inside and at both bounds, 0 outside (torch's rule)."""
    return bind1(clamp_p, low, x, high)


@shape_rules.register(clamp_p)
def _(low, x, high):
    return Aval(check_same("clamp", (low, x, high)), check_dtypes("clamp", (low, x, high)))


eval_rules.add(clamp_p, lambda xp, low, x, high: xp.minimum(xp.maximum(x, low), high))
batch_rules.absent(clamp_p, BY_KIND)
not_linear(clamp_p)
derivatives(
    clamp_p,
    lambda t, out, low, x, high: select(bit_and(lt(x, low), lt(low, high)), t, zero_like(t)),
    lambda t, out, low, x, high: select(bit_and(ge(x, low), le(x, high)), t, zero_like(t)),
    lambda t, out, low, x, high: select(gt(x, high), t, zero_like(t)),
)
