# SPDX-License-Identifier: MIT
"""Matrix products of few rows and columns and much k: parts of k are jobs with sums of their own, added up in the end.

A gradient of weights, above all: many examples are summed for few numbers. Blocks of columns would be jobs too narrow
for tiles that keep a processor busy, and each would read all of the left operand. In how many parts k goes depends on
sizes alone, so any number of threads gives the same bits.
"""

import math
from collections.abc import Sequence

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Buffer
from functorch_lite.compiler.lowering.product_tiles import Axis

PARTS = range(8, 3, -1)  # of k
LEAST_DEPTH = 512  # of a part
LEAST_SIDE = 32  # rows, and columns
TIMES = 8  # as deep as a product has rows or columns
WORTH = 1 << 25  # products: fewer take too short a time
SUMS_BYTES = 512 << 10  # of all parts: part of a second-level cache


def parts_of(rows: Sequence[Axis], columns: Sequence[Axis], contracted: Sequence[Axis], kind: str) -> int:
    """In how many parts the outermost axis of k is cut, for a product without a batch; 1: as usual."""
    m, n, depth = (math.prod(a.size for a in axes) for axes in (rows, columns, contracted))
    if min(m, n) < LEAST_SIDE or depth < TIMES * max(m, n) or m * n * depth < WORTH:
        return 1
    most = min(depth // LEAST_DEPTH, SUMS_BYTES // (m * n * ITEM_BYTES[kind]))
    return next((k for k in PARTS if k <= most and contracted[0].size % k == 0), 1)


def add_up(b: Builder, sums: Buffer, parts: int, out: Buffer) -> None:
    """Write the sum of so many arrays like `out`, which lie one after another, in order."""
    with b.loop(out.size, vector=True) as i:
        total = b.load(sums, i)
        for k in range(1, parts):
            total = b.op("add", total, b.load(sums, i + k * out.size))
        b.store(out, i, total)
