# SPDX-License-Identifier: MIT
"""SciPy's functions and distributions on the stand-in device: values and gradients are NumPy's and stay there."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import tree
from functorch_lite.scipy import optimize, special, stats

SPECIAL = {
    "boxcox": 2, "boxcox1p": 2, "comb": 2, "dawsn": 1, "exp1": 1, "expi": 1, "exprel": 1, "fresnel": 1, "owens_t": 2,
    "poch": 2, "sici": 1, "spence": 1, "gammasgn": 1, "loggamma": 1,
}
STATS = {
    "norm": 0, "laplace": 0, "cauchy": 0, "logistic": 0, "t": 1, "gumbel_l": 0, "gumbel_r": 0, "gennorm": 1, "expon": 0,
    "uniform": 0, "gamma": 1, "chi2": 1, "beta": 2, "pareto": 1, "truncnorm": 2, "vonmises": 1, "wrapcauchy": 1,
    "poisson": 1, "bernoulli": 1, "binom": 2, "nbinom": 2, "geom": 1, "betabinom": 3,
}
FUNCTIONS = ("logpdf", "cdf", "logcdf", "sf", "logsf", "ppf", "isf", "logpmf")
PAIRS = [(n, w) for n in STATS for w in FUNCTIONS if hasattr(getattr(stats, n), w)]
SHAPES = {"wrapcauchy": (0.4,), "bernoulli": (0.4,), "geom": (0.4,), "binom": (5.0, 0.4), "nbinom": (5.0, 0.4),
          "betabinom": (5.0, 1.5, 0.5), "truncnorm": (-1.0, 2.0)}


def total(out):
    return sum(part.sum() for part in tree.leaves(out))


def assert_same_there(xp, found, expected):
    assert all(isinstance(leaf, xp.ndarray) for leaf in tree.leaves(found))
    for ours, theirs in zip(tree.leaves(found), tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours.get(), theirs, rtol=1e-10, atol=1e-14)


def check(xp, fun, *args):
    def both(*args):
        return fun(*args), fl.grad(lambda *a: total(fun(*a)))(*args)

    there = [xp.asarray(a) for a in args]
    for run in (both, fl.jit(both)):
        assert_same_there(xp, run(*there), both(*args))


@pytest.mark.parametrize("name", SPECIAL)
def test_a_special_function(device, name):
    check(device, getattr(special, name), *[np.array([0.4, 1.5, 2.5]), np.array([0.3, 1.0, 2.0])][: SPECIAL[name]])


def test_special_functions_of_given_orders(device):
    x = np.array([0.4, 1.5])
    check(device, lambda x: [special.expn(2, x), special.bessel_jn(x, v=2), special.iv(1, x)], x)
    check(device, lambda x: [p(special.sph_harm_y(3, -2, x, x)) for p in (np.real, np.imag)], x)


@pytest.mark.parametrize(("name", "which"), PAIRS)
def test_a_distribution(device, name, which):
    x = np.array([0.3, 0.6]) if which in ("ppf", "isf") else np.array([1.0, 1.5])
    shapes = SHAPES.get(name, (1.5, 2.5)[: STATS[name]])
    check(device, lambda x: getattr(getattr(stats, name), which)(x, *shapes), x)


def test_vectors_ranks_and_kernel_densities(device):
    x, alpha, cov = np.array([0.2, 0.3, 0.5]), np.array([1.0, 2.0, 0.7]), np.diag([1.0, 2.0, 3.0])
    check(device, lambda a, x: stats.dirichlet.logpdf(x, a), alpha, x)
    check(device, lambda p, k: stats.multinomial.logpmf(k, 3, p), x, np.array([1.0, 2.0, 0.0]))
    check(device, lambda x, c: stats.multivariate_normal.logpdf(x, None, c), x, cov)
    check(device, lambda d, x: stats.gaussian_kde(d)(x), np.array([0.1, 0.5, 1.5, 0.4]), x)
    check(device, lambda x: [stats.mode(x).mode, stats.sem(x)], np.array([1.0, 2.0, 2.0, 3.0]))
    ranks = stats.rankdata(device.asarray(np.array([3.0, 1.0, 3.0])))
    np.testing.assert_array_equal(ranks.get(), [2.5, 1.0, 2.5])


def test_minimize(device):
    found = optimize.minimize(lambda x: ((x - 2) ** 2).sum(), device.asarray(np.zeros(3)))
    assert isinstance(found.x, device.ndarray) and bool(found.success)
    np.testing.assert_allclose(found.x.get(), 2.0, atol=1e-6)
