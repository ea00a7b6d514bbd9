# SPDX-License-Identifier: MIT
"""Our layers and losses against PyTorch's own, where PyTorch is installed."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")

KEY = fl.random.key(0)
IMAGE = (2, 4, 7, 6)

PAIRS = [
    (lambda: nn.Linear(6, 3, key=KEY), lambda: torch.nn.Linear(6, 3), (5, 6)),
    (lambda: nn.Conv1d(4, 6, 3, 2, 1, key=KEY), lambda: torch.nn.Conv1d(4, 6, 3, 2, 1), (2, 4, 9)),
    (
        lambda: nn.Conv2d(4, 6, (3, 2), 2, (1, 0), dilation=(1, 2), groups=2, key=KEY),
        lambda: torch.nn.Conv2d(4, 6, (3, 2), 2, (1, 0), dilation=(1, 2), groups=2),
        IMAGE,
    ),
    (
        lambda: nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect", key=KEY),
        lambda: torch.nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect"),
        IMAGE,
    ),
    (lambda: nn.Conv3d(2, 3, 2, padding=1, key=KEY), lambda: torch.nn.Conv3d(2, 3, 2, padding=1), (1, 2, 3, 4, 3)),
    (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2, dilation=2, key=KEY),
        lambda: torch.nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2, dilation=2),
        IMAGE,
    ),
    (lambda: nn.MaxPool2d(3, 2, 1), lambda: torch.nn.MaxPool2d(3, 2, 1), IMAGE),
    (lambda: nn.MaxPool2d(2, ceil_mode=True), lambda: torch.nn.MaxPool2d(2, ceil_mode=True), IMAGE),
    (lambda: nn.MaxPool2d(3, 2, dilation=2), lambda: torch.nn.MaxPool2d(3, 2, dilation=2), IMAGE),
    (lambda: nn.AvgPool2d(3, 2, 1), lambda: torch.nn.AvgPool2d(3, 2, 1), IMAGE),
    (
        lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        lambda: torch.nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        IMAGE,
    ),
    (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), lambda: torch.nn.AvgPool2d(3, 2, 1, ceil_mode=True), IMAGE),
    (lambda: nn.AdaptiveAvgPool2d((3, 4)), lambda: torch.nn.AdaptiveAvgPool2d((3, 4)), IMAGE),
    (lambda: nn.BatchNorm2d(4), lambda: torch.nn.BatchNorm2d(4), IMAGE),
    (lambda: nn.BatchNorm1d(4), lambda: torch.nn.BatchNorm1d(4), (5, 4)),
    (lambda: nn.BatchNorm1d(4), lambda: torch.nn.BatchNorm1d(4), (2, 4, 5)),
    (lambda: nn.LayerNorm((7, 6)), lambda: torch.nn.LayerNorm((7, 6)), IMAGE),
    (lambda: nn.RMSNorm(6), lambda: torch.nn.RMSNorm(6), IMAGE),
    (lambda: nn.GroupNorm(2, 4), lambda: torch.nn.GroupNorm(2, 4), IMAGE),
]

NAMES = [f"{type(ours()).__name__}-{i}" for i, (ours, _, _) in enumerate(PAIRS)]


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("ours, theirs, shape", PAIRS, ids=NAMES)
def test_a_layer_its_gradients_and_statistics_are_torchs(ours, theirs, shape, training):
    rng = np.random.default_rng(0)
    layer, peer = ours(), theirs().train(training)
    names = [name for name in ("weight", "bias") if getattr(layer, name, None) is not None]
    for name in names:
        value = rng.normal(size=getattr(layer, name).shape).astype(np.float32)
        layer = layer.replace(**{name: value})
        getattr(peer, name).data = torch.tensor(value)
    x = rng.normal(size=shape).astype(np.float32)

    def loss(layer, x):
        out, layer = nn.apply(layer, x, training=training)
        return (out**3).sum(), (out, layer)

    (grads, x_grad), (out, new) = fl.grad(loss, argnums=(0, 1), has_aux=True)(layer, x)
    x_torch = torch.tensor(x, requires_grad=True)
    expected = peer(x_torch)
    (expected**3).sum().backward()
    assert_close(out, expected)
    assert_close(x_grad, x_torch.grad)
    for name in names:
        assert_close(getattr(grads, name), getattr(peer, name).grad)
    for name in ("running_mean", "running_var"):
        if hasattr(peer, name):
            assert_close(getattr(new, name), getattr(peer, name))


def assert_close(actual, expected):
    expected = expected.detach().numpy()
    scale = np.abs(expected).max() + 1e-6
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_is_torchs(smoothing, reduction):
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(6, 4)), np.array([0, 1, -100, 3, 2, 2])
    weight = rng.uniform(0.5, 2, 4)
    options = {"label_smoothing": smoothing, "reduction": reduction}
    actual = nn.cross_entropy(logits, labels, weight=weight, **options)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), torch.tensor(weight), **options
    )
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-10)
    soft = rng.dirichlet(np.ones(4), 6)
    actual = nn.cross_entropy(logits, soft, weight=weight, **options)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(soft), torch.tensor(weight), **options
    )
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-10)
