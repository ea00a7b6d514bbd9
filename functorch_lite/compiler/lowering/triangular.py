# SPDX-License-Identifier: MIT
"""Kernels of Cholesky factorization and triangular solves for real matrices of middle size, out of register tiles.

    solve    for each panel of columns of y (they are apart, so threads may share them)
               for a few rows, in order:   x = y - a[rows, before] x[before]           a tile of products, in registers
                                           x = a[rows, rows]^-1 x                      there, too
    factor   a = U^T U, a few rows of U after the other, is the same with U itself for a; the lower factor is U^T

What a library does for such sizes costs more than its sums: it copies, and wakes threads of its own. Backward
substitution is forward substitution on what is read backwards, and X op(a) = y the transposed problem.

Source: G. Golub, C. Van Loan, "Matrix computations" (2013), sections 3.1 and 4.2.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering import lapack
from functorch_lite.compiler.lowering.contraction import this_machine
from functorch_lite.compiler.lowering.program import ProgramLowering
from functorch_lite.compiler.lowering.rules import Operand
from functorch_lite.compiler.lowering.tiles import Machine, most_rows
from functorch_lite.core.aval import Aval, StackAval
from functorch_lite.core.program import Equation

LARGEST_BYTES = 8 << 20  # of one matrix: beyond, a library's blocks for all caches are better
FEWEST_COLUMNS = 4  # on the right of a general system; fewer leave lanes idle
MOST_ROWS = 8
STRIPS = 4
_EPS = float(np.finfo(np.float64).eps)


class Walked(NamedTuple):
    """A matrix in memory: element (i, j) is at `at + i row + j column`."""

    buffer: Buffer
    at: Index
    row: int
    column: int = 1


class Sizes(NamedTuple):
    """Of a tile: rows, vectors, lanes of a vector."""

    rows: int
    vectors: int
    lanes: int


def _sizes(n: int, columns: int, kind: str) -> Sizes:
    machine: Machine = this_machine()
    lanes = machine.lanes(kind)
    vectors = max(1, min(3 if machine.registers >= 32 else 2, columns // lanes))
    return Sizes(min(MOST_ROWS, most_rows(vectors, machine.registers), n), vectors, lanes)


def fits(aval: Aval | StackAval) -> bool:
    """Whether matrices of this type are real and of middle size."""
    n = aval.shape[-1]
    return aval.dtype.char in "fd" and n * n * aval.dtype.itemsize <= LARGEST_BYTES


# --- tiles ------------------------------------------------------------------------------------------------------------


def _products(
    b: Builder, t: Index, rows: int, step: int, left: Callable[[int, Index], Index], a: Buffer,
    right: Sequence[Index], row: int, x: Buffer,
) -> list[list[Value]]:
    """sums[r][v] of a[left(r, k)] x[right[v] + k row] over the k < t step; the extent is so written that it is long."""
    zero = b.constant(0, x.kind)

    def one(k: Index, *sums: Value) -> list[Value]:
        columns = [b.load(x, at + k * row) for at in right]
        found: list[Value] = []
        for r in range(rows):
            number = b.load(a, left(r, k))
            before = sums[r * len(right) : (r + 1) * len(right)]
            found += [b.op("fma", number, c, s) for c, s in zip(columns, before, strict=True)]
        return found

    def block(i: Index, *sums: Value) -> list[Value]:
        return b.reduce(step, sums, lambda k, *s: one(i * step + k, *s))

    sums = b.reduce(b.value_of(t), [zero] * (rows * len(right)), block)
    return [list(sums[r * len(right) : (r + 1) * len(right)]) for r in range(rows)]


def substitute(
    b: Builder, values: list[list[Value]], coefficient: Callable[[int, int], Value], unit: bool
) -> list[list[Value]]:
    """Forward substitution with the triangle coefficient(r, c), c <= r, in registers."""
    one = b.constant(1, values[0][0].kind)
    for r, row in enumerate(values):
        if not unit:
            inverse = b.op("div", one, coefficient(r, r))
            row[:] = [b.op("mul", v, inverse) for v in row]
        for later in range(r + 1, len(values)):
            factor = b.op("neg", coefficient(later, r))
            values[later] = [b.op("fma", factor, v, w) for v, w in zip(row, values[later], strict=True)]
    return values


# --- solve ------------------------------------------------------------------------------------------------------------


def triangular_solve(low: ProgramLowering, equation: Equation) -> bool:
    """Lower the triangular solves of real matrices of middle size; returns whether it did."""
    if not fits(equation.inputs[0].aval):
        return False
    params = equation.params

    def build(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
        _solve_kernel(b, ins, outs, **params)

    reads = [low.place(x) for x in equation.inputs]
    lapack.kernel(low, equation, ("solve", *params.items()), build, reads, lapack.outputs(low, equation))
    return True


def _solve_kernel(
    b: Builder, ins: list[Operand], outs: list[Operand], *, left_side: bool, lower: bool, trans: str,
    unit_diagonal: bool,
) -> None:
    (a, y), out = ins, outs[0]
    n, (rows, columns) = a.shape[-1], y.shape[-2:]
    turned = (trans != "N") != (not left_side)  # X op(a) = y is op(a)^T X^T = y^T
    row, column = (1, n) if turned else (n, 1)
    forward = lower != turned
    lines = columns if left_side else rows
    if not left_side:
        source, target = (b.scratch(name, y.kind, rows * columns) for name in ("y_turned", "x_turned"))
    with b.loop(a.aval.size // (n * n)) as i:
        matrix, at = Walked(a.buffer, i * (n * n), row, column), i * (rows * columns)
        if left_side:
            _solve(b, n, lines, matrix, Walked(y.buffer, at, lines), Walked(out.buffer, at, lines), forward,
                   unit_diagonal)
        else:
            b.transpose(source, ZERO, y.buffer, at, rows, columns, columns, rows)
            _solve(b, n, lines, matrix, Walked(source, ZERO, lines), Walked(target, ZERO, lines), forward,
                   unit_diagonal)
            b.transpose(out.buffer, at, target, ZERO, columns, rows, rows, columns)


def factored_kernel(b: Builder, ins: list[Operand], outs: list[Operand], *, by_rows: bool) -> None:
    """The x with P^T L U x = y. ins: L and U in one matrix (by columns, if not by rows), the order that P is, and y."""
    (factors, order, y), out = ins, outs[0]
    (n, lines), kind = y.shape, factors.kind
    x = out.buffer if out.kind == kind else b.scratch("x", kind, n * lines)
    with b.loop(n) as r:
        row = b.index_of(b.op("convert", b.load(order.buffer, r), kind="i64"))
        with b.loop(lines, vector=True) as j:
            b.store(x, r * lines + j, b.op("convert", b.load(y.buffer, row * lines + j), kind=kind))
    matrix, walked = Walked(factors.buffer, ZERO, *((n, 1) if by_rows else (1, n))), Walked(x, ZERO, lines)
    _solve(b, n, lines, matrix, walked, walked, True, True)
    _solve(b, n, lines, matrix, walked, walked, False, False)
    if x is not out.buffer:
        with b.loop(n * lines, vector=True) as i:
            b.store(out.buffer, i, b.op("convert", b.load(x, i), kind=out.kind))


def _solve(
    b: Builder, n: int, lines: int, a: Walked, y: Walked, x: Walked, forward: bool, unit: bool
) -> None:
    """a x = y for `lines` columns, a lower triangular; or upper triangular, and all is read backwards."""
    if not forward:
        a = Walked(a.buffer, a.at + (n - 1) * (a.row + a.column), -a.row, -a.column)
        y, x = (Walked(w.buffer, w.at + (n - 1) * w.row, -w.row) for w in (y, x))
    size = _sizes(n, lines, x.buffer.kind)
    width = size.vectors * size.lanes
    whole, rest = divmod(lines, width)
    panels = [(0, whole, size.vectors, size.lanes), (whole * width, rest // size.lanes, 1, size.lanes),
              (lines - rest % size.lanes, 1, 1, rest % size.lanes)]
    for start, count, vectors, lanes in panels:
        if not count * lanes:
            continue
        with b.loop(count) as p:
            first = start + p * (vectors * lanes)
            with b.loop(n // size.rows) as t:
                _rows(b, t, size.rows, size.rows, a, y, x, first, vectors, lanes, unit)
            if n % size.rows:
                _rows(b, Index(n // size.rows), size.rows, n % size.rows, a, y, x, first, vectors, lanes, unit)


def _rows(
    b: Builder, t: Index, step: int, rows: int, a: Walked, y: Walked, x: Walked, first: Index, vectors: int,
    lanes: int, unit: bool,
) -> None:
    """`rows` rows of x from t * step on, in a panel of columns from `first` on."""
    corner = a.at + t * (step * a.row)
    with b.loop(lanes, vector=True) as lane:
        columns = [first + v * lanes + lane for v in range(vectors)]
        sums = _products(b, t, rows, step, lambda r, k: corner + (k * a.column + r * a.row), a.buffer,
                         [x.at + c for c in columns], x.row, x.buffer)
        rest = [[b.op("sub", b.load(y.buffer, y.at + (t * (step * y.row) + r * y.row) + c), s)
                 for c, s in zip(columns, row, strict=True)] for r, row in enumerate(sums)]
        diagonal = corner + t * (step * a.column)
        found = substitute(
            b, rest, lambda r, c: b.load(a.buffer, diagonal + (r * a.row + c * a.column)), unit
        )
        for r, row in enumerate(found):
            for c, value in zip(columns, row, strict=True):
                b.store(x.buffer, x.at + (t * (step * x.row) + r * x.row) + c, value)


# --- cholesky ---------------------------------------------------------------------------------------------------------


def cholesky(low: ProgramLowering, equation: Equation) -> bool:
    """Lower the Cholesky factorization of real matrices of middle size in double precision; returns whether it did."""
    if not fits(equation.inputs[0].aval) or equation.inputs[0].aval.dtype.char != "d":
        return False
    a = low.place(equation.inputs[0])
    count = lapack.lead_of(a, 2)
    info = lapack.temps(low, lapack.INT32, count)[0]
    lapack.kernel(low, equation, "factor", _factor_kernel, [a], [*lapack.outputs(low, equation), info])
    b = low.b
    bad = b.reduce(count, [b.constant(0, "i32")],
                   lambda i, bad: [b.op("or", bad, b.load(info.buffer, info.start + i))])[0]
    lapack.in_python_if(low, equation, bad)
    return True


def _factor_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """The lower factor of each x [..., n, n], and for each 1 (int32) if a pivot is within rounding of zero."""
    x, (out, info) = ins[0], outs
    n = x.shape[-1]
    size = _sizes(n, n, x.kind)
    width = size.vectors * size.lanes
    stride = n + width  # the last panel of a row may go beyond it
    work = b.scratch("upper", x.kind, n * stride)
    with b.loop(x.aval.size // (n * n)) as i:
        factor = Factor(b, n, size, Walked(work, ZERO, stride), x.buffer, i * (n * n))
        factor.read()
        b.store(info.buffer, i, factor.write())
        factor.put(out.buffer, i * (n * n))


class Factor(NamedTuple):
    """U with U^T U = x, in the upper triangle of `work`."""

    b: Builder
    n: int
    size: Sizes
    work: Walked
    x: Buffer
    at: Index

    def read(self) -> None:
        """The lower triangle of x as the upper one of `work`; x's upper one may be anything."""
        b, n = self.b, self.n
        for start, count, _ in self._strips():
            with b.loop(count) as k, b.loop(n - start, vector=True) as j:
                r, c = k + start, j + start
                b.store(self.work.buffer, r * self.work.row + c, b.load(self.x, self.at + (c * n + r)))

    def put(self, out: Buffer, at: Index) -> None:
        """The upper triangle of `work` as the lower one of `out`, with zeros beside it."""
        b, n, zero = self.b, self.n, self.b.constant(0, out.kind)
        b.fill(out, n * n, at)
        for start, count, end in self._strips():
            with b.loop(count) as k, b.loop(end, vector=True) as c:
                r = k + start
                inside = b.op("le", b.value_of(c), b.value_of(r))
                value = b.load(self.work.buffer, c * self.work.row + r)
                b.store(out, at + (r * n + c), b.op("select", inside, value, zero))

    def _strips(self) -> list[tuple[int, int, int]]:
        """Rows in a few parts: where they begin, how many there are, where they end; only what they need is moved."""
        ends = [self.n * k // STRIPS for k in range(STRIPS + 1)] if self.n >= STRIPS * self.size.lanes else [0, self.n]
        return [(start, end - start, end) for start, end in zip(ends, ends[1:], strict=False)]

    def write(self) -> Value:
        """Write the factorization; whether a pivot is within rounding of zero."""
        b, n, rows = self.b, self.n, self.size.rows
        width = self.size.vectors * self.size.lanes

        def block(t: Index, bad: Value) -> list[Value]:
            bad = b.op("or", bad, self._diagonal(t, rows))
            left = b.value_of(t * -rows + (n - rows + width - 1))
            with b.loop(b.op("div", left, b.constant(width, "i64"))) as p:
                self._panel(t, (t + 1) * rows + p * width)
            return [bad]

        bad = b.constant(0, "i32")
        bad = b.reduce(n // rows, [bad], block)[0]
        rest = n % rows
        return b.op("or", bad, self._diagonal(Index(n // rows), rest)) if rest else bad

    def _sums(self, t: Index, rows: int, columns: list[Index]) -> list[list[Value]]:
        """What is left of x in rows from t on, in these columns, less the products of the rows of U before."""
        b, (buffer, _, stride, _), step = self.b, self.work, self.size.rows
        sums = _products(b, t, rows, step, lambda r, k: k * stride + (t * step + r), buffer, columns, stride, buffer)
        return [[b.op("sub", b.load(buffer, (t * step + r) * stride + c), s) for c, s in zip(columns, row, strict=True)]
                for r, row in enumerate(sums)]

    def _diagonal(self, t: Index, rows: int) -> Value:
        """The block on the diagonal, number by number; 1 (int32) if a pivot is within rounding of zero."""
        b, (buffer, _, stride, _), first = self.b, self.work, t * self.size.rows
        before = [b.load(buffer, (first + r) * stride + (first + r)) for r in range(rows)]
        for start in range(0, rows, self.size.lanes):
            with b.loop(min(self.size.lanes, rows - start), vector=True) as lane:
                for r, (value,) in enumerate(self._sums(t, rows, [first + start + lane])):
                    b.store(buffer, (first + r) * stride + (first + start + lane), value)
        upper: list[list[Value]] = []
        bad, one, none = b.constant(0, "i32"), b.constant(1, "i32"), b.constant(0, "i32")
        for r in range(rows):
            row = [b.load(buffer, (first + r) * stride + (first + c)) for c in range(r, rows)]
            for k, earlier in enumerate(upper):
                factor = b.op("neg", earlier[r - k])
                row = [b.op("fma", factor, v, w) for v, w in zip(earlier[r - k :], row, strict=True)]
            limit = b.op("mul", before[r], b.constant(self.n * _EPS, buffer.kind))
            bad = b.op("or", bad, b.op("select", b.op("gt", row[0], limit), none, one))
            root = b.op("sqrt", row[0])
            inverse = b.op("div", b.constant(1, buffer.kind), root)
            upper.append([root, *(b.op("mul", v, inverse) for v in row[1:])])
            for c, value in enumerate(upper[-1]):
                b.store(buffer, (first + r) * stride + (first + r + c), value)
        return bad

    def _panel(self, t: Index, first: Index) -> None:
        """The rows from t on in a panel of columns from `first` on."""
        b, (buffer, _, stride, _), (rows, vectors, lanes) = self.b, self.work, self.size
        with b.loop(lanes, vector=True) as lane:
            columns = [first + v * lanes + lane for v in range(vectors)]
            corner = t * (rows * (stride + 1))
            found = substitute(b, self._sums(t, rows, columns),
                                lambda r, c: b.load(buffer, corner + (c * stride + r)), False)
            for r, row in enumerate(found):
                for c, value in zip(columns, row, strict=True):
                    b.store(buffer, (t * rows + r) * stride + c, value)
