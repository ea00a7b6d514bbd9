# SPDX-License-Identifier: MIT
"""The stable order of an array's entries is NumPy's, for every dtype, short rows and long ones."""

import numpy as np
import pytest

from functorch_lite.backends.orders import stable_order

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8"])
@pytest.mark.parametrize("shape", [(0,), (1,), (255,), (256,), (4, 300), (2, 3, 1000)])
def test_the_order_is_that_of_a_stable_argsort(dtype, shape):
    x = RNG.integers(0, 200, shape).astype(dtype)
    if dtype[0] == "f":
        for value in (np.nan, -np.nan, -0.0, 0.0, np.inf, -np.inf, np.finfo(dtype).tiny, -1.5):
            x[RNG.random(shape) < 0.05] = value
    order = stable_order(np, x)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(order, np.argsort(x, axis=-1, kind="stable"))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "u4"])
def test_the_whole_range_of_integers(dtype):
    info = np.iinfo(dtype)
    x = RNG.integers(info.min, info.max, 1000, dtype, endpoint=True)
    x[:4] = info.max, info.min, info.max, info.min
    np.testing.assert_array_equal(stable_order(np, x), np.argsort(x, kind="stable"))
    np.testing.assert_array_equal(x[:4], np.array([info.max, info.min, info.max, info.min], dtype))


def test_what_is_not_contiguous():
    x = RNG.standard_normal((300, 600)).astype(np.float32)
    for y in (x.T, x[:, ::2], x[::-1, ::-1]):
        np.testing.assert_array_equal(stable_order(np, y), np.argsort(y, axis=-1, kind="stable"))
