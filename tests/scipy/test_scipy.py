# SPDX-License-Identifier: MIT
"""The scipy namespaces: SciPy's values, and derivatives by finite differences."""

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats

from functorch_lite.scipy import linalg, special, stats
from functorch_lite.transforms.jvp import jvp_flat
from functorch_lite.transforms.linearize import linearize_flat

rng = np.random.default_rng(3)
X = rng.standard_normal((2, 3))
UNIT = rng.uniform(0.2, 0.9, (2, 3))
ABOVE = rng.uniform(0.5, 3.0, (2, 3))
ROW = rng.uniform(0.5, 3.0, 3)
MATRIX = rng.standard_normal((3, 3)) + 2 * np.eye(3)


def flat(out):
    return [v for part in out for v in flat(part)] if isinstance(out, (tuple, list)) else [out]


def check(fun, reference, *args):
    """`fun` equals `reference`, and its jvp the central difference of `reference` where that is finite."""
    directions = [rng.standard_normal(a.shape) for a in args]
    outs, dots = jvp_flat(lambda *xs: flat(fun(*xs)), args, directions)
    expected = flat(reference(*args))
    assert len(outs) == len(expected)
    moved = [[a + s * d for a, d in zip(args, directions, strict=True)] for s in (1e-6, -1e-6)]
    high, low = (flat(reference(*point)) for point in moved)
    for out, dot, value, up, down in zip(outs, dots, expected, high, low, strict=True):
        assert out.shape == np.shape(value)
        np.testing.assert_allclose(out, value, rtol=1e-9, atol=1e-9)
        with np.errstate(invalid="ignore"):
            difference = (np.asarray(up) - down) / 2e-6
        if dot is not None:
            np.testing.assert_allclose(dot, np.where(np.isfinite(difference), difference, 0), rtol=1e-4, atol=1e-5)


