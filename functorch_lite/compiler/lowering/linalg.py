# SPDX-License-Identifier: MIT
"""Lowering of factorizations and solves by LAPACK, with the signs, pivots and failures of the eval rules.

Cholesky factors, triangular solves, and the factors that solve and det need, of real matrices that a cache holds, have
kernels of ours (`triangular`, `lu`).

A row-major matrix is its transpose to LAPACK: Cholesky asks for the other triangle, QR for an LQ factorization, and
triangular_solve for the other side. LU needs columns in order, since that is how it chooses pivots: it is transposed.
"""

import functools
from typing import Any

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Index, Value
from functorch_lite.compiler.lowering import lapack, lu, small_matrices, triangular
from functorch_lite.compiler.lowering.lapack import INT32, at, call, copied, each, kernel, temps, transposed
from functorch_lite.compiler.lowering.program import Place, ProgramLowering
from functorch_lite.compiler.lowering.rules import Operand, Pair, is_complex, kernel_rules
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Literal
from functorch_lite.primitives import linalg as p

_FLOAT64 = np.dtype(np.float64)


def _zero(b: Builder, like: Any) -> Any:
    if isinstance(like, Pair):
        return Pair(_zero(b, like.real), _zero(b, like.imag))
    return b.constant(0, like.kind)


def _select(b: Builder, condition: Value, x: Any, y: Any) -> Any:
    if isinstance(x, Pair):
        return Pair(_select(b, condition, x.real, y.real), _select(b, condition, x.imag, y.imag))
    return b.op("select", condition, x, y)


