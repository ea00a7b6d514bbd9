# SPDX-License-Identifier: MIT
"""SEMANTICS A: derivatives inside derivatives, in every mode, and transforms inside transforms."""

import itertools
import math

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.errors import ArgumentError, NotLinearError


def forward(f):
    """The derivative of a scalar function by forward mode."""
    return lambda x: fl.jvp(f, (x,), (1.0,))[1]


MODES = {"forward": forward, "reverse": fl.grad}
PAIRS = list(itertools.product(MODES, MODES))


@pytest.mark.parametrize("outer, inner", PAIRS)
def test_A1_an_inner_derivative_does_not_see_the_outer_perturbation(outer, inner):
    D, d = MODES[outer], MODES[inner]
    assert D(lambda x: x * d(lambda y: x + y)(1.0))(1.0) == 1.0


@pytest.mark.parametrize("outer, inner", PAIRS)
def test_A2_the_inner_derivative_depends_on_the_outer_variable(outer, inner):
    D, d = MODES[outer], MODES[inner]
    assert D(lambda x: x * d(lambda y: x * y)(1.0))(4.0) == 8.0


@pytest.mark.parametrize("outer, inner", PAIRS)
def test_A3_a_derivative_of_an_operator_applied_to_itself(outer, inner):
    def hat(D):
        return lambda f: lambda x: D(lambda u: f(x + u))(0.0)

    assert hat(MODES[outer])(hat(MODES[inner])(np.exp))(1.0) == pytest.approx(math.e, abs=1e-14)


def test_A3_the_form_that_is_not_expanded_is_refused():
    """D of a function that returns a function: the value is no array, so it cannot silently be differentiated as 0."""
    with pytest.raises(TypeError, match="function"):
        fl.jvp(lambda u: lambda f: lambda x: f(x + u), (0.0,), (1.0,))


def test_A4_six_nested_gradients():
    f = np.tanh
    for _ in range(6):
        f = fl.grad(f)
    assert f(0.3) == pytest.approx(-52.17630757678586, rel=1e-12)


def test_A6_jvp_of_grad_equals_grad_of_jvp():
    def f(x):
        return np.sin(x) ** 3

    one = fl.jvp(fl.grad(f), (0.3,), (1.0,))[1]
    two = fl.grad(lambda x: fl.jvp(f, (x,), (1.0,))[1])(0.3)
    assert abs(one - two) < 1e-12


def test_A7_jit_vmap_and_grad_in_all_orders():
    rng = np.random.default_rng(0)
    w, xs = rng.normal(size=(3, 4)), rng.normal(size=(5, 3))

    def f(x):
        return np.sum(np.tanh(x @ w))

    expected = (1 - np.tanh(xs @ w) ** 2) @ w.T
    orders = [
        fl.vmap(fl.grad(f)), fl.jit(fl.vmap(fl.grad(f))), fl.vmap(fl.jit(fl.grad(f))), fl.vmap(fl.grad(fl.jit(f))),
        fl.grad(lambda xs: np.sum(fl.vmap(f)(xs))), fl.jit(fl.grad(lambda xs: np.sum(fl.jit(fl.vmap(f))(xs)))),
    ]
    for g in orders:
        np.testing.assert_allclose(g(xs), expected, rtol=1e-13)


@pytest.mark.parametrize("D", MODES.values(), ids=MODES)
def test_A8_stop_gradient_is_constant_at_every_order(D):
    first = D(lambda x: x * fl.stop_gradient(x))
    assert first(3.0) == 3.0
    assert D(first)(3.0) == 0.0


def squares():
    """x * x by a custom rule: with the derivative of custom_jvp, and with custom_vjp's."""
    one = fl.custom_jvp(lambda x: x * x)
    one.defjvp(lambda primals, tangents: (primals[0] * primals[0], 2.0 * primals[0] * tangents[0]))
    two = fl.custom_vjp(lambda x: x * x)
    two.defvjp(lambda x: (x * x, x), lambda x, ct: (2.0 * x * ct,))
    return {"custom_jvp": one, "custom_vjp": two}


@pytest.mark.parametrize("kind", squares())
@pytest.mark.parametrize("jacobian", [fl.jacfwd, fl.jacrev])
def test_A9_nested_jacobians_through_a_custom_rule(kind, jacobian):
    square = squares()[kind]

    def f(x):
        return square(square(x))

    found = []
    for _ in range(3):
        f = jacobian(f)
        found.append(float(f(3.0)))
    np.testing.assert_allclose(found, [108.0, 108.0, 72.0], rtol=1e-12)


def test_A10_a_hessian_of_a_dictionary():
    found = fl.hessian(lambda p: p["a"] * p["b"] ** 2)({"a": 2.0, "b": 3.0})
    assert found == {"a": {"a": 0.0, "b": 6.0}, "b": {"a": 6.0, "b": 4.0}}


def test_A11_linearize_and_linear_transpose():
    y, derivative = fl.linearize(np.sin, 0.0)
    assert (y, derivative(2.0)) == (0.0, 2.0)
    assert fl.linear_transpose(lambda x: 3.0 * x, 1.0)(1.0) == (3.0,)
    (found,) = fl.linear_transpose(lambda x: np.cumsum(x[::-1]), np.zeros(3))(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(found, [3.0, 5.0, 6.0])


def test_A11_transposing_what_is_not_linear_names_the_line():
    with pytest.raises(NotLinearError, match=r"not linear in its argument(.|\n)*np\.sin\(x\) \* 2\.0"):
        fl.linear_transpose(lambda x: np.sin(x) * 2.0, 1.0)(1.0)


def test_A12_argnums():
    def f(x, y):
        return x * y

    assert fl.grad(f, (1, 0))(2.0, 3.0) == (2.0, 3.0)
    assert fl.grad(f, -1)(2.0, 3.0) == 2.0
    with pytest.raises(ArgumentError, match="argnums names argument 2, but f was called with 2 positional arguments"):
        fl.grad(f, 2)(2.0, 3.0)
