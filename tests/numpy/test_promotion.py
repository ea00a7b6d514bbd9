# SPDX-License-Identifier: MIT
"""Dtypes are NumPy 2's, with Python scalars weak for bfloat16 and float8 too: eager, under grad, vmap and staging."""

import warnings

import ml_dtypes
import numpy as np
import pytest

import functorch_lite.numpy as fnp
from functorch_lite.config import config
from functorch_lite.core.aval import Aval
from functorch_lite.core.staging import stage
from functorch_lite.errors import DTypeError, PromotionWarning
from functorch_lite.transforms.batching import batch_flat
from functorch_lite.transforms.linearize import linearize_flat

DTYPES = [
    np.dtype(d)
    for d in (
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    )
]
BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "floor_divide",
    "remainder",
    "power",
    "maximum",
    "arctan2",
    "hypot",
    "logaddexp",
    "equal",
    "less",
    "logical_and",
    "bitwise_and",
    "left_shift",
    "copysign",
    "heaviside",
    "float_power",
]
UNARY = [
    "negative",
    "absolute",
    "sqrt",
    "exp",
    "sin",
    "square",
    "sign",
    "floor",
    "rint",
    "isnan",
    "logical_not",
    "invert",
    "conjugate",
    "reciprocal",
    "signbit",
    "log1p",
    "cbrt",
]
REDUCTIONS = ["sum", "prod", "mean", "var", "std", "max", "argmax", "any", "cumsum", "median", "ptp"]
SCALARS = [True, 3, 2.5, 1 + 2j]


def numpy_dtype(name, *values):
    try:
        return np.asarray(getattr(np, name)(*values)).dtype
    except TypeError:
        return None


def traced_dtypes(function, arrays):
    """The dtype that a function of arrays gives under grad, vmap and staging."""

    def run(*xs):
        return [function(*xs)]

    active = [x.dtype.kind in "fc" or x.dtype == ml_dtypes.bfloat16 for x in arrays]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [linearize_flat(run, arrays, active)[0][0].dtype]
        found.append(batch_flat(run, [np.stack([x, x]) for x in arrays], [True] * len(arrays), size=2)[0][0].dtype)
        found.append(stage(run, [Aval(x.shape, x.dtype) for x in arrays]).program.out_avals[0].dtype)
    return found


def check(name, function, arrays, wanted):
    if wanted is None:
        with pytest.raises((TypeError, ValueError)):
            traced_dtypes(function, arrays)
        return
    assert traced_dtypes(function, arrays) == [wanted] * 3, name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_binary_ufunc_has_numpys_dtype_for_every_pair(name, dtype):
    for other in DTYPES:
        if "c" in dtype.kind + other.kind and name in ("less", "maximum"):
            continue  # complex numbers have no order here
        arrays = [np.ones(2, dtype), np.ones(2, other)]
        check((name, dtype, other), getattr(fnp, name), arrays, numpy_dtype(name, *arrays))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["add", "multiply", "divide", "power", "maximum", "arctan2", "remainder"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_python_scalars_are_weak(name, dtype):
    for scalar in SCALARS:
        if ("c" == dtype.kind or isinstance(scalar, complex)) and name == "maximum":
            continue
        x = np.ones(2, dtype)
        check((name, dtype, scalar), lambda x, s=scalar: getattr(fnp, name)(x, s), [x], numpy_dtype(name, x, scalar))
        check((name, scalar, dtype), lambda x, s=scalar: getattr(fnp, name)(s, x), [x], numpy_dtype(name, scalar, x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", UNARY)
def test_unary_ufunc_has_numpys_dtype(name):
    for dtype in DTYPES:
        x = np.ones(2, dtype)
        check((name, dtype), getattr(fnp, name), [x], numpy_dtype(name, x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction_has_numpys_dtype(name):
    for dtype in DTYPES:
        if dtype.kind == "c" and name in ("max", "argmax", "median", "ptp"):
            continue
        x = np.ones(2, dtype)
        check((name, dtype), getattr(fnp, name), [x], numpy_dtype(name, x))


@pytest.mark.parametrize(
    "other, wanted",
    [
        (1.5, "bfloat16"),
        (2, "bfloat16"),
        (np.float16(1), "float32"),
        (np.int32(3), "bfloat16"),
        (np.float32(1), "float32"),
        (np.float64(1), "float64"),
        (True, "bfloat16"),
    ],
)
def test_bfloat16_promotion(other, wanted):
    x = np.ones(2, ml_dtypes.bfloat16)
    assert fnp.add(x, other).dtype == np.dtype(wanted)
    assert traced_dtypes(lambda x: x + other, [x]) == [np.dtype(wanted)] * 3


def test_float8_mixes_with_nothing():
    x = np.ones(2, ml_dtypes.float8_e4m3fn)
    assert fnp.multiply(x, 2.0).dtype == x.dtype
    with pytest.raises(DTypeError, match="float8 mixes with nothing"):
        fnp.add(x, np.float32(1))


def test_python_integer_out_of_range_is_an_overflow_error():
    with pytest.raises(OverflowError):
        traced_dtypes(lambda x: x + 300, [np.ones(2, np.uint8)])


def test_comparison_with_a_python_integer_out_of_range_is_decided():
    program = stage(lambda x: [x < 300, -1 < x, x == 1000], [Aval((2,), np.dtype(np.uint8))]).program
    assert [a.dtype for a in program.out_avals] == [np.dtype(bool)] * 3


def test_operator_on_weak_operands_gives_a_weak_result():
    def run(x):
        assert (x * 2).weak and (x + 1.5).weak and (-x).weak and (x**2).weak
        assert not np.sin(x).weak
        return [np.float32(1) * x]

    outs, _ = linearize_flat(run, [2.0 * np.float64(1)], [True], weak=[True])
    assert outs[0].dtype == np.float32


def test_implicit_float64_promotion_warns():
    def run(x):
        return [x * np.arange(3)]

    with pytest.warns(PromotionWarning, match="float32 and int64 promote to float64"):
        linearize_flat(run, [np.ones(3, np.float32)], [True])


def test_implicit_float64_promotion_is_an_error_when_strict():
    with config(promotion="strict"), pytest.raises(DTypeError, match="promote to float64"):
        linearize_flat(lambda x: [x * np.arange(3)], [np.ones(3, np.float32)], [True])


def test_creation_functions_use_the_default_float():
    assert fnp.zeros(3).dtype == fnp.ones((2, 2)).dtype == fnp.array([1.0, 2.0]).dtype == np.float32
    assert (
        fnp.linspace(0, 1, 5).dtype == fnp.eye(2).dtype == fnp.arange(3.0).dtype == fnp.full(2, 1.5).dtype == np.float32
    )
    assert fnp.arange(3).dtype == np.int64 and fnp.full(2, 1).dtype == np.int64 and fnp.array([1, 2]).dtype == np.int64
    assert fnp.array([np.float64(1), 2.0]).dtype == np.float64 and fnp.asarray(np.ones(2)).dtype == np.float64
    with config(default_float="float64"):
        assert fnp.zeros(3).dtype == np.float64
