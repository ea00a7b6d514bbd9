# SPDX-License-Identifier: MIT
"""SEMANTICS J: custom rules, recomputation, pytrees and empty arrays."""

import dataclasses
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.control_flow import custom_linear_solve, custom_root, scan
from functorch_lite.core.program import subprograms
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError


def sine_with_double_slope():
    f = fl.custom_vjp(np.sin)
    f.defvjp(lambda x: (np.sin(x), x), lambda x, ct: (2.0 * np.cos(x) * ct,))
    return f


def test_J1_a_custom_backward_function_at_first_and_second_order():
    f = sine_with_double_slope()
    assert fl.grad(f)(0.0) == 2.0
    assert fl.grad(fl.grad(f))(0.5) == pytest.approx(-0.958851077208406, rel=1e-14)


@pytest.mark.parametrize("wrap", [lambda f: f, fl.jit], ids=["eager", "jit"])
def test_J2_forward_mode_of_a_custom_backward_function(wrap):
    f = sine_with_double_slope()
    value, slope = fl.jvp(wrap(f), (0.3,), (1.5,))
    assert value == pytest.approx(np.sin(0.3), rel=1e-15)
    assert slope == pytest.approx(3.0 * np.cos(0.3), rel=1e-15)
    assert fl.jacfwd(wrap(f))(0.0) == 2.0


def with_backward(backward):
    f = fl.custom_vjp(lambda params, x: np.sum(params["w"] * x))
    f.defvjp(lambda params, x: (np.sum(params["w"] * x), (params, x)), backward)
    return lambda: fl.grad(f, (0, 1))({"w": np.ones(3)}, np.arange(3.0))


@pytest.mark.parametrize(
    "backward, error, message",
    [
        (
            lambda res, ct: ({"w": ct * res[1]},),
            ArgumentTypeError,
            r"for each of its arguments: \(params, x\), it returned 1 value",
        ),
        (lambda res, ct: ({"w": ct}, None), ShapeError, r"`params\['w'\]` a cotangent of shape \(\), expected \(3,\)"),
        (
            lambda res, ct: (None, (ct * res[0]["w"]).astype(np.float32)),
            DTypeError,
            "`x` a cotangent of dtype float32, expected float64",
        ),
        (lambda res, ct: ({"v": None, "w": None}, None), ArgumentError, "cotangent for `params` of another structure"),
    ],
    ids=["arity", "shape", "dtype", "structure"],
)
def test_J3_a_wrong_cotangent_names_the_argument_and_both_types(backward, error, message):
    with pytest.raises(error, match=message):
        with_backward(backward)()


def test_J3_a_cotangent_None_is_zero():
    of_params, of_x = with_backward(lambda res, ct: (None, ct * res[0]["w"]))()
    np.testing.assert_array_equal(of_params["w"], np.zeros(3))
    np.testing.assert_array_equal(of_x, np.ones(3))


def closing_over(y):
    f = fl.custom_vjp(lambda x: x * y)
    f.defvjp(lambda x: (x * y, x), lambda x, ct: (y * ct,))
    return f(2.0)


@pytest.mark.parametrize(
    "derivative",
    [
        fl.grad,
        lambda q: fl.jit(fl.grad(q)),
        lambda q: fl.grad(fl.jit(q)),
        lambda q: lambda y: fl.jvp(q, (y,), (1.0,))[1],
        lambda q: lambda y: fl.vmap(fl.grad(q))(np.array([y, y]))[1],
    ],
    ids=["grad", "jit grad", "grad jit", "jvp", "vmap grad"],
)
def test_J4_a_rule_may_close_over_a_value_that_is_differentiated(derivative):
    assert derivative(closing_over)(3.0) == 2.0


def test_J5_an_argument_that_is_not_differentiated():
    apply = fl.custom_vjp(lambda f, scale, x: f(x) * scale, nondiff_argnums=(0, 1))
    apply.defvjp(lambda f, scale, x: (f(x) * scale, x), lambda f, scale, x, ct: (3.0 * scale * ct,))
    weights = np.array([2.0, 4.0])
    assert fl.grad(lambda x: apply(np.sin, 2.0, x))(0.1) == 6.0
    np.testing.assert_array_equal(fl.vmap(lambda s: fl.grad(lambda x: apply(np.sin, s, x))(0.1))(weights), 3 * weights)
    total = fl.jit(lambda x: scan(lambda c, s: (c + apply(np.sin, s, x), None), 0.0, weights)[0])
    assert fl.grad(total)(0.1) == 18.0


