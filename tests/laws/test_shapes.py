# SPDX-License-Identifier: MIT
"""Any shape, any axes: NumPy's functions give NumPy's values traced, and their gradients have the argument's shape."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import functorch_lite as fl

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


def _numbers(shape):
    return np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape) / 7 - 1


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3))
@settings(deadline=None)
def test_broadcast_product_and_its_gradient(shapes_of):
    x, y = (_numbers(s) for s in shapes_of.input_shapes)
    out, pullback = fl.vjp(lambda x, y: x * y, x, y)
    np.testing.assert_array_equal(out, x * y)
    ct = _numbers(shapes_of.result_shape)
    gx, gy = pullback(ct)
    assert (gx.shape, gy.shape) == (x.shape, y.shape)
    np.testing.assert_allclose(np.sum(gx * x), np.sum(ct * x * y), atol=1e-12)
    np.testing.assert_allclose(np.sum(gy * y), np.sum(ct * x * y), atol=1e-12)


@given(st.data())
@settings(deadline=None)
def test_reductions_over_any_axes(data):
    shape = data.draw(shapes)
    axes = tuple(data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda a: a % len(shape)))
                 if shape else [])
    keepdims = data.draw(st.booleans())
    x = _numbers(shape)

    def f(x):
        return np.sum(x, axis=axes, keepdims=keepdims)

    np.testing.assert_allclose(fl.jit(f)(x), f(x), atol=1e-12)
    np.testing.assert_array_equal(fl.grad(lambda x: np.sum(f(x)))(x), np.ones(shape))


@given(st.data())
@settings(deadline=None)
def test_transposes_and_reshapes_move_gradients_back(data):
    shape = data.draw(shapes)
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    x, weights = _numbers(shape), np.cos(_numbers(tuple(shape[a] for a in axes)))

    def f(x):
        return np.sum(np.reshape(np.transpose(x, axes) * weights, -1))

    expected = np.transpose(weights, np.argsort(axes)) if shape else weights
    np.testing.assert_array_equal(fl.grad(f)(x), expected)
    np.testing.assert_array_equal(fl.jit(fl.grad(f))(x), expected)


@given(st.data())
@settings(deadline=None)
def test_vmap_over_any_axis_is_a_loop_over_it(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    out_axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = _numbers(shape)
    expected = np.stack([np.tanh(row) * 2 for row in np.moveaxis(x, axis, 0)], out_axis)
    np.testing.assert_allclose(fl.vmap(lambda row: np.tanh(row) * 2, axis, out_axis)(x), expected, rtol=1e-15)
