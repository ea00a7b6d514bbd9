# SPDX-License-Identifier: MIT
"""Spectra of signals in short windows: stft and its inverse, welch and csd; detrend.

A signal x [..., n] is cut into segments of `nperseg` samples, `nperseg - noverlap` apart; each is multiplied by the
window and transformed. Frequencies are in the unit of `fs` (samples per unit of time), times in its inverse. Windows
may be traced arrays, names and tuples as scipy.signal.get_window takes them.

Source: P. Welch, "The use of the fast Fourier transform for the estimation of power spectra", 1967; D. Griffin, J. Lim,
"Signal estimation from modified short-time Fourier transform", 1984.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from functorch_lite import numpy as fnp
from functorch_lite.backends.registry import constant
from functorch_lite.core import dtypes
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy import fft
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.promotion import asarray, broadcast_shapes, broadcast_to, cast, operands_text, to_float
from functorch_lite.scipy.dispatch import check_known, of_scipy, public
from functorch_lite.scipy.segments import filled, overlapped, segments

_c64 = np.dtype(np.complex64)

# --- detrend --------------------------------------------------------------------------------------------------------


@public("scipy.signal.detrend")
def detrend(data: Any, axis: int = -1, type: str = "linear", bp: Any = 0, overwrite_data: bool = False) -> Any:
    """The data less its mean ("constant"), or less the straight line of least squares ("linear"), along an axis.

    bp: for "linear", where a new line begins: known integers. Integers are computed in float64.
    """
    x = asarray(data)
    axis = normal_axis(axis, len(x.shape))
    if type in ("constant", "c"):
        return fnp.subtract(x, fnp.mean(x, axis=axis, keepdims=True))
    if type not in ("linear", "l"):
        raise ArgumentError(f"detrend: type must be 'linear' or 'constant', got {type!r}.")
    check_known("detrend", bp=bp)
    n = x.shape[axis]
    borders = np.unique(np.concatenate([[0], np.atleast_1d(np.asarray(bp)), [n]]))
    if borders[-1] > n:
        raise ArgumentError(f"detrend: the break points {list(borders)} must lie within the {n} elements of the axis.")
    x = e.moveaxis(x if x.dtype.char in "fdFD" else cast(x, np.dtype(np.float64)), axis, len(x.shape) - 1)
    parts = [_without_line(x[..., start:stop]) for start, stop in zip(borders[:-1], borders[1:], strict=True)]
    return e.moveaxis(fnp.concatenate(parts, axis=-1), len(x.shape) - 1, axis)


def _without_line(x):
    """x [..., n] less its projection on the orthonormal basis of straight lines."""
    n = x.shape[-1]
    ramp = np.arange(n) - (n - 1) / 2
    basis = np.stack([np.full(n, n**-0.5), ramp / np.sqrt(np.sum(ramp**2))] if n > 1 else [np.ones(n)])
    basis = constant(basis.astype(x.dtype))
    return x - (x @ basis.T) @ basis


# --- windows --------------------------------------------------------------------------------------------------------


class _Cut(NamedTuple):
    """How a signal is cut: the window [nperseg], samples a segment, from one segment to the next, a transform."""

    window: Any
    size: int
    step: int
    transformed: int


def _cut_of(name, window, nperseg, noverlap, nfft, n):
    """How a signal of n samples is cut."""
    check_known(name, nperseg=nperseg, noverlap=noverlap, nfft=nfft)
    window, nperseg = _window_of(name, window, nperseg, n)
    nfft = nperseg if nfft is None else int(nfft)
    noverlap = nperseg // 2 if noverlap is None else int(noverlap)
    _check_sizes(name, nperseg, noverlap, nfft)
    return _Cut(window, nperseg, nperseg - noverlap, nfft)


def _check_sizes(name, nperseg, noverlap, nfft):
    if nfft < nperseg:
        raise ArgumentError(f"{name}: nfft must be at least nperseg, got {nfft} and {nperseg}.")
    if noverlap >= nperseg:
        raise ArgumentError(f"{name}: noverlap must be less than nperseg, got {noverlap} and {nperseg}.")


def _window_of(name, window, nperseg, n):
    """The window and its length; `nperseg` (default 256 for a named one) is cut to the signal's length n."""
    if nperseg is not None and int(nperseg) < 1:
        raise ArgumentError(f"{name}: nperseg must be a positive integer, got {nperseg}.")
    if isinstance(window, (str, tuple)):
        nperseg = 256 if nperseg is None else int(nperseg)
        if nperseg > n:
            warnings.warn(f"nperseg = {nperseg} is greater than the signal length {n}, using that.", stacklevel=5)
        nperseg = min(nperseg, n)
        return _named_window(window, nperseg), nperseg
    window = asarray(window)
    if len(window.shape) != 1 or window.shape[0] > n or (nperseg or window.shape[0]) != window.shape[0]:
        raise ShapeError(
            f"{name}: expected a window [nperseg] no longer than the signal, got shape {window.shape} for "
            f"{'a signal' if nperseg is None else f'nperseg {nperseg} and a signal'} of {n} samples."
        )
    return window, window.shape[0]


