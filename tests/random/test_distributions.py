# SPDX-License-Identifier: MIT
"""Samples follow their distributions: Kolmogorov-Smirnov and chi-square tests with fixed keys, p > 1e-4."""

import itertools

import numpy as np
import pytest
from scipy import stats

from functorch_lite import random

N = 20000
LEVEL = 1e-4

CONTINUOUS = {
    "uniform": (lambda k: random.uniform(k, (N,), minval=-2.0, maxval=3.0), stats.uniform(-2, 5)),
    "normal": (lambda k: random.normal(k, (N,)), stats.norm()),
    "normal_f64": (lambda k: random.normal(k, (N,), np.float64), stats.norm()),
    "truncated_normal": (lambda k: random.truncated_normal(k, -1.0, 2.0, (N,)), stats.truncnorm(-1, 2)),
    "lognormal": (lambda k: random.lognormal(k, 0.7, (N,)), stats.lognorm(0.7)),
    "maxwell": (lambda k: random.maxwell(k, (N,)), stats.maxwell()),
    "exponential": (lambda k: random.exponential(k, (N,)), stats.expon()),
    "laplace": (lambda k: random.laplace(k, (N,)), stats.laplace()),
    "logistic": (lambda k: random.logistic(k, (N,)), stats.logistic()),
    "cauchy": (lambda k: random.cauchy(k, (N,)), stats.cauchy()),
    "gumbel": (lambda k: random.gumbel(k, (N,)), stats.gumbel_r()),
    "gumbel_high": (lambda k: random.gumbel(k, (N,), mode="high"), stats.gumbel_r()),
    "gumbel_highest": (lambda k: random.gumbel(k, (N,), mode="highest"), stats.gumbel_r()),
    "weibull_min": (lambda k: random.weibull_min(k, 2.0, 3.0, (N,)), stats.weibull_min(3, scale=2)),
    "pareto": (lambda k: random.pareto(k, 2.5, (N,)), stats.pareto(2.5)),
    "rayleigh": (lambda k: random.rayleigh(k, 1.5, (N,)), stats.rayleigh(scale=1.5)),
    "triangular": (lambda k: random.triangular(k, 0.0, 1.0, 4.0, (N,)), stats.triang(0.25, 0, 4)),
    "wald": (lambda k: random.wald(k, 1.5, (N,)), stats.invgauss(1.5)),
    "gamma_small": (lambda k: random.gamma(k, 0.3, (N,)), stats.gamma(0.3)),
    "gamma_large": (lambda k: random.gamma(k, 7.5, (N,)), stats.gamma(7.5)),
    "loggamma": (lambda k: random.loggamma(k, 0.05, (N,), np.float64), stats.loggamma(0.05)),
    "beta": (lambda k: random.beta(k, 0.4, 2.0, (N,)), stats.beta(0.4, 2)),
    "dirichlet": (lambda k: random.dirichlet(k, np.array([0.5, 1.0, 2.0]), (N,))[:, 0], stats.beta(0.5, 3)),
    "chisquare": (lambda k: random.chisquare(k, 3.0, (N,)), stats.chi2(3)),
    "f": (lambda k: random.f(k, 3.0, 7.0, (N,)), stats.f(3, 7)),
    "t": (lambda k: random.t(k, 2.5, (N,)), stats.t(2.5)),
    "generalized_normal": (lambda k: random.generalized_normal(k, 3.0, (N,)), stats.gennorm(3)),
    "ball_radius": (lambda k: (random.ball(k, 3, shape=(N,)).astype(np.float64) ** 2).sum(-1) ** 1.5, stats.uniform()),
}

DISCRETE = {
    "poisson_small": (lambda k: random.poisson(k, 3.0, (N,)), stats.poisson(3)),
    "poisson_large": (lambda k: random.poisson(k, 40.0, (N,)), stats.poisson(40)),
    "binomial_small": (lambda k: random.binomial(k, 10, 0.7, (N,)), stats.binom(10, 0.7)),
    "binomial_large": (lambda k: random.binomial(k, 200, 0.3, (N,)), stats.binom(200, 0.3)),
    "multinomial": (lambda k: random.multinomial(k, 12, np.array([0.2, 0.5, 0.3]), shape=(N, 3))[:, 1],
                    stats.binom(12, 0.5)),
    "geometric": (lambda k: random.geometric(k, 0.3, (N,)), stats.geom(0.3)),
    "randint": (lambda k: random.randint(k, (N,), -5, 17), stats.randint(-5, 17)),
    "randint_u8": (lambda k: random.randint(k, (N,), 0, 200, np.uint8), stats.randint(0, 200)),
    "bernoulli": (lambda k: random.bernoulli(k, 0.3, (N,)).astype(int), stats.bernoulli(0.3)),
    "bernoulli_high": (lambda k: random.bernoulli(k, 0.3, (N,), mode="high").astype(int), stats.bernoulli(0.3)),
    "choice": (lambda k: random.choice(k, 7, (N,)), stats.randint(0, 7)),
}


