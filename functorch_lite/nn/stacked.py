# SPDX-License-Identifier: MIT
"""Many layers of one kind as one loop: their parameters are stacked, and the program has one layer in it.

Tracing, compiling and the size of the program do not grow with the number of layers; the numbers are those of the
layers called one after the other.
"""

from collections.abc import Sequence
from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import lax, random, tree
from functorch_lite.errors import ArgumentError, ShapeError, TreeError
from functorch_lite.nn.context import apply, get_state, is_training, optional_key, set_state
from functorch_lite.nn.module import Array, Module
from functorch_lite.nn.select import combine
from functorch_lite.transforms import checkpoint


class Stacked(Module):
    """The layers one after the other, x -> layers[n - 1](... layers[0](x, *args) ..., *args), as one `lax.scan`.

    layers: modules of one structure, with arrays of the same shapes; a layer's output must be like its input. args go
    to every layer. In `nn.apply` each layer has a key of its own, and new statistics come out as from any layer.
    remat: keep the inputs of the layers alone for the backward pass and compute the rest anew (`checkpoint`).

    Raises ArgumentError for no layers, TreeError or ShapeError when they differ.

    >>> import numpy as np
    >>> from functorch_lite import nn
    >>> model = Stacked([nn.Linear(4, 4, key=key) for key in random.split(random.key(0), 12)])
    >>> model.layers.weight.shape, len(model), model(np.ones(4, np.float32)).shape
    ((12, 4, 4), 12, (4,))
    """

    layers: Module
    length: int
    remat: bool

    def __init__(self, layers: Sequence[Module], *, remat: bool = False):
        layers = tuple(layers)
        if not layers:
            raise ArgumentError("Stacked: give one layer or more.")
        _check_alike(layers)
        self.layers = tree.map(lambda *leaves: fnp.stack(leaves), *layers)
        self.length, self.remat = len(layers), remat

    def __call__(self, x: Any, *args: Any) -> Any:
        layers = get_state(self, "layers")
        key, training = optional_key(), is_training()
        keys = None if key is None else random.split(key, self.length)

        def body(carry: Any, row: Any) -> Any:
            layer, layer_key = row
            out, after = apply(layer, carry, *args, key=layer_key, training=training)
            return out, _changed(layer, after)

        out, changed = lax.scan(checkpoint(body) if self.remat else body, x, (layers, keys))
        if tree.leaves(changed):
            set_state(self, layers=combine(changed, layers))
        return out

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        """Layer number `index`, with arrays of its own."""
        if not -self.length <= index < self.length:
            raise IndexError(f"Stacked: there is no layer {index} among {self.length}.")
        return tree.map(lambda leaf: leaf[index], self.layers)


def _changed(before: Any, after: Any) -> Any:
    """`after` with None for the arrays that are those of `before`: the new statistics of a forward pass."""
    return tree.map(lambda old, new: None if new is old else new, before, after)


def _check_alike(layers: tuple[Module, ...]) -> None:
    first = layers[0]
    for i, layer in enumerate(layers):
        if tree.structure(layer) != tree.structure(first):
            difference = tree.first_difference(first, layer) or "they differ in their static fields."
            raise TreeError(f"Stacked: the layers should be alike, but number {i} is not like the first: {difference}")
        for path, one, other in zip(tree.paths(first), tree.leaves(first), tree.leaves(layer), strict=True):
            if _type(one) != _type(other):
                raise ShapeError(
                    f"Stacked: the layers' arrays should be alike, but `{path}` is {_type(one)} in the first and "
                    f"{_type(other)} in number {i}."
                )


def _type(leaf: Array) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"
