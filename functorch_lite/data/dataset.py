# SPDX-License-Identifier: MIT
"""Pipelines: examples from arrays, files or any sequence, mapped, filtered, shuffled, batched, by worker processes.

    Dataset.from_files(paths, read).map(crop).shuffle(0).batch(64).workers(4)

The order and every byte depend on the seeds alone, never on the number of workers, and the place in the middle of an
epoch can be saved and gone back to. Worker processes are Grain's (the extra `data`); without workers nothing but NumPy
is needed.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from functorch_lite.data.place import Place, Seed, check_counts, check_shard, plain_seed
from functorch_lite.data.plan import Arrays, Files, Plan, Step, stack
from functorch_lite.data.prefetch import CanPrefetch
from functorch_lite.errors import ArgumentError, ArgumentTypeError
from functorch_lite.packages import need

Element = TypeVar("Element")


class Run(NamedTuple):
    """How a plan is run. epochs: of one iteration, None without end; n_ahead: blocks that wait for each worker."""

    epochs: int | None = 1
    n_workers: int = 0
    n_ahead: int = 2


class Dataset(Place, CanPrefetch, Generic[Element]):
    """Examples of `source`, any object with `len()` and `source[i]`; an example is a tree of arrays and numbers.

    Each method returns a new dataset. The steps run in this order, whatever order they were asked for in:
    `shuffle`, `shard`, then `map`, `random_map` and `filter` on examples, `batch`, `map` and `random_map` on batches.
    So those after `.batch(...)` see batches, and `filter`, `shuffle` and `shard` come before it.

    Iterating gives the rest of the present epoch and goes on to the next (`repeat` says to how many). `state()` is a
    small dict for JSON, and `restore(state)` makes the rest come again with identical bytes, also in a process with
    another number of workers.

    >>> data = Dataset(range(10)).filter(lambda i: i % 3).map(lambda i: i * 10).batch(2)
    >>> [batch.tolist() for batch in data]
    [[10, 20], [40, 50], [70, 80]]
    """

    def __init__(self, source: Any):
        if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
            raise ArgumentTypeError(
                f"Dataset: `source` should have len() and source[i], but is {type(source).__name__}. Make a list of it."
            )
        self._begin(Plan(source), Run())

    def _begin(self, plan: Plan, run: Run) -> None:
        super().__init__(block=0, skip=0, batch=0)
        self._plan, self._run = plan, run
        self._workers: Any = None
        self._next_block = 0  # the number of the block that the workers give next

    def _with(self, **changes: Any) -> Any:
        """A dataset at its start, with these fields of the plan changed."""
        return self._made(replace(self._plan, **changes), self._run)

    def _made(self, plan: Plan, run: Run) -> Any:
        new = Dataset.__new__(Dataset)
        new._begin(plan, run)
        return new

    @classmethod
    def from_arrays(cls, arrays: Element) -> "Dataset[Element]":
        """A dataset of the rows of `arrays`, a tree whose leaves [n, ...] are equally long.

        Raises ShapeError when they are not.
        """
        return cls(Arrays(arrays))

    @classmethod
    def from_files(cls, paths: Sequence[Any], read: Callable[[Any], Any]) -> "Dataset[Any]":
        """A dataset of `read(path)` for each of `paths`."""
        return cls(Files(paths, read))

    def map(self, fun: Callable[[Any], Any]) -> "Dataset[Any]":
        """With `fun(example)` for each example, or after `batch` `fun(batch)` for each batch."""
        return self._with_step(Step("map", fun))

    def random_map(self, fun: Callable[[Any, Any], Any], seed: Seed) -> "Dataset[Any]":
        """With `fun(example, rng)`, or after `batch` `fun(batch, rng)`.

        rng: a `numpy.random.Generator` made from `seed`, the epoch and the place in it: the same wherever it runs.
        """
        return self._with_step(Step("random_map", fun, seed))

    def filter(self, predicate: Callable[[Any], Any]) -> "Dataset[Element]":
        """With those examples alone for which `predicate(example)` is true; before `batch`.

        Batches are then put together in this process, after the workers, and their number is not known before.
        """
        self._check_unbatched("filter")
        return self._with_step(Step("filter", predicate))

    def _with_step(self, step: Step) -> Any:
        if self._plan.batch_size is None:
            return self._with(steps=(*self._plan.steps, step))
        return self._with(batch_steps=(*self._plan.batch_steps, step))

    def shuffle(self, seed: Seed) -> "Dataset[Element]":
        """In an order that `seed` and the epoch decide, the same as that of `Loader`; before `batch`."""
        self._check_unbatched("shuffle")
        return self._with(seed=seed)

    def shard(self, index: int, count: int) -> "Dataset[Element]":
        """The part of process `index` of `count`: in each step all of them together get what one alone would.

        With `drop_last` and no filter all have equally many batches. Before `batch`.
        """
        self._check_unbatched("shard")
        return self._with(shard=check_shard("Dataset.shard", (index, count)))

    def batch(self, batch_size: int, *, drop_last: bool = True) -> "Dataset[Element]":
        """Batches: trees like the examples, every leaf with a new axis 0 of `batch_size`.

        drop_last: examples that fill no batch are left out, else they form a shorter last batch.

        Raises ArgumentError when no batch can be made.
        """
        self._check_unbatched("batch")
        check_counts("Dataset.batch", batch_size=batch_size)
        new = self._with(batch_size=int(batch_size), drop_last=drop_last)
        if drop_last and new._plan.n_blocks == 0:
            n = new._plan.n_examples
            raise ArgumentError(
                f"Dataset.batch: {n} examples make no batch of {batch_size}. Use a smaller one or drop_last=False."
            )
        return new

    def repeat(self, epochs: int | None = None) -> "Dataset[Element]":
        """With one iteration that runs through `epochs` epochs; None: without end."""
        if epochs is not None:
            check_counts("Dataset.repeat", epochs=epochs)
        return self._made(self._plan, self._run._replace(epochs=epochs))

    def workers(self, n: int, *, n_ahead: int = 2) -> "Dataset[Element]":
        """With `n` processes that make the examples, each at most `n_ahead` batches ahead; 0: in this process.

        They start with the first batch and stay until `close()`, the end of a `with` block or that of the process.
        Functions and sources are sent to them by cloudpickle, arrays through shared memory. A script that uses them
        keeps its own start under `if __name__ == "__main__":`.

        Raises MissingPackageError without Grain.
        """
        if n < 0:
            raise ArgumentError(f"Dataset.workers: `n` should be at least 0, but is {n}.")
        check_counts("Dataset.workers", n_ahead=n_ahead)
        if n:
            need("grain", by="Dataset.workers", install="'functorch_lite[data]'")
        return self._made(self._plan, self._run._replace(n_workers=int(n), n_ahead=int(n_ahead)))

    def _check_unbatched(self, method: str) -> None:
        if self._plan.batch_size is not None:
            raise ArgumentError(f"Dataset.{method}: comes before batch(...).")

    def __len__(self) -> int:
        """Batches, or without `batch` examples, of one whole iteration. Raises TypeError when that is not known."""
        if self._plan.has_filter or self._run.epochs is None:
            why = "a filter" if self._plan.has_filter else "repeat() without end"
            raise TypeError(f"a dataset with {why} has no len().")
        return self._run.epochs * (self._plan.n_blocks if self._plan.batch_size else self._plan.n_examples)

    def __iter__(self) -> Iterator[Element]:
        """The rest of the present epoch, and after it those that `repeat` asks for.

        Raises ArgumentError when filters keep nothing of an epoch and it should repeat without end.
        """
        last = None if self._run.epochs is None else self.epoch + self._run.epochs
        while (last is None or self.epoch < last) and self._plan.n_blocks:
            epoch, is_empty = self.epoch, self._place["batch"] == 0
            for element, place in self._elements(epoch):
                self._place, is_empty = place, False
                yield element
                if self._place is not place:  # restored meanwhile
                    break
            else:
                if is_empty and last is None:
                    raise ArgumentError(f"Dataset: the filters keep no batch of epoch {epoch}, so repeat() has no end.")
                if self.epoch == epoch:
                    self._place = self._place_of(epoch + 1, 0, 0, 0)

    def _elements(self, epoch: int) -> Iterator[tuple[Any, dict[str, int]]]:
        """What is left of `epoch`, each element with the place of the one after it."""
        if not self._plan.batch_size or self._plan.has_filter:
            yield from self._regrouped(epoch)
            return
        for index in range(self._place["block"], self._plan.n_blocks):
            is_last = index + 1 == self._plan.n_blocks
            after = (epoch + 1, 0, 0, 0) if is_last else (epoch, index + 1, 0, index + 1)
            yield self._block(epoch, index), self._place_of(*after)

    def _regrouped(self, epoch: int) -> Iterator[tuple[Any, dict[str, int]]]:
        """Single examples, or batches of those that filters keep.

        One is held back until the next is there, since the place after the last one is the next epoch.
        """
        size, keeps_rest = self._plan.batch_size or 1, not self._plan.drop_last
        number = self._place["batch"]
        group: list[Any] = []
        held: Any = None
        start = (0, 0)
        for block, skip, example in self._kept(epoch):
            start = start if group else (block, skip)
            group.append(example)
            if len(group) == size:
                if held is not None:
                    yield held[0], self._place_of(epoch, *start, number)
                held, group, number = (self._joined(group, epoch, number),), [], number + 1
        if group and keeps_rest:
            if held is not None:
                yield held[0], self._place_of(epoch, *start, number)
            held = (self._joined(group, epoch, number),)
        if held is not None:
            yield held[0], self._place_of(epoch + 1, 0, 0, 0)

    def _joined(self, group: list[Any], epoch: int, number: int) -> Any:
        return self._plan.finish(stack(group), epoch, number) if self._plan.batch_size else group[0]

    def _kept(self, epoch: int) -> Iterator[tuple[int, int, Any]]:
        """(block, number in it, example) from the present place on."""
        skip = self._place["skip"]
        for index in range(self._place["block"], self._plan.n_blocks):
            for number, example in enumerate(self._block(epoch, index)):
                if number >= skip:
                    yield index, number, example
            skip = 0

    def _block(self, epoch: int, index: int) -> Any:
        if not self._run.n_workers:
            return self._plan.block(epoch, index)
        number = epoch * self._plan.n_blocks + index
        if self._workers is None or self._next_block != number:
            self.close()
            # Loaded here, since it imports Grain.
            workers = importlib.import_module("functorch_lite.data.workers")
            self._workers = workers.Workers(self._plan, self._run.n_workers, number, self._run.n_ahead)
        workers, self._workers = self._workers, None  # an error ends them
        block = next(workers)
        self._workers, self._next_block = workers, number + 1
        return block

    def close(self) -> None:
        """End the worker processes, if there are any; the place is kept, and an iteration starts them again."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()

    def __enter__(self) -> "Dataset[Element]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _place_of(self, epoch: int, block: int, skip: int, batch: int) -> dict[str, int]:
        return {"epoch": epoch, "block": block, "skip": skip, "batch": batch}

    def _is_place(self, place: dict[str, int]) -> bool:
        return place["block"] < max(self._plan.n_blocks, 1)

    def _signature(self) -> dict[str, Any]:
        plan = self._plan
        steps = (*plan.steps, *plan.batch_steps)
        return {
            "kind": "Dataset",
            "n": len(plan.source),
            "batch_size": plan.batch_size,
            "seed": plain_seed(plan.seed),
            "drop_last": plan.drop_last,
            "shards": plan.shard[1],
            "steps": [step.kind for step in steps],
            "step_seeds": [plain_seed(step.seed) for step in steps],
        }
