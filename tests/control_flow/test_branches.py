# SPDX-License-Identifier: MIT
"""cond and switch, associative_scan, custom_root and custom_linear_solve: values, derivatives, messages."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite.control_flow import custom_linear_solve, custom_root
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, NotLinearError, ShapeError, TreeError


def branching(x, y):
    return lax.cond(x > 0, lambda: np.sin(x) * y, lambda: y * y)


def plain(x, y):
    return np.sin(x) * y if x > 0 else y * y + 0 * x


TRANSFORMS = {
    "value": lambda f: f,
    "grad": lambda f: fl.grad(f, (0, 1)),
    "jacfwd": lambda f: fl.jacfwd(f, (0, 1)),
    "hessian": lambda f: fl.hessian(f, (0, 1)),
    "jacrev jacrev": lambda f: fl.jacrev(fl.jacrev(f, (0, 1)), (0, 1)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("wrap", [lambda f: f, fl.jit], ids=["eager", "jit"])
def test_derivatives_of_a_cond_are_those_of_the_branch_taken(name, wrap):
    transform = TRANSFORMS[name]
    for x in (1.0, -1.0):
        expected = np.array(fl.tree.leaves(transform(plain)(x, 2.0)))
        np.testing.assert_allclose(fl.tree.leaves(transform(wrap(branching))(x, 2.0)), expected, rtol=1e-14)
    x = np.array([1.0, -1.0, 2.0])
    rows = fl.vmap(wrap(transform(branching)), (0, None))(x, 2.0)
    expected = np.array([fl.tree.leaves(transform(plain)(v, 2.0)) for v in x])
    np.testing.assert_allclose(np.stack(fl.tree.leaves(rows), 1).reshape(expected.shape), expected, rtol=1e-14)


def test_only_the_branch_taken_runs():
    seen = []

    def note(name):
        def branch(x):
            fl.debug.callback(lambda: seen.append(name))
            return x

        return branch

    for wrap in (lambda f: f, fl.jit):
        f = wrap(lambda p: lax.cond(p, note("yes"), note("no"), 1.0))
        f(True), f(False)
    assert seen == ["yes", "no", "yes", "no"]


def test_a_batched_cond_runs_no_row_through_the_other_branch():
    """Newton's iteration diverges for the rows of the other branch; the loop must not see them."""

    def f(x):
        return lax.cond(x > 0, lambda x: lax.while_loop(lambda v: v * v > 1e-6, lambda v: v / 2, x), lambda x: x, x)

    x = np.array([1.0, -np.inf, 4.0, np.nan])
    found = fl.vmap(f)(x)
    np.testing.assert_array_equal(found[[1, 3]], x[[1, 3]])
    assert found[0] == f(1.0) and found[2] == f(4.0)
    np.testing.assert_array_equal(fl.vmap(fl.grad(f))(x), [fl.grad(f)(v) for v in x])
    np.testing.assert_array_equal(fl.jit(fl.vmap(fl.grad(f)))(x), [fl.grad(f)(v) for v in x])


def test_twice_batched_cond():
    x, y = np.array([1.0, -1.0]), np.array([2.0, 3.0, 4.0])
    found = fl.vmap(fl.vmap(branching, (0, None)), (None, 0))(x, y)
    np.testing.assert_allclose(found, [[plain(a, b) for a in x] for b in y])
    g = fl.grad(lambda y: np.sum(fl.vmap(fl.vmap(branching, (0, None)), (None, 0))(x, y)))(y)
    np.testing.assert_allclose(g, [sum(fl.grad(plain, 1)(a, b) for a in x) for b in y])


def test_a_cond_with_operands_none_leaves_and_integers():
    def f(x, n):
        out = lax.cond(
            n > 1,
            lambda p: {"y": p["x"] * n, "m": n, "none": None},
            lambda p: {"y": p["x"], "m": n + 1, "none": None},
            {"x": x, "none": None},
        )
        return out["y"], out["m"]

    gradient, m = fl.grad(f, has_aux=True)(2.0, 3)
    assert (gradient, m) == (3.0, 3)
    assert fl.jit(fl.grad(f, has_aux=True))(2.0, 0) == (1.0, 1)


