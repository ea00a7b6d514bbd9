# SPDX-License-Identifier: MIT
"""Worker processes: the same bytes for any number of them, what they raise, what happens when one is killed."""

import gc
import json
import multiprocessing
import os
import pickle
import signal
import sys
from multiprocessing.shared_memory import SharedMemory
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from functorch_lite import tree
from functorch_lite.data import Dataset, MissingPackageError

pytest.importorskip("grain", reason="the worker processes are Grain's")
workers = pytest.importorskip("functorch_lite.data.workers")


class Example(NamedTuple):
    x: np.ndarray
    label: object


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    gc.collect()
    assert multiprocessing.active_children() == []


def as_bytes(batch):
    return [leaf.tobytes() if isinstance(leaf, np.ndarray) else leaf for leaf in tree.leaves(batch)]


def some(dataset, n):
    found = []
    while len(found) < n:
        for batch in dataset:
            found.append(as_bytes(batch))
            if len(found) == n:
                break
    return found


def pipeline():
    """Four batches an epoch, of leaves of many kinds."""
    arrays = Example(np.arange(38, dtype=np.float32).reshape(19, 2), np.arange(19).astype(ml_dtypes.bfloat16))
    dataset = Dataset.from_arrays(arrays).shuffle(3)
    dataset = dataset.random_map(lambda e, rng: {"x": e.x + rng.normal(size=2), "label": (e.label, "name", None)}, 5)
    return dataset.batch(4).map(lambda batch: {**batch, "transposed": batch["x"].T})


@pytest.mark.parametrize("n", [1, 4])
def test_any_number_of_workers_gives_the_same_bytes_and_the_same_states(n):
    expected = some(pipeline(), 12)
    with pipeline().workers(n) as dataset:
        assert some(dataset, 6) == expected[:6]  # the second epoch has begun
        state = json.loads(json.dumps(dataset.state()))
        assert some(dataset, 3) == expected[6:9]
    alone = pipeline()
    alone.restore(state)
    assert some(alone, 6) == expected[6:]


def test_a_place_saved_without_workers_is_taken_up_with_one():
    alone = pipeline()
    expected = some(alone, 3)
    with pipeline().workers(1) as dataset:
        dataset.restore(alone.state())
        assert some(dataset, 3) == some(alone, 3)
        dataset.restore(pipeline().state())  # back to the start, while the worker is ahead
        ahead = dataset.prefetch(2)
        assert some(ahead, 3) == expected
        ahead.close()
        assert dataset.state() == ahead.state()


def test_a_filter_gives_the_same_batches_with_workers():
    def dataset():
        return Dataset(range(50)).shuffle(0).filter(lambda i: i % 3).batch(4, drop_last=False)

    expected = [batch.tolist() for batch in dataset()]
    with dataset().workers(1) as parallel:
        assert [batch.tolist() for batch in parallel] == expected


def test_batches_are_plain_arrays_that_may_be_kept_and_written():
    with Dataset.from_arrays(np.arange(300.0)).batch(1).workers(1, n_ahead=4) as dataset:
        kept = list(dataset)
    assert all(type(batch) is np.ndarray and batch.flags.writeable for batch in kept)
    assert np.concatenate(kept).tolist() == list(range(300))


# Errors


def test_an_error_of_a_worker_keeps_its_type_its_traceback_and_the_example():
    def fail_at_5(i):
        if i == 5:
            raise KeyError("no such thing")
        return i

    found = []
    with Dataset(range(12)).map(fail_at_5).batch(2).workers(1) as dataset:
        with pytest.raises(KeyError, match="no such thing") as raised:
            for batch in dataset:
                found.append(batch.tolist())
        assert found == [[0, 1], [2, 3]]
        assert dataset.state()["batch"] == 2
    (note,) = raised.value.__notes__
    for part in ("traceback in worker process", "in fail_at_5", 'raise KeyError("no such thing")', "for example 5 of"):
        assert part in note


def test_an_error_that_cannot_be_sent_comes_as_text():
    class LockedError(Exception):
        def __reduce__(self):
            raise TypeError("cannot pickle this error")

    def fail(i):
        raise LockedError("deep trouble")

    with Dataset(range(4)).map(fail).batch(2).workers(1) as dataset:
        with pytest.raises(workers.WorkerError, match="LockedError: deep trouble") as raised:
            list(dataset)
    assert "in fail" in raised.value.__notes__[0]


def test_an_example_that_cannot_be_sent_is_an_error_not_a_hang():
    with Dataset(range(4)).map(lambda i: (j for j in range(i))).workers(1) as dataset:
        with pytest.raises(TypeError, match="generator"):
            list(dataset)


def test_shared_arrays_cannot_be_written_by_a_step():
    def double(x):
        x *= 2
        return x

    with Dataset.from_arrays(np.ones((4, 2))).map(double).batch(2).workers(1) as dataset:
        with pytest.raises(ValueError, match="read-only"):
            list(dataset)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_worker_is_told_and_nothing_is_lost(tmp_path):
    killed = tmp_path / "killed"

    def kill_once_at_9(i):
        if i == 9 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    found = []
    with Dataset(range(20)).shuffle(1).map(kill_once_at_9).batch(2).workers(2) as dataset:
        with pytest.raises(workers.WorkerError, match="a worker process of the dataset ended: .*exit code -9"):
            for batch in dataset:
                found.append(batch.tolist())
        for batch in dataset:
            found.append(batch.tolist())
    assert found == [batch.tolist() for batch in Dataset(range(20)).shuffle(1).batch(2)]


# Processes and memory


def test_processes_and_memory_go_with_close_and_with_the_dataset():
    dataset = Dataset.from_arrays(np.arange(8)).batch(2).workers(1)
    assert multiprocessing.active_children() == []
    assert next(iter(dataset)).tolist() == [0, 1]
    assert len(multiprocessing.active_children()) == 1
    name = dataset._workers.memory_name
    SharedMemory(name).close()
    dataset.close()
    dataset.close()
    assert multiprocessing.active_children() == []
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)
    assert next(iter(dataset)).tolist() == [2, 3]  # they start again
    del dataset
    gc.collect()
    assert multiprocessing.active_children() == []


def test_without_grain_the_line_for_pip_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(MissingPackageError, match=r"Dataset.workers needs grain.*pip install 'functorch_lite\[data\]'"):
        Dataset(range(3)).workers(1)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text" * 1000,
        {"a": [np.arange(5), np.zeros((0, 3)), np.array(7.5)], "b": (np.ones((2, 3)).T, np.arange(10)[::3])},
        np.array(["ab", "c"]),
        np.arange(4).astype(ml_dtypes.bfloat16),
        np.array([None, "x"]),
        [b"", 3, 2.5, np.float16(1.5)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_unpack_undoes_pack(value):
    packed = workers.pack(value)
    assert (packed.dtype, packed.ndim) == (np.uint8, 1)
    result = workers.unpack(packed)
    assert pickle.dumps(tree.map(np.asarray, result)) == pickle.dumps(tree.map(np.asarray, value))

