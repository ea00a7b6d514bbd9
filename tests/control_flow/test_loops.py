# SPDX-License-Identifier: MIT
"""scan, while_loop, fori_loop and map against Python loops, under every transform."""

import itertools

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError, TreeError

RNG = np.random.default_rng(0)
W, H, XS = RNG.normal(size=(3, 3)), RNG.normal(size=(2, 3)), RNG.normal(size=(4, 2, 3))


def recurrent(w, h, xs):
    """A recurrent network by scan: every kind of operand (captured, carry, rows) takes part."""

    def step(h, x):
        h = np.tanh(h @ w + x)
        return h, np.sin(h)

    h, ys = lax.scan(step, h, xs)
    return np.sum(h) + np.sum(ys**2)


def unrolled(w, h, xs):
    total = 0.0
    for i in range(xs.shape[0]):
        h = np.tanh(h @ w + xs[i])
        total = total + np.sum(np.sin(h) ** 2)
    return np.sum(h) + total


def assert_close(one, other, rtol=1e-10):
    for a, b in zip(fl.tree.leaves(one), fl.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


EVERY = (0, 1, 2)
DERIVATIVES = {
    "grad": lambda f: fl.grad(f, EVERY),
    "jit grad": lambda f: fl.jit(fl.grad(f, EVERY)),
    "grad jit": lambda f: fl.grad(fl.jit(f), EVERY),
    "jacfwd": lambda f: fl.jacfwd(f, EVERY),
    "hessian": lambda f: fl.hessian(f, EVERY),
    "jacrev jacrev": lambda f: fl.jacrev(fl.jacrev(f, 2), 0),
    "jacfwd jacfwd": lambda f: fl.jacfwd(fl.jacfwd(f, 0), 1),
    "jit hessian jit": lambda f: fl.jit(fl.hessian(fl.jit(f))),
    "jacrev jacfwd": lambda f: fl.jacrev(fl.jacfwd(f, 1), 1),
    "checkpoint": lambda f: fl.hessian(fl.checkpoint(f), 1),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_of_a_scan_are_those_of_the_unrolled_loop(name):
    plain = {"checkpoint": lambda f: fl.hessian(f, 1)}.get(name, DERIVATIVES[name])
    assert_close(DERIVATIVES[name](recurrent)(W, H, XS), plain(unrolled)(W, H, XS))


@pytest.mark.parametrize("axes", [a for a in itertools.product((None, 0), repeat=3) if any(x is not None for x in a)])
def test_a_batched_scan_with_every_choice_of_mapped_operands(axes):
    args = [a if axis is None else np.stack([a, 0.5 * a]) for a, axis in zip((W, H, XS), axes, strict=True)]
    rows = [[a if axis is None else a[i] for a, axis in zip(args, axes, strict=True)] for i in range(2)]
    for f in (fl.value_and_grad(recurrent, EVERY), fl.jit(fl.grad(recurrent, EVERY))):
        found = fl.vmap(f, axes)(*args)
        expected = fl.tree.map(lambda a, b: np.stack([a, b]), f(*rows[0]), f(*rows[1]))
        assert_close(found, expected)


def test_scan_reverse_keeps_the_places_of_ys():
    def f(xs, reverse):
        return lax.scan(lambda c, x: (c * x, c + x), 2.0, xs, reverse=reverse)

    xs = np.array([1.5, 2.0, 0.5])
    carry, ys = f(xs, True)
    carry_flipped, ys_flipped = f(xs[::-1], False)
    assert carry == carry_flipped
    np.testing.assert_array_equal(ys, ys_flipped[::-1])
    np.testing.assert_allclose(
        fl.jacrev(lambda xs: f(xs, True)[1])(xs), fl.jacfwd(lambda xs: f(xs, False)[1])(xs[::-1])[::-1, ::-1]
    )


@pytest.mark.parametrize("wrap", [lambda f: f, fl.jit], ids=["eager", "jit"])
def test_a_scan_of_length_zero_has_zero_and_identity_derivatives(wrap):
    def f(c, w, xs):
        c, ys = lax.scan(lambda c, x: (c * w, c * x), c, xs)
        return c + np.sum(ys)

    found = fl.grad(wrap(f), EVERY)(2.0, 3.0, np.zeros(0))
    assert found[:2] == (1.0, 0.0) and found[2].shape == (0,)
    assert fl.vmap(wrap(f), (0, None, None))(np.arange(3.0), 3.0, np.zeros(0)).tolist() == [0.0, 1.0, 2.0]


def test_a_nested_scan():
    def f(x):
        def outer(c, a):
            inner, ys = lax.scan(lambda d, b: (np.sin(d * b), d), c * a, np.array([1.0, 0.5]))
            return inner, np.sum(ys)

        c, ys = lax.scan(outer, x, np.array([1.0, 2.0, 3.0]))
        return c + np.sum(ys)

    def plain(x):
        c, total = x, 0.0
        for a in (1.0, 2.0, 3.0):
            c = c * a
            for b in (1.0, 0.5):
                total = total + c
                c = np.sin(c * b)
        return c + total

    for transform in (lambda f: f, fl.grad, fl.hessian, lambda f: fl.jit(fl.grad(fl.grad(f)))):
        assert transform(f)(0.3) == pytest.approx(transform(plain)(0.3), rel=1e-12)


def test_unroll_is_a_hint_only():
    assert lax.scan(lambda c, x: (c + x, None), 0.0, np.arange(5.0), unroll=3)[0] == 10.0


def test_carries_that_are_integers_or_not_differentiated():
    def f(x):
        def step(c, _):
            n, done, y = c
            return (n + 1, n > 1, y * 1.5 + n), n

        (n, done, y), ns = lax.scan(step, (0, False, x), None, length=4)
        return y * n, (done, ns)

    gradient, (done, ns) = fl.grad(f, has_aux=True)(2.0)
    assert gradient == 4 * 1.5**4
    assert bool(done) and ns.tolist() == [0, 1, 2, 3]
    assert fl.jvp(lambda x: f(x)[0], (2.0,), (1.0,))[1] == 4 * 1.5**4


# --- while and fori -------------------------------------------------------------------------------------------------


def squaring(w, x):
    return lax.while_loop(lambda c: c[1] < 50.0, lambda c: (c[0] + 1, c[1] * c[1] * w), (0, x))[1]


def squaring_plain(w, x):
    while x < 50.0:
        x = x * x * w
    return x


@pytest.mark.parametrize(
    "name", ["grad", "jit grad", "grad jit", "jacfwd", "hessian", "jacrev jacrev", "jacfwd jacfwd"]
)
def test_derivatives_of_a_while_loop_are_those_of_pythons(name):
    transform = {
        **DERIVATIVES,
        "grad": lambda f: fl.grad(f, (0, 1)),
        "jit grad": lambda f: fl.jit(fl.grad(f, (0, 1))),
        "grad jit": lambda f: fl.grad(fl.jit(f), (0, 1)),
        "jacfwd": lambda f: fl.jacfwd(f, (0, 1)),
        "hessian": lambda f: fl.hessian(f, (0, 1)),
        "jacrev jacrev": lambda f: fl.jacrev(fl.jacrev(f, 1), 0),
    }[name]
    plain = fl.grad(squaring_plain, (0, 1)) if "jit" in name else transform(squaring_plain)
    assert_close(transform(squaring)(1.3, 1.7), plain(1.3, 1.7))


def test_a_batched_while_loop_and_its_derivatives():
    x = np.array([1.7, 60.0, 3.0])
    assert_close(fl.vmap(squaring, (None, 0))(1.3, x), np.array([squaring_plain(1.3, v) for v in x]))
    for f in (fl.grad(squaring, (0, 1)), fl.hessian(squaring, (0, 1)), fl.jit(fl.grad(squaring, (0, 1)))):
        rows = [f(1.3, v) for v in x]
        assert_close(fl.vmap(f, (None, 0))(1.3, x), fl.tree.map(lambda *r: np.stack(r), *rows))
    total = fl.grad(lambda w: np.sum(fl.vmap(squaring, (None, 0))(w, x)))(1.3)
    assert_close(total, sum(fl.grad(squaring_plain)(1.3, v) for v in x))


def test_a_while_loop_inside_a_scan_and_the_other_way_round():
    def f(x):
        def step(c, x):
            return c + lax.while_loop(lambda v: v < 10.0, lambda v: v * v, x), None

        return lax.scan(step, 0.0, x)[0]

    x = np.array([2.0, 3.0, 20.0])
    expected = np.array([4 * 2.0**3, 4 * 3.0**3, 1.0])
    for g in (fl.grad(f), fl.jacfwd(f), fl.jit(fl.grad(f)), fl.grad(fl.jit(f))):
        assert_close(g(x), expected)
    for g in (fl.hessian(f), fl.jacrev(fl.jacrev(f)), fl.jit(fl.jacfwd(fl.jacfwd(f)))):
        assert_close(g(x), np.diag([12 * 2.0**2, 12 * 3.0**2, 0.0]))
    assert_close(fl.vmap(fl.grad(f))(np.stack([x, x])), np.stack([expected, expected]))

    def g(x):
        def body(c):
            return c[0] + 1, lax.scan(lambda d, w: (np.sin(d * w), None), c[1], np.array([0.5, 2.0]))[0]

        return lax.while_loop(lambda c: c[0] < 3, body, (0, x))[1]

    assert_close(fl.grad(g)(0.4), fl.jacfwd(g)(0.4))
    assert_close(fl.vmap(fl.grad(g))(np.array([0.4, 1.1])), np.array([fl.grad(g)(0.4), fl.grad(g)(1.1)]))


def test_nested_while_loops_under_vmap_and_grad():
    def f(x):
        def body(c):
            n, v = c
            return n + 1, lax.while_loop(lambda u: u < 3.0, lambda u: u * 1.5, v) * 0.5

        return lax.while_loop(lambda c: (c[0] < 2) | (c[1] > 2.0), body, (0, x))[1]

    x = np.array([0.5, 2.0, 10.0])
    expected = np.array([fl.jacfwd(f)(v) for v in x])
    assert_close(np.array([fl.grad(f)(v) for v in x]), expected)
    assert_close(fl.vmap(fl.jacfwd(f))(x), expected)
    assert_close(fl.vmap(fl.grad(f))(x), expected)
    assert_close(fl.jit(fl.vmap(fl.grad(f)))(x), expected)
    assert_close(fl.grad(lambda x: np.sum(fl.vmap(f)(x)))(x), expected)
    assert_close(fl.jacrev(fl.jacrev(lambda x: np.sum(fl.vmap(f)(x) ** 2)))(x), np.diag(2 * expected**2))


@pytest.mark.parametrize("lower, upper", [(0, 5), (3, 3), (-2, 2), (np.int32(1), 4)])
def test_fori_loop_with_known_and_traced_bounds(lower, upper):
    def f(lower, upper, x):
        return lax.fori_loop(lower, upper, lambda i, c: c * 2 + i, x)

    expected = 1.5
    for i in range(int(lower), int(upper)):
        expected = expected * 2 + i
    assert f(lower, upper, 1.5) == fl.jit(f)(lower, upper, 1.5) == expected
    slope = 2.0 ** (int(upper) - int(lower))
    assert fl.grad(f, 2)(lower, upper, 1.5) == fl.jit(fl.grad(f, 2))(lower, upper, 1.5) == slope


def test_fori_loop_with_a_bound_of_each_row():
    found = fl.vmap(lambda n: fl.grad(lambda x: lax.fori_loop(0, n, lambda i, c: c * 2, x))(1.0))(np.array([0, 1, 4]))
    np.testing.assert_array_equal(found, [1.0, 2.0, 16.0])


def test_map_by_rows_and_by_batches():
    x = np.arange(7.0)
    for size in (None, 1, 3, 7, 10):
        f = lambda x, size=size: lax.map(lambda r: {"y": np.sin(r) * r}, x, batch_size=size)["y"]  # noqa: E731
        np.testing.assert_allclose(f(x), np.sin(x) * x)
        np.testing.assert_allclose(fl.jacrev(f)(x), np.diag(np.cos(x) * x + np.sin(x)), atol=1e-14)
    with pytest.raises(ArgumentError, match="batch_size must be at least 1, got 0"):
        lax.map(np.sin, x, batch_size=0)
    with pytest.raises(ShapeError, match="xs is a scalar"):
        lax.map(np.sin, 1.0)


def test_weak_scalars_in_carries_take_the_dtype_of_the_body():
    x32 = np.float32(1.5)
    assert lax.scan(lambda c, _: (c + x32, None), 0.0, None, length=2)[0].dtype == np.float32
    assert lax.while_loop(lambda c: c < 4, lambda c: c + x32, 0.0).dtype == np.float32
    assert lax.fori_loop(0, 2, lambda i, c: c * 1.5, 1) == 2.25
    total, n = lax.scan(lambda c, _: ((c[0] + x32, c[1] + 1), None), (np.float32(0), 0), None, length=2)[0]
    assert total.dtype == np.float32 and type(n) is int and n == 2


def carry_error(f, init=1.0, **kwargs):
    return lambda: lax.scan(f, init, None, length=2, **kwargs)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (carry_error(lambda c, _: c), ArgumentTypeError, r"must return a pair \(carry, y\)"),
        (
            carry_error(lambda c, _: (np.ones(2), None)),
            ShapeError,
            r"`carry` comes in as f64\[\] and goes out as f64\[2\]",
        ),
        (
            carry_error(lambda c, _: ((c, c), None)),
            TreeError,
            "structure of the one it gets: at the top: a leaf against tuple",
        ),
        (carry_error(lambda c, _: (c * 1j, None), np.float64(1)), DTypeError, r"f64\[\] and goes out as c128\[\]"),
        (lambda: lax.scan(lambda c, x: (c, x), 0.0, 3.0), ShapeError, "`xs` is a scalar"),
        (lambda: lax.scan(lambda c, x: (c, x), 0.0), ArgumentError, "give xs, or length"),
        (lambda: lax.scan(lambda c, x: (c, x), 0.0, np.ones(3), length=2), ShapeError, "`xs` has 3, length=2"),
        (lambda: lax.scan(lambda c, x: (c, x), "a", np.ones(3)), ArgumentTypeError, r"`init` .* is a str \('a'\)"),
        (
            lambda: lax.while_loop(lambda c: c, lambda c: c, 1.0),
            ArgumentTypeError,
            r"one boolean scalar, it returned f64\[\]",
        ),
        (
            lambda: lax.while_loop(lambda c: c < np.ones(2), lambda c: c, 1.0),
            ArgumentTypeError,
            r"it returned bool\[2\]",
        ),
        (lambda: lax.fori_loop(0.5, 2, lambda i, c: c, 1.0), ArgumentTypeError, "`lower` must be an integer scalar"),
        (
            lambda: lax.fori_loop(0, np.ones(2, int), lambda i, c: c, 1.0),
            ArgumentTypeError,
            "`upper` must be an integer scalar",
        ),
        (lambda: lax.scan(3, 0.0, np.ones(3)), ArgumentTypeError, "expected a function"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()
