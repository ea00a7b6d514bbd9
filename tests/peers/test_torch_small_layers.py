# SPDX-License-Identifier: MIT
"""Activation classes, distances and fractional pools against PyTorch's: values and derivatives in float64."""

import numpy as np
import pytest

from functorch_lite import nn
from tests.peers.double_backward import assert_same, ours, theirs

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
T = torch.nn
F = torch.nn.functional

RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 6)) * 3

ACTIVATIONS = {
    **{
        name: (getattr(nn, name)(), getattr(T, name)())
        for name in (
            "CELU ELU GELU Hardshrink Hardswish Hardtanh LeakyReLU LogSigmoid Mish ReLU ReLU6 SELU SiLU Sigmoid "
            "Softplus Softshrink Softsign Tanh Tanhshrink"
        ).split()
    },
    "CELU-2": (nn.CELU(2.0), T.CELU(2.0)),
    "ELU-2": (nn.ELU(0.5), T.ELU(0.5)),
    "GELU-tanh": (nn.GELU("tanh"), T.GELU("tanh")),
    "GLU": (nn.GLU(), T.GLU()),
    "GLU-0": (nn.GLU(0), T.GLU(0)),
    "Hardshrink-1": (nn.Hardshrink(1.0), T.Hardshrink(1.0)),
    "Hardtanh-2": (nn.Hardtanh(-1.5, 2.0), T.Hardtanh(-1.5, 2.0)),
    "LeakyReLU-0.2": (nn.LeakyReLU(0.2), T.LeakyReLU(0.2)),
    "LogSoftmax": (nn.LogSoftmax(), T.LogSoftmax(-1)),
    "Softmax": (nn.Softmax(), T.Softmax(-1)),
    "Softmax-0": (nn.Softmax(0), T.Softmax(0)),
    "Softmin": (nn.Softmin(), T.Softmin(-1)),
    "Softplus-2": (nn.Softplus(2.0), T.Softplus(2.0, threshold=100)),
    "Softshrink-1": (nn.Softshrink(1.0), T.Softshrink(1.0)),
    "Threshold": (nn.Threshold(0.5, -2.0), T.Threshold(0.5, -2.0)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_class_is_torchs(name):
    layer, peer = ACTIVATIONS[name]
    assert_same(ours(layer, X), theirs(torch, peer, X), 1e-8)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, float("inf")])
@pytest.mark.parametrize("axis", [0, 1])
def test_normalize_is_torchs(p, axis):
    assert_same(ours(lambda x: nn.normalize(x, p, axis), X), theirs(torch, lambda x: F.normalize(x, p, axis), X))


def test_a_vector_of_zeros_is_normalised_as_in_torch():
    x = np.concatenate([X, np.zeros((1, 6))])
    actual, expected = ours(nn.normalize, x), theirs(torch, lambda x: F.normalize(x, dim=-1), x)
    assert_same(actual, expected, second=False)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, float("inf")])
def test_distances_are_torchs(p):
    y = RNG.normal(size=(3, 6))
    assert_same(
        ours(lambda x: nn.pdist(x, p), X), theirs(torch, lambda x: F.pdist(x, p), X, second=False), second=False
    )
    actual = ours(lambda x, y: nn.cdist(x, y, p), X, y)
    assert_same(actual, theirs(torch, lambda x, y: torch.cdist(x, y, p), X, y, second=False), second=False)
    written_out = theirs(torch, lambda x, y: torch.linalg.vector_norm(x[:, None] - y[None], p, dim=-1), X, y)
    assert_same(actual, written_out)


def test_equal_rows_have_torchs_gradient():
    x = np.concatenate([X, X[:1]])
    assert_same(ours(nn.pdist, x), theirs(torch, F.pdist, x, second=False), second=False)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_pairwise_distance_is_torchs(p):
    y = RNG.normal(size=(4, 6))
    layer, peer = nn.PairwiseDistance(p, keepdims=True), T.PairwiseDistance(p, keepdim=True)
    assert_same(ours(layer, X, y), theirs(torch, peer, X, y), 1e-8)


@pytest.mark.parametrize("axis", [0, 1])
def test_cosine_similarity_is_torchs(axis):
    y = RNG.normal(size=(4, 6))
    assert_same(ours(nn.CosineSimilarity(axis), X, y), theirs(torch, T.CosineSimilarity(axis), X, y), 1e-8)


@pytest.mark.parametrize(
    "n, kernel, options",
    [
        (2, 2, {"output_size": 4}),
        (2, (3, 2), {"output_ratio": (0.6, 0.4)}),
        (2, 3, {"output_size": 1}),
        (3, 2, {"output_size": (3, 2, 4)}),
        (3, (1, 2, 3), {"output_ratio": 0.5}),
    ],
)
def test_fractional_max_pools_are_torchs(n, kernel, options):
    x = RNG.normal(size=(2, 3, *(9, 7, 8)[:n]))
    u = RNG.uniform(size=(2, 3, n))
    layer = getattr(nn, f"FractionalMaxPool{n}d")(kernel, **options, return_indices=True)
    pool = getattr(F, f"fractional_max_pool{n}d")

    def peer(x):
        return pool(x, kernel, **options, _random_samples=torch.tensor(u), return_indices=True)

    _, indices = layer(x, u)
    np.testing.assert_array_equal(indices, peer(torch.tensor(x))[1].numpy())
    assert_same(
        ours(lambda x: layer(x, u)[0] ** 2, x), theirs(torch, lambda x: peer(x)[0] ** 2, x, second=False), second=False
    )
