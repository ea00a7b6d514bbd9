# SPDX-License-Identifier: MIT
"""Kernels of attention, forward and backward, that keep the weights of a few queries only.

    for each head                                   keys are copied into panels of columns, backward the values too
      for a few queries (a block)
        scores[i, j] = factor q[i] . k[j]           register tiles, over the panels that the block can see
        weights[i, j] = exp(scores - top)           the rows stay in the first- or second-level cache
        out[i] = sum over j of weights[i, j] v[j] / total[i]

A mask's rows are copied beside the scores, and the first and last key that any of them lets through bound the panels,
as the bounds of a causal or windowed attention do. So causal attention is fast with an array for a mask, too.

Backward the weights are computed again from lse, the gradient of the scores is made beside them, and both are added to
the gradients of key and value a block at a time.

Source: T. Dao and others, "FlashAttention", arXiv:2205.14135, with whole rows of scores in the place of its running
maximum: a row is short against the caches of a CPU.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.nodes import Buffer, Index, Value
from functorch_lite.compiler.lowering.attention_tiles import FEWEST_ROWS, VECTORS, Kernel, Seen, Sizes
from functorch_lite.compiler.lowering.rules import Operand, kernel_rules
from functorch_lite.compiler.lowering.tiles import Cut, row_cuts
from functorch_lite.primitives.attention import attention_cotangents_p, attention_p

BLOCK = 32  # queries of a block of the backward kernel

# --- forward ----------------------------------------------------------------------------------------------------------


class Forward(Kernel):
    """out and lse of every query."""

    def write(self, q: Buffer, k: Buffer, v: Buffer, out: Buffer, lse: Buffer) -> None:
        """Write the kernel."""
        b, s = self.b, self.sizes
        keys, turn = self.turned("keys_turned", k, s.e)
        self.weights = b.scratch("weights", self.kind, self.most * self.stride)
        self.tops, self.totals, self.inverse = (
            b.workspace(name, self.kind, self.most) for name in ("tops", "totals", "inverse")
        )
        with b.loop(s.heads) as head:
            turn(head)
            b.fill(self.weights, self.weights.size)  # what is written for sure, threads may have each for themselves
            n = s.groups * s.n
            scored = [(k, head * (s.m * s.e), s.m * s.e), (q, head * (n * s.e), n * s.e)]
            self.find_infinities((v, head * (s.m * s.f), s.m * s.f), *(() if self.selects else scored))
            with b.loop(s.groups) as g:
                queries = self.queries_of(head, g)

                def rows(row: Index, count: int, queries=queries, head=head) -> None:
                    seen = self.seen(row, count)
                    self.each(self.tiles_of(count), lambda r, few: self.products(
                        q, (queries + row + r) * s.e, few, keys, s.e, seen,
                        self.score(row + r, seen, self.weights, r * self.stride)))
                    with b.loop(count) as r:
                        self._soften(r, seen)
                    self._sums(count, lse, queries + row)
                    at = (seen.first * self.width + head * s.m) * s.f
                    self.each(self.tiles_of(count), lambda r, few: self._values(
                        r, few, seen, v, at, out, (queries + row + r) * s.f))

                self.each(self.parts, rows)

    def _soften(self, r: Index, seen: Seen) -> None:
        """Scores of a row to exponentials, with their sum."""
        b, row, vectors = self.b, r * self.stride, self.times(seen.count, VECTORS)
        top = self.finite(self.over_lanes(
            vectors, "max", self.minus_infinity, lambda i, a: b.op("max", a, b.load(self.weights, row + i))
        ))

        def step(i: Index, total: Value) -> Value:
            weight = b.op("exp", b.op("sub", b.load(self.weights, row + i), top))
            b.store(self.weights, row + i, weight)
            return b.op("add", total, weight)

        b.store(self.tops, r, top)
        b.store(self.totals, r, self.over_lanes(vectors, "add", self.zero, step))

    def _sums(self, count: int, lse: Buffer, at: Index) -> None:
        """One over the sum of each row, and its logarithm."""
        b, one = self.b, self.b.constant(1.0, self.kind)
        with b.loop(count, vector=True) as r:
            total = b.load(self.totals, r)
            inverse = b.op("div", one, total)
            if not self.strict:
                inverse = b.op("select", b.op("eq", total, self.zero), one, inverse)
            b.store(self.inverse, r, inverse)
            top = b.load(self.tops, r)
            found = b.op("add", b.op("log", total), top)
            if self.strict:  # infinite for a query that sees nothing: NaN
                found = b.op("add", found, b.op("sub", top, top))
            b.store(lse, at + r, found)

    def _values(
        self, first: Index, rows: int, seen: Seen, v: Buffer, at: Index, out: Buffer, to: Index
    ) -> None:
        """The outputs of some rows of a block."""
        b = self.b

        def put(r: int, column: Index, total: Value) -> None:
            b.store(out, to + (column + r * self.sizes.f), b.op("mul", total, b.load(self.inverse, first + r)))

        self.weighted(lambda r, k: b.load(self.weights, k + (first + r) * self.stride), rows, seen.keys, v, at,
                      self.sizes.f, put)


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

    def parts_of_queries(self) -> list[Cut]:
        """Blocks of queries, which are several tiles of rows."""
        n = self.sizes.n
        return row_cuts(n, BLOCK, FEWEST_ROWS) if n > self.most_rows else [Cut(0, 1, n)]

    def write(self, x: Arrays) -> None:
        """Write the kernel."""
        b, s = self.b, self.sizes
        self.keys_turned, turn_keys = self.turned("keys_turned", x.k, s.e)
        self.values_turned, turn_values = self.turned("values_turned", x.v, s.f)
        self.weights, self.pulled = (b.scratch(n, self.kind, self.most * self.stride) for n in ("weights", "pulled"))
        self.keys_sum = b.scratch("keys_sum", self.kind, self.stride * s.e)
        self.values_sum = b.scratch("values_sum", self.kind, self.stride * s.f)
        with b.loop(s.heads) as head:
            turn_keys(head)
            turn_values(head)
            b.fill(self.weights, self.weights.size)  # as in Forward
            b.fill(self.pulled, self.pulled.size)
            rows = s.groups * s.n
            self.find_infinities((x.k, head * (s.m * s.e), s.m * s.e), (x.q, head * (rows * s.e), rows * s.e),
                                 (x.ct, head * (rows * s.f), rows * s.f), (x.lse, head * rows, rows))
            b.fill(self.keys_sum, self.keys_sum.size)
            b.fill(self.values_sum, self.values_sum.size)
            with b.loop(s.groups) as g:
                queries = self.queries_of(head, g)
                self.each(self.parts, lambda row, count, queries=queries, head=head: self._block(
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

        tiles = self.tiles_of(count)
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
            score = b.load(self.weights, place)
            weight = b.op("exp", b.op("sub", score, lse))
            pulled = b.op("mul", b.op("mul", weight, b.op("sub", b.load(self.pulled, place), total)), factor)
            b.store(self.weights, place, weight)
            gone = b.op("eq", weight, self.zero)
            if self.strict and self.selects:
                gone = b.op("or", gone, b.op("eq", score, self.minus_infinity))
            b.store(self.pulled, place, b.op("select", gone, self.zero, pulled))

    def _to_queries(self, x: Arrays, head: Index, r: Index, few: int, seen: Seen, at: Index) -> None:
        b, s = self.b, self.sizes
        self.weighted(
            lambda k, j: b.load(self.pulled, r * self.stride + (j + k * self.stride)), few, seen.keys,
            x.k, (seen.first * self.width + head * s.m) * s.e, s.e,
            lambda k, column, total: b.store(x.dq, (at + k) * s.e + column, total),
        )

    def _to_keys(self, weights: Buffer, x: Buffer, at: Index, size: int, count: int, seen: Seen, total: Buffer) -> None:
        """total[j] += sum over the block's queries i of weights[i, j] x[i]."""
        b, parts = self.b, 8 if self.b.brief else 4
        keys = self.width // parts
        with b.loop(self.times(seen.count, parts)) as t:
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
def _(b, inputs, outputs, *, factor, before, after, groups, strict=False):
    q, k, v, *mask = inputs
    kernel = Forward(b, _sizes(q, k, v, groups), q.kind, factor, before, after, strict, _mask(mask))
    kernel.write(*(x.buffer for x in (q, k, v, *outputs)))


@kernel_rules.register(attention_cotangents_p)
def _(b, inputs, outputs, *, factor, before, after, groups, strict=False):
    arrays = inputs[:6]
    _, q, k, v, *_ = arrays
    kernel = Backward(b, _sizes(q, k, v, groups), q.kind, factor, before, after, strict, _mask(inputs[6:]))
    kernel.write(Arrays(*(x.buffer for x in (*arrays, *outputs))))


def _mask(mask: Sequence[Operand]) -> Operand | None:
    """The mask, if there is one with elements."""
    return mask[0] if mask and 0 not in mask[0].shape else None
