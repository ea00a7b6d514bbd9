# SPDX-License-Identifier: MIT
"""Sums of long rows, by blocks of columns: `in_columns(kernel)`.

    for i in N                                      for c in M / B
      for j in M vector                               for i in N
        sums[j] = add sums[j] x[i, j]                   for j in B vector
                                                          sums[B c + j] = add sums[B c + j] x[i, B c + j]

The sums of a block stay in the first-level cache while all rows go by, and blocks are apart, so threads can share them.
Each place is added to in the same order as before. How long a block is follows from the size alone.

Short rows that follow one another go several at a time, `several_rows(kernel)`, so sums are read and written less:

    for i in N                                      for i in N / 4
      for j in M vector                               for j in M vector
        sums[j] = add sums[j] x[i, j]                   sums[j] = add add add add sums[j] x[4 i, j] ... x[4 i + 3, j]
"""

from collections.abc import Sequence
from typing import Any

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Function, Index, Loop, Store, Value
from functorch_lite.compiler.schedule import parallel
from functorch_lite.compiler.schedule.partial import Copier, sums_in_memory

BLOCKS = 8  # at least
SHORTEST, LONGEST = 512, 2048  # columns of a block
STEP = 64  # a block is whole vectors
FEWEST_ROWS = 4
AT_ONCE = (4, 3, 2)  # rows
NEAR_BYTES = 4 << 10  # from one row to the next: those of several rows further apart are read more slowly
MOST_STATEMENTS = 8


def in_columns(function: Function) -> Function:
    """The kernel with its loops over long rows by blocks of columns; itself where there are none."""
    if function.integers:
        return function
    if not any(map(_is_sum_of_rows, function.body)):
        return function
    body = [x for s in function.body for x in (_blocks(s) if _is_sum_of_rows(s) else [s])]
    return function.with_body(body)


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


# --- several rows at a time -------------------------------------------------------------------------------------------


def several_rows(function: Function) -> Function:
    """The kernel with its sums of short rows several at a time; itself where there are none."""
    body = _several(function.body)
    return function if body is function.body else function.with_body(body)


def _several(statements: list[Any]) -> list[Any]:
    """The statements with such loops in them, however deep, written so; themselves where there are none."""
    made = [_several_in(s) if isinstance(s, Loop) and not s.vector else s for s in statements]
    return made if any(a is not b for a, b in zip(made, statements, strict=True)) else statements


def _several_in(s: Loop) -> Loop:
    count = next((n for n in AT_ONCE if s.extent % n == 0), 1) if isinstance(s.extent, int) else 1
    if count > 1 and _is_short_sum(s):
        return _at_once(s, count)
    body = _several(s.body)
    return s if body is s.body else Loop(s.variable, s.extent, body, s.carried, s.vector, s.poll, s.apart)


def _is_short_sum(s: Loop) -> bool:
    """Whether a loop goes over rows near one another and adds them up."""
    if s.carried or len(s.body) != 1:
        return False
    (row,) = s.body
    if not isinstance(row, Loop) or not row.vector or row.carried or len(row.body) > MOST_STATEMENTS:
        return False
    if not all(isinstance(x, Value | Store) for x in row.body) or not sums_in_memory(s):
        return False
    accesses = [a for x in row.body for a in parallel.accesses(x)]
    steps = [a.index.coefficient(s.variable) * ITEM_BYTES[a.buffer.kind] for a in accesses]
    stores = [(x.buffer, x.index.key) for x in row.body if isinstance(x, Store)]
    return all(0 <= step <= NEAR_BYTES for step in steps) and len(set(stores)) == len(stores)


def _at_once(rows: Loop, count: int) -> Loop:
    """The loop with `count` rows an iteration, added in their order."""
    (row,) = rows.body
    sums = sums_in_memory(rows) or {}
    i, j = Value("variable", "i64", depth=rows.variable.depth), Value("variable", "i64", depth=row.variable.depth)
    body: list[Any] = []
    so_far: dict[Any, Value] = {}
    for k in range(count):
        copy = Copier({}, indices={rows.variable: Index.of(i) * count + k, row.variable: Index.of(j)})
        for s in row.body:
            place = parallel.accesses(s)[0] if isinstance(s, Store) or s.op == "load" else None
            key = (place.buffer, place.index.key) if place is not None and place.buffer in sums else None
            if key in so_far and isinstance(s, Value):
                copy.values[s] = so_far[key]
                continue
            made = copy.statement(s)
            if key is not None and isinstance(s, Store):
                so_far[key] = made.value
                if k < count - 1:
                    continue
            body.append(made)
    assert isinstance(rows.extent, int)
    return Loop(i, rows.extent // count, [Loop(j, row.extent, body, vector=True)])


__all__ = ["in_columns", "several_rows"]
