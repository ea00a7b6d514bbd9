# SPDX-License-Identifier: MIT
"""Sums of long rows go by blocks of columns, which threads share, and add in the order of the rows."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.nodes import Loop
from functorch_lite.compiler.loop_ir.verify import verify
from functorch_lite.compiler.schedule.columns import BLOCKS, LONGEST, SHORTEST
from functorch_lite.compiler.schedule.parallel import shared_loops

LEAST = BLOCKS * SHORTEST


def floats(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def compiled(fun, *args, number=1):
    program = fl.make_program(fun)(*args)
    with fl.config(num_threads=number):
        return native.compile_native(program, pipeline.optimize(program))


def total_of(x):
    return x.sum(0)


def in_order(x):
    total = np.zeros(x.shape[1:], x.dtype)
    for row in x:
        total += row
    return total


@pytest.mark.parametrize("columns", [LEAST, LEAST + 1, 5003, 8 * LONGEST, 9 * LONGEST + 63])
def test_sums_are_added_row_by_row(columns):
    x = floats(37, columns)
    for number in (1, 2, 4):
        np.testing.assert_array_equal(compiled(total_of, x, number=number)(x)[0], in_order(x))
        np.testing.assert_array_equal(compiled(lambda x: x.max(0), x, number=number)(x)[0], x.max(0))


def test_several_sums_of_one_array():
    x = floats(40, 6000, dtype=np.float64)
    total, squares = fl.jit(lambda x: (x.sum(0), (x * x).sum(0)))(x)
    np.testing.assert_array_equal(total, in_order(x))
    np.testing.assert_array_equal(squares, in_order(x * x))


@pytest.mark.parametrize("columns", [LEAST, 5003])
def test_the_interpreter_agrees(columns):
    x = floats(20, columns)
    (kernel,) = compiled(total_of, x).lowered.kernels
    verify(kernel)
    out = np.full(columns, np.nan, np.float32)
    interpret(kernel, [x, out])
    np.testing.assert_array_equal(out, in_order(x))


def test_threads_share_the_blocks():
    x = floats(128, 16384)
    (kernel,) = compiled(total_of, x).lowered.kernels
    assert shared_loops(kernel).keys() == {id(s) for s in kernel.body if isinstance(s, Loop) and not s.vector}


@pytest.mark.parametrize("shape", [(64, LEAST - 1), (3, LEAST)])
def test_short_rows_and_few_rows_stay_as_they_are(shape):
    (kernel,) = compiled(total_of, floats(*shape)).lowered.kernels
    assert {s.extent for s in kernel.body if isinstance(s, Loop) and not s.vector} <= {shape[0]}
