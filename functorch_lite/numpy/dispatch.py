# SPDX-License-Identifier: MIT
"""One implementation behind two names: `fl.numpy.f` and NumPy's own `np.f` on traced arrays.

    @public(np.cumsum)
    def cumsum(x, axis=None): ...        # composed of primitives

files the body for `np.cumsum` on tracers and returns the function that `fl.numpy` exports. That function goes straight
to NumPy (or, through NumPy's own dispatch, to CuPy) when no argument is traced and nothing is being staged, so eager
values, dtypes, errors and speed are NumPy's. bfloat16 and float8 arrays always take the body: NumPy's rules do not
know them.
"""

import functools
import importlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.staging import staging_trace
from functorch_lite.core.tracer import Tracer, current_trace, root
from functorch_lite.errors import ImmutableError, MissingRuleError
from functorch_lite.transforms.composites import of_any

functions: dict[Any, Callable[..., Any]] = {}
"""NumPy function or ufunc -> its implementation on tracers."""

_plain = frozenset(
    (
        bool,
        int,
        float,
        complex,
        str,
        type(None),
        type,
        slice,
        np.dtype,
        np.float32,
        np.float64,
        np.int64,
        np.int32,
        np.bool_,
    )
)
_extended_scalars = tuple(d.type for d in (dtypes.bfloat16, *dtypes.float8))


def is_staging() -> bool:
    """Whether what is computed now, even from constants, is being written down as a program."""
    return staging_trace() is not None


def needs_tracing(values: Iterable[Any]) -> bool:
    """Whether an argument (or an element of a list of them) is a tracer, or has a dtype that NumPy does not know."""
    for value in values:
        kind = type(value)
        if kind is np.ndarray:
            if value.dtype.kind == "V" and value.dtype.names is None:
                return True
        elif kind in _plain:
            continue
        elif isinstance(value, (Tracer, *_extended_scalars)):
            return True
        elif isinstance(value, (list, tuple)):
            if needs_tracing(value):
                return True
        elif getattr(getattr(value, "dtype", None), "kind", "") == "V":
            return True
    return False


def is_eager_call(args: Iterable[Any], kwargs: dict[str, Any]) -> bool:
    """Whether NumPy itself is to compute a function of these arguments."""
    if needs_tracing(args) or (kwargs and needs_tracing(kwargs.values())):
        return False
    return current_trace() is root or not is_staging()


def implement(*numpy_functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: file the function as what these NumPy functions do on tracers."""

    def file(body):
        for fun in numpy_functions:
            if fun in functions:
                raise ValueError(f"numpy.{fun.__name__} already has an implementation.")
            functions[fun] = body
        return body

    return file


def public(numpy_function: Any, *aliases: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: file the body for NumPy's function, and return the function for the public namespace."""

    def decorate(body):
        implement(numpy_function, *aliases)(body)
        return either(numpy_function, body)

    return decorate


def either(numpy_function: Any, body: Callable[..., Any]) -> Callable[..., Any]:
    """The function that calls NumPy's on plain arguments and `body` on traced ones."""

    @functools.wraps(body)
    def function(*args: Any, **kwargs: Any) -> Any:
        trace = current_trace()
        if trace.composites is not None:
            out = of_any(trace, body, args, kwargs)
            if out is not None:
                return out
        if is_eager_call(args, kwargs):
            return numpy_function(*args, **kwargs)
        return body(*args, **kwargs)

    function.__name__ = function.__qualname__ = getattr(numpy_function, "__name__", body.__name__)
    return function


_LOADED_LATE = {"numpy.linalg": "functorch_lite.numpy.linalg", "numpy.fft": "functorch_lite.numpy.fft"}
"""Modules that file the functions of a NumPy subpackage, loaded when one of these is first called."""


def array_function(self: Tracer, fun: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """NumPy's `__array_function__` protocol."""
    body = functions.get(fun)
    if body is None and fun.__module__ in _LOADED_LATE:
        importlib.import_module(_LOADED_LATE[fun.__module__])
        body = functions.get(fun)
    if body is None:
        name = f"{getattr(fun, '__module__', 'numpy')}.{fun.__name__}"
        raise MissingRuleError(
            f"{name} does not take traced arrays. Compose it of functions of functorch_lite.numpy, "
            "or call it through fl.pure_callback (no derivative)."
        )
    if kwargs.get("out") is not None:
        raise ImmutableError(f"{fun.__name__}: out= cannot be a traced array or receive one. Use the returned array.")
    if "out" in kwargs:
        kwargs = {k: v for k, v in kwargs.items() if k != "out"}
    trace = current_trace()
    if trace.composites is not None:
        found = of_any(trace, body, args, kwargs)
        if found is not None:
            return found
    return body(*args, **kwargs)
