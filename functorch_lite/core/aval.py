# SPDX-License-Identifier: MIT
"""Abstract values: what is known of an array before it exists.

`Aval` is shape and dtype. `StackAval` is the type of a value with a length known only at run time: the per-iteration
residuals that a `while_loop` leaves for its reverse pass.
"""

from typing import Any, NamedTuple

import numpy as np

from functorch_lite.core import dtypes


class Aval(NamedTuple):
    """Shape and dtype of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size

    def __str__(self):
        return f"{_short(self.dtype)}[{','.join(map(str, self.shape))}]"


class StackAval(NamedTuple):
    """The type of a run-time stack: any number of elements of type `element`, one for each iteration of a loop."""

    element: Aval

    @property
    def dtype(self) -> np.dtype:
        return self.element.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.element.shape

    def __str__(self):
        return f"stack<{self.element}>"


class Stack(list):
    """The value of a `StackAval`: a list with one array of type `element` for each iteration."""

    __slots__ = ("element",)

    def __init__(self, element: Aval, items: Any = ()):
        super().__init__(items)
        self.element = element

    @property
    def aval(self) -> StackAval:
        return StackAval(self.element)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.element.shape

    @property
    def dtype(self) -> np.dtype:
        return self.element.dtype


def _short(dtype: np.dtype) -> str:
    kind = dtypes.dtype_kind(dtype) if dtype != dtypes.float0 else "0"
    if dtype in (dtypes.bfloat16, *dtypes.float8):
        return str(dtype).replace("bfloat", "bf").replace("float", "f")
    return {"b": "bool", "0": "float0"}.get(kind) or f"{kind}{dtype.itemsize * 8}"


def aval_of(value: Any) -> Any:
    """The `Aval` of an array, a tracer, a NumPy or Python scalar; the `StackAval` of a stack."""
    kind = type(value)
    if kind in (float, int, bool, complex):
        return Aval((), dtypes.python_dtype(kind))
    aval = getattr(value, "aval", None)
    return Aval(value.shape, value.dtype) if aval is None else aval
