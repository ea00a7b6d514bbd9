# SPDX-License-Identifier: MIT
"""A thread ahead of the loop: same batches, same states, errors come through, the thread ends."""

import json
import threading
import traceback

import numpy as np
import pytest

from functorch_lite.config import config
from functorch_lite.data import Dataset, Loader, Prefetch, Windows
from functorch_lite.errors import ArgumentError


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [t.name for t in threading.enumerate() if "prefetch" in t.name] == []


def some(loader, n):
    found = []
    while len(found) < n:
        iterator = iter(loader)
        for batch in iterator:
            found.append(np.asarray(batch).tolist())
            if len(found) == n:
                break
        if hasattr(loader, "close"):
            loader.close()
    return found


LOADERS = {
    "loader": lambda: Loader(np.arange(11), 2, seed=5),
    "windows": lambda: Windows(np.arange(50), 4, 2, seed=5, n_batches=5),
    "dataset": lambda: Dataset(range(17)).shuffle(1).filter(lambda i: i % 3).batch(3),
}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", LOADERS)
def test_batches_and_states_are_those_of_the_loader(name, size):
    expected, plain = some(LOADERS[name](), 14), LOADERS[name]()
    loader = LOADERS[name]().prefetch(size)
    for n in range(10):
        assert loader.state() == plain.state()
        assert some(loader, 1) + some(plain, 1) == [expected[n]] * 2


@pytest.mark.parametrize("name", LOADERS)
def test_the_state_in_the_middle_of_an_iteration_is_the_users(name):
    expected = some(LOADERS[name](), 12)
    loader = LOADERS[name]().prefetch(4)
    found = []
    for batch in loader:
        found.append(np.asarray(batch).tolist())
        other = LOADERS[name]()
        other.restore(json.loads(json.dumps(loader.state())))
        assert some(other, 2) == expected[len(found) : len(found) + 2]
    assert found == expected[: len(found)]
    assert loader.state()["epoch"] == 1


def test_restore_ends_the_running_iteration():
    loader = Loader(np.arange(10), 2, seed=None).prefetch(3)
    start = loader.state()
    iterator = iter(loader)
    next(iterator)
    loader.restore(start)
    assert list(iterator) == []
    assert len(list(loader)) == len(loader) == 5


def test_a_new_iteration_ends_the_one_before():
    loader = Loader(np.arange(8), 2, seed=None).prefetch()
    first = iter(loader)
    assert next(first).tolist() == [0, 1]
    assert [batch.tolist() for batch in loader] == [[2, 3], [4, 5], [6, 7]]
    assert list(first) == []


def test_an_error_comes_in_its_place_with_its_traceback():
    def broken():
        yield np.zeros(1)
        raise RuntimeError("no more")

    found = []
    with pytest.raises(RuntimeError, match="no more") as raised:
        for batch in Prefetch(broken(), size=3):
            found.append(batch)
    assert len(found) == 1
    assert "in broken" in "".join(traceback.format_exception(raised.value))


def test_after_an_error_the_place_is_kept():
    def fail_once(i, failed=[]):  # noqa: B006  (one list for all calls)
        if i == 4 and not failed:
            failed.append(i)
            raise OSError("try again")
        return i

    loader = Dataset(range(8)).map(fail_once).batch(2).prefetch(3)
    found = []
    with pytest.raises(OSError, match="try again"):
        found.extend(batch.tolist() for batch in loader)
    found += [batch.tolist() for batch in loader]
    assert found == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_the_thread_is_at_most_size_ahead():
    made = []
    reached = threading.Event()

    def count():
        for i in range(100):
            made.append(i)
            if i == 4:
                reached.set()
            yield np.array(i)

    iterator = iter(Prefetch(count(), size=3))
    next(iterator)
    assert reached.wait(10)  # one given, three waiting, one in the thread's hand
    assert len(made) == 5
    iterator.close()


def test_an_iteration_that_is_left_ends_its_thread():
    for _ in Prefetch([np.zeros(1)] * 100, size=2):
        assert sum("prefetch" in t.name for t in threading.enumerate()) == 1
        break
    assert not any("prefetch" in t.name for t in threading.enumerate())


def test_leaves_come_to_the_device_and_text_stays():
    batch = {"x": np.ones(2, np.float32), "n": np.float32(2), "name": np.array(["a"]), "id": "b", "none": None}
    (found,) = Prefetch([batch], device="cpu")
    assert found["x"] is batch["x"] or np.array_equal(found["x"], batch["x"])
    assert (found["name"].tolist(), found["id"], found["none"], float(found["n"])) == (["a"], "b", None, 2.0)


def test_to_device_is_prefetch_with_a_device():
    assert [batch.tolist() for batch in Loader(np.arange(4), 2, seed=None).to_device("cpu")] == [[0, 1], [2, 3]]


@pytest.mark.gpu
def test_leaves_come_to_the_gpu():
    cupy = pytest.importorskip("cupy", reason="needs CuPy")
    x = np.arange(6.0).reshape(2, 3)
    for (batch,) in Loader((x,), 2, seed=None).prefetch(device="gpu"):
        assert isinstance(batch, cupy.ndarray)
        np.testing.assert_array_equal(batch.get(), x)


def test_the_thread_has_the_settings_of_the_user():
    seen = []

    def look():
        seen.append(config.default_float)
        yield np.zeros(1)

    with config(default_float="float64"):
        list(Prefetch(look()))
    assert seen == ["float64"]


def test_what_has_no_place_says_so():
    loader = Prefetch([np.zeros(1)])
    for ask in (loader.state, lambda: loader.restore({})):
        with pytest.raises(ArgumentError, match=r"list has no state\(\) and restore\(\)"):
            ask()
    with pytest.raises(ArgumentError, match="`size` should be at least 1, but is 0"):
        Prefetch([], size=0)
