# SPDX-License-Identifier: MIT
"""The pools of threads that compiled programs share loops with: one for each number of threads asked for.

A program has the address of a pool in its context, or 0: then it runs its loops by itself. No thread is started before
a program comes to a loop worth sharing (schedule/parallel.py). Workers end before a fork, so that the child has none
it cannot use, and start again at need, in the parent and in the child; they end at exit.
"""

import atexit
import ctypes
import os
import platform
import sys
import threading

import numpy as np

from functorch_lite.compiler.runtime import engine, pool_ir
from functorch_lite.compiler.runtime.pool_ir import MOST_THREADS, SIZE, WORDS

SHARES = "(ptr %pool, ptr "
"""What the text of a module that shares loops or has sections has in it, and no other's: a call of `share`."""
_BLOCK_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
_LINE_BYTES = 64


class Pool:
    """A block of words that native code knows as the pool, and the functions of the pool's module.

    threads: how many share a loop, the caller among them.
    """

    def __init__(self, threads: int, loaded: engine.Loaded):
        raw = np.zeros(SIZE + _LINE_BYTES // 8, np.int64)
        start = -raw.ctypes.data % _LINE_BYTES // 8
        self._words = raw[start : start + SIZE]
        self._words[WORDS["share"]] = loaded.address("share")
        self._words[WORDS["sections"]] = loaded.address("share_sections")
        self._words[WORDS["short"]] = loaded.address("share_short")
        self._words[WORDS["threads"]] = threads
        self.address: int = self._words.ctypes.data
        self._pause = _BLOCK_FUNCTION(loaded.address("pause"))
        self._resume = _BLOCK_FUNCTION(loaded.address("resume"))
        self._abandon = _BLOCK_FUNCTION(loaded.address("abandon"))
        self._pauses = 0
        self._goes_on = False  # the pool was not paused, for this thread is in the middle of a job

    @property
    def workers(self) -> int:
        """How many threads were started and live."""
        return int(self._words[WORDS["made"]])

    def pause(self) -> None:
        """End the workers, after the loop that they share now; until as many `resume` loops are not shared."""
        self._pauses += 1
        if self._pauses == 1:
            self._goes_on = self._pause(self.address) == 1

    def resume(self, without_workers: bool = False) -> None:
        """Let loops be shared again. without_workers: in a process that has none of those that were not ended."""
        self._pauses -= 1
        if self._pauses:
            return
        if not self._goes_on:
            self._resume(self.address)
        elif without_workers:
            self._abandon(self.address)


_pools: dict[int, Pool] = {}
_making = threading.RLock()


def pool_address(threads: int) -> int:
    """The address of the pool of this many threads, the caller counted; 0 for one, and where there are no pools."""
    pool = find_pool(threads)
    return 0 if pool is None else pool.address


def find_pool(threads: int) -> Pool | None:
    """The pool of this many threads, which lives as long as the process; None for one, and where there are none."""
    threads = min(threads, MOST_THREADS)
    if threads < 2 or not sys.platform.startswith("linux"):
        return None
    if threads in _pools:  # a handler of a signal may ask while another thread is about to fork
        return _pools[threads]
    with _making:
        found = _pools.get(threads)
        if found is None:
            text = pool_ir.module_text(platform.machine(), engine.target().lanes_bytes)
            if text is None:
                return None
            if not _pools:
                _end_with_the_process()
            # quickly made, it takes 50 ns more a shared loop, and a fourth of the time to make
            found = _pools[threads] = Pool(threads, engine.load(text, level=engine.QUICK).keep())
        return found


def is_made(threads: int) -> bool:
    """Whether the pool of this many threads is there already."""
    return min(threads, MOST_THREADS) in _pools


def workers() -> int:
    """How many threads are alive in all pools."""
    return sum(p.workers for p in _pools.values())


def _end_with_the_process() -> None:
    atexit.register(_pause_all)
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


def _pause_all() -> None:
    for pool in list(_pools.values()):
        pool.pause()


def _before_fork() -> None:
    _making.acquire()
    _pause_all()


def _after_fork(without_workers: bool = False) -> None:
    for pool in _pools.values():
        pool.resume(without_workers)
    _making.release()


def _after_fork_in_child() -> None:
    _after_fork(without_workers=True)
