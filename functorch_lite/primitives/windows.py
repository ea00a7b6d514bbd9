# SPDX-License-Identifier: MIT
"""Sliding windows (pooling): sum, maximum and minimum over a window at each position of a strided grid.

    out[p] = reduction over k of  padded x[p * stride + k * dilation - low]

Every setting has one entry for each axis of x. A sum, maximum or minimum over a box is taken one axis at a time, so
the work grows with the sum of the window's sizes, not their product. The derivative of a maximum goes to the *first*
maximum of the window in row-major order: `window_argmax` finds it, `window_take` reads there and `window_put`, its
transpose, adds there.

Source: the reduce-window operations of XLA's HLO and of ONNX's pooling operators.
"""

import itertools
import math
from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules
from functorch_lite.core.tracer import bind, bind1
from functorch_lite.errors import DTypeError, ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim
from functorch_lite.primitives.declare import batch_unary, linear, linear_in_first, not_linear, zero_derivative
from functorch_lite.primitives.movement import pad_p

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]

TAP_DTYPE = np.dtype(np.int32)


def _bind(prim, x, window, strides, padding, dilation):
    n = len(window)
    return bind1(
        prim, x, window=tuple(window), strides=tuple(strides or (1,) * n),
        padding=tuple(tuple(p) for p in padding or ((0, 0),) * n), dilation=tuple(dilation or (1,) * n),
    )


