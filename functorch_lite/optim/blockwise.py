# SPDX-License-Identifier: MIT
"""`tree.map` that traces a function once for leaves that come again and again: the parameters of equal layers."""

from collections.abc import Callable
from typing import Any

from functorch_lite import tree
from functorch_lite.core.periods import find_runs, numbered
from functorch_lite.core.staging import StagingTrace, staging_trace
from functorch_lite.core.tracer import Tracer
from functorch_lite.transforms.repeated import call_repeated

MIN_BLOCKS = 4
MIN_LEAVES = 4  # of a block


def map_leaves(
    fun: Callable[..., Any], first: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None
) -> Any:
    """`tree.map(fun, first, *rest, is_leaf=is_leaf)`, for a pure function.

    In a staged function, a run of equal blocks of leaves becomes a call of one program for each.
    """
    trace = staging_trace()
    if trace is None:
        return tree.map(fun, first, *rest, is_leaf=is_leaf)
    leaves, treedef = tree.flatten(first, is_leaf=is_leaf)
    if len(leaves) < MIN_BLOCKS * MIN_LEAVES:
        return tree.map(fun, first, *rest, is_leaf=is_leaf)
    try:
        columns = [leaves, *map(treedef.flatten_up_to, rest)]
    except ValueError:
        return tree.map(fun, first, *rest, is_leaf=is_leaf)  # which tells what is different
    return tree.unflatten(treedef, _mapped(trace, fun, list(zip(*columns, strict=True))))


def _mapped(trace: StagingTrace, fun: Callable[..., Any], items: list[tuple[Any, ...]]) -> list[Any]:
    starts = {start: run for run in find_runs(numbered(map(_key, items)), MIN_BLOCKS, MIN_LEAVES)
              for start in run.starts}
    found: list[Any] = []
    while len(found) < len(items):
        run = starts.get(len(found))
        if run is None:
            found.append(fun(*items[len(found)]))
        else:
            found += _called(trace, fun, items[len(found) : len(found) + run.period])
    return found


def _key(item: tuple[Any, ...]) -> Any:
    """Equal for items that the function treats alike, as far as the first of each tells (a call has its own key)."""
    for x in item:
        if not isinstance(x, Tracer) and x is not None and type(x) is not bool:
            return object()
    first = item[0]
    return (first.shape, first.dtype) if isinstance(first, Tracer) else first


def _called(trace: StagingTrace, fun: Callable[..., Any], items: list[tuple[Any, ...]]) -> list[Any]:
    """`fun` of each of the items, by a call of the program of all of them."""
    plain = tuple([tuple([None if isinstance(x, Tracer) else (x,) for x in item]) for item in items])

    def block(*arrays):
        left = iter(arrays)
        return [fun(*[next(left) if p is None else p[0] for p in item]) for item in plain], None

    given = [x for item in items for x in item if isinstance(x, Tracer)]
    return call_repeated(trace, block, (fun, plain), given, name="leaves", closes_over=True)[0]


__all__ = ["map_leaves"]
