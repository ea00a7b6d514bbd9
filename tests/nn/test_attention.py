# SPDX-License-Identifier: MIT
"""Windows, caches, positions and dropout of attention; what recurrent layers and attention refuse."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.errors import ArgumentError, BoundsError, ShapeError

RNG = np.random.default_rng(8)
X = RNG.normal(size=(2, 5, 8))
KEY = fl.random.key(0)


def assert_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("window, causal", [(1, False), ((2, 0), False), (1, True), ((None, 1), False)])
def test_a_window_is_a_mask_by_distance(window, causal):
    q, k, v = RNG.normal(size=(3, 4, 6, 2))
    before, after = window if isinstance(window, tuple) else (window, window)
    distance = np.arange(6) - np.arange(6)[:, None]
    seen = (distance >= -np.inf if before is None else distance >= -before) & (distance <= (0 if causal else after))
    actual = nn.scaled_dot_product_attention(q, k, v, window=window, is_causal=causal)
    assert_close(actual, nn.scaled_dot_product_attention(q, k, v, seen))


def by_hand(q, k, v, mask, scale):
    s = np.einsum("...nd,...md->...nm", q, k) * scale
    s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    e = np.exp(s - np.where(np.isinf(s.max(-1, keepdims=True)), 0, s.max(-1, keepdims=True)))
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300) @ v


@pytest.mark.parametrize("shape", [(9, 7), (7,), (1, 7), (9, 1), (3, 9, 7), (2, 1, 9, 7), (2, 1, 1, 7), (2, 3, 9, 7)],
                         ids=str)
@pytest.mark.parametrize("kind", ["boolean", "added"])
def test_masks_broadcast(shape, kind):
    if len(shape) == 1:
        shape = (1, *shape)
    rng = np.random.default_rng(len(shape))
    q, k, v = (rng.normal(size=(2, 3, n, 4)) for n in (9, 7, 7))
    mask = rng.random(shape) < 0.6 if kind == "boolean" else rng.normal(size=shape)
    expected = by_hand(q, k, v, mask, 0.5)
    for attend in (nn.scaled_dot_product_attention, fl.jit(lambda *args: nn.scaled_dot_product_attention(*args))):
        assert_close(attend(q, k, v, mask), expected)
        assert_close(attend(q[:, :1], k[:, :1], v[:, :1], mask), by_hand(q[:, :1], k[:, :1], v[:, :1], mask, 0.5))


@pytest.mark.parametrize("heads", [1, 4])
def test_masks_of_grouped_queries(heads):
    rng = np.random.default_rng(3)
    q, k, v = (rng.normal(size=(2, h, n, 4)) for h, n in ((4, 9), (2, 7), (2, 7)))
    mask = rng.random((2, heads, 9, 7)) < 0.6
    expected = by_hand(q, *(np.repeat(x, 2, axis=1) for x in (k, v)), mask, 0.5)
    assert_close(nn.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True), expected)
    assert_close(fl.jit(lambda *args: nn.scaled_dot_product_attention(*args, enable_gqa=True))(q, k, v, mask), expected)


def test_the_gradient_of_an_added_mask_is_that_of_what_it_is_composed_of():
    rng = np.random.default_rng(4)
    q, k, v, mask = rng.normal(size=(3, 9, 4)), *rng.normal(size=(2, 3, 7, 4)), rng.normal(size=(9, 7))

    def loss(attend):
        return fl.grad(lambda args: (attend(*args) ** 2).sum())

    def composed(q, k, v, mask):
        return nn.softmax(q @ np.swapaxes(k, -1, -2) * 0.5 + mask) @ v

    for a, b in zip(loss(nn.scaled_dot_product_attention)((q, k, v, mask)), loss(composed)((q, k, v, mask)),
                    strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("window", [None, 2])
def test_a_cache_gives_causal_attention_piece_by_piece(window):
    options = {"num_kv_heads": 2, "rotary": nn.RotaryEmbedding(), "window": window}
    stack = nn.TransformerEncoder(2, 8, 4, 12, 0.0, dtype=np.float64, norm_first=True, key=KEY, **options)
    whole = stack(X, is_causal=True)
    step = fl.jit(lambda stack, x, cache: stack(x, cache=cache))
    cache, parts = stack.init_cache((2,), 7, np.float64), []
    for piece in (X[:, :2], X[:, 2:3], X[:, 3:]):
        out, cache = step(stack, piece, cache)
        parts.append(out)
    assert_close(np.concatenate(parts, axis=1), whole)
    assert cache[0].length == 5
    out, _ = fl.vmap(lambda x: stack(x, cache=stack.init_cache((), 7, np.float64)))(X)
    assert_close(out, whole)


def test_a_full_cache_is_refused():
    layer = nn.MultiheadAttention(8, 2, key=KEY)
    with pytest.raises(BoundsError, match="`max_length` 3"):
        layer(X, cache=layer.init_cache((2,), 3))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotated_products_depend_on_the_distance_alone(interleaved):
    q, k = RNG.normal(size=(2, 8))

    def product(i, j):
        rotated = [nn.rotary_embedding(x[None], np.array([n]), interleaved=interleaved)[0] for x, n in ((q, i), (k, j))]
        return rotated[0] @ rotated[1]

    assert_close(product(7, 3), product(104, 100))
    assert_close(nn.rotary_embedding(X)[:, 0], X[:, 0])
    pairs = nn.rotary_embedding(np.eye(8)[:1].repeat(3, 0), interleaved=interleaved)
    partner = 1 if interleaved else 4
    assert_close(pairs[:, [0, partner]], np.stack([np.cos(np.arange(3)), np.sin(np.arange(3))], axis=-1))


def test_sinusoidal_positions_and_alibi_are_their_formulas():
    waves = nn.sinusoidal_positions(np.arange(4), 6, dtype=np.float64)
    angles = np.arange(4)[:, None] / 10000 ** (2 * np.arange(3) / 6)
    assert_close(waves[:, ::2], np.sin(angles))
    assert_close(waves[:, 1::2], np.cos(angles))
    assert_close(nn.SinusoidalPositions()(np.zeros((2, 4, 6))), np.stack([waves, waves]))
    bias = nn.alibi_bias(8, 2, 4)
    assert bias.shape == (8, 2, 4) and bias.dtype == np.float32
    np.testing.assert_array_equal(bias[0], [[-1.0, -0.5, -0.0, -0.5], [-1.5, -1.0, -0.5, -0.0]])
    assert_close(nn.alibi_bias(3, 1, 2)[:, 0, 0], [-(2.0**-4), -(2.0**-8), -(2.0**-2)])


def test_dropout_of_attention_acts_in_training_only():
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.4, dtype=np.float64, key=KEY)
    out, _ = nn.apply(layer, X)
    assert_close(out, layer(X))
    dropped, _ = nn.apply(layer, X, key=KEY, training=True)
    assert abs(dropped - out).max() > 1e-3
    v = np.ones((200, 40, 1))
    out, _ = nn.apply(lambda v: nn.scaled_dot_product_attention(v, v, v, dropout_p=0.25), v, key=KEY, training=True)
    assert abs(out.mean() - 1) < 0.01 and out.std() > 0.05


def test_half_precision_keeps_its_dtype():
    x = X.astype(np.float16)
    assert nn.scaled_dot_product_attention(x, x, x).dtype == np.float16
    assert nn.rotary_embedding(x).dtype == np.float16


def attend(q=X, k=X, v=X, **options):
    return nn.scaled_dot_product_attention(q, k, v, **options)


BAD = [
    (lambda: attend(k=X[..., :4]), ShapeError, "`key`"),
    (lambda: attend(v=X[:, :4]), ShapeError, "`value`"),
    (lambda: attend(mask=np.ones((5, 4), bool)), ShapeError, "`mask`"),
    (lambda: attend(q=X[0, 0]), ShapeError, "`query`"),
    (lambda: attend(k=np.ones((3, 5, 8)), v=np.ones((3, 5, 8)), enable_gqa=True), ShapeError, "`key`"),
    (lambda: attend(dropout_p=1.0), ArgumentError, "`dropout`"),
    (lambda: nn.MultiheadAttention(8, 3, key=KEY), ArgumentError, "`num_heads`"),
    (lambda: nn.MultiheadAttention(8, 4, num_kv_heads=3, key=KEY), ArgumentError, "`num_kv_heads`"),
    (lambda: nn.rotary_embedding(X[..., :3]), ShapeError, "`x`"),
    (lambda: nn.sinusoidal_positions(np.arange(3), 5), ShapeError, "`dim`"),
    (lambda: nn.LSTM(3, 4, key=KEY)(X), ShapeError, "`x`"),
    (lambda: nn.GRU(8, 4, key=KEY)(X, lengths=np.ones(3, int)), ShapeError, "`lengths`"),
    (lambda: nn.GRU(8, 4, key=KEY)(X, np.ones((1, 5, 3))), ShapeError, "`state`"),
    (lambda: nn.LSTM(8, 4, 0, key=KEY), ArgumentError, "`num_layers`"),
    (lambda: nn.LSTM(8, 4, proj_size=4, key=KEY), ArgumentError, "`proj_size`"),
    (lambda: nn.RNN(8, 4, nonlinearity="sin", key=KEY), ArgumentError, "`nonlinearity`"),
    (lambda: nn.LSTMCell(8, 4, key=KEY)(X, (X, X)), ShapeError, "`state`"),
    (lambda: nn.GRUCell(7, 4, key=KEY)(X), ShapeError, "`x`"),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_is_refused_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_dropout_lies_between_recurrent_layers():
    layer = nn.GRU(8, 6, 2, dropout=0.5, batch_first=True, dtype=np.float64, key=KEY)
    out, _ = nn.apply(layer, X, key=KEY, training=True)
    assert abs(out[0] - layer(X)[0]).max() > 1e-3
    single = nn.GRU(8, 6, dropout=0.5, dtype=np.float64, key=KEY)
    assert_close(nn.apply(single, X, key=KEY, training=True)[0][0], single(X)[0])
