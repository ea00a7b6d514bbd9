# SPDX-License-Identifier: MIT
"""Padded parts that are added up to a whole are put side by side, with the same bits; others stay."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.passes.algebra import simplify
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.primitives.elementwise import add
from functorch_lite.primitives.movement import pad
from tests.compiler.passes.support import boundary, check_pass, program_of

ONE = np.ones((2, 3), np.float32)


def names(program):
    return [e.prim.name for e in eliminate_dead_code(program).equations]


def placed(x, start, whole, axis=1, value=0):
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (start, whole - start - x.shape[axis], 0)
    return pad(x, x.dtype.type(value), tuple(config))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "float16"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_of_a_whole_are_put_side_by_side(dtype, order):
    parts = [boundary(dtype, (4, n)) for n in (3, 2, 4)]

    def fun(*parts):
        padded = [placed(x, start, 9) for x, start in zip(parts, (0, 3, 5), strict=True)]
        a, b, c = (padded[k] for k in order)
        return [add(a, add(b, c)), add(add(a, b), c)]

    result = check_pass(simplify, program_of(fun, *parts), parts)
    assert names(result).count("concatenate") == 2 and "pad" not in names(result)


@pytest.mark.parametrize("fun", [
    lambda x: [add(placed(x, 0, 7), placed(x, 4, 7))],  # a gap
    lambda x: [add(placed(x, 0, 5), placed(x, 2, 5))],  # they meet
    lambda x: [add(placed(x, 0, 6), placed(x, 3, 6, value=1))],
    lambda x: [add(placed(x, 0, 6), pad(x, np.float32(0), ((0, 0, 0), (-1, 4, 0))))],
    lambda x: [add(placed(x, 0, 5), pad(x, np.float32(0), ((0, 0, 0), (0, 0, 1))))],
    lambda x: [add(*(pad(x, np.float32(0), ((2 - n, n, 0), (n, 3 - n, 0))) for n in (0, 2)))],  # two axes
], ids=["gap", "meet", "other number", "cut", "between", "axes"])
def test_other_sums_stay(fun):
    assert "concatenate" not in names(check_pass(simplify, program_of(fun, ONE), [ONE]))


def test_the_derivative_of_a_split_has_no_padding():
    def loss(x):
        a, b, c = np.split(x, 3, axis=-1)
        return np.sum(np.sin(a) * np.tanh(b) + c * a)

    x = np.linspace(-1, 1, 24).reshape(2, 12)
    lowered = fl.jit(fl.grad(loss)).lower(x)
    text = lowered.as_text("optimized")
    assert "concatenate" in text and "pad[" not in text
    np.testing.assert_allclose(fl.jit(fl.grad(loss))(x), fl.grad(loss)(x), 1e-12)
