# SPDX-License-Identifier: MIT
"""Matrix functions inside compiled programs: the eval rules' results, without a return to Python."""

import functools

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.compiler import native
from functorch_lite.compiler.cost import cost_of
from functorch_lite.compiler.loop_ir import nodes
from functorch_lite.compiler.loop_ir.interpret import interpret
from functorch_lite.compiler.runtime import libraries
from functorch_lite.core.aval import Aval
from functorch_lite.core.staging import stage_closed
from functorch_lite.primitives import linalg as p
from functorch_lite.primitives import matrix_functions as f
from functorch_lite.primitives import spectral as s
from functorch_lite.primitives.matrix import matmul, transposed
from tests.records import linalg as records

DTYPES = ("float32", "float64", "complex64", "complex128")
SIZES = (1, 2, 3, 5, 17, 64)
RNG = np.random.default_rng(5)


def host_calls(statements):
    """The steps in Python, but for those that only a failure leads to."""
    for x in statements:
        if isinstance(x, nodes.HostCall) and not x.rare:
            yield x
        for block in nodes.blocks(x):
            yield from host_calls(block)


def listed(out):
    return list(out) if isinstance(out, (list, tuple)) else [out]


def native_of(fun, *args):
    """The function as native code, for arguments like these."""
    program = stage_closed(lambda *xs: listed(fun(*xs)), [Aval(a.shape, a.dtype) for a in args])
    return native.compile_native(program, program)


def native_call(fun, *args):
    return native_of(fun, *args)(*args)


def compiled(fun, *args):
    """The function as native code, which has no step in Python."""
    executable = native_of(fun, *args)
    assert not list(host_calls(executable.lowered.function.body))
    assert cost_of(executable.lowered).python_steps == 0
    return executable


def matrices(dtype, *shape):
    """Random matrices."""
    x = RNG.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * RNG.standard_normal(shape)
    return x.astype(dtype)


def definite(dtype, *shape):
    """Hermitian positive definite matrices, with rubbish in the half that is not read."""
    x = matrices(dtype, *shape)
    x = x @ np.conj(x.swapaxes(-1, -2)) / shape[-1] + np.eye(shape[-1])
    return (np.tril(x) + np.triu(matrices(dtype, *shape), 1)).astype(dtype)


def close(found, expected, factor=1.0):
    """Equal to within rounding, relative to the largest entry."""
    for x, y in zip(found, expected, strict=True):
        y = np.asarray(y)
        assert np.shape(x) == y.shape and np.asarray(x).dtype == y.dtype
        eps = np.finfo(y.dtype).eps if y.dtype.kind in "fc" else 0
        atol = 50 * factor * eps * np.abs(y).max(initial=1.0, where=np.isfinite(y))
        np.testing.assert_allclose(x, y, 50 * factor * eps, atol)


def check(fun, *args, factor=1.0):
    """Compiled and eager give the same."""
    close(compiled(fun, *args)(*args), listed(fun(*args)), factor)


@pytest.fixture
def no_python(monkeypatch):
    """Steps in Python fail."""

    def refuse(*args):
        raise AssertionError("a step ran in Python")

    monkeypatch.setattr("functorch_lite.compiler.runtime.executable.Executable._run_step", refuse)


