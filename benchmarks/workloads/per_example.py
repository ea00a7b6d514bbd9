# SPDX-License-Identifier: MIT
"""Per-example gradients with clipping: each example's gradient of an MLP 64-128-10 is scaled to norm 1 at most.

M. Abadi and others, "Deep learning with differential privacy", arXiv:1607.00133.
"""

import numpy as np

from benchmarks.workloads.common import Workload, cross_entropy, dense, labels, leaves, normal, tree_map

BATCH = 64


def _inputs():
    rng = np.random.default_rng(0)
    return [dense(rng, 64, 128), dense(rng, 128, 10)], normal(rng, BATCH, 64), labels(rng, 10, BATCH)


def _clipped(api):
    np, tree = api.np, api.tree

    def loss(params, x, y):
        (w1, b1), (w2, b2) = params
        return cross_entropy(api, np.tanh(x @ w1 + b1) @ w2 + b2, y)

    def mean_clipped_gradient(params, x, y):
        grads = api.vmap(api.grad(loss), in_axes=(None, 0, 0))(params, x, y)
        squares = sum(np.sum(g * g, axis=tuple(range(1, g.ndim))) for g in tree.leaves(grads))
        factors = np.minimum(1, 1 / np.sqrt(squares))
        return tree.map(lambda g: np.tensordot(factors, g, 1) / BATCH, grads)

    return mean_clipped_gradient


def _torch_clipped(t):
    torch = t.torch

    def loss(params, x, y):
        (w1, b1), (w2, b2) = params
        return torch.nn.functional.cross_entropy(torch.tanh(x @ w1 + b1) @ w2 + b2, y)

    def mean_clipped_gradient(params, x, y):
        grads = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(params, x, y)
        squares = sum(g.square().flatten(1).sum(1) for g in leaves(grads))
        factors = torch.clamp(torch.rsqrt(squares), max=1.0)
        return tree_map(lambda g: torch.tensordot(factors, g, 1) / BATCH, grads)

    return mean_clipped_gradient


WORKLOADS = [Workload("per-example-clip", "rest", _clipped, _torch_clipped, _inputs)]
