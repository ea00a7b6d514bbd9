# SPDX-License-Identifier: MIT
"""Modules by number and by name."""

from typing import Any

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.errors import ArgumentTypeError

KEYS = fl.random.split(fl.random.key(0), 3)
X = np.arange(8.0, dtype=np.float32).reshape(2, 4) / 10


class Network(nn.Module):
    hidden: nn.ModuleList
    heads: nn.ModuleDict

    def __call__(self, x: Any, head: str) -> Any:
        for layer in self.hidden:
            x = layer(x)
        return self.heads[head](x)


def network():
    hidden = nn.ModuleList([nn.Linear(4, 4, key=KEYS[0]), nn.tanh, nn.Linear(4, 4, key=KEYS[1])])
    heads = {"b": nn.Linear(4, 2, key=KEYS[2]), "a": nn.Linear(4, 1, key=KEYS[2])}
    return Network(hidden, nn.ModuleDict(heads))


def test_lists_of_modules_are_indexed_cut_and_joined():
    layers = network().hidden
    assert len(layers) == 3 and layers[0].weight.shape == (4, 4) and layers[-1] is layers.layers[2]
    assert [type(m) for m in layers[1:]] == [nn.Lambda, nn.Linear] and isinstance(layers[1:], nn.ModuleList)
    longer = layers + [nn.relu]
    assert len(longer) == 4 and len(layers) == 3 and longer[0] is layers[0]
    assert len(nn.ModuleList()) == 0
    with pytest.raises(ArgumentTypeError, match="expected a module or a function, got 3"):
        nn.ModuleList([3])


def test_dicts_of_modules_keep_their_names_and_order():
    heads = network().heads
    assert list(heads) == list(heads.keys()) == ["b", "a"] and len(heads) == 2 and "a" in heads and "c" not in heads
    more = heads | {"c": nn.relu, "a": nn.Identity()}
    assert list(more) == ["b", "a", "c"] and type(more["a"]) is nn.Identity and type(heads["a"]) is nn.Linear
    assert [name for name, _ in (heads | nn.ModuleDict({"d": nn.relu})).items()] == ["b", "a", "d"]
    assert len(nn.ModuleDict()) == 0


def test_they_are_differentiated_mapped_and_compiled():
    model = network()

    def loss(model, x):
        return (model(x, "a") ** 2).sum() + model(x, "b").sum()

    grads = fl.grad(loss)(model, X)
    assert isinstance(grads.hidden, nn.ModuleList) and isinstance(grads.heads["a"], nn.Linear)
    step = 1e-2 * grads.heads["a"].bias / abs(grads.heads["a"].bias)
    moved = model.replace(heads=model.heads | {"a": model.heads["a"].replace(bias=model.heads["a"].bias + step)})
    np.testing.assert_allclose(loss(moved, X) - loss(model, X), (grads.heads["a"].bias * step).sum(), rtol=5e-2)
    for found, expected in zip(*map(fl.tree.leaves, (fl.jit(fl.grad(loss))(model, X), grads)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    each = fl.vmap(loss, in_axes=(None, 0))(model, X)
    np.testing.assert_allclose(each.sum(), loss(model, X), rtol=1e-5)


def test_their_state_has_pytorchs_names():
    model = network()
    state = nn.state_dict(model)
    assert set(state) == {f"{name}.{leaf}" for name in ("hidden.0", "hidden.2", "heads.a", "heads.b")
                          for leaf in ("weight", "bias")}
    other = nn.load_state_dict(fl.tree.map(lambda a: a * 0, model), state)
    for found, expected in zip(*map(fl.tree.leaves, (other, model)), strict=True):
        np.testing.assert_array_equal(found, expected)
