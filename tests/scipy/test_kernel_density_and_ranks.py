# SPDX-License-Identifier: MIT
"""gaussian_kde, rankdata, mode and sem: SciPy's values and dtypes, derivatives, jit and vmap."""

import numpy as np
import pytest
import scipy.stats

import functorch_lite as fl
from functorch_lite import random
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.scipy import stats

rng = np.random.default_rng(2)
DATA, WEIGHTS = rng.standard_normal((2, 15)), rng.uniform(0.1, 1, 15)
POINTS = rng.standard_normal((2, 6))


@pytest.mark.parametrize("data", [DATA, DATA[0]])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("width", [None, "scott", "silverman", 0.4, lambda kde: 0.3 * kde.n ** 0.1])
def test_kernel_density_equals_scipys(data, weights, width):
    points = POINTS if data.ndim == 2 else POINTS[0]
    expected = scipy.stats.gaussian_kde(data, width, weights)
    ours = stats.gaussian_kde(data, width, weights)
    np.testing.assert_allclose(ours.covariance, expected.covariance, rtol=1e-12)
    np.testing.assert_allclose(ours.neff, expected.neff, rtol=1e-12)
    np.testing.assert_allclose(ours(points), expected(points), rtol=1e-12)
    np.testing.assert_allclose(ours.logpdf(points), expected.logpdf(points), rtol=1e-11)
    compiled = fl.jit(lambda d, x: stats.gaussian_kde(d, width, weights).pdf(x))
    np.testing.assert_allclose(compiled(data, points), expected.pdf(points), rtol=1e-12)


def test_integrals_of_kernel_densities_equal_scipys():
    ours, expected = stats.gaussian_kde(DATA, weights=WEIGHTS), scipy.stats.gaussian_kde(DATA, weights=WEIGHTS)
    cov = np.array([[1.0, 0.2], [0.2, 0.7]])
    np.testing.assert_allclose(ours.integrate_gaussian([0.1, 0.3], cov), expected.integrate_gaussian([0.1, 0.3], cov))
    other, others = stats.gaussian_kde(POINTS), scipy.stats.gaussian_kde(POINTS)
    np.testing.assert_allclose(ours.integrate_kde(other), expected.integrate_kde(others))
    line, lines = stats.gaussian_kde(DATA[0]), scipy.stats.gaussian_kde(DATA[0])
    np.testing.assert_allclose(line.integrate_box_1d(-0.5, 1.2), lines.integrate_box_1d(-0.5, 1.2))
    np.testing.assert_allclose(line.integrate_box_1d(-np.inf, np.inf), 1.0)


def test_kernel_density_is_a_pytree_and_has_derivatives():
    kde = stats.gaussian_kde(DATA)
    np.testing.assert_allclose(fl.jit(lambda k, x: k(x))(kde, POINTS), kde(POINTS), rtol=1e-13)
    assert "dataset" in fl.tree.paths(kde)[0]

    def total(data):
        return stats.gaussian_kde(data).logpdf(POINTS).sum()

    slope, step = fl.grad(total)(DATA), np.zeros_like(DATA)
    step[1, 3] = 1e-6
    np.testing.assert_allclose(slope[1, 3], (total(DATA + step) - total(DATA - step)) / 2e-6, rtol=1e-6)


def test_samples_of_a_kernel_density_have_its_moments():
    kde = stats.gaussian_kde(DATA, 0.2, WEIGHTS)
    sample = fl.jit(lambda key: kde.resample(key, (100, 200)))(random.key(0))
    assert sample.shape == (2, 100, 200)
    share = WEIGHTS / WEIGHTS.sum()
    spread = np.cov(DATA, aweights=share, bias=True) + kde.covariance
    np.testing.assert_allclose(sample.mean((1, 2)), DATA @ share, atol=0.05)
    np.testing.assert_allclose(np.cov(sample.reshape(2, -1)), spread, atol=0.05)


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: stats.gaussian_kde(np.ones(1)), ShapeError, "dataset must be"),
    (lambda: stats.gaussian_kde(DATA, "wide"), ArgumentError, "bw_method is 'scott'"),
    (lambda: stats.gaussian_kde(DATA, weights=np.ones(3)), ShapeError, "weights must be"),
    (lambda: stats.gaussian_kde(DATA)(np.ones((3, 4))), ShapeError, "points must be"),
    (lambda: stats.gaussian_kde(DATA).integrate_box_1d(0, 1), ShapeError, "have 2 dimensions, expected 1"),
    (lambda: stats.gaussian_kde(DATA).integrate_kde(stats.gaussian_kde(DATA[0])), ShapeError, "2 and 1 dimensions"),
    (lambda: stats.rankdata(DATA, "first"), ArgumentError, "rankdata: method must be one of"),
    (lambda: stats.mode(DATA, nan_policy="omit"), ArgumentError, "mode: nan_policy must be 'propagate'"),
    (lambda: stats.mode(np.ones((0,))), ArgumentError, "there is no element"),
])
def test_wrong_arguments_are_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


TIED = rng.integers(0, 4, (3, 7))
ARRAYS = [TIED, TIED.astype(np.float32), np.where(TIED == 3, np.nan, TIED), TIED[:, :1], np.zeros((2, 0)), TIED[0] > 1]


@pytest.mark.parametrize("method", ["average", "min", "max", "dense", "ordinal"])
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("i", range(len(ARRAYS)))
def test_ranks_equal_scipys(method, axis, i):
    a = ARRAYS[i]
    expected = scipy.stats.rankdata(a, method, axis=axis)
    expected = expected.reshape(a.shape) if axis is None else expected
    for out in (stats.rankdata(a, method, axis=axis), fl.jit(lambda a: stats.rankdata(a, method, axis=axis))(a)):
        np.testing.assert_array_equal(out, expected)
        assert out.dtype == (np.float64 if method == "average" or a.dtype.kind == "f" else np.int64)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("a", [TIED, TIED.astype(np.float32), np.array([[1.0, np.nan, 1.0], [np.nan, np.nan, 2.0]])])
def test_mode_equals_scipys(a, axis, keepdims):
    expected = scipy.stats.mode(a, axis=axis, keepdims=keepdims)
    for out in (stats.mode(a, axis, keepdims=keepdims), fl.jit(lambda a: stats.mode(a, axis, keepdims=keepdims))(a)):
        np.testing.assert_array_equal(out.mode, expected.mode)
        np.testing.assert_array_equal(out.count, expected.count)
        assert (out.mode.dtype, out.count.dtype) == (expected.mode.dtype, expected.count.dtype)


def test_ranks_and_modes_of_mapped_rows():
    np.testing.assert_array_equal(fl.vmap(stats.rankdata)(TIED), scipy.stats.rankdata(TIED, axis=1))
    np.testing.assert_array_equal(fl.vmap(stats.mode)(TIED).mode, scipy.stats.mode(TIED, axis=1).mode)


@pytest.mark.parametrize("options", [{}, {"axis": None}, {"axis": 1, "ddof": 0}, {"axis": -1, "keepdims": True}])
def test_standard_error_equals_scipys(options):
    for a in (DATA, DATA.astype(np.float32), TIED):
        expected = scipy.stats.sem(a, **options)
        out = fl.jit(lambda a: stats.sem(a, **options))(a)
        assert out.dtype == stats.sem(a, **options).dtype == expected.dtype
        np.testing.assert_allclose(out, expected, rtol=1e-6 if a.dtype == np.float32 else 1e-13)
        np.testing.assert_allclose(stats.sem(a, **options), out, rtol=1e-6)
