# SPDX-License-Identifier: MIT
"""Axes and shapes as arguments: made non-negative, checked, put in order."""

from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentError, user_source


def size_of(shape: tuple[int, ...]) -> int:
    """The number of elements of an array of `shape`."""
    size = 1
    for n in shape:
        size *= n
    return size


def normal_axis(axis: int, ndim: int) -> int:
    """A non-negative axis. Raises NumPy's AxisError (an IndexError and a ValueError)."""
    if not -ndim <= axis < ndim:
        error = np.exceptions.AxisError(axis, ndim)
        error.add_note(f"  at {user_source()}")
        raise error
    return axis % ndim


def reduction_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes of a reduction as increasing non-negative integers; None is all of them."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    found = [normal_axis(int(a), ndim) for a in axes]
    if len(set(found)) != len(found):
        raise ArgumentError("duplicate value in 'axis'")
    return tuple(sorted(found))


def kept_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a reduction over `axes` that keeps them with size 1."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))
