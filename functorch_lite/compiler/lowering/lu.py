# SPDX-License-Identifier: MIT
"""A kernel of LU factorization with row exchanges for real matrices that a second-level cache holds.

    for t:                            eight columns from the diagonal on
      for each of them                its largest number's row is exchanged with the diagonal's; the eight columns of
                                      the rows below are reduced by it
      for panels of columns beyond    the eight rows are solved for (U), and L U, in register tiles, is taken off below

What a library does for such sizes costs more than its sums, and it wakes threads of its own.

Source: G. Golub, C. Van Loan, "Matrix computations" (2013), section 3.4.
"""

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Buffer, Index, Value
from functorch_lite.compiler.lowering import lapack
from functorch_lite.compiler.lowering.contraction import this_machine
from functorch_lite.compiler.lowering.program import Place, ProgramLowering
from functorch_lite.compiler.lowering.rules import Operand
from functorch_lite.compiler.lowering.tiles import Machine, most_rows
from functorch_lite.compiler.lowering.triangular import substitute
from functorch_lite.core.aval import Aval, StackAval
from functorch_lite.core.program import Equation

LARGEST_BYTES = 1 << 19  # of one matrix: half of what is about the least second-level cache
COLUMNS = 8  # that are reduced before all others
MOST_ROWS, MOST_VECTORS = 4, 2  # of a tile; larger ones are more code, and no faster
LEAST = 2.0**-1000  # pivots beyond have reciprocals that are numbers


def fits(aval: Aval | StackAval) -> bool:
    """Whether there is a kernel for matrices of this type, in double precision."""
    n = aval.shape[-1]
    return aval.dtype.char in "fd" and n * n * 8 <= LARGEST_BYTES


def factor(low: ProgramLowering, equation: Equation, x: Place, factors: Place, pivots: Place, info: Place) -> None:
    """L and U of a matrix in one, by rows, in float64. pivots: as LAPACK's.

    info: 1 (int32) if a pivot is next to 0, or no number.
    """
    lapack.kernel(low, equation, "lu", _kernel, [x], [factors, pivots, info])


