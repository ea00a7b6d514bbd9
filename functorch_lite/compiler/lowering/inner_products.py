# SPDX-License-Identifier: MIT
"""Products with k in the lanes: inner products of rows that are in order along k in both operands."""

from collections.abc import Sequence
from typing import Any

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Index, Value
from functorch_lite.compiler.lowering.tiles import element_of

WAYS = 4  # sums side by side where there are fewer, so that one need not wait for the last


def inner_products(
    b: Builder, lanes: int, x: Any, y: Any, depth: int, left: Sequence[Index], right: Sequence[Index], parts: int
) -> list[Value]:
    """The inner products of each of the rows of x from places `left` on with each of those of y from `right` on.

    depth: numbers of a row. parts: 2 of complex numbers, whose parts lie side by side, as do those of the results.
    """
    sums = [b.constant(0, x.kind)] * (len(left) * len(right) * parts)
    ways = WAYS if len(sums) < WAYS else 1
    length = depth // (ways * lanes) * lanes if ways > 1 else depth
    starts = [k * length for k in range(ways)] if length else []

    def run(starts: list[int], n: int, totals: list[Value]) -> list[Value]:
        def step(i: Index, *totals: Value) -> list[Value]:
            products = [p for start in starts for p in _products(b, x, y, (i + start) * parts, left, right, parts)]
            return [b.op("add", total, product) for total, product in zip(totals, products, strict=True)]

        return b.reduce(n, totals, step, combine=["add"] * len(totals), vector=True)

    if starts:
        found = run(starts, length, sums * ways)
        for w in range(ways):
            part = found[w * len(sums) : (w + 1) * len(sums)]
            sums = part if w == 0 else [b.op("add", s, p) for s, p in zip(sums, part, strict=True)]
    done = ways * length
    return run([done], depth - done, sums) if done < depth else sums


def _products(
    b: Builder, x: Any, y: Any, k: Index, left: Sequence[Index], right: Sequence[Index], parts: int
) -> list[Value]:
    """The products of all pairs of numbers of one k, part by part."""
    rows, columns = ([[element_of(b, source, at + k + part) for part in range(parts)] for at in places]
                     for source, places in ((x, left), (y, right)))
    return [p for a in rows for c in columns for p in _product(b, a, c)]


def _product(b: Builder, x: list[Value], y: list[Value]) -> list[Value]:
    """The parts of a product of two numbers."""
    if len(x) == 1:
        return [b.op("mul", x[0], y[0])]
    real, imag = (b.op("mul", x[0], part) for part in y)
    return [b.op("sub", real, b.op("mul", x[1], y[1])), b.op("add", imag, b.op("mul", x[1], y[0]))]
