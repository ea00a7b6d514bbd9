# SPDX-License-Identifier: MIT
"""Stores past the caches: the same bits wherever an output begins, no byte beside it, and none where an input lies."""

import ctypes

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Function
from functorch_lite.compiler.schedule import parallel, streaming
from functorch_lite.compiler.schedule.parallel import shared_loops
from functorch_lite.compiler.schedule.streaming import streamed
from tests.compiler.guarded import Guarded
from tests.compiler.interpreting import run_interpreted

N = 5003
X = np.linspace(-3, 3, N)
STREAMS = "!nontemporal"


@pytest.fixture
def eager(monkeypatch):
    """Share every loop that may be shared, and stream what may be streamed, however short."""
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)
    monkeypatch.setattr(parallel, "GRAIN_NS", 0.0)
    monkeypatch.setattr(streaming, "STREAM_BYTES", 0)
    monkeypatch.setattr(streaming, "ROW_BYTES", 0)


def compiled(fun, *args, number=2):
    program = fl.make_program(fun)(*args)
    with fl.config(num_threads=number, cache_dir=""):
        return native.compile_native(program, pipeline.optimize(program))


def run_at(executable, args, places):
    """Run a program with one input and these outputs where the arrays are."""
    pointers = (ctypes.c_void_p * (len(args) + len(places)))(*[a.ctypes.data for a in (*args, *places)])
    at, arena = ctypes.addressof(pointers), np.empty(executable.arena_bytes + 64, np.uint8)
    run = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)(ctypes.c_size_t.from_address(executable.entry).value)
    assert run(at, at + 8 * len(args), arena.ctypes.data + -arena.ctypes.data % 64, executable.context) == 0


PROGRAMS = {
    "a sum": lambda x: x + 1,
    "a sum of three": lambda x: x * x + x,
    "zeros": lambda x: fnp.zeros(x.shape, x.dtype) + (x[0] * 0).astype(x.dtype),
    "two outputs": lambda x: (x * 2, x - 1),
    "a number that is read": lambda x: x * x[3],
}
DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "int64", "complex64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_any_number_of_threads_gives_the_interpreters_bits(name, dtype, eager):
    x = X.astype(fnp.dtype(dtype))
    first = None
    for number in (1, 2, 4):
        executable = compiled(PROGRAMS[name], x, number=number)
        if dtype in ("float32", "float64"):
            assert STREAMS in executable.ir
        first = first or run_interpreted(executable.lowered, [x], executable.program.out_avals)
        for found, expected in zip(executable(x), first, strict=True):
            assert np.asarray(found).tobytes() == expected.tobytes()


def standardized(x):
    mean = fnp.mean(x, axis=1, keepdims=True)
    return (x - mean) * fnp.mean(x * x, axis=1, keepdims=True), mean


ROWS = {
    "a row added": lambda x: x + x[0],
    "a column added": lambda x: x * x[:, :1],
    "two outputs": lambda x: (x + x[0], x - x[1]),
    "sums of rows": standardized,
    "rows of two kinds": lambda x: (x + x[0], (x * 2).astype(np.float64) + x[:, :1]),
    "turned round": lambda x: x[:, ::-1] + x[0],
}


