# SPDX-License-Identifier: MIT
"""Algebra: each rewrite happens where it is exact, and only there. Bits are compared on boundary values."""

import numpy as np
import pytest

from functorch_lite.compiler.passes.algebra import simplify
from functorch_lite.core import dtypes
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.broadcast import broadcast_in_dim, reduce_sum
from functorch_lite.primitives.comparison import bit_and, bit_not, bit_or, bit_xor, eq, lt, ne, select
from functorch_lite.primitives.complex_parts import abs_p, conj, imag, make_complex, real
from functorch_lite.primitives.cumulative import cummax
from functorch_lite.primitives.elementwise import (
    add,
    div,
    integer_pow,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    safe_div_p,
    scale_p,
    sub,
)
from functorch_lite.primitives.reduction import reduce_max, reduce_min, reduce_prod
from tests.compiler.passes.support import boundary, check_golden_pass, check_pass, program_of, run

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int32", "uint8", "int64")
ANY = (*FLOATS, *INTEGERS)


def c(x, value):
    return x.dtype.type(value)


IDENTITY = {
    "x * 1": (lambda x: mul(x, c(x, 1)), ("bool", *ANY)),
    "x / 1": (lambda x: div(x, c(x, 1)), ANY),
    "x + -0.0": (lambda x: add(x, c(x, -0.0)), FLOATS),
    "x - 0.0": (lambda x: sub(x, c(x, 0)), ANY),
    "x + 0": (lambda x: add(x, c(x, 0)), INTEGERS),
    "-(-x)": (lambda x: neg(neg(x)), ANY),
    "x ** 1": (lambda x: pow(x, c(x, 1)), ("float32", "float64", *INTEGERS)),
    "integer_pow 1": (lambda x: integer_pow(x, 1), ANY),
    "max(x, x)": (lambda x: maximum(x, x), ("bool", *ANY)),
    "min(x, x)": (lambda x: minimum(x, x), ("bool", *ANY)),
    "select(p, x, x)": (lambda x: select(eq(x, x), x, x), ("bool", *ANY)),
    "select(True, x, y)": (lambda x: select(np.True_, x, add(x, x)), ("bool", *ANY)),
    "x & x": (lambda x: bit_and(x, x), ("bool", *INTEGERS)),
    "x & ~0": (lambda x: bit_and(x, ~c(x, 0)), ("bool", *INTEGERS)),
    "x | 0": (lambda x: bit_or(x, c(x, 0)), ("bool", *INTEGERS)),
    "x ^ 0": (lambda x: bit_xor(x, c(x, 0)), ("bool", *INTEGERS)),
    "~~x": (lambda x: bit_not(bit_not(x)), ("bool", *INTEGERS)),
    "x == True": (lambda x: eq(x, np.True_), ("bool",)),
    "select(x, True, False)": (lambda x: select(x, np.True_, np.False_), ("bool",)),
    "scale(x, 1)": (lambda x: bind(scale_p, x, c(x, 1)), ANY),
    "scale(1, x)": (lambda x: bind(scale_p, c(x, 1), x), ANY),
    "safe_div(x, 1)": (lambda x: bind(safe_div_p, x, c(x, 1)), FLOATS),
    "real(complex(x, x))": (lambda x: real(make_complex(x, x)), ("float32", "float64")),
    "imag(complex(x, x))": (lambda x: imag(make_complex(x, x)), ("float32", "float64")),
}
CASES = [(name, dtype) for name, (_, allowed) in IDENTITY.items() for dtype in allowed]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_an_identity_goes(name, dtype):
    x = boundary(dtype)
    if name.startswith(("scale", "safe_div")):
        x = x[x != 0]  # the sign of its zero is not defined
    program = program_of(lambda x: [IDENTITY[name][0](x)], x)
    assert check_pass(simplify, program, [x]).outputs == simplify(program).inputs


