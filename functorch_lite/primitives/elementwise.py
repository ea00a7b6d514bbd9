# SPDX-License-Identifier: MIT
"""Element-wise family: arithmetic, comparison, logic, selection and casts. `primitives.transcendental` has the functions.

Operands have one shape and one dtype; a constant scalar (rank 0) may go with any shape. A tangent rule multiplies by
`scale`, the product in which zero times anything is zero, so a masked branch never poisons a gradient.
"""

from typing import Any

import numpy as np

from functorch_lite.config import config
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, Stack, StackAval
from functorch_lite.core.linear import helper, is_linear
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import DTypeError
from functorch_lite.primitives.broadcast import reduce_sum
from functorch_lite.primitives.declare import (
    check_dtypes,
    check_same,
    derivatives,
    linear,
    not_linear,
    zero_derivative,
)

_BY_KIND = "element-wise primitives are batched by their kind: operands are aligned and the primitive applied"


def elementwise(name: str, fun: Any, *, allowed: str = "biufc", out: Any = None) -> Primitive:
    """An element-wise primitive: `fun(xp, *arrays, **params)` evaluates it, `allowed` are the dtype kinds it takes.

    out: gives the output dtype from the operands' dtype; default the same dtype.
    """
    prim = Primitive(name, Kind.ELEMENTWISE)

    def shape_rule(*avals, **params):
        dtype = check_dtypes(name, avals)
        if dtypes.dtype_kind(dtype) not in allowed:
            raise DTypeError(f"{name}: does not take dtype {dtype}.")
        return Aval(check_same(name, avals), out(dtype) if out else dtype)

    shape_rules.add(prim, shape_rule)
    eval_rules.add(prim, fun)
    batch_rules.absent(prim, _BY_KIND)
    return prim


def ufunc(name: str) -> Any:
    """An eval rule that calls the function of that name in numpy or cupy."""
    numpy_fun = getattr(np, name)
    return lambda xp, *args: numpy_fun(*args) if xp is np else getattr(xp, name)(*args)


# --- add_any and scale: the sum and product of the linear part -------------------------------------------------------
def _add_values(xp, x, y):
    return Stack([a + b for a, b in zip(x, y, strict=True)]) if type(x) is Stack else x + y


add_any_p = elementwise("add_any", _add_values)
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
    out = c * t
    if xp is np and out.dtype.char in "fd":
        if not np.isnan(np.vdot(out, out)):  # no NaN anywhere, so no zero met an infinity: one cheap pass
            return out
    return xp.where((c == 0) | (t == 0), xp.zeros((), out.dtype), out)


batch_rules.absent(scale_p, _BY_KIND)
jvp_rules.add(scale_p, (lambda t, out, c, x: scale(t, x), lambda t, out, c, x: scale(c, t)))


def _fit(ct, x):
    """A cotangent for an operand that may be a rank-0 scalar against the output's shape."""
    return ct if ct.shape == x.shape else reduce_sum(ct, tuple(range(len(ct.shape))))


def _product_transpose(product):
    def rule(ct, c, t):
        if is_linear(c):
            return _fit(product(t, ct), c), None
        return None, _fit(product(c, ct), t)

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
rem_p = elementwise("rem", ufunc("fmod"), allowed="iuf")
pow_p = elementwise("pow", ufunc("power"), allowed="iufc")
max_p = elementwise("max", ufunc("maximum"), allowed="biuf")
min_p = elementwise("min", ufunc("minimum"), allowed="biuf")
nextafter_p = elementwise("nextafter", ufunc("nextafter"), allowed="f")


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


def nextafter(x: Any, y: Any) -> Any:
    """The next floating-point number after x towards y."""
    return bind1(nextafter_p, x, y)


linear(neg_p, lambda ct, x: neg(ct))
jvp_rules.add(add_p, (lambda t, out, x, y: t, lambda t, out, x, y: t))
transpose_rules.add(
    add_p, lambda ct, x, y: (_fit(ct, x) if is_linear(x) else None, _fit(ct, y) if is_linear(y) else None)
)
jvp_rules.add(sub_p, (lambda t, out, x, y: t, lambda t, out, x, y: neg(t)))
transpose_rules.add(
    sub_p, lambda ct, x, y: (_fit(ct, x) if is_linear(x) else None, neg(_fit(ct, y)) if is_linear(y) else None)
)
derivatives(mul_p, lambda t, out, x, y: scale(y, t), lambda t, out, x, y: scale(x, t))
transpose_rules.add(mul_p, _product_transpose(lambda c, ct: scale(c, ct)))


