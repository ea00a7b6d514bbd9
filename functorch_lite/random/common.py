# SPDX-License-Identifier: MIT
"""What every sampler checks and prepares: its key, its shape, its dtype and its parameters.

16-bit floats are drawn with their own bits, computed in float32 and rounded at the end (`compute_dtype`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.config import config
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from functorch_lite.numpy.promotion import asarray, broadcast_to, cast
from functorch_lite.numpy.promotion import shape_of as _shape_of
from functorch_lite.primitives.comparison import gt, select
from functorch_lite.primitives.key_use import use_key
from functorch_lite.primitives.transcendental import log

_HOW = "Make one with `random.key(seed)`"
DEFAULT_INT = np.dtype(np.int32)
"""The dtype of random integers when none is given: that of JAX's default mode, so its numbers come out."""


def check_key(name: str, key: Any) -> Any:
    """`key`, if it is one key: uint32 [2].

    Raises: ArgumentTypeError for what is no array, DTypeError or ShapeError for another dtype or shape.
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is None or shape is None:
        raise ArgumentTypeError(f"{name}: `key` must be a key (uint32[2]), got {key!r}. {_HOW}.")
    if dtype != np.uint32:
        raise DTypeError(f"{name}: `key` must be a key (uint32[2]), got {Aval(shape, dtype)}. {_HOW}.")
    if shape != (2,):
        batch = f" {_HOW}." if not shape or shape[-1] != 2 else " These are several keys: pick one, or use vmap."
        raise ShapeError(f"{name}: `key` must be one key (uint32[2]), got {Aval(shape, dtype)}.{batch}")
    return key


def take_key(name: str, key: Any) -> Any:
    """`check_key` for a function that uses the key up, which is noted where `config.check_key_reuse` is on.

    Raises: KeyReuseError where the key was used before.
    """
    check_key(name, key)
    if config.check_key_reuse:
        use_key(key, name)
    return key


def as_shape(name: str, shape: Any) -> tuple[int, ...]:
    """`shape` as a tuple of sizes; an integer is one axis.

    Raises: ArgumentTypeError for what is no integer or sequence of them, ShapeError for a negative size.
    """
    if isinstance(shape, (int, np.integer)):
        shape = (shape,)
    try:
        sizes = tuple(n.__index__() for n in shape)
    except (TypeError, AttributeError):
        raise ArgumentTypeError(f"{name}: `shape` must be a tuple of integers, got {shape!r}.") from None
    if any(n < 0 for n in sizes):
        raise ShapeError(f"{name}: `shape` must have no negative sizes, got {sizes}.")
    return sizes


def sample_shape(name: str, shape: Any, **parameters: Any) -> tuple[int, ...]:
    """The shape of a sample: `shape`, or where it is None the one to which the parameters broadcast.

    Raises: ShapeError naming a parameter that does not broadcast to `shape`.
    """
    found = {label: tuple(_shape_of(value)) for label, value in parameters.items()}
    text = ", ".join(f"`{label}` {s}" for label, s in found.items())
    try:
        common = np.broadcast_shapes(*found.values())
    except ValueError:
        raise ShapeError(f"{name}: the parameters do not broadcast together: {text}.") from None
    if shape is None:
        return common
    sizes = as_shape(name, shape)
    for label, own in found.items():
        if not _broadcasts(own, sizes):
            raise ShapeError(
                f"{name}: `{label}` of shape {own} does not broadcast to shape={sizes}. A sample's last axes are those "
                "of its parameters."
            )
    return sizes


def _broadcasts(own: Sequence[int], sizes: Sequence[int]) -> bool:
    extra = len(sizes) - len(own)
    return extra >= 0 and all(n in (1, m) for n, m in zip(own, sizes[extra:], strict=True))


def float_dtype(name: str, dtype: Any, complex_too: bool = False) -> np.dtype:
    """The floating-point dtype asked for; None means `config.default_float`.

    Raises: DTypeError for any other kind of dtype, float8 included.
    """
    found = dtypes.default_float() if dtype is None else np.dtype(dtype)
    allowed = "fc" if complex_too else "f"
    if dtypes.dtype_kind(found) not in allowed or found.itemsize < 2 or found.char in "gG":
        raise DTypeError(f"{name}: `dtype` must be a floating point dtype, got {found}.")
    return found


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype a sample of `dtype` is computed in: float32 for 16-bit floats."""
    return dtypes.accumulator(dtype)


def parameter(value: Any, dtype: np.dtype) -> Any:
    """A parameter as an array, tracer or NumPy scalar of `dtype`."""
    return cast(asarray(value), dtype)


def own_float(value: Any, default: np.dtype | None = None) -> Any:
    """A parameter in its own floating-point dtype; lists, Python numbers and integers get `default`.

    default: None means `config.default_float`.
    """
    known = hasattr(value, "dtype") and dtypes.is_inexact(value.dtype) and not getattr(value, "weak", False)
    return value if known else parameter(value, dtypes.default_float() if default is None else default)


def spread(value: Any, shape: tuple[int, ...]) -> Any:
    """`value` repeated to `shape`."""
    return broadcast_to(value, shape)


def rounded(x: Any, dtype: np.dtype) -> Any:
    """`x` in `dtype`."""
    return cast(asarray(x), dtype)


def log_or_infinite(x: Any) -> Any:
    """log x for x >= 0: minus infinity at 0, without a warning."""
    positive, one = gt(x, x.dtype.type(0)), x.dtype.type(1)
    return select(positive, log(select(positive, x, one)), x.dtype.type(-np.inf))


def one_of(name: str, label: str, value: Any, allowed: Sequence[Any]) -> Any:
    """`value`, if it is one of `allowed`; else ArgumentError naming the argument."""
    if value not in allowed:
        raise ArgumentError(f"{name}: `{label}` must be one of {', '.join(map(repr, allowed))}, got {value!r}.")
    return value
