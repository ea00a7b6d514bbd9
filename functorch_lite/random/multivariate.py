# SPDX-License-Identifier: MIT
"""Vectors and matrices: the multivariate normal distribution, random orthogonal matrices, and the Wald distribution."""

from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy.promotion import broadcast_to
from functorch_lite.numpy.selection import where
from functorch_lite.numpy.ufuncs import sign, sqrt
from functorch_lite.primitives.broadcast import broadcast_in_dim
from functorch_lite.primitives.contraction import dot_general
from functorch_lite.primitives.elementwise import mul
from functorch_lite.primitives.linalg import cholesky, qr
from functorch_lite.primitives.matrix import by_columns, diagonal, transposed
from functorch_lite.primitives.random_bits import split_key
from functorch_lite.primitives.spectral import eigh, svd
from functorch_lite.random.common import (
    as_shape,
    compute_dtype,
    float_dtype,
    one_of,
    own_float,
    parameter,
    rounded,
    sample_shape,
    take_key,
)
from functorch_lite.random.normal import wide_normal
from functorch_lite.random.uniform import drawn
from functorch_lite.transforms.arguments import on_its_device


@on_its_device
def multivariate_normal(
    key: Any, mean: Any, cov: Any, shape: Any = None, dtype: Any = None, method: str = "cholesky",
) -> Any:
    """mean + F z for standard normal z and a factor F F^T = cov; `mean` [..., n], `cov` [..., n, n], to [*shape, n].

    method: "cholesky" (fastest; cov positive definite), "eigh" or "svd" (cov may be singular). `shape` is the batch
    shape. Differentiable in `mean` and `cov`.

    >>> from functorch_lite import random
    >>> random.multivariate_normal(random.key(0), [0.0, 1.0], [[1.0, 0.5], [0.5, 1.0]], (4,)).shape
    (4, 2)
    """
    take_key("multivariate_normal", key)
    one_of("multivariate_normal", "method", method, ("cholesky", "eigh", "svd"))
    dtype = float_dtype("multivariate_normal", dtype)
    wide = compute_dtype(dtype)
    mean, cov = parameter(mean, wide), parameter(cov, wide)
    batch = _batch_shape(mean, cov, shape)
    n = mean.shape[-1]
    noise = wide_normal(key, (*batch, n), dtype)
    factor = broadcast_to(_factor(cov, method), (*batch, n, n))
    lead = tuple(range(len(batch)))
    turned = dot_general(factor, noise, ((len(batch) + 1,), (len(batch),)), (lead, lead))
    return rounded(turned + mean, dtype)


def _batch_shape(mean, cov, shape):
    if not mean.shape:
        raise ShapeError("multivariate_normal: `mean` must have at least one axis, got a scalar.")
    n = mean.shape[-1]
    if cov.shape[-2:] != (n, n):
        raise ShapeError(f"multivariate_normal: `cov` must have shape [..., {n}, {n}] as `mean` has {n} entries, "
                         f"got {cov.shape}.")
    batches = {"mean": np.empty((*mean.shape[:-1], 0)), "cov": np.empty((*cov.shape[:-2], 0))}
    wanted = None if shape is None else (*as_shape("multivariate_normal", shape), 0)
    return sample_shape("multivariate_normal", wanted, **batches)[:-1]


def _factor(cov, method):
    if method == "cholesky":
        return cholesky(cov)
    if method == "eigh":
        values, vectors = eigh(cov)
        return mul(vectors, by_columns(sqrt(values), vectors.shape))
    vectors, values, _ = svd(cov)
    return mul(vectors, by_columns(sqrt(values), vectors.shape))


@on_its_device
def orthogonal(key: Any, n: int, shape: Any = (), dtype: Any = None, m: int | None = None) -> Any:
    """Matrices [*shape, n, m] with orthonormal rows or columns, uniform (Haar); m is n unless given.

    The Q factor of a normal matrix, its signs fixed by the diagonal of R.

    Source: F. Mezzadri, "How to generate random matrices from the classical compact groups", Notices AMS 54 (2007).
    """
    take_key("orthogonal", key)
    dtype, shape = float_dtype("orthogonal", dtype), as_shape("orthogonal", shape)
    m = n if m is None else m
    if n < 0 or m < 0:
        raise ArgumentError(f"orthogonal: `n` and `m` must not be negative, got {n} and {m}.")
    tall, narrow = max(n, m), min(n, m)
    q, r = qr(wide_normal(key, (*shape, tall, narrow), dtype))
    signs = sign(diagonal(r))
    q = mul(q, broadcast_in_dim(signs, q.shape, (*range(len(shape)), len(shape) + 1)))
    return rounded(transposed(q) if n < m else q, dtype)


@on_its_device
def wald(key: Any, mean: Any, shape: Any = None, dtype: Any = None) -> Any:
    """Wald (inverse Gaussian) numbers of this mean and scale 1: the time a drifting Brownian motion takes to 1.

    Source: J. R. Michael, W. R. Schucany, R. W. Haas, "Generating random variates using transformations with multiple
    roots", The American Statistician 30 (1976).
    """
    take_key("wald", key)
    dtype = float_dtype("wald", own_float(mean).dtype if dtype is None else dtype)
    mean = parameter(mean, compute_dtype(dtype))
    shape = sample_shape("wald", shape, mean=mean)
    keys = split_key(key, (2,))
    v, z = wide_normal(keys[0], shape, dtype), drawn(keys[1], shape, dtype)
    y = v * v
    square = mean * mean
    x = mean + square * y / 2 - mean / 2 * sqrt(4 * mean * y + square * (y * y))
    return rounded(where(z <= mean / (mean + x), x, square / x), dtype)