def _named_window(name, size):
    return constant(of_scipy("scipy.signal.get_window")(name, size))


def _spectra(x, cut, trend, onesided):
    """The transforms [..., count, frequencies] of the segments of x [..., n]."""
    parts: Any = segments(x, cut.size, cut.step)
    if callable(trend):
        parts = trend(parts)
    elif trend:
        parts = detrend(parts, type=trend)
    window = cut.window if dtypes.is_complex(cut.window.dtype) else cast(cut.window, parts.dtype)
    parts = fnp.multiply(parts, window)
    return fft.rfft(parts, cut.transformed) if onesided else fft.fft(parts, cut.transformed)


def _frequencies(cut, fs, onesided):
    return constant((np.fft.rfftfreq if onesided else np.fft.fftfreq)(cut.transformed, 1 / fs))


def _power(window):
    return fnp.real(fnp.sum(fnp.multiply(window, window)))


# --- short-time Fourier transforms ----------------------------------------------------------------------------------


def _odd_border(x, size):
    """x [..., n] continued at both ends by `size` samples, turned about the end points."""
    mirrored = fnp.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(size, size)], mode="reflect")
    n = x.shape[-1]
    low = 2 * x[..., :1] - mirrored[..., :size]
    return fnp.concatenate([low, x, 2 * x[..., -1:] - mirrored[..., size + n :]], axis=-1)


def _bordered(x, size, boundary):
    if boundary is None:
        return x
    if boundary == "zeros":
        return filled(x, size, size)
    if boundary not in ("even", "odd", "constant"):
        raise ArgumentError(f"stft: boundary must be 'even', 'odd', 'constant', 'zeros' or None, got {boundary!r}.")
    if boundary != "constant" and size > x.shape[-1] - 1:
        raise ArgumentError(f"stft: boundary {boundary!r} needs more than {size} samples, got {x.shape[-1]}.")
    if boundary == "odd":
        return _odd_border(x, size)
    mode = "reflect" if boundary == "even" else "edge"
    return fnp.pad(x, [(0, 0)] * (len(x.shape) - 1) + [(size, size)], mode=mode)


