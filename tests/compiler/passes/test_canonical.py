# SPDX-License-Identifier: MIT
"""The canonical form: what goes, what merges, which operand comes first."""

import numpy as np
import pytest

from functorch_lite.compiler.passes.canonical import canonicalize, is_exact
from functorch_lite.compiler.passes.dead_code import eliminate_dead_code
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, StackAval
from functorch_lite.core.check import check_program
from functorch_lite.core.program import Equation, Literal, Program, Var
from functorch_lite.core.tracer import bind
from functorch_lite.primitives.blocks import dynamic_slice
from functorch_lite.primitives.broadcast import broadcast_in_dim, full
from functorch_lite.primitives.casts import convert, name_p, stop_gradient_of
from functorch_lite.primitives.comparison import lt
from functorch_lite.primitives.contraction import dot_general
from functorch_lite.primitives.elementwise import add, add_any, add_any_p, add_p, maximum, mul, mul_p, sub
from functorch_lite.primitives.movement import concatenate, pad, permute_dims, reshape, rev, slice
from functorch_lite.primitives.transcendental import exp
from tests.compiler.passes.support import boundary, check_golden_pass, check_pass, program_of, run

F32 = np.dtype(np.float32)
X = boundary(F32, (2, 3))

NOTHING = {
    "stop_gradient": stop_gradient_of,
    "name": lambda x: bind(name_p, x, name="kept"),
    "convert": lambda x: convert(x, F32),
    "broadcast": lambda x: broadcast_in_dim(x, (2, 3), (0, 1)),
    "reshape": lambda x: reshape(x, (2, 3)),
    "permute_dims": lambda x: permute_dims(x, (0, 1)),
    "slice": lambda x: slice(x, (0, 0), (2, 3), (1, 1)),
    "pad": lambda x: pad(x, np.float32(1), ((0, 0, 0), (0, 0, 0))),
    "concatenate with nothing": lambda x: concatenate((x, full((0, 3), 0, F32)), 0),
    "rev over no axes": lambda x: rev(x, ()),
    "dynamic_slice": lambda x: dynamic_slice(x, np.int64(1), np.int64(7), sizes=(2, 3)),
    "permute_dims twice": lambda x: permute_dims(permute_dims(x, (1, 0)), (1, 0)),
    "reshape and back": lambda x: reshape(reshape(x, (6,)), (2, 3)),
    "rev twice": lambda x: rev(rev(x, (0, 1)), (1, 0)),
    "widened and back": lambda x: convert(convert(x, np.float64), F32),
    "slice of size 1 steps twice": lambda x: slice(slice(x, (0, 0), (2, 3), (1, 1)), (0, 0), (2, 3), (1, 1)),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_changes_nothing_goes(name):
    program = program_of(lambda x: [NOTHING[name](x)], X)
    result = check_pass(canonicalize, program, [X])
    assert result.outputs == result.inputs


CHAINS = {
    "permute_dims": (lambda x: permute_dims(permute_dims(x, (2, 0, 1)), (0, 2, 1)), (2, 3, 4)),
    "reshape": (lambda x: reshape(reshape(x, (4, 6)), (3, 8)), (2, 3, 4)),
    "broadcast": (lambda x: broadcast_in_dim(broadcast_in_dim(x, (3, 1), (0,)), (2, 3, 4), (1, 2)), (3,)),
    "broadcast of an inserted axis": (lambda x: broadcast_in_dim(reshape(x, (3, 1)), (2, 3, 4), (1, 2)), (3,)),
    "broadcast of one element": (lambda x: reshape(broadcast_in_dim(x, (1, 3, 1), (1,)), (3, 1)), (3,)),
    "unit axes around permute_dims": (
        lambda x: reshape(permute_dims(reshape(x, (1, 2, 3, 4)), (0, 2, 1, 3)), (3, 2, 4)), (2, 3, 4)
    ),
    "slice": (lambda x: slice(slice(x, (1, 2), (10, 12), (2, 3)), (1, 1), (5, 3), (3, 1)), (11, 12)),
    "slice to nothing": (lambda x: slice(slice(x, (1,), (10,), (2,)), (2,), (2,), (1,)), (11,)),
    "convert": (lambda x: convert(convert(x, np.float64), np.complex64), (5,)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_becomes_one_equation(name):
    fun, shape = CHAINS[name]
    x = boundary(F32, shape)
    result = check_pass(canonicalize, program_of(lambda x: [fun(x)], x), [x])
    assert result.equations[-1].inputs == result.inputs


def test_a_reshape_of_unit_axes_that_are_the_operands_own_stays():
    x = boundary(F32, (3, 1))
    program = program_of(lambda x: [broadcast_in_dim(reshape(x, (1, 3)), (2, 3), (0, 1))], x)
    assert check_pass(canonicalize, program, [x]) is program


PRODUCTS = {
    "both permuted": ((1, 0), (1, 0), (((0,), (1,)), ((), ())), (3, 4), (4, 5), 1),
    "batch axes": ((1, 0, 2), (2, 0, 1), (((2,), (2,)), ((0,), (1,))), (3, 2, 4), (2, 4, 5), 1),
    "free axes out of order": ((1, 0, 2), (0, 1), (((2,), (0,)), ((), ())), (3, 2, 4), (4, 5), 2),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_takes_operands_as_they_are(name):
    left, right, (contract, batch), *shapes, count = PRODUCTS[name]
    x, y = (np.arange(np.prod(s), dtype=F32).reshape(s) for s in shapes)

    def fun(x, y):
        return [dot_general(permute_dims(x, left), permute_dims(y, right), contract, batch)]

    result = eliminate_dead_code(check_pass(canonicalize, program_of(fun, x, y), [x, y]))
    assert len(result.equations) == count


@pytest.mark.parametrize("first", "? int8 uint8 int32 int64 float16 float32 float64".split())
@pytest.mark.parametrize("middle", "int16 int32 uint64 float16 float32 float64 complex64 complex128".split())
@pytest.mark.parametrize("last", "? int8 int64 float16 float32 float64 complex128".split())
def test_converts_merge_only_where_values_stay(first, middle, last):
    x = boundary(first)
    program = program_of(lambda x: [convert(convert(x, middle), last)], x)
    result = canonicalize(program)
    check_program(result)
    defined = np.dtype(first).kind in "biu" or np.dtype(last).kind in "fcb"
    if defined or len(canonicalize(result).equations) == len(program.equations):
        check_pass(canonicalize, program, [x])


@pytest.mark.parametrize(
    ("source", "target", "exact"),
    [
        ("int64", "float64", False), ("int32", "float64", True), ("int32", "float32", False),
        ("uint16", "float32", True), ("float32", "complex64", True), ("float64", "complex64", False),
        ("bool", "float16", True), ("uint8", "int8", False), ("complex64", "float32", False),
        ("int16", "float16", False), ("uint8", "float16", True),
    ],
)
def test_exactness_of_conversions(source, target, exact):
    assert is_exact(np.dtype(source), np.dtype(target)) is exact


def test_bfloat16_is_exact_in_float32_only_one_way():
    assert is_exact(dtypes.bfloat16, F32) and not is_exact(F32, dtypes.bfloat16)
    assert not is_exact(dtypes.bfloat16, np.dtype(np.float16))


def test_sums_of_tangents_are_sums():
    program = program_of(lambda x, y: [add_any(x, y)], X, X)
    assert [e.prim for e in check_pass(canonicalize, program, [X, X]).equations] == [add_p]


@pytest.mark.parametrize("aval", [StackAval(Aval((3,), F32)), Aval((3,), dtypes.float0)])
def test_sums_that_add_does_not_take_stay(aval):
    x, out = Var(aval), Var(aval)
    program = Program((x,), (Equation(add_any_p, (x, x), (out,), {}),), (out,))
    assert canonicalize(program) is program


def test_commuted_operands_become_the_same_equation(check_golden):
    def fun(x, y):
        early, late = exp(x), exp(y)
        two = np.float32(2)
        return [mul(late, early), mul(early, late), add(two, x), lt(two, x), sub(two, x), maximum(y, x)]

    check_golden_pass(check_golden, canonicalize, "canonical_operands", program_of(fun, X, X), [X, X[::-1].copy()])


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_operands_whose_order_shows_in_the_bits_stay(dtype):
    x = boundary(F32).astype(dtype)
    fun = (lambda x, y: [maximum(y, x)]) if dtype == "float32" else (lambda x, y: [mul(y, x)])
    program = program_of(fun, x, x)
    assert canonicalize(program) is program


def test_an_operand_that_is_the_same_everywhere_is_a_scalar(check_golden):
    def fun(x):
        return [
            mul(x, full((2, 3), 2.5, F32)),
            add(x, np.full((2, 3), -0.0, F32)),
            add(x, np.array([[0, -0.0, 0]] * 2, F32)),
            mul(full((2, 3), 2, F32), full((2, 3), 3, F32)),
        ]

    check_golden_pass(check_golden, canonicalize, "canonical_scalars", program_of(fun, X), [X])


def test_scalar_literals_have_the_dtype_of_their_type():
    x, out = Var(Aval((3,), F32)), Var(Aval((3,), F32))
    eqn = Equation(mul_p, (Literal(2.0, Aval((), F32)), x), (out,), {})
    result = canonicalize(Program((x,), (eqn,), (out,)))
    (value,) = [a.value for a in result.equations[0].inputs if type(a) is Literal]
    assert type(value) is np.float32
    assert run(result, [np.ones(3, F32)])[0].dtype == F32


def test_a_slice_is_taken_before_a_permutation():
    def fun(x):
        return [slice(permute_dims(x, (2, 0, 1)), (1, 0, 2), (4, 2, 3), (2, 1, 1))]

    x = boundary(F32, (2, 3, 4))
    result = check_pass(canonicalize, program_of(fun, x), [x])
    assert [e.prim.name for e in eliminate_dead_code(result).equations] == ["slice", "permute_dims"]
    assert result.equations[-2].params["start"] == (0, 2, 1)
