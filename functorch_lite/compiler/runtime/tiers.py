# SPDX-License-Identifier: MIT
"""Code made twice: quickly for the first call of a program, and well in the background once it is called again.

LLVM's lowest level takes about a third of the time of the usual one, for code that is one to five times as slow and
gives the same bits. Where a first call is short, that code also shares no loops with threads: to find them, to write
them and to make the pool would take longer than they save. The second call of a program asks for the better code; a
thread makes it while calls go on with what there is, and ends when nothing is left to make. A fork and the end of the
process wait for the module that is being made, since LLVM must not be left in the middle of it.

Quick code of products is short, too: it has tiles of a few sums, while the better code is lowered anew with those that
fill the registers. Where a first call is too long for LLVM's lowest level, that is so for the few functions in which it
spends its time, and all others are made at that level (codegen/llvm/levels.py).
"""

import atexit
import contextvars
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable

PER_LINE = 4e5
"""Operations and elements moved, for each line of LLVM IR, up to which quick code pays: 40 us saved a line, and about
0.1 ns lost an operation (measured on the workloads of the benchmarks)."""
ALONE = {False: 4e7, True: 5e6}
"""Operations and elements moved up to which a first call ends earlier where it shares no loops, whose code takes longer
to make: where a pool of threads would have to be made too, and where there is one."""


MOST_SHORT = 2e9
"""Multiplications of products and convolutions up to which their quick code has small tiles, of which there is a third
to half as much (`lowering/cutting.py`)."""
IN_TILES = {False: 0.25, True: 0.3}
"""What an operation of products and convolutions counts, in tiles as usual and in small ones: they are all vectors, so
that quick code of them loses less."""


def pays(work: int, ir: str, multiplications: float = 0, short: bool = False) -> bool:
    """Whether a first call ends earlier with quickly made code, by an estimate.

    work: of it, twice the multiplications are operations of products and convolutions. short: these have small tiles.
    """
    return pays_for(work, ir.count("\n"), 2 * multiplications, short)


def pays_for(work: int, lines: int, in_tiles: float = 0, short: bool = False) -> bool:
    """The same of so many lines. in_tiles: how many of the operations are in tiles of products and convolutions."""
    return work - (1 - IN_TILES[short]) * min(in_tiles, work) < PER_LINE * lines


def may_be_short(multiplications: float) -> bool:
    """Whether a program with products should have small tiles at first, by its multiplications."""
    return multiplications <= MOST_SHORT


class Improver:
    """Runs tasks one after another in a thread, which lives while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working = threading.Lock()
        self._tasks: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def add(self, task: Callable[[], None]) -> None:
        """Run `task` when those before it are done, with the settings that are in force now."""
        context = contextvars.copy_context()
        with self._lock:
            self._tasks.append(lambda: context.run(task))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="functorch_lite improver", daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """Wait until there is nothing left to do."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._working:
                with self._lock:
                    if not self._tasks:
                        self._thread = None
                        return
                    task = self._tasks.popleft()
                _run(task)

    def pause(self) -> None:
        """Wait for the task in the works, and begin no other until `resume`."""
        self._working.acquire()
        self._lock.acquire()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._lock.release()
        self._working.release()

    def resume_in_child(self) -> None:
        """Go on after `pause` in a forked process, which has no thread of its parent's until a task is added."""
        self._thread = None
        self.resume()

    def stop(self) -> None:
        """Wait for the task in the works and forget the rest."""
        with self._lock:
            self._tasks.clear()
        self.finish()


def _run(task: Callable[[], None]) -> None:
    try:
        task()
    except Exception as error:
        warnings.warn(f"a program keeps its quickly made code, as the better failed: {error}", stacklevel=2)


improver = Improver()
atexit.register(improver.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=improver.pause, after_in_parent=improver.resume, after_in_child=improver.resume_in_child
    )
