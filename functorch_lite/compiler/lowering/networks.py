# SPDX-License-Identifier: MIT
"""Sorting many rows in step, one a lane, by a sorting network: comparisons that do not depend on the entries.

The rows are transposed into a tile, so that entry i of all of them is one contiguous vector. Short networks are written
out and run in registers; longer ones are loops over the tile.

Source: Batcher, "Sorting networks and their applications", 1968; Knuth, "The Art of Computer Programming", volume 3,
section 5.2.2, algorithm M.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Buffer, Index, Value

WRITTEN_OUT = 16
"""Rows up to this length have all their comparisons written out."""
_VECTOR_BYTES = 64


class Round(NamedTuple):
    """Comparisons of one round: entries i and i + distance, for i in [start, n - distance) with i & step = start."""

    start: int
    step: int
    distance: int


def rounds(n: int) -> Iterator[Round]:
    """The rounds that sort n entries (merge exchange)."""
    half = 1 << max((n - 1).bit_length() - 1, 0)
    step = half if n > 1 else 0
    while step > 0:
        q, start, distance = half, 0, step
        while distance > 0:
            yield Round(start, step, distance)
            distance, q, start = q - step, q // 2, step
        step //= 2


def comparisons(n: int) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, whose entries are put in order one pair after the other."""
    for start, step, distance in rounds(n):
        yield from ((i, i + distance) for i in range(n - distance) if i & step == start)


class Tile(NamedTuple):
    """Rows side by side: entry i of row r at i * lanes + r. `places` come along where words do not hold them."""

    b: Builder
    n: int
    lanes: int
    words: Buffer
    places: Buffer | None

    def sort(self) -> None:
        """Sort every row by its words, and by places where they are equal."""
        if self.n <= WRITTEN_OUT:
            self._sort_in_registers()
            return
        for start, step, distance in rounds(self.n):
            end = self.n - distance
            full, left = divmod(max(end - start, 0), 2 * step)
            if left >= step:
                full, left = full + 1, 0
            if full:
                with self.b.loop(full) as m, self.b.loop(step) as t:
                    self._exchange(m * (2 * step) + t + start, distance)
            if left:
                with self.b.loop(left) as t:
                    self._exchange(t + (2 * step * full + start), distance)

    def _exchange(self, i: Index, distance: int) -> None:
        """Put entries i and i + distance of every row in order."""
        with self.b.loop(self.lanes, vector=True) as lane:
            at = [i * self.lanes + lane, (i + distance) * self.lanes + lane]
            self._put(at, self._ordered(*self._entries(at)))

    def _sort_in_registers(self) -> None:
        with self.b.loop(self.lanes, vector=True) as lane:
            at = [lane + i * self.lanes for i in range(self.n)]
            entries = self._entries(at)
            for i, j in comparisons(self.n):
                entries[i], entries[j] = self._ordered(entries[i], entries[j])
            self._put(at, entries)

    def _entries(self, at: list[Index]) -> list[list[Value]]:
        return [[self.b.load(buffer, i) for buffer in (self.words, self.places) if buffer is not None] for i in at]

    def _put(self, at: list[Index], entries: list[list[Value]]) -> None:
        for i, entry in zip(at, entries, strict=True):
            for buffer, value in zip((self.words, self.places), entry, strict=False):
                if buffer is not None:
                    self.b.store(buffer, i, value)

    def _ordered(self, x: list[Value], y: list[Value]) -> list[list[Value]]:
        """The smaller entry, then the larger one."""
        b = self.b
        if self.places is None:
            return [[b.op("min", x[0], y[0])], [b.op("max", x[0], y[0])]]
        tie = b.op("and", b.op("eq", x[0], y[0]), b.op("gt", x[1], y[1]))
        swap = b.op("or", b.op("gt", x[0], y[0]), tie)
        return [
            [b.op("select", swap, v, u) for u, v in zip(x, y, strict=True)],
            [b.op("select", swap, u, v) for u, v in zip(x, y, strict=True)],
        ]


def sort_in_step(
    b: Builder, rows: int, n: int, key: Callable[[Index, Index], Value],
    finish: Callable[[Index, Index, Value], None], *, kind: str, ordered: bool, count: int,
) -> None:
    """Sort rows of n entries by `key(row, i)` (u32 or u64, as `kind`), then `finish(row, i, v)` for i < count.

    v is the key at i, or if `ordered` the place (i64) in the row that it came from; equal keys keep their order.
    """
    packed = ordered and kind == "u32"
    word = "u64" if packed else kind
    lanes = min(_VECTOR_BYTES // ITEM_BYTES[word], rows)
    places = b.workspace("tile_places", "i64", n * lanes) if ordered and not packed else None
    tile = Tile(b, n, lanes, b.workspace("tile", word, n * lanes), places)
    with b.loop(-(-rows // lanes)) as k:
        first = k * lanes
        if rows % lanes:  # the last rows are taken with some that were sorted before
            first = b.index_of(b.op("min", b.value_of(first), b.constant(rows - lanes, "i64")))
        with b.loop(lanes) as lane, b.loop(n, vector=True) as i:
            _fill(tile, packed, i * lanes + lane, key(first + lane, i), b.value_of(i))
        tile.sort()
        with b.loop(lanes) as lane, b.loop(count, vector=True) as i:
            at = i * lanes + lane
            found = b.load(tile.words if places is None else places, at)
            if packed:
                found = b.op("convert", b.op("convert", found, kind="u32"), kind="i64")
            finish(first + lane, i, found)


def _fill(tile: Tile, packed: bool, at: Index, key: Value, place: Value) -> None:
    b = tile.b
    if packed:
        high = b.op("shl", b.op("convert", key, kind="u64"), b.constant(32, "u64"))
        key = b.op("or", high, b.op("convert", place, kind="u64"))
    b.store(tile.words, at, key)
    if tile.places is not None:
        b.store(tile.places, at, place)