def test_weak_results_take_the_dtype_of_the_other_branch():
    x = np.float32(2)
    assert lax.cond(True, lambda x: x, lambda x: 0.0, x).dtype == np.float32
    assert lax.cond(False, lambda x: x, lambda x: 0, x).dtype == np.float32


def test_switch_has_derivatives_of_the_chosen_branch():
    branches = [np.sin, np.cos, lambda x: x**3]
    index = np.array([2, 0, 1, 9])
    x = np.array([0.5, 0.6, 0.7, 0.8])
    expected = [3 * 0.25, np.cos(0.6), -np.sin(0.7), 3 * 0.64]
    f = fl.grad(lambda x, i: lax.switch(i, branches, x))
    np.testing.assert_allclose(fl.vmap(f)(x, index), expected)
    np.testing.assert_allclose([f(a, i) for a, i in zip(x, index, strict=True)], expected)
    assert lax.switch(0, [np.sin], 0.5) == np.sin(0.5)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: lax.cond(np.ones(2), np.sin, np.cos, 1.0), ShapeError, r"`pred` must be a scalar, got shape \(2,\)"),
        (lambda: lax.cond("a", np.sin, np.cos, 1.0), ArgumentTypeError, "`pred` must be a scalar, got 'a'"),
        (lambda: lax.cond(True, 1.0, 2.0), ArgumentTypeError, "expected a function"),
        (
            lambda: lax.cond(True, lambda: np.ones(2), lambda: np.ones(3)),
            ShapeError,
            r"f64\[3\] at `output`, .* f64\[2\]",
        ),
        (
            lambda: lax.cond(True, lambda: np.float32(1), lambda: np.float64(1)),
            DTypeError,
            r"f64\[\] at `output`, .* f32\[\]",
        ),
        (lambda: lax.cond(True, lambda: (1.0, 2.0), lambda: 1.0), TreeError, "same structure: at the top"),
        (lambda: lax.switch(1.0, [np.sin, np.cos], 1.0), DTypeError, "index must be an integer, got dtype float64"),
        (lambda: lax.switch(0, []), ArgumentError, "at least one branch"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- associative_scan -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8])
def test_associative_scan_of_every_length(n):
    x = np.arange(1.0, n + 1)
    np.testing.assert_allclose(lax.associative_scan(np.multiply, x), np.cumprod(x))
    np.testing.assert_allclose(lax.associative_scan(np.add, x, reverse=True), np.cumsum(x[::-1])[::-1])


def test_associative_scan_of_a_linear_recurrence():
    a, b = np.array([0.5, 2.0, -1.0, 0.3]), np.array([1.0, 2.0, 3.0, 4.0])

    def combine(one, two):
        return one[0] * two[0], one[1] * two[0] + two[1]

    def by_scan(a, b):
        return lax.scan(lambda h, ab: (ab[0] * h + ab[1], ab[0] * h + ab[1]), 0.0, (a, b))[1]

    def by_tree(a, b):
        return lax.associative_scan(combine, (a, b))[1]

    np.testing.assert_allclose(by_tree(a, b), by_scan(a, b))
    for transform in (lambda f: fl.jacrev(f, (0, 1)), lambda f: fl.jit(fl.jacfwd(f, (0, 1)))):
        for one, two in zip(transform(by_tree)(a, b), transform(by_scan)(a, b), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-14)


def test_associative_scan_along_another_axis_and_batched():
    x = np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(lax.associative_scan(np.add, x, axis=1), np.cumsum(x, 1))
    np.testing.assert_array_equal(lax.associative_scan(np.maximum, x, axis=-1), np.maximum.accumulate(x, -1))
    np.testing.assert_array_equal(fl.vmap(lambda r: lax.associative_scan(np.add, r))(x), np.cumsum(x, 1))
    with pytest.raises(ShapeError):
        lax.associative_scan(np.add, {"a": np.ones(2), "b": np.ones(3)})


