# SPDX-License-Identifier: MIT
"""Element-wise functions: roots, exponentials, logarithms, trigonometric and hyperbolic functions, logistic.

Derivatives reuse the output where they can: d tanh = (1 - tanh^2) dx. `primitives.special` has erf, lgamma, Bessel.
"""

from typing import Any

from functorch_lite.config import config
from functorch_lite.core import dtypes
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.tracer import bind1
from functorch_lite.primitives.comparison import bit_and, eq, select, zero_like
from functorch_lite.primitives.declare import derivatives, elementwise, not_linear, ufunc
from functorch_lite.primitives.elementwise import add, div, mul, neg, safe_div_p, scale, sub


def _one(x: Any) -> Any:
    return x.dtype.type(1)


def _over(t: Any, c: Any) -> Any:
    return bind1(safe_div_p, t, c) if config.strong_zero else div(t, c)


def _unary(name: str, rule: Any, numpy_name: str | None = None, fun: Any = None, allowed: str = "fc"):
    """The primitive and its function of one argument; `rule(t, out, x)` is its tangent."""
    prim = elementwise(name, fun or ufunc(numpy_name or name), allowed=allowed)
    derivatives(prim, rule)
    not_linear(prim)
    return prim, lambda x: bind1(prim, x)


def _constant(x: Any, value: float) -> Any:
    return x.dtype.type(value)


# --- roots and powers -------------------------------------------------------------------------------------------------
sqrt_p, sqrt = _unary("sqrt", lambda t, out, x: _over(t, out + out))
cbrt_p, cbrt = _unary("cbrt", lambda t, out, x: _over(t, mul(mul(out, out), _constant(out, 3))), allowed="f")
rsqrt_p, rsqrt = _unary(
    "rsqrt",
    lambda t, out, x: scale(mul(div(out, x), _constant(x, -0.5)), t),
    fun=lambda xp, x: (1 / xp.sqrt(x)).astype(x.dtype),
)
square_p, square = _unary("square", lambda t, out, x: scale(x + x, t), allowed="iufc")

# --- exponentials and logarithms --------------------------------------------------------------------------------------
exp_p, exp = _unary("exp", lambda t, out, x: scale(out, t))
exp2_p, exp2 = _unary("exp2", lambda t, out, x: scale(mul(out, _constant(x, 0.6931471805599453)), t), allowed="f")
expm1_p, expm1 = _unary("expm1", lambda t, out, x: scale(add(out, _one(out)), t))
log_p, log = _unary("log", lambda t, out, x: _over(t, x))
log2_p, log2 = _unary("log2", lambda t, out, x: _over(t, mul(x, _constant(x, 0.6931471805599453))))
log10_p, log10 = _unary("log10", lambda t, out, x: _over(t, mul(x, _constant(x, 2.302585092994046))))
log1p_p, log1p = _unary("log1p", lambda t, out, x: _over(t, add(x, _one(x))))

# --- trigonometric ----------------------------------------------------------------------------------------------------
sin_p, sin = _unary("sin", lambda t, out, x: scale(cos(x), t))
cos_p, cos = _unary("cos", lambda t, out, x: neg(scale(sin(x), t)))
tan_p, tan = _unary("tan", lambda t, out, x: scale(add(square(out), _one(out)), t))
asin_p, asin = _unary("asin", lambda t, out, x: _over(t, sqrt(sub(_one(x), square(x)))), "arcsin")
acos_p, acos = _unary("acos", lambda t, out, x: neg(_over(t, sqrt(sub(_one(x), square(x))))), "arccos")
atan_p, atan = _unary("atan", lambda t, out, x: _over(t, add(square(x), _one(x))), "arctan")

# --- hyperbolic -------------------------------------------------------------------------------------------------------
sinh_p, sinh = _unary("sinh", lambda t, out, x: scale(cosh(x), t))
cosh_p, cosh = _unary("cosh", lambda t, out, x: scale(sinh(x), t))
tanh_p, tanh = _unary("tanh", lambda t, out, x: scale(_one(out) - out * out, t))
asinh_p, asinh = _unary("asinh", lambda t, out, x: _over(t, sqrt(add(square(x), _one(x)))), "arcsinh")
acosh_p, acosh = _unary(
    "acosh", lambda t, out, x: _over(t, mul(sqrt(sub(x, _one(x))), sqrt(add(x, _one(x))))), "arccosh"
)
atanh_p, atanh = _unary("atanh", lambda t, out, x: _over(t, mul(sub(_one(x), x), add(_one(x), x))), "arctanh")


def _logistic(xp, x):
    wide = x if x.dtype.itemsize > 2 else x.astype(dtypes.accumulator(x.dtype))
    if dtypes.is_complex(x.dtype):
        return 1 / (1 + xp.exp(-wide))
    small = xp.exp(-xp.abs(wide))  # in (0, 1]: no overflow
    return (xp.where(wide >= 0, wide.dtype.type(1), small) / (1 + small)).astype(x.dtype)


logistic_p, logistic = _unary(
    "logistic", lambda t, out, x: scale(out * (_one(out) - out), t), fun=_logistic, allowed="fc"
)

# --- atan2: the angle of the point (x, y); its derivatives at the origin are 0 ----------------------------------------
atan2_p: Primitive = elementwise("atan2", ufunc("arctan2"), allowed="f")
not_linear(atan2_p)


def atan2(y: Any, x: Any) -> Any:
    """The angle of the point (x, y) in radians, in [-pi, pi]."""
    return bind1(atan2_p, y, x)


def _angle_part(t, part, y, x):
    r2 = add(square(x), square(y))
    origin = bit_and(eq(x, zero_like(x)), eq(y, zero_like(y)))
    safe = select(origin, _one(r2), r2)
    return scale(div(part, safe), t)


derivatives(
    atan2_p,
    lambda t, out, y, x: _angle_part(t, x, y, x),
    lambda t, out, y, x: neg(_angle_part(t, y, y, x)),
)
