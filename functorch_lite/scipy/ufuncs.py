# SPDX-License-Identifier: MIT
"""How a function of scipy.special is given: SciPy's own on plain arrays, composed of primitives on traced ones.

What needs more digits than its operands have is computed in float64 (`in_double`), as SciPy does, and has a derivative
of its own (`with_slopes`), so that no series is differentiated term by term.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import DTypeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.dispatch import implement
from functorch_lite.numpy.promotion import broadcast_shapes, broadcast_to, loop_operands
from functorch_lite.numpy.ufuncs import apply_ufunc, bodies
from functorch_lite.primitives.elementwise import scale
from functorch_lite.scipy.dispatch import is_of_scipy
from functorch_lite.transforms.arguments import on_its_device, quiet
from functorch_lite.transforms.custom_jvp import custom_jvp

_f64 = np.dtype(np.float64)


def public(name: str, fun: Callable[..., Any]) -> Callable[..., Any]:
    """The ufunc scipy.special.<name>, which computes `fun` of operands of one dtype and shape where it is traced."""
    ufunc = getattr(scipy.special, name)

    def body(*args: Any) -> Any:
        return fun(*loop_operands(ufunc, *args))

    implement(ufunc)(body)
    bodies[ufunc] = body

    def function(*args: Any, **kwargs: Any) -> Any:
        if is_of_scipy(args, kwargs):
            return ufunc(*args, **kwargs)
        return apply_ufunc(ufunc, args, kwargs) if kwargs else body(*args)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"scipy.special.{name}, which also takes traced and CuPy arrays.\n\n{ufunc.__doc__}"
    return function


def in_double(name: str, fun: Callable[..., Any]) -> Callable[..., Any]:
    """`public`, with `fun` given float64 operands of one shape; its results get the dtype of the last operand."""

    @on_its_device
    def narrowed(*args: Any) -> Any:
        if any(a.dtype.kind == "c" for a in args):
            raise DTypeError(f"{name}: traced operands must be real, got complex. Use pure_callback for complex ones.")
        shape, dtype = broadcast_shapes(*[a.shape for a in args]), args[-1].dtype
        with quiet():
            outs = fun(*[broadcast_to(e.convert(a, _f64) if a.dtype != _f64 else a, shape) for a in args])
            if isinstance(outs, tuple):
                return tuple([e.convert(o, dtype) for o in outs])
            return e.convert(outs, dtype) if outs.dtype != dtype else outs

    return public(name, narrowed)


def with_slopes(fun: Callable[..., Any], *slopes: Callable[..., Any] | None) -> Callable[..., Any]:
    """`fun` with the partial derivatives `slopes`, each `(out, *args) -> d fun / d arg`; None: the argument is held."""
    whole = custom_jvp(fun)

    @whole.defjvp
    def rule(primals, tangents):
        out = whole(*primals)
        total = None
        for slope, t in zip(slopes, tangents, strict=True):
            if slope is not None:
                total = _plus(total, slope(out, *primals), t)
        return out, total

    return lambda *args: whole(*[_strong(a) for a in args])


def _strong(x):
    """`x`, not weak: the rules of `custom_jvp` would get a Python number for it."""
    if isinstance(x, Tracer) and x.weak:
        x = copy.copy(x)
        x.weak = False
    return x


def _plus(total, slope, t):
    if isinstance(slope, tuple):
        total = (None,) * len(slope) if total is None else total
        return tuple([_plus(a, s, t) for a, s in zip(total, slope, strict=True)])
    part = scale(slope, t)
    return part if total is None else e.add(total, part)


def horner(x: Any, coefficients: Any) -> Any:
    """The sum of coefficients[k] x^k."""
    *rest, out = coefficients
    for c in reversed(rest):
        out = out * x + c
    return out
