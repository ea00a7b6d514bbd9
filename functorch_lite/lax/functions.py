# SPDX-License-Identifier: MIT
"""Element-wise functions, shapes, slices, reductions and sorting under JAX's names."""

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite import control_flow as _control_flow
from functorch_lite.numpy import creation, joining, reductions, selection, shaping, ufuncs
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.promotion import asarray, broadcast_to, cast, promote
from functorch_lite.numpy.promotion import broadcast as _aligned
from functorch_lite.numpy.promotion import operand as _operand
from functorch_lite.numpy.shaping import sizes_of
from functorch_lite.primitives import blocks, cumulative, indexing, reduction, sorting, special, transcendental

_i64 = np.dtype(np.int64)
_Ints = Sequence[int]

# --- element-wise -------------------------------------------------------------------------------------------------


def _unary(name: str, fun: Callable[[Any], Any], like: str) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        return fun(asarray(x))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{like}, element by element."
    return function


def _binary(name: str, fun: Callable[[Any, Any], Any], like: str) -> Callable[[Any, Any], Any]:
    def function(x: Any, y: Any) -> Any:
        return fun(*_aligned(*promote(x, y)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{like}, element by element."
    return function


neg = _unary("neg", e.neg, "-x")
sign = _unary("sign", e.sign, "The sign")
abs = _unary("abs", e.absolute, "|x|")
floor = _unary("floor", e.floor, "x rounded down")
ceil = _unary("ceil", e.ceil, "x rounded up")
exp = _unary("exp", transcendental.exp, "e**x")
exp2 = _unary("exp2", transcendental.exp2, "2**x")
expm1 = _unary("expm1", transcendental.expm1, "e**x - 1")
log = _unary("log", transcendental.log, "The natural logarithm")
log1p = _unary("log1p", transcendental.log1p, "log(1 + x)")
sin = _unary("sin", transcendental.sin, "The sine")
cos = _unary("cos", transcendental.cos, "The cosine")
tan = _unary("tan", transcendental.tan, "The tangent")
asin = _unary("asin", transcendental.asin, "The inverse sine")
acos = _unary("acos", transcendental.acos, "The inverse cosine")
atan = _unary("atan", transcendental.atan, "The inverse tangent")
sinh = _unary("sinh", transcendental.sinh, "The hyperbolic sine")
cosh = _unary("cosh", transcendental.cosh, "The hyperbolic cosine")
tanh = _unary("tanh", transcendental.tanh, "The hyperbolic tangent")
asinh = _unary("asinh", transcendental.asinh, "The inverse hyperbolic sine")
acosh = _unary("acosh", transcendental.acosh, "The inverse hyperbolic cosine")
atanh = _unary("atanh", transcendental.atanh, "The inverse hyperbolic tangent")
sqrt = _unary("sqrt", transcendental.sqrt, "The square root")
rsqrt = _unary("rsqrt", transcendental.rsqrt, "1 / sqrt(x)")
cbrt = _unary("cbrt", transcendental.cbrt, "The cube root")
square = _unary("square", transcendental.square, "x**2")
logistic = _unary("logistic", transcendental.logistic, "1 / (1 + exp(-x))")
erf = _unary("erf", special.erf, "The error function")
erfc = _unary("erfc", special.erfc, "1 - erf(x)")
erf_inv = _unary("erf_inv", special.erfinv, "The inverse of erf")
lgamma = _unary("lgamma", special.lgamma, "log |gamma(x)|")
digamma = _unary("digamma", special.digamma, "The derivative of lgamma")
is_finite = _unary("is_finite", e.is_finite, "Whether x is neither infinite nor NaN")
bitwise_not = _unary("bitwise_not", e.bit_not, "~x")
population_count = _unary("population_count", e.population_count, "The number of bits set")
real = _unary("real", e.real, "The real part")
imag = _unary("imag", e.imag, "The imaginary part")
conj = _unary("conj", e.conj, "The complex conjugate")
add = _binary("add", e.add, "x + y")
sub = _binary("sub", e.sub, "x - y")
mul = _binary("mul", e.mul, "x * y")
div = _binary("div", e.div, "x / y (integers: rounded towards zero)")
rem = _binary("rem", e.rem, "The remainder of x / y, with the sign of x")
max = _binary("max", e.maximum, "The larger of x and y")
min = _binary("min", e.minimum, "The smaller of x and y")
pow = _binary("pow", e.pow, "x**y")
atan2 = _binary("atan2", transcendental.atan2, "The angle of the point (y, x)")
nextafter = _binary("nextafter", e.nextafter, "The next number after x towards y")
complex = _binary("complex", e.make_complex, "x + iy")
eq = _binary("eq", e.eq, "x == y")
ne = _binary("ne", e.ne, "x != y")
lt = _binary("lt", e.lt, "x < y")
le = _binary("le", e.le, "x <= y")
gt = _binary("gt", e.gt, "x > y")
ge = _binary("ge", e.ge, "x >= y")
bitwise_and = _binary("bitwise_and", e.bit_and, "x & y")
bitwise_or = _binary("bitwise_or", e.bit_or, "x | y")
bitwise_xor = _binary("bitwise_xor", e.bit_xor, "x ^ y")
shift_left = _binary("shift_left", e.shift_left, "x << y")
shift_right_arithmetic = _binary("shift_right_arithmetic", e.shift_right, "x >> y, copying the sign bit")
igamma = _binary("igamma", special.gammainc, "The regularized lower incomplete gamma function of (a, x)")
igammac = _binary("igammac", special.gammaincc, "The regularized upper incomplete gamma function of (a, x)")


def round(x: Any, rounding_method: int = 0) -> Any:
    """x rounded to the nearest integer; halves away from zero (0, JAX's default) or to even (1)."""
    x = asarray(x)
    if rounding_method == 1:
        return e.round_to_even(x)
    return e.mul(e.sign(x), e.floor(e.add(e.absolute(x), x.dtype.type(0.5))))


def integer_pow(x: Any, y: int) -> Any:
    """x to the Python integer power y."""
    return e.integer_pow(asarray(x), y)


def shift_right_logical(x: Any, y: Any) -> Any:
    """x >> y, filling with zeros."""
    x, y = _aligned(*promote(x, y))
    if x.dtype.kind == "u":
        return e.shift_right(x, y)
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    return e.convert(e.shift_right(e.convert(x, unsigned), e.convert(y, unsigned)), x.dtype)


def convert_element_type(x: Any, new_dtype: Any) -> Any:
    """x with its elements converted to a dtype."""
    return cast(_operand(x), np.dtype(new_dtype))


def bitcast_convert_type(x: Any, new_dtype: Any) -> Any:
    """The bits of x read as a dtype of the same item size."""
    return e.bitcast(asarray(x), np.dtype(new_dtype))


def select(pred: Any, on_true: Any, on_false: Any) -> Any:
    """`on_true` where pred holds, else `on_false`."""
    return selection.where_body(pred, on_true, on_false)


def select_n(which: Any, *cases: Any) -> Any:
    """The element of `cases[which]`; a boolean `which` chooses between two."""
    which = asarray(which)
    out = cases[-1]
    if which.dtype == bool:
        return selection.where_body(which, cases[1], cases[0])
    for i, case in reversed(list(enumerate(cases[:-1]))):
        out = selection.where_body(ufuncs.less_equal(which, i), case, out)
    return asarray(out)


def clamp(min: Any, x: Any, max: Any) -> Any:
    """x limited to [min, max]; its derivative passes at both bounds."""
    return reductions.clip(x, min, max)


# --- shapes -------------------------------------------------------------------------------------------------------


def broadcast_in_dim(operand: Any, shape: _Ints, broadcast_dimensions: _Ints) -> Any:
    """The operand with its axis i at axis `broadcast_dimensions[i]` of `shape`, repeated along the others."""
    return e.broadcast_in_dim(asarray(operand), sizes_of(shape), tuple(broadcast_dimensions))


def reshape(operand: Any, new_sizes: _Ints, dimensions: _Ints | None = None) -> Any:
    """The elements, after an optional permutation of the axes, arranged as `new_sizes`."""
    x = asarray(operand)
    return shaping.reshape(x if dimensions is None else shaping.transpose(x, dimensions), new_sizes)


def transpose(operand: Any, permutation: _Ints) -> Any:
    """The operand with its axes in another order."""
    return shaping.transpose(operand, permutation)


def squeeze(array: Any, dimensions: _Ints) -> Any:
    """The array without these axes of size 1."""
    return shaping.squeeze(array, tuple(dimensions))


def expand_dims(array: Any, dimensions: _Ints) -> Any:
    """The array with new axes of size 1."""
    return shaping.expand_dims(array, tuple(dimensions))


def collapse(operand: Any, start_dimension: int, stop_dimension: int | None = None) -> Any:
    """The operand with the axes from start up to stop merged into one."""
    x = asarray(operand)
    stop = len(x.shape) if stop_dimension is None else stop_dimension
    return shaping.reshape(x, (*x.shape[:start_dimension], -1, *x.shape[stop:]))


def rev(operand: Any, dimensions: _Ints) -> Any:
    """The operand reversed along these axes."""
    return e.rev(asarray(operand), tuple(dimensions))


def concatenate(operands: Sequence[Any], dimension: int) -> Any:
    """The operands one after the other along an axis."""
    return joining.concatenate(list(operands), dimension)


def pad(operand: Any, padding_value: Any, padding_config: Sequence[tuple[int, int, int]]) -> Any:
    """The operand with (low, high, interior) elements of `padding_value` added along each axis."""
    x = asarray(operand)
    return e.pad(
        x,
        cast(padding_value if not hasattr(padding_value, "dtype") else asarray(padding_value), x.dtype),
        tuple((low, high, interior) for low, high, interior in padding_config),
    )


def iota(dtype: Any, size: int) -> Any:
    """0, 1, ..., size - 1."""
    return e.iota(np.dtype(dtype), sizes_of(size))


def broadcasted_iota(dtype: Any, shape: _Ints, dimension: int) -> Any:
    """The array of `shape` whose entries are their own index along an axis."""
    return e.iota(np.dtype(dtype), sizes_of(shape), dimension)


def full(shape: _Ints, fill_value: Any, dtype: Any = None) -> Any:
    """An array filled with a value."""
    return creation.full(shape, fill_value, dtype)


def full_like(x: Any, fill_value: Any, dtype: Any = None, shape: Any = None) -> Any:
    """An array like x, filled with a value."""
    return creation.full_like(x, fill_value, dtype, shape=shape)


def zeros_like_array(x: Any) -> Any:
    """Zeros with the shape and dtype of x."""
    return creation.zeros_like(x)


# --- slices -------------------------------------------------------------------------------------------------------


def slice(operand: Any, start_indices: _Ints, limit_indices: _Ints, strides: _Ints | None = None) -> Any:
    """The elements from start up to, not including, limit, in steps."""
    steps = (1,) * len(start_indices) if strides is None else tuple(strides)
    return e.slice(asarray(operand), tuple(start_indices), tuple(limit_indices), steps)


def slice_in_dim(operand: Any, start_index: int | None, limit_index: int | None, stride: int = 1, axis: int = 0) -> Any:
    """`slice` along one axis; negative bounds count from the end."""
    x = asarray(operand)
    axis = normal_axis(axis, len(x.shape))
    start, stop, _ = builtins.slice(start_index, limit_index).indices(x.shape[axis])
    return e.slice_in_axis(x, start, builtins.max(start, stop), axis, stride)


def index_in_dim(operand: Any, index: int, axis: int = 0, keepdims: bool = True) -> Any:
    """The slice at `index` along an axis."""
    x = asarray(operand)
    axis = normal_axis(axis, len(x.shape))
    index = index + x.shape[axis] if index < 0 else index
    out = e.slice_in_axis(x, index, index + 1, axis)
    return out if keepdims else shaping.squeeze(out, axis)


def _starts(x, indices):
    """Start indices as int64 scalars; negative ones count from the end, as in JAX."""
    found = []
    for i, n in zip(indices, x.shape, strict=True):
        i = cast(_operand(i), _i64)
        found.append(
            i + n * (i < 0) if not hasattr(i, "tag") else e.select(e.lt(i, np.int64(0)), e.add(i, np.int64(n)), i)
        )
    return found


def dynamic_slice(operand: Any, start_indices: Any, slice_sizes: _Ints) -> Any:
    """A box of `slice_sizes` that begins at traced indices; clamped so that it lies inside."""
    x = asarray(operand)
    return blocks.dynamic_slice(x, *_starts(x, list(start_indices)), sizes=sizes_of(slice_sizes))


def dynamic_update_slice(operand: Any, update: Any, start_indices: Any) -> Any:
    """The operand with a box, that begins at traced indices, replaced by `update`."""
    x = asarray(operand)
    indices = (
        list(start_indices) if isinstance(start_indices, (list, tuple)) or start_indices.shape else [start_indices]
    )
    return blocks.dynamic_update_slice(x, cast(asarray(update), x.dtype), *_starts(x, indices))


def _one_start(x, start, axis):
    return [start if i == axis else 0 for i in range(len(x.shape))]


def dynamic_slice_in_dim(operand: Any, start_index: Any, slice_size: int, axis: int = 0) -> Any:
    """`dynamic_slice` along one axis."""
    x = asarray(operand)
    axis = normal_axis(axis, len(x.shape))
    sizes = tuple(slice_size if i == axis else n for i, n in enumerate(x.shape))
    return dynamic_slice(x, _one_start(x, start_index, axis), sizes)


def dynamic_index_in_dim(operand: Any, index: Any, axis: int = 0, keepdims: bool = True) -> Any:
    """The slice at a traced index along an axis."""
    out = dynamic_slice_in_dim(operand, index, 1, axis)
    return out if keepdims else shaping.squeeze(out, axis)


def dynamic_update_slice_in_dim(operand: Any, update: Any, start_index: Any, axis: int) -> Any:
    """`dynamic_update_slice` along one axis."""
    x = asarray(operand)
    return dynamic_update_slice(x, update, _one_start(x, start_index, normal_axis(axis, len(x.shape))))


def dynamic_update_index_in_dim(operand: Any, update: Any, index: Any, axis: int) -> Any:
    """The operand with the slice at a traced index along an axis replaced."""
    x, u = asarray(operand), asarray(update)
    u = u if len(u.shape) == len(x.shape) else shaping.expand_dims(u, axis)
    return dynamic_update_slice_in_dim(x, u, index, axis)


gather = indexing.gather
scatter = indexing.scatter


def index_take(src: Any, idxs: Sequence[Any], axes: _Ints) -> Any:
    """The slices of `src` at index vectors along these axes [count, ...rest]."""
    x = asarray(src)
    rest = [i for i in range(len(x.shape)) if i not in axes]
    return indexing.gather(e.permute_dims(x, (*axes, *rest)), *[asarray(i) for i in idxs], mode="raise")


# --- reductions and sorting ---------------------------------------------------------------------------------------


def _reduction(name: str, primitive: Callable[..., Any], like: str) -> Callable[..., Any]:
    def function(operand: Any, axes: _Ints) -> Any:
        x = asarray(operand)
        return primitive(x, tuple(normal_axis(a, len(x.shape)) for a in axes)) if len(axes) else x

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{like} over the axes, which go away."
    return function


reduce_sum = _reduction("reduce_sum", e.reduce_sum, "The sum")
reduce_prod = _reduction("reduce_prod", reduction.reduce_prod, "The product")
reduce_max = _reduction("reduce_max", reduction.reduce_max, "The maximum")
reduce_min = _reduction("reduce_min", reduction.reduce_min, "The minimum")
reduce_and = _reduction("reduce_and", reduction.reduce_and, "Whether all hold")
reduce_or = _reduction("reduce_or", reduction.reduce_or, "Whether any holds")


def argmax(operand: Any, axis: int, index_dtype: Any = np.int64) -> Any:
    """The position of the first maximum along an axis."""
    x = asarray(operand)
    return cast(reduction.argmax(x, normal_axis(axis, len(x.shape))), np.dtype(index_dtype))


def argmin(operand: Any, axis: int, index_dtype: Any = np.int64) -> Any:
    """The position of the first minimum along an axis."""
    x = asarray(operand)
    return cast(reduction.argmin(x, normal_axis(axis, len(x.shape))), np.dtype(index_dtype))


def _running(name: str, primitive: Callable[..., Any], like: str) -> Callable[..., Any]:
    def function(operand: Any, axis: int = 0, reverse: bool = False) -> Any:
        x = asarray(operand)
        axis = normal_axis(axis, len(x.shape))
        if not reverse:
            return primitive(x, axis)
        return e.rev(primitive(e.rev(x, (axis,)), axis), (axis,))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{like} along an axis, from its start or, `reverse`, its end."
    return function


cumsum = _running("cumsum", cumulative.cumsum, "The running sum")
cumprod = _running("cumprod", cumulative.cumprod, "The running product")
cummax = _running("cummax", cumulative.cummax, "The running maximum")
cummin = _running("cummin", cumulative.cummin, "The running minimum")


def _log_cumulative_sum(x, axis):
    def combine(a, b):
        return ufuncs.logaddexp(a, b)

    return _control_flow.associative_scan(combine, x, axis=axis)


cumlogsumexp = _running("cumlogsumexp", _log_cumulative_sum, "The logarithm of the running sum of exp(x)")


def sort(operand: Any, dimension: int = -1, is_stable: bool = True, num_keys: int = 1) -> Any:
    """The operand, or a tuple of them, sorted along an axis by the first `num_keys`."""
    several = isinstance(operand, (tuple, list))
    arrays = [asarray(x) for x in (operand if several else (operand,))]
    axis = normal_axis(dimension, len(arrays[0].shape))
    last = len(arrays[0].shape) - 1
    out = sorting.sort(*[e.moveaxis(x, axis, last) for x in arrays], num_keys=num_keys, stable=is_stable)
    out = tuple(e.moveaxis(x, last, axis) for x in out)
    return out if several else out[0]


def sort_key_val(keys: Any, values: Any, dimension: int = -1, is_stable: bool = True) -> tuple[Any, Any]:
    """Keys in ascending order along an axis, and values in the order of their keys."""
    return sort((keys, values), dimension, is_stable, 1)


def top_k(operand: Any, k: int) -> list[Any]:
    """The k largest elements along the last axis, in descending order, and their positions."""
    return sorting.top_k(asarray(operand), k)


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape to which all broadcast."""
    return np.broadcast_shapes(*shapes)


def broadcast(operand: Any, sizes: _Ints) -> Any:
    """The operand with new leading axes of these sizes."""
    x = asarray(operand)
    return broadcast_to(x, (*sizes_of(sizes), *x.shape))
