# SPDX-License-Identifier: MIT
"""`gaussian_kde`: a density estimated from points, a sum of Gaussians around them.

Source: D. W. Scott, "Multivariate density estimation", 1992; B. W. Silverman, "Density estimation for statistics and
data analysis", 1986: the widths "scott" and "silverman".
"""

import math
from collections.abc import Callable
from typing import Any

import optree

import functorch_lite.numpy as f
from functorch_lite import tree
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy.promotion import asarray, promote, to_float
from functorch_lite.primitives import linalg as linear
from functorch_lite.primitives import special as p
from functorch_lite.random import choice, normal, split
from functorch_lite.scipy.linalg import solve_triangular
from functorch_lite.scipy.special import logsumexp
from functorch_lite.transforms.arguments import on_its_device, quiet


class gaussian_kde:
    """A density estimated from points `dataset` [d, n] (or [n]) of weights [n].

    bw_method: "scott" (also None) or "silverman", a number: the factor by which the standard deviation of the data is
    multiplied, or a function of the object that returns it. Differentiable in the data, weights and factor. It is a
    pytree of dataset, weights, covariance and neff.

    Raises: ShapeError for data of other shapes or of one point, ArgumentError for an unknown bw_method.
    """

    dataset: Any
    weights: Any
    covariance: Any
    neff: Any

    def __init__(self, dataset: Any, bw_method: Any = None, weights: Any = None):
        data = to_float(asarray(dataset))
        data = data[None] if len(data.shape) == 1 else data
        if len(data.shape) != 2 or data.shape[1] < 2:
            raise ShapeError(f"gaussian_kde: dataset must be [d, n] with n > 1, got {data.shape}.")
        self.dataset = data
        self.weights = _normalized(data, weights)
        with quiet():
            self.neff = 1 / f.sum(self.weights**2)
            centred = data - f.sum(data * self.weights, axis=1, keepdims=True)
            spread = (centred * self.weights) @ centred.T / (1 - f.sum(self.weights**2))
            self.covariance = spread * self._factor(bw_method) ** 2

    def _factor(self, method: Any) -> Any:
        if method is None or method == "scott":
            return self.neff ** (-1.0 / (self.d + 4))
        if isinstance(method, str):
            if method != "silverman":
                raise ArgumentError(f"gaussian_kde: bw_method is 'scott', 'silverman' or a number, got {method!r}.")
            return (self.neff * ((self.d + 2) / 4.0)) ** (-1.0 / (self.d + 4))
        return method(self) if isinstance(method, Callable) else method

    @property
    def d(self) -> int:
        """The dimension of the data."""
        return self.dataset.shape[0]

    @property
    def n(self) -> int:
        """The number of points."""
        return self.dataset.shape[1]

    @on_its_device
    def logpdf(self, x: Any) -> Any:
        """The logarithm of the density [m] at the points x [d, m] (or [m], or one point [d])."""
        with quiet():
            return _log_mixture(self.covariance, self._points(x), self.dataset, f.log(self.weights))

    @on_its_device
    def evaluate(self, points: Any) -> Any:
        """The density [m] at the points [d, m] (or [m], or one point [d])."""
        with quiet():
            return f.exp(self.logpdf(points))

    pdf = __call__ = evaluate

    @on_its_device
    def integrate_gaussian(self, mean: Any, cov: Any) -> Any:
        """The integral of the density times the normal density of `mean` [d] and `cov` [d, d]."""
        mean, cov = to_float(asarray(mean)), to_float(asarray(cov))
        total = self.covariance + f.reshape(cov, (self.d, self.d))
        with quiet():
            return f.exp(_log_mixture(total, f.reshape(mean, (self.d, 1)), self.dataset, f.log(self.weights)))[0]

    @on_its_device
    def integrate_box_1d(self, low: Any, high: Any) -> Any:
        """The probability of [low, high], for data of one dimension."""
        if self.d != 1:
            raise ShapeError(f"gaussian_kde.integrate_box_1d: the data have {self.d} dimensions, expected 1.")
        root = f.sqrt(2 * self.covariance[0, 0])
        with quiet():
            ends = [p.erfc((self.dataset[0] - end) / root) / 2 for end in (low, high)]
            return f.sum(self.weights * (ends[1] - ends[0]))

    @on_its_device
    def integrate_kde(self, other: "gaussian_kde") -> Any:
        """The integral of the product of two estimates of one dimension."""
        if other.d != self.d:
            raise ShapeError(f"gaussian_kde.integrate_kde: the data have {self.d} and {other.d} dimensions.")
        with quiet():
            logs = _log_mixture(
                self.covariance + other.covariance, other.dataset, self.dataset, f.log(self.weights)
            )
            return f.sum(f.exp(logs) * other.weights)

    @on_its_device
    def resample(self, key: Any, shape: tuple[int, ...] = ()) -> Any:
        """Random points [d, *shape] of the density, by a key of `functorch_lite.random`."""
        which, where = split(key)
        index = choice(which, self.n, shape, p=self.weights)
        noise = normal(where, (self.d, math.prod(shape)), self.dataset.dtype)
        moved = f.reshape(linear.cholesky(self.covariance) @ noise, (self.d, *shape))
        return f.take(self.dataset, index, axis=1) + moved

    def _points(self, x):
        x = to_float(asarray(x))
        if len(x.shape) < 2:
            x = f.reshape(x, (self.d, 1)) if self.d > 1 and x.shape == (self.d,) else f.reshape(x, (1, -1))
        if len(x.shape) != 2 or x.shape[0] != self.d:
            raise ShapeError(f"gaussian_kde: points must be [{self.d}, m], got {x.shape}.")
        return x


@on_its_device
def _normalized(data, weights):
    n = data.shape[1]
    if weights is None:
        return f.ones_like(data[0]) / n
    weights = promote(to_float(asarray(weights)), data)[0]
    if weights.shape != (n,):
        raise ShapeError(f"gaussian_kde: weights must be [{n}], one for each point, got {weights.shape}.")
    return weights / f.sum(weights)


def _log_mixture(covariance, points, centres, log_weights):
    """log of the sum over i of weights_i N(points_j; centres_i, covariance): [m]."""
    factor = linear.cholesky(covariance)
    at, around = [solve_triangular(factor, v, lower=True) for v in promote(points, centres)]
    gap = at[:, None, :] - around[:, :, None]
    norm = at.shape[0] * math.log(2 * math.pi) / 2 + f.sum(f.log(f.diagonal(factor)))
    return logsumexp(log_weights[:, None] - f.sum(gap * gap, axis=0) / 2, axis=0) - norm


_FIELDS = ("dataset", "weights", "covariance", "neff")


def _rebuilt(children):
    kde = object.__new__(gaussian_kde)
    for name, value in zip(_FIELDS, children, strict=True):
        setattr(kde, name, value)
    return kde


tree.register(
    gaussian_kde,
    lambda kde: ([getattr(kde, name) for name in _FIELDS], None, _FIELDS),
    lambda _, children: _rebuilt(children),
    entry_type=optree.GetAttrEntry,
)
