# SPDX-License-Identifier: MIT
"""A training step of nanoGPT's CPU size with Adam: 4 layers, 4 heads, width 128, context 64, batch 12, vocabulary 65.

The model is that of https://github.com/karpathy/nanoGPT without biases and dropout; the embedding is the output weight.
"""

import numpy as np

from benchmarks.workloads.common import (
    Workload,
    adam_step,
    cross_entropy,
    labels,
    normal,
    torch_adam_step,
    with_adam_state,
)

N_LAYERS, N_HEADS, WIDTH, CONTEXT, BATCH, VOCABULARY = 4, 4, 128, 64, 12, 65


def _block(rng):
    return {
        "norm1": np.ones(WIDTH, np.float32),
        "norm2": np.ones(WIDTH, np.float32),
        "qkv": normal(rng, WIDTH, 3 * WIDTH, scale=0.05),
        "out": normal(rng, WIDTH, WIDTH, scale=0.05),
        "up": normal(rng, WIDTH, 4 * WIDTH, scale=0.05),
        "down": normal(rng, 4 * WIDTH, WIDTH, scale=0.05),
    }


def _inputs():
    rng = np.random.default_rng(0)
    params = {
        "tokens": normal(rng, VOCABULARY, WIDTH, scale=0.05),
        "positions": normal(rng, CONTEXT, WIDTH, scale=0.05),
        "norm": np.ones(WIDTH, np.float32),
        "blocks": [_block(rng) for _ in range(N_LAYERS)],
    }
    text = labels(rng, VOCABULARY, BATCH, CONTEXT + 1)
    return *with_adam_state(rng, params), text[:, :-1].copy(), text[:, 1:].copy()


# --- over functorch_lite and JAX ----------------------------------------------------------------------------------


def _layer_norm(np, x, scale):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * scale


def _attention(np, p, x):
    batch, length, width = x.shape
    parts = (x @ p["qkv"]).reshape(batch, length, 3, N_HEADS, width // N_HEADS)
    q, k, v = (np.moveaxis(parts[:, :, i], 1, 2) for i in range(3))  # [batch, head, position, feature]
    scores = q @ np.swapaxes(k, -1, -2) * (width // N_HEADS) ** -0.5
    scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
    weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    weights = weights / np.sum(weights, axis=-1, keepdims=True)
    return np.moveaxis(weights @ v, 1, 2).reshape(batch, length, width) @ p["out"]


def _step(api):
    np, lax = api.np, api.lax

    def loss(params, tokens, targets):
        x = params["tokens"][tokens] + params["positions"]
        for p in params["blocks"]:
            x = x + _attention(np, p, _layer_norm(np, x, p["norm1"]))
            h = _layer_norm(np, x, p["norm2"]) @ p["up"]
            x = x + (0.5 * h * (1 + lax.erf(h * 0.5**0.5))) @ p["down"]
        return cross_entropy(api, _layer_norm(np, x, params["norm"]) @ params["tokens"].T, targets)

    return adam_step(api, loss)


# --- PyTorch ------------------------------------------------------------------------------------------------------


def _torch_step(t):
    F = t.torch.nn.functional

    def attention(p, x):
        batch, length, width = x.shape
        q, k, v = (x @ p["qkv"]).view(batch, length, 3, N_HEADS, width // N_HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(batch, length, width) @ p["out"]

    def loss(params, tokens, targets):
        x = params["tokens"][tokens] + params["positions"]
        for p in params["blocks"]:
            x = x + attention(p, F.layer_norm(x, (WIDTH,), p["norm1"]))
            x = x + F.gelu(F.layer_norm(x, (WIDTH,), p["norm2"]) @ p["up"]) @ p["down"]
        logits = F.layer_norm(x, (WIDTH,), params["norm"]) @ params["tokens"].T
        return F.cross_entropy(logits.view(-1, VOCABULARY), targets.reshape(-1))

    return torch_adam_step(t, loss)


WORKLOADS = [Workload("nanogpt-adam", "bound", _step, _torch_step, _inputs, tolerance=5e-4)]
