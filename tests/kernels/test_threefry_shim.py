# SPDX-License-Identifier: MIT
"""threefry.cu on the CPU, under the shim: every kernel gives NumPy's bits."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from functorch_lite.backends import threefry

SOURCE = Path(__file__).parents[2] / "kernels" / "cuda" / "threefry.cu"
KEY = np.array([7, 11], np.uint32)


@pytest.fixture(scope="module")
def kernels(compile_on_cpu):
    return compile_on_cpu(SOURCE)


def run(kernels, guarded, name, keys, shape, dtype, grid=(3,), block=(64,), **how):
    out = guarded(np.zeros(shape, dtype))
    n_keys, size = ctypes.c_uint64(keys.size // 2), ctypes.c_uint64(shape[keys.ndim - 1])
    kernels.launch(name, grid, block, guarded(keys), out, n_keys, size, **how)
    return out


@pytest.mark.parametrize("width", [8, 16, 32, 64])
@pytest.mark.parametrize("size", [1, 63, 192, 1000])
def test_kernel_bits_are_those_of_numpy(kernels, guarded, size, width):
    expected = threefry.random_bits(np, KEY, (size,), width)
    got = run(kernels, guarded, f"fl_threefry_bits{width}", KEY, (size,), expected.dtype)
    np.testing.assert_array_equal(got, expected)


def test_kernel_words_are_the_keys_of_a_split(kernels, guarded):
    got = run(kernels, guarded, "fl_threefry_words", KEY, (77, 2), np.uint32)
    np.testing.assert_array_equal(got, threefry.split_key(np, KEY, (77,)))


def test_kernel_takes_a_batch_of_keys(kernels, guarded):
    keys = threefry.split_key(np, KEY, (5,))
    got = run(kernels, guarded, "fl_threefry_bits32", keys, (5, 33), np.uint32)
    np.testing.assert_array_equal(got, threefry.random_bits(np, keys, (33,), 32))


@pytest.mark.parametrize("order, workers, grid", [(1, 1, (2,)), (2, 1, (2,)), (2, 2, (7,)), (0, 1, (1,))])
def test_kernel_bits_do_not_depend_on_the_launch(kernels, guarded, order, workers, grid):
    got = run(kernels, guarded, "fl_threefry_bits64", KEY, (500,), np.uint64, grid, (32,), order=order, workers=workers)
    np.testing.assert_array_equal(got, threefry.random_bits(np, KEY, (500,), 64))
