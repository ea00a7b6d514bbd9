# SPDX-License-Identifier: MIT
"""Threefry on a CuPy device: the mirror of test_threefry.py. Every result must equal NumPy's bit for bit."""

import numpy as np
import pytest

from functorch_lite.backends import threefry

cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]

KEY = np.array([7, 11], np.uint32)


@pytest.mark.parametrize("width", [8, 16, 32, 64])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5), (100_003,), (3_000_001,)])
def test_bits_on_the_device_are_those_on_the_cpu(shape, width):
    got = threefry.random_bits(cupy, cupy.asarray(KEY), shape, width)
    assert isinstance(got, cupy.ndarray)
    np.testing.assert_array_equal(cupy.asnumpy(got), threefry.random_bits(np, KEY, shape, width))


@pytest.mark.parametrize("shape", [(), (2,), (0,), (3, 4)])
def test_split_on_the_device_is_that_on_the_cpu(shape):
    got = threefry.split_key(cupy, cupy.asarray(KEY), shape)
    np.testing.assert_array_equal(cupy.asnumpy(got), threefry.split_key(np, KEY, shape))


def test_batch_of_keys_on_the_device_is_that_on_the_cpu():
    keys = threefry.split_key(np, KEY, (2, 300))
    # Every second key: a view that is not contiguous.
    got = threefry.random_bits(cupy, cupy.asarray(keys)[:, ::2], (17,), 32)
    np.testing.assert_array_equal(cupy.asnumpy(got), threefry.random_bits(np, keys[:, ::2], (17,), 32))


def test_fold_in_and_hash_on_the_device_are_those_on_the_cpu():
    keys, data = threefry.split_key(np, KEY, (50,)), np.arange(50, dtype=np.uint32)
    got = threefry.fold_in_key(cupy, cupy.asarray(keys), cupy.asarray(data))
    np.testing.assert_array_equal(cupy.asnumpy(got), threefry.fold_in_key(np, keys, data))


def test_seed_on_the_device_is_that_on_the_cpu():
    np.testing.assert_array_equal(cupy.asnumpy(threefry.seed_key(cupy, 2**40 + 5)), threefry.seed_key(np, 2**40 + 5))
