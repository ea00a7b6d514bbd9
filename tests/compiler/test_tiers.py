# SPDX-License-Identifier: MIT
"""Code made quickly for a first call, and better code in the background after the second."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import lax
from functorch_lite.compiler.loop_ir.polls import has_polls
from functorch_lite.compiler.runtime import saved, threads
from functorch_lite.compiler.runtime.object_cache import objects
from functorch_lite.compiler.runtime.tiers import Improver, improver

X = np.linspace(-2, 3, 1001, dtype=np.float32)


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path):
    before = fl.config.cache_dir
    fl.config.update(cache_dir=str(tmp_path))  # for the whole process: builtins answer calls
    objects.forget()
    yield
    improver.finish()
    fl.config.update(cache_dir=before)
    objects.forget()


def executable_of(f):
    return next(reversed(f._cache.values())).executable


def address(executable):
    return int(executable._word[0])


def test_the_second_call_asks_for_better_code():
    f = fl.jit(lambda x: np.tanh(x) * np.exp(-x) + np.sum(x))
    first = f(X)
    executable = executable_of(f)
    assert executable.is_quick and threading.active_count() == 1
    before = address(executable)
    np.testing.assert_array_equal(f(X), first)
    improver.finish()
    assert not executable.is_quick and address(executable) != before
    np.testing.assert_array_equal(f(X), first)
    assert threading.active_count() == 1


def test_a_builtin_that_was_made_before_runs_the_better_code():
    f = fl.jit(lambda x: x * 3 + 1)
    g = fl.jit(lambda x: x * 5 + 2)
    for _ in range(3):
        f(X)
        g(X)
    assert len(f._builtins) == 1
    improver.finish()
    np.testing.assert_array_equal(f(X), X * 3 + 1)
    executable_of(f)._enter(executable_of(g)._code[-1], False)  # the builtin reads the word at each call
    np.testing.assert_array_equal(f(X), X * 5 + 2)


def test_what_runs_long_is_made_well_at_once():
    endless = fl.jit(lambda x: lax.while_loop(lambda c: c < 100, lambda c: c + 1, x))
    assert endless(0.0) == 100 and not executable_of(endless).is_quick
    large = fl.jit(lambda x: x + 1)
    large(np.zeros(50_000_000, np.float32))
    assert not executable_of(large).is_quick


def test_a_loop_of_known_length_may_be_made_quickly():
    f = fl.jit(lambda x: lax.scan(lambda c, _: (np.tanh(c) + 1, None), x, None, length=2000)[0])
    x = np.ones(400, np.float32)
    first = f(x)
    executable = executable_of(f)
    assert has_polls(executable.lowered.function.body) and executable.is_quick
    executable.improve()
    np.testing.assert_array_equal(f(x), first)


@pytest.fixture
def three_threads():
    before = fl.config.num_threads
    fl.config.update(num_threads=3)
    yield
    fl.config.update(num_threads=before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pools are for Linux")
@pytest.mark.usefixtures("three_threads")
def test_a_short_first_call_shares_no_loops_and_later_ones_do():
    def made(number):
        objects.forget()
        f = fl.jit(lambda x: np.exp(x) * number)
        return f, f(x)

    x = np.linspace(0, 1, 300_001, dtype=np.float32)
    f, first = made(2)
    executable = executable_of(f)
    assert executable.is_quick and executable.alone == 3 and not executable.shares
    f, again = made(2)
    executable = executable_of(f)
    assert isinstance(executable, saved.SavedExecutable) and executable.alone == 3 and not executable.shares
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(f(x), first)
    improver.finish()
    assert executable.shares and not executable.alone and not executable.is_quick
    np.testing.assert_array_equal(f(x), first)
    f, again = made(2)
    executable = executable_of(f)
    assert isinstance(executable, saved.SavedExecutable) and executable.shares and not executable.is_quick
    np.testing.assert_array_equal(again, first)
    f, first = made(3)
    executable = executable_of(f)
    assert executable.alone == 3
    executable.improve()
    assert executable.shares and not executable.alone
    np.testing.assert_array_equal(f(x), first)
    pool = threads.find_pool(3)
    assert pool is not None and pool.workers == 2


def test_what_is_compiled_by_hand_is_made_well():
    f = fl.jit(lambda x: np.cos(x) + 5)
    lowered = f.lower(X)
    compiled = lowered.compile()
    assert not compiled._executable.is_quick
    np.testing.assert_array_equal(compiled(X), f(X))


def test_well_made_code_that_is_kept_is_used_at_once():
    for _ in range(2):
        f = fl.jit(lambda x: np.sinh(x) - 1)
        f(X)
        f(X)
        improver.finish()
    f = fl.jit(lambda x: np.sinh(x) - 1)
    f(X)
    assert not executable_of(f).is_quick


def test_a_program_called_once_is_found_on_disk_and_improved_later():
    def made():
        objects.forget()
        f = fl.jit(lambda x: np.cosh(x) / 7)
        return f, f(X)

    f, first = made()
    assert executable_of(f).is_quick
    f, again = made()
    executable = executable_of(f)
    assert isinstance(executable, saved.SavedExecutable) and executable.is_quick
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(f(X), first)
    improver.finish()
    assert not executable.is_quick
    f, _ = made()
    assert isinstance(executable_of(f), saved.SavedExecutable) and not executable_of(f).is_quick


def test_a_failure_keeps_the_quick_code_and_warns():
    worker = Improver()
    done = []

    def fail():
        raise RuntimeError("no memory")

    with pytest.warns(UserWarning, match="keeps its quickly made code.*no memory"):
        worker.add(fail)
        worker.add(lambda: done.append(1))
        worker.finish()
    assert done == [1]


def test_many_tasks_from_many_threads_run_once_each():
    worker, done = Improver(), []
    threads = [
        threading.Thread(target=lambda k=k: [worker.add(lambda i=i: done.append((k, i))) for i in range(50)])
        for k in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    worker.finish()
    assert sorted(done) == [(k, i) for k in range(4) for i in range(50)]


def test_stopping_waits_for_the_task_in_the_works_and_forgets_the_rest():
    worker, begun, done = Improver(), threading.Event(), []

    def slow():
        begun.set()
        time.sleep(0.05)
        done.append("slow")

    worker.add(slow)
    worker.add(lambda: done.append("never"))
    begun.wait()
    worker.stop()
    assert done == ["slow"]


_FORKS = """
    import os, sys
    import numpy as np
    import functorch_lite as fl
    from functorch_lite.compiler.runtime.tiers import improver
    fl.config.update(cache_dir="")
    x = np.ones(100, np.float32)
    made = [fl.jit(lambda x, k=k: np.sin(x) * k + np.cumsum(x) - np.sort(x)) for k in range(6)]
    expected = [f(x) for f in made]
    for f in made:
        f(x)
    child = os.fork()
    fresh = fl.jit(lambda x: np.exp(x) + 1)
    for _ in range(2):
        fresh(x)
        for f, e in zip(made, expected):
            np.testing.assert_array_equal(f(x), e)
    if child:
        assert os.waitpid(child, 0)[1] == 0
        print("both fine")
"""
_ENDS = """
    import numpy as np
    import functorch_lite as fl
    fl.config.update(cache_dir="")
    x = np.ones((20, 30), np.float32)
    f = fl.jit(fl.grad(lambda x: np.sum(np.linalg.svd(x)[1]) + np.sum(np.sort(x) @ np.tanh(x).T)))
    f(x)
    f(x)
    print("ends")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
@pytest.mark.parametrize(("program", "said"), [(_FORKS, "both fine"), (_ENDS, "ends")], ids=["fork", "end"])
def test_a_process_forks_and_ends_while_code_is_made(program, said):
    quiet = "-Wignore::DeprecationWarning"  # from Python 3.12 on: forks beside threads
    command = [sys.executable, quiet, "-c", textwrap.dedent(program)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert (run.stdout.strip(), run.stderr) == (said, "")
