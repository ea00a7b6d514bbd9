# SPDX-License-Identifier: MIT
"""Broadcast family: broadcast_in_dim and its transpose reduce_sum, and iota.

    broadcast_in_dim(x[3], (2, 3), dims=(1,))   repeats x along the axes that are not in `dims`
"""

from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, Stack, StackAval, aval_of
from functorch_lite.core.linear import helper
from functorch_lite.core.numpy_code import numpy_form
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import ShapeError
from functorch_lite.primitives.declare import batch_unary, check_axes, linear

# --- broadcast_in_dim: repeat along new axes and along axes of size 1 -----------------------------------------------
broadcast_in_dim_p = Primitive("broadcast_in_dim", Kind.BROADCAST)


def broadcast_in_dim(x: Any, shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    """`x` with its axis i placed at `dims[i]` of `shape`; other axes repeat it. Sizes agree or are 1 in x."""
    return bind1(broadcast_in_dim_p, x, shape=shape, dims=dims)


def full(shape: tuple[int, ...], value: Any, dtype: np.dtype) -> Any:
    """An array of `shape` filled with the scalar `value`."""
    return bind1(broadcast_in_dim_p, dtype.type(value), shape=shape, dims=())


@shape_rules.register(broadcast_in_dim_p)
def _(x, *, shape, dims):
    check_axes("broadcast_in_dim", dims, len(shape))
    if len(dims) != x.ndim or any(n not in (1, shape[d]) for n, d in zip(x.shape, dims, strict=True)):
        raise ShapeError(f"broadcast_in_dim: shape {x.shape} does not broadcast to {shape} along axes {dims}.")
    return Aval(shape, x.dtype)


@eval_rules.register(broadcast_in_dim_p)
def _(xp, x, *, shape, dims):
    if xp is np:
        return _broadcast_view(x, shape, dims)
    x = xp.asarray(x)
    inner = [1] * len(shape)
    for axis, d in enumerate(dims):
        inner[d] = x.shape[axis]
    return xp.broadcast_to(x.reshape(inner), shape)


@numpy_form(broadcast_in_dim_p)
def _(x, *, shape, dims):
    if x.aval.shape and x.aval.size == Aval(shape, x.aval.dtype).size:
        return f"{{0}}.reshape({shape})"  # there is nothing to repeat
    if x.aval.shape or x.aval.dtype.char not in "fd" or 0 in shape:
        return None
    return f"np.ndarray({shape}, np.{x.aval.dtype}, {{0}}, 0, {(0,) * len(shape)})"


def _broadcast_view(x, shape, dims):
    strides = [0] * len(shape)
    if dims:
        for n, step, d in zip(x.shape, x.strides, dims, strict=True):
            if n != 1:
                strides[d] = step
    elif type(x) in (int, float, bool, complex):
        x = np.asarray(x)
    if 0 in shape:
        return np.empty(shape, x.dtype)
    if x.shape and not any(strides):  # one element, repeated
        x = x[(slice(1),) * len(dims)]
    try:
        return np.ndarray(shape, x.dtype, x, 0, tuple(strides))  # a read-only or writable view; 0.5 us, not 3.3
    except (ValueError, BufferError, TypeError):  # not contiguous, or a dtype with no buffer protocol
        return np.lib.stride_tricks.as_strided(np.asarray(x), shape, strides, writeable=False)


@batch_unary(broadcast_in_dim_p)
def _(x, *, shape, dims):
    return broadcast_in_dim(x, (x.shape[0], *shape), (0, *(d + 1 for d in dims)))


def _broadcast_transpose(ct, x, *, shape, dims):
    new = tuple(d for d in range(len(shape)) if d not in dims)
    ct = reduce_sum(ct, new) if new else ct
    kept = sorted(dims)
    if list(dims) != kept:
        raise ShapeError("broadcast_in_dim: dims must be increasing.")
    ones = tuple(i for i, n in enumerate(x.shape) if n == 1 and shape[dims[i]] != 1)
    if not ones:
        return ct
    ct = reduce_sum(ct, ones)
    rest = tuple(i for i in range(len(x.shape)) if i not in ones)
    return broadcast_in_dim(ct, x.shape, rest)


linear(broadcast_in_dim_p, _broadcast_transpose)

# --- reduce_sum: sum over axes ---------------------------------------------------------------------------------------
reduce_sum_p = Primitive("reduce_sum", Kind.REDUCTION)
_SUMMED_AS_THEY_ARE = frozenset(map(np.dtype, (np.float32, np.float64, np.complex64, np.complex128)))


def reduce_sum(x: Any, axes: tuple[int, ...]) -> Any:
    """Sum of `x` over `axes`, which go away; 16-bit floats are accumulated in float32. Same dtype."""
    return bind1(reduce_sum_p, x, axes=axes)


def reduced(name: str, x: Aval, axes: tuple[int, ...]) -> Aval:
    """The type of a reduction of `x` over `axes`."""
    check_axes(name, axes, x.ndim)
    return Aval(tuple(n for i, n in enumerate(x.shape) if i not in axes), x.dtype)


shape_rules.add(reduce_sum_p, lambda x, *, axes: reduced("reduce_sum", x, axes))


@eval_rules.register(reduce_sum_p)
def _(xp, x, *, axes):
    wide = dtypes.accumulator(x.dtype)
    if wide is x.dtype or wide == x.dtype:
        return xp.add.reduce(x, axes, x.dtype) if xp is np else xp.sum(x, axes, dtype=x.dtype)
    return xp.sum(x.astype(wide), axes, dtype=wide).astype(x.dtype)


@numpy_form(reduce_sum_p)
def _(x, *, axes):
    where = axes[0] if len(axes) == 1 else axes
    return f"np.add.reduce({{0}}, {where})" if x.aval.dtype in _SUMMED_AS_THEY_ARE else None


@batch_unary(reduce_sum_p)
def _(x, *, axes):
    return reduce_sum(x, tuple(a + 1 for a in axes))


linear(
    reduce_sum_p,
    lambda ct, x, *, axes: broadcast_in_dim(ct, x.shape, tuple(i for i in range(x.ndim) if i not in axes)),
)


def fit(ct: Any, x: Any) -> Any:
    """A cotangent of the output's shape as one for the operand `x`, which may be a rank-0 scalar."""
    return ct if ct.shape == x.shape else reduce_sum(ct, tuple(range(len(ct.shape))))


# --- iota: 0, 1, 2, ... along one axis --------------------------------------------------------------------------------
iota_p = Primitive("iota", Kind.BROADCAST)


def iota(dtype: np.dtype, shape: tuple[int, ...], axis: int = 0) -> Any:
    """The array of `shape` whose entries are their own index along `axis`."""
    return bind1(iota_p, dtype=np.dtype(dtype), shape=shape, axis=axis)


shape_rules.add(iota_p, lambda *, dtype, shape, axis: Aval(shape, dtype))
jvp_rules.absent(iota_p, "it has no inputs")
transpose_rules.absent(iota_p, "it has no inputs")
batch_rules.absent(iota_p, "it has no inputs")


@eval_rules.register(iota_p)
def _(xp, *, dtype, shape, axis):
    inner = [1] * len(shape)
    inner[axis] = shape[axis]
    return xp.broadcast_to(xp.arange(shape[axis]).astype(dtype).reshape(inner), shape)


# --- zeros: what the core fills a missing tangent with ----------------------------------------------------------------
@helper("zeros")
def zeros_of(aval: Aval | StackAval) -> Any:
    """Zeros of this type (a tangent or cotangent that is known to be zero)."""
    if isinstance(aval, StackAval):
        return Stack(aval.element)
    return full(aval.shape, 0, aval.dtype)


def zeros_like(x: Any) -> Any:
    """Zeros with the shape and dtype of `x`."""
    return zeros_of(aval_of(x))
