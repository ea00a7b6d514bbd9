# SPDX-License-Identifier: MIT
"""What recurrent layers, attention and the layers that move elements compute, written in plain NumPy."""

import math

import numpy as np
import scipy.special

sigmoid = scipy.special.expit


def first(outputs):
    """The outputs of a recurrent layer without its last state."""
    return outputs[0]


def _gates(cell, x, h):
    return x @ cell.weight_ih.T + cell.bias_ih, h @ cell.weight_hh.T + cell.bias_hh


def rnn_step(cell, x, state):
    given, own = _gates(cell, x, state)
    state = np.tanh(given + own)
    return state, state


def gru_step(cell, x, h):
    (r, z, n), (r_h, z_h, n_h) = (np.split(part, 3, axis=-1) for part in _gates(cell, x, h))
    update = sigmoid(z + z_h)
    h = (1 - update) * np.tanh(n + sigmoid(r + r_h) * n_h) + update * h
    return h, h


def lstm_step(cell, x, state):
    h, c = state
    i, f, g, o = np.split(sum(_gates(cell, x, h)), 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, (h, c)


def over_time(step):
    """The reference of `Sequential(layer, Lambda(first))` for batch-first sequences x [n, time, features]."""

    def reference(model, x):
        layer = model[0]
        directions = 2 if layer.bidirectional else 1
        for level in range(layer.num_layers):
            cells = layer.cells[level * directions : (level + 1) * directions]
            outs = [_one_direction(step, cells[0], x)]
            if layer.bidirectional:
                outs.append(_one_direction(step, cells[1], x[:, ::-1])[:, ::-1])
            x = np.concatenate(outs, axis=-1)
        return x

    return reference


def _one_direction(step, cell, x):
    h = np.zeros((len(x), cell.hidden_size))
    state, outs = (h, h) if step is lstm_step else h, []
    for t in range(x.shape[1]):
        out, state = step(cell, x[:, t], state)
        outs.append(out)
    return np.stack(outs, axis=1)


def linear(layer, x):
    return x @ layer.weight.T + layer.bias


def attention(layer, x):
    """Self-attention head by head."""
    q, k, v = (linear(p, x) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    e = layer.q_proj.out_features // layer.num_heads
    outs = []
    for head in range(layer.num_heads):
        own = slice(head * e, (head + 1) * e)
        shared = head * layer.num_kv_heads // layer.num_heads
        theirs = slice(shared * e, (shared + 1) * e)
        scores = q[..., own] @ np.swapaxes(k[..., theirs], -1, -2) / math.sqrt(e)
        outs.append(scipy.special.softmax(scores, axis=-1) @ v[..., theirs])
    return linear(layer.out_proj, np.concatenate(outs, axis=-1))


def _norm(layer, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return x * layer.weight + layer.bias


def encoder_layer(layer, x):
    def feed_forward(x):
        return linear(layer.feed_forward.linear2, np.maximum(linear(layer.feed_forward.linear1, x), 0))

    if layer.norm_first:
        x = x + attention(layer.self_attn, _norm(layer.norm1, x))
        return x + feed_forward(_norm(layer.norm2, x))
    x = _norm(layer.norm1, x + attention(layer.self_attn, x))
    return _norm(layer.norm2, x + feed_forward(x))


def rotary(layer, x):
    n, half = x.shape[-2], x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(
        1j * np.arange(n)[:, None] * layer.base ** (-np.arange(half) / half)
    )
    return np.concatenate([turned.real, turned.imag], axis=-1).astype(x.dtype)


def adaptive_log_softmax(layer, x):
    head = scipy.special.log_softmax(
        linear(layer.head, x) if layer.head.bias is not None else x @ layer.head.weight.T, -1
    )
    n = layer.cutoffs[0]
    parts = [head[:, :n]]
    for i, (down, up) in enumerate(layer.tail):
        parts.append(head[:, [n + i]] + scipy.special.log_softmax(x @ down.weight.T @ up.weight.T, -1))
    return np.concatenate(parts, axis=-1)


def local_response_norm(layer, x):
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        around = x[:, max(c - layer.size // 2, 0) : c + (layer.size - 1) // 2 + 1]
        out[:, c] = x[:, c] / (layer.k + layer.alpha * (around**2).sum(1) / layer.size) ** layer.beta
    return out


def adaptive_max_pool(layer, x):
    out = np.zeros((*x.shape[:-2], *layer.output_size), x.dtype)
    (h, w), (rows, columns) = x.shape[-2:], layer.output_size
    for i, j in np.ndindex(rows, columns):
        part = x[..., i * h // rows : -(-(i + 1) * h // rows), j * w // columns : -(-(j + 1) * w // columns)]
        out[..., i, j] = part.max(axis=(-2, -1))
    return out


def unfold(layer, x):
    (rows, columns), (p, q) = layer.kernel_size, layer.padding
    x = np.pad(x, ((0, 0), (0, 0), (p, p), (q, q)))
    tops = range(0, x.shape[2] - rows + 1, layer.stride[0])
    lefts = range(0, x.shape[3] - columns + 1, layer.stride[1])
    patches = [x[:, :, i : i + rows, j : j + columns].reshape(len(x), -1) for i in tops for j in lefts]
    return np.stack(patches, axis=-1)


def pixel_shuffle(layer, x):
    r = layer.upscale_factor
    out = np.zeros((len(x), x.shape[1] // r**2, x.shape[2] * r, x.shape[3] * r), x.dtype)
    for i, j in np.ndindex(r, r):
        out[:, :, i::r, j::r] = x[:, i * r + j :: r * r]
    return out
