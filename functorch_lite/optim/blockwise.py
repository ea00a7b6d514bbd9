# SPDX-License-Identifier: MIT
"""`tree.map` that traces a function once for leaves that come again and again: the parameters of equal layers.

The stages of an optimizer map over the same trees one after the other. In a staged function the leaves of a tree that
came in or out of such a map are remembered, where nobody can change the tree: it is made of modules and tuples.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite import tree
from functorch_lite.core.dtypes import float0
from functorch_lite.core.periods import Run, find_runs, numbered
from functorch_lite.core.staging import StagingTrace, staging_trace
from functorch_lite.core.tracer import Tracer
from functorch_lite.transforms.repeated import call_repeated

MIN_BLOCKS = 4
MIN_LEAVES = 4  # of a block

IsLeaf = Callable[[Any], bool] | None


def map_leaves(fun: Callable[..., Any], first: Any, *rest: Any, is_leaf: IsLeaf = None) -> Any:
    """`tree.map(fun, first, *rest, is_leaf=is_leaf)`, for a pure function.

    In a staged function, a run of equal blocks of leaves becomes a call of one program for each.
    """
    found = _in_blocks(lambda *leaves: (fun(*leaves),), 1, first, rest, is_leaf)
    return tree.map(fun, first, *rest, is_leaf=is_leaf) if found is None else found[0]


def map_leaves_to(n: int, fun: Callable[..., Any], first: Any, *rest: Any, is_leaf: IsLeaf = None) -> tuple[Any, ...]:
    """`n` trees from a function that returns n values for each leaf; else as `map_leaves`."""
    found = _in_blocks(fun, n, first, rest, is_leaf)
    if found is not None:
        return found
    values: list[list[Any]] = [[] for _ in range(n)]

    def note(*leaves):
        for column, value in zip(values, fun(*leaves), strict=True):
            column.append(value)

    tree.map(note, first, *rest, is_leaf=is_leaf)
    treedef = tree.structure(first, is_leaf)
    return tuple([tree.unflatten(treedef, column) for column in values])


def _in_blocks(
    fun: Callable[..., Any], n: int, first: Any, rest: Sequence[Any], is_leaf: IsLeaf
) -> tuple[Any, ...] | None:
    """The trees of the n results, where there are blocks to be found."""
    trace = staging_trace()
    if trace is None:
        return None
    flat = _flat(trace, first, rest, is_leaf)
    if flat is None:
        return None
    treedef, columns = flat
    found = _mapped(trace, fun, list(zip(*columns, strict=True)), _runs(trace, columns[0]))
    return tuple([_unflat(trace, treedef, list(column)) for column in zip(*found, strict=True)])


def _mapped(trace: StagingTrace, fun: Callable[..., Any], items: list[tuple[Any, ...]], runs: list[Run]) -> list[Any]:
    found: list[Any] = []
    for run in runs:
        found += [fun(*item) for item in items[len(found) : run.start]]
        for start in run.starts:
            found += _called(trace, fun, items[start : start + run.period])
    return found + [fun(*item) for item in items[len(found) :]]


def _called(trace: StagingTrace, fun: Callable[..., Any], items: list[tuple[Any, ...]]) -> list[Any]:
    """`fun` of each of the items, by a call of the program of all of them."""
    every = list(itertools.chain(*items))
    given = [x for x in every if isinstance(x, Tracer)]
    plain = tuple([None if isinstance(x, Tracer) else (x,) for x in every]) if len(given) < len(every) else ()
    if not all([p is None or p[0] is None or type(p[0]) is bool for p in plain]):
        return [fun(*item) for item in items]
    n, count = len(items[0]), len(every)

    def block(*arrays):
        left = iter(arrays)
        values = [next(left) if p is None else p[0] for p in plain] if plain else arrays
        return [fun(*values[k : k + n]) for k in range(0, count, n)], None

    return call_repeated(trace, block, (fun, plain), given, name="leaves", closes_over=True)[0]


def _runs(trace: StagingTrace, leaves: Sequence[Any]) -> list[Run]:
    """Where blocks of leaves of the same types come again and again."""
    keys = numbered([(x.shape, x.dtype) if isinstance(x, Tracer) else None if x is None else object() for x in leaves])
    key = "runs", keys.tobytes()
    if key not in trace.blocks:
        trace.blocks[key] = find_runs(keys, MIN_BLOCKS, MIN_LEAVES)
    return trace.blocks[key]


# --- trees whose leaves are known -------------------------------------------------------------------------------------


def _flat(
    trace: StagingTrace, first: Any, rest: Sequence[Any], is_leaf: IsLeaf
) -> tuple[tree.TreeDef, list[Sequence[Any]]] | None:
    """The structure of a large tree `first`, and the leaves of all; None if they are small, or not alike."""
    flats = [trace.trees.find(x) or tree.flatten(x) for x in (first, *rest)] if is_leaf in (None, is_absent) else []
    treedefs = [treedef for _, treedef in flats]
    if flats and treedefs.count(treedefs[0]) == len(flats):  # None is in the same places, and stays there
        leaves, treedef = [leaves for leaves, _ in flats], treedefs[0]
    else:
        own, treedef = tree.flatten(first, is_leaf)
        try:
            leaves = [own, *[treedef.flatten_up_to(x) for x in rest]]
        except ValueError:
            return None  # `tree.map` tells what is different
    return (treedef, leaves) if len(leaves[0]) >= MIN_BLOCKS * MIN_LEAVES else None


def _unflat(trace: StagingTrace, treedef: tree.TreeDef, leaves: list[Any]) -> Any:
    """`tree.unflatten(treedef, leaves)`."""
    made = tree.unflatten(treedef, leaves)
    if all([isinstance(leaf, Tracer) for leaf in leaves]):
        trace.trees.remember(made, leaves, treedef)
    return made


def is_absent(gradient: Any) -> bool:
    """Whether a gradient says nothing: None, or the float0 of an integer parameter."""
    return gradient is None or getattr(gradient, "dtype", None) == float0


__all__ = ["map_leaves", "map_leaves_to"]
