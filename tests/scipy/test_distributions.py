# SPDX-License-Identifier: MIT
"""Distributions: SciPy's values over wide ranges and beyond the support, derivatives, dtypes, jit and vmap."""

import numpy as np
import pytest
import scipy.stats

import functorch_lite as fl
from functorch_lite.errors import ArgumentError, MissingRuleError, ShapeError
from functorch_lite.scipy import stats

rng = np.random.default_rng(11)
LINE = np.concatenate([np.linspace(-9, 9, 37), [-300.0, -40.0, 40.0, 300.0, -np.inf, np.inf, np.nan]])
HALF = np.concatenate([np.linspace(-1, 9, 41), [1e-8, 1e-300, 50.0, 300.0, -np.inf, np.inf, np.nan]])
CIRCLE = np.concatenate([np.linspace(-0.5, 2 * np.pi + 0.5, 43), [np.nan]])
COUNTS = np.concatenate([np.arange(-2.0, 26.0), [2.5, -0.5, 90.0, np.inf, -np.inf, np.nan]])
Q = np.array([0.0, 1e-12, 0.01, 0.2, 0.25, 0.5, 0.7, 0.75, 0.99, 1 - 1e-12, 1.0, -0.1, 1.1, np.nan])

# name: (points, shape parameters, functions of the point, functions of a probability)
ALL, BOTH = ("logpdf", "pdf", "cdf", "logcdf", "sf", "logsf"), ("ppf", "isf")
MASS = ("logpmf", "pmf", "cdf", "logcdf", "sf", "logsf")
CASES = {
    "norm": (LINE, (), ALL, BOTH), "laplace": (LINE, (), ALL, BOTH), "cauchy": (LINE, (), ALL, BOTH),
    "logistic": (LINE, (), ALL, BOTH), "t": (LINE, (3.5,), ALL, ()), "gumbel_r": (LINE[:-3], (), ALL, BOTH),
    "gumbel_l": (LINE[:-3], (), ALL, BOTH), "gennorm": (LINE, (1.7,), ALL, ()), "expon": (HALF, (), ALL, BOTH),
    "uniform": (HALF / 4, (), ALL, BOTH), "gamma": (HALF, (2.3,), ALL, ()), "chi2": (HALF, (3.0,), ALL, ()),
    "beta": (HALF / 4, (1.7, 2.6), ALL, ()), "pareto": (HALF, (2.4,), ALL, BOTH),
    "truncnorm": (LINE, (-1.5, 2.5), ALL, BOTH), "vonmises": (CIRCLE, (1.8,), ("logpdf", "pdf"), ()),
    "wrapcauchy": (CIRCLE, (0.4,), ALL, BOTH), "poisson": (COUNTS, (4.2,), MASS, ()),
    "bernoulli": (COUNTS, (0.3,), MASS, ("ppf",)), "binom": (COUNTS, (20, 0.35), MASS, ()),
    "nbinom": (COUNTS, (6.5, 0.35), MASS, ()), "geom": (COUNTS, (0.3,), MASS, ("ppf",)),
    "betabinom": (COUNTS, (20, 2.3, 0.7), ("logpmf", "pmf"), ()),
}
POINTS = [(name, which) for name, case in CASES.items() for which in case[2]]
QUANTILES = [(name, which) for name, case in CASES.items() for which in case[3]]
SCALED = [c for c in POINTS + QUANTILES if not c[1].endswith("pmf") and hasattr(getattr(stats, c[0]), "logpdf")]


def both(name, which):
    return getattr(getattr(stats, name), which), getattr(getattr(scipy.stats, name), which)


def reference(fun, *args):
    with np.errstate(all="ignore"):
        return fun(*args)


def difference(fun, args, i, size=1e-6):
    """The central difference in argument i."""
    up, down = [[a + s * size if k == i else a for k, a in enumerate(args)] for s in (1, -1)]
    with np.errstate(all="ignore"):
        return (fun(*up) - fun(*down)) / (2 * size)


