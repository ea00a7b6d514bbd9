# SPDX-License-Identifier: MIT
"""Quotients of gamma functions: binomial coefficients, rising factorials; and Bessel functions of integer order.

Quotients of large gammas come from differences of Stirling's series, in which what is large and equal is taken out
before it is computed. Relative errors stay below 1e-12.

Source: DLMF 5.11.1 (Stirling's series), 5.5.3 (reflection), 5.2.4 (Pochhammer), 10.4.1 and 10.27.1 (orders of both
signs).
"""

import math
from typing import Any

import numpy as np
import scipy.special

import functorch_lite.numpy as f
from functorch_lite.errors import ArgumentError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.dispatch import implement
from functorch_lite.numpy.promotion import asarray, broadcast_shapes, broadcast_to, promote, to_float
from functorch_lite.primitives import special as p
from functorch_lite.scipy.dispatch import is_of_scipy
from functorch_lite.scipy.ufuncs import horner, in_double, public, with_slopes
from functorch_lite.transforms.arguments import on_its_device, quiet

_LARGEST = 170.0  # gamma(171) is still finite in float64
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def _rest(x):
    """log Gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2 for x >= 10."""
    return horner(1 / (x * x), _STIRLING) / x


def log_gamma_quotient(b: Any, m: Any) -> Any:
    """log of Gamma(b + m) / Gamma(b) for b > 0 and b + m > 0."""
    a = b + m
    large = (a >= 10) & (b >= 10)
    c, d = f.where(large, a, 10.0), f.where(large, b, 10.0)
    step = f.where(large, m, 0.0)
    difference = (c - 0.5) * f.log1p(step / d) + step * (f.log(d) - 1) + _rest(c) - _rest(d)
    return f.where(large, difference, p.lgamma(f.where(large, 1.0, a)) - p.lgamma(f.where(large, 1.0, b)))


def gamma_quotient(b: Any, m: Any) -> Any:
    """Gamma(b + m) / Gamma(b) for b > 0 and b + m > 0."""
    a = b + m
    small = (a <= _LARGEST) & (b <= _LARGEST)
    direct = p.gamma(f.where(small, a, 1.0)) / p.gamma(f.where(small, b, 1.0))
    return f.where(small, direct, f.exp(log_gamma_quotient(f.where(small, 1.0, b), f.where(small, 0.0, m))))


# --- poch: the rising factorial Gamma(z + m) / Gamma(z) ---------------------------------------------------------------


def _poch(z, m):
    a = z + m
    both = (z > 0) & (a > 0)
    right = gamma_quotient(f.where(both, z, 1.0), f.where(both, m, 0.0))
    pole, pole_above = _is_pole(z), _is_pole(a)
    # Gamma(a) / Gamma(z) = sin(pi z) / sin(pi a) Gamma(1 - z) / Gamma(1 - a); at two poles (-1)^m of the quotient
    left = (z <= 0) & (a <= 0)
    back = gamma_quotient(f.where(left, 1 - a, 1.0), f.where(left, m, 0.0))
    sines = f.where(pole & pole_above, _parity(m), _sin_pi(z) / f.where(pole_above, 1.0, _sin_pi(a)))
    mixed = p.gamma(f.where(both | left | pole_above, 1.0, a)) / p.gamma(f.where(both | left | pole, 1.0, z))
    out = f.where(both, right, f.where(left, sines * back, mixed))
    out = f.where(pole & ~pole_above, 0.0, f.where(pole_above & ~pole, np.inf, out))
    return f.where(m == 0, 1.0, f.where(both & (a == np.inf), np.inf, out))


def _is_pole(x):
    return (x <= 0) & (x == f.floor(x))


def _parity(m):
    return 1 - 2 * f.absolute(m % 2)


def _sin_pi(x):
    return f.sin(math.pi * (x % 2))


def _poch_slope(out, z, m):
    """In z: out (psi(z + m) - psi(z)), reflected where both are poles; at zeros Gamma(z + m) (1 / Gamma)'."""
    a = z + m
    pole, pole_above = _is_pole(z), _is_pole(a)
    both = pole & pole_above
    mirrored = p.digamma(f.where(both, 1 - a, 1.0)) - p.digamma(f.where(both, 1 - z, 1.0))
    zero = pole & ~pole_above
    at_zero = p.gamma(f.where(zero, a, 1.0)) * _parity(z) * p.gamma(f.where(zero, 1 - z, 1.0))
    plain = p.digamma(f.where(pole, 1.0, a)) - p.digamma(f.where(pole, 1.0, z))
    return f.where(zero, at_zero, out * f.where(both, mirrored, plain))


_poch_function = with_slopes(
    _poch,
    _poch_slope,
    lambda out, z, m: out * p.digamma(z + m),
)
poch = in_double("poch", _poch_function)


# --- comb ---------------------------------------------------------------------------------------------------------


