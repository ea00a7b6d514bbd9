# SPDX-License-Identifier: MIT
"""Loops that threads share: the same bits for any number of them, in calls from many threads, around forks, at exit."""

import contextlib
import ctypes
import itertools
import os
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite import numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Function, Loop
from functorch_lite.compiler.runtime import threads
from functorch_lite.compiler.runtime.pool_ir import WORDS
from functorch_lite.compiler.runtime.tiers import improver
from functorch_lite.compiler.schedule import parallel
from functorch_lite.compiler.schedule.parallel import shared_loops
from functorch_lite.compiler.schedule.partial import in_parts
from functorch_lite.core.evaluate import Evaluator
from tests.compiler.support import FORKS_BESIDE, in_a_new_process, in_threads

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pools are for Linux")
THREADS = (1, 2, 3, 8)


@pytest.fixture
def eager(monkeypatch):
    """Share every loop that may be shared, however short."""
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)
    monkeypatch.setattr(parallel, "GRAIN_NS", 0.0)


def floats(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    numbers = np.random.default_rng(sum(shape)).standard_normal((*shape, 2))
    return numbers.view(np.complex128)[..., 0].astype(dtype) if np.dtype(dtype).kind == "c" else numbers[..., 0].astype(
        dtype)


def compiled(fun, *args, number: int = 2):
    """The program of `fun` as native code for a number of threads."""
    program = fl.make_program(fun)(*args)
    with fl.config(num_threads=number):
        return native.compile_native(program, pipeline.optimize(program))


def shares(executable) -> bool:
    return any(shared_loops(kernel) for kernel in executable.lowered.kernels)


def softmax(x):
    e = fnp.exp(x - fnp.max(x, axis=-1, keepdims=True))
    return e / fnp.sum(e, axis=-1, keepdims=True)


def layer_norm(x, g, b):
    mean = fnp.mean(x, axis=-1, keepdims=True)
    variance = fnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) / fnp.sqrt(variance + np.float32(1e-5)) * g + b


