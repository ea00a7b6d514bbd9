# SPDX-License-Identifier: MIT
"""Reductions of [64, 128, 256] (two million numbers) on every axis."""

from functools import partial

import numpy as np

from benchmarks.workloads.common import Workload, normal

SHAPE = (64, 128, 256)


def _inputs():
    return (normal(np.random.default_rng(0), *SHAPE),)


def _sum(axes, api):
    return lambda x: api.np.sum(x, axis=axes)


def _torch_sum(axes, t):
    return lambda x: t.torch.sum(x, dim=axes)


def _max(axis, api):
    return lambda x: api.np.max(x, axis=axis)


def _torch_max(axis, t):
    return lambda x: t.torch.amax(x, dim=axis)


def _squares(api):
    return lambda x: api.np.mean(api.np.square(x - 1.0))


def _torch_squares(t):
    return lambda x: t.torch.mean(t.torch.square(x - 1.0))


def _variance(api):
    return lambda x: api.np.var(x, axis=-1)


def _torch_variance(t):
    return lambda x: t.torch.var(x, dim=-1, correction=0)


def _argmax(api):
    return lambda x: api.np.argmax(x, axis=-1)


def _torch_argmax(t):
    return lambda x: t.torch.argmax(x, dim=-1)


_AXES = {"0": (0,), "1": (1,), "2": (2,), "02": (0, 2), "all": (0, 1, 2)}

WORKLOADS = [
    Workload(f"sum-{name}", "rest", partial(_sum, axes), partial(_torch_sum, axes), _inputs,
             "always" if name in ("0", "2") else "full")
    for name, axes in _AXES.items()
]
WORKLOADS += [
    Workload(f"max-{axis}", "rest", partial(_max, axis), partial(_torch_max, axis), _inputs) for axis in range(3)
]
WORKLOADS += [
    Workload("mean-of-squares", "rest", _squares, _torch_squares, _inputs),
    Workload("variance-2", "rest", _variance, _torch_variance, _inputs),
    Workload("argmax-2", "rest", _argmax, _torch_argmax, _inputs),
]
