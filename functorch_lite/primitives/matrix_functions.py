# SPDX-License-Identifier: MIT
"""Functions of whole matrices: det, adjugate, slogdet, pinv, expm. Leading axes are batches.

Each derivative is written with primitives that have derivatives themselves, so it is right to any order.

Source: M. Giles, "Collected matrix derivative results", 2008; G. Golub, V. Pereyra, "The differentiation of
pseudo-inverses and nonlinear least squares problems", 1973; A. Al-Mohy, N. Higham, "Computing the Frechet derivative of
the matrix exponential", 2009.
"""

from typing import Any

from functorch_lite.backends import linalg as backend
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind, bind1
from functorch_lite.errors import ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim, reduce_sum
from functorch_lite.primitives.comparison import zero_like
from functorch_lite.primitives.complex_parts import imag, real
from functorch_lite.primitives.declare import check_dtypes, derivatives, not_linear
from functorch_lite.primitives.elementwise import add, scale, sub
from functorch_lite.primitives.linalg import columns, rows, solve
from functorch_lite.primitives.matrix import (
    adjoint,
    batch_leading,
    check_matrix,
    diagonal,
    diagonal_matrix,
    imaginary,
    matmul,
    transposed,
)
from functorch_lite.primitives.movement import pad

# --- the determinant and its logarithm ------------------------------------------------------------------------------
det_p = Primitive("det", Kind.OPAQUE)
adjugate_p = Primitive("adjugate", Kind.OPAQUE)
slogdet_p = Primitive("slogdet", Kind.OPAQUE, multiple=True)
not_linear(det_p, adjugate_p, slogdet_p)
for _prim in (det_p, adjugate_p, slogdet_p):
    batch_leading(_prim)


def det(a: Any) -> Any:
    """The determinants [...] of a [..., n, n]. Its gradient, the cofactors, is right for singular matrices too."""
    return bind1(det_p, a)


def adjugate(a: Any) -> Any:
    """The transposed cofactors of a [..., n, n]: a adj(a) = det(a) 1, also where a is singular."""
    return bind1(adjugate_p, a)


def slogdet(a: Any) -> list[Any]:
    """[sign, log |det a|] of a [..., n, n]; sign is a unit complex number for complex a, and 0 where a is singular."""
    return bind(slogdet_p, a)


def trace(x: Any) -> Any:
    """The sums [...] of the diagonals of x [..., n, n]."""
    return _sum_last(diagonal(x))


def _sum_last(v):
    return reduce_sum(v, (len(v.shape) - 1,))


@shape_rules.register(det_p)
def _(a):
    check_matrix("det", a, square=True)
    return Aval(a.shape[:-2], a.dtype)


@shape_rules.register(adjugate_p)
def _(a):
    check_matrix("adjugate", a, square=True)
    return a


@shape_rules.register(slogdet_p)
def _(a):
    check_matrix("slogdet", a, square=True)
    return [Aval(a.shape[:-2], a.dtype), Aval(a.shape[:-2], dtypes.real_dtype(a.dtype))]


eval_rules.add(det_p, lambda xp, a: xp.linalg.det(a))
eval_rules.add(slogdet_p, lambda xp, a: list(xp.linalg.slogdet(a)))


@eval_rules.register(adjugate_p)
def _(xp, a):
    """From a = U S V^H: adj(a) = det(U) det(V^H) V adj(S) U^H, and adj(S) has the products of the other values."""
    if a.shape[-1] == 0:
        return a.copy()
    u, s, vh = xp.linalg.svd(a)
    others = xp.repeat(s[..., None, :], s.shape[-1], -2)
    xp.einsum("...ii->...i", others)[...] = 1.0
    front = (xp.linalg.det(u) * xp.linalg.det(vh))[..., None] * others.prod(-1)
    return xp.matmul(xp.conj(vh.swapaxes(-1, -2)) * front[..., None, :], xp.conj(u.swapaxes(-1, -2)))


def _adjugate_jvp(t, out, a):
    """adj(a) = det(a) a^-1, so d adj = (tr(adj da) - adj da) a^-1 (for regular a)."""
    product = matmul(out, t)
    across = diagonal_matrix(broadcast_in_dim(trace(product), a.shape[:-1], tuple(range(len(a.shape) - 2))))
    return transposed(solve(transposed(a), transposed(sub(across, product))))


derivatives(det_p, lambda t, out, a: trace(matmul(adjugate(a), t)))  # Jacobi's formula
derivatives(adjugate_p, _adjugate_jvp)


