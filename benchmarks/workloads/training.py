# SPDX-License-Identifier: MIT
"""Training steps of multilayer perceptrons with Adam: 784-256-128-10 at batch 128, and 20 layers of width 16."""

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


def _inputs(sizes, batch):
    rng = np.random.default_rng(0)
    params = [dense(rng, *pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
    return *with_adam_state(rng, params), normal(rng, batch, sizes[0]), labels(rng, sizes[-1], batch)


def _step(api):
    np = api.np

    def loss(params, x, y):
        for w, b in params[:-1]:
            x = np.maximum(x @ w + b, 0)
        w, b = params[-1]
        return cross_entropy(api, x @ w + b, y)

    return adam_step(api, loss)


def _torch_step(t):
    torch = t.torch

    def loss(params, x, y):
        for w, b in params[:-1]:
            x = torch.relu(torch.addmm(b, x, w))
        w, b = params[-1]
        return torch.nn.functional.cross_entropy(torch.addmm(b, x, w), y)

    return torch_adam_step(t, loss)


WORKLOADS = [
    Workload("mlp-adam", "bound", _step, _torch_step, lambda: _inputs((784, 256, 128, 10), 128), "always"),
    Workload("deep-mlp-adam", "small", _step, _torch_step, lambda: _inputs((16,) * 21, 16)),
]
