# SPDX-License-Identifier: MIT
"""Special functions, element-wise: error functions, gamma, zeta, Bessel, incomplete gamma and beta, x log y.

Values are SciPy's (CuPy's on a GPU), in the dtype of the operands; 16-bit floats are computed in float32. Derivatives
close over the same functions, so they exist to any order: d erf = 2 / sqrt(pi) exp(-x^2) dx, d lgamma = digamma dx,
d polygamma_n = polygamma_(n+1) dx, d J_n = (J_(n-1) - J_(n+1)) / 2 dx.

Source: M. Abramowitz, I. A. Stegun, "Handbook of mathematical functions", 6.4, 7.1, 7.2, 9.1, 9.6, 26.5.
"""

import math
from typing import Any

import numpy as np

from functorch_lite.backends import special
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import MissingRuleError
from functorch_lite.primitives.comparison import bit_and, eq, select, zero_like
from functorch_lite.primitives.complex_parts import sign
from functorch_lite.primitives.declare import derivatives, elementwise, not_linear
from functorch_lite.primitives.elementwise import add, div, mul, neg, safe_div_p, scale, sub
from functorch_lite.primitives.transcendental import exp, log, log1p, square

_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)
_HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2


def _c(x: Any, value: float) -> Any:
    return x.dtype.type(value)


def _one_argument(name: str, rule: Any, scipy_name: str | None = None, fun: Any = None) -> Primitive:
    prim = elementwise(name, fun or special.by_name(scipy_name or name), allowed="f")
    derivatives(prim, rule)
    not_linear(prim)
    return prim


def _no_derivative(name: str, argument: str):
    def rule(*_, **__):
        raise MissingRuleError(f"{name}: the derivative in {argument} is not known; hold it constant (stop_gradient).")

    return rule


# --- error functions and the normal distribution --------------------------------------------------------------------


def _gauss(x: Any, factor: float) -> Any:
    """factor * exp(-x^2)."""
    return mul(exp(neg(square(x))), _c(x, factor))


erf_p = _one_argument("erf", lambda t, out, x: scale(_gauss(x, _TWO_OVER_SQRT_PI), t))
erfc_p = _one_argument("erfc", lambda t, out, x: scale(_gauss(x, -_TWO_OVER_SQRT_PI), t))
erfinv_p = _one_argument(
    "erfinv", lambda t, out, x: scale(mul(exp(square(out)), _c(x, 1 / _TWO_OVER_SQRT_PI)), t)
)
erfcx_p = _one_argument(
    "erfcx", lambda t, out, x: scale(sub(mul(mul(x, out), _c(x, 2)), _c(x, _TWO_OVER_SQRT_PI)), t)
)
ndtri_p = _one_argument(
    "ndtri", lambda t, out, x: scale(exp(add(mul(square(out), _c(x, 0.5)), _c(x, _HALF_LOG_TWO_PI))), t)
)


def _log_ndtr_jvp(t, out, x):  # d log Phi = phi / Phi = exp(-x^2 / 2 - log sqrt(2 pi) - log Phi) dx
    return scale(exp(sub(neg(mul(square(x), _c(x, 0.5))), add(out, _c(x, _HALF_LOG_TWO_PI)))), t)


log_ndtr_p = _one_argument("log_ndtr", _log_ndtr_jvp)


def erf(x: Any) -> Any:
    """2 / sqrt(pi) times the integral of exp(-s^2) from 0 to x."""
    return bind1(erf_p, x)


def erfc(x: Any) -> Any:
    """1 - erf(x), accurate for large x."""
    return bind1(erfc_p, x)


def erfinv(x: Any) -> Any:
    """The y with erf(y) = x; infinite at -1 and 1."""
    return bind1(erfinv_p, x)


def erfcx(x: Any) -> Any:
    """exp(x^2) erfc(x), without overflow for large x."""
    return bind1(erfcx_p, x)


def ndtri(x: Any) -> Any:
    """The y whose standard normal distribution function is x: infinite at 0 and 1."""
    return bind1(ndtri_p, x)


def log_ndtr(x: Any) -> Any:
    """The logarithm of the standard normal distribution function, accurate in the lower tail."""
    return bind1(log_ndtr_p, x)


# --- gamma and zeta -------------------------------------------------------------------------------------------------


def _polygamma(xp, x, *, n):
    return special.apply(xp, "digamma", x) if n == 0 else _high_polygamma(xp, x, n)


