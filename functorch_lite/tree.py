# SPDX-License-Identifier: MIT
"""Pytrees, on optree: nested containers of arrays. Dictionaries flatten in sorted key order, None is no leaf.

    leaves, treedef = flatten({"b": 1, "a": [2, None]})     # [2, 1]
    unflatten(treedef, leaves)
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import optree

from functorch_lite.errors import TreeError

NAMESPACE = "functorch_lite"

TreeDef = optree.PyTreeSpec

immutable: weakref.WeakSet[type] = weakref.WeakSet()
"""The containers whose children nobody can change, besides tuples."""


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeDef]:
    """The leaves of `tree` in order, and its structure."""
    leaves, treedef = optree.tree_flatten(tree, is_leaf, namespace=NAMESPACE)
    return leaves, treedef


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> Any:
    """The tree of structure `treedef` with `leaves`."""
    return optree.tree_unflatten(treedef, leaves)


def leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves of `tree` in order."""
    return optree.tree_leaves(tree, is_leaf, namespace=NAMESPACE)


def structure(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> TreeDef:
    """The structure of `tree`."""
    return optree.tree_structure(tree, is_leaf, namespace=NAMESPACE)


def map(fun: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """`fun` applied to the leaves of `tree` and of `rest`, which must have its structure as a prefix."""
    try:
        return optree.tree_map(fun, tree, *rest, is_leaf=is_leaf, namespace=NAMESPACE)
    except ValueError as error:
        for other in rest:
            message = first_difference(tree, other)
            if message:
                raise TreeError(f"tree.map: {message}") from error
        raise


def flatten_with_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[tuple[Any, Any]], TreeDef]:
    """Pairs (path, leaf) and the structure; a path is a tuple of keys and indices."""
    paths, found, treedef = optree.tree_flatten_with_path(tree, is_leaf, namespace=NAMESPACE)
    return list(zip(paths, found, strict=True)), treedef


def leaves_with_path(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[Any, Any]]:
    """Pairs (path, leaf)."""
    return flatten_with_path(tree, is_leaf)[0]


def map_with_path(fun: Callable[..., Any], tree: Any, *rest: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """`fun(path, leaf, *others)` over the leaves of `tree`."""
    return optree.tree_map_with_path(fun, tree, *rest, is_leaf=is_leaf, namespace=NAMESPACE)


def keystr(path: Iterable[Any]) -> str:
    """A path as text: `['w'][0]`."""
    return "".join(f"[{key!r}]" for key in path)


def paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """The text path of each leaf, as a user would write it (attributes as `.name`, items as `[key]`)."""
    accessors, _, _ = optree.tree_flatten_with_accessor(tree, is_leaf, namespace=NAMESPACE)
    return [a.codify("") for a in accessors]


def reduce(fun: Callable[[Any, Any], Any], tree: Any, *initial: Any, is_leaf: Any = None) -> Any:
    """The leaves folded by `fun`."""
    return optree.tree_reduce(fun, tree, *initial, is_leaf=is_leaf, namespace=NAMESPACE)


def all(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether every leaf is true."""
    return optree.tree_all(tree, is_leaf=is_leaf, namespace=NAMESPACE)


def transpose(outer: TreeDef, inner: TreeDef, tree: Any) -> Any:
    """A tree of structure `outer` of trees `inner`, turned inside out."""
    return optree.tree_transpose(outer, inner, tree)


def broadcast_prefix(prefix: Any, tree: Any, *, what: str, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """One value for each leaf of `tree`, taken from `prefix`, a tree with the structure of its top part.

    `what` names the argument in the error. None in the prefix is a value.
    """
    is_leaf = is_leaf or (lambda x: x is None)
    values, treedef = flatten(prefix, is_leaf)
    try:
        subtrees = treedef.flatten_up_to(tree)
    except ValueError as error:
        message = first_difference(prefix, tree, is_leaf) or str(error)
        raise TreeError(f"{what} must be a prefix of the tree it describes: {message}") from error
    # None in `tree` is no leaf (a layer without bias), even where None in the prefix is a value.
    return [v for v, sub in zip(values, subtrees, strict=True) for _ in range(structure(sub).num_leaves)]


def first_difference(a: Any, b: Any, is_leaf: Callable[[Any], bool] | None = None, path: str = "") -> str:
    """Where two trees first differ in structure, in words; '' when they do not."""
    one, two = _children(a, is_leaf), _children(b, is_leaf)
    where = f"at `{path}`" if path else "at the top"
    if one is None and two is None:
        return ""
    if one is None or two is None or type(a) is not type(b):
        return f"{where}: {_describe(a, one)} against {_describe(b, two)}."
    if list(one) != list(two):
        return f"{where}: {_describe(a, one)} against {_describe(b, two)}."
    for key in one:
        found = first_difference(one[key], two[key], is_leaf, path + key)
        if found:
            return found
    return ""


def _children(tree, is_leaf):
    if is_leaf is not None and is_leaf(tree):
        return None
    if optree.tree_structure(tree, namespace=NAMESPACE).is_leaf():
        return None
    children, _, entries, _ = optree.tree_flatten_one_level(tree, namespace=NAMESPACE)
    named = hasattr(tree, "_fields") or not isinstance(tree, dict | list | tuple)
    return {f".{e}" if named else f"[{e!r}]": child for e, child in zip(entries, children, strict=True)}


def _describe(tree, children):
    if tree is None:
        return "None"
    if children is None:
        return "a leaf"
    if not children:
        return f"empty {type(tree).__name__}"
    return f"{type(tree).__name__} with {len(children)} child{'ren' * (len(children) != 1)} ({', '.join(children)})"


def register(
    cls: type,
    flatten_fun: Callable,
    unflatten_fun: Callable,
    *,
    entry_type: type[optree.PyTreeEntry] = optree.AutoEntry, is_immutable: bool = False,
) -> type:
    """Make `cls` a container: `flatten_fun(x) -> (children, metadata[, entries])`, `unflatten_fun(metadata, children)`.

    `entry_type` says how paths are written: optree.GetAttrEntry for children that are attributes. `is_immutable`:
    nobody can put other children in one.
    """
    if is_immutable:
        immutable.add(cls)
    return optree.register_pytree_node(
        cls, flatten_fun, unflatten_fun, path_entry_type=entry_type, namespace=NAMESPACE
    )