@jvp_rules.register(slogdet_p)
def _(primals, tangents):
    sign, logdet = bind(slogdet_p, *primals)
    change = trace(solve(primals[0], tangents[0]))  # d log det a = tr(a^-1 da)
    if not dtypes.is_complex(change.dtype):
        return [sign, logdet], [None, change]
    turn = imag(change)
    return [sign, logdet], [scale(sign, imaginary(turn)), real(change)]


# --- pinv: the Moore-Penrose inverse --------------------------------------------------------------------------------
pinv_p = Primitive("pinv", Kind.OPAQUE)
not_linear(pinv_p)
batch_leading(pinv_p)


def pinv(a: Any, rtol: float) -> Any:
    """The Moore-Penrose inverse [..., n, m] of a [..., m, n]; singular values up to rtol times the largest count as 0.

    Its derivative is that at constant rank (Golub and Pereyra), finite and right for equal singular values.
    """
    return bind1(pinv_p, a, rtol=rtol)


@shape_rules.register(pinv_p)
def _(a, *, rtol):
    check_matrix("pinv", a)
    return Aval((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)


@eval_rules.register(pinv_p)
def _(xp, a, *, rtol):
    return xp.linalg.pinv(a, rtol)


def _pinv_jvp(t, out, a, *, rtol):
    """dP = -P da P + P P^H da^H (1 - a P) + (1 - P a) da^H P^H P."""
    t_adjoint, out_adjoint = adjoint(t), adjoint(out)
    left = matmul(matmul(out, out_adjoint), t_adjoint)
    right = matmul(t_adjoint, matmul(out_adjoint, out))
    first = sub(left, matmul(matmul(left, a), out))
    second = sub(right, matmul(out, matmul(a, right)))
    return add(sub(first, matmul(matmul(out, t), out)), second)


derivatives(pinv_p, _pinv_jvp)

# --- expm: the matrix exponential, and its derivative in a direction ------------------------------------------------
expm_p = Primitive("expm", Kind.OPAQUE)
expm_frechet_p = Primitive("expm_frechet", Kind.OPAQUE)
not_linear(expm_p)
batch_leading(expm_p)
batch_leading(expm_frechet_p)


def expm(a: Any) -> Any:
    """The matrix exponential of a [..., n, n]."""
    return bind1(expm_p, a)


def expm_frechet(a: Any, e: Any) -> Any:
    """The derivative of expm at a [..., n, n] in the direction e [..., n, n]: linear in e."""
    return bind1(expm_frechet_p, a, e)


@shape_rules.register(expm_p)
def _(a):
    check_matrix("expm", a, square=True)
    return a


@shape_rules.register(expm_frechet_p)
def _(a, e):
    check_dtypes("expm_frechet", (a, e))
    check_matrix("expm_frechet", a, square=True)
    if a.shape != e.shape:
        raise ShapeError(f"expm_frechet: shapes {a.shape} and {e.shape} differ.")
    return a


def _block(x, row, column):
    """The matrix of twice the size with `x` as its block (row, column) and zeros elsewhere."""
    n = x.shape[-1]
    lead = ((0, 0, 0),) * (len(x.shape) - 2)
    return pad(x, zero_like(x), (*lead, (row * n, n - row * n, 0), (column * n, n - column * n, 0)))


def _twice(x):
    """[[x, 0], [0, x]]."""
    return add(_block(x, 0, 0), _block(x, 1, 1))


def _corner(x):
    n = x.shape[-1] // 2
    return columns(rows(x, 0, n), n, 2 * n)


@eval_rules.register(expm_frechet_p)
def _(xp, a, e):
    """expm [[a, e], [0, a]] has the derivative in its corner."""
    whole = xp.concatenate([xp.concatenate([a, e], -1), xp.concatenate([xp.zeros_like(a), a], -1)], -2)
    n = a.shape[-1]
    return backend.expm(xp, whole)[..., :n, n:].copy()


def _frechet_in_a(t, out, a, e):
    """The same formula one level up: at the blocks [[a, e], [0, a]] in the direction [[t, 0], [0, t]]."""
    return _corner(expm_frechet(add(_twice(a), _block(e, 0, 1)), _twice(t)))


eval_rules.add(expm_p, lambda xp, a: backend.expm(xp, a))
derivatives(expm_p, lambda t, out, a: expm_frechet(a, t))
derivatives(expm_frechet_p, _frechet_in_a, lambda t, out, a, e: expm_frechet(a, t))
transpose_rules.add(expm_frechet_p, lambda ct, a, e: (None, expm_frechet(transposed(a), ct)))
