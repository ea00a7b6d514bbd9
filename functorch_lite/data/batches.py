# SPDX-License-Identifier: MIT
"""Shuffled minibatches of arrays that are in memory."""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

from functorch_lite import tree
from functorch_lite.data.place import Seed, generator
from functorch_lite.errors import ArgumentError, ShapeError

Tree = TypeVar("Tree")


def batches(arrays: Tree, batch_size: int, *, seed: Seed, drop_last: bool = True) -> Iterator[Tree]:
    """An iterator over one epoch of minibatches: trees like `arrays`, every leaf [n, ...] cut to [batch_size, ...].

    Each example comes once, in an order that `seed` alone decides; rows of all leaves stay together. `seed` may be
    a sequence such as `(run, epoch)`, where zeros at the end do not count. The n % batch_size examples left over are
    dropped, or with `drop_last=False` form a shorter last batch.

    Raises ShapeError when the leaves differ in length, ArgumentError when no batch can be made.

    >>> x, y = np.arange(6), np.arange(6) * 10
    >>> [(a.tolist(), b.tolist()) for a, b in batches((x, y), 3, seed=(0, 1))]
    [([4, 1, 5], [40, 10, 50]), ([3, 2, 0], [30, 20, 0])]
    """
    n = length_of("batches", arrays)
    if batch_size < 1:
        raise ArgumentError(f"batches: `batch_size` should be at least 1, but is {batch_size}.")
    if n < batch_size and drop_last:
        raise ArgumentError(
            f"batches: {n} examples make no batch of {batch_size}. Use a smaller batch_size or drop_last=False."
        )
    order = generator(seed).permutation(n)
    stop = n - n % batch_size if drop_last else n
    return (rows_of(arrays, order[start : start + batch_size]) for start in range(0, stop, batch_size))


def length_of(function: str, arrays: Any) -> int:
    """The number of examples in `arrays`, the same in all leaves; `function` is whom an error names.

    Raises ShapeError when leaves differ, ArgumentError when there is none.
    """
    leaves = zip(tree.paths(arrays), tree.leaves(arrays), strict=True)
    sizes = {f"arrays{path}": leaf.shape[:1] for path, leaf in leaves}
    if not sizes:
        raise ArgumentError(f"{function}: `arrays` has no leaves.")
    if () in sizes.values() or len(set(sizes.values())) > 1:
        listed = ", ".join(f"`{path}` has {size[0] if size else 'no axis 0'}" for path, size in sizes.items())
        raise ShapeError(f"{function}: all leaves should hold equally many examples on axis 0: {listed}.")
    ((n,), *_) = sizes.values()
    return n


def rows_of(arrays: Tree, rows: np.ndarray) -> Tree:
    """The examples `rows` [k] of every leaf, in that order."""
    return tree.map(lambda leaf: leaf[rows], arrays)
