# SPDX-License-Identifier: MIT
"""Collectives by axis name, and how the `vmap` that binds the name carries them out.

    vmap(lambda x: x / lax.psum(x, "i"), axis_name="i")(x)  =  x / x.sum()
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.core.aval import aval_of
from functorch_lite.core.tracer import bind, current_trace, root
from functorch_lite.errors import ArgumentError, AxisNameError, ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim, iota, reduce_sum
from functorch_lite.primitives.collective import (
    all_gather_p,
    all_to_all_p,
    axis_index_p,
    ppermute_p,
    psum_p,
    psum_scatter_p,
)
from functorch_lite.primitives.elementwise import div, mul
from functorch_lite.primitives.indexing import gather, scatter
from functorch_lite.primitives.movement import moveaxis, permute_dims, reshape
from functorch_lite.primitives.reduction import reduce_max, reduce_min
from functorch_lite.transforms.batching import collective_rules, materialize

# --- the functions ----------------------------------------------------------------------------------------------------


def axis_size(axis_name: Any) -> int:
    """The size of the named axis.

    Raises: AxisNameError when no enclosing vmap has that axis_name, listing those there are.
    """
    found, trace = [], current_trace()
    while trace is not root:
        name = getattr(trace, "axis_name", None)
        if name is not None:
            if name == axis_name:
                return trace.size  # type: ignore[attr-defined]
            found.append(repr(name))
        trace = trace.parent
    scope = f"the axes in scope are {', '.join(found)}" if found else "no axis is in scope"
    raise AxisNameError(
        f"axis name {axis_name!r} is not bound: {scope}. Call the function under vmap(..., axis_name={axis_name!r})."
    )


def _over(axis_name: Any, x: Any, one: Any) -> Any:
    """`one(leaf, name)` for each leaf of a pytree and each of one or several axis names."""
    names = axis_name if isinstance(axis_name, tuple | list) else (axis_name,)
    for name in names:
        x = tree.map(lambda leaf, name=name: one(leaf, name), x)
    return x


def _facts(name):
    return {"axis_name": name, "axis_size": axis_size(name)}


def psum(x: Any, axis_name: Any) -> Any:
    """The sum of `x` (a pytree) over the rows of one named axis, or of several."""
    return _over(axis_name, x, lambda leaf, name: bind(psum_p, _array(leaf), **_facts(name)))


def pmean(x: Any, axis_name: Any) -> Any:
    """The mean of `x` (a pytree) over the rows of the named axis."""

    def mean(leaf, name):
        total = bind(psum_p, _array(leaf), **_facts(name))
        return div(total, total.dtype.type(axis_size(name)))

    return _over(axis_name, x, mean)


def pmax(x: Any, axis_name: Any) -> Any:
    """The largest `x` over the rows of the named axis; ties share the derivative."""
    return _over(axis_name, x, lambda leaf, name: reduce_max(bind(all_gather_p, _array(leaf), **_facts(name)), (0,)))


def pmin(x: Any, axis_name: Any) -> Any:
    """The smallest `x` over the rows of the named axis; ties share the derivative."""
    return _over(axis_name, x, lambda leaf, name: reduce_min(bind(all_gather_p, _array(leaf), **_facts(name)), (0,)))


def all_gather(x: Any, axis_name: Any, *, axis: int = 0, tiled: bool = False) -> Any:
    """Every row's `x`, stacked along a new axis (tiled: joined along an existing one), in each row."""

    def one(leaf, name):
        out = moveaxis(bind(all_gather_p, _array(leaf), **_facts(name)), 0, axis)
        if not tiled:
            return out
        shape = out.shape
        return reshape(out, (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))

    return _over(axis_name, x, one)


def psum_scatter(x: Any, axis_name: Any, *, scatter_dimension: int = 0, tiled: bool = False) -> Any:
    """Row i gets part i of the sum over rows: the parts lie along `scatter_dimension`."""

    def one(leaf, name):
        size = axis_size(name)
        leaf = _split(leaf, scatter_dimension, size) if tiled else leaf
        return bind(psum_scatter_p, moveaxis(leaf, scatter_dimension, 0), **_facts(name))

    return _over(axis_name, x, one)


