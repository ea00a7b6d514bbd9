# SPDX-License-Identifier: MIT
"""Batch normalisation along a vmap axis is that of the whole batch: values, statistics and gradients."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, tree
from functorch_lite.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(0)
LAYERS = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}


def whole_and_spread(n_spatial):
    """The layer of the whole batch, the one of shards, the batch [8, 3, ...] and shards of it [4, 2, 3, ...]."""
    shape = (3, *(4, 3, 2)[:n_spatial])
    whole = LAYERS[n_spatial + 1](3, dtype=np.float64)
    weight, bias = RNG.uniform(0.5, 2, 3), RNG.normal(size=3)
    spread = nn.SyncBatchNorm(3, axis_name="shards", dtype=np.float64)
    x = RNG.normal(size=(8, *shape))
    return *(m.replace(weight=weight, bias=bias) for m in (whole, spread)), x, x.reshape(4, 2, *shape)


def over_shards(norm, shards):
    def one(x):
        return nn.apply(norm, x, training=True)

    return fl.vmap(one, axis_name="shards", out_axes=(0, None))(shards)


@pytest.mark.parametrize("n_spatial", [0, 1, 2, 3])
def test_shards_are_normalised_by_the_whole_batch(n_spatial):
    whole, spread, x, shards = whole_and_spread(n_spatial)
    expected, new = nn.apply(whole, x, training=True)
    for run in (over_shards, fl.jit(over_shards)):
        out, sync = run(spread, shards)
        np.testing.assert_allclose(out.reshape(x.shape), expected, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(sync.running_mean, new.running_mean, rtol=1e-10)
        np.testing.assert_allclose(sync.running_var, new.running_var, rtol=1e-10)
    np.testing.assert_allclose(sync(x), new(x), rtol=1e-10)


@pytest.mark.parametrize("n_spatial", [0, 2])
def test_gradients_go_through_the_shards(n_spatial):
    whole, spread, x, shards = whole_and_spread(n_spatial)
    weights = RNG.normal(size=x.shape)

    def loss(norm, x):
        return (nn.apply(norm, x, training=True)[0] ** 2 * weights).sum()

    def shard_loss(norm, shards):
        return (over_shards(norm, shards)[0] ** 2 * weights.reshape(shards.shape)).sum()

    expected = fl.grad(loss, argnums=(0, 1))(whole, x)
    actual = fl.grad(shard_loss, argnums=(0, 1))(spread, shards)
    for a, b in zip(tree.leaves(actual), tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-8, atol=1e-10)
    again = fl.grad(lambda x: (fl.grad(loss, argnums=1)(whole, x) ** 2).sum())(x)
    shards_again = fl.grad(lambda s: (fl.grad(shard_loss, argnums=1)(spread, s) ** 2).sum())(shards)
    np.testing.assert_allclose(shards_again.reshape(x.shape), again, rtol=1e-8, atol=1e-8)


def test_a_models_norms_are_converted():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, key=fl.random.key(0)), nn.BatchNorm2d(4), nn.relu)
    sync = nn.convert_sync_batch_norm(model, "shards")
    x = RNG.normal(size=(6, 3, 2, 2)).astype(np.float32)
    out, new = over_shards(sync, x.reshape(3, 2, 3, 2, 2))
    expected, same = nn.apply(model, x, training=True)
    np.testing.assert_allclose(out.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new[1].running_var, same[1].running_var, rtol=1e-5)
    with pytest.raises(ArgumentError, match="selects no layer of the kinds _BatchNorm"):
        nn.convert_sync_batch_norm(nn.Flatten())


def test_wrong_channels_are_named():
    with pytest.raises(ShapeError, match="SyncBatchNorm: expected 3 channels, got shape"):
        nn.SyncBatchNorm(3)(np.ones((2, 4, 5)))
