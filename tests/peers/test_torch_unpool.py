# SPDX-License-Identifier: MIT
"""Max pools that return indices, and unpooling, against PyTorch's: values, indices and derivatives in float64."""

import numpy as np
import pytest

from functorch_lite import nn
from tests.peers.double_backward import assert_same, ours, theirs

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
T = torch.nn

SHAPES = {1: (2, 3, 9), 2: (2, 3, 7, 6), 3: (1, 2, 5, 4, 6)}
POOLS = [
    (2, {}),
    (3, {"stride": 2, "padding": 1}),
    (2, {"stride": 3, "ceil_mode": True}),
    (2, {"stride": 2, "dilation": 2}),
]


def values(n, seed=0):
    """Numbers with ties, so that it matters which of equal elements is found."""
    return np.random.default_rng(seed).integers(0, 5, SHAPES[n]).astype(float)


@pytest.mark.parametrize("kernel, options", POOLS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_indices_of_a_max_pool_are_torchs(n, kernel, options):
    x = values(n)
    out, indices = getattr(nn, f"MaxPool{n}d")(kernel, **options, return_indices=True)(x)
    peer = getattr(T, f"MaxPool{n}d")(kernel, **options, return_indices=True)
    expected, places = peer(torch.tensor(x))
    np.testing.assert_array_equal(out, expected.numpy())
    np.testing.assert_array_equal(indices, places.numpy())


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_indices_of_an_adaptive_max_pool_are_torchs(n, size):
    x = values(n)
    out, indices = getattr(nn, f"AdaptiveMaxPool{n}d")(size, return_indices=True)(x)
    expected, places = getattr(T, f"AdaptiveMaxPool{n}d")(size, return_indices=True)(torch.tensor(x))
    np.testing.assert_array_equal(out, expected.numpy())
    np.testing.assert_array_equal(indices, places.numpy())


@pytest.mark.parametrize("kernel, options", [(2, {}), (2, {"stride": 3}), (3, {"stride": 2, "padding": 1})])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_is_torchs(n, kernel, options):
    x = np.random.default_rng(1).normal(size=SHAPES[n])
    pooled, indices = getattr(nn, f"MaxPool{n}d")(kernel, **options, return_indices=True)(x)
    layer, peer = getattr(nn, f"MaxUnpool{n}d")(kernel, **options), getattr(T, f"MaxUnpool{n}d")(kernel, **options)
    size = x.shape[2:]
    actual = ours(lambda x: layer(x, indices, size), pooled)
    expected = theirs(torch, lambda x: peer(x, torch.tensor(indices), output_size=size), pooled)
    if "padding" in options:  # windows that overlap: PyTorch gives overwritten elements a gradient too
        np.testing.assert_array_equal(actual[0], expected[0])
    else:
        assert_same(actual, expected)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_usual_output_size_is_torchs(n):
    x = np.random.default_rng(1).normal(size=(2, 3, *(7, 5, 9)[:n]))
    pooled, indices = getattr(nn, f"MaxPool{n}d")(3, 2, return_indices=True)(x)
    expected = getattr(T, f"MaxUnpool{n}d")(3, 2)(torch.tensor(pooled), torch.tensor(indices))
    np.testing.assert_array_equal(getattr(nn, f"MaxUnpool{n}d")(3, 2)(pooled, indices), expected.numpy())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_pool_with_indices_has_torchs_derivatives(n):
    x = np.random.default_rng(2).normal(size=SHAPES[n])
    pool = getattr(nn, f"MaxPool{n}d")(3, 2, 1, return_indices=True)
    peer = getattr(T, f"MaxPool{n}d")(3, 2, 1)
    assert_same(ours(lambda x: pool(x)[0] ** 2, x), theirs(torch, lambda x: peer(x) ** 2, x))
