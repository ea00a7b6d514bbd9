# SPDX-License-Identifier: MIT
"""Layers in one loop compute what they compute one after the other, in a program of one size."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, tree
from functorch_lite.errors import ArgumentError, ShapeError, TreeError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 5))


class Block(nn.Module):
    linear: nn.Linear
    norm: nn.BatchNorm1d
    dropout: nn.Dropout

    def __init__(self, key, p=0.0):
        self.linear = nn.Linear(5, 5, dtype=np.float64, key=key)
        self.norm, self.dropout = nn.BatchNorm1d(5, dtype=np.float64), nn.Dropout(p)

    def __call__(self, x, shift=0.0):
        return x + self.dropout(nn.tanh(self.norm(self.linear(x)))) + shift


def blocks(n, p=0.0):
    return [Block(key, p) for key in fl.random.split(fl.random.key(0), n)]


def assert_close(a, b, tolerance=1e-10):
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("remat", [False, True])
def test_it_is_the_layers_one_after_the_other(remat):
    stacked, chain = nn.Stacked(blocks(4), remat=remat), nn.Sequential(*blocks(4))
    assert_close(stacked(X), chain(X))
    assert_close(fl.jit(lambda m, x: m(x))(stacked, X), chain(X))

    def loss(model, x):
        return (model(x) ** 2).sum()

    grads, dx = fl.grad(loss, argnums=(0, 1))(stacked, X)
    expected, expected_dx = fl.grad(loss, argnums=(0, 1))(chain, X)
    assert_close(dx, expected_dx)
    for i in range(4):
        assert_close(tree.map(lambda leaf, i=i: leaf[i], grads.layers), expected.layers[i])
    twice, same = (fl.grad(lambda x, m=m: (fl.grad(loss, argnums=1)(m, x) ** 2).sum())(X) for m in (stacked, chain))
    assert_close(twice, same, 1e-8)


@pytest.mark.parametrize("remat", [False, True])
def test_statistics_of_every_layer_come_out(remat):
    stacked, chain = nn.Stacked(blocks(3), remat=remat), nn.Sequential(*blocks(3))
    expected, after = nn.apply(chain, X, training=True)
    for run in (nn.apply, fl.jit(nn.apply, static_argnames="training")):
        out, new = run(stacked, X, training=True)
        assert_close(out, expected)
        assert tree.structure(new) == tree.structure(stacked)
        for i in range(3):
            assert_close(new[i], after[i])
    assert new.layers.linear.weight is not None and nn.apply(stacked, X)[1] is stacked


def test_weights_are_not_copied_by_a_pass_that_trains():
    stacked = nn.Stacked(blocks(3))
    _, new = nn.apply(stacked, X, training=True)
    assert new.layers.linear.weight is stacked.layers.linear.weight


def test_each_layer_draws_from_a_key_of_its_own():
    class Noise(nn.Module):
        dropout: nn.Dropout

        def __call__(self, x):
            return self.dropout(x)

    stacked = nn.Stacked([Noise(nn.Dropout(0.5))] * 2)
    out, _ = nn.apply(stacked, np.ones(20_000), key=fl.random.key(1), training=True)
    assert abs((out != 0).mean() - 0.25) < 0.02


def test_further_arguments_go_to_every_layer():
    expected = X
    for block in blocks(3):
        expected = block(expected, 2.0)
    assert_close(nn.Stacked(blocks(3))(X, np.float64(2.0)), expected)


def test_the_program_does_not_grow_with_the_layers():
    sizes = set()
    for n in (2, 24):
        stacked = nn.Stacked(blocks(n))
        sizes.add(len(fl.make_program(lambda m, x: fl.grad(lambda m: m(x).sum())(m))(stacked, X).equations))
    assert len(sizes) == 1


def test_a_batch_of_stacks_is_an_ensemble():
    two = [nn.Stacked([Block(k) for k in fl.random.split(fl.random.key(s), 3)]) for s in (1, 2)]
    ensemble = tree.map(lambda *leaves: np.stack(leaves), *two)
    out = fl.vmap(lambda m: m(X))(ensemble)
    assert_close(out, np.stack([m(X) for m in two]))


def test_single_layers_come_out():
    made = blocks(3)
    stacked = nn.Stacked(made)
    assert len(stacked) == 3
    assert_close(stacked[-1], made[2])
    assert [type(block) for block in stacked] == [Block] * 3
    with pytest.raises(IndexError, match="there is no layer 3 among 3"):
        stacked[3]


def test_wrong_layers_are_named():
    with pytest.raises(ArgumentError, match="give one layer or more"):
        nn.Stacked([])
    with pytest.raises(TreeError, match="number 1 is not like the first"):
        nn.Stacked([blocks(1)[0], nn.Flatten()])
    with pytest.raises(TreeError, match="number 1 is not like the first: they differ in their static fields"):
        nn.Stacked([*blocks(1), *blocks(1, 0.5)])
    one = blocks(1)[0]
    other = one.replace(linear=one.linear.replace(bias=np.zeros(3)))
    with pytest.raises(ShapeError, match=r"`.linear.bias` is float64\[5\] in the first and float64\[3\] in number 1"):
        nn.Stacked([one, other])
