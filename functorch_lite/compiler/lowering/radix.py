# SPDX-License-Identifier: MIT
"""Sorting keys that are unsigned integers, in loop IR.

Every key becomes an unsigned integer that sorts alike: NaN last, -0 equal to 0. Words are sorted stably, some bits a
pass, the least significant first (radix sort), a short row by insertion. Several keys are several such sorts, the last
key first; an entry's position travels with it, in the low half of a 64-bit word where the key leaves room.

Source: Knuth, "The Art of Computer Programming", volume 3, sections 5.2.1 and 5.2.5.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.rules import Element, Operand

SHORT = 64
"""Rows up to this length are sorted by insertion."""
LONG = 1 << 18
"""Rows from this length on are sorted in parts."""
PARTS = 8
FAR_BYTES = 512 << 10
LINE_BYTES = 64


class Key(NamedTuple):
    """One key to sort by: `at(i)` is that of entry i as an unsigned integer, of which `bits` count."""

    at: Callable[[Index], Value]
    bits: int


# --- keys that sort as integers ---------------------------------------------------------------------------------------


def ordered_key(b: Builder, v: Value) -> Value:
    """A u32 (u64 for 64-bit kinds) that sorts as v does: NaN is greater than all, -0 equal to 0."""
    size = 8 * ITEM_BYTES[v.kind]
    kind = "u64" if size == 64 else "u32"
    if v.kind == "bool" or v.kind[0] == "u":
        return b.op("convert", v, kind=kind)
    if v.kind[0] == "i":
        wide = b.op("convert", v, kind="i" + kind[1:])
        return b.op("convert", b.op("xor" if size > 16 else "add", wide, _half(b, size, wide.kind)), kind=kind)
    bits = b.op("bitcast", b.op("add", v, b.constant(0.0, v.kind)), kind=f"i{size}")  # -0 + 0 is 0
    sign = b.op("shr", bits, b.constant(size - 1, bits.kind))
    flipped = b.op("xor", bits, b.op("or", sign, b.constant(-(1 << size - 1), bits.kind)))
    key = b.op("convert", b.op("convert", flipped, kind=f"u{size}"), kind=kind)
    return b.op("select", b.op("is_nan", v), b.constant((1 << size) - 1, kind), key)


def _half(b, size, kind):
    return b.constant(-(1 << size - 1) if size > 16 else 1 << size - 1, kind)


def value_of_key(b: Builder, key: Value, kind: str) -> Value:
    """The value that `ordered_key` made a key of: 0 for -0 and one NaN for all."""
    size = 8 * ITEM_BYTES[kind]
    if kind == "bool" or kind[0] == "u":
        return b.op("convert", key, kind=kind)
    if kind[0] == "i":
        wide = b.op("convert", key, kind="i" + key.kind[1:])
        op = "xor" if size > 16 else "sub"
        return b.op("convert", b.op(op, wide, _half(b, size, wide.kind)), kind=kind)
    flipped = b.op("convert", b.op("convert", key, kind=f"u{size}"), kind=f"i{size}")
    sign = b.op("not", b.op("shr", flipped, b.constant(size - 1, flipped.kind)))
    bits = b.op("xor", flipped, b.op("or", sign, b.constant(-(1 << size - 1), flipped.kind)))
    return b.op("bitcast", bits, kind=kind)


def keys_of(b: Builder, load: Callable[[Index], Element], x: Operand, descending: bool = False) -> list[Key]:
    """The keys of an operand, the most significant first: one, or three of complex numbers (which parts are NaN)."""

    def key(part):
        def at(i):
            found = ordered_key(b, part(load(i)))
            return b.op("not", found) if descending else found

        return at

    size = 8 * ITEM_BYTES[x.kind]
    if x.aval.dtype.kind != "c":
        return [Key(key(lambda v: v), size)]
    parts = [Key(key(lambda v: v.real), size), Key(key(lambda v: v.imag), size)]
    return [Key(lambda i: _nan_class(b, load(i), f"u{size}"), 8), *parts]


def _nan_class(b, v, kind):
    real = b.op("select", b.op("is_nan", v.real), b.constant(2, kind), b.constant(0, kind))
    return b.op("add", real, b.op("convert", b.op("is_nan", v.imag), kind=kind))


# --- sorting keys -----------------------------------------------------------------------------------------------------


class Words(NamedTuple):
    """The words being sorted, in one half of `keys`: keys, or keys << 32 with positions below, or `order` beside.

    parts: how many the row is cut into, 0 for insertion. digit: the bits of a digit. counts: of digits.
    """

    b: Builder
    n: int
    keys: Buffer
    order: Buffer | None
    counts: Buffer | None
    packed: bool
    parts: int
    digit: int

    @property
    def radix(self) -> int:
        """How many digits there are."""
        return 1 << self.digit

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Those that hold words."""
        return (self.keys,) if self.order is None else (self.keys, self.order)

    @property
    def kind(self) -> str:
        return self.keys.kind

    @property
    def is_far(self) -> bool:
        """Whether words are in no near cache: a store would wait for its line, so each fetches the next of its digit.

        A million 64-bit words are moved by 8 bits in 2.3 ms in place of 7.5, by 11 bits in 3.8 in place of 7.8.
        """
        return sum(buffer.nbytes for buffer in self.buffers) >= FAR_BYTES

    def clear(self) -> None:
        """Write the half that is not written first, so that it is plain that rows leave nothing to one another."""
        if self.n > SHORT:
            for buffer in self.buffers:
                self.b.fill(buffer, self.n, Index(self.n))

    def position(self, at: Index) -> Value:
        """The position (i64) that an entry came from."""
        if self.order is not None:
            return self.b.op("convert", self.b.load(self.order, at), kind="i64")
        return self.b.op("convert", self.b.op("convert", self.b.load(self.keys, at), kind="u32"), kind="i64")

    def put(self, at: Index, key: Value, position: Value | None) -> None:
        """Write an entry."""
        b = self.b
        key = b.op("convert", key, kind=self.kind)
        if self.packed and position is not None:
            low = b.op("convert", position, kind="u64")
            key = b.op("or", b.op("shl", key, b.constant(32, "u64")), low)
        b.store(self.keys, at, key)
        if self.order is not None and position is not None:
            b.store(self.order, at, b.op("convert", position, kind=self.order.kind))

    def key(self, word: Value) -> Value:
        """The key in a word."""
        return self.b.op("shr", word, self.b.constant(32, "u64")) if self.packed else word


