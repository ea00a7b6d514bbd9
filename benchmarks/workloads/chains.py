# SPDX-License-Identifier: MIT
"""Chains of element-wise functions, which a compiler turns into one loop: from 16 to 16 M elements, and a gradient."""

from functools import partial

import numpy as np

from benchmarks.workloads.common import Workload, normal


def _chain(np, x):
    y = np.sin(x) * 1.5 + x * x
    y = np.exp(-np.abs(np.tanh(y)))
    return np.sqrt(y + 1.0) / (1.0 + np.abs(x))


def _make(api):
    return lambda x: _chain(api.np, x)


def _torch(t):
    return lambda x: _chain(t.torch, x)


def _make_grad(api):
    return api.grad(lambda x: api.np.sum(_chain(api.np, x)))


def _torch_grad(t):
    graded = t.value_and_grad(lambda x: t.torch.sum(_chain(t.torch, x)))
    return lambda x: graded(x)[1]


def _inputs(n):
    return (normal(np.random.default_rng(0), n),)


_SIZES = {"16": 16, "1k": 2**10, "64k": 2**16, "1m": 2**20, "16m": 2**24}

WORKLOADS = [
    Workload(f"chain-{name}", "small" if n < 10_000 else "rest", _make, _torch, partial(_inputs, n),
             "always" if n in (16, 2**20) else "full")
    for name, n in _SIZES.items()
]
WORKLOADS.append(Workload("chain-1m-grad", "rest", _make_grad, _torch_grad, partial(_inputs, 2**20)))
