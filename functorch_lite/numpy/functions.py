# SPDX-License-Identifier: MIT
"""Mathematical functions that are not ufuncs: rounding, complex parts, differences, windows, comparison of
arrays, interpolation, convolution, integration.
"""

import builtins
import math
from typing import Any

import ml_dtypes
import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy import joining, reductions, shaping, ufuncs
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.creation import linspace, zeros_like
from functorch_lite.numpy.dispatch import implement, public
from functorch_lite.numpy.indexing import lookup, searchsorted, whole
from functorch_lite.numpy.promotion import (
    PYTHON_SCALARS,
    asarray,
    broadcast,
    broadcast_to,
    cast,
    common_dtype,
    operand,
    promote,
    to_float,
    to_inexact,
)
from functorch_lite.numpy.selection import where_body
from functorch_lite.primitives import transcendental as t
from functorch_lite.primitives.convolution import conv_general_dilated
from functorch_lite.primitives.special import bessel_i

_i64 = np.dtype(np.int64)

# --- rounding and parts -------------------------------------------------------------------------------------------


@public(np.round, np.around)
def round(a: Any, decimals: int = 0, out: None = None) -> Any:
    """x rounded to `decimals`, halves to even. Its derivative is 0."""
    x = asarray(a)
    if x.dtype.kind in "biu":
        if decimals >= 0:
            return cast(x, np.dtype(np.float16)) if x.dtype.kind == "b" else x
        step = x.dtype.type(10**-decimals)
        return cast(
            e.mul(e.round_to_even(e.div(cast(x, np.dtype(np.float64)), np.float64(step))), np.float64(step)), x.dtype
        )
    if not decimals:
        return ufuncs.rint(x)
    power = x.dtype.type(10.0 ** builtins.abs(decimals))
    if decimals > 0:
        return e.div(ufuncs.rint(e.mul(x, power)), power)
    return e.mul(ufuncs.rint(e.div(x, power)), power)


around = round


@implement(np.fix)
def fix(x: Any, out: None = None) -> Any:
    """x rounded towards zero: `trunc`, as NumPy's own, which warns from 2.5 on, says to write."""
    return ufuncs.trunc(x)


@public(np.real)
def real(val: Any) -> Any:
    """The real part."""
    x = asarray(val)
    return e.real(x) if x.dtype.kind == "c" else x


@public(np.imag)
def imag(val: Any) -> Any:
    """The imaginary part; zeros for a real array."""
    x = asarray(val)
    return e.imag(x) if x.dtype.kind == "c" else zeros_like(x)


@public(np.angle)
def angle(z: Any, deg: bool = False) -> Any:
    """The angle of a complex number in radians."""
    x = to_float(z)
    y = e.imag(x) if x.dtype.kind == "c" else broadcast_to(x.dtype.type(0), x.shape)
    out = t.atan2(y, e.real(x) if x.dtype.kind == "c" else x)
    return ufuncs.rad2deg(out) if deg else out


