# SPDX-License-Identifier: MIT
"""Layers around a layer, and putting them in place of chosen layers of a model."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from functorch_lite import tree
from functorch_lite.errors import ArgumentError, ArgumentTypeError
from functorch_lite.nn.module import Module

LayerWhere = str | Sequence[str] | Callable[[str, Any], bool]
"""A pattern for the path of a layer such as "*.q_proj" (fnmatch), several, or a predicate (path, layer) -> bool."""


class Wrapper(Module):
    """Base of layers around one other, `layer`; what they lack themselves (`in_features` ...) is that layer's."""

    layer: Module

    def __getattr__(self, name: str) -> Any:
        inner = self.__dict__.get("layer")
        if inner is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")
        return getattr(inner, name)


def map_layers(
    fun: Callable[[Any], Any],
    model: Any,
    kinds: type | tuple[type, ...],
    *,
    where: LayerWhere | None = None,
) -> Any:
    """`model` with each layer of the classes `kinds` that `where` selects replaced by fun(layer).

    where: what a path such as ".encoder.layers[0].linear1" must match; `*` stands for any text, dots too. None is all
    layers of these kinds. Layers inside of one of `kinds` are left to it.

    Raises ArgumentError when `where` selects no layer.

    >>> from functorch_lite import nn
    >>> model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Dropout(0.1))
    >>> model = map_layers(lambda layer: nn.Identity(), model, nn.Dropout, where="*[0]")
    >>> model[0], model[2].p
    (Identity(), 0.1)
    """
    nodes, treedef = tree.flatten(model, is_leaf=lambda x: isinstance(x, kinds))
    paths = tree.paths(model, is_leaf=lambda x: isinstance(x, kinds))
    found = {i: path for i, (path, node) in enumerate(zip(paths, nodes, strict=True)) if isinstance(node, kinds)}
    selected = {i for i, path in found.items() if _is_selected(where, path, nodes[i])}
    if not selected:
        raise ArgumentError(
            f"`where` {where!r} selects no layer of the kinds {_names(kinds)}; "
            f"the model's are at {', '.join(map(repr, list(found.values())[:12])) or 'no path'}."
        )
    return tree.unflatten(treedef, [fun(node) if i in selected else node for i, node in enumerate(nodes)])


def own_weight(what: str, layer: Any) -> Any:
    """The weight of `layer`; ArgumentError in the name of `what` where another layer of a `Tied` model holds it."""
    if layer.weight is None:
        raise ArgumentError(
            f"{what}: a selected {type(layer).__name__} has no weight of its own; change the layers first, then "
            "`tie` them."
        )
    return layer.weight


def _is_selected(where: LayerWhere | None, path: str, layer: Any) -> bool:
    if where is None:
        return True
    if callable(where):
        return bool(where(path, layer))
    patterns = [where] if isinstance(where, str) else list(where)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise ArgumentTypeError(f"`where` should be patterns for paths or a predicate (path, layer), but is {where!r}.")
    # In fnmatch a bracket opens a set of characters; in a path it is itself.
    return any(fnmatchcase(path, pattern.replace("[", "[[]")) for pattern in patterns)


def _names(kinds: type | tuple[type, ...]) -> str:
    return ", ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
