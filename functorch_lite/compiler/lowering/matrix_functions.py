# SPDX-License-Identifier: MIT
"""Lowering of functions of matrices: determinants, adjugate and pinv as programs of other primitives, expm by Pade.

Source: N. Higham, "The scaling and squaring method for the matrix exponential revisited", 2005.
"""

from typing import Any

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Index, Value
from functorch_lite.compiler.lowering import complex_maths, lapack, lu, small_matrices
from functorch_lite.compiler.lowering.lapack import INT32, at, call, copied, each, kernel, staged, temps
from functorch_lite.compiler.lowering.lapack import transposed as transposed_matrix
from functorch_lite.compiler.lowering.program import Place, ProgramLowering
from functorch_lite.compiler.lowering.rules import Operand, Pair, Point, is_complex
from functorch_lite.core import dtypes
from functorch_lite.core.program import Equation
from functorch_lite.primitives import matrix_functions as p
from functorch_lite.primitives.broadcast import iota, zeros_like
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import eq, gt, select, zero_like
from functorch_lite.primitives.elementwise import add, div, mul, sub
from functorch_lite.primitives.linalg import columns, rows, solve
from functorch_lite.primitives.matrix import (
    adjoint,
    by_columns,
    by_rows,
    conjugate,
    identity_like,
    matmul,
    transposed,
)
from functorch_lite.primitives.movement import concatenate
from functorch_lite.primitives.reduction import reduce_max, reduce_prod
from functorch_lite.primitives.spectral import svd


def _last(x: Any) -> tuple[int, ...]:
    return (len(x.shape) - 1,)


def _chosen(pred: Any, on_true: float, like: Any, otherwise: Any = None) -> Any:
    """A number where the predicate holds, elsewhere the array `otherwise` (or 1)."""
    one = like.dtype.type(1)
    return select(pred, like.dtype.type(on_true), one if otherwise is None else otherwise)


# --- determinants -----------------------------------------------------------------------------------------------------


@lapack.lowering(p.slogdet_p, in_double=True, small=small_matrices.det)
def _(low: ProgramLowering, equation: Equation) -> None:
    _determinants(low, equation, *lapack.outputs(low, equation))


@lapack.lowering(p.det_p, in_double=True, small=small_matrices.det)
def _(low: ProgramLowering, equation: Equation) -> None:
    _determinants(low, equation, lapack.outputs(low, equation)[0], None)


def _determinants(low: ProgramLowering, equation: Equation, first: Place, logs: Place | None) -> None:
    """The signs and logarithms of the determinants, or where there is no place for logarithms the determinants."""
    a = low.place(equation.inputs[0])
    n, dtype = a.aval.shape[-1], a.aval.dtype
    pivots, info = temps(low, INT32, n, 1)
    build = _sign_kernel if logs is not None else _det_kernel
    here = temps(low, dtype, (n, n))[0] if lu.fits(a.aval) else None

    def one(i: Index) -> Place | None:
        factors = here or transposed_matrix(low, equation, at(a, i, 2))
        if here:
            lu.factor(low, equation, at(a, i, 2), factors, pivots, info)
        else:
            call(low, dtype, "getrf", n, n, factors, n, pivots, info)
        targets = [at(x, i, 0) for x in (first, logs) if x is not None]
        kernel(low, equation, build.__name__, build, [factors, pivots], targets)
        return info if here else None  # to LAPACK a determinant of 0 is no failure

    each(low, equation, lapack.lead_of(a, 2), one)


