# SPDX-License-Identifier: MIT
"""Kernels of the running reductions: cumsum, cumprod, cummax and cummin.

    y[i] = y[i - 1] op x[i]

Each step waits for the one before, so several chains run side by side: those of neighbouring rows, or the eighths of
one long row, whose totals are reduced first to find what each starts from. A very long row is cut into sixteen groups
of such parts, which threads can share; where it is cut follows from its length alone, so results are the same for any
number of threads. Along an axis that is not the last, whole rows are combined in vectors.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder, identity
from functorch_lite.compiler.loop_ir.nodes import Index, Value
from functorch_lite.compiler.lowering.indexing import combined
from functorch_lite.compiler.lowering.rules import Element, Operand, Pair, is_complex, kernel_rules
from functorch_lite.core import dtypes
from functorch_lite.primitives.cumulative import cummax_p, cummin_p, cumprod_p, cumsum_p

CHAINS = 8
LONG = 4096
VERY_LONG = 1 << 17
GROUPS = 16
COLUMNS = 2048
"""As many neighbouring columns are scanned together, if there are twice as many."""
_OPS = {"add": "add", "multiply": "mul", "max": "max", "min": "min"}


class Scan(NamedTuple):
    """What a running reduction reads and writes, how it combines, and the kind it accumulates in."""

    b: Builder
    x: Operand
    out: Operand
    combine: str
    kind: str

    def read(self, at: Index) -> Element:
        """The element of x at a position, in the accumulator's kind."""
        element = self.x.load(self.b, at)
        return element if isinstance(element, Pair) else self.b.op("convert", element, kind=self.kind)

    def write(self, at: Index, element: Element) -> None:
        """Store an accumulator."""
        rounded = element if isinstance(element, Pair) else self.b.op("convert", element, kind=self.out.kind)
        self.out.store(self.b, at, rounded)

    def step(self, before: Element | None, at: Index) -> Element:
        """The next accumulator, which is stored; without one before, the first."""
        element = self.read(at)
        if before is not None:
            element = combined(self.b, self.combine, before, element)
        self.write(at, element)
        return element


def _register(prim, combine):
    def rule(b, inputs, outputs, *, axis):
        (x,), (out,) = inputs, outputs
        if not x.aval.size:
            return
        wide = dtypes.accumulator(x.aval.dtype) != x.aval.dtype
        s = Scan(b, x, out, combine, "f32" if wide else x.kind)
        n, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
        outer = math.prod(x.shape[:axis])
        if inner > CHAINS:
            _over_rows(s, outer, n, inner)
        elif inner == 1:
            _along_last(s, outer, n)
        else:
            with b.loop(outer) as o:
                _chains(s, [o * (n * inner) + j for j in range(inner)], n, inner)

    kernel_rules.add(prim, rule)


_register(cumsum_p, "add")
_register(cumprod_p, "multiply")
_register(cummax_p, "max")
_register(cummin_p, "min")


# --- along the last axis ----------------------------------------------------------------------------------------------


def _along_last(s, rows, n):
    if rows < CHAINS and n >= LONG and s.combine != "multiply":  # a product of a part may overflow where none does
        with s.b.loop(rows) as r:
            (_in_groups if n >= VERY_LONG else _in_parts)(s, r * n, n)
        return
    groups, left = divmod(rows, CHAINS)
    if groups:
        with s.b.loop(groups) as g:
            _chains(s, [(g * CHAINS + k) * n for k in range(CHAINS)], n)
    if left:
        _chains(s, [Index((groups * CHAINS + k) * n) for k in range(left)], n)


def _chains(
    s: Scan, starts: Sequence[Index], n: int, stride: int = 1, before: Sequence[Element | None] = ()
) -> list[Element]:
    """Scan n elements from each start, side by side; returns the last accumulators."""
    before = before or [None] * len(starts)
    first = [s.step(element, start) for element, start in zip(before, starts, strict=True)]
    if n == 1:
        return first

    def body(i, *values):
        steps = [s.step(e, start + (i + 1) * stride) for e, start in zip(_packed(s, values), starts, strict=True)]
        return _flat(steps)

    return _packed(s, s.b.reduce(n - 1, _flat(first), body))