@pytest.mark.parametrize(("name", "which"), POINTS)
def test_function_of_a_point_equals_scipys(name, which):
    ours, scipys = both(name, which)
    x, shapes = CASES[name][:2]
    x = x[np.isfinite(x)] if name in ("cauchy", "gumbel_r", "gumbel_l") and which.startswith("log") else x
    expected = reference(scipys, x, *shapes)
    if CASES[name][0] is COUNTS and which in ("logcdf", "logsf"):  # SciPy's lose their digits near 0
        part, rest = [reference(both(name, w)[1], x, *shapes) for w in (which[3:], "sf" if "c" in which else "cdf")]
        expected = reference(lambda: np.where(part > 0.5, np.log1p(-rest), np.log(part)))
    np.testing.assert_allclose(ours(x, *shapes), expected, rtol=2e-12, atol=1e-300)
    np.testing.assert_allclose(fl.jit(lambda x: ours(x, *shapes))(x), expected, rtol=2e-12, atol=1e-300)


@pytest.mark.parametrize(("name", "which"), QUANTILES)
def test_quantile_equals_scipys(name, which):
    ours, scipys = both(name, which)
    shapes = CASES[name][1]
    expected = reference(scipys, Q, *shapes)
    np.testing.assert_allclose(ours(Q, *shapes), expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(fl.jit(lambda q: ours(q, *shapes))(Q), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("name", "which"), SCALED)
def test_location_and_scale_are_scipys(name, which):
    ours, scipys = both(name, which)
    x = np.array([0.2, 0.4, 0.7]) if which in BOTH else np.array([1.1, 1.9, 2.6])
    shapes = CASES[name][1]
    np.testing.assert_allclose(ours(x, *shapes, 0.3, 1.4), scipys(x, *shapes, 0.3, 1.4), rtol=1e-11)


@pytest.mark.parametrize(("name", "which"), POINTS + QUANTILES)
def test_float32_stays_float32(name, which):
    ours, scipys = both(name, which)
    shapes = [np.float32(s) for s in CASES[name][1]]
    x = np.array([0.25, 0.5], np.float32) if which in BOTH else np.array([1, 2, 0], np.float32)
    out = fl.jit(lambda x: ours(x, *shapes))(x)
    assert out.dtype == ours(x, *shapes).dtype == np.float32
    np.testing.assert_allclose(out, reference(scipys, x.astype(float), *[float(s) for s in shapes]), rtol=2e-5)


def known(name, which):
    """The shape parameters in which the function has a derivative."""
    shapes = range(1, 1 + len(CASES[name][1]))
    if name in ("t", "beta") and which not in ("logpdf", "pdf"):
        return []
    return [i for i in shapes if not (name in ("binom", "betabinom", "nbinom") and i == 1)]


@pytest.mark.parametrize(("name", "which"), POINTS + QUANTILES)
def test_derivatives_equal_differences_and_are_finite(name, which):
    ours, scipys = both(name, which)
    shapes = CASES[name][1]
    at = np.array([0.11, 0.37, 0.83]) if which in BOTH else np.array([0.31, 1.23, 2.1])
    at = np.array([1.0, 3.0, 7.0]) if CASES[name][0] is COUNTS and which not in BOTH else at
    args = [at, *[np.full(at.shape, float(s)) for s in shapes]]
    discrete = CASES[name][0] is COUNTS
    argnums = tuple(known(name, which)) + (() if discrete else (0,))
    for i in argnums:
        if discrete and which == "ppf":
            continue
        grads = fl.grad(lambda *a, i=i: ours(*args[:i], *a, *args[i + 1 :]).sum())(args[i])
        expected = difference(scipys, args, i)
        np.testing.assert_allclose(grads, np.where(np.isfinite(expected), expected, 0), rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("cauchy", "vonmises")])
def test_gradient_outside_the_support_is_zero(name):
    which = "logpmf" if CASES[name][0] is COUNTS else "logpdf"
    ours, scipys = both(name, which)
    x, shapes = CASES[name][:2]
    x = x[np.isfinite(x)]
    outside = x[np.isneginf(reference(scipys, x, *shapes)) & (x != 0) & (x != 1)]
    shapes = [float(s) for s in shapes]
    grads = fl.grad(lambda x, *s: ours(x, *s).sum(), tuple(range(1 + len(shapes))))(outside, *shapes)
    if not name.startswith("gumbel"):
        np.testing.assert_array_equal(np.concatenate([np.ravel(g) for g in grads]), 0)


