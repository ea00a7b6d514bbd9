# SPDX-License-Identifier: MIT
"""Laws over the table of layers."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import tree
from tests.records.layers import LAYERS


def over(records):
    return pytest.mark.parametrize("record", list(records), ids=lambda record: record.name)


def made(record, dtype=np.float64):
    return record.make(fl.random.key(3), dtype)


def assert_close(actual, expected, dtype=np.float64):
    rtol = 1e-10 if dtype == np.float64 else 2e-5
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)


@over(LAYERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_a_layer_computes_its_reference(record, dtype):
    layer, x = made(record, dtype), record.batch(dtype=dtype)
    out = layer(x)
    assert_close(out, record.reference(layer, x), dtype)
    assert out.dtype == dtype


@over(record for record in LAYERS if record.any_lead)
def test_leading_axes_are_a_batch(record):
    layer, x = made(record), record.batch(6)
    split = layer(x.reshape(2, 3, *record.shape))
    flat = layer(x)
    assert_close(split, flat.reshape(2, 3, *flat.shape[1:]))


@over(LAYERS)
def test_vmap_over_examples_is_the_batch(record):
    layer, x = made(record), record.batch()
    assert_close(fl.vmap(layer)(x), layer(x))


@over(LAYERS)
def test_jit_of_a_layer_as_argument_is_eager(record):
    layer, x = made(record), record.batch()
    assert_close(fl.jit(lambda layer, x: layer(x))(layer, x), layer(x))


@over(LAYERS)
def test_flatten_and_unflatten_give_the_layer_back(record):
    layer, x = made(record), record.batch()
    leaves, treedef = tree.flatten(layer)
    again = tree.unflatten(treedef, leaves)
    assert tree.structure(again) == treedef and hash(tree.structure(made(record))) == hash(treedef)
    assert_close(again(x), layer(x))


@over(LAYERS)
def test_the_gradient_is_layer_shaped_and_right(record):
    layer, x = made(record), record.batch()
    weights = np.random.default_rng(1).normal(size=layer(x).shape)

    def loss(layer, x):
        return (layer(x) * weights).sum()

    argnums = (0,) if record.integers is not None else (0, 1)
    grads = fl.grad(loss, argnums=argnums)(layer, x)
    assert tree.structure(grads[0]) == tree.structure(layer)
    rng = np.random.default_rng(2)
    direction = tree.map(lambda leaf: rng.normal(size=leaf.shape), (layer, x)[: len(argnums)])
    direction = (_without_buffers(direction[0]), *direction[1:])
    along = sum(float((g * d).sum()) for g, d in zip(tree.leaves(grads), tree.leaves(direction), strict=True))
    assert_close(along, _difference_quotient(loss, (layer, x), direction), np.float32)


def _without_buffers(layer):
    return tree.map(lambda leaf, keep: leaf if keep else 0 * leaf, layer, fl.nn.trainable_mask(layer))


def _difference_quotient(loss, values, direction, eps=1e-5):
    def at(step):
        moved = tree.map(lambda v, d: v + step * d, values[: len(direction)], direction)
        return loss(*moved, *values[len(direction) :])

    return (at(eps) - at(-eps)) / (2 * eps)


@over(record for record in LAYERS if record.parameters)
def test_per_example_gradients_sum_to_the_gradient(record):
    layer, x = made(record), record.batch()

    def loss(layer, x):
        return (layer(x) ** 2).sum()

    each = fl.vmap(fl.grad(loss), in_axes=(None, 0))(layer, x)
    total = fl.grad(loss)(layer, x)
    for one, whole in zip(tree.leaves(each), tree.leaves(total), strict=True):
        assert_close(one.sum(0), whole, np.float64)