@pytest.mark.parametrize("name", list(CONTINUOUS))
def test_continuous_samples_pass_kolmogorov_smirnov(name):
    draw, law = CONTINUOUS[name]
    found = np.asarray(draw(random.key(17)), np.float64)
    if name == "pareto":
        found = np.maximum(found, 1)
    assert stats.kstest(found, law.cdf).pvalue > LEVEL


def pooled(counts, expected, least=10):
    """Neighbouring cells joined until each expects at least `least`."""
    rows, total, number = [], 0.0, 0
    for c, e in zip(counts, expected, strict=True):
        total, number = total + e, number + c
        if total >= least:
            rows.append((number, total))
            total, number = 0.0, 0
    rows[-1] = (rows[-1][0] + number, rows[-1][1] + total)
    return np.array(rows).T


@pytest.mark.parametrize("name", list(DISCRETE))
def test_discrete_samples_pass_chi_square(name):
    draw, law = DISCRETE[name]
    found = np.asarray(draw(random.key(23))).astype(int)
    low, high = int(found.min()), int(found.max())
    values = np.arange(low, high + 1)
    expected = law.pmf(values) * N
    expected[0], expected[-1] = law.cdf(low) * N, law.sf(high - 1) * N
    counts, expected = pooled(np.bincount(found - low, minlength=len(values)), expected)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > LEVEL


def test_tails_of_gamma_and_poisson():
    gamma = random.gamma(random.key(1), 2.0, (200000,))
    edge = stats.gamma(2).isf(1e-3)
    assert stats.binomtest(int((gamma > edge).sum()), gamma.size, 1e-3).pvalue > LEVEL
    poisson = random.poisson(random.key(2), 50.0, (100000,))
    chance = stats.poisson(50).sf(74)
    assert stats.binomtest(int((poisson > 74).sum()), poisson.size, chance).pvalue > LEVEL


def test_permutations_of_three_are_uniform():
    keys = random.split(random.key(5), 3000)
    index = {p: i for i, p in enumerate(itertools.permutations(range(3)))}
    counts = np.bincount([index[tuple(random.permutation(k, 3).tolist())] for k in keys], minlength=6)
    assert stats.chisquare(counts).pvalue > LEVEL


def test_choice_by_probability_draws_in_proportion():
    p = np.array([0.1, 0.0, 0.4, 0.3, 0.2], np.float32)
    counts = np.bincount(random.choice(random.key(6), 5, (N,), p=p), minlength=5)
    assert counts[1] == 0
    kept = p > 0
    assert stats.chisquare(counts[kept], (p[kept] / p.sum()).astype(np.float64) * N, sum_check=False).pvalue > LEVEL


def test_choice_without_replacement_has_no_repeats_and_its_first_follows_p():
    p = np.array([0.1, 0.4, 0.3, 0.2], np.float32)
    draws = np.stack([random.choice(k, 4, (2,), replace=False, p=p) for k in random.split(random.key(7), 2000)])
    assert (draws[:, 0] != draws[:, 1]).all()
    counts = np.bincount(draws[:, 0], minlength=4)
    expected = p.astype(np.float64) / p.sum(dtype=np.float64) * 2000
    assert stats.chisquare(counts, expected, sum_check=False).pvalue > LEVEL


def test_categorical_follows_the_softmax():
    logits = np.array([0.0, 1.0, -1.0, 2.0], np.float32)
    counts = np.bincount(random.categorical(random.key(8), logits, shape=(N,)), minlength=4)
    p = np.exp(logits.astype(np.float64))
    assert stats.chisquare(counts, p / p.sum() * N).pvalue > LEVEL


def test_signs_are_fair_and_matrices_orthogonal():
    signs = random.rademacher(random.key(9), (N,))
    assert stats.binomtest(int((signs == 1).sum()), N).pvalue > LEVEL
    q = random.orthogonal(random.key(10), 4, (5,), np.float64)
    np.testing.assert_allclose(q @ q.swapaxes(-1, -2), np.broadcast_to(np.eye(4), q.shape), atol=1e-13)


def test_multivariate_normal_has_its_covariance():
    cov = np.array([[2.0, 0.5], [0.5, 1.0]])
    for method in ("cholesky", "eigh", "svd"):
        x = random.multivariate_normal(random.key(12), np.array([1.0, -1.0]), cov, (N,), np.float64, method)
        np.testing.assert_allclose(x.mean(0), [1, -1], atol=0.05)
        np.testing.assert_allclose(np.cov(x.T), cov, atol=0.1)
