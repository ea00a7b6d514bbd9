# SPDX-License-Identifier: MIT
"""One matrix product as register tiles, and the axes of products.

An axis has a stride in each operand and in the output, so operands are read as they lie in memory. The product is cut
into jobs that need nothing of one another, so that threads can share them: blocks of columns, each with the whole of k
and with panels of its own, or where columns are few, tiles of rows. A job goes through k in blocks, so that a tile's
rows stay in the first-level cache and the panels of a block in the second; later blocks add to what earlier ones
stored. Many rows go by whole if all panels fit the second-level cache: then what is written is in order.

An epilogue (`lowering/epilogue.py`) goes over the values of a job, or of some rows of it, as soon as they are complete;
until then they are in working space, if that is small.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.epilogue import Epilogue, Span
from functorch_lite.compiler.lowering.tiles import (
    Cut,
    Machine,
    Panels,
    Walk,
    cuts,
    even_cuts,
    over,
    pack,
    packed_walk,
    panels_of,
    store_tile,
    tile,
)
from functorch_lite.compiler.schedule.epilogues import DEPTH, MANY_ROWS, PACKED_BYTES

DEPTH_BYTES = 4 * DEPTH  # of a row in one block of k
DIRECT_BYTES = 64 << 10  # of a right operand that is read where it is
JOBS = 8  # blocks of columns at least, where there are enough columns
LEAST_VECTORS = 2  # of columns in a block: a panel
MOST_VECTORS = 16
STREAMS = 16  # rows of y that are read side by side, at least
FEW_ROWS = 32
ONE_TILE = 8  # rows: a panel would be read once
INNER_ROWS = 24
FAR_BYTES = 512  # from one number of a row of x to the next: caches cannot hold the rows of a tile
ALIAS_BYTES = 2048  # a multiple of it between rows of x: they meet in a few places of the first-level cache
ORDERED_BYTES = 4 << 20  # of rows of x that are copied at a time
ORDERED_ROWS = 256  # at least
FAR_SERVED, ALIAS_SERVED = 64, 256  # columns that make a copy of x worth while
COPIED_ROWS = 64  # rows of x that are copied at a time
BOX_BYTES = 16 << 10  # of values that an epilogue goes over at once: part of a first-level cache
SUMS_BYTES = 128 << 10  # of values at once that have working space of their own: part of a second-level cache
PAD = 16  # elements between copied rows
LONG = 1 << 23  # products of one tile's code in a job: so many are worth four steps of k written out


class Sums(NamedTuple):
    """Where tiles leave their sums: from `at` of a buffer on; the strides of rows and columns."""

    buffer: Buffer
    at: Index
    row: int
    column: int


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
    """Writes one matrix product: an axis of rows, one of columns, and contracted ones."""

    b: Builder
    machine: Machine
    x: Buffer
    y: Buffer
    out: Buffer | None
    rows: Axis
    columns: Axis
    contracted: tuple[Axis, ...]

    @property
    def kind(self) -> str:
        """The kind of all numbers."""
        return self.x.kind

    def __post_init__(self):
        """Choose how to compute it."""
        n = self.columns.size
        item = ITEM_BYTES[self.kind]
        self.depth = math.prod(a.size for a in self.contracted)
        self.inner = self._is_inner()
        whole = self.inner or len(self.contracted) > 1
        self.blocks = [Cut(0, 1, self.depth)] if whole else even_cuts(self.depth, self._most_depth())
        self.deepest = max(c.size for c in self.blocks)
        packs = not self.inner and self._is_packed()
        self.jobs = [Cut(0, 1, n)] if self.inner else self._jobs(packs)
        widest = max(c.size for c in self.jobs)
        self.packed = self.b.scratch("packed", self.kind, self.deepest * widest) if packs else None
        self.row_blocks = [Cut(0, 1, self.rows.size)]
        self.ordered: Buffer | None = None
        if not self.inner and (self._is_far() or self._meets_itself()):
            self.row_blocks = even_cuts(self.rows.size, max(ORDERED_BYTES // (self.depth * item), ORDERED_ROWS))
            most = max(c.size for c in self.row_blocks)
            self.ordered = self.b.scratch("ordered", self.kind, most * (self.depth + PAD))
        self.epilogue: Epilogue | None = None
        self.places = 0  # of sums in working space

    def _is_inner(self) -> bool:
        """Whether k goes in the lanes."""
        first, *others = self.contracted
        if others or first.x != 1 or first.y != 1 or self.columns.y == 1:
            return False
        lanes = self.machine.lanes(self.kind)
        return self.rows.size == self.columns.size == 1 or (self.rows.size <= INNER_ROWS and self.depth >= lanes)

    def _is_packed(self) -> bool:
        """Whether y's columns are copied: they serve many rows, and are out of order, or more than a cache holds."""
        if self.columns.y != 1:
            return self.rows.size > ONE_TILE
        return self.rows.size > FEW_ROWS and self._right_bytes() > DIRECT_BYTES

    def _is_streamed(self) -> bool:
        """Whether few rows meet a large y, which is read as it lies: row by row, through whole blocks of columns."""
        return self.rows.size <= FEW_ROWS and self.columns.y == 1 and self._right_bytes() > DIRECT_BYTES

    def _most_depth(self) -> int:
        """Of a block of k. Where y is streamed, the more often the output is read again the more rows it has."""
        if self._is_streamed():
            return max(STREAMS, min(STREAMS * self.rows.size // 4, 4 * STREAMS))
        return DEPTH_BYTES // ITEM_BYTES[self.kind]

    def _right_bytes(self) -> int:
        return self.depth * self.columns.size * ITEM_BYTES[self.kind]

    def _is_far(self) -> bool:
        """Whether the rows of x are its fastest axis, and too far apart along k for a cache."""
        first, *others = self.contracted
        if others or self.rows.x != 1 or min(self.rows.size, self.columns.size) < FAR_SERVED:
            return False
        return first.x * ITEM_BYTES[self.kind] >= FAR_BYTES

    def _meets_itself(self) -> bool:
        """Whether many rows of x lie so far apart that a cache has room for few of them at once."""
        first, *others = self.contracted
        alias = self.rows.x * ITEM_BYTES[self.kind] % ALIAS_BYTES == 0 and first.x == 1 and not others
        return alias and self.rows.size > FEW_ROWS and self.columns.size >= ALIAS_SERVED

    def _jobs(self, packs: bool) -> list[Cut]:
        """The columns of each job: whole vectors, and in a job of its own what is left."""
        n, lanes = self.columns.size, self.machine.lanes(self.kind)
        vectors, rest = divmod(n, lanes)
        room = PACKED_BYTES // (self.deepest * ITEM_BYTES[self.kind] * lanes)
        wanted = min(max(vectors // JOBS, LEAST_VECTORS), 4 * MOST_VECTORS if self._is_streamed() else MOST_VECTORS,
                     max(room, 1))
        if not packs and (self.rows.size > FEW_ROWS or self._right_bytes() <= DIRECT_BYTES):
            return [Cut(0, 1, n)]
        if (vectors < JOBS * LEAST_VECTORS or self.rows.size >= MANY_ROWS) and vectors <= max(room, 1):
            return [Cut(0, 1, n)]
        found = [Cut(c.start * lanes, c.count, c.size * lanes) for c in even_cuts(vectors, wanted)]
        return [*found, Cut(vectors * lanes, 1, rest)] if rest else found

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
        left = Walk(self.x, at, (), [a.x for a in self.contracted], self.rows.x)
        if self.ordered is not None:
            self._order(self.ordered, rows, at)
            left = Walk(self.ordered, ZERO, (), [1], self.depth + PAD)
        for job in self.jobs:
            over(self.b, job, lambda c, job=job: self._job(job, rows, c, left, y, out + r * self.rows.out))

    def _order(self, ordered: Buffer, rows: int, at: Index) -> None:
        """Copy rows of x from a place on, each in order along k, a little apart."""
        along, step = self.contracted[0].x, self.depth + PAD
        if self.rows.x != 1:
            with self.b.loop(rows) as r:
                self.b.copy(ordered, self.x, self.depth, r * step, at + r * self.rows.x)
            return
        for cut in even_cuts(rows, COPIED_ROWS):
            over(self.b, cut, lambda r, cut=cut: self.b.transpose(
                ordered, r * step, self.x, at + r, self.depth, cut.size, along, step))

    def _job(self, job: Cut, rows: int, c: Index, left: Walk, y: Index, out: Index) -> None:
        """All of a block of columns from c on."""
        panels = self._panels(rows, job.size)
        right = Walk(self.y, y + c * self.columns.y, (), [a.y for a in self.contracted], self.columns.y)
        out += c * self.columns.out
        sums = None if self._is_in_boxes(rows, job.size) else self._sums(out, rows, job.size)
        if sums is not None and self.out is None and self._blocks_of_k() > 1:
            self.b.fill(sums.buffer, rows * job.size)
        for block in self.blocks:
            over(self.b, block, lambda k, block=block: self._block(
                panels, block, k, left, right, job.size, out, sums))
        if sums is not None:
            self._end(out, rows, job.size, sums)

    def _block(
        self, panels: list[Panels], block: Cut, k: Index, left: Walk, right: Walk, columns: int, out: Index,
        sums: Sums | None,
    ) -> None:
        """What the elements of a block from k on add to it. No sums: an epilogue goes over some rows at once."""
        extents = [block.size] if len(self.contracted) == 1 else [a.size for a in self.contracted]
        left = left._replace(at=left.at + k * left.along[0])
        right = right._replace(at=right.at + k * right.along[0])
        if self.packed is not None:
            pack(self.b, self.packed, right, extents, panels)
        add = self._blocks_of_k() > 1 if self.out is None else self._added(k)
        if sums is not None:
            for p in panels:
                self._tiles(p, p.rows, extents, left, right, sums, add)
            return
        for cut in panels[0].rows:
            tiles = self._tiles_of_a_box(cut, columns)
            over(self.b, Cut(cut.start, cut.count // tiles, cut.size * tiles), lambda row, cut=cut, tiles=tiles:
                 self._rows_of_a_box(panels, Cut(0, tiles, cut.size), row, extents, left, right, columns, out, add))

    def _rows_of_a_box(
        self, panels: list[Panels], cut: Cut, row: Index, extents: Sequence[int], left: Walk, right: Walk,
        columns: int, out: Index, add: bool | Value,
    ) -> None:
        """All tiles of some rows, and the epilogue over them."""
        out += row * self.rows.out
        left = left._replace(at=left.at + row * left.step)
        rows = cut.count * cut.size
        sums = self._sums(out, rows, columns)
        for p in panels:
            self._tiles(p, [cut], extents, left, right, sums, add)
        self._end(out, rows, columns, sums)

    # --- epilogues ----------------------------------------------------------------------------------------------------

    def end_with(self, epilogue: Epilogue, outer: Sequence[Axis]) -> None:
        """Have an epilogue go over the values, if it can; outer: the axes of loops around the product."""
        meets = epilogue.adds and (self.inner or outer or sum(c.count for c in self.jobs) == 1)
        if not meets and epilogue.fits([a.out for a in (*outer, self.rows, self.columns) if a.size > 1]):
            self.epilogue = epilogue
        room = self._room_of_sums() if self.epilogue is not None and not epilogue.holds_sums() else 0
        if room == 0 or room * ITEM_BYTES[self.kind] > SUMS_BYTES:
            self.out = epilogue.sums

    def _room_of_sums(self) -> int:
        """The elements of the largest block of values that an epilogue goes over at once."""
        if self.inner:
            return 0
        return max(self._rows_at_once(r.size, c.size) * c.size for r in self.row_blocks for c in self.jobs)

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
        found = panels_of(rows, columns, self.kind, self.machine)
        if self._is_in_boxes(rows, columns):
            widest = max(found, key=lambda p: p.vectors)
            return [p._replace(rows=widest.rows) for p in found]
        return found

    def _sums(self, out: Index, rows: int, columns: int) -> Sums:
        """Where the sums of a block go, which is at a place of the output."""
        if self.out is None:
            self.places += 1
            name = f"sums{self.places}"
            return Sums(self.b.workspace(name, self.kind, rows * columns), ZERO, columns, 1)
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
        self, p: Panels, cuts: Sequence[Cut], extents: Sequence[int], left: Walk, right: Walk, sums: Sums,
        add: bool | Value,
    ) -> None:
        """All tiles over some panels: a tile's rows stay in the first-level cache while the panels pass, or they do."""
        few = self.rows.size <= FEW_ROWS
        for cut in cuts:
            loops = [self.b.loop(p.count), self.b.loop(cut.count)]
            with loops[not few] as first, loops[few] as second:
                i, t = (first, second) if few else (second, first)
                row = t * cut.size + cut.start
                offsets = [r * left.step for r in range(cut.size)]
                a = left._replace(at=left.at + row * left.step, offsets=offsets, step=0)
                rows = sum(c.count * c.size for c in p.rows if c.size == cut.size)
                steps = 4 if rows * p.count * p.size * self.depth >= LONG else 1
                self._tile(p, extents, a, right, i, row, sums, add, steps)

    def _tile(
        self, p: Panels, extents: Sequence[int], a: Walk, right: Walk, i: Index, row: Index, sums: Sums,
        add: bool | Value, steps: int,
    ) -> None:
        first = i * p.size + p.start
        at = sums.at + first * sums.column + row * sums.row
        rows = [at + r * sums.row for r in range(len(a.offsets))]
        columns = [v * p.width * sums.column for v in range(p.vectors)]
        tile(self.b, p.width, extents, a, self._panel(p, extents, right, first),
             store_tile(self.b, sums.buffer, rows, columns, sums.column, add), steps=steps)

    def _panel(self, p: Panels, extents: Sequence[int], right: Walk, first: Index) -> Walk:
        """How a tile reads y's columns from the first one of a panel on."""
        if self.packed is None:
            offsets = [v * p.width * right.step for v in range(p.vectors)]
            return right._replace(at=right.at + first * right.step, offsets=offsets)
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
        sums = self._inner_sums(left, right)
        for r in range(rows.size):
            for c in range(columns.size):
                b.store(to.buffer, to.at + (row + r) * to.row + (column + c) * to.column, sums[r * len(right) + c])

    def _inner_sums(self, left: list[Index], right: list[Index]) -> list[Value]:
        """The inner products of each of the left rows with each of the right ones."""
        b = self.b
        zero = b.constant(0, self.kind)
        lanes = self.machine.lanes(self.kind)
        ways = 4 if len(left) * len(right) < 4 else 1  # more sums, so that one need not wait for the last
        length = self.depth // (ways * lanes) * lanes if ways > 1 else self.depth
        sums = [zero] * (len(left) * len(right))
        parts = [(k * length, length) for k in range(ways)] if length else []

        def step(i: Index, starts: list[int], totals: Sequence[Value]) -> list[Value]:
            found = []
            for w, start in enumerate(starts):
                a = [b.load(self.x, at + i + start) for at in left]
                c = [b.load(self.y, at + i + start) for at in right]
                for k in range(len(sums)):
                    product = b.op("mul", a[k // len(right)], c[k % len(right)])
                    found.append(b.op("add", totals[w * len(sums) + k], product))
            return found

        def run(starts: list[int], n: int, totals: list[Value]) -> list[Value]:
            return b.reduce(n, totals, lambda i, *s: step(i, starts, s), combine=["add"] * len(totals), vector=True)

        if parts:
            found = run([s for s, _ in parts], length, sums * ways)
            for w in range(ways):
                part = found[w * len(sums) : (w + 1) * len(sums)]
                sums = part if w == 0 else [b.op("add", s, p) for s, p in zip(sums, part, strict=True)]
        done = ways * length
        return run([done], self.depth - done, sums) if done < self.depth else sums