def _div_left(t, out, x, y):  # d(x / y) = dx / y
    return bind1(safe_div_p, t, y) if config.strong_zero else div(t, y)


derivatives(div_p, _div_left, lambda t, out, x, y: neg(scale(div(out, y), t)))  # d(x / y) = -(x / y) / y dy
transpose_rules.add(div_p, lambda ct, x, y: (_fit(div(ct, y), x), None))

# --- safe_div: t / c in a derivative, zero where t is zero -----------------------------------------------------------
safe_div_p = Primitive("safe_div", Kind.ELEMENTWISE)
shape_rules.add(safe_div_p, shape_rules[div_p])
batch_rules.absent(safe_div_p, _BY_KIND)


@eval_rules.register(safe_div_p)
def _(xp, t, c):
    out = t / c
    if xp is np and out.dtype.char in "fd" and not np.isnan(np.vdot(out, out)):
        return out
    return xp.where(t == 0, xp.zeros((), out.dtype), out)


derivatives(
    safe_div_p,
    lambda t, out, x, y: bind1(safe_div_p, t, y),
    lambda t, out, x, y: neg(scale(bind1(safe_div_p, out, y), t)),
)
transpose_rules.add(safe_div_p, lambda ct, x, y: (_fit(bind1(safe_div_p, ct, y), x), None))


# --- pow: x**0 has derivative 0 everywhere, and 0**y in y ------------------------------------------------------------
def _pow_base(t, out, x, y):  # d x^y = y x^(y-1) dx, and 0 where y = 0
    one = np.ones((), y.dtype)[()]
    zero = np.zeros((), y.dtype)[()]
    power = pow(x, select(eq(y, zero), one if not y.shape else y * 0 + one, y - one))
    return scale(scale(y, power), t)


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
    result = None
    while n:
        if n & 1:
            result = x if result is None else result * x
        n >>= 1
        x = x * x if n else x
    return +result


integer_pow_p = elementwise("integer_pow", _integer_pow, allowed="iufc")


def integer_pow(x: Any, n: int) -> Any:
    """x to the integer power n, by repeated squaring."""
    return bind1(integer_pow_p, x, n=n)


def _integer_pow_jvp(t, out, x, *, n):  # d x^n = n x^(n-1) dx
    if n == 0:
        return None
    return scale(integer_pow(x, n - 1) * x.dtype.type(n), t)


derivatives(integer_pow_p, _integer_pow_jvp)
not_linear(integer_pow_p)


# --- maximum and minimum: ties share the derivative equally ----------------------------------------------------------
def _share(t, out, own, other):
    half = select_scalar(eq(own, other), 0.5, 1.0, t.dtype)
    return scale(select(eq(own, out), half, zero_like(half)), t)


derivatives(max_p, lambda t, out, x, y: _share(t, out, x, y), lambda t, out, x, y: _share(t, out, y, x))
derivatives(min_p, lambda t, out, x, y: _share(t, out, x, y), lambda t, out, x, y: _share(t, out, y, x))
not_linear(max_p, min_p, rem_p)
derivatives(rem_p, lambda t, out, x, y: t, lambda t, out, x, y: neg(scale(round_towards_zero(div(x, y)), t)))
zero_derivative(nextafter_p)


# --- comparison ------------------------------------------------------------------------------------------------------
def _boolean(dtype):
    return np.dtype(bool)


