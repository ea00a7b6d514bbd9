# SPDX-License-Identifier: MIT
"""Modules made of modules, and functions as modules."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.errors import ArgumentTypeError, ShapeError
from functorch_lite.nn.activations import relu
from functorch_lite.nn.linear import Linear
from functorch_lite.nn.module import Array, Module


class Lambda(Module):
    """A function without parameters as a module."""

    fn: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.fn(*args)


class Identity(Module):
    """x -> x."""

    def __call__(self, x: Any) -> Any:
        return x


class Listed(Module):
    """Modules by number: what `Sequential` and `ModuleList` share."""

    layers: tuple[Module, ...]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)


class Sequential(Listed):
    """The layers one after the other; functions among them are wrapped in `Lambda`.

    >>> model = Sequential(Linear(4, 8, key=random.key(0)), relu, Linear(8, 2, key=random.key(1)))
    >>> len(model), model[0].out_features
    (3, 8)
    """

    def __init__(self, *layers: Module | Callable[[Any], Any]):
        self.layers = tuple(as_module(layer) for layer in layers)

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]


class ModuleList(Listed):
    """Modules by number; functions among them are wrapped in `Lambda`. A plain list of modules is a field, too.

    `+` and slices give new lists.

    >>> layers = ModuleList(Linear(4, 4, key=k) for k in random.split(random.key(0), 3))
    >>> len(layers), len(layers[1:]), len(layers + [relu])
    (3, 2, 4)
    """

    def __init__(self, layers: Iterable[Module | Callable[[Any], Any]] = ()):
        self.layers = tuple(as_module(layer) for layer in layers)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "ModuleList": ...
    def __getitem__(self, index: int | slice) -> "Module | ModuleList":
        return ModuleList(self.layers[index]) if isinstance(index, slice) else self.layers[index]

    def __add__(self, others: "Iterable[Module | Callable[[Any], Any]]") -> "ModuleList":
        return ModuleList((*self.layers, *others))


class ModuleDict(Module):
    """Modules by name; functions among them are wrapped in `Lambda`. A plain dict of modules is a field, too.

    `|` gives a new dict with more or other modules.

    >>> heads = ModuleDict({"digit": Linear(8, 10, key=random.key(0)), "parity": Linear(8, 2, key=random.key(1))})
    >>> list(heads), heads["parity"].out_features, "digit" in heads
    (['digit', 'parity'], 2, True)
    """

    layers: dict[str, Module]

    def __init__(self, layers: Mapping[str, Module | Callable[[Any], Any]] | None = None):
        self.layers = {name: as_module(layer) for name, layer in (layers or {}).items()}

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __contains__(self, name: object) -> bool:
        return name in self.layers

    def __getitem__(self, name: str) -> Module:
        return self.layers[name]

    def keys(self) -> Iterable[str]:
        """The names, in order."""
        return self.layers.keys()

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names and modules, in order."""
        return self.layers.items()

    def __or__(self, others: "Mapping[str, Module | Callable[[Any], Any]] | ModuleDict") -> "ModuleDict":
        return ModuleDict({**self.layers, **dict(others.items())})


def as_module(layer: Any) -> Module:
    """`layer` itself, or a `Lambda` of it when it is a plain function. Raises ArgumentTypeError for anything else."""
    if isinstance(layer, Module):
        return layer
    if isinstance(layer, type) or not callable(layer):
        raise ArgumentTypeError(f"expected a module or a function, got {layer!r}.")
    return Lambda(layer)


class Flatten(Module):
    """x with the axes `start_axis` to `end_axis` made one; -3 for images, so that one example flattens too."""

    start_axis: int = 1
    end_axis: int = -1

    def __call__(self, x: Array) -> Array:
        start, end = self.start_axis % x.ndim, self.end_axis % x.ndim
        if start > end or not -x.ndim <= self.start_axis < x.ndim:
            raise ShapeError(f"Flatten: axes {self.start_axis} to {self.end_axis} are not in shape {x.shape}.")
        return fnp.reshape(x, (*x.shape[:start], -1, *x.shape[end + 1 :]))


class MLP(Module):
    """Linear layers of the sizes `sizes`, with `activation` between them: x [..., sizes[0]] -> [..., sizes[-1]].

    >>> import numpy as np
    >>> MLP((784, 128, 10), key=random.key(0))(np.zeros((2, 784), np.float32)).shape
    (2, 10)
    """

    layers: tuple[Linear, ...]
    activation: Callable[[Array], Array]

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: Callable[[Array], Array] = relu,
        bias: bool = True,
        dtype: Any = None,
        key: Array,
    ):
        keys = random.split(key, len(sizes) - 1)
        widths = zip(sizes[:-1], sizes[1:], keys, strict=True)
        self.layers = tuple(Linear(n_in, n_out, bias=bias, dtype=dtype, key=k) for n_in, n_out, k in widths)
        self.activation = activation

    def __call__(self, x: Array) -> Array:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


class Residual(Module):
    """x -> x + layer(x)."""

    layer: Module

    def __init__(self, layer: Module | Callable[[Any], Any]):
        self.layer = as_module(layer)

    def __call__(self, x: Array) -> Array:
        return x + self.layer(x)


class Parallel(Module):
    """x -> the tuple of layer(x) for all layers, or with `combine` what that function makes of the tuple.

    >>> float(Parallel(relu, Identity(), combine=sum)(2.0))
    4.0
    """

    layers: tuple[Module, ...]
    combine: Callable[[Any], Any] | None

    def __init__(self, *layers: Module | Callable[[Any], Any], combine: Callable[[Any], Any] | None = None):
        self.layers = tuple(as_module(layer) for layer in layers)
        self.combine = combine

    def __call__(self, x: Any) -> Any:
        outs = tuple(layer(x) for layer in self.layers)
        return outs if self.combine is None else self.combine(outs)
