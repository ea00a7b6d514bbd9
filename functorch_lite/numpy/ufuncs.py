# SPDX-License-Identifier: MIT
"""NumPy's ufuncs on traced arrays: each asks NumPy for the dtype of its loop, then applies primitives.

`bodies` maps a ufunc to its implementation; `apply_ufunc` adds the options of a ufunc call (where=, dtype=). The
functions exported here are NumPy's ufuncs themselves when nothing is traced, and have their methods (`add.reduce`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.core.tracer import Tracer, current_trace
from functorch_lite.errors import ArgumentError, ImmutableError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.dispatch import implement, is_eager_call
from functorch_lite.numpy.promotion import (
    PYTHON_SCALARS,
    broadcast,
    broadcast_shapes,
    broadcast_to,
    cast,
    loop_operands,
    loop_pair,
    operand,
)
from functorch_lite.primitives import transcendental as t
from functorch_lite.transforms.composites import of_any

Body = Callable[..., Any]
bodies: dict[np.ufunc, Body] = {}
_f32, _f64 = np.dtype(np.float32), np.dtype(np.float64)
_bool = np.dtype(bool)


def _file(ufunc: np.ufunc, body: Body) -> Callable[..., Any]:
    implement(ufunc)(body)
    bodies[ufunc] = body

    def function(*args: Any, **kwargs: Any) -> Any:
        trace = current_trace()
        if trace.composites is not None and not kwargs:
            out = of_any(trace, body, args, kwargs)
            if out is not None:
                return out
        if is_eager_call(args, kwargs):
            return ufunc(*args, **kwargs)
        return apply_ufunc(ufunc, args, kwargs) if kwargs else body(*args)

    function.__name__ = function.__qualname__ = ufunc.__name__
    function.__doc__ = f"numpy.{ufunc.__name__}, which also takes traced arrays.\n\n{ufunc.__doc__}"
    for method in ("reduce", "accumulate", "outer"):
        if ufunc.signature is None:
            setattr(function, method, getattr(ufunc, method))
    return function


def unary(ufunc: np.ufunc, fun: Callable[[Any], Any]) -> Callable[..., Any]:
    """File a ufunc of one argument: `fun` takes it in the loop's dtype."""

    def body(x: Any) -> Any:
        if isinstance(x, Tracer) and (x.dtype is _f32 or x.dtype is _f64):
            return fun(x)
        return fun(loop_operands(ufunc, x)[0])

    return _file(ufunc, body)


