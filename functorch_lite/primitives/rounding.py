# SPDX-License-Identifier: MIT
"""Rounding: floor, ceil, round, trunc and nextafter. Piecewise constant (or nearly), so their derivative is zero."""

from typing import Any

from functorch_lite.core.tracer import bind1
from functorch_lite.primitives.declare import elementwise, ufunc, zero_derivative

# --- floor, ceil, round, trunc, nextafter ----------------------------------------------------------------------------
floor_p = elementwise("floor", ufunc("floor"), allowed="f")
ceil_p = elementwise("ceil", ufunc("ceil"), allowed="f")
round_p = elementwise("round", ufunc("rint"), allowed="f")
trunc_p = elementwise("trunc", ufunc("trunc"), allowed="f")
nextafter_p = elementwise("nextafter", ufunc("nextafter"), allowed="f")
for _prim in (floor_p, ceil_p, round_p, trunc_p, nextafter_p):
    zero_derivative(_prim)


def floor(x: Any) -> Any:
    """The largest integer not above x."""
    return bind1(floor_p, x)


def ceil(x: Any) -> Any:
    """The smallest integer not below x."""
    return bind1(ceil_p, x)


def round_to_even(x: Any) -> Any:
    """The nearest integer; halves go to the even one."""
    return bind1(round_p, x)


def trunc(x: Any) -> Any:
    """The integer part: rounds towards zero."""
    return bind1(trunc_p, x)


def nextafter(x: Any, y: Any) -> Any:
    """The next floating-point number after x towards y."""
    return bind1(nextafter_p, x, y)
