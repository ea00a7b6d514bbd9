# SPDX-License-Identifier: MIT
"""Every sample of tests/data/random_jax.npz (what jax.random gives) is ours too, exactly or within a stated bound."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from functorch_lite import config, random
from functorch_lite.backends.inverse_erf import erf_inv
from tests.data.random_cases import CASES, DTYPES, SEEDS, TOLERANCE_EPS, WIDE

DATA = np.load(Path(__file__).parents[1] / "data" / "random_jax.npz")

# Floats equal bit for bit: here every operation of XLA's CPU code is repeated, roundings and fused products included.
EXACT = {("uniform", d) for d in ("f16", "bf16", "f32", "f64")} | {("normal", d) for d in ("f16", "bf16", "f32")}
# Others are within twice what is measured, in eps relative to max(1, |value|). Why not 0: NumPy's exp, log, log1p and
# tan round otherwise than XLA's (below 1 eps), XLA fuses products with sums, and for float64 normals our polynomial
# does not (2 eps); powers and quotients of such numbers, and LAPACK's sums, add to it.
MEASURED = {
    "normal": 2, "truncated_normal": 2, "gumbel": 2, "exponential": 0.75, "laplace": 0.25, "logistic": 0.65,
    "cauchy": 0.75, "gamma": 2.5, "loggamma": 5.1, "beta": 0.5, "dirichlet": 0.5, "multivariate_normal": 4, "ball": 0.5,
    "orthogonal": 1.5, "t": 1, "chisquare": 2.6, "f": 1.4, "maxwell": 0.5, "double_sided_maxwell": 1.3,
    "weibull_min": 0.7, "pareto": 0.9, "rayleigh": 1, "wald": 8, "lognormal": 0.9, "triangular": 0.5,
    "generalized_normal": 0.5,
}

ROWS = [
    pytest.param(case, dtype, seed, shape, id=case.name(dtype, seed, shape).replace("/", "-"))
    for case in CASES
    for dtype, seed, shape in case.entries()
]


def sample(case, dtype, seed, shape):
    keywords = case.keywords(dtype, shape)
    if dtype is not None:
        keywords["dtype"] = ml_dtypes.bfloat16 if dtype == "bf16" else DTYPES[dtype]
    # Rows of 64-bit dtypes were made in JAX's 64-bit mode, where Python floats are float64.
    with config(default_float="float64" if dtype in WIDE else "float32"):
        return np.asarray(getattr(random, case.function)(random.key(seed), **keywords))


@pytest.mark.parametrize(("case", "dtype", "seed", "shape"), ROWS)
def test_sample_is_that_of_jax(case, dtype, seed, shape):
    want = DATA[case.name(dtype, seed, shape)]
    want = want.view(ml_dtypes.bfloat16) if dtype == "bf16" else want
    got = sample(case, dtype, seed, shape)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if case.function not in MEASURED and case.function != "uniform" or (case.function, dtype) in EXACT:
        assert got.tobytes() == want.tobytes()
        return
    bound = min(2 * MEASURED[case.function], TOLERANCE_EPS[case.function])
    got, want = got.astype(np.float64), want.astype(np.float64)
    error = np.abs(got - want) / np.maximum(1, np.abs(want))
    assert np.max(error, initial=0) <= bound * np.finfo(DTYPES[dtype]).eps


@pytest.mark.parametrize("mode", ["x32", "x64"])
def test_key_is_that_of_jax(mode):
    prefix = f"key/{mode}/"
    for name in (n for n in DATA.files if n.startswith(prefix)):
        seed = int(name.removeprefix(prefix))
        if mode == "x64" or 0 <= seed < 2**32:  # JAX's 32-bit mode cuts other seeds
            np.testing.assert_array_equal(random.key(seed), DATA[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_split_is_that_of_jax(seed):
    for shape in ((2,), (3,), (0,), (2, 3), ()):
        np.testing.assert_array_equal(random.split(random.key(seed), shape), DATA[f"split/seed{seed}/{shape}"])


@pytest.mark.parametrize("seed", SEEDS)
def test_fold_in_is_that_of_jax(seed):
    for data in (0, 1, 2**31, 2**32 - 1):
        want = DATA[f"fold_in/seed{seed}/{data}"]
        np.testing.assert_array_equal(random.fold_in(random.key(seed), data), want)
        np.testing.assert_array_equal(random.fold_in(random.key(seed), np.uint32(data)), want)


@pytest.mark.parametrize("seed", SEEDS)
def test_many_bits_are_those_of_jax(seed):
    many = random.bits(random.key(seed), (70001,))
    blocks = np.bitwise_xor.reduceat(many, range(0, 70001, 1000))
    np.testing.assert_array_equal(np.append(blocks, many[-100:]), DATA[f"bits_many/u32/seed{seed}"])


def test_float32_erf_inv_is_that_of_xla_bit_for_bit():
    got = erf_inv(np, DATA["erf_inv/f32/in"])
    assert got.tobytes() == DATA["erf_inv/f32/out"].tobytes()


def test_float64_erf_inv_is_that_of_xla_within_two_eps():
    # Our float64 polynomial rounds products and sums; XLA fuses them.
    np.testing.assert_allclose(erf_inv(np, DATA["erf_inv/f64/in"]), DATA["erf_inv/f64/out"], rtol=2 * 2**-52, atol=0)
