# SPDX-License-Identifier: MIT
"""Vector maths: each element-wise function written as LLVM instructions, for one lane or several.

`MATHS[name](emitter, *values)` emits the function of float32 or float64 values and returns its value. The names are
those of the primitives. No fast-math flag is ever set: infinities, NaN and signed zeros come out as NumPy's.

Accuracy over all arguments: float32 within 2, float64 within 4 units in the last place; lgamma and digamma of negative
numbers and xlogy, xlog1py have a few units more, erf_inv and fused_multiply_add repeat the roundings of
`backends.inverse_erf`. A result does not depend on the number of lanes, nor on its neighbours. A float32 function that
has no body of its own is computed in float64; so is every one on a machine without fused multiply-add.
"""

from collections.abc import Callable

from functorch_lite.compiler.codegen.llvm.emitter import Emitter, Value
from functorch_lite.compiler.codegen.llvm.maths import (
    error_functions,
    exponential,
    gamma,
    hyperbolic,
    inverse_trigonometric,
    logarithm,
    power,
    rounding,
    trigonometric,
)
from functorch_lite.compiler.codegen.llvm.maths.terms import Term

Function = Callable[..., Term]


def _exact(function: Function) -> Callable[..., Value]:
    """The function as it is, in the kind of its arguments."""

    def emit(emitter: Emitter, *args: Value) -> Value:
        return function(*[Term(emitter, a) for a in emitter.same_lanes(*args)]).value

    return emit


def _in_float64(function: Function) -> Callable[..., Value]:
    """float32 arguments are widened and the result is rounded once."""

    def emit(emitter: Emitter, *args: Value) -> Value:
        terms = [Term(emitter, a) for a in emitter.same_lanes(*args)]
        if terms[0].is_double:
            return function(*terms).value
        return function(*[t.convert("fpext", "f64") for t in terms]).convert("fptrunc", "f32").value

    return emit


def _in_own_kind(function: Function) -> Callable[..., Value]:
    """float32 has a body of its own, which needs fused multiply-add."""
    exact, wide = _exact(function), _in_float64(function)
    return lambda emitter, *args: (exact if emitter.has_fma else wide)(emitter, *args)


def _in_own_kind_by_tables(function: Function) -> Callable[..., Value]:
    """float32 has a body of its own, which needs tables (lookup.py)."""
    exact, wide = _exact(function), _in_float64(function)
    return lambda emitter, *args: (exact if emitter.lanes_bytes == 64 else wide)(emitter, *args)


_EXACT = {
    "sqrt": rounding.sqrt, "floor": rounding.floor, "ceil": rounding.ceil, "trunc": rounding.trunc,
    "round": rounding.round_to_even, "rem": rounding.rem, "nextafter": rounding.nextafter,
    "fused_multiply_add": rounding.fused_multiply_add,
    "rsqrt": power.rsqrt, "erf_inv": error_functions.erf_inv,
}
_IN_OWN_KIND = {
    "exp": exponential.exp, "exp2": exponential.exp2, "expm1": exponential.expm1, "logistic": exponential.logistic,
    "log": logarithm.log, "log1p": logarithm.log1p, "log2": logarithm.log2, "log10": logarithm.log10,
    "log_or_zero": logarithm.log_or_zero,
    "sin": trigonometric.sin, "cos": trigonometric.cos, "tan": trigonometric.tan,
    "asin": inverse_trigonometric.asin, "acos": inverse_trigonometric.acos, "atan": inverse_trigonometric.atan,
    "atan2": inverse_trigonometric.atan2,
    "sinh": hyperbolic.sinh, "cosh": hyperbolic.cosh, "tanh": hyperbolic.tanh,
    "asinh": hyperbolic.asinh, "atanh": hyperbolic.atanh,
    "erf": error_functions.erf, "erfinv": error_functions.erfinv, "pow": power.pow, "cbrt": power.cbrt,
}
_IN_FLOAT64 = {
    "acosh": hyperbolic.acosh, "lgamma": gamma.lgamma, "digamma": gamma.digamma,
    "xlogy": logarithm.xlogy, "xlog1py": logarithm.xlog1py,
}

MATHS: dict[str, Callable[..., Value]] = {
    **{name: _exact(function) for name, function in _EXACT.items()},
    **{name: _in_own_kind(function) for name, function in _IN_OWN_KIND.items()},
    **{name: _in_float64(function) for name, function in _IN_FLOAT64.items()},
    "erfc": _in_own_kind_by_tables(error_functions.erfc),
}
