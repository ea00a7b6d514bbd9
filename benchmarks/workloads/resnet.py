# SPDX-License-Identifier: MIT
"""A training step of a ResNet-18-like network on 32x32 images, batch 64, with momentum: half of ResNet-18's channels.

K. He and others, "Deep residual learning for image recognition", CVPR 2016: four stages of two blocks of two 3x3
convolutions, batch norm with the statistics of the batch.
"""

import numpy as np

from benchmarks.workloads.common import Workload, cross_entropy, dense, labels, normal, tree_map

BATCH, CLASSES = 64, 10
STAGES = (32, 64, 128, 256)
RATE, MOMENTUM = 0.01, 0.9


def _conv(rng, n_in, n_out, size):
    return normal(rng, n_out, n_in, size, size, scale=(n_in * size * size / 2) ** -0.5)


def _norm(rng, n):
    return 1 + normal(rng, n, scale=0.1), normal(rng, n, scale=0.1)


def _block(rng, n_in, n_out):
    block = {"conv1": _conv(rng, n_in, n_out, 3), "norm1": _norm(rng, n_out), "conv2": _conv(rng, n_out, n_out, 3),
             "norm2": _norm(rng, n_out)}
    if n_in != n_out:
        block |= {"shortcut": _conv(rng, n_in, n_out, 1), "norm3": _norm(rng, n_out)}
    return block


def _inputs():
    rng = np.random.default_rng(0)
    blocks, n_in = [], STAGES[0]
    for n_out in STAGES:
        blocks += [_block(rng, n_in, n_out), _block(rng, n_out, n_out)]
        n_in = n_out
    params = {"stem": _conv(rng, 3, STAGES[0], 3), "norm": _norm(rng, STAGES[0]), "blocks": blocks,
              "out": dense(rng, STAGES[-1], CLASSES)}
    momentum = tree_map(lambda p: np.zeros_like(p), params)
    return params, momentum, normal(rng, BATCH, 3, 32, 32), labels(rng, CLASSES, BATCH)


def _logits(conv, norm, relu, params, x):
    x = relu(norm(conv(x, params["stem"], 1, 1), *params["norm"]))
    for block in params["blocks"]:
        stride = 2 if "shortcut" in block and block["conv1"].shape[0] > STAGES[0] else 1
        y = relu(norm(conv(x, block["conv1"], stride, 1), *block["norm1"]))
        y = norm(conv(y, block["conv2"], 1, 1), *block["norm2"])
        if "shortcut" in block:
            x = norm(conv(x, block["shortcut"], stride, 0), *block["norm3"])
        x = relu(x + y)
    w, b = params["out"]
    return x.mean((2, 3)) @ w + b


def _step(api):
    np, lax, tree = api.np, api.lax, api.tree

    def conv(x, w, stride, pad):
        return lax.conv_general_dilated(x, w, (stride, stride), [(pad, pad)] * 2)

    def norm(x, scale, shift):
        centred = x - np.mean(x, axis=(0, 2, 3), keepdims=True)
        variance = np.mean(centred * centred, axis=(0, 2, 3), keepdims=True)
        return centred / np.sqrt(variance + 1e-5) * scale[:, None, None] + shift[:, None, None]

    def loss(params, x, y):
        return cross_entropy(api, _logits(conv, norm, lambda x: np.maximum(x, 0), params, x), y)

    def step(params, momentum, x, y):
        value, grads = api.value_and_grad(loss)(params, x, y)
        momentum = tree.map(lambda m, g: MOMENTUM * m + g, momentum, grads)
        return tree.map(lambda p, m: p - RATE * m, params, momentum), momentum, value

    return step


def _torch_step(t):
    torch, F = t.torch, t.torch.nn.functional

    def conv(x, w, stride, pad):
        return F.conv2d(x, w, stride=stride, padding=pad)

    def norm(x, scale, shift):
        return F.batch_norm(x, None, None, scale, shift, training=True)

    def loss(params, x, y):
        return F.cross_entropy(_logits(conv, norm, torch.relu, params, x), y)

    def step(params, momentum, x, y):
        value, grads = t.value_and_grad(loss)(params, x, y)
        with torch.no_grad():
            momentum = tree_map(lambda m, g: MOMENTUM * m + g, momentum, grads)
            return tree_map(lambda p, m: p - RATE * m, params, momentum), momentum, value

    return step


# In float32 some of the rectified values change sign, by which every library is up to 4e-2 off a float64 step.
WORKLOADS = [Workload("resnet-step", "bound", _step, _torch_step, _inputs, tolerance=0.1)]
