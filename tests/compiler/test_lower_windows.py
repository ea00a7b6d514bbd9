# SPDX-License-Identifier: MIT
"""Window kernels against their eval rules: padding, strides, dilation, dtypes, NaN and infinities."""

import numpy as np
import pytest

from functorch_lite.compiler.lowering import windows
from functorch_lite.primitives import windows as p
from tests.compiler.comparing import array, check
from tests.records.windows import SETTINGS

RNG = np.random.default_rng(5)
MORE = {
    "channels_last": ((2, 6, 5, 19), (1, 2, 3, 1), (1, 2, 1, 1), ((0, 0), (0, 1), (1, 1), (0, 0)), (1, 1, 1, 1)),
    "large": ((30, 40), (7, 9), (1, 2), ((3, 3), (4, 4)), (1, 1)),
    "many": ((windows.SEPARATED + 9, 8), (windows.SEPARATED, 2), (2, 2), ((1, 0), (1, 0)), (1, 1)),
    "long": ((300,), (50,), (3,), ((20, 0),), (2,)),
    "mixed": ((3, 20, 33), (1, 5, 6), (1, 2, 3), ((0, 0), (-1, 2), (3, -2)), (1, 2, 1)),
    "only_padding": ((3, 4), (1, 1), (1, 1), ((2, 0), (0, 3)), (1, 1)),
    "nothing": ((0, 4), (1, 2), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "nothing_padded": ((0, 4), (2, 2), (1, 1), ((3, 0), (0, 0)), (1, 1)),
    "scalar": ((), (), (), (), ()),
}
NAMES = ("window", "strides", "padding", "dilation")
CASES = {**SETTINGS, **MORE}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
REDUCTIONS = (p.reduce_window_sum_p, p.reduce_window_max_p, p.reduce_window_min_p)


@cases
@pytest.mark.parametrize("prim", REDUCTIONS, ids=lambda prim: prim.name)
def test_window_reductions_equal_their_eval_rules(case, prim):
    shape, *rest = case
    params = dict(zip(NAMES, rest, strict=True))
    for dtype in ("float64", "bfloat16", "int32"):
        exact = prim is not p.reduce_window_sum_p
        check(prim, array(RNG, shape, dtype), exact=exact and dtype != "bfloat16", **params)


@cases
def test_sums_of_complex_and_small_numbers(case):
    shape, *rest = case
    params = dict(zip(NAMES, rest, strict=True))
    for dtype in ("complex64", "float16", "uint8", "float32"):
        check(p.reduce_window_sum_p, array(RNG, shape, dtype), exact=False, **params)


@cases
@pytest.mark.parametrize("prim", (p.window_argmax_p, p.window_argmin_p), ids=lambda prim: prim.name)
def test_positions_of_window_extrema(case, prim):
    shape, *rest = case
    params = dict(zip(NAMES, rest, strict=True))
    x = np.round(array(RNG, shape, "float64") / 3)
    for dtype in ("float64", "float32", "int16", "bfloat16"):
        check(prim, x.astype(array(RNG, (), dtype).dtype), **params)
    if x.size > 3:
        x.reshape(-1)[::5], x.reshape(-1)[1::7], x.reshape(-1)[2::6] = np.nan, np.inf, -np.inf
        for which in (prim, *REDUCTIONS[1:]):
            check(which, x, **params)


@cases
def test_reading_and_adding_at_taps(case):
    shape, *rest = case
    params = dict(zip(NAMES, rest, strict=True))
    out = p.window_shape("test", shape, *rest)
    taps = RNG.integers(0, int(np.prod(rest[0])), out).astype(np.int32)
    for dtype in ("float64", "complex64", "float16", "int32"):
        check(p.window_take_p, array(RNG, shape, dtype), taps, **params)
        check(p.window_put_p, array(RNG, out, dtype), taps, exact=False, shape=shape, **params)


@cases
def test_spreading_values_of_windows(case):
    shape, *rest = case
    params = dict(zip(NAMES, rest, strict=True))
    out = p.window_shape("test", shape, *rest)
    for dtype in ("float64", "complex64", "float16", "int32"):
        check(p.window_spread_p, array(RNG, out, dtype), exact=False, shape=shape, **params)


def test_values_that_are_not_finite_stay_where_they_are_put():
    params = {"window": (2,), "strides": (1,), "padding": ((1, 0),), "dilation": (1,)}
    values, taps = np.array([np.nan, 1.0, np.inf, 2.0]), np.array([0, 0, 1, 1], np.int32)
    check(p.window_put_p, values, taps, shape=(4,), **params)
