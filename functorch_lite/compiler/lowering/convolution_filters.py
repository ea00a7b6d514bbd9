# SPDX-License-Identifier: MIT
"""Convolutions with a kernel larger than the output, as a kernel's gradient is: filters are in the lanes.

The outputs of a few examples are the rows of a tile. The kernel is copied into panels, some channels at a time; if
there are few outputs, kernel columns are in the lanes instead, and the kernel is read where it is. Jobs that threads
share are, whichever there are enough of:

    parts     convolved apart
    channels  each job adds up some of them in working space, and the sums are added up in the end
    filters   each job has its own part of the kernel, where the output is too large for sums of each job
    examples  otherwise, for each block of the kernel

Where filters lie far apart in the output, sums are in working space with filters in order, and are put in order when
they are complete: those of a few examples, or of all where they are added up block by block.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index
from functorch_lite.compiler.lowering.convolution_image import (
    FETCHED_BYTES,
    JOBS,
    LEAST_COLUMNS,
    Image,
    Way,
    Window,
    divisor,
    even_blocks,
    kernel_walks,
    over_blocks,
    pack_kernel,
    sides_of,
    whole,
)
from functorch_lite.compiler.lowering.product_tiles import Axis, merged, over_axes
from functorch_lite.compiler.lowering.rules import strides_of
from functorch_lite.compiler.lowering.tiles import (
    LINE_BYTES,
    Cut,
    Fetched,
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
HELD_BYTES = 64 << 10  # of it where examples lie side by side
SIDE_BY_SIDE = 32  # examples
KERNEL_BYTES = 256 << 10  # of a part of a kernel that stays in the second-level cache
TURNED_BYTES = 160 << 10  # of a job's sums
ALL_BYTES = 1 << 20  # of sums where threads share what is inside of a job
JOB_BYTES = 300 << 10  # of all that: threads have it on their stacks
SUMS_BYTES = 2 << 20  # of all jobs' sums
FEW_OUTPUTS = 32  # of all examples: a kernel in order would be read that often
ONE_TILE = 9  # outputs of a tile with kernel columns in the lanes
MOST_ROWS = 28  # outputs of a few examples together
LEAST_SUMS = 8  # of a tile that comes again and again
FEW = 8  # jobs
MOST_FETCHED = 16  # lines in a step of a tile: so many are on the way at a time
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
        self.held = self._held()
        self.panels = self._panels(self.filters.size)
        self.walks = kernel_walks(c.windows)
        self._cut(self.filters.size)
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

    def _cut(self, columns: int) -> None:
        """Cut the kernel and the channels in blocks for jobs of so many filters."""
        self.columns, self.kernel_bytes = columns, KERNEL_BYTES if self.held == self.group else JOB_BYTES - HELD_BYTES
        self._cut_blocks()
        self.turned = self._turned(columns)
        size = self.turned.size * ITEM_BYTES[self.out.kind] if self.turned is not None else 0
        one = columns == self.filters.size and not self.outer  # job, which keeps its sums where it likes
        if size > (ALL_BYTES if one else TURNED_BYTES):
            self.turned = None
        elif self.adds and size and not one:
            self.kernel_bytes = min(self.kernel_bytes, JOB_BYTES - IMAGE_BYTES - size)
            self._cut_blocks()

    def _cut_blocks(self) -> None:
        self.kernel_blocks = self._kernel_blocks()
        most = min(*self._room(self.kernel_blocks), self._most_channels())
        self.blocks = even_blocks(self.channel.size, max(1, most))
        self.adds = any(len(cuts) > 1 or cuts[0].count > 1 for cuts in (self.blocks, *self.kernel_blocks))

    def _turned(self, columns: int) -> "Turned | None":
        """The order of sums in working space: of all examples where they are added up there, else of a few."""
        if self.inner or self.filters.size == 1 or self.filters.out == 1 or any(v.to < 0 for v in self.conv.windows):
            return None
        few = [Axis(self.group, 0, 0, self.example.out)]
        examples = (*self.examples, self.example) if self.adds else few
        found = turned_of(examples, self.conv.windows, columns)
        return found if found.run.out == 1 else None

    def _most_channels(self) -> int:
        """Of a block: fewer where jobs can have blocks of them."""
        divided = not self.outer and self._products() >= WORTH and self.out.nbytes * FEW <= SUMS_BYTES
        return -(-self.channel.size // FEW) if divided else self.channel.size

    def _write(self, jobs: Callable[[], None]) -> None:
        """Write jobs, and what working space they need."""
        self.images = {}
        for size in dict.fromkeys(cut.size for cut in self.blocks):
            channels = (self.example._replace(size=self.held), *self.others, self.channel._replace(size=size))
            self.images[size] = Image(self.b, self.x, channels, self.conv.windows, self.walks, self.kernel_blocks,
                                      self.inner, f"image_{size}")
        if not self.inner:
            sizes = (*(a.size for a in self.others), *(max(c.size for c in block) for block in self.kernel_blocks))
            most = max(cut.size for cut in self.blocks) * self.columns
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

    def _held(self) -> int:
        """How many examples are in an image: more where they lie side by side in x, in the same lines of a cache."""
        e = self.example
        if self.inner or e.x != 1 or self.conv.windows[-1].x == 1:
            return self.group
        return max(k for k in range(self.group, max(SIDE_BY_SIDE, self.group) + 1, self.group) if e.size % k == 0)

    def _room(self, blocks: list[list[Cut]]) -> tuple[int, int]:
        """For how many channels of a block of the kernel the caches have room: their images, their kernels."""
        size = ITEM_BYTES[self.out.kind] * math.prod(a.size for a in self.others)
        image = math.prod(s.room for s in sides_of(self.walks, blocks, self.inner)) * self.held
        kernel = math.prod(max(cut.size for cut in block) for block in blocks) * self.columns
        most = IMAGE_BYTES if self.held == self.group else HELD_BYTES
        return most // (size * image), self.kernel_bytes // (size * kernel)

    def _kernel_blocks(self) -> list[list[Cut]]:
        """The kernel whole, or cut where one channel of it is too large."""
        blocks = whole(self.walks)
        for k, (block,) in enumerate(blocks):
            size, least = block.size, 1 if k < len(blocks) - 1 else block.size if self.inner else LEAST_COLUMNS
            while size > least and not all(self._room(blocks)):
                size = -(-size // 2)
                blocks[k] = even_blocks(block.size, size)
        return blocks

    def _products(self) -> int:
        c = self.conv
        axes = (*c.parts, *c.examples, *c.filters, *c.channels)
        return math.prod(a.size for a in axes) * math.prod(v.out * v.kernel for v in c.windows)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _alone(self) -> None:
        """All filters, and all channels."""
        self._begin()
        over_axes(self.b, self.outer, lambda x, w, out: self._part(self.panels, x, w, out))

    def _over_filters(self) -> None:
        """A job for some filters, of two vectors at least."""
        lanes = self.machine.lanes(self.out.kind)
        vectors, rest = divmod(self.filters.size, lanes)
        found = [Cut(c.start * lanes, c.count, c.size * lanes) for c in even_blocks(vectors, max(vectors // FEW, 2))]
        found += [Cut(vectors * lanes, 1, rest)] if rest else []
        self._cut(max(cut.size for cut in found))
        self._write(lambda: self._filters(found))

    def _filters(self, found: list[Cut]) -> None:
        self._begin()
        for cut in found:
            panels = self._panels(cut.size)
            with self.b.loop(cut.count) as i:
                first = i * cut.size + cut.start
                over_axes(self.b, self.outer, lambda x, w, out, panels=panels, first=first: self._part(
                    panels, x, w + first * self.filters.y, out + first * self.filters.out))

    def _begin(self) -> None:
        """Make room for sums, or have the output begin as zeros if it is added to."""
        if self.turned is not None:
            self.sums = self.b.scratch("sums", self.out.kind, self.turned.size)
        elif self.adds:
            self.b.fill(self.out, self.out.size)

    def _part(self, panels: list[Panels], x: Index, w: Index, out: Index) -> None:
        """Some filters, and all channels."""
        if self.turned is not None and self.adds:
            self.b.fill(self.sums, self.sums.size)
            for cut in self.blocks:
                self._channels(cut, panels, x, w, self.sums, ZERO, out)
            self._put(panels, out)
            return
        for cut in self.blocks:
            self._channels(cut, panels, x, w, self.out if self.turned is None else self.sums, out, out)

    def _put(self, panels: list[Panels], out: Index) -> None:
        """Write sums for the filters of some panels where they belong in the output."""
        assert self.turned is not None
        filters, run = sum(p.count * p.size for p in panels), self.turned.run
        over_axes(self.b, self.turned.outer, lambda _, y, to: self.b.transpose(
            self.out, out + (to + self.start), self.sums, y, run.size, filters, run.y, self.filters.out))

    def _over_channels(self, jobs: list[int]) -> None:
        """Jobs for some of the channels, so many for each cut: their sums in working space, which are then added up."""
        b, count, size, self.adds = self.b, sum(jobs), self.out.size, True
        self.turned = None if self.outer else self._turned(self.columns)
        self.sums = sums = b.scratch("sums", self.out.kind, count * size)
        for k, (cut, n) in enumerate(zip(self.blocks, jobs, strict=True)):
            part = cut._replace(count=cut.count // n)
            with b.loop(n) as job:
                at, start = (job + sum(jobs[:k])) * size, job * (part.count * part.size)
                b.fill(sums, size, at)
                over_axes(b, self.outer, lambda x, w, out, part=part, start=start, at=at: self._channels(
                    part, self.panels, x + start * self.channel.x, w + start * self.channel.y, sums, at + out, out))
        with b.loop(size, vector=True) as i:
            total = b.load(sums, i)
            for k in range(1, count):
                total = b.op("add", total, b.load(sums, i + k * size))
            b.store(self.out if self.turned is None else sums, i, total)
        if self.turned is not None:
            self._put(self.panels, ZERO)

    # --- blocks -------------------------------------------------------------------------------------------------------

    def _channels(
        self, cut: Cut, panels: list[Panels], x: Index, w: Index, target: Buffer, at: Index, out: Index
    ) -> None:
        """Write what the blocks of channels of a cut add up to, or add it to what is there: from `at` of a buffer on.

        out: where in the output it belongs.
        """
        b = self.b
        channels = *self.others, self.channel._replace(size=cut.size)
        with b.loop(cut.count) as k:
            first = k * cut.size + cut.start
            kernel = Walk(self.w, w + first * self.channel.y, (),
                          [*(c.y for c in channels), *(v.w for v in self.conv.windows)], self.filters.y)
            block = _Block(self.images[cut.size], kernel, [c.size for c in channels], panels, target, at, out,
                           kernel.at + cut.size * self.channel.y)
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
        *others, e = (*self.examples, self.example)
        if self.turned is not None and self.adds:
            *others, e = (a._replace(y=y) for a, y in zip((*others, e), self.turned.examples, strict=True))
        blocks = Axis(e.size // self.held, e.x * self.held, e.y * self.held, e.out * self.held)
        groups = Axis(self.held // self.group, block.image.of_channels[0] * self.group, e.y * self.group,
                      e.out * self.group)
        few = self.turned is not None and not self.adds  # examples, whose sums are in working space

        def begin() -> None:
            block.image.clear()
            if few:
                self.b.fill(self.sums, self.sums.size)  # a job reads nothing that it has not written: it has its own

        def group(at: Index, y: Index, to: Index, fetched: Sequence[Sequence[Fetched]]) -> None:
            if self.inner:
                self._inner_tiles(block, at, to)
                return
            for panel in block.panels:
                self._tiles(block, panel, at, ZERO if few else block.at + (to if self.turned is None else y),
                            fetched if panel is block.panels[0] else ())
            if few:
                self._put(block.panels, block.out + to)

        def examples(dx: Index, y: Index, to: Index) -> None:
            at = block.image.read(x + dx, starts)
            over_axes(self.b, [groups] if groups.size > 1 else [], lambda da, dy, dt: group(
                at + da, y + dy, to + dt, self._fetched(block, blocks, groups, x, dx, da)))

        over_blocks(self.b, merged((*others, blocks)), self.jobs, begin, examples)

    def _fetched(
        self, block: "_Block", blocks: Axis, groups: Axis, x: Index, dx: Index, da: Index
    ) -> list[list[Fetched]]:
        """What the tiles of a group of examples fetch while the kernel goes by: the part of those in what comes next.

        That is the first of them in the next channels of the kernel, and the second (or the same) in the next image.
        dx, da: where the group is in x and in the image.
        """
        whole_kernel = all(len(cuts) == cuts[0].count == 1 for cuts in self.kernel_blocks)
        if self.inner or self.machine.cutting.looped or not whole_kernel or len(self.examples) > 0:
            return []
        channels, windows = [*self.others, self.channel], self.conv.windows
        share = -(-self.filters.size // (blocks.size * groups.size))
        part = _scaled(dx, blocks.x, groups.size) + _scaled(da, groups.x, 1)
        found = []
        if self.w.nbytes > FETCHED_BYTES:
            at = block.following + part * (share * self.filters.y)
            found.append(fetched_of(self.w, at, block.extents, [*(c.y for c in channels), *(v.w for v in windows)],
                                    [k * self.filters.y for k in range(share)]))
        if self.x.nbytes > FETCHED_BYTES:
            along = [*(c.x for c in channels), *(v.x * v.kernel_dilation for v in windows)]
            at = x + dx + blocks.x + _scaled(da, groups.x, self.example.x * self.group)
            found.append(fetched_of(self.x, at, block.extents, along, [k * self.example.x for k in range(self.group)]))
        return found

    def _tiles(
        self, block: "_Block", panel: Panels, at: Index, to: Index, fetched: Sequence[Sequence[Fetched]]
    ) -> None:
        """The outputs of some examples, for the filters of some panels. fetched: by the tiles, in order."""
        step = self.filters.out if self.turned is None else 1
        reads, writes = self._rows(block.image)
        if self.turned is not None:
            writes = [k * self.turned.columns for k in range(len(writes))]
        vectors = panel.vectors
        if vectors % 2 == 0 and not self._rows_alike(vectors):  # half a panel at a time, then
            vectors //= 2
        alike, pieces = self._pieces(reads, writes, panel.rows, vectors)
        if not alike:
            vectors = panel.vectors
        columns, part = [v * panel.width * step for v in range(vectors)], vectors * panel.width

        def write(first: int, size: int, dx: Index, do: Index, fetched: Sequence[Fetched]) -> None:
            left = Walk(block.image.buffer, at + dx, reads[first : first + size], self._along(block.image))
            with self.b.loop(panel.count) as i, self.b.loop(panel.vectors // vectors) as h:
                filters = i * panel.size + panel.start
                right = packed_walk(self.packed, panel, filters, block.extents)
                right = right._replace(at=right.at + h * part, offsets=right.offsets[:vectors])
                rows = [to + do + (filters + h * part) * step + o for o in writes[first : first + size]]
                tile(self.b, panel.width, block.extents, left, right,
                     store_tile(self.b, block.target, rows, columns, step, self.adds),
                     unrolled=self.machine.cutting.unrolled, fetched=fetched)

        for k, (first, size) in enumerate(pieces):
            some = [f for j, found in enumerate(fetched) if j % len(pieces) == k for f in found]
            over_axes(self.b, alike, lambda dx, _, do, first=first, size=size, some=some: write(
                first, size, dx, do, some))

    def _pieces(
        self, reads: list[int], writes: list[int], usual: Sequence[Cut], vectors: int
    ) -> tuple[list[Axis], list[tuple[int, int]]]:
        """The rows of each tile, and the axes along which all of them come again, where there should be little code."""
        axes = [Axis(n, reads[k] - reads[0], 0, writes[k] - writes[0]) for n, k in self._rows_alike(vectors)]
        rows = len(reads) // math.prod(a.size for a in axes)
        if axes and reads == _places(axes, "x", reads[:rows]) and writes == _places(axes, "out", writes[:rows]):
            return axes, [(0, rows)]
        return [], [(c.start + k * c.size, c.size) for c in usual for k in range(c.count)]

    def _rows_alike(self, vectors: int) -> list[tuple[int, int]]:
        """Where there should be little code: how often tiles come again along each axis, and so many rows further.

        The rows of a tile are those of the last axes, which fit the registers; nothing where it would have few sums.
        """
        sizes = [self.group, *(v.out for v in self.conv.windows)]
        axis, rows, most = len(sizes), 1, most_rows(vectors, self.machine.registers)
        while axis and rows * sizes[axis - 1] <= most:
            axis -= 1
            rows *= sizes[axis]
        if not self.machine.cutting.looped or rows * vectors < LEAST_SUMS:
            return []
        return [(sizes[k], math.prod(sizes[k + 1 :])) for k in range(axis) if sizes[k] > 1]

    def _inner_tiles(self, block: "_Block", at: Index, to: Index) -> None:
        """The outputs of some examples, with kernel columns in the lanes."""
        step, registers, kernel = self.filters, self.machine.registers - 3, block.kernel  # others: masks and a number
        reads, writes = self._rows(block.image)
        vectors = max(1, min(registers // (min(len(reads), ONE_TILE) + 1), step.size))
        along = self._along(block.image)
        alike, pieces = self._pieces(reads, writes, cuts(len(reads), most_rows(vectors, registers)), vectors)

        def write(first: int, size: int, dx: Index, do: Index) -> None:
            left = Walk(block.image.buffer, at + dx, reads[first : first + size], along[:-1], along[-1])
            for cut in cuts(step.size, vectors):
                with self.b.loop(cut.count) as i:
                    f = i * cut.size + cut.start
                    right = Walk(self.w, kernel.at + f * step.y, [k * step.y for k in range(cut.size)],
                                 kernel.along[:-1], kernel.along[-1])
                    rows = [block.at + to + do + f * step.out + o for o in writes[first : first + size]]
                    columns = [k * step.out for k in range(cut.size)]
                    inner_tile(self.b, block.extents[-1], block.extents[:-1], left, right,
                               store_tile(self.b, block.target, rows, columns, 0, self.adds))

        for first, size in pieces:
            over_axes(self.b, alike, lambda dx, _, do, first=first, size=size: write(first, size, dx, do))

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


def _scaled(index: Index, step: int, by: int) -> Index:
    """An index that goes in steps, in others."""
    return Index(0, tuple((v, n // step * by) for v, n in index.terms))


def fetched_of(
    buffer: Buffer, at: Index, extents: Sequence[int], along: Sequence[int], offsets: Sequence[int]
) -> list[Fetched]:
    """The lines at `offsets` and at all k, if they are few in each step of the outermost of several."""
    first = next((level for level, n in enumerate(extents) if n > 1), None)
    if first is None or math.prod(extents[first + 1 :]) > MOST_FETCHED * LINE_BYTES:
        return []
    inner = itertools.product(*(range(0, n * step, step) for n, step in zip(
        extents[first + 1 :], along[first + 1 :], strict=True)))
    line = LINE_BYTES // ITEM_BYTES[buffer.kind]
    starts = sorted({sum(k) // line * line for k in inner})
    places = [o + start for o in offsets for start in starts]
    return [Fetched(buffer, at, along[first], places)] if len(places) <= MOST_FETCHED else []


def _places(axes: Sequence[Axis], of: str, first: Sequence[int]) -> list[int]:
    """Where the rows of all tiles are that come again along some axes. of: which of their strides counts."""
    steps = [[k * getattr(a, of) for k in range(a.size)] for a in axes]
    return [sum(at) + place for at in itertools.product(*steps) for place in first]


@dataclass
class _Block:
    """A block of channels and of the kernel: what it is read from, and where its sums go, and belong in the end.

    following: where in the kernel the next channels are.
    """

    image: Image
    kernel: Walk
    extents: list[int]
    panels: list[Panels]
    target: Buffer
    at: Index
    out: Index
    following: Index


class Turned(NamedTuple):
    """An order of sums in working space: `columns` filters in order for each output of some examples.

    examples: the strides of examples. size: of all. outer, run: the axes of outputs, their strides there as `y`.
    """

    columns: int
    examples: list[int]
    size: int
    outer: tuple[Axis, ...]
    run: Axis


def turned_of(examples: Sequence[Axis], windows: Sequence[Window], columns: int) -> Turned:
    """The order of the sums of some examples, for so many filters."""
    sizes = [*(a.size for a in examples), *(v.out for v in windows)]
    strides = [columns * s for s in strides_of(sizes)]
    to = [*(a.out for a in examples), *(v.to for v in windows)]
    axes = [Axis(n, 0, y, out) for n, y, out in zip(sizes, strides, to, strict=True)]
    *outer, run = merged(axes) or (Axis(1, 0, 0, 1),)
    return Turned(columns, strides[: len(examples)], columns * math.prod(sizes), tuple(outer), run)
