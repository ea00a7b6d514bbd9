# SPDX-License-Identifier: MIT
"""Common subexpression elimination: which equations are equal."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.passes.common import eliminate_common
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.barrier import barrier
from functorch_lite.primitives.broadcast import full
from functorch_lite.primitives.elementwise import add, mul
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.indexing import gather
from functorch_lite.primitives.key_use import use_key_p
from functorch_lite.primitives.transcendental import cos, exp, sin
from tests.compiler.passes.support import boundary, check_golden_pass, check_pass, program_of

F32 = np.dtype(np.float32)
X = boundary(F32, (3,))
KEY = np.array([0, 7], np.uint32)


def test_text(check_golden):
    def fun(x):
        return [add(sin(x), exp(sin(x))), mul(exp(sin(x)), np.float32(2)), mul(exp(sin(x)), np.float32(2)), cos(x)]

    check_golden_pass(check_golden, eliminate_common, "common", program_of(fun, X), [X])


DIFFERENT = {
    "zeros of another sign": lambda x: [add(x, np.float32(0.0)), add(x, np.float32(-0.0))],
    "scalars of another type": lambda x: [full((3,), 1, F32), full((3,), 1, np.dtype(np.int32))],
    "parameters": lambda x: [full((3,), 1, F32), full((2,), 1, F32)],
    "modes": lambda x: [gather(x, np.array([1]), mode="clip"), gather(x, np.array([1]), mode="wrap")],
    "functions": lambda x: [fl.pure_callback(f, x, x) for f in (lambda x: x, lambda x: x + 1)],
    "barriers": lambda x: [barrier([x])[0], barrier([x])[0]],
    "behind a barrier": lambda x: [sin(x), sin(barrier([x])[0])],
    "operands": lambda x: [add(x, sin(x)), add(sin(x), x)],
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_equations_that_differ_stay(name):
    result = check_pass(eliminate_common, program_of(DIFFERENT[name], X), [X])
    assert result.outputs[0] is not result.outputs[1]


def test_equal_programs_are_equal_parameters():
    def fun(x):
        return [fl.jit(lambda x: fl.numpy.sin(x))(x), fl.jit(lambda x: fl.numpy.sin(x))(x)]

    result = check_pass(eliminate_common, program_of(fun, X), [X])
    assert len([e for e in result.equations if e.prim is jit_p]) == 1


def test_the_last_of_many_operands_tells_equations_apart():
    def fun(x, y, z):
        return [fl.numpy.concatenate([x, x, x, x, x, last]) for last in (y, z, y)]

    args = [np.ones(2), np.zeros(2), np.full(2, 2.0)]
    result = check_pass(eliminate_common, program_of(fun, *args), args)
    assert len(result.equations) == 2 and result.outputs[0] is result.outputs[2] is not result.outputs[1]


def test_effects_are_kept_and_kept_in_order():
    def noted(x):
        bind(use_key_p, KEY, by="clone")
        return sin(x)

    def fun(x):
        program = program_of(lambda x: [noted(x)], x)
        for _ in range(2):
            bind(use_key_p, KEY, by="clone")
        called = [bind(jit_p, x, program=program)[0] for _ in range(2)]
        bind(use_key_p, KEY, by="clone")
        return called

    x = np.ones(3, F32)
    result = check_pass(eliminate_common, program_of(fun, x), [x])
    assert len(result.equations) == 5


def test_bodies_of_loops_are_cleaned():
    def fun(x):
        return [fl.lax.fori_loop(0, 3, lambda i, x: fl.numpy.sin(x) + fl.numpy.sin(x), x)]

    assert str(check_pass(eliminate_common, program_of(fun, X), [X])).count("sin") == 1
