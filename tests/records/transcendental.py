# SPDX-License-Identifier: MIT
"""Records of the transcendental functions."""

import numpy as np

from functorch_lite.primitives import transcendental as p
from tests.records.op_record import OpRecord, Sample, calls, normal, positive

FLOATS = ("float32", "float16", "bfloat16")


def _unit(rng):
    return rng.uniform(-0.8, 0.8, 4)


def _above_one(rng):
    return rng.uniform(1.3, 3, 4)


def _anywhere(rng):
    return normal(rng, 4)


def _above_half(rng):
    return positive(rng, 4)


def _function(name, domain, plain, *, complex_too=True, order=3):
    def samples(rng):
        found = [Sample((domain(rng),)), Sample((domain(rng)[:0],), "size 0"), Sample((domain(rng)[0],), "scalar")]
        return found + [Sample((rng.uniform(0.4, 0.9, 3) + 1j * rng.uniform(-0.5, 0.5, 3),), "complex")] * complex_too

    kinds = (*FLOATS, "complex64") if complex_too else FLOATS
    return OpRecord(name, getattr(p, name), samples, plain, kinds, order=order, plain=plain)


RECORDS = [
    _function("sqrt", _above_half, np.sqrt),
    _function("cbrt", _above_half, np.cbrt, complex_too=False),
    _function("rsqrt", _above_half, lambda x: 1 / np.sqrt(x)),
    _function("square", _anywhere, np.square),
    _function("exp", _anywhere, np.exp),
    _function("exp2", _anywhere, np.exp2, complex_too=False),
    _function("expm1", _anywhere, np.expm1),
    _function("log", _above_half, np.log),
    _function("log2", _above_half, np.log2),
    _function("log10", _above_half, np.log10),
    _function("log1p", _above_half, np.log1p),
    _function("sin", _anywhere, np.sin),
    _function("cos", _anywhere, np.cos),
    _function("tan", _unit, np.tan),
    _function("asin", _unit, np.arcsin),
    _function("acos", _unit, np.arccos),
    _function("atan", _anywhere, np.arctan),
    _function("sinh", _anywhere, np.sinh),
    _function("cosh", _anywhere, np.cosh),
    _function("tanh", _anywhere, np.tanh),
    _function("asinh", _anywhere, np.arcsinh),
    _function("acosh", _above_one, np.arccosh),
    _function("atanh", _unit, np.arctanh),
    _function("logistic", _anywhere, lambda x: 1 / (1 + np.exp(-x))),
    OpRecord("logistic_far_out", p.logistic, calls(lambda rng: Sample((np.array([-1000.0, 1000.0, -np.inf]),), "far")),
             lambda x: np.array([0.0, 1.0, 0.0]), ("float32",)),
    OpRecord(
        "atan2", p.atan2,
        calls(lambda rng: (normal(rng, 3), positive(rng, 3)), lambda rng: (positive(rng, 3), np.float64(-1.5)),
              lambda rng: Sample((np.zeros(2), np.array([0.0, 1.0])), "origin", smooth=False)),
        np.arctan2, FLOATS, order=3, plain=np.arctan2,
    ),
]
