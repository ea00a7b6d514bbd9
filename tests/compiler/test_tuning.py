# SPDX-License-Identifier: MIT
"""Choices by the clock: the same bits, kept for later, shown, made without harm to arguments."""

import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.dumps import module_of
from functorch_lite.compiler.lowering.cutting import OF_CONVOLUTIONS, OF_PRODUCTS, Cutting
from functorch_lite.compiler.pipeline import optimize
from functorch_lite.compiler.runtime import tuning
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.compiler.runtime.tuning import Candidate, Record, TunedExecutable, fastest, measured
from functorch_lite.compiler.schedule import streaming
from functorch_lite.compiler.schedule.choices import USUAL, Choices, candidates, cuttings

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
        f = fl.jit(lambda x, i: (x[i], np.exp(x)))
        with pytest.raises(IndexError):
            f(np.zeros((1000, 300)), np.array([3, 1000]))
        assert not executable_of(f)._is_tuned
        assert (f(np.zeros((1000, 300)), np.array([3, 99]))[1] == 1).all()
        assert executable_of(f)._is_tuned


def test_a_function_is_tuned_where_it_asks_for_it(pick):
    pick(1)
    tuned, plain = fl.jit(several, autotune=True), fl.jit(several)
    for f in (tuned, plain):
        f(*arrays())
    assert isinstance(executable_of(tuned), TunedExecutable)
    assert not isinstance(executable_of(plain), TunedExecutable)
    again = pickle.loads(pickle.dumps(fl.jit(np.tanh, autotune=True)))
    again(np.ones(3))
    assert isinstance(executable_of(again), TunedExecutable)
    with fl.config(autotune=True):
        calm = fl.jit(several, autotune=False)
        calm(*arrays())
    assert not isinstance(executable_of(calm), TunedExecutable)


@pytest.mark.parametrize("verify", [True, False])
def test_what_counts_or_checks_is_not_tuned_when_both_are_asked_for(verify):
    with pytest.raises(fl.errors.ArgumentError, match="autotune cannot"):
        fl.jit(np.tanh, autotune=True, verify=verify, profile=not verify)


def test_choices_and_what_was_measured_are_a_stage(pick):
    pick(2)
    lowered = fl.jit(several, autotune=True).lower(*arrays())
    assert re.match(r"as usual\nk\d: a loop of \d+ shared, \d+ and more at a time", lowered.as_text("choices"))
    compiled = lowered.compile()
    assert compiled.as_text("choices").endswith("to be measured by the first call")
    compiled(*arrays())
    first, *_, last = compiled.as_text("choices").splitlines()
    assert first == str(compiled._executable.choices) != "as usual"
    assert re.fullmatch(rf"measured, in ms: as usual [\d.]+, .*{first} [\d.]+.*", last)
    assert compiled.as_text("llvm") == compiled._executable.ir


@pytest.mark.parametrize("data", [
    b"", b"\xff\x00", b"((((", b"[1, 2]", b"(None, True, (1.0, 1, False))", b"(5.0, True, (1.0, 1, False), {})",
    b"(None, True, (9.0, 1, False), {})", b"(None, True, (1.0, 1, False), {'x': 'y'})", b"{}", b"None",
])
def test_what_is_no_record_of_a_choice_is_absent_and_written_anew(data, pick):
    pick(1)
    first = fl.jit(several, autotune=True)
    expected = first(*arrays())
    key, choices = executable_of(first)._key, executable_of(first).choices
    objects.store(key, data)
    again = fl.jit(lambda x, w: several(x, w), autotune=True)
    assert all(map(np.array_equal, again(*arrays()), expected))
    assert executable_of(again).choices == choices != USUAL
    record = Record.unpacked(objects.find(key) or b"")
    assert record is not None and record.choices == choices


