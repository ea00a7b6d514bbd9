# SPDX-License-Identifier: MIT
"""Convolutions with filters in the lanes: outputs are the rows of a tile.

Lanes are full whatever the size of an example, and strides cost nothing, as inputs are read one by one. The kernel is
copied into panels first, once for all examples. Examples, or blocks of their rows that fit a cache, are computed panel
after panel; the outputs for a panel are put in order after they are computed, which pays where each is a sum of many
terms; where filters are in order in the output they go there at once. They are put in order a few tiles at a time: so
many stores wait in the processor while the next tiles go on. While a tile adds up, it fetches the lines where its
outputs will be put, and its part of the next image.

Jobs that threads share are blocks of examples, and blocks of rows where examples are few; or where a large kernel meets
few outputs, its panels, each of which is read once for all examples.

Taps are written out where neighbouring outputs then share the numbers they read and all fits the registers: broadcasts
of numbers are most of what a tile loads.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Index
from functorch_lite.compiler.lowering.convolution_image import (
    FETCHED_BYTES,
    Image,
    Phase,
    Way,
    divisor,
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
from functorch_lite.compiler.lowering.tiles import Cut, Fetched, Panels, Walk, cuts, most_rows, store_tile, tile

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
PIECE_BYTES = 4 << 10  # of outputs that are put in order at once: so many stores wait in a processor
BOX_BYTES = 16 << 10  # of them where an epilogue goes over them: part of a first-level cache
LEAST_RUN = 16  # outputs side by side that are put in order at once: a vector


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


class Piece(NamedTuple):
    """Outputs that are put in order together: `extents` of them along the axes, `counts` times, from a column on."""

    units: list[Unit]
    extents: list[int]
    counts: list[int]
    column: int


@functools.cache
def numbers_of(axis: Phase, columns: int) -> int:
    """How many numbers of a row of the image so many neighbouring outputs meet."""
    return len({t * axis.step + s for t in range(columns) for _, s in axis.taps})


class Here(NamedTuple):
    """Where some outputs are: in the image, where tiles leave them, in the output.

    to: in working space, or in the output where filters are in order. x: where their numbers of the next image are.
    """

    image: Index
    to: Index
    out: Index
    x: Index

    def moved(self, places: Sequence[Index | int], strides: Sequence[Sequence[int]]) -> "Here":
        """So many outputs further along each axis; strides: those of each field."""
        return Here(*(at + _sum(p * s for p, s in zip(places, along, strict=True))
                      for at, along in zip(self, strides, strict=True)))


def _sum(places: Iterable[Index | int]) -> Index:
    total = ZERO
    for place in places:
        total = total + place
    return total


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
        self.by_pieces = False
        self.by_panels = self._is_by_panels()
        one = all(len(axis) == 1 for axis in self.phases)
        self.by_pieces = one and not self.direct and not self.by_panels and self.pool is None
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

    def _is_all_written_out(self) -> bool:
        """Whether all taps of a channel are written out in each tile, which then goes from channel to channel."""
        tiles = [(u, p, c) for units in self.plan.units.values() for u in units for p in u.panels for c in p.rows]
        return all(math.prod(len(axis.taps) for axis in u.phase) * c.size * p.vectors <= WRITTEN_OUT
                   and self._is_written_out(u.phase, c.size, p.vectors, u.columns.size) for u, p, c in tiles)

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
        extents = extents_of(self.phases, [max(cut.size for cut in block) for block in blocks])
        places = max(extents[-1], MOST_ROWS) if self.by_pieces else math.prod(extents)
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
        self.image = Image(self.b, self.x, channels, self.conv.windows, self.phases, self.blocks, split=False,
                           rows_outside=self._is_all_written_out())
        self.packed = self.b.scratch("packed", self.kind, self.packed_size)
        if not self.direct:
            self.sums = self.b.scratch("sums", self.kind, self.held * self._most_sums())
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
        extents, following = extents_of(self.phases, sizes), self._following(x, starts, sizes)
        at = self.image.read(x, starts)
        if self.pool is None:
            for t, axis, v in zip(starts, self.phases, self.conv.windows, strict=False):
                out = out + t * (axis[0].every * v.to)
        for k, panel in enumerate(self.plan.panels):
            with self.b.loop(panel.count) as i:
                first = i * panel.size + panel.start
                to = out + first * self.filters.out
                here = Here(at, to if self.direct else ZERO, to, following)
                if self.by_pieces:
                    self._by_pieces(self._pieces(self.plan.units[sizes], k), k, panel, first, here)
                    continue
                if not self.direct and self.by_panels:
                    self.b.fill(self.sums, self.sums.size)
                for unit in self.plan.units[sizes]:
                    self._unit(unit, unit.panels[k], first, here, extents)
                if self.pool is not None:
                    self._pool(self.pool, to, panel.size, starts, extents)
                else:
                    self._put(to, panel.size, extents)

    def _following(self, x: Index, starts: tuple[Index, ...], sizes: tuple[int, ...]) -> Index:
        """Where in x the first output of the next block is: along the last axis that is cut, or in the next example."""
        b, example = self.b, self.example.x * self.held
        axis = max((k for k, block in enumerate(self.blocks) if sum(c.count for c in block) > 1), default=None)
        steps = [step * v.x for step, v in zip(self.image.steps, self.conv.windows, strict=True)]
        if axis is None or not starts or not self.by_pieces:
            return x + example
        x += _sum(t * step for k, (t, step) in enumerate(zip(starts, steps, strict=True)) if k != axis)
        after = starts[axis] + sizes[axis]
        is_last = b.op("ge", b.value_of(after), b.constant(self.phases[axis][0].count, "i64"))
        return x + b.index_of(b.op("select", is_last, b.constant(example, "i64"), b.value_of(after * steps[axis])))

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

    def _pieces(self, units: Sequence[Unit], k: int) -> list[Piece]:
        """The pieces of a block for the filters of panel k: rows, or where they are long, tiles side by side."""
        rows, columns = (p.count for p in units[0].phase[-2:])
        first, filters = units[0].rows, units[0].panels[k].size
        most = (PIECE_BYTES if self.epilogue is None else BOX_BYTES) // (self.held * filters * ITEM_BYTES[self.kind])
        if first * columns <= max(2 * most, LEAST_RUN):
            return [self._piece(units, first * divisor(rows // first, most // (first * columns)), Cut(0, 1, columns))]
        found = []
        for unit in units:
            cut = unit.columns
            tiles = max(divisor(cut.count, most // (first * cut.size)), -(-LEAST_RUN // cut.size))
            tiles = next((n for n in range(tiles, cut.count) if cut.count % n == 0), cut.count)
            small = unit._replace(columns=Cut(0, tiles, cut.size))
            found.append(self._piece([small], first, Cut(cut.start, cut.count // tiles, tiles * cut.size)))
        return found

    def _piece(self, units: Sequence[Unit], rows: int, columns: Cut) -> Piece:
        """Pieces of so many rows, and of cuts of the columns."""
        phase = units[0].phase
        extents = [*(1 for _ in phase[:-2]), rows, columns.size]
        small = tuple(p._replace(count=n) for p, n in zip(phase, extents, strict=True))
        counts = [*(p.count for p in phase[:-2]), phase[-2].count // rows, columns.count]
        return Piece([u._replace(phase=small) for u in units], extents, counts, columns.start)

    def _most_sums(self) -> int:
        """The numbers in working space at once, of an example."""
        panels, units = self.plan.panels, self.plan.units.values()
        if not self.by_pieces:
            return self._places() * max(p.size for p in panels)
        return max(math.prod(piece.extents) * p.size for some in units for k, p in enumerate(panels)
                   for piece in self._pieces(some, k))

    def _by_pieces(self, pieces: Sequence[Piece], k: int, panel: Panels, first: Index, here: Here) -> None:
        """Compute pieces for the filters of panel k from `first` on, and put each in order."""
        for p in pieces:
            walk, _, *others = (s[1:] for s in self._walks(p.extents, panel.size))

            def piece(places: tuple[Index, ...], p=p, walk=walk, others=others) -> None:
                *outer, column = (t * n for t, n in zip(places, p.extents, strict=True))
                there = here.moved([*outer, column + p.column], [walk, [0] * len(walk), *others])
                for unit in p.units:
                    self._unit(unit, unit.panels[k], first, there, p.extents)
                self._put(there.out, panel.size, p.extents)

            self._over(p.counts, piece)

    def _over(self, counts: Sequence[int], body: Callable[[tuple[Index, ...]], None]) -> None:
        """Run the body at every point of some axes."""
        def nest(places: tuple[Index, ...]) -> None:
            if len(places) == len(counts):
                body(places)
            elif counts[len(places)] == 1:
                nest((*places, ZERO))
            else:
                with self.b.loop(counts[len(places)]) as i:
                    nest((*places, i))

        nest(())

    def _walks(self, extents: list[int], filters: int) -> list[list[int]]:
        """From one output to the next along the axes, examples first: of the places that `Here` tells, in its order.

        In working space those of an example are in order, filters inside.
        """
        e, windows = self.example, self.conv.windows
        out = [e.out, *(p[0].every * v.to for p, v in zip(self.phases, windows, strict=True))]
        sums = [filters * math.prod(extents), *(filters * s * p[0].every for s, p in zip(
            strides_of(extents), self.phases, strict=True))]
        x = [e.x, *(step * v.x for step, v in zip(self.image.steps, windows, strict=True))]
        return [[self.image.of_channels[0], *self.image.walk()], out if self.direct else sums, out, x]

    def _unit(self, unit: Unit, panel: Panels, first: Index, here: Here, extents: list[int]) -> None:
        """All outputs that units of one sort are, for the filters of a panel from `first` on.

        They go to the output where filters are in order there; else to working space.
        """
        group, phase, columns = self.plan.group, unit.phase, unit.columns
        strides = self._walks(extents, panel.size)
        start = sum(p.first * (s // p.every) for p, s in zip(phase, strides[1][1:], strict=True))
        counts = [self.held // group, *(p.count for p in phase[:-2]), phase[-2].count // unit.rows, columns.count]
        steps = [group, *([1] * (len(phase) - 2)), unit.rows, columns.size]
        lead = [0] * (len(phase) - 2)
        outputs = [Here(ZERO, ZERO + start, ZERO, ZERO).moved([e, *lead, r, columns.start + u], strides)
                   for e, r, u in itertools.product(range(group), range(unit.rows), range(columns.size))]
        self._over(counts, lambda found: self._tiles(
            unit, panel, first, here.moved([t * n for t, n in zip(found, steps, strict=True)], strides), outputs))

    def _tiles(self, unit: Unit, panel: Panels, first: Index, here: Here, outputs: list[Here]) -> None:
        """The tiles of one unit. outputs: where they are from its first on."""
        columns = [v * panel.width for v in range(panel.vectors)]
        kernel = first * (self.packed_size // self.filters.size)
        for start, size in ((c.start + k * c.size, c.size) for c in panel.rows for k in range(c.count)):
            extents, along_x, along_w, taps = self._steps(unit.phase, panel, size, unit.columns.size)
            some = outputs[start : start + size]
            fetched = self._fetched(here.out + some[0].out, here.x + some[0].x, panel.size)
            if fetched:  # in some steps, each of some channels
                each = self.channels[0].size // self._steps_of_fetching(panel.size)
                extents[:1] = extents[0] // each, each
                along_x[:1], along_w[:1] = (along_x[0] * each, along_x[0]), (along_w[0] * each, along_w[0])
            left = Walk(self.image.buffer, here.image, [o.image.constant for o in some], along_x)
            rows = [here.to + o.to for o in some]
            tile(self.b, panel.width, extents, left, Walk(self.packed, kernel, columns, along_w, 1),
                 store_tile(self.b, self.out if self.direct else self.sums, rows, columns, 1, False), taps,
                 unrolled=self.machine.cutting.unrolled, fetched=fetched)

    def _steps_of_fetching(self, filters: int) -> int:
        """Steps of the channels of a tile in which it fetches: about as many as it has filters."""
        return divisor(self.channels[0].size, filters)

    def _fetched(self, out: Index, x: Index, filters: int) -> list[Fetched]:
        """What a tile fetches while channels go by: where its outputs will be put, and its part of the next image."""
        if not self.by_pieces or self.machine.cutting.looped or not self.channels:
            return []
        channel, steps = self.channels[0], self._steps_of_fetching(filters)
        each, more = channel.size // steps, -(-filters // steps)
        found = []
        if self.out.nbytes > FETCHED_BYTES:
            step = self.filters.out
            found.append(Fetched(self.out, out, step, [k * steps * step for k in range(more)]))
        if self.x.nbytes > FETCHED_BYTES:
            found.append(Fetched(self.x, x, each * channel.x, [k * channel.x for k in range(each)]))
        return found

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