def _sign_and_log(b: Builder, ins: list[Operand]) -> tuple[Point, list[Value]]:
    """The sign (its two parts, if complex) and the logarithm from U and LAPACK's pivots; 0 and -inf if singular."""
    factors, pivots = ins
    n, kind = factors.shape[0], factors.kind
    point = Point(b, [factors.aval], factors.aval)
    zero, one, minus = (b.constant(c, kind) for c in (0, 1, -1))
    parts = 2 if is_complex(factors.aval.dtype) else 1

    def step(i: Index, *so_far: Value) -> list[Value]:
        d = factors.load(b, [i, i])
        stays = b.op("eq", pivots.load(b, [i]), b.value_of(i + 1, "i32"))
        swap = b.op("select", stays, one, minus)
        size = complex_maths.hypot(point, *d) if isinstance(d, Pair) else b.op("abs", d)
        log = b.op("add", so_far[-1], b.op("log", size))
        if not isinstance(d, Pair):
            turn = b.op("select", b.op("lt", d, zero), minus, one)
            turned = [b.op("mul", so_far[0], b.op("mul", turn, swap))]
        else:
            scale = b.op("div", swap, size)
            turned = complex_maths.mul(point, Pair(*so_far[:2]), Pair(*(b.op("mul", v, scale) for v in d)))
        regular = b.op("ne", size, zero)
        none = [b.op("select", regular, v, zero) for v in turned]
        return [*none, b.op("select", regular, log, b.constant(-np.inf, kind))]

    return point, b.reduce(n, [one, zero, zero][:parts] + [zero], step)


def _sign_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    *sign, log = _sign_and_log(b, ins)[1]
    outs[0].store(b, [], Pair(*sign) if len(sign) == 2 else sign[0])
    outs[1].store(b, [], log)


def _det_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    *sign, log = _sign_and_log(b, ins)[1]
    found = [b.op("mul", v, b.op("exp", log)) for v in sign]
    outs[0].store(b, [], Pair(*found) if len(found) == 2 else found[0])


# --- by singular values -----------------------------------------------------------------------------------------------


def _adjugate(a: Any) -> Any:
    """From a = U S V^H: adj(a) = det(U) det(V^H) V adj(S) U^H, and adj(S) has the products of the other values."""
    u, s, vh = svd(a, full_matrices=True)
    shape = (*s.shape, s.shape[-1])
    mine = eq(iota(np.dtype(np.int32), shape, len(shape) - 2), iota(np.dtype(np.int32), shape, len(shape) - 1))
    others = reduce_prod(_chosen(mine, 1, s, by_columns(s, shape)), (len(shape) - 1,))
    if others.dtype != a.dtype:
        others = convert(others, a.dtype)
    turn = mul(p.det(u), p.det(vh))
    front = mul(by_rows(turn, s.shape), others)
    return matmul(mul(adjoint(vh), by_columns(front, vh.shape)), adjoint(u))


def _pinv(a: Any, rtol: float) -> Any:
    u, s, vh = svd(conjugate(a))
    wide = convert(s, np.dtype(np.float64)) if s.dtype != np.float64 else s
    bound = mul(reduce_max(wide, _last(wide)), np.float64(rtol))
    large = gt(wide, by_rows(bound, wide.shape))
    one = s.dtype.type(1)
    inverse = select(large, div(one, select(large, s, one)), zero_like(s))
    if inverse.dtype != u.dtype:
        inverse = convert(inverse, u.dtype)
    return matmul(mul(transposed(vh), by_columns(inverse, transposed(vh).shape)), transposed(u))


lapack.composed(p.adjugate_p, _adjugate)
lapack.composed(p.pinv_p, _pinv)

# --- expm: r(a / 2^s)^(2^s), r the Pade approximant at 0 --------------------------------------------------------------
PADE = {
    "f32": (17297280.0, 8648640.0, 1995840.0, 277200.0, 25200.0, 1512.0, 56.0, 1.0),
    "f64": (
        64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0,
        10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
    ),
}
LARGEST = {"f32": 3.925724783138660, "f64": 5.371920351148152}
"""Up to this 1-norm the approximant is exact to rounding."""


def _times(x: Any, c: float) -> Any:
    return mul(x, x.dtype.type(c))


