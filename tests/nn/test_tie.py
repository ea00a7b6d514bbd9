# SPDX-License-Identifier: MIT
"""Tied arrays are one leaf: for gradients, optimizers, statistics and files."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim, tree
from functorch_lite.errors import ArgumentError, ShapeError

IDS = np.array([[0, 3, 2], [6, 6, 1]])
PATHS = (".embed.weight", ".head.weight")


class Language(nn.Module):
    embed: nn.Embedding
    norm: nn.BatchNorm1d
    dropout: nn.Dropout
    head: nn.Linear

    def __init__(self, *, key=None):
        keys = fl.random.split(fl.random.key(0) if key is None else key, 2)
        self.embed = nn.Embedding(7, 4, dtype=np.float64, key=keys[0])
        self.norm, self.dropout = nn.BatchNorm1d(4, dtype=np.float64), nn.Dropout(0.5)
        self.head = nn.Linear(4, 7, dtype=np.float64, key=keys[1])

    def __call__(self, ids):
        x = self.embed(ids).reshape(-1, 4)
        return self.head(self.dropout(self.norm(x)))


def loss(model):
    return nn.cross_entropy(model(IDS), IDS.reshape(-1))


def with_one_weight(model, weight):
    return model.replace(embed=model.embed.replace(weight=weight), head=model.head.replace(weight=weight))


def test_a_tied_weight_is_one_leaf():
    model = Language()
    tied = nn.tie(model, *PATHS)
    assert len(tree.leaves(tied)) == len(tree.leaves(model)) - 1
    np.testing.assert_array_equal(tied(IDS), with_one_weight(model, model.embed.weight)(IDS))
    np.testing.assert_array_equal(fl.jit(lambda m: m(IDS))(tied), tied(IDS))


def test_its_gradient_is_the_sum_over_all_places():
    model = Language()
    tied, weight = nn.tie(model, *PATHS), model.embed.weight
    grads = fl.grad(loss)(tied)
    apart = fl.grad(loss)(with_one_weight(model, weight))
    np.testing.assert_allclose(grads.layer.embed.weight, apart.embed.weight + apart.head.weight, rtol=1e-12)
    assert grads.layer.head.weight is None
    np.testing.assert_allclose(
        grads.layer.embed.weight, fl.grad(lambda w: loss(with_one_weight(model, w)))(weight), rtol=1e-12
    )


def test_an_optimizer_has_one_state_for_it_and_steps_it_once():
    tied = nn.tie(Language(), *PATHS)
    opt = optim.adam(0.1)
    state = opt.init(tied)
    moments = [leaf for leaf in tree.leaves(state) if getattr(leaf, "shape", None) == (7, 4)]
    assert len(moments) == 2
    before = loss(tied)
    for _ in range(5):
        tied, state = opt.step(tied, fl.grad(loss)(tied), state)
    assert loss(tied) < before
    np.testing.assert_array_equal(tied.untied().head.weight, tied.untied().embed.weight)


def test_keys_and_statistics_go_through():
    model, tied = Language(), nn.tie(Language(), *PATHS)
    same = with_one_weight(model, model.embed.weight)
    expected, updated = nn.apply(same, IDS, key=fl.random.fold_in(fl.random.key(1), 0), training=True)
    out, new = nn.apply(tied, IDS, key=fl.random.key(1), training=True)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(new.norm.running_mean, updated.norm.running_mean)
    assert tree.structure(new) == tree.structure(tied)
    twice = nn.apply(_Twice(tied), IDS, key=fl.random.key(1), training=True)[1].model
    assert np.abs(twice.norm.running_mean - new.norm.running_mean).max() > 0


class _Twice(nn.Module):
    model: nn.Tied

    def __call__(self, ids):
        return self.model(ids) + self.model(ids)


def test_whole_layers_are_tied_array_by_array():
    model = nn.Sequential(*[nn.Linear(4, 4, key=key) for key in fl.random.split(fl.random.key(0), 3)])
    tied = nn.tie(model, ".layers[0]", ".layers[2]")
    assert len(tree.leaves(tied)) == 4 and tied.layer[2].weight is None
    tied = nn.tie(tied, ".layers[0].bias", ".layers[1].bias")
    assert len(tree.leaves(tied)) == 3
    x = np.ones(4, np.float32)
    expected = nn.Sequential(model[0], model[1].replace(bias=model[0].bias), model[0])(x)
    np.testing.assert_array_equal(tied(x), expected)


def test_attributes_and_states_are_those_of_the_whole_model():
    model = Language()
    tied = nn.tie(model, *PATHS)
    assert tied.head.weight is model.embed.weight and tied.embed.num_embeddings == 7
    state = nn.state_dict(tied)
    assert list(state) == list(nn.state_dict(model)) and state["head.weight"] is state["embed.weight"]
    new = nn.load_state_dict(tied, {**state, "embed.weight": np.ones((7, 4)), "head.weight": np.ones((7, 4))})
    np.testing.assert_array_equal(new.embed.weight, np.ones((7, 4)))
    assert new.untied().head.weight is new.untied().embed.weight


def test_a_layer_that_is_called_twice_is_one_already():
    class Loop(nn.Module):
        layer: nn.Linear

        def __call__(self, x):
            return self.layer(self.layer(x))

    model, x = Loop(nn.Linear(3, 3, bias=False, dtype=np.float64, key=fl.random.key(0))), np.ones(3)
    assert len(tree.leaves(model)) == 1
    weight = model.layer.weight
    grads = fl.grad(lambda m: m(x).sum())(model).layer.weight
    np.testing.assert_allclose(grads, fl.grad(lambda w: (w @ (w @ x)).sum())(weight), rtol=1e-12)


def test_wrong_uses_are_named():
    model = Language()
    with pytest.raises(ArgumentError, match=r"no array at `.tail`; the paths are `.embed.weight`, `.norm.weight`"):
        nn.tie(model, ".tail", ".head.weight")
    with pytest.raises(ArgumentError, match="`.head` holds the arrays `.weight`, `.bias`, and `.embed` `.weight`"):
        nn.tie(model, ".embed", ".head")
    with pytest.raises(ShapeError, match=r"`.norm.weight` is float64\[4\] and `.head.bias` float64\[7\]"):
        nn.tie(model, ".norm.weight", ".head.bias")
    tied = nn.tie(model, *PATHS)
    with pytest.raises(ArgumentError, match="no array at `.head.weight`"):
        nn.tie(tied, *PATHS)
    for change in (nn.quantize, lambda m: nn.lora(m, 2, where="*.head", key=fl.random.key(0))):
        with pytest.raises(ArgumentError, match="a selected Linear has no weight of its own; change the layers first"):
            change(tied)
    with pytest.raises(ArgumentError, match="there is no place `.embed.weight` any more; change the layers first"):
        nn.lora(tied, 2, where="*.embed", key=fl.random.key(0))(IDS)