eq_p = elementwise("eq", ufunc("equal"), out=_boolean)
ne_p = elementwise("ne", ufunc("not_equal"), out=_boolean)
lt_p = elementwise("lt", ufunc("less"), allowed="biuf", out=_boolean)
le_p = elementwise("le", ufunc("less_equal"), allowed="biuf", out=_boolean)
gt_p = elementwise("gt", ufunc("greater"), allowed="biuf", out=_boolean)
ge_p = elementwise("ge", ufunc("greater_equal"), allowed="biuf", out=_boolean)
is_finite_p = elementwise("is_finite", ufunc("isfinite"), allowed="fc", out=_boolean)
for _prim in (eq_p, ne_p, lt_p, le_p, gt_p, ge_p, is_finite_p):
    zero_derivative(_prim)


def eq(x: Any, y: Any) -> Any:
    """x == y."""
    return bind1(eq_p, x, y)


def ne(x: Any, y: Any) -> Any:
    """x != y."""
    return bind1(ne_p, x, y)


def lt(x: Any, y: Any) -> Any:
    """x < y."""
    return bind1(lt_p, x, y)


def le(x: Any, y: Any) -> Any:
    """x <= y."""
    return bind1(le_p, x, y)


def gt(x: Any, y: Any) -> Any:
    """x > y."""
    return bind1(gt_p, x, y)


def ge(x: Any, y: Any) -> Any:
    """x >= y."""
    return bind1(ge_p, x, y)


def is_finite(x: Any) -> Any:
    """Whether x is neither infinite nor NaN."""
    return bind1(is_finite_p, x)


# --- select: element-wise choice -------------------------------------------------------------------------------------
select_p = Primitive("select", Kind.ELEMENTWISE)


def select(pred: Any, on_true: Any, on_false: Any) -> Any:
    """`on_true` where the boolean `pred` holds, else `on_false`. Linear in the two choices."""
    return bind1(select_p, pred, on_true, on_false)


def select_scalar(pred: Any, on_true: float, on_false: float, dtype: np.dtype) -> Any:
    """`select` between two constants of `dtype`, with the shape of `pred`."""
    base = convert(pred, dtype)
    return base * dtype.type(on_true - on_false) + dtype.type(on_false)


def zero_like(x: Any) -> Any:
    """A rank-0 zero of the dtype of `x`: goes with any shape."""
    return x.dtype.type(0)


@shape_rules.register(select_p)
def _(pred, on_true, on_false):
    if pred.dtype != np.dtype(bool):
        raise DTypeError(f"select: the predicate must be boolean, got {pred.dtype}.")
    dtype = check_dtypes("select", (on_true, on_false))
    return Aval(check_same("select", (pred, on_true, on_false)), dtype)


eval_rules.add(select_p, lambda xp, pred, on_true, on_false: xp.where(pred, on_true, on_false))
batch_rules.absent(select_p, _BY_KIND)
jvp_rules.add(
    select_p,
    (
        None,
        lambda t, out, pred, x, y: select(pred, t, zero_like(t)),
        lambda t, out, pred, x, y: select(pred, zero_like(t), t),
    ),
)


@transpose_rules.register(select_p)
def _(ct, pred, on_true, on_false):
    left = _fit(select(pred, ct, zero_like(ct)), on_true) if is_linear(on_true) else None
    right = _fit(select(pred, zero_like(ct), ct), on_false) if is_linear(on_false) else None
    return None, left, right


# --- logic and bits --------------------------------------------------------------------------------------------------
not_p = elementwise("not", ufunc("invert"), allowed="biu")
and_p = elementwise("and", ufunc("bitwise_and"), allowed="biu")
or_p = elementwise("or", ufunc("bitwise_or"), allowed="biu")
xor_p = elementwise("xor", ufunc("bitwise_xor"), allowed="biu")
shift_left_p = elementwise("shift_left", ufunc("left_shift"), allowed="iu")
shift_right_p = elementwise("shift_right", ufunc("right_shift"), allowed="iu")
population_count_p = elementwise(
    "population_count", lambda xp, x: xp.bitwise_count(x).astype(x.dtype), allowed="iu"
)
for _prim in (not_p, and_p, or_p, xor_p, shift_left_p, shift_right_p, population_count_p):
    zero_derivative(_prim)


def bit_not(x: Any) -> Any:
    """Bitwise (boolean: logical) not."""
    return bind1(not_p, x)


def bit_and(x: Any, y: Any) -> Any:
    """Bitwise (boolean: logical) and."""
    return bind1(and_p, x, y)


