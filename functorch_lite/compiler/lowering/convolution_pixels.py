# SPDX-License-Identifier: MIT
"""Convolutions with output columns in the lanes: filters are the rows of a tile.

The image of an example, or of a block of its rows, is working space of one job, which computes all outputs of the block
(`convolution_image`). Jobs are blocks of examples, and blocks of rows where an example is large or examples are few.
"""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Index
from functorch_lite.compiler.lowering.convolution_image import (
    WRITTEN_OUT,
    Image,
    Phase,
    Way,
    extents_of,
    over_blocks,
    over_cuts,
    phases_of,
    sides_of,
)
from functorch_lite.compiler.lowering.epilogue import Span
from functorch_lite.compiler.lowering.pooled import Pooled
from functorch_lite.compiler.lowering.product_tiles import Axis, merged, over_axes
from functorch_lite.compiler.lowering.rules import strides_of
from functorch_lite.compiler.lowering.tiles import Cut, Walk, cuts, cycles, filter_cuts, most_rows, store_tile, tile

IMAGE_BYTES = 192 << 10  # of a block: part of a second-level cache
WORTH = 1 << 22  # products: a convolution of fewer is not cut in jobs
FEW = 8  # examples
SCATTERED = 2.0  # cycles to store an output alone
NEAR_BYTES = 1 << 20  # of a kernel that may lie in any order: a second-level cache
FAR = 8.0  # cycles to read a number of a larger one that is far from the one before


class Strip(NamedTuple):
    """Tiles side by side along the last axis: `count`, `size` apart from `start` on, with vectors at `starts`."""

    start: int
    count: int
    size: int
    width: int
    starts: tuple[int, ...]


class Tiling(NamedTuple):
    """How a phase is cut: output rows in each tile, the cuts of all rows, strips of columns, and most filters."""

    down: list[Cut]
    strips: list[Strip]
    filters: int


