# SPDX-License-Identifier: MIT
"""Weight and spectral normalisation: laws, state and messages."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, tree
from functorch_lite.errors import ArgumentError

KEY = fl.random.key(0)
RNG = np.random.default_rng(2)
X = RNG.normal(size=(6, 5))


def linear(**options):
    return nn.Linear(5, 4, dtype=np.float64, key=KEY, **options)


def spectral(**options):
    return nn.SpectralNorm(linear(), key=fl.random.key(1), **options)


def assert_close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_a_new_weight_norm_changes_nothing(axis):
    layer = linear()
    assert_close(nn.WeightNorm(layer, axis=axis)(X), layer(X))


def test_g_is_the_length_of_each_row():
    layer = nn.WeightNorm(linear())
    layer = layer.replace(g=np.full((4, 1), 3.0))
    assert_close(np.linalg.norm(layer.weight, axis=1), np.full(4, 3.0))
    assert_close(layer.replace(v=2 * layer.v).weight, layer.weight)


def test_the_gradient_of_the_direction_is_across_it():
    layer = nn.WeightNorm(linear())
    grads = fl.grad(lambda layer: (layer(X) ** 3).sum())(layer)
    assert_close((grads.v * layer.v).sum(axis=1), np.zeros(4), 1e-8)


def test_weight_norm_takes_any_parameter_of_any_layer():
    rnn = nn.GRUCell(3, 4, dtype=np.float64, key=KEY)
    layer = nn.WeightNorm(rnn, name="weight_hh")
    x, h = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 4))
    assert_close(layer(x, h), rnn(x, h))
    assert layer.hidden_size == 4


def test_the_largest_singular_value_becomes_one():
    layer = spectral(n_power_iterations=50)
    _, layer = nn.apply(layer, X, training=True)
    assert_close(np.linalg.svd(layer.weight)[1][0], 1.0, 1e-6)
    conv = nn.SpectralNorm(nn.ConvTranspose2d(3, 4, 2, dtype=np.float64, key=KEY), n_power_iterations=200, key=KEY)
    _, conv = nn.apply(conv, RNG.normal(size=(1, 3, 4, 4)), training=True)
    assert conv.u.shape == (4,) and conv.axis == 1
    assert_close(np.linalg.svd(np.moveaxis(conv.weight, 1, 0).reshape(4, -1))[1][0], 1.0, 1e-6)


def test_singular_vectors_move_in_training_alone_and_are_no_parameters():
    layer = spectral()
    assert nn.apply(layer, X)[1] is layer
    _, trained = nn.apply(layer, X, training=True)
    assert np.abs(trained.u - layer.u).max() > 0 and trained.original is layer.original
    _, twice = nn.apply(nn.Sequential(trained), X, training=True)
    assert np.abs(twice[0].u - trained.u).max() > 0
    trained_paths = tree.paths(nn.partition(layer, nn.trainable_mask(layer))[0])
    assert trained_paths == [".layer.bias", ".original"]
    grads = fl.grad(lambda layer: (nn.apply(layer, X, training=True)[0] ** 2).sum())(layer)
    assert not grads.u.any() and not grads.v.any() and grads.original.any()


def test_spectral_norm_is_the_same_under_jit_and_vmap():
    layer = spectral()

    def step(layer, x):
        return nn.apply(layer, x, training=True)

    out, new = step(layer, X)
    jit_out, jit_new = fl.jit(step)(layer, X)
    assert_close(jit_out, out)
    assert_close(jit_new.u, new.u)
    each, state = fl.vmap(step, in_axes=(None, 0), out_axes=(0, None))(layer, X)
    assert_close(each, out)
    assert_close(state.v, new.v)


def test_a_weight_of_one_axis_is_divided_by_its_norm():
    layer = nn.SpectralNorm(nn.LayerNorm(5, dtype=np.float64), key=KEY)
    assert layer.u is None
    assert_close(np.linalg.norm(layer.weight), 1.0)
    assert nn.apply(layer, X, training=True)[1] is layer


METHODS = ["matrix_exp", "cayley", "householder"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (4, 1)])
def test_an_orthogonal_weight_is_orthogonal_wherever_its_parameter_goes(shape, method):
    layer = nn.Orthogonal(nn.Linear(*shape, dtype=np.float64, key=KEY), method=method)
    for original in (layer.original, layer.original + RNG.normal(size=layer.original.shape)):
        weight = layer.replace(original=original).weight
        gram = weight @ weight.T if shape[0] >= shape[1] else weight.T @ weight
        assert_close(gram, np.eye(min(shape)))


@pytest.mark.parametrize("method", METHODS)
def test_an_orthogonal_weight_is_kept_at_the_start_and_moves_in_training(method):
    start = nn.Linear(4, 4, init=nn.initializers.orthogonal(), dtype=np.float64, key=KEY)
    layer, x = nn.Orthogonal(start, method=method), RNG.normal(size=(6, 4))
    assert_close(layer.weight, start.weight)
    grads = fl.grad(lambda layer: ((layer(x) - x) ** 2).sum())(layer)
    assert grads.original.any() and not grads.base.any()
    moved = layer.replace(original=layer.original - 1e-3 * grads.original)
    assert ((moved(x) - x) ** 2).sum() < ((layer(x) - x) ** 2).sum()
    assert_close(fl.jit(lambda layer: layer.weight)(moved), moved.weight)


@pytest.mark.parametrize(
    "wrap", [nn.WeightNorm, lambda layer: nn.SpectralNorm(layer, key=KEY)], ids=["weight", "spectral"]
)
def test_plain_gives_the_layer_with_the_computed_weight(wrap):
    layer = wrap(linear())
    assert tree.structure(layer.plain()) == tree.structure(linear())
    assert_close(layer.plain()(X), layer(X))


def test_wrong_arguments_are_named():
    with pytest.raises(ArgumentError, match=r"Orthogonal: the weight should have 2 axes, but its shape is \(3, 2, 1\)"):
        nn.Orthogonal(nn.Conv1d(2, 3, 1, key=KEY))
    with pytest.raises(ArgumentError, match="`method` should be one of matrix_exp, cayley, householder, but is 'qr'"):
        nn.Orthogonal(linear(), method="qr")
    with pytest.raises(ArgumentError, match="WeightNorm: `layer` Flatten has no parameter 'weight'; give `name`"):
        nn.WeightNorm(nn.Flatten())
    with pytest.raises(ArgumentError, match="SpectralNorm: `layer` Linear has no parameter 'in_features'"):
        nn.SpectralNorm(linear(), name="in_features", key=KEY)
    with pytest.raises(ArgumentError, match=r"`axis` 2 is not one of the weight's, whose shape is \(4, 5\)"):
        nn.WeightNorm(linear(), axis=2)
    with pytest.raises(ArgumentError, match="`n_power_iterations` should be 1 or more, but is 0"):
        spectral(n_power_iterations=0)
