# SPDX-License-Identifier: MIT
"""Cholesky factors and triangular solves of middle size: values, failures, threads, and the interpreter's agreement."""

import itertools

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler import native, pipeline
from functorch_lite.compiler.loop_ir.nodes import LibraryCall, blocks
from functorch_lite.compiler.lowering import triangular
from functorch_lite.compiler.schedule import parallel
from functorch_lite.compiler.schedule.parallel import shared_loops
from functorch_lite.core.tracer import bind
from functorch_lite.primitives import linalg as p
from tests.compiler.interpreting import run_interpreted

RNG = np.random.default_rng(11)
CHOICES = list(itertools.product((True, False), (True, False), ("N", "T"), (False, True)))


def matrix(n, *lead, dtype=np.float64):
    return (0.4 * RNG.standard_normal((*lead, n, n)) / np.sqrt(n) + np.eye(n)).astype(dtype)


def solve(a, b, left=True, lower=True, trans="N", unit=False):
    return bind(p.triangular_solve_p, a, b, left_side=left, lower=lower, trans=trans, unit_diagonal=unit)


def executable_of(fun, *args, number=1):
    program = fl.make_program(fun)(*args)
    with fl.config(num_threads=number):
        return native.compile_native(program, pipeline.optimize(program))


def library_calls(statements):
    for s in statements:
        if isinstance(s, LibraryCall):
            yield s
        for block in blocks(s):
            yield from library_calls(block)


def assert_close(found, wanted):
    rtol = 1e-13 if wanted.dtype == np.float64 else 3e-6
    np.testing.assert_allclose(found, wanted, rtol, rtol * np.abs(wanted).max())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("n", [7, 20, 33])
@pytest.mark.parametrize(("k", "lead", "dtype"), [(1, (), np.float64), (5, (3,), np.float32), (60, (), np.float32)])
def test_triangular_solve(choice, n, k, lead, dtype):
    a = matrix(n, *lead, dtype=dtype)
    b = RNG.standard_normal((*lead, n, k) if choice[0] else (*lead, k, n)).astype(dtype)
    found = executable_of(lambda a, b: solve(a, b, *choice), a, b)
    assert not list(library_calls(found.lowered.function.body))
    assert_close(found(a, b)[0], solve(a, b, *choice))


@pytest.mark.parametrize("choice", CHOICES[::5], ids=str)
def test_the_other_triangle_is_not_read(choice):
    a = matrix(19)
    b = RNG.standard_normal((19, 19))
    spoiled = np.where(np.tri(19, dtype=bool) if choice[1] else np.tri(19, dtype=bool).T, a, np.nan)
    assert_close(executable_of(lambda a, b: solve(a, b, *choice), a, b)(spoiled, b)[0], solve(a, b, *choice))


@pytest.mark.parametrize("n", [7, 8, 31, 64, 100])
@pytest.mark.parametrize(("lead", "dtype"), [((), np.float64), ((4,), np.float64), ((2,), np.float32)])
def test_cholesky(n, lead, dtype):
    a = matrix(n, *lead)
    a = (a @ np.swapaxes(a, -1, -2)).astype(dtype)
    found = executable_of(np.linalg.cholesky, a)
    assert not list(library_calls(found.lowered.function.body))
    assert_close(found(a)[0], np.linalg.cholesky(a))
    half = np.where(np.tri(n, dtype=bool), a, np.nan).astype(dtype)  # the other half is not read
    assert_close(found(half)[0], np.linalg.cholesky(a))


def test_a_matrix_that_is_not_positive_definite_fails_as_in_numpy():
    factor = fl.jit(np.linalg.cholesky)
    good = np.eye(30) * 2
    assert_close(factor(good), np.linalg.cholesky(good))
    unknown = np.where(np.eye(30) > 0, np.nan, 0.0)
    np.testing.assert_array_equal(factor(unknown), np.linalg.cholesky(unknown))
    for bad in (-np.eye(30), np.diag([*np.ones(29), -1e-3])):
        with pytest.raises(np.linalg.LinAlgError):
            np.linalg.cholesky(bad)
        with pytest.raises(np.linalg.LinAlgError):
            factor(bad)


def test_a_pivot_within_rounding_of_zero_is_left_to_the_library():
    a = np.diag([*np.ones(20), 1e-30])  # fine for LAPACK
    assert_close(fl.jit(np.linalg.cholesky)(a), np.linalg.cholesky(a))


def test_large_and_complex_matrices_go_to_the_library(monkeypatch):
    a = matrix(20)
    monkeypatch.setattr(triangular, "LARGEST_BYTES", 19 * 20 * 8)
    for fun, args in ((solve, (a, a)), (np.linalg.cholesky, (a @ a.T,))):
        found = executable_of(fun, *args)
        assert list(library_calls(found.lowered.function.body))
        assert_close(found(*args)[0], fun(*args))


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr(parallel, "WORTH_NS", 0.0)
    monkeypatch.setattr(parallel, "GRAIN_NS", 0.0)
    a, b = matrix(70), RNG.standard_normal((70, 500))
    many = matrix(24, 30)
    many = many @ np.swapaxes(many, -1, -2)
    for fun, args in ((solve, (a, b)), (lambda a, b: solve(a, b.T, False), (a, b)), (np.linalg.cholesky, (many,))):
        found = [executable_of(fun, *args, number=number) for number in (1, 2, 4)]
        assert any(shared_loops(kernel) for kernel in found[1].lowered.kernels)
        want = found[0](*args)[0]
        assert_close(want, fun(*args))
        for other in found[1:]:
            np.testing.assert_array_equal(other(*args)[0], want)


