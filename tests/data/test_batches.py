# SPDX-License-Identifier: MIT
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functorch_lite.data import batches, digits
from functorch_lite.errors import ArgumentError, ShapeError


@given(n=st.integers(1, 40), size=st.integers(1, 12), seed=st.integers(0, 2**64))
def test_every_example_comes_once_when_the_rest_is_kept(n, size, seed):
    found = list(batches(np.arange(n), size, seed=seed, drop_last=False))
    assert sorted(np.concatenate(found)) == list(range(n))
    assert all(len(batch) == size for batch in found[:-1])


def test_drop_last_drops_only_the_rest():
    found = list(batches(np.arange(10), 4, seed=0))
    assert [len(batch) for batch in found] == [4, 4]
    assert len(np.unique(np.concatenate(found))) == 8


def test_rows_of_all_leaves_stay_together():
    tree = {"x": np.arange(12).reshape(6, 2), "y": (np.arange(6), None)}
    for batch in batches(tree, 2, seed=1):
        np.testing.assert_array_equal(batch["x"][:, 0], 2 * batch["y"][0])
        assert batch["y"][1] is None


def test_a_tuple_stays_a_tuple_and_dtypes_stay():
    x, y = next(batches((np.zeros((4, 3), np.float16), np.zeros(4, np.uint8)), 2, seed=0))
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((2, 3), np.float16, (2,), np.uint8)


def test_the_seed_alone_decides_the_order():
    def order(seed):
        return [batch.tolist() for batch in batches(np.arange(64), 8, seed=seed)]

    assert order(3) == order(3)
    assert order((3, 0)) == order((3, 0))
    assert len({str(order(seed)) for seed in (0, 1, (0, 1), (1, 1))}) == 4


def test_the_global_random_state_is_not_touched():
    before = np.random.get_state()[1].copy()
    list(batches(np.arange(8), 2, seed=0))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_leaves_of_different_length_are_named():
    with pytest.raises(ShapeError, match=r"`arrays\['x'\]` has 3, `arrays\['y'\]` has 2"):
        batches({"x": np.zeros(3), "y": np.zeros(2)}, 1, seed=0)


def test_a_leaf_without_axes_is_named():
    with pytest.raises(ShapeError, match=r"`arrays\[1\]` has no axis 0"):
        batches((np.zeros(3), np.zeros(())), 1, seed=0)


def test_no_leaves_are_refused():
    with pytest.raises(ArgumentError, match="has no leaves"):
        batches((), 1, seed=0)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ArgumentError, match="`batch_size` should be at least 1, but is 0"):
        batches(np.zeros(3), 0, seed=0)


def test_an_epoch_without_a_batch_is_refused():
    with pytest.raises(
        ArgumentError, match="3 examples make no batch of 4. Use a smaller batch_size or drop_last=False"
    ):
        batches(np.zeros(3), 4, seed=0)
    assert len(list(batches(np.zeros(3), 4, seed=0, drop_last=False))) == 1


def test_digits_are_split_without_loss():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    (x, y), (x_test, y_test) = digits("train"), digits("test")
    assert (x.shape, y.shape, x_test.shape, y_test.shape) == ((1500, 8, 8), (1500,), (297, 8, 8), (297,))
    assert (x.dtype, y.dtype, x.max()) == (np.uint8, np.uint8, 255)
    assert set(y) == set(y_test) == set(range(10))
