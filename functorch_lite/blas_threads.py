# SPDX-License-Identifier: MIT
"""OpenBLAS on one thread, for results that are the same bit for bit on any number of cores.

NumPy and SciPy each bring a library with threads of its own, and how it shares out a product or a factorization changes
how it rounds. Both are found among the files that this process has mapped, which Linux tells. Elsewhere, and for
other libraries (MKL, Accelerate, BLIS), nothing is done.

Source: the names of the functions are those that threadpoolctl looks for.
"""

import ctypes
import functools
import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MAPPED = Path("/proc/self/maps")
_PREFIXES = ("", "scipy_")
_SUFFIXES = ("", "64_", "_64")
_USERS = ("numpy.linalg", "scipy.linalg.cython_blas", "scipy.linalg.cython_lapack")

_guard = threading.Lock()
_holders = 0
_before: list[int] = []  # threads of each library before the first holder came


@contextmanager
def one_thread() -> Iterator[None]:
    """A block in which OpenBLAS uses one thread, in the whole process."""
    hold()
    try:
        yield
    finally:
        release()


def hold() -> None:
    """Have OpenBLAS use one thread, until `release` has been called as often as this."""
    global _holders
    with _guard:
        if not _holders:
            _before[:] = [get() for get, _ in _libraries()]
            _set([1] * len(_before))
        _holders += 1


def release() -> None:
    """End one `hold`; after the last, OpenBLAS has the threads that it had before."""
    global _holders
    with _guard:
        _holders -= 1
        if not _holders:
            _set(_before)


def _set(threads: list[int]) -> None:
    for (_, set_threads), n in zip(_libraries(), threads, strict=True):
        set_threads(n)


@functools.cache
def _libraries() -> list[tuple[Any, Any]]:
    """The functions that read and set the number of threads, of each OpenBLAS that NumPy and SciPy use."""
    for name in _USERS:
        importlib.import_module(name)
    found = {}
    for path in _mapped_files():
        try:
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:  # not a library, or a file that is there no more
            continue
        for get, set_threads in _functions(library):
            found.setdefault(ctypes.cast(set_threads, ctypes.c_void_p).value, (get, set_threads))
    return list(found.values())


def _mapped_files() -> list[str]:
    """The files of this process that may be a BLAS."""
    try:
        lines = _MAPPED.read_text().splitlines()
    except OSError:
        return []
    files = {line.split(maxsplit=5)[-1] for line in lines if "blas" in line or "lapack" in line}
    return sorted(file for file in files if file.startswith("/"))


def _functions(library: ctypes.CDLL) -> Iterator[tuple[Any, Any]]:
    for prefix in _PREFIXES:
        for suffix in _SUFFIXES:
            get, set_threads = (
                getattr(library, f"{prefix}openblas_{verb}_num_threads{suffix}", None) for verb in ("get", "set")
            )
            if get is not None and set_threads is not None:
                get.restype, get.argtypes = ctypes.c_int, []
                set_threads.restype, set_threads.argtypes = None, [ctypes.c_int]
                yield get, set_threads
