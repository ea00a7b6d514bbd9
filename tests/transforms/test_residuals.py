# SPDX-License-Identifier: MIT
"""What a forward program leaves for its derivative: no views, no constants; derivatives are the same."""

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite.core.check import check_program
from functorch_lite.core.program import Literal
from functorch_lite.transforms.programs import linearize_program
from functorch_lite.transforms.residuals import without_views

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)


def normed(x, w):
    scale = fnp.exp(fnp.mean(x, axis=1))
    return x * scale[:, None] @ w.T


def masked(x, w):
    seen = fnp.arange(4) <= fnp.arange(3)[:, None]
    return fnp.where(seen, fnp.sin(x), 0.0) @ w


def reversed_twice(x, w):
    return (fnp.sin(x)[::-1] * fnp.cos(x)[:, ::-1]) @ w.reshape(2, 8).reshape(4, 4)


FUNCTIONS = {f.__name__: f for f in (normed, masked, reversed_twice)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_view_and_no_constant_is_left(name):
    program = fl.make_program(FUNCTIONS[name])(X, W)
    parts = linearize_program(program, (True, True))
    check_program(parts.forward)
    check_program(parts.linear)
    views = {v for e in parts.forward.equations for v in e.outputs
             if e.prim.name in ("broadcast_in_dim", "permute_dims", "reshape", "rev")}
    computed = parts.forward.outputs[len(program.outputs) :]
    assert not views & set(computed) and not any(type(a) is Literal for a in computed)
    assert len(set(computed)) == len(computed) == parts.n_computed
    assert not any(v.aval.dtype == bool for v in computed)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_a_call_are_those_of_the_function(name):
    fun = FUNCTIONS[name]

    def loss(call, x, w):
        return fnp.sum(call(x, w) ** 2)

    want = fl.grad(lambda x, w: loss(fun, x, w), (0, 1))(X, W)
    for run in (fl.grad(lambda x, w: loss(fl.jit(fun), x, w), (0, 1)),
                fl.jit(fl.grad(lambda x, w: loss(fl.jit(fun), x, w), (0, 1)))):
        for got, expected in zip(run(X, W), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_residuals_of_a_scan_are_not_stacked_copies_of_weights():
    def fun(w, x):
        return fl.lax.scan(lambda x, _: (fnp.tanh(x @ w.T), None), x, None, length=6)[0].sum()

    program = fl.make_program(fl.grad(fun))(W, X)
    (scan, *_) = [e for e in program.equations if e.prim.name == "scan"]
    assert all(v.aval.shape != (6, 4, 4) for v in scan.outputs)


def test_a_residual_that_is_another_ones_base_is_left_once():
    program = fl.make_program(lambda x: (fnp.exp(x), fnp.exp(x)[:, ::-1]))(X)
    forward, view = program.outputs
    linear = fl.make_program(lambda a, b, t: a * b * t)(X, X, X)
    found = without_views(program, linear, (), (forward, view))
    assert len(found.computed) <= 2 and len(found.linear.inputs) == len(found.computed) + 1
    check_program(found.linear)
