# SPDX-License-Identifier: MIT
"""map: apply a function to the leading axis one row, or one batch of rows, at a time."""

from collections.abc import Callable
from typing import Any

from functorch_lite import tree
from functorch_lite.control_flow.scanning import scan
from functorch_lite.core.aval import aval_of
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.primitives.movement import concatenate, reshape, slice_in_axis
from functorch_lite.transforms.vmap import vmap


def map(f: Callable[[Any], Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """`f` applied to every row of the arrays `xs` [n, ...] in turn, results stacked.

    Unlike `vmap` it holds one row at a time; with batch_size it maps that many rows together.
    """
    leaves = tree.leaves(xs)
    if not leaves:
        raise ArgumentError("map: xs has no array to map over.")
    if not aval_of(leaves[0]).shape:
        raise ShapeError("map: xs is a scalar; it needs a leading axis.")
    if batch_size is None:
        return scan(lambda carry, x: (carry, f(x)), None, xs)[1]
    if batch_size < 1:
        raise ArgumentError(f"map: batch_size must be at least 1, got {batch_size}.")
    n = aval_of(leaves[0]).shape[0]
    whole = n // batch_size * batch_size
    parts = []
    if whole:
        blocks = tree.map(
            lambda x: reshape(slice_in_axis(x, 0, whole, 0), (whole // batch_size, batch_size, *x.shape[1:])), xs
        )
        out = scan(lambda carry, x: (carry, vmap(f)(x)), None, blocks)[1]
        parts.append(tree.map(lambda y: reshape(y, (whole, *y.shape[2:])), out))
    if whole < n or not parts:
        parts.append(vmap(f)(tree.map(lambda x: slice_in_axis(x, whole, n, 0), xs)))
    return parts[0] if len(parts) == 1 else tree.map(lambda a, b: concatenate([a, b], 0), *parts)