def _split(x, axis, size):
    n = x.shape[axis]
    if n % size:
        raise ShapeError(f"axis {axis} of shape {x.shape} cannot be cut into {size} equal parts.")
    return reshape(x, (*x.shape[:axis], size, n // size, *x.shape[axis + 1 :]))


def ppermute(x: Any, axis_name: Any, perm: Sequence[tuple[int, int]]) -> Any:
    """Row `source`'s x goes to row `destination` for each (source, destination); rows named nowhere get zeros."""
    pairs = tuple((int(a), int(b)) for a, b in perm)
    for what, values in (("sources", [a for a, _ in pairs]), ("destinations", [b for _, b in pairs])):
        if len(set(values)) != len(values):
            raise ArgumentError(f"ppermute: {what} in perm are not distinct: {pairs}.")

    def one(leaf, name):
        size = axis_size(name)
        if any(not (0 <= a < size and 0 <= b < size) for a, b in pairs):
            raise ArgumentError(f"ppermute: perm {pairs} names a row outside the axis {name!r} of size {size}.")
        return bind(ppermute_p, _array(leaf), perm=pairs, **_facts(name))

    return _over(axis_name, x, one)


def all_to_all(x: Any, axis_name: Any, split_axis: int, concat_axis: int, *, tiled: bool = False) -> Any:
    """Row i gets part i (along `split_axis`) of every row's x, stacked (tiled: joined) along `concat_axis`."""

    def one(leaf, name):
        size = axis_size(name)
        leaf = _split(leaf, split_axis, size) if tiled else leaf
        out = bind(all_to_all_p, moveaxis(leaf, split_axis, 0), **_facts(name))
        out = moveaxis(out, 0, concat_axis)
        if not tiled:
            return out
        s = out.shape
        return reshape(out, (*s[:concat_axis], s[concat_axis] * s[concat_axis + 1], *s[concat_axis + 2 :]))

    return _over(axis_name, x, one)


def axis_index(axis_name: Any) -> Any:
    """The position of this row along the named axis, int32; for several names, row-major over them."""
    names = axis_name if isinstance(axis_name, tuple | list) else (axis_name,)
    index = np.int32(0)
    for name in names:
        index = index * np.int32(axis_size(name)) + bind(axis_index_p, **_facts(name))
    return index


def _array(leaf):
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)[()]


# --- how the mapped axis carries them out -----------------------------------------------------------------------------


@collective_rules.register(psum_p)
def _(trace, args, batched, *, axis_name, axis_size):
    (x,) = args
    if batched[0]:
        return reduce_sum(x, (0,)), False
    return mul(x, aval_of(x).dtype.type(axis_size)), False


@collective_rules.register(all_gather_p)
def _(trace, args, batched, *, axis_name, axis_size):
    return args[0] if batched[0] else materialize(args[0], axis_size), False


@collective_rules.register(psum_scatter_p)
def _(trace, args, batched, *, axis_name, axis_size):
    (x,) = args
    return reduce_sum(x, (0,)) if batched[0] else mul(x, aval_of(x).dtype.type(axis_size)), True


@collective_rules.register(ppermute_p)
def _(trace, args, batched, *, axis_name, axis_size, perm):
    x = args[0] if batched[0] else materialize(args[0], axis_size)
    sources, targets = np.array([a for a, _ in perm], np.int64), np.array([b for _, b in perm], np.int64)
    zeros = broadcast_in_dim(x.dtype.type(0), x.shape, ())
    rows = gather(x, sources, mode="unchecked")
    return scatter(zeros, rows, targets, combine="set", mode="unchecked"), True


@collective_rules.register(all_to_all_p)
def _(trace, args, batched, *, axis_name, axis_size):
    (x,) = args
    if not batched[0]:
        x = materialize(x, axis_size)
    return permute_dims(x, (1, 0, *range(2, len(x.shape)))), True


@collective_rules.register(axis_index_p)
def _(trace, args, batched, *, axis_name, axis_size):
    return iota(np.dtype(np.int32), (axis_size,), 0), True
