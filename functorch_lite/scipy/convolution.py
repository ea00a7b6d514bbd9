# SPDX-License-Identifier: MIT
"""Convolution and correlation of signals with any number of axes, directly or by Fourier transforms.

    convolve:   z[p] = sum over k of x[p - k] y[k]         correlate:  z[p] = sum over k of x[p + k] conj(y[k])

mode "full" keeps every p at which the two overlap, "same" the middle part with the size of the first, "valid" those
where one lies inside the other. All are bilinear, so derivatives are convolutions again.
"""

import math
from typing import Any

from functorch_lite import numpy as fnp
from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy import fft
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import reduction_axes
from functorch_lite.numpy.functions import window_sums
from functorch_lite.numpy.promotion import asarray, broadcast_shapes, cast, operands_text, promote
from functorch_lite.scipy.dispatch import public

PRODUCTS_PER_BUTTERFLY = 20
"""A butterfly of the three transforms takes about as long as so many products of the direct sum (measured on x86)."""

# --- what all share -------------------------------------------------------------------------------------------------


def _checked(name: str, x: Any, y: Any, mode: str) -> tuple[Any, Any]:
    """The operands in their common dtype. Raises ShapeError where their ranks differ or one is empty."""
    if mode not in ("full", "same", "valid"):
        raise ArgumentError(f"{name}: mode must be 'full', 'same' or 'valid', got {mode!r}.")
    x, y = promote(asarray(x), asarray(y))
    if len(x.shape) != len(y.shape):
        raise ShapeError(f"{name}: {operands_text((x, y))} must have the same number of axes.")
    if 0 in x.shape or 0 in y.shape:
        raise ShapeError(f"{name}: {operands_text((x, y))} must not be empty.")
    return x, y


def _is_inside(name: str, x: Any, y: Any, axes: tuple[int, ...]) -> bool:
    """Whether y fits into x along every axis; refuse two of which neither fits into the other."""
    if all(x.shape[i] >= y.shape[i] for i in axes):
        return True
    if all(x.shape[i] <= y.shape[i] for i in axes):
        return False
    raise ShapeError(f"{name}: {operands_text((x, y))}: with mode 'valid' one must fit into the other in every axis.")


def _flipped(y: Any) -> Any:
    """y reversed along every axis, and conjugated."""
    y = e.rev(y, tuple(range(len(y.shape))))
    return e.conj(y) if dtypes.is_complex(y.dtype) else y


