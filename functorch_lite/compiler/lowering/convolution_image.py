# SPDX-License-Identifier: MIT
"""Which positions of its input a convolution reads, and one example of the input with its border in working space.

Along each spatial axis, the outputs that meet the input at the same places in its dilation are a phase: in phase r,
output t meets kernel element k at input position `t * step + shift[k]`. Without input dilation there is one phase.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index
from functorch_lite.compiler.lowering.product_tiles import Axis, over_axes
from functorch_lite.compiler.lowering.rules import strides_of


class Window(NamedTuple):
    """A spatial axis: sizes of x, the kernel and the output, their strides in elements, and the settings."""

    size: int
    kernel: int
    out: int
    x: int
    w: int
    to: int
    step: int
    low: int
    dilation: int
    kernel_dilation: int


class Phase(NamedTuple):
    """`count` outputs from `first` on, `every` apart: output t meets taps (k, shift) at position t * step + shift."""

    first: int
    count: int
    every: int
    step: int
    taps: tuple[tuple[int, int], ...]

    @property
    def last(self) -> int:
        return (self.count - 1) * self.step


def phases_of(w: Window) -> list[Phase]:
    """The phases of a spatial axis."""
    common = math.gcd(w.step, w.dilation)
    every, step = w.dilation // common, w.step // common
    found = []
    for first in range(min(every, w.out)):
        at = [(k, first * w.step + k * w.kernel_dilation - w.low) for k in range(w.kernel)]
        taps = tuple((k, p // w.dilation) for k, p in at if p % w.dilation == 0)
        found.append(Phase(first, -(-(w.out - first) // every), every, step, taps))
    return found


def kernel_walks(windows: Sequence[Window]) -> list[list[Phase]]:
    """The axes seen from an output: its taps are all outputs, and what it walks over is the kernel."""
    return [[Phase(0, v.kernel, 1, v.kernel_dilation, tuple((t, t * v.step - v.low) for t in range(v.out)))]
            for v in windows]


# --- an example in working space --------------------------------------------------------------------------------------


class Image:
    """One example with its border: the positions that taps reach, its channels in order.

    Where the last axis is walked in steps, its columns u are in the order (u % step, u // step).
    """

    def __init__(self, b: Builder, x: Buffer, channels: tuple[Axis, ...], windows: tuple[Window, ...], phases):
        self.b, self.x, self.channels, self.windows = b, x, channels, windows
        self.low, high = [], []
        for axis in phases:
            shifts = [(shift, p.last) for p in axis for _, shift in p.taps] or [(0, 0)]
            self.low.append(min(s for s, _ in shifts))
            high.append(max(s + last for s, last in shifts))
        self.steps = [axis[0].step for axis in phases]
        inside = all(lo >= 0 and hi < w.size for lo, hi, w in zip(self.low, high, windows, strict=True))
        self.direct = inside and self.steps[-1] * windows[-1].x == 1
        self.buffer = x
        if self.direct:
            self.low = [0] * len(windows)
            self.strides = [w.x for w in windows]
            self.of_channels = [c.x for c in channels]
            return
        self.sizes = [hi - lo + 1 for lo, hi in zip(self.low, high, strict=True)]
        self.turns = -(-self.sizes[-1] // self.steps[-1])
        shape = [*(c.size for c in channels), *self.sizes[:-1], self.turns * self.steps[-1]]
        strides = strides_of(shape)
        self.of_channels, self.strides = list(strides[: len(channels)]), list(strides[len(channels) :])
        self.buffer = b.scratch("image", x.kind, math.prod(shape))
        b.fill(self.buffer, self.buffer.size)

    def read(self, at: Index) -> Index:
        """Where in `buffer` the example at this position of x is, after copying it if it must be."""
        if self.direct:
            return at
        over_axes(self.b, [Axis(c.size, c.x, 0, s) for c, s in zip(self.channels, self.of_channels, strict=True)],
                  lambda x, _, to: self._copy(0, at + x, to))
        return ZERO

    def _copy(self, axis: int, x: Index, to: Index) -> None:
        b, w, low = self.b, self.windows[axis], self.low[axis]
        first, end = max(low, 0), min(low + self.sizes[axis], w.size)
        if end <= first:
            return
        if axis < len(self.windows) - 1:
            with b.loop(end - first) as i:
                self._copy(axis + 1, x + (i + first) * w.x, to + (i + (first - low)) * self.strides[axis])
            return
        step = self.steps[-1]
        for start in range(first, min(first + step, end)):
            with b.loop(-(-(end - start) // step), vector=True) as i:
                value = b.load(self.x, x + (i * step + start) * w.x)
                b.store(self.buffer, to + i + self.column(start), value)

    def column(self, position: int) -> int:
        """Where a column of x is."""
        u, step = position - self.low[-1], self.steps[-1]
        return u * self.strides[-1] if self.direct else u % step * self.turns + u // step

    def offset(self, shift: Sequence[int]) -> int:
        """Where a position is."""
        rows = zip(shift[:-1], self.low, self.strides, strict=False)
        return sum((s - lo) * stride for s, lo, stride in rows) + self.column(shift[-1])

    def walk(self) -> list[int]:
        """How far apart neighbouring outputs of a phase read, along each axis."""
        return [s * stride for s, stride in zip(self.steps[:-1], self.strides, strict=False)] + [1]