def test_J6_scan_grad_vmap_and_a_custom_rule_together():
    custom = fl.custom_jvp(np.tanh)
    custom.defjvp(lambda p, t: (np.tanh(p[0]), (1.0 - np.tanh(p[0]) ** 2) * t[0]))

    def loss(f):
        return lambda x: scan(lambda c, b: (f(c * b), c), x, np.array([0.5, 2.0, 1.5]))[0]

    x = np.array([0.1, 0.7, -2.0])
    for transform in (
        lambda g: fl.vmap(fl.grad(g)),
        lambda g: fl.jit(fl.vmap(fl.grad(fl.grad(g)))),
        lambda g: fl.grad(lambda x: np.sum(fl.vmap(g)(x))),
    ):
        np.testing.assert_allclose(transform(loss(custom))(x), transform(loss(np.tanh))(x), rtol=1e-12)


# --- J7: solutions of equations -------------------------------------------------------------------------------------


def root(a):
    """The square root of a as the root of x x - a, by a loop whose own steps are not differentiated."""

    def newton(f, x):
        for _ in range(60):
            x = x - f(x) / (2.0 * x)
        return x

    return custom_root(lambda x: x * x - a, fl.stop_gradient(a) / 2.0 + 0.5, newton, lambda g, y: y / g(1.0))


@pytest.mark.parametrize("wrap", [lambda f: f, fl.jit], ids=["eager", "jit"])
def test_J7_the_derivatives_of_a_root(wrap):
    f = wrap(root)
    assert f(4.0) == pytest.approx(2.0, rel=1e-14)
    assert fl.grad(f)(4.0) == pytest.approx(0.25, rel=1e-13)
    assert fl.jvp(f, (4.0,), (2.0,))[1] == pytest.approx(0.5, rel=1e-13)
    assert fl.grad(fl.grad(f))(4.0) == pytest.approx(-1 / 32, rel=1e-12)
    assert fl.hessian(f)(4.0) == pytest.approx(-1 / 32, rel=1e-12)
    x = np.array([1.0, 4.0, 9.0])
    np.testing.assert_allclose(fl.vmap(f)(x), np.sqrt(x), rtol=1e-13)
    np.testing.assert_allclose(fl.vmap(fl.grad(f))(x), 0.5 / np.sqrt(x), rtol=1e-12)


def solve(a, b, symmetric=False):
    """A x = b, with NumPy's solver as the user's own."""

    def matrix_of(matvec):
        return fl.jacfwd(matvec)(np.zeros(b.shape))

    def solve_with(matvec, rhs):
        return np.linalg.solve(matrix_of(matvec), rhs)

    return custom_linear_solve(lambda x: a @ x, b, solve_with, solve_with, symmetric=symmetric)


