# SPDX-License-Identifier: MIT
"""Kernels of the sorting family: sort, index_order and top_k, along the last axis.

One row is sorted by radix.py, several rows that are not long in step by networks.py. The few largest entries of a row
are kept in a list while it is read; more are found by selection.py.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering import selection
from functorch_lite.compiler.lowering.networks import sort_in_step
from functorch_lite.compiler.lowering.radix import (
    SHORT,
    keys_of,
    make_words,
    ordered_key,
    sort_words,
    sorted_order,
    value_of_key,
)
from functorch_lite.compiler.lowering.rules import Operand, kernel_rules
from functorch_lite.primitives.indexing import index_order_p
from functorch_lite.primitives.sorting import sort_p, top_k_p

IN_STEP = {4: 512, 8: 256}
"""Rows up to this length, by the bytes of a word, are sorted in step where there are several."""
LISTED = 64
"""Up to this many largest entries are kept in a sorted list while a row is read."""
BLOCK = 16
"""Entries that are compared at once with the smallest one listed."""
_SEVERAL = 4

# --- sort -------------------------------------------------------------------------------------------------------------


@kernel_rules.register(sort_p)
def _(b, inputs, outputs, *, num_keys, stable):
    x = inputs[0]
    if not x.aval.size:
        return
    if len(inputs) == 1 and x.aval.dtype.kind != "c":
        _sort_values(b, x, outputs[0])
        return

    n = x.shape[-1]
    if num_keys == 1 and len(inputs) == 2 and n > IN_STEP[8] and _fit_in_words(*inputs):
        _sort_pairs(b, inputs, outputs, n)
        return

    def store(row, i, place):
        for x, out in zip(inputs, outputs, strict=True):
            out.store(b, row * n + i, x.load(b, row * n + b.index_of(place)))

    for_each_place(b, inputs[:num_keys], n, store)


def for_each_place(
    b: Builder, operands: Sequence[Operand], count: int, store: Callable[[Index, Index, Value], None],
    descending: bool = False,
) -> None:
    """`store(row, i, place)` for i < count of each row: entry i in the order of the keys is the one at `place`."""
    x = operands[0]
    rows, n = math.prod(x.shape[:-1]), x.shape[-1]
    if len(operands) == 1 and x.aval.dtype.kind != "c" and rows >= _SEVERAL and n <= IN_STEP[8]:

        def key(row, i):
            return keys_of(b, lambda i: x.load(b, row * n + i), x, descending)[0].at(i)

        sort_in_step(b, rows, n, key, store, kind=_key_kind(x), ordered=True, count=count)
        return
    w = make_words(b, n, max(8 * ITEM_BYTES[k.kind] for k in operands), ordered=True)
    with b.loop(rows) as r:
        if rows > 1:
            w.clear()
        keys = [
            key for x in operands
            for key in keys_of(b, lambda i, x=x, base=r * n: x.load(b, base + i), x, descending)
        ]
        at = sorted_order(w, keys)
        with b.loop(count, vector=True) as i:
            store(r, i, w.position(at + i))


def _key_kind(x):
    return "u64" if ITEM_BYTES[x.kind] == 8 else "u32"


def _sort_values(b, x, out):
    """One operand: keys are sorted alone and turned back into values."""
    rows, n = math.prod(x.shape[:-1]), x.shape[-1]
    if rows >= _SEVERAL and n <= IN_STEP[ITEM_BYTES[_key_kind(x)]]:
        sort_in_step(
            b, rows, n, lambda row, i: ordered_key(b, x.load(b, row * n + i)),
            lambda row, i, key: out.store(b, row * n + i, value_of_key(b, key, x.kind)),
            kind=_key_kind(x), ordered=False, count=n,
        )
    else:
        _sort_each(b, x, out, rows, n)
    if x.kind in ("f16", "bf16", "f32", "f64"):
        _restore_alike(b, x, out, rows, n)


def _sort_each(b, x, out, rows, n):
    bits = 8 * ITEM_BYTES[x.kind]
    w = make_words(b, n, bits, ordered=False)
    with b.loop(rows) as r:
        if rows > 1:
            w.clear()
        with b.loop(n, vector=True) as i:
            w.put(i, ordered_key(b, x.load(b, r * n + i)), None)
        at = sort_words(w, ZERO, bits)
        with b.loop(n, vector=True) as i:
            out.store(b, r * n + i, value_of_key(b, b.load(w.keys, at + i), x.kind))


def _fit_in_words(x, payload):
    """Whether keys, which can be turned back into values, and what goes with them are the halves of 64-bit words."""
    return x.kind in ("bool", "i8", "u8", "i16", "u16", "i32", "u32") and payload.kind in ("i32", "u32", "f32") and (
        payload.aval.dtype.kind != "c")


def _sort_pairs(b, inputs, outputs, n):
    """Integer keys with a number each, which is in the lower half of the key's word: nothing is looked up."""
    (x, payload), (keys, found) = inputs, outputs
    bits = 8 * ITEM_BYTES[x.kind]
    w = make_words(b, n, bits, ordered=True)
    with b.loop(math.prod(x.shape[:-1])) as r:
        if x.aval.size > n:
            w.clear()
        with b.loop(n, vector=True) as i:
            w.put(i, ordered_key(b, x.load(b, r * n + i)), b.op("bitcast", payload.load(b, r * n + i), kind="u32"))
        at = sort_words(w, ZERO, bits)
        with b.loop(n, vector=True) as i:
            word = b.load(w.keys, at + i)
            key = b.op("convert", w.key(word), kind="u32")
            keys.store(b, r * n + i, value_of_key(b, key, x.kind))
            found.store(b, r * n + i, b.op("bitcast", b.op("convert", word, kind="u32"), kind=payload.kind))


