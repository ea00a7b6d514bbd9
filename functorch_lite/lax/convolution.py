# SPDX-License-Identifier: MIT
"""Products, convolutions and windows under JAX's names."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy import contractions, shaping
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.promotion import asarray, cast, promote
from functorch_lite.primitives import convolution, windows

_Ints = Sequence[int]

# --- products and convolutions ------------------------------------------------------------------------------------


def dot_general(
    lhs: Any, rhs: Any, dimension_numbers: Any, precision: Any = None, preferred_element_type: Any = None
) -> Any:
    """Products summed over the contracted axes: dimension_numbers = ((contract_l, contract_r), (batch_l, batch_r))."""
    (contract, batch) = dimension_numbers
    x, y = promote(lhs, rhs)
    if preferred_element_type is not None:
        x, y = cast(x, np.dtype(preferred_element_type)), cast(y, np.dtype(preferred_element_type))
    pairs = [tuple(tuple(int(a) for a in axes) for axes in pair) for pair in (contract, batch)]
    return contractions.product(x, y, *pairs)


def dot(lhs: Any, rhs: Any, precision: Any = None, preferred_element_type: Any = None) -> Any:
    """The product of vectors and matrices."""
    return contractions.dot(lhs, rhs)


def batch_matmul(lhs: Any, rhs: Any, precision: Any = None) -> Any:
    """The matrix product over the last two axes."""
    return contractions.matmul(lhs, rhs)


class ConvDimensionNumbers(NamedTuple):
    """Where the (batch, feature, *spatial) axes are: of the input, of the kernel (out, in, *spatial), of the output."""

    lhs_spec: tuple[int, ...]
    rhs_spec: tuple[int, ...]
    out_spec: tuple[int, ...]


def conv_dimension_numbers(lhs_shape: _Ints, rhs_shape: _Ints, dimension_numbers: Any) -> ConvDimensionNumbers:
    """`dimension_numbers` (None, or three strings like ("NHWC", "HWIO", "NHWC")) as axis positions."""
    n = len(lhs_shape)
    if isinstance(dimension_numbers, ConvDimensionNumbers):
        return dimension_numbers
    if dimension_numbers is None:
        order = tuple(range(n))
        return ConvDimensionNumbers(order, order, order)
    lhs, rhs, out = dimension_numbers
    if not len(lhs) == len(rhs) == len(out) == n == len(rhs_shape):
        raise ShapeError(
            f"convolution: dimension numbers {dimension_numbers} do not fit shapes {lhs_shape}, {rhs_shape}."
        )
    spatial = [c for c in rhs if c not in "OI"]
    return ConvDimensionNumbers(
        tuple(lhs.index(c) for c in ("N", "C", *spatial)),
        tuple(rhs.index(c) for c in ("O", "I", *spatial)),
        tuple(out.index(c) for c in ("N", "C", *spatial)),
    )


def padtype_to_pads(in_shape: _Ints, window_shape: _Ints, window_strides: _Ints, padding: Any) -> list[tuple[int, int]]:
    """ "SAME", "SAME_LOWER" or "VALID" as (low, high) for each axis."""
    kind = padding.upper()
    if kind == "VALID":
        return [(0, 0)] * len(in_shape)
    if kind not in ("SAME", "SAME_LOWER"):
        raise ArgumentError(f"padding must be 'SAME', 'SAME_LOWER', 'VALID' or pairs of integers, got {padding!r}.")
    found = []
    for n, k, s in zip(in_shape, window_shape, window_strides, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0)
        low = total // 2 if kind == "SAME" else total - total // 2
        found.append((low, total - low))
    return found


def _dilated(sizes, dilation):
    return [(n - 1) * d + 1 if n else 0 for n, d in zip(sizes, dilation, strict=True)]


def conv_general_dilated(
    lhs: Any,
    rhs: Any,
    window_strides: _Ints,
    padding: Any,
    lhs_dilation: _Ints | None = None,
    rhs_dilation: _Ints | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """The convolution (cross-correlation) of an input and a kernel; by default [N, C, *S] and [O, I, *K].

    padding: "SAME", "VALID", or (low, high) for each spatial axis.
    """
    x, w = promote(lhs, rhs)
    if preferred_element_type is not None:
        x, w = cast(x, np.dtype(preferred_element_type)), cast(w, np.dtype(preferred_element_type))
    spec = conv_dimension_numbers(x.shape, w.shape, dimension_numbers)
    x, w = shaping.transpose(x, spec.lhs_spec), shaping.transpose(w, spec.rhs_spec)
    ones = (1,) * (len(x.shape) - 2)
    lhs_dilation, rhs_dilation = tuple(lhs_dilation or ones), tuple(rhs_dilation or ones)
    if isinstance(padding, str):
        padding = padtype_to_pads(
            _dilated(x.shape[2:], lhs_dilation), _dilated(w.shape[2:], rhs_dilation), window_strides, padding
        )
    out = convolution.conv_general_dilated(
        x,
        w,
        tuple(window_strides),
        tuple(tuple(p) for p in padding),
        lhs_dilation,
        rhs_dilation,
        feature_group_count,
        batch_group_count,
    )
    return shaping.transpose(out, e.inverse_permutation(spec.out_spec))


def conv(
    lhs: Any, rhs: Any, window_strides: _Ints, padding: Any, precision: Any = None, preferred_element_type: Any = None
) -> Any:
    """The convolution of [N, C, *S] with [O, I, *K]."""
    return conv_general_dilated(lhs, rhs, window_strides, padding, preferred_element_type=preferred_element_type)


def conv_with_general_padding(
    lhs: Any,
    rhs: Any,
    window_strides: _Ints,
    padding: Any,
    lhs_dilation: _Ints | None,
    rhs_dilation: _Ints | None,
    precision: Any = None,
) -> Any:
    """`conv` with dilations."""
    return conv_general_dilated(lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation)


def _transpose_padding(k, s, padding):
    if padding == "SAME":
        total = k + s - 2
        low = k - 1 if s > k - 1 else -(-total // 2)
    else:
        total = k + s - 2 + max(k - s, 0)
        low = k - 1
    return low, total - low


def conv_transpose(
    lhs: Any,
    rhs: Any,
    strides: _Ints,
    padding: Any,
    rhs_dilation: _Ints | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """The "transposed" convolution: strides dilate the input. By default channels last: [N, *S, C] and [*K, I, O].

    transpose_kernel: reverse the kernel's spatial axes and exchange its channels, for the exact transpose of `conv`.
    """
    x, w = asarray(lhs), asarray(rhs)
    n = len(x.shape) - 2
    if dimension_numbers is None:
        letters = "HWD"[:n] if n <= 3 else "".join(chr(ord("a") + i) for i in range(n))
        dimension_numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    spec = conv_dimension_numbers(x.shape, w.shape, dimension_numbers)
    sizes = [w.shape[i] for i in spec.rhs_spec[2:]]
    sizes = _dilated(sizes, rhs_dilation or (1,) * n)
    pads = padding
    if isinstance(padding, str):
        pads = [_transpose_padding(k, s, padding.upper()) for k, s in zip(sizes, strides, strict=True)]
    if transpose_kernel:
        w = e.rev(w, tuple(spec.rhs_spec[2:]))
        w = shaping.swapaxes(w, spec.rhs_spec[0], spec.rhs_spec[1])
    return conv_general_dilated(x, w, (1,) * n, pads, strides, rhs_dilation, spec)


# --- windows ------------------------------------------------------------------------------------------------------

_WINDOWS = {
    "add": windows.reduce_window_sum,
    "sum": windows.reduce_window_sum,
    "max": windows.reduce_window_max,
    "min": windows.reduce_window_min,
    "maximum": windows.reduce_window_max,
    "minimum": windows.reduce_window_min,
}


def reduce_window(
    operand: Any,
    init_value: Any,
    computation: Callable[..., Any],
    window_dimensions: _Ints,
    window_strides: _Ints | None = None,
    padding: Any = "VALID",
    base_dilation: _Ints | None = None,
    window_dilation: _Ints | None = None,
) -> Any:
    """The sum, maximum or minimum (`computation`: add, max or min of lax or NumPy) over a window at each position."""
    x = asarray(operand)
    primitive = _WINDOWS.get(getattr(computation, "__name__", ""))
    if primitive is None:
        raise ArgumentError("reduce_window: the computation must be add, max or min (of lax, NumPy or fl.numpy).")
    n = len(x.shape)
    strides, dilation = tuple(window_strides or (1,) * n), tuple(window_dilation or (1,) * n)
    if base_dilation is not None and any(d != 1 for d in base_dilation):
        fill = cast(init_value, x.dtype)
        x = e.pad(x, fill, tuple((0, 0, d - 1) for d in base_dilation))
    if isinstance(padding, str):
        padding = padtype_to_pads(x.shape, _dilated(window_dimensions, dilation), strides, padding)
    return primitive(x, tuple(window_dimensions), strides, tuple(tuple(p) for p in padding), dilation)
