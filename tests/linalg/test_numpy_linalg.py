# SPDX-License-Identifier: MIT
"""numpy.linalg on traced arrays: NumPy's values, dtypes and shapes, and derivatives by finite differences."""

import numpy as np
import pytest

import functorch_lite.numpy.operators  # noqa: F401 (installs the operators)
from functorch_lite.core.aval import Aval
from functorch_lite.core.staging import stage_closed
from functorch_lite.errors import ArgumentError, DTypeError, ShapeError
from functorch_lite.numpy import linalg
from functorch_lite.transforms.jvp import jvp_flat
from functorch_lite.transforms.linearize import linearize_flat

rng = np.random.default_rng(7)
MATRIX = rng.standard_normal((3, 3)) + 2 * np.eye(3)
BATCH = rng.standard_normal((2, 3, 3)) + 2 * np.eye(3)
VECTORS = rng.standard_normal((2, 3))


def definite(x):
    return np.matmul(x, np.linalg.matrix_transpose(x)) + np.eye(3)


def flat(out):
    return [v for part in out for v in flat(part)] if isinstance(out, (tuple, list)) else [out]


def check_against_numpy(fun, *args):
    """`fun` calls NumPy: traced it gives the same, and its jvp is the central difference."""
    directions = [rng.standard_normal(a.shape) for a in args]
    outs, dots = jvp_flat(lambda *xs: flat(fun(*xs)), args, directions)
    high, low = (flat(fun(*[a + s * d for a, d in zip(args, directions, strict=True)])) for s in (1e-6, -1e-6))
    for out, dot, expected, up, down in zip(outs, dots, flat(fun(*args)), high, low, strict=True):
        expected = np.asarray(expected)
        assert out.dtype == expected.dtype and out.shape == expected.shape
        np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-9)
        if dot is not None:
            np.testing.assert_allclose(dot, (up - down) / 2e-6, rtol=1e-4, atol=1e-5)


