# SPDX-License-Identifier: MIT
"""Derivatives of samples in their parameters, against finite differences of the same sample or of its quantile."""

import numpy as np
import pytest
from scipy import special as sc
from scipy import stats

import functorch_lite as fl
from functorch_lite import random

KEY = random.key(3)
F64 = np.float64


def sum_of(sampler):
    return lambda *parameters: sampler(*parameters).sum()


PATHWISE = {
    "uniform_minval": (lambda a: random.uniform(KEY, (5,), F64, a, 3.0), 0.7),
    "uniform_maxval": (lambda a: random.uniform(KEY, (5,), F64, 0.3, a), 2.0),
    "loc_scale": (lambda a: 2.0 + a * random.normal(KEY, (5,), F64), 1.3),
    "truncated_normal": (lambda a: random.truncated_normal(KEY, -1.0, a, (5,), F64), 0.8),
    "lognormal": (lambda a: random.lognormal(KEY, a, (5,), F64), 0.7),
    "double_sided_maxwell": (lambda a: random.double_sided_maxwell(KEY, 1.0, a, (5,), F64), 1.2),
    "weibull_min": (lambda a: random.weibull_min(KEY, 1.5, a, (5,), F64), 2.0),
    "pareto": (lambda a: random.pareto(KEY, a, (5,), F64), 2.0),
    "rayleigh": (lambda a: random.rayleigh(KEY, a, (5,), F64), 1.5),
    "triangular": (lambda a: random.triangular(KEY, 0.0, a, 4.0, (5,), F64), 1.1),
    "wald": (lambda a: random.wald(KEY, a, (5,), F64), 1.4),
    "multivariate_normal": (
        lambda a: random.multivariate_normal(KEY, np.zeros(2), a * np.eye(2) + 0.1, (5,), F64), 1.4),
}


@pytest.mark.parametrize("name", list(PATHWISE))
def test_derivative_of_sample_equals_finite_difference(name):
    sampler, at = PATHWISE[name]
    f, h = sum_of(sampler), 1e-6
    want = (f(at + h) - f(at - h)) / (2 * h)
    np.testing.assert_allclose(fl.grad(f)(F64(at)), want, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("a", [0.05, 0.5, 1.0, 3.0, 40.0])
def test_gamma_moves_at_a_fixed_quantile(a):
    x, slope = fl.jvp(lambda a: random.gamma(KEY, a, (20,), F64), (F64(a),), (F64(1.0),))
    kept = x > 1e-100  # smaller ones have no accurate quantile in float64
    h = 1e-5 * a
    quantile = sc.gammainc(a, x)
    want = (sc.gammaincinv(a + h, quantile) - sc.gammaincinv(a - h, quantile)) / (2 * h)
    middle = kept & (quantile < 1 - 1e-8)
    np.testing.assert_allclose(slope[middle], want[middle], rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("a", [0.01, 0.3, 2.0])
def test_loggamma_moves_at_a_fixed_quantile(a, dtype):
    x, slope = fl.jvp(lambda a: random.loggamma(KEY, a, (20,), dtype), (dtype(a),), (dtype(1.0),))
    a = float(dtype(a))
    x = np.asarray(x, F64)
    # log x where x underflows: P(a, x) = x^a / Gamma(a + 1) to rounding.
    tiny = x < -40
    limit = (sc.digamma(a + 1) - x) / a
    h = 1e-5 * a
    usual = np.where(tiny, 1.0, np.exp(x))
    quantile = sc.gammainc(a, usual)
    moved = (sc.gammaincinv(a + h, quantile) - sc.gammaincinv(a - h, quantile)) / (2 * h) / usual
    np.testing.assert_allclose(slope, np.where(tiny, limit, moved), rtol=2e-3 if dtype == np.float32 else 1e-4)


def test_mean_of_beta_and_dirichlet_moves_as_it_should():
    # E beta(a, b) = a / (a + b), E dirichlet(alpha)_i = alpha_i / sum(alpha): the mean of sample derivatives is theirs.
    a, b, n = 0.8, 1.7, 20000
    slope = fl.grad(lambda a: random.beta(KEY, a, b, (n,), F64).mean())(F64(a))
    np.testing.assert_allclose(slope, b / (a + b) ** 2, rtol=0.03)
    alpha = np.array([0.5, 1.0, 2.5])
    got = fl.jacrev(lambda alpha: random.dirichlet(KEY, alpha, (n,), F64).mean(0))(alpha)
    total = alpha.sum()
    np.testing.assert_allclose(got, (np.eye(3) * total - alpha[:, None]) / total**2, atol=0.01)


@pytest.mark.parametrize("name", ["chisquare", "t", "f", "generalized_normal"])
def test_distributions_made_of_gamma_have_finite_derivatives(name):
    sampler = {
        "chisquare": lambda a: random.chisquare(KEY, a, (9,), F64),
        "t": lambda a: random.t(KEY, a, (9,), F64),
        "f": lambda a: random.f(KEY, a, 3.0, (9,), F64),
        "generalized_normal": lambda a: random.generalized_normal(KEY, a, (9,), F64),
    }[name]
    forward = fl.jvp(sum_of(sampler), (F64(2.5),), (F64(1.0),))[1]
    assert np.isfinite(forward)
    np.testing.assert_allclose(fl.grad(sum_of(sampler))(F64(2.5)), forward, rtol=1e-12)


def test_chisquare_mean_has_derivative_one():
    slope = fl.grad(lambda df: random.chisquare(KEY, df, (20000,), F64).mean())(F64(3.0))
    np.testing.assert_allclose(slope, 1.0, rtol=0.02)
    assert stats.chi2(3).mean() == 3


@pytest.mark.parametrize("transform", [fl.jit, lambda f: fl.vmap(f, in_axes=(None, 0))])
def test_gradient_of_gamma_under_transforms(transform):
    f = fl.grad(lambda a, key: random.gamma(key, a, dtype=F64))
    keys = random.split(KEY, 3)
    if transform is fl.jit:
        np.testing.assert_allclose(fl.jit(f)(F64(0.7), KEY), f(F64(0.7), KEY), rtol=1e-15)
    else:
        np.testing.assert_array_equal(transform(f)(F64(0.7), keys), [f(F64(0.7), k) for k in keys])


def test_counts_and_choices_do_not_move():
    heads = random.bernoulli(KEY, 0.3, (4,)).sum()
    assert fl.grad(lambda x: x * random.bernoulli(KEY, 0.3, (4,)).sum())(F64(2.0)) == heads
    assert fl.grad(lambda p: random.binomial(KEY, 10.0, p, (4,), F64).sum())(F64(0.3)) == 0
    count = random.poisson(KEY, 3.0, (4,)).astype(np.float32)
    slope = fl.grad(lambda lam: (lam * random.poisson(KEY, lam, (4,)).astype(np.float32)).sum())
    assert slope(np.float32(3.0)) == count.sum()


def test_rearranged_values_carry_their_derivatives():
    x = np.arange(4.0)
    weight = np.array([1.0, 10.0, 100.0, 1000.0])
    order = random.permutation(KEY, 4)
    got = fl.grad(lambda x: (random.permutation(KEY, x) * weight).sum())(x)
    want = np.empty(4)
    want[order] = weight
    np.testing.assert_array_equal(got, want)
    drawn = random.choice(KEY, 4, (3,))
    got = fl.grad(lambda x: random.choice(KEY, x, (3,)).sum())(x)
    np.testing.assert_array_equal(got, np.bincount(drawn, minlength=4))
