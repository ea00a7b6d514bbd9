# SPDX-License-Identifier: MIT
"""Choice: where, nonzero, argwhere, flatnonzero, count_nonzero, compress, extract.

A function whose result has a data-dependent size (nonzero, argwhere, where(mask)) takes `size=` and `fill_value=`:
under `jit` and `vmap` it must, elsewhere it may.
"""

from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, ConcretizationError, ShapeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import kept_shape, normal_axis, reduction_axes, size_of
from functorch_lite.numpy.dispatch import either, implement, is_eager_call, public
from functorch_lite.numpy.indexing import lookup, whole
from functorch_lite.numpy.promotion import (
    asarray,
    broadcast,
    broadcast_shapes,
    broadcast_to,
    cast,
    common_dtype,
    operand,
    unfit,
)
from functorch_lite.numpy.ufuncs import truth
from functorch_lite.primitives.cumulative import cumsum
from functorch_lite.primitives.indexing import scatter

_i64 = np.dtype(np.int64)


# --- where and nonzero --------------------------------------------------------------------------------------------


def where_body(condition: Any, x: Any = None, y: Any = None, **options: Any) -> Any:
    """x where the condition holds, else y."""
    if x is None and y is None:
        return nonzero(condition, **options)
    if x is None or y is None:
        raise ArgumentError("where: give both x and y, or neither.")
    x, y = given = operand(x), operand(y)
    dtype = common_dtype(x, y)
    pred = truth(condition)
    x, y = cast(x, dtype), cast(y, dtype)
    try:
        shape = broadcast_shapes(pred.shape, x.shape, y.shape)
    except ShapeError:
        raise unfit("where", (condition, *given)) from None
    pred, x, y = broadcast(pred, x, y)
    out = e.select(pred, x, y)
    return out if out.shape == shape else broadcast_to(out, shape)


implement(np.where)(where_body)


def where(condition: Any, x: Any = None, y: Any = None, *, size: int | None = None, fill_value: Any = None) -> Any:
    """x where the condition holds, else y; with the condition alone, `nonzero` of it.

    The derivative flows only to the chosen element: where(x > 0, sqrt(x), 0) has derivative 0 at 0.
    """
    if x is None and y is None:
        return nonzero(condition, size=size, fill_value=fill_value)
    return _chosen(condition, x, y)


_chosen = either(np.where, where_body)


def nonzero_body(a: Any, *, size: int | None = None, fill_value: Any = None) -> tuple[Any, ...]:
    """The indices of the non-zero elements, one array for each axis."""
    mask = truth(asarray(a))
    if not mask.shape:
        raise ArgumentError("nonzero of a rank-0 array is not defined. Use fl.numpy.atleast_1d(x).")
    if size is None:
        return np.nonzero(_known(mask, "nonzero"))
    flat, present = _first_true(e.reshape(mask, (size_of(mask.shape),)), size)
    found = []
    fills = (
        fill_value if isinstance(fill_value, tuple) else (0 if fill_value is None else fill_value,) * len(mask.shape)
    )
    step = size_of(mask.shape)
    for n, fill in zip(mask.shape, fills, strict=True):
        step = step // n if n else 1
        index = e.rem(e.div(flat, np.int64(step)), np.int64(max(n, 1)))
        found.append(e.select(present, index, broadcast_to(cast(fill, _i64), (size,))))
    return tuple(found)


def _first_true(mask, size):
    """The positions of the first `size` true elements, and which of them there are."""
    n = mask.shape[0]
    if not n:
        return constant(np.zeros(size, _i64), mask), constant(np.zeros(size, bool), mask)
    rank = cumsum(e.convert(mask, _i64), 0)
    place = e.select(mask, e.sub(rank, np.int64(1)), np.int64(size))
    found = scatter(e.full((size,), 0, _i64), constant(np.arange(n), mask), place, combine="set", mode="fill")
    count = e.slice(rank, (n - 1,), (n,), (1,))
    return found, e.lt(constant(np.arange(size), mask), broadcast_to(count, (size,)))


implement(np.nonzero)(nonzero_body)


def nonzero(a: Any, *, size: int | None = None, fill_value: Any = None) -> tuple[Any, ...]:
    """The indices of the non-zero elements, one array for each axis.

    size: the length of the result, cut or filled with `fill_value` (default 0) to fit; needed under jit and vmap.
    """
    if size is None and is_eager_call((a,), {}):
        return np.nonzero(a)
    return nonzero_body(a, size=size, fill_value=fill_value)


def flatnonzero(a: Any, *, size: int | None = None, fill_value: Any = None) -> Any:
    """The indices of the non-zero elements of `a` flattened; `size` as in `nonzero`."""
    x = asarray(a)
    return nonzero(e.reshape(x, (size_of(x.shape),)), size=size, fill_value=fill_value)[0]


implement(np.flatnonzero)(flatnonzero)


def argwhere(a: Any, *, size: int | None = None, fill_value: Any = None) -> Any:
    """The indices of the non-zero elements [count, rank]; `size` as in `nonzero`."""
    found = nonzero(a, size=size, fill_value=fill_value)
    return e.concatenate([e.reshape(f, (*f.shape, 1)) for f in found], 1)


implement(np.argwhere)(argwhere)


def count_nonzero_body(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The number of non-zero elements over the axes."""
    x = e.convert(truth(asarray(a)), _i64)
    axes = reduction_axes(axis, len(x.shape))
    out = e.reduce_sum(x, axes)
    return e.reshape(out, kept_shape(x.shape, axes)) if keepdims else out


count_nonzero = public(np.count_nonzero)(count_nonzero_body)


@public(np.compress)
def compress(condition: Any, a: Any, axis: int | None = None) -> Any:
    """The slices of `a` along `axis` for which the condition, known while tracing, holds."""
    x = asarray(a)
    (found,) = np.nonzero(_known(condition, "compress"))
    if axis is None:
        x, axis = e.reshape(x, (size_of(x.shape),)), 0
    return lookup(x, (*whole(normal_axis(axis, len(x.shape))), found))


@public(np.extract)
def extract(condition: Any, arr: Any) -> Any:
    """The elements of `arr`, flattened, where the condition, known while tracing, holds."""
    return compress(np.ravel(_known(condition, "extract")), arr)


def _known(value: Any, name: str) -> np.ndarray:
    """The concrete value of a mask that decides a shape."""
    if isinstance(value, Tracer):
        found = value.concrete()
        if found is None:
            raise ConcretizationError(
                f"{name}: the size of the result depends on a {value.aval} that has no value inside {value.tag!r}. "
                "Use fl.numpy.where(mask, x, 0), or fl.numpy.nonzero(mask, size=n)."
            )
        return np.asarray(found)
    return np.asarray(value)