def _direct(x: Any, y: Any, mode: str) -> Any:
    """The convolution as one sum of products for each output; with mode "valid" y fits into x."""
    if mode == "valid":
        pads = tuple((0, 0) for _ in y.shape)
    elif mode == "full":
        pads = tuple((k - 1, k - 1) for k in y.shape)
    else:
        pads = tuple((k // 2, (k - 1) // 2) for k in y.shape)
    return window_sums(x, e.rev(y, tuple(range(len(y.shape)))), pads)


def _fast_length(n: int) -> int:
    """The least m >= n without prime factors above 5: transforms of such lengths are quick."""
    best = 1 << (n - 1).bit_length()
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            best = min(best, threes << max(-(-n // threes) - 1, 0).bit_length())
            threes *= 3
        fives *= 5
    return best


def _by_transforms(x: Any, y: Any, axes: tuple[int, ...], mode: str) -> Any:
    """The convolution over `axes`: the transform back of the product of the transforms, in floating point."""
    full = [x.shape[i] + y.shape[i] - 1 for i in axes]
    lengths = [_fast_length(n) for n in full]
    if dtypes.is_complex(x.dtype):
        there, back = fft.fftn, fft.ifftn
    else:
        there, back = fft.rfftn, fft.irfftn
    out = back(there(x, lengths, axes) * there(y, lengths, axes), lengths, axes)
    for i, n in zip(axes, full, strict=True):
        size = {"full": n, "same": x.shape[i], "valid": x.shape[i] - y.shape[i] + 1}[mode]
        start = (n - size) // 2
        out = e.slice_in_axis(out, start, start + size, i)
    return out


def _is_quicker_by_transforms(x: Any, y: Any) -> bool:
    if not dtypes.is_inexact(x.dtype):  # sums of integers are exact
        return False
    full = math.prod(n + k - 1 for n, k in zip(x.shape, y.shape, strict=True))
    products = full * min(math.prod(x.shape), math.prod(y.shape))
    return products > PRODUCTS_PER_BUTTERFLY * full * max(math.log2(full), 1.0) if full > 1 else False


# --- SciPy's functions ----------------------------------------------------------------------------------------------


@public("scipy.signal.convolve")
def convolve(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    """The convolution of two arrays [...] of one rank, in their common dtype.

    method: "direct" sums products, "fft" goes through Fourier transforms (integers are rounded), "auto" takes what is
    quicker for the shapes and floating-point dtype; integers are summed directly.

    >>> convolve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5]))
    array([0. , 1. , 2.5, 4. , 1.5])

    Raises ShapeError where ranks differ, an array is empty or, with mode "valid", neither fits into the other.
    """
    x, y = _checked("convolve", in1, in2, mode)
    if not x.shape:
        return fnp.multiply(x, y)
    if mode == "valid" and not _is_inside("convolve", x, y, tuple(range(len(x.shape)))):
        x, y = y, x
    return _by_method("convolve", x, y, mode, method)


def _by_method(name, x, y, mode, method):
    if method not in ("auto", "direct", "fft"):
        raise ArgumentError(f"{name}: method must be 'auto', 'direct' or 'fft', got {method!r}.")
    if method == "direct" or (method == "auto" and not _is_quicker_by_transforms(x, y)):
        return _direct(x, y, mode)
    out = _by_transforms(x, y, tuple(range(len(x.shape))), mode)
    return cast(fnp.rint(out) if not dtypes.is_inexact(x.dtype) else out, x.dtype)


@public("scipy.signal.correlate")
def correlate(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    """The cross-correlation of two arrays of one rank; `method` as in `convolve`.

    Raises ShapeError as `convolve` does.
    """
    x, y = _checked("correlate", in1, in2, mode)
    y = _flipped(y)
    if not x.shape:
        return fnp.multiply(x, y)
    if mode == "valid" and not _is_inside("correlate", x, y, tuple(range(len(x.shape)))):
        x, y = y, x
    return _by_method("correlate", x, y, mode, method)


@public("scipy.signal.fftconvolve")
def fftconvolve(in1: Any, in2: Any, mode: str = "full", axes: Any = None) -> Any:
    """The convolution over `axes` (None: all) by Fourier transforms; other axes broadcast. Integers give float64.

    Raises ShapeError where ranks differ or the other axes do not broadcast.
    """
    x, y = _checked("fftconvolve", in1, in2, mode)
    if not x.shape:
        return fnp.multiply(x, y)
    axes = reduction_axes(axes, len(x.shape))
    others = [i for i in range(len(x.shape)) if i not in axes]
    broadcast_shapes(*(tuple(v.shape[i] for i in others) for v in (x, y)))
    if mode == "valid" and not _is_inside("fftconvolve", x, y, axes):
        x, y = y, x
    return _by_transforms(x, y, axes, mode)


_BOUNDARIES = {"wrap": "wrap", "symm": "symmetric"}


def _bordered(name: str, x: Any, pads: Any, boundary: str, fillvalue: Any) -> Any:
    if boundary in _BOUNDARIES:
        return fnp.pad(x, pads, mode=_BOUNDARIES[boundary])
    if boundary != "fill":
        raise ArgumentError(f"{name}: boundary must be 'fill', 'wrap' or 'symm', got {boundary!r}.")
    return fnp.pad(x, pads, mode="constant", constant_values=cast(fillvalue, x.dtype))


def _in_the_plane(name: str, x: Any, y: Any, mode: str, boundary: str, fillvalue: Any) -> Any:
    """The sums of y with the windows of x, which is continued past its border by `boundary`."""
    if mode == "valid":
        return window_sums(x, y, ((0, 0), (0, 0)))
    pads = [(k - 1, k - 1) for k in y.shape]
    if mode == "same":
        before = [k // 2 if name == "convolve2d" else (k - 1) // 2 for k in y.shape]
        pads = [(b, k - 1 - b) for b, k in zip(before, y.shape, strict=True)]
    return window_sums(_bordered(name, x, pads, boundary, fillvalue), y, ((0, 0), (0, 0)))


def _planes(name, in1, in2, mode):
    x, y = _checked(name, in1, in2, mode)
    if len(x.shape) != 2:
        raise ShapeError(f"{name}: expected two matrices, got shapes {x.shape} and {y.shape}.")
    return x, y, mode == "valid" and not _is_inside(name, x, y, (0, 1))


@public("scipy.signal.convolve2d")
def convolve2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    """The convolution of two matrices; past its border `in1` is `fillvalue`, or continued by "wrap" or "symm".

    >>> convolve2d(np.eye(2), np.ones((2, 2)), mode="same", boundary="wrap")
    array([[2., 2.],
           [2., 2.]])

    Raises ShapeError for what is no matrix or, with mode "valid", where neither fits into the other.
    """
    x, y, turned = _planes("convolve2d", in1, in2, mode)
    x, y = (y, x) if turned else (x, y)
    return _in_the_plane("convolve2d", x, e.rev(y, (0, 1)), mode, boundary, fillvalue)


@public("scipy.signal.correlate2d")
def correlate2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    """The cross-correlation of two matrices; `boundary` as in `convolve2d`. Raises ShapeError as that does."""
    x, y, turned = _planes("correlate2d", in1, in2, mode)
    x, y = (y, x) if turned else (x, y)
    y = e.conj(y) if dtypes.is_complex(y.dtype) else y
    out = _in_the_plane("correlate2d", x, y, mode, boundary, fillvalue)
    return e.rev(out, (0, 1)) if turned else out
