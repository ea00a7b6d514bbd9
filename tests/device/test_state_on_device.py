# SPDX-License-Identifier: MIT
"""States of models, policies and loss scales on the stand-in device: what goes to the device stays there."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim, tree

KEY = fl.random.key(0)


def model():
    return nn.Sequential(nn.MultiheadAttention(8, 2, key=KEY), nn.Linear(8, 8, key=KEY), nn.BatchNorm1d(8))


def moved(xp, values):
    return tree.map(lambda leaf: xp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, values)


def all_there(xp, values):
    return all(isinstance(leaf, xp.ndarray) for leaf in tree.leaves(values))


def test_a_state_comes_to_the_host_and_goes_back(device):
    there = moved(device, model())
    tensors = nn.state_dict(there)
    assert {type(value) for value in tensors.values()} == {np.ndarray}
    loaded = nn.load_state_dict(there, {name: value + 1 for name, value in tensors.items()})
    assert all_there(device, loaded)
    np.testing.assert_array_equal(loaded[0].k_proj.weight.get(), tensors["0.in_proj_weight"][8:16] + 1)


def test_a_summary_of_a_model_on_a_device(device):
    assert nn.summary(moved(device, model()), (3, 8)) == nn.summary(model(), (3, 8))


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_a_step_in_mixed_precision(device, jitted):
    policy, opt = nn.Policy("compute=float16"), optim.adam(0.1)
    layer = nn.Sequential(nn.Linear(4, 4, key=KEY), nn.BatchNorm1d(4))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)

    def loss_fn(layer, x):
        out, layer = policy.apply(layer, x, training=True)
        return nn.mse(out, x), layer

    def step(layer, state, scale, x):
        (loss, layer), grads = scale.value_and_grad(loss_fn, has_aux=True)(layer, x)
        return (*scale.step(opt, layer, grads, state), loss)

    step = fl.jit(step) if jitted else step
    there = moved(device, layer)
    found = step(there, opt.init(there), optim.DynamicScale(1024.0), moved(device, x))
    expected = step(layer, opt.init(layer), optim.DynamicScale(1024.0), x)
    assert all_there(device, found[0])
    for ours, theirs in zip(tree.leaves(found[0]), tree.leaves(expected[0]), strict=True):
        np.testing.assert_allclose(ours.get(), theirs, rtol=1e-2, atol=1e-2)
