# SPDX-License-Identifier: MIT
"""Sums and extrema over sliding windows, row of windows after row of windows.

    for each row of windows
      for each element of the rows under it     what is reduced down a column, in contiguous vectors: in a row
      for each window                           what is reduced along the row

The border of a row is in the row: it is written once. Windows that do not overlap and lie inside are reduced at once.
Whoever uses it says how a value is read and how a result is written: from an array in memory (`windows`), or from a
block of a convolution that is in the cache (`pooled`). A sum adds the elements of a column first in either way.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from functorch_lite.compiler.loop_ir.builder import Builder, identity
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.rules import linear
from functorch_lite.compiler.lowering.tiles import even_cuts

UNROLLED = 16
"""Windows of up to this many elements are written out tap by tap."""

Numbers = tuple[Value, ...]
Put = Callable[[Sequence[Index], Index, Numbers], None]
"""Writes what was found at a place (a number for each axis) and a lane."""


class Slide(NamedTuple):
    """How windows slide along an axis: `count` of them over `out` values and a border.

    to, made: from one value, and from one window, to the next where values come from and in what is made of them.
    border: whether values are read for the border, too; else all that is read along the axis are the values alone.
    """

    count: int
    window: int = 1
    stride: int = 1
    low: int = 0
    dilation: int = 1
    out: int = 1
    to: int = 0
    made: int = 0
    border: bool = True

    @property
    def values(self) -> int:
        """The values that are read along the whole axis."""
        if self.border:
            return self.reach(self.count)
        return min(self.out, self.reach(self.count) - self.low) - max(-self.low, 0)

    @property
    def first(self) -> int:
        """How many places of the first window come before the first value that is read."""
        return 0 if self.border else max(self.low, 0)

    def reach(self, count: int) -> int:
        """The values that so many windows meet."""
        return (count - 1) * self.stride + (self.window - 1) * self.dilation + 1

    @property
    def overlaps(self) -> bool:
        return self.reach(1) > self.stride

    @property
    def is_padded(self) -> bool:
        """Whether a window goes over an edge."""
        return self.low > 0 or self.reach(self.count) - self.low > self.out


class Reduction(Protocol):
    """What is found of a window: one or several numbers for a column of it, and for the columns of a row.

    kinds: of the numbers of a column. fill: those of a column that has nothing.
    """

    b: Builder
    kinds: tuple[str, ...]

    @property
    def fill(self) -> Numbers:
        """The numbers of a column of the border."""
        ...

    def column(self, window: Sequence[int], load: Callable[[Sequence[Any]], Value]) -> Numbers:
        """What the elements of a column have, over all axes but the last."""
        ...

    def row(self, window: int, load: Callable[[Any], Numbers]) -> Numbers:
        """What the columns of a window have together."""
        ...


class Box:
    """A reduction over windows that combines two numbers."""

    def __init__(self, b: Builder, combine: str, kind: str):
        self.b, self.combine, self.kind, self.kinds = b, combine, kind, (kind,)

    @property
    def fill(self) -> Numbers:
        return (self.b.constant(identity(self.combine, self.kind), self.kind),)

    def column(self, window: Sequence[int], load: Callable[[Sequence[Any]], Value]) -> Numbers:
        return over_taps(self.b, window, lambda tap, total: (self.b.op(self.combine, *total, load(tap)),),
                         lambda tap: (load(tap),), self.fill)

    def row(self, window: int, load: Callable[[Any], Numbers]) -> Numbers:
        return over_taps(self.b, [window], lambda tap, total: (self.b.op(self.combine, *total, *load(tap[0])),),
                         lambda tap: load(tap[0]), self.fill)


class Position:
    """The first extremum of a window, and its number in row-major order; the first NaN is more than everything."""

    def __init__(self, b: Builder, combine: str, kind: str, columns: int):
        self.b, self.combine, self.kind, self.kinds, self.columns = b, combine, kind, (kind, "i32"), columns

    @property
    def fill(self) -> Numbers:
        return self.b.constant(identity(self.combine, self.kind), self.kind), self.b.constant(0, "i32")

    def column(self, window: Sequence[int], load: Callable[[Sequence[Any]], Value]) -> Numbers:
        def number(tap: Sequence[Any]) -> Value:
            return self.b.value_of(linear([Index(t) if isinstance(t, int) else t for t in tap], window), "i32")

        return over_taps(self.b, window, lambda tap, best: self._better(best, (load(tap), number(tap)), None),
                         lambda tap: (load(tap), number(tap)), self.fill)

    def row(self, window: int, load: Callable[[Any], Numbers]) -> Numbers:
        def numbered(tap: Sequence[Any]) -> Numbers:
            value, number = load(tap[0])
            tapped = self.b.value_of(tap[0] if isinstance(tap[0], Index) else Index(tap[0]), "i32")
            return value, self.b.op("add", self.b.op("mul", number, self.b.constant(self.columns, "i32")), tapped)

        def step(tap: Sequence[Any], best: Numbers) -> Numbers:
            found = numbered(tap)
            return self._better(best, found, self.b.op("lt", found[1], best[1]))

        return over_taps(self.b, [window], step, numbered, self.fill)

    def _better(self, best: Numbers, found: Numbers, before: Value | None) -> Numbers:
        """The better of two; of equals the first, or the second if it comes before."""
        b, (old, new) = self.b, (best[0], found[0])
        floating = self.kind[0] in "fb"
        wins = b.op("not", b.op("le" if self.combine == "max" else "ge", new, old))
        if floating:
            wins = b.op("and", wins, b.op("not", b.op("is_nan", old)))
        if before is not None:
            same = b.op("eq", new, old)
            if floating:
                same = b.op("or", same, b.op("and", b.op("is_nan", new), b.op("is_nan", old)))
            wins = b.op("or", wins, b.op("and", same, before))
        return tuple(b.op("select", wins, n, o) for n, o in zip(found, best, strict=True))


class Windows(NamedTuple):
    """Windows to be reduced: `counts` of them along each axis, each of as many lanes side by side.

    value: reads the value at a place (a number for each axis, of the elements under the windows) and a lane.
    space: working space by name, kind and size. flat: a row and its lanes are read as one row of more columns.
    most: windows of a row that are reduced together.
    """

    found: Reduction
    slides: Sequence[Slide]
    counts: Sequence[int]
    lanes: int
    value: Callable[[Sequence[Index], Index], Value]
    put: Put
    space: Callable[[str, str, int], Buffer]
    flat: bool = False
    most: int = 1 << 60

    @property
    def is_at_once(self) -> bool:
        """Whether each window is reduced from its values, and not a row of them by way of its columns."""
        if not all(s.border for s in self.slides) or math.prod(s.window for s in self.slides) > UNROLLED:
            return False
        inside, in_lanes = not any(s.is_padded for s in self.slides), self.lanes > 1
        if all(s.window == 1 for s in self.slides[:-1]):
            return inside or in_lanes
        return inside and in_lanes and not any(s.overlaps for s in self.slides)

    def write(self) -> None:
        """Reduce them."""
        if self.is_at_once:
            self._at_once()
        else:
            self._rows()

    def _at_once(self) -> None:
        """Each window from its values."""
        last = self.slides[-1]

        def window(place: Sequence[Index]) -> None:
            self._over_row(self.counts[-1], lambda q, f: self.put([*place, q], f, self.found.row(
                last.window, lambda t: self._column(place, q * last.stride + t * last.dilation, f))))

        self._over_places(window)

    def _rows(self) -> None:
        """A row of windows at a time: first down the columns, then along the row."""
        last, b = self.slides[-1], self.found.b
        if last.window == last.stride == 1 and last.border:
            self._over_places(lambda place: self._over_row(self.counts[-1], lambda u, f: self.put(
                [*place, u], f, self._column(place, u, f))))
            return
        parts = even_cuts(self.counts[-1], self.most)
        columns = last.reach(max(cut.size for cut in parts))
        rows = [self.space(f"row{k}", kind, columns * self.lanes) for k, kind in enumerate(self.found.kinds)]
        values = columns if last.border else last.values
        for start, n in ((0, last.first), (last.first + values, columns - last.first - values)):
            if n:
                with b.loop(n * self.lanes, vector=True) as i:
                    _store(b, rows, i + start * self.lanes, self.found.fill)

        def of_windows(place: Sequence[Index]) -> None:
            for cut in parts:
                with b.loop(cut.count) as i:
                    self._row(rows, place, i * cut.size + cut.start, cut.size)

        self._over_places(of_windows)

    def _row(self, rows: Sequence[Buffer], place: Sequence[Index], start: Index, count: int) -> None:
        """So many windows of a row from `start` on."""
        last, b = self.slides[-1], self.found.b
        values, first = last.reach(count) if last.border else last.values, start * last.stride
        if self.flat:
            with b.loop(values * self.lanes, vector=True) as j:
                _store(b, rows, j + last.first * self.lanes, self._column(place, j + first * self.lanes, ZERO))
        else:
            self._over_row(values, lambda u, f: _store(
                b, rows, (u + last.first) * self.lanes + f, self._column(place, u + first, f)))
        self._over_row(count, lambda q, f: self.put([*place, q + start], f, self.found.row(
            last.window, lambda t: tuple(b.load(
                row, (q * last.stride + t * last.dilation) * self.lanes + f) for row in rows))))

    def _column(self, place: Sequence[Index], column: Index, lane: Index) -> Numbers:
        """What the windows at a place of the outer axes have in a column."""
        outer = self.slides[:-1]
        return self.found.column([s.window for s in outer], lambda taps: self.value(
            [*(q * s.stride + t * s.dilation for s, q, t in zip(outer, place, taps, strict=True)), column], lane))

    def _over_row(self, count: int, body: Callable[[Index, Index], None]) -> None:
        in_lanes = self.lanes > 1
        with self.found.b.loop(count, vector=not in_lanes) as u, self.found.b.loop(self.lanes, vector=in_lanes) as f:
            body(u, f)

    def _over_places(self, body: Callable[[Sequence[Index]], None]) -> None:
        """Run the body for each place of the outer axes."""

        def nest(place: Sequence[Index]) -> None:
            if len(place) == len(self.counts) - 1:
                body(place)
                return
            with self.found.b.loop(self.counts[len(place)]) as q:
                nest([*place, q])

        nest([])


def _store(b: Builder, buffers: Sequence[Buffer], at: Index, numbers: Numbers) -> None:
    for buffer, number in zip(buffers, numbers, strict=True):
        b.store(buffer, at, number)


def over_taps(
    b: Builder, window: Sequence[int], step: Callable[[Sequence[Any], Numbers], Numbers],
    first: Callable[[Sequence[Any]], Numbers], fill: Numbers,
) -> Numbers:
    """Numbers over all taps of a window, written out or, if it is large, in loops that begin with `fill`."""
    if math.prod(window) <= UNROLLED:
        start, *others = itertools.product(*map(range, window))
        total = first(start)
        for tap in others:
            total = step(tap, total)
        return total

    def level(tap: Sequence[Index], total: Numbers) -> Numbers:
        if len(tap) == len(window):
            return step(tap, total)
        return tuple(b.reduce(window[len(tap)], list(total), lambda i, *v: level([*tap, i], v)))

    return level([], fill)
