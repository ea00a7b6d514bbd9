# SPDX-License-Identifier: MIT
"""Activation classes, dropout of channels, distances and fractional pools: laws, known answers and messages."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, tree
from functorch_lite.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(0)
KEY = fl.random.key(0)


def test_equal_settings_make_equal_layers():
    one, two = (nn.Sequential(nn.LeakyReLU(0.2), nn.GELU("tanh"), nn.Softmax(-3)) for _ in range(2))
    assert tree.structure(one) == tree.structure(two) and not tree.leaves(one)
    assert tree.structure(nn.LeakyReLU(0.1)) != tree.structure(nn.LeakyReLU(0.2))


def test_a_class_computes_its_function():
    x = RNG.normal(size=(3, 4))
    for name, function in [("ReLU", nn.relu), ("Hardsigmoid", nn.hard_sigmoid), ("Softmin", nn.softmin)]:
        np.testing.assert_array_equal(getattr(nn, name)()(x), function(x))


@pytest.mark.parametrize("layer, n", [(nn.Dropout1d(0.5), 1), (nn.Dropout2d(0.5), 2), (nn.Dropout3d(0.5), 3)])
def test_whole_channels_are_dropped(layer, n):
    out, _ = nn.apply(layer, np.ones((8, 8, *(2,) * n)), key=KEY, training=True)
    assert set(np.unique(out.reshape(8, 8, -1).sum(-1))) == {0.0, 2.0 * 2**n}


def test_alpha_dropout_of_whole_channels_keeps_mean_and_variance():
    x = RNG.normal(size=(300, 40, 4))
    out, _ = nn.apply(nn.AlphaDropout(0.3, shared_axes=(-1,)), x, key=KEY, training=True)
    lowest = -1.7580993408473766
    dropped = np.isclose(out, 0.7 * lowest / np.sqrt(0.7 * (1 + 0.3 * lowest**2)), rtol=1e-9)
    assert (dropped.all(axis=-1) == dropped.any(axis=-1)).all() and abs(dropped.mean() - 0.3) < 0.02
    assert abs(out.mean()) < 0.03 and abs(out.var() - 1) < 0.05


def test_normalised_vectors_have_length_one():
    x = RNG.normal(size=(2, 3, 4))
    for p in (1.0, 2.0, 3.0, np.inf):
        np.testing.assert_allclose(np.linalg.norm(nn.normalize(x, p)[0], p, axis=-1), np.ones(3))
    np.testing.assert_allclose(np.linalg.norm(nn.normalize(x, axis=1), axis=1), np.ones((2, 4)))
    zero = fl.grad(lambda x: nn.normalize(x).sum())(np.zeros((1, 3)))
    assert np.isfinite(zero).all()


def test_distances_of_rows():
    x, y = RNG.normal(size=(2, 4, 3)), RNG.normal(size=(2, 5, 3))
    every = nn.cdist(x, x)
    rows, columns = np.triu_indices(4, 1)
    np.testing.assert_allclose(nn.pdist(x), every[:, rows, columns], rtol=1e-12)
    np.testing.assert_allclose(nn.cdist(x, y)[1, 2, 3], np.linalg.norm(x[1, 2] - y[1, 3]))
    np.testing.assert_allclose(fl.vmap(nn.pdist)(x), nn.pdist(x))
    np.testing.assert_allclose(fl.jit(nn.cdist)(x, y), nn.cdist(x, y), rtol=1e-12)
    grads = fl.grad(lambda x: nn.cdist(x, x).sum())(x)
    assert np.isfinite(grads).all()


def test_similarities_are_layers_too():
    x, y = RNG.normal(size=(2, 4, 3))
    np.testing.assert_array_equal(nn.CosineSimilarity(0)(x, y), nn.cosine_similarity(x, y, axis=0))
    np.testing.assert_array_equal(nn.PairwiseDistance(1.0)(x, y), nn.pairwise_distance(x, y, p=1.0))


def test_a_fractional_pool_draws_in_training_alone():
    layer, x = nn.FractionalMaxPool2d(2, output_ratio=0.6), RNG.normal(size=(2, 3, 9, 11))
    assert layer(x).shape == (2, 3, 5, 6)
    np.testing.assert_array_equal(layer(x), layer(x, np.full((2, 3, 2), 0.5)))
    draws = [nn.apply(layer, x, key=fl.random.key(i), training=True)[0] for i in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_a_fractional_pool_covers_each_plane_from_end_to_end():
    x = np.arange(2.0 * 7 * 5).reshape(2, 7, 5)
    values, indices = nn.FractionalMaxPool2d(2, (4, 3), return_indices=True)(x, RNG.uniform(size=(2, 2)))
    np.testing.assert_array_equal(values[:, -1, -1], x[:, -1, -1])
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(2, -1), indices.reshape(2, -1), 1), values.reshape(2, -1)
    )


def test_wrong_arguments_are_named():
    x = np.ones((1, 5, 5))
    with pytest.raises(ArgumentError, match="FractionalMaxPool2d: give either `output_size` or `output_ratio`"):
        nn.FractionalMaxPool2d(2)
    with pytest.raises(ArgumentError, match="`output_ratio` should be 2 numbers between 0 and 1, but is 1.5"):
        nn.FractionalMaxPool2d(2, output_ratio=1.5)
    with pytest.raises(ShapeError, match=r"\(5, 5\) cannot become \(5, 5\) with windows of \(2, 2\)"):
        nn.FractionalMaxPool2d(2, 5)(x)
    with pytest.raises(ShapeError, match=r"`samples` should be \(1, 2\), but are \(3,\)"):
        nn.FractionalMaxPool2d(2, 3)(x, np.zeros(3))
    with pytest.raises(ArgumentError, match="pdist: `p` should be positive, but is 0"):
        nn.pdist(x, 0)
    with pytest.raises(ShapeError, match=r"pdist: `x` should be \[..., n, m\], but is \(3,\)"):
        nn.pdist(np.ones(3))
    with pytest.raises(ShapeError, match=r"cdist: `x` should be \[..., n, m\] and `y` \[..., k, m\], but they are"):
        nn.cdist(x, np.ones((2, 4)))