def _comb(n, k):
    possible = (k >= 0) & (k <= n)
    n, k = f.where(possible, n, 1.0), f.where(possible, k, 0.0)
    few = f.minimum(k, n - k)
    middle = (few >= 10) & (n > 100)
    near = f.where(middle, 1.0, few)
    out = gamma_quotient(f.where(middle, 1.0, n - few) + 1, near) / p.gamma(near + 1)
    out = f.where(middle, f.exp(_central_comb(f.where(middle, n, 100.0), f.where(middle, few, 50.0))), out)
    return f.where(possible, out, 0.0)


def log_comb(n: Any, k: Any) -> Any:
    """log of the number of ways to choose k of n, for 0 <= k <= n."""
    few = f.minimum(k, n - k)
    middle = few >= 10
    near = f.where(middle, 1.0, few)
    out = log_gamma_quotient(f.where(middle, 1.0, n - few) + 1, near) - p.lgamma(near + 1)
    return f.where(middle, _central_comb(f.where(middle, n, 100.0), f.where(middle, few, 50.0)), out)


def _central_comb(n, k):
    """`log_comb` by Stirling's formula, as the entropy of k / n, whose terms are positive."""
    rest = n - k
    entropy = k * f.log(n / k) - rest * f.log1p(-k / n)
    return entropy + (_rest(n) - _rest(k) - _rest(rest)) + f.log(n / (2 * math.pi * k * rest)) / 2


_comb_function = with_slopes(
    _comb,
    lambda out, n, k: out * (p.digamma(f.maximum(n, 0.0) + 1) - p.digamma(f.maximum(n - k, 0.0) + 1)),
    lambda out, n, k: out * (p.digamma(f.maximum(n - k, 0.0) + 1) - p.digamma(f.maximum(k, 0.0) + 1)),
)


def comb(N: Any, k: Any, exact: bool = False, repetition: bool = False) -> Any:
    """The number of ways to choose k of N, without order; 0 unless 0 <= k <= N. Differentiable in both.

    repetition: the same may be chosen again: comb(N + k - 1, k). exact: Python integers, of plain numbers only.
    """
    if is_of_scipy((N, k), {}):
        return scipy.special.comb(N, k, exact=exact, repetition=repetition)
    if exact:
        raise ArgumentError("comb: exact=True takes plain integers; leave it out for traced arrays.")
    if repetition:
        return comb(N + k - 1, k)
    return _comb_of_operands(*[to_float(v) for v in promote(N, k)])


@on_its_device
def _comb_of_operands(n, k):
    shape = broadcast_shapes(n.shape, k.shape)
    wide = [broadcast_to(e.convert(v, np.float64), shape) for v in (n, k)]
    with quiet():
        return e.convert(_comb_function(*wide), n.dtype)


# --- parts of gamma -----------------------------------------------------------------------------------------------


def _gammasgn(x):
    x = e.stop_gradient_of(x)
    whole = f.floor(x)
    below = f.where(whole == x, np.nan, _parity(whole))
    above = f.where(x == x, f.where(f.signbit(x), -1.0, 1.0), np.nan)
    return f.where(x < 0, below, above).astype(x.dtype)


gammasgn = public("gammasgn", _gammasgn)
loggamma = public("loggamma", lambda x: f.where(x < 0, x.dtype.type(np.nan), p.lgamma(x)))


def bernoulli(n: int) -> Any:
    """The Bernoulli numbers B_0 ... B_n for a Python integer n, a float64 array of n + 1."""
    if not isinstance(n, (int, np.integer)) or n < 0:
        raise ArgumentError(f"bernoulli: n must be a Python integer >= 0, got {n!r}.")
    return scipy.special.bernoulli(int(n))


# --- Bessel functions of integer order --------------------------------------------------------------------------------


def _bessel(name, of_order, odd_sign):
    """The ufunc scipy.special.<name>, whose order is a Python integer where the argument is traced."""
    ufunc = getattr(scipy.special, name)

    def body(v, z):
        if isinstance(v, (float, np.floating)) and v == int(v):
            v = int(v)
        if not isinstance(v, (int, np.integer)):
            raise ArgumentError(f"{name}: of a traced array the order must be a Python integer, got {v!r}.")
        out = of_order(abs(int(v)), to_float(asarray(z)))
        return e.neg(out) if v < 0 and v % 2 and odd_sign < 0 else out

    implement(ufunc)(body)

    def function(v: Any, z: Any) -> Any:
        return ufunc(v, z) if is_of_scipy((v, z), {}) else body(v, z)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"scipy.special.{name}, which also takes traced arrays with a Python integer as the order."
    return function


jv = jn = _bessel("jv", p.bessel_j, -1)
iv = _bessel("iv", p.bessel_i, 1)
ive = _bessel("ive", p.bessel_ie, 1)


def bessel_jn(z: Any, *, v: int, n_iter: int = 50) -> Any:
    """J_0(z) ... J_v(z), stacked [v + 1, ...], for a Python integer v >= 0. `n_iter` is jax's, and not needed."""
    if not isinstance(v, (int, np.integer)) or v < 0:
        raise ArgumentError(f"bessel_jn: v must be a Python integer >= 0, got {v!r}.")
    z = to_float(asarray(z))
    return f.stack([p.bessel_j(n, z) for n in range(int(v) + 1)])
