# SPDX-License-Identifier: MIT
"""One array at several places of a model: a tied weight is one leaf.

    model = nn.tie(model, ".embed.weight", ".head.weight")

A layer that a model calls twice, or an embedding whose `attend` makes the logits, is held once and needs none of this.
Two layers of a finished model that hold the same array are different leaves, and would be trained apart: gradients,
optimizers and checkpoints see leaves, not identities. `tie` leaves one of them.
"""

import functools
from typing import Any

from functorch_lite import tree
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.context import apply, get_state, is_training, optional_key, set_state
from functorch_lite.nn.module import Module
from functorch_lite.nn.state_dict import state_names
from functorch_lite.nn.wrapper import Wrapper

Links = tuple[tuple[str, str], ...]
"""Pairs (path, path of the array that stands there)."""


class Tied(Wrapper):
    """`layer`, a model with None at the tied places, which is called with the arrays of `links` put there.

    Made by `tie`. What it lacks itself are attributes of the model with its arrays in place.
    """

    layer: Module
    links: Links

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        model = _filled(get_state(self, "layer"), self.links)
        out, changed = apply(model, *args, key=optional_key(), training=is_training(), **kwargs)
        if changed is not model:
            set_state(self, layer=_emptied(changed, self.links))
        return out

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "layer" not in self.__dict__:
            return super().__getattr__(name)
        return getattr(self.untied(), name)

    def untied(self) -> Any:
        """The model with each array at all of its places, which are different leaves again."""
        return _filled(self.layer, self.links)


@state_names.register
def _(module: Tied) -> dict[str, Any]:
    return state_names(module.layer)


def tie(model: Module, source: str, *targets: str) -> Tied:
    """`model` with the arrays at the paths `targets` given up for the one at `source`, from now on one leaf.

    Paths are those of `tree.paths`: of an array (".embed.weight") or of a part of the model, whose arrays are tied each
    to its like. The result is called as the model is; its gradient is the sum over all places. A tied model can be tied
    again, at other places.

    Raises ArgumentError for a path at which the model has no array, and for parts whose arrays differ in name;
    ShapeError when shapes or dtypes differ.

    >>> from functorch_lite import nn, random
    >>> model = nn.Sequential(nn.Embedding(50, 8, key=random.key(0)), nn.Linear(8, 50, bias=False, key=random.key(1)))
    >>> model = tie(model, ".layers[0].weight", ".layers[1].weight")
    >>> [leaf.shape for leaf in tree.leaves(model)]
    [(50, 8)]
    """
    inner, links = (model.layer, model.links) if isinstance(model, Tied) else (model, ())
    leaves = dict(zip(tree.paths(inner), tree.leaves(inner), strict=True))
    parts = _arrays_below(leaves, source)
    for target in targets:
        there = _arrays_below(leaves, target)
        if set(there) != set(parts) or target == source:
            raise ArgumentError(
                f"tie: `{target}` holds the arrays {_some(there)}, and `{source}` {_some(parts)}: give two places with "
                "the same."
            )
        for suffix, leaf in there.items():
            _check_alike(source + suffix, parts[suffix], target + suffix, leaf)
        links += tuple((target + suffix, source + suffix) for suffix in there)
    return Tied(_emptied(inner, links), links)


def _arrays_below(leaves: dict[str, Any], path: str) -> dict[str, Any]:
    found = {
        p.removeprefix(path): leaf for p, leaf in leaves.items() if p == path or p.startswith((f"{path}.", f"{path}["))
    }
    if not found:
        raise ArgumentError(f"tie: the model has no array at `{path}`; the paths are {_some(leaves)}.")
    return found


def _check_alike(source: str, one: Any, target: str, other: Any) -> None:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        raise ShapeError(
            f"tie: arrays that become one should have the same shape and dtype, but `{source}` is {one.dtype}"
            f"{list(one.shape)} and `{target}` {other.dtype}{list(other.shape)}."
        )


def _some(paths: Any) -> str:
    shown = [f"`{path}`" for path in paths]
    return ", ".join(shown[:8]) + (f", ... ({len(shown)} in all)" if len(shown) > 8 else "")


def _is_none(x: Any) -> bool:
    return x is None


def _filled(layer: Any, links: Links) -> Any:
    nodes, treedef = tree.flatten(layer, _is_none)
    nodes = list(nodes)
    for target, source in _numbers(treedef, links):
        nodes[target] = nodes[source]
    return tree.unflatten(treedef, nodes)


def _emptied(layer: Any, links: Links) -> Any:
    nodes, treedef = tree.flatten(layer, _is_none)
    nodes = list(nodes)
    for target, _ in _numbers(treedef, links):
        nodes[target] = None
    return tree.unflatten(treedef, nodes)


@functools.lru_cache(maxsize=256)
def _numbers(treedef: tree.TreeDef, links: Links) -> tuple[tuple[int, int], ...]:
    """The links as numbers of leaves, where None is a leaf too."""
    paths = tree.paths(tree.unflatten(treedef, range(treedef.num_leaves)))
    numbers = {path: i for i, path in enumerate(paths)}
    lost = [path for link in links for path in link if path not in numbers]
    if lost:
        raise ArgumentError(f"Tied: there is no place `{lost[0]}` any more; change the layers first, then `tie` them.")
    return tuple((numbers[target], numbers[source]) for target, source in links)
