# SPDX-License-Identifier: MIT
"""x[index] and at(x)[index] on traced arrays are NumPy's, values, shapes and errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functorch_lite.numpy as fnp
from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import evaluator
from functorch_lite.core.staging import stage
from functorch_lite.errors import ConcretizationError, ImmutableError
from functorch_lite.transforms.batching import batch_flat
from functorch_lite.transforms.linearize import linearize_flat

SHAPE = (3, 4, 2)


def staged(function, *arrays):
    """The value of a function, staged and run."""
    program, captured = stage(lambda *xs: [function(*xs)], [Aval(x.shape, x.dtype) for x in arrays])
    return evaluator(program)(*captured, *arrays)[0]


@st.composite
def indices(draw, shape=SHAPE):
    """An index expression for an array of `shape`, valid or out of bounds by one."""
    common = draw(st.sampled_from([(2,), (1, 3), (2, 1), (4,)]))
    items, axis = [], 0
    while axis < len(shape) and draw(st.integers(0, 5)):
        n = shape[axis]
        kind = draw(st.sampled_from(["int", "slice", "array", "list", "new", "mask", "ellipsis", "mask2"]))
        if kind == "int":
            items.append(draw(st.integers(-n, n - 1)))
        elif kind == "slice":
            bound = st.none() | st.integers(-n - 1, n + 1)
            items.append(slice(draw(bound), draw(bound), draw(st.sampled_from([None, 1, 2, -1, -2]))))
        elif kind in ("array", "list"):
            size = int(np.prod(common))
            values = np.array(draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))).reshape(common)
            items.append(values if kind == "array" else values.tolist())
        elif kind == "mask":
            mask = np.zeros(n, bool)
            mask[:1] = True
            items.append(mask)
        elif kind == "mask2" and axis + 1 < len(shape):
            mask = np.zeros(shape[axis : axis + 2], bool)
            mask[0, 0] = True
            items.append(mask)
            axis += 1
        elif kind == "ellipsis" and not any(i is Ellipsis for i in items):
            items.append(Ellipsis)
            axis = draw(st.integers(axis, len(shape)))
            continue
        else:
            items.append(None)
            continue
        axis += 1
    return tuple(items)


@settings(max_examples=400, deadline=None)
@given(indices())
def test_getitem_equals_numpy(index):
    x = np.arange(24.0).reshape(SHAPE)
    try:
        wanted = x[index]
    except IndexError:
        with pytest.raises(IndexError):
            staged(lambda x: x[index], x)
        return
    found = staged(lambda x: x[index], x)
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found, wanted)
    mapped, _ = batch_flat(lambda x: [x[index]], [np.stack([x, -x])], [True], size=2)
    np.testing.assert_array_equal(mapped[0][1], -wanted)


@settings(max_examples=300, deadline=None)
@given(indices(), st.sampled_from(["set", "add", "multiply", "min", "max"]))
def test_update_equals_numpy(index, combine):
    x = np.arange(24.0).reshape(SHAPE)
    try:
        shape = x[index].shape
    except IndexError:
        return
    values = np.linspace(-5, 30, int(np.prod(shape))).reshape(shape)
    wanted = x.copy()
    if combine == "set":
        wanted[index] = values
    else:
        ufunc = {"add": np.add, "multiply": np.multiply, "min": np.minimum, "max": np.maximum}[combine]
        ufunc.at(wanted, index, values)
    np.testing.assert_array_equal(getattr(fnp.at(x)[index], combine)(values), wanted)
    found = staged(lambda x, v: getattr(x.at[index], combine)(v), x, values)
    np.testing.assert_allclose(found, wanted, rtol=1e-15)


@settings(max_examples=100, deadline=None)
@given(indices())
def test_gradient_of_getitem_counts_the_uses_of_each_element(index):
    x = np.arange(24.0).reshape(SHAPE)
    try:
        out = x[index]
    except IndexError:
        return
    if not out.size:
        return
    ct = np.linspace(1, 2, out.size).reshape(out.shape)
    wanted = np.zeros(SHAPE)
    np.add.at(wanted, index, ct)
    outs, tape = linearize_flat(lambda x: [x[index] * 1.0], [x], [True])
    found = tape.backward([ct])[0]
    np.testing.assert_allclose(np.zeros(SHAPE) if found is None else found, wanted)


def test_tracer_indices():
    x = np.arange(12.0).reshape(3, 4)
    i, j = np.array([2, -1, 0]), np.array([[1], [3]])
    np.testing.assert_array_equal(staged(lambda x, i: x[i], x, i), x[i])
    np.testing.assert_array_equal(staged(lambda x, i, j: x[i, j], x, i, j), x[i, j])
    np.testing.assert_array_equal(staged(lambda x, i: x[:, i], x, i), x[:, i])
    np.testing.assert_array_equal(staged(lambda x, i: x[i, 1:3], x, np.int64(-2)), x[-2, 1:3])
    np.testing.assert_array_equal(staged(lambda i: fnp.take(x, i, axis=1), i), x[:, i])
    with pytest.raises(IndexError):
        staged(lambda x, i: x[i], x, np.array([3]))


def test_modes_of_lookup():
    x, i = np.arange(4.0), np.array([-5, -1, 2, 9])
    for function in (
        lambda x, i, **k: fnp.at(x)[i].get(**k),
        lambda x, i, **k: staged(lambda x, i: x.at[i].get(**k), x, i),
    ):
        np.testing.assert_array_equal(function(x, i, mode="clip"), [0, 3, 2, 3])
        np.testing.assert_array_equal(function(x, i, mode="fill"), [np.nan, 3, 2, np.nan])
        np.testing.assert_array_equal(function(x, i, mode="fill", fill_value=7), [7, 3, 2, 7])
        np.testing.assert_array_equal(function(x, i, mode="wrap"), [3, 3, 2, 1])


def test_modes_of_update():
    x, i = np.zeros(4), np.array([-5, -1, 2, 9])
    v = np.array([1.0, 2, 3, 4])
    for function in (
        lambda x, i, v, m: fnp.at(x)[i].add(v, mode=m),
        lambda x, i, v, m: staged(lambda x, i, v: x.at[i].add(v, mode=m), x, i, v),
    ):
        np.testing.assert_array_equal(function(x, i, v, "drop"), [0, 0, 3, 2])
        np.testing.assert_array_equal(function(x, i, v, "clip"), [1, 0, 3, 6])


def test_set_keeps_the_last_of_several_updates():
    x, i, v = np.zeros(3), np.array([1, 1, 1]), np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(fnp.at(x)[i].set(v), [0, 3, 0])
    np.testing.assert_array_equal(staged(lambda x, i, v: x.at[i].set(v), x, i, v), [0, 3, 0])
    _, tape = linearize_flat(lambda v: [fnp.at(x)[i].set(v)], [v], [True])
    np.testing.assert_array_equal(tape.backward([np.ones(3)])[0], [0, 0, 1])


def test_other_updates():
    x = np.array([2.0, 4.0, 8.0])
    for at in (lambda f: f(fnp.at(x)), lambda f: staged(lambda x: f(x.at), x)):
        np.testing.assert_array_equal(at(lambda a: a[1].subtract(1)), [2, 3, 8])
        np.testing.assert_array_equal(at(lambda a: a[1:].divide(2)), [2, 2, 4])
        np.testing.assert_array_equal(at(lambda a: a[0].power(3)), [8, 4, 8])
        np.testing.assert_array_equal(at(lambda a: a[[0, 2]].apply(lambda v: -v)), [-2, 4, -8])
        np.testing.assert_array_equal(at(lambda a: a[...].set(0)), [0, 0, 0])


def test_traced_mask_update():
    x = np.array([1.0, -2.0, 3.0])
    np.testing.assert_array_equal(staged(lambda x: x.at[x < 0].set(0.0), x), [1, 0, 3])
    np.testing.assert_array_equal(staged(lambda x: x.at[x > 0].add(10.0), x), [11, -2, 13])


def test_sized_nonzero_and_unique():
    x = np.array([3, 0, 2, 3, 0])
    np.testing.assert_array_equal(staged(lambda x: fnp.nonzero(x, size=4, fill_value=-1)[0], x), [0, 2, 3, -1])
    np.testing.assert_array_equal(staged(lambda x: fnp.nonzero(x, size=2)[0], x), [0, 2])
    np.testing.assert_array_equal(staged(lambda x: fnp.unique(x, size=4, fill_value=9), x), [0, 2, 3, 9])
    np.testing.assert_array_equal(staged(lambda x: fnp.bincount(x, length=5), x), [2, 0, 1, 2, 0])
    found = [staged(lambda x, k=k: fnp.unique(x, True, True, True, size=4)[k], x) for k in (1, 2, 3)]
    np.testing.assert_array_equal(found[0], [1, 2, 0, 0])
    np.testing.assert_array_equal(found[1], [2, 0, 1, 2, 0])
    np.testing.assert_array_equal(found[2], [2, 1, 2, 0])


def test_assignment_shows_the_replacement():
    def run(x):
        x[0] = 1.0
        return [x]

    with pytest.raises(ImmutableError, match=r"x = x\.at\[i\]\.set\(v\)"):
        linearize_flat(run, [np.ones(3)], [True])


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: x[x > 0], "fl.numpy.where"),
        (lambda x: x[: x[0]], "dynamic_slice_in_dim"),
        (lambda x: fnp.nonzero(x), "size=n"),
        (lambda x: fnp.unique(x), "size=n"),
    ],
)
def test_data_dependent_shapes_name_the_way_out(function, text):
    with pytest.raises(ConcretizationError, match=text):
        staged(function, np.arange(3))


@pytest.mark.parametrize("index", [5, -4, (0, 0), ([0, 7],), "a", 1.5, (..., ...), (np.ones(2, bool),)])
def test_bad_index_is_an_index_error(index):
    with pytest.raises(IndexError):
        staged(lambda x: x[index], np.ones(3))