def window_shape(
    name: str, shape: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> Ints:
    """The number of window positions along each axis; ShapeError where a setting does not fit `shape`."""
    if any(len(s) != len(shape) for s in (window, strides, padding, dilation)):
        raise ShapeError(
            f"{name}: window {window}, strides {strides}, padding {padding} and dilation {dilation} need one entry for "
            f"each of the {len(shape)} axes of shape {shape}."
        )
    if any(n < 1 for n in (*window, *strides, *dilation)):
        raise ShapeError(f"{name}: window {window}, strides {strides} and dilation {dilation} must be at least 1.")
    return tuple(
        max((n + lo + hi - (k - 1) * d - 1) // s + 1, 0)
        for n, k, s, (lo, hi), d in zip(shape, window, strides, padding, dilation, strict=True)
    )


def _shape_rule(name, allowed):
    def rule(x, **params):
        if dtypes.dtype_kind(x.dtype) not in allowed:
            raise DTypeError(f"{name}: does not take dtype {x.dtype}.")
        return Aval(window_shape(name, x.shape, **params), x.dtype)

    return rule


def _batched(params):
    return {
        "window": (1, *params["window"]), "strides": (1, *params["strides"]),
        "padding": ((0, 0), *params["padding"]), "dilation": (1, *params["dilation"]),
    }


def _batch_rule(prim):
    batch_unary(prim)(lambda x, **params: bind1(prim, x, **_batched(params)))


def _filled(xp, x, padding, value):
    if all(p == (0, 0) for p in padding):
        return x
    return eval_rules[pad_p](xp, x, x.dtype.type(value), config=tuple((lo, hi, 0) for lo, hi in padding))


def _one_axis(x, axis, window, stride, dilation, size, combine):
    """`combine` over the window along one axis."""
    lead = (np.s_[:],) * axis
    parts = (
        x[(*lead, np.s_[k * dilation : k * dilation + (size - 1) * stride + 1 : stride])] for k in range(window)
    )
    out = next(parts)
    for i, part in enumerate(parts):
        out = combine(out, part) if i == 0 else combine(out, part, out=out)
    return out


def _over_axes(xp, x, fill, combine, window, strides, padding, dilation):
    sizes = window_shape("reduce_window", x.shape, window, strides, padding, dilation)
    if 0 in sizes:
        return xp.zeros(sizes, x.dtype)
    x = _filled(xp, x, padding, fill)
    for axis, (k, s, d, size) in enumerate(zip(window, strides, dilation, sizes, strict=True)):
        if k > 1 or s > 1 or x.shape[axis] != size:
            x = _one_axis(x, axis, k, s, d, size, combine)
    return xp.asarray(x, order="C")


# --- reduce_window_sum ----------------------------------------------------------------------------------------------
reduce_window_sum_p = Primitive("reduce_window_sum", Kind.REDUCTION)


def reduce_window_sum(
    x: Any, window: Ints, strides: Ints | None = None, padding: Padding | None = None, dilation: Ints | None = None
) -> Any:
    """The sum of `x`, padded with zeros, over a window at each position. Each setting has an entry for each axis.

    16-bit floats are accumulated in float32. Raises ShapeError where the settings do not fit.

    Example: `reduce_window_sum(np.arange(4.0), (2,))` is [1, 3, 5].
    """
    return _bind(reduce_window_sum_p, x, window, strides, padding, dilation)


shape_rules.add(reduce_window_sum_p, _shape_rule("reduce_window_sum", "iufc"))
_batch_rule(reduce_window_sum_p)


@eval_rules.register(reduce_window_sum_p)
def _(xp, x, **params):
    wide = dtypes.accumulator(x.dtype)
    out = _over_axes(xp, x if wide == x.dtype else x.astype(wide), 0, xp.add, **params)
    return out if wide == x.dtype else out.astype(x.dtype)


def _sum_transpose(ct, x, **params):
    return window_spread(ct, x.shape, **params)


linear(reduce_window_sum_p, _sum_transpose)

# --- window_spread: each element collects the values of the windows that it is in -----------------------------------
window_spread_p = Primitive("window_spread", Kind.REDUCTION)


def window_spread(values: Any, shape: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints) -> Any:
    """The sum, at each element of an array of `shape`, of the values of all windows over it.

    The transpose of `reduce_window_sum`, and one itself where windows are one element apart. 16-bit floats are
    accumulated in float32. Raises ShapeError where `values` are not one for each window.
    """
    if all(s == 1 for s in strides):
        around = _around(shape, values.shape, window, strides, padding, dilation)
        return reduce_window_sum(values, window, None, tuple((lo, hi) for lo, hi, _ in around), dilation)
    return bind1(window_spread_p, values, shape=shape, window=window, strides=strides, padding=padding,
                 dilation=dilation)


def _around(shape, values_shape, window, strides, padding, dilation):
    """The padding of values, spread out by the strides, whose window sums are what each element collects."""
    config = []
    for n, m, k, s, (lo, _), d in zip(shape, values_shape, window, strides, padding, dilation, strict=True):
        config.append(((k - 1) * d - lo, n + lo - ((m - 1) * s + 1 if m else 0), s - 1))
    return tuple(config)


@shape_rules.register(window_spread_p)
def _(values, *, shape, **params):
    if values.shape != window_shape("window_spread", shape, **params):
        raise ShapeError(f"window_spread: {values} are not one value for each window over shape {shape}.")
    return Aval(shape, values.dtype)


@eval_rules.register(window_spread_p)
def _(xp, values, *, shape, window, strides, padding, dilation):
    wide, ones = dtypes.accumulator(values.dtype), (1,) * len(shape)
    around = _around(shape, values.shape, window, strides, padding, dilation)
    spread = eval_rules[pad_p](xp, values.astype(wide, copy=False), wide.type(0), config=around)
    out = _over_axes(xp, spread, 0, xp.add, window, ones, ((0, 0),) * len(shape), dilation)
    return out.astype(values.dtype, copy=False)


batch_unary(window_spread_p)(lambda x, *, shape, **params: window_spread(x, (x.shape[0], *shape), **_batched(params)))
linear(window_spread_p, lambda ct, values, *, shape, **params: reduce_window_sum(ct, **params))

# --- window_take and window_put: the element of each window that a tap names, and its transpose ---------------------
window_take_p = Primitive("window_take", Kind.INDEXING)
window_put_p = Primitive("window_put", Kind.INDEXING)


def _positions(tap, strides, dilation, sizes):
    """The index of the elements that are number `tap` (a coordinate tuple) of their windows."""
    return tuple(
        np.s_[k * d : k * d + (n - 1) * s + 1 : s] for k, s, d, n in zip(tap, strides, dilation, sizes, strict=True)
    )


def _taps(window):
    return enumerate(itertools.product(*(range(k) for k in window)))


def window_take(x: Any, taps: Any, window: Ints, strides: Ints, padding: Padding, dilation: Ints) -> Any:
    """The element of each window of `x` whose row-major number in the window is `taps` (int32); padding reads 0."""
    return bind1(
        window_take_p, x, taps, window=window, strides=strides, padding=padding, dilation=dilation
    )


def window_put(
    values: Any, taps: Any, shape: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> Any:
    """Zeros of `shape`, plus each window's value at its element number `taps`: the transpose of `window_take`."""
    return bind1(
        window_put_p, values, taps, shape=shape, window=window, strides=strides, padding=padding, dilation=dilation
    )


@shape_rules.register(window_take_p)
def _(x, taps, **params):
    shape = window_shape("window_take", x.shape, **params)
    if taps.shape != shape or taps.dtype != TAP_DTYPE:
        raise ShapeError(f"window_take: expected int32 taps of shape {shape}, got {taps}.")
    return Aval(shape, x.dtype)


@eval_rules.register(window_take_p)
def _(xp, x, taps, *, window, strides, padding, dilation):
    x = _filled(xp, x, padding, 0)
    out = xp.zeros(taps.shape, x.dtype)
    if taps.size:
        for number, tap in _taps(window):
            xp.copyto(out, x[_positions(tap, strides, dilation, taps.shape)], where=taps == number)
    return out


@shape_rules.register(window_put_p)
def _(values, taps, *, shape, **params):
    expected = window_shape("window_put", shape, **params)
    if taps.shape != expected or values.shape != expected or taps.dtype != TAP_DTYPE:
        raise ShapeError(f"window_put: expected values and int32 taps of shape {expected}, got {values} and {taps}.")
    return Aval(shape, values.dtype)


@eval_rules.register(window_put_p)
def _(xp, values, taps, *, shape, window, strides, padding, dilation):
    dtype, wide = values.dtype, dtypes.accumulator(values.dtype)
    out = xp.zeros(tuple(n + lo + hi for n, (lo, hi) in zip(shape, padding, strict=True)), wide)
    if values.size:
        values = values.astype(wide, copy=False)
        disjoint = all((k - 1) * d < s for k, s, d in zip(window, strides, dilation, strict=True))
        put = xp.multiply if bool(xp.isfinite(values).all()) else _choose(xp)  # a product does not branch
        for number, tap in _taps(window):
            place = out[(*_positions(tap, strides, dilation, taps.shape), ...)]
            if disjoint:
                put(values, taps == number, out=place)
            else:
                place += put(values, taps == number)
    out = _filled(xp, out, tuple((-lo, -hi) for lo, hi in padding), 0)
    return out.astype(dtype, copy=False)


def _choose(xp):
    """The product with a mask for values that may be infinite or NaN, which times zero would not be zero."""

    def put(values, mask, out=None):
        chosen = xp.where(mask, values, values.dtype.type(0))
        if out is None:
            return chosen
        out[...] = chosen
        return out

    return put


def _both_batched(size, args, batched):
    return [
        a if b else broadcast_in_dim(a, (size, *a.shape), tuple(range(1, 1 + len(a.shape))))
        for a, b in zip(args, batched, strict=True)
    ]


@batch_rules.register(window_take_p)
def _(size, args, batched, **params):
    return window_take(*_both_batched(size, args, batched), **_batched(params)), True


@batch_rules.register(window_put_p)
def _(size, args, batched, *, shape, **params):
    values, taps = _both_batched(size, args, batched)
    return window_put(values, taps, (size, *shape), **_batched(params)), True


linear_in_first(window_take_p, lambda ct, x, taps, **params: window_put(ct, taps, x.shape, **params))
linear_in_first(window_put_p, lambda ct, values, taps, *, shape, **params: window_take(ct, taps, **params))

# --- window_argmax and window_argmin: which element of each window is its first extreme one -------------------------
window_argmax_p = Primitive("window_argmax", Kind.REDUCTION)
window_argmin_p = Primitive("window_argmin", Kind.REDUCTION)


def _lowest(dtype):
    return -np.inf if dtypes.is_inexact(dtype) else np.iinfo(dtype).min


def _highest(dtype):
    return np.inf if dtypes.is_inexact(dtype) else np.iinfo(dtype).max


def _first_extreme(fill, ufunc_name):
    """The first tap equal to the extreme is the number of taps up to which none was: a sum without branches."""

    def rule(xp, x, *, window, strides, padding, dilation):
        value = fill(x.dtype)
        extreme = _over_axes(
            xp, x, value, getattr(xp, ufunc_name), window=window, strides=strides, padding=padding, dilation=dilation
        )
        taps = xp.zeros(extreme.shape, np.uint8 if math.prod(window) < 256 else TAP_DTYPE)
        if not taps.size:
            return taps.astype(TAP_DTYPE)
        x = _filled(xp, x, padding, value)
        has_nan = dtypes.is_inexact(x.dtype) and bool(xp.isnan(extreme).any())
        searching = xp.ones(extreme.shape, bool)
        for _, tap in itertools.islice(_taps(window), math.prod(window) - 1):
            here = x[_positions(tap, strides, dilation, taps.shape)]
            searching &= (here != extreme) & ~xp.isnan(here) if has_nan else here != extreme
            taps += searching
        return taps.astype(TAP_DTYPE)

    return rule


eval_rules.add(window_argmax_p, _first_extreme(_lowest, "maximum"))
eval_rules.add(window_argmin_p, _first_extreme(_highest, "minimum"))
for _prim in (window_argmax_p, window_argmin_p):
    shape_rules.add(_prim, lambda x, **params: Aval(window_shape("window_argmax", x.shape, **params), TAP_DTYPE))
    zero_derivative(_prim)
    _batch_rule(_prim)


def window_argmax(
    x: Any, window: Ints, strides: Ints | None = None, padding: Padding | None = None, dilation: Ints | None = None
) -> Any:
    """The row-major number, within each window, of its first maximum (the first NaN, if there is one): int32."""
    return _bind(window_argmax_p, x, window, strides, padding, dilation)


def window_argmin(
    x: Any, window: Ints, strides: Ints | None = None, padding: Padding | None = None, dilation: Ints | None = None
) -> Any:
    """The row-major number, within each window, of its first minimum (the first NaN, if there is one): int32."""
    return _bind(window_argmin_p, x, window, strides, padding, dilation)


# --- reduce_window_max and reduce_window_min ------------------------------------------------------------------------
reduce_window_max_p = Primitive("reduce_window_max", Kind.REDUCTION)
reduce_window_min_p = Primitive("reduce_window_min", Kind.REDUCTION)


def reduce_window_max(
    x: Any, window: Ints, strides: Ints | None = None, padding: Padding | None = None, dilation: Ints | None = None
) -> Any:
    """The maximum of `x`, padded with its dtype's lowest value, over a window at each position; NaN if it has one.

    The derivative goes to the first maximum of the window in row-major order. Raises ShapeError where the settings do
    not fit.

    Example: `reduce_window_max(images, (1, 1, 2, 2), (1, 1, 2, 2))` halves the resolution of images [N, C, H, W].
    """
    return _bind(reduce_window_max_p, x, window, strides, padding, dilation)


def reduce_window_min(
    x: Any, window: Ints, strides: Ints | None = None, padding: Padding | None = None, dilation: Ints | None = None
) -> Any:
    """The minimum of `x`, padded with its dtype's highest value, over a window; otherwise as `reduce_window_max`."""
    return _bind(reduce_window_min_p, x, window, strides, padding, dilation)


def _declare_extreme(prim, name, fill, ufunc_name, argument_p):
    shape_rules.add(prim, _shape_rule(name, "iuf"))
    not_linear(prim)
    _batch_rule(prim)
    eval_rules.add(
        prim, lambda xp, x, **params: _over_axes(xp, x, fill(x.dtype), getattr(xp, ufunc_name), **params)
    )

    def jvp(primals, tangents, **params):
        (x,), (t,) = primals, tangents
        taps = bind(argument_p, x, **params)
        return bind(prim, x, **params), window_take(t, taps, **params)

    jvp_rules.add(prim, jvp)


_declare_extreme(reduce_window_max_p, "reduce_window_max", _lowest, "maximum", window_argmax_p)
_declare_extreme(reduce_window_min_p, "reduce_window_min", _highest, "minimum", window_argmin_p)


def window_count(
    shape: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints | None = None
) -> np.ndarray:
    """How many elements of an array of `shape`, not of its padding, each window holds: float64 (for mean pooling)."""
    dilation = dilation or (1,) * len(shape)
    sizes = window_shape("window_count", shape, window, strides, padding, dilation)
    counts = np.ones((), np.float64)
    for n, k, s, (lo, _), d, size in zip(shape, window, strides, padding, dilation, sizes, strict=True):
        places = np.arange(size)[:, None] * s + np.arange(k)[None, :] * d - lo
        counts = np.multiply.outer(counts, ((places >= 0) & (places < n)).sum(1))
    assert counts.size == math.prod(sizes)
    return counts