@pytest.mark.parametrize("fun", [
    solve, lambda a, b: solve(a, b.T, False, True, "T"), lambda a, b: np.linalg.cholesky(a @ a.T),
], ids=["left", "right", "cholesky"])
def test_the_interpreter_agrees(fun):
    a, b = matrix(21), RNG.standard_normal((21, 11))
    program = fl.make_program(fun)(a, b)
    executable = native.compile_native(program, program)
    for found, wanted in zip(run_interpreted(executable.lowered, [a, b], program.out_avals), executable(a, b),
                             strict=True):
        assert_close(found, wanted)


def test_gradients():
    a, b = matrix(18), RNG.standard_normal((18, 3))

    def loss(a, b):
        factor = np.linalg.cholesky(a @ a.T)
        return np.sum(solve(factor, b) ** 2) + np.sum(np.log(np.diagonal(factor)))

    for found, wanted in zip(fl.jit(fl.grad(loss, argnums=(0, 1)))(a, b), fl.grad(loss, argnums=(0, 1))(a, b),
                             strict=True):
        np.testing.assert_allclose(found, wanted, 1e-9, 1e-10)


# --- general systems: factors of ours, or LAPACK's, and two triangular solves -----------------------------------------


def assert_solved(found, a, b):
    """The residual is small against what it is the difference of."""
    size = np.abs(a).max() * np.abs(found).max() * a.shape[-1]
    eps = np.finfo(found.dtype).eps
    assert np.abs(a @ found.astype(np.float64) - b).max() <= 8 * eps * size


@pytest.mark.parametrize("n", [5, 8, 9, 16, 31, 64, 100, 255, 256])
@pytest.mark.parametrize(("k", "lead", "dtype"), [
    (1, (), np.float64), (3, (2,), np.float64), (9, (3,), np.float64), (40, (2,), np.float32),
])
def test_solve(n, k, lead, dtype):
    a, b = RNG.standard_normal((*lead, n, n)).astype(dtype), RNG.standard_normal((*lead, n, k)).astype(dtype)
    executable = executable_of(np.linalg.solve, a, b)
    assert not list(library_calls(executable.lowered.function.body))
    assert_solved(executable(a, b)[0], a, b)


def test_solve_with_a_large_matrix_has_lapacks_factors():
    a, b = RNG.standard_normal((300, 300)), RNG.standard_normal((300, 5))
    executable = executable_of(np.linalg.solve, a, b)
    assert [call.symbol for call in library_calls(executable.lowered.function.body)] == ["scipy_dgetrf"]
    assert_solved(executable(a, b)[0], a, b)


@pytest.mark.parametrize("n", [7, 24, 40])
def test_rows_in_another_order_are_found_again(n):
    order = np.roll(np.arange(n), 5)
    found = fl.jit(np.linalg.inv)(np.eye(n)[order])
    np.testing.assert_array_equal(found, np.eye(n)[order].T)
    np.testing.assert_allclose(fl.jit(np.linalg.det)(np.eye(n)[order]), np.linalg.det(np.eye(n)[order]))


@pytest.mark.parametrize("n", [5, 8, 20, 100])
def test_determinants(n):
    a = RNG.standard_normal((3, n, n))
    executable = executable_of(np.linalg.det, a)
    assert not list(library_calls(executable.lowered.function.body))
    np.testing.assert_allclose(executable(a)[0], np.linalg.det(a), 1e-10)
    sign, log = fl.jit(np.linalg.slogdet)(a)
    np.testing.assert_allclose((sign, log), np.linalg.slogdet(a), 1e-10)


def test_singular_matrices_are_treated_as_eagerly():
    a = matrix(12, 3)
    a[1, :, 4] = 0.0
    with pytest.raises(np.linalg.LinAlgError, match="[Ss]ingular"):
        fl.jit(np.linalg.inv)(a)
    np.testing.assert_allclose(fl.jit(np.linalg.det)(a), np.linalg.det(a), 1e-10)
    assert fl.jit(np.linalg.det)(a)[1] == 0.0


def test_tiny_and_large_numbers_and_nan_are_treated_as_eagerly():
    a = matrix(9)
    for scale in (1e-305, 1e-150, 1e150):
        np.testing.assert_allclose(fl.jit(np.linalg.inv)(a * scale), np.linalg.inv(a * scale), 1e-12)
    a[3, 4] = np.nan
    np.testing.assert_array_equal(fl.jit(np.linalg.inv)(a), np.linalg.inv(a))


def test_any_number_of_threads_inverts_to_the_same_bits():
    a = matrix(160)
    results = [executable_of(np.linalg.inv, a, number=n)(a)[0] for n in (1, 2, 3)]
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


@pytest.mark.parametrize("n", [5, 19])
def test_the_interpreter_inverts_alike(n):
    a = matrix(n, 2)
    program = fl.make_program(np.linalg.inv)(a)
    executable = native.compile_native(program, pipeline.optimize(program))
    for found, wanted in zip(run_interpreted(executable.lowered, [a], program.out_avals), executable(a), strict=True):
        assert_close(found, wanted)
