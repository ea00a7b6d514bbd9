# SPDX-License-Identifier: MIT
"""grad, value_and_grad, vjp, jvp, linearize, linear_transpose: values, structure and messages."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, NotLinearError, ShapeError, TreeError


def loss(params, x):
    return np.sum(np.tanh(x @ params["w"] + params["b"]))


PARAMS = {"w": np.linspace(-1, 1, 6).reshape(3, 2), "b": np.array([0.1, -0.2])}
X = np.linspace(0, 1, 12).reshape(4, 3)


def test_grad_has_the_structure_of_its_argument():
    found = fl.grad(loss)(PARAMS, X)
    slope = 1 - np.tanh(X @ PARAMS["w"] + PARAMS["b"]) ** 2
    np.testing.assert_allclose(found["w"], X.T @ slope, rtol=1e-13)
    np.testing.assert_allclose(found["b"], slope.sum(0), rtol=1e-13)
    assert type(found["w"]) is np.ndarray


def test_value_and_grad_with_aux():
    (value, aux), gradient = fl.value_and_grad(lambda x: (x**2, {"half": x / 2}), has_aux=True)(3.0)
    assert (value, aux["half"], gradient) == (9.0, 1.5, 6.0)
    gradient, aux = fl.grad(lambda x: (x**2, "text"), has_aux=True)(3.0)
    assert (gradient, aux) == (6.0, "text")


def test_grad_of_keyword_and_unused_arguments():
    assert fl.grad(lambda x, *, scale: x * scale)(2.0, scale=5.0) == 5.0
    assert fl.grad(lambda x, y: 1.0, (0, 1))(2.0, 3.0) == (0.0, 0.0)


def test_grad_of_a_constant_is_zero():
    assert fl.grad(lambda x: 7.0)(3.0) == 0.0
    np.testing.assert_array_equal(fl.grad(lambda x: np.float64(7.0))(np.ones(2)), np.zeros(2))


def test_grad_keeps_concrete_values_for_python():
    printed = []

    def f(x):
        printed.append(f"{x:.1f}")
        total = 0.0
        while total < x:
            total = total + x * 0.3
        return total

    assert fl.grad(f)(2.0) == pytest.approx(1.2)
    assert printed == ["2.0"]


@pytest.mark.parametrize(
    "fun, error, message",
    [
        (lambda x: (x, x), ArgumentTypeError, "must return one scalar, it returned a tuple"),
        (lambda x: None, ArgumentTypeError, "must return one scalar, it returned None"),
        (lambda x: "a", ArgumentTypeError, "must return a scalar array.*, it returned 'a'"),
        (lambda x: x * np.ones(2), ArgumentTypeError, r"it returned shape \(2,\)"),
        (lambda x: x > 0, DTypeError, "it returned dtype bool"),
    ],
)
def test_grad_refuses_what_is_no_real_scalar(fun, error, message):
    with pytest.raises(error, match=message):
        fl.grad(fun)(1.0)


@pytest.mark.parametrize(
    "transform",
    [
        fl.grad,
        fl.value_and_grad,
        fl.jacfwd,
        fl.jacrev,
        fl.vmap,
        fl.jit,
        fl.checkpoint,
        fl.custom_jvp,
        fl.custom_vjp,
        fl.make_program,
    ],
)
def test_a_transform_of_no_function_is_refused(transform):
    with pytest.raises(ArgumentTypeError, match=r"expected a function, got a int \(3\)"):
        transform(3)


def test_grad_refuses_arguments_that_are_no_arrays():
    with pytest.raises(
        ArgumentTypeError, match=r"grad: `p\['name'\]` of f is a str \('a'\), expected an array or a number"
    ):

        def f(p):
            return p["w"]

        fl.grad(f)({"w": 1.0, "name": "a"})
    with pytest.raises(ArgumentTypeError, match="argnums must be an int or a tuple of ints, got 'x'"):
        fl.grad(loss, "x")(PARAMS, X)


def test_vjp_can_be_pulled_back_several_times():
    y, pullback = fl.vjp(lambda x, w: x @ w, X, PARAMS["w"])
    for scale in (1.0, 2.0):
        ct = np.full(y.shape, scale)
        of_x, of_w = pullback(ct)
        np.testing.assert_allclose(of_x, ct @ PARAMS["w"].T)
        np.testing.assert_allclose(of_w, X.T @ ct)


def test_vjp_with_aux_and_trees():
    y, pullback, aux = fl.vjp(lambda p: ({"s": p["b"] * 2}, 5), {"b": 3.0}, has_aux=True)
    assert (y, aux, pullback({"s": 1.0})) == ({"s": 6.0}, 5, ({"b": 2.0},))


@pytest.mark.parametrize(
    "ct, error, message",
    [
        (np.ones(3), ShapeError, r"`output` has shape \(2,\), its cotangent has shape \(3,\)"),
        (np.ones(2, np.complex128), DTypeError, "has dtype float64, its cotangent has dtype complex128"),
        ((np.ones(2),), TreeError, "cotangent must have the structure of f's output: at the top: a leaf against tuple"),
    ],
)
def test_vjp_refuses_a_cotangent_of_another_type(ct, error, message):
    def f(x):
        return x * 2

    with pytest.raises(error, match=message):
        fl.vjp(f, np.ones(2))[1](ct)


def test_jvp_of_trees_with_integers():
    tangents = {"x": 1.0, "n": np.zeros((), dtypes.float0)}
    value, dot = fl.jvp(lambda p: {"y": p["x"] * p["n"], "m": p["n"] + 1}, ({"x": 2.0, "n": 3},), (tangents,))
    assert value == {"y": 6.0, "m": 4}
    assert dot["y"] == 3.0
    assert dot["m"].dtype == dtypes.float0


@pytest.mark.parametrize(
    "primals, tangents, error, message",
    [
        ((np.ones(2),), (np.ones(3),), ShapeError, r"`x` has shape \(2,\), its tangent has shape \(3,\)"),
        ((np.ones(2, np.float32),), (np.ones(2),), DTypeError, "`x` has dtype float32, its tangent has dtype float64"),
        ((1.0,), (1.0, 2.0), TreeError, "1 primals, but 2 tangents"),
        (1.0, 1.0, ArgumentTypeError, "must be tuples or lists"),
    ],
)
def test_jvp_refuses_tangents_of_another_type(primals, tangents, error, message):
    with pytest.raises(error, match=message):
        fl.jvp(lambda x: x, primals, tangents)


def test_jvp_with_aux():
    assert fl.jvp(lambda x: (x**2, x + 1), (3.0,), (2.0,), has_aux=True) == (9.0, 12.0, 4.0)


def test_linearize_computes_the_function_once():
    calls = []

    def f(x):
        calls.append(1)
        return np.sin(x) * x

    value, derivative = fl.linearize(f, 2.0)
    slope = np.cos(2.0) * 2.0 + np.sin(2.0)
    assert [derivative(t) for t in (1.0, 2.0, -1.0)] == pytest.approx([slope, 2 * slope, -slope])
    assert len(calls) == 1
    np.testing.assert_allclose(fl.vmap(derivative)(np.array([1.0, 3.0])), [slope, 3 * slope])
    assert fl.jit(derivative)(1.0) == pytest.approx(slope)


def test_linear_transpose_of_a_tree():
    transposed = fl.linear_transpose(lambda p: (p["a"] * 2.0, np.sum(p["b"])), {"a": 0.0, "b": np.zeros(3)})
    (found,) = transposed((5.0, 1.0))
    assert found["a"] == 10.0
    np.testing.assert_array_equal(found["b"], np.ones(3))


@pytest.mark.parametrize("fun", [np.sin, lambda x: x * x, lambda x: np.maximum(x, 0.0), lambda x: 1.0 / x])
def test_linear_transpose_refuses_what_is_not_linear(fun):
    with pytest.raises(NotLinearError):
        fl.linear_transpose(fun, 1.0)(1.0)


def test_jacobians_of_several_arguments_and_results():
    def f(a, b):
        return {"ab": a * np.sum(b), "b": b**2}

    a, b = 2.0, np.array([1.0, 3.0])
    for jacobian in (fl.jacfwd, fl.jacrev):
        found = jacobian(f, (0, 1))(a, b)
        assert found["ab"][0] == 4.0
        np.testing.assert_array_equal(found["ab"][1], [2.0, 2.0])
        np.testing.assert_array_equal(found["b"][0], [0.0, 0.0])
        np.testing.assert_array_equal(found["b"][1], [[2.0, 0.0], [0.0, 6.0]])
        single = jacobian(f, 1)(a, b)
        np.testing.assert_array_equal(single["b"], [[2.0, 0.0], [0.0, 6.0]])


def test_jacobians_have_output_shape_then_input_shape():
    x = np.arange(6.0).reshape(2, 3)
    for jacobian in (fl.jacfwd, fl.jacrev):
        found = jacobian(lambda x: np.sum(x, 0) ** 2)(x)
        assert found.shape == (3, 2, 3)
    found, aux = fl.jacrev(lambda x: (x * 2, "aux"), has_aux=True)(np.ones(2))
    assert aux == "aux"
    np.testing.assert_array_equal(found, 2 * np.eye(2))
    found, aux = fl.jacfwd(lambda x: (x * 2, x + 1), has_aux=True)(np.ones(2))
    np.testing.assert_array_equal(aux, [2.0, 2.0])


def test_holomorphic_jacobians():
    z = np.array([1 + 2j, 3 - 1j])
    for jacobian in (fl.jacfwd, fl.jacrev):
        np.testing.assert_allclose(jacobian(lambda z: z * z, holomorphic=True)(z), np.diag(2 * z))


def test_hessian_of_two_arguments_and_hvp():
    def f(x, y):
        return np.sum(x**2 * y)

    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    (xx, xy), (yx, yy) = fl.hessian(f, (0, 1))(x, y)
    np.testing.assert_array_equal(xx, np.diag(2 * y))
    np.testing.assert_array_equal(xy, np.diag(2 * x))
    np.testing.assert_array_equal(yx, np.diag(2 * x))
    np.testing.assert_array_equal(yy, np.zeros((2, 2)))
    v = np.array([0.5, -1.0])
    np.testing.assert_array_equal(fl.hvp(lambda x: f(x, y), (x,), (v,)), 2 * y * v)
    of_x, of_y = fl.hvp(f, (x, y), (v, np.zeros(2)))
    np.testing.assert_array_equal(of_y, 2 * x * v)
    np.testing.assert_array_equal(of_x, 2 * y * v)


def test_derivatives_of_long_chains_are_exact_sums():
    """Twenty thousand additions of one value: the cotangents of all uses are added without recursion."""

    def f(x):
        total = x
        for _ in range(20_000):
            total = total + x
        return total

    assert fl.grad(f)(1.0) == 20_001.0


def test_stop_gradient_of_a_tree():
    def f(p):
        q = fl.stop_gradient(p)
        return q["a"] * p["a"] + q["n"]

    assert fl.grad(lambda a: f({"a": a, "n": 3}))(2.0) == 2.0
    assert fl.stop_gradient({"a": 1, "s": "text"}) == {"a": 1, "s": "text"}


def test_argnums_out_of_range_counts_arguments():
    with pytest.raises(ArgumentError, match="argnums names argument -3, but loss was called with 2 positional"):
        fl.grad(loss, -3)(PARAMS, X)