@public(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """x with NaN, infinity and minus infinity replaced (default: 0, the largest and the smallest number)."""
    x = asarray(x)
    if x.dtype.kind == "c":
        parts = [nan_to_num(p, nan=nan, posinf=posinf, neginf=neginf) for p in (e.real(x), e.imag(x))]
        return e.make_complex(*parts)
    if not dtypes.is_inexact(x.dtype):
        return x
    limits = np.finfo(x.dtype) if x.dtype.kind == "f" else _finfo(x.dtype)
    high = float(limits.max) if posinf is None else posinf
    low = float(limits.min) if neginf is None else neginf
    x = where_body(e.ne(x, x), cast(nan, x.dtype), x)
    x = where_body(e.eq(x, x.dtype.type(np.inf)), cast(high, x.dtype), x)
    return where_body(e.eq(x, x.dtype.type(-np.inf)), cast(low, x.dtype), x)


def _finfo(dtype):
    return ml_dtypes.finfo(dtype)


@public(np.real_if_close)
def real_if_close(a: Any, tol: float = 100) -> Any:
    """x itself: whether its imaginary part vanishes is not known while tracing, and the dtype must be."""
    return asarray(a)


@public(np.sinc)
def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), and 1 at 0 with its derivatives there of every order up to the tenth."""
    x = to_inexact(x) if asarray(x).dtype.kind not in "biu" else to_float(x)
    x = e.mul(x, x.dtype.type(math.pi))
    small = e.lt(e.absolute(x), e.absolute(x.dtype.type(1e-2)))
    one = broadcast_to(x.dtype.type(1), x.shape)
    safe = e.select(small, one, x)
    square = t.square(e.select(small, x, broadcast_to(x.dtype.type(0), x.shape)))
    series = one
    for k in (110, 72, 42, 20, 6):  # 1 - x^2/6 (1 - x^2/20 (1 - x^2/42 ...))
        series = e.sub(one, e.mul(e.div(square, x.dtype.type(k)), series))
    return e.select(small, series, e.div(t.sin(safe), safe))


@public(np.i0)
def i0(x: Any) -> Any:
    """The modified Bessel function of the first kind, order 0."""
    x = to_float(x)
    return bessel_i(0, x)


@public(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: Any = 2 * math.pi) -> Any:
    """Angles with jumps of more than half a period taken out along an axis."""
    x = asarray(p)
    axis = normal_axis(axis, len(x.shape))
    x = to_float(x) if isinstance(period, float) else x
    gap = diff(x, axis=axis)
    half = period / 2
    turned = (gap + half) % period - half
    turned = where_body((turned == -half) & (gap > 0), half, turned)
    step = turned - gap
    step = where_body(ufuncs.absolute(gap) < (half if discont is None else discont), 0, step)
    first = e.slice_in_axis(x, 0, 1, axis)
    rest = e.add(e.slice_in_axis(x, 1, x.shape[axis], axis), cast(reductions.cumsum(step, axis=axis), x.dtype))
    return e.concatenate([first, rest], axis)


# --- differences, gradients, integrals ----------------------------------------------------------------------------


@public(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """The n-th differences of neighbours along an axis."""
    x = asarray(a)
    axis = normal_axis(axis, len(x.shape))
    border = [v for v in (prepend, append) if v is not None and v is not np._NoValue]
    if border:
        shape = tuple(1 if i == axis else m for i, m in enumerate(x.shape))
        parts = [prepend, x, append]
        parts = [asarray(v) for v in parts if v is not None and v is not np._NoValue]
        x = joining.concatenate([v if v.shape else broadcast_to(v, shape) for v in parts], axis)
    for _ in range(n):
        high, low = (
            e.slice_in_axis(x, 1, x.shape[axis], axis),
            e.slice_in_axis(x, 0, builtins.max(x.shape[axis] - 1, 0), axis),
        )
        x = e.bit_xor(high, low) if x.dtype.kind == "b" else e.sub(high, low)
    return x


@public(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """The differences of neighbours of x flattened, with more before and after."""
    x = diff(shaping.ravel(ary))
    parts = [
        shaping.ravel(cast(asarray(p), x.dtype)) if p is not x else x for p in (to_begin, x, to_end) if p is not None
    ]
    return e.concatenate(parts, 0)


@public(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """The derivative of samples along each axis: central differences inside, one-sided at the ends."""
    x = to_float(f)
    n = len(x.shape)
    axes = (
        tuple(range(n))
        if axis is None
        else tuple(normal_axis(a, n) for a in (axis if isinstance(axis, tuple) else (axis,)))
    )
    steps = list(varargs) or [1.0]
    steps = steps * len(axes) if len(steps) == 1 else steps
    if len(steps) != len(axes):
        raise ArgumentError("invalid number of arguments")
    found = tuple(_gradient_along(x, h, a, edge_order) for h, a in zip(steps, axes, strict=True))
    return found[0] if len(found) == 1 else found


def _gradient_along(x, h, axis, edge_order):
    x = e.moveaxis(x, axis, len(x.shape) - 1)
    n = x.shape[-1]
    if n < edge_order + 1:
        raise ShapeError("Shape of array too small to calculate a numerical gradient.")
    if getattr(h, "shape", ()) or isinstance(h, list):
        gaps = diff(asarray(h))
        a, b = gaps[:-1], gaps[1:]
        inner = -b / (a * (a + b)) * x[..., :-2] + (b - a) / (a * b) * x[..., 1:-1] + a / (b * (a + b)) * x[..., 2:]
        first, last = gaps[0], gaps[-1]
        near = gaps[1] if n > 2 else first
        far = gaps[-2] if n > 2 else last
    else:
        inner = (x[..., 2:] - x[..., :-2]) / (2.0 * h)
        first = last = near = far = h
    if edge_order == 1:
        left, right = (x[..., 1] - x[..., 0]) / first, (x[..., -1] - x[..., -2]) / last
    else:
        left = (
            -(2.0 * first + near) / (first * (first + near)) * x[..., 0]
            + (first + near) / (first * near) * x[..., 1]
            - first / (near * (first + near)) * x[..., 2]
        )
        right = (
            last / (far * (far + last)) * x[..., -3]
            - (last + far) / (far * last) * x[..., -2]
            + (2.0 * last + far) / (last * (far + last)) * x[..., -1]
        )
    parts = [shaping.expand_dims(left, -1), inner, shaping.expand_dims(right, -1)]
    return e.moveaxis(joining.concatenate(parts, -1), len(x.shape) - 1, axis)


@public(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral of samples along an axis by the trapezoidal rule."""
    y = asarray(y)
    axis = normal_axis(axis, len(y.shape))
    if x is None:
        step = dx
    else:
        x = asarray(x)
        step = diff(x, axis=axis if len(x.shape) > 1 else 0)
        if len(x.shape) == 1:
            step = e.reshape(step, tuple(step.shape[0] if i == axis else 1 for i in range(len(y.shape))))
    high, low = y[(*whole(axis), np.s_[1:])], y[(*whole(axis), np.s_[:-1])]
    return reductions.sum(step * (high + low) / 2.0, axis=axis)


