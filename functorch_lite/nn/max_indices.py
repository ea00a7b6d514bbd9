# SPDX-License-Identifier: MIT
"""Largest elements of windows together with where they were found, for the pools that return indices.

An index is that of the element in its flattened plane, the spatial axes of x, as in PyTorch.
"""

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.nn.module import Array


def flat_places(per_axis: list[np.ndarray], sizes: tuple[int, ...]) -> np.ndarray:
    """Indices int64 [*out, window elements] into the flattened plane of `sizes`; -1 is outside of it.

    per_axis: for each axis of the plane the places [n_out, window size] that a window covers, also outside of it.
    """
    n = len(sizes)
    total, inside = np.zeros((), np.int64), np.ones((), bool)
    for axis, (places, size) in enumerate(zip(per_axis, sizes, strict=True)):
        shape = [1] * (2 * n)
        shape[axis], shape[n + axis] = places.shape
        places = places.reshape(shape)
        total, inside = total * size + places, inside & (places >= 0) & (places < size)
    flat = np.where(inside, total, -1)
    return flat.reshape(*flat.shape[:n], -1)


def max_with_indices(x: Array, places: np.ndarray) -> tuple[Array, Array]:
    """x [..., *spatial] and `flat_places` [*out, k] -> the first largest element of each window, and its index."""
    n = places.ndim - 1
    flat = fnp.reshape(x, (*x.shape[: x.ndim - n], -1))
    windows = fnp.take(flat, constant(np.maximum(places, 0), x), axis=-1)
    covered = windows
    if (places < 0).any():
        lowest = -np.inf if x.dtype.kind not in "iub" else np.iinfo(x.dtype).min
        covered = fnp.where(constant(places >= 0, x), windows, lowest)
    choice = fnp.argmax(covered, axis=-1)[..., None]
    every = fnp.broadcast_to(constant(places, x), windows.shape)
    values, indices = (fnp.take_along_axis(v, choice, axis=-1)[..., 0] for v in (windows, every))
    return values, indices