def make_words(b: Builder, n: int, bits: int, ordered: bool) -> Words:
    """Working space to sort n keys of at most so many bits, with their positions if `ordered`."""
    packed = ordered and bits <= 32 and n < 1 << 32
    large = "i32" if n < 1 << 31 else "i64"
    length = n if n <= SHORT else 2 * n
    keys = b.workspace("keys", "u64" if packed or bits > 32 else "u32", length)
    order = b.workspace("order", large, length) if ordered and not packed else None
    parts, digit = (PARTS, 11) if n >= LONG else (1, 8)
    rows = PARTS + 1 if parts > 1 else max(bits // digit, 1)
    counts = b.workspace("counts", large, rows << digit) if n > SHORT else None
    return Words(b, n, keys, order, counts, packed, parts, digit)


def sorted_order(w: Words, keys: Sequence[Key]) -> Index:
    """Sort positions by the keys, the most significant first; returns where in `keys` or `order` they begin."""
    b, at = w.b, ZERO
    for number, key in enumerate(reversed(keys)):
        with b.loop(w.n, vector=True) as i:
            position = b.value_of(i) if number == 0 else w.position(at + i)
            w.put(at + i, key.at(i if number == 0 else b.index_of(position)), position)
        at = sort_words(w, at, key.bits)
    return at


def sort_words(w: Words, at: Index, bits: int) -> Index:
    """Sort the words that begin at `at` by their keys; returns where the sorted ones begin: 0 or n."""
    if w.n < 2:
        return at
    if w.counts is None:
        _insertion_sort(w, at)
        return at
    sort = _radix_sort if w.parts == 1 else _sort_in_parts
    return sort(w, w.counts, at, max(-(-bits // w.digit), 1))


def _insertion_sort(w, at):
    b = w.b
    zero, one = b.constant(0, "i64"), b.constant(1, "i64")
    with b.loop(w.n - 1) as i:
        word = b.load(w.keys, at + i + 1)
        origin = None if w.order is None else b.load(w.order, at + i + 1)

        def before_is_greater(j, word=word):
            before = b.load(w.keys, at + b.index_of(b.op("max", b.op("sub", j, one), zero)))
            return b.op("and", b.op("gt", j, zero), b.op("gt", w.key(before), w.key(word)))

        def shift(j):
            to = at + b.index_of(j)
            for buffer in w.buffers:
                b.store(buffer, to, b.load(buffer, to - 1))
            return [b.op("sub", j, one)]

        j = b.loop_while([b.value_of(i + 1)], before_is_greater, shift)[0]
        b.store(w.keys, at + b.index_of(j), word)
        if origin is not None:
            b.store(w.order, at + b.index_of(j), origin)


def _radix_sort(w, counts, at, digits):
    _count_digits(w, counts, at, digits)
    source = w.b.value_of(at)
    for d in range(digits):
        source = _one_pass(w, counts, d, source)
    return w.b.index_of(source)


def _one_pass(w, counts, d, source):
    """Move the words to the other half in the order of digit d, unless they have one digit; returns where they are."""
    b, n = w.b, w.n
    row, shift = Index(d << w.digit), _shift(w, d)
    start = b.index_of(source)
    first = _count_index(w, row, b.load(w.keys, start), shift)
    alike = b.op("eq", b.load(counts, first), b.constant(n, counts.kind))
    target = b.op("sub", b.constant(n, "i64"), source)

    def move():
        _places(w, counts, row, 1)
        _move(w, counts, row, shift, start, n, b.index_of(target))
        return [target]

    return b.branch(alike, lambda: [source], move)[0]


def _shift(w, d):
    return w.b.constant(w.digit * d + (32 if w.packed else 0), w.kind)


def _count_index(w, row, word, shift):
    """The place of a word's digit in a row of the counts."""
    b = w.b
    digit = b.op("and", b.op("shr", word, shift), b.constant(w.radix - 1, w.kind))
    return row + b.index_of(b.op("convert", digit, kind="i64"))


def _count_digits(w, counts, at, digits):
    b = w.b
    b.fill(counts, digits * w.radix)
    with b.loop(w.n) as i:
        word = b.load(w.keys, at + i)
        for d in range(digits):
            _count_one(w, counts, _count_index(w, Index(d << w.digit), word, _shift(w, d)))


def _count_one(w, counts, place):
    """Count a digit; returns how often it came before."""
    b = w.b
    before = b.load(counts, place)
    b.store(counts, place, b.op("add", before, b.constant(1, counts.kind)))
    return before


def _places(w, counts, row, rows):
    """Make counts the number of words before: with smaller digits, or with the same in the rows before."""
    b = w.b

    def step(j, k, total):
        at = row + k * w.radix + j
        count = b.load(counts, at)
        b.store(counts, at, total)
        return [b.op("add", total, count)]

    b.reduce(w.radix, [b.constant(0, counts.kind)],
             lambda j, before: b.reduce(rows, [before], lambda k, total: step(j, k, total)))


def _move(w, counts, row, shift, start, count, target):
    """Move words to where their digits begin in the half at `target`, one behind the other."""
    b = w.b
    with b.loop(count) as i:
        word = b.load(w.keys, start + i)
        to = _count_one(w, counts, _count_index(w, row, word, shift))
        goal = target + b.index_of(b.op("convert", to, kind="i64"))
        b.store(w.keys, goal, word)
        if w.order is not None:
            b.store(w.order, goal, b.load(w.order, start + i))
        if w.is_far:
            for buffer in w.buffers:
                b.prefetch(buffer, goal + LINE_BYTES // ITEM_BYTES[buffer.kind], near=True)


# --- in parts ---------------------------------------------------------------------------------------------------------


def _sort_in_parts(w, counts, at, digits):
    source = w.b.value_of(at)
    for d in range(digits):
        source = _pass_in_parts(w, counts, _shift(w, d), source)
    return w.b.index_of(source)


def _pass_in_parts(w, counts, shift, source):
    """As `_one_pass`, for a digit that is counted now."""
    b, start = w.b, w.b.index_of(source)
    mine = b.local("mine", counts.kind, w.radix)

    def count(row, begin, length):
        b.fill(mine, w.radix)
        with b.loop(length) as i:
            _count_one(w, mine, _count_index(w, ZERO, b.load(w.keys, begin + i), shift))
        with b.loop(w.radix, vector=True) as j:
            b.store(counts, row + j, b.load(mine, j))

    rows = _each_part(w, start, count)
    first = _count_index(w, ZERO, b.load(w.keys, start), shift)
    found = b.reduce(rows, [b.constant(0, counts.kind)],
                     lambda k, total: [b.op("add", total, b.load(counts, first + k * w.radix))])[0]
    target = b.op("sub", b.constant(w.n, "i64"), source)

    def move(row, begin, length):
        with b.loop(w.radix, vector=True) as j:
            b.store(mine, j, b.load(counts, row + j))
        _move(w, mine, ZERO, shift, begin, length, b.index_of(target))

    def move_all():
        _places(w, counts, ZERO, rows)
        _each_part(w, start, move, apart=w.buffers)
        return [target]

    return b.branch(b.op("eq", found, b.constant(w.n, counts.kind)), lambda: [source], move_all)[0]


def _each_part(w, start, do, apart=()):
    """`do(row, begin, length)` for each part and for what is left at the end; returns how many that were."""
    length, left = divmod(w.n, w.parts)
    with w.b.loop(w.parts, apart=apart) as g:
        do(g * w.radix, start + g * length, length)
    if left:
        do(Index(w.parts * w.radix), start + w.parts * length, left)
    return w.parts + bool(left)
