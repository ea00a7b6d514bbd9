# SPDX-License-Identifier: MIT
"""Records of the broadcast family."""

import numpy as np

from functorch_lite.primitives import broadcast as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, normal

ALL_FLOATS = ("float32", "float16", "bfloat16", "complex64")

RECORDS = [
    OpRecord(
        "broadcast_in_dim_new_axis", lambda x: p.broadcast_in_dim(x, (2, 3), (1,)),
        calls(lambda rng: (normal(rng, 3),), lambda rng: (complex_normal(rng, 3),), lambda rng: (np.arange(3),)),
        lambda x: np.broadcast_to(x, (2, 3)), ALL_FLOATS, order=1,
    ),
    OpRecord(
        "broadcast_in_dim_size_one", lambda x: p.broadcast_in_dim(x, (4, 2, 3), (1, 2)),
        calls(lambda rng: (normal(rng, 1, 3),), lambda rng: (normal(rng, 2, 1),)),
        lambda x: np.broadcast_to(x, (4, 2, 3)), order=1,
    ),
    OpRecord(
        "broadcast_in_dim_transposed_view", lambda x: p.broadcast_in_dim(x, (2, 2, 3), (1, 2)),
        calls(lambda rng: (normal(rng, 3, 2).T,)), lambda x: np.broadcast_to(x, (2, 2, 3)), ALL_FLOATS, order=1,
    ),
    OpRecord(
        "broadcast_in_dim_empty", lambda x: p.broadcast_in_dim(x, (0, 3), (1,)),
        calls(lambda rng: Sample((normal(rng, 3),), "size 0")), lambda x: np.broadcast_to(x, (0, 3)), order=1,
    ),
    OpRecord(
        "broadcast_in_dim_scalar", lambda x: p.broadcast_in_dim(x, (2, 3), ()),
        calls(lambda rng: (normal(rng),)), lambda x: np.broadcast_to(x, (2, 3)), ALL_FLOATS, order=1,
    ),
    OpRecord(
        "reduce_sum", lambda x: p.reduce_sum(x, (1,)),
        calls(
            lambda rng: (normal(rng, 2, 3),), lambda rng: (normal(rng, 2, 3, 2),),
            lambda rng: (complex_normal(rng, 2, 3),),
            lambda rng: Sample((normal(rng, 2, 0),), "size 0"), lambda rng: (np.arange(6).reshape(2, 3),),
            lambda rng: Sample((np.array([[1.0, np.inf], [np.nan, 0.0]]),), "infinite", smooth=False),
        ),
        lambda x: x.sum(1), ALL_FLOATS, order=1, plain=lambda x: np.sum(x, axis=1),
    ),
    OpRecord(
        "reduce_sum_all", lambda x: p.reduce_sum(x, (0, 1)),
        calls(lambda rng: (normal(rng, 2, 3),)), lambda x: x.sum(), ALL_FLOATS, order=1, plain=np.sum,
    ),
    OpRecord("full", lambda x: [p.full((2, 2), 3, x.dtype), p.zeros_like(x)], calls(lambda rng: (normal(rng, 2),)),
             lambda x: [np.full((2, 2), 3.0), np.zeros(2)], ALL_FLOATS, order=0),
    OpRecord("iota", lambda x: p.iota(x.dtype, (2, 3), 1), calls(lambda rng: (normal(rng, 2),)),
             lambda x: np.broadcast_to(np.arange(3.0), (2, 3)), ALL_FLOATS, order=0),
]
