# SPDX-License-Identifier: MIT
"""Index arrays for parts of an array: tril_indices, diag_indices, ix_, unravel_index, ravel_multi_index ..."""

from typing import Any

import numpy as np

from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.dispatch import implement, public
from functorch_lite.numpy.promotion import asarray, broadcast_shapes, broadcast_to, cast
from functorch_lite.numpy.shaping import sizes_of

_i64 = np.dtype(np.int64)


def tril_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Any, Any]:
    """The indices of the elements on and below the k-th diagonal of an n x m matrix."""
    return np.tril_indices(n, k, m)


def triu_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Any, Any]:
    """The indices of the elements on and above the k-th diagonal of an n x m matrix."""
    return np.triu_indices(n, k, m)


@implement(np.tril_indices_from)
def tril_indices_from(arr: Any, k: int = 0) -> tuple[Any, Any]:
    """`tril_indices` for the shape of x."""
    return np.tril_indices(arr.shape[-2], k, arr.shape[-1])


@implement(np.triu_indices_from)
def triu_indices_from(arr: Any, k: int = 0) -> tuple[Any, Any]:
    """`triu_indices` for the shape of x."""
    return np.triu_indices(arr.shape[-2], k, arr.shape[-1])


def diag_indices(n: int, ndim: int = 2) -> tuple[Any, ...]:
    """The indices of the main diagonal of an array of `ndim` axes of size n."""
    return np.diag_indices(n, ndim)


@implement(np.diag_indices_from)
def diag_indices_from(arr: Any) -> tuple[Any, ...]:
    """`diag_indices` for the shape of x."""
    if len(set(arr.shape)) != 1 or len(arr.shape) < 2:
        raise ArgumentError("All dimensions of input must be of equal length")
    return np.diag_indices(arr.shape[0], len(arr.shape))


def mask_indices(n: int, mask_func: Any, k: Any = 0) -> tuple[Any, ...]:
    """The indices where a function like `triu` leaves an n x n matrix of ones non-zero."""
    return np.nonzero(mask_func(np.ones((n, n), int), k))


@public(np.ix_)
def ix_(*args: Any) -> tuple[Any, ...]:
    """Vectors of indices shaped so that together they select a grid."""
    found = []
    for place, given in enumerate(args):
        x = asarray(given)
        if x.dtype.kind == "b":
            (x,) = np.nonzero(x)
        found.append(e.reshape(x, tuple(x.shape[0] if i == place else 1 for i in range(len(args)))))
    return tuple(found)


@public(np.unravel_index)
def unravel_index(indices: Any, shape: Any, order: str = "C") -> tuple[Any, ...]:
    """Positions in a flattened array of `shape` as one index array for each axis."""
    rest, sizes = cast(asarray(indices), _i64), sizes_of(shape)
    found = []
    for n in sizes if order == "F" else sizes[::-1]:
        found.append(e.rem(rest, np.int64(n)))
        rest = e.div(rest, np.int64(n))
    return tuple(found if order == "F" else found[::-1])


@public(np.ravel_multi_index)
def ravel_multi_index(multi_index: Any, dims: Any, mode: Any = "raise", order: str = "C") -> Any:
    """One index array for each axis of an array of shape `dims` as positions in the flattened array."""
    sizes = sizes_of(dims)
    modes = mode if isinstance(mode, tuple) else (mode,) * len(sizes)
    parts = [cast(asarray(i), _i64) for i in multi_index]
    shape = broadcast_shapes(*[p.shape for p in parts])
    flat, step = broadcast_to(np.int64(0), shape), 1
    for part, n, m in zip(*((s if order == "F" else s[::-1]) for s in (parts, sizes, modes)), strict=True):
        part = _in_range(broadcast_to(part, shape), n, m)
        flat = e.add(flat, e.mul(part, np.int64(step)))
        step *= n
    return flat


def _in_range(index, n, mode):
    if mode == "clip":
        return e.minimum(e.maximum(index, np.int64(0)), np.int64(n - 1))
    if mode == "wrap":
        r = e.rem(index, np.int64(n))
        return e.select(e.lt(r, np.int64(0)), e.add(r, np.int64(n)), r)
    if not isinstance(index, Tracer) and ((index < 0) | (index >= n)).any():
        raise ArgumentError("invalid entry in coordinates array")
    return index
