# SPDX-License-Identifier: MIT
"""Copies in C order: the same elements, whatever the strides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import functorch_lite as fl
from functorch_lite.backends import copies
from functorch_lite.backends.copies import COLUMNS, LEAST, c_ordered


def numbers(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("view", [
    lambda: numbers(300, 400).T,
    lambda: numbers(3, 200, COLUMNS * 2 + 1).transpose(2, 0, 1),
    lambda: numbers(3, 200, COLUMNS * 2 + 1).transpose(0, 2, 1),
    lambda: numbers(700, 300)[::2, ::-2],
    lambda: numbers(LEAST * 3)[::3],
    lambda: np.broadcast_to(numbers(300, 1), (300, 400)),
    lambda: np.frombuffer(b"0" + numbers(300, 400).tobytes(), np.float32, offset=1, count=120_000).reshape(300, 400).T,
], ids=["transpose", "moved", "batched", "backwards", "line", "broadcast", "misaligned"])
def test_large_views_are_copied(view):
    x = view()
    found = c_ordered(x)
    assert found.flags.c_contiguous and found.flags.aligned and found.flags.writeable
    assert found.dtype == x.dtype and np.array_equal(found, x)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.data())
def test_permuted_and_sliced_arrays_of_any_size(shape, data):
    x = numbers(*shape).transpose(data.draw(st.permutations(range(len(shape)))))
    x = x[tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1, -3]))) for _ in shape)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "LEAST", 1)
        patch.setattr(copies, "COLUMNS", 2)
        found = c_ordered(x)
    assert found.flags.c_contiguous and np.array_equal(found, x)


def test_what_lies_in_order_stays():
    x = numbers(300, 400)
    rows = x[:200]
    assert c_ordered(x) is x and c_ordered(rows) is rows


def test_compiled_functions_take_large_transposes():
    x = numbers(300, 400)
    f = fl.jit(lambda x: x * 2)
    for _ in range(3):
        np.testing.assert_array_equal(f(x.T), x.T * 2)
