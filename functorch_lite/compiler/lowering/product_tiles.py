# SPDX-License-Identifier: MIT
"""One matrix product as register tiles, and the axes of products.

An axis has a stride in each operand and in the output, so operands are read as they lie in memory. The product is
computed in blocks of k and of columns, small enough for the panels of a block to stay in the second-level cache; later
blocks of k add to what earlier ones stored.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.tiles import (
    MOST_ROWS,
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

DEPTH = 256  # contracted elements of one block
DIRECT_BYTES = 64 << 10  # of a right operand that is read where it is
PACKED_BYTES = 512 << 10  # of the panels of one block: half of a second-level cache
FEW_ROWS = 32
ONE_TILE = 8  # rows: a panel would be read once
INNER_ROWS = 24
FAR_BYTES = 512  # from one number of a row of x to the next: the rows of a tile are copied, or caches cannot hold them


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
        """Choose how to compute it, and write what precedes the loops around."""
        kind, n = self.out.kind, self.columns.size
        self.depth = math.prod(a.size for a in self.contracted)
        self.inner = self._is_inner()
        whole = self.inner or len(self.contracted) > 1
        self.blocks = [Cut(0, 1, self.depth)] if whole else even_cuts(self.depth, DEPTH)
        self.adds = sum(c.count for c in self.blocks) > 1
        self.column_blocks = [Cut(0, 1, n)]
        self.packed: Buffer | None = None
        if self.adds:
            self.b.fill(self.out, self.out.size)
        if not self.inner and self._is_packed():
            depth = max(c.size for c in self.blocks)
            most = max(PACKED_BYTES // (depth * ITEM_BYTES[kind]) // 48 * 48, 48)
            self.column_blocks = even_cuts(n, most) if n > most else self.column_blocks
            self.packed = self.b.scratch("packed", kind, depth * max(c.size for c in self.column_blocks))
        self.packed_rows: Buffer | None = None
        if not self.inner and self.rows.x == 1 and max(a.x for a in self.contracted) * ITEM_BYTES[kind] >= FAR_BYTES:
            self.packed_rows = self.b.scratch("packed_rows", kind, MOST_ROWS * max(c.size for c in self.blocks))

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
        return self.rows.size > FEW_ROWS and self.depth * self.columns.size * ITEM_BYTES[self.out.kind] > DIRECT_BYTES

    def write(self, x: Index, y: Index, out: Index) -> None:
        """Write the product with the matrices at these positions."""
        if self.inner:
            self._inner(x, y, out)
            return
        for columns in self.column_blocks:
            for block in self.blocks:
                self._block(columns, block, x, y, out)

    # --- columns in the lanes -----------------------------------------------------------------------------------------

    def _block(self, columns: Cut, block: Cut, x: Index, y: Index, out: Index) -> None:
        panels = panels_of(self.rows.size, columns.size, self.out.kind, self.machine)
        extents = [block.size] if len(self.contracted) == 1 else [a.size for a in self.contracted]

        def at_block(c: Index, k: Index) -> None:
            left = Walk(self.x, x + k * self.contracted[0].x, (), [a.x for a in self.contracted])
            right = Walk(self.y, y + k * self.contracted[0].y + c * self.columns.y, (),
                         [a.y for a in self.contracted], self.columns.y)
            if self.packed is not None:
                pack(self.b, self.packed, right, extents, panels)
            for p in panels:
                self._tiles(p, extents, left, right, out + c * self.columns.out)

        over(self.b, columns, lambda c: over(self.b, block, lambda k: at_block(c, k)))

    def _tiles(self, p: Panels, extents: Sequence[int], left: Walk, right: Walk, out: Index) -> None:
        """All tiles over some panels: a tile's rows stay in the first-level cache while the panels pass, or they do."""
        b = self.b
        for cut in p.rows:
            if self.rows.size <= FEW_ROWS:
                with b.loop(p.count) as i, b.loop(cut.count) as t:
                    row = t * cut.size + cut.start
                    self._tile(p, extents, self._left(cut, row, left), right, i, row, out)
                continue
            with b.loop(cut.count) as t:
                row = t * cut.size + cut.start
                a = self._left(cut, row, left)
                if self.packed_rows is not None and p.count > 1:
                    one = Panels(0, 1, 1, cut.size, [])
                    pack(b, self.packed_rows, a._replace(step=self.rows.x), extents, [one])
                    a = packed_walk(self.packed_rows, one, ZERO, extents)._replace(offsets=range(cut.size), step=0)
                with b.loop(p.count) as i:
                    self._tile(p, extents, a, right, i, row, out)

    def _left(self, cut: Cut, row: Index, left: Walk) -> Walk:
        """How a tile reads x's rows from one on."""
        return left._replace(at=left.at + row * self.rows.x, offsets=[r * self.rows.x for r in range(cut.size)])

    def _tile(self, p: Panels, extents: Sequence[int], a: Walk, right: Walk, i: Index, row: Index, out: Index) -> None:
        first = i * p.size + p.start
        at = out + first * self.columns.out + row * self.rows.out
        rows = [at + r * self.rows.out for r in range(len(a.offsets))]
        columns = [v * p.width * self.columns.out for v in range(p.vectors)]
        tile(self.b, p.width, extents, a, self._panel(p, extents, right, first),
             store_tile(self.b, self.out, rows, columns, self.columns.out, self.adds))

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
