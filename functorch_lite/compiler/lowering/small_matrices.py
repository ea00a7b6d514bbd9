# SPDX-License-Identifier: MIT
"""Kernels for small real matrices, written out: a call of LAPACK costs more than the work. Batches are in the lanes.

Single precision is computed in double, but for triangular solves. Where a pivot is within rounding of zero the kernel
says so, and the equation runs in Python: the eval rule decides whether the matrix counts as singular.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Index, Value
from functorch_lite.compiler.lowering import lapack
from functorch_lite.compiler.lowering.program import ProgramLowering
from functorch_lite.compiler.lowering.rules import Operand
from functorch_lite.core.program import Equation

LARGEST = 6
"""Cholesky factors and triangular solves up to this size are written out."""
LARGEST_PIVOTED = 4
"""Solves and determinants, which choose pivots, up to this size."""
COLUMNS = 4
"""Solves for up to this many right-hand sides."""
_EPS = float(np.finfo(np.float64).eps)
_TINY, _HUGE = 1e-290, 1e300

Kernel = Callable[[Builder, list[Operand], list[Operand]], None]


def _run(low: ProgramLowering, equation: Equation, build: Kernel) -> None:
    """Run a kernel that writes the results and, at the end, whether the equation must run in Python."""
    reads, info = [low.place(a) for a in equation.inputs], lapack.temps(low, lapack.INT32, 1)[0]
    lapack.kernel(low, equation, build.__name__, build, reads, [*lapack.outputs(low, equation), info])
    lapack.in_python_if(low, equation, low.b.load(info.buffer, info.start))


def _size(equation: Equation) -> int:
    """The size of the matrices, if they are real, else a large one."""
    aval = equation.inputs[0].aval
    return aval.shape[-1] if aval.dtype.kind == "f" else 1 << 30


def cholesky(low: ProgramLowering, equation: Equation) -> bool:
    """Lower small Cholesky factorizations."""
    if _size(equation) > LARGEST:
        return False
    _run(low, equation, cholesky_kernel)
    return True


def solve(low: ProgramLowering, equation: Equation) -> bool:
    """Lower small solves."""
    if _size(equation) > LARGEST_PIVOTED or equation.inputs[1].aval.shape[-1] > COLUMNS:
        return False
    _run(low, equation, solve_kernel)
    return True


def det(low: ProgramLowering, equation: Equation) -> bool:
    """Lower small determinants, and their signs and logarithms."""
    if _size(equation) > LARGEST_PIVOTED:
        return False
    _run(low, equation, det_kernel)
    return True


def triangular_solve(low: ProgramLowering, equation: Equation) -> bool:
    """Lower small triangular solves."""
    if _size(equation) > LARGEST:
        return False
    reads = [low.place(a) for a in equation.inputs]
    params = equation.params
    build = functools.partial(triangular_kernel, **params)
    name = "triangular", tuple(params.items())
    lapack.kernel(low, equation, name, build, reads, lapack.outputs(low, equation))
    return True


# --- elements ---------------------------------------------------------------------------------------------------------


def _load(b: Builder, x: Operand, at: Index) -> Value:
    return b.op("convert", b.load(x.buffer, at), kind="f64")


def _store(b: Builder, out: Operand, at: Index, value: Value) -> None:
    b.store(out.buffer, at, b.op("convert", value, kind=out.kind))


def _minus(b: Builder, total: Value, pairs: Sequence[tuple[Value, Value]]) -> Value:
    """total - sum of products."""
    for x, y in pairs:
        total = b.op("sub", total, b.op("mul", x, y))
    return total


def _not_above(b: Builder, value: Value, factor: float, scale: Value) -> Value:
    """1 (i32) unless value > factor * scale, also where it is NaN."""
    above = b.op("gt", value, b.op("mul", scale, b.constant(factor, "f64")))
    return b.op("select", above, b.constant(0, "i32"), b.constant(1, "i32"))


def _batched(b: Builder, count: int, info: Operand, one: Callable[[Index], list[Value]]) -> None:
    """Run `one` for every matrix; it returns numbers that say, not being 0, that something is wrong."""

    def step(i: Index, bad: Value) -> list[Value]:
        return [b.op("or", bad, functools.reduce(lambda x, y: b.op("or", x, y), one(i)))]

    bad = b.reduce(count, [b.constant(0, "i32")], step, combine=["or"], vector=True)[0]
    b.store(info.buffer, 0, bad)


# --- kernels ----------------------------------------------------------------------------------------------------------


def cholesky_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """The lower triangular factor of each x [..., n, n]."""
    x, (out, info) = ins[0], outs
    n = x.shape[-1]
    zero = b.constant(0, "f64")

    def one(i: Index) -> list[Value]:
        at = i * (n * n)
        a = [[_load(b, x, at + (r * n + c)) for c in range(r + 1)] for r in range(n)]
        factor: list[list[Value]] = [[] for _ in range(n)]
        bad = []
        for c in range(n):
            square = _minus(b, a[c][c], [(v, v) for v in factor[c]])
            bad.append(_not_above(b, square, n * _EPS, a[c][c]))
            root = b.op("sqrt", square)
            for r in range(c + 1, n):
                rest = _minus(b, a[r][c], list(zip(factor[r], factor[c], strict=True)))
                factor[r].append(b.op("div", rest, root))
            factor[c].append(root)
        for r in range(n):
            for c in range(n):
                _store(b, out, at + (r * n + c), factor[r][c] if c <= r else zero)
        return bad

    _batched(b, x.aval.size // (n * n), info, one)


def _eliminate(b: Builder, rows: list[list[Value]]) -> tuple[Value, list[Value]]:
    """Make the first columns of `rows` upper triangular, in place. Returns the sign of the order, and what is wrong."""
    n = len(rows)
    entries = [b.op("abs", v) for row in rows for v in row[:n]]
    largest = functools.reduce(lambda x, y: b.op("max", x, y), entries)
    sign, bad = b.constant(1, "f64"), []
    for k in range(n):
        for r in range(k + 1, n):
            larger = b.op("gt", b.op("abs", rows[r][k]), b.op("abs", rows[k][k]))
            sign = b.op("select", larger, b.op("neg", sign), sign)
            for c in range(k, len(rows[k])):
                upper, lower = rows[k][c], rows[r][c]
                rows[k][c] = b.op("select", larger, lower, upper)
                rows[r][c] = b.op("select", larger, upper, lower)
        bad.append(_not_above(b, b.op("abs", rows[k][k]), n * _EPS, largest))
        none = b.op("eq", rows[k][k], b.constant(0, "f64"))
        pivot = b.op("select", none, b.constant(1, "f64"), rows[k][k])  # all below are 0 then
        for r in range(k + 1, n):
            factor = b.op("div", rows[r][k], pivot)
            for c in range(k + 1, len(rows[k])):
                rows[r][c] = _minus(b, rows[r][c], [(factor, rows[k][c])])
    return sign, bad


def solve_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """X with a X = y for each a [..., n, n] and y [..., n, k], by elimination with row exchanges."""
    (a, y), (out, info) = ins, outs
    n, k = y.shape[-2:]

    def one(i: Index) -> list[Value]:
        rows = [[*(_load(b, a, i * (n * n) + (r * n + c)) for c in range(n)),
                 *(_load(b, y, i * (n * k) + (r * k + c)) for c in range(k))] for r in range(n)]
        _, bad = _eliminate(b, rows)
        for c in range(k):
            found: list[Value] = []
            for r in reversed(range(n)):
                rest = _minus(b, rows[r][n + c], list(zip(rows[r][r + 1 : n], found, strict=True)))
                found.insert(0, b.op("div", rest, rows[r][r]))
                _store(b, out, i * (n * k) + (r * k + c), found[0])
        return bad

    _batched(b, a.aval.size // (n * n), info, one)


def det_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """The determinant of each x [..., n, n], or its sign and logarithm where there are two outputs."""
    x, *results, info = ins[0], *outs
    n = x.shape[-1]

    def matrix(i: Index) -> list[Value]:
        rows = [[_load(b, x, i * (n * n) + (r * n + c)) for c in range(n)] for r in range(n)]
        sign, bad = _eliminate(b, rows)
        pivots = [rows[k][k] for k in range(n)]
        det = functools.reduce(lambda p, q: b.op("mul", p, q), pivots, sign)
        size, one = b.op("abs", det), b.constant(1, "f64")
        unsure = [_not_above(b, size, _TINY, one), _not_above(b, b.constant(_HUGE, "f64"), 1.0, size)]
        if len(results) == 2:
            _store(b, results[0], i, b.op("copysign", one, det))
            _store(b, results[1], i, b.op("log", size))
            return [*bad, *unsure]
        _store(b, results[0], i, det)
        zeros = [b.op("eq", v, b.constant(0, "f64")) for v in pivots]
        zero = functools.reduce(lambda p, q: b.op("or", p, q), zeros)
        return [b.op("select", zero, b.constant(0, "i32"), b.op("or", *unsure))]

    _batched(b, x.aval.size // (n * n), info, matrix)


def triangular_kernel(
    b: Builder, ins: list[Operand], outs: list[Operand], *, left_side: bool, lower: bool, trans: str,
    unit_diagonal: bool,
) -> None:
    """op(a) X = y, or X op(a) = y, for each a [..., n, n]: one column (or row) of y is one line, solved by itself."""
    (a, y), out = ins, outs[0]
    n, (rows, columns) = a.shape[-1], y.shape[-2:]
    turned = (trans != "N") != (not left_side)  # X op(a) = y is op(a)^T X^T = y^T
    lines, line, step = (columns, 1, columns) if left_side else (rows, columns, 1)
    order = range(n) if lower != turned else range(n - 1, -1, -1)
    count = a.aval.size // (n * n)

    def one(i: Index, j: Index) -> None:
        def coefficient(r: int, c: int) -> Value:
            return b.load(a.buffer, i * (n * n) + (c * n + r if turned else r * n + c))

        found: dict[int, Value] = {}
        for r in order:
            at = i * (rows * columns) + j * line + r * step
            value = _minus(b, b.load(y.buffer, at), [(coefficient(r, c), v) for c, v in found.items()])
            found[r] = value if unit_diagonal else b.op("div", value, coefficient(r, r))
            b.store(out.buffer, at, found[r])

    if lines >= count:
        with b.loop(count) as i, b.loop(lines, vector=True) as j:
            one(i, j)
    else:
        with b.loop(lines) as j, b.loop(count, vector=True) as i:
            one(i, j)
