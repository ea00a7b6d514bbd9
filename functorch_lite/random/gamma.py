# SPDX-License-Identifier: MIT
"""The gamma distribution and what is made of it: beta, Dirichlet, chi-square, Student's t, F, generalized normal, ball.

Samples are differentiable in the shape parameters: the derivative moves a sample at a fixed quantile,
dx/da = -(dP/da) / (dP/dx) for the distribution function P(a, x).

Source: G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000); M. Figurnov,
S. Mohamed, A. Mnih, "Implicit reparameterization gradients", NeurIPS 2018.
"""

import math
from typing import Any

from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy.ufuncs import absolute, exp, maximum, power, sqrt
from functorch_lite.primitives.broadcast import broadcast_in_dim, reduce_sum
from functorch_lite.primitives.casts import stop_gradient_of
from functorch_lite.primitives.movement import reshape
from functorch_lite.primitives.random_bits import random_gamma, split_key
from functorch_lite.primitives.reduction import reduce_max
from functorch_lite.random.common import (
    as_shape,
    compute_dtype,
    float_dtype,
    parameter,
    rounded,
    sample_shape,
    spread,
    take_key,
)
from functorch_lite.random.discrete import rademacher
from functorch_lite.random.inversion import exponential
from functorch_lite.random.normal import wide_normal
from functorch_lite.transforms.arguments import on_its_device


def _prepared(name: str, key: Any, shape: Any, dtype: Any, **given: Any):
    """Checked: the shape, the dtype and the parameters in the computing dtype."""
    take_key(name, key)
    dtype = float_dtype(name, dtype)
    values = {label: parameter(v, compute_dtype(dtype)) for label, v in given.items()}
    return sample_shape(name, shape, **values), dtype, *values.values()


def _samples(key, a, shape, log_space):
    """One key an element, so that a sample does not depend on how often another one is rejected."""
    keys = reshape(split_key(key, (math.prod(shape),)), (*shape, 2))
    return random_gamma(keys, spread(a, shape), log_space)


