# SPDX-License-Identifier: MIT
"""Adding up what windows leave at their elements: the derivative of pooling, as sums over the windows of each element.

    out[j] = sum over the windows p and elements t with p * stride + t * dilation - low == j  of  value(p, t)

Elements `stride` apart have the same elements of windows, so that along each axis outputs are cut in cells of `stride`
outputs: output r of cell i meets fixed numbers t in windows i + offset. Cells that meet the same windows are one piece
of code without a test; those at an edge, which meet fewer, have pieces of their own. Nothing is added into memory: each
output is written once, in vectors of channels, or of cells, whose outputs lie side by side.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Index, Value

MOST_TERMS = 160
"""Terms of all pieces of code that are written out."""

Term = tuple[int, int]
"""The number of an element in a window, and the window's, counted from the cell's."""


class Cells(NamedTuple):
    """`count` cells from `start` on; terms: for each output of a cell."""

    start: int
    count: int
    terms: tuple[tuple[Term, ...], ...]


def cells_of(n: int, count: int, window: int, stride: int, low: int, dilation: int) -> list[Cells]:
    """The cells of an axis of n outputs under `count` windows."""
    taps = [[(t, (r + low - t * dilation) // stride) for t in range(window) if (r + low - t * dilation) % stride == 0]
            for r in range(stride)]
    offsets = {offset for terms in taps for _, offset in terms}
    number = -(-n // stride)
    bounds = {0, number, n // stride, *(-k for k in offsets), *(count - k for k in offsets)}
    starts = sorted(k for k in bounds if 0 <= k <= number)
    found: list[Cells] = []
    for start, end in itertools.pairwise(starts):
        terms = tuple(tuple((t, k) for t, k in row if 0 <= start + k < count) for row in taps[: n - start * stride])
        found.append(Cells(start, end - start, terms))
    return found


def terms_of(axes: Sequence[Sequence[Cells]]) -> int:
    """How many terms are written out for all pieces."""
    return math.prod(sum(max(len(t), 1) for cells in axis for t in cells.terms) for axis in axes)


class Sums(NamedTuple):
    """Outputs to be added up: the cells of each axis, of `strides`; lanes side by side in the last axis.

    value: of a window (a number for each axis), a lane and an element of the window, in the kind that is added up in.
    put: writes an output (a number for each axis) of a lane.
    """

    b: Builder
    axes: Sequence[Sequence[Cells]]
    strides: Sequence[int]
    lanes: int
    kind: str
    value: Callable[[Sequence[Index], Index, Sequence[int]], Value]
    put: Callable[[Sequence[Index], Index, Value], None]

    def write(self) -> None:
        """Write all outputs, axis after axis."""
        self._over(())

    def _over(self, pieces: tuple[Cells, ...], cells: tuple[Index, ...] = ()) -> None:
        if len(pieces) == len(self.axes):
            with self.b.loop(self.lanes, vector=True) as lane:
                self._cell(pieces, cells, lane)
            return
        in_lanes = len(pieces) == len(self.axes) - 1 and self.lanes == 1
        for piece in self.axes[len(pieces)]:
            with self.b.loop(piece.count, vector=in_lanes) as i:
                self._over((*pieces, piece), (*cells, i + piece.start))

    def _cell(self, pieces: Sequence[Cells], cells: Sequence[Index], lane: Index) -> None:
        """The outputs of a cell: all are computed before they are written, so that neighbours are written together."""
        found = [(place, self._sum(terms, cells, lane)) for place, terms in zip(
            itertools.product(*(range(len(p.terms)) for p in pieces)),
            itertools.product(*(p.terms for p in pieces)), strict=True)]
        for place, total in found:
            at = [i * s + r for i, s, r in zip(cells, self.strides, place, strict=True)]
            self.put(at, lane, total)

    def _sum(self, terms: Sequence[Sequence[Term]], cells: Sequence[Index], lane: Index) -> Value:
        total = None
        for choice in itertools.product(*terms):
            window = [i + offset for i, (_, offset) in zip(cells, choice, strict=True)]
            value = self.value(window, lane, [t for t, _ in choice])
            total = value if total is None else self.b.op("add", total, value)
        return total if total is not None else self.b.constant(0, self.kind)
