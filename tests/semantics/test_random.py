# SPDX-License-Identifier: MIT
"""SEMANTICS J, the rows about random numbers: prefixes, distributions, derivatives of samples."""

import numpy as np
import pytest
import scipy.stats

import functorch_lite as fl
from functorch_lite import random

KEY = random.key(42)
N = 100_000


def test_J14_a_longer_split_begins_like_a_shorter_one():
    np.testing.assert_array_equal(random.split(KEY, 3)[:2], random.split(KEY, 2))
    np.testing.assert_array_equal(random.uniform(KEY, (3,))[:2], random.uniform(KEY, (2,)))


CONTINUOUS = {
    "uniform": (lambda k: random.uniform(k, (N,), np.float64), scipy.stats.uniform()),
    "normal": (lambda k: random.normal(k, (N,), np.float64), scipy.stats.norm()),
    "exponential": (lambda k: random.exponential(k, (N,), np.float64), scipy.stats.expon()),
    "laplace": (lambda k: random.laplace(k, (N,), np.float64), scipy.stats.laplace()),
    "gamma": (lambda k: random.gamma(k, 2.5, (N,), np.float64), scipy.stats.gamma(2.5)),
    "gamma below 1": (lambda k: random.gamma(k, 0.3, (N,), np.float64), scipy.stats.gamma(0.3)),
    "beta": (lambda k: random.beta(k, 2.0, 3.0, (N,), np.float64), scipy.stats.beta(2.0, 3.0)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_J17_samples_follow_their_distribution(name):
    draw, distribution = CONTINUOUS[name]
    assert scipy.stats.kstest(draw(KEY), distribution.cdf).pvalue > 1e-4


def test_J17_the_tail_of_poisson_numbers():
    drawn = np.asarray(random.poisson(KEY, 4.0, (N,)))
    found = np.bincount(drawn, minlength=13)
    expected = scipy.stats.poisson(4.0).pmf(np.arange(12))
    counts, wanted = [*found[:12], found[12:].sum()], [*expected, 1 - expected.sum()]
    assert scipy.stats.chisquare(counts, np.array(wanted) * N).pvalue > 1e-4


def test_J17_choice_without_replacement_and_permutations():
    drawn = random.choice(KEY, 10, (6,), replace=False)
    assert len(set(np.asarray(drawn).tolist())) == 6
    keys = random.split(KEY, 12_000)
    orders = np.asarray(fl.vmap(lambda k: random.permutation(k, 3))(keys))
    _, counts = np.unique(orders @ [9, 3, 1], return_counts=True)
    assert len(counts) == 6
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def quantile_slope(quantile, cdf, a, x):
    """d x / d a at fixed probability: the implicit derivative, by differences."""
    p = cdf(x, a)
    return (quantile(p, a + 1e-5) - quantile(p, a - 1e-5)) / 2e-5


@pytest.mark.parametrize("a", [0.7, 3.0])
def test_J17_samples_of_gamma_have_the_implicit_derivative(a):
    x, slope = fl.value_and_grad(lambda a: random.gamma(KEY, a, (), np.float64))(a)
    expected = quantile_slope(lambda p, a: scipy.stats.gamma(a).ppf(p), lambda x, a: scipy.stats.gamma(a).cdf(x), a, x)
    assert slope == pytest.approx(expected, rel=1e-4)
