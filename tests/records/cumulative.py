# SPDX-License-Identifier: MIT
"""Records of the running reductions."""

import numpy as np

from functorch_lite.primitives import cumulative as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, distinct, normal

FLOATS = ("float32", "float16", "bfloat16")


def _extremum(name, fun, ufunc):
    samples = calls(
        lambda rng: (distinct(rng, 2, 5),), lambda rng: (rng.integers(0, 9, (2, 4)),),
        lambda rng: Sample((np.array([[1.0, 2.0, 2.0, 1.0, 2.0, np.inf]]),), "ties", smooth=False),
        lambda rng: Sample((np.array([[1.0, np.nan, 2.0]]),), "NaN", smooth=False),
        lambda rng: Sample((normal(rng, 2, 0),), "size 0"),
    )
    return OpRecord(name, lambda x: fun(x, 1), samples, lambda x: ufunc.accumulate(x, 1), FLOATS,
                    plain=lambda x: ufunc.accumulate(x, 1))


RECORDS = [
    OpRecord(
        "cumsum", lambda x: p.cumsum(x, 1),
        calls(lambda rng: (normal(rng, 2, 4),), lambda rng: (normal(rng, 2, 3, 2),),
              lambda rng: (complex_normal(rng, 2, 3),),
              lambda rng: (rng.integers(0, 9, (2, 3), dtype=np.int32),),
              lambda rng: Sample((normal(rng, 2, 0),), "size 0")),
        lambda x: np.cumsum(x, 1, dtype=x.dtype), (*FLOATS, "complex64"), order=1, plain=lambda x: np.cumsum(x, axis=1),
    ),
    OpRecord(
        "cumprod", lambda x: p.cumprod(x, 0),
        calls(lambda rng: (normal(rng, 5),), lambda rng: (normal(rng, 3, 2),), lambda rng: (complex_normal(rng, 4),),
              lambda rng: (rng.integers(1, 4, (3, 2)),), lambda rng: Sample((np.array([2.0, 0.0, 3.0]),), "one zero"),
              lambda rng: Sample((np.array([2.0, 0.0, 3.0, 0.0, 5.0]),), "two zeros"),
              lambda rng: Sample((normal(rng, 0, 2),), "size 0")),
        lambda x: np.cumprod(x, 0, dtype=x.dtype), (*FLOATS, "complex64"), order=3,
        plain=lambda x: np.cumprod(x, axis=0),
    ),
    _extremum("cummax", p.cummax, np.maximum),
    _extremum("cummin", p.cummin, np.minimum),
]
