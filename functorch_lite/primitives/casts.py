# SPDX-License-Identifier: MIT
"""Casts: convert, bitcast, stop_gradient, the identity that derivatives do not see, and name, which policies see."""

from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, StackAval
from functorch_lite.core.numpy_code import numpy_form
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import DTypeError
from functorch_lite.primitives.declare import BY_KIND, elementwise, linear, zero_derivative

# --- convert and bitcast ----------------------------------------------------------------------------------------------
convert_p = Primitive("convert", Kind.ELEMENTWISE)
bitcast_p = Primitive("bitcast", Kind.ELEMENTWISE)


def convert(x: Any, dtype: Any) -> Any:
    """`x` with its elements converted to `dtype`; complex to real keeps the real part."""
    return bind1(convert_p, x, dtype=np.dtype(dtype))


def bitcast(x: Any, dtype: Any) -> Any:
    """The bits of `x` read as `dtype`, which has the same item size."""
    return bind1(bitcast_p, x, dtype=np.dtype(dtype))


shape_rules.add(convert_p, lambda x, *, dtype: Aval(x.shape, dtype) if not isinstance(x, StackAval) else x)
batch_rules.absent(convert_p, BY_KIND)


@eval_rules.register(convert_p)
def _(xp, x, *, dtype):
    if not hasattr(x, "astype"):
        return dtype.type(x)
    if x.dtype.kind == "c" and dtype.kind not in "cb":
        x = x.real
    return x.astype(dtype)


@jvp_rules.register(convert_p)
def _(primals, tangents, *, dtype):
    out = convert(primals[0], dtype)
    return out, convert(tangents[0], dtype) if dtypes.is_inexact(dtype) else None


transpose_rules.add(convert_p, lambda ct, x, *, dtype: (convert(ct, x.dtype),))


@shape_rules.register(bitcast_p)
def _(x, *, dtype):
    if x.dtype.itemsize != dtype.itemsize:
        raise DTypeError(f"bitcast: {x.dtype} and {dtype} have different item sizes.")
    return Aval(x.shape, dtype)


eval_rules.add(bitcast_p, lambda xp, x, *, dtype: x.view(dtype))
batch_rules.absent(bitcast_p, BY_KIND)
zero_derivative(bitcast_p)

# --- stop_gradient: the identity, with derivative zero ---------------------------------------------------------------
stop_gradient_p = elementwise("stop_gradient", lambda xp, x: x)
zero_derivative(stop_gradient_p)
numpy_form(stop_gradient_p)(lambda x: "{0}")


def stop_gradient_of(x: Any) -> Any:
    """`x`, held constant in every derivative."""
    return bind1(stop_gradient_p, x)


# --- name: the identity that gives a value a name, for a policy of `checkpoint` --------------------------------------
name_p = elementwise("name", lambda xp, x, *, name: x)
linear(name_p, lambda ct, x, *, name: ct)
