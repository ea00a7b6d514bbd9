# SPDX-License-Identifier: MIT
"""Max pooling to a fraction of the size that is no whole number, channels first, with windows placed at random.

The windows of an axis start at floor((i + u) alpha) - floor(u alpha), alpha = (size - kernel) / (n_out - 1), the last
at its end, for a u in [0, 1) drawn for each plane and axis.

Source: B. Graham, "Fractional max-pooling", arXiv:1412.6071.
"""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.context import is_training, next_key
from functorch_lite.nn.conv import sizes
from functorch_lite.nn.module import Array, Module
from functorch_lite.transforms.arguments import on_its_device


class _FractionalMaxPool(Module):
    kernel_size: tuple[int, ...]
    output_size: tuple[int, ...] | None
    output_ratio: tuple[float, ...] | None
    return_indices: bool
    n_spatial: ClassVar[int]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        output_size: int | Sequence[int] | None = None,
        output_ratio: float | Sequence[float] | None = None,
        *,
        return_indices: bool = False,
    ):
        n = self.n_spatial
        if (output_size is None) == (output_ratio is None):
            raise ArgumentError(f"{type(self).__name__}: give either `output_size` or `output_ratio`.")
        self.kernel_size = sizes(kernel_size, n, "kernel_size")
        self.output_size = None if output_size is None else sizes(output_size, n, "output_size")
        self.output_ratio = None if output_ratio is None else _ratios(type(self).__name__, output_ratio, n)
        self.return_indices = return_indices

    @on_its_device
    def __call__(self, x: Array, samples: Array | None = None) -> Any:
        n = self.n_spatial
        if x.ndim < n:
            raise ShapeError(f"{type(self).__name__}: expected at least {n} axes, got {x.shape}.")
        lead, spatial = x.shape[:-n], x.shape[-n:]
        out = self._output_size(spatial)
        starts = self._starts(self._samples(x, lead, samples), spatial, out)
        places = fnp.stack([self._places(starts, spatial, offset) for offset in self._offsets()], axis=-1)
        flat = fnp.take_along_axis(fnp.reshape(x, (*lead, -1)), fnp.reshape(places, (*lead, -1)), axis=-1)
        windows = fnp.reshape(flat, places.shape)
        first = fnp.argmax(windows, axis=-1)[..., None]
        values, indices = (fnp.take_along_axis(v, first, axis=-1)[..., 0] for v in (windows, places))
        return (values, indices) if self.return_indices else values

    def _output_size(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        out = self.output_size or tuple(
            int(size * ratio) for size, ratio in zip(spatial, self.output_ratio or (), strict=True)
        )
        if any(o < 1 or o + k - 1 > size for o, k, size in zip(out, self.kernel_size, spatial, strict=True)):
            raise ShapeError(
                f"{type(self).__name__}: {spatial} cannot become {out} with windows of {self.kernel_size}: each size "
                "should be at least that of the output and the window together, less 1."
            )
        return out

    def _samples(self, x: Array, lead: tuple[int, ...], samples: Array | None) -> Array:
        """u for each plane and axis [*lead, n], in PyTorch's order of axes."""
        shape = (*lead, self.n_spatial)
        if samples is not None:
            if samples.shape != shape:
                raise ShapeError(f"{type(self).__name__}: `samples` should be {shape}, but are {samples.shape}.")
            return samples
        if is_training():
            return random.uniform(next_key(type(self).__name__), shape, x.dtype)
        return fnp.full(shape, 0.5, x.dtype)

    def _starts(self, samples: Array, spatial: tuple[int, ...], out: tuple[int, ...]) -> list[Array]:
        """Where the windows start, for each axis [*lead, n_out]."""
        n, found = self.n_spatial, []
        for axis, (size, kernel, count) in enumerate(zip(spatial, self.kernel_size, out, strict=True)):
            # PyTorch's samples for images are those of the width and the height.
            u = samples[..., n - 1 - axis if n == 2 else axis, None]
            last = fnp.full(u.shape, size - kernel, np.int64)
            alpha = (size - kernel) / (count - 1) if count > 1 else 0.0
            steps = constant(np.arange(count - 1).astype(samples.dtype), samples)
            starts = fnp.floor((steps + u) * alpha) - fnp.floor(u * alpha)
            found.append(fnp.concatenate([starts.astype(np.int64), last], axis=-1))
        return found

    def _offsets(self) -> Any:
        return itertools.product(*(range(k) for k in self.kernel_size))

    def _places(self, starts: list[Array], spatial: tuple[int, ...], offset: tuple[int, ...]) -> Array:
        """Indices [*lead, *out] into the flattened plane of the element at `offset` in each window."""
        n, total = self.n_spatial, None
        for axis, (start, size, o) in enumerate(zip(starts, spatial, offset, strict=True)):
            shape = [1] * n
            shape[axis] = start.shape[-1]
            place = fnp.reshape(start + o, (*start.shape[:-1], *shape))
            total = place if total is None else total * size + place
        return total


def _ratios(name: str, ratio: float | Sequence[float], n: int) -> tuple[float, ...]:
    found = (float(ratio),) * n if isinstance(ratio, int | float) else tuple(ratio)
    if len(found) != n or not all(0 < r < 1 for r in found):
        raise ArgumentError(f"{name}: `output_ratio` should be {n} numbers between 0 and 1, but is {ratio}.")
    return found


class FractionalMaxPool2d(_FractionalMaxPool):
    """The largest element of each of the windows, placed at random, of x [..., height, width] -> [..., *output_size].

    output_size, or output_ratio, the part of each size that is left: between 0 and 1. The windows are placed at random
    in `nn.apply(..., key=key, training=True)`, evenly (u = 1/2) in inference, and by `layer(x, samples)` at the given
    u [..., 2] (of width and height). return_indices: as in `MaxPool2d`.

    Raises ArgumentError unless exactly one of output_size and output_ratio is given, ShapeError when it does not fit.

    >>> FractionalMaxPool2d(2, output_size=3)(np.arange(25.0).reshape(1, 5, 5)).shape
    (1, 3, 3)
    """

    n_spatial = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """x [..., depth, height, width] -> [..., *output_size]; see `FractionalMaxPool2d`, samples in the order of axes."""

    n_spatial = 3
