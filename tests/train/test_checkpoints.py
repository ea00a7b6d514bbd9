# SPDX-License-Identifier: MIT
import errno
import os
import subprocess
import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import data, train
from functorch_lite.errors import ArgumentError, ShapeError, TreeError
from functorch_lite.train import checkpoints as module
from functorch_lite.train.files import read

pytest.importorskip("safetensors", reason="checkpoints are safetensors files")


def fill(folder, steps, **options):
    with train.Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"w": np.full(3, float(step))}, metadata={"name": f"s{step}"})
    return checkpoints


def restored(folder):
    return train.Checkpoints(folder).restore(like={"w": np.zeros(3)})


# --- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
def test_the_newest_few_are_kept(tmp_path, background):
    checkpoints = fill(tmp_path, range(1, 8), keep=2, background=background)
    assert checkpoints.steps() == [6, 7]
    saved = checkpoints.restore(like={"w": np.zeros(3)}, step=6)
    assert saved.step == 6 and saved.state["w"].tolist() == [6, 6, 6] and saved.metadata == {"name": "s6"}
    assert restored(tmp_path).step == 7


def test_what_is_saved_is_the_state_at_that_moment(tmp_path, monkeypatch):
    may_write, write = threading.Event(), module.write
    monkeypatch.setattr(module, "write", lambda *args: (may_write.wait(10), write(*args))[1])
    state = {"w": np.zeros(3)}
    with train.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        state["w"][:] = 5.0
        may_write.set()
    assert restored(tmp_path).state["w"].tolist() == [0, 0, 0]


def test_donated_states_are_saved_whole(tmp_path):
    step = fl.jit(lambda w, batch: (w + batch, {}), donate_argnums=0)
    train.fit(
        step, np.zeros(1000), [1.0] * 20, checkpoint=train.Checkpoints(tmp_path, every=1, keep=20), show=False
    )
    checkpoints = train.Checkpoints(tmp_path)
    for n in range(1, 21):
        found = checkpoints.restore(like=np.zeros(1000), step=n)
        assert np.all(found.state == n)


def test_saving_goes_on_beside_the_training(tmp_path, monkeypatch):
    may_write, write = threading.Event(), module.write
    monkeypatch.setattr(module, "write", lambda *args: (may_write.wait(10), write(*args))[1])
    checkpoints = train.Checkpoints(tmp_path)
    begin = time.perf_counter()
    checkpoints.save(1, {"w": np.zeros(3)})
    assert time.perf_counter() - begin < 5 and checkpoints.steps() == []
    may_write.set()
    checkpoints.close()
    assert checkpoints.steps() == [1]


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_goes_wrong_in_the_background_is_raised_by_the_next_call(tmp_path, monkeypatch):
    fill(tmp_path, [1])
    checkpoints = train.Checkpoints(tmp_path)
    monkeypatch.setattr(os, "fsync", full_disk)
    checkpoints.save(2, {"w": np.zeros(3)})
    with pytest.raises(train.CheckpointError, match="step-00000002.safetensors could not be written: .*No space left"):
        checkpoints.save(3, {"w": np.zeros(3)})
    checkpoints.close()
    monkeypatch.undo()
    assert restored(tmp_path).step == 1 and sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001.safetensors"]


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_stops_a_run_and_leaves_what_was_saved(tmp_path, monkeypatch, background):
    def fill_the_disk(run):
        if run.step == 5:
            kept.wait()
            monkeypatch.setattr(os, "fsync", full_disk)

    def step(w, batch):
        return w + batch, {"w": w}

    kept = train.Checkpoints(tmp_path, every=2, background=background)
    with pytest.raises(train.CheckpointError, match="No space left on device"):
        train.fit(step, 0.0, [1.0] * 20, checkpoint=kept, callbacks=[fill_the_disk], show=False)
    monkeypatch.undo()
    assert train.Checkpoints(tmp_path).steps() == [2, 4]
    result = train.fit(step, 0.0, [1.0] * 20, checkpoint=tmp_path, show=False)
    assert result.state == 20.0 and result.history["w"] == [(n + 1, float(n)) for n in range(20)]


def test_half_written_files_of_killed_processes_are_removed(tmp_path):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    torn = tmp_path / f"step-00000009.safetensors.tmp-{gone.pid}-3"
    alive = tmp_path / f"step-00000009.safetensors.tmp-{os.getppid()}-3"
    for path in (torn, alive):
        path.write_bytes(b"half")
    assert train.Checkpoints(tmp_path).restore(like=0) is None and torn.exists()
    fill(tmp_path, [1])
    assert not torn.exists() and alive.exists()


