# SPDX-License-Identifier: MIT
"""Pipelines in this process: what the steps do, in which order, the ends of epochs, shards, the place."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functorch_lite.data import Dataset, Loader
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ShapeError, TreeError


def listed(dataset):
    return [np.asarray(element).tolist() for element in dataset]


def some(dataset, n):
    """`n` elements as lists, with a new iteration where one ends."""
    found = []
    while len(found) < n:
        for element in dataset:
            found.append(np.asarray(element).tolist())
            if len(found) == n:
                break
    return found


@given(n=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 9), drop_last=st.booleans())
def test_batches_of_arrays_are_those_of_loader(n, size, seed, drop_last):
    if n < size and drop_last:
        return
    x = np.arange(n)
    loader = Loader(x, size, seed=seed, drop_last=drop_last)
    dataset = Dataset.from_arrays(x).shuffle(seed).batch(size, drop_last=drop_last)
    assert len(dataset) == len(loader)
    for _ in range(3):
        assert listed(dataset) == [batch.tolist() for batch in loader]


@given(
    n=st.integers(0, 50),
    size=st.none() | st.integers(1, 7),
    modulus=st.integers(1, 6),
    seed=st.none() | st.integers(0, 5),
    drop_last=st.booleans(),
)
def test_a_filter_keeps_just_what_it_should(n, size, modulus, seed, drop_last):
    dataset = Dataset(range(n)).filter(lambda i: i % modulus == 0)
    dataset = dataset if seed is None else dataset.shuffle(seed)
    kept = [i for i in range(n) if i % modulus == 0]
    if size is None:
        assert sorted(listed(dataset)) == kept
        return
    dataset = dataset.batch(size, drop_last=drop_last) if n >= size else dataset.batch(size, drop_last=False)
    found = listed(dataset)
    rows = [row for batch in found for row in batch]
    assert all(len(batch) == size for batch in found[:-1])
    expected = len(kept) // size * size if drop_last and n >= size else len(kept)
    assert (len(rows), len(set(rows)), set(rows) <= set(kept)) == (expected, expected, True)


def test_steps_run_in_the_order_they_were_given():
    dataset = Dataset(range(6)).map(lambda i: i + 1).filter(lambda i: i % 2).map(lambda i: i * 10)
    assert listed(dataset) == [10, 30, 50]


def test_a_map_after_batch_sees_batches():
    dataset = Dataset.from_arrays(np.arange(6)).batch(3).map(lambda batch: batch.sum())
    assert listed(dataset) == [3, 12]
    assert listed(Dataset(range(6)).filter(lambda i: i != 1).batch(2).map(lambda batch: batch.sum())) == [2, 7]


def test_files_are_read_when_their_example_is_made(tmp_path):
    paths = [tmp_path / f"{i}.txt" for i in range(4)]
    for i, path in enumerate(paths):
        path.write_text(str(i * i))
    dataset = Dataset.from_files(paths, lambda path: int(path.read_text())).batch(2)
    assert listed(dataset) == [[0, 1], [4, 9]]
    paths[3].unlink()
    iterator = iter(dataset)
    next(iterator)
    with pytest.raises(FileNotFoundError) as raised:
        next(iterator)
    assert "example 3 of the source, in epoch 1" in "".join(raised.value.__notes__)


def test_examples_are_trees_that_are_stacked():
    dataset = Dataset([{"x": np.full(2, i, np.float16), "label": (i, f"n{i}")} for i in range(2)]).batch(2)
    (batch,) = dataset
    assert batch["x"].tolist() == [[0, 0], [1, 1]]
    assert batch["x"].dtype == np.float16
    assert (batch["label"][0].tolist(), batch["label"][1].tolist()) == ([0, 1], ["n0", "n1"])


def test_examples_of_different_shape_are_named():
    dataset = Dataset([{"x": np.zeros(2)}, {"x": np.zeros(3)}]).batch(2)
    with pytest.raises(ShapeError, match=r"leaf `\['x'\]` has shape \(2,\) in one example and \(3,\) in another"):
        listed(dataset)


def test_examples_of_different_structure_are_told():
    with pytest.raises(TreeError, match="examples should have one structure: "):
        listed(Dataset([{"x": 1}, {"y": 1}]).batch(2))


def test_a_step_cannot_change_the_arrays_of_the_source():
    def double(x):
        x *= 2
        return x

    arrays = np.ones((4, 2))
    with pytest.raises(ValueError, match="read-only"):
        listed(Dataset.from_arrays(arrays).map(double))
    assert arrays.all()
    assert arrays.flags.writeable
    for batch in Dataset.from_arrays(arrays).batch(2):
        batch += 1
    np.testing.assert_array_equal(arrays, 1)


def test_random_maps_depend_on_seed_epoch_and_place_alone():
    def noisy(seed):
        return Dataset.from_arrays(np.zeros(6)).random_map(lambda x, rng: x + rng.normal(), seed).batch(2)

    one = noisy(3)
    first, second = listed(one), listed(one)
    assert len({v for batch in first + second for v in batch}) == 12
    again = noisy(3)
    assert [listed(again), listed(again)] == [first, second]
    assert listed(noisy(4)) != first
    with_batches = Dataset.from_arrays(np.zeros(6)).batch(2).random_map(lambda x, rng: x + rng.normal(), 3)
    assert len({v for batch in listed(with_batches) for v in batch}) == 3


def test_shards_of_a_random_map_together_get_what_one_process_gets():
    def dataset(index, count, size):
        steps = Dataset.from_arrays(np.arange(12.0)).random_map(lambda x, rng: x + rng.uniform(), 1).shuffle(2)
        return steps.shard(index, count).batch(size)

    shards = [listed(dataset(i, 3, 2)) for i in range(3)]
    for step, batch in enumerate(listed(dataset(0, 1, 6))):
        assert sorted(batch) == sorted(v for shard in shards for v in shard[step])


@pytest.mark.parametrize("n, count, size", [(10, 3, 2), (11, 3, 2), (7, 4, 1), (5, 5, 1)])
def test_odd_shards_have_equally_many_batches_when_the_rest_is_dropped(n, count, size):
    found = [listed(Dataset(range(n)).shard(i, count).batch(size)) for i in range(count)]
    assert {len(shard) for shard in found} == {n // count // size}
    kept = [listed(Dataset(range(n)).shard(i, count).batch(size, drop_last=False)) for i in range(count)]
    assert sorted(row for shard in kept for batch in shard for row in batch) == list(range(n))


# Epochs


@pytest.mark.parametrize("dataset", [Dataset(range(5)), Dataset(range(5)).batch(2), Dataset(range(5)).filter(bool)])
def test_repeat_runs_through_epochs(dataset):
    once = listed(dataset)
    assert listed(dataset.repeat(3)) == once * 3
    assert [np.asarray(v).tolist() for v, _ in zip(dataset.repeat(), range(7), strict=False)] == (once * 4)[:7]


def test_len_is_known_without_filters_and_ends():
    assert len(Dataset(range(5))) == 5
    assert len(Dataset(range(5)).batch(2, drop_last=False).repeat(3)) == 9
    with pytest.raises(TypeError, match="a dataset with a filter has no len"):
        len(Dataset(range(5)).filter(bool))
    with pytest.raises(TypeError, match=r"a dataset with repeat\(\) without end has no len"):
        len(Dataset(range(5)).repeat())


def test_nothing_gives_nothing():
    for dataset in (Dataset([]), Dataset([]).batch(2, drop_last=False), Dataset([]).repeat()):
        assert listed(dataset) == []
    assert listed(Dataset(range(4)).filter(lambda i: False).batch(2)) == []
    with pytest.raises(ArgumentError, match=r"keep no batch of epoch 0, so repeat\(\) has no end"):
        listed(Dataset(range(4)).filter(lambda i: False).repeat())


# The place

PIPELINES = {
    "examples": lambda: Dataset(range(7)).shuffle(1),
    "many_examples": lambda: Dataset(range(70)).shuffle(1),
    "batches": lambda: Dataset(range(7)).shuffle(1).batch(2),
    "kept_rest": lambda: Dataset(range(7)).shuffle(1).batch(2, drop_last=False),
    "filtered": lambda: Dataset(range(17)).shuffle(1).filter(lambda i: i % 3),
    "filtered_batches": lambda: Dataset(range(17)).shuffle(1).filter(lambda i: i % 3).batch(3),
    "filtered_rest": lambda: Dataset(range(17)).shuffle(1).filter(lambda i: i % 3).batch(3, drop_last=False),
    "random": lambda: (
        Dataset(range(17)).shuffle(1).filter(lambda i: i % 3).batch(3).random_map(lambda x, r: x + r.random(), 0)
    ),
    "shard": lambda: Dataset(range(17)).shuffle(1).shard(1, 3).batch(2),
    "repeat": lambda: Dataset(range(7)).shuffle(1).batch(2).repeat(2),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_after_restore_the_elements_are_the_same(name):
    expected = some(PIPELINES[name](), 24)
    for n in range(20):
        dataset = PIPELINES[name]()
        assert some(dataset, n) == expected[:n]
        state = json.loads(json.dumps(dataset.state()))
        other = PIPELINES[name]()
        some(other, 2)
        other.restore(state)
        assert other.state() == state
        assert some(other, 4) == some(dataset, 4) == expected[n : n + 4]


@pytest.mark.parametrize("name", PIPELINES)
def test_after_the_last_element_the_place_is_a_new_epoch(name):
    dataset = PIPELINES[name]()
    n = len(listed(PIPELINES[name]()))
    some(dataset, n)
    assert {k: v for k, v in dataset.state().items() if k not in ("loader", "epoch")} == {
        "block": 0,
        "skip": 0,
        "batch": 0,
    }
    assert dataset.epoch == (2 if name == "repeat" else 1)


def test_a_method_gives_a_dataset_at_its_own_start():
    dataset = Dataset(range(6))
    some(dataset, 2)
    assert listed(dataset.batch(2)) == [[0, 1], [2, 3], [4, 5]]
    assert listed(dataset) == [2, 3, 4, 5]


def test_restore_while_iterating_goes_on_from_there():
    dataset = Dataset(range(4))
    start, found = dataset.state(), []
    for i in dataset:
        found.append(i)
        if len(found) == 3:
            dataset.restore(start)
    assert found == [0, 1, 2, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "other, message",
    [
        (Dataset(range(6)), "`n` was 6 and is 5"),
        (Dataset(range(5)).shuffle((0, 1)), r"`seed` was \[0, 1\] and is None"),
        (Dataset(range(5)).batch(2), "`batch_size` was 2 and is None"),
        (Dataset(range(5)).map(str), r"`steps` was \['map'\] and is \[\]"),
        (Loader(np.zeros(5), 1, seed=0), "`kind` was 'Loader' and is 'Dataset'"),
    ],
)
def test_the_state_of_another_pipeline_is_refused(other, message):
    with pytest.raises(ArgumentError, match=message):
        Dataset(range(5)).restore(other.state())


def test_a_place_beyond_the_data_is_refused():
    dataset = Dataset(range(5))
    with pytest.raises(ArgumentError, match="is not in this loader"):
        dataset.restore({**dataset.state(), "block": 1})


# What is refused


@pytest.mark.parametrize(
    "method, args", [("filter", (bool,)), ("shuffle", (0,)), ("shard", (0, 2)), ("batch", (2,))], ids=lambda v: str(v)
)
def test_steps_that_come_before_batch(method, args):
    with pytest.raises(ArgumentError, match=rf"Dataset.{method}: comes before batch"):
        getattr(Dataset(range(5)).batch(2), method)(*args)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ArgumentError, match="Dataset.batch: 3 examples make no batch of 4"):
        Dataset(range(3)).batch(4)
    assert listed(Dataset(range(3)).batch(4, drop_last=False)) == [[0, 1, 2]]


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ArgumentError, match="`batch_size` should be at least 1, but is 0"):
        Dataset(range(3)).batch(0)
    with pytest.raises(ArgumentError, match="`epochs` should be at least 1, but is 0"):
        Dataset(range(3)).repeat(0)
    with pytest.raises(ArgumentError, match="`n` should be at least 0, but is -1"):
        Dataset(range(3)).workers(-1)
    with pytest.raises(ArgumentError, match="0 <= index < count"):
        Dataset(range(3)).shard(3, 3)


def test_a_source_needs_a_length():
    with pytest.raises(ArgumentTypeError, match="should have len.* but is generator. Make a list of it"):
        Dataset(i for i in range(3))


def test_importing_the_package_and_iterating_needs_no_grain():
    code = (
        "import sys; from functorch_lite import data; list(data.Dataset(range(4)).batch(2)); "
        "print([m for m in ('grain', 'jax', 'PIL', 'sklearn', 'llvmlite', 'cloudpickle') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
