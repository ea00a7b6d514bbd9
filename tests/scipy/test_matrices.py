# SPDX-License-Identifier: MIT
"""Structured matrices, and matrices that equations define: SciPy's values, derivatives where eigenvalues agree, too."""

import functools

import numpy as np
import pytest
import scipy.linalg

import functorch_lite as fl
from functorch_lite import errors
from functorch_lite.scipy import linalg, matrix_equations

from .agreement import check_agrees, check_derivatives

RNG = np.random.default_rng(10)
V, W, ROWS = RNG.standard_normal(4), RNG.standard_normal(5), RNG.standard_normal((2, 4))
MATRIX = RNG.standard_normal((3, 3))
DEFINITE = MATRIX @ MATRIX.T + np.eye(3)


def both(name, **options):
    return (functools.partial(getattr(module, name), **options) for module in (linalg, scipy.linalg))


STRUCTURED = {
    "toeplitz": (V,), "toeplitz of two": (V, W), "toeplitz of rows": (ROWS, W), "toeplitz complex": (V * 1j,),
    "toeplitz of integers": (np.arange(3), V), "circulant": (V,), "circulant of rows": (ROWS,),
    "circulant of none": (V[:0],), "hankel": (V,), "hankel of two": (V, W), "companion": (V,),
    "companion of rows": (ROWS,),
    "companion of integers": (np.arange(2, 5),), "fiedler": (V,), "fiedler of rows": (ROWS,),
    "fiedler of one": (V[:1],), "leslie": (W, V), "leslie of rows": (np.stack([W, W]), ROWS),
}


@pytest.mark.parametrize("case", STRUCTURED)
def test_matrix_of_vectors_equals_scipys(case):
    name, args = case.split()[0], STRUCTURED[case]
    check_agrees(*both(name), *args)
    if all(a.dtype == np.float64 for a in args):
        check_derivatives(getattr(linalg, name), *args)


@pytest.mark.parametrize("n", [1, 3, 6])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_convolution_matrix_equals_scipys(mode, n):
    check_agrees(*both("convolution_matrix", n=n, mode=mode), V)
    check_agrees(*both("convolution_matrix", n=n, mode=mode), (9 * ROWS).astype("i4"))
    check_derivatives(functools.partial(linalg.convolution_matrix, n=n, mode=mode), V)


@pytest.mark.parametrize("name", ["hilbert", "invhilbert", "pascal", "invpascal", "hadamard", "helmert", "dft"])
def test_matrix_of_a_size_is_scipys_and_the_size_must_be_known(name):
    fun = getattr(linalg, name)
    np.testing.assert_array_equal(fl.jit(lambda x: x + fun(4).shape[1])(0.0), 4)
    np.testing.assert_array_equal(fun(4), getattr(scipy.linalg, name)(4))
    with pytest.raises(errors.ConcretizationError, match=f"{name}: `n` must be known"):
        fl.jit(fun)(4)


# --- equations ------------------------------------------------------------------------------------------------------


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5), (2, 4, 3)])
def test_polar_equals_scipys(shape, side, dtype):
    x = RNG.standard_normal(shape) + (1j * RNG.standard_normal(shape) if dtype == "c16" else 0)
    check_agrees(*both("polar", side=side), x.astype(dtype), rtol=1e-4 if dtype == "f4" else 1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "x", [MATRIX, MATRIX[:, :2], MATRIX[:2], 2 * rotation(0.7), np.eye(3, 2), np.eye(2, 3)],
    ids=["square", "tall", "wide", "rotation", "tall unit", "wide unit"],
)
def test_gradients_of_polar_where_singular_values_agree(x, side):
    check_derivatives(functools.partial(linalg.polar, side=side), np.array(x))


def test_polar_of_a_singular_matrix_has_finite_gradients():
    singular = np.diag([1.0, 0.0, 0.0])
    assert np.isfinite(fl.grad(lambda x: np.sum(linalg.polar(x)[0] * MATRIX))(singular)).all()


def as_complex(fun):
    return lambda x: fun(x).astype(np.complex128)


@pytest.mark.parametrize("x", [
    DEFINITE, np.eye(3), np.array([[4.0, 1, 0], [0, 4, 1], [0, 0, 2]]), rotation(0.7) + 2 * np.eye(3),
], ids=["definite", "unit", "defective", "rotation"])
def test_sqrtm_and_its_gradient_where_eigenvalues_agree(x):
    check_agrees(as_complex(linalg.sqrtm), as_complex(scipy.linalg.sqrtm), x)
    check_derivatives(lambda x: np.real(linalg.sqrtm(x)), x)


