# SPDX-License-Identifier: MIT
"""How a primitive's paragraph files its rules: linearity declares a jvp, a family factory files the usual rules.

    linear(reduce_sum_p, transpose)         f(x) is linear: its jvp is f(x_dot), its transpose is `transpose`
    bilinear(dot_general_p, left, right)    linear in each of two arguments
    derivatives(sin_p, rule)                one tangent rule for each argument
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.linear import is_linear, zeros_of
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind
from functorch_lite.errors import DTypeError, NotLinearError, ShapeError


def linear(prim: Primitive, transpose: Callable[..., Any]) -> None:
    """Declare `prim`, of one argument, linear. `transpose(ct, x, **params)` gives the cotangent of x."""
    jvp_rules.add(prim, (lambda t, out, x, **params: bind(prim, t, **params),))
    transpose_rules.add(prim, lambda ct, x, **params: (transpose(ct, x, **params),))


def linear_in_all(prim: Primitive, transpose: Callable[..., Any]) -> None:
    """Declare `prim` linear in all its arguments together (like concatenate). `transpose` is a transpose rule."""

    def jvp(primals, tangents, **params):
        filled = [zeros_of(_aval(p)) if t is None else t for p, t in zip(primals, tangents, strict=True)]
        return bind(prim, *primals, **params), bind(prim, *filled, **params)

    jvp_rules.add(prim, jvp)
    transpose_rules.add(prim, transpose)


def linear_in_first(prim: Primitive, transpose: Callable[..., Any]) -> None:
    """Declare `prim` linear in its first argument, the others being indices. `transpose(ct, x, *rest, **params)`."""

    jvp_rules.add(prim, (lambda t, out, x, *rest, **params: bind(prim, t, *rest, **params),))
    transpose_rules.add(
        prim, lambda ct, x, *rest, **params: (transpose(ct, x, *rest, **params), *[None] * len(rest))
    )


def bilinear(prim: Primitive, left: Callable[..., Any], right: Callable[..., Any]) -> None:
    """Declare `prim` linear in each of its two arguments; `left(ct, x, y)` is the cotangent of x, `right` of y."""
    jvp_rules.add(
        prim,
        (
            lambda t, out, x, y, **params: bind(prim, t, y, **params),
            lambda t, out, x, y, **params: bind(prim, x, t, **params),
        ),
    )

    def transpose(ct, x, y, **params):
        if is_linear(x):
            refuse_both(prim.name, y)
            return left(ct, x, y, **params), None
        return None, right(ct, x, y, **params)

    transpose_rules.add(prim, transpose)


def refuse_both(name: str, other: Any) -> None:
    """Refuse to transpose a product whose other factor is unknown too, or a quotient by an unknown."""
    if is_linear(other):
        raise NotLinearError(f"the function is not linear in its argument: it applies `{name}` to it and to itself.")


def derivatives(prim: Primitive, *rules: Callable[..., Any] | None) -> None:
    """File one `(tangent, out, *primals, **params) -> out tangent` for each argument; None: the derivative is zero."""
    jvp_rules.add(prim, rules)


def zero_derivative(prim: Primitive) -> None:
    """State that the output does not change with the inputs to first order (comparisons, floor, argmax, indices)."""
    jvp_rules.add(prim, ())
    transpose_rules.absent(prim, "it is not linear: its derivative is zero")


def not_linear(*prims: Primitive) -> None:
    """State that these primitives are not linear in any argument, so they have no transpose."""
    for prim in prims:
        transpose_rules.absent(prim, "it is not linear in any argument")


def _aval(value):
    return Aval(value.shape, value.dtype)


# --- families -----------------------------------------------------------------------------------------------------


def batch_unary(prim: Primitive) -> Callable[[Callable[..., Any]], None]:
    """Decorator: file a batch rule for a one-argument primitive from `(x, **params) -> batched out`, x batched at 0."""

    def file(rule):
        batch_rules.add(prim, lambda size, args, batched, **params: (rule(args[0], **params), True))

    return file


def same_as_input(prim: Primitive) -> None:
    """File the shape rule of a primitive whose output has the type of its first argument."""
    shape_rules.add(prim, lambda x, *rest, **params: x)


def check_same(name: str, avals: Sequence[Aval]) -> tuple[int, ...]:
    """The common shape of element-wise operands; a rank-0 operand goes with any shape. Dtypes must be equal."""
    shape: tuple[int, ...] = ()
    for aval in avals:
        if aval.shape and not shape:
            shape = aval.shape
        elif aval.shape and aval.shape != shape:
            raise ShapeError(f"{name}: operand shapes {shape} and {aval.shape} differ.")
    return shape


def check_dtypes(name: str, avals: Sequence[Aval]) -> Any:
    """The common dtype of operands."""
    first = avals[0].dtype
    for aval in avals[1:]:
        if aval.dtype != first:
            raise DTypeError(f"{name}: operand dtypes {first} and {aval.dtype} differ. Convert one with .astype(...).")
    return first


def check_axes(name: str, axes: Sequence[int], ndim: int) -> None:
    """Refuse axes out of range or named twice (axes are non-negative here)."""
    if len(set(axes)) != len(axes) or any(not 0 <= a < ndim for a in axes):
        raise ShapeError(f"{name}: axes {tuple(axes)} are not distinct axes of an array with {ndim} dimensions.")


# --- element-wise primitives ----------------------------------------------------------------------------------------
BY_KIND = "element-wise primitives are batched by their kind: operands are aligned and the primitive applied"


_KIND_NAMES = {"b": "bool", "i": "signed integer", "u": "unsigned integer", "f": "floating point", "c": "complex"}


def elementwise(name: str, fun: Any, *, allowed: str = "biufc", out: Any = None) -> Primitive:
    """An element-wise primitive: `fun(xp, *arrays, **params)` evaluates it, `allowed` are the dtype kinds it takes.

    out: gives the output dtype from the operands' dtype; default the same dtype.
    """
    prim = Primitive(name, Kind.ELEMENTWISE)

    def shape_rule(*avals, **params):
        dtype = check_dtypes(name, avals)
        if dtypes.dtype_kind(dtype) not in allowed:
            wanted = ", ".join(_KIND_NAMES[k] for k in allowed)
            raise DTypeError(f"{name}: does not take dtype {dtype}, only {wanted}. Convert with .astype(...).")
        return Aval(check_same(name, avals), out(dtype) if out else dtype)

    shape_rules.add(prim, shape_rule)
    eval_rules.add(prim, fun)
    prim.ufunc = getattr(fun, "ufunc", None)
    batch_rules.absent(prim, BY_KIND)
    return prim


def ufunc(name: str) -> Any:
    """An eval rule that calls the function of that name in numpy or cupy."""
    numpy_fun = getattr(np, name)

    def rule(xp, *args):
        return numpy_fun(*args) if xp is np else getattr(xp, name)(*args)

    rule.ufunc = numpy_fun
    return rule


def quiet_for_extended(fun: Any) -> Any:
    """The eval rule `fun(xp, x, ...)`, silent for bfloat16 and float8: there a NaN sets a flag that means nothing."""
    quiet = np.errstate(invalid="ignore")(fun)
    return lambda xp, x, *args: (quiet if x.dtype.kind == "V" else fun)(xp, x, *args)
