# SPDX-License-Identifier: MIT
"""checkpoint, its policies and names; pure_callback and the debug functions."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.control_flow import scan
from functorch_lite.errors import ArgumentError, DTypeError, MissingRuleError, ShapeError

W = np.linspace(-1, 1, 9).reshape(3, 3)


def layer(x, w):
    return np.tanh(fl.checkpoint_name(x @ w, "product"))


def test_checkpoint_agrees_at_every_order_and_in_every_mode():
    def f(x, wrap):
        return np.sum(wrap(wrap(layer))(x, W) ** 2)

    x = np.array([0.2, -0.5, 0.9])
    for transform in (
        fl.grad,
        fl.jacfwd,
        fl.hessian,
        lambda f: fl.jacrev(fl.jacrev(f)),
        lambda f: fl.jit(fl.hessian(f)),
    ):
        one = transform(lambda x: f(x, fl.checkpoint))(x)
        np.testing.assert_allclose(one, transform(lambda x: f(x, lambda g: g))(x), rtol=1e-12)
    rows = np.stack([x, 2 * x])
    one = fl.vmap(fl.grad(lambda x: f(x, fl.checkpoint)))(rows)
    np.testing.assert_allclose(one, fl.vmap(fl.grad(lambda x: f(x, lambda g: g)))(rows), rtol=1e-12)


def test_checkpoint_with_static_arguments_keywords_and_trees():
    f = fl.checkpoint(lambda n, p, *, scale: {"y": p["x"] ** n * scale}, static_argnums=0)
    assert fl.grad(lambda x: f(3, {"x": x, "none": None}, scale=2.0)["y"])(2.0) == 24.0


def test_checkpoint_of_a_closure():
    def f(w):
        return fl.checkpoint(lambda x: np.sin(x * w))(2.0)

    assert fl.grad(f)(0.3) == pytest.approx(2 * np.cos(0.6))
    assert fl.grad(fl.grad(f))(0.3) == pytest.approx(-4 * np.sin(0.6))


def test_checkpoint_in_a_scan_keeps_only_the_carries():
    def f(x, wrap):
        step = wrap(lambda c: np.sin(np.exp(np.cos(c))))
        return scan(lambda c, _: (step(c), None), x, None, length=6)[0]

    assert fl.grad(lambda x: f(x, fl.checkpoint))(0.3) == pytest.approx(
        fl.grad(lambda x: f(x, lambda g: g))(0.3), rel=1e-13
    )
    stacked = {}
    for name, wrap in (("plain", lambda g: g), ("checkpoint", fl.checkpoint)):
        program = fl.make_program(fl.grad(lambda x, wrap=wrap: f(x, wrap)))(0.3)
        first = next(e for e in program.equations if e.prim.name == "scan")
        stacked[name] = len(first.outputs) - 1
    assert stacked["checkpoint"] == 1 < stacked["plain"]


def test_policies_combine():
    p = fl.checkpoint_policies
    policies = [
        p.save_anything_except_these_names("product"),
        p.save_any_names_but_these("other"),
        p.save_from_both_policies(p.dots_saveable, p.nothing_saveable),
        p.dots_with_no_batch_dims_saveable,
    ]
    x = np.ones(3)
    expected = fl.grad(lambda x: np.sum(layer(x, W)))(x)
    for policy in policies:
        found = fl.grad(lambda x, policy=policy: np.sum(fl.checkpoint(layer, policy=policy)(x, W)))(x)
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_a_name_is_the_identity():
    assert fl.checkpoint_name({"a": 2.0}, "n")["a"] == 2.0
    assert fl.hessian(lambda x: fl.checkpoint_name(x, "n") ** 2)(3.0) == 2.0


# --- callbacks ------------------------------------------------------------------------------------------------------

SCALAR = fl.ShapeDtype((), np.dtype(float))


@pytest.mark.parametrize(
    "method, shapes", [("sequential", [()] * 3), ("expand_dims", [(3,)]), ("broadcast_all", [(3,)])]
)
def test_pure_callback_under_vmap(method, shapes):
    seen = []

    def on_host(x):
        assert type(x) is not fl.make_program and isinstance(x, np.ndarray | np.generic)
        seen.append(np.shape(x))
        return np.sin(x)

    f = fl.vmap(lambda x: fl.pure_callback(on_host, SCALAR, x, vmap_method=method))
    x = np.arange(3.0)
    np.testing.assert_allclose(f(x), np.sin(x))
    assert seen == shapes
    np.testing.assert_allclose(fl.jit(f)(x), np.sin(x))


def test_pure_callback_returns_trees_and_checks_types():
    out = fl.pure_callback(lambda x: {"a": x * 2, "b": np.ones(2)}, {"a": SCALAR, "b": np.ones(2)}, 3.0)
    assert out["a"] == 6.0
    with pytest.raises(ShapeError, match=r"result 0 has shape \(2,\), expected \(\)"):
        fl.pure_callback(lambda x: np.ones(2), SCALAR, 1.0)
    with pytest.raises(DTypeError, match="result 0 has dtype float32, expected float64"):
        fl.pure_callback(lambda x: np.float32(1), SCALAR, 1.0)
    with pytest.raises(ArgumentError, match="another structure than announced"):
        fl.pure_callback(lambda x: (x, x), SCALAR, 1.0)
    with pytest.raises(ArgumentError, match="vmap_method 'loop' is not"):
        fl.pure_callback(np.sin, SCALAR, 1.0, vmap_method="loop")


def test_pure_callback_has_a_derivative_when_it_is_given_one():
    plain = fl.jit(lambda x: fl.pure_callback(np.sin, SCALAR, x))
    with pytest.raises(MissingRuleError, match="give it a derivative with custom_jvp or custom_vjp"):
        fl.grad(plain)(0.3)
    f = fl.custom_jvp(plain)
    f.defjvp(lambda primals, tangents: (plain(*primals), np.cos(primals[0]) * tangents[0]))
    assert fl.grad(f)(0.3) == pytest.approx(np.cos(0.3))
    assert fl.jit(fl.grad(f))(0.3) == pytest.approx(np.cos(0.3))


def test_debug_print_inside_transforms(capsys):
    def f(x):
        fl.debug.print("x {}", x)
        return x * x

    fl.grad(f)(3.0)
    fl.vmap(f)(np.array([1.0, 2.0]))
    fl.jit(fl.vmap(f))(np.array([4.0]))
    assert capsys.readouterr().out == "x 3.0\nx 1.0\nx 2.0\nx 4.0\n"


def test_effects_in_a_loop_and_in_a_dead_branch_of_code():
    seen = []

    @fl.jit
    def f(x):
        unused = np.sin(x)
        fl.debug.callback(lambda u: seen.append(float(u)), unused)
        return x

    assert f(0.0) == 0.0 and seen == [0.0]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "wrap", [lambda f: f, fl.jit, lambda f: fl.jit(fl.checkpoint(f))], ids=["eager", "jit", "checkpoint"]
)
def test_an_exception_in_a_callback_comes_through(wrap, error):
    def stop(x):
        raise error("here")

    f = wrap(lambda x: (fl.debug.callback(stop, x), x)[1])
    with pytest.raises(error, match="here"):
        f(1.0)
    assert fl.grad(np.sin)(0.0) == 1.0
