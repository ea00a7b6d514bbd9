# SPDX-License-Identifier: MIT
"""Reduction family: max, min, prod, all, any, argmax and argmin. `broadcast` has the sum, `cumulative` the scans.

The derivative of a maximum is shared equally by the entries that attain it. That of a product is built from products
of the halves, so it is exact where factors are zero, to every order.
"""

from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.numpy_code import numpy_form
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import DTypeError, ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim, reduce_sum, reduced
from functorch_lite.primitives.comparison import eq, select, zero_like
from functorch_lite.primitives.declare import (
    batch_unary,
    derivatives,
    not_linear,
    quiet_for_extended,
    zero_derivative,
)
from functorch_lite.primitives.elementwise import add_any, div, maximum, mul, scale
from functorch_lite.primitives.movement import concatenate, permute_dims, reshape, slice_in_axis
from functorch_lite.primitives.transcendental import exp


def _reduction(name: str, fun: Any, allowed: str, empty_ok: bool):
    """The primitive and its function `(x, axes)`; `fun(xp, x, axes)` evaluates it."""
    prim = Primitive(f"reduce_{name}", Kind.REDUCTION)

    def shape_rule(x, *, axes):
        if dtypes.dtype_kind(x.dtype) not in allowed:
            raise DTypeError(f"{prim.name}: does not take dtype {x.dtype}.")
        if not empty_ok and any(x.shape[a] == 0 for a in axes):
            raise ShapeError(f"{prim.name}: shape {x.shape} has no entries to reduce over axes {axes}.")
        return reduced(prim.name, x, axes)

    shape_rules.add(prim, shape_rule)
    eval_rules.add(prim, lambda xp, x, *, axes: fun(xp, x, axes))
    batch_unary(prim)(lambda x, *, axes: bind1(prim, x, axes=tuple(a + 1 for a in axes)))
    return prim


# --- reduce_max and reduce_min ----------------------------------------------------------------------------------------
reduce_max_p = _reduction("max", quiet_for_extended(lambda xp, x, axes: xp.max(x, axes)), "biuf", empty_ok=False)
reduce_min_p = _reduction("min", quiet_for_extended(lambda xp, x, axes: xp.min(x, axes)), "biuf", empty_ok=False)
for _prim, _name in ((reduce_max_p, "maximum"), (reduce_min_p, "minimum")):
    numpy_form(_prim)(lambda x, *, axes, name=_name: _reduced_by(name, x.aval, axes))


def _reduced_by(name, x, axes):
    """`np.max(x, axes)` without its way there."""
    return f"np.{name}.reduce({{0}}, {axes[0] if len(axes) == 1 else axes})" if x.dtype.char in "fd" else None


def reduce_max(x: Any, axes: tuple[int, ...]) -> Any:
    """The largest entry of `x` over `axes`, which go away; NaN if there is one. Ties share the derivative equally."""
    return bind1(reduce_max_p, x, axes=axes)


def reduce_min(x: Any, axes: tuple[int, ...]) -> Any:
    """The smallest entry of `x` over `axes`, which go away; NaN if there is one. Ties share the derivative equally."""
    return bind1(reduce_min_p, x, axes=axes)


