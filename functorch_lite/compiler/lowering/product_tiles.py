# SPDX-License-Identifier: MIT
"""One matrix product as register tiles, and the axes of products.

An axis has a stride in each operand and in the output, so operands are read as they lie in memory. The product is cut
into jobs that need nothing of one another, so that threads can share them: blocks of columns, each with the whole of k
and with panels of its own, or where columns are few, tiles of rows. A job goes through k in blocks, so that a tile's
rows stay in the first-level cache and the panels of a block in the second; later blocks add to what earlier ones
stored. Many rows go by whole if all panels fit the second-level cache: then what is written is in order.

A left operand is read as it lies, but for a large one that is transposed. That is copied first: tile after tile, in
each k after k, its rows side by side. So a tile is read in order, and while it meets its panels the next one is fetched
into the cache. Of a smaller one that is transposed, a tile's numbers for each k are in a line or two, which are fetched
some k before: no thread waits for another's copy. Nor of panels, where columns are few: jobs are alike, each with its
own panels, and columns that are left over are a job for each half of the rows.

An epilogue (`lowering/epilogue.py`) goes over the values of a job, or of some rows of it, as soon as they are complete;
until then they are in working space, if that is small.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import LOCAL_BYTES, Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.epilogue import Epilogue, Span
from functorch_lite.compiler.lowering.inner_products import inner_products
from functorch_lite.compiler.lowering.product_operands import Left, Sums, Turn, fetched_sums, in_parts
from functorch_lite.compiler.lowering.tiles import (
    LINE_BYTES,
    Ahead,
    Cut,
    Machine,
    Panels,
    Walk,
    alike_cuts,
    cuts,
    even_cuts,
    lines,
    over,
    pack,
    packed_walk,
    panels_of,
    store_tile,
    tile,
)
from functorch_lite.compiler.schedule.epilogues import DEPTH, LARGE_REDUCED, MANY_ROWS, PACKED_BYTES

DEPTH_BYTES = 4 * DEPTH  # of a row in one block of k
DEEP_BYTES = 4 << 10  # the same of large products: the output is read again less often
DEEP_PACKED_BYTES = 512 << 10  # their panels of a block: half of a second-level cache
DIRECT_BYTES = 64 << 10  # of a right operand that is read where it is; half of it
SOME_ROWS = 128  # where more rows are served, or its rows lie an even number of cache lines apart, and meet in a cache
JOBS = 8  # blocks of columns at least, where there are enough columns, and no loop of so many around
LEAST_VECTORS = 2  # of columns in a block: a panel
FEW_VECTORS = 32  # of columns of a product that is light, or that has no good divisor of them
OFTEN_BYTES = 640 << 10  # of a left operand: part of a second-level cache
LIGHT = 1 << 25  # products: no more are half as many jobs, of panels twice as wide
MOST_VECTORS = 32  # so that what is written is in order for half a page
STREAMS = 16  # rows of y that are read side by side, at least
FEW_ROWS = 32
FEWER_ROWS = 16  # where those of y lie pages apart, or meet in few places of a cache
ONE_TILE = 8  # rows: a panel would be read once
INNER_ROWS = 24
FAR_BYTES = 512  # from one number of a row of x to the next: they meet in parts of the first-level cache
STEPS_AHEAD = 4  # of k: so much before such numbers are needed they are fetched
PAGE_BYTES = 4 << 10
MEETING_BYTES = 1 << 10  # a multiple of it between rows of y: a few of them fill their places of a cache
ORDERED_BYTES = 16 << 20  # of rows of x that are copied at a time
ORDERED_ROWS = 256  # at least
LARGE_SERVED = 256  # columns for each of which all of x is read
SIDE_BY_SIDE = 8  # steps of k that are copied at a time from rows that lie side by side
FIRST_LEVEL_BYTES = 32 << 10  # of a cache: wider panels do not stay in it
BOX_BYTES = 16 << 10  # of values that an epilogue goes over at once: part of a first-level cache
SUMS_BYTES = 128 << 10  # of values at once that have working space of their own: part of a second-level cache
PAD = 16  # elements between copied rows
LONG = 1 << 23  # products of one tile's code in a job: so many are worth four steps of k written out
SHORT_LONG = range(1 << 22, 1 << 25)  # in short code, of which there is little: where LLVM's lowest level makes it


class Axis(NamedTuple):
    """An axis of a product: its size, and its strides in x, y and the output (0 where it is not)."""

    size: int
    x: int = 0
    y: int = 0
    out: int = 0


ONE = Axis(1)


def merged(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """The axes in order of their strides, with those that are walked as one made one."""
    found: list[Axis] = []
    for a in sorted((a for a in axes if a.size != 1), key=lambda a: (-a.out, -a.y, -a.x)):
        last = found[-1] if found else None
        if last is not None and tuple(last[1:]) == tuple(s * a.size for s in a[1:]):
            found[-1] = Axis(last.size * a.size, *a[1:])
        else:
            found.append(a)
    return tuple(found)


def over_axes(b: Builder, axes: Sequence[Axis], body: Callable[[Index, Index, Index], None]) -> None:
    """Run the body with the positions in x, y and the output at every point of the axes."""

    def nest(level: int, x: Index, y: Index, out: Index) -> None:
        if level == len(axes):
            body(x, y, out)
            return
        a = axes[level]
        with b.loop(a.size) as i:
            nest(level + 1, x + i * a.x, y + i * a.y, out + i * a.out)

    nest(0, ZERO, ZERO, ZERO)


@dataclass
class Matrix:
    """Writes one matrix product: an axis of rows, one of columns, and contracted ones.

    around: iterations of the outermost loop around it; where there are many, threads share that one. parts: 2 of
    complex numbers, whose parts lie side by side; strides are those of real ones.
    """

    b: Builder
    machine: Machine
    x: Buffer
    y: Buffer
    out: Buffer | None
    rows: Axis
    columns: Axis
    contracted: tuple[Axis, ...]
    around: int = 1
    parts: int = 1

    @property
    def kind(self) -> str:
        """The kind of all numbers, or of their parts."""
        return self.x.kind

    @property
    def item(self) -> int:
        """The bytes of a number."""
        return ITEM_BYTES[self.kind] * self.parts

    def __post_init__(self):
        """Choose how to compute it."""
        n = self.columns.size
        self.depth = math.prod(a.size for a in self.contracted)
        self.inner = self._is_inner()
        outermost, *others = (a.size for a in self.contracted)  # of which blocks have some, and of others all
        whole = self.inner or (others and self._is_streamed())
        most = outermost if whole else max(self._most_depth() // math.prod(others), 1)
        self.blocks = even_cuts(outermost, most)
        self.deepest = max(c.size for c in self.blocks) * math.prod(others)
        packs = not self.inner and self._is_packed()
        self.left_over: Cut | None = None  # columns that are a job for each half of the rows
        self.jobs = [Cut(0, 1, n)] if self.inner else self._jobs(packs)
        widest = max(c.size for c in self.jobs)
        self.packed = self.b.scratch("packed", self.kind, self.deepest * widest * self.parts) if packs else None
        self.row_blocks = [Cut(0, 1, self.rows.size)]
        self.ordered: Buffer | None = None
        if not self.inner and self._is_ordered():
            self.row_blocks = even_cuts(self.rows.size, max(ORDERED_BYTES // (self.depth * self.item), ORDERED_ROWS))
            most = max(c.size for c in self.row_blocks)
            self.ordered = self.b.scratch("ordered", self.kind, most * self._step_of_ordered())
        self.fetches = self.ordered is None and self._is_far() and not self.machine.cutting.short
        self.epilogue: Epilogue | None = None
        self.places = 0  # of sums in working space
        self.room = 0  # elements of a place, at least

    def _is_inner(self) -> bool:
        """Whether k goes in the lanes."""
        first, *others = self.contracted
        if others or not first.x == first.y == self.parts or self.columns.y == self.parts:
            return False
        lanes = self.machine.lanes(self.kind)
        most = INNER_ROWS if self.parts == 1 else ONE_TILE
        return self.rows.size == self.columns.size == 1 or (self.rows.size <= most and self.depth >= lanes)

    def _is_packed(self) -> bool:
        """Whether y's columns are copied: they serve many rows, and are out of order, or more than a cache holds."""
        if self.columns.y != 1:
            return self.rows.size > ONE_TILE
        return not self._is_few() and not self._is_direct()

    def _is_few(self) -> bool:
        """Whether x has few rows for y's columns to serve: y is read where it is."""
        apart = self._step_of_right() >= PAGE_BYTES or self._right_meets(MEETING_BYTES)
        return self.rows.size <= (FEWER_ROWS if apart else FEW_ROWS)

    def _step_of_right(self) -> int:
        """The bytes from one row of y to the next."""
        return self.contracted[-1].y * ITEM_BYTES[self.kind]

    def _right_meets(self, size: int) -> bool:
        """Whether the rows of y lie a multiple of so many bytes apart."""
        return self._step_of_right() > 0 and self._step_of_right() % size == 0

    def _is_direct(self) -> bool:
        """Whether y is small enough to be read where it is: it stays in the first-level cache, or may nearly."""
        return self._right_bytes() <= self._direct_bytes() * self.machine.cutting.direct

    def _direct_bytes(self) -> int:
        most = FEW_ROWS if self._right_meets(2 * LINE_BYTES) else SOME_ROWS
        return DIRECT_BYTES // 2 if self.rows.size > most else DIRECT_BYTES

    def _is_streamed(self) -> bool:
        """Whether few rows meet a large y, which is read as it lies: row by row, through whole blocks of columns."""
        return self._is_few() and self.columns.y == 1 and self._right_bytes() > DIRECT_BYTES

    def _most_depth(self) -> int:
        """Of a block of k. Where y is streamed, the more often the output is read again the more rows it has."""
        if self._is_streamed():
            return max(STREAMS, min(STREAMS * self.rows.size // 4, 4 * STREAMS))
        return (DEEP_BYTES if self._is_large() else DEPTH_BYTES) // self.item

    def _right_bytes(self) -> int:
        return self.depth * self.columns.size * self.item

    def _is_far(self) -> bool:
        """Whether the rows of x are its fastest axis, and too far apart along k for the first-level cache."""
        first, *others = self.contracted
        return not others and self.rows.x == self.parts and first.x * ITEM_BYTES[self.kind] >= FAR_BYTES

    def _is_ordered(self) -> bool:
        """Whether x is copied first."""
        return self.rows.x == self.parts and self._is_large()

    def _is_large(self) -> bool:
        """Whether all of x is read again and again from beyond the second-level cache."""
        first, *others = self.contracted
        if others or self.parts not in (self.rows.x, first.x) or self.columns.size < LARGE_SERVED:
            return False
        return self.rows.size > FEW_ROWS and self.rows.size * self.depth * self.item > PACKED_BYTES

    def _in_tiles(self) -> bool:
        """Whether rows of x are copied in tiles."""
        return self.ordered is not None

    def _step_of_ordered(self) -> int:
        return self.depth * self.parts

    def _jobs(self, packs: bool) -> list[Cut]:
        """The columns of each job: whole vectors, and in a job of its own what is left."""
        n, lanes = self.columns.size, self.machine.lanes(self.kind)
        vectors, rest = divmod(n, lanes)
        most = DEEP_PACKED_BYTES if self._is_large() else PACKED_BYTES
        room = most // (self.deepest * self.item * lanes)
        light = self.rows.size * n * self.depth <= LIGHT
        jobs, least = (JOBS // 2, 2 * LEAST_VECTORS) if light else (JOBS, LEAST_VECTORS)
        jobs = 1 if self.around >= JOBS else self.machine.cutting.wanted(jobs)
        wanted = min(max(vectors // jobs, least), 2 * MOST_VECTORS if self._is_streamed() else MOST_VECTORS,
                     max(room, 1))
        if not packs and (not self._is_few() or self._is_direct()):
            return [Cut(0, 1, n)]
        few = vectors < jobs * least
        some = packs and (few or (vectors < FEW_VECTORS and (light or vectors % 2 == 1)))
        alike = self._alike(vectors, room) if some else []
        if not alike and (few or self.rows.size >= MANY_ROWS) and vectors <= max(room, 1):
            return [Cut(0, 1, n)]
        found = [Cut(c.start * lanes, c.count, c.size * lanes) for c in alike or even_cuts(vectors, wanted)]
        if alike and found[-1].count == 1:
            self.left_over = found[-1] = found[-1]._replace(size=found[-1].size + rest)
        elif rest:
            found.append(Cut(vectors * lanes, 1, rest))
        return found

    def _alike(self, vectors: int, room: int) -> list[Cut]:
        """Few vectors of columns in jobs that are alike, each with panels of its own, and one of what is left; or none.

        Panels that one thread copies and others read cross caches in each call: half of the time of a product of 128.
        """
        if self.rows.size * self.columns.size >= LARGE_REDUCED or self.around > 1 or not self._may_be_read_often():
            return []
        deep = 2 * LEAST_VECTORS * self.deepest * self.item * self.machine.lanes(self.kind) > FIRST_LEVEL_BYTES
        numbers = (*((JOBS,) if deep else ()), JOBS // 2, 6, 2)
        return alike_cuts(vectors, [k for k in numbers if LEAST_VECTORS <= vectors // k <= room])

    def _may_be_read_often(self) -> bool:
        """Whether each of several jobs finds all of x in a cache."""
        return self.rows.size * self.depth * self.item <= OFTEN_BYTES

    def write(self, x: Index, y: Index, out: Index) -> None:
        """Write the product with the matrices at these positions."""
        if self.inner:
            sums = self._sums(out, self.rows.size, self.columns.size)
            self._inner(x, y, sums)
            self._end(out, self.rows.size, self.columns.size, sums)
            return
        for rows in self.row_blocks:
            over(self.b, rows, lambda r, rows=rows: self._rows(rows.size, r, x, y, out))

    # --- columns in the lanes -----------------------------------------------------------------------------------------

    def _rows(self, rows: int, r: Index, x: Index, y: Index, out: Index) -> None:
        """All of a block of rows from r on."""
        at = x + r * self.rows.x
        left = Left(self.x, at, [a.x for a in self.contracted], self.rows.x, parts=self.parts)
        if self.ordered is not None:
            self._order(self.ordered, rows, at)
            left = Left(self.ordered, ZERO, [1], self._step_of_ordered(), self._in_tiles(), parts=self.parts)
        out += r * self.rows.out
        for job in self.jobs:
            if job is self.left_over and rows % 2 == 0 and self.ordered is None:
                over(self.b, Cut(0, 2, rows // 2), lambda h, job=job: self._job(
                    job, rows // 2, ZERO + job.start, left.from_row(h), y, out + h * self.rows.out))
            else:
                over(self.b, job, lambda c, job=job: self._job(job, rows, c, left, y, out))

    def _order(self, ordered: Buffer, rows: int, at: Index) -> None:
        """Copy rows of x, which lie side by side: tile after tile, in each k after k, its rows.

        All tiles for some k, so that memory is read in order.
        """
        along, parts = self.contracted[0].x, self.parts
        for cut, some in itertools.product(self._tiles_of(rows), cuts(self.depth, SIDE_BY_SIDE)):
            with self.b.loop(some.count) as i, self.b.loop(cut.count) as t, self.b.loop(some.size) as j:
                k, row = i * some.size + some.start + j, t * cut.size + cut.start
                self.b.copy(ordered, self.x, cut.size * parts, row * (self.depth * parts) + k * (cut.size * parts),
                            at + k * along + row * parts)

    def _tiles_of(self, rows: int) -> list[Cut]:
        """The rows of all tiles: what those over the widest panels have room for."""
        found = [p for job in self.jobs for p in panels_of(rows, job.size, self.kind, self.machine, self.parts)]
        return max(found, key=lambda p: p.vectors).rows

    def _job(self, job: Cut, rows: int, c: Index, left: Left, y: Index, out: Index) -> None:
        """All of a block of columns from c on."""
        panels = self._panels(rows, job.size)
        right = Walk(self.y, y + c * self.columns.y, (), [a.y for a in self.contracted], self.columns.y)
        out += c * self.columns.out
        sums = None if self._is_in_boxes(rows, job.size) else self._sums(out, rows, job.size)
        if sums is not None and self.out is None and self._blocks_of_k() > 1:
            self.b.fill(sums.buffer, rows * job.size)
        for block in self.blocks:
            over(self.b, block, lambda k, block=block: self._block(
                panels, rows, block, k, left, right, job.size, out, sums))
        if sums is not None:
            self._end(out, rows, job.size, sums)

    def _block(
        self, panels: list[Panels], rows: int, block: Cut, k: Index, left: Left, right: Walk, columns: int, out: Index,
        sums: Sums | None,
    ) -> None:
        """What the elements of a block from k on add to it. No sums: an epilogue goes over some rows at once."""
        extents = [block.size, *(a.size for a in self.contracted[1:])]
        left = left.from_k(k)
        right = right._replace(at=right.at + k * right.along[0])
        if self.packed is not None:
            self._pack(right, extents, panels)
        add = self._blocks_of_k() > 1 if self.out is None else self._added(k)
        self._tiles_of_rows(panels, rows, extents, left, right, columns, out, sums, add)

    def _pack(self, right: Walk, extents: Sequence[int], panels: Sequence[Panels]) -> None:
        """Copy columns of y into panels."""
        assert self.packed is not None
        pack(self.b, self.packed, right, extents, panels)

    def _tiles_of_rows(
        self, panels: list[Panels], rows: int, extents: Sequence[int], left: Left, right: Walk, columns: int,
        out: Index, sums: Sums | None, add: bool | Value,
    ) -> None:
        """All tiles of some rows over some panels."""
        if sums is not None and left.in_tiles:
            for cut in panels[0].rows:
                over(self.b, cut, lambda row, cut=cut: self._over_panels(
                    panels, Cut(0, 1, cut.size), extents, left.from_row(row), right,
                    sums._replace(at=sums.at + row * sums.row), add))
            return
        if sums is not None:
            for p in panels:
                self._tiles(p, p.rows, extents, left, right, sums, add)
            return
        for cut in panels[0].rows:
            tiles = self._tiles_of_a_box(cut, columns)
            over(self.b, Cut(cut.start, cut.count // tiles, cut.size * tiles), lambda row, cut=cut, tiles=tiles:
                 self._rows_of_a_box(panels, Cut(0, tiles, cut.size), row, extents, left, right, columns, out, add))

    def _rows_of_a_box(
        self, panels: list[Panels], cut: Cut, row: Index, extents: Sequence[int], left: Left, right: Walk,
        columns: int, out: Index, add: bool | Value,
    ) -> None:
        """All tiles of some rows, and the epilogue over them."""
        out += row * self.rows.out
        left = left.from_row(row)
        rows = cut.count * cut.size
        sums = self._sums(out, rows, columns)
        self._over_panels(panels, cut, extents, left, right, sums, add)
        self._end(out, rows, columns, sums)

    def _over_panels(
        self, panels: list[Panels], cut: Cut, extents: Sequence[int], left: Left, right: Walk, sums: Sums,
        add: bool | Value,
    ) -> None:
        """The tiles of a cut of rows over all panels."""
        done, count = 0, sum(p.count for p in panels)
        for p in panels:
            self._tiles(p, [cut], extents, left, right, sums, add, Turn(done, count))
            done += p.count

    # --- epilogues ----------------------------------------------------------------------------------------------------

    def end_with(self, epilogue: Epilogue, outer: Sequence[Axis]) -> None:
        """Have an epilogue go over the values, if it can; outer: the axes of loops around the product."""
        one = not self.inner and sum(c.count for c in self.jobs) == 1
        meets = epilogue.adds and (self.inner or outer or one)
        lacks = epilogue.whole_rows and not (one and self.columns.size == epilogue.row_size)
        if not meets and not lacks and epilogue.fits([a.out for a in (*outer, self.rows, self.columns) if a.size > 1]):
            self.epilogue = epilogue
        room = self._room_of_sums() if self.epilogue is not None and not epilogue.holds_sums() else 0
        in_arena = self.machine.cutting.short and room * ITEM_BYTES[self.kind] > LOCAL_BYTES
        self.room = 2 * room if in_arena else 0  # as the usual cut of rows may need, of two sizes
        if room == 0 or room * ITEM_BYTES[self.kind] > SUMS_BYTES:
            self.out = epilogue.sums

    def _room_of_sums(self) -> int:
        """The elements of the largest block of values that an epilogue goes over at once, if rows are cut as usual."""
        if self.inner:
            return 0
        machine = self.machine
        self.machine = machine._replace(cutting=machine.cutting._replace(short=False))
        room = max(self._rows_at_once(r.size, c.size) * c.size for r in self.row_blocks for c in self.jobs)
        self.machine = machine
        return room

    def _rows_at_once(self, rows: int, columns: int) -> int:
        if not self._is_in_boxes(rows, columns):
            return rows
        return max(c.size * self._tiles_of_a_box(c, columns) for c in self._panels(rows, columns)[0].rows)

    def _is_in_boxes(self, rows: int, columns: int) -> bool:
        """Whether an epilogue goes over some rows right after their tiles, and not over all in the end."""
        small = rows * columns * ITEM_BYTES[self.kind] <= BOX_BYTES
        return self.epilogue is not None and not small and self._blocks_of_k() == 1

    def _blocks_of_k(self) -> int:
        return sum(c.count for c in self.blocks)

    def _tiles_of_a_box(self, cut: Cut, columns: int) -> int:
        """How many tiles of rows an epilogue goes over at once."""
        most = max(BOX_BYTES // (cut.size * columns * ITEM_BYTES[self.kind]), 1)
        return max(m for m in range(1, min(cut.count, most) + 1) if cut.count % m == 0)

    def _panels(self, rows: int, columns: int) -> list[Panels]:
        """The panels of a block of columns; for an epilogue all with the same tiles of rows."""
        found = panels_of(rows, columns, self.kind, self.machine, self.parts)
        if self._in_tiles():
            return [p._replace(rows=self._tiles_of(rows)) for p in found]
        if self._is_in_boxes(rows, columns):
            widest = max(found, key=lambda p: p.vectors)
            return [p._replace(rows=widest.rows) for p in found]
        return found

    def _sums(self, out: Index, rows: int, columns: int) -> Sums:
        """Where the sums of a block go, which is at a place of the output."""
        if self.out is None:
            self.places += 1
            name = f"sums{self.places}"
            return Sums(self.b.workspace(name, self.kind, max(rows * columns, self.room)), ZERO, columns, 1)
        return Sums(self.out, out, self.rows.out, self.columns.out)

    def _end(self, out: Index, rows: int, columns: int, sums: Sums) -> None:
        """Have the epilogue go over a block of complete values."""
        if self.epilogue is not None:
            axes = [Span(self.rows.out, rows, sums.row), Span(self.columns.out, columns, sums.column)]
            self.epilogue.box(out, [a for a in axes if a.count > 1], sums.buffer, sums.at)

    # --- tiles --------------------------------------------------------------------------------------------------------

    def _added(self, k: Index) -> bool | Value:
        """Whether the sums of the block from k on are added to what is there."""
        if not k.terms:
            return k.constant > 0
        return self.b.op("ne", self.b.value_of(k), self.b.constant(0, "i64"))

    def _tiles(
        self, p: Panels, cuts: Sequence[Cut], extents: Sequence[int], left: Left, right: Walk, sums: Sums,
        add: bool | Value, turn: Turn | None = None,
    ) -> None:
        """All tiles over some panels: a tile's rows stay in the first-level cache while the panels pass, or they do."""
        few = self._is_few()
        for cut in cuts:
            loops = [self.b.loop(p.count), self.b.loop(cut.count)]
            with loops[not few] as first, loops[few] as second:
                i, t = (first, second) if few else (second, first)
                row = t * cut.size + cut.start
                a = left.from_row(row).tile(cut.size)
                rows = sum(c.count * c.size for c in p.rows if c.size == cut.size)
                many, short = rows * p.count * p.size * self.depth, self.machine.cutting.short
                steps = 4 if (many in SHORT_LONG if short else many * self.around >= LONG) else 1
                ahead = self._next_rows(a, cut.size) if self.fetches else None
                if turn is not None and left.in_tiles:
                    ahead = self._ahead(left, a, cut.size, turn, i)
                self._tile(p, extents, a, right, i, row, sums, add, steps, ahead)

    def _tile(
        self, p: Panels, extents: Sequence[int], a: Walk, right: Walk, i: Index, row: Index, sums: Sums,
        add: bool | Value, steps: int, ahead: Ahead | None,
    ) -> None:
        first = i * p.size + p.start
        at = sums.at + first * sums.column + row * sums.row
        rows = [at + r * sums.row for r in range(len(a.offsets))]
        columns = [v * p.width * sums.column + part for v in range(p.vectors) for part in range(self.parts)]
        if add is not False and steps > 1 and sums.column == self.parts:  # what is added to is fetched while k goes by
            for r in rows:
                for o in lines(p.step, self.kind):
                    self.b.prefetch(sums.buffer, r + o, near=True)
        fetched = []
        if self._may_fetch(sums, add) and ahead is None:
            fetched = fetched_sums(sums, at, len(a.offsets), p, self.depth)
        if fetched:
            a, extents = in_parts(a, extents, p.vectors)
        tile(self.b, p.width, extents, a, self._panel(p, extents, right, first),
             store_tile(self.b, sums.buffer, rows, columns, sums.column, add), steps=steps, ahead=ahead,
             unrolled=self.machine.cutting.unrolled, fetched=fetched)

    def _may_fetch(self, sums: Sums, add: bool | Value) -> bool:
        """Whether tiles store complete sums in the output, and read panels."""
        complete = len(self.contracted) == 1 and add is False
        return complete and self.packed is not None and sums.buffer is self.out and not self.machine.cutting.short

    def _ahead(self, left: Left, a: Walk, rows: int, turn: Turn, panel: Index) -> Ahead:
        """The part of the next tile's rows that is fetched while this one meets a panel."""
        step = max(rows * self.parts // turn.count, 1)
        at = a.at + rows * self._step_of_ordered() + (panel + turn.first) * (step * self.deepest)
        return Ahead(left.buffer, at, step)

    def _next_rows(self, a: Walk, rows: int) -> Ahead:
        """The numbers of the same rows some steps of k later, which lie side by side."""
        ends = sorted({0, rows * self.parts - 1})
        return Ahead(a.buffer, a.at + STEPS_AHEAD * a.along[0], a.along[0], ends, near=True)

    def _panel(self, p: Panels, extents: Sequence[int], right: Walk, first: Index) -> Walk:
        """How a tile reads y's columns from the first one of a panel on."""
        if self.packed is None:
            offsets = [v * p.width * right.step for v in range(p.vectors)]
            return right._replace(at=right.at + first * right.step, offsets=offsets, imag=self.parts - 1)
        return packed_walk(self.packed, p, first, extents)

    # --- k in the lanes -----------------------------------------------------------------------------------------------

    def _inner(self, x: Index, y: Index, sums: Sums) -> None:
        b = self.b
        most = 4 if self.rows.size > 1 else 8
        for rows in cuts(self.rows.size, 4):
            for columns in cuts(self.columns.size, most):
                with b.loop(columns.count) as c, b.loop(rows.count) as r:
                    self._inner_tile(rows, columns, r * rows.size + rows.start, c * columns.size + columns.start, x, y,
                                     sums)

    def _inner_tile(self, rows: Cut, columns: Cut, row: Index, column: Index, x: Index, y: Index, to: Sums) -> None:
        b = self.b
        left = [x + (row + r) * self.rows.x for r in range(rows.size)]
        right = [y + (column + c) * self.columns.y for c in range(columns.size)]
        sums = inner_products(b, self.machine.lanes(self.kind), self.x, self.y, self.depth, left, right, self.parts)
        for r in range(rows.size):
            for c in range(columns.size):
                at = to.at + (row + r) * to.row + (column + c) * to.column
                for part in range(self.parts):
                    b.store(to.buffer, at + part, sums[(r * len(right) + c) * self.parts + part])
