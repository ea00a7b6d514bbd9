# SPDX-License-Identifier: MIT
"""Convolutions in many parts of one filter each whose channels come last: parts are in the lanes.

A depthwise convolution in channels-last order. Neighbouring lanes are neighbours in memory, in the input, the kernel
and the output, so a tile is some outputs side by side, each a vector of parts:

    out[t, part] = sum over k of  w[k, part] * image[t * step + shift[k], part]

`Parts` is for small kernels: jobs are blocks of examples, of their parts and of their rows. `PartSums` is for kernels
larger than the output, as in a kernel's gradient: jobs add up blocks of channels, or of kernel rows, and the sums are
added up.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.convolution_image import (
    JOBS,
    Axes,
    Image,
    Phase,
    Way,
    divisor,
    even_blocks,
    extents_of,
    kernel_walks,
    over_blocks,
    over_cuts,
    phases_of,
    sides_of,
    whole,
)
from functorch_lite.compiler.lowering.epilogue import Span
from functorch_lite.compiler.lowering.product_tiles import Axis, merged, over_axes
from functorch_lite.compiler.lowering.rules import strides_of
from functorch_lite.compiler.lowering.tiles import Cut, Machine, cuts, multiply_add

BLOCK_BYTES = 288 << 10  # of a block of outputs, whose rows overlap the next one's: part of a second-level cache
IMAGE_BYTES = 96 << 10  # of a block of a large kernel
MOST_OUTPUTS = 8  # of a tile
MOST_VECTORS = 6  # of a block of parts
NEAR_BYTES = 32 << 10  # of what a tile reads of an image: more would not be in the first-level cache for the next row's
MOST_SUMS = 25  # of a tile, where the kernel is large
WRITTEN_OUT = 300  # products: taps of no more are written out, else they are a loop
UNROLLED = 4  # kernel columns that are written out
WORTH = 1 << 20  # products: a convolution of fewer is not cut in jobs


def part_of(conv: Axes, kind: str, machine: Machine) -> Axis | None:
    """The axis of parts that can be in the lanes, if there is one: parts of one filter, in order in x."""
    found = merged(conv.parts)
    if not found or merged(conv.filters) or found[-1].x != 1 or conv.windows[-1].x == 1:
        return None
    return found[-1] if found[-1].size >= machine.lanes(kind) // 2 else None


@dataclass
class Lanes(Way):
    """What both ways have: the axis of parts, and tiles over it."""

    def __post_init__(self):
        super().__post_init__()
        *self.others, self.part = merged(self.conv.parts)

    def over_lanes(self, body: Callable[[Index], None]) -> None:
        """Run the body for vectors of parts: with the part in the present lane."""
        whole_vectors, rest = divmod(self.part.size, self.machine.lanes(self.out.kind))
        width = self.machine.lanes(self.out.kind)
        for count, size, start in ((whole_vectors, width, 0), (1, rest, whole_vectors * width)):
            if count * size:
                with self.b.loop(count) as k, self.b.loop(size, vector=True) as lane:
                    body(k * width + start + lane)

    def sums_of(
        self, image: Buffer, kernel: Buffer, offsets: Sequence[int], extents: Sequence[int],
        along: Sequence[Sequence[int]], taps: Sequence[tuple[int, int]], at: Index, w: Index,
    ) -> list[Value]:
        """For each offset the sum over loops and taps; along: steps in the image and in the kernel. In one lane."""
        b = self.b

        def step(x: Index, y: Index, totals: Sequence[Value]) -> list[Value]:
            found, loaded = list(totals), {}
            for dx, dy in taps:
                number = b.load(kernel, y + dy)
                for k, o in enumerate(offsets):
                    if dx + o not in loaded:
                        loaded[dx + o] = b.load(image, x + (dx + o))
                    found[k] = multiply_add(b, loaded[dx + o], number, found[k])
            return found

        def nest(level: int, x: Index, y: Index, totals: Sequence[Value]) -> list[Value]:
            if level == len(extents):
                return step(x, y, totals)
            return b.reduce(extents[level], list(totals), lambda k, *given: nest(
                level + 1, x + k * along[0][level], y + k * along[1][level], given))

        return nest(0, at, w, [b.constant(0, self.out.kind)] * len(offsets))


@dataclass
class Parts(Lanes):
    """Writes a convolution with parts in the lanes."""

    def __post_init__(self):
        super().__post_init__()
        self.phases = [phases_of(w) for w in self.conv.windows]

    def write(self) -> None:
        """Loop over examples, blocks of their parts and blocks of their outputs."""
        c, b = self.conv, self.b
        self.kernel, self.of_kernel = self._kernel()
        self._cut_parts()
        loops = merged((*self.others, *c.examples))
        examples = math.prod(a.size for a in loops)
        wanted = -(-self.jobs // examples) if examples < self.jobs and examples * self._products() >= WORTH else 1
        self.blocks = self.row_blocks(self.phases, wanted, lambda blocks: self._image_bytes(blocks) <= BLOCK_BYTES)
        self.image = Image(b, self.x, (*self.channels, self.part), c.windows, self.phases, self.blocks, split=False)
        self.walk = self.image.walk()
        if all(len(block) == block[0].count == 1 for block in self.blocks):
            sizes = tuple(block[0].size for block in self.blocks)
            over_blocks(b, loops, self.jobs, self.image.clear, lambda x, w, out: self._block(x, w, out, (), sizes))
        elif examples >= self.jobs:
            over_blocks(b, loops, self.jobs, self.image.clear, lambda x, w, out: self._cuts(x, w, out, lambda: None))
        else:
            over_axes(b, loops, lambda x, w, out: self._cuts(x, w, out, self.image.clear))

    def _cut_parts(self) -> None:
        """Make blocks of many parts, where whole vectors divide them: an axis of blocks, and one in a block."""
        lanes, part = self.machine.lanes(self.out.kind), self.part
        if part.size % lanes or self._tile_bytes() <= NEAR_BYTES:
            return
        size = lanes * divisor(part.size // lanes, MOST_VECTORS)
        if lanes < size < part.size:
            self.others.append(Axis(part.size // size, size, size * part.y, size))
            self.part = part._replace(size=size)

    def _tile_bytes(self) -> int:
        """What the tiles of all parts read of an image."""
        *_, last = blocks = [[Cut(0, 1, 1)] for _ in self.phases]
        last[0] = Cut(0, 1, min(MOST_OUTPUTS, max(p.count for p in self.phases[-1])))
        return self._image_bytes(blocks)

    def _cuts(self, x: Index, w: Index, out: Index, begin: Callable[[], None]) -> None:
        """The blocks of an example, each of which begins with `begin`; the image's border stays what it was."""
        over_cuts(self.b, self.blocks, begin, lambda starts, sizes: self._block(x, w, out, starts, sizes))

    def _products(self) -> int:
        """The products of one example."""
        sizes = (*(a.size for a in (self.part, *self.channels)), *(v.kernel for v in self.conv.windows))
        return math.prod(sizes) * math.prod(sum(p.count for p in axis) for axis in self.phases)

    def _image_bytes(self, blocks: list[list[Cut]]) -> int:
        rooms = (s.room for s in sides_of(self.phases, blocks, False))
        return ITEM_BYTES[self.out.kind] * math.prod(c.size for c in (*self.channels, self.part)) * math.prod(rooms)

    def _kernel(self) -> tuple[Buffer, list[int]]:
        """The kernel with parts in order, and its strides along channels and kernel axes: copied where it is not."""
        sizes = [*(c.size for c in self.channels), *(v.kernel for v in self.conv.windows)]
        strides = [*(c.y for c in self.channels), *(v.w for v in self.conv.windows)]
        self.first = self.conv.kernel_start
        if self.part.y == 1 or self.others:
            return self.w, strides
        packed = self.b.scratch("packed", self.out.kind, self.part.size * math.prod(sizes))
        to, self.first = [s * self.part.size for s in strides_of(sizes)], 0
        axes = [Axis(*a) for a in zip(sizes, strides, [0] * len(sizes), to, strict=True)]

        def copied(at: Index, _: Index, place: Index) -> None:
            with self.b.loop(self.part.size, vector=True) as i:
                source = at + self.conv.kernel_start + i * self.part.y
                self.b.store(packed, place + i, self.b.load(self.w, source))

        over_axes(self.b, axes, copied)
        self.part = self.part._replace(y=1)
        return packed, to

    def _block(self, x: Index, w: Index, out: Index, starts: tuple[Index, ...], sizes: tuple[int, ...]) -> None:
        """A block of the outputs of an example: of so many of each phase along each axis."""
        at, windows = self.image.read(x, starts), self.conv.windows
        for t, axis, v in zip(starts, self.phases, windows, strict=False):
            out = out + t * (axis[0].every * v.to)
        for phase in itertools.product(*self.phases):
            parts = tuple(p._replace(count=min(p.count, n)) for p, n in zip(phase, sizes, strict=True))
            self._phase(parts, at, w, out + sum(p.first * v.to for p, v in zip(phase, windows, strict=True)))
        if self.epilogue is not None:
            extents = extents_of(self.phases, sizes)
            axes = merged([Axis(n, 0, 0, v.to) for n, v in zip(extents, windows, strict=True)])
            self.epilogue.box(out, [Span(1, self.part.size), *(Span(a.out, a.size) for a in axes)])

    def _phase(self, phase: tuple[Phase, ...], at: Index, w: Index, out: Index) -> None:
        """All outputs of one phase in a block."""
        to = [p.every * v.to for p, v in zip(phase, self.conv.windows, strict=True)]
        rows = [Axis(p.count, s, 0, t) for p, s, t in zip(phase[:-1], self.walk, to, strict=False)]
        for cut in cuts(phase[-1].count, MOST_OUTPUTS):
            with self.b.loop(cut.count) as i:
                column = i * cut.size + cut.start
                over_axes(self.b, [a for a in rows if a.size > 1], lambda x, _, o, cut=cut, column=column: self._tile(
                    phase, cut.size, at + x + column * self.walk[-1], w, out + o + column * to[-1], to[-1]))

    def _tile(self, phase: tuple[Phase, ...], outputs: int, at: Index, w: Index, out: Index, to: int) -> None:
        """So many outputs side by side."""
        n, step = len(self.channels), self.walk[-1]
        extents, along = [c.size for c in self.channels], [list(self.image.of_channels[:-1]), self.of_kernel[:n]]
        axes = [p.taps for p in phase]
        for k, stride in enumerate(self.of_kernel[n:]):
            if math.prod(map(len, axes)) * outputs > self.machine.cutting.written_out(WRITTEN_OUT) and len(axes[k]) > 1:
                (k0, s0), (k1, s1) = axes[k][:2]
                extents.append(len(axes[k]))
                along[0].append((s1 - s0) * self.image.strides[k])
                along[1].append((k1 - k0) * stride)
                axes[k] = axes[k][:1]
        taps = [(self.image.offset([s for _, s in tap]),
                 self.first + sum(k * s for (k, _), s in zip(tap, self.of_kernel[n:], strict=True)))
                for tap in itertools.product(*axes)]

        def vector(part: Index) -> None:
            kernel = w + part * self.part.y
            offsets = [u * step for u in range(outputs)]
            sums = self.sums_of(self.image.buffer, self.kernel, offsets, extents, along, taps, at + part, kernel)
            for u, value in enumerate(sums):
                self.b.store(self.out, out + (part + u * to), value)

        self.over_lanes(vector)


