# SPDX-License-Identifier: MIT
"""Sums of long rows, by blocks of columns: `in_columns(kernel)`.

    for i in N                                      for c in M / B
      for j in M vector                               for i in N
        sums[j] = add sums[j] x[i, j]                   for j in B vector
                                                          sums[B c + j] = add sums[B c + j] x[i, B c + j]

The sums of a block stay in the first-level cache while all rows go by, and blocks are apart, so threads can share them.
Each place is added to in the same order as before. How long a block is follows from the size alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from functorch_lite.compiler.loop_ir.nodes import Function, Index, Loop, Store, Value
from functorch_lite.compiler.schedule import parallel
from functorch_lite.compiler.schedule.partial import Copier

BLOCKS = 8  # at least
SHORTEST, LONGEST = 512, 2048  # columns of a block
STEP = 64  # a block is whole vectors
FEWEST_ROWS = 4


def in_columns(function: Function) -> Function:
    """The kernel with its loops over long rows by blocks of columns; itself where there are none."""
    if function.integers:
        return function
    if not any(map(_is_sum_of_rows, function.body)):
        return function
    body = [x for s in function.body for x in (_blocks(s) if _is_sum_of_rows(s) else [s])]
    return replace(function, body=body)


def _is_sum_of_rows(s: Any) -> bool:
    """Whether a loop goes over long rows, and all that it writes is at the place of a column."""
    if not isinstance(s, Loop) or s.vector or s.carried or len(s.body) != 1:
        return False
    (row,) = s.body
    if not isinstance(row, Loop) or not row.vector or row.carried:
        return False
    if not isinstance(s.extent, int) or not isinstance(row.extent, int):
        return False
    if s.extent < FEWEST_ROWS or row.extent < BLOCKS * SHORTEST:
        return False
    return all(isinstance(x, Value | Store) for x in row.body) and _are_apart(row)


def _are_apart(row: Loop) -> bool:
    """Whether what different columns write, in whatever row, is apart, and what each reads of it is its own."""
    written = {x.buffer for x in row.body if isinstance(x, Store)}
    accesses = [a for x in row.body for a in parallel.accesses(x) if a.buffer in written]
    return bool(written) and all(a.index.terms == ((row.variable, 1),) for a in accesses) and all(
        len({a.index.key for a in accesses if a.buffer is b}) == 1 for b in written)


def _blocks(rows: Loop) -> Sequence[Loop]:
    """The loop of blocks, and what is left."""
    (row,) = rows.body
    size = min(max(row.extent // BLOCKS // STEP * STEP, SHORTEST), LONGEST)
    count, rest = divmod(row.extent, size)
    block = Value("variable", "i64", depth=1)
    found = [Loop(block, count, [_columns(rows, Index.of(block) * size, size)])]
    return [*found, _columns(rows, Index(count * size), rest)] if rest else found


def _columns(rows: Loop, start: Index, size: int) -> Loop:
    """All rows of some columns."""
    (row,) = rows.body
    i, j = Value("variable", "i64", depth=2), Value("variable", "i64", depth=3)
    copy = Copier({}, indices={rows.variable: Index.of(i), row.variable: start + Index.of(j)})
    return Loop(i, rows.extent, [Loop(j, size, copy.block(row.body), vector=True)])


__all__ = ["in_columns"]