def _restore_alike(b, x, out, rows, n):
    """Put zeros and NaNs, whose keys do not tell them apart, where they belong in their given order."""
    bits = f"i{8 * ITEM_BYTES[x.kind]}"
    minus_zero, none = b.constant(-(1 << int(bits[1:]) - 1), bits), b.constant(0, "i64")

    def look(i, found):
        v = x.load(b, i)
        alike = b.op("or", b.op("eq", b.op("bitcast", v, kind=bits), minus_zero), b.op("is_nan", v))
        return [b.op("or", found, alike)]

    found = b.reduce(x.aval.size, [b.constant(False, "bool")], look, combine=["or"], vector=True)[0]

    def restore():
        with b.loop(rows) as r:
            _restore_row(b, x, out, r * n, n, none)

    b.branch(found, restore)


def _restore_row(b, x, out, base, n, none):
    zero = b.constant(0.0, x.kind)

    def count(i, negative, nans):
        v = x.load(b, base + i)
        return [b.op("add", negative, b.op("convert", b.op("lt", v, zero), kind="i64")),
                b.op("add", nans, b.op("convert", b.op("is_nan", v), kind="i64"))]

    def put(i, at_zero, at_nan):
        v = x.load(b, base + i)
        return [_put_if(b, b.op("eq", v, zero), out, base, at_zero, v),
                _put_if(b, b.op("is_nan", v), out, base, at_nan, v)]

    negative, nans = b.reduce(n, [none, none], count, combine=["add", "add"], vector=True)
    b.reduce(n, [negative, b.op("sub", b.constant(n, "i64"), nans)], put)


def _put_if(b, condition, out, base, at, v):
    """Store v at a place if the condition holds; returns the next place."""

    def put():
        out.store(b, base + b.index_of(at), v)
        return [b.op("add", at, b.constant(1, "i64"))]

    return b.branch(condition, put, lambda: [at])[0]


@kernel_rules.register(index_order_p)
def _(b, inputs, outputs):
    (x,), (out,) = inputs, outputs
    n = x.shape[-1]
    if x.aval.size:
        for_each_place(b, [x], n, lambda row, i, place: out.store(b, row * n + i, place))


# --- top_k ------------------------------------------------------------------------------------------------------------


@kernel_rules.register(top_k_p)
def _(b, inputs, outputs, *, k):
    (x,), (values, order) = inputs, outputs
    if not values.aval.size:
        return
    if k <= LISTED and x.shape[-1] > SHORT:
        _largest(b, x, values, order, k)
    else:
        _first_in_order(b, x, values, order, k)


def _first_in_order(b, x, values, order, k):
    n = x.shape[-1]

    def store(row, i, place):
        order.store(b, row * k + i, place)
        values.store(b, row * k + i, x.load(b, row * n + b.index_of(place)))

    if selection.pays(n, k, ITEM_BYTES[x.kind]):
        selection.select_largest(b, x, math.prod(x.shape[:-1]), k, store)
    else:
        for_each_place(b, [x], k, store, descending=True)


def _largest(b, x, values, order, k):
    n = x.shape[-1]
    kind = _key_kind(x)
    best = Best(b, x, b.local("best", kind, k + 1), b.local("places", "i64", k), k)
    with b.loop(math.prod(x.shape[:-1])) as r:
        best.fill(r * n, n)
        with b.loop(k) as j:
            place = b.load(best.places, j)
            order.store(b, r * k + j, place)
            values.store(b, r * k + j, x.load(b, r * n + b.index_of(place)))


