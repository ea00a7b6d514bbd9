# SPDX-License-Identifier: MIT
"""Records of the reductions."""

import numpy as np

from functorch_lite.primitives import reduction as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, distinct, normal

FLOATS = ("float32", "float16", "bfloat16")


def _extremum(name, fun, plain):
    samples = calls(
        lambda rng: (distinct(rng, 3, 4),), lambda rng: (distinct(rng, 2, 3, 2),),
        lambda rng: (rng.integers(0, 9, (2, 3)),),
        lambda rng: Sample((np.array([[1.0, 1.0, 0.0], [-np.inf, np.inf, np.inf]]),), "ties", smooth=False),
        lambda rng: Sample((np.array([[1.0, np.nan]]),), "NaN", smooth=False, derive=False),
        lambda rng: Sample((normal(rng, 0, 2),), "size 0"),
    )
    return OpRecord(name, lambda x: fun(x, (1,)), samples, lambda x: plain(x, axis=1), FLOATS,
               plain=lambda x: plain(x, axis=1))


def _product_of(x, axes):
    return np.prod(x, axis=axes, dtype=x.dtype)


def _position(name, fun, plain):
    samples = calls(
        lambda rng: (normal(rng, 3, 4),), lambda rng: (np.array([[1, 2, 2], [0, 0, -1]]),),
        lambda rng: Sample((np.array([[1.0, np.nan, np.nan], [np.inf, np.inf, 0.0]]),), "ties and NaN", smooth=False),
        lambda rng: (np.array([[False, True], [True, True]]),),
    )
    return OpRecord(name, lambda x: fun(x, 1), samples, lambda x: plain(x, 1), FLOATS, order=0,
               plain=lambda x: plain(x, 1))


def _logsumexp_reference(x):
    with np.errstate(invalid="ignore"):
        return np.logaddexp.reduce(x.astype(np.float64), axis=1).astype(x.dtype)


RECORDS = [
    OpRecord(
        "reduce_logsumexp", lambda x: p.logsumexp(x, (1,)),
        calls(
            lambda rng: (normal(rng, 3, 4),), lambda rng: (normal(rng, 2, 1),), lambda rng: (1e3 * normal(rng, 2, 3),),
            lambda rng: Sample((np.array([[-np.inf, 0.0], [-np.inf, -np.inf]]),), "minus infinities", smooth=False),
            lambda rng: (normal(rng, 0, 2),),
        ),
        _logsumexp_reference, FLOATS,
    ),
    _extremum("reduce_max", p.reduce_max, np.max),
    _extremum("reduce_min", p.reduce_min, np.min),
    OpRecord("reduce_max_all", lambda x: p.reduce_max(x, (0, 1)), calls(lambda rng: (distinct(rng, 2, 3),)),
             np.max, FLOATS,
             plain=np.max),
    OpRecord(
        "reduce_prod", lambda x: p.reduce_prod(x, (0,)),
        calls(
            lambda rng: (normal(rng, 5),), lambda rng: (normal(rng, 3, 2),), lambda rng: (complex_normal(rng, 4),),
            lambda rng: (rng.integers(1, 4, (3, 2)),), lambda rng: (np.array([[True, False], [True, True]]),),
            lambda rng: Sample((np.array([0.0, 2.0, 3.0]),), "one zero"),
            lambda rng: Sample((np.array([0.0, 0.0, 3.0, 2.0]),), "two zeros"),
            lambda rng: Sample((normal(rng, 0, 2),), "size 0"), lambda rng: (normal(rng, 1),),
        ),
        lambda x: _product_of(x, 0), (*FLOATS, "complex64"), order=3, plain=lambda x: np.prod(x, axis=0),
    ),
    OpRecord("reduce_prod_axes", lambda x: p.reduce_prod(x, (2, 0)), calls(lambda rng: (normal(rng, 2, 2, 3),)),
             lambda x: _product_of(x, (0, 2)), FLOATS, plain=lambda x: np.prod(x, axis=(0, 2))),
    OpRecord("reduce_and", lambda x: p.reduce_and(x, (1,)),
             calls(lambda rng: (normal(rng, 3, 2) > 0,), lambda rng: Sample((np.zeros((2, 0), bool),), "size 0")),
             lambda x: x.all(1), (), order=0, plain=lambda x: np.all(x, axis=1)),
    OpRecord("reduce_or", lambda x: p.reduce_or(x, (1,)),
             calls(lambda rng: (normal(rng, 3, 2) > 0,), lambda rng: Sample((np.zeros((2, 0), bool),), "size 0")),
             lambda x: x.any(1), (), order=0, plain=lambda x: np.any(x, axis=1)),
    _position("argmax", p.argmax, np.argmax),
    _position("argmin", p.argmin, np.argmin),
]