# --- implicit functions ---------------------------------------------------------------------------------------------


def test_a_root_with_aux_and_a_tree():
    def solve(f, guess):
        x = guess
        for _ in range(40):
            x = fl.tree.map(lambda v, r: v - 0.5 * r, x, f(x))
        return x, {"steps": 40}

    def tangent_solve(g, y):
        scale = g(fl.tree.map(np.ones_like, y))
        return fl.tree.map(lambda r, s: r / s, y, scale)

    def root(a):
        x, aux = custom_root(
            lambda x: {"u": x["u"] - a, "v": x["v"] - a * a}, {"u": 0.0, "v": 0.0}, solve, tangent_solve, has_aux=True
        )
        return x["u"] + x["v"], aux

    gradient, aux = fl.grad(root, has_aux=True)(3.0)
    assert gradient == pytest.approx(7.0) and aux["steps"] == 40
    assert fl.jit(fl.grad(lambda a: root(a)[0]))(3.0) == pytest.approx(7.0)


def test_a_root_by_a_while_loop_and_in_a_host_callback():
    def by_loop(f, x):
        return lax.while_loop(lambda x: np.abs(f(x)) > 1e-13, lambda x: x - f(x) / (2 * x), x)

    def f(a):
        return custom_root(lambda x: x * x - a, 1.0, by_loop, lambda g, y: y / g(1.0))

    assert f(2.0) == pytest.approx(np.sqrt(2.0), rel=1e-14)
    assert fl.grad(f)(2.0) == pytest.approx(0.5 / np.sqrt(2.0), rel=1e-12)
    np.testing.assert_allclose(fl.vmap(fl.grad(f))(np.array([1.0, 9.0])), [0.5, 1 / 6], rtol=1e-12)


def test_a_residual_of_another_structure():
    with pytest.raises(TreeError, match="custom_root: <lambda> must return the structure of its argument"):
        custom_root(lambda x: (x, x), 1.0, lambda f, x: x, lambda g, y: y)
    with pytest.raises(ShapeError, match="custom_root: <lambda> must keep shapes"):
        custom_root(lambda x: x * np.ones(2), 1.0, lambda f, x: x, lambda g, y: y)


def test_a_linear_solve_that_is_symmetric_with_aux():
    a = np.array([[2.0, 0.5], [0.5, 1.0]])

    def solve(matvec, b):
        matrix = np.stack([matvec(np.array([1.0, 0.0])), matvec(np.array([0.0, 1.0]))], 1)
        return np.linalg.solve(matrix, b), 5

    def f(b):
        x, steps = custom_linear_solve(lambda x: a @ x, b, solve, symmetric=True, has_aux=True)
        return np.sum(x**2), steps

    gradient, steps = fl.grad(f, has_aux=True)(np.array([1.0, 2.0]))
    assert steps == 5
    np.testing.assert_allclose(gradient, 2 * np.linalg.solve(a, np.linalg.solve(a, [1.0, 2.0])))


def test_reverse_mode_of_a_linear_solve_needs_the_transposed_solver():
    def f(b):
        return custom_linear_solve(lambda x: 2.0 * x, b, lambda matvec, b: b / matvec(1.0))

    assert fl.jvp(f, (3.0,), (1.0,)) == (1.5, 0.5)
    with pytest.raises(NotLinearError, match="reverse mode needs transpose_solve, or symmetric=True"):
        fl.grad(f)(3.0)


def test_a_map_that_is_not_square():
    with pytest.raises(
        ShapeError, match=r"must map a vector like b to one like it: `b` has f64\[2\], the result f64\[\]"
    ):
        custom_linear_solve(lambda x: x[0], np.ones(2), lambda m, b: b)