def _in_parts(s, start, n):
    """One long row in `CHAINS` parts: what a part starts from is the total of those before it."""
    part = n // CHAINS
    before: list[Any] = [None]
    for k in range(CHAINS - 1):
        total = _total(s, start + k * part, part)
        before.append(total if k == 0 else combined(s.b, s.combine, before[-1], total))
    last = _chains(s, [start + k * part for k in range(CHAINS)], part, 1, before)[-1]
    for at in range(part * CHAINS, n):
        last = s.step(last, start + at)


def _in_groups(s, start, n):
    """One very long row in `GROUPS` times `CHAINS` parts: threads can share the totals, and then the groups."""
    b, count = s.b, GROUPS * CHAINS
    part = n // count
    sums = [b.local(f"sums{k}", s.kind, count + 1) for k in range(2 if is_complex(s.x.aval.dtype) else 1)]

    def load(k):
        return _packed(s, [b.load(buffer, k) for buffer in sums])[0]

    def store(k, element):
        for buffer, value in zip(sums, _flat([element]), strict=True):
            b.store(buffer, k, value)

    with b.loop(count) as k:
        store(k, _total(s, start + k * part, part))

    def running(k, *before):
        total = load(k)
        store(k, _packed(s, before)[0])
        return _flat([combined(b, s.combine, _packed(s, before)[0], total)])

    store(Index(count), _packed(s, b.reduce(count, _neutral(s), running))[0])
    with b.loop(GROUPS) as g:
        chains = [g * CHAINS + k for k in range(CHAINS)]
        _chains(s, [start + k * part for k in chains], part, 1, [load(k) for k in chains])
    if n > part * count:
        _chains(s, [start + part * count], n - part * count, 1, [load(Index(count))])


def _neutral(s):
    op = _OPS[s.combine]
    value = -0.0 if op == "add" and s.kind[0] == "f" else identity(op, s.kind)  # -0 + -0 is -0
    return [s.b.constant(value, s.kind)] * (2 if is_complex(s.x.aval.dtype) else 1)


def _total(s, start, count):
    op = _OPS[s.combine]
    parts = 2 if is_complex(s.x.aval.dtype) else 1
    initial = [s.b.constant(identity(op, s.kind), s.kind)] * parts

    def body(i, *values):
        new = _flat([s.read(start + i)])
        return [s.b.op(op, value, element) for value, element in zip(values, new, strict=True)]

    return _packed(s, s.b.reduce(count, initial, body, combine=[op] * parts, vector=True))[0]


def _flat(elements: Sequence[Element]) -> list[Value]:
    return [v for e in elements for v in (e if isinstance(e, Pair) else (e,))]


def _packed(s: Scan, values: Sequence[Value]) -> list[Element]:
    if not is_complex(s.x.aval.dtype):
        return list(values)
    return [Pair(*values[k : k + 2]) for k in range(0, len(values), 2)]


# --- along another axis -----------------------------------------------------------------------------------------------


def _over_rows(s, outer, n, inner):
    """Row by row, in vectors; where the accumulator is wider than the output, a row of it is kept aside.

    Wide rows are taken in blocks of columns, which threads can share.
    """
    sums = None if s.kind == s.out.kind else s.b.workspace("sums", s.kind, inner)
    blocks, left = divmod(inner, COLUMNS) if inner >= 2 * COLUMNS else (0, inner)
    if blocks:
        with s.b.loop(outer) as o, s.b.loop(blocks) as k:
            _columns(s, sums, o * (n * inner), k * COLUMNS, COLUMNS, n, inner)
    if left:
        with s.b.loop(outer) as o:
            _columns(s, sums, o * (n * inner), Index(blocks * COLUMNS), left, n, inner)


def _columns(s, sums, base, first, width, n, inner):
    """Scan `width` columns from column `first` on, of a matrix [n, inner] that begins at `base`."""
    with s.b.loop(width, vector=True) as j:
        start = s.step(None, base + first + j)
        if sums is not None:
            s.b.store(sums, first + j, start)
    if n == 1:
        return
    with s.b.loop(n - 1) as i, s.b.loop(width, vector=True) as j:
        at = base + first + i * inner + j
        before = s.out.load(s.b, at) if sums is None else s.b.load(sums, first + j)
        after = s.step(before, at + inner)
        if sums is not None:
            s.b.store(sums, first + j, after)
