# SPDX-License-Identifier: MIT
"""Joining and splitting: concatenate stack vstack hstack dstack block append; split array_split unstack."""

import builtins
from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.dispatch import either, public
from functorch_lite.numpy.indexing import lookup, whole
from functorch_lite.numpy.promotion import asarray, cast, common_dtype, unfit
from functorch_lite.numpy.shaping import atleast_1d, grow2, grow3, ravel, reshape

# --- joining ------------------------------------------------------------------------------------------------------


def _joined(arrays: Any, dtype: Any) -> list[Any]:
    parts = [asarray(a) for a in arrays]
    if not parts:
        raise ArgumentError("need at least one array to concatenate")
    common = common_dtype(*parts) if dtype is None else np.dtype(dtype)
    return [cast(p, common) for p in parts]


def _concatenate(
    arrays: Any, /, axis: int | None = 0, out: None = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Any:
    """The arrays one after the other along an axis; None: each flattened."""
    parts = _joined(arrays, dtype)
    if axis is None:
        parts, axis = [ravel(p) for p in parts], 0
    axis = normal_axis(axis, len(parts[0].shape))
    try:
        return e.concatenate(parts, axis)
    except ValueError:
        raise unfit("concatenate", parts, f"differ elsewhere than on axis {axis}") from None


concatenate = public(np.concatenate)(_concatenate)
concat = either(np.concat, _concatenate)


@public(np.stack)
def stack(arrays: Any, axis: int = 0, out: None = None, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """The arrays, all of one shape, along a new axis."""
    parts = _joined(arrays, dtype)
    if len({tuple(p.shape) for p in parts}) != 1:
        raise unfit("stack", parts, "differ; only arrays of one shape can be stacked")
    axis = normal_axis(axis, len(parts[0].shape) + 1)
    shape = parts[0].shape
    return e.concatenate([e.reshape(p, (*shape[:axis], 1, *shape[axis:])) for p in parts], axis)


@public(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """The arrays one below the other (vectors are rows)."""
    return _concatenate([grow2(asarray(a)) for a in tup], 0, dtype=dtype)


@public(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """The arrays side by side (along the second axis, vectors along the first)."""
    parts = [atleast_1d(a) for a in tup]
    return _concatenate(parts, 0 if len(parts[0].shape) == 1 else 1, dtype=dtype)


@public(np.dstack)
def dstack(tup: Any) -> Any:
    """The arrays one behind the other (along the third axis)."""
    return _concatenate([grow3(asarray(a)) for a in tup], 2)


@public(np.column_stack)
def column_stack(tup: Any) -> Any:
    """Vectors as columns, matrices as they are, side by side."""
    parts = [asarray(a) for a in tup]
    return _concatenate(
        [reshape(p, (*p.shape, *[1] * (2 - len(p.shape)))) if len(p.shape) < 2 else p for p in parts], 1
    )


@public(np.block)
def block(arrays: Any) -> Any:
    """An array assembled from nested lists of blocks: the innermost lists run along the last axis."""
    depth = _depth(arrays)
    n = builtins.max(depth, _rank(arrays))
    return _blocks(arrays, depth, n, 1)


def _depth(value):
    return 1 + _depth(value[0]) if isinstance(value, list) else 0


def _rank(value):
    return builtins.max(_rank(v) for v in value) if isinstance(value, list) else len(asarray(value).shape)


def _blocks(value, depth, n, level):
    if not isinstance(value, list):
        x = asarray(value)
        return reshape(x, (1,) * (n - len(x.shape)) + tuple(x.shape))
    return _concatenate([_blocks(v, depth, n, level + 1) for v in value], level - depth - 1)


@public(np.append)
def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """`arr` with `values` after it along an axis; None: both flattened."""
    return _concatenate([arr, values], axis)


# --- splitting ----------------------------------------------------------------------------------------------------


@public(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """x cut along an axis into n parts of nearly equal size, or at the indices given."""
    x = asarray(ary)
    axis = normal_axis(axis, len(x.shape))
    n = x.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        each, extra = divmod(n, int(indices_or_sections))
        sizes = [each + 1] * extra + [each] * (int(indices_or_sections) - extra)
        cuts = [builtins.sum(sizes[:i]) for i in range(len(sizes) + 1)]
    else:
        cuts = [0, *[int(i) for i in indices_or_sections], n]
    return [lookup(x, (*whole(axis), np.s_[a:b])) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


@public(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """x cut along an axis into n equal parts, or at the indices given."""
    x = asarray(ary)
    if isinstance(indices_or_sections, (int, np.integer)) and x.shape[axis] % indices_or_sections:
        raise ArgumentError("array split does not result in an equal division")
    return array_split(x, indices_or_sections, axis)


@public(np.hsplit)
def hsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """`split` along the second axis (of a vector, the first)."""
    x = asarray(ary)
    return split(x, indices_or_sections, 1 if len(x.shape) > 1 else 0)


@public(np.vsplit)
def vsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """`split` along the first axis."""
    return split(ary, indices_or_sections, 0)


@public(np.dsplit)
def dsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """`split` along the third axis."""
    return split(ary, indices_or_sections, 2)


@public(np.unstack)
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """The slices of x along an axis."""
    x = asarray(x)
    axis = normal_axis(axis, len(x.shape))
    return tuple(lookup(x, (*whole(axis), i)) for i in range(x.shape[axis]))
