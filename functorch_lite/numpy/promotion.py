# SPDX-License-Identifier: MIT
"""Promotion and broadcasting: done here, once, before any primitive is applied.

Primitives take operands of one dtype and one shape. The dtype is NumPy's: for a ufunc it is asked of the ufunc itself
(`resolve_dtypes`), for bfloat16 and float8 it is `core.dtypes.promote`. A Python scalar, and a tracer that stands for
one, is weak: it takes the dtype of what it meets. A constant of rank 0 stays so: element-wise primitives take it.

Source: NEP 50; array API standard 2024.12, "type promotion" and "broadcasting".
"""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite.backends.registry import on_device
from functorch_lite.config import config
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.tracer import Tracer, argument_path
from functorch_lite.errors import ArgumentTypeError, DTypeError, PromotionWarning, ShapeError, user_source
from functorch_lite.primitives.broadcast import broadcast_in_dim
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.movement import concatenate, reshape

PYTHON_SCALARS = frozenset((bool, int, float, complex))
_python_of_kind = {"b": bool, "i": int, "u": int, "f": float, "c": complex}
_wide = (np.dtype(np.float64), np.dtype(np.complex128))
_f32, _f64 = np.dtype(np.float32), np.dtype(np.float64)
_extended = frozenset((dtypes.bfloat16, *dtypes.float8))
_warned_lines: dict[Any, Any] = {}  # the registry of `warnings`: it shows each line once


def dtype_key(value: Any) -> Any:
    """What promotion needs to know of an operand: its dtype, or the Python type of a weak one."""
    kind = type(value)
    if kind in PYTHON_SCALARS:
        return kind
    if isinstance(value, Tracer) and value.weak:
        return _python_of_kind[value.dtype.kind]
    return value.dtype


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an array, a tracer or a scalar."""
    return () if type(value) in PYTHON_SCALARS else value.shape


def has_tracer(value: Any) -> bool:
    """Whether a tracer is in `value`: an argument, or a nest of lists and tuples of them."""
    if isinstance(value, (list, tuple)):
        return any(has_tracer(v) for v in value)
    return isinstance(value, Tracer)


def cast(x: Any, dtype: np.dtype) -> Any:
    """`x` with this dtype; a Python scalar becomes a NumPy scalar (OverflowError if it does not fit)."""
    if type(x) in PYTHON_SCALARS:
        try:
            return np.asarray(x).astype(dtype)[()] if dtype.kind in "bf" and type(x) is complex else dtype.type(x)
        except OverflowError as error:
            error.add_note(f"  Convert the {dtype} operand to a wider dtype with .astype(...)\n  at {user_source()}")
            raise
    return x if x.dtype == dtype else convert(x, dtype)


def asarray(value: Any) -> Any:
    """`value` as an array or tracer: lists and tuples (of tracers, too) are stacked, Python scalars get their dtype."""
    kind = type(value)
    if kind is np.ndarray or isinstance(value, (Tracer, np.generic)):
        return value
    if kind in PYTHON_SCALARS:
        return dtypes.python_dtype(kind).type(value)
    if isinstance(value, (list, tuple)):
        return _stack(value) if has_tracer(value) else np.asarray(value)
    if on_device(value):
        return value
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return np.asarray(value)
    raise ArgumentTypeError(
        f"expected an array, a scalar or a list of them, got {kind.__name__}. Convert it with numpy.asarray(...) first."
    )


def operand(value: Any) -> Any:
    """`asarray`, but a Python scalar stays what it is: weak."""
    return value if type(value) in PYTHON_SCALARS else asarray(value)


def _stack(values: Sequence[Any]) -> Any:
    parts = promote(*[asarray(v) for v in values])
    shapes = {p.shape for p in parts}
    if len(shapes) != 1:
        raise ShapeError(f"array: the elements of a list have different shapes: {', '.join(map(str, shapes))}.")
    return concatenate([reshape(p, (1, *p.shape)) for p in parts], 0)


# --- dtypes -------------------------------------------------------------------------------------------------------


def promote(*values: Any) -> list[Any]:
    """The operands, converted to their common dtype."""
    values = tuple([operand(v) for v in values])
    dtype = common_dtype(*values)
    return [cast(v, dtype) for v in values]


def common_dtype(*values: Any) -> np.dtype:
    """The dtype of the operands together; Python scalars and weak tracers follow the others."""
    keys = tuple([dtype_key(v) for v in values])
    dtype = _common(keys)
    if dtype in _wide and any(isinstance(v, Tracer) for v in values):
        check_width(keys, dtype)
    return dtype


@functools.lru_cache(4096)
def _common(keys):
    strong = tuple(k for k in keys if isinstance(k, np.dtype))
    return dtypes.promote(strong, tuple(k for k in keys if not isinstance(k, np.dtype)))


def check_width(keys: Sequence[Any], dtype: np.dtype) -> None:
    """Warn (or, with `promotion="strict"`, raise) if operands none of which is 64-bit floating point became so."""
    strong = [k for k in keys if isinstance(k, np.dtype)]
    if dtype not in _wide or any(d in _wide for d in strong) or not any(dtypes.is_inexact(d) for d in strong):
        return
    names = " and ".join(dict.fromkeys(str(d) for d in strong))
    message = f"{names} promote to {dtype}: convert one operand with .astype(...) to keep the narrower dtype."
    if config.promotion == "strict":
        raise DTypeError(message)
    source = user_source()
    if source is not None:
        warnings.warn_explicit(message, PromotionWarning, source.filename, source.lineno, registry=_warned_lines)


def to_inexact(x: Any) -> Any:
    """`x` as a floating-point or complex array: integers become the float in which NumPy computes with them."""
    x = asarray(x)
    return x if dtypes.is_inexact(x.dtype) else convert(x, dtypes.to_inexact(x.dtype))


def to_float(x: Any) -> Any:
    """`x` as a floating-point or complex array: integers become float64, as in NumPy's mean and division."""
    x = asarray(x)
    return x if dtypes.is_inexact(x.dtype) else convert(x, _f64)