CHEAPER = {
    "x * -1": (lambda x: mul(x, c(x, -1)), (*FLOATS, "int8", "int32"), ["neg"]),
    "x / -1": (lambda x: div(x, c(x, -1)), FLOATS, ["neg"]),
    "x / 4": (lambda x: div(x, c(x, 4)), FLOATS, ["mul"]),
    "x / 0.5": (lambda x: div(x, c(x, 0.5)), FLOATS, ["mul"]),
    "-0.0 - x": (lambda x: sub(c(x, -0.0), x), FLOATS, ["neg"]),
    "0 - x": (lambda x: sub(c(x, 0), x), INTEGERS, ["neg"]),
    "x ** 0": (lambda x: pow(x, c(x, 0)), ("float32", "float64", *INTEGERS), ["broadcast_in_dim"]),
    "integer_pow 2": (lambda x: integer_pow(x, 2), ANY, ["mul"]),
    "integer_pow 0": (lambda x: integer_pow(x, 0), ANY, ["broadcast_in_dim"]),
    "x * 0": (lambda x: mul(x, c(x, 0)), INTEGERS, ["broadcast_in_dim"]),
    "x - x": (lambda x: sub(x, x), INTEGERS, ["broadcast_in_dim"]),
    "x ^ x": (lambda x: bit_xor(x, x), ("bool", *INTEGERS), ["broadcast_in_dim"]),
    "x & 0": (lambda x: bit_and(x, c(x, 0)), ("bool", *INTEGERS), ["broadcast_in_dim"]),
    "x | ~0": (lambda x: bit_or(x, ~c(x, 0)), ("bool", *INTEGERS), ["broadcast_in_dim"]),
    "x ^ ~0": (lambda x: bit_xor(x, ~c(x, 0)), ("bool", *INTEGERS), ["not"]),
    "select(x, False, True)": (lambda x: select(x, np.False_, np.True_), ("bool",), ["not"]),
    "select(p, 2, 2)": (lambda x: select(x, np.float32(2), np.float32(2)), ("bool",), ["broadcast_in_dim"]),
    "scale by 3": (lambda x: bind(scale_p, x, c(x, 3)), INTEGERS, ["mul"]),
    "scale by 0": (lambda x: bind(scale_p, x, c(x, 0)), (*FLOATS, *INTEGERS), ["broadcast_in_dim"]),
}
CASES = [(name, dtype) for name, (_, allowed, _) in CHEAPER.items() for dtype in allowed]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_a_cheaper_equation_takes_the_place(name, dtype):
    fun, _, wanted = CHEAPER[name]
    x = boundary(dtype)
    if name == "scale by 0" and np.dtype(dtype).kind == "f":
        x = x[np.isfinite(x) & ~np.signbit(x)]  # the sign of its zero is not defined
    result = check_pass(simplify, program_of(lambda x: [fun(x)], x), [x])
    assert [e.prim.name for e in result.equations] == wanted


STAYS = {
    "x + 0.0": (lambda x: add(x, c(x, 0.0)), FLOATS),
    "x - -0.0": (lambda x: sub(x, c(x, -0.0)), FLOATS),
    "0.0 - x": (lambda x: sub(c(x, 0), x), FLOATS),
    "x - x": (lambda x: sub(x, x), FLOATS),
    "x * 0": (lambda x: mul(x, c(x, 0)), FLOATS),
    "x / 3": (lambda x: div(x, c(x, 3)), ANY),
    "x / inf": (lambda x: div(x, c(x, np.inf)), FLOATS),
    "x / tiny": (lambda x: div(x, np.finfo(x.dtype).smallest_subnormal), FLOATS),
    "x / 2": (lambda x: div(x, c(x, 2)), INTEGERS),
    "x ** 2": (lambda x: pow(x, c(x, 2)), FLOATS),
    "x ** 1": (lambda x: pow(x, c(x, 1)), ("float16",)),
    "integer_pow 3": (lambda x: integer_pow(x, 3), ANY),
    "select(p, 0, -0)": (lambda x: select(x, np.float32(0.0), np.float32(-0.0)), ("bool",)),
    "scale by inf": (lambda x: bind(scale_p, x, c(x, np.inf)), FLOATS),
    "safe_div by 0": (lambda x: bind(safe_div_p, x, c(x, 0)), FLOATS),
    "z * 1": (lambda x: mul(x, c(x, 1)), ("complex64", "complex128")),
    "z / 2": (lambda x: div(x, c(x, 2)), ("complex64",)),
}
CASES = [(name, dtype) for name, (_, allowed) in STAYS.items() for dtype in allowed]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_what_is_not_exact_stays(name, dtype):
    x = boundary(np.float32).astype(dtype) if np.dtype(dtype).kind == "c" else boundary(dtype)
    program = program_of(lambda x: [STAYS[name][0](x)], x)
    assert simplify(program) is program


