# SPDX-License-Identifier: MIT
"""Called programs as parts: functions of their own, lowered and compiled once, which do what their equations do."""

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.printer import function_text
from functorch_lite.compiler.loop_ir.verify import verify
from tests.compiler.interpreting import run_interpreted, with_constants

RNG = np.random.default_rng(1)
X = RNG.standard_normal((4, 6)).astype(np.float32)
W = (0.3 * RNG.standard_normal((6, 6))).astype(np.float32)


def padded(x):
    """Enough equations for a call to stay one."""
    for _ in range(10):
        x = fnp.tanh(x @ W) + 1.0
    return x


def chain(block, n=5):
    call = fl.jit(block)

    def fun(x):
        for _ in range(n):
            x = call(x)
        return x

    return fun


def with_row(x):
    return padded(x) + x[:, :1]


def with_constant(x):
    return padded(x) * np.arange(24, dtype=np.float32).reshape(4, 6)


def with_a_loop(x):
    return fl.lax.fori_loop(0, 3, lambda i, x: fnp.sin(x) @ W, padded(x))


def with_a_branch(x):
    return fl.lax.cond(x[0, 0] > 0, fnp.sin, fnp.cos, padded(x))


def with_an_index(x):
    return padded(x) + x[fnp.argmax(x[:, 0])]


def with_python(x):
    return fl.pure_callback(np.sort, fl.ShapeDtype(x.shape, x.dtype), padded(x))


def with_a_solve(x):
    return fnp.linalg.solve(fnp.eye(6, dtype=np.float32) * 3 + W, padded(x).T).T


BLOCKS = {f.__name__: f for f in
          (padded, with_row, with_constant, with_a_loop, with_a_branch, with_an_index, with_python, with_a_solve)}


def lowered_of(fun, *args):
    program = fl.make_program(fun)(*args)
    return program, native.lower_program(pipeline.optimize(program))


@pytest.mark.parametrize("name", BLOCKS)
def test_three_ways(name):
    """The interpreter of loop IR and the machine code give what NumPy gives, with a plan for each memory."""
    fun = chain(BLOCKS[name])
    program, lowered = lowered_of(fun, X)
    assert len(lowered.parts) == 1
    verify(with_constants(lowered))
    expected = fun(X)
    plan = lowered.plan()
    for found in (run_interpreted(lowered, [X], program.out_avals, plan)[0], fl.jit(fun)(X)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_text_has_a_part_and_its_calls():
    _, lowered = lowered_of(chain(padded), X)
    text = function_text(lowered.function)
    assert text.count("call part0(") == 5 and text.count("kernel part0(") == 1


def test_outputs_that_are_inputs_and_outputs_twice():
    block = fl.jit(lambda x, y: (y, padded(x), padded(x), x, 2.0))

    def fun(x, y):
        outs = []
        for _ in range(4):
            x, y, *more = block(x, y)
            outs.append(more)
        return x, y, outs

    got, want = fl.jit(fun)(X, X + 1), fun(X, X + 1)
    for a, b in zip(fl.tree.leaves(got), fl.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_parts_inside_parts():
    inner = fl.jit(padded)
    outer = fl.jit(lambda x: inner(fnp.sin(inner(inner(inner(x)))) + 1.0))
    fun = chain(outer, 4)
    _, lowered = lowered_of(fun, X)
    assert len(lowered.parts) == 2
    np.testing.assert_allclose(fl.jit(fun)(X), fun(X), rtol=1e-4, atol=1e-5)


def test_numbers_go_through_memory():
    block = fl.jit(lambda s, x: (s + padded(x).sum() * 1e-3, fnp.sin(s) * 0.1 + x))

    def fun(s, x):
        for _ in range(5):
            s, x = block(s, x)
        return s, x

    for a, b in zip(fl.jit(fun)(np.float32(0.5), X), fun(np.float32(0.5), X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_loop_around_calls():
    call = fl.jit(padded)

    def fun(x):
        return fl.lax.fori_loop(0, 3, lambda i, x: call(call(call(call(x)))) + 1.0, x)

    assert len(lowered_of(fun, X)[1].parts) == 1
    np.testing.assert_allclose(fl.jit(fun)(X), fun(X), rtol=1e-4, atol=1e-5)


def test_an_error_inside_a_part_is_raised_with_its_line():
    def block(x, at):
        return padded(x) + x[at], at + 1

    call = fl.jit(block)

    def fun(x, at):
        for _ in range(4):
            x, at = call(x, at)
        return x

    jitted = fl.jit(fun)
    np.testing.assert_allclose(jitted(X, np.int64(0)), fun(X, np.int64(0)), rtol=1e-4, atol=1e-5)
    with pytest.raises(IndexError, match="4") as error:
        jitted(X, np.int64(2))
    line = block.__code__.co_firstlineno + 1
    assert f"test_calls.py:{line}" in str(error.value) + "".join(getattr(error.value, "__notes__", []))
    np.testing.assert_allclose(jitted(X, np.int64(0)), fun(X, np.int64(0)), rtol=1e-4, atol=1e-5)


def test_an_exception_of_a_callback_in_a_part():
    def fails(x):
        raise KeyError("inside")

    block = fl.jit(lambda x: fl.pure_callback(fails, fl.ShapeDtype(x.shape, x.dtype), padded(x)))
    with pytest.raises(KeyError, match="inside"):
        fl.jit(lambda x: block(block(block(block(x)))))(X)


def test_effects_in_parts_happen_at_every_call(capsys):
    def block(x):
        fl.debug.print("at {}", x[0, 0])
        return padded(x)

    fl.jit(chain(block, 4))(X)
    assert capsys.readouterr().out.count("at ") == 4


def test_a_donated_array_is_overwritten_through_a_part():
    opt = fl.optim.adam(1e-2, eps=1e-2)
    params = [RNG.standard_normal((6, 6)).astype(np.float32) for _ in range(40)]

    def step(params, grads):
        return opt.step(params, grads, state)[0]

    state = opt.init(params)
    program = fl.make_program(step)(params, params)
    donated = range(len(program.inputs) - 80, len(program.inputs) - 40)
    executable = native.compile_native(program, pipeline.optimize(program), list(donated))
    assert executable.lowered.parts
    assert sorted(executable.donations.values()) == list(donated)


def test_the_forecast_counts_one_arena():
    few, many = (fl.jit(chain(padded, n)).memory(X).temporaries for n in (4, 40))
    assert many == few


def test_profile_and_verify_see_into_parts():
    fun = chain(padded)
    profiled = fl.jit(fun, profile=True)
    profiled(X)
    kernels = profiled.profile().kernels
    assert sum(r.calls for r in kernels if "dot_general" in r.name) == 50
    np.testing.assert_allclose(fl.jit(fun, verify=True)(X), fun(X), rtol=1e-4, atol=1e-5)


def test_cost_counts_every_call():
    few, many = (fl.jit(chain(padded, n)).lower(X).cost_analysis().flops for n in (4, 40))
    assert many == 10 * few


def test_threads_share_loops_in_parts():
    big = RNG.standard_normal((64, 30000)).astype(np.float32)

    def block(x):
        for _ in range(16):
            x = fnp.sin(x) * 0.5
        return x - fnp.mean(x, axis=0)

    fun = chain(block, 4)
    one, two = [], []
    for threads, found in ((1, one), (2, two)):
        with fl.config(num_threads=threads):
            found.append(fl.jit(chain(block, 4))(big))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_allclose(one[0], fun(big), rtol=1e-4, atol=1e-5)
