# SPDX-License-Identifier: MIT
"""Donation: arguments whose memory a call may take over, and what was donated, which must not be used again.

A donated array that nothing else holds gives its memory to an output (`given_up` tells which they are, the executable
which output may have it). Every donated array is remembered while it lives, by its identity or, where a native call
took it, by a `Mark` that is its base: using it again is an error.
"""

import functools
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite import tree
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import DonationError, user_source
from functorch_lite.transforms.arguments import name_of

_donated: dict[int, tuple[Any, weakref.ref]] = {}  # by identity: the call it went to


class _Call(NamedTuple):
    """A call that was given arrays; the text is made when an error asks for it."""

    fun: Any
    source: Any

    def __str__(self) -> str:
        return f"{name_of(self.fun)} at {self.source}"


class Mark:
    """The base of arrays that a native call of `fun` was given. kept: the outputs that have their memory now."""

    __slots__ = ("call", "kept")

    def __init__(self, fun: Any, kept: list[np.ndarray]):
        self.call = _Call(fun, user_source())
        self.kept = kept


def donated_leaves(treedef: tree.TreeDef, numbers: Sequence[int], names: Sequence[str]) -> list[int]:
    """The numbers of the leaves of `(args, kwargs)` that belong to donated arguments."""
    found, number = [], 0
    positional, named = treedef.children()
    for i, child in enumerate(positional.children()):
        found += range(number, number + child.num_leaves) if i in numbers else ()
        number += child.num_leaves
    for name, child in zip(named.entries(), named.children(), strict=True):
        found += range(number, number + child.num_leaves) if name in names else ()
        number += child.num_leaves
    return found


class _Probe:
    """Counts the references that an argument has in a call, by the caller's variable, its stack and the call."""

    def __call__(self, *args: Any) -> int:
        return sys.getrefcount(args[0]) - 1

    _call = __call__


def _held_in_a_call() -> tuple[int, int]:
    probe, argument = _Probe(), object()
    return probe(argument), probe._call(argument)


HELD, HELD_BY_METHOD = _held_in_a_call()
"""By how many an argument of a Python call is held if nothing but a variable of the caller's has it: in a call of an
object, and in one of its method."""


def given_up(
    leaves: Sequence[Any], values: Sequence[Any], donated: Sequence[int], args: Sequence[Any], held: int
) -> list[int]:
    """The numbers of donated leaves that nothing but the caller's own argument holds: no view of them is seen.

    held: by how many a direct argument is held, HELD or HELD_BY_METHOD.
    """
    found = []
    alone = set(map(id, args))
    for i in donated:
        leaf = leaves[i]
        most = 4 + (held if id(leaf) in alone else 1)  # `leaves`, `values`, `leaf`, the call; and the argument
        if sys.getrefcount(leaf) <= most and leaf is values[i] and type(leaf) is np.ndarray and _owns(leaf):
            found.append(i)
    return found


def _owns(leaf: np.ndarray) -> bool:
    """Whether nobody else can see the memory of an array: it is its own, that of a base which it alone holds, or that
    of an array donated before it."""
    base = leaf.base
    if base is None:
        return leaf.flags.owndata
    alone = type(base) is np.ndarray and sys.getrefcount(base) <= 3  # `leaf`, `base` and the call
    return alone and (base.flags.owndata or id(base) in _donated)


def check_unused(fun: Any, leaves: Sequence[Any], paths: Callable[[], list[str]]) -> None:
    """Raise DonationError for a leaf that was donated before."""
    for i, leaf in enumerate(leaves):
        call = _went_to(leaf)
        if call is not None:
            raise DonationError(
                f"jit: `{paths()[i]}` of {name_of(fun)} was donated to {call} "
                "and must not be used again. Use the value that call returned, or do not donate it."
            )


def _went_to(leaf: Any) -> _Call | None:
    """The call that a leaf was donated to."""
    found = _donated.get(id(leaf))
    if found is not None:
        return found[0]
    base = leaf.base if type(leaf) is np.ndarray else None
    return base.call if type(base) is Mark else None


def check_apart(fun: Any, leaves: Sequence[Any], donated: Sequence[int], paths: Callable[[], list[str]]) -> None:
    """Raise DonationError for a donated array that is given twice."""
    if len(set(map(id, leaves))) == len(leaves):
        return
    times = Counter(map(id, leaves))
    given = {id(leaves[i]) for i in donated}
    for i, leaf in enumerate(leaves):
        if times[id(leaf)] > 1 and id(leaf) in given and _is_buffer(leaf):
            raise DonationError(
                f"jit: the buffer of `{paths()[i]}` is donated and also passed as another "
                f"argument of {name_of(fun)}. Pass a copy, or do not donate it."
            )


def check_reuse(fun: Any, executable: Any, donated: Sequence[int], given: Sequence[int], n: int) -> None:
    """Raise DonationError where the memory of a donated leaf stays unused. n: inputs of the program before leaves."""
    reused = set(getattr(executable, "donations", {}).values())
    for i in donated:
        if i in given and n + i in reused:
            continue
        why = "it is held by something else too" if n + i in reused else "no output can take its place"
        raise DonationError(
            f"jit: the memory of donated leaf {i} of {name_of(fun)} cannot be reused: {why}. "
            'Do not donate it, or use donate="may".'
        )


def remember(fun: Any, leaves: Sequence[Any]) -> None:
    """Note that these leaves went to a call of `fun`."""
    call = _Call(fun, user_source())
    for leaf in leaves:
        if not _is_buffer(leaf):
            continue
        key = id(leaf)
        if type(leaf) is np.ndarray:
            leaf.setflags(align=False)  # native calls turn it away, so every use of it is seen here
        _donated[key] = call, weakref.ref(leaf, functools.partial(_forget, key))


def _forget(key: int, reference: Any) -> None:
    _donated.pop(key, None)


def _is_buffer(leaf):
    return not isinstance(leaf, Tracer) and hasattr(leaf, "strides") and getattr(leaf, "ndim", 0) > 0
