# SPDX-License-Identifier: MIT
"""Passes over rows: several sums a lane, and the next row fetched meanwhile; ranges of a loop that threads share."""

import ctypes

import ml_dtypes
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.codegen.llvm.ways import FAR, has_ways
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.nodes import Loop, Prefetch
from functorch_lite.compiler.loop_ir.verify import verify
from functorch_lite.compiler.runtime import engine, threads
from functorch_lite.compiler.runtime.pool_ir import WORDS
from functorch_lite.compiler.schedule.parallel import every
from functorch_lite.core import evaluate
from tests.compiler.support import kernel_module, run_kernel

LENGTHS = (1, 7, 16, 31, 32, 61, 64, 67, 127, 128, 129, 191, 192, 193, 256, 257, 509, 1000, 1024, 1031)


# --- several sums a lane ----------------------------------------------------------------------------------------------


def reductions(kind, combines, n, op=None):
    """A kernel that reduces x by each operation, after `op` of x and itself."""
    b = Builder("kernel")
    x, out = b.input("x", kind, n), b.output("out", kind, len(combines))

    def step(i, *totals):
        value = b.load(x, i)
        value = value if op is None else b.op(op, value, *[value] * (op == "mul"))
        return [b.op(c, t, value) for c, t in zip(combines, totals, strict=True)]

    starts = [b.constant(-np.inf if c == "max" else np.inf if c == "min" else 0, kind) for c in combines]
    totals = b.reduce(n, starts, step, combine=combines, vector=True)
    for k, total in enumerate(totals):
        b.store(out, k, total)
    return b.finish()


def only_loop(function):
    (loop,) = (s for s in function.body if type(s) is Loop)
    return loop


@pytest.mark.parametrize("lanes_bytes", (64, 32, 16))
@pytest.mark.parametrize("kind", ("f32", "f64"))
@pytest.mark.parametrize("combines", (["add"], ["max"], ["min", "add"]), ids="-".join)
def test_sums_and_extrema_of_any_length(combines, kind, lanes_bytes):
    """Whole numbers, so that every order of a sum has the same bits."""
    rng = np.random.default_rng(0)
    for n in LENGTHS:
        x = rng.integers(-9, 9, n).astype(np.float32 if kind == "f32" else np.float64)
        function, out = reductions(kind, combines, n), np.empty(len(combines), x.dtype)
        verify(function)
        run_kernel(function, [x, out], lanes_bytes)
        names = {"add": np.sum, "max": np.max, "min": np.min}
        np.testing.assert_array_equal(out, [names[c](x) for c in combines], str(n))
        expected = np.empty_like(out)
        interpret(function, [x, expected])
        np.testing.assert_array_equal(out, expected)
        quick = np.empty_like(out)
        run_kernel(function, [x, quick], lanes_bytes, quick=True)
        assert out.tobytes() == quick.tobytes()


@pytest.mark.parametrize("lanes_bytes", (64, 16))
@pytest.mark.parametrize("n", (FAR - 1, FAR, FAR + 61, 2 * FAR + 64))
def test_vectors_of_a_very_long_loop_are_a_quarter_of_it_apart(n, lanes_bytes):
    x = np.random.default_rng(n).integers(-9, 9, n).astype(np.float32)
    x[-1] = 40
    function, out = reductions("f32", ["add", "max"], n), np.empty(2, np.float32)
    run_kernel(function, [x, out], lanes_bytes)
    np.testing.assert_array_equal(out, [x.sum(), 40])
    lanes = lanes_bytes // 4
    quarter = n // (4 * lanes) * lanes
    text = kernel_module(function, lanes_bytes)
    assert [f", i64 {k * quarter}\n" in text for k in (1, 2, 3)] == [n >= FAR] * 3


def test_vectors_side_by_side_are_so_far_from_one_pointer():
    text = kernel_module(reductions("f32", ["add"], 1024), 64)
    assert text.count("add i64") == 1  # the loop's own step


@pytest.mark.parametrize("place", (0, 17, 100, 500, 1002))
@pytest.mark.parametrize("combine", ("add", "max", "min"))
def test_nan_and_infinities_are_met_in_every_way(combine, place):
    for special in (np.nan, np.inf, -np.inf):
        x, out = np.linspace(-1, 1, 1003, dtype=np.float32), np.empty(1, np.float32)
        x[place] = special
        run_kernel(reductions("f32", [combine], 1003), [x, out])
        expected = {"add": np.sum, "max": np.max, "min": np.min}[combine](x)
        np.testing.assert_array_equal(out[0], expected)


def test_a_sum_of_nothing_but_minus_zeros_is_zero():
    out = np.empty(1, np.float32)
    run_kernel(reductions("f32", ["add"], 256), [np.full(256, -0.0, np.float32), out])
    assert out[0] == 0 and not np.signbit(out[0])


