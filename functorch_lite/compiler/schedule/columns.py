# SPDX-License-Identifier: MIT
"""Sums of long rows, by blocks of columns: `in_columns(kernel)`.

    for i in N                                      for c in M / B
      for j in M vector                               for i in N
        sums[j] = add sums[j] x[i, j]                   for j in B vector
                                                          sums[B c + j] = add sums[B c + j] x[i, B c + j]

The sums of a block stay in the first-level cache while all rows go by, and blocks are apart, so threads can share them.
Each place is added to in the same order as before. How long a block is follows from the size alone. Several rows go
through a block at a time: they are as many streams, of which each fetches what it will read next (on one thread 64 rows
of 32,768 float32, 8 MB, take 0.9 of the time so, of 262,144, 64 MB, 0.75; on two threads 8 MB 0.75).

Short rows that follow one another go several at a time, `several_rows(kernel)`, so sums are read and written less:

    for i in N                                      for i in N / 4
      for j in M vector                               for j in M vector
        sums[j] = add sums[j] x[i, j]                   sums[j] = add add add add sums[j] x[4 i, j] ... x[4 i + 3, j]
"""

from collections.abc import Sequence
from typing import Any

from functorch_lite.compiler.loop_ir.nodes import (
    ITEM_BYTES,
    ZERO,
    Function,
    Index,
    Loop,
    Prefetch,
    Store,
    Value,
)
from functorch_lite.compiler.schedule import parallel
from functorch_lite.compiler.schedule.partial import Copier, sums_in_memory

BLOCKS = 8  # at least
SHORTEST, LONGEST = 512, 2048  # columns of a block
STEP = 64  # a block is whole vectors
FEWEST_ROWS = 4
AT_ONCE = (4, 3, 2)  # rows
OF_BLOCKS = (8, 7, 6, 5, 4)  # rows at once that go through a block
AHEAD = 4  # vectors: how far ahead a row of a block is fetched
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
    found = [Loop(block, count, _columns(rows, Index.of(block) * size, size))]
    return [*found, *_columns(rows, Index(count * size), rest)] if rest else found


def _columns(rows: Loop, start: Index, size: int) -> list[Loop]:
    """All rows of some columns."""
    (row,) = rows.body
    assert isinstance(rows.extent, int)
    count = next((n for n in OF_BLOCKS if rows.extent % n == 0), min(OF_BLOCKS[0], rows.extent))
    count = count if _is_sum(rows) else 1
    rest = rows.extent % count
    found = [_at_once(rows, 0, rows.extent - rest, count, (start, size))]
    return [*found, _at_once(rows, rows.extent - rest, rest, rest, (start, size))] if rest else found


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
    if isinstance(s.extent, int):
        count = next((n for n in AT_ONCE if s.extent % n == 0), 1)
        if count > 1 and _is_short_sum(s):
            return _at_once(s, 0, s.extent, count)
    body = _several(s.body)
    return s if body is s.body else Loop(s.variable, s.extent, body, s.carried, s.vector, s.poll, s.apart)


def _is_short_sum(s: Loop) -> bool:
    """Whether a loop goes over rows near one another and adds them up."""
    if s.carried or len(s.body) != 1:
        return False
    (row,) = s.body
    if not isinstance(row, Loop) or not row.vector or row.carried:
        return False
    if not all(isinstance(x, Value | Store) for x in row.body) or not _is_sum(s):
        return False
    accesses = [a for x in row.body for a in parallel.accesses(x)]
    steps = [a.index.coefficient(s.variable) * ITEM_BYTES[a.buffer.kind] for a in accesses]
    return all(0 <= step <= NEAR_BYTES for step in steps)


def _is_sum(rows: Loop) -> bool:
    """Whether a loop over rows does little but add them up."""
    (row,) = rows.body
    stores = [(x.buffer, x.index.key) for x in row.body if isinstance(x, Store)]
    return len(row.body) <= MOST_STATEMENTS and bool(sums_in_memory(rows)) and len(set(stores)) == len(stores)


def _at_once(rows: Loop, first: int, n: int, count: int, columns: tuple[Index, int] | None = None) -> Loop:
    """The loop over n rows from the first on, with `count` of them an iteration, added in their order.

    columns: those of a block, the first and how many; what is read of it is fetched ahead.
    """
    (row,) = rows.body
    start, size = columns or (ZERO, row.extent)
    sums = sums_in_memory(rows) or {}
    depth = rows.variable.depth + (columns is not None)
    i, j = Value("variable", "i64", depth=depth), Value("variable", "i64", depth=depth + 1)
    body: list[Any] = []
    so_far: dict[Any, Value] = {}
    for k in range(count):
        copy = Copier({}, indices={rows.variable: Index.of(i) * count + (first + k), row.variable: start + Index.of(j)})
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
    ahead = _ahead(body, i, j) if columns and count > 1 else []
    return Loop(i, n // count, [Loop(j, size, [*ahead, *body], vector=True)])


def _ahead(body: Sequence[Any], i: Value, j: Value) -> list[Prefetch]:
    """Fetches of what each row reads some vectors further on."""
    loads = [x for x in body if isinstance(x, Value) and x.op == "load"]
    places = {(buffer, index.key): (buffer, index) for buffer, index in (x.attr for x in loads)
              if index.coefficient(i) and index.coefficient(j) == 1}
    return [Prefetch(buffer, index + AHEAD * parallel.VECTOR_BYTES // ITEM_BYTES[buffer.kind], near=True)
            for buffer, index in places.values()]


__all__ = ["in_columns", "several_rows"]
