# SPDX-License-Identifier: MIT
"""Running reductions along one axis: cumsum, cumprod, cummax and cummin.

The derivative of a running product or maximum is a scan in log2(n) steps: entry i combines the results of the windows
[i - 2d + 1, i - d] and [i - d + 1, i], for d = 1, 2, 4, ... (Hillis and Steele, "Data parallel algorithms", 1986). It
only multiplies and selects, so it is exact where factors are zero, to every order.
"""

from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import DTypeError
from functorch_lite.primitives.broadcast import full
from functorch_lite.primitives.comparison import eq, gt, lt, select, zero_like
from functorch_lite.primitives.declare import (
    batch_unary,
    check_axes,
    derivatives,
    linear,
    not_linear,
    quiet_for_extended,
)
from functorch_lite.primitives.elementwise import add, add_any, div, mul, scale
from functorch_lite.primitives.movement import concatenate, rev, slice_in_axis


def _cumulative(name: str, fun: Any, allowed: str) -> Primitive:
    """The primitive of a running reduction; `fun(xp, x, axis)` evaluates it in a dtype wide enough."""
    prim = Primitive(name, Kind.REDUCTION)

    def shape_rule(x, *, axis):
        if dtypes.dtype_kind(x.dtype) not in allowed:
            raise DTypeError(f"{name}: does not take dtype {x.dtype}.")
        check_axes(name, (axis,), x.ndim)
        return x

    shape_rules.add(prim, shape_rule)
    eval_rules.add(prim, lambda xp, x, *, axis: fun(xp, x, axis))
    batch_unary(prim)(lambda x, *, axis: bind1(prim, x, axis=axis + 1))
    return prim


def _in_wide(name):
    def run(xp, x, axis):
        wide = dtypes.accumulator(x.dtype)
        return getattr(xp, name)(x.astype(wide, copy=False), axis, dtype=wide).astype(x.dtype, copy=False)

    return run


def _accumulate(name):
    def run(xp, x, axis):
        if xp is np:
            return getattr(np, name).accumulate(x, axis)
        return _by_doubling(xp, getattr(xp, name), x, axis)

    return run


def _by_doubling(xp, combine, x, axis):
    """A running reduction for array modules without `ufunc.accumulate`."""
    out, step = xp.moveaxis(x, axis, 0).copy(), 1
    while step < out.shape[0]:
        out[step:] = combine(out[step:], out[:-step].copy())
        step *= 2
    return xp.moveaxis(out, 0, axis)


# --- cumsum -----------------------------------------------------------------------------------------------------------
cumsum_p = _cumulative("cumsum", _in_wide("cumsum"), "iufc")


def cumsum(x: Any, axis: int) -> Any:
    """Running sum of `x` [..., n, ...] along `axis`; same shape and dtype, 16-bit floats accumulated in float32."""
    return bind1(cumsum_p, x, axis=axis)


# y_i = sum_{j <= i} x_j, so x_j gets sum_{i >= j} ct_i
linear(cumsum_p, lambda ct, x, *, axis: rev(cumsum(rev(ct, (axis,)), axis), (axis,)))

# --- cumprod ----------------------------------------------------------------------------------------------------------
cumprod_p = _cumulative("cumprod", _in_wide("cumprod"), "iufc")


def cumprod(x: Any, axis: int) -> Any:
    """Running product of `x` [..., n, ...] along `axis`; same shape and dtype, 16-bit floats multiplied in float32."""
    return bind1(cumprod_p, x, axis=axis)


def _split(x, step, axis):
    """The first `step` entries, the entries `step` before each later one, and the later ones."""
    n = x.shape[axis]
    return slice_in_axis(x, 0, step, axis), slice_in_axis(x, 0, n - step, axis), slice_in_axis(x, step, n, axis)


def _cumprod_jvp(t, out, x, *, axis):
    step = 1
    while step < x.shape[axis]:  # d(ab) = a db + b da for neighbouring windows
        first, a, b = _split(x, step, axis)
        dfirst, da, db = _split(t, step, axis)
        t = concatenate((dfirst, add_any(scale(a, db), scale(b, da))), axis)
        x = concatenate((first, mul(a, b)), axis)
        step *= 2
    return t


derivatives(cumprod_p, _cumprod_jvp)
not_linear(cumprod_p)

# --- cummax and cummin ------------------------------------------------------------------------------------------------
cummax_p = _cumulative("cummax", quiet_for_extended(_accumulate("maximum")), "biuf")
cummin_p = _cumulative("cummin", quiet_for_extended(_accumulate("minimum")), "biuf")


def cummax(x: Any, axis: int) -> Any:
    """Largest entry so far of `x` [..., n, ...] along `axis`; ties so far share the derivative equally."""
    return bind1(cummax_p, x, axis=axis)


def cummin(x: Any, axis: int) -> Any:
    """Smallest entry so far of `x` [..., n, ...] along `axis`; ties so far share the derivative equally."""
    return bind1(cummin_p, x, axis=axis)


def _running_extremum_jvp(better):
    """The sum of the tangents of all entries that attain the extremum so far, over their number."""

    def rule(t, out, x, *, axis):
        count = full(x.shape, 1, x.dtype)
        step = 1
        while step < x.shape[axis]:
            first, a, b = _split(x, step, axis)
            dfirst, da, db = _split(t, step, axis)
            nfirst, na, nb = _split(count, step, axis)
            left, tie = better(a, b), eq(a, b)
            t = concatenate((dfirst, _chosen(left, tie, da, db, add_any)), axis)
            count = concatenate((nfirst, _chosen(left, tie, na, nb, add)), axis)
            x = concatenate((first, select(left, a, b)), axis)
            step *= 2
        return scale(div(count.dtype.type(1), count), t)

    return rule


def _chosen(left, tie, a, b, plus):
    zero = zero_like(a)
    from_left = select(left, a, select(tie, a, zero))
    return plus(from_left, select(left, zero, b))


derivatives(cummax_p, _running_extremum_jvp(gt))
derivatives(cummin_p, _running_extremum_jvp(lt))
not_linear(cummax_p, cummin_p)
