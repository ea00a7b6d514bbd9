# SPDX-License-Identifier: MIT
"""Reads across rows go by tiles; near lanes by whole vectors; concatenation reads through index maps."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.loop_ir.verify import verify
from functorch_lite.compiler.schedule.parallel import every, shared_loops
from functorch_lite.compiler.schedule.turned import LEAST
from tests.compiler.guarded import Guarded
from tests.compiler.support import run_kernel

MACHINES = ((64, True), (64, False), (32, True), (16, False))
"""Bytes of a vector, and whether arrays end where no code may read."""


def numbers(*shape, dtype=np.float32):
    random = np.random.default_rng(0)
    if np.dtype(dtype).kind == "c":
        return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(dtype)
    if np.dtype(dtype).kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    return (random.standard_normal(shape) * 50).astype(dtype)


def compiled(fun, *args, number=1):
    program = fl.make_program(fun)(*args)
    with fl.config(num_threads=number):
        return native.compile_native(program, pipeline.optimize(program))


def kernels_of(fun, *args):
    return compiled(fun, *args).lowered.kernels


def turns(kernel):
    return [s for s in every(kernel.body) if isinstance(s, nodes.Transpose)]


def words(x):
    """An array as the loop IR has it: complex numbers are pairs."""
    return np.ascontiguousarray(x).reshape(-1).view(np.dtype(f"f{x.itemsize // 2}") if x.dtype.kind == "c" else x.dtype)


def check(fun, *args):
    """A function of one kernel: the interpreter and machine code agree with NumPy, and touch nothing else."""
    (kernel,) = kernels_of(fun, *args)
    verify(kernel)
    expected = fun(*args)
    given = [words(a) for a in args]
    out = np.empty_like(words(expected))
    interpret(kernel, [*given, out])
    np.testing.assert_array_equal(out, words(expected))
    check_guarded(kernel, given, words(expected))
    return kernel


# --- tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 128), (96, 96), (130, 67), (1000, 17), (33, 257), (8200, 16), (200, 200)])
def test_a_transposed_operand_is_read_by_tiles(shape):
    kernel = check(lambda x, y: x.T + y, numbers(*shape), numbers(*shape[::-1]))
    assert turns(kernel)


@pytest.mark.parametrize("shape", [(4096, 2), (5001, 3), (2731, 4), (1639, 5), (1200, 8), (700, 13)])
def test_a_few_columns_are_read_from_the_cache(shape):
    kernel = check(lambda x: x.T * x.dtype.type(2), numbers(*shape))
    assert not turns(kernel)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int16", "uint32", "int64", "bool", "complex64",
                                   "complex128"])
@pytest.mark.parametrize("shape", [(128, 96), (101, 83)])
def test_every_type_is_turned(shape, dtype):
    check(lambda x: np.where(x.T != 0, x.T, x.dtype.type(1)), numbers(*shape, dtype=dtype))


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 0, 1), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_axes_in_any_order(axes):
    check(lambda x: np.transpose(x, axes) + x.dtype.type(1), numbers(20, 33, 40))


def test_slices_and_numbers_of_a_row_go_along():
    def fun(x, v, y):
        return x[3:130, 1:80].T * v[:, None] + x[:127, 2:81].T - y

    check(fun, numbers(131, 82), numbers(79), numbers(79, 127))


def test_a_reversed_operand_and_steps_between_rows_stay_right():
    check(lambda x: x[::-1, 1::2].T + x.dtype.type(1), numbers(128, 161))
    check(lambda x: x[:, ::-1].T + x.dtype.type(1), numbers(128, 130))


@pytest.mark.parametrize("shape,dtype", [
    ((256, 256), "float32"), ((600, 101), "float32"), ((640, 48), "float32"), ((1000, 33), "float64"),
    ((256, 256), "int8"), ((100, 201), "int16"),
])
def test_what_is_read_backwards_goes_by_tiles_from_its_end(shape, dtype):
    x, y = numbers(*shape, dtype=dtype), numbers(shape[1], shape[0], dtype=dtype)
    assert turns(check(lambda x: x[:, ::-1].T + x.dtype.type(1), x))
    assert turns(check(lambda x, y: np.rot90(x) * y, x, y))


def test_complex_numbers_read_backwards_stay_right():
    check(lambda x: np.rot90(x) + x.dtype.type(1), numbers(256, 256, dtype="complex64"))


def test_what_is_read_backwards_from_the_cache_is_gathered():
    assert not turns(check(lambda x: x[:, ::-1].T + x.dtype.type(1), numbers(300, 701)))


def test_short_arrays_are_left_alone():
    (kernel,) = kernels_of(lambda x: x.T + x, numbers(64, LEAST // 64 // 2).reshape(64, -1)[:64, :64].copy())
    assert not turns(kernel)


@pytest.mark.parametrize("shape", [(640, 512), (601, 333)])
def test_sums_down_transposed_columns(shape):
    x = numbers(*shape, dtype=np.float64)
    y = numbers(*shape[::-1], dtype=np.float64)
    results = [compiled(lambda x, y: (x.T * y).sum(0), x, y, number=k)(x, y)[0] for k in (1, 2, 4)]
    np.testing.assert_allclose(results[0], (x.T * y).sum(0), rtol=1e-12, atol=1e-9)
    assert all(np.array_equal(results[0], r) for r in results[1:])


@pytest.mark.parametrize("shape", [(1024, 1024), (1011, 997), (100000, 12), (12, 100000)])
def test_threads_share_tiles(shape):
    x = numbers(*shape)
    found = compiled(lambda x: x.T + 1, x, number=2)
    assert shared_loops(found.lowered.kernels[0])
    for number in (1, 2, 4):
        np.testing.assert_array_equal(compiled(lambda x: x.T + 1, x, number=number)(x)[0], x.T + 1)


def test_what_is_only_moved_is_written_where_it_is_wanted():
    found = compiled(lambda x: (x * 2).T, numbers(200, 100))
    assert not any(isinstance(s, nodes.Copy) for s in every(found.lowered.function.body))


# --- lanes a few elements apart ---------------------------------------------------------------------------------------


STEPS = (-8, -5, -3, -2, -1, 2, 3, 4, 5, 7, 8, 9)
KINDS = {"f32": np.float32, "f64": np.float64, "i8": np.int8, "i16": np.int16, "bool": bool}


@pytest.mark.parametrize("n,kind", [(2, "f32"), (16, "f32"), (67, "f32"), (31, "f64"), (64, "i8"), (37, "bool")])
def test_lanes_a_few_elements_apart(n, kind):
    b, given = Builder("kernel"), [numbers((n - 1) * abs(step) + 1, dtype=KINDS[kind]) for step in STEPS]
    xs = [b.input(f"x{k}", kind, x.size) for k, x in enumerate(given)]
    out = b.output("out", kind, n * len(STEPS))
    for k, (x, step) in enumerate(zip(xs, STEPS, strict=True)):
        with b.loop(n, vector=True) as i:
            b.store(out, i + k * n, b.load(x, i * step + (x.size - 1 if step < 0 else 0)))
    check_guarded(b.finish(), given, np.concatenate([x[::step] for x, step in zip(given, STEPS, strict=True)]))


@pytest.mark.parametrize("n,kind", [(3, "f32"), (48, "f32"), (33, "f32"), (21, "f64"), (70, "i16"), (37, "bool")])
def test_stores_beside_one_another(n, kind):
    b, given, outs = Builder("kernel"), [], []
    for count in (2, 3, 4, 8):
        arrays = np.split(numbers(count * n, dtype=KINDS[kind]), count)
        xs = [b.input(f"x{len(given) + k}", kind, n) for k in range(count)]
        given += arrays
        outs.append((xs, np.stack(arrays, -1).reshape(-1)))
    out, start = b.output("out", kind, sum(x.size for _, x in outs)), 0
    for xs, expected in outs:
        with b.loop(n, vector=True) as i:
            for k, v in enumerate([b.load(x, i) for x in xs]):
                b.store(out, i * len(xs) + (start + k), v)
        start += expected.size
    check_guarded(b.finish(), given, np.concatenate([x for _, x in outs]))


def check_guarded(function, given, expected):
    verify(function)
    for lanes_bytes, at_end in MACHINES:
        places = [Guarded(a.size, a.dtype, at_end) for a in (*given, expected)]
        for place, a in zip(places, given, strict=False):
            place.array[:] = a
        run_kernel(function, [p.array for p in places], lanes_bytes)
        assert all(p.untouched() for p in places)
        np.testing.assert_array_equal(places[-1].array, expected)


def test_one_place_after_another_may_be_written_by_a_later_store():
    b = Builder("kernel")
    x, out = b.input("x", "f32", 40), b.output("out", "f32", 81)
    with b.loop(40, vector=True) as i:
        v = b.load(x, i)
        b.store(out, i * 2, v)
        b.store(out, i * 2 + 1, b.op("neg", v))
        b.store(out, i * 2, b.op("add", v, v))
    function, given = b.finish(), numbers(40)
    verify(function)
    out = np.zeros(81, np.float32)
    run_kernel(function, [given, out])
    np.testing.assert_array_equal(out[:80:2], given + given)
    np.testing.assert_array_equal(out[1:80:2], -given)


# --- concatenation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", ["float32", "complex64", "bool", "int64"])
def test_parts_are_read_through_index_maps(axis, dtype):
    x = numbers(7, 9, 11, dtype=dtype)

    def fun(x):
        return np.concatenate([np.flip(x, axis), x, np.moveaxis(np.moveaxis(x, 0, 2), 2, 0), np.roll(x, 3, axis)], axis)

    kernels = kernels_of(lambda x: np.concatenate([x[:2, :2, :2], np.flip(x, 0)[2:4, 2:4, 2:4]], axis), x)
    assert len(kernels) == 1
    np.testing.assert_array_equal(fl.jit(fun)(x), fun(x))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "bool"])
def test_stacks_along_the_last_axis(count, dtype):
    xs = [numbers(13, 21, dtype=dtype) * np.dtype(dtype).type(1) for _ in range(count)]
    np.testing.assert_array_equal(fl.jit(lambda *xs: np.stack(xs, -1))(*xs), np.stack(xs, -1))


def test_very_many_parts():
    xs = [numbers(3, k % 5 + 1) for k in range(40)]
    np.testing.assert_array_equal(fl.jit(lambda *xs: np.concatenate(xs, 1))(*xs), np.concatenate(xs, 1))


def test_a_stack_of_one_array_reads_it_once():
    x = numbers(5, 40)
    check(lambda x: np.stack([x, x], -1), x)
    check(lambda x: np.stack([x[::-1], x, x[:, ::-1], x], -1), x)


def test_numbers_and_broadcasts_are_parts():
    x, v = numbers(6, 10), numbers(10)

    def fun(x, v):
        zeros, ones = np.zeros((2, 10), np.float32), np.ones((1, 10), np.float32)
        return np.concatenate([x, np.broadcast_to(v, (3, 10)), zeros, ones])

    np.testing.assert_array_equal(fl.jit(fun)(x, v), fun(x, v))


def test_a_transposed_part_goes_by_tiles():
    x = numbers(120, 130)
    kernel = check(lambda x: np.concatenate([x.T, x.T[:, ::-1], x[:120, :120]], axis=0), x)
    assert turns(kernel)


def test_a_carry_is_moved_in_its_own_place():
    x = numbers(6, 5)

    def step(c, n):
        return np.concatenate([c[1:], c[:1] + n]), np.roll(c, 2, 1)

    carry, rows = fl.jit(lambda x: fl.lax.scan(step, x, np.arange(7, dtype=np.float32)))(x)
    expected, expected_rows = x, []
    for n in np.arange(7, dtype=np.float32):
        expected, row = step(expected, n)
        expected_rows.append(row)
    np.testing.assert_array_equal(carry, expected)
    np.testing.assert_array_equal(rows, np.stack(expected_rows))