SPECIAL = {
    "erf": (X,), "erfc": (X,), "erfinv": (UNIT,), "ndtr": (X,), "ndtri": (UNIT,), "logit": (UNIT,), "expit": (X,),
    "log_expit": (10 * X,), "betaln": (ABOVE, ROW), "beta": (ABOVE, ROW), "entr": (UNIT,), "rel_entr": (UNIT, ROW),
    "kl_div": (UNIT, ROW), "gamma": (ABOVE,), "gammaln": (ABOVE,), "psi": (ABOVE,), "i0": (X,), "i1e": (X,),
    "j1": (X,), "xlogy": (ABOVE, ROW), "factorial": (ABOVE,), "logsumexp": (X,), "softmax": (X,), "log_softmax": (X,),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_function_equals_scipys(name):
    check(getattr(special, name), getattr(scipy.special, name), *SPECIAL[name])


@pytest.mark.parametrize("options", [{"axis": 1}, {"axis": 0, "keepdims": True}, {"b": ABOVE, "axis": 1}])
def test_logsumexp_takes_scipys_options(options):
    check(lambda x: special.logsumexp(x, **options), lambda x: scipy.special.logsumexp(x, **options), X)


def test_scipys_own_ufunc_takes_traced_arrays():
    check(lambda x: scipy.special.erf(x), scipy.special.erf, X)


@pytest.mark.parametrize(("x", "value", "grad"), [([-np.inf] * 2, -np.inf, [0, 0]), ([-np.inf, 0.0], 0.0, [0, 1])])
def test_b18_logsumexp_of_minus_infinities(x, value, grad):
    (out,), tape = linearize_flat(lambda y: [special.logsumexp(y)], [np.array(x)], [True])
    assert out == value
    np.testing.assert_array_equal(tape.backward([np.float64(1)])[0], grad)


def test_b20_xlogy_at_the_origin_has_value_and_derivatives_zero():
    (out,), tape = linearize_flat(lambda x, y: [special.xlogy(x, y)], [np.zeros(1), np.zeros(1)], [True, True])
    np.testing.assert_array_equal(np.concatenate([out, *tape.backward([np.ones(1)])]), np.zeros(3))


def test_float16_gives_scipys_dtype():
    assert special.erf(np.float16(0.5)).dtype == scipy.special.erf(np.float16(0.5)).dtype


def definite(x):
    return x @ np.swapaxes(x, -1, -2) + np.eye(3)


def in_terms_of_root(fun):
    """`fun` of the definite matrix made of its argument (traced: by primitives)."""
    return lambda x, *rest: fun(definite(x), *rest)


LINALG = {
    "expm": (linalg.expm, scipy.linalg.expm, MATRIX),
    "cholesky": (in_terms_of_root(linalg.cholesky), in_terms_of_root(scipy.linalg.cholesky), MATRIX),
    "cho_solve": (
        in_terms_of_root(lambda a, b: linalg.cho_solve(linalg.cho_factor(a), b)),
        in_terms_of_root(lambda a, b: scipy.linalg.cho_solve(scipy.linalg.cho_factor(a), b)), MATRIX, ROW,
    ),
    "solve_pos": (
        in_terms_of_root(lambda a, b: linalg.solve(a, b, assume_a="pos")),
        in_terms_of_root(lambda a, b: scipy.linalg.solve(a, b, assume_a="pos")), MATRIX, MATRIX,
    ),
    "solve_transposed": (
        lambda a, b: linalg.solve(a, b, transposed=True), lambda a, b: scipy.linalg.solve(a, b, transposed=True),
        MATRIX, ROW,
    ),
    **{f"solve_triangular_{c}": (
        lambda a, b, c=c: linalg.solve_triangular(a, b, c), lambda a, b, c=c: scipy.linalg.solve_triangular(a, b, c),
        MATRIX, ROW,
    ) for c in (0, 1, "C")},
    **{f"lu_solve_{c}": (
        lambda a, b, c=c: linalg.lu_solve(linalg.lu_factor(a), b, c),
        lambda a, b, c=c: scipy.linalg.lu_solve(scipy.linalg.lu_factor(a), b, c), MATRIX, ROW,
    ) for c in (0, 1, 2)},
    **{f"lu_{i}": (lambda a, o=o: list(linalg.lu(a, **o)), lambda a, o=o: list(scipy.linalg.lu(a, **o)), a)
       for i, (o, a) in enumerate(
           (o, a) for o in ({}, {"permute_l": True}, {"p_indices": True}) for a in (MATRIX, X, X.T.copy()))},
    "eigh_generalized": (
        lambda a, b: linalg.eigvalsh(definite(a), definite(b)),
        lambda a, b: scipy.linalg.eigvalsh(definite(a), definite(b)), MATRIX, rng.standard_normal((3, 3)),
    ),
    "block_diag": (linalg.block_diag, scipy.linalg.block_diag, X, ROW),
    "expm_frechet": (linalg.expm_frechet, scipy.linalg.expm_frechet, MATRIX, MATRIX.T.copy()),
}


@pytest.mark.parametrize("name", LINALG)
def test_linalg_function_equals_scipys(name):
    check(*LINALG[name])


COUNTS = np.array([0, 1, 2])
PARTLY_OUTSIDE = np.array([0.3, -1.0, 0.6])
STATS = {
    "norm_logpdf": (stats.norm.logpdf, scipy.stats.norm.logpdf, X, X + 1, ABOVE),
    "norm_pdf": (stats.norm.pdf, scipy.stats.norm.pdf, X),
    "norm_cdf": (stats.norm.cdf, scipy.stats.norm.cdf, X, ROW, ABOVE),
    "norm_sf": (stats.norm.sf, scipy.stats.norm.sf, X),
    "norm_logcdf": (stats.norm.logcdf, scipy.stats.norm.logcdf, X),
    "norm_ppf": (stats.norm.ppf, scipy.stats.norm.ppf, UNIT),
    "laplace": (stats.laplace.logpdf, scipy.stats.laplace.logpdf, X, X + 1, ABOVE),
    "cauchy": (stats.cauchy.logpdf, scipy.stats.cauchy.logpdf, X, ROW, ABOVE),
    "logistic": (stats.logistic.logpdf, scipy.stats.logistic.logpdf, X, ROW, ABOVE),
    "logistic_cdf": (stats.logistic.cdf, scipy.stats.logistic.cdf, X),
    "expon": (stats.expon.logpdf, scipy.stats.expon.logpdf, PARTLY_OUTSIDE),
    "uniform": (stats.uniform.logpdf, scipy.stats.uniform.logpdf, PARTLY_OUTSIDE),
    "gamma": (stats.gamma.logpdf, scipy.stats.gamma.logpdf, PARTLY_OUTSIDE, ROW),
    "gamma_cdf": (stats.gamma.cdf, scipy.stats.gamma.cdf, ABOVE, ROW),
    "beta": (stats.beta.logpdf, scipy.stats.beta.logpdf, PARTLY_OUTSIDE, ROW, ROW + 1),
    "t": (stats.t.logpdf, scipy.stats.t.logpdf, X, ROW),
    "poisson": (lambda m: stats.poisson.logpmf(COUNTS, m), lambda m: scipy.stats.poisson.logpmf(COUNTS, m), ROW),
    "bernoulli": (lambda q: stats.bernoulli.logpmf(COUNTS, q), lambda q: scipy.stats.bernoulli.logpmf(COUNTS, q), UNIT),
}


@pytest.mark.parametrize("name", STATS)
def test_stats_function_equals_scipys(name):
    check(*STATS[name])
