# SPDX-License-Identifier: MIT
"""Randomness: bits and keys from a key (a counter-based hash), and the roundings that turn bits into samples.

    random_bits(key)  split_key(key)  fold_in_key(key, n)      functions of a uint32 key [..., 2]: derivative zero
    fused_multiply_add  erf_inv                                element-wise, with the roundings of jax.random
    random_gamma(keys, a)                                      one sample an element; differentiable in `a`

Source: Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", SC'11; M. Figurnov, S. Mohamed, A. Mnih,
"Implicit reparameterization gradients", NeurIPS 2018.
"""

import math
from typing import Any

import numpy as np

from functorch_lite.backends import inverse_erf, random_floats, threefry
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import ArgumentError, DTypeError, ShapeError
from functorch_lite.primitives.comparison import lt, select
from functorch_lite.primitives.declare import batch_unary, derivatives, elementwise, not_linear, zero_derivative
from functorch_lite.primitives.elementwise import add, div, maximum, mul, scale, sub
from functorch_lite.primitives.matrix import batch_leading
from functorch_lite.primitives.special import digamma, random_gamma_grad
from functorch_lite.primitives.transcendental import exp, square

_UINT32 = np.dtype(np.uint32)
UNSIGNED = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16), 32: _UINT32, 64: np.dtype(np.uint64)}
"""The dtypes of words, by their bits."""


def _check_key(name: str, key: Aval) -> tuple[int, ...]:
    """The batch shape of a key [..., 2]."""
    if key.dtype != _UINT32:
        raise DTypeError(f"{name}: expected a key of dtype uint32, got {key.dtype}. Make one with random.key(seed).")
    if not key.shape or key.shape[-1] != 2:
        raise ShapeError(f"{name}: expected a key of shape [..., 2], got {key.shape}. Make one with random.key(seed).")
    return key.shape[:-1]


# --- random_bits: unsigned words -------------------------------------------------------------------------------------
random_bits_p = Primitive("random_bits", Kind.OPAQUE)


def random_bits(key: Any, shape: tuple[int, ...], bit_width: int) -> Any:
    """Uniform unsigned integers of 8, 16, 32 or 64 bits: `key` [..., 2] to [..., *shape]."""
    return bind1(random_bits_p, key, shape=shape, bit_width=bit_width)


@shape_rules.register(random_bits_p)
def _(key, *, shape, bit_width):
    lead = _check_key("random_bits", key)
    if bit_width not in UNSIGNED:
        raise ArgumentError(f"random_bits: expected bit_width 8, 16, 32 or 64, got {bit_width}.")
    if any(n < 0 for n in shape):
        raise ShapeError(f"random_bits: expected a shape without negative sizes, got {shape}.")
    return Aval((*lead, *shape), UNSIGNED[bit_width])


eval_rules.add(
    random_bits_p, lambda xp, key, *, shape, bit_width: threefry.random_bits(xp, key, shape, bit_width)
)
zero_derivative(random_bits_p)
batch_unary(random_bits_p)(random_bits)

# --- split_key and fold_in_key: new keys -----------------------------------------------------------------------------
split_key_p = Primitive("split_key", Kind.OPAQUE)
fold_in_key_p = Primitive("fold_in_key", Kind.OPAQUE)


def split_key(key: Any, shape: tuple[int, ...]) -> Any:
    """New keys [..., *shape, 2] from `key` [..., 2]."""
    return bind1(split_key_p, key, shape=shape)


def fold_in_key(key: Any, data: Any) -> Any:
    """New keys [..., 2] from `key` [..., 2] and `data` [...], uint32."""
    return bind1(fold_in_key_p, key, data)


shape_rules.add(split_key_p, lambda key, *, shape: Aval((*_check_key("split", key), *shape, 2), _UINT32))
eval_rules.add(split_key_p, lambda xp, key, *, shape: threefry.split_key(xp, key, shape))
zero_derivative(split_key_p)
batch_unary(split_key_p)(split_key)


@shape_rules.register(fold_in_key_p)
def _(key, data):
    lead = _check_key("fold_in", key)
    if data.dtype != _UINT32 or data.shape != lead:
        raise DTypeError(f"fold_in: expected data of type {Aval(lead, _UINT32)}, got {data}.")
    return key


eval_rules.add(fold_in_key_p, lambda xp, key, data: threefry.fold_in_key(xp, key, data))
zero_derivative(fold_in_key_p)
batch_leading(fold_in_key_p)

# --- fused_multiply_add: x y + z with one rounding -------------------------------------------------------------------
fused_multiply_add_p = elementwise("fused_multiply_add", inverse_erf.fused_multiply_add, allowed="f")
derivatives(
    fused_multiply_add_p,
    lambda t, out, x, y, z: scale(y, t),
    lambda t, out, x, y, z: scale(x, t),
    lambda t, out, x, y, z: t,
)
not_linear(fused_multiply_add_p)


def fused_multiply_add(x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once."""
    return bind1(fused_multiply_add_p, x, y, z)


# --- erf_inv: the inverse error function, with the bits of jax.random.normal -----------------------------------------
erf_inv_p = elementwise("erf_inv", inverse_erf.erf_inv, allowed="f")
# erf(y) = x  =>  dy = sqrt(pi) / 2 exp(y^2) dx
derivatives(erf_inv_p, lambda t, out, x: scale(mul(exp(square(out)), out.dtype.type(math.sqrt(math.pi) / 2)), t))
not_linear(erf_inv_p)


def erf_inv(x: Any) -> Any:
    """The y with erf(y) = x; `special.erfinv` is more accurate near -1 and 1 and gives other bits."""
    return bind1(erf_inv_p, x)


# --- random_gamma: a gamma(a, 1) variable, or its logarithm ----------------------------------------------------------
random_gamma_p = Primitive("random_gamma", Kind.OPAQUE)
batch_leading(random_gamma_p)
not_linear(random_gamma_p)


def random_gamma(keys: Any, a: Any, log_space: bool) -> Any:
    """A gamma(a, 1) sample for each of `keys` [..., 2] and `a` [...] (float32 or float64), or its logarithm.

    Its derivative in `a` holds the quantile fixed (implicit reparameterization).
    """
    return bind1(random_gamma_p, keys, a, log_space=log_space)


@shape_rules.register(random_gamma_p)
def _(keys, a, *, log_space):
    if _check_key("random_gamma", keys) != a.shape:
        raise ShapeError(f"random_gamma: {keys.shape[:-1]} keys for `a` of shape {a.shape}.")
    if a.dtype.char not in "fd":
        raise DTypeError(f"random_gamma: expected float32 or float64, got {a.dtype}.")
    return a


eval_rules.add(
    random_gamma_p, lambda xp, keys, a, *, log_space: random_floats.gamma_samples(xp, keys, a, log_space)
)


def _log_gamma_slope(a, log_x):
    """d log x / da at a fixed quantile: as x -> 0, P(a, x) -> x^a / Gamma(a + 1), so (psi(a+1) - log x) / a."""
    x, eps = exp(log_x), a.dtype.type(np.finfo(a.dtype).eps)
    usual = maximum(x, eps)
    limit = div(sub(digamma(add(a, a.dtype.type(1))), log_x), a)
    return select(lt(x, eps), limit, div(random_gamma_grad(a, usual), usual))


def _random_gamma_jvp(t, out, keys, a, *, log_space):
    return scale(_log_gamma_slope(a, out) if log_space else random_gamma_grad(a, out), t)


derivatives(random_gamma_p, None, _random_gamma_jvp)
