# SPDX-License-Identifier: MIT
"""Running reductions compiled against their eval rules: axes, lengths, dtypes, NaN, infinities."""

import numpy as np
import pytest

from functorch_lite.compiler.lowering import cumulative
from functorch_lite.primitives import cumulative as p
from tests.compiler.comparing import array, check

RNG = np.random.default_rng(3)
PRIMS = (p.cumsum_p, p.cumprod_p, p.cummax_p, p.cummin_p)
SHAPES = ((1,), (2,), (7,), (37,), (0,), (3, 0), (0, 3), (5, 9), (8, 16), (19, 3), (3, 5, 4), (2, 4, 17), (4, 1, 33),
          (cumulative.LONG + 13,), (3, cumulative.LONG), (300, 40))


def near_one(shape, dtype):
    """Factors whose products stay in range."""
    x = array(RNG, shape, dtype)
    return x if x.dtype.kind in "iu" else (np.sign(x.real) * (1 + abs(x) / (1000 + x.size))).astype(x.dtype)


@pytest.mark.parametrize("prim", PRIMS, ids=lambda prim: prim.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_running_reductions_equal_their_eval_rules(shape, prim):
    draw = near_one if prim is p.cumprod_p else lambda *a: array(RNG, *a)
    for axis in range(len(shape)):
        check(prim, draw(shape, "float64"), axis=axis, exact=False)


@pytest.mark.parametrize("prim", PRIMS, ids=lambda prim: prim.name)
@pytest.mark.parametrize("dtype", ("float32", "float16", "bfloat16", "int8", "int32", "uint16", "int64", "uint64"))
def test_running_reductions_of_every_dtype(dtype, prim):
    for shape in ((21,), (cumulative.LONG,), (5, 20), (20, 3)):
        x = array(RNG, shape, dtype) if prim is not p.cumprod_p else near_one(shape, dtype)
        for axis in range(len(shape)):
            check(prim, x, axis=axis, exact=x.dtype.kind in "iu" or prim in (p.cummax_p, p.cummin_p))


@pytest.mark.parametrize("prim", (p.cumsum_p, p.cumprod_p), ids=lambda prim: prim.name)
@pytest.mark.parametrize("dtype", ("complex64", "complex128"))
def test_running_reductions_of_complex_numbers(dtype, prim):
    for shape in ((cumulative.LONG + 1,), (3, 20), (20, 3), (5, 2, 10)):
        for axis in range(len(shape)):
            x = array(RNG, shape, dtype)
            check(prim, x if prim is p.cumsum_p else x / np.abs(x), axis=axis, exact=False)


@pytest.mark.parametrize("prim", (p.cummax_p, p.cummin_p), ids=lambda prim: prim.name)
def test_running_extrema_of_booleans_and_of_nan(prim):
    for shape in ((40,), (4, 11), (cumulative.LONG,)):
        check(prim, RNG.random(shape) < 0.1, axis=0)
        x = array(RNG, shape, "float32")
        x.reshape(-1)[::7] = np.inf
        x.reshape(-1)[1::9] = -np.inf
        check(prim, x, axis=len(shape) - 1)
        x.reshape(-1)[-2] = np.nan
        check(prim, x, axis=len(shape) - 1)


def test_a_sum_with_infinities_and_nan():
    x = array(RNG, (2 * cumulative.LONG,), "float32")
    x[5000] = np.inf
    check(p.cumsum_p, x, axis=0, exact=False)
    x[6000] = -np.inf
    check(p.cumsum_p, x, axis=0, exact=False)
    x[17] = np.nan
    check(p.cumsum_p, x, axis=0, exact=False)


def test_sixteen_bit_sums_are_accumulated_in_single_precision():
    for shape in ((3000,), (3000, 20)):
        check(p.cumsum_p, np.full(shape, 1.001, np.float16), axis=0, exact=False)


@pytest.mark.parametrize("prim", PRIMS, ids=lambda prim: prim.name)
@pytest.mark.parametrize("dtype", ("float32", "float16", "int32", "complex64"))
def test_very_long_rows_in_groups_and_wide_rows_in_blocks(dtype, prim, monkeypatch):
    monkeypatch.setattr(cumulative, "LONG", 256)
    monkeypatch.setattr(cumulative, "VERY_LONG", 256)
    monkeypatch.setattr(cumulative, "COLUMNS", 16)
    if dtype == "complex64" and prim not in (p.cumsum_p, p.cumprod_p):
        return
    for shape in ((256,), (1000,), (2, 300), (7, 40), (3, 5, 32), (1, 50)):
        x = near_one(shape, dtype) if prim is p.cumprod_p else array(RNG, shape, dtype)
        for axis in range(len(shape)):
            check(prim, x / np.abs(x) if prim is p.cumprod_p and dtype == "complex64" else x, axis=axis, exact=False)


def test_a_very_long_row_of_infinities_and_nan():
    x = array(RNG, (cumulative.VERY_LONG + 77,), "float32")
    check(p.cummax_p, x, axis=0)
    check(p.cumsum_p, x.astype(np.int32), axis=0)
    x[5000] = np.inf
    check(p.cumsum_p, x, axis=0, exact=False)
    x[60_000] = np.nan
    check(p.cumsum_p, x, axis=0, exact=False)
    check(p.cummin_p, x, axis=0)
