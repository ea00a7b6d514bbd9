# SPDX-License-Identifier: MIT
"""L-BFGS and its line search. Against PyTorch's it is tested in tests/peers."""

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import optim
from functorch_lite.errors import ArgumentError
from functorch_lite.optim.line_search import Point


def rosenbrock(p):
    x = fnp.concatenate([p["a"], p["b"].reshape(-1)])
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


START = {"a": np.array([1.5, 1.0]), "b": np.array([[0.5], [2.0]])}


def minimize(step, state, n_steps, fun=rosenbrock, params=START):
    value_and_grad = fl.value_and_grad(fun)
    for _ in range(n_steps):
        params, state = step(params, value_and_grad, state)
    return params, state


def test_rosenbrocks_valley_is_followed_to_its_end():
    opt = optim.lbfgs(history=8, tolerance_change=1e-20)
    params, state = minimize(opt.step, opt.init(START), 60)
    for leaf in fl.tree.leaves(params):
        np.testing.assert_allclose(leaf, 1.0, atol=1e-6)
    assert fl.tree.structure(params) == fl.tree.structure(START)
    assert state.n_evaluations < 100


def test_a_jitted_step_is_the_eager_step():
    opt = optim.lbfgs(history=4)
    value_and_grad = fl.value_and_grad(rosenbrock)
    jitted = fl.jit(lambda params, state: opt.step(params, value_and_grad, state))
    params, state = START, opt.init(START)
    for _ in range(6):
        (same, same_state), (params, state) = jitted(params, state), opt.step(params, value_and_grad, state)
        for x, y in zip(fl.tree.leaves((same, same_state)), fl.tree.leaves((params, state)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10)


def test_a_vmapped_step_is_a_loop_over_the_members():
    opt = optim.lbfgs(history=3)
    starts = np.array([[-1.2, 1.0], [0.5, 2.0], [1.0, 1.0]])

    def step(p, state):
        return opt.step(p, fl.value_and_grad(lambda p: (1 - p[0]) ** 2 + 5 * (p[1] - p[0] ** 2) ** 2), state)

    params, states = starts, fl.vmap(opt.init)(starts)
    for _ in range(4):
        params, states = fl.vmap(step)(params, states)
    for i in range(3):
        p, state = starts[i], opt.init(starts[i])
        for _ in range(4):
            p, state = step(p, state)
        np.testing.assert_allclose(params[i], p, rtol=1e-8)


def test_a_quadratic_of_n_parameters_takes_about_n_steps():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6))
    matrix, centre = root @ root.T + np.eye(6), rng.normal(size=6)
    opt = optim.lbfgs()
    p, _ = minimize(opt.step, opt.init(centre), 14, lambda p: 0.5 * (p - centre) @ matrix @ (p - centre), np.zeros(6))
    np.testing.assert_allclose(p, centre, atol=1e-4)


def test_at_a_minimum_the_parameters_stay():
    opt = optim.lbfgs()
    start = np.array([3.0, 3.0])
    p, state = minimize(opt.step, opt.init(start), 3, lambda p: ((p - 3) ** 2).sum(), start)
    np.testing.assert_array_equal(p, start)
    assert np.all(np.isfinite(state.inverse)) and state.n_evaluations == 1


def test_the_dtype_of_the_parameters_is_kept():
    start = {"w": np.ones((2, 2), np.float32)}
    opt = optim.lbfgs(history=3)
    state = opt.init(start)
    params, new = opt.step(start, fl.value_and_grad(lambda p: (p["w"] ** 4).sum()), state)
    assert params["w"].dtype == np.float32
    assert [x.dtype for x in fl.tree.leaves(new)] == [x.dtype for x in fl.tree.leaves(state)]


def line(fun):
    derivative = fl.grad(fun)

    def evaluate(t):
        t = fnp.asarray(t, dtype=np.float64)
        return Point(t, fnp.asarray(fun(t)), fnp.asarray(derivative(t)), np.zeros(1))

    return evaluate


LINES = {
    "parabola": lambda t: (t - 3.0) ** 2,
    "far": lambda t: (0.001 * t - 1.0) ** 2,
    "narrow": lambda t: fnp.sqrt(1.0 + 100.0 * (t - 0.02) ** 2),
    "wavy": lambda t: (t - 2.0) ** 2 + 0.3 * fnp.sin(8.0 * t),
    "more_thuente": lambda t: -t / (t * t + 2.0),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("first", [1e-3, 1.0, 50.0])
def test_an_accepted_length_has_the_strong_wolfe_conditions(name, first):
    evaluate = line(LINES[name])
    origin = evaluate(0.0)
    assert origin.slope < 0
    point, n = optim.strong_wolfe(evaluate, origin, np.asarray(first), np.asarray(1.0))
    assert point.value <= origin.value + 1e-4 * point.t * origin.slope
    assert abs(point.slope) <= 0.9 * abs(origin.slope)
    assert 1 <= n <= 26


@pytest.mark.parametrize("beyond", [np.nan, np.inf])
def test_a_search_comes_back_from_where_the_function_is_not_finite(beyond):
    """f is -log(3 - t), less t: its minimum is at 2, and from 3 on it is no number."""

    def evaluate(t):
        inside = t < 3.0
        room = fnp.where(inside, 3.0 - t, 1.0)
        value, slope = -fnp.log(room) - t, 1.0 / room - 1.0
        return Point(t, fnp.where(inside, value, beyond), fnp.where(inside, slope, np.nan), slope[None])

    for first in (0.01, 1.0, 5.0, 1000.0):
        point, n = optim.strong_wolfe(evaluate, evaluate(np.float64(0.0)), np.float64(first), np.float64(1.0))
        assert 0.0 < point.t < 3.0 and np.isfinite(point.value) and n <= 25
        assert abs(point.slope) <= 0.9 * (1 - 1 / 3)


def test_a_function_without_a_minimum_gives_the_longest_trial():
    evaluate = line(lambda t: -t)
    point, n = optim.strong_wolfe(evaluate, evaluate(0.0), np.asarray(1.0), np.asarray(1.0), n_max=4)
    assert point.t > 500 and n == 5


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"learning_rate": 0.0}, "lbfgs: `learning_rate` should be above 0"),
        ({"history": 0}, "lbfgs: `history` should be at least 1"),
        ({"n_search": 0}, "lbfgs: `n_search` should be at least 1"),
        ({"c1": 0.5, "c2": 0.4}, r"lbfgs: `c2` should be in \[0.5, 1.0\), but is 0.4"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ArgumentError, match=message):
        optim.lbfgs(**settings)


def test_parameters_should_be_real_arrays():
    with pytest.raises(ArgumentError, match="one or more arrays of a floating-point dtype"):
        optim.lbfgs().init({"n": np.array([1])})
