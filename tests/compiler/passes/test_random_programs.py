# SPDX-License-Identifier: MIT
"""Any program keeps its bits under each pass and under all of them; passes are deterministic and fast."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.core.check import check_program
from functorch_lite.core.program import program_text
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.broadcast import broadcast_in_dim, full, iota, reduce_sum
from functorch_lite.primitives.casts import convert, stop_gradient_of
from functorch_lite.primitives.comparison import bit_and, bit_not, bit_xor, eq, ge, lt, select
from functorch_lite.primitives.elementwise import add, add_any, div, integer_pow, maximum, minimum, mul, neg, sub
from functorch_lite.primitives.higher_order import jit_p
from functorch_lite.primitives.movement import concatenate, pad, permute_dims, reshape, rev, slice
from functorch_lite.primitives.transcendental import sqrt
from tests.compiler.passes.support import PASSES, boundary, check_pass, check_same_bits, program_of, run

F32, I32, BOOL = np.dtype(np.float32), np.dtype(np.int32), np.dtype(bool)
CONSTANTS = (0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, np.inf, np.nan)
X, N, P = boundary(F32, (2, 3)), boundary(I32, (2, 3)), boundary(BOOL, (2, 3))


def constant(like, which):
    """A scalar of the dtype, sometimes spread or in an array."""
    value = CONSTANTS[which % len(CONSTANTS)]
    scalar = like.dtype.type(value if like.dtype == F32 else int(np.nan_to_num(value, posinf=7)))
    return (scalar, full(like.shape, scalar, like.dtype), np.full(like.shape, scalar, like.dtype))[which % 3]


def binary(fun):
    return lambda x, y, k: fun(x, y) if k % 2 else fun(*((x, constant(x, k)) if k % 4 else (constant(x, k), x)))


def moved(fun):
    return lambda x, y, k: fun(x, k)


def widened(x, k):
    return broadcast_in_dim(x, (2, *x.shape), tuple(range(1, x.ndim + 1))) if k % 2 else reshape(x, (1, *x.shape))


def narrowed(x, k):
    return slice(x, (0,) * x.ndim, tuple(n - (n > 1) * (k % 2) for n in x.shape), (1 + k % 2,) * x.ndim)


def called(x, y, k):
    program = program_of(lambda x, y: [add(mul(x, x), y), sub(x, x)], x, y)
    return bind(jit_p, x, y, program=program)[k % 2]


def looped(x, y, k):
    def body(carry, row):
        a, b = carry
        return (add(a, mul(y, y)), sub(b, constant(b, k))), add(row, a)

    (a, b), rows = lax.scan(body, (x, x), fnp.stack([x, y]))
    return (a, b, rows)[k % 3]


def chosen(x, y, k):
    return lax.cond(fnp.sum(x) > 0, lambda x, y: (neg(neg(x)), y), lambda x, y: (y, add(x, y)), x, y)[k % 2]


FLOAT_OPS = (binary(add), binary(sub), binary(mul), binary(div), binary(maximum), binary(minimum), binary(add_any))
INT_OPS = (binary(add), binary(sub), binary(mul), binary(maximum), binary(bit_and), binary(bit_xor))
ANY_OPS = (
    moved(lambda x, k: stop_gradient_of(x)),
    moved(widened),
    moved(narrowed),
    moved(lambda x, k: permute_dims(x, tuple(np.roll(range(x.ndim), k).tolist()))),
    moved(lambda x, k: reshape(x, (x.size,) if k % 2 else (*x.shape, 1))),
    moved(lambda x, k: rev(x, tuple(range(k % (x.ndim + 1))))),
    moved(lambda x, k: pad(x, x.dtype.type(k % 2), ((0, k % 2, 0),) * x.ndim)),
    moved(lambda x, k: concatenate((x, x)[: 1 + k % 2], 0) if x.ndim else x),
    moved(lambda x, k: convert(x, (F32, np.dtype(np.float64), I32, BOOL)[k % 4] if x.dtype != F32 else np.float64)),
    moved(lambda x, k: iota(x.dtype if x.dtype != BOOL else I32, x.shape, 0) if x.ndim else x),
    lambda x, y, k: select(eq(x, y), x, constant(x, k)),
    lambda x, y, k: bit_not((lt, ge, eq)[k % 3](x, y)),
)
NUMBER_OPS = (
    moved(lambda x, k: neg(x)), moved(lambda x, k: integer_pow(x, k % 4)), called, looped, chosen,
    moved(lambda x, k: reduce_sum(x, tuple(i for i, n in enumerate(x.shape) if n == 1 or (k % 2 and x.dtype == I32)))),
)


def ops_for(dtype):
    if dtype == BOOL:
        return ANY_OPS
    own = FLOAT_OPS if dtype.kind == "f" else INT_OPS
    return (*ANY_OPS, *NUMBER_OPS, *own, *own, *(() if dtype.kind != "f" else (moved(lambda x, k: sqrt(x)),)))


def written(recipe):
    """The function of three arrays that does what the numbers say: pick a value, an operation, a second operand."""

    def fun(x, n, p):
        values = [x, n, p]
        for first, op, second, k in recipe:
            a = values[first % len(values)]
            alike = [v for v in values if (v.shape, v.dtype) == (a.shape, a.dtype)]
            ops = ops_for(a.dtype)
            out = ops[op % len(ops)](a, alike[second % len(alike)], k)
            if out.dtype in (F32, I32, BOOL, np.float64) and 0 < out.size < 500:
                values.append(out)
        return values[-4:]

    return fun


NUMBERS = st.integers(0, 999)
RECIPES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(RECIPES)
def test_each_pass_and_all_of_them_keep_the_bits(recipe):
    args = [X, N, P]
    program = result = program_of(written(recipe), *args)
    for transform in PASSES:
        check_pass(transform, program)
        before, result = result, check_pass(transform, result)
        check_same_bits(before, result, args)
    check_same_bits(program, result, args)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(RECIPES)
def test_passes_are_deterministic(recipe):
    program = program_of(written(recipe), X, N, P)
    again = program_of(written(recipe), X, N, P)
    for transform in PASSES:
        program, again = transform(program), transform(again)
    assert program_text(program, exact=True) == program_text(again, exact=True)


def cnn(params, x):
    for w in params[:-1]:
        x = fl.nn.relu(lax.conv_general_dilated(x, w, (1, 1), "SAME"))
    x = x.mean((2, 3)) @ params[-1]
    return -(x - fnp.log(fnp.exp(x).sum(-1, keepdims=True)))[:, 0].mean()


def attention(params, x):
    q, k, v = (x @ w for w in params)
    scores = q @ k.swapaxes(-1, -2)
    scores = scores - scores.max(-1, keepdims=True)
    p = fnp.exp(scores)
    return ((p / p.sum(-1, keepdims=True)) @ v).sum()


RNG = np.random.default_rng(0)
MODELS = {
    "cnn": (cnn, [RNG.normal(size=s).astype(F32) for s in ((4, 1, 3, 3), (4, 4, 3, 3), (4, 10))], (2, 1, 8, 8)),
    "attention": (attention, [RNG.normal(size=(8, 8)).astype(F32) for _ in range(3)], (2, 5, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_models_stay_the_same(name):
    fun, params, shape = MODELS[name]
    x = RNG.normal(size=shape).astype(F32)
    program = result = fl.make_program(fl.grad(fun))(params, x)
    for transform in PASSES:
        result = transform(result)
        check_program(result)
    assert len(result.equations) < len(program.equations) * 2
    args = [*params, x]
    for want, got in zip(run(program, args), run(result, args), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_all_passes_together_take_microseconds_an_equation():
    def fun(x):
        for i in range(1000):
            x = add(mul(x, full((3,), i, F32)), div(stop_gradient_of(neg(x)), np.float32(3)))
        return [x]

    program = program_of(fun, X[0])
    start = time.perf_counter()
    for transform in PASSES:
        program = transform(program)
    assert (time.perf_counter() - start) / 6000 < 200e-6  # about 15 us; a quadratic pass takes milliseconds
