# SPDX-License-Identifier: MIT
"""Which array library a value belongs to, found by its type.

NumPy's types are known from the start. CuPy is never imported here: the first `cupy.ndarray` that arrives names its
own module. Operands on the CPU and on a GPU in one operation are an error that names both.

Where nothing but scalars is given (iota, zeros of a missing tangent), the `home` module makes the array: the one of
the arrays that the transform under way works on.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentTypeError, DeviceError

_modules: dict[type, Any] = {np.ndarray: np}
_neutral: set[type] = {bool, int, float, complex}
for _scalar in (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
                np.float16, np.float32, np.float64, np.complex64, np.complex128):
    _neutral.add(_scalar)

_devices: list[Any] = []  # the modules beside NumPy that have been met
home: ContextVar[Any] = ContextVar("functorch_lite_home", default=np)
"""The module that makes an array where no operand says which."""


def register_array_type(kind: type, module: Any) -> None:
    """Make arrays of the type `kind` known: `module` computes on them (CuPy's are registered when the first arrives).

    module: has NumPy's functions under NumPy's names; special functions and linear algebra that NumPy lacks are looked
    up in the modules `<name>x.scipy.special` and `<name>x.scipy.linalg`, as for CuPy.
    """
    _modules[kind] = module
    if module is not np and module not in _devices:
        _devices.append(module)


def knows_devices() -> bool:
    """Whether arrays of another library than NumPy may exist."""
    return bool(_devices) or "cupy" in sys.modules


def module_of_arrays(values: Sequence[Any], on_unknown: Callable[[Any], None]) -> Any:
    """The array module (numpy or cupy) that computes on `values`; scalars go with either, alone with `home`."""
    found = None
    for value in values:
        kind = type(value)
        module = _modules.get(kind)
        if module is None:
            if kind in _neutral:
                continue
            module = _learn(value, on_unknown)
            if module is None:
                continue
        if found is None:
            found = module
        elif found is not module:
            raise_mixed(values)
    return found or home.get()


def _learn(value, on_unknown):
    on_unknown(value)
    kind = type(value)
    if isinstance(value, np.ndarray):
        _modules[kind] = np
        return np
    if isinstance(value, (np.generic, list)) or kind is np.dtype:
        _neutral.add(kind)
        return None
    cupy = _cupy_of(value)
    if cupy is not None:
        return cupy
    raise ArgumentTypeError(
        f"expected a NumPy or CuPy array or a scalar, got {kind.__module__}.{kind.__name__}. "
        "Convert it with numpy.asarray(...) first."
    )


def raise_mixed(values: Sequence[Any]) -> None:
    """Refuse operands on different devices, naming each."""
    where = ", ".join(
        f"{_modules[type(v)].__name__} {v.dtype}{list(v.shape)}" for v in values if type(v) in _modules
    )
    raise DeviceError(
        f"operands live on different devices: {where}. "
        "Move one: cupy.asarray(x) to the GPU, or cupy.asnumpy(x) to the CPU."
    )


def _cupy_of(value):
    cupy = sys.modules.get("cupy")
    if cupy is None or not isinstance(value, cupy.ndarray):
        return None
    register_array_type(type(value), cupy)
    return cupy


def is_array(value: Any) -> bool:
    """Whether `value` is an array of a known library (not a scalar)."""
    return type(value) in _modules or isinstance(value, np.ndarray) or _cupy_of(value) is not None


def on_device(value: Any) -> bool:
    """Whether `value` is an array of another library than NumPy."""
    if not knows_devices():
        return False
    return type(value) is not np.ndarray and is_array(value) and _modules.get(type(value), np) is not np


def is_scalar(value: Any) -> bool:
    """Whether `value` is a Python or NumPy scalar."""
    return type(value) in _neutral or isinstance(value, np.generic)


# --- home -------------------------------------------------------------------------------------------------------------


def home_of(values: Sequence[Any]) -> Any:
    """The module in which a computation on `values` makes new arrays; None where they do not say (tracers, scalars)."""
    found = None
    for value in values:
        if on_device(value):
            return _modules[type(value)]
        if isinstance(value, np.ndarray):
            found = np
    return found


def enter_home(values: Sequence[Any], module: Any = None) -> Token | None:
    """Make the module of `values`, else `module`, the home until `leave_home`. Nothing to do where only NumPy is known.

    Values among which is a tracer say nothing unless one is on a device: the home around them is theirs.
    """
    if not knows_devices():
        return None
    found = home_of(values)
    if found is None or (found is np and not all(is_array(v) or is_scalar(v) for v in values)):
        found = module
    return None if found is None or found is home.get() else home.set(found)


def leave_home(token: Token | None) -> None:
    """Undo `enter_home`."""
    if token is not None:
        home.reset(token)


@contextmanager
def at_home_of(values: Sequence[Any]):
    """`enter_home` for a block."""
    token = enter_home(values)
    try:
        yield
    finally:
        leave_home(token)


def constant(value: Any, *beside: Any) -> Any:
    """A NumPy array that the library made, where the arrays `beside` it live; beside tracers only, at home.

    Anything else than a NumPy array is returned as it is.
    """
    if not knows_devices() or not isinstance(value, np.ndarray):
        return value
    module = home_of(beside) or home.get()
    return value if module is np else module.asarray(value)
