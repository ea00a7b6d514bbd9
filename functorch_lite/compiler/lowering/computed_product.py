# SPDX-License-Identifier: MIT
"""Matrix products of operands that are computed while they are copied (`prologue`).

    for each job of the product                 a block of columns (product_tiles)
      for each block of k
        the right operand's panels              each number computed, and stored in order: in part of a cache
        for some rows at a time
          the left operand's rows               the same
          register tiles

What lies across the order of the copy is computed in its own order first, in small pieces that are turned. A left
operand is computed some rows at a time where one job has all columns. Where the axes of the product and
those of what is read do not go together, an operand is written whole first. Where several jobs read the
left operand, it is computed in order once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.product_operands import Left, Sums
from functorch_lite.compiler.lowering.product_tiles import PAD, Axis, Matrix
from functorch_lite.compiler.lowering.prologue import Operand, Source, in_memory
from functorch_lite.compiler.lowering.rules import strides_of
from functorch_lite.compiler.lowering.tiles import Cut, Panels, Walk, even_cuts, over, rows_of

ROWS_BYTES = 96 << 10  # of rows of a left operand that are computed at a time: part of a second-level cache
LEAST_ROWS = 28
ALIAS_BYTES = 2048  # a multiple of it between rows: they meet in a few places of the first-level cache
TURNED = 64  # numbers of a row or column that are turned at a time
FEW = 4  # rows, or columns, of products with k in the lanes: each number of the other operand is read once


def product_matrix(
    b: Builder, machine: Any, x: Operand, y: Operand, out: Buffer | None, rows: Axis, columns: Axis,
    contracted: tuple[Axis, ...], outer: Sequence[Axis], parts: int = 1,
) -> Matrix:
    """The writer of a matrix product inside loops over `outer`, with operands in memory or computed."""
    inside = (*outer, rows, columns, *contracted)
    x = _walked(b, x, [a.x for a in inside if a.size > 1], all(a.x for a in outer), "x_written")
    y = _walked(b, y, [a.y for a in inside if a.size > 1], all(a.y for a in outer), "y_written")
    around = outer[0].size if outer else 1
    if isinstance(x, Buffer) and isinstance(y, Buffer):
        return Matrix(b, machine, x, y, out, rows, columns, contracted, around, parts)
    return ComputedMatrix(b, machine, x, y, out, rows, columns, contracted, around)  # type: ignore[arg-type]


def _walked(b: Builder, source: Operand, strides: Sequence[int], once: bool, name: str) -> Operand:
    """An operand, written out if it cannot be computed along these axes, or would be again and again."""
    if isinstance(source, Buffer) or (once and source.follows([s for s in strides if s], source.size)):
        return source
    return in_memory(b, source, name)


# --- the product ------------------------------------------------------------------------------------------------------


@dataclass
class ComputedMatrix(Matrix):
    """Writes a matrix product of which an operand, or both, are computed while they are copied."""

    x: Any
    y: Any

    def __post_init__(self):
        """Choose how to compute it; what would be computed more than once is written out."""
        self.left: Buffer | None = None  # some rows of x
        self.turned: Buffer | None = None
        super().__post_init__()
        if isinstance(self.x, Buffer) or self.ordered is not None:
            return
        if self.columns.size > FEW if self.inner else self._is_in_jobs():
            self.x = in_memory(self.b, self.x, "x_written")
        elif not self.inner:
            self._make_left()

    def _make_left(self) -> None:
        """Working space for some rows of x, a little apart where they would meet in a cache."""
        item = ITEM_BYTES[self.kind]
        self.pad = 0 if self.deepest * item % ALIAS_BYTES else PAD
        self.rows_at_once = min(max(ROWS_BYTES // (self.deepest * item), LEAST_ROWS), self.rows.size)
        most = max(c.size for c in even_cuts(self.rows.size, self.rows_at_once))
        self.left = self.b.scratch("left", self.kind, most * (self.deepest + self.pad))

    def _is_in_jobs(self) -> bool:
        """Whether several jobs read all of x."""
        return sum(c.count for c in self.jobs) > 1

    def _may_be_read_often(self) -> bool:
        return isinstance(self.x, Buffer) and super()._may_be_read_often()

    def _is_inner(self) -> bool:
        return super()._is_inner() and (isinstance(self.y, Buffer) or self.rows.size <= FEW)

    def _is_packed(self) -> bool:
        if isinstance(self.y, Buffer):
            return super()._is_packed()
        return self.rows.size > FEW or self.columns.y != 1

    def _is_far(self) -> bool:
        return isinstance(self.x, Buffer) and super()._is_far()

    def _is_ordered(self) -> bool:
        if isinstance(self.x, Buffer):
            return super()._is_ordered()
        return self._is_in_jobs() and len(self.contracted) == 1

    def _in_tiles(self) -> bool:
        return isinstance(self.x, Buffer) and super()._in_tiles()

    def _step_of_ordered(self) -> int:
        return super()._step_of_ordered() if isinstance(self.x, Buffer) else self.depth + PAD

    # --- the right operand --------------------------------------------------------------------------------------------

    def _pack(self, right: Walk, extents: Sequence[int], panels: Sequence[Panels]) -> None:
        if isinstance(self.y, Buffer):
            super()._pack(right, extents, panels)
            return
        assert self.packed is not None
        steps = strides_of(extents)
        for p in panels:
            with self.b.loop(p.count) as i:
                column = i * p.size + p.start
                self._copy(self.packed, column * (steps[0] * extents[0]), right.at + column * right.step,
                           [Axis(n, along, 0, s * p.size) for n, along, s in zip(
                               extents, right.along, steps, strict=True)], Axis(p.size, right.step, 0, 1), self.y)

    # --- the left operand ---------------------------------------------------------------------------------------------

    def _order(self, ordered: Buffer, rows: int, at: Index) -> None:
        if isinstance(self.x, Buffer):
            super()._order(ordered, rows, at)
            return
        self._copy(ordered, ZERO, at, [Axis(rows, self.rows.x, 0, self.depth + PAD)],
                   Axis(self.depth, self.contracted[0].x, 0, 1), self.x)

    def _tiles_of_rows(
        self, panels: list[Panels], rows: int, extents: Sequence[int], left: Left, right: Walk, columns: int,
        out: Index, sums: Sums | None, add: bool | Value,
    ) -> None:
        if self.left is None:
            super()._tiles_of_rows(panels, rows, extents, left, right, columns, out, sums, add)
            return
        for cut in even_cuts(rows, self.rows_at_once):
            over(self.b, cut, lambda r, cut=cut: self._some_rows(
                panels, cut, r, extents, left, right, columns, out, sums, add))

    def _some_rows(
        self, panels: list[Panels], cut: Cut, r: Index, extents: Sequence[int], left: Left, right: Walk, columns: int,
        out: Index, sums: Sums | None, add: bool | Value,
    ) -> None:
        """Compute some rows of x, and all that is added up of them."""
        assert self.left is not None
        steps = strides_of(extents)
        depth = steps[0] * extents[0]
        step = depth + self.pad
        leading = [Axis(n, along, 0, s) for n, along, s in zip(extents, left.along, steps, strict=True)]
        self._copy(self.left, ZERO, left.at + r * left.step, [Axis(cut.size, left.step, 0, step), *leading[:-1]],
                   leading[-1], self.x)
        if self.pad:
            with self.b.loop(cut.size) as i:
                self.b.fill(self.left, self.pad, i * step + depth)
        widest = max(panels, key=lambda p: p.vectors).vectors
        part = [p._replace(rows=rows_of(cut.size, widest if sums is None else p.vectors, self.machine)) for p in panels]
        super()._tiles_of_rows(
            part, cut.size, extents, Left(self.left, ZERO, steps, step), right, columns, out + r * self.rows.out,
            None if sums is None else sums._replace(at=sums.at + r * sums.row), add)

    # --- copies -------------------------------------------------------------------------------------------------------

    def _copy(
        self, target: Buffer, at: Index, start: Index, outer: Sequence[Axis], inner: Axis, source: Source
    ) -> None:
        """Compute numbers in the order of the target, or of the source where it is the other way round.

        Of an axis, x is the stride in the source, out that in the target, where `inner` is in order.
        """
        b = self.b
        turned = next((a for a in outer if a.x == 1 and a.size > 1), None) if inner.x != 1 and inner.size > 1 else None
        plain = [a for a in outer if a is not turned]

        def nest(level: int, at: Index, start: Index) -> None:
            if level < len(plain):
                with b.loop(plain[level].size) as i:
                    nest(level + 1, at + i * plain[level].out, start + i * plain[level].x)
            elif turned is not None:
                self._turn(target, at, start, turned, inner, source)
            else:
                with b.loop(inner.size, vector=True) as i:
                    b.store(target, at + i, source.element(start + i * inner.x))

        nest(0, at, start)

    def _turn(self, target: Buffer, at: Index, start: Index, along: Axis, across: Axis, source: Source) -> None:
        """Compute numbers along an axis of the source, in pieces that are turned on their way to the target."""
        b = self.b
        if self.turned is None:
            self.turned = b.workspace("turned", self.kind, TURNED * TURNED)
        turned = self.turned

        def piece(rows: int, columns: int, r: Index, c: Index) -> None:
            with b.loop(rows) as i, b.loop(columns, vector=True) as j:
                b.store(turned, i * columns + j, source.element(start + (r + i) * across.x + (c + j)))
            b.transpose(target, at + c * along.out + r, turned, ZERO, rows, columns, columns, along.out)

        for down in pieces(across.size):
            for side in pieces(along.size):
                over(b, down, lambda r, down=down, side=side: over(
                    b, side, lambda c: piece(down.size, side.size, r, c)))


def pieces(n: int) -> list[Cut]:
    """Pieces of at most TURNED."""
    whole, rest = divmod(n, TURNED)
    return [Cut(0, whole, TURNED)] * bool(whole) + [Cut(whole * TURNED, 1, rest)] * bool(rest)