def test_the_best_stays(tmp_path):
    values = iter([0.1, 0.5, 0.3, 0.2])
    kept = train.Checkpoints(tmp_path, keep=1, best="eval/accuracy", largest_is_best=True)
    train.fit(
        lambda s, b: (s + b, {}), 0, [1, 1], epochs=4, checkpoint=kept, show=False,
        evaluate=lambda s: {"accuracy": next(values)},
    )
    assert kept.steps() == [8] and kept.restore_best(like=0).step == 4
    resumed = train.Checkpoints(tmp_path, keep=1, best="eval/accuracy", largest_is_best=True)
    values = iter([0.4, 0.6])
    train.fit(
        lambda s, b: (s + b, {}), 0, [1, 1], epochs=5, checkpoint=resumed, show=False,
        evaluate=lambda s: {"accuracy": next(values)},
    )
    assert resumed.restore_best(like=0).step == 4
    with pytest.raises(ArgumentError, match="there is no figure `eval/accuracy`; there are none"):
        kept = train.Checkpoints(tmp_path / "b", best="eval/accuracy")
        train.fit(lambda s, b: (s + b, {}), 0, [1, 1], checkpoint=kept)


def test_a_best_one_that_was_killed_before_it_had_its_name_gets_it_later(tmp_path, monkeypatch):
    def run(losses, epochs):
        losses = iter(losses)
        train.fit(
            lambda s, b: (s + b, {}), 0, [1], epochs=epochs, show=False, evaluate=lambda s: {"loss": next(losses)},
            checkpoint=train.Checkpoints(tmp_path, best="eval/loss", keep=2),
        )

    monkeypatch.setattr(module, "_keep_as", lambda *_: None)
    run([3.0, 2.0, 1.0], 3)
    monkeypatch.undo()
    run([9.0] * 5, 8)
    assert train.Checkpoints(tmp_path).restore_best(like=0).step == 3


