# SPDX-License-Identifier: MIT
"""The leaves of trees that a traced function holds, which are then not looked for again.

To take a large model apart takes as long as to write hundreds of equations, and an optimizer's step has four trees like
it. What `jit`, a gradient or a map over leaves puts together is known here until the trace ends, if nobody can put
other leaves in it: trees of modules and tuples.
"""

import functools
import itertools
from collections.abc import Sequence
from types import NoneType
from typing import Any

import optree

from functorch_lite import tree

LEAST = 16
"""Leaves of a tree: of a smaller one they are found anew."""

Flat = tuple[Sequence[Any], tree.TreeDef]


class KnownTrees:
    """Trees by identity, each with its leaves and structure."""

    __slots__ = ("_found",)

    def __init__(self):
        self._found: dict[int, tuple[Any, Sequence[Any], tree.TreeDef]] = {}

    def remember(self, x: Any, leaves: Sequence[Any], treedef: tree.TreeDef) -> None:
        """Note the leaves of a tree, or of the trees in a container."""
        if treedef.num_leaves < LEAST:
            return
        if not isinstance(x, tuple | list | dict):
            if is_fixed(treedef):
                self._found[id(x)] = x, leaves, treedef
            return
        at = 0
        for child, own in zip(_children(x, treedef), treedef.children(), strict=True):
            self.remember(child, leaves[at : at + own.num_leaves], own)
            at += own.num_leaves

    def find(self, x: Any) -> Flat | None:
        """The leaves and the structure of a tree, if they are known."""
        found = self._found.get(id(x))
        return None if found is None else found[1:]

    def flatten(self, x: Any) -> Flat:
        """`tree.flatten(x)`."""
        parts: list[Flat] = []
        outline = self._outline(x, parts)
        if outline == 0:
            return parts[0]
        treedefs = iter([treedef for _, treedef in parts])
        around = optree.tree_structure(outline, namespace=tree.NAMESPACE)
        treedef = optree.treespec_transform(around, f_leaf=lambda leaf: next(treedefs))
        return list(itertools.chain.from_iterable([leaves for leaves, _ in parts])), treedef

    def _outline(self, x: Any, parts: list[Flat]) -> Any:
        """The tuples that a tree is made of, with 0 for what is in them, which joins `parts`."""
        if type(x) is not tuple and not hasattr(x, "_fields"):
            parts.append(self.find(x) or tree.flatten(x))
            return 0
        inside = [self._outline(child, parts) for child in x]
        return tuple(inside) if type(x) is tuple else type(x)(*inside)

    def clear(self) -> None:
        """Forget all."""
        self._found.clear()


def _children(x: Any, treedef: tree.TreeDef) -> Sequence[Any]:
    return [x[key] for key in treedef.entries()] if isinstance(x, dict) else x


@functools.lru_cache(64)
def is_fixed(treedef: tree.TreeDef) -> bool:
    """Whether nobody can put other leaves in trees of a structure: none of its containers can be changed."""
    kinds: set[type] = set()
    treedef.walk(range(treedef.num_leaves), lambda kind, data, children: kinds.add(kind))
    return all(kind in tree.immutable or issubclass(kind, tuple | NoneType) for kind in kinds)
