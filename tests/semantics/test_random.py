# SPDX-License-Identifier: MIT
"""SEMANTICS J, the rows about random numbers: prefixes, distributions, derivatives of samples."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

import functorch_lite as fl
from functorch_lite import random

KEY = random.key(42)
N = 1_000_000
LEVEL = 1e-4
F64 = np.float64


def test_J14_a_longer_split_begins_like_a_shorter_one():
    np.testing.assert_array_equal(random.split(KEY, 3)[:2], random.split(KEY, 2))
    np.testing.assert_array_equal(random.uniform(KEY, (3,))[:2], random.uniform(KEY, (2,)))


# --- J17: distributions -----------------------------------------------------------------------------------------------

CONTINUOUS = {
    "uniform": (lambda k: random.uniform(k, (N,), F64), scipy.stats.uniform()),
    "uniform f32": (lambda k: random.uniform(k, (N,)), scipy.stats.uniform()),
    "normal": (lambda k: random.normal(k, (N,), F64), scipy.stats.norm()),
    "normal f32": (lambda k: random.normal(k, (N,)), scipy.stats.norm()),
    "truncated normal": (lambda k: random.truncated_normal(k, -1.0, 2.0, (N,), F64), scipy.stats.truncnorm(-1, 2)),
    "exponential": (lambda k: random.exponential(k, (N,), F64), scipy.stats.expon()),
    "laplace": (lambda k: random.laplace(k, (N,), F64), scipy.stats.laplace()),
    "logistic": (lambda k: random.logistic(k, (N,), F64), scipy.stats.logistic()),
    "gumbel": (lambda k: random.gumbel(k, (N,), F64), scipy.stats.gumbel_r()),
    "cauchy": (lambda k: random.cauchy(k, (N,), F64), scipy.stats.cauchy()),
    "gamma": (lambda k: random.gamma(k, 2.5, (N,), F64), scipy.stats.gamma(2.5)),
    "gamma below 1": (lambda k: random.gamma(k, 0.3, (N,), F64), scipy.stats.gamma(0.3)),
    "gamma above 1000": (lambda k: random.gamma(k, 2000.0, (N,), F64), scipy.stats.gamma(2000.0)),
    "beta": (lambda k: random.beta(k, 2.0, 3.0, (N,), F64), scipy.stats.beta(2.0, 3.0)),
    "t": (lambda k: random.t(k, 2.5, (N,), F64), scipy.stats.t(2.5)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_J17_a_million_samples_follow_their_distribution(name):
    draw, distribution = CONTINUOUS[name]
    assert scipy.stats.kstest(draw(KEY), distribution.cdf, method="asymp").pvalue > LEVEL


TAILS = {
    "normal": (lambda: random.normal(KEY, (N,), F64), scipy.stats.norm()),
    "gamma 0.3": (lambda: random.gamma(KEY, 0.3, (N,), F64), scipy.stats.gamma(0.3)),
    "gamma 2": (lambda: random.gamma(KEY, 2.0, (N,), F64), scipy.stats.gamma(2.0)),
    "gamma 50": (lambda: random.gamma(KEY, 50.0, (N,), F64), scipy.stats.gamma(50.0)),
    "poisson 4": (lambda: random.poisson(KEY, 4.0, (N,)), scipy.stats.poisson(4.0)),
    "poisson 9.9": (lambda: random.poisson(KEY, 9.9, (N,)), scipy.stats.poisson(9.9)),
    "poisson 10": (lambda: random.poisson(KEY, 10.0, (N,)), scipy.stats.poisson(10.0)),
    "poisson 200": (lambda: random.poisson(KEY, 200.0, (N,)), scipy.stats.poisson(200.0)),
}


@pytest.mark.parametrize("name", TAILS)
def test_J17_both_tails_hold_as_many_samples_as_they_should(name):
    draw, law = TAILS[name]
    drawn = np.asarray(draw())
    for chance in (1e-3, 1e-4, 1e-5):
        above, below = law.isf(chance), law.ppf(chance)
        assert scipy.stats.binomtest(int((drawn > above).sum()), N, law.sf(above)).pvalue > LEVEL
        assert scipy.stats.binomtest(int((drawn <= below).sum()), N, law.cdf(below)).pvalue > LEVEL


@pytest.mark.parametrize("mean", [0.1, 4.0, 10.0, 60.0])
def test_J17_counts_of_poisson_numbers(mean):
    n = 200_000
    drawn, law = np.asarray(random.poisson(KEY, mean, (n,))), scipy.stats.poisson(mean)
    low, high = int(law.ppf(1e-5)), int(law.isf(1e-5))  # the two outer cells hold the tails
    edges = np.arange(low, high)
    expected = np.diff([0.0, *law.cdf(edges), 1.0]) * n
    counts = np.bincount(np.clip(drawn, low, high) - low, minlength=high - low + 1)
    assert scipy.stats.chisquare(counts, expected).pvalue > LEVEL


def test_J17_choice_without_replacement_draws_every_ordered_triple_alike():
    keys = random.split(KEY, 50_000)
    drawn = np.asarray(fl.vmap(lambda k: random.choice(k, 6, (3,), replace=False))(keys))
    ordered = np.sort(drawn, axis=1)
    assert (ordered[:, :-1] < ordered[:, 1:]).all()
    found, counts = np.unique(drawn @ [36, 6, 1], return_counts=True)
    assert len(found) == 6 * 5 * 4
    assert scipy.stats.chisquare(counts).pvalue > LEVEL


def test_J17_choice_without_replacement_by_probabilities():
    p = np.array([0.1, 0.0, 0.4, 0.3, 0.2])
    keys = random.split(KEY, 50_000)
    first, second = np.asarray(fl.vmap(lambda k: random.choice(k, 5, (2,), replace=False, p=p))(keys)).T
    counts = np.zeros((5, 5))
    np.add.at(counts, (first, second), 1)
    expected = p[:, None] * p / (1 - p)[:, None] * (1 - np.eye(5))
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert scipy.stats.chisquare(counts[possible], expected[possible] * len(keys)).pvalue > LEVEL


def test_J17_permutations_are_uniform():
    keys = random.split(KEY, 120_000)
    orders = np.asarray(fl.vmap(lambda k: random.permutation(k, 4))(keys))
    found, counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)
    assert len(found) == 24
    assert scipy.stats.chisquare(counts).pvalue > LEVEL


def test_J17_a_long_permutation_puts_every_element_anywhere():
    n, rounds = 1000, 500
    orders = np.asarray(fl.vmap(lambda k: random.permutation(k, n))(random.split(KEY, rounds)))
    assert (np.sort(orders, axis=1) == np.arange(n)).all()
    cells = np.zeros((10, 10))
    np.add.at(cells, (np.arange(n) * 10 // n, orders * 10 // n), 1)
    assert scipy.stats.chisquare(cells.ravel()).pvalue > LEVEL
    assert scipy.stats.chisquare(np.bincount(orders[:, 0] * 10 // n, minlength=10)).pvalue > LEVEL


# --- J17: samples move with their parameters at a fixed quantile ------------------------------------------------------


def moved(log_x, a, h):
    """The logarithm of a gamma(a) sample, moved to a + h at its quantile."""
    return np.log(scipy.special.gammaincinv(a + h, scipy.special.gammainc(a, np.exp(log_x))))


def central(f, h=1e-5):
    return (f(h) - f(-h)) / (2 * h)


@pytest.mark.parametrize("a", [0.2, 0.7, 3.0, 30.0])
def test_J17_samples_of_gamma_have_the_implicit_derivative(a):
    def draw(a):
        return random.gamma(KEY, a, (50,), F64)

    logs = np.log(draw(a))
    expected = central(lambda h: np.exp(moved(logs, a, h)))
    for slope in (fl.jacfwd(draw)(F64(a)), fl.jacrev(draw)(F64(a)), fl.jit(fl.jacrev(draw))(F64(a))):
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("a, b", [(0.6, 1.4), (3.0, 2.0)])
def test_J17_samples_of_beta_have_the_implicit_derivatives(a, b):
    def draw(a, b):
        return random.beta(KEY, a, b, (50,), F64)

    first, second = random.split(KEY)
    log_a, log_b = random.loggamma(first, a, (50,), F64), random.loggamma(second, b, (50,), F64)

    def ratio(log_a, log_b):
        return 1 / (1 + np.exp(log_b - log_a))

    np.testing.assert_allclose(draw(a, b), ratio(log_a, log_b), rtol=1e-13)
    of_a, of_b = fl.jacrev(draw, (0, 1))(F64(a), F64(b))
    np.testing.assert_allclose(of_a, central(lambda h: ratio(moved(log_a, a, h), log_b)), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(of_b, central(lambda h: ratio(log_a, moved(log_b, b, h))), rtol=1e-4, atol=1e-9)


def test_J17_samples_of_dirichlet_have_the_implicit_derivatives():
    alpha = np.array([0.7, 1.5, 4.0])

    def draw(alpha):
        return random.dirichlet(KEY, alpha, (20,), F64)

    logs = random.loggamma(KEY, alpha, (20, 3), F64)

    def shares(h, j):
        parts = np.exp(np.where(np.arange(3) == j, moved(logs, alpha, h), logs))
        return parts / parts.sum(-1, keepdims=True)

    np.testing.assert_allclose(draw(alpha), shares(0.0, 0), rtol=1e-9)
    found = fl.jacrev(draw)(alpha)
    np.testing.assert_allclose(found.sum(1), np.zeros((20, 3)), atol=1e-12)  # the shares of a draw sum to 1
    for j in range(3):
        np.testing.assert_allclose(found[..., j], central(lambda h, j=j: shares(h, j)), rtol=1e-4, atol=1e-8)