@dataclass
class PartSums(Lanes):
    """Writes a convolution with parts in the lanes whose kernel is larger than its output."""

    def write(self) -> None:
        """Jobs that add up some channels each; then the sums of all."""
        b, c = self.b, self.conv
        *self.rest, self.channel = self.channels or (Axis(1),)
        self.places = list(itertools.product(*(range(v.out) for v in c.windows)))
        self.walks = kernel_walks(c.windows)
        self.blocks = self._blocks()
        self.image = Image(b, self.x, (*self.rest, self.part), c.windows, self.walks, self.blocks, split=False)
        jobs = divisor(self.channel.size, JOBS)
        self.size = len(self.places) * self.part.size
        sums = b.scratch("sums", self.out.kind, jobs * self.size)
        over_axes(b, merged((*self.others, *c.examples)),
                  lambda x, w, out: self._jobs(jobs, sums, x, w + c.kernel_start, out))

    def _blocks(self) -> list[list[Cut]]:
        """The kernel in blocks of rows whose image fits a cache."""
        blocks = whole(self.walks)
        channels = math.prod(a.size for a in (*self.rest, self.part)) * ITEM_BYTES[self.out.kind]
        for k, (block,) in enumerate(blocks[:-1]):
            size = block.size
            while size > 1 and channels * math.prod(s.room for s in sides_of(self.walks, blocks, False)) > IMAGE_BYTES:
                size = -(-size // 2)
                blocks[k] = even_blocks(block.size, size)
        return blocks

    def _jobs(self, jobs: int, sums: Buffer, x: Index, w: Index, out: Index) -> None:
        b, each = self.b, self.channel.size // jobs
        with b.loop(jobs) as job:
            b.fill(sums, self.size, job * self.size)
            with b.loop(each) as i:
                c = job * each + i
                over_cuts(b, self.blocks, self.image.clear, lambda starts, sizes: self._block(
                    starts, sizes, sums, ZERO + job * self.size, x + c * self.channel.x, w + c * self.channel.y))
        for number, place in enumerate(self.places):
            to = out + sum(t * v.to for t, v in zip(place, self.conv.windows, strict=True))
            with b.loop(self.part.size, vector=True) as k:
                total = b.load(sums, k + number * self.part.size)
                for job in range(1, jobs):
                    total = b.op("add", total, b.load(sums, k + (number * self.part.size + job * self.size)))
                b.store(self.out, to + k * self.part.out, total)

    def _block(
        self, starts: tuple[Index, ...], sizes: tuple[int, ...], sums: Buffer, first: Index, x: Index, w: Index
    ) -> None:
        """What a block of the kernel adds to all outputs."""
        windows, image = self.conv.windows, self.image
        at = image.read(x, starts)
        for t, v in zip(starts, windows, strict=True):
            w = w + t * v.w
        extents = [*(c.size for c in self.rest), *sizes[:-1]]
        along = [[*image.of_channels[:-1], *image.walk()], [*(c.y for c in self.rest), *(v.w for v in windows)]]
        offsets = [image.offset([t * v.step - v.low for t, v in zip(p, windows, strict=True)]) for p in self.places]
        for cut, run in itertools.product(cuts(len(offsets), MOST_SUMS), cuts(sizes[-1], UNROLLED)):
            taps = [(k * along[0][-1], k * along[1][-1]) for k in range(run.size)]
            loops, steps = [*extents, run.count], [[*a[:-1], a[-1] * run.size] for a in along]
            for start in range(cut.start, cut.start + cut.count * cut.size, cut.size):
                some = offsets[start : start + cut.size]

                def vector(part: Index, some=some, start=start, loops=loops, steps=steps, taps=taps, run=run) -> None:
                    begin = run.start * along[0][-1], run.start * along[1][-1]
                    found = self.sums_of(image.buffer, self.w, some, loops, steps, taps, at + part + begin[0],
                                         w + part * self.part.y + begin[1])
                    for k, value in enumerate(found):
                        place = first + (part + (start + k) * self.part.size)
                        self.b.store(sums, place, self.b.op("add", self.b.load(sums, place), value))

                self.over_lanes(vector)
