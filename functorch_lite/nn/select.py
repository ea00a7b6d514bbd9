# SPDX-License-Identifier: MIT
"""Choosing leaves of a model: by a pattern for their path, a predicate, or because they are trained.

Freezing is partition, differentiate one part, combine:

    head, rest = nn.partition(model, ".head.*")
    grads = grad(lambda head: loss(nn.combine(head, rest), x, y))(head)
"""

import functools
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from functorch_lite import tree
from functorch_lite.errors import ArgumentError, TreeError
from functorch_lite.nn.module import Module

Where = str | Sequence[str] | Callable[[str, Any], bool] | Any
"""A pattern such as ".conv*.weight" (fnmatch), several of them, a predicate (path, leaf) -> bool, or a tree of booleans
like the model."""


def mask(model: Any, where: Where) -> Any:
    """A tree like `model` of booleans: which leaves `where` selects.

    A path is written as in Python: `.layers[0].weight`. In a pattern `*` stands for any text, dots too.

    Raises ArgumentError when a pattern selects nothing, TreeError when a tree of booleans is not like the model.

    >>> mask({"w": 1.0, "b": 0.0}, "*w*")
    {'w': True, 'b': False}
    """
    leaves, treedef = tree.flatten(model)
    if callable(where) and not isinstance(where, Module):
        paths = tree.paths(model)
        return tree.unflatten(treedef, [bool(where(path, leaf)) for path, leaf in zip(paths, leaves, strict=True)])
    patterns = _patterns(where)
    if patterns is not None:
        return tree.unflatten(treedef, _selected(tree.paths(model), patterns))
    if tree.structure(where) != treedef:
        difference = tree.first_difference(model, where) or "they differ in their static fields."
        raise TreeError(f"a mask should have the structure of the model: {difference}")
    return where


def _patterns(where: Any) -> tuple[str, ...] | None:
    if isinstance(where, str):
        return (where,)
    is_patterns = isinstance(where, list | tuple) and where and all(isinstance(item, str) for item in where)
    return tuple(where) if is_patterns else None


def _selected(paths: list[str], patterns: tuple[str, ...]) -> list[bool]:
    for pattern in patterns:
        if not any(_matches(path, pattern) for path in paths):
            raise ArgumentError(f"the pattern {pattern!r} selects no leaf; the paths are {_some(paths)}.")
    return [any(_matches(path, pattern) for pattern in patterns) for path in paths]


def _matches(path: str, pattern: str) -> bool:
    # In fnmatch a bracket opens a set of characters; in a path it is itself.
    return fnmatchcase(path, pattern.replace("[", "[[]"))


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:12]) + (f", ... ({len(paths)} in all)" if len(paths) > 12 else "")


def partition(model: Any, where: Where) -> tuple[Any, Any]:
    """`(selected, rest)`: two trees like `model`, each with None where the other holds the leaf.

    `where` is what `mask` takes. None is no leaf, so `grad` with respect to `selected` is a gradient of the selected
    leaves alone.

    >>> partition({"w": 1.0, "b": 0.0}, "*w*")
    ({'w': 1.0, 'b': None}, {'w': None, 'b': 0.0})
    """
    leaves, treedef = tree.flatten(model)
    pairs = list(zip(leaves, tree.leaves(mask(model, where)), strict=True))
    selected = tree.unflatten(treedef, [leaf if keep else None for leaf, keep in pairs])
    return selected, tree.unflatten(treedef, [None if keep else leaf for leaf, keep in pairs])


def combine(*parts: Any) -> Any:
    """The tree whose parts `partition` gave: at each place the first that is not None.

    >>> combine({"b": None, "w": 1.0}, {"b": 0.0, "w": None})
    {'b': 0.0, 'w': 1.0}
    """
    return tree.map(_first, *parts, is_leaf=lambda x: x is None)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def trainable_mask(model: Any) -> Any:
    """A tree like `model` of booleans: False for the leaves of fields declared with `nn.buffer()`, else True.

    Buffers (the running statistics of `BatchNorm`) have zero gradients; what changes parameters without regard to
    their gradient, such as weight decay, must leave them out. Any tree may hold modules; without any, all is True.
    """
    treedef = tree.structure(model)
    return tree.unflatten(treedef, _trainable(treedef))


@functools.lru_cache(maxsize=256)
def _trainable(treedef: tree.TreeDef) -> tuple[bool, ...]:
    """One boolean a leaf: it depends on the structure alone, so it is worked out once for each."""
    skeleton = tree.unflatten(treedef, range(treedef.num_leaves))
    found = [True] * treedef.num_leaves
    for index in _buffers(skeleton):
        found[index] = False
    return tuple(found)


def _buffers(node: Any) -> list[int]:
    modules = [m for m in tree.leaves(node, is_leaf=lambda x: isinstance(x, Module)) if isinstance(m, Module)]
    found: list[int] = []
    for module in modules:
        for name in module._child_names:
            value = getattr(module, name)
            found += tree.leaves(value) if name in module._buffer_names else _buffers(value)
    return found
