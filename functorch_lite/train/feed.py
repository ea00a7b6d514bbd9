# SPDX-License-Identifier: MIT
"""Batches, epoch after epoch, and the place among them, which a checkpoint keeps.

    a loader with state() and restore(state)            its own place is kept
    an iterable whose iterator has get_state, set_state  (Grain) the iterator's place is kept
    a list or any other iterable                         iterated anew each epoch; on resume, batches are skipped
    a function of the epoch that returns an iterable     likewise: `lambda epoch: data.batches(x, 128, seed=(0, epoch))`
"""

import base64
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from functorch_lite.errors import ArgumentError, ArgumentTypeError

Batches = Iterable[Any] | Callable[[int], Iterable[Any]]

END = object()
"""What `Feed.next` returns where an epoch ends."""


class Feed:
    """The batches of `fit`. epoch: the present one, from 0; index: batches of it that were handed out."""

    def __init__(self, batches: Batches):
        self._source = batches
        self._is_function = callable(batches) and not hasattr(batches, "__iter__")
        if not self._is_function and not hasattr(batches, "__iter__"):
            raise ArgumentTypeError(
                f"fit: `batches` should be an iterable or a function of the epoch, but is {type(batches).__name__}."
            )
        self.epoch = self.index = 0
        self._iterator: Iterator[Any] | None = None
        self._length: int | None = None
        self._spare = END  # a batch that was looked at ahead,
        self._place: dict[str, Any] = {}  # the source's own place before it,
        self._failure: Exception | None = None  # or what went wrong

    @property
    def keeps_place(self) -> bool:
        """Whether the source is a loader that knows its own place."""
        return not self._is_function and hasattr(self._source, "state") and hasattr(self._source, "restore")

    def length(self) -> int | None:
        """Batches of the present epoch, or None where that is not known."""
        if self._iterator is None:
            self._open()
        return self._length

    def next(self) -> Any:
        """The next batch, or END, after which the next epoch begins."""
        if self._iterator is None:
            self._open()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._spare is not END:
            batch, self._spare = self._spare, END
        else:
            batch = next(self._iterator, END)  # type: ignore[arg-type]
        if batch is END:
            self._close()
        else:
            self.index += 1
        return batch

    def at_end(self) -> bool:
        """Whether the batch handed out last is the last of its epoch, as far as its length tells; see `look_ahead`.

        A loader that was restored within several epochs of one iteration may go on longer than its length says: its
        place is then set back to where its length ends, from where an uninterrupted one goes on, too.
        """
        if self._length is None or self.index < self._length:
            return False
        if not self.look_ahead() and self.keeps_place and self._spare is not END:
            self._source.restore(self._place["loader"])  # type: ignore[union-attr]
            self._spare = END
            self._close()
        return self._iterator is None

    def look_ahead(self) -> bool:
        """Whether the epoch is over, found out by fetching the next batch, which `next` then hands out.

        If so the next epoch begins: a loader's own place is there, too. What goes wrong is raised by `next`.
        """
        if self._iterator is None or self._spare is not END or self._failure is not None or self.index == 0:
            return False
        self._place = self._own_place()
        try:
            self._spare = next(self._iterator, END)
        except Exception as error:
            self._failure = error
            return False
        if self._spare is END:
            self._close()
        return self._spare is END

    def state(self) -> dict[str, Any]:
        """The place of the next batch, as a dict that JSON can hold."""
        is_ahead = self._spare is not END or self._failure is not None
        return {"epoch": self.epoch, "batch": self.index, **(self._place if is_ahead else self._own_place())}

    def _own_place(self) -> dict[str, Any]:
        if self.keeps_place:
            return {"loader": self._source.state()}  # type: ignore[union-attr]
        if self._iterator is not None and hasattr(self._iterator, "get_state"):
            return {"iterator": _as_text(self._iterator.get_state())}  # type: ignore[attr-defined]
        return {}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go to the place that `state()` returned."""
        if ("loader" in saved) != self.keeps_place:
            kind = "loader with state() and restore()" if "loader" in saved else "iterable without a place of its own"
            raise ArgumentError(f"fit: the checkpoint was made with a {kind}; pass the same kind of `batches`.")
        self.epoch, self.index = saved["epoch"], saved["batch"]
        self._iterator = None
        if self.keeps_place:
            self._source.restore(saved["loader"])  # type: ignore[union-attr]
            self._open()
            return
        if self.index == 0:
            return
        self._open()
        if "iterator" in saved and hasattr(self._iterator, "set_state"):
            self._iterator.set_state(_from_text(saved["iterator"]))  # type: ignore[union-attr]
            return
        skipped = sum(1 for _ in islice(self._iterator, self.index))  # type: ignore[arg-type]
        if skipped < self.index:
            raise ArgumentError(
                f"fit: the checkpoint was made after batch {self.index} of epoch {self.epoch}, but there are only "
                f"{skipped} batches now. Resume with the same data."
            )

    def _open(self) -> None:
        iterable: Any = self._source(self.epoch) if self._is_function else self._source  # type: ignore[operator]
        self._iterator = iter(iterable)
        try:
            self._length = len(iterable)
        except TypeError:
            self._length = None

    def _close(self) -> None:
        if self.index == 0:
            raise ArgumentError(
                f"fit: epoch {self.epoch} has no batches. An iterator gives its batches once: for several epochs pass "
                "a list, a loader, or a function of the epoch that returns an iterator."
            )
        self._iterator = None
        self.epoch += 1
        self.index = 0


def _as_text(state: Any) -> Any:
    return {"base64": base64.b64encode(state).decode()} if isinstance(state, bytes) else state


def _from_text(state: Any) -> Any:
    return base64.b64decode(state["base64"]) if isinstance(state, dict) and "base64" in state else state
