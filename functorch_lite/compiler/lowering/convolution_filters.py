# SPDX-License-Identifier: MIT
"""Convolutions with a kernel larger than the output, as a kernel's gradient is: filters are in the lanes.

The outputs of a few examples are the rows of a tile. The kernel is copied into panels, some channels at a time; if
there are few outputs, kernel columns are in the lanes instead, and the kernel is read where it is. Jobs that threads
share are, whichever there are enough of:

    parts     convolved apart
    channels  each job adds up some of them in working space, and the sums are added up in the end
    filters   each job has its own part of the kernel, where the output is too large for sums of each job
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Buffer, Index
from functorch_lite.compiler.lowering.convolution_image import (
    JOBS,
    Image,
    Way,
    divisor,
    even_blocks,
    kernel_walks,
    pack_kernel,
    sides_of,
    whole,
)
from functorch_lite.compiler.lowering.product_tiles import Axis, merged, over_axes
from functorch_lite.compiler.lowering.tiles import (
    Cut,
    Panels,
    Walk,
    cuts,
    cycles,
    inner_tile,
    most_rows,
    packed_walk,
    panels_of,
    store_tile,
    tile,
)

IMAGE_BYTES = 24 << 10  # of a part of the examples that stays in the first-level cache
KERNEL_BYTES = 192 << 10  # of a part of a kernel that stays in the second-level cache
SUMS_BYTES = 2 << 20  # of all jobs' sums
FEW_OUTPUTS = 32  # of all examples: a kernel in order would be read that often
ONE_TILE = 9  # outputs of a tile with kernel columns in the lanes
MOST_ROWS = 28  # outputs of a few examples together
FEW = 8  # jobs
WORTH = 1 << 22  # products: a convolution of fewer is not cut in jobs


@dataclass
class Filters(Way):
    """Writes a convolution with filters in the lanes: the outputs of a few examples are rows of tiles."""

    start: int = 0  # where in `out` the first output is

    def write(self) -> None:
        """Choose blocks and jobs, and loop over them."""
        c = self.conv
        *self.others, self.channel = self.channels or (Axis(1),)
        *self.examples, self.example = merged(c.examples) or (Axis(1),)
        self.outer = merged((*c.parts, *self.more))
        self.places = list(itertools.product(*(range(v.out) for v in c.windows)))
        self.inner = self._is_inner()
        self.group = 1 if self.inner else self._group()
        self.panels = self._panels(self.filters.size)
        self.walks = kernel_walks(c.windows)
        self.kernel_blocks = self._kernel_blocks()
        self.blocks = even_blocks(self.channel.size, max(1, min(self._room(self.kernel_blocks))))
        outer, small = math.prod(a.size for a in self.outer), self._products() < WORTH
        jobs = [divisor(cut.count, min(JOBS, SUMS_BYTES // self.out.nbytes)) for cut in self.blocks]
        if small or outer >= FEW:
            self._write(self._alone)
        elif sum(jobs) >= FEW // 2:
            self._write(lambda: self._over_channels(jobs))
        elif not self.inner and self.filters.size >= FEW * self.machine.lanes(self.out.kind):
            self._over_filters()
        else:
            self._write(self._alone)

    def _write(self, jobs: Callable[[], None], columns: int | None = None) -> None:
        """Write jobs that have working space for so many columns of the kernel (None: all)."""
        self.images = {}
        for size in dict.fromkeys(cut.size for cut in self.blocks):
            channels = (self.example._replace(size=self.group), *self.others, self.channel._replace(size=size))
            self.images[size] = Image(self.b, self.x, channels, self.conv.windows, self.walks, self.kernel_blocks,
                                      self.inner, f"image_{size}")
        if not self.inner:
            sizes = (*(a.size for a in self.others), *(max(c.size for c in block) for block in self.kernel_blocks))
            most = max(cut.size for cut in self.blocks) * (columns or self.filters.size)
            self.packed = self.b.scratch("packed", self.out.kind, most * math.prod(sizes))
        jobs()

    def _panels(self, filters: int) -> list[Panels]:
        return panels_of(len(self.places) * self.group, filters, self.out.kind, self.machine)

    def _is_inner(self) -> bool:
        """Whether kernel columns are in the lanes: each kernel element meets few outputs, and need not be copied."""
        last, outputs = self.conv.windows[-1], len(self.places) * math.prod(a.size for a in self.conv.examples)
        return outputs <= FEW_OUTPUTS and last.w == 1 and last.kernel >= self.machine.lanes(self.out.kind) // 2

    def _group(self) -> int:
        """How many examples make the rows of a tile together."""
        n, outputs = self.example.size, len(self.places)
        sizes = [k for k in range(1, min(n, max(MOST_ROWS // outputs, 1)) + 1) if n % k == 0]

        def cost(k: int) -> float:
            found = panels_of(k * outputs, self.filters.size, self.out.kind, self.machine)
            return sum(p.count * c.count * cycles(c.size, p.vectors) for p in found for c in p.rows) / k

        return min(sizes, key=cost)

    def _room(self, blocks: list[list[Cut]]) -> tuple[int, int]:
        """For how many channels of a block of the kernel the caches have room: their images, their kernels."""
        size = ITEM_BYTES[self.out.kind] * math.prod(a.size for a in self.others)
        image = math.prod(s.room for s in sides_of(self.walks, blocks, self.inner)) * self.group
        kernel = math.prod(max(cut.size for cut in block) for block in blocks) * self.filters.size
        return IMAGE_BYTES // (size * image), KERNEL_BYTES // (size * kernel)

    def _kernel_blocks(self) -> list[list[Cut]]:
        """The kernel whole, or cut where one channel of it is too large."""
        blocks = whole(self.walks)
        for k, (block,) in enumerate(blocks[:-1]):
            size = block.size
            while size > 1 and not all(self._room(blocks)):
                size = -(-size // 2)
                blocks[k] = even_blocks(block.size, size)
        return blocks

    def _products(self) -> int:
        c = self.conv
        axes = (*c.parts, *c.examples, *c.filters, *c.channels)
        return math.prod(a.size for a in axes) * math.prod(v.out * v.kernel for v in c.windows)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _alone(self) -> None:
        """All filters, and all channels, in the memory of the output."""
        adds = self._begin()
        over_axes(self.b, self.outer, lambda x, w, out: self._part(self.panels, x, w, out, adds))

    def _over_filters(self) -> None:
        """A job for some filters, of two vectors at least."""
        lanes = self.machine.lanes(self.out.kind)
        vectors, rest = divmod(self.filters.size, lanes)
        found = [Cut(c.start * lanes, c.count, c.size * lanes) for c in even_blocks(vectors, max(vectors // FEW, 2))]
        found += [Cut(vectors * lanes, 1, rest)] if rest else []
        self._write(lambda: self._filters(found), max(cut.size for cut in found))

    def _filters(self, found: list[Cut]) -> None:
        adds = self._begin()
        for cut in found:
            panels = self._panels(cut.size)
            with self.b.loop(cut.count) as i:
                first = i * cut.size + cut.start
                over_axes(self.b, self.outer, lambda x, w, out, panels=panels, first=first: self._part(
                    panels, x, w + first * self.filters.y, out + first * self.filters.out, adds))

    def _begin(self) -> bool:
        """Whether there are several blocks of channels, for which the output begins as zeros."""
        several = any(len(cuts) > 1 or cuts[0].count > 1 for cuts in (self.blocks, *self.kernel_blocks))
        if several:
            self.b.fill(self.out, self.out.size)
        return several

    def _part(self, panels: list[Panels], x: Index, w: Index, out: Index, adds: bool) -> None:
        for cut in self.blocks:
            self._channels(cut, panels, x, w, self.out, out, adds)

    def _over_channels(self, jobs: list[int]) -> None:
        """Jobs for some of the channels, so many for each cut: their sums in working space, which are then added up."""
        b, count, size = self.b, sum(jobs), self.out.size
        sums = b.scratch("sums", self.out.kind, count * size)
        for k, (cut, n) in enumerate(zip(self.blocks, jobs, strict=True)):
            part = cut._replace(count=cut.count // n)
            with b.loop(n) as job:
                at, start = (job + sum(jobs[:k])) * size, job * (part.count * part.size)
                b.fill(sums, size, at)
                over_axes(b, self.outer, lambda x, w, out, part=part, start=start, at=at: self._channels(
                    part, self.panels, x + start * self.channel.x, w + start * self.channel.y, sums, at + out, True))
        with b.loop(size, vector=True) as i:
            total = b.load(sums, i)
            for k in range(1, count):
                total = b.op("add", total, b.load(sums, i + k * size))
            b.store(self.out, i, total)

    # --- blocks -------------------------------------------------------------------------------------------------------

    def _channels(
        self, cut: Cut, panels: list[Panels], x: Index, w: Index, target: Buffer, out: Index, adds: bool
    ) -> None:
        """Write what the blocks of channels of a cut add up to, or add it to what is there."""
        b = self.b
        channels = *self.others, self.channel._replace(size=cut.size)
        with b.loop(cut.count) as k:
            first = k * cut.size + cut.start
            kernel = Walk(self.w, w + first * self.channel.y, (),
                          [*(c.y for c in channels), *(v.w for v in self.conv.windows)], self.filters.y)
            block = _Block(self.images[cut.size], kernel, [c.size for c in channels], panels, target, out, adds)
            self._kernel(block, x + first * self.channel.x, ())

    def _kernel(self, block: "_Block", x: Index, starts: tuple[Index, ...]) -> None:
        """The blocks of the kernel along the axes from that of `starts` on."""
        axis, kernel = len(starts), block.kernel
        if axis == len(self.kernel_blocks):
            self._block(block, x, starts)
            return
        for cut in self.kernel_blocks[axis]:
            with self.b.loop(cut.count) as i:
                first = i * cut.size + cut.start
                part = kernel._replace(at=kernel.at + first * self.conv.windows[axis].w)
                self._kernel(replace(block, kernel=part, extents=[*block.extents, cut.size]), x, (*starts, first))

    def _block(self, block: "_Block", x: Index, starts: tuple[Index, ...]) -> None:
        """What a block of channels adds to all outputs."""
        if not self.inner:
            pack_kernel(self.b, self.packed, block.kernel, block.extents, block.panels)
        block.image.clear()
        e = self.example
        groups = e._replace(size=e.size // self.group, x=e.x * self.group, out=e.out * self.group)

        def examples(dx: Index, _: Index, to: Index) -> None:
            at = block.image.read(x + dx, starts)
            if self.inner:
                self._inner_tiles(block, at, to)
                return
            for panel in block.panels:
                self._tiles(block, panel, at, to)

        over_axes(self.b, merged((*self.examples, groups)), examples)

    def _tiles(self, block: "_Block", panel: Panels, at: Index, to: Index) -> None:
        """The outputs of some examples, for the filters of some panels."""
        columns = [v * panel.width * self.filters.out for v in range(panel.vectors)]
        reads, writes = self._rows(block.image)
        for first, size in ((c.start + k * c.size, c.size) for c in panel.rows for k in range(c.count)):
            left = Walk(block.image.buffer, at, reads[first : first + size], self._along(block.image))
            with self.b.loop(panel.count) as i:
                filters = i * panel.size + panel.start
                rows = [block.out + to + filters * self.filters.out + o for o in writes[first : first + size]]
                tile(self.b, panel.width, block.extents, left,
                     packed_walk(self.packed, panel, filters, block.extents),
                     store_tile(self.b, block.target, rows, columns, self.filters.out, block.adds))

    def _inner_tiles(self, block: "_Block", at: Index, to: Index) -> None:
        """The outputs of some examples, with kernel columns in the lanes."""
        step, registers, kernel = self.filters, self.machine.registers - 3, block.kernel  # others: masks and a number
        reads, writes = self._rows(block.image)
        vectors = max(1, min(registers // (min(len(reads), ONE_TILE) + 1), step.size))
        along = self._along(block.image)
        for part in cuts(len(reads), most_rows(vectors, registers)):
            for first in range(part.start, part.start + part.count * part.size, part.size):
                left = Walk(block.image.buffer, at, reads[first : first + part.size], along[:-1], along[-1])
                for cut in cuts(step.size, vectors):
                    with self.b.loop(cut.count) as i:
                        f = i * cut.size + cut.start
                        right = Walk(self.w, kernel.at + f * step.y, [k * step.y for k in range(cut.size)],
                                     kernel.along[:-1], kernel.along[-1])
                        rows = [block.out + to + f * step.out + o for o in writes[first : first + part.size]]
                        columns = [k * step.out for k in range(cut.size)]
                        inner_tile(self.b, block.extents[-1], block.extents[:-1], left, right,
                                   store_tile(self.b, block.target, rows, columns, 0, block.adds))

    def _rows(self, image: Image) -> tuple[list[int], list[int]]:
        """Where in the image and in the output the rows of tiles are: all outputs of a few examples."""
        windows = self.conv.windows
        reads = [image.offset([t * v.step - v.low for t, v in zip(p, windows, strict=True)]) for p in self.places]
        writes = [self.start + sum(t * v.to for t, v in zip(p, windows, strict=True)) for p in self.places]
        return ([k * image.of_channels[0] + at for k in range(self.group) for at in reads],
                [k * self.example.out + at for k in range(self.group) for at in writes])

    def _along(self, image: Image) -> list[int]:
        """The steps of an image along channels and kernel axes."""
        return [*image.of_channels[1:], *image.walk()]


@dataclass
class _Block:
    """A block of channels and of the kernel: what it is read from, and where its sums go."""

    image: Image
    kernel: Walk
    extents: list[int]
    panels: list[Panels]
    target: Buffer
    out: Index
    adds: bool
