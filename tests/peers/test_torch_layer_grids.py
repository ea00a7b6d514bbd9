# SPDX-License-Identifier: MIT
"""Layers with parameters, and pools, over grids of options: values, first and second derivatives in float64.

Derivatives are those with respect to the input and to every parameter, and all mixed ones.
"""

import itertools

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from tests.peers.double_backward import assert_same, ours, theirs

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
T = torch.nn

KEY = fl.random.key(0)
F64 = {"dtype": np.float64, "key": KEY}
LINE, IMAGE, VOLUME = (2, 4, 7), (2, 4, 6, 5), (1, 2, 4, 3, 4)


def options(**axes):
    """Every combination of the values of each option."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


CONVOLUTIONS = [
    *[("Conv1d", (4, 6, 3), LINE, o) for o in options(stride=[1, 2], padding=[0, 2], dilation=[1, 2], groups=[2])],
    *[
        ("Conv2d", (4, 6, (3, 2)), IMAGE, o)
        for o in options(stride=[1, (2, 1)], padding=[(1, 0), "valid"], groups=[1, 2])
    ],
    *[
        ("Conv2d", (4, 2, 3), IMAGE, o)
        for o in options(padding_mode=["zeros", "reflect", "replicate", "circular"], padding=[1, (2, 1), "same"])
    ],
    *[("Conv1d", (4, 2, 4), LINE, {"padding": "same", "padding_mode": m}) for m in ("zeros", "reflect", "circular")],
    *[
        ("Conv3d", (2, 2, 2), VOLUME, o)
        for o in options(stride=[1, 2], padding_mode=["zeros", "replicate"], padding=[1])
    ],
    *[
        ("ConvTranspose1d", (4, 6, 3), LINE, o)
        for o in options(stride=[1, 3], padding=[0, 1], dilation=[1, 2], groups=[2])
    ],
    *[
        ("ConvTranspose2d", (4, 2, (3, 2)), IMAGE, o)
        for o in options(stride=[2, (3, 2)], output_padding=[0, 1], bias=[True, False])
    ],
    ("ConvTranspose3d", (2, 3, 2), VOLUME, {"stride": 2, "padding": 1, "output_padding": (1, 0, 1)}),
]

OTHERS = [
    ("Linear", (5, 3), (2, 4, 5), {}),
    ("Linear", (5, 3), (5,), {"bias": False}),
    *[("LayerNorm", (5,), (3, 4, 5), o) for o in options(eps=[1e-5, 0.1], bias=[True, False])],
    ("LayerNorm", ((4, 5),), (3, 4, 5), {}),
    *[("RMSNorm", (5,), (3, 4, 5), o) for o in options(eps=[None, 0.1])],
    *[("GroupNorm", (g, 4), IMAGE, o) for g in (1, 2, 4) for o in options(eps=[1e-5, 0.1])],
    ("PReLU", (4,), IMAGE, {}),
]

POOLS = [
    *[("AvgPool1d", (3,), LINE, o) for o in options(
        stride=[None, 2], padding=[0, 1], ceil_mode=[False, True], count_include_pad=[True, False])],
    *[("AvgPool2d", (3,), IMAGE, o) for o in options(stride=[2], padding=[1], ceil_mode=[False, True])],
    *[("MaxPool1d", (2,), LINE, o) for o in options(
        stride=[None, 1], padding=[0, 1], ceil_mode=[False, True], dilation=[1, 2])],
    *[("MaxPool2d", (2,), IMAGE, o) for o in options(stride=[None, 1], padding=[1], dilation=[1, 2])],
    *[("AvgPool3d", (3,), VOLUME, o) for o in options(stride=[2], padding=[1], count_include_pad=[True, False])],
    *[("MaxPool3d", (2,), VOLUME, o) for o in options(stride=[2, 1], padding=[1], ceil_mode=[True])],
]  # fmt: skip


def named(cases):
    texts = [f"{name}-{'-'.join(f'{k}={v}' for k, v in o.items())}" for name, _, _, o in cases]
    return pytest.mark.parametrize("name, args, shape, options", cases, ids=texts)


def assert_like_torch(layer, peer, shape, tolerance=1e-8, training=False):
    """The two with the same parameters, all drawn, at an input that is drawn too."""
    rng = np.random.default_rng(1)
    peer = peer.double().train(training)
    names = [name for name, _ in peer.named_parameters()]
    values = [rng.normal(size=tuple(p.shape)) for _, p in peer.named_parameters()]
    x = rng.normal(size=shape)

    def call(x, *values):
        return nn.apply(layer.replace(**dict(zip(names, values, strict=True))), x, training=training)[0]

    def peer_call(x, *values):
        state = dict(zip(names, values, strict=True))
        state |= {name: value.clone() for name, value in peer.named_buffers()}
        return torch.func.functional_call(peer, state, (x,))

    assert_same(ours(call, x, *values), theirs(torch, peer_call, x, *values), tolerance)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@named(CONVOLUTIONS)
def test_a_convolution_is_torchs(name, args, shape, options):
    assert_like_torch(getattr(nn, name)(*args, **options, **F64), getattr(T, name)(*args, **options), shape)


@named(OTHERS)
def test_a_layer_is_torchs(name, args, shape, options):
    settings = F64 if name == "Linear" else {"dtype": np.float64}
    assert_like_torch(getattr(nn, name)(*args, **options, **settings), getattr(T, name)(*args, **options), shape, 1e-7)


@named(POOLS)
def test_a_pool_is_torchs(name, args, shape, options):
    assert_like_torch(getattr(nn, name)(*args, **options), getattr(T, name)(*args, **options), shape)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("momentum, eps", [(0.1, 1e-5), (0.3, 0.1)])
@pytest.mark.parametrize("name, shape", [("BatchNorm1d", (5, 4)), ("BatchNorm1d", LINE), ("BatchNorm2d", IMAGE)])
def test_batch_norm_is_torchs(name, shape, momentum, eps, training):
    layer = getattr(nn, name)(shape[1], eps, momentum, dtype=np.float64)
    assert_like_torch(layer, getattr(T, name)(shape[1], eps, momentum), shape, 1e-7, training)
    peer, x = getattr(T, name)(shape[1], eps, momentum).double(), np.random.default_rng(0).normal(2, 3, size=shape)
    for _ in range(3):
        peer(torch.tensor(x))
        _, layer = nn.apply(layer, x, training=True)
    np.testing.assert_allclose(layer.running_mean, peer.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, peer.running_var.numpy(), rtol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_bilinear_is_torchs(bias):
    layer, peer = nn.Bilinear(3, 4, 2, bias=bias, **F64), T.Bilinear(3, 4, 2, bias=bias).double()
    rng = np.random.default_rng(0)
    x, y, weight = rng.normal(size=(5, 3)), rng.normal(size=(5, 4)), rng.normal(size=(2, 3, 4))

    def peer_call(x, y, weight):
        return torch.nn.functional.bilinear(x, y, weight, peer.bias)

    if bias:
        peer.bias.data = torch.tensor(layer.bias)
    actual = ours(lambda x, y, w: layer.replace(weight=w)(x, y), x, y, weight)
    assert_same(actual, theirs(torch, peer_call, x, y, weight))


@pytest.mark.parametrize("padding", [None, 2])
def test_an_embedding_is_torchs(padding):
    layer = nn.Embedding(7, 3, padding_idx=padding, **F64)
    ids = np.array([[0, 2, 2], [6, 5, 0]])
    weight = np.random.default_rng(0).normal(size=(7, 3))

    def peer_call(weight):
        return torch.nn.functional.embedding(torch.tensor(ids), weight, padding) ** 3

    assert_same(ours(lambda w: layer.replace(weight=w)(ids) ** 3, weight), theirs(torch, peer_call, weight))