def along(out: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """A reduction's result, repeated to the shape of `x`."""
    return broadcast_in_dim(out, x.shape, tuple(i for i in range(len(x.shape)) if i not in axes))


def _extremum_jvp(t, out, x, *, axes):
    one, zero = x.dtype.type(1), x.dtype.type(0)
    hits = select(eq(x, along(out, x, axes)), one, zero)
    count = maximum(reduce_sum(hits, axes), one)  # no hit only where the extremum is NaN
    return reduce_sum(scale(div(hits, along(count, x, axes)), t), axes)


derivatives(reduce_max_p, _extremum_jvp)
derivatives(reduce_min_p, _extremum_jvp)
not_linear(reduce_max_p, reduce_min_p)


# --- logsumexp: log(sum(exp(x))) without overflow ---------------------------------------------------------------------
def _log_sum_exp(xp, x, axes):
    if xp is np and x.dtype.char in "fd" and x.size:
        top = np.maximum.reduce(x, axes, keepdims=True)
        if not np.count_nonzero(top):
            return np.log(np.add.reduce(np.exp(x), axes))  # there is nothing to subtract, and to add again
        if np.vdot(top, top) < np.inf:  # they are all finite
            total = np.log(np.add.reduce(np.exp(x - top), axes))
            return total + top.reshape(total.shape)
    wide = x.astype(dtypes.accumulator(x.dtype), copy=False)
    top = wide.max(axes, keepdims=True) if x.size else xp.full(wide.sum(axes, keepdims=True).shape, -np.inf, wide.dtype)
    if not xp.isfinite(top).all():
        top = xp.where(xp.isfinite(top), top, xp.zeros((), wide.dtype))
    with np.errstate(divide="ignore"):  # log 0 = -inf is the answer where all entries are -inf
        total = xp.log(xp.exp(wide - top).sum(axes))
    return (total + top.reshape(total.shape)).astype(x.dtype, copy=False)


logsumexp_p = _reduction("logsumexp", _log_sum_exp, "f", empty_ok=True)


def logsumexp(x: Any, axes: tuple[int, ...]) -> Any:
    """log(sum(exp(x))) over `axes`, which go away; minus infinity where all entries are (with derivative 0)."""
    return bind1(logsumexp_p, x, axes=axes)


def _logsumexp_jvp(t, out, x, *, axes):  # dy = sum(exp(x - y) dx)
    shift = select(eq(out, x.dtype.type(-np.inf)), zero_like(out), out)
    return reduce_sum(scale(exp(x - along(shift, x, axes)), t), axes)


derivatives(logsumexp_p, _logsumexp_jvp)
not_linear(logsumexp_p)

# --- reduce_prod ------------------------------------------------------------------------------------------------------
def _product(xp, x, axes):
    wide = dtypes.accumulator(x.dtype)
    return xp.prod(x.astype(wide, copy=False), axes, dtype=wide).astype(x.dtype, copy=False)


reduce_prod_p = _reduction("prod", _product, "biufc", empty_ok=True)


def reduce_prod(x: Any, axes: tuple[int, ...]) -> Any:
    """The product of `x` over `axes`, which go away; 16-bit floats are multiplied in float32. Same dtype."""
    return bind1(reduce_prod_p, x, axes=axes)


def _rows(x, axes):
    """`x` as a matrix [reduced, kept]."""
    kept = tuple(i for i in range(len(x.shape)) if i not in axes)
    count, width = (_size([x.shape[i] for i in group]) for group in (axes, kept))
    return reshape(permute_dims(x, (*axes, *kept)), (count, width))


def _size(shape):
    size = 1
    for n in shape:
        size *= n
    return size


def _product_jvp(t, out, x, *, axes):
    x, t = _rows(x, axes), _rows(t, axes)
    if x.shape[0] == 0:
        return None
    while (n := x.shape[0]) > 1:  # d(ab) = a db + b da, on the two halves at once
        half = n // 2
        a, b = slice_in_axis(x, 0, half, 0), slice_in_axis(x, half, 2 * half, 0)
        da, db = slice_in_axis(t, 0, half, 0), slice_in_axis(t, half, 2 * half, 0)
        product, dot = mul(a, b), add_any(scale(a, db), scale(b, da))
        if n % 2:
            product = concatenate((product, slice_in_axis(x, n - 1, n, 0)), 0)
            dot = concatenate((dot, slice_in_axis(t, n - 1, n, 0)), 0)
        x, t = product, dot
    return reshape(t, out.shape)


derivatives(reduce_prod_p, _product_jvp)
not_linear(reduce_prod_p)

# --- reduce_and and reduce_or -----------------------------------------------------------------------------------------
reduce_and_p = _reduction("and", lambda xp, x, axes: xp.all(x, axes), "b", empty_ok=True)
reduce_or_p = _reduction("or", lambda xp, x, axes: xp.any(x, axes), "b", empty_ok=True)
zero_derivative(reduce_and_p)
zero_derivative(reduce_or_p)


def reduce_and(x: Any, axes: tuple[int, ...]) -> Any:
    """Whether all entries of the boolean `x` over `axes` hold; true over no entries."""
    return bind1(reduce_and_p, x, axes=axes)


def reduce_or(x: Any, axes: tuple[int, ...]) -> Any:
    """Whether any entry of the boolean `x` over `axes` holds; false over no entries."""
    return bind1(reduce_or_p, x, axes=axes)


# --- argmax and argmin: the position of the first extremum ------------------------------------------------------------
argmax_p = Primitive("argmax", Kind.REDUCTION)
argmin_p = Primitive("argmin", Kind.REDUCTION)


def argmax(x: Any, axis: int) -> Any:
    """The int64 position of the first largest entry along `axis`, which goes away; of the first NaN if any."""
    return bind1(argmax_p, x, axis=axis)


def argmin(x: Any, axis: int) -> Any:
    """The int64 position of the first smallest entry along `axis`, which goes away; of the first NaN if any."""
    return bind1(argmin_p, x, axis=axis)


def _position(prim, name):
    def shape_rule(x, *, axis):
        if dtypes.is_complex(x.dtype) or x.shape[axis] == 0:
            raise ShapeError(f"{name}: no position of an extremum of {x} along axis {axis}.")
        return Aval(reduced(name, x, (axis,)).shape, np.dtype(np.int64))

    shape_rules.add(prim, shape_rule)
    eval_rules.add(prim, lambda xp, x, *, axis: getattr(xp, name)(x, axis))
    batch_unary(prim)(lambda x, *, axis: bind1(prim, x, axis=axis + 1))
    zero_derivative(prim)


_position(argmax_p, "argmax")
_position(argmin_p, "argmin")
