# SPDX-License-Identifier: MIT
"""Reads across rows, by tiles: `in_tiles(kernel)`.

    for i in N                              for p in N / B
      for j in M vector                       for q in M / C
        y[i, j] = f(x[j, i], z[i, j])           tile = x[C q : C q + C, B p : B p + B] transposed
                                                for i in B
                                                  for j in C vector
                                                    y[B p + i, C q + j] = f(tile[i, j], z[B p + i, C q + j])

A vector of x[j, i] is as many cache lines as it has lanes, and by the time that i has grown to the next element of
those lines they are in no cache any more. A tile is read in whole lines and turned in registers; where all of i takes
less than a line, it is read as before, from the cache. Loops between the two go around the tiles. Where x is read
backwards along i, as in x[j, N - 1 - i], i goes from its end; that pays where the lines that j goes over do not stay in
the first-level cache until i comes to their next elements. How long a tile is follows from the sizes alone.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.nodes import (
    ITEM_BYTES,
    ZERO,
    Buffer,
    Function,
    Index,
    Loop,
    Store,
    Transpose,
    Value,
)
from functorch_lite.compiler.schedule import parallel
from functorch_lite.compiler.schedule.partial import Copier

LEAST = 1 << 13  # iterations: below, what is read stays in a cache
LINE_BYTES = 64
LINES, COLUMNS = 4, 64  # of a tile: cache lines along i, elements along j
LANES = 16
SHORT_COLUMNS = 1024  # where i takes less than a cache line
MOST = 4  # tiles at a time
SETS, WAYS = 64, 8  # of a first-level cache
NARROW = 2  # bytes of numbers that have no instruction to gather them
WIDEST = 2  # elements that a step of i moves on by: those of a complex number


class _Nest(NamedTuple):
    """Loops in one another, the last in vectors. before: the values between them."""

    loops: list[Loop]
    before: list[list[Value]]

    @property
    def inner(self) -> Loop:
        return self.loops[-1]


class _Across(NamedTuple):
    """A load that moves by `width` elements for a step of another loop, and by `stride` for one of the vector loop."""

    load: Value
    width: int
    stride: int


def in_tiles(function: Function) -> Function:
    """The kernel with reads across rows by tiles; itself where there are none."""
    if function.integers:
        return function
    body: list[Any] = []
    tiles: list[Buffer] = []
    found = False
    for s in function.body:
        made = _Tiling.of(s, len(tiles)) if isinstance(s, Loop) else None
        body += made.statements() if made else [s]
        if made:
            found = True
            tiles += made.tiles
    return replace(function, body=body, locals=[*function.locals, *tiles]) if found else function


# --- what is read across ----------------------------------------------------------------------------------------------


def _nest(loop: Loop) -> _Nest | None:
    """A loop as a nest: loops that carry nothing, with nothing but loads and values beside the next one."""
    loops, before = [loop], []
    while not loop.vector:
        if loop.carried or not loop.body or not isinstance(loop.body[-1], Loop):
            return None
        if any(type(s) is not Value for s in loop.body[:-1]):
            return None
        before.append(loop.body[:-1])
        loop = loop.body[-1]
        loops.append(loop)
    if loop.carried or any(type(s) is not Value and type(s) is not Store for s in loop.body):
        return None
    if not all(isinstance(x.extent, int) for x in loops) or len(loops) < 2:
        return None
    return _Nest(loops, before)


def _across(nest: _Nest, number: int, backwards: bool) -> list[_Across]:
    """The loads of the vector loop that go across rows along another loop of the nest, which may go from its end."""
    outer, inner = nest.loops[number].variable, nest.inner.variable
    variables = {x.variable for x in nest.loops}
    found = []
    for s in nest.inner.body:
        if type(s) is not Value or s.op != "load":
            continue
        buffer, index = s.attr
        width, stride = index.coefficient(outer) * (-1 if backwards else 1), index.coefficient(inner)
        if not 1 <= width <= WIDEST or any(v not in variables for v, _ in index.terms):
            continue
        if stride >= width * nest.loops[number].extent and _fits(buffer, index, nest, width):
            if not backwards or _leaves_cache(nest.inner, ITEM_BYTES[s.kind], stride):
                found.append(_Across(s, width, stride))
    return found


def _leaves_cache(loop: Loop, item: int, stride: int) -> bool:
    """Whether a loop over every `stride`-th number gathers them from more lines than there is room for.

    Measured, rows times columns, before and after, in us: 256x256 float32 60, 14; 640x480 float32 260, 115; 1000x1000
    float32 1175, 512; 256x256 bytes 50, 7; where the lines stay, 300x700 float32 37, 46, float64 56, 118.
    """
    lines, rest = divmod(stride * item, LINE_BYTES)
    room = WAYS * (SETS if rest else SETS // math.gcd(lines, SETS))
    return item <= NARROW or (isinstance(loop.extent, int) and loop.extent > room)


def _fits(buffer: Buffer, index: Index, nest: _Nest, width: int) -> bool:
    """Whether all that tiles read, the elements between those of a load too, is in the buffer."""
    ends = {x.variable: x.extent - 1 for x in nest.loops if isinstance(x.extent, int)}
    last = index.constant + sum(c * ends[v] for v, c in index.terms if c > 0)
    first = index.constant + sum(c * ends[v] for v, c in index.terms if c < 0)
    return first >= 0 and last - last % width + width <= buffer.size


def _may_change_order(nest: _Nest, number: int, backwards: bool) -> bool:
    """Whether the nest gives the same with its loop `number` as the last but one, and from its end.

    What is written is not read, or only at the very place, and then each place is met in the same order.
    """
    stores = [s for s in nest.inner.body if type(s) is Store]
    written = {s.buffer: s.index.key for s in stores}
    values = [v for block in nest.before for v in block]
    reads = [a for v in [*values, *nest.inner.body] if type(v) is Value for a in parallel.accesses(v)]
    again = [a for a in reads if a.buffer in written]
    if len(written) < len(stores) or not stores or any(written[a.buffer] != a.index.key for a in again):
        return False
    return not again or (number == len(nest.loops) - 2 and not backwards)


# --- the loops of tiles -----------------------------------------------------------------------------------------------


class _Piece(NamedTuple):
    """`count` tiles of `size` iterations of a loop, from `start` on."""

    start: int
    count: int
    size: int


def _first(loop: Loop, piece: _Piece) -> Index:
    """Where a tile begins."""
    return Index(piece.start) if piece.count == 1 else Index.of(loop.variable) * piece.size + piece.start


def _pieces(extent: int, size: int) -> list[_Piece]:
    """A loop cut in tiles: all alike where about the wanted size divides it, else with a shorter one at the end."""
    if extent <= size + size // 2:
        return [_Piece(0, 1, extent)]
    for even in range(size + size // 2, size // 2 - 1, -1):
        if even % LANES == 0 and extent % even == 0:
            return [_Piece(0, extent // even, even)]
    count, rest = divmod(extent, size)
    return [_Piece(0, count, size), *([_Piece(count * size, 1, rest)] if rest else [])]


class _Tiling:
    def __init__(self, nest: _Nest, number: int, backwards: bool, across: Sequence[_Across], first: int):
        self.nest, self.number, self.backwards, self.across = nest, number, backwards, across
        outer, inner = nest.loops[number].extent, nest.inner.extent
        assert isinstance(outer, int) and isinstance(inner, int)
        item = max(ITEM_BYTES[a.load.kind] * a.width for a in across)
        self.turns = outer * item >= LINE_BYTES
        self.rows = _pieces(outer, max(LINES * LINE_BYTES // item, LANES) if self.turns else outer)
        self.columns = _pieces(inner, COLUMNS if self.turns else SHORT_COLUMNS)
        self.first = first
        self.tiles: list[Buffer] = []

    @classmethod
    def of(cls, loop: Loop, first: int) -> "_Tiling | None":
        """The tiles of a nest of loops, numbered from `first` on; None where it reads nothing across rows."""
        nest = _nest(loop)
        if nest is None or math.prod(x.extent for x in nest.loops if isinstance(x.extent, int)) < LEAST:
            return None
        choices = [(k, backwards) for k in range(len(nest.loops) - 1) for backwards in (True, False)]
        found = [(len(a), not back, k, a) for k, back in choices if (a := _across(nest, k, back))]
        if not found:
            return None
        _, forwards, number, across = max(found, key=lambda x: x[:3])
        if nest.loops[number].extent == 1 or not _may_change_order(nest, number, not forwards):
            return None
        return cls(nest, number, not forwards, across[:MOST], first)

    def _key(self, a: _Across) -> Any:
        """Loads of one tile have this in common: all but which part of a complex number they are of."""
        buffer, index = a.load.attr
        return buffer, Index(index.constant - index.constant % a.width, index.terms).key

    def statements(self) -> list[Any]:
        """The nests of loops over the tiles, each with tiles of its own: `tiles` has them after this."""
        return [s for rows in self.rows for columns in self.columns for s in self._tiled(rows, columns)]

    def _tiled(self, rows: _Piece, columns: _Piece) -> list[Any]:
        """The nest over tiles of one size: loops around, loops of tiles, the turning, a tile."""
        nest, k = self.nest, self.number
        copy = Copier({})
        around = [self._loop(copy, loop) for loop in nest.loops[:k]]
        between = [self._loop(copy, loop) for loop in nest.loops[k + 1 : -1]]
        down, along = (Loop(Value("variable", "i64"), p.count) for p in (rows, columns))
        if not between and rows.count < parallel.FEW <= columns.count:  # the longer one can be shared
            loops = [*around, along, down]
        else:
            loops = [*around, down, *between, along]
        loops = [x for x in loops if x.extent != 1 or x not in (down, along)]
        for depth, loop in enumerate(loops, 1):
            loop.variable.depth = depth
        first = _first(down, rows), _first(along, columns)
        turned = self._turned(copy, first, rows.size, columns.size) if self.turns else {}
        made: list[Any] = [*turned.values(), self._tile(copy, first, rows, columns, turned)]
        for loop in reversed(loops):
            loop.body = made
            made = [loop]
        return made

    def _positions(self, row: Index, column: Index) -> dict[Value, Index]:
        """What stands for the variables of the two loops."""
        outer = self.nest.loops[self.number]
        assert isinstance(outer.extent, int)
        return {outer.variable: outer.extent - 1 - row if self.backwards else row, self.nest.inner.variable: column}

    def _loop(self, copy: Copier, loop: Loop) -> Loop:
        made = Loop(Value("variable", "i64"), loop.extent)
        copy.values[loop.variable] = made.variable
        return made

    def _turned(self, copy: Copier, first: tuple[Index, Index], rows: int, columns: int) -> dict[Any, Transpose]:
        """The tiles, filled, by the key of what is read from them."""
        found: dict[Any, Transpose] = {}
        at = Copier({}, copy.values, self._positions(*first))
        for a in self.across:
            key = self._key(a)
            buffer, index = a.load.attr
            start = at.index(index)
            start = Index(start.constant - index.constant % a.width, start.terms)
            if key not in found:
                tile = Buffer(f"tile{self.first + len(self.tiles)}", buffer.kind, columns * rows * a.width, "local")
                self.tiles.append(tile)
                found[key] = Transpose(tile, ZERO, buffer, start, columns, rows * a.width, a.stride, columns)
        return found

    def _tile(self, copy: Copier, first: tuple[Index, Index], rows: _Piece, columns: _Piece,
              turned: dict[Any, Transpose]) -> Loop:
        """The loops over a tile, with the values that were between the loops of the nest inside."""
        nest, depth = self.nest, len(self.nest.loops) + 2
        i, j = Value("variable", "i64", depth=depth), Value("variable", "i64", depth=depth + 1)
        inside = Copier({}, dict(copy.values), self._positions(first[0] + Index.of(i), first[1] + Index.of(j)))
        across = {a.load: a for a in self.across} if turned else {}
        before = inside.block([v for block in nest.before for v in block])
        body = []
        for s in nest.inner.body:
            a = across.get(s)
            if a is None:
                body.append(inside.statement(s))
                continue
            index = Index(a.load.attr[1].constant % a.width * columns.size, ((i, a.width * columns.size), (j, 1)))
            made = inside.values[s] = Value("load", s.kind, (), (turned[self._key(a)].target, index), depth + 1)
            body.append(made)
        return Loop(i, rows.size, [*before, Loop(j, columns.size, body, vector=True)])


__all__ = ["in_tiles"]
