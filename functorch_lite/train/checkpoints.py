# SPDX-License-Identifier: MIT
"""A folder of checkpoints: `step-00000200.safetensors`, the newest few, and if wanted the best.

    save        copies the state at once; a thread writes the copy, so training goes on meanwhile
    load        the newest file that is whole; torn and foreign ones are named in a warning and passed over
"""

import math
import os
import re
import shutil
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from functorch_lite import tree
from functorch_lite.errors import ArgumentError
from functorch_lite.train.files import CheckpointError, Contents, Snapshot, read, snapshot, write
from functorch_lite.train.matching import CheckpointWarning

_NAME = re.compile(r"step-(\d+)\.safetensors")
_TEMPORARY = re.compile(r".*\.safetensors\.tmp-(\d+)-\d+")
BEST = "best.safetensors"
_USUAL_SECONDS = 600.0


class Saved(NamedTuple):
    """A checkpoint that was read. metadata: what `save` was given."""

    step: int
    state: Any
    metadata: dict[str, Any]


class Checkpoints:
    """Checkpoints in a folder; for `fit(..., checkpoint=...)`, or to be used by hand. One process writes to a folder.

    every: steps between checkpoints; seconds: seconds between them. With neither, `fit` writes one after each
        evaluation or epoch and every ten minutes; the end of a run and an interruption always write one.
    keep: how many of the newest files stay.
    best: the name of a figure, `"eval/loss"` say: the checkpoint where it was best also stays, as best.safetensors.
    largest_is_best: for accuracies.
    background: whether a thread writes, a copy of the state, while training goes on. At most one file is being
        written: the next save waits for it, and raises what went wrong.

    >>> import tempfile
    >>> with Checkpoints(tempfile.mkdtemp()) as checkpoints:
    ...     for step in (1, 2, 3, 4):
    ...         checkpoints.save(step, {"w": np.full(2, float(step))})
    >>> checkpoints.steps()
    [2, 3, 4]
    >>> checkpoints.restore(like={"w": np.zeros(2)})
    Saved(step=4, state={'w': array([4., 4.])}, metadata={})
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int | None = None,
        seconds: float | None = None,
        keep: int = 3,
        best: str | None = None,
        largest_is_best: bool = False,
        background: bool = True,
    ):
        for name, value in (("every", every), ("seconds", seconds), ("keep", keep)):
            if value is not None and value <= 0:
                raise ArgumentError(f"Checkpoints: `{name}` should be above 0, but is {value}.")
        self.folder = Path(folder)
        self.every, self.seconds, self.keep = every, seconds, keep
        self.best, self.largest_is_best = best, largest_is_best
        self._best_value: float | None = None
        self._is_best = False
        self._was_best: Path | None = None  # what was loaded, if it was the best when it was saved
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoints") if background else None
        self._writing: Future[None] | None = None
        self._last_save = time.monotonic()
        self._is_clean = False

    # --- saving -------------------------------------------------------------------------------------------------------

    def save(
        self,
        step: int,
        state: Any,
        *,
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[Any, Any] | None = None,
    ) -> None:
        """Take a copy of `state` and write it as the checkpoint of `step`.

        metadata: a dict that JSON can hold. extra: nested dicts of arrays that need no `like` to be read again.

        Raises CheckpointError when this or, in the background, the file before could not be written.
        """
        self.wait()
        taken = snapshot(state, "state", copy=self._executor is not None)
        paths = [list(path) for path, _ in tree.leaves_with_path(extra)]
        arrays = snapshot({f"{i}": leaf for i, leaf in enumerate(tree.leaves(extra))}, "extra")
        both = Snapshot(taken.tensors | arrays.tensors, taken.scalars | arrays.scalars, taken.same | arrays.same)
        best = {"best": self._best_value, "is_best": self._is_best}
        told = {"step": step, "extra": paths, "user": dict(metadata or {}), **best}
        self._is_best = False
        self._last_save = time.monotonic()
        if self._executor is None:
            self._write(step, both, told)
            return
        self._writing = self._executor.submit(self._write, step, both, told)

    def wait(self) -> None:
        """Wait until what is being written is on the disk. Raises CheckpointError when it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def check(self) -> None:
        """Raise what went wrong in the background, if it has already."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def is_late(self) -> bool:
        """Whether `seconds` have passed since the last checkpoint."""
        usual = math.inf if self.every is not None else _USUAL_SECONDS
        return time.monotonic() - self._last_save >= (usual if self.seconds is None else self.seconds)

    def judge(self, figures: Mapping[str, Any]) -> bool:
        """Whether `figures` are the best so far; the checkpoint saved next is then kept as the best one."""
        if self.best is None:
            return False
        if self.best not in figures:
            raise ArgumentError(
                f"Checkpoints: there is no figure `{self.best}`; there are {', '.join(figures) or 'none'}."
            )
        value = float(figures[self.best])
        so_far = self._best_value
        worse = so_far is not None and (value <= so_far if self.largest_is_best else value >= so_far)
        if math.isnan(value) or worse:
            return False
        self._best_value, self._is_best = value, True
        return True

    def close(self) -> None:
        """Wait for what is being written, and end the thread."""
        try:
            self.wait()
        finally:
            if self._executor is not None:
                self._executor.shutdown()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def _write(self, step: int, taken: Snapshot, told: dict[str, Any]) -> None:
        self._clean()
        path = write(self.path(step), taken, told)
        if told["is_best"]:
            _keep_as(path, self.folder / BEST)
        for old in self.steps()[: -self.keep]:
            self.path(old).unlink(missing_ok=True)

    def _clean(self) -> None:
        """Finish or remove what a process that was killed has left undone."""
        if self._is_clean or not self.folder.is_dir():
            return
        if self._was_best is not None:
            _keep_as(self._was_best, self.folder / BEST)
        for path in self.folder.iterdir():
            found = _TEMPORARY.fullmatch(path.name)
            if found and not _is_running(int(found[1])):
                path.unlink(missing_ok=True)
        self._is_clean = True

    # --- reading ------------------------------------------------------------------------------------------------------

    def path(self, step: int) -> Path:
        """The file of a step's checkpoint."""
        return self.folder / f"step-{step:08d}.safetensors"

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(found[1]) for path in self.folder.iterdir() if (found := _NAME.fullmatch(path.name)))

    def restore(self, like: Any, step: int | None = None) -> Saved | None:
        """The newest whole checkpoint, or that of `step`, with its state in the form of `like`; None if there is none.

        Files that are torn, damaged or not ours are named in a CheckpointWarning. Raises CheckpointError when there
        are files and none is whole, or when the one of `step` is not; TreeError, ShapeError or DTypeError, which name
        path, expected and found, when the state does not fit.
        """
        found = self.load_newest() if step is None else _checked(read(self.path(step)))
        return None if found is None else _saved(found, like)

    def restore_best(self, like: Any) -> Saved:
        """The checkpoint at which the figure `best` was best. Raises CheckpointError when there is none."""
        return _saved(read(self.folder / BEST), like)

    def load_newest(self) -> Contents | None:
        """The contents of the newest file that is whole; see `restore`."""
        self.wait()
        failures = []
        for step in reversed(self.steps()):
            try:
                found = _checked(read(self.path(step)))
            except CheckpointError as error:
                failures.append(error.message)
                continue
            for message in failures:
                warnings.warn(f"{message} It is passed over for step {step}.", CheckpointWarning, stacklevel=2)
            self._best_value = found.metadata["best"]
            self._was_best = found.path if found.metadata["is_best"] else None
            return found
        if failures:
            raise CheckpointError("no checkpoint is whole: " + " ".join(failures))
        return None


def _checked(found: Contents) -> Contents:
    if not {"step", "extra", "user", "best", "is_best"} <= found.metadata.keys():
        raise CheckpointError(f"{found.path} was written by train.save, not by Checkpoints; train.restore reads it.")
    return found


def _saved(found: Contents, like: Any) -> Saved:
    return Saved(found.metadata["step"], found.tree(like, "state"), found.metadata["user"])


def extra_of(found: Contents) -> dict[Any, Any]:
    """The nested dicts that `save` was given as `extra`."""
    nested: dict[Any, Any] = {}
    for number, path in enumerate(found.metadata["extra"]):
        inner = nested
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = found.values[f"extra['{number}']"]
    return nested


def _keep_as(path: Path, other: Path) -> None:
    """Make the file appear under another name, too, whatever had that name before."""
    temporary = other.with_name(f"{other.name}.tmp-{os.getpid()}-0")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(path, temporary)
    os.replace(temporary, other)


def _is_running(process: int) -> bool:
    if process == os.getpid() or os.name == "nt":  # there signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except OSError as e:
        return not isinstance(e, ProcessLookupError)
    return True
