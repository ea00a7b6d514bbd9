# SPDX-License-Identifier: MIT
"""Our recurrent cells and layers against PyTorch's: outputs, last states and all gradients, in float64."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, tree

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")

RNG = np.random.default_rng(2)
T, N, I, H = 4, 3, 3, 5  # noqa: E741
LENGTHS = np.array([2, 4, 3])


def with_parameters_of(layer, peer):
    """Ours with the numbers of the torch layer `peer`."""
    cells = []
    for i, cell in enumerate(layer.cells):
        suffix = f"_l{i // (1 + layer.bidirectional)}" + ("_reverse" if layer.bidirectional and i % 2 else "")
        names = [n for n in cell._child_names if getattr(cell, n) is not None]
        cells.append(cell.replace(**{n: getattr(peer, n + suffix).detach().numpy() for n in names}))
    return layer.replace(cells=tuple(cells))


def flat(out, state):
    return [out, *(state if isinstance(state, tuple) else (state,))]


CASES = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2, "bias": False}),
    ("GRU", {}),
    ("GRU", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("LSTM", {"batch_first": True}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 2, "bidirectional": True}),
]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("kind, options", CASES, ids=[f"{k}-{i}" for i, (k, _) in enumerate(CASES)])
def test_a_recurrent_layer_and_its_gradients_are_torchs(kind, options, lengths):
    peer = getattr(torch.nn, kind)(I, H, **options).double()
    ours = getattr(nn, kind)(I, H, **options, dtype=np.float64, key=fl.random.key(0))
    layer = with_parameters_of(ours, peer)
    x = RNG.normal(size=(N, T, I) if layer.batch_first else (T, N, I))
    count = len(layer.cells)
    state = RNG.normal(size=(count, N, layer.cells[0].out_size))
    state = (state, RNG.normal(size=(count, N, H))) if kind == "LSTM" else state

    def loss(layer, x, state):
        parts = flat(*layer(x, state, lengths=lengths))
        return sum((part**3).sum() for part in parts), parts

    (grads, x_grad, _), parts = fl.grad(loss, argnums=(0, 1, 2), has_aux=True)(layer, x, state)
    x_torch, state_torch = torch.tensor(x, requires_grad=True), tree.map(torch.tensor, state)
    expected = flat(*run_torch(peer, x_torch, state_torch, lengths))
    sum((part**3).sum() for part in expected).backward()
    for actual, part in zip(parts, expected, strict=True):
        np.testing.assert_allclose(actual, part.detach().numpy(), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(x_grad, x_torch.grad.numpy(), rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(parameter.grad)
    for actual, part in zip(tree.leaves(grads), tree.leaves(with_parameters_of(layer, peer)), strict=True):
        np.testing.assert_allclose(actual, part, rtol=1e-9, atol=1e-11)


def run_torch(peer, x, state, lengths):
    if lengths is None:
        return peer(x, state)
    utils = torch.nn.utils.rnn
    packed = utils.pack_padded_sequence(x, torch.tensor(lengths), batch_first=peer.batch_first, enforce_sorted=False)
    out, state = peer(packed, state)
    return utils.pad_packed_sequence(out, batch_first=peer.batch_first, total_length=T)[0], state


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_a_cell_is_torchs(kind):
    peer = getattr(torch.nn, kind)(I, H).double()
    cell = getattr(nn, kind)(I, H, dtype=np.float64, key=fl.random.key(0))
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    cell = cell.replace(**{n: getattr(peer, n).detach().numpy() for n in names})
    x = RNG.normal(size=(N, I))
    state = tuple(RNG.normal(size=(2, N, H))) if kind == "LSTMCell" else RNG.normal(size=(N, H))
    for given in (None, state):
        actual = cell(x, given)
        expected = peer(torch.tensor(x), None if given is None else tree.map(torch.tensor, given))
        for a, b in zip(tree.leaves(actual), tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-10)
