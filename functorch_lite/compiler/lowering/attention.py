# SPDX-License-Identifier: MIT
"""Kernels of attention, forward and backward, that keep the weights of a few queries only.

    for each head                                   keys are copied into panels of columns, backward the values too
      for a few queries (a block)
        scores[i, j] = factor q[i] . k[j]           register tiles, over the panels that the block can see
        weights[i, j] = exp(scores - top)           the rows stay in the first- or second-level cache
        out[i] = sum over j of weights[i, j] v[j] / total[i]

Backward the weights are computed again from lse, the gradient of the scores is made beside them, and both are added to
the gradients of key and value a block at a time.

Source: T. Dao and others, "FlashAttention", arXiv:2205.14135, with whole rows of scores in the place of its running
maximum: a row is short against the caches of a CPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.contraction import this_machine
from functorch_lite.compiler.lowering.rules import kernel_rules
from functorch_lite.compiler.lowering.tiles import Cut, Walk, cuts, most_rows, multiply_add, tile
from functorch_lite.primitives.attention import attention_cotangents_p, attention_p

VECTORS = 2  # side by side in a tile
FEWEST_ROWS, MOST_ROWS = 6, 12  # of a tile
BLOCK = 32  # queries of a block of the backward kernel
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
    """What both kernels share: sizes, bounds, panels of columns, tiles of scores."""

    b: Builder
    sizes: Sizes
    kind: str
    factor: float
    before: int | None
    after: int | None

    def __post_init__(self):
        machine = this_machine()
        self.lanes = machine.lanes(self.kind)
        self.width = VECTORS * self.lanes
        self.panels = -(-self.sizes.m // self.width)
        self.stride = self.panels * self.width
        self.most_rows = min(MOST_ROWS, most_rows(VECTORS, machine.registers))
        self.minus_infinity, self.zero = (self.b.constant(x, self.kind) for x in (-np.inf, 0.0))

    def row_cuts(self, n: int, most: int) -> list[Cut]:
        """n rows in parts of at most `most`, of one size if a divisor allows."""
        for size in range(min(n, most), min(FEWEST_ROWS, n) - 1, -1):
            if n % size == 0:
                return [Cut(0, n // size, size)]
        return cuts(n, most)

    def each(self, cut_list: Sequence[Cut], body: Callable[[Index, int], None]) -> None:
        """Run the body with the first row and the size of every part."""
        for cut in cut_list:
            with self.b.loop(cut.count) as t:
                body(t * cut.size + cut.start, cut.size)

    # --- bounds -----------------------------------------------------------------------------------------------------

    def seen(self, row: Index, rows: int) -> Seen:
        """What the queries from `row` on see."""
        b, m, shift = self.b, self.sizes.m, self.b.constant(self.width.bit_length() - 1, "i64")
        if self.before is None and self.after is None:
            return Seen(ZERO, self.panels, m)
        first = ZERO
        if self.before is not None:
            lowest = b.op("min", b.op("max", b.value_of(row - self.before), b.constant(0, "i64")), b.constant(m, "i64"))
            first = b.index_of(b.op("shr", lowest, shift))
        end = b.constant(m, "i64")
        if self.after is not None:
            end = b.op("min", b.op("max", b.value_of(row + (rows + self.after)), b.constant(0, "i64")), end)
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

    def masked(self, score: Value, row: Index, key: Index) -> Value:
        """The score, or minus infinity where the query does not see the key."""
        b, column = self.b, self.b.value_of(key, "i32")
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

    def turned(self, name: str, x: Buffer, start: Callable[[Index], Index], size: int) -> Callable[[Index], None]:
        """A buffer for the rows x[start + j size :] as panels of columns: for each panel, its columns by d."""
        b, panel = self.b, self.width * size
        buffer = b.scratch(name, self.kind, self.panels * panel)
        setattr(self, name, buffer)
        whole, rest = divmod(self.sizes.m, self.width)

        def columns(at: Index, source: Index, width: int) -> None:
            with b.loop(size) as d, b.loop(width, vector=True) as lane:
                b.store(buffer, at + (d * self.width + lane), b.load(x, source + (lane * size + d)))

        def fill(head: Index) -> None:
            if whole:
                with b.loop(whole) as p:
                    columns(p * panel, start(head) + p * panel, self.width)
            if rest:
                b.fill(buffer, panel, Index(whole * panel))
                columns(Index(whole * panel), start(head) + whole * panel, rest)

        return fill

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
            scaled = self.masked(self.b.op("mul", value, factor), row + r, seen.first * self.width + column)
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
        """x, or zero where it is not finite."""
        return self.b.op("select", self.b.op("is_finite", x), x, self.zero)

    lane_totals: Buffer = None  # type: ignore[assignment]
    keys_turned: Buffer = None  # type: ignore[assignment]
    values_turned: Buffer = None  # type: ignore[assignment]


# --- forward ----------------------------------------------------------------------------------------------------------


class Forward(Kernel):
    """out and lse of every query."""

    def write(self, q: Buffer, k: Buffer, v: Buffer, out: Buffer, lse: Buffer) -> None:
        """Write the kernel."""
        b, s = self.b, self.sizes
        turn = self.turned("keys_turned", k, lambda head: head * (s.m * s.e), s.e)
        tiles = self.row_cuts(s.n, self.most_rows)
        most = max(c.size for c in tiles)
        self.weights = b.scratch("weights", self.kind, most * self.stride)
        self.inverse = b.workspace("inverse", self.kind, most)
        self.lane_totals = b.workspace("lane_totals", self.kind, self.lanes)
        with b.loop(s.heads) as head:
            turn(head)
            with b.loop(s.groups) as g:
                queries = (head * s.groups + g) * s.n

                def rows(row: Index, count: int, queries=queries, head=head) -> None:
                    seen = self.seen(row, count)
                    self.products(q, (queries + row) * s.e, count, self.keys_turned, s.e, seen,
                                  self.score(row, seen, self.weights, ZERO))
                    with b.loop(count) as r:
                        self._soften(r, seen, lse, queries + row + r)
                    self._values(count, seen, v, (seen.first * self.width + head * s.m) * s.f, out,
                                 (queries + row) * s.f)

                self.each(tiles, rows)

    def _soften(self, r: Index, seen: Seen, lse: Buffer, at: Index) -> None:
        """Scores of a row to exponentials; one over their sum, and its logarithm."""
        b, row, vectors = self.b, r * self.stride, self.times(seen.count, VECTORS)
        top = self.finite(self.over_lanes(
            vectors, "max", self.minus_infinity, lambda i, a: b.op("max", a, b.load(self.weights, row + i))
        ))

        def step(i: Index, total: Value) -> Value:
            weight = b.op("exp", b.op("sub", b.load(self.weights, row + i), top))
            b.store(self.weights, row + i, weight)
            return b.op("add", total, weight)

        total = self.over_lanes(vectors, "add", self.zero, step)
        one = b.constant(1.0, self.kind)
        b.store(self.inverse, r, b.op("select", b.op("eq", total, self.zero), one, b.op("div", one, total)))
        b.store(lse, at, b.op("add", b.op("log", total), top))

    def _values(self, rows: int, seen: Seen, v: Buffer, at: Index, out: Buffer, to: Index) -> None:
        b = self.b

        def put(r: int, column: Index, total: Value) -> None:
            b.store(out, to + (column + r * self.sizes.f), b.op("mul", total, b.load(self.inverse, r)))

        self.weighted(lambda r, k: b.load(self.weights, k + r * self.stride), rows, seen.keys, v, at, self.sizes.f, put)


# --- backward ---------------------------------------------------------------------------------------------------------


class Arrays(NamedTuple):
    """What the backward kernel reads and writes."""

    ct: Buffer
    q: Buffer
    k: Buffer
    v: Buffer
    out: Buffer
    lse: Buffer
    dq: Buffer
    dk: Buffer
    dv: Buffer


class Backward(Kernel):
    """The cotangents of query, key and value."""

    def write(self, x: Arrays) -> None:
        """Write the kernel."""
        b, s = self.b, self.sizes
        turns = [self.turned("keys_turned", x.k, lambda head: head * (s.m * s.e), s.e),
                 self.turned("values_turned", x.v, lambda head: head * (s.m * s.f), s.f)]
        blocks = self.row_cuts(s.n, BLOCK) if s.n > self.most_rows else [Cut(0, 1, s.n)]
        most = max(c.size for c in blocks)
        self.weights, self.pulled = (b.scratch(n, self.kind, most * self.stride) for n in ("weights", "pulled"))
        self.keys_sum = b.scratch("keys_sum", self.kind, self.stride * s.e)
        self.values_sum = b.scratch("values_sum", self.kind, self.stride * s.f)
        self.lane_totals = b.workspace("lane_totals", self.kind, self.lanes)
        with b.loop(s.heads) as head:
            for turn in turns:
                turn(head)
            b.fill(self.keys_sum, self.keys_sum.size)
            b.fill(self.values_sum, self.values_sum.size)
            with b.loop(s.groups) as g:
                queries = (head * s.groups + g) * s.n
                self.each(blocks, lambda row, count, queries=queries, head=head: self._block(
                    x, head, queries, row, count))
            b.copy(x.dk, self.keys_sum, s.m * s.e, at=head * (s.m * s.e))
            b.copy(x.dv, self.values_sum, s.m * s.f, at=head * (s.m * s.f))

    def _block(self, x: Arrays, head: Index, queries: Index, row: Index, count: int) -> None:
        b, s, seen = self.b, self.sizes, self.seen(row, count)
        at = queries + row

        def rows(r: Index, few: int) -> None:
            into = r * self.stride
            self.products(x.q, (at + r) * s.e, few, self.keys_turned, s.e, seen,
                          self.score(row + r, seen, self.weights, into))
            self.products(x.ct, (at + r) * s.f, few, self.values_turned, s.f, seen,
                          lambda k, column, value: b.store(self.pulled, into + (column + k * self.stride), value))

        tiles = self.row_cuts(count, self.most_rows)
        self.each(tiles, rows)
        with b.loop(count) as r:
            self._pull(x, r, seen, at + r)
        self.each(tiles, lambda r, few: self._to_queries(x, head, r, few, seen, at + r))
        self._to_keys(self.pulled, x.q, at * s.e, s.e, count, seen, self.keys_sum)
        self._to_keys(self.weights, x.ct, at * s.f, s.f, count, seen, self.values_sum)

    def _pull(self, x: Arrays, r: Index, seen: Seen, at: Index) -> None:
        """Scores of a row to weights, and the products beside them to the scores' cotangents."""
        b, f = self.b, self.sizes.f

        def step(d: Index, total: Value) -> list[Value]:
            return [b.op("add", total, b.op("mul", b.load(x.ct, at * f + d), b.load(x.out, at * f + d)))]

        total = b.reduce(f, [self.zero], step, combine=["add"], vector=True)[0]
        lse, factor = self.finite(b.load(x.lse, at)), b.constant(self.factor, self.kind)
        with b.loop(self.lanes, vector=True) as lane, b.loop(self.times(seen.count, VECTORS)) as t:
            place = r * self.stride + t * self.lanes + lane
            weight = b.op("exp", b.op("sub", b.load(self.weights, place), lse))
            pulled = b.op("mul", b.op("mul", weight, b.op("sub", b.load(self.pulled, place), total)), factor)
            b.store(self.weights, place, weight)
            b.store(self.pulled, place, b.op("select", b.op("eq", weight, self.zero), self.zero, pulled))

    def _to_queries(self, x: Arrays, head: Index, r: Index, few: int, seen: Seen, at: Index) -> None:
        b, s = self.b, self.sizes
        self.weighted(
            lambda k, j: b.load(self.pulled, r * self.stride + (j + k * self.stride)), few, seen.keys,
            x.k, (seen.first * self.width + head * s.m) * s.e, s.e,
            lambda k, column, total: b.store(x.dq, (at + k) * s.e + column, total),
        )

    def _to_keys(self, weights: Buffer, x: Buffer, at: Index, size: int, count: int, seen: Seen, total: Buffer) -> None:
        """total[j] += sum over the block's queries i of weights[i, j] x[i]."""
        b, keys = self.b, self.width // 4
        with b.loop(self.times(seen.count, 4)) as t:
            first = t * keys
            to = (seen.first * self.width + first) * size

            def put(k: int, column: Index, value: Value) -> None:
                place = to + (column + k * size)
                b.store(total, place, b.op("add", b.load(total, place), value))

            self.weighted(lambda k, i: b.load(weights, first + (i * self.stride + k)), keys, count, x, at, size, put)


# --- the rules --------------------------------------------------------------------------------------------------------


def _sizes(q: Any, k: Any, v: Any, groups: int) -> Sizes:
    return Sizes(k.shape[0], groups, q.shape[1], k.shape[1], q.shape[2], v.shape[2])


@kernel_rules.register(attention_p)
def _(b, inputs, outputs, *, factor, before, after, groups):
    q, k, v = inputs
    sizes = _sizes(q, k, v, groups)
    Forward(b, sizes, q.kind, factor, before, after).write(*(x.buffer for x in (*inputs, *outputs)))


@kernel_rules.register(attention_cotangents_p)
def _(b, inputs, outputs, *, factor, before, after, groups):
    _, q, k, v, *_ = inputs
    sizes = _sizes(q, k, v, groups)
    Backward(b, sizes, q.kind, factor, before, after).write(Arrays(*(x.buffer for x in (*inputs, *outputs))))