def bit_or(x: Any, y: Any) -> Any:
    """Bitwise (boolean: logical) or."""
    return bind1(or_p, x, y)


def bit_xor(x: Any, y: Any) -> Any:
    """Bitwise (boolean: logical) exclusive or."""
    return bind1(xor_p, x, y)


def shift_left(x: Any, y: Any) -> Any:
    """x << y."""
    return bind1(shift_left_p, x, y)


def shift_right(x: Any, y: Any) -> Any:
    """x >> y: arithmetic for signed, logical for unsigned integers."""
    return bind1(shift_right_p, x, y)


def population_count(x: Any) -> Any:
    """The number of bits set; for negative x, of its absolute value, as in NumPy."""
    return bind1(population_count_p, x)


# --- abs, sign and rounding: derivative 0 or the middle at a kink ----------------------------------------------------
sign_p = elementwise("sign", ufunc("sign"), allowed="iufc")
abs_p = elementwise("abs", ufunc("absolute"), allowed="iufc", out=dtypes.real_dtype)
floor_p = elementwise("floor", ufunc("floor"), allowed="f")
ceil_p = elementwise("ceil", ufunc("ceil"), allowed="f")
round_p = elementwise("round", ufunc("rint"), allowed="f")
trunc_p = elementwise("trunc", ufunc("trunc"), allowed="f")
for _prim in (floor_p, ceil_p, round_p, trunc_p):
    zero_derivative(_prim)


def sign(x: Any) -> Any:
    """-1, 0 or 1; for complex x, x / |x| and 0 at 0."""
    return bind1(sign_p, x)


def absolute(x: Any) -> Any:
    """|x|; real for complex x. Its derivative at 0 is 0."""
    return bind1(abs_p, x)


def floor(x: Any) -> Any:
    """The largest integer not above x."""
    return bind1(floor_p, x)


def ceil(x: Any) -> Any:
    """The smallest integer not below x."""
    return bind1(ceil_p, x)


def round_to_even(x: Any) -> Any:
    """The nearest integer; halves go to the even one."""
    return bind1(round_p, x)


def trunc(x: Any) -> Any:
    """The integer part: rounds towards zero."""
    return bind1(trunc_p, x)


def round_towards_zero(x: Any) -> Any:
    """`trunc` for floating-point x, x itself for integers."""
    return trunc(x) if dtypes.is_inexact(x.dtype) else x


def _abs_jvp(t, out, x):
    if not dtypes.is_complex(x.dtype):
        return scale(sign(x), t)
    unit = sign(x)  # d|z| = Re(conj(z) / |z| dz)
    return scale(real(unit), real(t)) + scale(imag(unit), imag(t))


def _sign_jvp(t, out, x):
    if not dtypes.is_complex(x.dtype):
        return None
    size = absolute(x)  # d(z/|z|) = i u Im(conj(u) dz) / |z|
    turn = imag(scale(conj(out), t))
    zero = zero_like(turn)
    return scale(out, make_complex(zero if not turn.shape else turn * 0, bind1(safe_div_p, turn, size)))


derivatives(abs_p, _abs_jvp)
derivatives(sign_p, _sign_jvp)
not_linear(abs_p, sign_p)

# --- casts and complex parts -----------------------------------------------------------------------------------------
convert_p = Primitive("convert", Kind.ELEMENTWISE)
bitcast_p = Primitive("bitcast", Kind.ELEMENTWISE)


def convert(x: Any, dtype: Any) -> Any:
    """`x` with its elements converted to `dtype`; complex to real keeps the real part."""
    return bind1(convert_p, x, dtype=np.dtype(dtype))


def bitcast(x: Any, dtype: Any) -> Any:
    """The bits of `x` read as `dtype`, which has the same item size."""
    return bind1(bitcast_p, x, dtype=np.dtype(dtype))


shape_rules.add(convert_p, lambda x, *, dtype: Aval(x.shape, dtype) if not isinstance(x, StackAval) else x)
batch_rules.absent(convert_p, _BY_KIND)


