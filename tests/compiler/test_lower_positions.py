# SPDX-License-Identifier: MIT
"""argmax and argmin of long rows, which are read in blocks and cut into groups: lengths, dtypes, ties, NaN."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.lowering import positions
from functorch_lite.primitives import reduction as p
from tests.compiler.comparing import array, check

RNG = np.random.default_rng(7)
PRIMS = (p.argmax_p, p.argmin_p)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(positions, "BLOCK", 16)
    monkeypatch.setattr(positions, "VERY_LONG", 128)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("prim", PRIMS, ids=lambda prim: prim.name)
@pytest.mark.parametrize("dtype", ("float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool"))
def test_rows_in_blocks_and_groups(prim, dtype):
    for n in (1, 15, 31, 32, 33, 127, 128, 129, 144, 517):
        for rows in (1, 3):
            x = RNG.random((rows, n)) < 0.02 if dtype == "bool" else array(RNG, (rows, n), dtype)
            check(prim, x, axis=1)
            check(prim, np.zeros_like(x), axis=1)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("prim", PRIMS, ids=lambda prim: prim.name)
@pytest.mark.parametrize("n", (40, 300))
def test_the_first_of_ties_and_of_nans(prim, n):
    for places in ((0, n - 1), (n // 2, n // 2 + 16), (n - 2, n - 1), (n - 1,), (17, 18, 39)):
        for value in (np.inf, -np.inf, np.nan):
            x = array(RNG, (n,), "float32")
            x[list(places)] = value
            check(prim, x, axis=0)
    check(prim, np.full(n, np.nan), axis=0)
    check(prim, np.full(n, -np.inf), axis=0)


def test_threads_share_the_groups_of_a_very_long_row():
    x = RNG.standard_normal(positions.VERY_LONG * 2 + 5).astype(np.float32)
    for threads in (1, 2, 4):
        with fl.config(num_threads=threads):
            assert fl.jit(np.argmax)(x) == np.argmax(x)
            assert fl.jit(np.argmin)(x) == np.argmin(x)
