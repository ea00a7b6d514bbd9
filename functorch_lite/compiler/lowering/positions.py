# SPDX-License-Identifier: MIT
"""Kernels of argmax and argmin: the first position of the extremum; a NaN is the extremum where there is one.

A row is read in blocks that stay in the first-level cache: a block is searched for the place of its extremum only if
that is beyond all before. A very long row is cut into groups of blocks that threads can share; where it is cut follows
from its length alone. Along an axis that is not the last, each lane looks through a column.
"""

from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Index, Value
from functorch_lite.compiler.lowering.reduction import reduced, wide, wide_kind
from functorch_lite.compiler.lowering.rules import Operand, kernel_rules, strides_of
from functorch_lite.primitives import reduction as p

BLOCK = 4096
"""Entries of a block."""
VERY_LONG = 1 << 17
"""A row of as many entries is cut into groups."""
GROUPS = 16


class Search(NamedTuple):
    """Looks for the `combine` ("max" or "min") of x, in numbers of `kind`."""

    b: Builder
    x: Operand
    combine: str

    @property
    def kind(self) -> str:
        """The kind of the numbers that are compared."""
        return wide_kind(self.x.kind)

    def read(self, at: Index) -> Value:
        """The entry at a position."""
        return wide(self.b, self.x.load(self.b, at))

    def is_beyond(self, value: Value, best: Value) -> Value:
        """Whether a value takes the place of the best one before it."""
        b = self.b
        beyond = b.op("gt" if self.combine == "max" else "lt", value, best)
        if self.kind[0] == "f":
            beyond = b.op("or", beyond, b.op("and", b.op("is_nan", value), b.op("not", b.op("is_nan", best))))
        return beyond


def _register(prim, combine):
    def rule(b, inputs, outputs, *, axis):
        x, out = inputs[0], outputs[0]
        if not out.aval.size:
            return
        s = Search(b, x, combine)
        n, inner = x.shape[axis], strides_of(x.shape)[axis]
        with b.loop(out.aval.size // inner) as i:
            if inner == 1:
                find = _in_groups if n >= VERY_LONG else _in_row
                out.store(b, i, find(s, i * n, n))
                return
            with b.loop(inner, vector=True) as j:
                out.store(b, i * inner + j, _in_column(s, i * (n * inner) + j, n, inner))

    kernel_rules.add(prim, rule)


_register(p.argmax_p, "max")
_register(p.argmin_p, "min")


# --- along a row ------------------------------------------------------------------------------------------------------


def _in_row(s, start, n):
    """The position (i64) of the extremum of the n entries from `start` on."""
    if n < 2 * BLOCK:
        return _place_of(s, start, n, _extremum(s, start, n))
    return _in_blocks(s, start, n)[1]


def _in_blocks(s, start, n):
    """The extremum and its position, block by block."""
    b = s.b
    first = [s.read(start), b.constant(0, "i64")]

    def look(base, count, best, place):
        top = _extremum(s, start + base, count)

        def search():
            found = _place_of(s, start + base, count, top)
            return [top, b.op("add", b.value_of(base), found)]

        return b.branch(s.is_beyond(top, best), search, lambda: [best, place])

    blocks, left = divmod(n, BLOCK)
    found = b.reduce(blocks, first, lambda t, *best: look(t * BLOCK, BLOCK, *best)) if blocks else first
    return look(Index(blocks * BLOCK), left, *found) if left else found


def _in_groups(s, start, n):
    """The position, from those of `GROUPS` parts of the row."""
    b = s.b
    part = n // GROUPS
    tops, places = b.local("tops", s.kind, GROUPS + 1), b.local("places", "i64", GROUPS + 1)

    def note(k, base, count):
        top, place = _in_blocks(s, start + base, count)
        b.store(tops, k, top)
        b.store(places, k, b.op("add", b.value_of(base), place))

    with b.loop(GROUPS) as g:
        note(g, g * part, part)
    groups = GROUPS
    if n > part * GROUPS:
        note(Index(GROUPS), Index(part * GROUPS), n - part * GROUPS)
        groups += 1

    def better(k, best, place):
        top = b.load(tops, k + 1)
        beyond = s.is_beyond(top, best)
        return [b.op("select", beyond, top, best), b.op("select", beyond, b.load(places, k + 1), place)]

    return b.reduce(groups - 1, [b.load(tops, 0), b.load(places, 0)], better)[1]


def _extremum(s, start, n):
    return reduced(s.b, [n], [1], True, s.combine, s.kind, lambda at: s.read(start + at))


def _place_of(s, start, n, best):
    """The first of n entries (i64, from 0) that is the best one, or NaN if that is."""
    b = s.b
    number = "i32" if n < 1 << 31 else "i64"
    end = b.constant(n, number)

    def place(at):
        value = s.read(start + at)
        hit = b.op("eq", value, best)
        if s.kind[0] == "f":
            hit = b.op("or", hit, b.op("and", b.op("is_nan", value), b.op("is_nan", best)))
        return b.op("select", hit, b.value_of(at, number), end)

    return b.op("convert", reduced(b, [n], [1], True, "min", number, place), kind="i64")


# --- along another axis -----------------------------------------------------------------------------------------------


def _in_column(s, start, n, stride):
    """The position in one pass, which remembers it."""
    b = s.b

    def step(i, best, place):
        value = s.read(start + i * stride)
        beyond = s.is_beyond(value, best)
        return [b.op("select", beyond, value, best), b.op("select", beyond, b.value_of(i, "i64"), place)]

    return b.reduce(n, [s.read(start), b.constant(0, "i64")], step)[1]