def _high_polygamma(xp, x, n):  # psi_n(x) = (-1)^(n+1) n! zeta(n + 1, x)
    wide = x.astype(np.float64)
    zeta_of = special.special_module(xp.__name__).zeta
    out = zeta_of(np.float64(n + 1) if xp is np else xp.full_like(wide, n + 1), wide) * float(math.factorial(n))
    return (out if n % 2 else -out).astype(x.dtype)


gamma_p = _one_argument("gamma", lambda t, out, x: scale(mul(out, digamma(x)), t))
lgamma_p = _one_argument("lgamma", lambda t, out, x: scale(digamma(x), t), "gammaln")
digamma_p = _one_argument("digamma", lambda t, out, x: scale(polygamma(1, x), t))
polygamma_p = elementwise("polygamma", _polygamma, allowed="f")
derivatives(polygamma_p, lambda t, out, x, *, n: scale(polygamma(n + 1, x), t))
zeta_p = elementwise("zeta", special.by_name("zeta"), allowed="f")
derivatives(
    zeta_p,
    _no_derivative("zeta", "its exponent"),
    lambda t, out, x, q: scale(neg(mul(x, zeta(add(x, _c(x, 1)), q))), t),  # d/dq of the sum of (k + q)^-x
)
not_linear(polygamma_p, zeta_p)


def gamma(x: Any) -> Any:
    """The gamma function."""
    return bind1(gamma_p, x)


def lgamma(x: Any) -> Any:
    """log |Gamma(x)|."""
    return bind1(lgamma_p, x)


def digamma(x: Any) -> Any:
    """The logarithmic derivative of the gamma function."""
    return bind1(digamma_p, x)


def polygamma(n: int, x: Any) -> Any:
    """The derivative number `n` (a Python integer >= 0) of digamma."""
    return digamma(x) if n == 0 else bind1(polygamma_p, x, n=n)


def zeta(x: Any, q: Any) -> Any:
    """The Hurwitz zeta function: the sum over k >= 0 of (k + q)^-x. Its derivative in x is not known."""
    return bind1(zeta_p, x, q)


# --- Bessel functions of integer order ------------------------------------------------------------------------------
bessel_j_p = elementwise("bessel_j", lambda xp, x, *, order: special.bessel(xp, "j", order, x), allowed="f")
bessel_i_p = elementwise("bessel_i", lambda xp, x, *, order: special.bessel(xp, "i", order, x), allowed="f")
bessel_ie_p = elementwise("bessel_ie", lambda xp, x, *, order: special.bessel(xp, "ie", order, x), allowed="f")
not_linear(bessel_j_p, bessel_i_p, bessel_ie_p)


def bessel_j(order: int, x: Any) -> Any:
    """The Bessel function of the first kind J_order(x), order >= 0."""
    return bind1(bessel_j_p, x, order=order)


def bessel_i(order: int, x: Any) -> Any:
    """The modified Bessel function of the first kind I_order(x), order >= 0."""
    return bind1(bessel_i_p, x, order=order)


def bessel_ie(order: int, x: Any) -> Any:
    """exp(-|x|) I_order(x), order >= 0: it does not overflow."""
    return bind1(bessel_ie_p, x, order=order)


def _half_sum(x, y):
    return mul(add(x, y), _c(x, 0.5))


def _bessel_j_jvp(t, out, x, *, order):  # J_0' = -J_1, J_n' = (J_(n-1) - J_(n+1)) / 2
    if order == 0:
        return neg(scale(bessel_j(1, x), t))
    return scale(_half_sum(bessel_j(order - 1, x), neg(bessel_j(order + 1, x))), t)


def _bessel_i_slope(function, order, x):  # I_0' = I_1, I_n' = (I_(n-1) + I_(n+1)) / 2
    return function(1, x) if order == 0 else _half_sum(function(order - 1, x), function(order + 1, x))


derivatives(bessel_j_p, _bessel_j_jvp)
derivatives(bessel_i_p, lambda t, out, x, *, order: scale(_bessel_i_slope(bessel_i, order, x), t))
derivatives(
    bessel_ie_p,
    lambda t, out, x, *, order: scale(sub(_bessel_i_slope(bessel_ie, order, x), mul(sign(x), out)), t),
)