def test_the_best_is_copied_where_the_file_system_has_no_links(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", full_disk)
    with train.Checkpoints(tmp_path, best="loss") as kept:
        kept.judge({"loss": 1.0})
        kept.save(1, 5)
    assert kept.restore_best(like=0).state == 5


def test_the_smallest_is_the_best_by_default_and_nan_never_is():
    checkpoints = train.Checkpoints("unused", best="loss")
    judged = [checkpoints.judge({"loss": value}) for value in (float("nan"), 2.0, 3.0, 1.0, 1.0)]
    assert judged == [False, True, False, True, False]


def test_seconds_between_checkpoints(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr("functorch_lite.train.loop._TICK", 0.0)

    def later(run):
        clock[0] += 1.0

    kept = train.Checkpoints(tmp_path / "a", seconds=3.0, keep=99, background=False)
    train.fit(lambda s, b: (s + b, {}), 0, [1] * 11, checkpoint=kept, callbacks=[later], show=False)
    assert kept.steps() == [3, 6, 9, 11]
    kept = train.Checkpoints(tmp_path / "b", keep=99)
    train.fit(lambda s, b: (s + b, {}), 0, [1] * 1300, checkpoint=kept, callbacks=[later], show=False)
    assert kept.steps() == [600, 1200, 1300]


@pytest.mark.parametrize("name", ["every", "seconds", "keep"])
def test_periods_must_be_positive(name):
    with pytest.raises(ArgumentError, match=f"`{name}` should be above 0, but is 0"):
        train.Checkpoints("x", **{name: 0})


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_torn_file_is_passed_over_with_a_warning(tmp_path):
    checkpoints = fill(tmp_path, [1, 2, 3])
    path = checkpoints.path(3)
    path.write_bytes(path.read_bytes()[:-5])
    checkpoints.path(2).write_bytes(b"PK\x03\x04 not ours")
    with pytest.warns(train.CheckpointWarning) as warned:
        assert restored(tmp_path).step == 1
    texts = [str(w.message) for w in warned]
    assert "step-00000003.safetensors is torn: it should have" in texts[0] and "passed over for step 1" in texts[0]
    assert "step-00000002.safetensors is not a safetensors file but a zip archive" in texts[1]


def test_a_file_of_train_save_is_no_checkpoint_of_a_run(tmp_path):
    train.save(tmp_path / "step-00000005.safetensors", {"w": np.zeros(3)}, {"step": 5})
    fill(tmp_path, [1])
    with pytest.warns(train.CheckpointWarning, match="written by train.save, not by Checkpoints"):
        assert restored(tmp_path).step == 1


def test_where_none_is_whole_that_is_an_error(tmp_path):
    checkpoints = fill(tmp_path, [1, 2])
    for step in (1, 2):
        checkpoints.path(step).write_bytes(b"")
    with pytest.raises(train.CheckpointError, match="no checkpoint is whole: .*00000002.* is torn.*00000001.* is torn"):
        restored(tmp_path)


def test_a_run_goes_on_from_the_newest_whole_file(tmp_path):
    def step(w, batch):
        return w + batch, {"w": w}

    train.fit(step, 0.0, [1.0] * 6, checkpoint=train.Checkpoints(tmp_path, every=2), show=False)
    path = train.Checkpoints(tmp_path).path(6)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(train.CheckpointWarning, match="passed over for step 4"):
        result = train.fit(step, 0.0, [1.0] * 6, checkpoint=tmp_path, show=False)
    assert result.state == 6.0 and len(result.history["w"]) == 6


def test_another_model_is_told_by_path_expected_and_found(tmp_path):
    train.fit(lambda s, b: (s, {}), {"w": np.zeros(3)}, [1], checkpoint=tmp_path, show=False)
    with pytest.raises(ShapeError, match=r"`state\['w'\]`: expected float64\[4\], found float64\[3\]"):
        train.fit(lambda s, b: (s, {}), {"w": np.zeros(4)}, [1], checkpoint=tmp_path, show=False)
    with pytest.raises(TreeError, match=r"expected and not found: `state\['v'\]`"):
        train.fit(lambda s, b: (s, {}), {"v": np.zeros(3)}, [1], checkpoint=tmp_path, show=False)


def test_files_saved_by_hand_are_no_run(tmp_path):
    fill(tmp_path, [1])
    with pytest.raises(ArgumentError, match="was not saved by `fit`; restore it by hand"):
        train.fit(lambda s, b: (s, {}), {"w": np.zeros(3)}, [1], checkpoint=tmp_path)


# --- resuming ---------------------------------------------------------------------------------------------------------


class State(NamedTuple):
    w: Any
    key: Any
    count: Any


@fl.jit
def noisy_step(state, batch):
    key, noise_key = fl.random.split(state.key)
    loss, grad = fl.value_and_grad(lambda w: ((w - batch) ** 2).mean())(state.w)
    w = state.w - np.float32(0.1) * grad + np.float32(0.01) * fl.random.normal(noise_key, (3,))
    metrics = {"loss": loss, "mean": train.Mean.of(w), "area": train.AUROC.of(w, np.array([0, 1, 1]))}
    return State(w, key, state.count + 1), metrics


def start():
    return State(np.zeros(3, np.float32), fl.random.key(0), 0)


class Loader:
    """Like those of `functorch_lite.data`: it keeps its own place."""

    def __init__(self):
        self.place = (0, 0)

    def __len__(self):
        return 7

    def __iter__(self):
        epoch = self.place[0]
        while self.place[0] == epoch:
            index = self.place[1]
            self.place = (epoch, index + 1) if index < 6 else (epoch + 1, 0)
            yield np.full(3, epoch + index, np.float32)

    def state(self):
        return {"place": list(self.place)}

    def restore(self, state):
        self.place = tuple(state["place"])


class GrainLike:
    """An iterable without a length whose iterators keep the place, as those of Grain do."""

    def __iter__(self):
        return GrainLikeIterator()


class GrainLikeIterator:
    def __init__(self):
        self.index = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.index == 7:
            raise StopIteration
        self.index += 1
        return np.full(3, self.index, np.float32)

    def get_state(self):
        return str(self.index).encode()

    def set_state(self, state):
        self.index = int(state)


class Firsts:
    """The inputs of a loader of (inputs, targets), as batches [3]."""

    def __init__(self, loader):
        self._loader = loader
        self.state, self.restore = loader.state, loader.restore

    def __len__(self):
        return len(self._loader)

    def __iter__(self):
        return (x[:, 0] for x, _ in self._loader)


ROWS = np.random.default_rng(0).normal(size=(21, 3)).astype(np.float32)

KINDS = {
    "list": lambda: [np.full(3, i, np.float32) for i in range(7)],
    "function": lambda: lambda epoch: (np.full(3, epoch + i, np.float32) for i in range(7)),
    "loader": Loader,
    "iterator": GrainLike,
    "data.Loader": lambda: data.Loader(ROWS[:, 0], 3, seed=0).prefetch(2),
    "data.Windows": lambda: Firsts(data.Windows(np.arange(99, dtype=np.float32), 2, 3, seed=1, n_batches=7)),
    "data.Dataset": lambda: data.Dataset.from_arrays(ROWS[:, 0]).shuffle(3).batch(3),
    "data.Dataset, filtered": lambda: data.Dataset.from_arrays(ROWS[:, 0]).shuffle(3).filter(lambda x: x < 99).batch(3),
    "data.Dataset, repeated": lambda: data.Dataset.from_arrays(ROWS[:9, 0]).shuffle(3).batch(3).repeat(2),
}
EPOCH = {"data.Dataset, repeated": 6}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [1, 6, 7, 8, 14, 17])
def test_a_run_resumed_anywhere_is_the_uninterrupted_one(tmp_path, kind, stop):
    def run(steps=None, folder=None):
        return train.fit(
            noisy_step, start(), KINDS[kind](), epochs=3, show=False, checkpoint=folder,
            evaluate=lambda state: {"w": state.w.sum()},
            callbacks=[lambda run: os.kill(os.getpid(), 2) if run.step == steps else None],
        )

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(stop, tmp_path)
    assert train.Checkpoints(tmp_path).steps()[-1] == stop
    resumed = run(None, tmp_path)
    assert resumed.step == whole.step == 3 * EPOCH.get(kind, 7) and resumed.history == whole.history
    for a, b in zip(fl.tree.leaves(resumed.state), fl.tree.leaves(whole.state), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_finished_run_is_not_run_again(tmp_path):
    train.fit(noisy_step, start(), KINDS["list"](), epochs=2, checkpoint=tmp_path, show=False)
    calls = []
    again = train.fit(
        noisy_step, start(), KINDS["list"](), epochs=2, checkpoint=tmp_path, show=False, callbacks=[calls.append]
    )
    assert again.step == 14 and calls == [] and len(again.history["loss"]) == 14
    longer = train.fit(noisy_step, start(), KINDS["list"](), epochs=3, checkpoint=tmp_path, show=False)
    assert longer.step == 21


def test_early_stopping_remembers_over_a_resume(tmp_path):
    def run(epochs, values):
        values = iter(values)
        stopping = train.EarlyStopping("eval/loss", patience=3)
        result = train.fit(
            noisy_step, start(), KINDS["list"](), epochs=epochs, checkpoint=tmp_path, callbacks=[stopping], show=False,
            evaluate=lambda s: {"loss": next(values)},
        )
        return result, stopping

    run(3, [1.0, 2.0, 2.0])
    result, stopping = run(9, [2.0, 0.5])
    assert result.step == 4 * 7 and stopping.best == 1.0
    assert run(9, [])[0].step == 4 * 7


def test_another_kind_of_batches_is_refused(tmp_path):
    train.fit(noisy_step, start(), Loader(), steps=3, checkpoint=tmp_path, show=False)
    with pytest.raises(ArgumentError, match="made with a loader with state.. and restore..; pass the same kind"):
        train.fit(noisy_step, start(), KINDS["list"](), steps=5, checkpoint=tmp_path, show=False)


def test_fewer_batches_than_before_are_refused(tmp_path):
    train.fit(noisy_step, start(), KINDS["list"](), steps=5, checkpoint=tmp_path, show=False)
    with pytest.raises(ArgumentError, match="after batch 5 of epoch 0, but there are only 4 batches now"):
        train.fit(noisy_step, start(), KINDS["list"]()[:4], steps=9, checkpoint=tmp_path, show=False)


def test_everything_a_run_needs_is_in_the_file(tmp_path):
    train.fit(noisy_step, start(), Loader(), steps=9, checkpoint=tmp_path, show=False)
    found = read(train.Checkpoints(tmp_path).path(9))
    assert {"state.w", "state.key", "state.count"} <= set(found.values)
    fit = found.metadata["user"]["fit"]
    assert fit["feed"] == {"epoch": 1, "batch": 2, "loader": {"place": [1, 2]}} and found.metadata["step"] == 9


def test_the_place_of_grain_is_kept(tmp_path):
    grain = pytest.importorskip("grain", reason="the place is that of Grain's iterators")

    def batches():
        rows = grain.MapDataset.source([np.full(3, i, np.float32) for i in range(7)]).shuffle(seed=5)
        return rows.to_iter_dataset()

    whole = train.fit(noisy_step, start(), batches(), epochs=2, show=False)
    train.fit(noisy_step, start(), batches(), steps=10, show=False, checkpoint=tmp_path)
    assert "iterator" in read(train.Checkpoints(tmp_path).path(10)).metadata["user"]["fit"]["feed"]
    resumed = train.fit(noisy_step, start(), batches(), epochs=2, show=False, checkpoint=tmp_path)
    assert resumed.state.w.tobytes() == whole.state.w.tobytes() and resumed.history["loss"] == whole.history["loss"]
