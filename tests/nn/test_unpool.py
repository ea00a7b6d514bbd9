# SPDX-License-Identifier: MIT
"""Pools that return indices, and unpooling: laws, known answers and messages."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.errors import ArgumentTypeError, ShapeError

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 3, 7, 6))


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, dilation=2), nn.AdaptiveMaxPool2d((3, 4))], ids=str
)
def test_indices_are_where_the_values_are(pool):
    values, indices = pool.replace(return_indices=True)(IMAGE)
    np.testing.assert_array_equal(values, pool(IMAGE))
    flat = IMAGE.reshape(2, 3, -1)
    found = np.take_along_axis(flat, indices.reshape(2, 3, -1), axis=-1)
    np.testing.assert_array_equal(found.reshape(values.shape), values)


def test_the_first_of_equal_elements_is_found_and_padding_never():
    values, indices = nn.MaxPool1d(3, 1, 1, return_indices=True)(np.full((1, 4), -7.0))
    np.testing.assert_array_equal(values, np.full((1, 4), -7.0))
    np.testing.assert_array_equal(indices, [[0, 0, 1, 2]])
    whole, _ = nn.MaxPool1d(3, 1, 1, return_indices=True)(np.full((1, 4), -7))
    assert whole.dtype == np.int64 and (whole == -7).all()


@pytest.mark.parametrize("n, shape", [(1, (2, 6)), (2, (2, 3, 4, 6)), (3, (3, 4, 2, 6))])
def test_pooling_what_was_unpooled_gives_it_back(n, shape):
    x = RNG.uniform(1, 2, shape)
    pool, unpool = getattr(nn, f"MaxPool{n}d")(2, return_indices=True), getattr(nn, f"MaxUnpool{n}d")(2)
    values, indices = pool(x)
    out = unpool(values, indices)
    assert out.shape == x.shape and (out != 0).sum() == values.size
    np.testing.assert_array_equal(pool(out)[0], values)
    np.testing.assert_array_equal(np.where(out != 0, x, 0), out)


def test_jit_vmap_and_grad_of_unpooling():
    pool, unpool = nn.MaxPool2d(2, ceil_mode=True, return_indices=True), nn.MaxUnpool2d(2)

    def there_and_back(x):
        return unpool(*pool(x), output_size=x.shape[-2:])

    expected = there_and_back(IMAGE)
    np.testing.assert_array_equal(fl.jit(there_and_back)(IMAGE), expected)
    np.testing.assert_array_equal(fl.vmap(there_and_back)(IMAGE), expected)
    weights = RNG.normal(size=IMAGE.shape)
    grads = fl.grad(lambda x: (there_and_back(x) * weights).sum())(IMAGE)
    np.testing.assert_array_equal(grads, np.where(expected != 0, weights, 0))


def test_where_windows_overlapped_the_last_is_written_and_has_the_gradient():
    x, indices = np.array([[3.0, 5.0]]), np.array([[1, 1]])
    unpool = nn.MaxUnpool1d(2, 1)
    np.testing.assert_array_equal(unpool(x, indices), [[0.0, 5.0, 0.0]])
    np.testing.assert_array_equal(fl.grad(lambda x: unpool(x, indices).sum())(x), [[0.0, 1.0]])


def test_wrong_arguments_are_named():
    unpool, x = nn.MaxUnpool2d(2), np.ones((1, 2, 2))
    with pytest.raises(ArgumentTypeError, match="`indices` should be the integers of a pool with return_indices=True"):
        unpool(x, x)
    with pytest.raises(ShapeError, match=r"x is \(1, 2, 2\) and indices are \(2, 2\)"):
        unpool(x, np.zeros((2, 2), int))
    with pytest.raises(ShapeError, match=r"`output_size` should differ from \(4, 4\) by less than the stride \(2, 2\)"):
        unpool(x, np.zeros((1, 2, 2), int), output_size=(4, 6))
    with pytest.raises(ShapeError, match="`output_size` should differ from"):
        unpool(x, np.zeros((1, 2, 2), int), output_size=(4,))
    with pytest.raises(IndexError, match="16 is out of bounds"):
        unpool(x, np.full((1, 2, 2), 16))
