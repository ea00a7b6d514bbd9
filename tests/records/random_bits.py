# SPDX-License-Identifier: MIT
"""Records of the random primitives: bits and keys against the backend, roundings against exact arithmetic."""

from fractions import Fraction

import numpy as np
import scipy.special as scipy

from functorch_lite.backends import threefry
from functorch_lite.backends.registry import constant
from functorch_lite.primitives import random_bits as p
from tests.records.op_record import OpRecord, Sample, calls, normal, positive

KEYS = threefry.split_key(np, threefry.seed_key(np, 5), (2, 3))


def keys(rng):
    """Six keys."""
    return (rng.integers(0, 2**32, (2, 3, 2), np.uint32),)


def shapes(rng):
    """Shape parameters of gamma variables."""
    return Sample((positive(rng, 2, 3),), smooth=False)


def rounded_once(x, y, z):
    """x y + z in exact arithmetic, then one rounding."""
    exact = [float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))
             for a, b, c in zip(x.flat, y.flat, z.flat, strict=True)]
    return np.array(exact, x.dtype).reshape(x.shape)


RECORDS = [
    *(
        OpRecord(f"random_bits_{width}", lambda key, width=width: p.random_bits(key, (4,), width), calls(keys),
                 lambda key, width=width: threefry.random_bits(np, key, (4,), width), dtypes=(), order=0)
        for width in (8, 16, 32, 64)
    ),
    OpRecord("split_key", lambda key: p.split_key(key, (2, 2)), calls(keys),
             lambda key: threefry.split_key(np, key, (2, 2)), dtypes=(), order=0),
    OpRecord("fold_in_key", p.fold_in_key, calls(lambda rng: (*keys(rng), rng.integers(0, 2**32, (2, 3), np.uint32))),
             lambda key, data: threefry.fold_in_key(np, key, data), dtypes=(), order=0),
    OpRecord("fused_multiply_add", p.fused_multiply_add,
             calls(lambda rng: (normal(rng, 2, 3), normal(rng, 2, 3), normal(rng, 2, 3))), rounded_once,
             ("float32", "float16", "bfloat16")),
    OpRecord("erf_inv", p.erf_inv, calls(lambda rng: (rng.uniform(-0.9, 0.9, (2, 3)),)), scipy.erfinv,
             ("float32", "float16", "bfloat16")),
    # Not smooth: the derivative is that at a fixed quantile, the sample at a fixed key moves otherwise (tests of
    # random gradients compare with quantiles). One order: the derivative of gammainc in `a` has none in `a`.
    OpRecord(
        "random_gamma", lambda a: p.random_gamma(constant(KEYS, a), a, False), calls(shapes), dtypes=(), order=1,
    ),
    OpRecord(
        "random_gamma_log", lambda a: p.random_gamma(constant(KEYS, a), a, True), calls(shapes), dtypes=(), order=1,
    ),
]
