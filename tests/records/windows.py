# SPDX-License-Identifier: MIT
"""Records of sliding windows."""

import numpy as np

from functorch_lite.primitives import windows as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, distinct, normal

FLOATS = ("float32", "float16", "bfloat16")


def direct(reduce, fill, x, window, strides, padding, dilation):
    """The definition, one window at a time."""
    x = np.pad(x, [(max(lo, 0), max(hi, 0)) for lo, hi in padding], constant_values=fill)
    x = x[tuple(slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi) in zip(x.shape, padding, strict=True))]
    size = [max((n - (k - 1) * d - 1) // s + 1, 0)
            for n, k, s, d in zip(x.shape, window, strides, dilation, strict=True)]
    out = np.zeros(size, x.dtype)
    for at in np.ndindex(*size):
        out[at] = reduce(x[tuple(slice(i * s, i * s + (k - 1) * d + 1, d)
                                 for i, k, s, d in zip(at, window, strides, dilation, strict=True))])
    return out


def spread(x, shape, window, strides, padding, dilation):
    """What each element collects, one window at a time."""
    around = [(max(lo, 0), max(hi, 0)) for lo, hi in padding]
    out = np.zeros([n + lo + hi for n, (lo, hi) in zip(shape, around, strict=True)], x.dtype)
    for at in np.ndindex(*x.shape):
        starts = [i * s + max(-lo, 0) for i, s, (lo, _) in zip(at, strides, padding, strict=True)]
        out[tuple(slice(i, i + (k - 1) * d + 1, d) for i, k, d in zip(starts, window, dilation, strict=True))] += x[at]
    return out[tuple(slice(lo, lo + n) for n, (lo, _) in zip(shape, around, strict=True))]


SETTINGS = {
    "pool": ((2, 4, 6), (1, 2, 2), (1, 2, 2), ((0, 0), (0, 0), (0, 0)), (1, 1, 1)),
    "overlapping": ((5, 6), (3, 2), (1, 2), ((1, 1), (0, 1)), (1, 1)),
    "dilated": ((7,), (3,), (1,), ((2, 1),), (2,)),
    "gaps": ((7, 3), (2, 1), (3, 2), ((0, 0), (0, 0)), (1, 1)),
    "negative_padding": ((7,), (2,), (2,), ((-1, -1),), (1,)),
    "empty": ((2,), (3,), (1,), ((0, 0),), (1,)),
}


def records(name, settings):
    """Sum, maximum and minimum with one choice of settings; the window never misses the array."""
    shape, *rest = settings
    made = (
        ("sum", p.reduce_window_sum, np.sum, 0.0), ("max", p.reduce_window_max, np.max, -np.inf),
        ("min", p.reduce_window_min, np.min, np.inf),
    )
    for which, fun, reduce, fill in made:
        yield OpRecord(
            f"reduce_window_{which}_{name}", lambda x, fun=fun: fun(x, *rest),
            calls(lambda rng, draw=normal if which == "sum" else distinct: (draw(rng, *shape),)),
            lambda x, reduce=reduce, fill=fill: direct(reduce, fill, x, *rest), FLOATS,
        )


RECORDS = [
    *(record for name, settings in SETTINGS.items() for record in records(name, settings)),
    OpRecord(
        "reduce_window_sum_complex", lambda x: p.reduce_window_sum(x, (2,), (2,), ((1, 0),), (1,)),
        calls(lambda rng: (complex_normal(rng, 5),)),
        lambda x: direct(np.sum, 0.0, x, (2,), (2,), ((1, 0),), (1,)), ("complex64",),
    ),
    *(OpRecord(
        f"window_spread_{name}", lambda x, settings=settings: p.window_spread(x, *settings),
        calls(lambda rng, settings=settings: (normal(rng, *p.window_shape("test", *settings)),)),
        lambda x, settings=settings: spread(x, *settings), FLOATS,
    ) for name, settings in SETTINGS.items()),
    OpRecord(
        "reduce_window_integer",
        lambda x: [
            f(x, (2,), (1,), ((1, 0),)) for f in (p.reduce_window_sum, p.reduce_window_max, p.reduce_window_min)
        ],
        calls(lambda rng: (rng.integers(-5, 5, 4),)),
        lambda x: [np.convolve(x, [1, 1])[:4], np.maximum(x, np.r_[x[0], x[:-1]]), np.minimum(x, np.r_[x[0], x[:-1]])],
        order=0,
    ),
    OpRecord(
        "reduce_window_max_infinite", lambda x: p.reduce_window_max(x, (2,)),
        calls(lambda rng: Sample((np.array([1.0, np.nan, 2.0, -np.inf, -np.inf, np.inf]),), "nan", smooth=False)),
        lambda x: np.maximum(x[:-1], x[1:]), order=1,
    ),
    OpRecord(
        "window_arguments",
        lambda x: [p.window_argmax(x, (2, 2), (1, 2), ((1, 0), (0, 0))), p.window_argmin(x, (2, 2))],
        calls(lambda rng: (np.array([[1.0, 1.0, 0.0, 3.0], [1.0, 4.0, 3.0, 3.0]]),)),
        lambda x: [np.array([[2, 3], [3, 1]], np.int32), np.array([[0, 1, 0]], np.int32)], order=0,
    ),
    OpRecord(
        "window_take_and_put",
        lambda x, taps: [
            p.window_take(x, taps, (2,), (2,), ((1, 0),), (1,)),
            p.window_put(p.window_take(x, taps, (2,), (2,), ((1, 0),), (1,)), taps, (5,), (2,), (2,), ((1, 0),), (1,)),
        ],
        calls(lambda rng: (normal(rng, 5), np.array([0, 1, 0], np.int32))),
        lambda x, taps: [np.array([0, x[2], x[3]]), np.array([0, 0, x[2], x[3], 0])],
    ),
]
