# SPDX-License-Identifier: MIT
"""Constant folding: what is computed now, what stays an equation, and that dtypes and errors stay."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.passes.fold import fold_constants
from functorch_lite.core import dtypes
from functorch_lite.core.program import Literal
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.barrier import barrier
from functorch_lite.primitives.broadcast import full, iota, reduce_sum
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.elementwise import add, div, mul
from functorch_lite.primitives.indexing import gather
from functorch_lite.primitives.key_use import use_key_p
from functorch_lite.primitives.movement import concatenate, reshape
from functorch_lite.primitives.random_bits import random_bits, split_key
from functorch_lite.primitives.transcendental import exp, sin
from tests.compiler.passes.support import boundary, check_golden_pass, check_pass, program_of

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
X = boundary(F32, (2, 3))
KEY = np.array([0, 7], np.uint32)
BF16 = dtypes.bfloat16


def test_text(check_golden):
    def fun(x):
        a = sin(np.float32(2))
        rows = iota(I32, (2, 3), 0)
        return [mul(x, a), add(x, mul(full((2, 3), 2, F32), a)), add(rows, rows), rows, a]

    check_golden_pass(check_golden, fold_constants, "fold", program_of(fun, X), [X])


FOLDED = {
    "a chain": lambda: exp(sin(np.float32(0.5))),
    "random bits": lambda: random_bits(KEY, (4,), 32),
    "keys": lambda: split_key(KEY, (3,)),
    "a reduction of iota": lambda: reduce_sum(iota(I32, (10,), 0), (0,)),
    "a reshape": lambda: reshape(np.arange(6, dtype=np.int16), (2, 3)),
    "division by zero": lambda: div(np.float32(1), np.float32(0)),
    "overflow": lambda: mul(np.int32(2**30), np.int32(4)),
    "bfloat16": lambda: mul(BF16.type(3), BF16.type(0.5)),
    "a cast": lambda: convert(np.float32(2.5), np.int8),
}


@pytest.mark.parametrize("name", FOLDED)
def test_equations_of_constants_are_literals_of_the_same_type(name):
    program = program_of(lambda: [FOLDED[name]()])
    (out,) = check_pass(fold_constants, program, []).outputs
    assert type(out) is Literal
    assert np.asarray(out.value).dtype == out.aval.dtype


KEPT = {
    "large": lambda: concatenate((np.arange(400.0), np.arange(400.0)), 0),
    "an index out of range": lambda: gather(np.arange(3.0), np.array([5]), mode="raise"),
    "a barrier": lambda: barrier([np.float32(1)])[0],
    "iota alone": lambda: iota(I32, (4,), 0),
    "zeros alone": lambda: full((4,), 0, F32),
    "a callback": lambda: fl.pure_callback(lambda x: x, np.float32(0), np.float32(1)),
}


@pytest.mark.parametrize("name", KEPT)
def test_other_equations_stay(name):
    program = program_of(lambda: [KEPT[name]()])
    assert check_pass(fold_constants, program) is program


def test_effects_stay():
    def fun(x):
        bind(use_key_p, KEY, by="normal")
        return [x]

    program = program_of(fun, X)
    assert check_pass(fold_constants, program, [X]) is program


def test_large_arrays_that_are_one_scalar_everywhere_fold_as_scalars():
    def fun(x):
        return [add(x, exp(mul(full((400, 400), 2, F32), np.float32(0.25))))]

    x = np.zeros((400, 400), F32)
    result = check_pass(fold_constants, program_of(fun, x), [x])
    assert not [e for e in result.equations if e.prim.name in ("exp", "mul")]


def test_bodies_of_loops_are_folded():
    def fun(x):
        return [fl.lax.fori_loop(0, 3, lambda i, x: x * fl.numpy.sin(np.float32(2)), x)]

    result = check_pass(fold_constants, program_of(fun, X), [X])
    assert "sin" not in str(result)