class Best(NamedTuple):
    """The k largest keys of a row so far, descending, and their positions. Before them is a key as large as any.

    A place that is free has the key 0.
    """

    b: Builder
    x: Operand
    keys: Buffer
    places: Buffer
    k: int

    def fill(self, base: Index, n: int) -> None:
        """Find those of the row of n entries that begins at `base`, n at least `BLOCK`."""
        b = self.b
        b.fill(self.keys, self.k + 1)  # so that it is plain that rows leave nothing to one another
        b.fill(self.places, self.k)
        b.store(self.keys, 0, b.constant((1 << 8 * ITEM_BYTES[self.keys.kind]) - 1, self.keys.kind))
        with b.loop(-(-n // BLOCK)) as t:
            start, seen = t * BLOCK, None
            if n % BLOCK:  # the last block begins among the entries of the one before it
                seen = b.value_of(start)
                start = b.index_of(b.op("min", seen, b.constant(n - BLOCK, "i64")))
            early = b.op("lt", b.value_of(t * BLOCK), b.constant(self.k, "i64"))  # there may be free places
            some = b.op("select", early, b.constant((1 << BLOCK) - 1, "i32"), self.that_may_belong(base, start))
            if seen is not None:
                again = b.op("convert", b.op("sub", seen, b.value_of(start)), kind="i32")
                some = b.op("and", some, b.op("shl", b.constant(-1, "i32"), again))
            self.look_at(base, start, some)

    @property
    def may_be_free(self) -> bool:
        """Whether an entry may have the key of a free place."""
        return self.x.kind in ("i32", "u32", "i64", "u64")

    def key(self, at: Index) -> Value:
        """The key of an entry; that of a small integer is one more, so that it is not 0."""
        b, x = self.b, self.x
        key = ordered_key(b, x.load(b, at))
        return b.op("add", key, b.constant(1, key.kind)) if x.kind in ("bool", "i8", "u8", "i16", "u16") else key

    def that_may_belong(self, base: Index, start: Index) -> Value:
        """Which entries of a block are not at most the smallest one listed, NaN among them: the bits of an i32."""
        b = self.b
        last = self.x.load(b, base + b.index_of(b.load(self.places, self.k - 1)))
        one, none = b.constant(1, "i32"), b.constant(0, "i32")

        def look(i, found):
            smaller = b.op("le", self.x.load(b, base + start + i), last)
            return [b.op("or", found, b.op("select", smaller, b.op("shl", one, b.value_of(i, "i32")), none))]

        smaller = b.reduce(BLOCK, [none], look, combine=["or"], vector=True)[0]
        return b.op("xor", smaller, b.constant((1 << BLOCK) - 1, "i32"))

    def look_at(self, base: Index, start: Index, some: Value) -> None:
        """Insert what belongs among the largest, of those entries of a block whose bits are on."""
        b = self.b
        none, last = b.constant(0, "i32"), b.constant(self.k - 1, "i64")

        def look(left):
            lowest = b.op("and", left, b.op("sub", none, left))
            i = b.index_of(_number_of_bit(b, lowest))
            key = self.key(base + start + i)
            b.branch(self.belongs(key, start + i), lambda: self.insert(key, b.value_of(start + i), last))
            return [b.op("xor", left, lowest)]

        b.loop_while([some], lambda left: b.op("ne", left, none), look)

    def belongs(self, key: Value, place: Index) -> Value:
        """Whether an entry is larger than the smallest one listed, or there is a free place for it."""
        b = self.b
        larger = b.op("gt", key, b.load(self.keys, self.k))
        if not self.may_be_free:
            return larger
        return b.op("or", larger, b.op("lt", b.value_of(place), b.constant(self.k, "i64")))

    def insert(self, key: Value, place: Value, last: Value) -> None:
        """Put a key behind those listed that are as large, moving the smaller ones down, the last one out."""
        b = self.b
        free, one = b.op("min", place, last), b.constant(1, "i64")

        def shift(j):
            to = b.index_of(j)
            b.store(self.keys, to + 1, b.load(self.keys, to))
            b.store(self.places, to, b.load(self.places, to - 1))
            return [b.op("sub", j, one)]

        to = b.index_of(b.loop_while([free], lambda j: b.op("lt", b.load(self.keys, b.index_of(j)), key), shift)[0])
        b.store(self.keys, to + 1, key)
        b.store(self.places, to, place)


def _number_of_bit(b: Builder, bit: Value) -> Value:
    """Which bit of an i32 is on, of one that is no power of two beyond 2**30: the exponent of it as a float32."""
    word = b.op("bitcast", b.op("convert", bit, kind="f32"), kind="i32")
    exponent = b.op("shr", word, b.constant(23, "i32"))
    return b.op("convert", b.op("sub", exponent, b.constant(127, "i32")), kind="i64")
