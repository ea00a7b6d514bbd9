# SPDX-License-Identifier: MIT
"""`functorch_lite.numpy.fft`: numpy.fft on traced arrays. Plain arrays go to NumPy (or CuPy) itself.

Single precision stays single, as in NumPy 2; integers and booleans are computed in float64.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis, reduction_axes
from functorch_lite.numpy.dispatch import public
from functorch_lite.numpy.promotion import asarray, to_float
from functorch_lite.primitives.fft import fft as transform

fftfreq = np.fft.fftfreq
rfftfreq = np.fft.rfftfreq

_INVERSE = ("ifft", "irfft")


def _single_or_double(x):
    x = to_float(asarray(x))
    return e.convert(x, dtypes.accumulator(x.dtype)) if x.dtype != dtypes.accumulator(x.dtype) else x


def _lengths(x, kind, s, axes):
    """The sizes in the time domain; by default those of x (irfft: of its mirrored spectrum)."""
    sizes = [x.shape[a] for a in axes]
    if kind == "irfft":
        sizes[-1] = 2 * (sizes[-1] - 1)
    given = list(s) if s is not None else [None] * len(axes)
    if len(given) != len(axes):
        raise ArgumentError("Shape and axes have different lengths.")
    lengths = tuple(n if g is None or g == -1 else int(g) for g, n in zip(given, sizes, strict=True))
    if min(lengths, default=1) < 1:
        raise ArgumentError(f"Invalid number of FFT data points ({min(lengths)}) specified.")
    return lengths


def _fitted(x, kind, lengths, axes):
    """x cut off or filled up with zeros to the sizes that the transform takes."""
    wanted = list(lengths)
    if kind == "irfft":
        wanted[-1] = lengths[-1] // 2 + 1
    config = [(0, 0, 0)] * len(x.shape)
    for axis, n in zip(axes, wanted, strict=True):
        config[axis] = (0, n - x.shape[axis], 0)
    return e.pad(x, x.dtype.type(0), tuple(config)) if any(c[1] for c in config) else x


def _scaled(out, kind, lengths, norm):
    """The primitives divide by n in the inverse transform only; `norm` asks for another share."""
    if norm not in (None, "backward", "ortho", "forward"):
        raise ArgumentError(f'Invalid norm value {norm}; should be "backward", "ortho" or "forward".')
    n = math.prod(lengths)
    inverse = kind in _INVERSE
    factor = 1.0
    if norm == "ortho":
        factor = math.sqrt(n) if inverse else 1 / math.sqrt(n)
    elif norm == "forward":
        factor = n if inverse else 1 / n
    return out if factor == 1 else e.mul(out, out.dtype.type(factor))


def _run(a, kind, s, axes, norm):
    """The transform over the distinct axes `axes`; the last of them is the one of which rfft keeps half."""
    x = _single_or_double(a)
    axes = tuple(normal_axis(int(i), len(x.shape)) for i in axes)
    lengths = _lengths(x, kind, s, axes)
    if kind == "rfft":
        x = e.real(x) if dtypes.is_complex(x.dtype) else x
    else:
        x = e.convert(x, dtypes.complex_dtype(x.dtype))
    if not axes:
        return x
    rest = tuple(i for i in range(len(x.shape)) if i not in axes)
    order = (*rest, *axes)
    out = transform(e.permute_dims(_fitted(x, kind, lengths, axes), order), kind, lengths)
    return e.permute_dims(_scaled(out, kind, lengths, norm), e.inverse_permutation(order))


def _one(numpy_function: Any, kind: str) -> Callable[..., Any]:
    def body(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None, out: None = None) -> Any:
        return _run(a, kind, None if n is None else (n,), (axis,), norm)

    body.__doc__ = f"numpy.fft.{kind}: over one axis, cut off or filled up with zeros to length n."
    return public(numpy_function)(body)


def _many(numpy_function: Any, kind: str, default_axes: Any) -> Callable[..., Any]:
    def body(a: Any, s: Any = None, axes: Any = default_axes, norm: str | None = None, out: None = None) -> Any:
        if axes is None:
            axes = range(len(asarray(a).shape))[-len(s) :] if s is not None else range(len(asarray(a).shape))
        return _run(a, kind, s, tuple(axes), norm)

    body.__doc__ = f"numpy.fft.{numpy_function.__name__}: over several axes, each cut off or filled up to s."
    return public(numpy_function)(body)


fft = _one(np.fft.fft, "fft")
ifft = _one(np.fft.ifft, "ifft")
rfft = _one(np.fft.rfft, "rfft")
irfft = _one(np.fft.irfft, "irfft")
fft2 = _many(np.fft.fft2, "fft", (-2, -1))
ifft2 = _many(np.fft.ifft2, "ifft", (-2, -1))
rfft2 = _many(np.fft.rfft2, "rfft", (-2, -1))
irfft2 = _many(np.fft.irfft2, "irfft", (-2, -1))
fftn = _many(np.fft.fftn, "fft", None)
ifftn = _many(np.fft.ifftn, "ifft", None)
rfftn = _many(np.fft.rfftn, "rfft", None)
irfftn = _many(np.fft.irfftn, "irfft", None)

_OPPOSITE = {None: "forward", "backward": "forward", "forward": "backward", "ortho": "ortho"}


def _opposite(norm):
    if norm not in _OPPOSITE:
        raise ArgumentError(f'Invalid norm value {norm}; should be "backward", "ortho" or "forward".')
    return _OPPOSITE[norm]


@public(np.fft.hfft)
def hfft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None, out: None = None) -> Any:
    """The real spectrum of a signal with Hermitian symmetry, of which `a` is the first half."""
    x = _single_or_double(a)
    x = e.conj(x) if dtypes.is_complex(x.dtype) else x
    return irfft(x, n, axis, _opposite(norm))


@public(np.fft.ihfft)
def ihfft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None, out: None = None) -> Any:
    """The first half of the signal whose real spectrum is `a`."""
    return e.conj(rfft(a, n, axis, _opposite(norm)))


def _rolled(x, axes, forward):
    axes = reduction_axes(axes, len(x.shape))
    for axis in axes:
        n = x.shape[axis]
        cut = n - n // 2 if forward else n // 2
        if 0 < cut < n:
            x = e.concatenate([e.slice_in_axis(x, cut, n, axis), e.slice_in_axis(x, 0, cut, axis)], axis)
    return x


@public(np.fft.fftshift)
def fftshift(x: Any, axes: int | Sequence[int] | None = None) -> Any:
    """x with the zero frequency in the middle of the axes."""
    return _rolled(asarray(x), axes, True)


@public(np.fft.ifftshift)
def ifftshift(x: Any, axes: int | Sequence[int] | None = None) -> Any:
    """x with the zero frequency back at the start of the axes."""
    return _rolled(asarray(x), axes, False)