def binary(ufunc: np.ufunc, fun: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """File a ufunc of two arguments: `fun` takes them in the loop's dtype and of one shape."""

    def body(x: Any, y: Any) -> Any:
        x, y = loop_pair(ufunc, x, y)
        return fun(x, y)

    return _file(ufunc, body)


def composed(ufunc: np.ufunc, fun: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """`binary` for a `fun` of several primitives: its operands have the full shape, scalars too."""

    def body(x: Any, y: Any) -> Any:
        x, y = loop_operands(ufunc, x, y)
        shape = broadcast_shapes(x.shape, y.shape)
        return fun(broadcast_to(x, shape), broadcast_to(y, shape))

    return _file(ufunc, body)


def apply_ufunc(ufunc: np.ufunc, args: Any, kwargs: dict[str, Any]) -> Any:
    """A ufunc call with options: dtype= casts; out= and where= (undefined elsewhere) are refused."""
    out = kwargs.pop("out", None)
    if out is not None and (not isinstance(out, tuple) or any(o is not None for o in out)):
        raise ImmutableError(
            f"{ufunc.__name__}: out= cannot hold a traced result (`x += y` on a NumPy array asks for it). "
            "Write `x = x + y`: it makes a new array."
        )
    where, dtype = kwargs.pop("where", True), kwargs.pop("dtype", None)
    for option in ("casting", "order", "subok", "signature", "sig"):
        kwargs.pop(option, None)
    if kwargs:
        raise ArgumentError(f"{ufunc.__name__}: {', '.join(kwargs)} cannot be used with traced arrays.")
    if where is not True:
        raise ArgumentError(
            f"{ufunc.__name__}: where= leaves the other elements without a value, which a traced array cannot have. "
            f"Write numpy.where(mask, numpy.{ufunc.__name__}(...), other)."
        )
    if dtype is not None:
        args = [cast(operand(a), np.dtype(dtype)) for a in args]
    return bodies[ufunc](*args)


def is_real_integer(x: Any) -> bool:
    """Whether x is of integer or boolean dtype."""
    return x.dtype.kind in "biu"


def constant(x: Any, value: Any) -> Any:
    """`value` as a scalar of the dtype of x."""
    return x.dtype.type(value)


# --- arithmetic ---------------------------------------------------------------------------------------------------
add = binary(np.add, e.add)
subtract = binary(np.subtract, e.sub)
multiply = binary(np.multiply, e.mul)
divide = true_divide = binary(np.divide, e.div)
negative = unary(np.negative, e.neg)
positive = unary(np.positive, lambda x: x)
square = unary(np.square, lambda x: t.square(x) if x.dtype != _bool else x)
reciprocal = unary(np.reciprocal, lambda x: e.div(broadcast_to(constant(x, 1), x.shape), x))
maximum = binary(np.maximum, e.maximum)
minimum = binary(np.minimum, e.minimum)


def _floor_divide_integers(x, y):
    zero = constant(x, 0)
    r = e.rem(x, y)
    off = e.bit_and(e.ne(r, zero), e.ne(e.lt(r, zero), e.lt(y, zero)))
    return e.sub(e.div(x, y), e.convert(off, x.dtype))


def _floor_divide(x, y):
    if is_real_integer(x):
        return _floor_divide_integers(x, y) if x.dtype.kind == "i" else e.div(x, y)
    zero, one = constant(x, 0), constant(x, 1)
    quotient = e.div(x, y)
    r = e.rem(x, y)
    below = e.bit_and(e.ne(r, zero), e.ne(e.lt(r, zero), e.lt(y, zero)))
    exact = e.div(e.sub(x, r), y)  # a whole number but for rounding, so that 1.0 // 0.1 is 9
    exact = e.select(below, e.sub(exact, one), exact)
    whole = e.floor(exact)
    whole = e.select(e.gt(e.sub(exact, whole), constant(x, 0.5)), e.add(whole, one), whole)
    return e.select(e.eq(y, zero), e.stop_gradient_of(quotient), whole)


def _remainder(x, y):
    r = e.rem(x, y)
    if x.dtype.kind in "bu":
        return r
    zero = constant(x, 0)
    off = e.bit_and(e.ne(r, zero), e.ne(e.lt(r, zero), e.lt(y, zero)))
    return e.add(r, e.select(off, y, zero))


floor_divide = composed(np.floor_divide, _floor_divide)
remainder = mod = composed(np.remainder, _remainder)
fmod = binary(np.fmod, e.rem)


def _power(x, y):
    loop = loop_pair(np.power, x, y)
    if type(y) in (int, float):
        if loop[0].dtype.kind in "iu" and y < 0:
            raise ArgumentError(
                "Integers to negative integer powers are not allowed. Convert the base to a float dtype."
            )
        base = loop[0]
        if abs(y) <= 64 and y == int(y):
            return e.integer_pow(base, int(y))
        if y == 0.5:
            return t.sqrt(base)
    elif loop[0].dtype.kind == "i" and not isinstance(y, Tracer) and np.any(np.asarray(y) < 0):
        raise ArgumentError("Integers to negative integer powers are not allowed. Convert the base to a float dtype.")
    return e.pow(*loop)


power = _file(np.power, _power)
float_power = _file(np.float_power, lambda x, y: e.pow(*loop_operands(np.float_power, x, y)))


def _divmod(x, y):
    return floor_divide(x, y), remainder(x, y)


divide_with_remainder = _file(np.divmod, _divmod)


def _hypot(x, y):
    size = e.stop_gradient_of(
        e.maximum(e.absolute(x), e.absolute(y))
    )  # scaled, so that squares neither overflow nor vanish
    usable = e.bit_and(e.is_finite(size), e.ne(size, constant(x, 0)))
    size = e.select(usable, size, constant(x, 1))
    x, y = e.div(x, size), e.div(y, size)
    return e.mul(t.sqrt(e.add(t.square(x), t.square(y))), size)


hypot = composed(np.hypot, _hypot)


def _nan_aware(choose):
    def fun(x, y):
        if is_real_integer(x):
            return choose(x, y)
        return e.select(e.ne(x, x), y, e.select(e.ne(y, y), x, choose(x, y)))

    return fun


fmax = composed(np.fmax, _nan_aware(e.maximum))
fmin = composed(np.fmin, _nan_aware(e.minimum))

# --- exponentials and logarithms ----------------------------------------------------------------------------------
sqrt = unary(np.sqrt, t.sqrt)
cbrt = unary(np.cbrt, t.cbrt)
exp = unary(np.exp, t.exp)
_LN2 = 0.6931471805599453
exp2 = unary(np.exp2, lambda x: t.exp2(x) if x.dtype.kind != "c" else t.exp(e.mul(x, constant(x, _LN2))))
expm1 = unary(np.expm1, t.expm1)
log = unary(np.log, t.log)
log2 = unary(np.log2, t.log2)
log10 = unary(np.log10, t.log10)
log1p = unary(np.log1p, t.log1p)


def _log_add(x, y, power, log_one_plus):
    first = e.ge(x, y)  # log(e^x + e^y) = large + log(1 + e^(small - large)), for either choice where they are equal
    large, small = e.select(first, x, y), e.select(first, y, x)
    finite = e.is_finite(large)
    gap = e.select(finite, e.sub(small, large), broadcast_to(constant(x, 0), x.shape))
    return e.select(finite, e.add(large, log_one_plus(power(gap))), e.maximum(x, y))


def _log2_one_plus(x):
    return e.div(t.log1p(x), constant(x, _LN2))


logaddexp = composed(np.logaddexp, lambda x, y: _log_add(x, y, t.exp, t.log1p))
logaddexp2 = composed(np.logaddexp2, lambda x, y: _log_add(x, y, t.exp2, _log2_one_plus))

# --- trigonometric and hyperbolic ---------------------------------------------------------------------------------
sin = unary(np.sin, t.sin)
cos = unary(np.cos, t.cos)
tan = unary(np.tan, t.tan)
arcsin = asin = unary(np.arcsin, t.asin)
arccos = acos = unary(np.arccos, t.acos)
arctan = atan = unary(np.arctan, t.atan)
arctan2 = atan2 = binary(np.arctan2, t.atan2)
sinh = unary(np.sinh, t.sinh)
cosh = unary(np.cosh, t.cosh)
tanh = unary(np.tanh, t.tanh)
arcsinh = asinh = unary(np.arcsinh, t.asinh)
arccosh = acosh = unary(np.arccosh, t.acosh)
arctanh = atanh = unary(np.arctanh, t.atanh)
_DEGREE = 0.017453292519943295
deg2rad = unary(np.deg2rad, lambda x: e.mul(x, constant(x, _DEGREE)))
rad2deg = unary(np.rad2deg, lambda x: e.mul(x, constant(x, 1 / _DEGREE)))
radians = unary(np.radians, lambda x: e.mul(x, constant(x, _DEGREE)))
degrees = unary(np.degrees, lambda x: e.mul(x, constant(x, 1 / _DEGREE)))

# --- comparison ---------------------------------------------------------------------------------------------------


def _compare(ufunc, fun):
    def body(x, y):
        try:
            x, y = loop_pair(ufunc, x, y)
        except OverflowError:  # a Python integer that the dtype cannot hold compares alike with all that it can
            if type(x) is int:
                return broadcast_to(ufunc(x, 0), y.shape)
            return broadcast_to(ufunc(0, y), x.shape)
        return fun(x, y) if x.dtype == y.dtype else _compare_mixed(fun, x, y)

    return _file(ufunc, body)


_mirrored = {e.eq: e.eq, e.ne: e.ne, e.lt: e.gt, e.le: e.ge, e.gt: e.lt, e.ge: e.le}


def _compare_mixed(fun, x, y):
    """int64 against uint64: a negative number is below every unsigned one, the others compare as unsigned."""
    if x.dtype.kind == "u":
        return _compare_mixed(_mirrored[fun], y, x)
    shape = broadcast_shapes(x.shape, y.shape)
    x, y = broadcast_to(x, shape), broadcast_to(y, shape)
    below = e.lt(x, constant(x, 0))
    found = fun(e.convert(x, y.dtype), y)
    if fun in (e.lt, e.le, e.ne):
        return e.bit_or(below, found)
    return e.bit_and(e.bit_not(below), found)


equal = _compare(np.equal, e.eq)
not_equal = _compare(np.not_equal, e.ne)
less = _compare(np.less, e.lt)
less_equal = _compare(np.less_equal, e.le)
greater = _compare(np.greater, e.gt)
greater_equal = _compare(np.greater_equal, e.ge)

# --- logic and bits -----------------------------------------------------------------------------------------------


def truth(x: Any) -> Any:
    """Whether each element is non-zero."""
    x = operand(x)
    if type(x) in PYTHON_SCALARS:
        return np.bool_(x)
    return x if x.dtype == _bool else e.ne(x, constant(x, 0))


def _logical(ufunc, fun):
    return _file(ufunc, lambda x, y: fun(*broadcast(truth(x), truth(y))))


logical_and = _logical(np.logical_and, e.bit_and)
logical_or = _logical(np.logical_or, e.bit_or)
logical_xor = _logical(np.logical_xor, e.bit_xor)
logical_not = _file(np.logical_not, lambda x: e.bit_not(truth(x)))
bitwise_and = binary(np.bitwise_and, e.bit_and)
bitwise_or = binary(np.bitwise_or, e.bit_or)
bitwise_xor = binary(np.bitwise_xor, e.bit_xor)
invert = bitwise_not = bitwise_invert = unary(np.invert, e.bit_not)
left_shift = bitwise_left_shift = binary(np.left_shift, e.shift_left)
right_shift = bitwise_right_shift = binary(np.right_shift, e.shift_right)
bitwise_count = unary(np.bitwise_count, lambda x: e.convert(e.population_count(x), np.dtype(np.uint8)))

# --- parts, signs and rounding ------------------------------------------------------------------------------------
absolute = unary(np.absolute, lambda x: x if x.dtype.kind in "bu" else e.absolute(x))
fabs = unary(np.fabs, e.absolute)
sign = unary(np.sign, e.sign)
conjugate = conj = unary(np.conjugate, lambda x: e.conj(x) if x.dtype.kind == "c" else x)


def _rounding(ufunc, fun):
    return unary(ufunc, lambda x: x if is_real_integer(x) else fun(x))


floor = _rounding(np.floor, e.floor)
ceil = _rounding(np.ceil, e.ceil)
trunc = _rounding(np.trunc, e.trunc)


def _both_parts(fun):
    def apply(x):
        return e.make_complex(fun(e.real(x)), fun(e.imag(x))) if x.dtype.kind == "c" else fun(x)

    return apply


rint = unary(np.rint, _both_parts(e.round_to_even))


def _no(x):
    return broadcast_to(np.bool_(False), x.shape)


def _part_test(integers, test):
    def fun(x):
        if is_real_integer(x):
            return integers(x)
        return test(x)

    return fun


def _is_infinite(x):
    if x.dtype.kind == "c":
        return e.bit_or(_is_infinite(e.real(x)), _is_infinite(e.imag(x)))
    return e.eq(e.absolute(x), constant(x, np.inf))


isnan = unary(np.isnan, _part_test(_no, lambda x: e.ne(x, x)))
isinf = unary(np.isinf, _part_test(_no, _is_infinite))
isfinite = unary(np.isfinite, _part_test(lambda x: e.bit_not(_no(x)), e.is_finite))
_bits_of = {1: np.dtype(np.int8), 2: np.dtype(np.int16), 4: np.dtype(np.int32), 8: np.dtype(np.int64)}


def sign_is_set(x: Any) -> Any:
    """Whether the sign bit of floating-point x is set (-0.0 and negative NaN included)."""
    bits = e.bitcast(x, _bits_of[x.dtype.itemsize])
    return e.lt(bits, constant(bits, 0))


signbit = unary(np.signbit, sign_is_set)


def _copysign(x, y):
    return e.select(e.ne(sign_is_set(x), sign_is_set(y)), e.neg(x), x)


copysign = composed(np.copysign, _copysign)


def _heaviside(x, y):
    zero = constant(x, 0)
    step = e.select(e.lt(x, zero), broadcast_to(zero, x.shape), constant(x, 1))
    return e.select(e.ne(x, x), e.stop_gradient_of(x), e.select(e.eq(x, zero), y, step))


heaviside = composed(np.heaviside, _heaviside)
nextafter = binary(np.nextafter, e.nextafter)


def _spacing(x):
    size = e.absolute(x)
    gap = e.sub(e.nextafter(size, constant(x, np.inf)), size)
    return e.select(sign_is_set(x), e.neg(gap), gap)


spacing = unary(np.spacing, lambda x: _spacing(e.stop_gradient_of(x)))


def _modf(x):
    (x,) = loop_operands(np.modf, x)
    whole = e.trunc(x)
    rest = e.select(e.is_finite(x), e.sub(x, whole), e.mul(x, constant(x, 0)))
    return e.select(_is_infinite(x), broadcast_to(constant(x, 0), x.shape), rest), whole


modf = _file(np.modf, _modf)


def _power_of_two(n, dtype):
    return t.exp2(e.convert(n, dtype))


def _ldexp(x, n):
    x, n = loop_operands(np.ldexp, x, n)
    shape = broadcast_shapes(x.shape, n.shape)
    x, n = broadcast_to(x, shape), broadcast_to(n, shape)
    two = constant(n, 2)
    half = e.div(n, two)  # in two steps, so that neither factor overflows before the product does
    return e.mul(e.mul(x, _power_of_two(half, x.dtype)), _power_of_two(e.sub(n, half), x.dtype))


ldexp = _file(np.ldexp, _ldexp)


def _frexp(x):
    (x,) = loop_operands(np.frexp, x)
    plain = e.bit_and(e.is_finite(x), e.ne(x, constant(x, 0)))
    size = e.stop_gradient_of(e.select(plain, e.absolute(x), constant(x, 1)))
    power = e.convert(e.floor(t.log2(size)), np.dtype(np.int32))
    power = e.add(power, np.int32(1))
    mantissa = _ldexp(size, e.neg(power))
    power = e.add(power, e.convert(e.ge(mantissa, constant(x, 1)), power.dtype))  # log2 may round across a whole number
    power = e.sub(power, e.convert(e.lt(mantissa, constant(x, 0.5)), power.dtype))
    zero = constant(power, 0)
    return e.select(plain, _ldexp(x, e.neg(power)), x), e.select(plain, power, zero)


frexp = _file(np.frexp, _frexp)