def test_signs_move_into_sums_products_and_literals(check_golden):
    def fun(x, y):
        return [
            add(x, neg(y)), add(neg(x), y), sub(x, neg(y)), mul(neg(x), neg(y)), mul(neg(x), c(x, 3)),
            bind(abs_p, neg(x)), bind(abs_p, bind(abs_p, y)),
        ]

    x = np.repeat(boundary(np.float32), 11)
    y = np.tile(boundary(np.float32), 11)
    check_golden_pass(check_golden, simplify, "algebra_signs", program_of(fun, x, y), [x, y])


def test_integer_sums_and_products_with_literals_regroup(check_golden):
    def fun(x):
        return [add(add(x, c(x, 100)), c(x, 100)), mul(mul(x, c(x, 100)), c(x, 3)), sub(c(x, 0), sub(c(x, 0), x))]

    x = boundary(np.int8)
    check_golden_pass(check_golden, simplify, "algebra_integers", program_of(fun, x), [x])


def test_choices_and_comparisons_lose_their_not(check_golden):
    def fun(x, y):
        unequal = bit_not(eq(x, y))
        return [select(unequal, x, y), unequal, bit_not(ne(x, y)), bit_not(lt(x, y)), bit_not(lt(eq(x, y), eq(y, x)))]

    x = np.repeat(boundary(np.float32), 11)
    y = np.tile(boundary(np.float32), 11)
    check_golden_pass(check_golden, simplify, "algebra_choices", program_of(fun, x, y), [x, y])


@pytest.mark.parametrize("dtype", ANY)
@pytest.mark.parametrize("reduce", [reduce_sum, reduce_max, reduce_min, reduce_prod])
def test_a_reduction_over_axes_of_size_1_moves_elements(reduce, dtype):
    x = boundary(dtype).reshape(-1, 1)[None]
    result = check_pass(simplify, program_of(lambda x: [reduce(x, (0, 2)), reduce(x, ())], x), [x])
    assert not [e for e in result.equations if e.prim.name.startswith("reduce_")]


def test_a_sum_of_equal_integers_is_a_product_and_one_of_floats_stays():
    def fun(x):
        return [reduce_sum(broadcast_in_dim(x, (300, 9, 2), (1,)), (0, 2))]

    x = boundary(np.int8)
    assert "reduce_sum" not in str(check_pass(simplify, program_of(fun, x), [x]))
    x = np.linspace(0, 1, 9)
    assert "reduce_sum" in str(simplify(program_of(fun, x)))


def test_a_product_of_a_derivative_is_a_product_where_a_factor_is_finite_and_not_zero():
    x = boundary(np.float32)

    def fun(x):
        return [bind(scale_p, x, c(x, 2.5)), bind(scale_p, c(x, 2.5), x), bind(safe_div_p, x, c(x, 3))]

    program = program_of(fun, x)
    result = simplify(program)
    assert [e.prim.name for e in result.equations] == ["mul", "mul", "div"]
    for want, got in zip(run(program, [x]), run(result, [x]), strict=True):
        np.testing.assert_array_equal(want, got)  # zeros may differ in sign


@pytest.mark.parametrize("fun", [lambda x: mul(x, c(x, 1)), neg, lambda x: sub(x, c(x, 0))])
def test_float8_is_left_alone(fun):
    for dtype in dtypes.float8:
        x = np.ones(3, np.float32).astype(dtype)
        program = program_of(lambda x: [fun(x)], x)
        assert simplify(program) is program


def test_bfloat16_is_simplified_like_the_other_floats():
    x = boundary(np.float32).astype(dtypes.bfloat16)
    program = program_of(lambda x: [div(mul(x, c(x, 1)), c(x, 4)), add(x, c(x, 0))], x)
    result = simplify(program)
    assert [e.prim.name for e in result.equations] == ["mul", "add"]
    for want, got in zip(run(program, [x]), run(result, [x]), strict=True):
        np.testing.assert_array_equal(want.astype(np.float32), got.astype(np.float32))


def test_a_running_maximum_of_one_element_is_the_element():
    x = boundary(np.float32)[:, None]
    assert check_pass(simplify, program_of(lambda x: [cummax(x, 1)], x), [x]).equations == ()


def test_conjugates_cancel():
    x = np.array([1 + 2j, complex(-0.0, -0.0), complex(np.inf, np.nan)])
    program = program_of(lambda x: [conj(conj(x))], x)
    assert check_pass(simplify, program, [x]).outputs == program.inputs
