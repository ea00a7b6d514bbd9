# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.special`: special functions with derivatives to any order.

SciPy's own ufuncs (`scipy.special.erf(x)`) take traced arrays once this module is imported; so do the functions of the
same names here, which also take CuPy's arrays. Dtypes are SciPy's: float16 gives float32, integers give float64.
"""

import functools
import math
from typing import Any

import numpy as np

from functorch_lite.core.dtypes import dtype_kind
from functorch_lite.errors import ArgumentError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import kept_shape, reduction_axes
from functorch_lite.numpy.promotion import asarray, broadcast_to, promote, to_float, to_inexact
from functorch_lite.primitives import special as p
from functorch_lite.primitives import transcendental as t
from functorch_lite.primitives.reduction import logsumexp as reduce_logsumexp
from functorch_lite.primitives.reduction import reduce_max
from functorch_lite.scipy.exponentials import boxcox as boxcox
from functorch_lite.scipy.exponentials import boxcox1p as boxcox1p
from functorch_lite.scipy.exponentials import exp1 as exp1
from functorch_lite.scipy.exponentials import expi as expi
from functorch_lite.scipy.exponentials import expn as expn
from functorch_lite.scipy.exponentials import exprel as exprel
from functorch_lite.scipy.exponentials import sici as sici
from functorch_lite.scipy.exponentials import spence as spence
from functorch_lite.scipy.gammas import bernoulli as bernoulli
from functorch_lite.scipy.gammas import bessel_jn as bessel_jn
from functorch_lite.scipy.gammas import comb as comb
from functorch_lite.scipy.gammas import gammasgn as gammasgn
from functorch_lite.scipy.gammas import iv as iv
from functorch_lite.scipy.gammas import ive as ive
from functorch_lite.scipy.gammas import jn as jn
from functorch_lite.scipy.gammas import jv as jv
from functorch_lite.scipy.gammas import loggamma as loggamma
from functorch_lite.scipy.gammas import poch as poch
from functorch_lite.scipy.gaussians import dawsn as dawsn
from functorch_lite.scipy.gaussians import fresnel as fresnel
from functorch_lite.scipy.gaussians import owens_t as owens_t
from functorch_lite.scipy.harmonics import sph_harm_y as sph_harm_y
from functorch_lite.scipy.ufuncs import public as _public


def _c(x, value):
    return x.dtype.type(value)


# --- one primitive each ---------------------------------------------------------------------------------------------
erf = _public("erf", p.erf)
erfc = _public("erfc", p.erfc)
erfcx = _public("erfcx", p.erfcx)
erfinv = _public("erfinv", p.erfinv)
ndtri = _public("ndtri", p.ndtri)
log_ndtr = _public("log_ndtr", p.log_ndtr)
gamma = _public("gamma", p.gamma)
gammaln = _public("gammaln", p.lgamma)
digamma = psi = _public("psi", p.digamma)
gammainc = _public("gammainc", p.gammainc)
gammaincc = _public("gammaincc", p.gammaincc)
betainc = _public("betainc", p.betainc)
xlogy = _public("xlogy", p.xlogy)
xlog1py = _public("xlog1py", p.xlog1py)
expit = _public("expit", t.logistic)
i0, i1 = (_public(f"i{n}", functools.partial(p.bessel_i, n)) for n in (0, 1))
i0e, i1e = (_public(f"i{n}e", functools.partial(p.bessel_ie, n)) for n in (0, 1))
j0, j1 = (_public(f"j{n}", functools.partial(p.bessel_j, n)) for n in (0, 1))


def polygamma(n: int, x: Any) -> Any:
    """The derivative number `n`, a Python integer, of the digamma function."""
    if not isinstance(n, (int, np.integer)) or n < 0:
        raise ArgumentError(f"polygamma: n must be a Python integer >= 0, got {n!r}.")
    return p.polygamma(int(n), to_float(asarray(x)))


def zeta(x: Any, q: Any = 1.0) -> Any:
    """The Hurwitz zeta function: the sum over k >= 0 of (k + q)^-x. Differentiable in q."""
    x, q = promote(asarray(x), q)
    x, q = to_float(x), to_float(q)
    shape = np.broadcast_shapes(x.shape, q.shape)
    return p.zeta(broadcast_to(x, shape), broadcast_to(q, shape))


# --- composed -------------------------------------------------------------------------------------------------------
ndtr = _public("ndtr", lambda x: e.mul(p.erfc(e.mul(x, _c(x, -math.sqrt(0.5)))), _c(x, 0.5)))
logit = _public("logit", lambda x: e.sub(t.log(x), t.log1p(e.neg(x))))
log_expit = _public("log_expit", lambda x: _log_expit(x))
betaln = _public("betaln", lambda a, b: e.sub(e.add(p.lgamma(a), p.lgamma(b)), p.lgamma(e.add(a, b))))
beta = _public("beta", lambda a, b: e.div(e.mul(p.gamma(a), p.gamma(b)), p.gamma(e.add(a, b))))


def _log_expit(x):
    """min(x, 0) - log(1 + exp(-|x|))."""
    low = e.minimum(x, _c(x, 0))
    return e.sub(low, t.log1p(t.exp(e.neg(e.absolute(x)))))


def _rel_entr(x, y):
    """x log(x / y); 0 at x = 0; infinite where it is not defined."""
    zero = _c(x, 0)
    positive = e.bit_and(e.gt(x, zero), e.gt(y, zero))
    safe_x = e.select(positive, x, _c(x, 1))
    safe_y = e.select(positive, y, _c(y, 1))
    value = e.mul(safe_x, e.sub(t.log(safe_x), t.log(safe_y)))
    at_zero = e.bit_and(e.eq(x, zero), e.ge(y, zero))
    nothing = e.mul(e.stop_gradient_of(value), zero)
    other = e.select(at_zero, nothing, e.add(nothing, _c(x, np.inf)))
    return e.select(positive, value, other)


def _entr(x):
    """-x log x; 0 at 0; -infinite below."""
    below = e.lt(x, _c(x, 0))
    safe = e.select(below, _c(x, 1), x)
    return e.select(below, _c(x, -np.inf), e.neg(p.xlogy(safe, safe)))


def _kl_div(x, y):
    return e.add(e.sub(_rel_entr(x, y), x), y)


entr = _public("entr", _entr)
rel_entr = _public("rel_entr", _rel_entr)
kl_div = _public("kl_div", _kl_div)


def multigammaln(a: Any, d: int) -> Any:
    """The logarithm of the multivariate gamma function of dimension `d`, a Python integer."""
    a = to_float(asarray(a))
    out = None
    for j in range(d):
        term = p.lgamma(e.sub(a, _c(a, j / 2)))
        out = term if out is None else e.add(out, term)
    return e.add(out, _c(a, d * (d - 1) / 4 * math.log(math.pi)))


def factorial(n: Any) -> Any:
    """n!, as gamma(n + 1)."""
    x = to_float(asarray(n))
    return p.gamma(e.add(x, _c(x, 1)))


# --- sums of exponentials -------------------------------------------------------------------------------------------


def _shift(x, axes):
    """The maximum over `axes`, kept, where it is finite, else 0: what is subtracted before exp. Held constant."""
    largest = e.stop_gradient_of(reduce_max(x, axes))
    finite = e.select(e.is_finite(largest), largest, _c(x, 0))
    return e.reshape(finite, kept_shape(x.shape, axes))


def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False
) -> Any:
    """log(sum(b exp(a))) over `axis`, without overflow; of minus infinities, minus infinity with gradient 0.

    return_sign: also the sign of the sum, which may then be negative; without it a negative sum gives NaN.
    """
    x = to_inexact(asarray(a))
    if b is not None:
        x, weights = (to_inexact(v) for v in promote(x, b))
        shape = np.broadcast_shapes(x.shape, weights.shape)
        x, weights = broadcast_to(x, shape), broadcast_to(weights, shape)
        x = e.select(e.eq(weights, _c(x, 0)), _c(x, -np.inf), x)
    axes = reduction_axes(axis, len(x.shape))
    if b is None and not return_sign and dtype_kind(x.dtype) == "f":
        out = reduce_logsumexp(x, axes)
        return e.reshape(out, kept_shape(x.shape, axes)) if keepdims else out
    shift = _shift(x, axes)
    terms = t.exp(e.sub(x, broadcast_to(shift, x.shape)))
    terms = terms if b is None else e.mul(weights, terms)
    total = e.reshape(e.reduce_sum(terms, axes), shift.shape)
    sign, size = e.sign(total), e.absolute(total)
    out = e.add(_log_or_minus_infinity(size if return_sign or b is None else total), shift)
    if not keepdims:
        left = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        out, sign = e.reshape(out, left), e.reshape(sign, left)
    return (out, sign) if return_sign else out


def _log_or_minus_infinity(x):
    zero = e.eq(x, _c(x, 0))
    return e.select(zero, _c(x, -np.inf), t.log(e.select(zero, _c(x, 1), x)))


def softmax(x: Any, axis: Any = None) -> Any:
    """exp(x) over its sum along `axis`."""
    x = to_inexact(asarray(x))
    axes = reduction_axes(axis, len(x.shape))
    terms = t.exp(e.sub(x, broadcast_to(_shift(x, axes), x.shape)))
    total = e.reshape(e.reduce_sum(terms, axes), kept_shape(x.shape, axes))
    return e.div(terms, broadcast_to(total, x.shape))


def log_softmax(x: Any, axis: Any = None) -> Any:
    """x minus its logsumexp along `axis`."""
    x = to_inexact(asarray(x))
    return e.sub(x, broadcast_to(logsumexp(x, axis, keepdims=True), x.shape))