@pytest.mark.parametrize("record", records.RECORDS, ids=lambda r: r.name)
def test_records_run_natively(record, no_python):
    for sample in record.draw():
        args = [np.asarray(a) for a in sample.args]
        found = compiled(record.fun, *args)(*args)
        for x, y in zip(found, record.flat(*args), strict=True):
            np.testing.assert_allclose(x, y, 1e-11, 1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_factorizations_of_every_size(n, dtype, no_python):
    for lead in ((), (3,)):
        a = matrices(dtype, *lead, n, n) + np.eye(n, dtype=dtype)
        check(p.cholesky, definite(dtype, *lead, n, n), factor=n)
        check(p.lu, a, factor=n * np.linalg.cond(a).max())
        check(p.qr, a, factor=n * np.linalg.cond(a).max())
        check(lambda x: p.qr(x, True), matrices(dtype, *lead, n + 2, n), factor=50 * n)
        for k in (1, 4):
            b = matrices(dtype, *lead, n, k)
            check(p.solve, a, b, factor=n * np.linalg.cond(a).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ((1, 3), (3, 1), (5, 2), (2, 5), (17, 40), (64, 3)), ids=str)
def test_factorizations_of_rectangles(shape, dtype, no_python):
    a = matrices(dtype, 2, *shape)
    check(p.lu, a, factor=50)
    for complete in (False, True):
        check(lambda x, c=complete: p.qr(x, c)[1], a, factor=50)
    check(lambda x: p.qr(x)[0], a, factor=100)
    check(lambda x: s.svd(x), a, factor=200)
    check(lambda x: s.svd(x, full_matrices=True)[1], a, factor=20)
    check(lambda x: s.svd(x, compute_uv=False), a, factor=20)
    check(lambda x: f.pinv(x, 1e-6), a, factor=1e3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("left_side", (True, False))
@pytest.mark.parametrize("lower", (True, False))
def test_triangular_solves(lower, left_side, dtype, no_python):
    for n in (1, 2, 3, 6, 20):
        for trans in "NTC":
            for unit in (False, True):
                fun = functools.partial(p.triangular_solve, left_side=left_side, lower=lower, trans=trans,
                                        unit_diagonal=unit)
                for lead in ((), (2,)):
                    a = (matrices(dtype, *lead, n, n) * 0.3 / n + 2 * np.eye(n)).astype(dtype)
                    check(fun, a, matrices(dtype, *lead, *((n, 3) if left_side else (3, n))), factor=n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_spectra_of_every_size(n, dtype, no_python):
    a = definite(dtype, 2, n, n)
    check(lambda x: s.eigh(x)[0], a, factor=n)
    found = compiled(s.eigh, a)(a)
    whole = np.tril(a) + np.conj(np.tril(a, -1).swapaxes(-1, -2))
    close([found[1] * found[0][:, None] @ np.conj(found[1].swapaxes(-1, -2))], [whole], 20 * n)
    if n <= 5:
        check(s.eigh, a, factor=1e3)
    general = matrices(dtype, 2, n, n)
    values, vectors = compiled(s.eig, general)(general)
    close([general @ vectors], [vectors * values[:, None]], 40 * n)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-2), 1, 1e-5)
    u, values, vh = compiled(lambda x: s.svd(x, full_matrices=True), general)(general)
    close([u * values[:, None] @ vh], [general], 20 * n)
    close([u @ np.conj(u.swapaxes(-1, -2))], [np.eye(n).astype(dtype) + 0 * general], 20 * n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_functions_of_every_size(n, dtype, no_python):
    a = (matrices(dtype, 2, n, n) / np.sqrt(n) + np.eye(n)).astype(dtype)
    condition = np.linalg.cond(a).max()
    check(f.det, a, factor=n * condition)
    check(f.slogdet, a, factor=n * condition)
    check(f.adjugate, a, factor=n * condition)
    check(lambda x: f.pinv(x, 1e-6), a, factor=n * condition)
    check(f.expm, a, factor=10 * n)
    check(f.expm, (6 * a).astype(dtype), factor=1e3 * n)
    check(f.expm_frechet, a, a, factor=100 * n)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_failures_raise_what_the_eval_rule_raises():
    singular = np.array([[[2.0, 1.0], [1.0, 3.0]], [[1.0, 2.0], [2.0, 4.0]]])
    for dtype in DTYPES:
        a = singular.astype(dtype)
        for fun, args, text in (
            (p.solve, (a, a), "Singular matrix"), (p.cholesky, (a - 2 * np.eye(2, dtype=dtype),), "positive definite"),
            (s.svd, (np.full_like(a, np.nan),), "did not converge"),
            (s.eig, (np.full_like(a, np.inf),), "infs or NaNs"),
        ):
            call = compiled(fun, *args)
            for _ in range(2):
                with pytest.raises(np.linalg.LinAlgError, match=text):
                    call(*args)


def test_a_call_after_a_failure_is_right():
    good, bad = np.eye(3), -np.eye(3)
    call = compiled(p.cholesky, good)
    with pytest.raises(np.linalg.LinAlgError):
        call(bad)
    np.testing.assert_array_equal(call(4 * good)[0], 2 * good)


@pytest.mark.parametrize("n", (3, 9))
def test_singular_matrices(n):
    for dtype in DTYPES:
        last = np.diag([1.0, -2.0, *np.zeros(n - 2)])
        a = np.stack([np.zeros((n, n)), np.ones((n, n)), last, np.eye(n)]).astype(dtype)
        for fun in (f.det, f.slogdet, f.adjugate, p.lu, lambda x: f.pinv(x, 1e-6)):
            with np.errstate(all="ignore"):
                check(fun, a)
        b = np.ones((4, n, 1), dtype)
        with np.errstate(all="ignore"):
            expected = p.triangular_solve(a, b)
        np.testing.assert_array_equal(compiled(p.triangular_solve, a, b)(a, b)[0], expected)


def test_large_and_small_determinants():
    d = np.array([1e200, 1e200, -1e-300, 1e-150])
    for a in (np.diag(d), np.diag(d + 0j), np.diag(d * 1j)):
        check(f.det, a, factor=200)
        check(f.slogdet, a, factor=200)


def test_pivots_out_of_range_are_refused():
    call = compiled(lambda x: p.pivots_to_order(x, 3), np.array([0, 1]))
    np.testing.assert_array_equal(call(np.array([2, -1]))[0], p.pivots_to_order(np.array([2, -1]), 3))
    for bad in ([0, 3], [-4, 0], [0, 2**40]):
        with pytest.raises(IndexError):
            call(np.array(bad))


def test_empty_matrices():
    for shape in ((0, 0), (0, 3, 3), (2, 0, 0)):
        x = np.empty(shape)
        for fun in (p.cholesky, p.lu, p.qr, s.eigh, s.svd, f.det, f.slogdet, f.expm):
            for y, z in zip(native_call(fun, x), listed(fun(x)), strict=True):
                np.testing.assert_array_equal(y, z)


# --- in programs ------------------------------------------------------------------------------------------------------


def test_transposed_and_sliced_operands(no_python):
    a, b = matrices("float64", 5, 4, 5), matrices("float64", 5, 2, 4)
    check(lambda x, y: p.solve(transposed(p.columns(x, 1, 5)), transposed(y)), a, b, factor=100)


def test_gradients_compiled_and_eager_are_equal(no_python):
    a = definite("float64", 5, 5)

    def weighted(outs):
        return functools.reduce(lambda x, y: x + y, [fl.numpy.sum(o * fl.numpy.cos(1.0 * k + o)) for k, o in
                                                     enumerate(outs)])

    for fun in (
        lambda x: [p.cholesky(x)], lambda x: [p.solve(x, x + 1.0)], lambda x: p.qr(x), lambda x: p.lu(x)[:1],
        lambda x: [s.eigh(x)[0], fl.numpy.abs(s.eigh(x)[1])], lambda x: [f.det(x)], lambda x: f.slogdet(x)[1:],
        lambda x: [f.expm(x)], lambda x: [f.pinv(x, 1e-10)],
    ):
        grad = fl.grad(lambda x, g=fun: weighted(g(x)))
        np.testing.assert_allclose(fl.jit(grad)(a), grad(a), 1e-9, 1e-9)
        batch = definite("float64", 3, 5, 5)
        np.testing.assert_allclose(fl.jit(fl.vmap(grad))(batch), fl.vmap(grad)(batch), 1e-8, 1e-8)


def test_in_loops_and_branches(no_python):
    def step(carry, x):
        gain = p.solve(carry + x, carry)
        return fl.lax.cond(gain[0, 0] > 0, lambda m: p.cholesky(definite_part(m)), lambda m: m, carry + gain), gain

    def definite_part(m):
        return matmul(m, transposed(m)) + np.eye(3)

    xs = matrices("float64", 6, 3, 3) + 6 * np.eye(3)
    run = lambda xs: fl.lax.scan(step, np.eye(3), xs)  # noqa: E731
    for found, expected in zip(fl.jit(run)(xs), run(xs), strict=True):
        np.testing.assert_allclose(found, expected, 1e-10)


def test_the_interpreter_calls_the_same_functions():
    a = definite("float64", 2, 4, 4)
    call = compiled(p.cholesky, a)
    out = np.empty(a.size)
    interpret(call.lowered.function, [a.reshape(-1), out, *call.lowered.constants])
    np.testing.assert_array_equal(out.reshape(a.shape), call(a)[0])


def test_a_library_function_with_other_arguments_is_refused(monkeypatch):
    monkeypatch.setitem(libraries._LAPACK, "potrf", "citi")
    libraries._argument_types.cache_clear()
    with pytest.raises(RuntimeError, match="expected arguments of types"):
        libraries.address.__wrapped__("scipy_spotrf")
    libraries._argument_types.cache_clear()
