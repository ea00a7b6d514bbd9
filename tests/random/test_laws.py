# SPDX-License-Identifier: MIT
"""Laws of random functions: the same sample eagerly, compiled, batched and in a loop; a prefix of a longer one."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax, random
from tests.random.samplers import SAMPLERS

EVERY = pytest.mark.parametrize("name", list(SAMPLERS))
# LAPACK and BLAS may sum in another order for a stack of matrices.
BLAS = {"multivariate_normal", "orthogonal"}
THROUGH_MATHS = {
    "ball", "beta", "cauchy", "chisquare", "dirichlet", "double_sided_maxwell", "exponential", "f", "gamma", "gumbel",
    "generalized_normal", "laplace", "loggamma", "logistic", "lognormal", "maxwell", "pareto", "rayleigh", "t",
    "truncated_normal", "wald", "weibull_min",
}


def assert_same_sample(name, got, want):
    got, want = np.asarray(got), np.asarray(want)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if name in BLAS:
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    else:
        assert got.tobytes() == want.tobytes()


def assert_same_draw(name, got, want):
    """Compiled code has exp, log and sin of its own: a few ulp where a sample goes through them, else equal bits."""
    got, want = np.asarray(got), np.asarray(want)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if name in THROUGH_MATHS:
        np.testing.assert_allclose(got, want, rtol=16 * np.finfo(want.dtype).eps)
    else:
        assert_same_sample(name, got, want)


@EVERY
def test_compiled_sample_equals_eager_sample(name):
    key = random.key(3)
    assert_same_draw(name, fl.jit(SAMPLERS[name])(key), SAMPLERS[name](key))


@EVERY
def test_vmap_over_keys_equals_loop_over_keys(name):
    keys = random.split(random.key(4), 5)
    assert_same_sample(name, fl.vmap(SAMPLERS[name])(keys), np.stack([SAMPLERS[name](k) for k in keys]))


@pytest.mark.parametrize("name", ["normal", "gamma", "randint", "poisson", "permutation", "split", "choice_p"])
def test_compiled_vmap_equals_loop(name):
    keys = random.split(random.key(5), 3)
    assert_same_draw(name, fl.jit(fl.vmap(SAMPLERS[name]))(keys), np.stack([SAMPLERS[name](k) for k in keys]))


@pytest.mark.parametrize("name", ["normal", "gamma", "bernoulli", "randint", "poisson"])
def test_scan_over_keys_equals_loop(name):
    keys = random.split(random.key(6), 3)
    got = lax.scan(lambda carry, key: (carry, SAMPLERS[name](key)), 0, keys)[1]
    assert_same_sample(name, got, np.stack([SAMPLERS[name](k) for k in keys]))


def test_scan_that_splits_its_key_equals_loop():
    def step(key, _):
        key, sub = random.split(key)
        return key, random.normal(sub, (2,))

    got = lax.scan(step, random.key(0), None, length=4)[1]
    key, want = random.key(0), []
    for _ in range(4):
        key, sample = step(key, None)
        want.append(sample)
    assert_same_sample("normal", got, np.stack(want))


@pytest.mark.parametrize("n", [1, 2, 12, 13, 700])
def test_fewer_keys_or_numbers_are_a_prefix(n):  # SEMANTICS J14
    key = random.key(11)
    np.testing.assert_array_equal(random.split(key, n + 1)[:n], random.split(key, n))
    for sampler in (random.uniform, random.normal, random.bits, random.exponential):
        np.testing.assert_array_equal(sampler(key, (n + 1,))[:n], sampler(key, (n,)))


def test_traced_seed_and_fold_in():
    seeds = np.array([0, 5, -1, 2**40 + 5])
    np.testing.assert_array_equal(fl.vmap(random.key)(seeds), [random.key(int(s)) for s in seeds])
    small = seeds[:2].astype(np.int32)
    np.testing.assert_array_equal(fl.jit(fl.vmap(random.key))(small), [random.key(s) for s in small])
    key = random.key(1)
    steps = np.arange(4) - 1
    want = [random.fold_in(key, int(s)) for s in steps]
    np.testing.assert_array_equal(fl.vmap(lambda s: random.fold_in(key, s))(steps), want)
    np.testing.assert_array_equal(fl.jit(random.fold_in)(key, np.int64(-1)), want[0])


def test_traced_bounds_of_randint():
    key = random.key(2)
    for low, high, dtype in ((-5, 300, np.int8), (0, 2**31, np.int32), (-7, 9, np.int64), (3, 1, np.uint8)):
        got = fl.jit(lambda a, b, dtype=dtype: random.randint(key, (20,), a, b, dtype))(low, high)
        np.testing.assert_array_equal(got, random.randint(key, (20,), low, high, dtype))


def test_randint_over_all_integers_of_a_dtype_is_its_bits():
    key = random.key(8)
    got = random.randint(key, (5,), 0, 2**64, np.uint64)
    np.testing.assert_array_equal(got, random.bits(random.split(key)[1], (5,), np.uint64))
    assert random.randint(key, (1000,), 0, 256, np.uint8).max() > 250


def test_key_is_what_it_is_wrapped_from():
    key = random.key(3)
    for same in (random.clone(key), random.key_data(key), random.wrap_key_data(key), random.PRNGKey(3)):
        np.testing.assert_array_equal(same, key)


def test_default_float_is_that_of_the_configuration():
    with fl.config(default_float="float64"):
        assert random.normal(random.key(0)).dtype == np.float64
        assert random.gamma(random.key(0), 2).dtype == np.float64
    assert random.uniform(random.key(0), (2,)).dtype == np.float32
    assert random.gamma(random.key(0), np.float64(2.0)).dtype == np.float32


def test_normal_in_a_gradient_equals_the_eager_one():
    key = random.key(0)
    x = np.float32(2.0)
    got = fl.grad(lambda s: (s * random.normal(key, (9,))).sum())(x)
    np.testing.assert_allclose(got, random.normal(key, (9,)).sum(), rtol=1e-6)
