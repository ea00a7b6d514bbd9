# SPDX-License-Identifier: MIT
"""Dtypes and promotion: NumPy 2's rules (NEP 50), extended to ml_dtypes' bfloat16 and float8 types.

A Python scalar is *weak*: it takes the dtype of what it meets. NumPy does this for its own dtypes; for bfloat16 and
float8 (which NumPy sees as unknown user types) the same rule is kept here.

Source: NEP 50; array API standard 2024.12, "type promotion".
"""

import functools
from typing import Any

import ml_dtypes
import numpy as np

from functorch_lite.config import config
from functorch_lite.errors import DTypeError

bfloat16 = np.dtype(ml_dtypes.bfloat16)
float8 = tuple(
    np.dtype(getattr(ml_dtypes, name))
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz")
)
_extended = {bfloat16, *float8}

float0 = np.dtype([("float0", np.void, 0)])
"""The dtype of a derivative that carries no information: that of an integer or boolean input."""

_python_rank = {bool: 0, int: 1, float: 2, complex: 3}
_python_dtype = {bool: np.dtype(bool), int: np.dtype(np.int64), float: np.dtype(np.float64),
                 complex: np.dtype(np.complex128)}
_low_precision = {np.dtype(np.float16), *_extended}


def dtype_kind(dtype: np.dtype) -> str:
    """'b', 'i', 'u', 'f' or 'c'; bfloat16 and float8 are 'f' (NumPy itself calls them 'V')."""
    return "f" if dtype in _extended else dtype.kind


@functools.cache
def is_inexact(dtype: np.dtype) -> bool:
    """Whether `dtype` is real or complex floating point, so that derivatives exist."""
    return dtype_kind(dtype) in "fc"


@functools.cache
def is_complex(dtype: np.dtype) -> bool:
    """Whether `dtype` is complex."""
    return dtype.kind == "c"


@functools.cache
def accumulator(dtype: np.dtype) -> np.dtype:
    """The dtype in which sums of `dtype` are accumulated: float32 for 16-bit and smaller floats."""
    return np.dtype(np.float32) if dtype in _low_precision else dtype


@functools.cache
def real_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of the real part: complex64 gives float32, a real dtype itself."""
    return np.real(np.empty(0, dtype)).dtype if dtype.kind == "c" else dtype


@functools.cache
def complex_dtype(dtype: np.dtype) -> np.dtype:
    """The complex dtype whose parts hold `dtype`."""
    return dtype if dtype.kind == "c" else np.result_type(to_inexact(dtype), np.complex64)


@functools.cache
def to_inexact(dtype: np.dtype) -> np.dtype:
    """The dtype in which NumPy evaluates a transcendental function of `dtype`: int8 gives float16, int64 float64."""
    if is_inexact(dtype):
        return dtype
    if dtype.kind in "biu":
        return np.dtype({1: np.float16, 2: np.float32}.get(dtype.itemsize, np.float64))
    raise DTypeError(f"expected a numeric dtype, got {dtype}.")


def default_float() -> np.dtype:
    """The dtype of created arrays and random numbers when none is given (`config.default_float`)."""
    return np.dtype(config.default_float)


def weak_type(value: Any) -> type | None:
    """bool, int, float or complex for a Python scalar, None for anything with a dtype of its own."""
    kind = type(value)
    return kind if kind in _python_rank else None


@functools.cache
def promote(strong: tuple[np.dtype, ...], weak: tuple[type, ...] = ()) -> np.dtype:
    """The common dtype of operands with the dtypes `strong` and of Python scalars of the types `weak`."""
    if not strong:
        return _python_dtype[max(weak, key=_python_rank.__getitem__)]
    if not _extended.intersection(strong):
        return np.result_type(*strong, *(t(0) for t in weak))
    return _promote_extended(strong, weak)


def _promote_extended(strong, weak):
    inexact = tuple(dict.fromkeys(d for d in strong if is_inexact(d)))
    small = [d for d in inexact if d in float8]
    if small and len(inexact) > 1:
        raise DTypeError(
            f"no implicit promotion between {inexact[0]} and {inexact[1]}: float8 mixes with nothing. "
            "Convert one operand with .astype(...)."
        )
    if len(inexact) == 1:
        result = inexact[0]
    else:
        result = np.result_type(np.float32, *(d for d in inexact if d not in _extended))
    return complex_dtype(result) if complex in weak else result


def python_dtype(kind: type) -> np.dtype:
    """The dtype NumPy gives a Python scalar of type `kind` that stands alone."""
    return _python_dtype[kind]
