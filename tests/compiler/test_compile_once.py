# SPDX-License-Identifier: MIT
"""What is compiled once however often a program has it: equal groups, calls in a long row, maths of single numbers."""

import re

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as jnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.codegen.llvm import program as program_writer
from functorch_lite.compiler.codegen.llvm.call_table import LONG, CallTable
from functorch_lite.compiler.codegen.llvm.outlined import OFTEN
from functorch_lite.core.evaluate import Evaluator

RNG = np.random.default_rng(0)
TOLERANCE = {"f": 2e-6, "d": 1e-13}


def compiled(fun, *args):
    """The executable of a function, after its outputs were found to be the evaluator's."""
    program = fl.make_program(fun)(*args)
    executable = native.compile_native(program, pipeline.optimize(program))
    leaves = fl.tree.leaves(args)
    for found, expected in zip(executable(*leaves), Evaluator(program)(*leaves), strict=True):
        tolerance = TOLERANCE.get(np.asarray(expected).dtype.char, 0)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
        assert np.asarray(found).dtype == np.asarray(expected).dtype
    return executable


def momentum(params, grads, state):
    """A step of an optimizer: one group for each leaf."""
    state = [0.9 * s + g for s, g in zip(state, grads, strict=True)]
    return [p - 0.1 * s for p, s in zip(params, state, strict=True)], state


def leaves_of(shapes):
    return [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]


# --- equal groups -----------------------------------------------------------------------------------------------------


def test_groups_of_one_shape_share_a_kernel():
    shapes = [(3, 5)] * 20 + [(7,)] * 20
    executable = compiled(momentum, *(leaves_of(shapes) for _ in range(3)))
    assert len(executable.lowered.kernels) == 2


def test_lowering_goes_on_after_a_shared_kernel():
    """Names of kernels and the equations they stand for stay right."""
    executable = compiled(lambda *xs: [jnp.sin(x) for x in xs], *leaves_of([(4, 3)] * 5))
    (kernel,) = executable.lowered.kernels
    assert len(executable.lowered.sources[kernel.name]) == 5


@pytest.mark.parametrize("fun", [
    lambda x, y: [x * np.float32(0.0), y * np.float32(-0.0)],
    lambda x, y: [x + np.float32(1), y + np.float32(2)],
    lambda x, y: [x + x[::-1], y + y],
    lambda x, y: [x + x.T, y + y],
    lambda x, y: [x[1:] + x[:-1], y[1:] + y[1:]],
    lambda x, y: [x - y, y * y],
    lambda x, y: [jnp.sum(x, 0), jnp.sum(y, 1)],
    lambda x, y: [x / jnp.sum(x, -1, keepdims=True), y / jnp.sum(y, 0, keepdims=True)],
    lambda x, y: [x.astype(np.int32), y.astype(np.int64)],
])
def test_groups_that_differ_do_not_share(fun):
    """In constants, index maps, operands, reduced axes or types."""
    x, y = leaves_of([(4, 4), (4, 4)])
    found = compiled(fun, x, y)(x, y)
    for a, b in zip(found, Evaluator(fl.make_program(fun)(x, y))(x, y), strict=True):
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


# --- calls in a long row ----------------------------------------------------------------------------------------------


def instructions(executable, kernel):
    return len(re.findall(rf"call void @{kernel.name}\(", executable.ir))


@pytest.mark.parametrize("count", [LONG - 1, LONG, 3 * LONG])
def test_a_long_row_of_calls_is_a_table(count):
    shapes = [(k.bit_count() + 1, 4) for k in range(count)]  # without a period, so that nothing is rolled
    executable = compiled(momentum, *(leaves_of(shapes) for _ in range(3)))
    assert ("@make_calls(" in executable.ir) == (count >= LONG)
    if count >= LONG:
        assert sum(instructions(executable, k) for k in executable.lowered.kernels) == 0


def test_a_table_has_inputs_outputs_constants_and_temporaries():
    """Chains of kernels through the arena, with arrays that the program holds."""
    table = RNG.standard_normal((6, 6)).astype(np.float32)

    def chains(xs):
        return [jnp.sum(jnp.cumsum(x @ table, 0) @ jnp.tanh(x), 1) for x in xs]

    executable = compiled(chains, leaves_of([(6, 6)] * LONG))
    assert "@make_calls(" in executable.ir
    assert executable.plan.size > 0