@eval_rules.register(convert_p)
def _(xp, x, *, dtype):
    if not hasattr(x, "astype"):
        return dtype.type(x)
    if x.dtype.kind == "c" and dtype.kind not in "cb":
        x = x.real
    return x.astype(dtype)


@jvp_rules.register(convert_p)
def _(primals, tangents, *, dtype):
    out = convert(primals[0], dtype)
    return out, convert(tangents[0], dtype) if dtypes.is_inexact(dtype) else None


transpose_rules.add(convert_p, lambda ct, x, *, dtype: (convert(ct, x.dtype),))


@shape_rules.register(bitcast_p)
def _(x, *, dtype):
    if x.dtype.itemsize != dtype.itemsize:
        raise DTypeError(f"bitcast: {x.dtype} and {dtype} have different item sizes.")
    return Aval(x.shape, dtype)


eval_rules.add(bitcast_p, lambda xp, x, *, dtype: x.view(dtype))
batch_rules.absent(bitcast_p, _BY_KIND)
zero_derivative(bitcast_p)

real_p = elementwise("real", lambda xp, x: xp.real(x).copy(), allowed="c", out=dtypes.real_dtype)
imag_p = elementwise("imag", lambda xp, x: xp.imag(x).copy(), allowed="c", out=dtypes.real_dtype)
conj_p = elementwise("conj", ufunc("conjugate"), allowed="c")
complex_p = elementwise("complex", lambda xp, x, y: x + 1j * y, allowed="f", out=dtypes.complex_dtype)


def real(x: Any) -> Any:
    """The real part of a complex array."""
    return bind1(real_p, x)


def imag(x: Any) -> Any:
    """The imaginary part of a complex array."""
    return bind1(imag_p, x)


def conj(x: Any) -> Any:
    """The complex conjugate."""
    return bind1(conj_p, x)


def make_complex(x: Any, y: Any) -> Any:
    """x + iy."""
    return bind1(complex_p, x, y)


# JAX's convention: transposition does not conjugate, so Re^T ct = ct + 0i and Im^T ct = -i ct (as z -> -i z is Im's row).
linear(real_p, lambda ct, x: convert(ct, x.dtype))
linear(imag_p, lambda ct, x: make_complex(ct * ct.dtype.type(0), neg(ct)))
linear(conj_p, lambda ct, x: conj(ct))
jvp_rules.add(
    complex_p,
    (
        lambda t, out, x, y: convert(t, out.dtype),
        lambda t, out, x, y: make_complex(t * t.dtype.type(0), t),
    ),
)


@transpose_rules.register(complex_p)
def _(ct, x, y):
    return _fit(real(ct), x) if is_linear(x) else None, _fit(neg(imag(ct)), y) if is_linear(y) else None


# --- clamp: the derivative passes at both bounds ---------------------------------------------------------------------
clamp_p = Primitive("clamp", Kind.ELEMENTWISE)


def clamp(low: Any, x: Any, high: Any) -> Any:
    """`x` limited to [low, high]. Its derivative in x is 1 inside and at both bounds, 0 outside (torch's rule)."""
    return bind1(clamp_p, low, x, high)


@shape_rules.register(clamp_p)
def _(low, x, high):
    return Aval(check_same("clamp", (low, x, high)), check_dtypes("clamp", (low, x, high)))


eval_rules.add(clamp_p, lambda xp, low, x, high: xp.minimum(xp.maximum(x, low), high))
batch_rules.absent(clamp_p, _BY_KIND)
not_linear(clamp_p)
derivatives(
    clamp_p,
    lambda t, out, low, x, high: select(bit_and(lt(x, low), lt(low, high)), t, zero_like(t)),
    lambda t, out, low, x, high: select(bit_and(ge(x, low), le(x, high)), t, zero_like(t)),
    lambda t, out, low, x, high: select(gt(x, high), t, zero_like(t)),
)

# --- stop_gradient: the identity, with derivative zero ---------------------------------------------------------------
stop_gradient_p = elementwise("stop_gradient", lambda xp, x: x)
zero_derivative(stop_gradient_p)


def stop_gradient_of(x: Any) -> Any:
    """`x`, held constant in every derivative."""
    return bind1(stop_gradient_p, x)