@public(np.cross)
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """The cross products of vectors of 3 components along an axis."""
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = promote(a, b)
    x, y = shaping.moveaxis(x, axisa, -1), shaping.moveaxis(y, axisb, -1)
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise ShapeError(f"cross: vectors need 3 components, got {x.shape[-1]} and {y.shape[-1]}.")
    x0, x1, x2 = x[..., 0], x[..., 1], x[..., 2]
    y0, y1, y2 = y[..., 0], y[..., 1], y[..., 2]
    out = joining.stack([x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0], axis=-1)
    return shaping.moveaxis(out, -1, axisc)


# --- choice -------------------------------------------------------------------------------------------------------


@public(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """The choice of the first condition that holds, element by element."""
    if len(condlist) != len(choicelist):
        raise ArgumentError("list of cases must be same length as list of conditions")
    dtype = common_dtype(*[operand(c) for c in choicelist], operand(default))
    out = cast(operand(default), dtype)
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        out = where_body(condition, cast(operand(choice), dtype), out)
    return out


@public(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Any, *args: Any, **kw: Any) -> Any:
    """The value of the function of the last condition that holds, element by element; each function sees all of x."""
    x = asarray(x)
    conditions = [asarray(c) for c in condlist] if isinstance(condlist, (list, tuple)) else [asarray(condlist)]
    functions = list(funclist)
    values = [f(x, *args, **kw) if callable(f) else f for f in functions]
    out = values.pop() if len(values) == len(conditions) + 1 else 0
    out = broadcast_to(cast(operand(out), x.dtype), x.shape)
    for condition, value in zip(conditions, values, strict=True):
        out = where_body(condition, cast(operand(value), x.dtype), out)
    return out


# --- comparison of arrays -----------------------------------------------------------------------------------------


@public(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> Any:
    """Whether |a - b| <= atol + rtol |b|, element by element."""
    x, y = operand(a), operand(b)
    y = to_float(y) if type(y) in PYTHON_SCALARS or y.dtype.kind in "biu" else y
    close = ufuncs.absolute(ufuncs.subtract(x, y)) <= atol + rtol * ufuncs.absolute(y)
    close = ufuncs.logical_or(ufuncs.logical_and(close, ufuncs.isfinite(y)), ufuncs.equal(x, y))
    return ufuncs.logical_or(close, ufuncs.logical_and(ufuncs.isnan(x), ufuncs.isnan(y))) if equal_nan else close


@public(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> Any:
    """Whether all elements are close."""
    return reductions.all(isclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan))


@public(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    """Whether two arrays have the same shape and elements."""
    x, y = asarray(a1), asarray(a2)
    if x.shape != y.shape:
        return np.bool_(False)
    same = ufuncs.equal(x, y)
    if equal_nan:
        same = ufuncs.logical_or(same, ufuncs.logical_and(ufuncs.isnan(x), ufuncs.isnan(y)))
    return reductions.all(same)


@public(np.array_equiv)
def array_equiv(a1: Any, a2: Any) -> Any:
    """Whether two arrays broadcast to the same elements."""
    return reductions.all(ufuncs.equal(asarray(a1), asarray(a2)))


@public(np.isposinf)
def isposinf(x: Any, out: None = None) -> Any:
    """Whether each element is plus infinity."""
    return ufuncs.equal(x, np.inf)


@public(np.isneginf)
def isneginf(x: Any, out: None = None) -> Any:
    """Whether each element is minus infinity."""
    return ufuncs.equal(x, -np.inf)


@public(np.iscomplex)
def iscomplex(x: Any) -> Any:
    """Whether each element has an imaginary part."""
    x = asarray(x)
    return ufuncs.not_equal(imag(x), 0) if x.dtype.kind == "c" else broadcast_to(np.bool_(False), x.shape)


@public(np.isreal)
def isreal(x: Any) -> Any:
    """Whether each element has no imaginary part."""
    return ufuncs.logical_not(iscomplex(x))


# --- convolution --------------------------------------------------------------------------------------------------


def window_sums(x: Any, y: Any, pads: tuple[tuple[int, int], ...]) -> Any:
    """The sums of products of y with the windows of x, of one dtype, `pads` zeros (low, high) added along each axis."""
    dtype = x.dtype
    if dtype.kind == "b":
        x, y = cast(x, _i64), cast(y, _i64)
    x, y = e.reshape(x, (1, 1, *x.shape)), e.reshape(y, (1, 1, *y.shape))
    out = conv_general_dilated(x, y, (1,) * len(pads), pads)
    out = e.reshape(out, out.shape[2:])
    return e.ne(out, np.int64(0)) if dtype.kind == "b" else out


def _slide(a: Any, v: Any, mode: str) -> Any:
    """The sliding inner products of a with v (not reversed)."""
    if len(a.shape) != 1 or len(v.shape) != 1:
        raise ShapeError(f"convolve: expected two vectors, got shapes {a.shape} and {v.shape}.")
    n, k = a.shape[0], v.shape[0]
    if not n or not k:
        raise ArgumentError("convolve: the arrays cannot be empty.")
    low = {"full": k - 1, "same": k // 2, "valid": 0}[mode]
    high = {"full": k - 1, "same": k - 1 - k // 2, "valid": 0}[mode]
    return window_sums(a, v, ((low, high),))


@public(np.convolve)
def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    """The discrete convolution of two vectors."""
    x, y = promote(a, v)
    if y.shape[0] > x.shape[0]:
        x, y = y, x
    return _slide(x, e.rev(y, (0,)), mode)


@public(np.correlate)
def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    """The cross-correlation of two vectors."""
    x, y = promote(a, v)
    y = ufuncs.conjugate(y)
    if y.shape[0] > x.shape[0]:
        return e.rev(_slide(y, x, mode), (0,))
    return _slide(x, y, mode)


# --- interpolation and counting -----------------------------------------------------------------------------------


@public(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """The piecewise linear function through the points (xp, fp), xp ascending, at x."""
    x, xp, fp = to_float(x), to_float(xp), to_float(fp)
    dtype = np.result_type(common_dtype(x, xp, fp), np.float64)
    x, xp, fp = cast(x, np.dtype(np.float64)), cast(xp, np.dtype(np.float64)), cast(fp, dtype)
    if period is not None:
        x, xp = x % period, xp % period
        order = np.argsort(xp)
        xp, fp = lookup(xp, order), lookup(fp, order)
        xp = joining.concatenate([xp[-1:] - period, xp, xp[:1] + period])
        fp = joining.concatenate([fp[-1:], fp, fp[:1]])
    n = xp.shape[0]
    if n == 1:
        out = broadcast_to(fp[0], x.shape)
    else:
        i = ufuncs.minimum(ufuncs.maximum(searchsorted(xp, x, side="right"), 1), n - 1)
        x0, x1 = lookup(xp, i, "clip"), lookup(xp, i - 1, "clip")
        f0, f1 = lookup(fp, i, "clip"), lookup(fp, i - 1, "clip")
        gap = x0 - x1
        flat = gap == 0
        slope = (x - x1) / where_body(flat, 1.0, gap)
        out = where_body(flat, f1, f1 + slope * (f0 - f1))
    if period is None:
        out = where_body(x < xp[0], fp[0] if left is None else left, out)
        out = where_body(x > xp[n - 1], fp[n - 1] if right is None else right, out)
    return out


def window_of(name: str, formula: Any) -> Any:
    """A window function of signal processing, in the default float."""

    def body(M: int) -> Any:
        n = int(M)
        if n < 1:
            return np.zeros(0, dtypes.default_float())
        if n == 1:
            return np.ones(1, dtypes.default_float())
        return formula(linspace(-1.0, 1.0, n, dtype=np.float64)).astype(dtypes.default_float())

    body.__name__ = name
    body.__doc__ = f"The {name} window of M points: numpy.{name} in the default float."
    return body


hanning = window_of("hanning", lambda x: 0.5 + 0.5 * np.cos(np.pi * x))
hamming = window_of("hamming", lambda x: 0.54 + 0.46 * np.cos(np.pi * x))
blackman = window_of("blackman", lambda x: 0.42 + 0.5 * np.cos(np.pi * x) + 0.08 * np.cos(2 * np.pi * x))
bartlett = window_of("bartlett", lambda x: 1.0 - np.abs(x))


def kaiser(M: int, beta: float) -> Any:
    """The Kaiser window of M points."""
    return np.kaiser(int(M), beta).astype(dtypes.default_float())


def result_type(*values: Any) -> np.dtype:
    """The dtype of an operation on these arrays, dtypes and Python scalars."""
    strong = [v if isinstance(v, (np.dtype, type)) and v not in PYTHON_SCALARS else None for v in values]
    keyed = [np.zeros((), s) if s is not None else operand(v) for s, v in zip(strong, values, strict=True)]
    return common_dtype(*keyed)


implement(np.result_type)(result_type)


@implement(np.ndim)
def ndim(a: Any) -> int:
    """The number of axes."""
    return (
        len(a.shape)
        if isinstance(a, Tracer)
        else np.ndim(a)
        if not isinstance(a, (list, tuple))
        else len(asarray(a).shape)
    )


@implement(np.shape)
def shape(a: Any) -> tuple[int, ...]:
    """The sizes of the axes."""
    return a.shape if isinstance(a, Tracer) else asarray(a).shape


@implement(np.size)
def size(a: Any, axis: Any = None) -> int:
    """The number of elements, or of those along an axis."""
    found = shape(a)
    axes = range(len(found)) if axis is None else (axis if isinstance(axis, tuple) else (axis,))
    return math.prod(found[i] for i in axes)


@implement(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    """Whether the dtype is complex."""
    return asarray(x).dtype.kind == "c"


@implement(np.isrealobj)
def isrealobj(x: Any) -> bool:
    """Whether the dtype is not complex."""
    return not iscomplexobj(x)


def aligned(*values: Any) -> list[Any]:
    """The operands, promoted and of one shape (for functions of several arrays in other modules)."""
    return broadcast(*promote(*values))