@public("scipy.signal.stft")
def stft(
    x: Any, fs: Any = 1.0, window: Any = "hann", nperseg: int | None = 256, noverlap: int | None = None,
    nfft: int | None = None, detrend: Any = False, return_onesided: bool = True, boundary: str | None = "zeros",
    padded: bool = True, axis: int = -1, scaling: str = "spectrum",
) -> tuple[Any, Any, Any]:
    """(frequencies [f], times [t], transforms [..., f, ..., t] of the segments of x [..., n, ...], complex).

    The axis of x becomes f, and t is the last. boundary: how x is continued by half a segment at both ends; padded:
    filled up with zeros to whole segments. scaling: "spectrum" (divided by the window's sum) or "psd". Of complex x
    both sides are given. complex64 for float32.

    >>> f, t, z = stft(np.sin(np.arange(64.0)), nperseg=16)
    >>> f.shape, t.shape, z.shape
    ((9,), (9,), (9, 9))

    Raises ArgumentError and ShapeError where sizes do not go together.
    """
    if scaling not in ("spectrum", "psd"):
        raise ArgumentError(f"stft: scaling must be 'spectrum' or 'psd', got {scaling!r}.")
    x = to_float(asarray(x))
    axis, rank = normal_axis(axis, len(x.shape)), len(x.shape)
    dtype = dtypes.promote((x.dtype, _c64))
    cut = _cut_of("stft", window, nperseg, noverlap, nfft, x.shape[axis])
    onesided = return_onesided and not dtypes.is_complex(x.dtype)
    if onesided != return_onesided:
        warnings.warn("Input data is complex, switching to return_onesided=False", stacklevel=4)
    x = _bordered(e.moveaxis(x, axis, rank - 1), cut.size // 2, boundary)
    if padded:
        x = filled(x, -(x.shape[-1] - cut.size) % cut.step % cut.size)
    trend = detrend if not callable(detrend) or axis == rank - 1 else _along(detrend, axis, rank)
    out = _spectra(x, cut, trend, onesided)
    scale = fnp.sum(cut.window) if scaling == "spectrum" else fnp.sqrt(fs * _power(cut.window))
    out = cast(fnp.divide(out, scale), dtype)
    half = cut.size / 2
    times = constant(np.arange(half, x.shape[-1] - half + 1, cut.step)) / fs
    times = times if boundary is None else times - half / fs
    return _frequencies(cut, fs, onesided), times, e.moveaxis(fnp.swapaxes(out, -1, -2), rank - 1, axis)


def _along(trend, axis, rank):
    """`trend`, a function of arrays that have the samples at `axis`, of segments [..., count, size]."""
    return lambda d: fnp.moveaxis(trend(fnp.moveaxis(d, -1, axis - rank)), axis - rank, -1)


@public("scipy.signal.istft")
def istft(
    Zxx: Any, fs: Any = 1.0, window: Any = "hann", nperseg: int | None = None, noverlap: int | None = None,
    nfft: int | None = None, input_onesided: bool = True, boundary: bool = True, time_axis: int = -1,
    freq_axis: int = -2, scaling: str = "spectrum",
) -> tuple[Any, Any]:
    """(times [n], the signal [..., n] of least squares whose `stft` is Zxx [..., f, ..., t]).

    Real if `input_onesided`. boundary: half a segment is cut off at both ends. Where the squares of the windows add up
    to nothing the signal is not known: a warning, and zeros.

    >>> x = np.sin(np.arange(64.0))
    >>> np.allclose(istft(stft(x, nperseg=16)[2])[1], x)
    True

    Raises ArgumentError and ShapeError where sizes do not go together.
    """
    if scaling not in ("spectrum", "psd"):
        raise ArgumentError(f"istft: scaling must be 'spectrum' or 'psd', got {scaling!r}.")
    z = to_float(asarray(Zxx))
    rank = len(z.shape)
    if rank < 2:
        raise ShapeError(f"istft: expected an array with a frequency and a time axis, got shape {z.shape}.")
    f, t = normal_axis(freq_axis, rank), normal_axis(time_axis, rank)
    if f == t:
        raise ArgumentError("istft: the time and the frequency axis must differ.")
    order = (*(i for i in range(rank) if i not in (f, t)), t, f)
    z = e.permute_dims(e.convert(z, dtypes.complex_dtype(z.dtype)), order)
    cut = _cut_back(z, window, nperseg, noverlap, nfft, input_onesided)
    parts = (fft.irfft if input_onesided else fft.ifft)(z, cut.transformed)[..., : cut.size]
    real_window = cut.window if cut.window.dtype.kind == "c" else cast(cut.window, dtypes.real_dtype(parts.dtype))
    scale = fnp.sum(real_window) if scaling == "spectrum" else fnp.sqrt(fs * _power(real_window))
    x = overlapped(fnp.multiply(parts, real_window * scale), cut.step)
    norm = overlapped(broadcast_to(real_window * real_window, (z.shape[-2], cut.size)), cut.step)
    if boundary:
        trim = np.s_[..., cut.size // 2 : -(cut.size // 2)]
        x, norm = x[trim], norm[trim]
    _warn_of_gaps(norm, boundary)
    x = fnp.divide(x, fnp.where(norm > 1e-10, norm, 1.0))
    x = cast(fnp.real(x) if input_onesided else x, dtypes.real_dtype(z.dtype) if input_onesided else z.dtype)
    if rank > 2 and t != rank - 1:
        x = fnp.moveaxis(x, -1, t - 1 if f < t else t)
    return constant(np.arange(x.shape[0])) / fs, x  # SciPy counts along the first axis, whatever the time axis


def _cut_back(z, window, nperseg, noverlap, nfft, onesided):
    """The `_Cut` for z [..., t, f]; the number of frequencies tells the sizes that are not given."""
    check_known("istft", nperseg=nperseg, noverlap=noverlap, nfft=nfft)
    default = 2 * (z.shape[-1] - 1) if onesided else z.shape[-1]
    size = default if nperseg is None else int(nperseg)
    if nfft is None:
        nfft = size if onesided and size == default + 1 else default
    noverlap = size // 2 if noverlap is None else int(noverlap)
    _check_sizes("istft", size, noverlap, int(nfft))
    if isinstance(window, (str, tuple)):
        return _Cut(_named_window(window, size), size, size - noverlap, int(nfft))
    window = asarray(window)
    if window.shape != (size,):
        raise ShapeError(f"istft: expected a window of shape ({size},), got {window.shape}.")
    return _Cut(window, size, size - noverlap, int(nfft))


def _warn_of_gaps(norm, boundary):
    if not isinstance(norm, Tracer) and bool(fnp.any(norm <= 1e-10)):
        why = "" if boundary else " Possibly due to missing boundary"
        warnings.warn(f"NOLA condition failed, STFT may not be invertible.{why}", stacklevel=5)


# --- averaged spectra -----------------------------------------------------------------------------------------------


@public("scipy.signal.welch")
def welch(
    x: Any, fs: Any = 1.0, window: Any = "hann", nperseg: int | None = None, noverlap: int | None = None,
    nfft: int | None = None, detrend: Any = "constant", return_onesided: bool = True, scaling: str = "density",
    axis: int = -1, average: str = "mean",
) -> tuple[Any, Any]:
    """(frequencies [f], power spectral density [..., f, ...] of x [..., n, ...]): `csd` of x with itself, real.

    >>> f, power = welch(np.sin(np.arange(256.0)), nperseg=64)
    >>> float(f[np.argmax(power)])                                    # 1 / (2 pi) = 0.159
    0.15625
    """
    x = asarray(x)
    cut = (window, nperseg, noverlap, nfft)
    return _averaged("welch", x, x, fs, cut, detrend, return_onesided, scaling, axis, average)


@public("scipy.signal.csd")
def csd(
    x: Any, y: Any, fs: Any = 1.0, window: Any = "hann", nperseg: int | None = None, noverlap: int | None = None,
    nfft: int | None = None, detrend: Any = "constant", return_onesided: bool = True, scaling: str = "density",
    axis: int = -1, average: str = "mean",
) -> tuple[Any, Any]:
    """(frequencies [f], cross power spectral density [..., f, ...]): the mean of conj(X) Y over the segments, complex.

    The shorter of x and y [..., n, ...] is filled up with zeros; other axes broadcast. scaling: "density" (power per
    frequency) or "spectrum" (power); average: "mean" or "median" (of both parts, unbiased).
    """
    same = x is y
    x = asarray(x)
    y = x if same else asarray(y)
    cut = (window, nperseg, noverlap, nfft)
    return _averaged("csd", x, y, fs, cut, detrend, return_onesided, scaling, axis, average)


def _averaged(name, x, y, fs, cut, trend, onesided, scaling, axis, average):
    same, rank = x is y, len(x.shape)
    dtype = dtypes.promote((x.dtype, y.dtype, _c64))
    place = normal_axis(axis, rank) - rank
    x, y = (fnp.moveaxis(to_float(v), place, -1) for v in (x, y))
    lead, n = broadcast_shapes(x.shape[:-1], y.shape[:-1]), max(x.shape[-1], y.shape[-1])
    if not n:
        raise ShapeError(f"{name}: {operands_text((x, y))}: expected signals of at least one sample.")
    x, y = (broadcast_to(filled(v, n - v.shape[-1]), (*lead, n)) for v in (x, y))
    cut = _cut_of(name, *cut, n)
    onesided = onesided and not dtypes.is_complex(x.dtype)
    if onesided and dtypes.is_complex(y.dtype):
        raise ArgumentError(f"{name}: `y` is complex and `x` is not: give return_onesided=False.")
    if callable(trend) and place != -1:
        trend = _along(trend, place, 0)
    left = _spectra(x, cut, trend, onesided)
    if same:
        out = fnp.square(e.real(left)) + fnp.square(e.imag(left))
    else:
        out = e.conj(left) * _spectra(y, cut, trend, onesided)
    out = fnp.multiply(out, _density(name, cut, fs, scaling, onesided))
    out = _average(name, out, average)
    out = cast(out, dtypes.real_dtype(dtype) if same else dtype)
    return _frequencies(cut, fs, onesided), fnp.moveaxis(out, -1, place)


def _density(name, cut, fs, scaling, onesided):
    """The factor of each frequency; what is not its own mirror image counts twice in a one-sided spectrum."""
    if scaling not in ("density", "spectrum"):
        raise ArgumentError(f"{name}: scaling must be 'density' or 'spectrum', got {scaling!r}.")
    whole = fnp.sum(cut.window)
    scale = 1 / (fs * _power(cut.window)) if scaling == "density" else 1 / (whole * whole)
    counts = np.ones(cut.transformed // 2 + 1 if onesided else cut.transformed)
    if onesided:
        counts[1 : -1 if cut.transformed % 2 == 0 else None] = 2
    return constant(counts) * scale


def _average(name, x, average):
    """Over the segments of x [..., count, frequencies]."""
    if average == "mean" or x.shape[-2] == 1:
        return fnp.mean(x, axis=-2)
    if average != "median":
        raise ArgumentError(f"{name}: average must be 'mean' or 'median', got {average!r}.")
    if dtypes.is_complex(x.dtype):
        middle = e.make_complex(*(fnp.median(v, axis=-2) for v in (e.real(x), e.imag(x))))
    else:
        middle = fnp.median(x, axis=-2)
    even = 2.0 * np.arange(1, (x.shape[-2] - 1) // 2 + 1)
    return fnp.divide(middle, middle.dtype.type(1 + np.sum(1 / (even + 1) - 1 / even)))
