# SPDX-License-Identifier: MIT
"""A training step of a LeNet-like convolutional network with Adam: 28x28 images, batch 64.

Y. LeCun and others, "Gradient-based learning applied to document recognition", Proc. IEEE 86 (1998).
"""

import numpy as np

from benchmarks.workloads.common import (
    Workload,
    adam_step,
    cross_entropy,
    dense,
    labels,
    normal,
    torch_adam_step,
    with_adam_state,
)

BATCH = 64


def _inputs():
    rng = np.random.default_rng(0)
    params = {
        "conv1": (normal(rng, 6, 1, 5, 5, scale=0.2), normal(rng, 6, scale=0.1)),
        "conv2": (normal(rng, 16, 6, 5, 5, scale=0.08), normal(rng, 16, scale=0.1)),
        "dense": [dense(rng, *pair) for pair in ((400, 120), (120, 84), (84, 10))],
    }
    return *with_adam_state(rng, params), normal(rng, BATCH, 1, 28, 28), labels(rng, 10, BATCH)


def _step(api):
    np, lax = api.np, api.lax

    def layer(x, weight_and_bias, pad):
        w, b = weight_and_bias
        x = lax.conv_general_dilated(x, w, (1, 1), [(pad, pad)] * 2) + b[:, None, None]
        x = np.maximum(x, 0)
        return lax.reduce_window(x, -np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def loss(params, x, y):
        x = layer(layer(x, params["conv1"], 2), params["conv2"], 0).reshape(BATCH, -1)
        for w, b in params["dense"][:-1]:
            x = np.maximum(x @ w + b, 0)
        w, b = params["dense"][-1]
        return cross_entropy(api, x @ w + b, y)

    return adam_step(api, loss)


def _torch_step(t):
    torch, F = t.torch, t.torch.nn.functional

    def loss(params, x, y):
        x = F.max_pool2d(torch.relu(F.conv2d(x, *params["conv1"], padding=2)), 2)
        x = F.max_pool2d(torch.relu(F.conv2d(x, *params["conv2"])), 2).reshape(BATCH, -1)
        for w, b in params["dense"][:-1]:
            x = torch.relu(torch.addmm(b, x, w))
        w, b = params["dense"][-1]
        return F.cross_entropy(torch.addmm(b, x, w), y)

    return torch_adam_step(t, loss)


WORKLOADS = [Workload("lenet-adam", "bound", _step, _torch_step, _inputs)]