@functools.lru_cache(8192)
def _loop(ufunc: np.ufunc, keys: tuple[Any, ...]) -> tuple[np.dtype, ...]:
    """The input dtypes of the loop that `ufunc` runs for operands of these dtypes."""
    if any(k in _extended for k in keys):
        return (_extended_loop(ufunc, keys),) * len(keys)
    if all(not isinstance(k, np.dtype) for k in keys):
        keys = tuple(dtypes.python_dtype(k) for k in keys)
    given = tuple(np.dtype(bool) if k is bool else k for k in keys)
    return ufunc.resolve_dtypes((*given, *[None] * ufunc.nout))[: len(keys)]


def _extended_loop(ufunc, keys):
    dtype = _common(keys)
    if dtype in _extended:
        return dtype
    return _loop(ufunc, (dtype,) * len(keys))[0]


def loop_operands(ufunc: np.ufunc, *values: Any) -> list[Any]:
    """The operands, converted to the dtypes in which `ufunc` computes and broadcast to one shape."""
    values = tuple([operand(v) for v in values])
    keys = tuple([dtype_key(v) for v in values])
    loop = _loop(ufunc, keys)
    if loop[0] in _wide and any(isinstance(v, Tracer) for v in values):
        check_width(keys, loop[0])
    try:
        return broadcast(*[cast(v, d) for v, d in zip(values, loop, strict=True)])
    except ShapeError:
        raise unfit(ufunc.__name__, values) from None


def loop_pair(ufunc: np.ufunc, x: Any, y: Any) -> Sequence[Any]:
    """`loop_operands` for two, with short ways for the common cases."""
    if isinstance(x, Tracer):
        dtype = x.dtype
        if (dtype is _f32 or dtype is _f64) and not x.weak:
            kind = type(y)
            if kind is float or kind is int:
                return x, dtype.type(y)
            if (kind is np.ndarray or (isinstance(y, Tracer) and not y.weak)) and y.dtype is dtype:
                have, want = y.shape, x.shape
                if have == want or (not have and kind is np.ndarray):
                    return x, y
                same_rank = len(have) == len(want)
                if have and (have == want[-len(have) :] or (same_rank and have[-1] == 1 and have[:-1] == want[:-1])):
                    return x, broadcast_in_dim(y, want, _last_axes(len(want), len(have)))
    elif type(x) is float or type(x) is int:
        if isinstance(y, Tracer) and not y.weak:
            dtype = y.dtype
            if dtype is _f32 or dtype is _f64:
                return dtype.type(x), y
    return loop_operands(ufunc, x, y)


@functools.cache
def _last_axes(ndim: int, count: int) -> tuple[int, ...]:
    return tuple(range(ndim - count, ndim))


# --- shapes -------------------------------------------------------------------------------------------------------


@functools.lru_cache(8192)
def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which all of `shapes` broadcast; ShapeError naming them if there is none."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        text = " and ".join(map(str, dict.fromkeys(shapes)))
        raise ShapeError(f"shapes {text} {_BROADCAST}.") from None


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    """`x` repeated to `shape`."""
    have = shape_of(x)
    if have == shape:
        return x
    extra = len(shape) - len(have)
    if extra < 0 or any(n not in (1, m) for n, m in zip(have, shape[extra:], strict=True)):
        raise ShapeError(
            f"{operand_text(x)} does not broadcast to {shape}: each size, from the last, is equal or is 1."
        )
    return broadcast_in_dim(x, shape, tuple(range(extra, len(shape))))


def broadcast(*values: Any) -> list[Any]:
    """Operands of an element-wise primitive: of one shape, constants of rank 0 left as they are."""
    shapes = [v.shape for v in values]
    first = shapes[0]
    if all(s == first for s in shapes):
        return list(values)
    try:
        shape = broadcast_shapes(*shapes)
    except ShapeError:
        raise unfit("broadcasting", values) from None
    return [
        v if s == shape or (not s and not isinstance(v, Tracer)) else broadcast_to(v, shape)
        for v, s in zip(values, shapes, strict=True)
    ]


_BROADCAST = "do not broadcast: each pair of sizes, from the last, is equal or has a 1"


def unfit(name: str, values: Sequence[Any], why: str = _BROADCAST) -> ShapeError:
    """The error for operands of `name` whose shapes do not go together: it names each, and where it is an argument."""
    return ShapeError(f"{name}: {operands_text(values)} {why}.")


def operands_text(values: Sequence[Any]) -> str:
    """`x` (2, 3) and `params['w']` (4, 5): the shapes of operands, with the path of those that are arguments."""
    texts = [operand_text(v) for v in values]
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]


def operand_text(x: Any) -> str:
    """`params['w']` (4, 5) for an argument of the function being transformed, shape (4, 5) for another array."""
    path = argument_path(x)
    return f"`{path}` {tuple(shape_of(x))}" if path else f"shape {tuple(shape_of(x))}"


def aval_text(x: Any) -> str:
    """`float32[3,4]`, for messages."""
    return str(Aval(tuple(shape_of(x)), np.dtype(getattr(x, "dtype", type(x)))))