@pytest.mark.parametrize("name", ["t", "gennorm", "wrapcauchy"])
def test_slope_of_the_distribution_function_is_the_density_where_formulas_change(name):
    shapes = CASES[name][1]
    ours = getattr(stats, name)
    x = np.array([np.pi]) if name == "wrapcauchy" else np.zeros(1)
    for which, sign in (("cdf", 1), ("sf", -1)):
        slope = fl.grad(lambda x, w=which: getattr(ours, w)(x, *shapes).sum())(x)
        np.testing.assert_allclose(slope, sign * ours.pdf(x, *shapes), rtol=1e-12)


def test_vmap_over_points_and_parameters_equals_broadcasting():
    x, a = np.linspace(0.1, 3, 5), np.linspace(1, 2, 5)
    np.testing.assert_array_equal(fl.vmap(stats.gamma.logpdf)(x, a), stats.gamma.logpdf(x, a))
    inner = fl.vmap(fl.grad(stats.gennorm.logpdf, 1))(x, a)
    np.testing.assert_allclose(inner, fl.grad(lambda a: stats.gennorm.logpdf(x, a).sum())(a), rtol=1e-14)


@pytest.mark.parametrize(("k", "n", "q"), [(5e5, 1e6, 0.5), (3.0, 1e6, 1e-6), (150.0, 300.0, 0.4)])
def test_binomial_of_many_trials_keeps_its_digits(k, n, q):
    np.testing.assert_allclose(np.exp(stats.binom.logpmf(k, n, q)), scipy.stats.binom.pmf(k, n, q), rtol=3e-10)


def test_truncated_normal_far_in_a_tail():
    x = np.array([30.0, 30.01, 30.1, 31.0])
    for which in ("logpdf", "logcdf", "logsf", "sf"):
        ours, scipys = both("truncnorm", which)
        np.testing.assert_allclose(ours(x, 30.0, 31.5), reference(scipys, x, 30.0, 31.5), rtol=1e-9)
        np.testing.assert_allclose(ours(-x, -31.5, -30.0), reference(scipys, -x, -31.5, -30.0), rtol=1e-9)


@pytest.mark.parametrize("which", ["cdf", "logsf"])
def test_derivative_in_a_shape_that_is_not_known_raises(which):
    with pytest.raises(MissingRuleError, match="betainc: the derivative in a is not known"):
        fl.grad(lambda df: getattr(stats.t, which)(1.0, df))(3.0)


@pytest.mark.parametrize("name", ["gennorm", "wrapcauchy", "binom", "truncnorm"])
def test_python_numbers_have_derivatives(name):
    shapes = CASES[name][1]
    which = "logpmf" if name == "binom" else "cdf"
    ours = getattr(getattr(stats, name), which)
    argnum = len(shapes)
    found = fl.grad(ours, argnum)(1.0, *shapes)
    np.testing.assert_allclose(found, difference(both(name, which)[1], [1.0, *shapes], argnum), rtol=1e-6)
    assert np.shape(fl.jit(ours)(1.0, *shapes)) == ()


# --- vectors ----------------------------------------------------------------------------------------------------------
SIMPLEX = rng.dirichlet(np.ones(3), 4).T
ALPHA = np.array([0.7, 1.0, 2.5])
COVARIANCE = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 0.5]])
MEAN = np.array([0.5, -1.0, 2.0])


@pytest.mark.parametrize("x", [SIMPLEX[:, 0], SIMPLEX, SIMPLEX[:2]])
def test_dirichlet_equals_scipys(x):
    np.testing.assert_allclose(stats.dirichlet.logpdf(x, ALPHA), scipy.stats.dirichlet.logpdf(x, ALPHA), rtol=1e-12)
    np.testing.assert_allclose(stats.dirichlet.pdf(x, ALPHA), scipy.stats.dirichlet.pdf(x, ALPHA), rtol=1e-12)
    grads = fl.jit(fl.grad(lambda a: stats.dirichlet.logpdf(x, a).sum()))(ALPHA)
    for i, unit in enumerate(np.eye(3)):
        ends = [scipy.stats.dirichlet.logpdf(x, ALPHA + s * 1e-6 * unit).sum() for s in (1, -1)]
        np.testing.assert_allclose(grads[i], (ends[0] - ends[1]) / 2e-6, rtol=1e-5)


