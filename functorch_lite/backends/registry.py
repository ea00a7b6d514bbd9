# SPDX-License-Identifier: MIT
"""Which array library a value belongs to, found by its type.

NumPy's types are known from the start. CuPy is never imported here: the first `cupy.ndarray` that arrives names its
own module. Operands on the CPU and on a GPU in one operation are an error that names both.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentTypeError, DeviceError

_modules: dict[type, Any] = {np.ndarray: np}
_neutral: set[type] = {bool, int, float, complex}
for _scalar in (np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
                np.float16, np.float32, np.float64, np.complex64, np.complex128):
    _neutral.add(_scalar)


def module_of_arrays(values: Sequence[Any], on_unknown: Callable[[Any], None]) -> Any:
    """The array module (numpy or cupy) that computes on `values`; scalars go with either."""
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
    return found or np


def _learn(value, on_unknown):
    on_unknown(value)
    kind = type(value)
    if isinstance(value, np.ndarray):
        _modules[kind] = np
        return np
    if isinstance(value, (np.generic, list)) or kind is np.dtype:
        _neutral.add(kind)
        return None
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(value, cupy.ndarray):
        _modules[kind] = cupy
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


def is_array(value: Any) -> bool:
    """Whether `value` is an array of a known library (not a scalar)."""
    kind = type(value)
    if kind in _modules:
        return True
    cupy = sys.modules.get("cupy")
    return isinstance(value, np.ndarray) or (cupy is not None and isinstance(value, cupy.ndarray))


def is_scalar(value: Any) -> bool:
    """Whether `value` is a Python or NumPy scalar."""
    return type(value) in _neutral or isinstance(value, np.generic)
