# SPDX-License-Identifier: MIT
"""What only reductions read transposed is reduced along the array's own axes."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.passes.turn_reductions import turn_reductions
from functorch_lite.core.check import check_program
from tests.compiler.passes.support import program_of

RNG = np.random.default_rng(5)
MATRIX = RNG.integers(-9, 10, (6, 17)).astype(np.float32)
IMAGE = RNG.integers(-9, 10, (2, 3, 4, 5)).astype(np.float32)



def check(fun, *args):
    """The names of the new program's equations that are needed, which gives the same."""
    program = fl.make_program(fun)(*args)
    new = turn_reductions(program)
    check_program(new)
    np.testing.assert_allclose(fl.jit(fun)(*args), fun(*args), rtol=1e-5)
    needed, found = set(new.outputs), []
    for eqn in reversed(new.equations):
        if not needed.isdisjoint(eqn.outputs):
            needed.update(eqn.inputs)
            found.append(eqn.prim.name)
    return found[::-1]


@pytest.mark.parametrize("method", ["sum", "max", "min", "prod", "argmax", "argmin", "any", "all"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_reduction_of_a_transposed_array_is_one_of_the_array(method, axis):
    x = MATRIX if method not in ("any", "all") else MATRIX > 0
    assert "permute_dims" not in check(lambda x: getattr(x.T, method)(axis), x)


@pytest.mark.parametrize("fun", [
    lambda x: (x.T * np.float32(2)).sum(0),
    lambda x: (x.T * x.T).sum(0),
    lambda x: np.var(x.T, 0),
    lambda x: np.log(np.exp(x.T - x.T.max(0)).sum(0)),
    lambda x: np.where(x.T > 0, x.T, np.float32(0)).sum(1),
])
def test_what_is_computed_between_is_computed_in_the_order_of_the_array(fun):
    assert "permute_dims" not in check(fun, MATRIX)


@pytest.mark.parametrize("order,axes,permutes", [
    ((0, 3, 1, 2), (2, 3), 0), ((0, 2, 3, 1), (1, 2), 0), ((3, 1, 0, 2), (2,), 1), ((3, 2, 1, 0), (0, 2), 1),
    ((1, 0, 2, 3), (0, 1, 2, 3), 0),
])
def test_what_is_left_is_permuted_where_its_order_differs(order, axes, permutes):
    found = check(lambda x: x.transpose(order).sum(axes), IMAGE)
    assert found.count("permute_dims") == permutes
    assert not permutes or found[-1] == "permute_dims"


def test_a_sum_along_each_axis_of_one_transposed_array():
    def both(x):
        y = x.transpose(3, 0, 1, 2)
        return y.sum(0).sum() + y.max((1, 2, 3)).sum()

    assert "permute_dims" not in check(both, IMAGE)


@pytest.mark.parametrize("fun", [
    lambda x: (lambda y: y / y.sum(0))(x.T),
    lambda x: x.T + np.float32(1),
    lambda x: np.cumsum(x.T, 0).sum(0),
    lambda x: (x.T + np.arange(102, dtype=np.float32).reshape(17, 6)).sum(0),
])
def test_what_something_else_reads_transposed_stays(fun):
    program = fl.make_program(fun)(MATRIX)
    assert turn_reductions(program) is program
    np.testing.assert_allclose(fl.jit(fun)(MATRIX), fun(MATRIX), rtol=1e-5)


def test_an_output_that_is_transposed_stays():
    def both(x):
        y = x.T * np.float32(3)
        return y, y.sum(0)

    program = fl.make_program(both)(MATRIX)
    assert turn_reductions(program) is program


def test_an_operand_that_something_else_reads_holds_back_what_is_made_of_it():
    def fun(x):
        y = x.T * np.float32(3)
        z = y + x.T
        return y, z.sum(0), (z * z).max(1)

    program = fl.make_program(fun)(MATRIX)
    check_program(turn_reductions(program))
    for got, expected in zip(fl.jit(fun)(MATRIX), fun(MATRIX), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_loop_body_is_turned():
    def fun(x):
        return fl.lax.fori_loop(0, 3, lambda _, c: c + (c * x.T).sum(0).sum(), np.ones((17, 6), np.float32))

    def body(x, total):
        return fl.lax.fori_loop(0, 3, lambda _, c: c + (x.T * c).sum(0).max(), total)

    np.testing.assert_allclose(fl.jit(fun)(MATRIX), fun(MATRIX), rtol=1e-4)
    text = fl.jit(body).lower(MATRIX, np.float32(1)).as_text("optimized")
    assert "reduce_sum[axes=(1,)]" in text and "permute_dims" not in text


def test_a_program_of_primitives_without_a_transposition_is_the_same():
    program = program_of(lambda x: [x], MATRIX)
    assert turn_reductions(program) is program