@pytest.mark.parametrize("wrap", [lambda f: f, fl.jit], ids=["eager", "jit"])
def test_J7_the_derivatives_of_a_linear_solve(wrap):
    rng = np.random.default_rng(0)
    a, b, weights = np.eye(3) * 3 + rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)

    def of(solver):
        return wrap(lambda a, b: np.sum(weights * solver(a, b) ** 2))

    custom, plain = of(solve), of(np.linalg.solve)
    assert custom(a, b) == pytest.approx(plain(a, b), rel=1e-12)
    for transform in (fl.grad, fl.jacfwd, fl.hessian, lambda f, n: fl.jacrev(fl.jacrev(f, n), n)):
        found, expected = (
            fl.tree.leaves(transform(custom, (0, 1))(a, b)),
            fl.tree.leaves(transform(plain, (0, 1))(a, b)),
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    bs = rng.normal(size=(4, 3))
    np.testing.assert_allclose(fl.vmap(lambda b: solve(a, b))(bs), np.linalg.solve(a, bs.T).T, rtol=1e-12)
    np.testing.assert_allclose(
        fl.vmap(fl.grad(custom, 1), (None, 0))(a, bs), fl.vmap(fl.grad(plain, 1), (None, 0))(a, bs), rtol=1e-11
    )


# --- J8 to J10: recomputation ---------------------------------------------------------------------------------------


def test_J8_recomputation_draws_the_same_mask():
    key = fl.random.key(0)

    def f(x):
        keep = fl.random.bernoulli(key, 0.5, x.shape)
        return np.sum(np.where(keep, np.sin(x) * 2.0, 0.0))

    x = np.linspace(0.1, 1.0, 50)
    one, two = fl.grad(f)(x), fl.grad(fl.checkpoint(f))(x)
    np.testing.assert_array_equal(one == 0, two == 0)
    np.testing.assert_allclose(one, two, rtol=1e-15)  # what is recomputed is compiled, with a sine of its own
    assert 0 < np.count_nonzero(one) < 50


def block(x, w):
    h = fl.checkpoint_name(np.sin(x @ w), "hidden")
    return np.sum(np.exp(np.tanh(h) @ w))


def kept_by(policy):
    """The values that the forward pass of a gradient keeps for the backward pass beside the arguments, as printed."""
    x, w = np.ones((2, 3)), np.ones((3, 3))
    program = fl.make_program(fl.grad(fl.checkpoint(block, policy=policy), (0, 1)))(x, w)
    forward = next(e.params["program"] for e in program.equations if e.prim.name == "jit")
    makers = {v: e.prim.name for e in forward.equations for v in e.outputs}
    return [f"{makers[v]} {v.aval}" for v in forward.outputs[1:]]


PRODUCTS = ["dot_general f64[2,3]", "dot_general f64[2,3]"]
# What the reverse pass needs: the slopes of sin and tanh, and the values of tanh and exp. The named value is not of it.
EVERYTHING = ["cos f64[2,3]", "tanh f64[2,3]", "sub f64[2,3]", "exp f64[2,3]"]
RESIDUALS = {
    "default": (None, []),
    "nothing": (fl.checkpoint_policies.nothing_saveable, []),
    "the name": (fl.checkpoint_policies.save_only_these_names("hidden"), ["name f64[2,3]"]),
    "another name": (fl.checkpoint_policies.save_only_these_names("other"), []),
    "any name but it": (fl.checkpoint_policies.save_any_names_but_these("hidden"), []),
    "any name but another": (fl.checkpoint_policies.save_any_names_but_these("other"), ["name f64[2,3]"]),
    "products": (fl.checkpoint_policies.dots_saveable, PRODUCTS),
    "unbatched products": (fl.checkpoint_policies.dots_with_no_batch_dims_saveable, PRODUCTS),
    "name and products": (
        fl.checkpoint_policies.save_from_both_policies(
            fl.checkpoint_policies.save_only_these_names("hidden"), fl.checkpoint_policies.dots_saveable
        ),
        [PRODUCTS[0], "name f64[2,3]", PRODUCTS[1]],
    ),
    "everything": (fl.checkpoint_policies.everything_saveable, EVERYTHING),
    "all but the name": (fl.checkpoint_policies.save_anything_except_these_names("hidden"), EVERYTHING),
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_J9_the_residuals_that_a_policy_keeps(name):
    policy, expected = RESIDUALS[name]
    assert kept_by(policy) == expected


def test_J9_nothing_keeps_no_more_than_names_and_names_no_more_than_everything():
    nothing, names, everything = (kept_by(RESIDUALS[name][0]) for name in ("nothing", "the name", "everything"))
    assert len(nothing) < len(names) < len(everything)


def equations(program):
    for e in program.equations:
        yield e
        for sub in subprograms(e.params):
            yield from equations(sub)


@pytest.mark.parametrize("policy", ["nothing_saveable", "dots_saveable", "everything_saveable"])
def test_J9_every_policy_gives_the_same_gradient(policy):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3)), rng.normal(size=(3, 3))
    expected = fl.grad(block, (0, 1))(x, w)
    remat = fl.checkpoint(block, policy=getattr(fl.checkpoint_policies, policy))
    for f in (fl.grad(remat, (0, 1)), fl.jit(fl.grad(remat, (0, 1))), fl.grad(fl.jit(remat), (0, 1))):
        for one, other in zip(f(x, w), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-13)


def test_J10_the_compiled_program_keeps_the_recomputation():
    """The second sin must stay: merging it with the first would keep its operand alive again."""
    program = fl.jit(fl.grad(fl.checkpoint(block))).lower(np.ones((2, 3)), np.ones((3, 3))).program
    assert sum(e.prim.name == "sin" for e in equations(program)) == 2


def _peak(wrap):
    x, ws = np.ones((64, 64)), np.ones((8, 64, 64))

    def layer(x, w):
        h = fl.checkpoint_name(np.tanh(x @ w), "hidden")
        return np.sin(h) * np.cos(h)

    def net(x):
        for w in ws:
            x = wrap(layer)(x, w)
        return np.sum(x)

    return fl.jit(fl.grad(net)).memory(x).temporaries


