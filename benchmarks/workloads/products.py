# SPDX-License-Identifier: MIT
"""Matrix products from 4 to 2048 in every transposition, batched ones, and attention: a library's own, and by hand."""

import numpy as np

from benchmarks.workloads.common import Workload, normal

SIZES = (4, 16, 64, 128, 256, 512, 1024, 2048)
ORDERS = {"nn": (False, False), "tn": (True, False), "nt": (False, True), "tt": (True, True)}
TRANSPOSED_SIZES = (64, 256, 1024)
BATCH, SMALL = 512, 32
HEADS, LENGTH, WIDTH = 8, 512, 64


def _square(size):
    rng = np.random.default_rng(0)
    return normal(rng, size, size), normal(rng, size, size)


def _product(order):
    left, right = ORDERS[order]
    return lambda x, y: (x.T if left else x) @ (y.T if right else y)


def _batch():
    rng = np.random.default_rng(0)
    return normal(rng, BATCH, SMALL, SMALL), normal(rng, BATCH, SMALL, SMALL)


def _heads():
    rng = np.random.default_rng(0)
    return tuple(normal(rng, HEADS, LENGTH, WIDTH) for _ in range(3))


def _by_hand(api):
    """Causal attention, [heads, length, width]."""
    np = api.np

    def attention(q, k, v):
        scores = q @ k.swapaxes(-1, -2) * np.float32(WIDTH**-0.5)
        scores = np.where(np.tril(np.ones((LENGTH, LENGTH), bool)), scores, np.float32(-np.inf))
        weights = np.exp(scores - api.lax.stop_gradient(np.max(scores, axis=-1, keepdims=True)))
        return (weights / np.sum(weights, axis=-1, keepdims=True)) @ v

    return attention


def _gradient(make):
    def gradient(api):
        def loss(arrays):
            y = make(api)(*arrays)
            return api.np.mean(y * y)

        return lambda q, k, v: api.grad(loss)((q, k, v))

    return gradient


def _torch_attention(t):
    sdpa = t.torch.nn.functional.scaled_dot_product_attention
    return lambda q, k, v: sdpa(q[None], k[None], v[None], is_causal=True)[0]


def _torch_attention_gradient(t):
    attention = _torch_attention(t)
    gradient = t.value_and_grad(lambda arrays: (attention(*arrays) ** 2).mean())
    return lambda q, k, v: gradient((q, k, v))[1]


def _matmul(size, order):
    name = f"matmul-{size}" if order == "nn" else f"matmul-{size}-{order}"
    return Workload(name, "bound", lambda api: _product(order), lambda t: _product(order), lambda: _square(size))


WORKLOADS = [
    *(_matmul(size, "nn") for size in SIZES),
    *(_matmul(size, order) for order in ("tn", "nt", "tt") for size in TRANSPOSED_SIZES),
    Workload("matmul-batched", "bound", lambda api: _product("nn"), lambda t: _product("nn"), _batch),
    Workload("attention", "bound", lambda api: api.attention, _torch_attention, _heads),
    Workload("attention-grad", "bound", _gradient(lambda api: api.attention), _torch_attention_gradient, _heads),
    Workload("attention-by-hand", "bound", _by_hand, _torch_attention, _heads),
    Workload("attention-by-hand-grad", "bound", _gradient(_by_hand), _torch_attention_gradient, _heads),
]
