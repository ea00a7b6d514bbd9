# SPDX-License-Identifier: MIT
"""Weight and spectral normalisation against torch.nn.utils.parametrizations: values and derivatives in float64."""

import copy

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from tests.peers.double_backward import assert_same, ours, theirs

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
T = torch.nn
parametrizations = torch.nn.utils.parametrizations

KEY = fl.random.key(0)
RNG = np.random.default_rng(8)
F64 = {"dtype": np.float64, "key": KEY}

LAYERS = {
    "linear": (lambda: nn.Linear(5, 3, **F64), lambda: T.Linear(5, 3), (4, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2, **F64), lambda: T.Conv1d(4, 6, 3, groups=2), (2, 4, 6)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 2, **F64), lambda: T.Conv2d(2, 3, 2), (2, 2, 4, 3)),
    "transposed": (
        lambda: nn.ConvTranspose2d(2, 4, 3, 2, 1, **F64),
        lambda: T.ConvTranspose2d(2, 4, 3, 2, 1),
        (1, 2, 3, 3),
    ),
}


def pair(name):
    """Our layer and PyTorch's with the same parameters, and an input."""
    make, make_peer, shape = LAYERS[name]
    layer, peer = make(), make_peer().double()
    peer.weight.data, peer.bias.data = torch.tensor(layer.weight), torch.tensor(layer.bias)
    return layer, peer, RNG.normal(size=shape)


@pytest.mark.parametrize("axis", [0, 1, None, -1])
@pytest.mark.parametrize("name", LAYERS)
def test_weight_norm_is_torchs(name, axis):
    layer, peer, x = pair(name)
    axis = axis if axis != -1 else layer.weight.ndim - 1
    layer, plain = nn.WeightNorm(layer, axis=axis), copy.deepcopy(peer)
    peer = parametrizations.weight_norm(peer, dim=axis)
    np.testing.assert_allclose(layer.g, peer.parametrizations.weight.original0.detach().numpy(), rtol=1e-12)
    others = None if axis is None else [i for i in range(layer.v.ndim) if i != axis]
    g = layer.g * RNG.uniform(0.5, 2, layer.g.shape)

    def torch_call(x, g, v):
        changed = {"parametrizations.weight.original0": g, "parametrizations.weight.original1": v}
        return torch.func.functional_call(peer, changed, (x,))

    def torch_written_out(x, g, v):
        norm = torch.linalg.vector_norm(v, dim=others, keepdim=axis is not None)
        return torch.func.functional_call(plain, {"weight": v * (g / norm)}, (x,))

    actual = ours(lambda x, g, v: layer.replace(g=g, v=v)(x), x, g, layer.v)
    assert_same(actual, theirs(torch, torch_call, x, g, layer.v, second=False), 1e-8, second=False)
    # The second derivative of PyTorch's fused function fails its own gradgradcheck, so it is taken of the formula.
    assert_same(actual, theirs(torch, torch_written_out, x, g, layer.v), 1e-8)


@pytest.mark.parametrize("n_power_iterations", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm_is_torchs(name, n_power_iterations):
    layer, peer, x = pair(name)
    layer = nn.SpectralNorm(layer, n_power_iterations=n_power_iterations, key=KEY)
    peer = parametrizations.spectral_norm(peer, n_power_iterations=n_power_iterations)
    buffers = peer.parametrizations.weight[0]
    u, v = RNG.normal(size=layer.u.shape), RNG.normal(size=layer.v.shape)
    layer = layer.replace(u=u / np.linalg.norm(u), v=v / np.linalg.norm(v))
    buffers._u, buffers._v = torch.tensor(layer.u), torch.tensor(layer.v)
    for training in (True, False, True):
        peer.train(training)
        start = buffers._u.clone(), buffers._v.clone()

        def torch_call(x, weight, start=start):
            buffers._u, buffers._v = start[0].clone(), start[1].clone()
            return torch.func.functional_call(peer, {"parametrizations.weight.original": weight}, (x,))

        def call(x, weight, layer=layer, training=training):
            return nn.apply(layer.replace(original=weight), x, training=training)[0]

        assert_same(ours(call, x, layer.original), theirs(torch, torch_call, x, layer.original), 1e-8)
        _, layer = nn.apply(layer, x, training=training)
        np.testing.assert_allclose(layer.u, buffers._u.numpy(), rtol=1e-9)
        np.testing.assert_allclose(layer.v, buffers._v.numpy(), rtol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_states_have_torchs_names_and_shapes(name):
    for wrap, wrap_peer in (
        (nn.WeightNorm, parametrizations.weight_norm),
        (lambda layer: nn.SpectralNorm(layer, key=KEY), parametrizations.spectral_norm),
    ):
        layer, peer, x = pair(name)
        layer, peer = wrap(layer), wrap_peer(peer).eval()
        state = nn.state_dict(layer)
        assert {key: x.shape for key, x in state.items()} == {k: tuple(v.shape) for k, v in peer.state_dict().items()}
        layer = nn.load_state_dict(layer, {key: value.numpy() for key, value in peer.state_dict().items()})
        np.testing.assert_allclose(layer(x), peer(torch.tensor(x)).detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("n_in, n_out", [(4, 4), (3, 5), (5, 3)])
def test_orthogonal_is_torchs(n_in, n_out, method):
    layer = nn.Orthogonal(nn.Linear(n_in, n_out, **F64), method=method)
    peer = parametrizations.orthogonal(T.Linear(n_in, n_out).double(), orthogonal_map=method)
    assert {k: x.shape for k, x in nn.state_dict(layer).items()} == {k: x.shape for k, x in peer.state_dict().items()}
    layer = nn.load_state_dict(layer, {key: value.numpy() for key, value in peer.state_dict().items()})
    off_diagonal = 1 - np.eye(n_out, n_in)
    free = layer.original + off_diagonal * RNG.normal(size=(n_out, n_in))
    x = RNG.normal(size=(2, n_in))

    def peer_call(x, free):
        return torch.func.functional_call(peer, {"parametrizations.weight.original": free}, (x,))

    # The derivative with respect to the diagonal, which no map should look at, is left out.
    actual = ours(lambda x, f: layer.replace(original=f * off_diagonal + layer.original)(x), x, free * off_diagonal)
    diagonal = torch.tensor(layer.original)
    expected = theirs(
        torch, lambda x, f: peer_call(x, f * torch.tensor(off_diagonal) + diagonal), x, free * off_diagonal
    )
    assert_same(actual, expected, 1e-8)
