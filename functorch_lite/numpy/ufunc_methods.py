# SPDX-License-Identifier: MIT
"""NumPy's `__array_ufunc__` protocol: a ufunc called on tracers, and its methods reduce, accumulate and outer.

A reduction by a ufunc that has a reduction of its own (add: sum, logical_or: any) is that; any other takes one slice
after the other, many of them in a loop.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.control_flow import scan
from functorch_lite.core.tracer import current_trace
from functorch_lite.errors import ImmutableError, MissingRuleError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.dispatch import functions
from functorch_lite.numpy.promotion import asarray, operand
from functorch_lite.numpy.ufuncs import apply_ufunc, bodies
from functorch_lite.primitives import cumulative
from functorch_lite.transforms.composites import of_any, of_one

FEW = 8
"""Up to this many slices are combined without a loop."""

_reductions: dict[np.ufunc, Callable[..., Any]] = {
    np.add: np.sum,
    np.multiply: np.prod,
    np.maximum: np.max,
    np.minimum: np.min,
    np.logical_and: np.all,
    np.logical_or: np.any,
}
_accumulations: dict[np.ufunc, Callable[..., Any]] = {np.add: np.cumsum, np.multiply: np.cumprod}
_running = {np.maximum: cumulative.cummax, np.minimum: cumulative.cummin}


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
    x = _first_axis(x, axis, dtype)
    out = _folded(ufunc, x)
    return functions[np.expand_dims](out, axis) if keepdims else out


def _accumulate(ufunc, x, axis=0, dtype=None):
    own = _accumulations.get(ufunc)
    if own is not None:
        return functions[own](x, axis=axis, dtype=dtype)
    if ufunc in _running and dtype is None and x.dtype.kind in "biuf":
        return _running[ufunc](asarray(x), axis % x.ndim)
    return functions[np.moveaxis](_accumulated(ufunc, _first_axis(x, axis, dtype)), 0, axis)


def _first_axis(x, axis, dtype):
    """The array with the axis in front, of the dtype asked for."""
    return functions[np.moveaxis](asarray(x) if dtype is None else asarray(x).astype(dtype), axis, 0)


def _folded(ufunc, x):
    """The entries of the first axis combined, the first one with the second one and so on."""
    body, n = bodies[ufunc], x.shape[0]
    out = x[0]
    for i in range(1, min(n, FEW)):
        out = body(out, x[i])
    return out if n <= FEW else scan(lambda before, entry: (body(before, entry), None), out, x[FEW:])[0]


def _accumulated(ufunc, x):
    """The same with what there is on the way, of shape x.shape."""
    body, n = bodies[ufunc], x.shape[0]
    if not n:
        return x
    parts = [x[0]]
    for i in range(1, min(n, FEW)):
        parts.append(body(parts[-1], x[i]))
    first = functions[np.stack](parts)
    if n <= FEW:
        return first

    def step(before, entry):
        out = body(before, entry)
        return out, out

    return functions[np.concatenate]([first, scan(step, parts[-1], x[FEW:])[1]])


def _outer(ufunc, x, y, **options):
    x, y = operand(x), operand(y)
    n = np.ndim(y) if not hasattr(y, "shape") else len(y.shape)
    if hasattr(x, "shape"):
        x = e.reshape(x, (*x.shape, *[1] * n))
    return apply_ufunc(ufunc, (x, y), options) if options else bodies[ufunc](x, y)


_methods = {"reduce": _reduce, "accumulate": _accumulate, "outer": _outer}
