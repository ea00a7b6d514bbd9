# SPDX-License-Identifier: MIT
"""What the kernels of attention share: sizes, the keys that queries see, panels of columns, and tiles of products."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.attention_mask import MaskRows
from functorch_lite.compiler.lowering.contraction import this_machine
from functorch_lite.compiler.lowering.rules import Operand
from functorch_lite.compiler.lowering.tiles import SHORT_ROWS, Cut, Walk, cuts, most_rows, multiply_add, row_cuts, tile

VECTORS = 2  # side by side in a tile
FEWEST_ROWS, MOST_ROWS = 6, 12  # of a tile
Extent = int | Value


class Sizes(NamedTuple):
    """heads of keys, queries of a group, n queries, m keys, e numbers of a key, f of a value."""

    heads: int
    groups: int
    n: int
    m: int
    e: int
    f: int


class Seen(NamedTuple):
    """The keys that some queries see: panels from `first` on, `count` of them, of which `keys` keys are there."""

    first: Index
    count: Extent
    keys: Extent


@dataclass
class Kernel:
    """What both kernels share. mask: [1 or a divisor of all heads, n or 1, m], of truth values or of numbers to add."""

    b: Builder
    sizes: Sizes
    kind: str
    factor: float
    before: int | None
    after: int | None
    strict: bool = False
    mask: Operand | None = None

    def __post_init__(self):
        b, machine = self.b, this_machine()
        self.lanes = machine.lanes(self.kind)
        self.width = VECTORS * self.lanes
        self.panels = -(-self.sizes.m // self.width)
        self.stride = self.panels * self.width
        self.most_rows = min(MOST_ROWS, most_rows(VECTORS, machine.registers))
        self.minus_infinity, self.zero = (b.constant(x, self.kind) for x in (-np.inf, 0.0))
        self.may_skip = b.constant(True, "bool")
        self.parts = self.parts_of_queries()
        self.most = max(c.size for c in self.parts)
        self.lane_totals = b.workspace("lane_totals", self.kind, self.lanes)
        self.mask_rows: MaskRows | None = None
        if self.mask is not None:
            heads = self.sizes.heads * self.sizes.groups
            self.mask_rows = MaskRows(b, self.mask.buffer, self.mask.shape, heads, self.stride, self.most)

    def parts_of_queries(self) -> list[Cut]:
        """The queries in parts, whose scores are there at one time."""
        return row_cuts(self.sizes.n, self.most_rows, FEWEST_ROWS)

    def tiles_of(self, count: int) -> list[Cut]:
        """The rows of tiles over so many queries."""
        if self.b.brief:
            return row_cuts(count, SHORT_ROWS, SHORT_ROWS // 2)
        return row_cuts(count, self.most_rows, FEWEST_ROWS)

    def each(self, cut_list: Sequence[Cut], body: Callable[[Index, int], None]) -> None:
        """Run the body with the first row and the size of every part."""
        for cut in cut_list:
            with self.b.loop(cut.count) as t:
                body(t * cut.size + cut.start, cut.size)

    def queries_of(self, head: Index, group: Index) -> Index:
        """The number of the first query of a head; its mask is found."""
        number = head * self.sizes.groups + group
        if self.mask_rows is not None:
            self.mask_rows.find(number)
        return number * self.sizes.n

    # --- bounds -----------------------------------------------------------------------------------------------------

    def seen(self, row: Index, rows: int) -> Seen:
        """What the queries from `row` on see."""
        b, m, shift = self.b, self.sizes.m, self.b.constant(self.width.bit_length() - 1, "i64")
        if not self.is_bounded:
            return Seen(ZERO, self.panels, m)
        start, end = b.constant(0, "i64"), b.constant(m, "i64")
        if self.before is not None:
            start = b.op("min", b.op("max", b.value_of(row - self.before), b.constant(0, "i64")), b.constant(m, "i64"))
        if self.after is not None:
            end = b.op("min", b.op("max", b.value_of(row + (rows + self.after)), b.constant(0, "i64")), end)
        if self.mask_rows is not None:
            lowest, highest = self.mask_rows.copy(row, rows)
            start, end = b.op("max", start, lowest), b.op("min", end, highest)
        if self.strict:
            start = b.op("select", self.may_skip, start, b.constant(0, "i64"))
            end = b.op("select", self.may_skip, end, b.constant(m, "i64"))
        first = b.index_of(b.op("shr", start, shift))
        last = b.op("shr", b.op("add", end, b.constant(self.width - 1, "i64")), shift)
        none = b.constant(0, "i64")
        count = b.op("max", b.op("sub", last, b.value_of(first)), none)
        keys = b.op("max", b.op("sub", end, b.value_of(first * self.width)), none)
        return Seen(first, count, keys)

    def times(self, extent: Extent, factor: int) -> Extent:
        """An extent times a number."""
        if isinstance(extent, int):
            return extent * factor
        return self.b.op("mul", extent, self.b.constant(factor, "i64"))

    def find_infinities(self, *parts: tuple[Buffer, Index, int]) -> None:
        """Where zero times anything is to be zero or NaN as it is: skip keys only if all these numbers are finite."""
        if not self.strict or not self.is_bounded:
            return
        b, total = self.b, self.zero
        for x, at, size in parts:
            total = b.reduce(size, [total], lambda i, a, x=x, at=at: [  # type: ignore[misc]
                b.op("add", a, b.op("mul", b.load(x, at + i), self.zero))], combine=["add"], vector=True)[0]
        self.may_skip = b.op("eq", total, self.zero)

    def masked(self, score: Value, row: Index, key: Index, place: Index) -> Value:
        """The score, or minus infinity where the query does not see the key. place: of key 0 in the mask's rows."""
        b, column = self.b, self.b.value_of(key, "i32")
        if self.mask_rows is not None:
            score = self.mask_rows.applied(score, place + key)
        if self.stride != self.sizes.m:
            inside = b.op("lt", column, b.constant(self.sizes.m, "i32"))
            score = b.op("select", inside, score, self.minus_infinity)
        if self.after is not None:
            inside = b.op("le", column, b.value_of(row + self.after, "i32"))
            score = b.op("select", inside, score, self.minus_infinity)
        if self.before is not None:
            inside = b.op("ge", column, b.value_of(row - self.before, "i32"))
            score = b.op("select", inside, score, self.minus_infinity)
        return score

    # --- tiles ------------------------------------------------------------------------------------------------------

    def turned(self, name: str, x: Buffer, size: int) -> tuple[Buffer, Callable[[Index], None]]:
        """A buffer for a head's rows x[head, j] as panels of columns, in each its columns by d, and what fills it."""
        b, panel = self.b, self.width * size
        buffer = b.scratch(name, self.kind, self.panels * panel)
        whole, rest = divmod(self.sizes.m, self.width)

        def columns(at: Index, source: Index, width: int) -> None:
            with b.loop(size) as d, b.loop(width, vector=True) as lane:
                b.store(buffer, at + (d * self.width + lane), b.load(x, source + (lane * size + d)))

        def fill(head: Index) -> None:
            start = head * (self.sizes.m * size)
            if whole:
                with b.loop(whole) as p:
                    columns(p * panel, start + p * panel, self.width)
            if rest:
                b.fill(buffer, panel, Index(whole * panel))
                columns(Index(whole * panel), start + whole * panel, rest)

        return buffer, fill

    def products(self, x: Buffer, at: Index, rows: int, turned: Buffer, size: int, seen: Seen,
                 put: Callable[[int, Index, Value], None]) -> None:
        """x[row] . column for each seen column: put(row, column from the first seen one on, sum)."""
        b, lanes = self.b, self.lanes
        with b.loop(seen.count) as p:
            left = Walk(x, at, [r * size for r in range(rows)], [1])
            right = Walk(turned, (seen.first + p) * (self.width * size), [v * lanes for v in range(VECTORS)],
                         [self.width], 1)

            def write(lane: Index, sums: list[list[Value]], p: Index = p) -> None:
                for r, values in enumerate(sums):
                    for v, value in enumerate(values):
                        put(r, p * self.width + (lane + v * lanes), value)

            tile(b, lanes, [size], left, right, write)

    def score(self, row: Index, seen: Seen, into: Buffer, at: Index) -> Callable[[int, Index, Value], None]:
        """A `put` that writes masked scores to rows of a buffer."""
        factor = self.b.constant(self.factor, self.kind)

        def put(r: int, column: Index, value: Value) -> None:
            mask_place = at + r * self.stride if self.mask_rows is not None and self.mask_rows.step else ZERO
            key = seen.first * self.width + column
            scaled = self.masked(self.b.op("mul", value, factor), row + r, key, mask_place)
            self.b.store(into, at + (column + r * self.stride), scaled)

        return put

    def columns_of(self, size: int) -> list[tuple[Cut, int, int]]:
        """Columns of a row in order as tiles: where they begin, vectors of a tile, lanes of a vector."""
        whole, rest = divmod(size, self.lanes)
        found = [(Cut(c.start * self.lanes, c.count, c.size * self.lanes), c.size, self.lanes)
                 for c in (cuts(whole, VECTORS) if whole else [])]
        return found + ([(Cut(whole * self.lanes, 1, rest), 1, rest)] if rest else [])

    def weighted(
        self, weights: Callable[[int, Index], Value], rows: int, keys: Extent, x: Buffer, at: Index, size: int,
        put: Callable[[int, Index, Value], None],
    ) -> None:
        """put(r, column, sum over k < keys of weights(r, k) x[at + k size + column]), for every column."""
        b = self.b
        for cut, vectors, width in self.columns_of(size):
            with b.loop(cut.count) as c, b.loop(width, vector=True) as lane:
                offsets = [c * cut.size + (cut.start + v * width) + lane for v in range(vectors)]

                def step(k: Index, *sums: Value, offsets=offsets) -> list[Value]:
                    columns = [b.load(x, at + k * size + o) for o in offsets]
                    found: list[Value] = []
                    for r in range(rows):
                        number = weights(r, k)
                        before = sums[r * len(columns) : (r + 1) * len(columns)]
                        found += [multiply_add(b, number, y, s) for y, s in zip(columns, before, strict=True)]
                    return found

                sums = b.reduce(keys, [self.zero] * (rows * vectors), step)
                for k, total in enumerate(sums):
                    put(k // vectors, offsets[k % vectors], total)

    def over_lanes(self, vectors: Extent, combine: str, start: Value, step: Callable[[Index, Value], Value]) -> Value:
        """step(position, total) combined over a row of so many vectors, and then over the lanes."""
        b = self.b
        with b.loop(self.lanes, vector=True) as lane:
            total = b.reduce(vectors, [start], lambda t, a: [step(t * self.lanes + lane, a)])
            b.store(self.lane_totals, lane, total[0])
        return b.reduce(self.lanes, [start], lambda i, a: [b.op(combine, a, b.load(self.lane_totals, i))],
                        combine=[combine], vector=True)[0]  # fmt: skip

    def finite(self, x: Value) -> Value:
        """x, or zero where it is not finite; x where infinities act as they are."""
        return x if self.strict else self.b.op("select", self.b.op("is_finite", x), x, self.zero)

    @property
    def is_bounded(self) -> bool:
        """Whether there may be keys that a query does not see."""
        return self.before is not None or self.after is not None or self.mask is not None

    @property
    def selects(self) -> bool:
        """Whether scores are replaced, rather than added to, where a query does not see a key."""
        bounded = self.before is not None or self.after is not None
        return bounded or (self.mask is not None and self.mask.kind == "bool")
