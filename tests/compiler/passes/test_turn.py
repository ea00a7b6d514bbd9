# SPDX-License-Identifier: MIT
"""Transposed products, convolutions and padded arrays: which are made in the order in which they are read."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.passes.turn import turn_products
from functorch_lite.core.check import check_program
from functorch_lite.primitives.contraction import dot_general
from functorch_lite.primitives.convolution import conv_general_dilated
from functorch_lite.primitives.movement import pad, permute_dims, rev
from tests.compiler.passes.support import check_pass, program_of, run

RNG = np.random.default_rng(3)


def names(program):
    return [e.prim.name for e in program.equations]


def numbers(*shape, dtype=np.float32):
    return RNG.integers(-3, 4, shape).astype(dtype)


@pytest.mark.parametrize(("x", "y", "contract", "batch", "axes"), [
    ((5, 17), (5, 30), ((0,), (0,)), ((), ()), (1, 0)),
    ((2, 3, 18), (2, 3, 40), ((0, 1), (0, 1)), ((), ()), (1, 0)),
    ((4, 6, 20), (4, 6, 16), ((1,), (1,)), ((0,), (0,)), (0, 2, 1)),
    ((2, 3, 20), (5, 2, 16), ((0,), (1,)), ((), ()), (2, 3, 0, 1)),
])
def test_a_transposed_product_is_the_product_of_the_other_way_round(x, y, contract, batch, axes):
    x, y = numbers(*x), numbers(*y)
    program = program_of(lambda x, y: [permute_dims(dot_general(x, y, contract, batch), axes)], x, y)
    assert names(check_pass(turn_products, program, [x, y])) == ["dot_general"]


def test_what_is_read_twice_or_has_few_columns_or_another_order_stays():
    x, y, z = numbers(5, 17), numbers(5, 30), numbers(3, 17, 5)

    def twice(x, y):
        c = dot_general(x, y, ((0,), (0,)))
        return [c, permute_dims(c, (1, 0))]

    def few(x, y):
        return [permute_dims(dot_general(x, y, ((0,), (0,))), (1, 0))]

    def other(z, y):
        return [permute_dims(dot_general(z, y, ((2,), (0,))), (1, 0, 2))]

    for fun, args in ((twice, (x, y)), (few, (x[:, :4], y)), (other, (z, y)), (few, (x.astype(np.complex64), y + 0j))):
        program = program_of(fun, *[a.astype(args[0].dtype) for a in args])
        assert turn_products(program) is program


ONE = ((1, 1), ((1, 1), (1, 1)))  # strides and padding


@pytest.mark.parametrize("axes", [(0, 2, 3, 1), (1, 0, 2, 3), (3, 2, 1, 0)])
def test_a_permuted_convolution_is_one_with_its_output_in_that_order(axes):
    x, w = numbers(2, 3, 5, 6), numbers(4, 3, 3, 3)
    found = check_pass(turn_products, program_of(
        lambda x, w: [permute_dims(conv_general_dilated(x, w, *ONE), axes)], x, w), [x, w])
    assert names(found) == ["conv_general_dilated"] and found.equations[0].params["order"] == axes
    twice = program_of(
        lambda x, w: [permute_dims(permute_dims(conv_general_dilated(x, w, *ONE), axes), axes)], x, w)
    once_more = turn_products(turn_products(twice))
    assert names(once_more) == ["conv_general_dilated"]
    np.testing.assert_array_equal(run(once_more, [x, w])[0], run(twice, [x, w])[0])


@pytest.mark.parametrize("axes", [(2, 3), (2,), (3,)])
@pytest.mark.parametrize("permuted", [False, True])
def test_a_reversed_kernel_is_read_backwards(axes, permuted):
    x, w = numbers(2, 3, 7, 7), numbers(4, 3, 3, 3)
    w = w.swapaxes(0, 1).copy() if permuted else w

    def fun(x, w):
        w = rev(w, axes)
        return [conv_general_dilated(x, permute_dims(w, (1, 0, 2, 3)) if permuted else w, *ONE)]

    found = check_pass(turn_products, program_of(fun, x, w), [x, w])
    assert found.equations[-1].params["flipped"] == axes
    assert found.equations[-1].inputs[1] not in [e.outputs[0] for e in found.equations if e.prim.name == "rev"]


def test_what_is_reversed_otherwise_or_is_a_large_kernel_stays():
    x, w = numbers(2, 3, 7, 7), numbers(4, 3, 3, 3)
    y = numbers(4, 3, 7, 7)
    for fun, args in ((lambda x, w: [conv_general_dilated(x, rev(w, (1, 2)), *ONE)], (x, w)),
                      (lambda x, w: [conv_general_dilated(x, rev(w, (2, 3)), *ONE)], (x, y)),
                      (lambda x, w: [conv_general_dilated(x, rev(w, (2, 3)), *ONE)], (x + 0j, w + 0j))):
        args = [a.astype(np.complex64 if np.iscomplexobj(a) else np.float32) for a in args]
        program = program_of(fun, *args)
        assert turn_products(program) is program


def test_a_padded_array_is_permuted_before_it_is_padded():
    x, zero = numbers(4, 1, 3), np.float32(0)

    def fun(x):
        return [permute_dims(pad(x, zero, ((0, 0, 0), (5, 0, 0), (0, 1, 1))), (1, 0, 2))]

    result = check_pass(turn_products, program_of(fun, x), [x])
    assert names(result) == ["reshape", "pad"]
    y = numbers(4, 2, 3)
    assert names(check_pass(turn_products, program_of(fun, y), [y])) == ["permute_dims", "pad"]


def test_bodies_of_loops_are_turned_too():
    def fun(x, y):
        def step(total, _):
            return total + permute_dims(dot_general(x, y * total[0, 0], ((0,), (0,))), (1, 0)), None

        return [fl.lax.scan(step, np.ones((30, 17), np.float32), None, length=2)[0]]

    x, y = numbers(5, 17), numbers(5, 30)
    program = program_of(fun, x, y)
    result = turn_products(program)
    check_program(result)
    (scan,) = [e for e in result.equations if e.prim.name == "scan"]
    assert "permute_dims" not in names(scan.params["body"])
    np.testing.assert_allclose(run(result, [x, y])[0], run(program, [x, y])[0], 1e-6)