def triangle(lower: bool) -> Any:
    """The kernel out [m, n] = the lower (or upper) triangle of the first m rows and n columns of x, zeros elsewhere."""

    def build(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
        m, n = outs[0].shape
        with b.loop(m) as i, b.loop(n, vector=True) as j:
            value = ins[0].load(b, [i, j])
            inside = b.op("le" if lower else "ge", b.value_of(j), b.value_of(i))
            outs[0].store(b, [i, j], _select(b, inside, value, _zero(b, value)))

    return build


# --- cholesky: a = L L^H; to LAPACK, conj(a) = U^H U with U = L^T -----------------------------------------------------


@lapack.lowering(p.cholesky_p, in_double=True, small=small_matrices.cholesky)
def _(low: ProgramLowering, equation: Equation) -> None:
    if triangular.cholesky(low, equation):
        return
    a = low.place(equation.inputs[0])
    out = lapack.outputs(low, equation)[0]
    info = temps(low, INT32, 1)[0]
    n, dtype = a.aval.shape[-1], a.aval.dtype

    def one(i: Index) -> Place:
        target = at(out, i, 2)
        kernel(low, equation, "lower", triangle(True), [at(a, i, 2)], [target])
        call(low, dtype, "potrf", "U", n, target, n, info)
        return info

    each(low, equation, lapack.lead_of(a, 2), one)


# --- triangular_solve: op(a) X = b is, transposed, X^T op(a)^T = b^T --------------------------------------------------


@lapack.lowering(p.triangular_solve_p, small=small_matrices.triangular_solve)
def _(low: ProgramLowering, equation: Equation) -> None:
    if triangular.triangular_solve(low, equation):
        return
    params = equation.params
    a, b = (low.place(x) for x in equation.inputs)
    out = lapack.outputs(low, equation)[0]
    dtype, n = a.aval.dtype, a.aval.shape[-1]
    rows, columns = b.aval.shape[-2:]
    one_place = low.place(Literal(np.ones((), dtype)[()], Aval((), dtype)))
    copied(low, b, out)
    side, uplo = "R" if params["left_side"] else "L", "U" if params["lower"] else "L"
    diagonal = "U" if params["unit_diagonal"] else "N"

    def one(i: Index) -> None:
        call(low, dtype, "trsm", side, uplo, params["trans"], diagonal, columns, rows, one_place, at(a, i, 2), n,
             at(out, i, 2), columns)

    each(low, equation, lapack.lead_of(a, 2), one)


# --- solve ------------------------------------------------------------------------------------------------------------


def _solve_at_once(low: ProgramLowering, equation: Equation) -> bool:
    """Lower solves of real matrices that a cache holds, of single precision too; returns whether they were."""
    if small_matrices.solve(low, equation):
        return True
    if not lu.fits(equation.inputs[0].aval):
        return False
    _solve_by_tiles(low, equation, ours=True)
    return True


@lapack.lowering(p.solve_p, in_double=True, small=_solve_at_once)
def _(low: ProgramLowering, equation: Equation) -> None:
    matrix, columns = equation.inputs[0].aval, equation.inputs[1].aval.shape[-1]
    if columns >= triangular.FEWEST_COLUMNS and triangular.fits(matrix):
        _solve_by_tiles(low, equation, ours=False)
    else:
        _solve_by_library(low, equation)


def _solve_by_tiles(low: ProgramLowering, equation: Equation, ours: bool) -> None:
    """Solve by two triangular solves of ours, with factors of ours or of LAPACK."""
    a, b = (low.place(x) for x in equation.inputs)
    out = lapack.outputs(low, equation)[0]
    n = a.aval.shape[-1]
    (factors,), (pivots, order, info) = temps(low, _FLOAT64, (n, n)), temps(low, INT32, n, n, 1)
    solve = functools.partial(triangular.factored_kernel, by_rows=ours)

    def one(i: Index) -> Place:
        if ours:
            lu.factor(low, equation, at(a, i, 2), factors, pivots, info)
        else:
            transposed(low, equation, at(a, i, 2), factors)
            call(low, _FLOAT64, "getrf", n, n, factors, n, pivots, info)
        kernel(low, equation, "pivots", _pivots_kernel, [pivots], [pivots, order])
        kernel(low, equation, ("factored", ours), solve, [factors, order, at(b, i, 2)], [at(out, i, 2)])
        return info

    each(low, equation, lapack.lead_of(a, 2), one)


def _solve_by_library(low: ProgramLowering, equation: Equation) -> None:
    a, b = (low.place(x) for x in equation.inputs)
    out = lapack.outputs(low, equation)[0]
    (n, k), dtype = b.aval.shape[-2:], a.aval.dtype
    pivots, info = temps(low, INT32, n, 1)

    def one(i: Index) -> Place:
        factors, target = transposed(low, equation, at(a, i, 2)), at(out, i, 2)
        if k == 1:
            right = copied(low, at(b, i, 2), target)
        else:
            right = transposed(low, equation, at(b, i, 2))
        call(low, dtype, "gesv", n, k, factors, n, pivots, right, n, info)
        if k > 1:
            transposed(low, equation, right, target)
        return info

    each(low, equation, lapack.lead_of(a, 2), one)


# --- lu ---------------------------------------------------------------------------------------------------------------


@lapack.lowering(p.lu_p)
def _(low: ProgramLowering, equation: Equation) -> None:
    a = low.place(equation.inputs[0])
    packed, pivots, order = lapack.outputs(low, equation)
    (m, n), dtype = a.aval.shape[-2:], a.aval.dtype
    found, info = temps(low, INT32, min(m, n), 1)

    def one(i: Index) -> None:
        factors = transposed(low, equation, at(a, i, 2))
        call(low, dtype, "getrf", m, n, factors, m, found, info)
        transposed(low, equation, factors, at(packed, i, 2))
        kernel(low, equation, "pivots", _pivots_kernel, [found], [at(pivots, i, 1), at(order, i, 1)])

    each(low, equation, lapack.lead_of(a, 2), one)


def _pivots_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """LAPACK's pivots counted from 0, and the order of the rows that they make."""
    found, (pivots, order) = ins[0].buffer, (o.buffer for o in outs)
    with b.loop(found.size) as i:
        b.store(pivots, i, b.op("sub", b.load(found, i), b.constant(1, "i32")))
    with b.loop(order.size) as i:
        b.store(order, i, b.value_of(i, "i32"))
    with b.loop(found.size) as i:
        row = b.index_of(b.op("convert", b.load(pivots, i), kind="i64"))
        mine, other = b.load(order, i), b.load(order, row)
        b.store(order, i, other)
        b.store(order, row, mine)


@kernel_rules.register(p.pivots_to_order_p)
def _(b: Builder, ins: list[Operand], outs: list[Operand], *, m: int) -> None:
    pivots, order = ins[0], outs[0]
    k = pivots.shape[-1]
    with b.loop(order.aval.size // m) as r:
        with b.loop(m) as i:
            b.store(order.buffer, r * m + i, b.value_of(i, "i32"))
        with b.loop(k) as i:
            row = _checked_row(b, b.load(pivots.buffer, r * k + i), m) + r * m
            mine, other = b.load(order.buffer, r * m + i), b.load(order.buffer, row)
            b.store(order.buffer, r * m + i, other)
            b.store(order.buffer, row, mine)


def _checked_row(b: Builder, number: Value, m: int) -> Index:
    """A row's number as an index; the kernel fails if there is no such row. Negative numbers count from the end."""
    row = b.op("convert", number, kind="i64")
    none, size = b.constant(0, "i64"), b.constant(m, "i64")
    row = b.op("select", b.op("lt", row, none), b.op("add", row, size), row)
    outside = b.op("or", b.op("lt", row, none), b.op("ge", row, size))

    def leave() -> None:
        b.exit(1)

    b.branch(outside, leave)
    return b.index_of(row)


# --- qr: a = Q R is, transposed, a^T = R^T Q^T: LQ --------------------------------------------------------------------


@lapack.lowering(p.qr_p, in_double=True)
def _(low: ProgramLowering, equation: Equation) -> None:
    a = low.place(equation.inputs[0])
    q, r = lapack.outputs(low, equation)
    (m, n), dtype = a.aval.shape[-2:], a.aval.dtype
    k, columns = min(m, n), q.aval.shape[-1]
    to_q = "unglq" if is_complex(dtype) else "orglq"
    sizes = (*lapack.workspace(dtype, "gelqf", n, m, None, n, None, "work", -1, None),
             *lapack.workspace(dtype, to_q, columns, m, k, None, columns, None, "work", -1, None))
    factors, tau, work = temps(low, dtype, (m, n), k, max(sizes))
    info = temps(low, INT32, 1)[0]

    def one(i: Index) -> None:
        copied(low, at(a, i, 2), factors)
        call(low, dtype, "gelqf", n, m, factors, n, tau, work, sizes[0], info)
        kernel(low, equation, "upper", triangle(False), [factors], [at(r, i, 2)])
        kernel(low, equation, "reflectors", _reflectors_kernel, [factors], [at(q, i, 2)])
        call(low, dtype, to_q, columns, m, k, at(q, i, 2), columns, tau, work, sizes[1], info)

    each(low, equation, lapack.lead_of(a, 2), one)


def _reflectors_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """The first columns of x, as many as both matrices have."""
    k = min(ins[0].shape[1], outs[0].shape[1])
    with b.loop(outs[0].shape[0]) as i, b.loop(k) as j:
        outs[0].store(b, [i, j], ins[0].load(b, [i, j]))