def strips_of(count: int, lanes: int, most: int) -> list[Strip]:
    """Columns in tiles of at most `most` vectors. The last vector may overlap the one before: both write the same."""
    vectors = -(-count // lanes)
    if vectors <= most:
        width = -(-count // vectors)
        return [Strip(0, 1, count, width, tuple(min(k * width, count - width) for k in range(vectors)))]
    found = [Strip(c.start * lanes, c.count, c.size * lanes, lanes, tuple(k * lanes for k in range(c.size)))
             for c in cuts(count // lanes, most)]
    return found if count % lanes == 0 else [*found, Strip(count - lanes, 1, lanes, lanes, (0,))]


@dataclass
class Pixels(Way):
    """Writes a convolution with output columns in the lanes."""

    def __post_init__(self):
        super().__post_init__()
        self.phases = [phases_of(w) for w in self.conv.windows]

    def cost(self) -> float:
        """Cycles for an example, of one block."""
        taps = math.prod(a.size for a in (*self.channels, *self.more))
        total = sum(self._cost(self._tiling(phase)) * taps * math.prod(len(p.taps) for p in phase)
                    * math.prod(p.count for p in phase[:-2]) for phase in itertools.product(*self.phases))
        strided = self.phases[-1][0].step * self.conv.windows[-1].x > 1
        outputs = math.prod(sum(p.count for p in axis) for axis in self.phases) * self.filters.size
        total += (self.conv.windows[-1].to != 1) * SCATTERED * outputs * self.stored
        kernel = self.filters.size * taps * math.prod(v.kernel for v in self.conv.windows)
        if kernel * ITEM_BYTES[self.kind] > NEAR_BYTES and any(c.y > self.filters.y for c in self.channels):
            total += FAR * kernel
        return total + strided * math.prod(v.size for v in self.conv.windows) * math.prod(c.size for c in self.channels)

    def write(self) -> None:
        """Loop over parts and examples, blocks of outputs, and the phases of each."""
        c = self.conv
        loops = merged((*c.parts, *c.examples))
        self.blocks = self._blocks(math.prod(a.size for a in loops))
        self.image = Image(self.b, self.x, self.channels, c.windows, self.phases, self.blocks)
        self.walk = self.image.walk()
        if self.pool is not None:
            self.sums = self.b.scratch("sums", self.kind, self._sums(self.blocks))
        if all(len(block) == block[0].count == 1 for block in self.blocks):
            sizes = tuple(block[0].size for block in self.blocks)
            over_blocks(self.b, loops, self.jobs, self._begin, lambda x, w, out: self._block(x, w, out, (), sizes))
        else:
            over_axes(self.b, loops, lambda x, w, out: over_cuts(
                self.b, self.blocks, self._begin, lambda starts, sizes: self._block(x, w, out, starts, sizes)))

    def _begin(self) -> None:
        self.image.clear()
        if self.pool is not None:
            self.b.fill(self.sums, self.sums.size)  # a job reads nothing that it has not written

    def _blocks(self, examples: int) -> list[list[Cut]]:
        """How the outputs of each phase along each axis are cut."""
        wanted = -(-self.jobs // examples) if examples < FEW and examples * self._products() >= WORTH else 1
        return self.row_blocks(self.phases, wanted, lambda blocks: self._image_bytes(blocks) <= IMAGE_BYTES)

    def _products(self) -> int:
        """The products of one example."""
        sizes = (*(a.size for a in (self.filters, *self.more, *self.channels)), *(v.kernel for v in self.conv.windows))
        return math.prod(sizes) * math.prod(sum(p.count for p in axis) for axis in self.phases)

    def _image_bytes(self, blocks: list[list[Cut]]) -> int:
        rooms = (s.room for s in sides_of(self.phases, blocks, True))
        image = math.prod(c.size for c in self.channels) * math.prod(rooms)
        return ITEM_BYTES[self.kind] * (image + (self._sums(blocks) if self.pool is not None else 0))

    def _sums(self, blocks: list[list[Cut]]) -> int:
        """The outputs in a block, for the filters that are pooled at once."""
        extents = extents_of(self.phases, [max(cut.size for cut in block) for block in blocks])
        (phase,) = itertools.product(*self.phases)
        phase = tuple(p._replace(count=n) for p, n in zip(phase, extents, strict=True))
        return math.prod(extents) * min(self._tiling(phase).filters, self.filters.size)

    def _block(self, x: Index, w: Index, out: Index, starts: tuple[Index, ...], sizes: tuple[int, ...]) -> None:
        """A block of the outputs of an example: of so many of each phase along each axis."""
        at = self.image.read(x, starts)
        for phase in itertools.product(*self.phases):
            parts = tuple(p._replace(count=min(p.count, n)) for p, n in zip(phase, sizes, strict=True))
            first = out
            if self.pool is None:
                for t, p, v in zip(starts, phase, self.conv.windows, strict=False):
                    first = first + t * (p.every * v.to)
            over_axes(self.b, self.more, lambda _, dw, do, parts=parts, first=first: self._phase(
                parts, at, w + (dw + self.conv.kernel_start), first + do, starts))
        if self.epilogue is not None:
            self._end(out, starts, sizes)

    def _end(self, out: Index, starts: tuple[Index, ...], sizes: tuple[int, ...]) -> None:
        """Have the epilogue go over a block."""
        windows = self.conv.windows
        for t, axis, v in zip(starts, self.phases, windows, strict=False):
            out = out + t * (axis[0].every * v.to)
        extents = extents_of(self.phases, sizes)
        *outer, run = merged([Axis(n, 0, 0, v.to) for n, v in zip(extents, windows, strict=True)]) or (Axis(1),)
        over_axes(self.b, (*self.more, *outer), lambda _, dw, do: self.end(out + do, self.filters.size, run))

    def _phase(self, phase: tuple[Phase, ...], at: Index, w: Index, out: Index, starts: tuple[Index, ...]) -> None:
        """All outputs of one phase in a block."""
        if self.pool is not None:
            self._pooled_phase(self.pool, phase, at, w, out, starts)
            return
        windows = self.conv.windows
        out = out + sum(p.first * v.to for p, v in zip(phase, windows, strict=True))
        self.to = [p.every * v.to for p, v in zip(phase, windows, strict=True)]
        self.target, self.far = self.out, self.filters.out
        tiling = self._tiling(phase)
        for cut in filter_cuts(self.filters.size, tiling.filters, self.machine):
            with self.b.loop(cut.count) as f:
                first = f * cut.size + cut.start
                self._filters(phase, tiling, cut.size, at, w + first * self.filters.y, out + first * self.filters.out)

    def _pooled_phase(
        self, pool: Pooled, phase: tuple[Phase, ...], at: Index, w: Index, out: Index, starts: tuple[Index, ...]
    ) -> None:
        """All outputs of a block: those of a few filters in working space, from where they are pooled."""
        extents = [p.count for p in phase]
        self.to, self.target, self.far = strides_of(extents), self.sums, math.prod(extents)
        tiling = self._tiling(phase)
        for cut in filter_cuts(self.filters.size, tiling.filters, self.machine):
            with self.b.loop(cut.count) as f:
                first = f * cut.size + cut.start
                self._filters(phase, tiling, cut.size, at, w + first * self.filters.y, ZERO)
                block = self.block(pool, out + first * self.filters.out, starts, extents, self.sums, ZERO, self.to)
                pool.by_columns(block, Span(self.filters.out, cut.size, self.far))

    def _filters(
        self, phase: tuple[Phase, ...], tiling: Tiling, filters: int, at: Index, w: Index, out: Index
    ) -> None:
        """The outputs of so many filters, from those of w on."""
        lead = [Axis(p.count, s, 0, t) for p, s, t in zip(phase[:-2], self.walk, self.to, strict=False)]
        for strip, down in itertools.product(tiling.strips, tiling.down):
            with self.b.loop(down.count) as t, self.b.loop(strip.count) as u:
                row, column = t * down.size + down.start, u * strip.size + strip.start
                over_axes(self.b, lead, lambda x, _, o, strip=strip, down=down, r=row, c=column: self._tile(
                    phase, strip, down.size, filters, at + x + r * self.walk[-2] + c * self.walk[-1], w,
                    out + o + r * self.to[-2] + c * self.to[-1]))

    def _tiling(self, phase: tuple[Phase, ...]) -> Tiling:
        """The tiling that costs least."""
        lanes, registers = self.machine.lanes(self.kind), self.machine.registers - 1  # one for a mask
        choices = []
        for rows, most in itertools.product((1, 2, 3, 4), (1, 2, 3, 4)):
            if rows * most <= 4 and rows <= phase[-2].count:
                strips = strips_of(phase[-1].count, lanes, most)
                vectors = rows * max(len(s.starts) for s in strips)
                choices.append(Tiling(cuts(phase[-2].count, rows), strips, most_rows(vectors, registers)))
        return min(choices, key=lambda t: self._cost(t) * (1 + 0.03 * len(t.strips) * len(t.down)))

    def _cost(self, t: Tiling) -> float:
        """Cycles for one tap."""
        total = 0.0
        for f, strip, down in itertools.product(cuts(self.filters.size, t.filters), t.strips, t.down):
            vectors = down.size * len(strip.starts)
            total += f.count * strip.count * down.count * cycles(f.size, vectors)
        return total

    def _tile(self, phase, strip: Strip, rows: int, filters: int, at: Index, w: Index, out: Index) -> None:
        """Tiles at this position of the image, of the kernel and of the output."""
        offsets = [r * self.walk[-2] + s * self.walk[-1] for r in range(rows) for s in strip.starts]
        columns = [r * self.to[-2] + s * self.to[-1] for r in range(rows) for s in strip.starts]
        extents, along_w, along_x, taps = self._taps(phase, filters * len(offsets))
        left = Walk(self.w, w, [f * self.filters.y for f in range(filters)], along_w)
        right = Walk(self.image.buffer, at, offsets, along_x, self.walk[-1])
        to = [out + f * self.far for f in range(filters)]
        put = store_tile(self.b, self.target, to, columns, self.to[-1], False)
        tile(self.b, strip.width, extents, left, right, put, taps, unrolled=self.machine.cutting.unrolled)

    def _taps(self, phase: tuple[Phase, ...], sums: int):
        """Loops over channels and leading kernel axes, with their steps in w and the image; and the taps inside."""
        windows, image = self.conv.windows, self.image
        extents, along_w = [c.size for c in self.channels], [c.y for c in self.channels]
        along_x = list(image.of_channels)
        axes = [p.taps for p in phase]
        for k in range(len(axes)):
            left = math.prod(len(a) for a in axes)
            if left * sums <= self.machine.cutting.written_out(WRITTEN_OUT) or len(axes[k]) < 2:
                continue
            (k0, s0), (k1, s1) = axes[k][:2]
            between = image.between(k, s0, s1)
            if between is None:
                continue
            extents.append(len(axes[k]))
            along_w.append((k1 - k0) * windows[k].w)
            along_x.append(between)
            axes[k] = axes[k][:1]
        taps = [(sum(k * v.w for (k, _), v in zip(tap, windows, strict=True)), image.offset([s for _, s in tap]))
                for tap in itertools.product(*axes)]
        return extents, along_w, along_x, taps
