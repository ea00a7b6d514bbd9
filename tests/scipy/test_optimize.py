# SPDX-License-Identifier: MIT
"""minimize: minima of known functions, SciPy's names, jit and vmap, what stops it."""

import numpy as np
import pytest
import scipy.optimize

import functorch_lite as fl
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.scipy import optimize


def rosenbrock(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def beale(x):
    return sum((c - x[0] + x[0] * x[1] ** k) ** 2 for k, c in ((1, 1.5), (2, 2.25), (3, 2.625)))


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def badly_scaled(x):
    return np.sum(np.array([1e-4, 1e4]) * (x - 1) ** 2)


def with_a_barrier(x):
    return np.sum(x - np.log(x))


CASES = {
    "rosenbrock": (rosenbrock, [-1.2, 1.0], [1, 1]), "rosenbrock_of_4": (rosenbrock, [1.2, 0.8, 1.5, 2], [1] * 4),
    "beale": (beale, [1.0, 1.0], [3, 0.5]), "himmelblau": (himmelblau, [1.0, 1.0], [3, 2]),
    "badly_scaled": (badly_scaled, [0.0, 0.0], [1, 1]), "barrier": (with_a_barrier, [0.01, 20.0], [1, 1]),
}


@pytest.mark.parametrize("name", CASES)
def test_minimum_is_found_eagerly_and_compiled(name):
    fun, x0, expected = CASES[name]
    for run in (optimize.minimize, fl.jit(lambda f, x: optimize.minimize(f, x, tol=1e-7), static_argnums=0)):
        result = run(fun, np.array(x0))
        assert result.success and result.status == 0
        np.testing.assert_allclose(result.x, expected, atol=1e-4)
        np.testing.assert_allclose(result.fun, fun(result.x), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(result.jac, fl.grad(fun)(result.x), rtol=1e-6, atol=1e-9)
        assert np.abs(result.jac).max() <= 1e-5
        assert result.nit < result.nfev == result.njev


def test_names_and_effort_are_scipys():
    result = optimize.minimize(rosenbrock, np.array([-1.2, 1.0]))
    scipys = scipy.optimize.minimize(rosenbrock, [-1.2, 1.0], jac=fl.grad(rosenbrock), method="BFGS")
    assert set(result._fields) == set(scipys) - {"message"}
    assert result.nfev < 1.5 * scipys.nfev
    hessian = fl.hessian(rosenbrock)(result.x)
    np.testing.assert_allclose(result.hess_inv, np.linalg.inv(hessian), rtol=0.1)


def test_mapped_starts_give_what_each_gives_alone():
    starts = np.random.default_rng(0).standard_normal((6, 3))
    mapped = fl.jit(fl.vmap(lambda x: optimize.minimize(rosenbrock, x)))(starts)
    alone = [optimize.minimize(rosenbrock, x) for x in starts]
    np.testing.assert_array_equal(mapped.nit, [r.nit for r in alone])
    np.testing.assert_allclose(mapped.x, np.stack([r.x for r in alone]), rtol=1e-8)
    assert mapped.success.all()


def test_arguments_are_passed_and_the_dtype_is_that_of_x0():
    a = np.arange(3, dtype=np.float32)
    result = fl.jit(lambda a: optimize.minimize(lambda x, a: np.sum((x - a) ** 2), np.zeros(3, np.float32), (a,)))(a)
    assert result.x.dtype == result.fun.dtype == result.hess_inv.dtype == np.float32
    np.testing.assert_allclose(result.x, a, atol=1e-6)
    np.testing.assert_allclose(result.hess_inv, np.eye(3) / 2, atol=1e-5)


def test_value_of_a_wider_dtype_is_taken_in_that_of_x0():
    a = np.arange(3.0)
    result = optimize.minimize(lambda x: np.sum((x.astype(np.float64) - a) ** 2), np.zeros(3, np.float32))
    assert result.x.dtype == result.fun.dtype == np.float32 and result.success
    np.testing.assert_allclose(result.x, a, atol=1e-6)


def test_derivative_of_the_minimum_in_an_argument():
    def at(a):
        return optimize.minimize(lambda x: np.sum(np.array([1.0, 3.0]) * (x - a) ** 2), np.zeros(2), tol=1e-9).x

    np.testing.assert_allclose(fl.jacfwd(at)(np.array([1.0, 2.0])), np.eye(2), atol=1e-6)
    np.testing.assert_allclose(fl.grad(lambda a: at(a).sum())(np.array([1.0, 2.0])), np.ones(2), atol=1e-6)


@pytest.mark.parametrize(("fun", "x0", "options", "status"), [
    (rosenbrock, [-1.2, 1.0], {"maxiter": 3}, optimize.TOO_LONG),
    (lambda x: np.sum(np.log(x)), [-1.0, 1.0], {}, optimize.NOT_FINITE),
    (lambda x: np.sum(2 * fl.stop_gradient(x * x) - x * x), [1.0, 2.0], {}, optimize.NO_DECREASE),  # a wrong gradient
])
def test_what_stops_it_is_told(fun, x0, options, status):
    result = fl.jit(lambda x: optimize.minimize(fun, x, options=options))(np.array(x0))
    assert result.status == status and not result.success


def test_start_at_the_minimum_takes_no_step():
    result = optimize.minimize(rosenbrock, np.ones(2))
    assert result.success and result.nit == 0 and result.nfev == 1
    np.testing.assert_array_equal(result.x, np.ones(2))


def test_norm_and_line_search_options():
    tight = optimize.minimize(rosenbrock, np.array([-1.2, 1.0]), options={"gtol": 1e-9, "norm": 2})
    assert np.linalg.norm(tight.jac) <= 1e-9
    assert optimize.minimize(rosenbrock, np.array([-1.2, 1.0]), options={"line_search_maxiter": 4}).nit > 0


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: optimize.minimize(rosenbrock, np.ones(2), method="CG"), ArgumentError, "method must be 'BFGS'"),
    (lambda: optimize.minimize(rosenbrock, np.ones(2), options={"eps": 1}), ArgumentError, "unknown option eps"),
    (lambda: optimize.minimize(rosenbrock, np.ones((2, 2))), ShapeError, "x0 must be a vector"),
])
def test_wrong_arguments_are_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
