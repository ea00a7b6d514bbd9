# SPDX-License-Identifier: MIT
"""The mask of attention beside the scores: its rows for a few queries, and which keys any of them lets through."""

from collections.abc import Sequence

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value


class MaskRows:
    """A copy of the rows of a mask [count, rows, m] that belong to a few queries, with nothing seen behind key m - 1.

    step: from one row to the next, 0 where the mask has one for all queries.
    """

    def __init__(self, b: Builder, source: Buffer, shape: Sequence[int], heads: int, stride: int, most: int):
        self.b, self.source, self.heads, self.stride = b, source, heads, stride
        self.count, self.rows, self.m = shape
        self.step = stride if self.rows != 1 else 0
        self.minus_infinity = None if source.kind == "bool" else b.constant(-np.inf, source.kind)
        self.buffer = b.scratch("mask_rows", source.kind, most * stride if self.step else stride)
        self.at = ZERO

    def fill(self) -> None:
        """Nothing is seen behind the last key; once for the queries that share it, so that threads have their own."""
        b = self.b
        unseen = b.constant(False, "bool") if self.minus_infinity is None else self.minus_infinity
        if self.m != self.stride:
            with b.loop(self.buffer.size, vector=True) as i:
                b.store(self.buffer, i, unseen)

    def find(self, head: Index) -> None:
        """Note where the mask of a head of queries begins."""
        b, share = self.b, self.heads // self.count
        self.fill()
        if self.count == 1:
            head = ZERO
        elif share > 1:
            head = b.index_of(b.op("div", b.value_of(head), b.constant(share, "i64")))
        self.at = head * (self.rows * self.m)

    def copy(self, row: Index, rows: int) -> tuple[Value, Value]:
        """Copy the rows of these queries; the first key that one sees, and one behind the last."""
        b, m = self.b, self.m
        at, rows = (self.at + row * m, rows) if self.step else (self.at, 1)

        def step(r: Index, j: Index, first: Value, end: Value) -> list[Value]:
            value = b.load(self.source, at + (r * m + j))
            b.store(self.buffer, r * self.stride + j, value)
            seen = value if self.minus_infinity is None else b.op("ne", value, self.minus_infinity)
            here, behind = b.value_of(j, "i32"), b.value_of(j + 1, "i32")
            return [b.op("min", first, b.op("select", seen, here, b.constant(m, "i32"))),
                    b.op("max", end, b.op("select", seen, behind, b.constant(0, "i32")))]

        def row_of(r: Index, first: Value, end: Value) -> list[Value]:
            return b.reduce(m, [first, end], lambda j, *found: step(r, j, *found), combine=["min", "max"], vector=True)

        found = b.reduce(rows, [b.constant(m, "i32"), b.constant(0, "i32")], row_of)
        return b.op("convert", found[0], kind="i64"), b.op("convert", found[1], kind="i64")

    def applied(self, score: Value, place: Index) -> Value:
        """A score with the mask's number added, or minus infinity where the mask says no."""
        b, value = self.b, self.b.load(self.buffer, place)
        if self.minus_infinity is not None:
            return b.op("add", score, value)
        return b.op("select", value, score, b.constant(-np.inf, score.kind))
