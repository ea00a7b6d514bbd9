# SPDX-License-Identifier: MIT
"""The register tile: the sums of products that matrix products and convolutions are made of.

    for each lane (a vector loop over `width` columns)
      sums[r, v] = 0
      for k:  sums[r, v] += left[row r, k] * right[k, vector v, lane]       left is the same in all lanes

Each `right` vector that is loaded serves all rows, each `left` number all vectors, and the sums stay in registers. The
sizes that fit are those of `most_rows`; what does not divide evenly is cut in parts of two sizes, so that no tile is
mostly empty. Where `right` is not in order it is first copied into panels that are.

Source: K. Goto, R. van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34 (2008).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.cutting import AS_USUAL, Cutting

MAX_LANES = 16
MOST_ROWS = 14
SHORT_ROWS = 4
LINE_BYTES = 64  # of a cache
LEAST_RUN = 8  # elements of a column in order that are worth a transpose
Put = Callable[[Index, list[list[Value]]], None]


class Machine(NamedTuple):
    """What a tile must fit: bytes of a vector register, and how many of them there are; and how work is cut."""

    vector_bytes: int
    registers: int
    cutting: Cutting = AS_USUAL

    def lanes(self, kind: str) -> int:
        """The elements of a kind in one vector."""
        return min(MAX_LANES, max(self.vector_bytes // ITEM_BYTES[kind], 1))


class Computed(Protocol):
    """An operand that is computed where it is read. kind: of its numbers; size: how many there are."""

    kind: str
    size: int

    def element(self, at: Index) -> Value:
        """The number at a position."""
        ...


def element_of(b: Builder, source: Buffer | Computed, at: Index) -> Value:
    """The number at a position of an operand."""
    return b.load(source, at) if isinstance(source, Buffer) else source.element(at)


class Walk(NamedTuple):
    """How a tile reads an operand: from position `at` of a buffer, at `offsets` for its rows (or vectors).

    step: from one lane to the next (0: the same in all). along: for a step of each contracted axis. imag: from the real
    part of a complex number to the imaginary one.
    """

    buffer: Any
    at: Index
    offsets: Sequence[int]
    along: Sequence[int]
    step: int = 0
    imag: int = 0


class Ahead(NamedTuple):
    """What a tile fetches into a cache while it goes: from position `at` of a buffer on, `step` on for each k.

    offsets: the places of a step whose lines are fetched. near: into the first-level cache, in each step of k;
    else into the second, all that lies between, once for the steps that are written out.
    """

    buffer: Buffer
    at: Index
    step: int
    offsets: Sequence[int] = (0,)
    near: bool = False


class Fetched(NamedTuple):
    """What a tile fetches into the second-level cache in each step of its outermost k of several, as memory has time.

    The lines at `offsets` from position `at` of a buffer on, and `step` on for each step.
    """

    buffer: Buffer
    at: Index
    step: int
    offsets: Sequence[int] = (0,)


class Cut(NamedTuple):
    """`count` parts of `size`, from `start` on; apart: from one to the next, where they overlap (0: they do not)."""

    start: int
    count: int
    size: int
    apart: int = 0

    @property
    def every(self) -> int:
        """From one part to the next."""
        return self.apart or self.size


def cuts(n: int, most: int) -> list[Cut]:
    """n cut into the fewest parts of at most `most`, of nearly equal sizes: at most two different ones."""
    parts = -(-n // most)
    size, longer = divmod(n, parts)
    found = [Cut(0, longer, size + 1), Cut(longer * (size + 1), parts - longer, size)]
    return [c for c in found if c.count and c.size]


def even_cuts(n: int, most: int) -> list[Cut]:
    """The same, in parts of one size where n has a divisor of about that size."""
    if n <= most + most // 4:
        return [Cut(0, 1, n)]
    for parts in range(-(-n // (most + most // 4)), 2 * n // most + 1):
        if n % parts == 0:
            return [Cut(0, parts, n // parts)]
    return cuts(n, most)


def alike_cuts(n: int, numbers: Sequence[int]) -> list[Cut]:
    """n in one of these numbers of parts that are alike, the first that divides it, and a part of what is left, if any.

    Where none divides it, the one that leaves least; two parts only if there is no other number. None: no parts.
    """
    if not numbers:
        return []
    left, k = next(((0, k) for k in numbers if n % k == 0),
                   min(((n % k, k) for k in numbers if k > 2), default=(n % numbers[-1], numbers[-1])))
    return [Cut(0, k, n // k), *([Cut(n - left, 1, left)] if left else [])]


def row_cuts(n: int, most: int, least: int) -> list[Cut]:
    """n rows in parts of at most `most`: of one size, and one piece of code, where one from `least` on divides n."""
    for size in range(min(n, most), least - 1, -1):
        if n % size == 0:
            return [Cut(0, n // size, size)]
    return cuts(n, most)


def filter_cuts(n: int, most: int, machine: Machine) -> list[Cut]:
    """n filters in parts of at most `most`; where there should be little code in few, of one size if that can be."""
    if not machine.cutting.looped:
        return cuts(n, most)
    most = min(most, SHORT_ROWS)
    return row_cuts(n, most, -(-most // 2))


def over(b: Builder, cut: Cut, body: Callable[[Index], None]) -> None:
    """Run the body for each part of a cut, with its first number."""
    with b.loop(cut.count) as i:
        body(i * cut.size + cut.start)


def most_rows(vectors: int, registers: int) -> int:
    """How many rows a tile of so many vectors may have: its sums, the vectors and one number fit the registers."""
    return max(1, min((registers - 2 - vectors) // vectors, MOST_ROWS))


def cycles(rows: int, vectors: int) -> float:
    """What one step of k costs a tile, if two products and about one load begin in a cycle and a product takes four."""
    return max(rows * vectors / 2, 0.92 * (rows + vectors), 4) + 0.2


def lines(count: int, kind: str) -> range:
    """The first elements of the cache lines that so many elements of a kind fill."""
    return range(0, count, LINE_BYTES // ITEM_BYTES[kind])


def multiply_add(b: Builder, a: Value, y: Value, total: Value) -> Value:
    """total + a y, rounded once if the numbers are floats."""
    if total.kind in ("f32", "f64"):
        return b.op("fma", a, y, total)
    return b.op("add", total, b.op("mul", a, y))


def tile(
    b: Builder, width: int, extents: Sequence[int], left: Walk, right: Walk, put: Put,
    taps: Sequence[tuple[int, int]] = ((0, 0),), steps: int = 1, ahead: Ahead | None = None,
    unrolled: int = AS_USUAL.unrolled, fetched: Sequence[Fetched] = (),
) -> None:
    """Add up left[row, k] * right[k, vector, lane] over k in `extents`; `put(lane, sums)` gets sums[row][vector].

    Of complex numbers, the real and the imaginary parts of a vector's sums are beside one another.
    taps: further pairs of offsets in left and right to add up over, written out. steps: of the last axis of k that are
    written out, where they divide it. ahead, fetched: what is fetched meanwhile. unrolled: products of a tile; a last
    axis of no more is written out.
    """
    with b.loop(width, vector=True) as lane:
        from_lane = right._replace(at=right.at + lane * right.step)
        put(lane, _sums(b, extents, left, from_lane, taps, steps, ahead, unrolled, fetched))


def inner_tile(b: Builder, width: int, extents: Sequence[int], left: Walk, right: Walk, put: Put) -> None:
    """The same, added up over the lanes too, along which both operands are walked; `put` gets numbers."""
    vectors = len(right.offsets)
    count = len(left.offsets) * vectors

    def lanes(lane: Index, *totals: Value) -> list[Value]:
        sums = _sums(b, extents, left._replace(at=left.at + lane * left.step),
                     right._replace(at=right.at + lane * right.step), ((0, 0),))
        return [b.op("add", t, s) for t, s in zip(totals, itertools.chain(*sums), strict=True)]

    zero = b.constant(0, left.buffer.kind)
    totals = b.reduce(width, [zero] * count, lanes, combine=["add"] * count, vector=True)
    put(ZERO, [list(totals[k : k + vectors]) for k in range(0, count, vectors)])


def _sums(
    b: Builder, extents, left: Walk, right: Walk, taps, steps: int = 1, ahead: Ahead | None = None,
    unrolled: int = AS_USUAL.unrolled, fetched: Sequence[Fetched] = (),
) -> list[list[Value]]:
    """sums[row][vector] in one lane."""
    vectors = len(right.offsets) * (2 if right.imag else 1)
    outermost = next((level for level, n in enumerate(extents) if n > 1), 0)

    def nest(level: int, at_left: Index, at_right: Index, sums: Sequence[Value]) -> list[Value]:
        if level == len(extents):
            for tap_left, tap_right in taps:
                sums = _step(b, left, right, at_left + tap_left, at_right + tap_right, sums)
            return list(sums)
        n, dl, dr = extents[level], left.along[level], right.along[level]
        if n * len(sums) * len(taps) <= unrolled and level == len(extents) - 1:
            for k in range(n):
                sums = nest(level + 1, at_left + k * dl, at_right + k * dr, sums)
            return list(sums)
        many = steps if level == len(extents) - 1 and n % steps == 0 else 1

        def at_once(k: Index, *given: Value) -> list[Value]:
            totals = list(given)
            if ahead is not None and many > 1 and not ahead.near:
                for o in lines(many * ahead.step, ahead.buffer.kind):
                    b.prefetch(ahead.buffer, ahead.at + k * (many * ahead.step) + o)
            for j in range(many):
                for f in fetched if level == outermost else ():
                    for o in f.offsets:
                        b.prefetch(f.buffer, f.at + (k * many + j) * f.step + o)
                if ahead is not None and ahead.near:
                    for o in ahead.offsets:
                        b.prefetch(ahead.buffer, ahead.at + (k * many + j) * ahead.step + o, near=True)
                totals = nest(level + 1, at_left + (k * many + j) * dl, at_right + (k * many + j) * dr, totals)
            return totals

        return b.reduce(n // many, sums, at_once)

    zero = b.constant(0, left.buffer.kind)
    sums = nest(0, left.at, right.at, [zero] * (len(left.offsets) * vectors))
    return [list(sums[k : k + vectors]) for k in range(0, len(sums), vectors)]


def _step(
    b: Builder, left: Walk, right: Walk, at_left: Index, at_right: Index, sums: Sequence[Value]
) -> list[Value]:
    """The sums of a tile with the products of one k added."""
    parts = (0, right.imag) if right.imag else (0,)
    columns = [element_of(b, right.buffer, at_right + o + part) for o in right.offsets for part in parts]
    factors = [(0, columns)]
    if right.imag:  # i (c + i d) = -d + i c
        pairs = zip(columns[::2], columns[1::2], strict=True)
        factors.append((left.imag, [v for c, d in pairs for v in (b.op("neg", d), c)]))
    found: list[Value] = []
    for row, o in enumerate(left.offsets):  # each number next to its products, so that it needs no register long
        totals = sums[row * len(columns) : (row + 1) * len(columns)]
        for part, others in factors:
            number = b.load(left.buffer, at_left + o + part)
            totals = [multiply_add(b, number, c, t) for c, t in zip(others, totals, strict=True)]
        found += totals
    return found


def store_tile(
    b: Builder, out: Buffer, rows: Sequence[Index], columns: Sequence[int], step: int, add: bool | Value
) -> Put:
    """A `put` that writes to `out` at rows[r] + columns[v] + lane * step, or adds to it; add: a bool says which."""

    def put(lane: Index, sums: list[list[Value]]) -> None:
        places = [row + (lane * step + column) for row in rows for column in columns]
        values = [value for row in sums for value in row]

        def added() -> list[Value]:
            return [b.op("add", b.load(out, at), value) for at, value in zip(places, values, strict=True)]

        if isinstance(add, Value):
            values = b.branch(add, added, lambda: values)
        elif add:
            values = added()
        for at, value in zip(places, values, strict=True):
            b.store(out, at, value)

    return put


# --- columns in panels ------------------------------------------------------------------------------------------------


class Panels(NamedTuple):
    """`count` panels of `vectors` x `width` columns from column `start` on, and the rows of the tiles over them.

    parts: 2 of complex numbers. Then a panel has in each k the real parts of its columns, and after them the others.
    """

    start: int
    count: int
    vectors: int
    width: int
    rows: list[Cut]
    parts: int = 1

    @property
    def size(self) -> int:
        return self.vectors * self.width

    @property
    def step(self) -> int:
        """From one k to the next."""
        return self.size * self.parts


def panels_of(rows: int, columns: int, kind: str, machine: Machine, parts: int = 1) -> list[Panels]:
    """Columns as panels of whole vectors and one of the rest, with the tile that costs least."""
    lanes = machine.lanes(kind)
    whole, rest = divmod(columns, lanes)
    choices = [_panels(rows, whole, lanes, v // parts, machine, parts) for v in machine.cutting.vectors
               if v % parts == 0 and v // parts <= max(whole, 1)]
    best = min(choices, key=lambda panels: sum(_cost(p) for p in panels))
    if rest:
        last = (rows_of(rows, parts, machine) if machine.cutting.short
                else cuts(rows, most_rows(parts, machine.registers)))
        best = [*best, Panels(whole * lanes, 1, 1, rest, last, parts)]
    return best


def _panels(rows: int, whole: int, lanes: int, vectors: int, machine: Machine, parts: int) -> list[Panels]:
    found = cuts(whole, vectors) if whole else []
    return [Panels(c.start * lanes, c.count, c.size, lanes, rows_of(rows, c.size * parts, machine), parts)
            for c in found]


def rows_of(rows: int, vectors: int, machine: Machine) -> list[Cut]:
    """The rows of the tiles over a panel of so many vectors."""
    if machine.cutting.short:
        return row_cuts(rows, SHORT_ROWS, SHORT_ROWS // 2)
    most = most_rows(vectors, machine.registers)
    return row_cuts(rows, most, most * 2 // 3 + 1)


def _cost(p: Panels) -> float:
    """Cycles for one step of k."""
    vectors = p.vectors * p.parts
    return p.count * sum(c.count * (cycles(c.size * p.parts, vectors) + 0.1 * vectors) for c in p.rows)


def pack(b: Builder, packed: Buffer, right: Walk, extents: Sequence[int], panels: Sequence[Panels]) -> None:
    """Copy right[k, column] into `packed`: panel after panel, in each k after k, its columns side by side."""
    parts = panels[0].parts
    in_order = right.along[-1] == parts < right.step if extents else False
    if in_order and (len(extents) == 1 or extents[-1] >= LEAST_RUN):
        _pack_transposed(b, packed, right, extents, panels)
        return
    inner = math.prod(extents[1:])
    first = extents[0] if extents else 1
    along = right.along[0] if extents else 0
    with b.loop(first) as k:
        for p in panels:
            with b.loop(p.count) as i:
                column = i * p.size + p.start
                source = right.at + k * along + column * right.step
                _pack_panel(b, packed, right._replace(along=right.along[1:]), extents[1:], p, source,
                            column * (first * inner * parts) + k * (inner * p.step))


def _pack_transposed(b: Builder, packed: Buffer, right: Walk, extents: Sequence[int], panels: Sequence[Panels]) -> None:
    depth, run = math.prod(extents), extents[-1]

    def nest(level: int, at: Index, to: Index, p: Panels) -> None:
        if level == len(extents) - 1:
            b.transpose(packed, to, right.buffer, at, p.size, run * p.parts, right.step, p.size)
            return
        inner = math.prod(extents[level + 1 :]) * p.step
        with b.loop(extents[level]) as k:
            nest(level + 1, at + k * right.along[level], to + k * inner, p)

    for p in panels:
        with b.loop(p.count) as i:
            column = i * p.size + p.start
            nest(0, right.at + column * right.step, column * (depth * p.parts), p)


def _pack_panel(b, packed, right, extents, p, source, target):
    if not extents:
        with b.loop(p.size, vector=True) as j:
            for part in range(p.parts):
                b.store(packed, target + j + part * p.size, b.load(right.buffer, source + j * right.step + part))
        return
    inner = math.prod(extents[1:])
    with b.loop(extents[0]) as k:
        rest = right._replace(along=right.along[1:])
        _pack_panel(b, packed, rest, extents[1:], p, source + k * right.along[0], target + k * (inner * p.step))


def packed_walk(packed: Buffer, panel: Panels, first: Index, extents: Sequence[int]) -> Walk:
    """How a tile reads the panel of `packed` whose first column is `first`."""
    depth, along = 1, []
    for n in reversed(extents):
        along.insert(0, depth * panel.step)
        depth *= n
    imag = panel.size if panel.parts > 1 else 0
    return Walk(packed, first * (depth * panel.parts), [v * panel.width for v in range(panel.vectors)], along, 1, imag)
