# SPDX-License-Identifier: MIT
"""Records of comparison, selection, logic and bits."""

import numpy as np

from functorch_lite.primitives import comparison as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, normal

FLOATS = ("float32", "float16", "bfloat16")
_LEFT = np.array([1.0, 2.0, 3.0, np.nan, np.inf])
_RIGHT = np.array([1.0, 3.0, 2.0, np.nan, -np.inf])


def _compare(name, fun, plain):
    samples = calls(
        lambda rng: Sample((_LEFT, _RIGHT), "ties and NaN", smooth=False),
        lambda rng: (np.arange(3), np.array([2, 1, 0])),
        lambda rng: Sample((_LEFT, np.float64(2.0)), "scalar", smooth=False),
        lambda rng: (np.array([True, False]), np.array([True, True])),
    )
    return OpRecord(name, fun, samples, plain, FLOATS, order=0, plain=plain)


def _bits(name, fun, plain):
    def samples(rng):
        pairs = [rng.integers(0, 100, (2, 4)).astype(d) for d in (np.int32, np.uint8, np.int64)]
        return [Sample((a, b)) for a, b in pairs] + [Sample((np.array([True, True]), np.array([True, False])))]

    return OpRecord(name, fun, samples, plain, (), order=0, plain=plain)


def _shift(name, fun, plain):
    samples = calls(
        lambda rng: (np.array([-8, 5, 1], np.int32), np.array([1, 2, 3], np.int32)),
        lambda rng: (np.array([200, 5], np.uint8), np.array([1, 2], np.uint8)),
    )
    return OpRecord(name, fun, samples, plain, (), order=0, plain=plain)


RECORDS = [
    _compare("eq", p.eq, np.equal),
    _compare("ne", p.ne, np.not_equal),
    _compare("lt", p.lt, np.less),
    _compare("le", p.le, np.less_equal),
    _compare("gt", p.gt, np.greater),
    _compare("ge", p.ge, np.greater_equal),
    OpRecord("is_finite", p.is_finite, calls(lambda rng: (_LEFT,), lambda rng: (complex_normal(rng, 2),)),
             np.isfinite, FLOATS, order=0, plain=np.isfinite),
    OpRecord(
        "select", p.select,
        calls(
            lambda rng: (np.array([True, False, True]), normal(rng, 3), normal(rng, 3)),
            lambda rng: (np.array([True, False, True]), complex_normal(rng, 3), complex_normal(rng, 3)),
            lambda rng: (np.array([True, False]), np.float64(rng.normal()), normal(rng, 2)),
            lambda rng: Sample((np.array([True, False]), np.array([1.0, np.nan]), np.array([np.inf, 2.0])),
                               "masked NaN",
                               smooth=False),
        ),
        np.where, (*FLOATS, "complex64"), plain=np.where,
    ),
    _bits("bit_and", p.bit_and, np.bitwise_and),
    _bits("bit_or", p.bit_or, np.bitwise_or),
    _bits("bit_xor", p.bit_xor, np.bitwise_xor),
    _shift("shift_left", p.shift_left, np.left_shift),
    _shift("shift_right", p.shift_right, np.right_shift),
    OpRecord("bit_not", p.bit_not, calls(lambda rng: (np.arange(4),), lambda rng: (np.array([True, False]),)),
             np.invert, (), order=0, plain=np.invert),
    OpRecord("population_count", p.population_count, calls(lambda rng: (np.array([0, 1, 255, -3]),)),
             lambda x: np.bitwise_count(x).astype(x.dtype), (), order=0),
]
