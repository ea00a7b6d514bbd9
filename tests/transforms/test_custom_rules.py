# SPDX-License-Identifier: MIT
"""custom_jvp and custom_vjp: arguments, structures, closures and messages."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError


def test_trees_in_and_out():
    f = fl.custom_jvp(lambda p: {"y": p["a"] * p["b"][0], "z": p["a"]})
    f.defjvp(lambda primals, tangents: (
        f(*primals), {"y": 10.0 * tangents[0]["a"] + 100.0 * tangents[0]["b"][0], "z": tangents[0]["a"]}
    ))
    for g in (f, fl.jit(f)):
        found = fl.grad(lambda p, g=g: g(p)["y"] + g(p)["z"])({"a": 2.0, "b": [3.0]})
        assert found == {"a": 11.0, "b": [100.0]}


def test_defjvps_gives_one_rule_for_each_argument():
    f = fl.custom_jvp(lambda x, y: x * y)
    f.defjvps(lambda t, out, x, y: 2.0 * t, None)
    assert fl.grad(f, (0, 1))(3.0, 4.0) == (2.0, 0.0)
    assert fl.jit(fl.grad(f, (0, 1)))(3.0, 4.0) == (2.0, 0.0)


def test_keywords_and_defaults_are_positional():
    f = fl.custom_vjp(lambda x, scale=3.0: x * scale)
    f.defvjp(lambda x, scale: (x * scale, scale), lambda scale, ct: (ct * scale * 10.0, None))
    assert f(2.0, scale=4.0) == 8.0
    assert fl.grad(lambda x: f(x, scale=4.0))(2.0) == 40.0
    assert fl.grad(f)(2.0) == 30.0


def test_integer_arguments_have_float0_tangents():
    seen = []
    f = fl.custom_jvp(lambda x, n: x * n)

    @f.defjvp
    def _(primals, tangents):
        seen.append(tangents[1].dtype)
        return primals[0] * primals[1], tangents[0] * primals[1]

    assert fl.grad(f)(2.0, 3) == 3.0
    assert seen == [dtypes.float0]
    assert fl.jit(fl.grad(f))(2.0, 3) == 3.0


def test_nondifferentiable_arguments_come_first():
    f = fl.custom_jvp(lambda fun, x: fun(x), nondiff_argnums=0)
    f.defjvp(lambda fun, primals, tangents: (fun(*primals), 5.0 * tangents[0]))
    assert fl.grad(lambda x: f(np.sin, x))(0.3) == 5.0
    assert fl.jit(fl.vmap(fl.grad(lambda x: f(np.sin, x))))(np.ones(2)).tolist() == [5.0, 5.0]


def test_a_rule_under_vmap_sees_one_row():
    shapes = []
    f = fl.custom_vjp(lambda x: np.sum(x))

    def forward(x):
        shapes.append(x.shape)
        return np.sum(x), x.shape[0]

    f.defvjp(forward, lambda n, ct: (np.full(3, 1.0) * ct * n,))
    found = fl.vmap(fl.grad(f))(np.ones((5, 3)))
    np.testing.assert_array_equal(found, np.full((5, 3), 3.0))
    assert set(shapes) == {(3,)}


def test_an_unmapped_argument_gets_the_sum_of_the_rows_cotangents():
    f = fl.custom_vjp(lambda x, w: x * w)
    f.defvjp(lambda x, w: (x * w, (x, w)), lambda res, ct: (ct * res[1], ct * res[0]))
    x = np.array([1.0, 2.0, 4.0])
    for g in (f, fl.jit(f)):
        assert fl.grad(lambda w, g=g: np.sum(fl.vmap(g, (0, None))(x, w)))(3.0) == 7.0


@pytest.mark.parametrize("kind", [fl.custom_jvp, fl.custom_vjp])
def test_a_function_without_a_rule(kind):
    with pytest.raises(ArgumentError, match="has no rule yet: call f.def"):
        def f(x):
            return x

        kind(f)(1.0)


@pytest.mark.parametrize("rule, error, message", [
    (lambda p, t: p[0], ArgumentTypeError, "must return a pair"),
    (lambda p, t: (p[0], (t[0],)), ArgumentError, "different structure"),
    (lambda p, t: (p[0], t[0] * np.ones(2)), ShapeError, r"tangent of shape \(2,\), expected \(\)"),
    (lambda p, t: (p[0], t[0].astype(np.float32)), DTypeError, "tangent of dtype float32, expected float64"),
])
def test_a_jvp_rule_that_returns_something_else(rule, error, message):
    f = fl.custom_jvp(lambda x: x)
    f.defjvp(rule)
    with pytest.raises(error, match=message):
        fl.jvp(f, (np.float64(1.0),), (np.float64(1.0),))


def test_a_forward_function_that_returns_no_pair():
    f = fl.custom_vjp(lambda x: x)
    f.defvjp(lambda x: x, lambda res, ct: (ct,))
    with pytest.raises(ArgumentTypeError, match="must return a pair"):
        fl.grad(f)(1.0)


def test_gradient_clipping_by_a_backward_function():
    clip = fl.custom_vjp(lambda x, bound: x)
    clip.defvjp(lambda x, bound: (x, bound), lambda bound, ct: (np.clip(ct, -bound, bound), None))
    f = fl.grad(lambda x: np.sum(clip(x, 1.0) ** 2))
    np.testing.assert_array_equal(f(np.array([0.1, 5.0, -5.0])), [0.2, 1.0, -1.0])
    np.testing.assert_array_equal(fl.jit(f)(np.array([0.1, 5.0, -5.0])), [0.2, 1.0, -1.0])


def test_a_rule_with_closures_at_second_order():
    def q(y):
        f = fl.custom_jvp(lambda x: x * y)
        f.defjvp(lambda primals, tangents: (primals[0] * y, y * tangents[0]))
        return f(y)  # y * y

    for g in (fl.grad(fl.grad(q)), fl.jit(fl.grad(fl.grad(q))), fl.grad(fl.jit(fl.grad(q))), fl.hessian(q)):
        assert g(3.0) == 2.0


def test_methods_can_have_rules():
    class Layer:
        @fl.custom_jvp
        def scaled(self, x):
            return x * 2

    Layer.scaled.defjvp(lambda primals, tangents: (primals[1] * 2, 7.0 * tangents[1]))
    fl.tree.register(Layer, lambda layer: ((), None), lambda _, __: Layer())
    assert fl.grad(Layer().scaled)(1.0) == 7.0


@pytest.mark.parametrize("transform", [lambda g: g, fl.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("zero", [None, 0.0], ids=["None", "a number"])
def test_cotangents_have_none_where_the_argument_has_none(transform, zero):
    """A layer without bias: None in its tree is no leaf, and None for a leaf beside it still means zero."""

    @fl.custom_vjp
    def f(params, x):
        return params["weight"] * x

    f.defvjp(
        lambda params, x: (f(params, x), (params, x)),
        lambda kept, ct: ({"bias": None, "scale": zero, "weight": ct * kept[1]}, ct * kept[0]["weight"]),
    )
    params = {"bias": None, "scale": 1.0, "weight": 2.0}
    by_params, by_x = transform(fl.grad(f, (0, 1)))(params, 3.0)
    assert by_params == {"bias": None, "scale": 0.0, "weight": 3.0} and by_x == 2.0
