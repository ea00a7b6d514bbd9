# SPDX-License-Identifier: MIT
"""Every layer of the table on the stand-in device: outputs and gradients are NumPy's and stay there."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, tree
from tests.records.layers import LAYERS

RNG = np.random.default_rng(0)


def moved(xp, values):
    return tree.map(lambda leaf: xp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, values)


def assert_same_there(xp, found, expected):
    assert all(isinstance(leaf, xp.ndarray) for leaf in tree.leaves(found))
    for ours, theirs in zip(tree.leaves(found), tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours.get(), theirs, rtol=1e-9, atol=1e-11)


def out_and_gradients(layer, x):
    def loss(layer, x):
        out = layer(x)
        return (out**2).sum(), out

    argnums = (0, 1) if x.dtype.kind == "f" else 0
    return fl.value_and_grad(loss, argnums=argnums, has_aux=True)(layer, x)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("record", LAYERS, ids=lambda record: record.name)
def test_a_layer(device, record, jitted):
    run = fl.jit(out_and_gradients) if jitted else out_and_gradients
    layer, x = record.make(fl.random.key(3), np.float64), record.batch(2)
    assert_same_there(device, run(*moved(device, (layer, x))), out_and_gradients(layer, x))


IMAGE = RNG.normal(size=(2, 3, 6, 4))


def there_and_back(x):
    pooled, indices = nn.MaxPool2d(2, return_indices=True)(x)
    return nn.MaxUnpool2d(2)(pooled, indices), indices


def turned(x, theta):
    return nn.grid_sample(x, nn.affine_grid(theta, (3, 5)), mode="bicubic", padding_mode="reflection")


def distances(x):
    return nn.pdist(x[0, 0]), nn.cdist(x[0], x[1]), nn.normalize(x)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "fun, args",
    [
        (there_and_back, (IMAGE,)),
        (turned, (IMAGE, RNG.normal(size=(2, 2, 3)))),
        (distances, (IMAGE,)),
        (nn.quantize(nn.Conv2d(3, 4, 3, dtype=np.float64, key=fl.random.key(0))), (IMAGE,)),
    ],
    ids=["unpool", "grid_sample", "distances", "quantized"],
)
def test_a_function(device, fun, args, jitted):
    if isinstance(fun, nn.Module):
        call, args = (lambda model, x: model(x)), (fun, *args)
    else:
        call = fun
    found = (fl.jit(call) if jitted else call)(*moved(device, args))
    assert_same_there(device, found, call(*args))


@pytest.mark.parametrize(
    "change", [nn.quantize, lambda m: nn.lora(m, 2, key=fl.random.key(1))], ids=["quantize", "lora"]
)
def test_a_model_is_changed_where_it_lives(device, change):
    model = nn.MLP((4, 5, 3), dtype=np.float64, key=fl.random.key(0))
    assert_same_there(device, change(moved(device, model)), change(model))


def test_statistics_of_a_pass_stay_there(device):
    norms = [nn.BatchNorm1d(4, dtype=np.float64) for _ in range(3)]
    linear = nn.Linear(4, 4, dtype=np.float64, key=fl.random.key(0))
    spectral = nn.SpectralNorm(linear, key=fl.random.key(1))
    for model in (nn.Stacked(norms), spectral, nn.tie(nn.Sequential(*norms), ".layers[0]", ".layers[2]")):
        x = RNG.normal(size=(5, 4))
        found = nn.apply(moved(device, model), device.asarray(x), training=True)
        assert_same_there(device, found, nn.apply(model, x, training=True))
    assert_same_there(device, nn.SpectralNorm(moved(device, linear), key=fl.random.key(1)), spectral)