def test_J9_the_peak_of_compiled_code_grows_with_what_is_kept():
    names = fl.checkpoint_policies.save_only_these_names("hidden")
    nothing, named, everything = (
        _peak(wrap) for wrap in (fl.checkpoint, lambda f: fl.checkpoint(f, policy=names), lambda f: f)
    )
    assert nothing < named < everything


def test_J10_recomputation_in_compiled_code_saves_memory():
    assert _peak(fl.checkpoint) < 0.5 * _peak(lambda f: f)


# --- J11 to J13: pytrees --------------------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")


def test_J11_the_leaves_of_a_tree():
    assert fl.tree.leaves({"b": 1, "a": 2}) == [2, 1]
    assert fl.tree.leaves([None, (1, None)]) == [1]
    assert fl.tree.leaves({1: "one", "a": "letter"}) == ["one", "letter"]  # keys that do not compare keep their order
    doubled = fl.tree.map(lambda v: 2 * v, {"p": Point(1, 2), "o": OrderedDict(z=3, a=4)})
    assert doubled["p"] == Point(2, 4) and isinstance(doubled["p"], Point)
    assert list(doubled["o"]) == ["z", "a"]
    shared = np.ones(2)
    assert len(fl.tree.leaves({"a": shared, "b": shared})) == 2


def test_J11_a_shared_leaf_has_two_gradients():
    shared = np.ones(2)
    found = fl.grad(lambda p: np.sum(p["a"] * 2.0 + p["b"] * 3.0))({"a": shared, "b": shared})
    np.testing.assert_array_equal(found["a"], [2.0, 2.0])
    np.testing.assert_array_equal(found["b"], [3.0, 3.0])


def test_J11_a_registered_dataclass_is_a_container():
    @dataclasses.dataclass
    class Pair:
        left: float
        right: float

    fl.tree.register(Pair, lambda p: ((p.left, p.right), None), lambda _, children: Pair(*children))
    assert fl.grad(lambda p: p.left * p.right)(Pair(2.0, 3.0)) == Pair(3.0, 2.0)


def test_J12_a_gradient_has_the_structure_of_its_argument():
    found = fl.grad(lambda p: p["a"] ** 2)({"a": 2.0, "b": None})
    assert found == {"a": 4.0, "b": None}


def test_J13_an_unused_argument_has_a_gradient_of_zeros():
    used, unused = fl.grad(lambda x, y: x * 2, (0, 1))(1.0, np.ones((2, 3), np.float32))
    assert used == 2.0
    np.testing.assert_array_equal(unused, np.zeros((2, 3)))
    assert unused.dtype == np.float32


def test_J18_empty_arrays():
    for jacobian in (fl.jacfwd, fl.jacrev):
        assert jacobian(lambda x: x * 2)(np.zeros(0)).shape == (0, 0)
    np.testing.assert_array_equal(fl.jit(np.matmul)(np.zeros((3, 0)), np.zeros((0, 4))), np.zeros((3, 4)))
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning, match="Mean of empty slice"):
        fl.numpy.mean(np.zeros(0))
    assert np.isnan(fl.jit(np.mean)(np.zeros(0)))


def own_calls():
    """Rules that call their own function, and say that f' = f."""
    one = fl.custom_jvp(lambda x: x**2)
    one.defjvp(lambda primals, tangents: (one(primals[0]), one(primals[0]) * tangents[0]))
    two = fl.custom_vjp(lambda x: x**2)
    two.defvjp(lambda x: (two(x), x), lambda x, ct: (two(x) * ct,))
    return {"custom_jvp": one, "custom_vjp": two}


@pytest.mark.parametrize("kind", own_calls())
@pytest.mark.parametrize("order", [1, 2, 3])
def test_J5_a_rule_may_call_its_own_function(kind, order):
    """At the next order that call has the custom derivative again."""
    f = own_calls()[kind]
    eager, inside, staged, rows = f, fl.jit(f), f, fl.vmap(fl.jit(f))
    for _ in range(order):
        eager, inside, staged = fl.grad(eager), fl.grad(inside), fl.jit(fl.grad(staged))
        rows = fl.grad(lambda x, g=rows: np.sum(g(x)))
    assert eager(3.0) == inside(3.0) == staged(3.0) == 9.0
    np.testing.assert_array_equal(rows(np.array([3.0, 5.0])), [9.0, 25.0])
    np.testing.assert_array_equal(fl.jit(fl.vmap(fl.grad(f)))(np.array([3.0, 5.0])), [9.0, 25.0])
