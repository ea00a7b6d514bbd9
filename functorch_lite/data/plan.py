# SPDX-License-Identifier: MIT
"""What a `Dataset` does, as a value that can be sent to other processes: a source, and the steps after it.

    source -> order (shuffle, shard) -> steps for each example -> blocks of examples -> steps for each batch

Everything is a function of (epoch, block), so that blocks can be made anywhere and in any order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from functorch_lite import tree
from functorch_lite.data.batches import length_of, rows_of
from functorch_lite.data.place import Seed, generator
from functorch_lite.errors import ShapeError, TreeError

BLOCK = 32
"""Examples of a block where there are no batches."""


class Step(NamedTuple):
    """kind: "map", "random_map" or "filter"; fun: the user's function; seed: of "random_map"."""

    kind: str
    fun: Callable[..., Any]
    seed: Seed = 0


class Arrays:
    """Examples that are the rows of arrays in memory."""

    def __init__(self, arrays: Any):
        self._n = length_of("Dataset.from_arrays", arrays)
        self._arrays = tree.map(_read_only, arrays)
        self._leaves, self._treedef = tree.flatten(self._arrays)

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, row: int) -> Any:
        return tree.unflatten(self._treedef, [leaf[row] for leaf in self._leaves])

    def __reduce__(self) -> tuple[Any, ...]:
        return Arrays, (self._arrays,)

    def batch(self, rows: np.ndarray) -> Any:
        """Several examples, stacked, by one indexing of each leaf."""
        return rows_of(self._arrays, rows)


def _read_only(leaf: Any) -> Any:
    """`leaf` without copying, such that a step cannot change the data of all epochs after it."""
    if isinstance(leaf, np.ndarray):
        leaf = leaf.view()
        leaf.flags.writeable = False
    return leaf


class Files:
    """Examples that a function reads, each from the file of its own."""

    def __init__(self, paths: Sequence[Any], read: Callable[[Any], Any]):
        self._paths, self._read = list(paths), read

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> Any:
        return self._read(self._paths[row])


@dataclass(frozen=True)
class Plan:
    """See `Dataset`, whose methods these fields come from; batch_size None: single examples."""

    source: Any
    steps: tuple[Step, ...] = ()
    seed: Seed | None = None
    shard: tuple[int, int] = (0, 1)
    batch_size: int | None = None
    drop_last: bool = True
    batch_steps: tuple[Step, ...] = ()

    @property
    def has_filter(self) -> bool:
        """Whether the number of examples is known only after they were made."""
        return any(step.kind == "filter" for step in self.steps)

    @property
    def block_size(self) -> int:
        """Examples of a block, before a filter: one batch, where there are batches."""
        return self.batch_size or BLOCK

    @property
    def n_examples(self) -> int:
        """Examples of an epoch that are this shard's, before a filter."""
        index, count = self.shard
        n = len(self.source)
        return n // count if self.drop_last and self.batch_size and not self.has_filter else len(range(index, n, count))

    @property
    def n_blocks(self) -> int:
        """Blocks of an epoch."""
        if self.batch_size and self.drop_last and not self.has_filter:
            return self.n_examples // self.batch_size
        return -(-self.n_examples // self.block_size)

    def block(self, epoch: int, index: int) -> Any:
        """Block `index` of `epoch`: the finished batch, or without batches or with a filter the list of examples."""
        start = index * self.block_size
        rows = self._order(epoch)[start : min(start + self.block_size, self.n_examples)]
        if self.batch_size and not self.steps and hasattr(self.source, "batch"):
            return self.finish(self.source.batch(rows), epoch, index)
        first, count = self.shard
        made = (self._example(epoch, first + count * (start + i), int(row)) for i, row in enumerate(rows))
        examples = [example for example, is_kept in made if is_kept]
        if not self.batch_size or self.has_filter:
            return examples
        return self.finish(stack(examples), epoch, index)

    def finish(self, batch: Any, epoch: int, index: int) -> Any:
        """`batch`, the one of number `index` among this shard's, after the steps for batches."""
        first, count = self.shard
        for step in self.batch_steps:
            batch, _ = _applied(step, batch, epoch, first + count * index)
        return batch

    def _order(self, epoch: int) -> np.ndarray:
        seed = self.seed if self.seed is None or isinstance(self.seed, int) else tuple(self.seed)
        return _order(len(self.source), seed, epoch if self.seed is not None else 0, *self.shard)

    def _example(self, epoch: int, position: int, row: int) -> tuple[Any, bool]:
        """The example of row `row` and whether it is kept; an error names it."""
        try:
            example = self.source[row]
            for step in self.steps:
                example, is_kept = _applied(step, example, epoch, position)
                if not is_kept:
                    return None, False
        except Exception as e:
            e.add_note(f"Dataset: this was for example {row} of the source, in epoch {epoch}.")
            raise
        return example, True


def _applied(step: Step, value: Any, epoch: int, position: int) -> tuple[Any, bool]:
    """`value` after `step`, and whether it is kept; `position` is that among the examples or batches of all shards."""
    if step.kind == "filter":
        return value, bool(step.fun(value))
    if step.kind == "random_map":
        return step.fun(value, generator(step.seed, epoch, position)), True
    return step.fun(value), True


@lru_cache(maxsize=2)
def _order(n: int, seed: Any, epoch: int, index: int, count: int) -> np.ndarray:
    rows = np.arange(n) if seed is None else generator(seed, epoch).permutation(n)
    return rows[index::count]


def stack(examples: list[Any]) -> Any:
    """One tree like the examples, every leaf with a new axis 0.

    Raises ShapeError where leaves differ in shape, TreeError where examples differ in structure.

    >>> stack([(np.zeros(2), 1), (np.ones(2), 2)])
    (array([[0., 0.], [1., 1.]]), array([1, 2]))
    """
    leaves, structures = zip(*(tree.flatten(example) for example in examples), strict=True)
    for example, structure in zip(examples, structures, strict=True):
        if structure != structures[0]:
            difference = tree.first_difference(examples[0], example)
            raise TreeError(f"Dataset.batch: examples should have one structure: {difference}")
    columns = list(zip(*leaves, strict=True))
    try:
        return tree.unflatten(structures[0], [np.stack(column) for column in columns])
    except ValueError as e:
        raise _misfit(tree.paths(examples[0]), columns) from e


def _misfit(paths: list[str], columns: list[tuple[Any, ...]]) -> ShapeError:
    shapes = ((path, sorted({np.shape(leaf) for leaf in column})) for path, column in zip(paths, columns, strict=True))
    path, (one, other, *_) = next((path, found) for path, found in shapes if len(found) > 1)
    return ShapeError(
        f"Dataset.batch: leaf `{path}` has shape {one} in one example and {other} in another. Bring them to one shape "
        "with map(...) before batch(...)."
    )
