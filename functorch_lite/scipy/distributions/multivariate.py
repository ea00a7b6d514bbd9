# SPDX-License-Identifier: MIT
"""Distributions of vectors: Dirichlet, multinomial and the multivariate normal.

Source: N. L. Johnson, S. Kotz, N. Balakrishnan, "Continuous multivariate distributions", 2nd ed., 2000.
"""

import math
from typing import Any

import numpy as np

import functorch_lite.numpy as f
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.promotion import promote, to_float
from functorch_lite.primitives import linalg as linear
from functorch_lite.primitives import special as p
from functorch_lite.scipy.distributions.common import Continuous, Discrete, inside, is_count
from functorch_lite.scipy.linalg import solve_triangular
from functorch_lite.transforms.arguments import on_its_device, quiet


def _floats(*values):
    return [to_float(v) for v in promote(*values)]


class dirichlet(Continuous):
    """The Dirichlet distribution of concentrations alpha [K]."""

    @staticmethod
    @on_its_device
    def logpdf(x: Any, alpha: Any) -> Any:
        """The logarithm of the density [...] at x [K, ...], or x [K - 1, ...]: then the last is 1 minus their sum.

        Minus infinity where x is no point of the simplex, its sum not 1 to 1e-9 (1e-5 in float32).
        Raises: ShapeError for other shapes.
        """
        x, alpha = _floats(x, alpha)
        size = alpha.shape[0] if len(alpha.shape) == 1 else -1
        if size < 1 or not x.shape or x.shape[0] not in (size, size - 1):
            raise ShapeError(f"dirichlet: for alpha [K], x is [K, ...] or [K - 1, ...]; got {x.shape}, {alpha.shape}.")
        with quiet():
            if x.shape[0] == size - 1:
                x = f.concatenate([x, 1 - f.sum(x, axis=0, keepdims=True)])
            near = 1e-9 if x.dtype.itemsize == 8 else 1e-5
            support = f.all(x >= 0, axis=0) & (f.absolute(f.sum(x, axis=0) - 1) <= near)
            safe = f.where(support, x, 1 / size)
            weights = f.broadcast_to(f.reshape(alpha - 1, (size, *[1] * (len(x.shape) - 1))), x.shape)
            constant = f.sum(p.lgamma(alpha)) - p.lgamma(f.sum(alpha))
            return inside(support, f.sum(p.xlogy(weights, safe), axis=0) - constant)


class multinomial(Discrete):
    """The multinomial distribution: counts of K outcomes of probabilities p [..., K] in n trials."""

    @staticmethod
    @on_its_device
    def logpmf(x: Any, n: Any, p: Any) -> Any:
        """The logarithm of the probability [...] of the counts x [..., K]. The probabilities are taken as they are."""
        x, n, p = _floats(x, n, p)
        with quiet():
            x, p = f.broadcast_arrays(e.stop_gradient_of(x), p)
            total = e.stop_gradient_of(n)
            support = f.all(is_count(x), axis=-1) & (f.sum(x, axis=-1) == total)
            safe = f.where(support[..., None], x, 0.0)
            return inside(support, _log_ways(total, safe, p) + f.zeros(support.shape, x.dtype))


def _log_ways(n, x, probability):
    return p.lgamma(n + 1) + f.sum(p.xlogy(x, probability) - p.lgamma(x + 1), axis=-1)


class multivariate_normal(Continuous):
    """The normal distribution of vectors [d], of mean [..., d] and covariance [..., d, d]."""

    @staticmethod
    @on_its_device
    def logpdf(x: Any, mean: Any = None, cov: Any = 1, allow_singular: bool = False) -> Any:
        """The logarithm of the density [...] at x [..., d].

        mean: zero if None. cov: a positive definite matrix, a diagonal [d], or a number times the identity. Where d is
        1 and mean and cov are numbers or [1], x is [...]. A covariance that is not positive definite gives NaN or
        LinAlgError, as `cholesky` does.
        Raises: ArgumentError for allow_singular=True, ShapeError where the dimensions differ.
        """
        if allow_singular:
            raise ArgumentError("multivariate_normal: allow_singular=True is not supported. Add to cov's diagonal.")
        x, mean, cov = _floats(x, 0.0 if mean is None else mean, cov)
        d = _dimension(x, mean, cov)
        if d == 1 and (len(x.shape) < 2 or x.shape[-1] != 1):
            x = x[..., None]
        if x.shape[-1] != d or mean.shape[-1:] not in ((), (d,)):
            raise ShapeError(f"multivariate_normal: shapes {x.shape}, {mean.shape} and {cov.shape} do not go together.")
        with quiet():
            if len(cov.shape) < 2:
                root = f.sqrt(cov)
                whitened, log_root = (x - mean) / root, f.sum(f.log(f.broadcast_to(root, (d,))))
            else:
                factor = linear.cholesky(cov)
                whitened = _solved(factor, x - mean)
                log_root = f.sum(f.log(f.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
            return f.sum(whitened * whitened, axis=-1) * -0.5 - d * math.log(2 * math.pi) / 2 - log_root


def _dimension(x, mean, cov):
    if cov.shape:
        if len(cov.shape) > 1 and cov.shape[-1] != cov.shape[-2]:
            raise ShapeError(f"multivariate_normal: cov must be square, got {cov.shape}.")
        return cov.shape[-1]
    return mean.shape[-1] if mean.shape else 1


def _solved(factor, x):
    """L^-1 x of the vectors x [..., d]."""
    if len(factor.shape) > 2:
        return solve_triangular(factor, x[..., None], lower=True)[..., 0]
    d = x.shape[-1]
    rows = f.reshape(x, (int(np.prod(x.shape[:-1])), d))
    return f.reshape(solve_triangular(factor, rows.T, lower=True).T, x.shape)