# --- incomplete gamma -----------------------------------------------------------------------------------------------
gammainc_p = elementwise("gammainc", special.by_name("gammainc"), allowed="f")
gammaincc_p = elementwise("gammaincc", special.by_name("gammaincc"), allowed="f")
gammainc_slope_p = elementwise("gammainc_slope", special.gammainc_derivative, allowed="f")
not_linear(gammainc_p, gammaincc_p, gammainc_slope_p)


def gammainc(a: Any, x: Any) -> Any:
    """The regularized lower incomplete gamma function P(a, x): the distribution function of a gamma variable."""
    return bind1(gammainc_p, a, x)


def gammaincc(a: Any, x: Any) -> Any:
    """1 - P(a, x), accurate where it is small."""
    return bind1(gammaincc_p, a, x)


def gammainc_slope(a: Any, x: Any) -> Any:
    """The derivative of P(a, x) in a. Itself differentiable in x only."""
    return bind1(gammainc_slope_p, a, x)


def _gamma_density(a, x):  # x^(a-1) e^-x / Gamma(a)
    one = _c(x, 1)
    return exp(sub(sub(xlogy(sub(a, one), x), x), lgamma(a)))


def random_gamma_grad(a: Any, x: Any) -> Any:
    """dx/da of a gamma(a) sample x, its quantile held fixed: -(dP/da) / (dP/dx)."""
    return neg(div(gammainc_slope(a, x), _gamma_density(a, x)))


derivatives(
    gammainc_p,
    lambda t, out, a, x: scale(gammainc_slope(a, x), t),
    lambda t, out, a, x: scale(_gamma_density(a, x), t),
)
derivatives(
    gammaincc_p,
    lambda t, out, a, x: neg(scale(gammainc_slope(a, x), t)),
    lambda t, out, a, x: neg(scale(_gamma_density(a, x), t)),
)
derivatives(
    gammainc_slope_p,
    _no_derivative("the derivative of gammainc in a", "a once more"),
    lambda t, out, a, x: scale(mul(_gamma_density(a, x), sub(log(x), digamma(a))), t),
)

# --- incomplete beta ------------------------------------------------------------------------------------------------
betainc_p = elementwise("betainc", special.by_name("betainc"), allowed="f")
not_linear(betainc_p)


def betainc(a: Any, b: Any, x: Any) -> Any:
    """The regularized incomplete beta function I_x(a, b). Its derivative is known in x only."""
    return bind1(betainc_p, a, b, x)


def _beta_density(a, b, x):  # x^(a-1) (1-x)^(b-1) Gamma(a+b) / (Gamma(a) Gamma(b))
    one = _c(x, 1)
    powers = add(xlogy(sub(a, one), x), xlog1py(sub(b, one), neg(x)))
    return exp(add(powers, sub(lgamma(add(a, b)), add(lgamma(a), lgamma(b)))))


derivatives(
    betainc_p,
    _no_derivative("betainc", "a"),
    _no_derivative("betainc", "b"),
    lambda t, out, a, b, x: scale(_beta_density(a, b, x), t),
)

# --- x log y: 0 where x is 0, even at y = 0, where both derivatives are 0 -------------------------------------------
xlogy_p = elementwise("xlogy", special.by_name("xlogy"), allowed="f")
xlog1py_p = elementwise("xlog1py", special.by_name("xlog1py"), allowed="f")
not_linear(xlogy_p, xlog1py_p)


def xlogy(x: Any, y: Any) -> Any:
    """x log y, and 0 where x is 0 (and y is not NaN). At (0, 0) both derivatives are 0."""
    return bind1(xlogy_p, x, y)


def xlog1py(x: Any, y: Any) -> Any:
    """x log(1 + y), and 0 where x is 0 (and y is not NaN). At (0, -1) both derivatives are 0."""
    return bind1(xlog1py_p, x, y)


def _guarded(x, y, pole, safe):
    """`y`, and `safe` where x is 0 and y is at the logarithm's pole."""
    corner = bit_and(eq(x, zero_like(x)), eq(y, _c(y, pole)))
    return select(corner, _c(y, safe), y)


derivatives(
    xlogy_p,
    lambda t, out, x, y: scale(log(_guarded(x, y, 0, 1)), t),
    lambda t, out, x, y: bind1(safe_div_p, scale(x, t), _guarded(x, y, 0, 1)),
)
derivatives(
    xlog1py_p,
    lambda t, out, x, y: scale(log1p(_guarded(x, y, -1, 0)), t),
    lambda t, out, x, y: bind1(safe_div_p, scale(x, t), add(_guarded(x, y, -1, 0), _c(y, 1))),
)
