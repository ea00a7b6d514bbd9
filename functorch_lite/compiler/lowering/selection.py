# SPDX-License-Identifier: MIT
"""Many of the largest entries of a long row, without sorting the row.

The key of the k-th largest is found digit by digit, the most significant first: the digits of the keys that begin as it
does are counted, and where the counts reach k is its next digit. Then the row is read once more for what is larger, and
the first ones that are equal, and those k are sorted.

Source: Alabi et al., "Fast k-Selection Algorithms for Graphics Processing Units" (2012), section on radix select.
"""

from collections.abc import Callable
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.radix import Words, make_words, ordered_key, sort_words
from functorch_lite.compiler.lowering.rules import Operand

DIGIT = 11
SHARE = 4
"""Selected is at most one of so many entries; more are sorted with the rest."""


class Selection(NamedTuple):
    """Selects the k largest of rows of x, of n entries each. words: working space for them; counts: of digits."""

    b: Builder
    x: Operand
    n: int
    k: int
    words: Words
    counts: Buffer

    @property
    def bits(self) -> int:
        """The bits of a key."""
        return 8 * ITEM_BYTES[self.x.kind]

    def key(self, at: Index) -> Value:
        """An unsigned integer, the smaller the larger the entry."""
        b = self.b
        key = ordered_key(b, self.x.load(b, at))
        return b.op("xor", key, b.constant((1 << self.bits) - 1, key.kind))

    def sorted_places(self, base: Index) -> Index:
        """Where in the words the positions of the largest begin, in order, of the row that begins at `base`."""
        b = self.b
        last, ties = self._last_key(base)

        def look(i, at, ties):
            key = self.key(base + i)
            tie = b.op("and", b.op("eq", key, last), b.op("gt", ties, b.constant(0, "i64")))

            def take():
                self.words.put(b.index_of(at), key, b.value_of(i))
                return [b.op("add", at, b.constant(1, "i64")), b.op("sub", ties, b.op("convert", tie, kind="i64"))]

            return b.branch(b.op("or", b.op("lt", key, last), tie), take, lambda: [at, ties])

        b.reduce(self.n, [b.constant(0, "i64"), ties], look)
        return sort_words(self.words, ZERO, self.bits)

    def _last_key(self, base: Index) -> tuple[Value, Value]:
        """The k-th key, and how many of the entries with it are selected (i64)."""
        b = self.b
        left, begun, done = b.constant(self.k, "i64"), b.constant(0, self.kind), 0
        while done < self.bits:
            width = min(DIGIT, self.bits - done)
            self._count(base, begun, done, width)
            digit, before = self._digit(left, width)
            left = b.op("sub", left, before)
            begun = b.op("or", b.op("shl", begun, b.constant(width, self.kind)), b.op("convert", digit, kind=self.kind))
            done += width
        return begun, left

    @property
    def kind(self) -> str:
        """The kind of a key."""
        return "u64" if self.bits == 64 else "u32"

    def _count(self, base, begun, done, width):
        """Count the digits that follow the `done` first bits in keys whose bits these are, `begun`."""
        b = self.b
        rest = self.bits - done - width
        b.fill(self.counts, 1 << width)

        def count(key):
            digit = b.op("and", b.op("shr", key, b.constant(rest, self.kind)), b.constant((1 << width) - 1, self.kind))
            place = b.index_of(b.op("convert", digit, kind="i64"))
            b.store(self.counts, place, b.op("add", b.load(self.counts, place), b.constant(1, self.counts.kind)))

        with b.loop(self.n) as i:
            key = self.key(base + i)
            if not done:
                count(key)
            else:
                alike = b.op("eq", b.op("shr", key, b.constant(rest + width, self.kind)), begun)
                b.branch(alike, lambda key=key: count(key))

    def _digit(self, left, width):
        """The digit at which the counts reach `left`, and how many come before it."""
        b = self.b
        none = b.constant(0, "i64")

        def step(j, seen, digit, before):
            goes_on = b.op("lt", seen, left)
            count = b.op("convert", b.load(self.counts, j), kind="i64")
            return [b.op("add", seen, count), b.op("select", goes_on, b.value_of(j), digit),
                    b.op("select", goes_on, seen, before)]

        _, digit, before = b.reduce(1 << width, [none, none, none], step)
        return digit, before


def pays(n: int, k: int, size: int) -> bool:
    """Whether to select k of n keys of `size` bytes rather than to sort them all."""
    return k * SHARE <= n and n >= 256 * size


def select_largest(
    b: Builder, x: Operand, rows: int, k: int, store: Callable[[Index, Index, Value], None]
) -> None:
    """`store(row, i, place)` for the k largest of each row: number i, the larger ones first, is at `place`."""
    n, large = x.shape[-1], "i32" if x.shape[-1] < 1 << 31 else "i64"
    words = make_words(b, k, 8 * ITEM_BYTES[x.kind], ordered=True)
    s = Selection(b, x, n, k, words, b.workspace("found", large, 1 << DIGIT))
    with b.loop(rows) as r:
        if rows > 1:  # so that it is plain that rows leave nothing to one another
            for buffer in words.buffers:
                b.fill(buffer, buffer.size)
        at = s.sorted_places(r * n)
        with b.loop(k, vector=True) as i:
            store(r, i, words.position(at + i))