def test_dirichlet_outside_the_simplex_and_of_other_shapes():
    assert stats.dirichlet.logpdf(np.array([0.5, 0.5, 0.5]), ALPHA) == -np.inf
    np.testing.assert_array_equal(fl.grad(lambda a: stats.dirichlet.logpdf(np.ones(3), a))(ALPHA), 0)
    with pytest.raises(ShapeError, match="dirichlet: for alpha"):
        stats.dirichlet.logpdf(np.ones(5), ALPHA)


def test_multinomial_equals_scipys():
    x = np.array([[1, 2, 3], [6, 0, 0], [1, 1, 1], [-1, 3, 4]])
    p = np.array([0.2, 0.3, 0.5])
    expected = scipy.stats.multinomial.logpmf(x, 6, p)
    np.testing.assert_allclose(stats.multinomial.logpmf(x, 6, p), expected, rtol=1e-12)
    np.testing.assert_allclose(fl.jit(stats.multinomial.pmf)(x, 6, p), np.exp(expected), rtol=1e-12)
    np.testing.assert_allclose(fl.grad(lambda p: stats.multinomial.logpmf(x[0], 6, p))(p), x[0] / p)
    np.testing.assert_array_equal(fl.grad(lambda p: stats.multinomial.logpmf(x[2], 6, p))(p), 0)


@pytest.mark.parametrize(("x", "mean", "cov"), [
    (rng.standard_normal(3), MEAN, COVARIANCE), (rng.standard_normal((2, 4, 3)), MEAN, COVARIANCE),
    (rng.standard_normal((4, 3)), MEAN, np.diag(COVARIANCE)), (rng.standard_normal((4, 3)), MEAN, 2.0),
    (rng.standard_normal(5), None, 1), (0.3, 0.1, 2.5), (rng.standard_normal((5, 1)), np.ones(1), np.full((1, 1), 2.0)),
])
def test_multivariate_normal_equals_scipys(x, mean, cov):
    expected = scipy.stats.multivariate_normal.logpdf(x, mean, cov)
    np.testing.assert_allclose(stats.multivariate_normal.logpdf(x, mean, cov), expected, rtol=1e-12)
    np.testing.assert_allclose(
        fl.jit(lambda x: stats.multivariate_normal.pdf(x, mean, cov))(x), np.exp(expected), rtol=1e-12
    )


def test_multivariate_normal_of_batches_and_derivatives():
    x, means, covs = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), COVARIANCE + np.arange(4)[:, None, None]
    covs = COVARIANCE * (1 + np.arange(4))[:, None, None]
    expected = [scipy.stats.multivariate_normal.logpdf(*row) for row in zip(x, means, covs, strict=True)]
    np.testing.assert_allclose(stats.multivariate_normal.logpdf(x, means, covs), expected, rtol=1e-12)
    np.testing.assert_allclose(fl.vmap(stats.multivariate_normal.logpdf)(x, means, covs), expected, rtol=1e-12)
    slope = fl.grad(lambda m: stats.multivariate_normal.logpdf(x[0], m, COVARIANCE))(MEAN)
    np.testing.assert_allclose(slope, np.linalg.solve(COVARIANCE, x[0] - MEAN), rtol=1e-12)


def test_multivariate_normal_refuses_what_it_cannot_do():
    with pytest.raises(ArgumentError, match="allow_singular=True is not supported"):
        stats.multivariate_normal.logpdf(MEAN, MEAN, COVARIANCE, allow_singular=True)
    with pytest.raises(ShapeError, match="cov must be square"):
        stats.multivariate_normal.logpdf(MEAN, MEAN, np.ones((2, 3)))
    with pytest.raises(ShapeError, match="do not go together"):
        stats.multivariate_normal.logpdf(np.ones(4), MEAN, COVARIANCE)
