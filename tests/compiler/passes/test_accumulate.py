# SPDX-License-Identifier: MIT
"""Sums over the steps of a scan, taken after it: which are, which are not, and that the values are the same."""

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.compiler.passes.accumulate import accumulate_after
from functorch_lite.compiler.passes.algebra import simplify
from functorch_lite.compiler.passes.canonical import canonicalize
from functorch_lite.core.check import check_program
from functorch_lite.core.evaluate import Evaluator
from tests.compiler.passes.support import program_of

RNG = np.random.default_rng(0)
XS = RNG.standard_normal((7, 4, 3))
GS = RNG.standard_normal((7, 4, 5))
W = RNG.standard_normal((3, 5))


def accumulated(fun, *args):
    """The program after the pass, whose values must be those of before; transpositions are in the products already."""
    program = simplify(canonicalize(program_of(fun, *args)))
    result = accumulate_after(program)
    check_program(result)
    assert accumulate_after(result) is result
    for a, b in zip(Evaluator(result)(*args), Evaluator(program)(*args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    return result


def carries(program):
    return [e.params["n_carry"] for e in program.equations if e.prim.name == "scan"]


def test_the_gradient_of_a_weight_is_one_product():
    def fun(w, xs, gs):
        def step(total, pair):
            x, g = pair
            return total + x.T @ g, None

        return [lax.scan(step, w, (xs, gs))[0]]

    result = accumulated(fun, W, XS, GS)
    assert carries(result) == [0]
    product = next(e for e in result.equations if e.prim.name == "dot_general")
    assert product.params["contract"] == ((0, 1), (0, 1))


@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_not_there_for_all_steps_is_kept(reverse):
    def fun(w, c, xs, gs):
        def step(carry, pair):
            total, c = carry
            x, g = pair
            h = fnp.tanh(c + x)
            return (total + (g.T @ h).T, h * 0.5), h

        (total, c), hs = lax.scan(step, (w, c, ), (xs, gs), reverse=reverse)
        return [total, c, hs]

    result = accumulated(fun, W, XS[0], XS, GS)
    assert carries(result) == [1]


def test_a_bias_follows_its_weight():
    def fun(w, b, xs, gs):
        def step(carry, pair):
            total, bias, c = carry
            x, g = pair
            g = fnp.sin(g + c)
            return (total + x.T @ g, bias + g.sum(0), g), None

        return list(lax.scan(step, (w, b, gs[0]), (xs, gs))[0])

    assert carries(accumulated(fun, W, np.zeros(5), XS[:, :2], GS[:, :2])) == [1]


@pytest.mark.parametrize("step", [
    lambda c, x: (c * 0.9 + x, None),  # not only added to
    lambda c, x: (c + x, c),  # seen by others
    lambda c, x: (c + fnp.sum(x), None),  # no product
    lambda c, x: (c + x @ c @ x, None),  # depends on itself
], ids=["scaled", "seen", "no product", "itself"])  # fmt: skip
def test_other_carries_stay(step):
    square = RNG.standard_normal((6, 3, 3)) * 0.1
    assert carries(accumulated(lambda c, xs: [lax.scan(step, c, xs)[0]], square[0], square)) == [1]


def test_a_product_smaller_than_its_factors_stays():
    def fun(c, xs):
        def step(carry, x):
            total, c = carry
            y = fnp.sin(x + c)
            return (total + y.T @ y, y), None

        return list(lax.scan(step, (c, xs[0]), xs)[0])

    tall = RNG.standard_normal((5, 50, 2))
    assert carries(accumulated(fun, np.zeros((2, 2)), tall)) == [2]


def test_products_of_batches_and_an_inner_loop():
    def fun(w, xs, gs):
        def inner(total, pair):
            return total + fnp.einsum("bij,bik->bjk", *pair), None

        def outer(c, _):
            return fnp.tanh(lax.scan(inner, c, (xs, gs))[0]), None

        return [lax.scan(outer, w, None, length=3)[0]]

    w, xs, gs = np.zeros((2, 3, 5)), RNG.standard_normal((7, 2, 4, 3)), RNG.standard_normal((7, 2, 4, 5))
    result = accumulated(fun, w, xs, gs)
    assert carries(next(e for e in result.equations if e.prim.name == "scan").params["body"]) == [0]


def test_the_gradient_of_a_recurrent_network_under_jit():
    def loss(w, xs):
        return (lax.scan(lambda h, x: (fnp.tanh(h @ w + x),) * 2, xs[0], xs)[1] ** 2).sum()

    w, xs = RNG.standard_normal((3, 3)) * 0.3, RNG.standard_normal((20, 4, 3))
    gradient = fl.grad(loss, (0, 1))
    for found, expected in zip(fl.jit(gradient)(w, xs), gradient(w, xs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    text = fl.jit(gradient).lower(w, xs).as_text("optimized")
    assert "contract=((0, 1), (0, 1))" in text
    second = fl.jit(fl.vmap(lambda v: fl.jvp(lambda w: gradient(w, xs)[0], (w,), (v,))[1]))
    vs = RNG.standard_normal((2, 3, 3))
    expected = np.stack([fl.jvp(lambda w: gradient(w, xs)[0], (w,), (v,))[1] for v in vs])
    np.testing.assert_allclose(second(vs), expected, rtol=1e-9, atol=1e-10)
