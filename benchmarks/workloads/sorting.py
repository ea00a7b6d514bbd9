# SPDX-License-Identifier: MIT
"""Sort, cumulative sum, segment sum and the k largest."""

import numpy as np

from benchmarks.workloads.common import Workload, labels, normal

SEGMENTS = 1000


def _numbers(*shape):
    return lambda: (normal(np.random.default_rng(0), *shape),)


def _segments():
    rng = np.random.default_rng(0)
    return normal(rng, 200_000), labels(rng, SEGMENTS, 200_000)


def _sort(api):
    return lambda x: api.np.sort(x, axis=-1)


def _torch_sort(t):
    return lambda x: t.torch.sort(x, dim=-1).values


def _cumsum(axis):
    return lambda api: lambda x: api.np.cumsum(x, axis=axis)


def _torch_cumsum(axis):
    return lambda t: lambda x: t.torch.cumsum(x, dim=axis)


def _segment_sum(api):
    return lambda x, ids: api.at(api.np.zeros(SEGMENTS, api.np.float32))[ids].add(x)


def _torch_segment_sum(t):
    return lambda x, ids: t.torch.zeros(SEGMENTS).index_add(0, ids, x)


def _top_k(api):
    return lambda x: tuple(api.lax.top_k(x, 10))


def _torch_top_k(t):
    return lambda x: tuple(t.torch.topk(x, 10, dim=-1))


WORKLOADS = [
    Workload("sort-100k", "rest", _sort, _torch_sort, _numbers(100_000)),
    Workload("sort-rows", "rest", _sort, _torch_sort, _numbers(256, 1024)),
    Workload("cumsum-rows", "rest", _cumsum(-1), _torch_cumsum(-1), _numbers(256, 4096)),
    Workload("cumsum-columns", "rest", _cumsum(0), _torch_cumsum(0), _numbers(256, 4096)),
    Workload("segment-sum", "rest", _segment_sum, _torch_segment_sum, _segments),
    Workload("top-k", "rest", _top_k, _torch_top_k, _numbers(256, 4096)),
]
