# SPDX-License-Identifier: MIT
"""Convolutions with filters in the lanes: outputs are the rows of a tile.

Lanes are full whatever the size of an example, and strides cost nothing, as inputs are read one by one. The kernel is
copied into panels first, once for all examples. Examples, or blocks of their rows that fit a cache, are computed panel
after panel; the outputs for a panel are put in order after they are computed, which pays where each is a sum of many
terms; where filters are in order in the output they go there at once. Jobs that threads share are blocks of examples,
and blocks of rows where examples are few; or where a large kernel meets few outputs, its panels, each of which is read
once for all examples.

Taps are written out where neighbouring outputs then share the numbers they read and all fits the registers: broadcasts
of numbers are most of what a tile loads.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Index
from functorch_lite.compiler.lowering.convolution_image import (
    Image,
    Phase,
    Way,
    extents_of,
    over_blocks,
    over_cuts,
    pack_kernel,
    phases_of,
    sides_of,
    whole,
)
from functorch_lite.compiler.lowering.epilogue import Span
from functorch_lite.compiler.lowering.pooled import Pooled
from functorch_lite.compiler.lowering.product_tiles import Axis, merged, over_axes
from functorch_lite.compiler.lowering.rules import strides_of
from functorch_lite.compiler.lowering.tiles import Cut, Panels, Walk, cuts, most_rows, store_tile, tile

WRITTEN_OUT = 150  # products: taps of no more are written out, else they are a loop
SPILLED = 4  # values of a tile that need not be in registers, where taps are written out
LEAST_ROWS = 4  # of a tile
CODE = 0.02  # what a tile costs more for each that is written out beside it
MOST_ROWS = 28  # outputs in the tiles of one unit
KERNEL_BYTES = 1 << 20  # of the panels, in a second-level cache
MANY_OUTPUTS = 64  # that a panel is read for, where not all panels stay in a cache
IMAGES_BYTES = 2 << 20  # of all examples together, that panels go over
SUMS_BYTES = 160 << 10  # of their outputs for a panel
BLOCK_BYTES = 288 << 10  # of the images, and of the outputs of a panel, in working space
LEAST_VECTORS, MOST_VECTORS = 2, 4  # of a panel
WORTH = 1 << 22  # products: a convolution of fewer is not cut in jobs
FEW = 8  # examples
FAR = 15.0  # cycles to put a vector of outputs in order


class Unit(NamedTuple):
    """The outputs whose tiles are written out: of `group` examples, `rows` rows and a cut of the columns of a phase.

    panels: of filters, with the cuts of these outputs in tiles. cost: cycles for an example.
    """

    phase: tuple[Phase, ...]
    group: int
    rows: int
    columns: Cut
    panels: list[Panels]
    cost: float


@functools.cache
def numbers_of(axis: Phase, columns: int) -> int:
    """How many numbers of a row of the image so many neighbouring outputs meet."""
    return len({t * axis.step + s for t in range(columns) for _, s in axis.taps})


class Plan(NamedTuple):
    """How many examples make a unit; the panels; the units of a block of each size; and the cycles for an example."""

    group: int
    panels: list[Panels]
    units: dict[tuple[int, ...], list[Unit]]
    cost: float


@dataclass
class Outputs(Way):
    """Writes a convolution with filters in the lanes, whose kernel is copied once."""

    def __post_init__(self):
        super().__post_init__()
        c = self.conv
        *self.examples, self.example = merged(c.examples) or (Axis(1),)
        self.phases = [phases_of(w) for w in c.windows]
        depth = math.prod(a.size for a in self.channels) * math.prod(v.kernel for v in c.windows)
        self.packed_size = depth * self.filters.size
        self.direct = self.filters.out == 1 and self.filters.size > 1 and self.pool is None
        overlaps = self.pool is not None and any(s.overlaps for s in self.pool.slides)
        self.most_vectors = LEAST_VECTORS if overlaps else MOST_VECTORS  # of a panel: for long blocks if they overlap
        in_order = self.direct or self.pool is not None and self.filters.out == 1
        self.far = 0.0 if in_order else FAR * self.stored
        self.by_panels = self._is_by_panels()
        self.blocks = whole(self.phases) if self.by_panels else self.row_blocks(
            self.phases, self._wanted(), lambda blocks: self._bytes(blocks) <= BLOCK_BYTES)
        self.is_cut = any(len(block) > 1 or block[0].count > 1 for block in self.blocks)
        self.plan = self._plan()
        self.held = self._held()

    def _is_by_panels(self) -> bool:
        """Whether jobs are panels of a large kernel, which few outputs meet."""
        item, blocks, n = ITEM_BYTES[self.kind], whole(self.phases), self.example.size
        if self.packed_size * item <= KERNEL_BYTES or self.examples or math.prod(a.size for a in self.conv.parts) > 1:
            return False
        places = math.prod(extents_of(self.phases, [block[0].size for block in blocks]))
        sums = places * min(self.filters.size, self.most_vectors * self.machine.lanes(self.kind)) * item
        return n * self._bytes(blocks) <= IMAGES_BYTES and n * sums <= SUMS_BYTES

    def _wanted(self) -> int:
        """In how many blocks an example is cut, so that threads find enough jobs."""
        c = self.conv
        parts = math.prod(a.size for a in (*c.parts, *self.more, *c.examples))
        products = self.packed_size * math.prod(v.out for v in c.windows)
        return max(FEW, -(-self.jobs // parts)) if parts < FEW and parts * products >= WORTH else 1

    def _plan(self) -> Plan:
        """The plan that costs least."""
        small = math.prod(axis[0].count for axis in self.phases)
        groups = [k for k in range(1, max(MOST_ROWS // small, 1) + 1) if self.example.size % k == 0]
        most = min(self.filters.size // self.machine.lanes(self.kind), self.most_vectors)
        vectors = range(LEAST_VECTORS, max(most, LEAST_VECTORS) + 1)
        return min((self._plan_of(k, v) for k in groups for v in vectors), key=lambda p: p.cost)

    def _plan_of(self, group: int, vectors: int) -> Plan:
        """The plan for so many examples in a unit, and so many vectors in a panel."""
        panels = self._panels(vectors)
        units, total = {}, 0.0
        for block in itertools.product(*self.blocks):
            sizes = tuple(cut.size for cut in block)
            if sizes not in units:
                units[sizes] = [u for phase in itertools.product(*self.phases)
                                for u in self._units_of(phase, sizes, group, panels)]
            total += math.prod(cut.count for cut in block) * sum(u.cost for u in units[sizes])
        return Plan(group, panels, units, total)

    def _units_of(
        self, phase: tuple[Phase, ...], sizes: tuple[int, ...], group: int, panels: list[Panels]
    ) -> list[Unit]:
        """The units of a phase in a block, that cost least: some rows, or parts of the columns of one."""
        phase = tuple(p._replace(count=min(p.count, n)) for p, n in zip(phase, sizes, strict=True))
        rows, columns = phase[-2].count, phase[-1].count
        whole = [(k, [Cut(0, 1, columns)]) for k in range(1, min(rows, MOST_ROWS // (columns * group)) + 1)
                 if rows % k == 0]
        parts = [(1, cuts(columns, k)) for k in range(LEAST_ROWS, min(columns, MOST_ROWS // 2 + 1)) if group == 1]
        choices = [[self._unit_of(phase, group, k, cut, panels) for cut in found] for k, found in (*whole, *parts)]
        return min(choices, key=lambda units: sum(u.cost for u in units) * (1 + CODE * len(units)))

    def _unit_of(self, phase: tuple[Phase, ...], group: int, rows: int, columns: Cut, panels: list[Panels]) -> Unit:
        """A unit with the tiles that cost least."""
        outputs, found, total = group * rows * columns.size, [], 0.0
        for panel in panels:
            tiles, cost = self._tiles_of(phase, outputs, panel.vectors, columns.size)
            found.append(panel._replace(rows=tiles))
            total += panel.count * (cost + self.far * outputs * panel.vectors)
        times = math.prod(p.count for p in phase[:-1]) * columns.count / (group * rows)
        return Unit(phase, group, rows, columns, found, total * times)

    def _tiles_of(self, phase: tuple[Phase, ...], outputs: int, vectors: int, columns: int) -> tuple[list[Cut], float]:
        """How so many outputs are cut in tiles, each of which is code of its own, and their cycles."""
        taps = math.prod(a.size for a in self.channels) * math.prod(len(p.taps) for p in phase)
        least = -(-outputs // most_rows(vectors, self.machine.registers))
        choices = [cuts(outputs, -(-outputs // k)) for k in range(least, max(least, outputs // LEAST_ROWS) + 1)]
        costs = [sum(c.count * self._cycles(phase, c.size, vectors, columns) for c in tiles)
                 * (1 + CODE * sum(c.count for c in tiles)) for tiles in choices]
        best = costs.index(min(costs))
        return choices[best], costs[best] * taps

    def _cycles(self, phase: tuple[Phase, ...], rows: int, vectors: int, columns: int) -> float:
        """What a tap of a channel costs a tile. Two products and one load begin in a cycle, and a product takes four.

        Panels come from the second-level cache.
        """
        numbers, side = float(rows), min(rows, columns)
        if self._is_written_out(phase, rows, vectors, columns):
            numbers *= numbers_of(phase[-1], side) / max(side * len(phase[-1].taps), 1)
        return max(rows * vectors / 2, 4.0, numbers + vectors, 1.6 * vectors) + 0.3 + 0.08 * vectors * vectors

    def _is_written_out(self, phase: tuple[Phase, ...], rows: int, vectors: int, columns: int) -> bool:
        """Whether a tile's sums, and the numbers that its outputs share if taps are written out, fit the registers."""
        side = min(rows, columns)
        values = (rows + 1) * vectors + -(-rows // side) * numbers_of(phase[-1], side)
        return values <= self.machine.registers + SPILLED

    def _panels(self, vectors: int) -> list[Panels]:
        """The filters in panels of at most so many vectors, and one of the rest."""
        lanes = self.machine.lanes(self.kind)
        whole, rest = divmod(self.filters.size, lanes)
        found = [Panels(c.start * lanes, c.count, c.size, lanes, []) for c in cuts(whole, vectors)] if whole else []
        return [*found, Panels(whole * lanes, 1, 1, rest, [])] if rest else found

    def _held(self) -> int:
        """How many examples are in working space at once: more where each panel of the kernel is large."""
        item, e = ITEM_BYTES[self.kind], self.example.size
        if self.by_panels:
            return e
        room = BLOCK_BYTES // max(self._bytes(self.blocks), 1)
        large = not self.is_cut and self.packed_size * item > KERNEL_BYTES
        most = min(room, -(-MANY_OUTPUTS // self._places())) if large else 1
        group = self.plan.group
        return max((k for k in range(group, most + 1, group) if e % k == 0), default=group)

    def _places(self) -> int:
        """The outputs of an example, or of a block of it, for one filter."""
        return math.prod(extents_of(self.phases, [max(cut.size for cut in block) for block in self.blocks]))

    def _bytes(self, blocks: list[list[Cut]]) -> int:
        """Of the image of a block, and of its outputs for a panel."""
        image = math.prod(s.room for s in sides_of(self.phases, blocks, False))
        channels = math.prod(c.size for c in self.channels)
        places = math.prod(extents_of(self.phases, [max(cut.size for cut in block) for block in blocks]))
        widest = 0 if self.direct else min(self.filters.size, self.most_vectors * self.machine.lanes(self.kind))
        return ITEM_BYTES[self.kind] * (image * channels + places * widest)

    def cost(self) -> float:
        """Cycles for an example."""
        copied = self.packed_size / math.prod(a.size for a in (*self.examples, self.example))
        return self.plan.cost + copied

    def fits(self) -> bool:
        """Whether the caches have room for the kernel, and for examples; a large one must be read for many outputs."""
        if self.by_panels:
            return True
        large = self.packed_size * ITEM_BYTES[self.kind] > KERNEL_BYTES
        few = large and self.held * self._places() < MANY_OUTPUTS // 2
        return not few and self.held * self._bytes(self.blocks) <= BLOCK_BYTES

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Loop over parts, whose kernels are copied, and examples, and the phases of each."""
        channels = (self.example._replace(size=self.held), *self.channels)
        self.image = Image(self.b, self.x, channels, self.conv.windows, self.phases, self.blocks, split=False)
        self.packed = self.b.scratch("packed", self.kind, self.packed_size)
        if not self.direct:
            widest = max(p.size for p in self.plan.panels)
            self.sums = self.b.scratch("sums", self.kind, self.held * self._places() * widest)
        over_axes(self.b, merged((*self.conv.parts, *self.more)), self._part)

    def _part(self, x: Index, w: Index, out: Index) -> None:
        windows, e = self.conv.windows, self.example
        kernel = Walk(self.w, w, (), [*(c.y for c in self.channels), *(abs(v.w) for v in windows)], self.filters.y)
        extents = [*(c.size for c in self.channels), *(v.kernel for v in windows)]
        pack_kernel(self.b, self.packed, kernel, extents, self.plan.panels)
        axes = merged((*self.examples, e._replace(size=e.size // self.held, x=e.x * self.held, out=e.out * self.held)))
        if self.is_cut:
            over_axes(self.b, axes, lambda dx, _, to: over_cuts(
                self.b, self.blocks, self._begin, lambda starts, sizes: self._block(x + dx, out + to, starts, sizes)))
        else:
            sizes = tuple(block[0].size for block in self.blocks)
            over_blocks(self.b, axes, self.jobs, self._begin,
                        lambda dx, _, to: self._block(x + dx, out + to, (), sizes))

    def _begin(self) -> None:
        self.image.clear()
        if not self.direct and not self.by_panels:
            self.b.fill(self.sums, self.sums.size)  # a job reads nothing that it has not written: it has its own

    def _block(self, x: Index, out: Index, starts: tuple[Index, ...], sizes: tuple[int, ...]) -> None:
        """The outputs of some examples, or of a block of one."""
        at, extents = self.image.read(x, starts), extents_of(self.phases, sizes)
        if self.pool is None:
            for t, axis, v in zip(starts, self.phases, self.conv.windows, strict=False):
                out = out + t * (axis[0].every * v.to)
        for k, panel in enumerate(self.plan.panels):
            with self.b.loop(panel.count) as i:
                first = i * panel.size + panel.start
                to = out + first * self.filters.out
                if not self.direct and self.by_panels:
                    self.b.fill(self.sums, self.sums.size)
                for unit in self.plan.units[sizes]:
                    self._unit(unit, unit.panels[k], first, at, to if self.direct else ZERO, extents)
                if self.pool is not None:
                    self._pool(self.pool, to, panel.size, starts, extents)
                else:
                    self._put(to, panel.size, extents)

    def _pool(
        self, pool: Pooled, to: Index, filters: int, starts: tuple[Index, ...], extents: list[int]
    ) -> None:
        """Pool the outputs of some examples for the filters of a panel."""
        steps, size = [filters * s for s in strides_of(extents)], filters * math.prod(extents)
        with self.b.loop(self.held) as e:
            block = self.block(pool, to + e * self.example.out, starts, extents, self.sums, e * size, steps)
            pool.by_filters(block, Span(self.filters.out, filters, 1))

    def _put(self, out: Index, filters: int, extents: list[int]) -> None:
        """Write the outputs of some examples for the filters of a panel, if they are not there, and end them."""
        windows, strides = self.conv.windows, strides_of(extents)
        if self.direct:
            *outer, run = merged([self.example._replace(size=self.held, x=0), *(
                Axis(n, 0, 0, v.to) for n, v in zip(extents, windows, strict=True))]) or (Axis(1),)
            if self.epilogue is not None:
                over_axes(self.b, outer, lambda _, at, to: self.end(out + to, filters, run))
            return
        axes = [Axis(self.held, 0, math.prod(extents), self.example.out),
                *(Axis(n, 0, s, v.to) for n, s, v in zip(extents, strides, windows, strict=True))]
        outer = list(merged(axes))
        run = outer.pop() if outer and outer[-1].out == 1 else Axis(1, 0, 1, 1)

        def put(_: Index, at: Index, to: Index) -> None:
            if filters == 1:
                self.b.copy(self.out, self.sums, run.size, out + to, at)
            else:
                self.b.transpose(self.out, out + to, self.sums, at * filters, run.size, filters, filters,
                                 self.filters.out)
            self.end(out + to, filters, run)

        over_axes(self.b, outer, put)

    def _unit(self, unit: Unit, panel: Panels, first: Index, at: Index, out: Index, extents: list[int]) -> None:
        """All outputs that units of one sort are, for the filters of a panel from `first` on.

        They go to the output from `out` on where filters are in order there; else to working space: those of an example
        in order, filters inside.
        """
        walk, group, phase, columns = self.image.walk(), self.plan.group, unit.phase, unit.columns
        strides = [panel.size * s for s in strides_of(extents)]
        each = panel.size * math.prod(extents)
        if self.direct:
            strides, each = [v.to for v in self.conv.windows], self.example.out
        to = [p.every * s for p, s in zip(phase, strides, strict=True)]
        start = sum(p.first * s for p, s in zip(phase, strides, strict=True))
        counts = [self.held // group, *(p.count for p in phase[:-2]), phase[-2].count // unit.rows, columns.count]
        steps = [group, *([1] * (len(phase) - 2)), unit.rows, columns.size]
        walk, to = [self.image.of_channels[0], *walk], [each, *to]
        axes = [Axis(n, k * s, 0, k * t) for n, k, s, t in zip(counts, steps, walk, to, strict=True)]
        places = list(itertools.product(range(group), range(unit.rows), range(columns.size)))
        reads = [e * walk[0] + r * walk[-2] + (columns.start + u) * walk[-1] for e, r, u in places]
        writes = [start + e * to[0] + r * to[-2] + (columns.start + u) * to[-1] for e, r, u in places]
        over_axes(self.b, [a for a in axes if a.size > 1],
                  lambda x, _, o: self._tiles(unit, panel, first, at + x, out + o, reads, writes))

    def _tiles(
        self, unit: Unit, panel: Panels, first: Index, at: Index, to: Index, reads: list[int], writes: list[int]
    ) -> None:
        """The tiles of one unit."""
        columns = [v * panel.width for v in range(panel.vectors)]
        kernel = first * (self.packed_size // self.filters.size)
        for start, size in ((c.start + k * c.size, c.size) for c in panel.rows for k in range(c.count)):
            extents, along_x, along_w, taps = self._steps(unit.phase, panel, size, unit.columns.size)
            left = Walk(self.image.buffer, at, reads[start : start + size], along_x)
            rows = [to + o for o in writes[start : start + size]]
            tile(self.b, panel.width, extents, left, Walk(self.packed, kernel, columns, along_w, 1),
                 store_tile(self.b, self.out if self.direct else self.sums, rows, columns, 1, False), taps,
                 unrolled=self.machine.cutting.unrolled)

    def _steps(self, phase: tuple[Phase, ...], panel: Panels, rows: int, columns: int):
        """The loops over channels and kernel axes: extents, steps in the image and in a panel; the taps written out."""
        sizes = [*(c.size for c in self.channels), *(v.kernel for v in self.conv.windows)]
        strides = [panel.size * n for n in strides_of(sizes)]
        n = len(self.channels)
        extents, along_x, along_w = sizes[:n], list(self.image.of_channels[1:]), strides[:n]
        axes = [tuple((v.kernel - 1 - k if v.w < 0 else k, s) for k, s in p.taps)
                for p, v in zip(phase, self.conv.windows, strict=True)]
        fits = self._is_written_out(phase, rows, panel.vectors, columns)
        written = self.machine.cutting.written_out(WRITTEN_OUT) if fits else 0
        for k, (x, w) in enumerate(zip(self.image.strides, strides[n:], strict=True)):
            if len(axes[k]) == 1 or math.prod(map(len, axes[k:])) * rows * panel.vectors <= written:
                continue
            (k0, s0), (k1, s1) = axes[k][:2]
            extents.append(len(axes[k]))
            along_x.append((s1 - s0) * x)
            along_w.append((k1 - k0) * w)
            axes[k] = axes[k][:1]
        taps = [(self.image.offset([s for _, s in tap]), sum(k * w for (k, _), w in zip(tap, strides[n:], strict=True)))
                for tap in itertools.product(*axes)]
        return extents, along_x, along_w, taps
