# SPDX-License-Identifier: MIT
"""Attention and transformer layers against PyTorch's: values, gradients and second derivatives in float64."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, tree
from tests.peers.double_backward import assert_same, ours, theirs

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
F = torch.nn.functional

RNG = np.random.default_rng(4)
Q, K, V = (RNG.normal(size=(2, 4, n, e)) for n, e in ((3, 6), (5, 6), (5, 2)))
SEEN = RNG.random((2, 1, 3, 5)) < 0.6
SEEN[..., 0] = True
BIAS = RNG.normal(size=(4, 3, 5))

CASES = {
    "plain": ({}, {}),
    "causal": ({"is_causal": True}, {"is_causal": True}),
    "mask": ({"mask": SEEN}, {"attn_mask": SEEN}),
    "bias": ({"mask": BIAS}, {"attn_mask": BIAS}),
    "scale": ({"scale": 0.3}, {"scale": 0.3}),
}


@pytest.mark.parametrize("name", CASES)
def test_attention_and_its_derivatives_are_torchs(name):
    mine, peers = CASES[name]
    peers = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in peers.items()}
    actual = ours(lambda *a: nn.scaled_dot_product_attention(*a, **mine), Q, K, V)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = theirs(torch, lambda *a: F.scaled_dot_product_attention(*a, **peers), Q, K, V)
    assert_same(actual, expected)


def test_grouped_queries_are_torchs_with_and_without_a_mask():
    for mask in (None, SEEN, BIAS):
        actual = nn.scaled_dot_product_attention(Q, K[:, :2], V[:, :2], mask, enable_gqa=True)
        given = None if mask is None else torch.tensor(mask)
        inputs = [torch.tensor(x) for x in (Q, K[:, :2], V[:, :2])]
        expected = F.scaled_dot_product_attention(*inputs, given, enable_gqa=True)
        np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-10)


def test_a_query_that_sees_nothing_gives_zero_as_in_torch():
    mask = np.zeros((3, 5), bool)
    mask[1:] = True
    out, grads, _ = ours(lambda q: nn.scaled_dot_product_attention(q, K, V, mask), Q)
    expected = F.scaled_dot_product_attention(*(torch.tensor(x) for x in (Q, K, V)), torch.tensor(mask))
    np.testing.assert_allclose(out, expected.numpy(), rtol=1e-10)
    assert (out[..., 0, :] == 0).all() and (grads[0][..., 0, :] == 0).all() and np.isfinite(grads[0]).all()


def linear(ours, weight, bias):
    return ours.replace(weight=weight.detach().numpy(), bias=None if bias is None else bias.detach().numpy())


def norm(ours, peer):
    return ours.replace(weight=peer.weight.detach().numpy(), bias=peer.bias.detach().numpy())


def attention(ours, peer):
    if peer._qkv_same_embed_dim:
        weights = peer.in_proj_weight.chunk(3)
    else:
        weights = peer.q_proj_weight, peer.k_proj_weight, peer.v_proj_weight
    biases = (None,) * 3 if peer.in_proj_bias is None else peer.in_proj_bias.chunk(3)
    names = ("q_proj", "k_proj", "v_proj")
    parts = {n: linear(getattr(ours, n), w, b) for n, w, b in zip(names, weights, biases, strict=True)}
    return ours.replace(**parts, out_proj=linear(ours.out_proj, peer.out_proj.weight, peer.out_proj.bias))


def transformer_layer(ours, peer):
    feed_forward = ours.feed_forward.replace(
        linear1=linear(ours.feed_forward.linear1, peer.linear1.weight, peer.linear1.bias),
        linear2=linear(ours.feed_forward.linear2, peer.linear2.weight, peer.linear2.bias),
    )
    changes = {"self_attn": attention(ours.self_attn, peer.self_attn), "feed_forward": feed_forward}
    changes |= {n: norm(getattr(ours, n), getattr(peer, n)) for n in ("norm1", "norm2", "norm3") if hasattr(peer, n)}
    if hasattr(peer, "multihead_attn"):
        changes["cross_attn"] = attention(ours.cross_attn, peer.multihead_attn)
    return ours.replace(**changes)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 6, "vdim": 10}], ids=["plain", "no-bias", "kdim"])
def test_multihead_attention_is_torchs(options):
    peer = torch.nn.MultiheadAttention(8, 2, batch_first=True, **options).double()
    for p in peer.parameters():
        p.data.normal_(generator=torch.Generator().manual_seed(0))
    layer = attention(nn.MultiheadAttention(8, 2, dtype=np.float64, key=fl.random.key(0), **options), peer)
    inputs = [RNG.normal(size=(2, n, e)) for n, e in ((3, 8), (5, options.get("kdim", 8)), (5, options.get("vdim", 8)))]
    key_mask = np.array([[True] * 5, [True, True, False, True, False]])

    def theirs_of(*a):
        return peer(*a, key_padding_mask=torch.tensor(~key_mask), need_weights=False)[0]

    actual = ours(lambda *a: layer(*a, key_mask=key_mask), *inputs)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert_same(actual, theirs(torch, theirs_of, *inputs), 1e-8)


@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
def test_transformer_layers_are_torchs(norm_first):
    options = {"norm_first": norm_first, "layer_norm_eps": 1e-4}
    x, memory = RNG.normal(size=(2, 3, 8)), RNG.normal(size=(2, 4, 8))
    causal = torch.nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)
    pairs = [
        (nn.TransformerEncoderLayer, torch.nn.TransformerEncoderLayer, (x,), {"src_mask": causal}),
        (nn.TransformerDecoderLayer, torch.nn.TransformerDecoderLayer, (x, memory), {"tgt_mask": causal}),
    ]
    for kind, peer_kind, inputs, masks in pairs:
        peer = peer_kind(8, 2, 12, 0.0, activation="gelu", batch_first=True, **options).double()
        layer = kind(8, 2, 12, 0.0, activation=nn.gelu, **options, dtype=np.float64, key=fl.random.key(1))
        layer = transformer_layer(layer, peer)
        actual = ours(lambda *a, layer=layer: layer(*a, is_causal=True), *inputs)
        expected = theirs(torch, lambda *a, peer=peer, masks=masks: peer(*a, **masks), *inputs, second=False)
        assert_same(actual, expected, 1e-8, second=False)


def test_the_transformer_is_torchs():
    peer = torch.nn.Transformer(8, 2, 2, 1, 12, 0.0, batch_first=True).double()
    layer = nn.Transformer(8, 2, 2, 1, 12, 0.0, dtype=np.float64, key=fl.random.key(1))
    for side in ("encoder", "decoder"):
        stack, other = getattr(layer, side), getattr(peer, side)
        layers = tuple(transformer_layer(a, b) for a, b in zip(stack.layers, other.layers, strict=True))
        layer = layer.replace(**{side: stack.replace(layers=layers, norm=norm(stack.norm, other.norm))})
    source, target = RNG.normal(size=(2, 4, 8)), RNG.normal(size=(2, 3, 8))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(3, dtype=torch.float64)
    expected = peer(torch.tensor(source), torch.tensor(target), tgt_mask=mask)
    np.testing.assert_allclose(layer(source, target), expected.detach().numpy(), rtol=1e-9, atol=1e-11)
    assert len(tree.leaves(layer)) == len(list(peer.parameters())) + 4 * 4  # three projections where torch has one
