# SPDX-License-Identifier: MIT
"""Choices by the clock: the same bits, kept for later, shown, made without harm to arguments."""

import subprocess
import sys

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.dumps import module_of
from functorch_lite.compiler.runtime import tuning
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.compiler.runtime.tuning import TunedExecutable, fastest, measured
from functorch_lite.compiler.schedule import streaming
from functorch_lite.compiler.schedule.choices import USUAL, Choices, candidates

N = 300_001


@pytest.fixture(autouse=True)
def memory_only():
    """Nothing on disk, and nothing known from tests before."""
    with fl.config(cache_dir="", num_threads=2):
        objects.forget()
        yield


@pytest.fixture
def pick(monkeypatch):
    """Have the clock prefer a candidate, by number."""
    def prefer(number):
        monkeypatch.setattr(tuning, "fastest", lambda times: min(number, len(times) - 1))

    return prefer


def several(x, w):
    return np.exp(x[: N // 3]), x * 2 + w  # a loop of medium length, and a long one that streams


def arrays():
    return np.linspace(-2, 2, N, dtype=np.float32), np.linspace(0, 1, N, dtype=np.float32)


def executable_of(jitted):
    return next(iter(jitted._cache.values())).executable


@pytest.mark.parametrize("number", range(5))
def test_every_choice_gives_the_same_bits_and_is_shown(number, pick, monkeypatch):
    monkeypatch.setattr(streaming, "STREAM_BYTES", 0)
    expected = fl.jit(several)(*arrays())
    pick(number)
    with fl.config(autotune=True):
        tuned = fl.jit(several)
        calls = [tuned(*arrays()) for _ in range(4)]
    for found in calls:
        assert all(np.array_equal(f, e) for f, e in zip(found, expected, strict=True))
    (entry,) = tuned.cache_info().entries
    assert entry.choices == str(executable_of(tuned).choices)
    assert (entry.choices == "as usual") == (number == 0)


def test_candidates_make_different_code(monkeypatch):
    monkeypatch.setattr(streaming, "STREAM_BYTES", 0)
    with fl.config(autotune=True):
        tuned = fl.jit(several)
        tuned(*arrays())
        executable = executable_of(tuned)
        texts = [module_of(executable.lowered, executable.plan, choices=c) for c in candidates(2)]
    assert "!nontemporal" in texts[0] and "!nontemporal" not in texts[1]
    assert len(set(texts)) >= 4
    assert candidates(1) == [USUAL, Choices(streams=False)]


def test_a_choice_is_kept_and_nothing_is_measured_again(pick, monkeypatch):
    pick(2)
    with fl.config(autotune=True):
        first = fl.jit(several)
        first(*arrays())
        chosen = executable_of(first).choices
        assert chosen != USUAL
        monkeypatch.setattr(tuning, "measured", None)
        again = fl.jit(lambda x, w: several(x, w))
        again(*arrays())
        assert executable_of(again).choices == chosen
        assert again.cache_info().entries[0].choices == str(chosen)


def test_a_choice_is_kept_for_other_processes(tmp_path):
    code = f"""
import numpy as np, functorch_lite as fl
from functorch_lite.compiler.runtime import tuning
fl.config.update(autotune=True, cache_dir={str(tmp_path)!r}, num_threads=2)
tuning.fastest = lambda times: len(times) - 1
measured = []
tuning.measured = lambda runs: measured.append(1) or [1.0] * len(runs)
f = fl.jit(lambda x: np.exp(x) * 2)
f(np.ones({N}, np.float32))
print(len(measured), f.cache_info().entries[0].choices)
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    shown = [run.stdout.split(" ", 1) for run in runs]
    assert [s[0] for s in shown] == ["1", "0"]
    assert shown[0][1] == shown[1][1] != "as usual\n"


def test_donated_arguments_are_not_harmed_by_the_runs(pick):
    pick(1)
    with fl.config(autotune=True):
        step = fl.jit(lambda p, g: {"w": p["w"] - g}, donate_argnums=0, donate="must")
        donated = {"w": np.ones(N, np.float32)}
        where = donated["w"].ctypes.data
        found = step(donated, np.full(N, 0.25, np.float32))["w"]
    assert found.ctypes.data == where
    assert (found == 0.75).all()


def test_steps_in_python_run_once_a_call():
    calls = []

    def note(x):
        calls.append(1)
        return x

    def run(x):
        return fl.pure_callback(note, fl.ShapeDtype(x.shape, x.dtype), x) * 2

    with fl.config(autotune=True):
        f = fl.jit(run)
        f(np.ones(1000))
        f(np.ones(1000))
    assert len(calls) == 2
    assert f.cache_info().entries[0].choices == "as usual"


def test_an_index_out_of_range_is_told():
    with fl.config(autotune=True):
        f = fl.jit(lambda x, i: x[i])
        with pytest.raises(IndexError):
            f(np.ones((100, 300)), np.array([3, 100]))
        assert not executable_of(f)._is_tuned
        assert (f(np.ones((100, 300)), np.array([3, 99])) == 1).all()
        assert executable_of(f)._is_tuned


def test_verify_and_profile_are_not_tuned():
    with fl.config(autotune=True):
        for f in (fl.jit(several, verify=True), fl.jit(several, profile=True)):
            f(*arrays())
            assert not isinstance(executable_of(f), TunedExecutable)


def test_the_usual_stays_unless_another_is_clearly_faster():
    assert fastest([1.0, 0.99, 2.0]) == 0
    assert fastest([1.0, 0.9, 0.8]) == 2
    order = []
    times = measured([lambda: order.append(0), lambda: order.append(1)])
    assert len(times) == 2 and order[:4] == [0, 1, 0, 1]


def test_choices_say_what_they_are():
    assert [str(c) for c in candidates(2)] == [
        "as usual", "no output streamed", "loops of 20 us shared", "no loop shared",
        "no loop shared, no output streamed",
    ]
