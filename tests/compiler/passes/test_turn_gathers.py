# SPDX-License-Identifier: MIT
"""Gathers along any axes read the array where it is, and give what NumPy does."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.passes.turn_gathers import turn_gathers
from functorch_lite.core.check import check_program
from functorch_lite.core.evaluate import Evaluator
from functorch_lite.errors import BoundsError
from functorch_lite.primitives.indexing import gather

RNG = np.random.default_rng(8)
X = RNG.standard_normal((5, 6, 7, 8)).astype(np.float32)
PLACES, PAIRS = RNG.integers(-5, 5, 9), RNG.integers(0, 5, (3, 2))


def needed(fun, *args):
    """The names of the new program's equations that reach its outputs, which gives the same in both ways."""
    program = fl.make_program(fun)(*args)
    new = turn_gathers(program)
    check_program(new)
    expected = fun(*args)
    np.testing.assert_array_equal(Evaluator(new)(*args)[0], expected)
    np.testing.assert_array_equal(fl.jit(fun)(*args), expected)
    reached, found = set(new.outputs), []
    for eqn in reversed(new.equations):
        if not reached.isdisjoint(eqn.outputs):
            reached.update(eqn.inputs)
            found.append(eqn.prim.name)
    return found[::-1]


@pytest.mark.parametrize("fun", [
    lambda x, i, j: x[:, i],
    lambda x, i, j: x[:, :, i],
    lambda x, i, j: x[..., i],
    lambda x, i, j: np.take(x, j, axis=2),
    lambda x, i, j: np.take(x, j, axis=3),
    lambda x, i, j: x[:, i][:, :, i],
    lambda x, i, j: x[:, i][..., i],
    lambda x, i, j: x[:, j, j + 1],
    lambda x, i, j: np.take(x, i + 100, axis=1, mode="clip"),
    lambda x, i, j: np.take(x, i + 100, axis=3, mode="wrap"),
    lambda x, i, j: (x + 1j * x)[:, i],
])
def test_no_axis_is_moved_to_the_front(fun):
    found = needed(fun, X, PLACES, PAIRS)
    assert "gather" in found and "permute_dims" not in found


@pytest.mark.parametrize("fun", [
    lambda x, i, j: np.take(x.transpose(2, 3, 0, 1), j, axis=3),
    lambda x, i, j: x.T[j],
    lambda x, i, j: x.transpose(1, 0, 2, 3)[:, :, i],
])
def test_what_is_left_is_one_permutation_of_the_result(fun):
    found = needed(fun, X, PLACES, PAIRS)
    assert found[-1] == "permute_dims" and found.count("permute_dims") == 1


def test_indices_of_axes_apart_stay_behind_a_permutation():
    def fun(x, j):
        return x[:, j, :, j]

    assert "permute_dims" in needed(fun, X, PAIRS)


@pytest.mark.parametrize("mode", ["fill", "zero"])
def test_what_is_out_of_range_is_filled(mode):
    def fun(x, i):
        return fl.numpy.moveaxis(gather(fl.numpy.moveaxis(x, 2, 0), i, mode=mode), 0, 2)

    from_numpy = fun(X, PLACES + 4)
    np.testing.assert_array_equal(fl.jit(fun)(X, PLACES + 4), from_numpy)
    np.testing.assert_array_equal(fl.jit(fun)(X + 1j * X, PLACES + 4), fun(X + 1j * X, PLACES + 4))


def test_an_index_out_of_range_is_refused():
    f = fl.jit(lambda x, i: x[:, i])
    f(X, PLACES)
    with pytest.raises(BoundsError, match="index 99 is out of range"):
        f(X, PLACES + np.array([0] * 8 + [99 - int(PLACES[-1])]))


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("times", [2, 3])
def test_constant_indices_that_repeat_each_place_are_a_broadcast(axis, times):
    places = np.arange(X.shape[axis]).repeat(times)
    f = fl.jit(lambda x: np.take(x, places, axis=axis))
    text = f.lower(X).as_text("optimized")
    assert "gather" not in text and "broadcast_in_dim" in text
    np.testing.assert_array_equal(f(X), X.repeat(times, axis))


@pytest.mark.parametrize("places", [np.arange(6), np.tile(np.arange(6), 2), np.arange(5).repeat(2), np.arange(13)])
def test_other_constant_indices_are_a_gather(places):
    f = fl.jit(lambda x: np.take(x, places, axis=1, mode="clip"))
    assert "gather" in f.lower(X).as_text("optimized")
    np.testing.assert_array_equal(f(X), np.take(X, places, axis=1, mode="clip"))


def test_the_gradient_of_a_gather_along_an_axis():
    def loss(x):
        return (x[:, PLACES] ** 2 * x[:, :, PLACES][:, :1, :7]).sum()

    np.testing.assert_allclose(fl.jit(fl.grad(loss))(X), fl.grad(loss)(X), rtol=1e-5)


def test_a_program_without_such_gathers_is_the_same():
    for fun in (lambda x: x[PLACES], lambda x: x.T + x.T, lambda x: x[:, 1]):
        program = fl.make_program(fun)(X)
        assert turn_gathers(program) is program