def _even_part(c: Any, one: Any, powers: list[Any]) -> Any:
    """c0 + c1 a^2 + c2 a^4 + ..., with the powers a^2, a^4, a^6 at hand: all beyond is a^6 times the rest."""
    total = _times(one, c[0])
    for k, power in enumerate(powers[: len(c) - 1]):
        total = add(total, _times(power, c[k + 1]))
    if len(c) <= 4:
        return total
    rest = _times(powers[0], c[4])
    for k in range(5, len(c)):
        rest = add(rest, _times(powers[k - 4], c[k]))
    return add(total, matmul(powers[2], rest))


def _pade(a: Any) -> Any:
    """The Pade approximant (V - U)^-1 (V + U) of the exponential: U its odd part, V its even part."""
    c = PADE["f32" if dtypes.real_dtype(a.dtype) == np.float32 else "f64"]
    one = identity_like(a)
    second = matmul(a, a)
    fourth = matmul(second, second)
    powers = [second, fourth, matmul(fourth, second)]
    v = _even_part(c[0::2], one, powers)
    u = matmul(a, _even_part(c[1::2], one, powers))
    return solve(sub(v, u), add(v, u))


def _square(a: Any) -> Any:
    return matmul(a, a)


@lapack.lowering(p.expm_p)
def _(low: ProgramLowering, equation: Equation) -> None:
    a, out = low.place(equation.inputs[0]), lapack.outputs(low, equation)[0]
    aval = at(a, Index(), 2).aval
    scaled, squared = temps(low, aval.dtype, aval.shape, aval.shape)
    halvings, info = temps(low, INT32, 1, 1)

    def one(i: Index) -> Place:
        target = at(out, i, 2)
        kernel(low, equation, "scale", _scale_kernel, [at(a, i, 2)], [scaled, halvings, info])
        low.call(staged(_pade, (aval,)), [scaled], [target])
        times = low.b.op("convert", low.b.load(halvings.buffer, halvings.start), kind="i64")
        with low.b.loop(times):
            low.call(staged(_square, (aval,)), [target], [squared])
            copied(low, squared, target)
        return info

    each(low, equation, lapack.lead_of(a, 2), one)


def _scale_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """x halved until its 1-norm is small, how often that was, and 1 if an element is not finite."""
    x, (out, halvings, info) = ins[0], outs
    n = x.shape[0]
    zero = b.constant(0, x.kind)
    point = Point(b, [x.aval], x.aval)

    def size(i: Index, j: Index) -> Value:
        element = x.load(b, [i, j])
        return complex_maths.hypot(point, *element) if is_complex(x.aval.dtype) else b.op("abs", element)

    def column(j: Index, norm: Value) -> list[Value]:
        total = b.reduce(n, [zero], lambda i, t: [b.op("add", t, size(i, j))])[0]
        return [b.op("max", norm, total)]

    norm = b.reduce(n, [zero], column)[0]
    finite = b.op("is_finite", norm)
    start = [b.op("select", finite, norm, zero), b.constant(1, x.kind), b.constant(0, "i32")]
    half, limit, one = b.constant(0.5, x.kind), b.constant(LARGEST[x.kind], x.kind), b.constant(1, "i32")
    _, factor, times = b.loop_while(
        start, lambda norm, *_: b.op("gt", norm, limit),
        lambda norm, factor, times: [b.op("mul", norm, half), b.op("mul", factor, half), b.op("add", times, one)],
    )
    b.store(halvings.buffer, 0, times)
    b.store(info.buffer, 0, b.op("select", finite, b.constant(0, "i32"), one))
    with b.loop(n) as i, b.loop(n, vector=True) as j:
        element = x.load(b, [i, j])
        out.store(b, [i, j], Pair(*(b.op("mul", v, factor) for v in element)) if isinstance(element, Pair)
                  else b.op("mul", element, factor))


def _expm_frechet(a: Any, e: Any) -> Any:
    """expm [[a, e], [0, a]] has the derivative in its corner."""
    last = len(a.shape) - 1
    above, below = concatenate([a, e], last), concatenate([zeros_like(a), a], last)
    n = a.shape[-1]
    return columns(rows(p.expm(concatenate([above, below], last - 1)), 0, n), n, 2 * n)


lapack.composed(p.expm_frechet_p, _expm_frechet)
