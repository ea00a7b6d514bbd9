# SPDX-License-Identifier: MIT
"""What scans leave for each other: cheap values are computed anew, others and those read elsewhere are kept."""

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.compiler.passes.canonical import canonicalize
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.compiler.passes.recompute import recompute_in_scans
from tests.compiler.passes.support import boundary, check_pass, program_of

X, XS = np.linspace(0.0, 1.0, 3), boundary("float64", (4, 3))


def scans(program):
    return [e for e in program.equations if e.prim.name == "scan"]


def two(left, read=lambda c, kept: c + sum(kept), also=lambda c, kept: [], length=4, reverse=False):
    """The program of a scan that leaves `left(carry, x)` for another."""

    def fun(x, xs):
        def first(c, x):
            kept = left(c, x)
            return fnp.sin(c) + kept[0], kept

        c, kept = lax.scan(first, x, xs)
        out, _ = lax.scan(lambda c, kept: (read(c, kept), None), c, tuple(k[:length] for k in kept), reverse=reverse)
        return [out, *also(c, kept)]

    return canonicalize(program_of(fun, X, XS))


def checked(program):
    return eliminate_dead_code(check_pass(recompute_in_scans, program, [X, XS]))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_cheap_value_is_computed_by_its_reader(reverse):
    def left(c, x):
        u = fnp.tanh(x + c)
        return u, 1.0 - u * u, u * (1.0 - u)

    first, second = scans(checked(two(left, reverse=reverse)))
    assert len(first.outputs) - 1 == 1
    assert sum(e.prim.name == "tanh" for e in first.params["body"].equations) == 1
    assert [e.prim.name for e in second.params["body"].equations].count("mul") == 2


@pytest.mark.parametrize("program", [
    two(lambda c, x: (fnp.tanh(c), fnp.exp(fnp.tanh(c)))),
    two(lambda c, x: (fnp.tanh(c), fnp.tanh(c) * x)),  # reads what is not kept
    two(lambda c, x: (fnp.tanh(c), 1.0 - (2.0 - (3.0 - (4.0 - fnp.tanh(c)))))),  # many operations
    two(lambda c, x: (fnp.tanh(c), 1.0 - fnp.tanh(c)), also=lambda c, kept: [kept[1]]),
    two(lambda c, x: (fnp.tanh(c), 1.0 - fnp.tanh(c)), length=3),
], ids=["dear", "not kept", "many", "an output", "shorter"])
def test_what_stays(program):
    assert recompute_in_scans(program) is program


def test_values_that_are_computed_from_one_another_all_go():
    def left(c, x):
        u = fnp.tanh(c)
        v = 1.0 - u
        return u, v, v * v

    first, _ = scans(checked(two(left)))
    assert len(first.outputs) == 2  # the carry and u


def test_a_recurrent_network_keeps_less_and_gives_the_same():
    def loss(w, x, xs):
        def step(c, x):
            gate = 1 / (1 + np.exp(-(x @ w)))
            c = c * gate + np.tanh(x) * (1 - gate)
            return c, None

        return np.sum(lax.scan(step, x, xs)[0] ** 2)

    w, x, xs = (np.random.default_rng(k).standard_normal(s) for k, s in enumerate(((6, 6), (5, 6), (7, 5, 6))))
    gradient = fl.grad(loss, argnums=(0, 1, 2))
    for found, wanted in zip(fl.jit(gradient)(w, x, xs), gradient(w, x, xs), strict=True):
        np.testing.assert_allclose(found, wanted, 1e-11, 1e-13)
