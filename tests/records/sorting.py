# SPDX-License-Identifier: MIT
"""Records of sort, argsort and top_k."""

import numpy as np

from functorch_lite.primitives import sorting as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, distinct, normal

FLOATS = ("float32", "float16", "bfloat16")
_TIES = np.array([[2.0, 1.0, 2.0, np.nan, 1.0, -np.inf], [0.0, np.inf, -0.0, 3.0, np.nan, 3.0]])


def _several(num_keys):
    def reference(*operands):
        order = np.lexsort(operands[:num_keys][::-1])
        return [np.take_along_axis(x, order, -1) for x in operands]

    return reference


def _top_k(x, k):
    order = np.argsort(-x, axis=-1, kind="stable")[..., :k]
    return [np.take_along_axis(x, order, -1), order]


RECORDS = [
    OpRecord(
        "sort", lambda x: p.sort(x)[0],
        calls(lambda rng: (distinct(rng, 6),), lambda rng: (distinct(rng, 2, 4),),
              lambda rng: (rng.integers(0, 5, (2, 6)),),
              lambda rng: (complex_normal(rng, 4),), lambda rng: Sample((_TIES,), "ties and NaN", smooth=False),
              lambda rng: Sample((normal(rng, 2, 0),), "size 0"), lambda rng: (np.array([True, False, True]),)),
        np.sort, FLOATS, plain=np.sort,
    ),
    OpRecord("sort_unstable", lambda x: p.sort(x, stable=False)[0],
             calls(lambda rng: (distinct(rng, 6),)), np.sort, FLOATS),
    OpRecord(
        "sort_payload", lambda k, v: p.sort(k, v),
        calls(lambda rng: (distinct(rng, 2, 4), normal(rng, 2, 4)), lambda rng: (rng.integers(0, 3, 6), normal(rng, 6)),
              lambda rng: Sample((np.array([1.0, 0.0, 1.0, 0.0]), np.arange(4.0)), "ties", smooth=False)),
        _several(1), FLOATS,
    ),
    OpRecord(
        "sort_two_keys", lambda a, b, v: p.sort(a, b, v, num_keys=2),
        calls(lambda rng: (rng.integers(0, 2, (2, 5)), distinct(rng, 2, 5), normal(rng, 2, 5))), _several(2), FLOATS,
    ),
    OpRecord("argsort", p.argsort, calls(lambda rng: (normal(rng, 2, 4),),
                   lambda rng: Sample((_TIES,), "ties and NaN")),
             lambda x: np.argsort(x, -1, kind="stable"), FLOATS, order=0, plain=lambda x: np.argsort(x, kind="stable")),
    OpRecord(
        "top_k", lambda x: p.top_k(x, 2),
        calls(lambda rng: (distinct(rng, 5),), lambda rng: (distinct(rng, 2, 3),),
              lambda rng: (np.array([1, 3, 3, 2]),),
              lambda rng: Sample((np.array([1.0, 2.0, 2.0, 2.0]),), "ties", smooth=False)),
        lambda x: _top_k(x, 2), FLOATS,
    ),
]
