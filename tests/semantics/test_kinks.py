# SPDX-License-Identifier: MIT
"""SEMANTICS B: non-smooth points, ties, and branches that are masked out while their derivative is not finite."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.control_flow import cond

BOTH_MODES = {"reverse": fl.grad, "forward": lambda f: lambda x: fl.jvp(f, (x,), (np.ones_like(x)[()],))[1]}
both_modes = pytest.mark.parametrize("derivative", BOTH_MODES.values(), ids=BOTH_MODES)
inf = np.inf


def jacobians(f, x):
    return [fl.jacfwd(f)(x), fl.jacrev(f)(x), fl.jit(fl.jacrev(f))(x)]


@both_modes
def test_B1_a_masked_square_root_has_derivative_zero_at_zero(derivative):
    def f(x):
        return np.where(x > 0, np.sqrt(x), 0.0)

    assert derivative(f)(0.0) == 0.0
    assert fl.jit(derivative(f))(0.0) == 0.0


def test_B1_the_zero_can_be_given_up():
    def f(x):
        return np.where(x > 0, np.sqrt(x), 0.0)

    with fl.config(strong_zero=False):  # a reverse pass multiplies the masked zero by infinity
        assert np.isnan(fl.grad(f)(0.0))
        assert np.isnan(fl.jit(fl.grad(f))(0.0))


@both_modes
def test_B2_a_masked_quotient(derivative):
    assert derivative(lambda x: np.where(x == 0, 1.0, np.sin(x) / x))(0.0) == 0.0


@both_modes
def test_B3_a_masked_product_with_infinity(derivative):
    assert derivative(lambda x: np.where(x > 0, 0.0, x * inf))(1.0) == 0.0


@both_modes
def test_B4_the_double_where_guard_still_works(derivative):
    def f(x):
        safe = np.where(x > 0, x, 1.0)
        return np.where(x > 0, np.sqrt(safe), 0.0)

    assert derivative(f)(0.0) == 0.0


def test_B5_the_gradient_of_a_batched_cond():
    f = fl.grad(lambda x: cond(x > 0, np.sqrt, lambda x: 0.0 * x, x))
    np.testing.assert_array_equal(fl.vmap(f)(np.array([0.0, 4.0])), [0.0, 0.25])


@both_modes
@pytest.mark.parametrize("row, f", [("B6", np.abs), ("B7", lambda x: np.maximum(x, 0.0) - 0.5 * x), ("B7", np.sign),
                                    ("B7", np.floor), ("B7", np.round)],
                         ids=["abs", "maximum with 0, less its middle slope", "sign", "floor", "round"])
def test_B6_B7_kinks_at_zero_have_the_middle_slope(derivative, row, f):
    assert derivative(f)(0.0) == 0.0


def test_B8_ties_of_a_maximum_share():
    found = fl.grad(np.max)(np.array([1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(found, [0.5, 0.5, 0.0])
    assert found.sum() == 1.0


def test_B9_both_operands_of_a_maximum_share_a_tie():
    assert fl.grad(np.maximum, (0, 1))(1.0, 1.0) == (0.5, 0.5)
    assert fl.grad(np.minimum, (0, 1))(1.0, 1.0) == (0.5, 0.5)


@both_modes
def test_B10_clip_passes_the_derivative_at_both_bounds(derivative):
    found = [derivative(lambda x: np.clip(x, 0.0, 1.0))(x) for x in (0.0, 1.0, 0.5, 2.0)]
    assert found == [1.0, 1.0, 1.0, 0.0]


def test_B11_norm_at_zero_and_the_deviation_of_a_constant():
    np.testing.assert_array_equal(fl.grad(np.linalg.norm)(np.zeros(2)), [0.0, 0.0])
    np.testing.assert_array_equal(fl.grad(np.std)(np.ones(3)), [0.0, 0.0, 0.0])


def test_B12_powers_at_zero():
    assert fl.grad(lambda x: x**0.0)(0.0) == 0.0
    assert fl.grad(np.power, (0, 1))(0.0, 0.0) == (0.0, 0.0)


def test_B13_power_of_zero_and_of_a_negative_base():
    assert fl.grad(np.power, (0, 1))(0.0, 2.0) == (0.0, 0.0)
    dx, dy = fl.grad(np.power, (0, 1))(-2.0, 2.0)
    assert dx == -4.0
    assert np.isnan(dy)


def test_B14_products_with_zeros():
    x = np.array([0.0, 2.0, 3.0])
    np.testing.assert_array_equal(fl.grad(np.prod)(x), [6.0, 0.0, 0.0])
    expected = [[0.0, 3.0, 2.0], [3.0, 0.0, 0.0], [2.0, 0.0, 0.0]]
    for hessian in (fl.hessian, lambda f: fl.jacrev(fl.jacrev(f)), lambda f: fl.jacfwd(fl.jacfwd(f))):
        np.testing.assert_array_equal(hessian(np.prod)(x), expected)
    np.testing.assert_array_equal(fl.grad(np.prod)(np.array([0.0, 0.0, 3.0])), [0.0, 0.0, 0.0])


def test_B15_cumulative_products_with_zeros():
    for found in jacobians(np.cumprod, np.array([2.0, 0.0, 3.0])):
        np.testing.assert_array_equal(found, [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 6.0, 0.0]])


def test_B16_sinc_at_zero():
    first = fl.grad(fl.numpy.sinc)
    assert first(0.0) == 0.0
    assert fl.grad(first)(0.0) == pytest.approx(-np.pi**2 / 3, rel=1e-12)
    assert fl.jvp(first, (0.0,), (1.0,))[1] == pytest.approx(-np.pi**2 / 3, rel=1e-12)


def test_B17_arctan2_at_the_origin():
    assert fl.grad(np.arctan2, (0, 1))(0.0, 0.0) == (0.0, 0.0)


@pytest.mark.parametrize("x, value, gradient", [
    ([-inf, -inf], -inf, [0.0, 0.0]), ([-inf, 0.0], 0.0, [0.0, 1.0]), ([inf, 0.0], inf, [np.nan, 0.0]),
])
def test_B18_logsumexp_of_infinities(x, value, gradient):
    found = fl.value_and_grad(fl.scipy.special.logsumexp)(np.array(x))
    assert found[0] == value
    np.testing.assert_array_equal(found[1], gradient)


def test_B19_logaddexp_of_two_minus_infinities_has_a_finite_gradient():
    assert fl.grad(np.logaddexp, (0, 1))(-inf, -inf) == (0.5, 0.5)


def test_B20_xlogy_at_the_origin():
    value, (dx, dy) = fl.value_and_grad(fl.scipy.special.xlogy, (0, 1))(0.0, 0.0)
    assert (value, dx, dy) == (0.0, 0.0, 0.0)


def test_B21_remainder():
    assert fl.grad(np.mod, (0, 1))(5.5, 2.0) == (1.0, -2.0)


def test_B24_ties_along_an_axis():
    found = fl.grad(lambda x: np.sum(np.max(x, axis=0)))(np.array([[1.0, 2.0], [1.0, 3.0]]))
    np.testing.assert_array_equal(found, [[0.5, 0.0], [0.5, 1.0]])


@pytest.mark.parametrize("f", [np.expm1, np.log1p])
def test_B25_small_arguments_are_exact(f):
    assert f(1e-20) == fl.jit(f)(1e-20) == fl.grad(lambda x: f(x) * x)(1e-20) / 2 == 1e-20
