# SPDX-License-Identifier: MIT
"""NumPy's `__array_ufunc__` protocol: a ufunc called on tracers, and its methods reduce, accumulate and outer.

A reduction by a ufunc that has a reduction of its own (add: sum, logical_or: any) is that; any other is folded, one
slice after the other.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.core.tracer import current_trace
from functorch_lite.errors import ImmutableError, MissingRuleError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.dispatch import functions
from functorch_lite.numpy.promotion import asarray, operand
from functorch_lite.numpy.ufuncs import apply_ufunc, bodies
from functorch_lite.transforms.composites import of_any, of_one

_reductions: dict[np.ufunc, Callable[..., Any]] = {
    np.add: np.sum,
    np.multiply: np.prod,
    np.maximum: np.max,
    np.minimum: np.min,
    np.logical_and: np.all,
    np.logical_or: np.any,
}
_accumulations: dict[np.ufunc, Callable[..., Any]] = {np.add: np.cumsum, np.multiply: np.cumprod}


def call_method(self: Any, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """NumPy's `__array_ufunc__` protocol."""
    trace = current_trace()
    if trace.composites is not None and method == "__call__" and not kwargs and ufunc in functions:
        fun = functions[ufunc]
        out = of_one(trace, fun, *inputs) if len(inputs) == 1 else of_any(trace, fun, inputs, kwargs)
        if out is not None:
            return out
    body = bodies.get(ufunc)
    if body is None and ufunc not in functions:
        importlib.import_module("functorch_lite.scipy.special")  # files SciPy's ufuncs, one of which this may be
        body = bodies.get(ufunc)
    if method == "__call__":
        if body is None:
            if ufunc in functions:  # a generalized ufunc: matmul and its kin
                return functions[ufunc](*inputs, **kwargs)
            raise MissingRuleError(
                f"numpy.{ufunc.__name__} does not take traced arrays. Compose it of functions of functorch_lite.numpy, "
                "or call it through fl.pure_callback (no derivative)."
            )
        return apply_ufunc(ufunc, inputs, kwargs) if kwargs else body(*inputs)
    if method == "at":
        raise ImmutableError(
            f"{ufunc.__name__}.at updates an array in place, which a traced array cannot take part in. "
            "Write `x = fl.numpy.at(x)[i].add(v)` (or .multiply, .min, .max)."
        )
    if method not in _methods or body is None:
        raise MissingRuleError(f"numpy.{ufunc.__name__}.{method} does not take traced arrays.")
    if any(o is not None for o in kwargs.pop("out", None) or ()):
        raise ImmutableError(f"{ufunc.__name__}.{method}: out= cannot hold a traced result. Use the returned array.")
    return _methods[method](ufunc, *inputs, **kwargs)


def _reduce(ufunc, x, axis=0, dtype=None, keepdims=False, **options):
    own = _reductions.get(ufunc)
    if own is not None:
        if dtype is not None and own not in (np.all, np.any):
            options["dtype"] = dtype
        return functions[own](x, axis=axis, keepdims=keepdims, **options)
    x = asarray(x) if dtype is None else asarray(x).astype(dtype)
    parts = _slices(x, axis)
    out = parts[0]
    for part in parts[1:]:
        out = bodies[ufunc](out, part)
    return e.reshape(out, _with_one(out.shape, axis, x.ndim)) if keepdims else out


def _with_one(shape, axis, ndim):
    axis %= ndim
    return (*shape[:axis], 1, *shape[axis:])


def _slices(x, axis):
    axis %= x.ndim
    index = (slice(None),) * axis
    return [x[(*index, i)] for i in range(x.shape[axis])]


def _accumulate(ufunc, x, axis=0, dtype=None):
    own = _accumulations.get(ufunc)
    if own is not None:
        return functions[own](x, axis=axis, dtype=dtype)
    x = asarray(x) if dtype is None else asarray(x).astype(dtype)
    parts = _slices(x, axis)
    for i in range(1, len(parts)):
        parts[i] = bodies[ufunc](parts[i - 1], parts[i])
    return functions[np.stack](parts, axis=axis)


def _outer(ufunc, x, y, **options):
    x, y = operand(x), operand(y)
    n = np.ndim(y) if not hasattr(y, "shape") else len(y.shape)
    if hasattr(x, "shape"):
        x = e.reshape(x, (*x.shape, *[1] * n))
    return apply_ufunc(ufunc, (x, y), options) if options else bodies[ufunc](x, y)


_methods = {"reduce": _reduce, "accumulate": _accumulate, "outer": _outer}
