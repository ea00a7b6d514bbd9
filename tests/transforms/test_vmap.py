# SPDX-License-Identifier: MIT
"""vmap: axes, prefixes, chunks, and its collectives with their derivatives."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite.errors import ArgumentError, ArgumentTypeError, AxisNameError, ShapeError, TreeError

X = np.arange(6.0).reshape(3, 2)


def test_axes_may_be_anywhere_and_negative():
    rows = fl.vmap(lambda a, b: a * 10 + b, in_axes=(0, -1))(np.arange(3.0), np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(rows, (np.arange(3.0) * 10 + np.arange(6.0).reshape(2, 3)).T)
    for axis in (0, 1, -1, -2):
        found = fl.vmap(lambda x: np.stack([x, x]), out_axes=axis)(np.arange(3.0))
        np.testing.assert_array_equal(np.moveaxis(found, axis, 0), np.stack([np.arange(3.0)] * 2, 1))


def test_in_axes_is_a_prefix_of_the_arguments():
    params = {"w": np.arange(3.0), "rest": [np.ones((3, 2)), np.zeros((3, 2))]}
    found = fl.vmap(lambda p, y: p["w"] * p["rest"][0] + p["rest"][1] + y, in_axes=({"w": 0, "rest": 0}, None))(
        params, 1.0
    )
    np.testing.assert_array_equal(found, params["w"][:, None] * np.ones((3, 2)) + 1)
    found = fl.vmap(lambda p: p["w"] * p["b"], in_axes=({"w": 0, "b": None},))({"w": np.arange(3.0), "b": 2.0})
    np.testing.assert_array_equal(found, [0.0, 2.0, 4.0])


def test_out_axes_is_a_prefix_of_the_result():
    pair, same = fl.vmap(lambda x: ((x, x * np.ones(4)), 7.0), out_axes=((0, 1), None))(np.arange(3.0))
    assert pair[0].shape == (3,) and pair[1].shape == (4, 3)
    assert same == 7.0


def test_an_unmapped_result_is_repeated():
    np.testing.assert_array_equal(fl.vmap(lambda x: 7.0)(np.arange(3.0)), [7.0, 7.0, 7.0])


def test_axis_size_without_a_mapped_argument():
    np.testing.assert_array_equal(fl.vmap(lambda: 2.0, axis_size=3)(), [2.0, 2.0, 2.0])
    assert fl.vmap(lambda x: x, in_axes=None, axis_size=2)(np.ones(3)).shape == (2, 3)


def test_keyword_arguments_are_mapped():
    np.testing.assert_array_equal(fl.vmap(lambda x, k: x * k)(np.arange(3.0), k=np.arange(3.0)), [0.0, 1.0, 4.0])


@pytest.mark.parametrize("chunk", [1, 2, 3, 5])
def test_chunks_give_the_same_result(chunk):
    def f(x, w):
        return {"y": np.sum(x) * w, "x": x}

    whole, parts = fl.vmap(f, (0, None))(X, 2.0), fl.vmap(f, (0, None), chunk_size=chunk)(X, 2.0)
    for key in whole:
        np.testing.assert_array_equal(whole[key], parts[key])


def test_a_mapped_axis_of_size_zero():
    assert fl.vmap(lambda x: x @ np.ones((2, 4)))(np.zeros((0, 2))).shape == (0, 4)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: fl.vmap(lambda x, y: x, (0, 1))(np.ones(8), np.ones((2, 6))),
            ShapeError,
            r"mapped axes differ in size: argument `x` axis 0 has 8, `y` axis 1 has 6. Use in_axes=None",
        ),
        (lambda: fl.vmap(lambda x: x, axis_size=4)(np.ones(3)), ShapeError, "axis_size is 4, `x` axis 0 has 3"),
        (lambda: fl.vmap(lambda x: x)(1.0), ShapeError, r"axis 0 of `x` does not exist: it has shape \(\)"),
        (lambda: fl.vmap(lambda x: x, 2)(np.ones((2, 2))), ShapeError, "axis 2 of `x` does not exist"),
        (
            lambda: fl.vmap(lambda x, y: x, (0,))(np.ones(2), np.ones(2)),
            ArgumentError,
            "in_axes has 1 entries, .* 2 positional",
        ),
        (lambda: fl.vmap(lambda x: x, None)(np.ones(2)), ArgumentError, "no argument is mapped"),
        (
            lambda: fl.vmap(lambda x: x, "a")(np.ones(2)),
            ArgumentTypeError,
            "in_axes must be an int, None, or a tuple, got 'a'",
        ),
        (lambda: fl.vmap(lambda x: x, ({"a": 0},))({"b": np.ones(2)}), TreeError, "in_axes: must be a prefix"),
        (
            lambda: fl.vmap(lambda x: x, out_axes=None)(np.ones(2)),
            ArgumentError,
            "out_axes is None for `output`.*differs",
        ),
        (
            lambda: fl.vmap(lambda x: x, out_axes=3)(np.ones(2)),
            ShapeError,
            "out_axes 3 for `output` of <lambda> does not exist",
        ),
        (lambda: fl.vmap(lambda x: x, chunk_size=0)(np.ones(2)), ArgumentError, "chunk_size must be at least 1, got 0"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- collectives ----------------------------------------------------------------------------------------------------


def over(f, x=X, **kwargs):
    return fl.vmap(f, axis_name="i", **kwargs)(x)


def test_reductions_over_the_named_axis():
    np.testing.assert_array_equal(over(lambda x: lax.psum(x, "i")), [X.sum(0)] * 3)
    np.testing.assert_array_equal(over(lambda x: lax.pmean(x, "i")), [X.mean(0)] * 3)
    np.testing.assert_array_equal(over(lambda x: lax.pmax(x, "i")), [X.max(0)] * 3)
    np.testing.assert_array_equal(over(lambda x: lax.pmin(x, "i")), [X.min(0)] * 3)
    np.testing.assert_array_equal(over(lambda x: lax.psum({"one": 1, "x": x[0]}, "i")["one"]), [3, 3, 3])
    np.testing.assert_array_equal(over(lambda x: lax.psum(x, "i"), out_axes=None), X.sum(0))


def test_movement_over_the_named_axis():
    np.testing.assert_array_equal(over(lambda x: lax.axis_index("i")), [0, 1, 2])
    np.testing.assert_array_equal(over(lambda x: lax.all_gather(x, "i")), [X] * 3)
    np.testing.assert_array_equal(over(lambda x: lax.all_gather(x, "i", axis=1)), [X.T] * 3)
    np.testing.assert_array_equal(over(lambda x: lax.all_gather(x, "i", tiled=True)), [X.ravel()] * 3)
    shifted = over(lambda x: lax.ppermute(x, "i", [(0, 1), (1, 2)]))
    np.testing.assert_array_equal(shifted, [np.zeros(2), X[0], X[1]])
    square = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(over(lambda x: lax.all_to_all(x, "i", 0, 0), square), square.T)
    np.testing.assert_array_equal(over(lambda x: lax.psum_scatter(x, "i"), square), square.sum(0))
    wide = np.arange(18.0).reshape(3, 6)
    np.testing.assert_array_equal(over(lambda x: lax.psum_scatter(x, "i", tiled=True), wide), wide.sum(0).reshape(3, 2))


COLLECTIVES = {
    "psum": lambda x: lax.psum(x, "i"),
    "pmean": lambda x: lax.pmean(x, "i"),
    "pmax": lambda x: lax.pmax(x, "i"),
    "pmin": lambda x: lax.pmin(x, "i"),
    "all_gather": lambda x: lax.all_gather(x, "i"),
    "psum_scatter": lambda x: lax.psum_scatter(x, "i"),
    "ppermute": lambda x: lax.ppermute(x, "i", [(0, 2), (1, 0)]),
    "all_to_all": lambda x: lax.all_to_all(x, "i", 0, 0),
    "axis_index": lambda x: x * lax.axis_index("i"),
}


@pytest.mark.parametrize("name", COLLECTIVES)
def test_derivatives_of_collectives(name):
    x = np.array([[1.0, 2.0, 5.0], [3.0, 1.0, 0.5], [2.5, 7.0, 4.0]])

    def f(x):
        return fl.vmap(lambda r: np.sin(COLLECTIVES[name](r)) * np.sum(r), axis_name="i")(x)

    jacobian = np.stack([(f(x + e) - f(x - e)) / 2e-6 for e in 1e-6 * np.eye(9).reshape(9, 3, 3)], -1)
    shape = (*f(x).shape, 3, 3)
    for transform in (fl.jacfwd, fl.jacrev, lambda f: fl.jit(fl.jacrev(f)), lambda f: fl.jacrev(fl.jit(f))):
        np.testing.assert_allclose(transform(f)(x), jacobian.reshape(shape), atol=1e-7)


def test_the_gradient_inside_the_mapped_function():
    """grad of psum under vmap: each row's sum depends on every row."""
    found = fl.vmap(fl.grad(lambda x: lax.psum(x**2, "i")), axis_name="i")(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(found, [6.0, 12.0, 18.0])


def test_nested_names():
    x = np.arange(6.0).reshape(2, 3)

    def f(v):
        return (
            lax.psum(v, "rows"),
            lax.psum(v, "columns"),
            lax.psum(v, ("rows", "columns")),
            lax.axis_index(("rows", "columns")),
        )

    rows, columns, both, index = fl.vmap(fl.vmap(f, axis_name="columns"), axis_name="rows")(x)
    np.testing.assert_array_equal(rows, [x.sum(0)] * 2)
    np.testing.assert_array_equal(columns, np.stack([x.sum(1)] * 3, 1))
    np.testing.assert_array_equal(both, np.full((2, 3), 15.0))
    np.testing.assert_array_equal(index, x)


@pytest.mark.parametrize("wrap", [fl.jit, fl.checkpoint], ids=["jit", "checkpoint"])
def test_collectives_inside_staged_functions(wrap):
    f = wrap(lambda x: x / lax.psum(x, "i"))
    x = np.array([1.0, 3.0])
    np.testing.assert_array_equal(fl.vmap(f, axis_name="i")(x), [0.25, 0.75])
    np.testing.assert_array_equal(fl.jit(fl.vmap(f, axis_name="i"))(np.array([1.0, 1.0])), [0.5, 0.5])


def test_an_unmapped_value_is_summed_as_often_as_there_are_rows():
    np.testing.assert_array_equal(
        fl.vmap(lambda x, c: x + lax.psum(c, "i"), (0, None), axis_name="i")(np.zeros(3), 2.0), [6.0] * 3
    )


def test_a_name_that_is_not_bound():
    with pytest.raises(AxisNameError, match="axis name 'j' is not bound: the axes in scope are 'i'"):
        over(lambda x: lax.psum(x, "j"))
    with pytest.raises(AxisNameError, match="no axis is in scope"):
        lax.psum(1.0, "i")


def test_a_permutation_must_be_one():
    with pytest.raises(ArgumentError, match="sources in perm are not distinct"):
        over(lambda x: lax.ppermute(x, "i", [(0, 1), (0, 2)]))
    with pytest.raises(ArgumentError, match="outside the axis 'i' of size 3"):
        over(lambda x: lax.ppermute(x, "i", [(0, 3)]))
