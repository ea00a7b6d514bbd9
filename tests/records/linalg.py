# SPDX-License-Identifier: MIT
"""Records of linear algebra. Functions of a decomposition are made independent of signs and phases of its vectors."""

import numpy as np
import scipy.linalg

from functorch_lite.primitives import linalg as p
from functorch_lite.primitives import matrix as m
from functorch_lite.primitives import matrix_functions as f
from functorch_lite.primitives import spectral as s
from functorch_lite.primitives.complex_parts import real
from functorch_lite.primitives.elementwise import add, mul
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, normal, positive

LOOSE = {"rtol": 1e-5, "atol": 1e-6, "reason": "a chain of factorizations of random matrices, condition up to 1e2"}
COMPLEX = ("complex64",)


def regular(rng, *shape):
    """Square matrices with a condition number near 1."""
    return normal(rng, *shape) * 0.3 + 2 * np.eye(shape[-1])


def complex_regular(rng, *shape):
    """Complex square matrices with a condition number near 1."""
    return complex_normal(rng, *shape) * 0.3 + 2 * np.eye(shape[-1])


def definite(x):
    """A Hermitian, positive definite matrix made of `x`."""
    return add(m.matmul(x, m.adjoint(x)), m.diagonal_matrix(add(mul(m.diagonal(x), zero(x)), one(x))))


def zero(x):
    """The scalar 0 of the dtype of `x`."""
    return x.dtype.type(0)


def one(x):
    """The scalar 1 of the dtype of `x`."""
    return x.dtype.type(1)


def np_definite(x):
    """`definite` in NumPy."""
    return x @ np.conj(np.swapaxes(x, -1, -2)) + np.eye(x.shape[-1])


def square(rng):
    """A pair of samples' arguments: a 3 x 3 matrix."""
    return (regular(rng, 3, 3),)


def batch(rng):
    """Two 3 x 3 matrices."""
    return (regular(rng, 2, 3, 3),)


def complex_square(rng):
    """A complex 3 x 3 matrix."""
    return (complex_regular(rng, 3, 3),)


def projector(v):
    """Sums of |v|^2 weighted by position: blind to phases."""
    return m.matmul(v, m.adjoint(v))


def svd_function(x):
    """The singular values and U V^H, which has no free phase."""
    u, values, vh = s.svd(x)
    return [values, m.matmul(u, vh)]


def np_svd_function(x):
    """`svd_function` in NumPy."""
    u, values, vh = np.linalg.svd(x, full_matrices=False)
    return [values, u @ vh]


def full_svd_function(x):
    """Projectors on the first vectors, from the full decomposition."""
    u, values, vh = s.svd(x, full_matrices=True)
    k = values.shape[-1]
    return [projector(p.columns(u, 0, k - 1)), projector(p.columns(u, k, u.shape[-1])), values]


def np_full_svd_function(x):
    """`full_svd_function` in NumPy."""
    u, values, _ = np.linalg.svd(x)
    k = values.shape[-1]
    first, last = u[..., : k - 1], u[..., k:]
    return [first @ np.conj(first.swapaxes(-1, -2)), last @ np.conj(last.swapaxes(-1, -2)), values]


def packed_lu(x):
    """The packed factors of one matrix, by SciPy."""
    return scipy.linalg.lu_factor(x)[0]


def triangular(name, left_side, lower, trans, unit_diagonal):
    """A record of one choice of settings."""

    def reference(a, b):
        part = np.tril(a) if lower else np.triu(a)
        if unit_diagonal:
            part = part - np.diag(np.diag(part)) + np.eye(len(part))
        part = {"N": part, "T": part.T, "C": part.conj().T}[trans]
        return np.linalg.solve(part, b) if left_side else np.linalg.solve(part.T, b.T).T

    return OpRecord(
        f"triangular_solve_{name}",
        lambda a, b: p.triangular_solve(a, b, left_side, lower, trans, unit_diagonal),
        calls(
            lambda rng: (regular(rng, 3, 3), normal(rng, *((3, 2) if left_side else (2, 3)))),
            lambda rng: (complex_regular(rng, 3, 3), complex_normal(rng, *((3, 2) if left_side else (2, 3)))),
        ),
        reference, ("float32", "complex64"),
    )


