# SPDX-License-Identifier: MIT
"""Primitives: the closed set of operations that every transform knows.

A primitive is a name and a few structure facts. What it means (shape, eval, jvp, transpose, batch) is filed in the
tables of `core.rules` by the paragraph in `primitives/<family>.py` that declares it.
"""

import enum
from typing import Any


class Kind(enum.Enum):
    """The structure of a primitive: all that a transform or the compiler may treat alike."""

    ELEMENTWISE = "elementwise"
    MOVEMENT = "movement"
    BROADCAST = "broadcast"
    REDUCTION = "reduction"
    CONTRACTION = "contraction"
    INDEXING = "indexing"
    OPAQUE = "opaque"
    HIGHER_ORDER = "higher_order"
    COLLECTIVE = "collective"


class Primitive:
    """One operation.

    multiple: it returns a list of arrays instead of one.
    effect: it does something besides returning values (prints, calls back), so it is kept and ordered.
    ufunc: the NumPy ufunc that evaluates it, where one call of that is the whole rule.
    """

    __slots__ = ("name", "kind", "multiple", "effect", "scalar", "ufunc", "__weakref__")

    def __init__(
        self, name: str, kind: Kind, *, multiple: bool = False, effect: bool = False, scalar: str | None = None
    ):
        self.name = name
        self.kind = kind
        self.multiple = multiple
        self.effect = effect
        self.ufunc: Any = None
        self.scalar = scalar or (name if kind is Kind.ELEMENTWISE else None)

    def __repr__(self):
        return self.name
