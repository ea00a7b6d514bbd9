# SPDX-License-Identifier: MIT
"""A model with the state of its PyTorch twin gives PyTorch's outputs, and PyTorch takes ours back."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
tnn = torch.nn

KEY, IDS = fl.random.key(0), np.array([[1, 4, 2], [0, 3, 3]])


def sequential(lib, **key):
    return lib.Sequential(
        lib.Conv2d(2, 4, 3, padding=1, **key),
        lib.BatchNorm2d(4),
        lib.PReLU(4) if lib is tnn else nn.PReLU(4),
        lib.Sequential(lib.Flatten(), lib.Linear(4 * 5 * 5, 3, **key)),
    )


def rnn(name, *args, **options):
    def outputs(out):
        return out[0]

    options = {"batch_first": True, **options}
    ours = lambda: getattr(nn, name)(*args, **options, key=KEY)  # noqa: E731
    return ours, lambda: getattr(tnn, name)(*args, **options), (3, 5, args[0]), outputs


def itself(out):
    return out


class OurBlock(nn.Module):
    embedding: nn.Embedding
    blocks: dict
    layers: tuple[nn.Module, ...]
    scale: nn.Array

    def __init__(self, *, key):
        self.embedding = nn.Embedding(5, 4, key=key)
        self.blocks = {"one": nn.Linear(4, 4, key=key), "two": nn.GroupNorm(2, 4, n_spatial=0)}
        self.layers = (nn.Linear(4, 4, bias=False, key=key), nn.RMSNorm(4))
        self.scale = np.ones(4, np.float32)

    def __call__(self, ids):
        x = self.blocks["two"](self.blocks["one"](self.embedding(ids).reshape(-1, 4)))
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


class TheirBlock(tnn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = tnn.Embedding(5, 4)
        self.blocks = tnn.ModuleDict({"one": tnn.Linear(4, 4), "two": tnn.GroupNorm(2, 4)})
        self.layers = tnn.ModuleList([tnn.Linear(4, 4, bias=False), tnn.RMSNorm(4)])
        self.scale = tnn.Parameter(torch.ones(4))

    def forward(self, ids):
        x = self.blocks["two"](self.blocks["one"](self.embedding(ids).reshape(-1, 4)))
        for layer in self.layers:
            x = layer(x)
        return x * self.scale


IMAGE = (3, 2, 5, 5)
OPTIONS = {"dim_feedforward": 16, "batch_first": True}
CASES = {
    "linear": (lambda: nn.Linear(4, 3, key=KEY), lambda: tnn.Linear(4, 3), (5, 4), itself),
    "bilinear": (lambda: nn.Bilinear(4, 3, 2, key=KEY), lambda: tnn.Bilinear(4, 3, 2), ((5, 4), (5, 3)), itself),
    "conv": (lambda: nn.Conv1d(4, 6, 3, groups=2, key=KEY), lambda: tnn.Conv1d(4, 6, 3, groups=2), (2, 4, 7), itself),
    "transposed": (
        lambda: nn.ConvTranspose2d(2, 4, 3, 2, groups=2, key=KEY),
        lambda: tnn.ConvTranspose2d(2, 4, 3, 2, groups=2), IMAGE, itself,
    ),
    "instance": (
        lambda: nn.InstanceNorm2d(2, affine=True), lambda: tnn.InstanceNorm2d(2, affine=True), IMAGE, itself,
    ),
    "layer_norm": (lambda: nn.LayerNorm((5, 5)), lambda: tnn.LayerNorm((5, 5)), IMAGE, itself),
    "no_statistics": (
        lambda: nn.BatchNorm2d(2, track_running_stats=False),
        lambda: tnn.BatchNorm2d(2, track_running_stats=False), IMAGE, itself,
    ),
    "not_affine": (lambda: nn.BatchNorm2d(2, affine=False), lambda: tnn.BatchNorm2d(2, affine=False), IMAGE, itself),
    "embedding": (lambda: nn.Embedding(5, 3, key=KEY), lambda: tnn.Embedding(5, 3), IDS, itself),
    "bag": (lambda: nn.EmbeddingBag(5, 3, key=KEY), lambda: tnn.EmbeddingBag(5, 3), IDS, itself),
    "sequential": (lambda: sequential(nn, key=KEY), lambda: sequential(tnn), IMAGE, itself),
    "own_module": (lambda: OurBlock(key=KEY), TheirBlock, IDS, itself),
    "rnn": rnn("RNN", 4, 3),
    "lstm": rnn("LSTM", 4, 3, 2, bidirectional=True),
    "lstm_projected": rnn("LSTM", 4, 5, 2, proj_size=3),
    "lstm_without_bias": rnn("LSTM", 4, 3, bias=False),
    "gru": rnn("GRU", 4, 3, 3, bidirectional=True),
    "lstm_cell": (lambda: nn.LSTMCell(4, 3, key=KEY), lambda: tnn.LSTMCell(4, 3), (2, 4), lambda out: out[0]),
    "gru_cell": (lambda: nn.GRUCell(4, 3, key=KEY), lambda: tnn.GRUCell(4, 3), (2, 4), itself),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2, key=KEY),
        lambda: tnn.MultiheadAttention(8, 2, batch_first=True), ((2, 3, 8),) * 3,
        lambda out: out[0] if isinstance(out, tuple) else out,
    ),
    "attention_without_bias": (
        lambda: nn.MultiheadAttention(8, 2, bias=False, key=KEY),
        lambda: tnn.MultiheadAttention(8, 2, bias=False, batch_first=True), ((2, 3, 8),) * 3,
        lambda out: out[0] if isinstance(out, tuple) else out,
    ),
    "cross_attention": (
        lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=5, key=KEY),
        lambda: tnn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True), ((2, 3, 8), (2, 4, 6), (2, 4, 5)),
        lambda out: out[0] if isinstance(out, tuple) else out,
    ),
    "encoder": (
        lambda: nn.TransformerEncoder(2, 8, 2, 16, final_norm=True, key=KEY),
        lambda: tnn.TransformerEncoder(tnn.TransformerEncoderLayer(8, 2, **OPTIONS), 2, tnn.LayerNorm(8)),
        (2, 3, 8), itself,
    ),
    "decoder": (
        lambda: nn.TransformerDecoder(2, 8, 2, 16, key=KEY),
        lambda: tnn.TransformerDecoder(tnn.TransformerDecoderLayer(8, 2, **OPTIONS), 2),
        ((2, 3, 8), (2, 4, 8)), itself,
    ),
    "transformer": (
        lambda: nn.Transformer(8, 2, 1, 2, 16, key=KEY),
        lambda: tnn.Transformer(8, 2, 1, 2, **OPTIONS), ((2, 4, 8), (2, 3, 8)), itself,
    ),
    "adaptive_softmax": (
        lambda: nn.AdaptiveLogSoftmax(16, 12, [3, 6], head_bias=True, key=KEY),
        lambda: LogProb(tnn.AdaptiveLogSoftmaxWithLoss(16, 12, [3, 6], head_bias=True)), (5, 16), itself,
    ),
}  # fmt: skip


class LogProb(tnn.Module):
    """The log-probabilities of an adaptive softmax, whose state it has."""

    def __init__(self, layer):
        super().__init__()
        self.head, self.tail = layer.head, layer.tail
        self.layer = [layer]

    def forward(self, x):
        return self.layer[0].log_prob(x)


def as_numpy(state):
    return {name: value.numpy() for name, value in state.items()}


def inputs_of(shape, dtype, rng):
    if isinstance(shape, np.ndarray):
        return [shape]
    return [rng.normal(size=s).astype(dtype) for s in (shape if isinstance(shape[0], tuple) else [shape])]


def shaken(model, rng):
    """The model with random statistics and parameters, so that no two of them are alike."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.dtype.is_floating_point:
                value.copy_(torch.tensor(rng.uniform(0.2, 0.9, value.shape)))
    return model


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.filterwarnings("ignore:.*nested tensor.*:UserWarning")
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-6), (np.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize("name", CASES)
def test_a_model_with_torchs_state_gives_torchs_output_and_back(name, dtype, tolerance):
    make, make_theirs, shape, pick = CASES[name]
    rng = np.random.default_rng(0)
    theirs = shaken(make_theirs(), rng).to(torch.float64 if dtype == np.float64 else torch.float32).eval()
    ours = fl.tree.map(lambda leaf: leaf.astype(dtype), make())
    tensors = as_numpy(theirs.state_dict())
    ours = nn.load_state_dict(ours, tensors)
    xs = inputs_of(shape, dtype, rng)
    if name == "transformer":
        out, mask = ours(*xs), tnn.Transformer.generate_square_subsequent_mask(xs[1].shape[1]).to(torch.float64)
        expected = theirs(*map(torch.tensor, xs), tgt_mask=mask.to(next(theirs.parameters()).dtype))
    else:
        out, expected = pick(ours(*xs)), pick(theirs(*map(torch.tensor, xs)))
    assert out.dtype == dtype
    np.testing.assert_allclose(out, expected.detach().numpy(), rtol=tolerance, atol=tolerance)

    again = nn.state_dict(ours)
    assert set(again) == set(tensors)
    other = make_theirs().to(next(iter(theirs.state_dict().values())).dtype)
    other.load_state_dict({n: torch.from_numpy(v) for n, v in again.items()}, strict=True)
    for n, value in other.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), tensors[n])


def test_tied_weights_have_both_names_as_in_torch():
    class Theirs(tnn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = tnn.Embedding(5, 3), tnn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    class Ours(nn.Module):
        embedding: nn.Embedding
        head: nn.Linear

        def __init__(self, *, key):
            self.embedding = nn.Embedding(5, 3, key=key)
            self.head = nn.Linear(3, 5, bias=False, key=key).replace(weight=self.embedding.weight)

    tensors = as_numpy(Theirs().state_dict())
    model = nn.load_state_dict(Ours(key=KEY), tensors)
    assert model.embedding.weight is model.head.weight
    assert set(nn.state_dict(model)) == set(tensors) == {"embedding.weight", "head.weight"}
    del tensors["head.weight"]  # as safetensors files have it
    model = nn.load_state_dict(Ours(key=KEY), tensors)
    assert model.embedding.weight is model.head.weight
    np.testing.assert_array_equal(model.head.weight, tensors["embedding.weight"])