@pytest.mark.parametrize("width", [7, 31, 32, 33, 48, 100, 300])
@pytest.mark.parametrize("name", ROWS)
def test_rows_have_the_same_bits_wherever_they_begin(name, width, eager, monkeypatch):
    monkeypatch.setattr(parallel, "waits", lambda loop: True)
    x = np.linspace(-2, 3, 41 * width, dtype=np.float32).reshape(41, width)
    with monkeypatch.context() as m:
        m.setattr(streaming, "STREAM_BYTES", 1 << 60)
        plain = compiled(ROWS[name], x)
    first = [np.asarray(f) for f in plain(x)]
    for found, expected in zip(first, run_interpreted(plain.lowered, [x], plain.program.out_avals), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    for number in (1, 3):
        executable = compiled(ROWS[name], x, number=number)
        if width >= 32 and name not in ("turned round", "rows of two kinds"):
            assert STREAMS in executable.ir
        for start in range(0, 17, 3):
            rooms = [np.full(e.size + 64, 77, e.dtype) for e in first]
            starts = [-(r.ctypes.data // r.itemsize) % (64 // r.itemsize) + start for r in rooms]
            run_at(executable, [x], [r[k:] for r, k in zip(rooms, starts, strict=True)])
            for room, k, expected in zip(rooms, starts, first, strict=True):
                np.testing.assert_array_equal(room[k : k + expected.size].reshape(expected.shape), expected)
                assert (room[:k] == 77).all() and (room[k + expected.size :] == 77).all()


@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 32, 33, 48, 100, 1000])
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_beside_an_output_is_touched(size, at_end, dtype, eager):
    x = np.arange(size + 1, dtype=dtype)[1:]
    executable = compiled(lambda x: x + 1, x)
    out = Guarded(size, x.dtype, at_end)
    run_at(executable, [x], [out.array])
    np.testing.assert_array_equal(out.array, x + 1)
    assert out.untouched()


@pytest.mark.parametrize("start", range(17))
@pytest.mark.parametrize("other", [0, 1, 7])
def test_outputs_may_begin_anywhere(start, other, eager):
    x = X.astype(np.float32)
    executable = compiled(PROGRAMS["two outputs"], x)
    assert STREAMS in executable.ir
    rooms = [np.full(N + 40, 77, np.float32) for _ in range(2)]
    starts = [-(r.ctypes.data // 4) % 16 + k for r, k in zip(rooms, (start, start + other), strict=True)]
    run_at(executable, [x], [r[k : k + N] for r, k in zip(rooms, starts, strict=True)])
    for room, k, expected in zip(rooms, starts, (x * 2, x - 1), strict=True):
        np.testing.assert_array_equal(room[k : k + N], expected)
        assert (room[:k] == 77).all() and (room[k + N :] == 77).all()


def test_an_output_where_an_input_is(eager):
    x = X.astype(np.float32)
    expected = x + 1
    executable = compiled(lambda x: x + 1, x)
    run_at(executable, [x], [x])
    np.testing.assert_array_equal(x, expected)


def test_a_copy_to_where_it_is_already(eager):
    x = np.ones((100, 3000), np.float32)
    executable = compiled(lambda x: fnp.at(x)[3].set(2), x)
    expected = x.copy()
    expected[3] = 2
    found = np.empty_like(x)
    run_at(executable, [x], [found])
    np.testing.assert_array_equal(found, expected)
    run_at(executable, [x], [x])
    np.testing.assert_array_equal(x, expected)


# --- what is streamed -------------------------------------------------------------------------------------------------


def loop_of(body, size=8 << 20) -> Function:
    b = Builder("kernel")
    x, out = b.input("x", "f32", size), b.output("out", "f32", size)
    with b.loop(size, vector=True) as i:
        body(b, x, out, i)
    return b.finish()


def streams(kernel: Function) -> bool:
    return bool(streamed(kernel, shared_loops(kernel)))


def test_long_loops_that_wait_for_memory_are_streamed():
    assert streams(loop_of(lambda b, x, out, i: b.store(out, i, b.op("neg", b.load(x, i)))))


@pytest.mark.parametrize("body", [
    lambda b, x, out, i: b.store(out, i, b.op("exp", b.load(x, i))),
    lambda b, x, out, i: b.store(out, i, b.op("neg", b.load(x, i * -1 + ((8 << 20) - 1)))),
    lambda b, x, out, i: b.store(out, i, b.op("add", b.load(x, i), b.load(out, i))),
    lambda b, x, out, i: b.store(out, i * -1 + ((8 << 20) - 1), b.load(x, i)),
])
def test_others_are_not(body):
    assert not streams(loop_of(body))


def test_short_outputs_are_not():
    assert not streams(loop_of(lambda b, x, out, i: b.store(out, i, b.op("neg", b.load(x, i))), 1 << 20))


def test_an_output_that_is_read_again_is_not():
    b = Builder("kernel")
    size = 8 << 20
    x, out, more = b.input("x", "f32", size), b.output("out", "f32", size), b.output("more", "f32", 1)
    with b.loop(size, vector=True) as i:
        b.store(out, i, b.op("neg", b.load(x, i)))
    b.store(more, 0, b.load(out, 3))
    kernel = b.finish()
    assert shared_loops(kernel) and not streams(kernel)


