# SPDX-License-Identifier: MIT
"""SEMANTICS C: dtypes, integers and complex numbers."""

import itertools

import ml_dtypes
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.control_flow import scan
from functorch_lite.core import dtypes
from functorch_lite.errors import DTypeError

bfloat16 = np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("x", [2, True, np.int32(2), np.arange(3)], ids=["int", "bool", "int32", "int64 array"])
def test_C1_grad_of_an_integer_names_argument_dtype_and_option(x):
    with pytest.raises(TypeError, match=r"`count` has dtype (int|bool)\d*;.*allow_int=True"):
        fl.grad(lambda count: np.sum(count * 1.0))(x)
    found = fl.grad(lambda count: np.sum(count * 1.0), allow_int=True)(x)
    assert found.dtype == dtypes.float0 and found.shape == np.shape(x)


def test_C2_the_cotangent_of_an_integer_carries_no_information():
    _, pullback = fl.vjp(lambda n, x: n * x, 3, 2.0)
    of_n, of_x = pullback(1.0)
    assert of_n.dtype == dtypes.float0 and of_x == 3.0


def test_C3_grad_of_a_vector_names_its_shape():
    with pytest.raises(TypeError, match=r"must return a scalar, it returned shape \(3,\)"):
        fl.grad(lambda x: x)(np.ones(3))


def test_C4_grad_of_an_integer_or_complex_result():
    with pytest.raises(TypeError, match="real floating point scalar, it returned dtype int64"):
        fl.grad(lambda x: np.argmax(x))(np.ones(3))
    with pytest.raises(TypeError, match=r"dtype complex128(.|\n)*\.real(.|\n)*holomorphic=True"):
        fl.grad(lambda x: x * 1j)(1.0)


def test_C5_the_gradient_of_a_real_function_of_a_complex_number():
    f = fl.grad(lambda z: np.real(z) ** 2 + np.imag(z) ** 2)
    assert f(3 + 4j) == 6 - 8j
    with fl.config(conjugate_grad=True):
        assert f(3 + 4j) == 6 + 8j
        real = fl.grad(lambda x: np.real(np.exp(1j * x) * np.exp(1j * x)))(0.3)
    assert real == pytest.approx(-2 * np.sin(0.6), rel=1e-14)
    assert fl.grad(lambda x: np.real(np.exp(1j * x) * np.exp(1j * x)))(0.3) == pytest.approx(
        -2 * np.sin(0.6), rel=1e-14
    )


def test_C6_a_holomorphic_square():
    assert fl.grad(lambda z: z * z, holomorphic=True)(1 + 1j) == 2 + 2j


def test_C7_holomorphic_needs_complex_inputs():
    with pytest.raises(TypeError, match="holomorphic=True needs complex inputs, `x` has dtype float64"):
        fl.grad(lambda x: x * 1j, holomorphic=True)(1.0)


def test_C8_the_modulus_at_zero():
    assert fl.grad(np.abs)(0j) == 0.0


