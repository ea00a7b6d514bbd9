# SPDX-License-Identifier: MIT
"""Blocks of a plan made by worker processes, through Grain; this module is loaded only when workers are asked for.

    Grain  starts the processes, hands block i, i + n, i + 2n ... to worker i of n, keeps a few ready in shared memory,
           and gives them back in order
    here   the plan goes to the workers through one piece of shared memory, so that arrays in memory are there once;
           a block comes back as one array of bytes, and an error as text and exception
"""

import contextlib
import os
import pickle
import sys
import traceback
import weakref
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import cloudpickle
import grain
import numpy as np
from absl import flags

from functorch_lite.data.plan import Plan
from functorch_lite.errors import FunctorchLiteError

_ALIGNMENT = 64  # bytes, from which arrays start


class WorkerError(FunctorchLiteError, RuntimeError):
    """A worker process ended, or what it raised could not be brought here."""


class Workers:
    """An iterator over the blocks of `plan` from number `first` on, epoch after epoch, made by `n` processes.

    Block g is block `g % plan.n_blocks` of epoch `g // plan.n_blocks`. `n_ahead` blocks wait for each worker.
    `close()` ends the processes; so does the garbage collector.
    """

    def __init__(self, plan: Plan, n: int, first: int, n_ahead: int):
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads its settings from the command line, which is not its own here
        content = pack(plan)
        memory = SharedMemory(create=True, size=len(content))
        _bytes_of(memory)[: len(content)] = content
        source = grain.MapDataset.source(_Blocks(memory.name, first))
        blocks = source.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        options = grain.MultiprocessingOptions(num_workers=n, per_worker_buffer_size=n_ahead)
        self._iterator = iter(blocks.mp_prefetch(options))
        self.memory_name = memory.name
        self.close = weakref.finalize(self, _end, self._iterator, memory)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """The next block. Raises what the worker raised, with its traceback, or WorkerError when it ended."""
        try:
            content = next(self._iterator)
        except Exception as e:  # errors of the user's come as values, so this is one of the processes themselves
            with contextlib.suppress(Exception):  # ending the others may fail too, and says less
                self.close()
            raise WorkerError(
                f"a worker process of the dataset ended: {e}\n"
                "The place is kept: a new iteration goes on with the batch that was to come. Exit code -9 is a kill, "
                "mostly for want of memory; exit code 1 often means that a script starts workers outside "
                '`if __name__ == "__main__":`.'
            ) from e
        block, error = unpack(np.array(content))
        if error is None:
            return block
        self.close()
        raise error


def _end(iterator: Any, memory: SharedMemory) -> None:
    try:
        iterator.close()
    finally:
        memory.close()
        memory.unlink()


class _Blocks:
    """The source that Grain indexes; its block `index` has the number `first + index`."""

    def __init__(self, memory: str, first: int):
        self._memory, self._first = memory, first
        self._plan: Plan | None = None

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> np.ndarray:
        try:
            if self._plan is None:
                self._plan = _attached(self._memory)
            return pack((self._plan.block(*divmod(self._first + index, self._plan.n_blocks)), None))
        except Exception as e:
            return pack((None, _portable(e)))


_attachments: list[SharedMemory] = []  # arrays of the plan lie in them until the worker ends


def _attached(name: str) -> Plan:
    memory = SharedMemory(name)
    _attachments.append(memory)
    content = _bytes_of(memory)
    content.flags.writeable = False  # it is shared, so that no step may write to it
    return unpack(content)


def _bytes_of(memory: SharedMemory) -> np.ndarray:
    assert memory.buf is not None, "it is not closed"
    return np.frombuffer(memory.buf, np.uint8)


def _portable(error: Exception) -> Exception:
    """`error` as it can be sent, with the traceback as a note."""
    text = "".join(traceback.format_exception(error)).rstrip()
    note = f"The traceback in worker process {os.getpid()}:\n{text}"
    try:
        error = pickle.loads(cloudpickle.dumps(error))
    except Exception:
        error = WorkerError(f"{type(error).__name__}: {error}")
    error.__notes__ = [note]
    return error


def pack(value: Any) -> np.ndarray:
    """`value` as one array of bytes: a header of sizes, then the pickle, then the arrays' own memory.

    >>> unpack(pack({"x": np.arange(3)}))
    {'x': array([0, 1, 2])}
    """
    buffers: list[pickle.PickleBuffer] = []
    content = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(content), *(buffer.raw() for buffer in buffers)]
    header = np.array([len(parts), *(len(part) for part in parts)], np.int64)
    places = _places(header)
    packed = np.empty(places[-1], np.uint8)
    packed[: header.nbytes] = header.view(np.uint8)
    for part, place in zip(parts, places, strict=False):
        packed[place : place + len(part)] = np.frombuffer(part, np.uint8)
    return packed


def unpack(packed: np.ndarray) -> Any:
    """The value of `pack`, whose arrays lie in the memory of `packed`."""
    (n,) = packed[:8].view(np.int64)
    header = packed[: 8 * (1 + int(n))].view(np.int64)
    content, *buffers = (
        packed[place : place + size] for place, size in zip(_places(header), header[1:].tolist(), strict=False)
    )
    return pickle.loads(content.data, buffers=buffers)


def _places(header: np.ndarray) -> list[int]:
    """Where each part begins, and at last where all end."""
    places = [-(-header.nbytes // _ALIGNMENT) * _ALIGNMENT]
    for size in header[1:].tolist():
        places.append(places[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    return places
