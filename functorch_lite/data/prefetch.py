# SPDX-License-Identifier: MIT
"""Batches made ahead of time, on a thread, and put on the device that is to use them.

    thread:  loader -> asarray(device=) -> [ a queue of `size` batches ] -> the training loop
"""

import contextvars
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import tree
from functorch_lite.data.place import check_counts
from functorch_lite.errors import ArgumentError

Batch = TypeVar("Batch")
_END = object()


class Prefetch(Generic[Batch]):
    """The batches of `loader`, made by a thread that is at most `size` batches ahead, with their arrays on `device`.

    loader: any iterable; when it has `state()` and `restore()`, so has this, and the state is that of the batch which
    the user gets next, however far the thread is ahead. device: "cpu", "gpu" or another that `fl.numpy.asarray`
    knows; None leaves the arrays where they are. Arrays of text and objects, and leaves that are no arrays, stay.

    The thread begins with an iteration and ends with it; an error of the loader is raised where its batch would have
    come. Only one iteration runs at a time: a new one ends the one before.

    >>> batches = Prefetch([np.arange(2), np.arange(3)], size=2)
    >>> [batch.sum() for batch in batches]
    [np.int64(1), np.int64(3)]
    """

    def __init__(self, loader: Iterable[Batch], size: int = 2, *, device: Any = None):
        check_counts("Prefetch", size=size)
        self._loader, self._size, self._device = loader, size, device
        self._running: _Ahead | None = None
        self._keeps_place = hasattr(loader, "state") and hasattr(loader, "restore")

    def __len__(self) -> int:
        """Batches of one iteration. Raises TypeError when `loader` does not know."""
        return len(self._loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        """The batches of one iteration of `loader`."""
        self.close()
        running = self._running = _Ahead(self._loader, self._size, self._device, self._keeps_place)
        try:
            yield from running
        finally:
            if self._running is running:
                self.close()

    def close(self) -> None:
        """End the thread; `loader` goes back to the batch after the last one that the user got."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()
            if self._keeps_place:
                self._loader.restore(running.state)  # type: ignore[attr-defined]

    def state(self) -> dict[str, Any]:
        """The place of the next batch that the user gets, as a dict for JSON."""
        self._check_place("state")
        return self._loader.state() if self._running is None else self._running.state  # type: ignore[attr-defined]

    def restore(self, state: dict[str, Any]) -> None:
        """Go to the place that `state()` returned; ends a running iteration. Raises what the loader's own raises."""
        self._check_place("restore")
        self.close()
        self._loader.restore(state)  # type: ignore[attr-defined]

    def _check_place(self, method: str) -> None:
        if not self._keeps_place:
            raise ArgumentError(f"Prefetch.{method}: {type(self._loader).__name__} has no state() and restore().")


class CanPrefetch:
    """Loaders that a thread can be put before."""

    def prefetch(self, size: int = 2, *, device: Any = None) -> Prefetch[Any]:
        """These batches, made by a thread at most `size` batches ahead, with their arrays on `device`."""
        return Prefetch(self, size, device=device)  # type: ignore[arg-type]

    def to_device(self, device: Any, *, size: int = 2) -> Prefetch[Any]:
        """These batches with their arrays on `device`, copied by a thread at most `size` batches ahead."""
        return self.prefetch(size, device=device)


class _Ahead:
    """One iteration: its thread, its queue, and the state of the loader at the batch that the user gets next."""

    def __init__(self, loader: Any, size: int, device: Any, keeps_place: bool):
        self._loader, self._device, self._keeps_place = loader, device, keeps_place
        self.state = self._state_now()
        self._queue: queue.Queue[tuple[Any, Any, BaseException | None]] = queue.Queue(size)
        self._is_stopped = threading.Event()
        run = contextvars.copy_context().run  # the settings of the user's thread
        self._thread = threading.Thread(target=run, args=(self._fill,), name="functorch_lite prefetch", daemon=True)
        self._thread.start()

    def _state_now(self) -> Any:
        return self._loader.state() if self._keeps_place else None

    def _fill(self) -> None:
        try:
            for batch in self._loader:
                self._queue.put((on_device(batch, self._device), self._state_now(), None))
                if self._is_stopped.is_set():
                    return
            self._queue.put((_END, self._state_now(), None))
        except BaseException as e:  # whatever ended the thread is raised in the user's
            self._queue.put((_END, None, e))

    def __iter__(self) -> Iterator[Any]:
        while not self._is_stopped.is_set():
            batch, state, error = self._queue.get()
            if error is not None:
                raise error
            self.state = state
            if batch is _END:
                return
            yield batch

    def stop(self) -> None:
        """End the thread, wherever it is; what it has made is dropped."""
        self._is_stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()  # it may wait for a free place
            except queue.Empty:
                self._thread.join(0.01)


def on_device(batch: Any, device: Any) -> Any:
    """`batch` with its number arrays on `device`; None leaves all as it is."""
    if device is None:
        return batch
    return tree.map(lambda x: x if _is_text(x) else fnp.asarray(x, device=device), batch)


def _is_text(x: Any) -> bool:
    return x.dtype.kind in "OSU" if isinstance(x, np.ndarray) else not hasattr(x, "dtype")
