# SPDX-License-Identifier: MIT
"""Records of element-wise arithmetic."""

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core.tracer import bind1
from functorch_lite.primitives import elementwise as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, distinct, normal, positive

FLOATS = ("float32", "float16", "bfloat16")
ALL_FLOATS = (*FLOATS, "complex64")


def _pair(rng):
    return normal(rng, 2, 3), normal(rng, 2, 3)


def _complex_pair(rng):
    return complex_normal(rng, 3), complex_normal(rng, 3)


def _constant_left(rng):
    return Sample((np.float64(rng.uniform(1, 2)), positive(rng, 3)), "scalar left")


def _constant_right(rng):
    return Sample((positive(rng, 3), np.float64(rng.uniform(1, 2))), "scalar right")


def _empty(rng):
    return Sample((normal(rng, 0, 2), normal(rng, 0, 2)), "size 0")


def _scalars(rng):
    return Sample((np.float64(rng.uniform(1, 2)), np.float64(rng.uniform(1, 2))), "both scalars")


def _integers(rng):
    return Sample((np.array([7, -7, 7, -7, 0]), np.array([2, 2, -2, -2, 3])), "integers")


def _apart(rng):
    both = distinct(rng, 2, 6)
    return both[0], both[1]


def _ties(rng):
    return Sample((np.array([1.0, 2.0, np.nan, np.inf]), np.array([1.0, 3.0, 0.0, np.inf])), "ties", smooth=False)


def _truncated_quotient(x, y):
    return x / y if x.dtype.kind in "fc" else np.trunc(x / y).astype(x.dtype)


def _positive_pair(rng):
    return positive(rng, 2, 3), positive(rng, 2, 3)


_BINARY = (_pair, _complex_pair, _constant_left, _constant_right, _scalars, _empty)

RECORDS = [
    OpRecord("add", p.add, calls(*_BINARY, _integers), np.add, ALL_FLOATS, plain=np.add),
    OpRecord("add_any", p.add_any, calls(_pair, _complex_pair), np.add, ALL_FLOATS),
    OpRecord("sub", p.sub, calls(*_BINARY, _integers), np.subtract, ALL_FLOATS, plain=np.subtract),
    OpRecord("mul", p.mul, calls(*_BINARY, _integers), np.multiply, ALL_FLOATS, order=3, plain=np.multiply),
    OpRecord("scale", p.scale, calls(*_BINARY), np.multiply, ALL_FLOATS, order=3),
    OpRecord(
        "scale_strong_zero", p.scale,
        calls(lambda rng: Sample((np.array([np.inf, 0.0, np.nan]), np.array([0.0, np.inf, 0.0])), "inf", derive=False)),
        lambda c, t: np.zeros(3), FLOATS,
    ),
    OpRecord(
        "div", p.div,
        calls(lambda rng: (normal(rng, 2, 3), positive(rng, 2, 3)), _complex_pair, _constant_left, _constant_right,
              _empty, _integers),
        _truncated_quotient, ALL_FLOATS, order=3,
    ),
    OpRecord(
        "safe_div", lambda t, c: p.bind1(p.safe_div_p, t, c),
        calls(lambda rng: (normal(rng, 2, 3), positive(rng, 2, 3)), _complex_pair, _constant_left, _constant_right),
        np.divide, ALL_FLOATS, order=3,
    ),
    OpRecord(
        "safe_div_strong_zero", lambda t, c: p.bind1(p.safe_div_p, t, c),
        calls(lambda rng: Sample((np.zeros(3), np.array([0.0, np.nan, np.inf])), "zero", derive=False)),
        lambda t, c: np.zeros(3), FLOATS,
    ),
    OpRecord("neg", p.neg, calls(lambda rng: (normal(rng, 3),), lambda rng: (complex_normal(rng, 3),),
                                 lambda rng: (np.arange(3),)), np.negative, ALL_FLOATS, plain=np.negative),
    OpRecord(
        "rem", p.rem,
        calls(lambda rng: (np.array([5.5, -5.5, 7.25]), np.array([2.0, 2.0, -1.5])), _integers,
              lambda rng: (np.array([5.5, 0.3]), np.float64(0.7))),
        np.fmod, ("float32", "float16"), plain=np.fmod,
    ),
    OpRecord(
        "pow", p.pow,
        calls(_positive_pair, _constant_left, _constant_right, _scalars,
              lambda rng: (complex_normal(rng, 2) + 3, complex_normal(rng, 2)),
              lambda rng: Sample((np.array([2.0, 0.7, 1.5]), np.array([0.0, 1.0, 2.0])), "whole powers"),
              lambda rng: Sample((np.array([0.0, 0.0]), np.array([0.0, 2.0])), "zero base", smooth=False),
              lambda rng: Sample((np.array([2, 3]), np.array([3, 2])), "integers")),
        np.power, ALL_FLOATS, order=3, plain=np.power,
    ),
    OpRecord(
        "pow_negative_base", lambda x: p.pow(x, constant(np.full(3, 3.0, x.dtype), x)),
        calls(lambda rng: (normal(rng, 3),)),
        lambda x: x**3, FLOATS,
    ),
    *[
        OpRecord(
            f"integer_pow_{n}", lambda x, n=n: p.integer_pow(x, n),
            calls(lambda rng: (positive(rng, 3),), lambda rng: (complex_normal(rng, 2),),
                  *([lambda rng: Sample((np.zeros(2),), "zero", smooth=False)] if n >= 0 else [])),
            lambda x, n=n: x ** float(n) if x.dtype.kind == "f" else x**n, ("float32", "complex64"), order=3,
        )
        for n in (-2, -1, 0, 1, 2, 3, 5)
    ],
    OpRecord(
        "log_or_zero", lambda x: bind1(p.log_for_pow_p, x),
        calls(lambda rng: (positive(rng, 3),), lambda rng: (complex_normal(rng, 2),),
              lambda rng: Sample((np.array([0.0, 1.0]),), "zero", smooth=False)),
        lambda x: np.log(np.where(x == 0, 1, x)), ALL_FLOATS,
    ),
    OpRecord("maximum", p.maximum, calls(_apart, _ties, _constant_right, _integers), np.maximum, FLOATS,
             plain=np.maximum),
    OpRecord("minimum", p.minimum, calls(_apart, _ties, _constant_left, _integers), np.minimum, FLOATS,
             plain=np.minimum),
    OpRecord(
        "clamp", p.clamp,
        calls(
            lambda rng: (np.full(4, -0.5), np.array([-1.0, 0.2, 0.4, 2.0]), np.full(4, 0.7)),
            lambda rng: (np.float64(-0.5), np.array([-1.0, 0.2, 0.4, 2.0]), np.float64(0.7)),
            lambda rng: Sample((np.zeros(3), np.array([0.0, 1.0, 0.5]), np.ones(3)), "at the bounds", smooth=False),
        ),
        lambda lo, x, hi: np.clip(x, lo, hi), FLOATS, plain=lambda lo, x, hi: np.clip(x, lo, hi),
    ),
]
