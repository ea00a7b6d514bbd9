# SPDX-License-Identifier: MIT
"""Lowering of eigh, eig and svd by the LAPACK routines that NumPy uses, so that vectors have the same signs.

Matrices are transposed, there and back: a decomposition of the transposed matrix would give other signs.
"""

from typing import Any

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Index, Value
from functorch_lite.compiler.lowering import lapack
from functorch_lite.compiler.lowering.lapack import INT32, at, call, each, kernel, real_dtype, temps, transposed
from functorch_lite.compiler.lowering.program import Place, ProgramLowering
from functorch_lite.compiler.lowering.rules import Operand, Pair, is_complex
from functorch_lite.core.program import Equation
from functorch_lite.primitives import spectral as p

# --- eigh -------------------------------------------------------------------------------------------------------------


@lapack.lowering(p.eigh_p, in_double=True)
def _(low: ProgramLowering, equation: Equation) -> None:
    a = low.place(equation.inputs[0])
    values, vectors = lapack.outputs(low, equation)
    n, dtype = a.aval.shape[-1], a.aval.dtype
    lwork, *others = _eigh_workspace(n, dtype)
    work = temps(low, dtype, lwork)[0]
    real_work = temps(low, real_dtype(dtype), others[0])[0] if is_complex(dtype) else None
    whole_work, info = temps(low, INT32, others[-1], 1)

    def one(i: Index) -> Place:
        turned = transposed(low, equation, at(a, i, 2))
        given = [work, lwork, *((real_work, others[0]) if real_work is not None else ()), whole_work, others[-1]]
        routine = "heevd" if is_complex(dtype) else "syevd"
        call(low, dtype, routine, "V", "L", n, turned, n, at(values, i, 1), *given, info)
        transposed(low, equation, turned, at(vectors, i, 2))
        return info

    each(low, equation, lapack.lead_of(a, 2), one)


def _eigh_workspace(n: int, dtype: Any) -> tuple[int, ...]:
    routine, real = ("heevd", ("work", -1)) if is_complex(dtype) else ("syevd", ())
    return lapack.workspace(dtype, routine, "V", "L", n, None, n, None, "work", -1, *real, "work", -1, None)


# --- eig --------------------------------------------------------------------------------------------------------------


@lapack.lowering(p.eig_p, in_double=True)
def _(low: ProgramLowering, equation: Equation) -> None:
    """Infinite and unknown elements are refused before LAPACK sees them, as NumPy does."""
    a = low.place(equation.inputs[0])
    values, vectors = lapack.outputs(low, equation)
    info = temps(low, INT32, 1)[0]
    decompose = _complex_eig if is_complex(a.aval.dtype) else _real_eig

    def one(i: Index) -> Place:
        b, matrix = low.b, at(a, i, 2)
        kernel(low, equation, "finite", lapack.finite_kernel, [matrix], [info])
        finite = b.op("eq", b.load(info.buffer, info.start), b.constant(0, "i32"))
        b.branch(finite, lambda: decompose(low, equation, matrix, at(values, i, 1), at(vectors, i, 2), info))
        return info

    each(low, equation, lapack.lead_of(a, 2), one)


def _complex_eig(low, equation, a: Place, values: Place, vectors: Place, info: Place) -> None:
    n, dtype = a.aval.shape[-1], a.aval.dtype
    lwork = lapack.workspace(dtype, "geev", "N", "V", n, None, n, None, None, 1, None, n, "work", -1, None, None)[0]
    right, unused, work = temps(low, dtype, (n, n), 1, lwork)
    real_work = temps(low, real_dtype(dtype), 2 * n)[0]
    turned = transposed(low, equation, a)
    call(low, dtype, "geev", "N", "V", n, turned, n, values, unused, 1, right, n, work, lwork, real_work, info)
    transposed(low, equation, right, vectors)


def _real_eig(low, equation, a: Place, values: Place, vectors: Place, info: Place) -> None:
    n, dtype = a.aval.shape[-1], a.aval.dtype
    lwork = lapack.workspace(dtype, "geev", "N", "V", n, None, n, None, None, None, 1, None, n, "work", -1, None)[0]
    right, real, imag, unused, work = temps(low, dtype, (n, n), n, n, 1, lwork)
    turned = transposed(low, equation, a)
    call(low, dtype, "geev", "N", "V", n, turned, n, real, imag, unused, 1, right, n, work, lwork, info)
    kernel(low, equation, "eigenvectors", _eigenvectors_kernel, [real, imag, right], [values, vectors])


def _eigenvectors_kernel(b: Builder, ins: list[Operand], outs: list[Operand]) -> None:
    """Complex values and vectors; two conjugate vectors come as the rows of their real and imaginary parts."""
    (real, imag, right), (values, vectors) = ins, outs
    n = real.shape[0]
    zero, one, last = b.constant(0, real.kind), b.constant(1, "i64"), b.constant(n - 1, "i64")

    def choose(condition: Value, x: Value, y: Value) -> Value:
        return b.op("select", condition, x, y)

    with b.loop(n) as j:
        turn, here = imag.load(b, [j]), b.value_of(j)
        values.store(b, [j], Pair(real.load(b, [j]), turn))
        first, second = b.op("gt", turn, zero), b.op("lt", turn, zero)
        following = b.op("min", b.op("add", here, one), last)
        before = b.op("max", b.op("sub", here, one), b.constant(0, "i64"))
        real_row = b.index_of(choose(second, before, here))
        imag_row = b.index_of(choose(first, following, here))
        with b.loop(n) as i:
            part = right.load(b, [imag_row, i])
            part = choose(first, part, choose(second, b.op("neg", part), zero))
            vectors.store(b, [i, j], Pair(right.load(b, [real_row, i]), part))


# --- svd --------------------------------------------------------------------------------------------------------------


@lapack.lowering(p.svd_p, in_double=True)
def _(low: ProgramLowering, equation: Equation) -> None:
    a = low.place(equation.inputs[0])
    outs = lapack.outputs(low, equation)
    (m, n), dtype, vectors = a.aval.shape[-2:], a.aval.dtype, equation.params["compute_uv"]
    k = min(m, n)
    job = "N" if not vectors else "A" if equation.params["full_matrices"] else "S"
    left, right = (m, n) if job == "A" else (k, k)
    count = len(_real_work(m, n, dtype))
    lwork = lapack.workspace(dtype, "gesdd", job, m, n, None, m, None, None, m, None, right, "work", -1,
                             *[None] * (count + 2))[0]
    work = temps(low, dtype, lwork)[0]
    real_work = temps(low, real_dtype(dtype), *_real_work(m, n, dtype))
    whole_work, info = temps(low, INT32, 8 * k, 1)
    u, vh = temps(low, dtype, (left, m), (n, right)) if vectors else temps(low, dtype, 1, 1)

    def one(i: Index) -> Place:
        turned = transposed(low, equation, at(a, i, 2))
        values = at(outs[1 if vectors else 0], i, 1)
        call(low, dtype, "gesdd", job, m, n, turned, m, values, u, m, vh, right, work, lwork, *real_work, whole_work,
             info)
        if vectors:
            transposed(low, equation, u, at(outs[0], i, 2))
            transposed(low, equation, vh, at(outs[2], i, 2))
        return info

    each(low, equation, lapack.lead_of(a, 2), one)


def _real_work(m: int, n: int, dtype: Any) -> list[int]:
    """The size of gesdd's real working space, which only the complex routines have, by LAPACK's formula."""
    few, many = min(m, n), max(m, n)
    size = max(5 * few * few + 7 * few, 2 * many * few + 2 * few * few + few)
    return [size] if is_complex(dtype) else []