RECORDS = [
    OpRecord("tril", lambda x: [m.tril(x), m.triu(x, 1), m.tril(x, -1)], calls(lambda rng: (normal(rng, 2, 3, 4),)),
             lambda x: [np.tril(x), np.triu(x, 1), np.tril(x, -1)]),
    OpRecord("identity", lambda x: m.identity_like(x), calls(lambda rng: (normal(rng, 2, 3, 3),)),
             lambda x: np.broadcast_to(np.eye(3, dtype=x.dtype), x.shape), order=1),
    OpRecord("diagonal", m.diagonal, calls(batch), lambda x: np.diagonal(x, 0, -2, -1), ("float32", "float16")),
    OpRecord("diagonal_matrix", m.diagonal_matrix, calls(lambda rng: (normal(rng, 2, 3),)),
             lambda v: v[..., None] * np.eye(3)),
    OpRecord(
        "permute_rows", lambda x, o: [m.permute_rows(x, o), m.permute_rows(x, o, inverse=True)],
        calls(lambda rng: (normal(rng, 3, 2), np.array([2, 0, 1], np.int32))), lambda x, o: [x[o], x[np.argsort(o)]],
    ),
    OpRecord(
        "safe_reciprocal", lambda x: m.safe_reciprocal(x, x),
        calls(lambda rng: (positive(rng, 3, 3),),
              lambda rng: Sample((np.array([[2.0, 0.0, 1e-17]]),), "zeros", smooth=False)),
        lambda x: np.where(np.abs(x) < 1e-15, 0, 1 / np.where(np.abs(x) < 1e-15, 1, x)),
    ),
    OpRecord(
        "solve", p.solve,
        calls(
            lambda rng: (regular(rng, 3, 3), normal(rng, 3, 2)),
            lambda rng: (regular(rng, 2, 3, 3), normal(rng, 2, 3, 1)),
            lambda rng: (complex_regular(rng, 2, 2), complex_normal(rng, 2, 2)),
        ),
        np.linalg.solve, ("float32", "complex64"), **LOOSE,
    ),
    triangular("lower", True, True, "N", False), triangular("upper_right", False, False, "N", False),
    triangular("adjoint_unit", True, False, "C", True), triangular("transposed_right", False, True, "T", False),
    triangular("adjoint_right", False, True, "C", True),
    OpRecord("cholesky", lambda x: p.cholesky(definite(x)), calls(square, batch, complex_square),
             lambda x: np.linalg.cholesky(np_definite(x)), ("float32", "complex64"), eval_rtol=1e-11, **LOOSE),
    *(
        OpRecord(f"lu_{name}", lambda x: p.lu(x)[0], calls(maker),
                 lambda x: np.array([packed_lu(y) for y in x.reshape(-1, *x.shape[-2:])]).reshape(x.shape),
                 eval_rtol=1e-11, **LOOSE)
        for name, maker in (
            ("square", batch), ("tall", lambda rng: (normal(rng, 4, 2) + 2 * np.eye(4)[:, [2, 0]],)),
            ("wide", lambda rng: (normal(rng, 2, 4) * 0.3 + 2 * np.eye(4)[[1, 0]],)), ("complex", complex_square),
        )
    ),
    OpRecord("lu_order", lambda x: p.lu(x)[1:], calls(lambda rng: (normal(rng, 4, 3),)),
             lambda x: [scipy.linalg.lu_factor(x)[1].astype(np.int32),
                        np.argmax(scipy.linalg.lu(x)[0], 0).astype(np.int32)], order=0),
    OpRecord("pivots_to_order", lambda x: p.pivots_to_order(x, 4), calls(lambda rng: (np.array([[2, 1], [3, 3]]),)),
             lambda x: np.array([[2, 1, 0, 3], [3, 0, 2, 1]], np.int32), order=0),
    *(
        OpRecord(f"qr_{name}", lambda x, c=complete: p.qr(x, c), calls(maker),
                 lambda x, c=complete: list(np.linalg.qr(x, "complete" if c else "reduced")), dtypes=(),
                 eval_rtol=1e-11, **LOOSE)
        for name, complete, maker in (
            ("square", False, batch), ("tall", False, lambda rng: (normal(rng, 4, 2),)),
            ("wide", False, lambda rng: (normal(rng, 2, 4),)), ("complex", False, complex_square),
            ("complete_wide", True, lambda rng: (normal(rng, 2, 3),)),
        )
    ),
    OpRecord(
        "qr_complete_tall", lambda x: [projector(p.columns(p.qr(x, True)[0], 2, 4)), p.qr(x, True)[1]],
        calls(lambda rng: (normal(rng, 4, 2),)),
        lambda x: [(lambda q: q[:, 2:] @ q[:, 2:].T)(np.linalg.qr(x, "complete")[0]), np.linalg.qr(x, "complete")[1]],
        eval_rtol=1e-11, dtypes=(), **LOOSE,
    ),
    OpRecord("det", f.det, calls(square, batch, complex_square), np.linalg.det, ("float32", "complex64"), **LOOSE),
    OpRecord("det_singular", f.det, calls(lambda rng: (np.arange(9.0).reshape(3, 3),)), order=1, dtypes=()),
    OpRecord("adjugate", f.adjugate, calls(square, complex_square), lambda x: np.linalg.det(x) * np.linalg.inv(x),
             **LOOSE),
    OpRecord("slogdet", f.slogdet, calls(square, batch, complex_square), lambda x: list(np.linalg.slogdet(x)),
             ("float32", "complex64"), **LOOSE),
    OpRecord(
        "pinv", lambda x: f.pinv(x, 1e-10),
        calls(square, lambda rng: (normal(rng, 4, 2),), lambda rng: (complex_normal(rng, 2, 3),),
              lambda rng: (np.eye(3),)),
        np.linalg.pinv, (), eval_rtol=1e-11, **LOOSE,
    ),
    OpRecord("expm", f.expm, calls(square, lambda rng: (complex_normal(rng, 2, 2, 2) * 0.5,)), scipy.linalg.expm,
             eval_rtol=1e-11, **LOOSE),
    OpRecord("expm_frechet", f.expm_frechet, calls(lambda rng: (regular(rng, 2, 2), normal(rng, 2, 2))),
             lambda a, e: scipy.linalg.expm_frechet(a, e, compute_expm=False), eval_rtol=1e-11, **LOOSE),
    OpRecord(
        "eigh_values", lambda x: s.eigh(definite(x))[0], calls(square, batch, complex_square),
        lambda x: np.linalg.eigvalsh(np_definite(x)), eval_rtol=1e-11, **LOOSE,
    ),
    OpRecord(
        "eigh_vectors", lambda x: projector(p.columns(s.eigh(definite(x))[1], 0, 1)), calls(square, complex_square),
        lambda x: (lambda v: v[:, :1] @ v[:, :1].conj().T)(np.linalg.eigh(np_definite(x))[1]), eval_rtol=1e-11, **LOOSE,
    ),
    OpRecord(
        "eig_values", lambda x: s.eig(x)[0], calls(lambda rng: (normal(rng, 3, 3),), complex_square),
        lambda x: np.linalg.eigvals(x).astype(complex), dtypes=(), eval_rtol=1e-10, **LOOSE,
    ),
    OpRecord(
        "eig_vectors", lambda x: (lambda v: real(mul(v, m.conjugate(v))))(s.eig(x)[1]),
        calls(lambda rng: (normal(rng, 3, 3),), complex_square), lambda x: np.abs(np.linalg.eig(x)[1]) ** 2, dtypes=(),
        eval_rtol=1e-10, **LOOSE,
    ),
    OpRecord(
        "svd_values", lambda x: s.svd(x, compute_uv=False)[0],
        calls(batch, lambda rng: (normal(rng, 4, 2),), lambda rng: (complex_normal(rng, 2, 3),)),
        lambda x: np.linalg.svd(x, compute_uv=False), eval_rtol=1e-11, **LOOSE,
    ),
    OpRecord(
        "svd", svd_function,
        calls(square, lambda rng: (normal(rng, 4, 2),), lambda rng: (complex_normal(rng, 2, 3),)), np_svd_function,
        dtypes=(), eval_rtol=1e-11, **LOOSE,
    ),
    OpRecord(
        "svd_equal_values", lambda x: m.matmul(s.svd(x)[0], s.svd(x)[2]), calls(lambda rng: (2 * np.eye(3),)),
        lambda x: np.eye(3), dtypes=(), order=1, eval_rtol=1e-11, **LOOSE,
    ),
    OpRecord(
        "svd_full", full_svd_function, calls(lambda rng: (normal(rng, 4, 2),)), np_full_svd_function, dtypes=(),
        eval_rtol=1e-10, **LOOSE,
    ),
]
