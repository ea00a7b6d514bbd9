# SPDX-License-Identifier: MIT
"""Islands of float32: what loses too much in 16 bits computes in float32, whatever the model around it does.

Norms and softmax take 16-bit inputs and return their dtype; losses return float32, so that a mean over many elements,
or a loss times a large scale, neither rounds nor overflows. Inputs of 32 bits and more are left as they are.

The list is that of PyTorch's autocast.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import ml_dtypes
import numpy as np

from functorch_lite import tree
from functorch_lite.core.tracer import current_trace
from functorch_lite.transforms.composites import of_any

P = ParamSpec("P")
R = TypeVar("R")

HALVES = frozenset({np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)})
"""The floating dtypes of 16 bits."""


def is_half(x: Any) -> bool:
    """Whether x is an array of 16-bit floats."""
    return getattr(x, "dtype", None) in HALVES


def widened(x: Any) -> Any:
    """x, as float32 if it is an array of 16-bit floats."""
    return x.astype(np.float32) if is_half(x) else x


def in_float32(fun: Callable[P, R]) -> Callable[P, R]:
    """`fun` of arrays, computed in float32 for 16-bit ones, with results of the dtype of the first of these."""

    @functools.wraps(fun)
    def island(*args: P.args, **kwargs: P.kwargs) -> R:
        trace = current_trace()
        if trace.composites is not None:
            found = of_any(trace, fun, args, kwargs)
            if found is not None:
                return found
        first = next((x for x in (*args, *kwargs.values()) if is_half(x)), None)
        if first is None:
            return fun(*args, **kwargs)
        out = fun(*map(widened, args), **{name: widened(x) for name, x in kwargs.items()})  # type: ignore[arg-type]
        return tree.map(lambda x: x.astype(first.dtype), out)  # type: ignore[union-attr]

    return island


def float32_loss(fun: Callable[P, R]) -> Callable[P, R]:
    """`fun` of arrays, computed in float32 for 16-bit ones, with float32 results."""

    @functools.wraps(fun)
    def loss(*args: P.args, **kwargs: P.kwargs) -> R:
        values = (*args, *kwargs.values()) if kwargs else args
        if HALVES.isdisjoint([getattr(x, "dtype", None) for x in values]):
            return fun(*args, **kwargs)
        return fun(*map(widened, args), **{name: widened(x) for name, x in kwargs.items()})  # type: ignore[arg-type]

    return loss