def test_C9_real_functions_through_complex_numbers():
    found = fl.grad(lambda x: np.fft.irfft(x * (1 + 0j))[1])(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(found, [0.25, 0.0, -0.25], atol=1e-15)
    found = fl.grad(lambda x: np.sum(np.abs(np.fft.rfft(x))))(np.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(found, [0.2440711, 0.8110178, 1.9449112], rtol=1e-6)


NUMPY_DTYPES = [
    np.dtype(d) for d in (bool, "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
]
ONE = {"eager": lambda f: f, "jit": fl.jit, "vmap": fl.vmap, "jit of vmap": lambda f: fl.jit(fl.vmap(f))}


@pytest.mark.filterwarnings("ignore::functorch_lite.errors.PromotionWarning")
@pytest.mark.parametrize("transform", ONE)
def test_C10_numpy_dtypes_promote_as_numpy_promotes_them(transform):
    wrapped = ONE[transform](lambda x, y: x + y)
    with np.errstate(all="ignore"):
        for a, b in itertools.product(NUMPY_DTYPES, NUMPY_DTYPES):
            x, y = np.ones(2, a), np.ones(2, b)
            assert wrapped(x, y).dtype == (x + y).dtype, (a, b)


@pytest.mark.parametrize("transform", ONE)
def test_C10_python_scalars_are_weak(transform):
    for dtype, scalar in itertools.product(NUMPY_DTYPES, (True, 2, 1.5, 1j)):
        x = np.ones(2, dtype)
        found = ONE[transform](lambda x, s=scalar: x * s)(x)
        assert found.dtype == (x * scalar).dtype, (dtype, scalar)


EXTENDED = [
    (bfloat16, 1.5, bfloat16),
    (bfloat16, 2, bfloat16),
    (bfloat16, np.int32(2), bfloat16),
    (bfloat16, np.float16(1), np.dtype("f4")),
    (bfloat16, np.float32(1), np.dtype("f4")),
    (bfloat16, np.float64(1), np.dtype("f8")),
    (bfloat16, True, bfloat16),
]


@pytest.mark.parametrize("transform", ["jit", "vmap", "jit of vmap"])
@pytest.mark.parametrize("dtype, other, expected", EXTENDED, ids=lambda v: str(v))
def test_C10_bfloat16_promotes_by_the_same_rules(transform, dtype, other, expected):
    assert ONE[transform](lambda x: x + other)(np.ones(2, dtype)).dtype == expected
    assert fl.numpy.add(np.ones(2, dtype), other).dtype == expected


def test_C10_float8_mixes_with_nothing():
    for one, other in itertools.permutations([dtypes.float8[0], np.dtype("f4"), dtypes.float8[1], bfloat16], 2):
        if one in dtypes.float8 or other in dtypes.float8:
            with pytest.raises(DTypeError, match="no implicit promotion"):
                fl.jit(lambda x, y: x + y)(np.ones(2, one), np.ones(2, other))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16", bfloat16], ids=str)
def test_C10_C15_a_gradient_has_the_dtype_of_its_input(dtype):
    x = np.ones(3, dtype)
    for f in (fl.grad, lambda f: fl.jit(fl.grad(f)), lambda f: fl.grad(fl.jit(f))):
        assert f(lambda x: np.sum(np.real(x * x * 2.0)))(x).dtype == x.dtype


def test_C11_an_integer_out_of_range_is_an_error():
    x = np.uint8(1)
    with pytest.raises(OverflowError):
        x + 300
    with pytest.raises(OverflowError):
        fl.jit(lambda x: x + 300)(x)


def test_C12_integer_arithmetic_is_numpys():
    x = np.array([2, 3], np.int32)
    with pytest.raises(ValueError, match="negative"):
        fl.jit(lambda x: x**-1)(x)
    np.testing.assert_array_equal(fl.jit(lambda x: x // np.int32(0))(x), [0, 0])
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        x // np.int32(0)
    largest = np.array([np.iinfo(np.int32).max], np.int32)
    found = fl.jit(lambda x: x + 1)(largest)
    assert found.dtype == np.int32 and found[0] == np.iinfo(np.int32).min


def test_C13_small_types_are_summed_in_wider_ones():
    for f in (np.sum, fl.jit(np.sum)):
        total = f(np.array([100, 100], np.int8))
        assert total == 200 and total.dtype == np.sum(np.zeros(1, np.int8)).dtype
    ones = np.ones(4096, np.float16)  # 2048 + 1 = 2048 in float16
    total = fl.jit(np.sum)(ones)
    assert total == 4096 and total.dtype == np.float16


def test_C14_scalars_retrace_at_most_once_more_and_say_why():
    f = fl.jit(lambda x: x * 2)
    for x in (1.0, 2.0, np.float32(1), np.array(3.0, np.float32), 4.0):
        f(x)
    info = f.cache_info()
    assert (info.hits, info.misses) == (3, 2)
    assert any("`x`: f32[] after f64[] (Python scalar)" in e.reason for e in info.entries)


def test_C15_double_precision_stays_double_precision():
    for dtype in (np.float32, np.float64):
        x = np.ones(2, dtype)
        value, gradient = fl.jit(fl.value_and_grad(lambda x: np.sum(np.exp(x) / 3)))(x)
        assert value.dtype == gradient.dtype == dtype


def test_C16_an_integer_carry_that_turns_float_is_promoted():
    total, _ = scan(lambda c, _: (c + 1.5, None), 0, None, length=3)
    assert total == 4.5