def test_which_loops_have_several_sums_a_lane():
    """Long ones that do little else, in what a machine's additions wait for."""
    def found(*args):
        return has_ways(only_loop(reductions(*args)), 16)

    assert found("f32", ["add"], 1024) and found("f32", ["max", "add"], 1024) and found("f32", ["add"], 128, "mul")
    assert not found("f32", ["add"], 127)
    assert not found("f32", ["add", "max", "min"], 1024)  # their registers
    assert not found("f32", ["add"], 1024, "exp")
    assert not found("i32", ["add"], 1024)
    assert not found("f16", ["add"], 1024)
    assert not found("f32", ["mul"], 1024)
    text = kernel_module(reductions("f32", ["add"], 1024))
    assert text.count("phi <16 x float>") == 4


# --- the next row -----------------------------------------------------------------------------------------------------


def layer_norm(x, scale, shift):
    centred = x - fnp.mean(x, axis=-1, keepdims=True)
    return centred / fnp.sqrt(fnp.mean(centred * centred, axis=-1, keepdims=True) + x.dtype.type(1e-5)) * scale + shift


def softmax(x):
    e = fnp.exp(x - fnp.max(x, axis=-1, keepdims=True))
    return e / fnp.sum(e, axis=-1, keepdims=True)


def hints(fun, *args):
    """(hints in a kernel, passes over its rows) of the only kernel of a program."""
    program = fl.make_program(fun)(*args)
    (kernel,) = native.compile_native(program, pipeline.optimize(program)).lowered.kernels
    inside = list(every(kernel.body))
    return [s for s in inside if type(s) is Prefetch], [s for s in inside if type(s) is Loop and s.vector]


def test_the_second_pass_fetches_the_next_row():
    x, y = np.ones((256, 1024), np.float32), np.ones((256, 1024), np.float32)
    for fun, args, count in ((softmax, (x,), 1), (lambda x, y: softmax(x * y), (x, y), 2),
                             (lambda x: softmax(x.astype(np.float64)), (x,), 1)):
        found, passes = hints(fun, *args)
        assert len(found) == count and all(s.near for s in found)
        assert all(s in passes[1].body for s in found)
        assert all(s.index.constant == 1024 for s in found)


def test_rows_that_are_near_or_long_or_read_once_are_not_fetched():
    for shape in ((16, 1024), (4096, 64), (64, 4096), (1, 65536)):
        assert not hints(softmax, np.ones(shape, np.float32))[0]
    x = np.ones((256, 1024), np.float32)
    assert not hints(lambda x: fnp.sum(x * x, axis=1), x)[0]
    assert not hints(lambda x: softmax(x.T), np.ones((1024, 256), np.float32))[0]


SHAPES = ((0, 5), (5, 1), (1, 1), (3, 127), (7, 128), (33, 1031), (129, 1024), (2, 67, 509))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", (np.float32, np.float64, np.float16, ml_dtypes.bfloat16), ids=lambda d: d.__name__)
def test_rows_are_what_the_evaluator_finds(shape, dtype):
    rng = np.random.default_rng(0)
    x, scale, shift = (rng.standard_normal(s).astype(dtype) for s in (shape, shape[-1:], shape[-1:]))
    tolerance = 1e-5 if dtype == np.float32 else 1e-12 if dtype == np.float64 else 0.1
    for fun, args in ((layer_norm, (x, scale, shift)), (softmax, (x,)), (lambda x: fnp.sum(x * x, axis=-1), (x,))):
        program = fl.make_program(fun)(*args)
        (expected,) = evaluate.interpret(program, args)
        (found,) = native.compile_native(program, pipeline.optimize(program))(*args)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), tolerance, tolerance)


# --- ranges -----------------------------------------------------------------------------------------------------------

COUNT = """
define void @count(ptr %counts, i64 %begin, i64 %end) {
entry:
  br label %next
next:
  %i = phi i64 [%begin, %entry], [%i.next, %next]
  %at = getelementptr i64, ptr %counts, i64 %i
  %before = atomicrmw add ptr %at, i64 1 monotonic
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %end
  br i1 %more, label %next, label %out
out:
  ret void
}
"""


@pytest.mark.parametrize("number", (2, 3, 5, 20))
def test_threads_run_every_iteration_once(number):
    pool = threads.find_pool(number)
    if pool is None:
        pytest.skip("pools are for Linux")
    count = engine.load(COUNT, cache=False)
    words = (ctypes.c_int64 * (WORDS["short"] + 1)).from_address(pool.address)
    loop = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    sections = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(
        words[WORDS["sections"]])
    for n in (1, 2, 3, 7, 8, 9, 40, 97, 1000, 1024):
        for grain in (1, 3, 16, 25):
            for share in (loop(words[WORDS["share"]]), loop(words[WORDS["short"]])):
                counts = np.zeros(n, np.int64)
                share(pool.address, count.address("count"), counts.ctypes.data, n, grain)
                np.testing.assert_array_equal(counts, 1, f"{n} iterations, {grain} at a time")
        counts = np.zeros(n, np.int64)
        sections(pool.address, count.address("count"), counts.ctypes.data, n, 4, None)
        np.testing.assert_array_equal(counts, 1, f"{n} sections")
