# SPDX-License-Identifier: MIT
"""One matrix product as register tiles, and the axes of products.

An axis has a stride in each operand and in the output, so operands are read as they lie in memory. The product is cut
into jobs that need nothing of one another, so that threads can share them: blocks of columns, each with the whole of k
and with panels of its own, or where columns are few, tiles of rows. A job goes through k in blocks, so that a tile's
rows stay in the first-level cache and the panels of a block in the second; later blocks add to what earlier ones
stored.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
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

DEPTH_BYTES = 1536  # of a row in one block of k
DIRECT_BYTES = 64 << 10  # of a right operand that is read where it is
PACKED_BYTES = 256 << 10  # of the panels of one block: part of a second-level cache
JOBS = 8  # blocks of columns at least, where there are enough columns
LEAST_VECTORS = 2  # of columns in a block: a panel
MOST_VECTORS = 16
MANY_ROWS = 512
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
PAD = 16  # elements between copied rows
LONG = 1 << 23  # products of one tile's code in a job: so many are worth four steps of k written out


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
    out: Buffer
    rows: Axis
    columns: Axis
    contracted: tuple[Axis, ...]

    def __post_init__(self):
        """Choose how to compute it."""
        n = self.columns.size
        item = ITEM_BYTES[self.out.kind]
        self.depth = math.prod(a.size for a in self.contracted)
        self.inner = self._is_inner()
        whole = self.inner or len(self.contracted) > 1
        self.blocks = [Cut(0, 1, self.depth)] if whole else even_cuts(self.depth, self._most_depth())
        self.deepest = max(c.size for c in self.blocks)
        packs = not self.inner and self._is_packed()
        self.jobs = [Cut(0, 1, n)] if self.inner else self._jobs(packs)
        widest = max(c.size for c in self.jobs)
        self.packed = self.b.scratch("packed", self.out.kind, self.deepest * widest) if packs else None
        self.row_blocks = [Cut(0, 1, self.rows.size)]
        self.ordered: Buffer | None = None
        if not self.inner and (self._is_far() or self._meets_itself()):
            self.row_blocks = even_cuts(self.rows.size, max(ORDERED_BYTES // (self.depth * item), ORDERED_ROWS))
            most = max(c.size for c in self.row_blocks)
            self.ordered = self.b.scratch("ordered", self.out.kind, most * (self.depth + PAD))

    def _is_inner(self) -> bool:
        """Whether k goes in the lanes."""
        first, *others = self.contracted
        if others or first.x != 1 or first.y != 1 or self.columns.y == 1:
            return False
        lanes = self.machine.lanes(self.out.kind)
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
        return DEPTH_BYTES // ITEM_BYTES[self.out.kind]

    def _right_bytes(self) -> int:
        return self.depth * self.columns.size * ITEM_BYTES[self.out.kind]

    def _is_far(self) -> bool:
        """Whether the rows of x are its fastest axis, and too far apart along k for a cache."""
        first, *others = self.contracted
        if others or self.rows.x != 1 or min(self.rows.size, self.columns.size) < FAR_SERVED:
            return False
        return first.x * ITEM_BYTES[self.out.kind] >= FAR_BYTES

    def _meets_itself(self) -> bool:
        """Whether many rows of x lie so far apart that a cache has room for few of them at once."""
        first, *others = self.contracted
        alias = self.rows.x * ITEM_BYTES[self.out.kind] % ALIAS_BYTES == 0 and first.x == 1 and not others
        return alias and self.rows.size > FEW_ROWS and self.columns.size >= ALIAS_SERVED

    def _jobs(self, packs: bool) -> list[Cut]:
        """The columns of each job: whole vectors, and in a job of its own what is left."""
        n, lanes = self.columns.size, self.machine.lanes(self.out.kind)
        vectors, rest = divmod(n, lanes)
        room = PACKED_BYTES // (self.deepest * ITEM_BYTES[self.out.kind] * lanes)
        wanted = min(max(vectors // JOBS, LEAST_VECTORS), 4 * MOST_VECTORS if self._is_streamed() else MOST_VECTORS,
                     max(room, 1))
        if not packs and (self.rows.size > FEW_ROWS or self._right_bytes() <= DIRECT_BYTES):
            return [Cut(0, 1, n)]
        few = vectors < JOBS * (2 * LEAST_VECTORS if self.rows.size >= MANY_ROWS else LEAST_VECTORS)
        if few and vectors <= max(room, 1):
            return [Cut(0, 1, n)]
        found = [Cut(c.start * lanes, c.count, c.size * lanes) for c in even_cuts(vectors, wanted)]
        return [*found, Cut(vectors * lanes, 1, rest)] if rest else found

    def write(self, x: Index, y: Index, out: Index) -> None:
        """Write the product with the matrices at these positions."""
        if self.inner:
            self._inner(x, y, out)
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
        panels = panels_of(rows, job.size, self.out.kind, self.machine)
        right = Walk(self.y, y + c * self.columns.y, (), [a.y for a in self.contracted], self.columns.y)
        for block in self.blocks:
            over(self.b, block, lambda k, block=block: self._block(
                panels, block, k, left, right, out + c * self.columns.out))

    def _block(self, panels: list[Panels], block: Cut, k: Index, left: Walk, right: Walk, out: Index) -> None:
        """What the elements of a block from k on add to it."""
        extents = [block.size] if len(self.contracted) == 1 else [a.size for a in self.contracted]
        left = left._replace(at=left.at + k * left.along[0])
        right = right._replace(at=right.at + k * right.along[0])
        if self.packed is not None:
            pack(self.b, self.packed, right, extents, panels)
        add = self._added(k)
        for p in panels:
            self._tiles(p, extents, left, right, out, add)

    def _added(self, k: Index) -> bool | Value:
        """Whether the sums of the block from k on are added to what is there."""
        if not k.terms:
            return k.constant > 0
        return self.b.op("ne", self.b.value_of(k), self.b.constant(0, "i64"))

    def _tiles(
        self, p: Panels, extents: Sequence[int], left: Walk, right: Walk, out: Index, add: bool | Value
    ) -> None:
        """All tiles over some panels: a tile's rows stay in the first-level cache while the panels pass, or they do."""
        few = self.rows.size <= FEW_ROWS
        for cut in p.rows:
            loops = [self.b.loop(p.count), self.b.loop(cut.count)]
            with loops[not few] as first, loops[few] as second:
                i, t = (first, second) if few else (second, first)
                row = t * cut.size + cut.start
                offsets = [r * left.step for r in range(cut.size)]
                a = left._replace(at=left.at + row * left.step, offsets=offsets, step=0)
                steps = 4 if cut.count * cut.size * p.count * p.size * self.depth >= LONG else 1
                self._tile(p, extents, a, right, i, row, out, add, steps)

    def _tile(
        self, p: Panels, extents: Sequence[int], a: Walk, right: Walk, i: Index, row: Index, out: Index,
        add: bool | Value, steps: int,
    ) -> None:
        first = i * p.size + p.start
        at = out + first * self.columns.out + row * self.rows.out
        rows = [at + r * self.rows.out for r in range(len(a.offsets))]
        columns = [v * p.width * self.columns.out for v in range(p.vectors)]
        tile(self.b, p.width, extents, a, self._panel(p, extents, right, first),
             store_tile(self.b, self.out, rows, columns, self.columns.out, add), steps=steps)

    def _panel(self, p: Panels, extents: Sequence[int], right: Walk, first: Index) -> Walk:
        """How a tile reads y's columns from the first one of a panel on."""
        if self.packed is None:
            offsets = [v * p.width * right.step for v in range(p.vectors)]
            return right._replace(at=right.at + first * right.step, offsets=offsets)
        return packed_walk(self.packed, p, first, extents)

    # --- k in the lanes -----------------------------------------------------------------------------------------------

    def _inner(self, x: Index, y: Index, out: Index) -> None:
        b = self.b
        most = 4 if self.rows.size > 1 else 8
        for rows in cuts(self.rows.size, 4):
            for columns in cuts(self.columns.size, most):
                with b.loop(columns.count) as c, b.loop(rows.count) as r:
                    self._inner_tile(rows, columns, r * rows.size + rows.start, c * columns.size + columns.start, x, y,
                                     out)

    def _inner_tile(self, rows: Cut, columns: Cut, row: Index, column: Index, x: Index, y: Index, out: Index) -> None:
        b = self.b
        left = [x + (row + r) * self.rows.x for r in range(rows.size)]
        right = [y + (column + c) * self.columns.y for c in range(columns.size)]
        sums = self._inner_sums(left, right)
        for r in range(rows.size):
            for c in range(columns.size):
                at = out + (row + r) * self.rows.out + (column + c) * self.columns.out
                b.store(self.out, at, sums[r * len(right) + c])

    def _inner_sums(self, left: list[Index], right: list[Index]) -> list[Value]:
        """The inner products of each of the left rows with each of the right ones."""
        b = self.b
        zero = b.constant(0, self.out.kind)
        lanes = self.machine.lanes(self.out.kind)
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
