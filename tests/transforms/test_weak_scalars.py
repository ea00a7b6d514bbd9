# SPDX-License-Identifier: MIT
"""Python scalars stay weak through every transform: a function gives the same dtype transformed or not."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite.errors import DTypeError, PromotionWarning

X = np.array([1.0, 2.0, 3.0], np.float32)


def f(v):
    return v * 3.0 + 1.0


def with_jvp(f):
    g = fl.custom_jvp(f)
    g.defjvp(lambda p, t: (f(p[0]), (p[0] * 0.0 + 3.0) * t[0]))
    return g


def with_vjp(f):
    g = fl.custom_vjp(f)
    g.defvjp(lambda v: (f(v), v), lambda v, ct: ((v * 0.0 + 3.0) * ct,))
    return g


def branch(f):
    return lambda v: lax.cond(True, f, lambda v: v * 0.5, v)


WRAPPERS = {
    "itself": lambda f: f,
    "jit": fl.jit,
    "checkpoint": fl.checkpoint,
    "custom_jvp": with_jvp,
    "custom_vjp": with_vjp,
    "cond": branch,
    "switch": lambda f: lambda v: lax.switch(1, [lambda v: v, f], v),
    "scan": lambda f: lambda v: lax.scan(lambda c, _: (f(c), None), v, None, length=1)[0],
    "while_loop": lambda f: lambda v: lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, f(s[1])), (0, v))[1],
    "fori_loop": lambda f: lambda v: lax.fori_loop(0, 1, lambda i, c: f(c), v),
    "checkpoint in jit": lambda f: fl.jit(fl.checkpoint(f)),
    "jit in checkpoint": lambda f: fl.checkpoint(fl.jit(f)),
    "cond in custom_jvp": lambda f: with_jvp(branch(f)),
    "custom_vjp in scan": lambda f: lambda v: lax.scan(lambda c, _: (with_vjp(f)(c), None), v, None, length=1)[0],
    "custom_jvp in jit": lambda f: fl.jit(with_jvp(f)),
    "custom_vjp in checkpoint": lambda f: fl.checkpoint(with_vjp(f)),
}
EVERY = pytest.mark.parametrize("name", list(WRAPPERS))


@EVERY
def test_a_python_scalar_comes_out_as_one(name):
    out = WRAPPERS[name](f)(2.0)
    assert type(out) is float and out == 7.0


@EVERY
@pytest.mark.parametrize("given", [np.float32(2), np.float64(2), np.full(2, 2.0, np.float32)], ids=["f32", "f64", "[]"])
def test_an_array_comes_out_as_one(name, given):
    out = WRAPPERS[name](f)(given)
    assert out.dtype == given.dtype
    np.testing.assert_array_equal(out, np.full(np.shape(given), 7.0))


TRANSFORMS = {
    "eager": lambda g: g,
    "jit": fl.jit,
    "vmap": lambda g: lambda x: fl.vmap(g, in_axes=None, axis_size=2)(x)[0],
    "jvp": lambda g: lambda x: fl.jvp(g, (x,), (x,))[1],
    "jit jvp": lambda g: fl.jit(lambda x: fl.jvp(g, (x,), (x,))[1]),
    "grad": lambda g: fl.grad(lambda x: np.sum(g(x))),
    "jit grad": lambda g: fl.jit(fl.grad(lambda x: np.sum(g(x)))),
    "checkpoint": lambda g: fl.grad(lambda x: np.sum(fl.checkpoint(g)(x))),
    "vmap grad": lambda g: lambda x: fl.vmap(fl.grad(lambda x: np.sum(g(x))))(np.stack([x, x]))[0],
}


@EVERY
@pytest.mark.parametrize("transform", list(TRANSFORMS))
def test_float32_times_a_scalar_result_is_float32(name, transform):
    wrapped = WRAPPERS[name](f)
    out = TRANSFORMS[transform](lambda x: x * wrapped(2.0))(X)
    assert out.dtype == np.float32
    expected = 7.0 * (np.ones(3) if "grad" in transform or transform == "checkpoint" else X)
    np.testing.assert_array_equal(out, expected)


@EVERY
@pytest.mark.parametrize("transform", ["grad", "jit grad", "jvp"])
def test_derivatives_in_the_scalar_beside_float32(name, transform):
    wrapped = WRAPPERS[name](f)

    def g(v):
        y = X * wrapped(v)
        assert y.dtype == np.float32
        return np.sum(y)

    assert TRANSFORMS[transform](g)(2.0) == (36.0 if transform == "jvp" else 18.0)


@pytest.mark.parametrize("name", ["custom_jvp", "custom_vjp", "custom_jvp in jit", "custom_vjp in checkpoint"])
@pytest.mark.parametrize("transform", [fl.grad, lambda g: fl.jit(fl.grad(g)), fl.jacfwd, lambda g: fl.grad(fl.grad(g))])
def test_a_custom_function_of_float32_and_a_scalar(name, transform):
    def scaled(x, s):
        return x * s

    if "custom_jvp" in name:
        g = fl.custom_jvp(scaled)
        g.defjvp(lambda p, t: (p[0] * p[1], p[1] * t[0] + p[0] * t[1]))
    else:
        g = fl.custom_vjp(scaled)
        g.defvjp(lambda x, s: (x * s, (x, s)), lambda r, ct: (r[1] * ct, r[0] * ct))
    wrapped = fl.jit(g) if "jit" in name else fl.checkpoint(g) if "checkpoint" in name else g
    x = np.float32(3.0)
    assert wrapped(x, 2.0).dtype == np.float32
    of_x = transform(lambda x: wrapped(x, 2.0) ** 2)(x)
    plain = transform(lambda x: scaled(x, 2.0) ** 2)(x)
    assert (of_x, of_x.dtype) == (plain, np.float32)
    assert transform(lambda s: wrapped(x, s) ** 2)(2.0) == transform(lambda s: scaled(x, s) ** 2)(2.0)


def test_integer_scalars_of_custom_functions():
    g = fl.custom_jvp(lambda x, n: (x * n, n + 1))
    g.defjvp(lambda p, t: ((p[0] * p[1], p[1] + 1), (t[0] * p[1], t[1])))
    y, n = g(np.float32(2), 3)
    assert (y.dtype, type(n), n) == (np.float32, int, 4)
    assert fl.grad(lambda x: g(x, 3)[0])(np.float32(2)) == 3
    h = fl.custom_vjp(lambda x, n: (x * n, n + 1))
    h.defvjp(lambda x, n: ((x * n, n + 1), n), lambda n, ct: (ct[0] * n, None))
    assert type(h(np.float32(2), 3)[1]) is int
    slope = fl.grad(lambda x: h(x, 3)[0])(np.float32(2))
    assert (slope, slope.dtype) == (3, np.float32)


def test_a_branch_with_a_scalar_takes_the_dtype_of_the_other():
    assert lax.cond(True, lambda: 2.5, lambda: np.float32(1)).dtype == np.float32
    assert type(lax.cond(True, lambda: 2.5, lambda: 1)) is float
    assert type(lax.switch(0, [lambda: True, lambda: 2])) is int
    with pytest.raises(DTypeError, match=r"returns f64\[\] at `output`, true_fun .* returns i32\[\]"):
        lax.cond(True, lambda: np.int32(1), lambda: 2.5)


def test_a_carry_stays_a_scalar_if_the_body_makes_one_of_it():
    assert type(lax.scan(lambda c, _: (c + 1.5, None), 0, None, length=3)[0]) is float
    assert lax.scan(lambda c, _: (c + 1.5, None), 0, None, length=3)[0] == 4.5
    # A carry that the body makes an array of is one from the first step on.
    carry, ys = lax.scan(lambda c, _: (c + np.float64(1), c * X), 0.0, None, length=2)
    assert (carry.dtype, ys.dtype) == (np.float64, np.float64)
    (a, b), _ = lax.scan(lambda c, _: ((c[1], c[0] + X[0]), None), (0.0, 0.0), None, length=2)
    assert (a.dtype, b.dtype) == (np.float32, np.float32)
    assert type(lax.while_loop(lambda n: n < 5, lambda n: n + 2, 0)) is int


@pytest.mark.parametrize("wrap", [lambda g: g, fl.jit], ids=["known bounds", "traced bounds"])
def test_the_index_of_a_loop_is_as_weak_as_its_lower_bound(wrap):
    assert wrap(lambda n: lax.fori_loop(0, n, lambda i, c: c + i * X, np.zeros_like(X)))(3).dtype == np.float32
    with pytest.warns(PromotionWarning, match="int64 and float32 promote to float64"):
        strong = wrap(lambda n: lax.fori_loop(np.int64(0), n, lambda i, c: c + i * X, np.zeros(3)))(3)
    assert strong.dtype == np.float64
