# SPDX-License-Identifier: MIT
"""Loaders of arrays in memory: every example, the order, shards, the end of an epoch, the place."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functorch_lite.data import Loader, Windows, batches
from functorch_lite.errors import ArgumentError, ShapeError


def listed(loader):
    return [batch.tolist() for batch in loader]


def through_json(state):
    return json.loads(json.dumps(state))


@given(n=st.integers(0, 40), size=st.integers(1, 12), count=st.integers(1, 5), seed=st.none() | st.integers(0, 9))
def test_without_drop_last_every_example_comes_to_one_shard_once(n, size, count, seed):
    loaders = [Loader(np.arange(n), size, seed=seed, drop_last=False, shard=(i, count)) for i in range(count)]
    found = [listed(loader) for loader in loaders]
    assert sorted(row for shard in found for batch in shard for row in batch) == list(range(n))
    assert [len(shard) for shard in found] == [len(loader) for loader in loaders]


@given(size=st.integers(1, 5), count=st.integers(1, 4), extra=st.integers(0, 19), seed=st.none() | st.integers(0, 9))
def test_shards_together_get_the_batches_of_one_process(size, count, extra, seed):
    n = size * count + extra
    alone = listed(Loader(np.arange(n), size * count, seed=seed))
    shards = [listed(Loader(np.arange(n), size, seed=seed, shard=(i, count))) for i in range(count)]
    assert [len(shard) for shard in shards] == [len(alone)] * count
    for step, batch in enumerate(alone):
        assert sorted(row for shard in shards for row in shard[step]) == sorted(batch)


def test_epoch_e_has_the_order_of_batches_with_seed_and_e():
    loader = Loader(np.arange(20), 6, seed=3)
    for epoch in range(3):
        assert loader.epoch == epoch
        assert listed(loader) == listed(batches(np.arange(20), 6, seed=(3, epoch)))


def test_without_a_seed_the_order_is_that_of_the_arrays():
    loader = Loader(np.arange(5), 2, seed=None, drop_last=False)
    assert listed(loader) == listed(loader) == [[0, 1], [2, 3], [4]]


def test_rows_of_all_leaves_stay_together_and_dtypes_stay():
    arrays = {"x": np.arange(12, dtype=np.float16).reshape(6, 2), "y": (np.arange(6, dtype=np.uint8), None)}
    for batch in Loader(arrays, 4, seed=0, drop_last=False):
        np.testing.assert_array_equal(batch["x"][:, 0], 2 * batch["y"][0])
        assert (batch["x"].dtype, batch["y"][0].dtype, batch["y"][1]) == (np.float16, np.uint8, None)


def test_a_batch_is_a_copy():
    x = np.zeros(4)
    next(iter(Loader(x, 4, seed=None)))[:] = 1
    assert not x.any()


def test_a_transform_sees_each_batch():
    assert listed(Loader(np.arange(4), 2, seed=None, transform=lambda x: x * 10)) == [[0, 10], [20, 30]]


def test_a_memory_map_is_read_row_by_row(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(10))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert sorted(sum(listed(Loader(x, 5, seed=0)), [])) == list(range(10))


def test_repeat_never_ends_and_has_no_len():
    loader = Loader(np.arange(4), 2, seed=0, repeat=True)
    found = [batch.tolist() for batch, _ in zip(loader, range(7), strict=False)]
    single = Loader(np.arange(4), 2, seed=0)
    assert found == (listed(single) + listed(single) + listed(single) + listed(single))[:7]
    assert loader.n_batches == 2
    with pytest.raises(TypeError, match="a loader with repeat=True has no len"):
        len(loader)


def test_an_empty_data_set_has_no_batches():
    for repeat in (False, True):
        assert listed(Loader(np.zeros(0), 2, seed=0, drop_last=False, repeat=repeat)) == []


@pytest.mark.parametrize("options, n", [({}, 3), ({"shard": (0, 2)}, 7)])
def test_a_batch_larger_than_the_data_is_refused(options, n):
    with pytest.raises(ArgumentError, match="3 examples make no batch of 4. Use a smaller batch_size or drop_last"):
        Loader(np.zeros(n), 4, seed=0, **options)
    assert len(Loader(np.zeros(3), 4, seed=0, drop_last=False)) == 1


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_a_batch_size_that_is_none_is_refused(size):
    with pytest.raises(ArgumentError, match="Loader: `batch_size` should be at least 1"):
        Loader(np.zeros(3), size, seed=0)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_is_none_is_refused(shard):
    with pytest.raises(ArgumentError, match=r"should be \(index, count\) with 0 <= index < count"):
        Loader(np.zeros(9), 1, seed=0, shard=shard)


def test_leaves_of_different_length_are_named():
    with pytest.raises(ShapeError, match=r"Loader: .*`arrays\['x'\]` has 3, `arrays\['y'\]` has 2"):
        Loader({"x": np.zeros(3), "y": np.zeros(2)}, 1, seed=0)


# The place

LOADERS = {
    "loader": lambda **o: Loader(np.arange(11), 2, seed=5, **o),
    "kept_rest": lambda **o: Loader(np.arange(11), 2, seed=(5, 1), drop_last=False, **o),
    "shard": lambda **o: Loader(np.arange(31), 2, seed=5, shard=(2, 3), **o),
    "windows": lambda **o: Windows(np.arange(50), 4, 2, seed=5, n_batches=5, **o),
}


def some(loader, n):
    """`n` batches as bytes, with a new iteration where an epoch ends."""
    found = []
    while len(found) < n:
        for batch in loader:
            found.append(np.asarray(batch).tobytes())
            if len(found) == n:
                break
    return found


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("name", LOADERS)
def test_after_restore_the_batches_have_the_same_bytes(name, repeat):
    expected = some(LOADERS[name](), 17)
    for n in range(13):
        loader = LOADERS[name](repeat=repeat)
        assert some(loader, n) == expected[:n]
        state = through_json(loader.state())
        other = LOADERS[name](repeat=repeat)
        some(other, 3)
        other.restore(state)
        assert other.state() == loader.state() == state
        assert some(other, 4) == some(loader, 4) == expected[n : n + 4]


@pytest.mark.parametrize("name", LOADERS)
def test_after_the_last_batch_the_place_is_the_next_epoch(name):
    loader = LOADERS[name]()
    some(loader, len(loader))
    state = loader.state()
    assert (state["epoch"], state["batch"]) == (1, 0)


def test_an_interrupted_iteration_is_taken_up_by_the_next():
    loader = Loader(np.arange(10), 2, seed=0)
    assert some(loader, 2) + some(loader, 3) == some(Loader(np.arange(10), 2, seed=0), 5)
    assert loader.epoch == 1


def test_restore_while_iterating_goes_on_from_there():
    loader = Loader(np.arange(6), 2, seed=None)
    start = loader.state()
    found = []
    for batch in loader:
        found.append(batch.tolist())
        if len(found) == 2:
            loader.restore(start)
    assert found == [[0, 1], [2, 3], [0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    "other, message",
    [
        (Loader(np.arange(12), 2, seed=5), "`n` was 12 and is 11"),
        (Loader(np.arange(11), 3, seed=5), "`batch_size` was 3 and is 2"),
        (Loader(np.arange(11), 2, seed=6), "`seed` was 6 and is 5"),
        (Loader(np.arange(11), 2, seed=5, shard=(0, 2)), "`shards` was 2 and is 1"),
        (LOADERS["windows"](), "`kind` was 'Windows' and is 'Loader'"),
    ],
)
def test_the_state_of_another_loader_is_refused(other, message):
    with pytest.raises(ArgumentError, match=message):
        LOADERS["loader"]().restore(other.state())


@pytest.mark.parametrize("change", [{"batch": 5}, {"batch": -1}, {"epoch": None}, {"epoch": 0.5}])
def test_a_place_that_is_none_is_refused(change):
    loader = LOADERS["loader"]()
    with pytest.raises(ArgumentError, match="restore: the place .* is not in this loader"):
        loader.restore({**loader.state(), **change})
    with pytest.raises(ArgumentError, match="saved by another loader: `kind` was None"):
        loader.restore({"epoch": 0, "batch": 0})


# Windows


def test_targets_are_the_tokens_after_the_inputs():
    tokens = np.random.default_rng(0).integers(0, 256, 100).astype(np.uint8)
    joined = tokens.tobytes()
    for x, y in Windows(tokens, 7, 4, seed=0):
        assert x.shape == y.shape == (4, 7)
        assert x.dtype == y.dtype == np.uint8
        for row, after in zip(x, y, strict=True):
            assert row.tobytes() + after[-1:].tobytes() in joined
            np.testing.assert_array_equal(row[1:], after[:-1])


def test_all_starts_come_up_and_none_beyond_the_end():
    starts = {int(x[0, 0]) for x, _ in Windows(np.arange(8), 3, 1, seed=0, n_batches=400)}
    assert starts == set(range(5))


def test_an_epoch_holds_as_many_tokens_as_there_are():
    assert len(Windows(np.arange(1000), 10, 5, seed=0)) == 20
    assert len(Windows(np.arange(1000), 10, 5, seed=0, shard=(1, 4))) == 5
    assert len(Windows(np.arange(20), 10, 5, seed=0)) == 1


def test_shards_of_windows_together_get_the_windows_of_one_process():
    alone = Windows(np.arange(90), 3, 6, seed=1, n_batches=4)
    shards = [Windows(np.arange(90), 3, 2, seed=1, n_batches=4, shard=(i, 3)) for i in range(3)]
    for (x, _), *parts in zip(alone, *shards, strict=True):
        assert sorted(x[:, 0]) == sorted(np.concatenate([part[:, 0] for part, _ in parts]))


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(ArgumentError, match="5 tokens hold no window of 5 and the token after it"):
        Windows(np.arange(5), 5, 1, seed=0)
    assert len(list(Windows(np.arange(6), 5, 1, seed=0))) == 1
    with pytest.raises(ShapeError, match=r"`tokens` should have one axis, but has shape \(2, 3\)"):
        Windows(np.zeros((2, 3)), 1, 1, seed=0)