def _kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    x, (factors, pivots, info) = ins[0], outs
    n = x.shape[-1]
    machine: Machine = this_machine()
    lanes = machine.lanes(factors.kind)
    vectors = max(1, min(MOST_VECTORS, n // lanes))
    work = b.scratch("work", factors.kind, n * (n + vectors * lanes))  # the last panel of a row may go beyond it
    rows = min(MOST_ROWS, most_rows(vectors, machine.registers))
    elimination = _Elimination(b, n, work, pivots.buffer, vectors, lanes, rows)
    stride = elimination.stride
    with b.loop(n) as r, b.loop(n, vector=True) as j:
        b.store(work, r * stride + j, b.op("convert", b.load(x.buffer, r * n + j), kind=factors.kind))
    b.store(info.buffer, 0, elimination.write())
    with b.loop(n) as r, b.loop(n, vector=True) as j:
        b.store(factors.buffer, r * n + j, b.load(work, r * stride + j))


class _Elimination:
    """Writes the factorization of the matrix in `work`, in place."""

    def __init__(self, b: Builder, n: int, work: Buffer, pivots: Buffer, vectors: int, lanes: int, rows: int):
        self.b, self.n, self.work, self.pivots = b, n, work, pivots
        self.vectors, self.lanes, self.rows = vectors, lanes, rows
        self.stride = n + vectors * lanes

    def write(self) -> Value:
        """All of it; 1 (int32) if a pivot is next to 0, or no number: what comes after it is wrong then."""
        def block(t: Index, bad: Value) -> list[Value]:
            bad = self._reduce(t * COLUMNS, COLUMNS, bad)
            self._beyond(t * COLUMNS)
            return [bad]

        b, (count, rest) = self.b, divmod(self.n, COLUMNS)
        bad = b.constant(0, "i32")
        if count:
            bad = b.reduce(count, [bad], block)[0]
        return self._reduce(Index(count * COLUMNS), rest, bad) if rest else bad

    def _at(self, row: Index, column: Index) -> Index:
        return row * self.stride + column

    def _load(self, row: Index, column: Index) -> Value:
        return self.b.load(self.work, self._at(row, column))

    # --- the columns next to the diagonal -----------------------------------------------------------------------------

    def _reduce(self, first: Index, columns: int, bad: Value) -> Value:
        """The columns from `first` on, in all rows below."""
        b, one, none = self.b, self.b.constant(1, "i32"), self.b.constant(0, "i32")
        least = b.constant(LEAST, self.work.kind)

        def reduce(c: Index, bad: Value) -> list[Value]:
            column = first + c
            largest, row = self._largest(column)
            b.store(self.pivots, column, b.op("convert", b.op("add", row, b.constant(1, "i64")), kind="i32"))
            self._exchange(column, b.index_of(row))
            self._reduce_rows(first, columns, c)
            return [b.op("or", bad, b.op("select", b.op("gt", largest, least), none, one))]

        return b.reduce(columns, [bad], reduce)[0]

    def _largest(self, column: Index) -> tuple[Value, Value]:
        """The first largest size in a column from the diagonal on, and its row."""
        b = self.b

        def look(r: Index, largest: Value, row: Value) -> list[Value]:
            size = b.op("abs", self._load(column + r, column))
            larger = b.op("gt", size, largest)
            return [b.op("select", larger, size, largest), b.op("select", larger, b.value_of(column + r), row)]

        start = [b.op("abs", self._load(column, column)), b.value_of(column)]
        largest, row = b.reduce(b.value_of(column * -1 + self.n), start, look)
        return largest, row

    def _exchange(self, one: Index, other: Index) -> None:
        b = self.b

        def run() -> None:
            with b.loop(self.n, vector=True) as j:
                x, y = self._load(one, j), self._load(other, j)
                b.store(self.work, self._at(one, j), y)
                b.store(self.work, self._at(other, j), x)

        b.branch(b.op("ne", b.value_of(one), b.value_of(other)), run)

    def _reduce_rows(self, first: Index, columns: int, c: Index) -> None:
        """Take off the rows below what makes column first + c zero there; what they are multiplied by is kept in it."""
        b, pivot_row = self.b, first + c
        inverse = b.op("div", b.constant(1, self.work.kind), self._load(pivot_row, pivot_row))
        with b.loop(b.value_of(pivot_row * -1 + (self.n - 1))) as r:
            row = pivot_row + 1 + r
            factor = b.op("mul", self._load(row, pivot_row), inverse)
            minus = b.op("neg", factor)
            with b.loop(columns, vector=True) as j:
                value = self._load(row, first + j)
                less = b.op("fma", minus, self._load(pivot_row, first + j), value)
                later = b.op("gt", b.value_of(j), b.value_of(c))
                b.store(self.work, self._at(row, first + j), b.op("select", later, less, value))
            b.store(self.work, self._at(row, pivot_row), factor)

    # --- all columns beyond -------------------------------------------------------------------------------------------

    def _beyond(self, first: Index) -> None:
        """Eight rows of U, and the product with eight columns of L taken off the rows below them."""
        b, width, below = self.b, self.vectors * self.lanes, first + COLUMNS
        left = b.value_of(below * -1 + (self.n + width - 1))
        with b.loop(b.op("div", left, b.constant(width, "i64"))) as p, b.loop(self.lanes, vector=True) as lane:
            columns = [below + p * width + v * self.lanes + lane for v in range(self.vectors)]
            values = [[self._load(first + r, c) for c in columns] for r in range(COLUMNS)]
            found = substitute(b, values, lambda r, c: self._load(first + r, first + c), True)
            self._store(first, columns, found)
        with b.loop(b.op("div", left, b.constant(width, "i64"))) as p:
            start = below + p * width
            rows = b.op("div", b.value_of(below * -1 + self.n), b.constant(self.rows, "i64"))
            with b.loop(rows) as g:
                self._tile(first, below + g * self.rows, self.rows, start)
            self._last_rows(first, below + b.index_of(rows) * self.rows, start)

    def _last_rows(self, first: Index, row: Index, start: Index) -> None:
        """Those that fill no tile, one after the other."""
        with self.b.loop(self.b.value_of(row * -1 + self.n)) as r:
            self._tile(first, row + r, 1, start)

    def _tile(self, first: Index, row: Index, rows: int, start: Index) -> None:
        b = self.b
        with b.loop(self.lanes, vector=True) as lane:
            columns = [start + v * self.lanes + lane for v in range(self.vectors)]
            values = [[self._load(row + r, c) for c in columns] for r in range(rows)]
            for k in range(COLUMNS):
                upper = [self._load(first + k, c) for c in columns]
                for r in range(rows):
                    minus = b.op("neg", self._load(row + r, first + k))
                    values[r] = [b.op("fma", minus, u, v) for u, v in zip(upper, values[r], strict=True)]
            self._store(row, columns, values)

    def _store(self, row: Index, columns: list[Index], values: list[list[Value]]) -> None:
        for r, line in enumerate(values):
            for c, value in zip(columns, line, strict=True):
                self.b.store(self.work, self._at(row + r, c), value)
