# SPDX-License-Identifier: MIT
"""Pools, norms, patches, padding and resizing against PyTorch's: values and derivatives in float64."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from tests.peers.double_backward import assert_same, ours, theirs

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
T = torch.nn
F = torch.nn.functional

RNG = np.random.default_rng(6)
LINE, IMAGE, VOLUME = (2, 4, 7), (2, 4, 7, 6), (1, 2, 5, 4, 6)
PADDED = {"reflect": "Reflection", "replicate": "Replication", "circular": "Circular"}

PAIRS = {
    "adaptive_avg_1d": (nn.AdaptiveAvgPool1d(3), T.AdaptiveAvgPool1d(3), LINE),
    "adaptive_avg_3d": (nn.AdaptiveAvgPool3d((3, 2, 4)), T.AdaptiveAvgPool3d((3, 2, 4)), VOLUME),
    "adaptive_max_1d": (nn.AdaptiveMaxPool1d(3), T.AdaptiveMaxPool1d(3), LINE),
    "adaptive_max_2d": (nn.AdaptiveMaxPool2d((3, 4)), T.AdaptiveMaxPool2d((3, 4)), IMAGE),
    "adaptive_max_3d": (nn.AdaptiveMaxPool3d((2, 1, 4)), T.AdaptiveMaxPool3d((2, 1, 4)), VOLUME),
    "lp_pool_1d": (nn.LPPool1d(2, 3), T.LPPool1d(2, 3), LINE),
    "lp_pool_2d": (nn.LPPool2d(4, (3, 2), 2), T.LPPool2d(4, (3, 2), 2), IMAGE),
    "instance_norm_1d": (nn.InstanceNorm1d(4), T.InstanceNorm1d(4), LINE),
    "instance_norm_2d": (nn.InstanceNorm2d(4, 1e-3), T.InstanceNorm2d(4, 1e-3), IMAGE),
    "instance_norm_3d": (nn.InstanceNorm3d(2), T.InstanceNorm3d(2), VOLUME),
    "local_response_norm": (nn.LocalResponseNorm(2, alpha=0.5, k=2.0), T.LocalResponseNorm(2, alpha=0.5, k=2.0), IMAGE),
    "local_response_norm_3": (nn.LocalResponseNorm(3, n_spatial=1), T.LocalResponseNorm(3), LINE),
    "unfold": (nn.Unfold((3, 2), (1, 2), (1, 0), (2, 1)), T.Unfold((3, 2), (1, 2), (1, 0), (2, 1)), IMAGE),
    "unfold_one_example": (nn.Unfold(2), T.Unfold(2), IMAGE[1:]),
    "fold": (nn.Fold((5, 4), (3, 2), 1, (1, 0), 2), T.Fold((5, 4), (3, 2), 1, (1, 0), 2), (2, 12, 6)),
    "fold_dilated": (nn.Fold(6, 2, 2, 1, 1), T.Fold(6, 2, 2, 1, 1), (2, 8, 36)),
    "pixel_shuffle": (nn.PixelShuffle(2), T.PixelShuffle(2), (2, 8, 3, 2)),
    "pixel_unshuffle": (nn.PixelUnshuffle(3), T.PixelUnshuffle(3), (2, 2, 6, 3)),
    "channel_shuffle": (nn.ChannelShuffle(2), T.ChannelShuffle(2), IMAGE),
    "unflatten": (nn.Unflatten(1, (2, -1)), T.Unflatten(1, (2, -1)), IMAGE),
    "zero_pad_2d": (nn.Pad((1, 2, 0, 3)), T.ZeroPad2d((1, 2, 0, 3)), IMAGE),
    "constant_pad_1d": (nn.Pad((2, 1), value=3.0), T.ConstantPad1d((2, 1), 3.0), LINE),
    **{
        f"{mode}_pad_{n}d": (
            nn.Pad((1, 2, 0, 3, 1, 1)[: 2 * n], mode),
            getattr(T, f"{name}Pad{n}d")((1, 2, 0, 3, 1, 1)[: 2 * n]),
            s,
        )
        for mode, name in PADDED.items()
        for n, s in ((1, LINE), (2, IMAGE), (3, VOLUME))
    },
}


@pytest.mark.filterwarnings("ignore:.*backward.*deterministic.*:UserWarning")
@pytest.mark.parametrize("name", PAIRS)
def test_a_layer_and_its_derivatives_are_torchs(name):
    layer, peer, shape = PAIRS[name]
    x = RNG.normal(size=shape)
    assert_same(ours(layer, x), theirs(torch, peer, x, second=False), second=False)


GRID = [
    ({"size": (3, 11)}, False),
    ({"size": (14, 6)}, True),
    ({"scale_factor": (2.0, 1.7)}, False),
    ({"scale_factor": 0.6}, False),
    ({"scale_factor": 2.5}, True),
]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "cubic"])
@pytest.mark.parametrize("target, align", GRID, ids=[str(i) for i in range(len(GRID))])
def test_interpolate_is_torchs(mode, target, align):
    x = RNG.normal(size=IMAGE)
    theirs_mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    options = {"align_corners": align} if theirs_mode != mode else {}

    def peer(x):
        return F.interpolate(x, **target, mode=theirs_mode, **options)

    actual = ours(lambda x: nn.interpolate(x, **target, mode=mode, align_corners=align), x)
    assert_same(actual, theirs(torch, peer, x))


@pytest.mark.parametrize("mode, shape, n", [("linear", LINE, 1), ("trilinear", VOLUME, 3)])
def test_interpolate_of_lines_and_volumes_is_torchs(mode, shape, n):
    x = RNG.normal(size=shape)
    actual = nn.Upsample(scale_factor=2.0, mode="linear", n_spatial=n)(x)
    expected = F.interpolate(torch.tensor(x), scale_factor=2.0, mode=mode)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-10)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 2])
def test_an_embedding_bag_is_torchs(mode, padding):
    layer = nn.EmbeddingBag(7, 3, mode=mode, padding_idx=padding, dtype=np.float64, key=fl.random.key(0))
    peer = T.EmbeddingBag(7, 3, mode=mode, padding_idx=padding).double()
    peer.weight.data = torch.tensor(layer.embedding.weight)
    ids = np.array([[0, 2, 2, 6], [2, 2, 2, 2], [1, 3, 5, 4]])
    np.testing.assert_allclose(layer(ids), peer(torch.tensor(ids)).detach().numpy(), rtol=1e-12)
    grads = fl.grad(lambda layer: (layer(ids) ** 3).sum())(layer).embedding.weight
    (peer(torch.tensor(ids)) ** 3).sum().backward()
    np.testing.assert_allclose(grads, peer.weight.grad.numpy(), rtol=1e-10, atol=1e-12)
    if mode == "sum":
        weights = RNG.normal(size=ids.shape)
        expected = peer(torch.tensor(ids), per_sample_weights=torch.tensor(weights))
        np.testing.assert_allclose(layer(ids, weights), expected.detach().numpy(), rtol=1e-12)