def test_words_of_a_table_have_room_for_a_large_arena(monkeypatch):
    shapes = [(k.bit_count() + 1, 4) for k in range(LONG)]
    args = [leaves_of(shapes) for _ in range(3)]
    assert "getelementptr (i32, ptr @calls" in compiled(momentum, *args).ir
    monkeypatch.setattr(program_writer, "CallTable", lambda size: CallTable(1 << 40))
    assert "getelementptr (i64, ptr @calls" in compiled(momentum, *args).ir


def test_steps_in_python_and_failing_kernels_stand_between_tables():
    """They keep their place in the order."""
    def host(x):
        return fl.pure_callback(lambda v: v + 1, x, x)

    def run(xs, k):
        xs = [jnp.cumsum(x) for x in xs]
        middle = host(xs[0]) + xs[1][k]
        return [jnp.cumsum(x * middle) for x in xs]

    executable = compiled(run, leaves_of([(5,)] * (LONG + 4)), np.int64(2))
    assert executable.ir.count("call void @make_calls(") == 2


# --- maths of single numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["sin", "exp", "tanh", "log1p"])
def test_maths_that_a_kernel_has_often_is_called(name, dtype):
    """The same bits as written out."""
    fun = getattr(jnp, name)

    def often(x):
        for _ in range(2 * OFTEN):
            x = fun(x) * dtype(0.25)
        return x

    def once(x):
        return fun(x) * dtype(0.25)

    x = dtype(0.7)
    executable = compiled(often, x)
    kind = {"f": "f32", "d": "f64"}[np.dtype(dtype).char]
    definition, call = f"define internal {'float' if kind == 'f32' else 'double'} @maths_{name}_{kind}(", "call"
    assert executable.ir.count(definition) == 1
    assert len(re.findall(rf"{call} \w+ @maths_{name}_{kind}\(", executable.ir)) == 2 * OFTEN
    written_out = compiled(once, x)
    assert "@maths_" not in written_out.ir
    expected = x
    for _ in range(2 * OFTEN):
        (expected,) = written_out(expected)
    assert executable(x)[0] == expected


def test_maths_in_vectors_is_written_out():
    def often(x):
        for _ in range(2 * OFTEN):
            x = jnp.sin(x)
        return x

    assert "@maths_" not in compiled(often, leaves_of([(40,)])[0]).ir


def test_two_arguments():
    def often(x, y):
        for _ in range(OFTEN):
            x = jnp.arctan2(x, y)
        return x

    assert "@maths_atan2_f64(double %x0, double %x1)" in compiled(often, np.float64(0.3), np.float64(-2.0)).ir


# --- short programs ---------------------------------------------------------------------------------------------------


def test_kernels_that_are_called_once_are_in_one_function():
    x, y = leaves_of([(40, 30), (30, 20)])
    executable = compiled(lambda x, y: (jnp.sort(jnp.exp(x)), jnp.sin(y)), x, y)
    assert len(executable.lowered.kernels) > 1
    assert len(re.findall(r"^define ", executable.ir, re.MULTILINE)) == 1


def test_a_kernel_that_is_called_twice_is_a_function():
    x, y = leaves_of([(40,), (40,)])
    executable = compiled(lambda x, y: (jnp.sum(jnp.exp(x)), jnp.sum(jnp.exp(y)), jnp.sort(x)), x, y)
    called = re.findall(r"call void @(\w+)\(", executable.ir)
    assert max(map(called.count, called)) == 2


def test_a_kernel_that_is_called_in_a_loop_too_is_a_function():
    def fun(x, y):
        def step(carry, row):
            return carry, jnp.sort(row)

        return jnp.sort(x), fl.lax.scan(step, x, y)[1]

    executable = compiled(fun, *leaves_of([(400,), (3, 400)]))
    called = re.findall(r"call void @(\w+)\(", executable.ir)
    assert max(map(called.count, called)) == 2


def test_a_kernel_in_the_program_shares_its_loops():
    (x,) = leaves_of([(300_001,)])
    with fl.config(num_threads=2):
        executable = compiled(lambda x: jnp.exp(x) * 2, x)
    assert executable.shares and not re.search(r"^define internal void @k0\(", executable.ir, re.MULTILINE)