@on_its_device
def gamma(key: Any, a: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Gamma numbers of shape parameter `a` > 0 and scale 1: density x^(a-1) e^-x / Gamma(a). Differentiable in `a`.

    For a < 0.1 most samples round to 0: use `loggamma`.

    >>> from functorch_lite import random
    >>> random.gamma(random.key(0), 2.0, (3,)).shape
    (3,)
    """
    shape, dtype, a = _prepared("gamma", key, shape, dtype, a=a)
    return rounded(_samples(key, a, shape, False), dtype)


@on_its_device
def loggamma(key: Any, a: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Logarithms of gamma(a) numbers, accurate for small `a`. Differentiable in `a`."""
    shape, dtype, a = _prepared("loggamma", key, shape, dtype, a=a)
    return rounded(_samples(key, a, shape, True), dtype)


@on_its_device
def beta(key: Any, a: Any, b: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Beta numbers g_a / (g_a + g_b) of two gamma numbers: density x^(a-1) (1-x)^(b-1) / B(a, b) on [0, 1]."""
    shape, dtype, a, b = _prepared("beta", key, shape, dtype, a=a, b=b)
    keys = split_key(key, (2,))
    log_a, log_b = _samples(keys[0], a, shape, True), _samples(keys[1], b, shape, True)
    top = stop_gradient_of(maximum(log_a, log_b))
    part_a, part_b = exp(log_a - top), exp(log_b - top)
    return rounded(part_a / (part_a + part_b), dtype)


@on_its_device
def dirichlet(key: Any, alpha: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Points [*shape, n] of the simplex: gamma(alpha_i) numbers over their sum. `alpha` [..., n].

    `shape` is the batch shape; it ends with the batch axes of `alpha`.

    Raises: ShapeError where `alpha` is a scalar.
    """
    take_key("dirichlet", key)
    dtype = float_dtype("dirichlet", dtype)
    alpha = parameter(alpha, compute_dtype(dtype))
    if not alpha.shape:
        raise ShapeError("dirichlet: `alpha` must have at least one axis, got a scalar.")
    batch = alpha.shape[:-1] if shape is None else as_shape("dirichlet", shape)
    full = sample_shape("dirichlet", (*batch, alpha.shape[-1]), alpha=alpha)
    logs = _samples(key, alpha, full, True)
    last = len(full) - 1
    parts = exp(logs - _along(stop_gradient_of(reduce_max(logs, (last,))), full)) if full[last] else logs
    return rounded(parts / _along(reduce_sum(parts, (last,)), full), dtype)


def _along(x, shape):
    """`x` repeated along a new last axis."""
    return broadcast_in_dim(x, shape, tuple(range(len(shape) - 1)))


@on_its_device
def chisquare(key: Any, df: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Chi-square numbers with `df` degrees of freedom: 2 gamma(df / 2)."""
    shape, dtype, df = _prepared("chisquare", key, shape, dtype, df=df)
    return rounded(_chisquare(key, df, shape), dtype)


def _chisquare(key, df, shape):
    return exp(_samples(key, df / 2, shape, True)) * 2


@on_its_device
def f(key: Any, dfnum: Any, dfden: Any, shape: Any = None, dtype: Any = None) -> Any:
    """F numbers: the ratio of two chi-square numbers, each over its degrees of freedom."""
    shape, dtype, dfnum, dfden = _prepared("f", key, shape, dtype, dfnum=dfnum, dfden=dfden)
    keys = split_key(key, (2,))
    ratio = (_chisquare(keys[1], dfnum, shape) / dfnum) / (_chisquare(keys[0], dfden, shape) / dfden)
    return rounded(ratio, dtype)


@on_its_device
def t(key: Any, df: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Student's t numbers with `df` degrees of freedom: n sqrt((df / 2) / gamma(df / 2)) for normal n."""
    shape, dtype, df = _prepared("t", key, shape, dtype, df=df)
    keys, half = split_key(key, (2,)), df / 2
    return rounded(wide_normal(keys[0], shape, dtype) * sqrt(half / _samples(keys[1], half, shape, False)), dtype)


@on_its_device
def generalized_normal(key: Any, p: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Numbers of density proportional to exp(-|x|^p): a random sign times gamma(1/p)^(1/p)."""
    shape, dtype, p = _prepared("generalized_normal", key, shape, dtype, p=p)
    keys, inverse = split_key(key, (2,)), 1 / p
    signs = rademacher(keys[1], shape, compute_dtype(dtype))
    return rounded(signs * power(_samples(keys[0], inverse, shape, False), inverse), dtype)


@on_its_device
def ball(key: Any, d: int, p: Any = 2, shape: Any = (), dtype: Any = None) -> Any:
    """Points [*shape, d] uniform in the unit ball of the p-norm in d dimensions.

    >>> from functorch_lite import random
    >>> bool(((random.ball(random.key(0), 3, shape=(50,)) ** 2).sum(-1) <= 1).all())
    True

    Source: F. Barthe, O. Guedon, S. Mendelson, A. Naor, "A probabilistic approach to the geometry of the l_p^n-ball",
    Annals of Probability 33 (2005).
    """
    take_key("ball", key)
    if d < 1:
        raise ArgumentError(f"ball: `d` must be at least 1, got {d}.")
    dtype, shape = float_dtype("ball", dtype), as_shape("ball", shape)
    wide = compute_dtype(dtype)
    p = parameter(p, wide)
    keys = split_key(key, (2,))
    point = rounded(generalized_normal(keys[0], p, (*shape, d), dtype), wide)
    extra = rounded(exponential(keys[1], shape, dtype), wide)
    total = reduce_sum(power(absolute(point), spread(p, point.shape)), (len(shape),)) + extra
    return rounded(point / _along(power(total, 1 / p), point.shape), dtype)