def test_a_torn_or_foreign_file_is_absent(tmp_path, pick):
    pick(1)
    with fl.config(cache_dir=str(tmp_path)):
        first = fl.jit(several, autotune=True)
        first(*arrays())
        file = tmp_path / "objects" / f"{executable_of(first)._key}.o"
        for content in (b"of another program", file.read_bytes()[:-3]):
            file.write_bytes(content)
            objects.forget()
            again = fl.jit(lambda x, w: several(x, w), autotune=True)
            again(*arrays())
            assert executable_of(again).choices == executable_of(first).choices != USUAL
            assert file.read_bytes() != content


# --- products and convolutions ----------------------------------------------------------------------------------------

PROBLEMS = {
    "tall": lambda x: x[:1500].reshape(1500, 40) @ x[1500:1540].reshape(40, 40)[:, :30],
    "wide": lambda x: x[:40].reshape(40, 40) @ np.moveaxis(x[40:1540].reshape(1500, 40), 0, 1),
    "square": lambda x: x[:400].reshape(100, 160) @ x[400:1600].reshape(160, 300),
    "epilogue": lambda x: np.maximum(x[:400].reshape(100, 160) @ x[400:1600].reshape(160, 300) + x[:300, 0], 0),
    "sums": lambda x: np.sum(np.tanh(x[:400].reshape(100, 160) @ x[400:1600].reshape(160, 300)), axis=0),
    "convolution": lambda x: fl.lax.conv_general_dilated(
        x[:1568].reshape(8, 10, 28, 28), x[:54].reshape(24, 10, 3, 3), (1, 1), [(1, 1)] * 2),
    "strided": lambda x: fl.lax.conv_general_dilated(
        x[:441].reshape(2, 10, 21, 42), x[:54].reshape(24, 10, 3, 3), (2, 2), [(0, 1)] * 2),
    "3-D": lambda x: np.tanh(fl.lax.conv_general_dilated(
        x[:800].reshape(2, 2, 20, 20, 20), x[:27].reshape(20, 2, 3, 3, 3), (1,) * 3, [(1, 1)] * 3)),
    "1x1": lambda x: fl.lax.conv_general_dilated(
        x[:1568].reshape(8, 10, 28, 28), x[:6].reshape(24, 10, 1, 1), (1, 1), [(0, 0)] * 2),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_cutting_changes_a_bit(name):
    x = np.random.default_rng(0).standard_normal((1600, 40)).astype(np.float32)
    program = optimize(fl.make_program(PROBLEMS[name])(x))
    every = Cutting(), *OF_CONVOLUTIONS, *OF_PRODUCTS
    found = [Candidate(program, program, (), Choices(cutting=c))(x) for c in every]
    for outs in found[1:]:
        assert outs[0].tobytes() == found[0][0].tobytes()


def test_cuttings_make_different_code_and_are_tried_where_there_is_something_to_cut(pick):
    def run(x, w):
        return fl.lax.conv_general_dilated(x, w, (1, 1), [(1, 1)] * 2)

    pick(1)
    arrays = np.ones((8, 16, 28, 28), np.float32), np.ones((32, 16, 3, 3), np.float32)
    tuned = fl.jit(run, autotune=True)
    expected = fl.jit(run)(*arrays)
    assert np.array_equal(tuned(*arrays), expected)
    assert executable_of(tuned).choices.cutting != Cutting()
    assert str(executable_of(tuned).choices) in executable_of(tuned).seconds
    assert np.array_equal(tuned(*arrays), expected)
    assert cuttings(frozenset({"add", "reduce_sum"})) == []
    assert cuttings(frozenset({"dot_general"})) == list(OF_PRODUCTS)


def test_little_is_compiled_when_that_takes_long(monkeypatch):
    monkeypatch.setattr(tuning, "COMPILING", 0.0)
    tuned = fl.jit(several, autotune=True)
    tuned(*arrays())
    assert executable_of(tuned).choices == USUAL and executable_of(tuned).seconds == {}


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