def test_sqrtm_is_complex_where_traced_and_singular_matrices_have_finite_gradients():
    assert fl.eval_shape(linalg.sqrtm, np.eye(2, dtype=np.float32)).dtype == np.complex64
    found = fl.grad(lambda x: np.sum(np.real(linalg.sqrtm(x))))(np.diag([1.0, 2.0, 0.0]))
    assert np.isfinite(found).all()


SYLVESTER = [(DEFINITE, MATRIX + 3 * np.eye(3), MATRIX), (np.eye(3), np.eye(2), RNG.standard_normal((3, 2)))]


@pytest.mark.parametrize("largest", [400, 0])
@pytest.mark.parametrize("args", SYLVESTER, ids=["general", "equal eigenvalues"])
def test_solve_sylvester_by_either_way(args, largest, monkeypatch):
    monkeypatch.setattr(matrix_equations, "LARGEST_KRONECKER", largest)
    check_agrees(*both("solve_sylvester"), *args)
    check_agrees(*both("solve_sylvester"), *(np.stack([a, a + 0.1]) for a in args))
    check_agrees(*both("solve_sylvester"), *(a + 0.1j for a in args))
    check_derivatives(linalg.solve_sylvester, *args)


@pytest.mark.parametrize("largest", [400, 0])
def test_second_derivatives_are_right_where_eigenvalues_agree(largest, monkeypatch):
    monkeypatch.setattr(matrix_equations, "LARGEST_KRONECKER", largest)
    for fun, x in (
        (lambda x: linalg.solve_sylvester(x, MATRIX + 3 * np.eye(3), MATRIX), np.eye(3)),
        (lambda x: np.real(linalg.sqrtm(x)), np.eye(3)), (lambda x: linalg.polar(x)[0], 2 * np.eye(3)),
    ):
        check_derivatives(fl.grad(lambda x, fun=fun: np.sum(np.tanh(fun(x)) * MATRIX)), x)


@pytest.mark.parametrize("options", [{}, {"select": "i", "select_range": (1, 2)}])
def test_eigh_tridiagonal_decomposes(options):
    check_agrees(*both("eigh_tridiagonal", eigvals_only=True, **options), W, V)
    check_agrees(*both("eigh_tridiagonal", eigvals_only=True, **options), np.stack([W, 2 * W]), ROWS)
    check_derivatives(functools.partial(linalg.eigh_tridiagonal, eigvals_only=True, **options), W, V)
    w, v = fl.jit(lambda d, e: linalg.eigh_tridiagonal(d, e, **options))(W, V)
    whole = np.diag(W) + np.diag(V, 1) + np.diag(V, -1)
    np.testing.assert_allclose(whole @ v, v * w, atol=1e-12)
    check_derivatives(lambda d, e: linalg.eigh_tridiagonal(d, e, **options)[1] ** 2, W, V)


@pytest.mark.parametrize(("message", "fun", "kind"), [
    ("expected vectors", lambda x: linalg.hankel(x), errors.ShapeError),
    ("at least two coefficients", lambda x: linalg.companion(x[0, 0]), errors.ShapeError),
    (r"expected f \[..., n\]", lambda x: linalg.leslie(x[0], x[0]), errors.ShapeError),
    ("mode must be", lambda x: linalg.convolution_matrix(x, 2, "half"), errors.ArgumentError),
    ("must be at least 1", lambda x: linalg.convolution_matrix(x, 0), errors.ArgumentError),
    ("`n` must be known", lambda x: linalg.convolution_matrix(x, x[0, 0]), errors.ConcretizationError),
    ("side must be", lambda x: linalg.polar(x, "up"), errors.ArgumentError),
    ("do not fit", lambda x: linalg.solve_sylvester(x, x, x[:2]), errors.ShapeError),
    ("square matrices", lambda x: linalg.sqrtm(x[:2]), errors.ShapeError),
    (r"expected d \[..., n\]", lambda x: linalg.eigh_tridiagonal(x[0], x[0]), errors.ShapeError),
    ("real d and e", lambda x: linalg.eigh_tridiagonal(x[0] * 1j, x[0, 1:]), errors.ArgumentTypeError),
    ("depends on values", lambda x: linalg.eigh_tridiagonal(x[0], x[0, 1:], select="v"), errors.ArgumentError),
    ("not within", lambda x: linalg.eigh_tridiagonal(x[0], x[0, 1:], select="i", select_range=(1, 9)),
     errors.ArgumentError),
])
def test_a_mistake_is_named(message, fun, kind):
    with pytest.raises(kind, match=message):
        fl.jit(fun)(np.ones((3, 3)))
