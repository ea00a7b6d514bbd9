# SPDX-License-Identifier: MIT
"""`config.deterministic`: the same bits for any number of threads, also from the libraries of NumPy and SciPy."""

import subprocess
import sys
import threading

import pytest

import functorch_lite as fl
from functorch_lite import blas_threads

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libraries are found on Linux")

_PROGRAMS = """
import sys, zlib
import numpy as np
import functorch_lite as fl

n = int(sys.argv[1])
fl.config.update(num_threads=n, deterministic=True, cache_dir="")
with_threads = fl.blas_threads._libraries()
assert with_threads and all(get() == 1 for get, _ in with_threads)

x = (np.arange(300 * 300) * 0.7919 % 3.7).reshape(300, 300)
s = x + x.T + 1000 * np.eye(300)
long = (np.arange(400_000) * 0.7919 % 3.7).astype(np.float32)
rows = long.reshape(400, 1000)
places = np.arange(400_000) * 7919 % 1000
programs = {
    "product": (lambda x: x @ x.T, x),
    "product32": (lambda x: x @ x.T, rows),
    "sum": (lambda x: np.sum(x), long),
    "softmax": (lambda x: np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True), rows),
    "add": (lambda x, i: fl.numpy.at(np.zeros(1000, np.float32))[i].add(x), long, places),
    "cumsum": (lambda x: np.cumsum(x), long),
    "sort": (lambda x: np.sort(x), long),
    "argsort": (lambda x: np.argsort(x), long),
    "cholesky": (lambda x: np.linalg.cholesky(x), s),
    "solve": (lambda x, y: np.linalg.solve(x, y), s, x),
    "eigh": (lambda x: np.linalg.eigh(x), s),
    "svd": (lambda x: np.linalg.svd(x), s),
    "gradient": (fl.grad(lambda x: np.sum(np.linalg.inv(x) @ x.T)), s),
}
for name, (f, *args) in programs.items():
    for how, run in (("compiled", fl.jit(f)), ("evaluated", f)):
        bits = b"".join(np.ascontiguousarray(a).tobytes() for a in fl.tree.leaves(run(*args)))
        print(name, how, zlib.crc32(bits))
"""


def outcomes(threads, libraries):
    environment = {"OPENBLAS_NUM_THREADS": str(libraries), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAMS, str(threads)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_any_number_of_threads_gives_the_same_bits():
    expected = outcomes(1, 1)
    assert len(expected) == 26
    assert outcomes(2, 2) == expected
    assert outcomes(4, 4) == expected


def threads():
    return [get() for get, _ in blas_threads._libraries()]


@pytest.fixture
def two():
    """Each library with two threads."""
    before = threads()
    blas_threads._set([2] * len(before))
    yield [2] * len(before)
    blas_threads._set(before)


def test_the_libraries_have_their_threads_back_after_the_last_block(two):
    one = [1] * len(two)
    with fl.config(deterministic=True):
        assert threads() == one and fl.config.deterministic
        with fl.config(deterministic=True, default_float="float64"):
            assert threads() == one
        assert threads() == one
        with fl.config(deterministic=False):
            assert not fl.config.deterministic
    assert threads() == two and not fl.config.deterministic


def test_an_error_ends_the_block_too(two):
    with pytest.raises(KeyError), fl.config(deterministic=True):
        raise KeyError
    assert threads() == two


def test_the_setting_of_the_process_holds_until_it_is_taken_back(two):
    fl.config.update(deterministic=True)
    fl.config.update(deterministic=True)
    try:
        with fl.config(deterministic=True):
            pass
        assert set(threads()) == {1}
    finally:
        fl.config.update(deterministic=False)
    assert threads() == two


def test_blocks_of_two_threads_may_overlap(two):
    inside, over = threading.Event(), threading.Event()

    def other():
        with fl.config(deterministic=True):
            inside.set()
            over.wait(30)

    thread = threading.Thread(target=other)
    with fl.config(deterministic=True):
        thread.start()
        assert inside.wait(30)
    assert set(threads()) == {1}
    over.set()
    thread.join()
    assert threads() == two