FUNCTIONS = {
    "solve_vector": (np.linalg.solve, MATRIX, VECTORS[0]),
    "solve_broadcast": (np.linalg.solve, MATRIX, BATCH),
    "inv": (np.linalg.inv, BATCH),
    "det": (np.linalg.det, BATCH),
    "slogdet": (np.linalg.slogdet, BATCH),
    "pinv": (np.linalg.pinv, rng.standard_normal((4, 2))),
    "lstsq": (lambda a, b: np.linalg.lstsq(a, b), rng.standard_normal((5, 2)), rng.standard_normal((5, 3))),
    "lstsq_wide": (lambda a, b: np.linalg.lstsq(a, b), rng.standard_normal((2, 5)), rng.standard_normal(2)),
    "svdvals": (np.linalg.svdvals, BATCH),
    "qr": (np.linalg.qr, rng.standard_normal((4, 3))),
    "qr_r": (lambda x: np.linalg.qr(x, "r"), MATRIX),
    "cholesky": (lambda x: np.linalg.cholesky(definite(x)), MATRIX),
    "cholesky_upper": (lambda x: np.linalg.cholesky(definite(x), upper=True), MATRIX),
    "eigvalsh": (lambda x: np.linalg.eigvalsh(definite(x), "U"), MATRIX),
    "matrix_power": (lambda x: np.linalg.matrix_power(x, 5), MATRIX),
    "matrix_power_negative": (lambda x: np.linalg.matrix_power(x, -2), MATRIX),
    "multi_dot": (lambda a, b, c: np.linalg.multi_dot([a, b, c]), VECTORS, MATRIX, VECTORS[0]),
    "cond": (np.linalg.cond, MATRIX),
    "cond_one": (lambda x: np.linalg.cond(x, 1), MATRIX),
    "matrix_rank": (np.linalg.matrix_rank, BATCH),
    "cross": (np.linalg.cross, VECTORS, VECTORS[::-1].copy()),
    "outer": (np.linalg.outer, VECTORS[0], VECTORS[1]),
    "trace": (lambda x: np.linalg.trace(x, offset=1), BATCH),
    "diagonal": (lambda x: np.linalg.diagonal(x, offset=-1), BATCH),
    "matrix_transpose": (np.linalg.matrix_transpose, BATCH),
    "vecdot": (np.linalg.vecdot, VECTORS, VECTORS[0]),
    "tensorsolve": (np.linalg.tensorsolve, rng.standard_normal((2, 3, 6)), VECTORS),
    "tensorinv": (np.linalg.tensorinv, rng.standard_normal((2, 3, 3, 2))),
    "norm": (np.linalg.norm, VECTORS),
    "vector_norm": (lambda x: np.linalg.vector_norm(x, axis=0, ord=3, keepdims=True), VECTORS),
    "matrix_norm": (lambda x: np.linalg.matrix_norm(x, ord="nuc"), BATCH),
    **{f"norm_vector_{o}": (lambda x, o=o: np.linalg.norm(x, o, 1), VECTORS)
       for o in (0, 1, 2, 3, 0.5, np.inf, -np.inf)},
    **{f"norm_matrix_{o}": (lambda x, o=o: np.linalg.norm(x, o, (1, 2)), BATCH)
       for o in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_traced_function_equals_numpys_and_its_derivative_the_central_difference(name):
    check_against_numpy(*FUNCTIONS[name])


def test_every_function_of_numpys_linalg_is_there():
    assert not [name for name in np.linalg.__all__ if not hasattr(linalg, name)]


def gradient(fun, x):
    """The gradient of a scalar function."""
    (out,), tape = linearize_flat(lambda y: [fun(y)], [x], [True])
    return tape.backward([np.ones((), out.dtype)])[0]


def second_difference(fun, x, u, v):
    """The second derivative by differences of gradients."""
    return np.vdot(gradient(fun, x + 1e-5 * u) - gradient(fun, x - 1e-5 * u), v) / 2e-5


SECOND_ORDER = {
    "det": np.linalg.det,
    "slogdet": lambda x: np.linalg.slogdet(x)[1],
    "solve": lambda x: np.sum(np.linalg.solve(x, VECTORS[0]) ** 2),
    "inv": lambda x: np.sum(np.linalg.inv(x) ** 3),
    "cholesky": lambda x: np.sum(np.linalg.cholesky(definite(x)) ** 3),
    "cholesky_inverse": lambda x: np.sum(linalg.cholesky_inverse(np.linalg.cholesky(definite(x))) ** 3),
    "cholesky_solve": lambda x: np.sum(linalg.cholesky_solve(x, np.linalg.cholesky(definite(x))) ** 2),
    "qr": lambda x: np.sum(np.linalg.qr(x)[0] ** 3) + np.sum(np.linalg.qr(x)[1] ** 3),
    "eigh": lambda x: np.sum(np.linalg.eigh(definite(x))[0] ** 2 * np.abs(np.linalg.eigh(definite(x))[1]) ** 3),
    "svdvals": lambda x: np.sum(np.linalg.svdvals(x) ** 3),
    "householder_product": lambda x: np.sum(linalg.householder_product(x, VECTORS[0]) ** 3),
}


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_a5_second_derivatives_in_all_modes_equal_the_difference_of_gradients(name):
    fun, u, v = SECOND_ORDER[name], rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    expected = second_difference(fun, MATRIX, u, v)

    def directional(x):
        return jvp_flat(lambda y: [fun(y)], [x], [u])[1][0]

    forward_forward = jvp_flat(lambda x: [directional(x)], [MATRIX], [v])[1][0]
    forward_reverse = np.vdot(jvp_flat(lambda x: [gradient(fun, x)], [MATRIX], [u])[1][0], v)
    reverse_forward = np.vdot(gradient(directional, MATRIX), v)
    for found in (forward_forward, forward_reverse, reverse_forward):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_b11_gradient_of_the_norm_at_zero_is_zero():
    np.testing.assert_array_equal(gradient(np.linalg.norm, np.zeros(2)), np.zeros(2))


def test_gradient_of_the_determinant_of_a_singular_matrix_is_the_cofactors():
    x = np.arange(9.0).reshape(3, 3)
    expected = np.array([[-3.0, 6.0, -3.0], [6.0, -12.0, 6.0], [-3.0, 6.0, -3.0]])
    np.testing.assert_allclose(gradient(np.linalg.det, x), expected, atol=1e-12)


def test_equal_eigenvalues_give_the_right_gradient_of_a_symmetric_function_of_them():
    found = gradient(lambda x: np.sum(np.linalg.eigh(x)[0] ** 3), 2 * np.eye(3))
    np.testing.assert_allclose(found, 12 * np.eye(3), atol=1e-12)


def test_equal_eigenvalues_give_a_finite_gradient_of_the_projector_on_their_space():
    def projector_part(x):
        v = np.linalg.eigh(x)[1][:, 1:]
        return np.matmul(v, np.linalg.matrix_transpose(v))[0, 1]

    found = gradient(projector_part, np.diag([1.0, 2.0, 2.0]))  # P = 1 - v v^T and dv_1 = dA_01 / (1 - 2)
    np.testing.assert_allclose(found, np.array([[0, 0.5, 0], [0.5, 0, 0], [0, 0, 0]]), atol=1e-12)


def test_equal_singular_values_give_the_right_derivative_of_the_polar_factor():
    direction = rng.standard_normal((3, 3))

    def polar(x):
        u, _, vh = np.linalg.svd(x)
        return [np.matmul(u, vh)]

    (dot,) = jvp_flat(polar, [2 * np.eye(3)], [direction])[1]
    np.testing.assert_allclose(dot, (direction - direction.T) / 4, atol=1e-12)


def test_zero_singular_values_give_finite_gradients():
    found = gradient(lambda x: np.sum(np.linalg.svdvals(x) ** 2), np.ones((3, 2)))
    np.testing.assert_allclose(found, 2 * np.ones((3, 2)), atol=1e-12)


def staged(fun, shape, dtype=np.float64):
    """Stage `fun`, so that the shape rules speak and not NumPy."""
    stage_closed(lambda x: [fun(x)], [Aval(shape, np.dtype(dtype))])


@pytest.mark.parametrize(
    ("fun", "shape", "dtype", "error", "match"),
    [
        (np.linalg.det, (2, 3), np.float64, ShapeError, "det: expected square matrices"),
        (lambda x: np.linalg.solve(x, np.ones(2)), (3, 3), np.float64, ShapeError, "solve"),
        (np.linalg.cholesky, (3, 3), np.float16, DTypeError, "cholesky: expected float32"),
        (lambda x: np.linalg.eigvalsh(x, "X"), (3, 3), np.float64, ArgumentError, "UPLO"),
        (lambda x: np.linalg.norm(x, "x", (0, 1)), (3, 3), np.float64, ArgumentError, "order"),
        (lambda x: np.linalg.cross(x, x), (2, 2), np.float64, ShapeError, "3 elements"),
        (lambda x: np.linalg.qr(x, "raw"), (2, 2), np.float64, ArgumentError, "mode"),
        (lambda x: np.linalg.multi_dot([x]), (2, 2), np.float64, ArgumentError, "two arrays"),
    ],
)
def test_refusals_say_what_was_expected(fun, shape, dtype, error, match):
    with pytest.raises(error, match=match):
        staged(fun, shape, dtype)
