# SPDX-License-Identifier: MIT
"""`tree.map` that traces a function once for leaves that come again and again: the parameters of equal layers.

The stages of an optimizer map over the same trees one after the other. In a staged function the leaves of a tree that
came in or out of such a map are remembered, where nobody can change the tree: it is made of modules and tuples.
"""

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

from functorch_lite import tree
from functorch_lite.core.periods import Run, find_runs, numbered
from functorch_lite.core.staging import StagingTrace, staging_trace
from functorch_lite.core.tracer import Tracer
from functorch_lite.nn.module import Module
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
    leaves, treedef = _flat(trace, first, is_leaf)
    if len(leaves) < MIN_BLOCKS * MIN_LEAVES:
        return None
    try:
        columns = [leaves, *[_flat_up_to(trace, treedef, x) for x in rest]]
    except ValueError:
        return None  # `tree.map` tells what is different
    found = _mapped(trace, fun, list(zip(*columns, strict=True)), _runs(trace, leaves))
    return tuple([_unflat(trace, treedef, list(column), is_leaf) for column in zip(*found, strict=True)])


def _mapped(trace: StagingTrace, fun: Callable[..., Any], items: list[tuple[Any, ...]], runs: list[Run]) -> list[Any]:
    found: list[Any] = []
    for run in runs:
        found += [fun(*item) for item in items[len(found) : run.start]]
        for start in run.starts:
            found += _called(trace, fun, items[start : start + run.period])
    return found + [fun(*item) for item in items[len(found) :]]


def _called(trace: StagingTrace, fun: Callable[..., Any], items: list[tuple[Any, ...]]) -> list[Any]:
    """`fun` of each of the items, by a call of the program of all of them."""
    plain = tuple([tuple([None if isinstance(x, Tracer) else (x,) for x in item]) for item in items])
    if not all(p is None or p[0] is None or type(p[0]) is bool for item in plain for p in item):
        return [fun(*item) for item in items]
    given = [x for item in items for x in item if isinstance(x, Tracer)]

    def block(*arrays):
        left = iter(arrays)
        return [fun(*[next(left) if p is None else p[0] for p in item]) for item in plain], None

    return call_repeated(trace, block, (fun, plain), given, name="leaves", closes_over=True)[0]


def _runs(trace: StagingTrace, leaves: Sequence[Any]) -> list[Run]:
    """Where blocks of leaves of the same types come again and again."""
    keys = numbered([(x.shape, x.dtype) if isinstance(x, Tracer) else None if x is None else object() for x in leaves])
    key = "runs", keys.tobytes()
    if key not in trace.blocks:
        trace.blocks[key] = find_runs(keys, MIN_BLOCKS, MIN_LEAVES)
    return trace.blocks[key]


# --- trees whose leaves are known -------------------------------------------------------------------------------------


def _flat(trace: StagingTrace, x: Any, is_leaf: IsLeaf) -> tuple[list[Any], tree.TreeDef]:
    """`tree.flatten(x, is_leaf)`."""
    found = trace.trees.get((id(x), is_leaf))
    if found is None:
        found = x, *tree.flatten(x, is_leaf)
        if _is_frozen(trace, found[2]):
            trace.trees[id(x), is_leaf] = found
    return found[1:]


def _flat_up_to(trace: StagingTrace, treedef: tree.TreeDef, x: Any) -> list[Any]:
    """`treedef.flatten_up_to(x)`."""
    found = trace.trees.get((id(x), id(treedef)))
    if found is None:
        found = x, treedef.flatten_up_to(x), treedef
        if _is_frozen(trace, treedef):
            trace.trees[id(x), id(treedef)] = found
    return found[1]


def _unflat(trace: StagingTrace, treedef: tree.TreeDef, leaves: list[Any], is_leaf: IsLeaf) -> Any:
    """`tree.unflatten(treedef, leaves)`."""
    made = tree.unflatten(treedef, leaves)
    if _is_frozen(trace, treedef):
        trace.trees[id(made), id(treedef)] = made, leaves, treedef
        if all([isinstance(x, Tracer) or (is_leaf is not None and is_leaf(x)) for x in leaves]):
            trace.trees[id(made), is_leaf] = made, leaves, treedef
    return made


def _is_frozen(trace: StagingTrace, treedef: tree.TreeDef) -> bool:
    """Whether trees of a structure are large, and nobody can put other leaves in them."""
    key = "frozen", id(treedef)
    if key not in trace.trees:
        trace.trees[key] = treedef, treedef.num_leaves >= MIN_BLOCKS * MIN_LEAVES and _only_modules(treedef)
    return trace.trees[key][1]


def _only_modules(treedef: tree.TreeDef) -> bool:
    kind = treedef.type
    if kind is not None and not issubclass(kind, Module | tuple | NoneType):
        return False
    return all(map(_only_modules, treedef.children()))


__all__ = ["map_leaves", "map_leaves_to"]
