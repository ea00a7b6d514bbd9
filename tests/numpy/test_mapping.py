# SPDX-License-Identifier: MIT
"""Functions of slices and of elements: equal to NumPy's, and part of what is differentiated, batched and compiled."""

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite.errors import ArgumentError, ShapeError

X = np.random.default_rng(1).normal(size=(2, 3, 4))
SLICES = {
    "a number": np.sum,
    "a vector": lambda row: row[::-1] * 2,
    "a matrix": lambda row: np.outer(row, row[:2]),
}


@pytest.mark.parametrize("axis", (0, 1, -1))
@pytest.mark.parametrize("fun", SLICES.values(), ids=SLICES)
def test_along_an_axis(fun, axis):
    wanted = np.apply_along_axis(fun, axis, X)
    for along in (fnp.apply_along_axis, np.apply_along_axis):
        found = fl.jit(along, static_argnums=(0, 1))(fun, axis, X)
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
    rows = fl.vmap(lambda x: fnp.apply_along_axis(fun, axis, x))(np.stack([X + 1, X]))
    np.testing.assert_allclose(rows[1], wanted, rtol=1e-14)


def test_along_an_axis_with_arguments_and_gradient():
    def scaled(row, by, plus=0.0):
        return by * row**2 + plus

    gradient = fl.grad(lambda x: np.apply_along_axis(scaled, 1, x, 3.0, plus=1.0).sum())(X)
    np.testing.assert_allclose(gradient, 6 * X)


@pytest.mark.parametrize("axes", (0, [0, 2], (-1, 0, 1)), ids=str)
@pytest.mark.parametrize("fun", (np.sum, np.cumsum), ids=lambda f: f.__name__)
def test_over_axes(fun, axes):
    found = fl.jit(lambda x: np.apply_over_axes(fun, x, axes))(X)
    np.testing.assert_allclose(found, np.apply_over_axes(fun, X, axes), rtol=1e-14)


def test_over_axes_refuses_a_function_that_changes_more():
    with pytest.raises(ShapeError, match="gave shape"):
        fl.jit(lambda x: fnp.apply_over_axes(lambda x, axis: x.sum(), x, 0))(X)


def bend(a, b):
    return fnp.where(a > b, a * b, np.sin(a) - b)


def test_scalars_are_mapped_over_all_axes():
    a, b = X[:, :1], X[0]
    wanted = np.vectorize(lambda p, q: p * q if p > q else np.sin(p) - q)(a, b)
    bent = fnp.vectorize(bend)
    np.testing.assert_allclose(bent(a, b), wanted)
    np.testing.assert_allclose(fl.jit(bent)(a, b), wanted)
    np.testing.assert_allclose(bent(2.0, b), bend(np.full_like(b, 2.0), b))
    np.testing.assert_allclose(fl.grad(lambda b: bent(a, b).sum())(b), np.where(a > b, a, -1.0).sum(0))


@pytest.mark.parametrize("shapes", [((3, 4), (4,)), ((5, 3, 4), (4,)), ((5, 1, 3, 4), (2, 4)), ((1, 3, 4), (6, 4))])
def test_signature_with_dimensions(shapes):
    a, v = (np.random.default_rng(2).normal(size=s) for s in shapes)

    def plain(a, v):
        return a @ v, v * 2

    wanted = np.vectorize(plain, signature="(m,n),(n)->(m),(n)")(a, v)
    for fun in (found := fnp.vectorize(plain, signature="(m,n),(n)->(m),(n)"), fl.jit(found)):
        for ours, numpys in zip(fun(a, v), wanted, strict=True):
            np.testing.assert_allclose(ours, np.broadcast_to(numpys, ours.shape), rtol=1e-12)
            assert ours.shape == numpys.shape


def test_excluded_arguments_are_handed_on():
    power = fnp.vectorize(lambda x, n, *, kind: x**n if kind == "plain" else n, excluded={1, "kind"})
    np.testing.assert_allclose(power(X, 2, kind="plain"), X**2)
    with pytest.raises(ArgumentError, match="by position, or exclude it"):
        fnp.vectorize(bend)(X, b=X)


@pytest.mark.parametrize(
    "signature, arguments, message",
    [
        ("(n),(n)", (X, X), "no signature"),
        ("(n)->()", (X, X), "is for 1 arguments, got 2"),
        ("(n),(n)->()", (X, X[..., :2]), "dimension n is 4 in one argument and 2"),
        ("(n),(n)->()", (X, X[:1, :2]), "do not broadcast"),
        ("(n),(m,n)->()", (X, X[0, 0]), "expected an array with dimensions"),
        ("(n),(n)->(n)", (X, X), "expected a result with dimensions"),
        ("(n),(n)->(),()", (X, X), "expected 2 results, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(signature, arguments, message):
    with pytest.raises((ArgumentError, ShapeError), match=message):
        fnp.vectorize(lambda x, y: np.sum(x * y), signature=signature)(*arguments)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: fnp.polyfit(x, x, -1), "cannot be negative"),
        (lambda x: fnp.polyfit(x, x[:2], 1), "expected x"),
        (lambda x: fnp.polyfit(x, x, 3, cov=True), "do not tell the covariance"),
        (lambda x: fnp.poly(x.reshape(2, 2)[:1]), "a vector of roots or a square matrix"),
        (lambda x: fnp.roots(x.reshape(2, 2)), "a vector of coefficients"),
        (lambda x: fnp.packbits(x), "expected integers or booleans"),
        (lambda x: fnp.unpackbits(x), "expected bytes"),
        (lambda x: fnp.packbits(x > 0, bitorder="middle"), "must be 'big' or 'little'"),
    ],
)
def test_polynomials_and_bits_that_do_not_fit_are_refused(call, message):
    with pytest.raises(Exception, match=message):
        fl.jit(call)(np.arange(4.0))


def test_roots_and_fits_have_derivatives():
    gradient = fl.jit(fl.grad(lambda p: np.real(fnp.roots(p).sum())))(np.array([1.0, 0.3, 2.0]))
    np.testing.assert_allclose(gradient, [0.3, -1.0, 0.0], atol=1e-12)
    x, y = np.linspace(-1, 1, 9), np.sin(np.arange(9.0))

    def fit(y):
        return fnp.polyfit(x, y, 3)

    np.testing.assert_allclose(fl.jacrev(fit)(y) @ y, np.polyfit(x, y, 3), rtol=1e-10)
