# SPDX-License-Identifier: MIT
"""Large arrays drawn eagerly, which compiled programs fill: the same bits as in NumPy's passes, or in one program."""

import sys

import ml_dtypes
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import random
from functorch_lite.backends import random_floats, threefry
from functorch_lite.random import blocks

SIZE = blocks.BLOCK + 77
KEY = random.key(8)
FLOATS = [np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]


def numpy_bits(shape, width):
    return threefry.random_bits(np, KEY, shape, width)


@pytest.fixture
def programs(monkeypatch):
    """The arrays that programs filled, in order."""
    filled, found = blocks.filled, []

    def watched(*args):
        found.append(filled(*args))
        return found[-1]

    for module in ("blocks", "uniform", "normal"):
        monkeypatch.setattr(sys.modules[f"functorch_lite.random.{module}"], "filled", watched)
    return found


@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_bits_of_large_arrays_are_those_of_numpy(width, programs):
    got = random.bits(KEY, (SIZE,), np.dtype(f"u{width // 8}"))
    np.testing.assert_array_equal(got, numpy_bits((SIZE,), width))
    assert len(programs) == 1


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_uniform_numbers_of_large_arrays_are_those_of_numpy(dtype, programs):
    got = random.uniform(KEY, (SIZE,), dtype)
    words = numpy_bits((SIZE,), random_floats.bits_per_float(dtype))
    assert got.dtype == dtype and got.tobytes() == random_floats.unit_floats(np, words, dtype).tobytes()
    assert len(programs) == 1


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_normal_numbers_of_large_arrays_are_those_of_numpy(dtype, programs):
    got = random.normal(KEY, (SIZE,), dtype)
    words = numpy_bits((SIZE,), random_floats.bits_per_float(dtype))
    assert got.dtype == dtype and got.tobytes() == random_floats.standard_normal(np, words, dtype).tobytes()
    assert len(programs) == 1


@pytest.mark.parametrize("shape", [(2 * blocks.BLOCK,), (3, blocks.BLOCK // 2 + 1, 1)])
def test_large_arrays_have_any_shape_and_are_new(shape):
    first, second = (random.normal(KEY, shape) for _ in range(2))
    assert first.shape == shape and first.flags.c_contiguous and first.flags.writeable
    first[:] = 0
    assert first.tobytes() != second.tobytes()
    assert second.tobytes() == fl.jit(lambda key: random.normal(key, shape))(KEY).tobytes()


def test_arrays_of_less_than_a_block_need_no_program(programs):
    random.normal(KEY, (blocks.BLOCK - 1,))
    assert not programs


def test_large_arrays_under_transforms(programs):
    shape = (SIZE,)
    want = random.normal(KEY, shape)
    assert len(programs) == 1
    gradient = fl.grad(lambda x: np.sum(x * random.normal(KEY, shape)))(np.ones(shape, np.float32))
    np.testing.assert_array_equal(gradient, want)
    assert len(programs) == 2
    np.testing.assert_array_equal(fl.vmap(lambda key: random.normal(key, shape))(KEY[None])[0], want)
    np.testing.assert_array_equal(fl.jit(lambda: random.normal(KEY, shape))(), want)
    assert len(programs) == 2


def test_other_samplers_draw_large_arrays_by_programs(programs):
    want = fl.jit(lambda key: random.randint(key, (SIZE,), 0, 1000))(KEY)
    np.testing.assert_array_equal(random.randint(KEY, (SIZE,), 0, 1000), want)
    np.testing.assert_array_equal(np.sort(random.permutation(KEY, SIZE)), np.arange(SIZE))
    assert programs