PLACES = np.random.default_rng(0).zipf(1.3, 3000) % 500
PROGRAMS = {
    "exp": (fnp.exp, [floats(300_001)]),
    "half": (lambda x: x * x + x, [floats(700_003, dtype=np.float16)]),
    "complex": (lambda x: x * x + x, [floats(100_001, dtype=np.complex64)]),
    "softmax": (softmax, [floats(300, 1000)]),
    "layer norm": (layer_norm, [floats(400, 700), floats(700), floats(700)]),
    "layer norm gradient": (fl.grad(lambda x, g, b: (layer_norm(x, g, b) ** 2).sum(), argnums=(0, 1, 2)),
                            [floats(400, 700), floats(700), floats(700)]),
    "transposed": (lambda x: x.T + 1, [floats(500, 700)]),
    "matmul": (fnp.matmul, [floats(200, 300), floats(300, 170)]),
    "matmul in blocks": (fnp.matmul, [floats(130, 600), floats(600, 530)]),
    "matmul transposed": (lambda x, y: x.T @ y.T, [floats(300, 330), floats(270, 300)]),
    "few rows": (fnp.matmul, [floats(20, 1100), floats(1100, 1000)]),
    "batched": (fnp.matmul, [floats(40, 60, 70), floats(40, 70, 50)]),
    "convolution": (lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME"),
                    [floats(2, 16, 60, 60), floats(24, 16, 3, 3)]),
    "sum of rows": (lambda x: fnp.sum(x * x, axis=1), [floats(900, 500)]),
    "sum of columns": (lambda x: fnp.sum(x * x, axis=0), [floats(900, 500)]),
    "sum": (lambda x: fnp.sum(x * x), [floats(900_001)]),
    "running sum": (lambda x: fnp.cumsum(x), [floats(200_011)]),
    "running sum of complex numbers": (lambda x: fnp.cumsum(x), [floats(150_001, dtype=np.complex64)]),
    "running sum of half precision": (lambda x: fnp.cumsum(x), [floats(300_001, dtype=np.float16)]),
    "running maxima": (lambda x: lax.cummax(x, axis=0), [floats(300_001)]),
    "running sums of columns": (lambda x: fnp.cumsum(x, axis=0), [floats(70, 5000)]),
    "running sums of half precision columns": (lambda x: fnp.cumsum(x, axis=0), [floats(300, 5000, dtype=np.float16)]),
    "sorted rows": (lambda x: fnp.sort(x, axis=1), [floats(256, 200)]),
    "sorted long rows": (lambda x: fnp.sort(x, axis=1), [floats(20, 1500)]),
    "order of rows": (lambda x: fnp.argsort(x, axis=1), [floats(256, 70, dtype=np.float64)]),
    "order of long rows": (lambda x: fnp.argsort(x, axis=1), [floats(20, 1500, dtype=np.float64)]),
    "rows sorted by two keys": (lambda x: lax.sort((x.round(), -x), num_keys=2), [floats(30, 700)]),
    "rows gathered": (lambda x, i: x[i], [floats(500, 300), PLACES]),
    "rows added": (lambda x, i, g: fnp.at(x)[i].add(g), [floats(500, 512), PLACES, floats(3000, 512)]),
    "rows set": (lambda x, i, g: fnp.at(x)[i].set(g), [floats(500, 512), PLACES, floats(3000, 512)]),
    "largest rows": (lambda x, i, g: fnp.at(x)[i].max(g), [floats(500, 512), PLACES, floats(3000, 512)]),
    "gradient of gathered rows": (fl.grad(lambda x, i, g: (x[i] * g).sum()),
                                  [floats(500, 512), PLACES, floats(3000, 512)]),
    "a row replaced": (lambda x, i: lax.dynamic_update_slice(x, x[:1] + 1, (i[0], 0)), [floats(3000, 300), PLACES]),
    "largest of rows": (lambda x: tuple(lax.top_k(x, 9)), [floats(70, 3000)]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_number_of_threads_gives_the_same_bits(name, eager):
    fun, args = PROGRAMS[name]
    first = None
    for number in THREADS:
        executable = compiled(fun, *args, number=number)
        for _ in range(3):
            found = [np.asarray(o).tobytes() for o in executable(*args)]
            first = first or found
            assert found == first


@pytest.mark.parametrize("name", PROGRAMS)
def test_long_loops_are_shared(name):
    fun, args = PROGRAMS[name]
    assert shares(compiled(fun, *args))


def test_short_loops_are_not_shared():
    x = floats(1000)
    executable = compiled(lambda x: x + x, x)
    assert not shares(executable)
    assert "%pool" not in executable.ir


PRODUCT = """
import ctypes, time
import numpy as np
import functorch_lite as fl
from functorch_lite.compiler.runtime import threads
from functorch_lite.compiler.runtime.pool_ir import WORDS
from functorch_lite.compiler.runtime.tiers import improver
fl.config.update(num_threads=2)
x = np.ones((128, 128), np.float32)
f = fl.jit(np.matmul)
f(x, x)
f(x, x)
improver.finish()
words = (ctypes.c_int64 * (WORDS["sleepers"] + 1)).from_address(threads.find_pool(2).address)
def in_a_row():
    for _ in range(50):
        f(x, x)
def sleeps():
    return words[WORDS["sleepers"]] == threads.workers()
"""


def test_short_loops_that_compute_are_shared_when_workers_are_awake():
    x = floats(128, 128)
    (kernel,) = compiled(fnp.matmul, x, x).lowered.kernels
    assert all(shared.short for shared in shared_loops(kernel).values()) and shared_loops(kernel)
    longer = compiled(fnp.matmul, floats(300, 300), floats(300, 300)).lowered.kernels[0]
    assert not any(shared.short for shared in shared_loops(longer).values())
    y = floats(100_000)
    assert not shares(compiled(lambda x: x + x, y))


def test_each_range_is_run_once_from_either_end():
    """Whoever takes them, ranges make up the loop; the caller begins with the first, and workers with the last."""
    x = floats(96, 96)
    compiled(fnp.matmul, x, x)
    pool = threads.find_pool(3)
    assert pool is not None
    words = (ctypes.c_int64 * (WORDS["short"] + 1)).from_address(pool.address)
    share = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64)(words[WORDS["share"]])
    found: list[tuple[int, int, int]] = []
    begun = threading.Barrier(2, timeout=0.2)

    def run(_, begin, end):
        found.append((threading.get_ident(), begin, end))
        if not begun.broken and len(found) <= 2:  # so that more than one thread has a part
            with contextlib.suppress(threading.BrokenBarrierError):
                begun.wait()

    part = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(run)
    for n in (2, 5, 12, 100, 1001):
        found.clear()
        share(pool.address, ctypes.cast(part, ctypes.c_void_p), None, n, 1)
        ranges = sorted((begin, end) for _, begin, end in found)
        assert ranges[0][0] == 0 and ranges[-1][1] == n
        assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
        own = [begin for ident, begin, _ in found if ident == threading.get_ident()]
        assert own == sorted(own)


def test_a_short_loop_alone_wakes_nobody():
    code = PRODUCT + """
time.sleep(0.05)
f(x, x)
print(threads.workers())
for _ in range(100):  # after it was held up, a caller works alone for a while
    in_a_row()
    if threads.workers():
        break
    time.sleep(0.02)
time.sleep(0.05)
before = words[WORDS["bell"]]
f(x, x)
print(threads.workers(), sleeps(), words[WORDS["bell"]] - before)
for _ in range(100):
    in_a_row()
    if words[WORDS["bell"]] > before:
        break
    time.sleep(0.02)
print(words[WORDS["bell"]] > before)
"""
    assert in_a_new_process(code) == "0\n1 True 0\nTrue\n"


# --- which loops may be shared ----------------------------------------------------------------------------------------


def outermost(kernel: Function) -> int:
    """The identity of a kernel's first loop."""
    return next(id(s) for s in kernel.body if isinstance(s, Loop))


@pytest.mark.parametrize(("stride", "gap"), [(30, 1), (1, 20), (3, 60)])
def test_rows_and_columns_are_apart(stride, gap, eager):
    b = Builder("kernel")
    x, out = b.input("x", "f32", 600), b.output("out", "f32", 1200)
    with b.loop(20) as i, b.loop(10) as k, b.loop(3 if stride > 1 else 1) as j:
        b.store(out, i * stride + k * (3 if gap == 1 else gap) + j, b.load(x, i * 30 + k * 3 + j))
    kernel = b.finish()
    assert outermost(kernel) in shared_loops(kernel)


@pytest.mark.parametrize("step", [0, 29])
def test_rows_that_overlap_keep_the_order(step, eager):
    b = Builder("kernel")
    x, out = b.input("x", "f32", 600), b.output("out", "f32", 600)
    with b.loop(20) as i, b.loop(30) as j:
        at = i * step + j
        b.store(out, at, b.op("add", b.load(out, at), b.load(x, i * 30 + j)))
    kernel = b.finish()
    assert outermost(kernel) not in shared_loops(kernel)


def test_a_neighbour_that_is_read_keeps_the_order(eager):
    b = Builder("kernel")
    out = b.inout("out", "f32", 30)
    with b.loop(20) as i:
        b.store(out, i + 1, b.load(out, i))
    assert not shared_loops(b.finish())


def test_places_in_memory_that_are_not_known_keep_the_order(eager):
    b = Builder("kernel")
    at, out = b.input("at", "i64", 20), b.output("out", "i64", 30)
    with b.loop(20) as i:
        b.store(out, b.index_of(b.load(at, i)), b.value_of(i))
    assert not shared_loops(b.finish())


def test_a_carried_value_keeps_the_order(eager):
    b = Builder("kernel")
    x, out = b.input("x", "f32", 20), b.output("out", "f32", 20)

    def step(i, total):
        total = b.op("add", total, b.load(x, i))
        b.store(out, i, total)
        return [total]

    b.reduce(20, [b.constant(0, "f32")], step)
    assert not shared_loops(b.finish())


def rows_through_a_local(write, read, after=False) -> Function:
    b = Builder("kernel")
    x, out = b.input("x", "f32", 600), b.output("out", "f32", 601)
    row = b.local("row", "f32", 30)
    with b.loop(20) as i:
        with b.loop(write) as j:
            b.store(row, j, b.op("exp", b.load(x, i * 30 + j)))
        with b.loop(read) as j:
            b.store(out, i * 30 + j, b.load(row, j))
    if after:
        b.store(out, 600, b.load(row, 3))
    return b.finish()


def test_a_row_in_a_local_is_each_threads_own(eager):
    kernel = rows_through_a_local(30, 30)
    (how,) = shared_loops(kernel).values()
    assert how.own == tuple(kernel.locals)


@pytest.mark.parametrize("kernel", [rows_through_a_local(29, 30), rows_through_a_local(30, 30, after=True)])
def test_a_local_that_lives_longer_than_an_iteration_keeps_the_order(kernel, eager):
    assert outermost(kernel) not in shared_loops(kernel)


@pytest.mark.parametrize(("written", "is_shared"), [(30, True), (29, False)])
def test_a_local_that_is_read_who_knows_where_must_be_written_whole(written, is_shared, eager):
    b = Builder("kernel")
    x, at, out = b.input("x", "f32", 600), b.input("at", "i64", 600), b.output("out", "f32", 600)
    row = b.local("row", "f32", 30)
    with b.loop(20) as i:
        with b.loop(written) as j:
            b.store(row, j, b.op("exp", b.load(x, i * 30 + j)))
        with b.loop(30) as j:
            b.store(out, i * 30 + j, b.load(row, b.index_of(b.load(at, i * 30 + j))))
    kernel = b.finish()
    assert (outermost(kernel) in shared_loops(kernel)) == is_shared


def test_a_loop_that_may_leave_the_kernel_keeps_the_order(eager):
    b = Builder("kernel")
    x, out = b.input("x", "f32", 600), b.output("out", "f32", 600)
    with b.loop(600) as i:
        v = b.load(x, i)
        b.branch(b.op("is_nan", v), lambda: b.exit(1))
        b.store(out, i, v)
    assert not shared_loops(b.finish())


def test_rows_are_added_in_order_by_parts_of_their_columns():
    x, g = floats(500, 512), floats(3000, 512)
    executable = compiled(lambda x, i, g: fnp.at(x)[i].add(g), x, PLACES, g)
    (kernel,) = executable.lowered.kernels
    assert len(shared_loops(kernel)) >= 1
    expected = x.copy()
    np.add.at(expected, PLACES, g)
    np.testing.assert_array_equal(executable(x, PLACES, g)[0], expected)


# --- sums in parts ----------------------------------------------------------------------------------------------------


SUMS = {
    "sum": (fnp.sum, [floats(900_001)], 900_001),
    "of what is long in two ways": (lambda x: fnp.sum(x[:, ::2]), [floats(1100, 1601)], 1100 * 801),
    "extrema": (lambda x: (fnp.max(x), fnp.min(x)), [floats(900_001)], 1),
    "whole numbers": (fnp.sum, [np.arange(900_001)], 1),
    "complex": (fnp.sum, [floats(300_001, dtype=np.complex64)], 300_001),
    "columns": (lambda x: fnp.sum(x, axis=0), [floats(901, 500)], 901),
    "columns and rows": (lambda x: (fnp.sum(x, axis=0), fnp.sum(x, axis=1)), [floats(901, 500)], 901),
    "half": (fnp.sum, [floats(2_000_001, dtype=np.float16)], 2_000_001),
    "all and any": (lambda x: (fnp.all(x < 9), fnp.any(x > 9)), [floats(900_001)], 1),
}


@pytest.mark.parametrize("name", SUMS)
def test_long_sums_are_shared_and_right(name):
    fun, args, terms = SUMS[name]
    executable = compiled(fun, *args)
    assert shares(executable)
    for found, expected in zip(executable(*args), Evaluator(executable.program)(*args), strict=True):
        scale = float(np.sqrt(terms)) * (2.0**-8 if found.dtype == np.float16 else 2.0**-18)
        np.testing.assert_allclose(found, expected, rtol=1e-2 if found.dtype == np.float16 else 1e-5, atol=scale)


def test_sums_that_are_not_associative_stay_in_order(eager):
    b = Builder("kernel")
    x, out = b.input("x", "f32", 4000), b.output("out", "f32", 1)
    with b.loop(4000) as i:
        b.store(out, 0, b.op("sub", b.load(out, 0), b.load(x, i)))
    kernel = b.finish()
    assert in_parts(kernel) is kernel


def test_a_sum_that_is_read_on_the_way_stays_in_order(eager):
    b = Builder("kernel")
    x, out, sums = b.input("x", "f32", 4000), b.output("out", "f32", 1), b.output("sums", "f32", 4000)
    with b.loop(4000) as i:
        total = b.op("add", b.load(out, 0), b.load(x, i))
        b.store(out, 0, total)
        b.store(sums, i, total)
    kernel = b.finish()
    assert in_parts(kernel) is kernel


# --- threads ----------------------------------------------------------------------------------------------------------


START = """
import os, sys, threading, time
import numpy as np
import functorch_lite as fl
from functorch_lite.compiler.runtime import threads
from functorch_lite.compiler.runtime.tiers import improver
def tasks():
    time.sleep(0.05)  # the system takes a moment to take a thread that has ended off its list
    return len(os.listdir("/proc/self/task"))
x = np.linspace(-1, 1, 1_000_000, dtype=np.float32)
before = tasks()
fl.config.update(num_threads={number})
f = fl.jit(fl.numpy.exp)
"""
LATER = START + """
f(x)  # may share no loops
f(x)
improver.finish()
"""


def test_one_thread_starts_none():
    code = LATER.format(number=1) + "print(tasks() - before, threads.workers())"
    assert in_a_new_process(code) == "0 0\n"


def test_small_programs_start_none():
    code = START.format(number=3) + "f(x[:1000]); print(tasks() - before, threads.workers())"
    assert in_a_new_process(code) == "0 0\n"


def test_the_first_long_loop_starts_them():
    code = LATER.format(number=3) + "f(x); print(tasks() - before, threads.workers())"
    assert in_a_new_process(code) == "2 2\n"


def test_exit_with_threads_that_sleep_and_that_work():
    loop = "threading.Thread(target=lambda: [f(x) for _ in range(10**6)], daemon=True).start()\ntime.sleep(0.1)\n"
    assert in_a_new_process(LATER.format(number=3) + "f(x)\ntime.sleep(0.05)") == ""
    assert in_a_new_process(LATER.format(number=3) + "f(x)\n" + loop) == ""


def test_a_fork_has_threads_of_its_own():
    code = LATER.format(number=3) + """
expected = f(x)
child = os.fork()
ended, rest = threads.workers(), tasks()
again = f(x)
if child:
    os.waitpid(child, 0)
print(np.array_equal(expected, again), ended, threads.workers(), tasks() - rest, flush=True)
if not child:
    os._exit(0)
"""
    assert in_a_new_process(code).splitlines() == ["True 0 2 2"] * 2


def test_a_fork_while_another_thread_shares_a_loop():
    code = LATER.format(number=3) + """
def run():
    return f(x).tobytes()
""" + FORKS_BESIDE
    assert in_a_new_process(code) == "0\n"


def test_eight_threads_call_at_once():
    args = [floats(300, 1000) + np.float32(k) for k in range(8)]
    with fl.config(num_threads=3):
        f = fl.jit(lambda x: softmax(x) + fnp.exp(x))
        expected = [f(a).tobytes() for a in args]
    wrong = []

    def work(k):
        with fl.config(num_threads=3):
            wrong.extend(k for _ in range(20) if f(args[k]).tobytes() != expected[k])

    in_threads(8, work)
    assert not wrong


def test_a_step_in_python_may_call_another_program():
    x = floats(400, 700)
    inner = compiled(softmax, x)

    def outer(x):
        y = fl.pure_callback(lambda v: inner(v)[0], fl.ShapeDtype(x.shape, x.dtype), fnp.exp(x))
        return fnp.exp(y) + x

    executable = compiled(outer, x)
    assert shares(executable)
    expected = np.exp(inner(compiled(fnp.exp, x)(x)[0])[0])
    np.testing.assert_allclose(executable(x)[0], expected + x, rtol=1e-5, atol=1e-6)


def test_an_error_in_a_step_in_python_leaves_the_pool_usable():
    x = floats(400, 700)

    def fail(v):
        raise ValueError("no")

    executable = compiled(lambda x: fnp.exp(fl.pure_callback(fail, fl.ShapeDtype(x.shape, x.dtype), fnp.exp(x))), x)
    with pytest.raises(ValueError, match="no"):
        executable(x)
    assert compiled(softmax, x)(x)[0].tobytes() == compiled(softmax, x, number=1)(x)[0].tobytes()


def test_a_paused_pool_lets_its_callers_work_alone():
    x = floats(300_001)
    executable = compiled(fnp.exp, x, number=5)
    expected = executable(x)[0]
    pool = threads.find_pool(5)
    assert pool is not None and pool.workers == 4
    pool.pause()
    try:
        assert pool.workers == 0
        np.testing.assert_array_equal(executable(x)[0], expected)
        assert pool.workers == 0
    finally:
        pool.resume()
    for _ in range(100):  # where other processes kept the threads from running, callers work alone for a while
        np.testing.assert_array_equal(executable(x)[0], expected)
        if pool.workers:
            break
        time.sleep(0.02)
    assert pool.workers == 4


def test_workers_sleep_when_there_is_nothing_to_do():
    x = floats(300_001)
    executable = compiled(fnp.exp, x, number=3)
    executable(x)
    improver.finish()  # what other tests left it to make
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1


def test_there_is_no_pool_for_one_thread():
    assert threads.pool_address(1) == 0
    assert threads.pool_address(10**6) == threads.pool_address(threads.MOST_THREADS) != 0


def ranges_of(number: int, n: int, grain: int) -> list[tuple[int, int]]:
    """The ranges that a pool makes of a loop."""
    pool, found = threads.pool_address(number), []
    part = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    share = ctypes.CFUNCTYPE(None, ctypes.c_void_p, part, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(
        ctypes.c_int64.from_address(pool + 8 * WORDS["share"]).value)
    for _ in range(1000):
        found.clear()
        share(pool, part(lambda _, begin, end: found.append((begin, end))), None, n, grain)
        if found != [(0, n)]:
            break
        time.sleep(0.02)  # after it was held up, a caller works alone for a while
    return sorted(found)


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize(("n", "grain"), [
    (8192, 195), (256, 25), (256, 39), (1 << 16, 4880), (100, 30), (1000, 160), (10**6, 16), (5000, 1),
])
def test_each_thread_has_as_many_ranges_of_one_length(number, n, grain):
    ranges = ranges_of(number, n, grain)
    lengths = [end - begin for begin, end in ranges]
    assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == n
    assert len(ranges) % number == 0
    assert set(lengths[:-1]) == {max(lengths)}
    assert grain % 16 or max(lengths) % 16 == 0
    assert grain <= 2 * max(lengths)


@pytest.mark.parametrize("n", [2, 3, 9, 15])
def test_few_long_iterations_are_dealt_out_one_by_one(n):
    assert ranges_of(2, n, 1) == [(k, k + 1) for k in range(n)]


@pytest.mark.skipif(os.cpu_count() == 1 or not hasattr(os, "sched_setaffinity"), reason="asks for two processors")
def test_workers_keep_off_the_processor_of_the_caller():
    code = LATER.format(number=2) + """
every = os.sched_getaffinity(0)
f(x)
def masks():
    return [os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task") if int(t) != os.getpid()]
for here in sorted(every)[:2]:
    os.sched_setaffinity(0, {here})
    for _ in range(200):
        f(x)
        if every - {here} in masks():
            break
        time.sleep(0.02)  # after it was held up, a caller works alone for a while
    print(every - {here} in masks())
"""
    assert in_a_new_process(code) == "True\nTrue\n"
