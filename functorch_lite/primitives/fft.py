# SPDX-License-Identifier: MIT
"""Discrete Fourier transforms over the last axes: fft, ifft, rfft and irfft, each linear.

    fft:   y_k = sum over j of x_j exp(-2 pi i j k / n)       ifft: the inverse, with the factor 1 / n
    rfft:  the first n // 2 + 1 of these for real x           irfft: its inverse, real of length n

`lengths` are the sizes in the time domain. The matrix of the transform is symmetric, so fft and ifft are their own
transposes (transposition does not conjugate). Values are NumPy's: single precision stays single.
"""

import math
from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import ArgumentError, DTypeError, ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import zero_like
from functorch_lite.primitives.complex_parts import conj, real
from functorch_lite.primitives.declare import batch_unary, linear
from functorch_lite.primitives.elementwise import mul
from functorch_lite.primitives.movement import pad

# --- fft ------------------------------------------------------------------------------------------------------------
fft_p = Primitive("fft", Kind.OPAQUE)
KINDS = ("fft", "ifft", "rfft", "irfft")


def fft(x: Any, kind: str, lengths: tuple[int, ...]) -> Any:
    """The transform `kind` ("fft", "ifft", "rfft", "irfft") of `x` over its last `len(lengths)` axes.

    fft and ifft take and give complex x [..., *lengths]; rfft takes real x and gives [..., n // 2 + 1] at the
    end; irfft takes that and gives real [..., *lengths]. Raises ShapeError and DTypeError otherwise.

    Example: `fft(np.ones(4, complex), "fft", (4,))` is [4, 0, 0, 0].
    """
    return bind1(fft_p, x, kind=kind, lengths=lengths)


@shape_rules.register(fft_p)
def _(x, *, kind, lengths):
    if kind not in KINDS:
        raise ArgumentError(f"fft: kind must be one of {', '.join(KINDS)}, got {kind!r}.")
    wanted = np.float32 if kind == "rfft" else np.complex64
    if not np.can_cast(wanted, x.dtype) or dtypes.is_complex(x.dtype) == (kind == "rfft"):
        taken = "float32 or float64" if kind == "rfft" else "complex"
        raise DTypeError(f"{kind}: takes {taken} arrays, got {x.dtype}.")
    half = (*lengths[:-1], lengths[-1] // 2 + 1)
    given, result = {"rfft": (lengths, half), "irfft": (half, lengths)}.get(kind, (lengths, lengths))
    lead = x.ndim - len(lengths)
    if lead < 0 or not lengths or x.shape[lead:] != given or min(lengths) < 1:
        raise ShapeError(f"{kind}: shape {x.shape} does not end in {given}, which the lengths {lengths} ask for.")
    dtype = {"rfft": dtypes.complex_dtype, "irfft": dtypes.real_dtype}.get(kind, lambda d: d)(x.dtype)
    return Aval((*x.shape[:lead], *result), dtype)


@eval_rules.register(fft_p)
def _(xp, x, *, kind, lengths):
    axes = tuple(range(-len(lengths), 0))
    dtype = x.dtype if kind in ("fft", "ifft") else dtypes.complex_dtype(dtypes.real_dtype(x.dtype))
    out = getattr(xp.fft, f"{kind}n")(x, s=lengths, axes=axes)
    return out.astype(dtypes.real_dtype(dtype) if kind == "irfft" else dtype, copy=False)


batch_unary(fft_p)(lambda x, *, kind, lengths: fft(x, kind, lengths))


def _transpose(ct, x, *, kind, lengths):
    if kind in ("fft", "ifft"):
        return fft(ct, kind, lengths)
    return _rfft_transpose(ct, lengths) if kind == "rfft" else _irfft_transpose(ct, x, lengths)


def _rfft_transpose(ct, lengths):
    """x_j = Re of the sum over the kept k: the real part of the full transform of ct filled up with zeros."""
    missing = lengths[-1] - ct.shape[-1]
    config = (*((0, 0, 0),) * (len(ct.shape) - 1), (0, missing, 0))
    return real(fft(pad(ct, zero_like(ct), config), "fft", lengths))


def _irfft_transpose(ct, x, lengths):
    """irfft takes the frequencies that have a mirror image twice: z_k = m_k / n conj(rfft(ct))_k, m_k in {1, 2}."""
    count, n = x.shape[-1], lengths[-1]
    weights = np.full(count, 2.0)
    weights[0] = 1.0
    if n % 2 == 0:
        weights[-1] = 1.0
    spectrum = conj(fft(ct, "rfft", lengths))
    factor = convert(constant(weights / math.prod(lengths), ct), spectrum.dtype)
    return mul(spectrum, broadcast_in_dim(factor, spectrum.shape, (len(spectrum.shape) - 1,)))


linear(fft_p, _transpose)
