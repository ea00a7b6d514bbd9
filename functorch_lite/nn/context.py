# SPDX-License-Identifier: MIT
"""The one call for what is random or changes in a forward pass.

    out, model = nn.apply(model, x, key=key, training=True)

While the model runs, layers ask this file for three things: whether this is training, the next random key, and a place
for the new values of their buffers. They live in a context variable that `apply` restores, so the call is pure from
outside and works under every transform: the new statistics come out as part of the returned model. A plain `model(x)`
is inference: deterministic, no changes.

A function inside the model that is itself transformed (a block under `vmap`, the body of a `scan`) is traced once. A
block with dropout or statistics in it should be run there by an `apply` of its own, with its own key, and returned.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from functorch_lite import random, tree
from functorch_lite.core.tracer import surroundings
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.module import Array, Module

_NEEDS_KEY = """\
{layer} draws random numbers when it trains, so it needs a key:
    out, model = nn.apply(model, x, training=True)              # wrong
    out, model = nn.apply(model, x, key=key, training=True)     # a new key for each step"""


class Pass:
    """One forward pass: its key and how often it was used, and the changes by identity of the module.

    first: the number of its first key, where it is a part of a pass.
    """

    __slots__ = ("key", "n_keys", "training", "changes", "first")

    def __init__(self, key: Array | None, training: bool, first: Array | None = None):
        self.key = key
        self.first = first
        self.n_keys = 0
        self.training = training
        self.changes: dict[int, tuple[Module, dict[str, Any]]] = {}


_INFERENCE = Pass(None, False)
pass_variable: ContextVar[Pass] = ContextVar("functorch_lite_forward_pass", default=_INFERENCE)


def apply(model: Any, *args: Any, key: Array | None = None, training: bool = False, **kwargs: Any) -> tuple[Any, Any]:
    """`(model(*args, **kwargs), model)`, where the second is the model with the statistics this pass has gathered.

    key: a random key (uint32 [2]) for dropout and its like; each layer gets one of its own, derived by `fold_in`.
    training: dropout drops, BatchNorm normalises by the batch and updates its running statistics.

    The returned model has the structure of the given one. Raises ArgumentError when a key is needed and missing, and
    when a layer that is no part of `model` changes its statistics.

    >>> layer = Dropout(0.5)                                                                # doctest: +SKIP
    >>> out, layer = apply(layer, np.ones(4), key=random.key(0), training=True)             # doctest: +SKIP
    """
    current = Pass(key, training)
    token, around = pass_variable.set(current), surroundings.set(current)
    try:
        out = model(*args, **kwargs)
    finally:
        pass_variable.reset(token)
        surroundings.reset(around)
    if not current.changes:
        return out, model
    used: set[int] = set()
    model = _rebuilt(model, current.changes, used)
    _check_all_used(current.changes, used)
    return out, model


def is_training() -> bool:
    """Whether the running forward pass is one of `nn.apply(..., training=True)`. For authors of layers."""
    return pass_variable.get().training


def next_key(layer: str) -> Array:
    """A random key that no other layer of this forward pass gets; `layer` names the caller in the error."""
    current = pass_variable.get()
    if current.key is None:
        raise ArgumentError(_NEEDS_KEY.format(layer=layer))
    current.n_keys += 1
    number = current.n_keys - 1
    return random.fold_in(current.key, number if current.first is None else current.first + np.uint32(number))


def optional_key() -> Array | None:
    """What `next_key` gives, or None in a pass without a key: for a layer that runs an `apply` of its own."""
    return None if pass_variable.get().key is None else next_key("")


def get_state(module: Module, name: str) -> Any:
    """The buffer `name` of `module`, as this forward pass has left it so far."""
    _, changes = pass_variable.get().changes.get(id(module), (module, {}))
    return changes.get(name, getattr(module, name))


def set_state(module: Module, **changes: Any) -> None:
    """Note new values for buffers of `module`; `nn.apply` returns them in the model. Outside of it: nothing."""
    current = pass_variable.get()
    if current is _INFERENCE:
        return
    noted = current.changes
    _, earlier = noted.get(id(module), (module, {}))
    noted[id(module)] = (module, {**earlier, **changes})


def _rebuilt(node: Any, changes: dict[int, tuple[Module, dict[str, Any]]], used: set[int]) -> Any:
    """`node` with the noted changes in place; `used` gathers the identities of the modules that were met."""
    if not isinstance(node, Module):
        return tree.map(lambda x: _rebuilt(x, changes, used) if _is_module(x) else x, node, is_leaf=_is_module)
    fields = {name: _rebuilt(getattr(node, name), changes, used) for name in node._child_names}
    if id(node) in changes:
        used.add(id(node))
        fields |= changes[id(node)][1]
    return node.replace(**fields)


def _is_module(x: Any) -> bool:
    return isinstance(x, Module)


def _check_all_used(changes: dict[int, tuple[Module, dict[str, Any]]], used: set[int]) -> None:
    strangers = [module for identity, (module, _) in changes.items() if identity not in used]
    if strangers:
        raise ArgumentError(
            f"nn.apply: a {type(strangers[0]).__name__} that is no part of the model changed its statistics. "
            "Make it a field of the model; inside an inner transform run it by an nn.apply of its own."
        )


# A part of a pass that is traced for itself (nn/blocks.py).


def forward_pass() -> Pass | None:
    """The running forward pass of `nn.apply`, None outside of one."""
    current = pass_variable.get()
    return None if current is _INFERENCE else current


@contextmanager
def in_pass(around: Pass | None, key: Array | None = None, first: Array | None = None) -> Iterator[Pass | None]:
    """A part of the pass `around`, whose keys are derived from `key` by the numbers from `first` on."""
    if around is None:
        yield None
        return
    part = Pass(key, around.training, first)
    token = pass_variable.set(part)
    try:
        yield part
    finally:
        pass_variable.reset(token)
