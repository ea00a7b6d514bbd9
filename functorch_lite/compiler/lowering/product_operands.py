# SPDX-License-Identifier: MIT
"""Where the tiles of a matrix product read their rows, leave their sums, and what they fetch meanwhile.

Where the output is large and k short, a tile's stores wait for lines from memory that it has not touched for long. So a
tile fetches them while it adds up: k is cut in as many parts as the tile has vectors, and each part fetches one vector
of all rows. The order of the sums is the same.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index
from functorch_lite.compiler.lowering.tiles import Fetched, Panels, Walk

FETCHED_BYTES = 1 << 20  # of an output: a larger one is not in a second-level cache when it is written
FETCHED_DEPTH = 256  # of k at most


class Left(NamedTuple):
    """Rows of x from `at` of a buffer on: as they lie, `step` apart, or copied in tiles, each in order along k.

    along: for a step of each contracted axis. in_tiles: in each k of a tile its rows are side by side. k: where in the
    tiles a block of k begins. parts: 2 of complex numbers.
    """

    buffer: Any
    at: Index
    along: Sequence[int]
    step: int
    in_tiles: bool = False
    k: Index = ZERO
    parts: int = 1

    def from_k(self, k: Index) -> "Left":
        """The same rows from k on."""
        return self._replace(k=self.k + k) if self.in_tiles else self._replace(at=self.at + k * self.along[0])

    def from_row(self, row: Index) -> "Left":
        """The rows from this one on, the first of a tile."""
        return self._replace(at=self.at + row * self.step)

    def tile(self, rows: int) -> Walk:
        """How a tile of the first rows is read."""
        if not self.in_tiles:
            return Walk(self.buffer, self.at, [r * self.step for r in range(rows)], self.along, imag=self.parts - 1)
        size = rows * self.parts
        return Walk(self.buffer, self.at + self.k * size, range(0, size, self.parts), [size], imag=self.parts - 1)


class Turn(NamedTuple):
    """How many panels a tile's rows have met before some, and how many they meet at all."""

    first: int
    count: int


class Sums(NamedTuple):
    """Where tiles leave their sums: from `at` of a buffer on; the strides of rows and columns."""

    buffer: Buffer
    at: Index
    row: int
    column: int


def fetched_sums(sums: Sums, at: Index, rows: int, panel: Panels, depth: int) -> list[Fetched]:
    """What a tile of so many rows over a panel fetches: the lines that its sums, from `at` on, will be stored in.

    None where it stores in order: a processor foresees that.
    """
    far = sums.buffer.nbytes > FETCHED_BYTES and sums.column == panel.parts == 1
    in_order = sums.row == panel.size
    if not far or in_order or depth > FETCHED_DEPTH or depth % panel.vectors:
        return []
    return [Fetched(sums.buffer, at, panel.width, [r * sums.row for r in range(rows)])]


def in_parts(walk: Walk, extents: Sequence[int], parts: int) -> tuple[Walk, list[int]]:
    """A walk along one axis of k, and its size, as those of so many parts of it."""
    (step,), (size,) = walk.along, extents
    return walk._replace(along=[step * (size // parts), step]), [parts, size // parts]
