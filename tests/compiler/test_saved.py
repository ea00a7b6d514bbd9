# SPDX-License-Identifier: MIT
"""Programs found on disk: what a second process runs without lowering anything."""

import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler.runtime import linking, saved
from functorch_lite.compiler.runtime.object_cache import objects

TABLE = np.linspace(0, 1, 50, dtype=np.float32)


def executable_of(f, *args):
    f(*args)
    return next(reversed(f._cache.values())).executable


@pytest.fixture
def folder(tmp_path):
    with fl.config(cache_dir=str(tmp_path)):
        objects.forget()
        yield tmp_path
    objects.forget()


def test_an_equal_program_is_found(folder):
    def f(x):
        return np.sin(x) @ np.cos(x).T + TABLE.sum(), x[::-1] * 2

    x = np.ones((5, 7), np.float32)
    first = executable_of(fl.jit(lambda x: f(x)), x)
    second = executable_of(fl.jit(lambda x: f(x)), x)
    assert type(first).__name__ == "Executable" and type(second).__name__ == "SavedExecutable"
    assert second.arena_bytes == first.arena_bytes and second.work == first.work
    for one, two in zip(first(x), second(x), strict=True):
        np.testing.assert_array_equal(one, two)
    assert str(second.lowered.function) and second.is_native


def test_constants_are_kept_with_the_code(folder):
    for _ in range(2):
        f = fl.jit(lambda i: fl.numpy.take(TABLE, i, 0) * 2)
        np.testing.assert_array_equal(f(np.array([3, 4])), TABLE[[3, 4]] * 2)
    for dtype in (np.complex64, fl.numpy.bfloat16):
        small = np.arange(6).astype(dtype)
        for _ in range(2):
            np.testing.assert_array_equal(fl.jit(lambda x, s=small: x + s)(small), small + small)


def test_another_program_type_or_donation_has_another_key(folder):
    x = np.ones(4)
    programs = [fl.make_program(f)(a) for f, a in (
        (np.sin, x), (np.cos, x), (np.sin, x.astype(np.float32)), (lambda x: np.sin(x)[::-1], x))]
    keys = [saved.key_of(p, ()) for p in programs] + [saved.key_of(programs[0], (0,))]
    assert None not in keys and len(set(keys)) == 5


def test_what_belongs_to_a_process_is_not_kept(folder):
    def twice(x):
        return fl.pure_callback(lambda a: a * 2, fl.ShapeDtype((3,), np.float64), x)

    for _ in range(2):
        assert type(executable_of(fl.jit(lambda x: twice(x)), np.ones(3))).__name__ == "Executable"
    assert saved.key_of(fl.make_program(twice)(np.ones(3)), ()) is None
    with fl.config(cache_dir=""):
        assert saved.key_of(fl.make_program(np.sin)(1.0), ()) is None


def test_a_torn_file_is_compiled_anew(folder):
    x = np.ones(9)
    executable_of(fl.jit(lambda x: np.exp(x) - 1), x)
    for file in (folder / "objects").iterdir():
        file.write_bytes(file.read_bytes()[:-7])
    objects.forget()
    again = executable_of(fl.jit(lambda x: np.exp(x) - 1), x)
    assert type(again).__name__ == "Executable"
    np.testing.assert_allclose(again(x)[0], np.expm1(x))


def test_a_second_process_imports_no_lowering(tmp_path):
    script = textwrap.dedent(f"""
        import sys
        import numpy as np
        import functorch_lite as fl
        fl.config.update(cache_dir={str(tmp_path)!r})
        f = fl.jit(fl.grad(lambda x: np.sum(np.tanh(x) ** 2)))
        print(f(np.arange(3.0)).tolist(), "functorch_lite.compiler.lowering.program" in sys.modules)
    """)
    found = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
             for _ in range(2)]
    assert found[0].endswith("True\n") and found[1].endswith("False\n")
    assert found[0].split("]")[0] == found[1].split("]")[0]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no timers that send signals")
def test_long_loops_are_kept_and_end_on_a_signal(folder):
    def count(x):
        return fl.lax.while_loop(lambda c: c[0] > 0, lambda c: (c[0] - 1, np.sin(c[1]) + 1), (x, 0.5))[1]

    first, second = (executable_of(fl.jit(lambda x: count(x)), 40) for _ in range(2))
    assert type(first).__name__ == "Executable" and type(second).__name__ == "SavedExecutable"
    assert "poll_signals" in second.symbols
    assert first(np.int64(10)) == second(np.int64(10))
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("rang")))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(TimeoutError, match="rang"):
            second(np.int64(1 << 62))
    finally:
        signal.signal(signal.SIGALRM, before)
    for status, error in ((2, MemoryError), (7, RuntimeError)):
        with pytest.raises(error):
            second.fail(status)


def test_a_second_process_imports_no_llvm(tmp_path):
    script = textwrap.dedent(f"""
        import sys
        import numpy as np
        import functorch_lite as fl
        fl.config.update(cache_dir={str(tmp_path)!r}, num_threads=2)
        f = fl.jit(lambda x: np.sum(np.cos(x)))  # shares a loop
        g = fl.jit(lambda x: fl.lax.while_loop(lambda c: c < 1e9, lambda c: c * 1.01, x))  # looks for signals
        print(f(np.ones(1 << 20)), g(1.0), "llvmlite.binding" in sys.modules)
    """)
    found = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
             for _ in range(2)]
    assert found[0][:2] == found[1][:2]
    assert [words[2] for words in found] == ["True", "False" if linking.is_for_this_platform() else "True"]
