# SPDX-License-Identifier: MIT
"""Sums of long rows go by blocks of columns, which threads share, and of short ones by several rows at a time.

Both add in the order of the rows.
"""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.nodes import Loop, Prefetch, Value
from functorch_lite.compiler.loop_ir.verify import verify
from functorch_lite.compiler.schedule.columns import BLOCKS, LONGEST, SHORTEST
from functorch_lite.compiler.schedule.parallel import every, shared_loops

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


# --- several rows at a time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows,at_once", [(640, 4), (642, 3), (638, 2), (641, 1)])
@pytest.mark.parametrize("columns", [128, 131])
def test_short_rows_are_added_several_at_a_time(rows, at_once, columns):
    x = floats(6, rows, columns)
    (kernel,) = compiled(lambda x: x.sum(1), x).lowered.kernels
    verify(kernel)
    (extent,) = {s.extent for s in every(kernel.body) if isinstance(s, Loop) and s.extent in (rows, rows // at_once)}
    assert extent == rows // at_once
    expected, out = np.stack([in_order(y) for y in x]), np.full(6 * columns, np.nan, np.float32)
    interpret(kernel, [x.reshape(-1), out])
    np.testing.assert_array_equal(out, expected.reshape(-1))
    for number in (1, 2, 4):
        np.testing.assert_array_equal(compiled(lambda x: x.sum(1), x, number=number)(x)[0], expected)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, bool])
def test_several_results_of_several_rows(dtype):
    x = (floats(8, 640, 96) * 40).astype(dtype)

    def fun(x):
        return x.max(1), x.min(1), (x & (x != 0) if x.dtype.kind in "bi" else x * x).sum(1), x == x.dtype.type(1)

    for got, expected in zip(fl.jit(fun)(x), fun(x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_a_product_goes_on_row_by_row():
    x = floats(4, 640, 64, dtype=np.float64) / 8 + 1
    np.testing.assert_allclose(fl.jit(lambda x: x.prod(1))(x), x.prod(1), rtol=1e-12)


# --- several rows of a block ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows,at_once", [(64, {8}), (35, {7}), (20, {5}), (22, {8, 6}), (37, {8, 5}), (17, {8, 1})])
def test_rows_go_through_a_block_several_at_a_time_each_fetched_ahead(rows, at_once):
    x = floats(rows, LEAST)
    (kernel,) = compiled(total_of, x).lowered.kernels
    verify(kernel)
    blocks = [s for s in every(kernel.body) if isinstance(s, Loop) and s.vector and s.extent < LEAST]
    loads = {sum(isinstance(v, Value) and v.op == "load" and v.attr[0].role == "in" for v in s.body) for s in blocks}
    fetched = {sum(isinstance(v, Prefetch) for v in s.body) for s in blocks}
    assert loads == at_once and fetched == {n for n in at_once if n > 1} | ({0} if 1 in at_once else set())
    out = np.full(LEAST, np.nan, np.float32)
    interpret(kernel, [x.reshape(-1), out])
    np.testing.assert_array_equal(out, in_order(x))
    for number in (1, 2):
        np.testing.assert_array_equal(compiled(total_of, x, number=number)(x)[0], in_order(x))


def test_what_is_written_beside_a_sum_is_written_for_each_row_of_a_block():
    x, weights = floats(24, LEAST), floats(LEAST)
    outs = compiled(lambda x, w: ((x * w).sum(0), x * w, x.min(0)), x, weights)(x, weights)
    for got, expected in zip(outs, (in_order(x * weights), x * weights, x.min(0)), strict=True):
        np.testing.assert_array_equal(got, expected)
