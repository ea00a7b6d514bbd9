# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.fft`: cosine and sine transforms of types 1 to 4, composed of Fourier transforms.

    type   dct: y_k =                                          dst: y_k =
    1      x_0 + (-1)^k x_(n-1) + 2 sum x_j cos(pi k j/(n-1))  2 sum x_j sin(pi (k+1) (j+1) / (n+1))
    2      2 sum x_j cos(pi k (2j+1) / 2n)                     2 sum x_j sin(pi (k+1) (2j+1) / 2n)
    3      x_0 + 2 sum x_j cos(pi (2k+1) j / 2n)               (-1)^k x_(n-1) + 2 sum x_j sin(pi (2k+1) (j+1) / 2n)
    4      2 sum x_j cos(pi (2k+1) (2j+1) / 4n)                2 sum x_j sin(pi (2k+1) (2j+1) / 4n)

Types 1 and 4 are inverse to themselves and 2 to 3, up to the factor N = 2n (type 1: 2n - 2, 2n + 2). `norm`: "backward"
(the default) divides the inverse by N, "forward" the transform, "ortho" both by sqrt(N); "ortho" also makes the matrix
orthogonal by scaling a first and last element by sqrt(2), unless `orthogonalize` says otherwise.

All are linear. Single precision stays single; integers are computed in float64. `overwrite_x` and `workers` change
nothing. Plain arrays go to SciPy itself.

>>> idct(dct(np.array([1.0, 2.0, 4.0]), norm="ortho"), norm="ortho")
array([1., 2., 4.])

Source: J. Makhoul, "A fast cosine transform in one and two dimensions", 1980.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError, ArgumentTypeError
from functorch_lite.numpy import fft
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.promotion import asarray, to_float
from functorch_lite.scipy.dispatch import check_known, public

_INVERSE = {1: 1, 2: 3, 3: 2, 4: 4}
_ROOT = math.sqrt(2)
_FACTORS = {"backward": (0.0, 1.0), "ortho": (0.5, 0.5), "forward": (1.0, 0.0)}

# --- along the last axis, without a factor --------------------------------------------------------------------------


def _weighted(x: Any, weights: Any) -> Any:
    """x [..., n] times constants [n], in the dtype of x."""
    weights = e.convert(constant(np.asarray(weights), x), x.dtype)
    return e.mul(x, e.broadcast_in_dim(weights, x.shape, (len(x.shape) - 1,)))


def _phases(exponents: Any) -> Any:
    return np.exp(1j * np.pi * np.asarray(exponents))


def _complex(x: Any) -> Any:
    return e.convert(x, dtypes.complex_dtype(x.dtype))


def _cut(x: Any, start: int, stop: int) -> Any:
    return e.slice_in_axis(x, start, stop, len(x.shape) - 1)


def _every_second(x: Any, start: int) -> Any:
    last = len(x.shape) - 1
    steps = (1,) * last + (2,)
    return e.slice(x, (0,) * last + (start,), x.shape, steps)


def _reversed(x: Any) -> Any:
    return e.rev(x, (len(x.shape) - 1,))


def _joined(*parts: Any) -> Any:
    return e.concatenate([p for p in parts if p.shape[-1]], len(parts[0].shape) - 1)


def _cosine_1(x):
    """The transform of the signal mirrored at both ends."""
    n = x.shape[-1]
    if n < 2:
        raise ArgumentError(f"dct: type 1 needs at least 2 elements along the axis, got {n}.")
    return e.real(fft.rfft(_joined(x, _reversed(_cut(x, 1, n - 1)))))


def _cosine_2(x):
    """The elements with even numbers, then the odd ones backwards; y_k and y_(n-k) are parts of one turned number."""
    n = x.shape[-1]
    if n == 1:
        return e.mul(x, x.dtype.type(2))
    spectrum = fft.rfft(_joined(_every_second(x, 0), _reversed(_every_second(x, 1))))
    turned = _weighted(spectrum, 2 * _phases(-np.arange(n // 2 + 1) / (2 * n)))
    rest = _cut(turned, 1, (n + 1) // 2)
    return _joined(e.real(turned), _reversed(e.neg(e.imag(rest))))


def _cosine_3(x):
    """The way back of `_cosine_2`."""
    n = x.shape[-1]
    if n == 1:
        return x
    half = n // 2 + 1
    mirrored = _joined(e.mul(_cut(x, 0, 1), x.dtype.type(0)), _reversed(_cut(x, 1, n)))
    pairs = e.make_complex(_cut(x, 0, half), e.neg(_cut(mirrored, 0, half)))
    mixed = fft.irfft(_weighted(pairs, n * _phases(np.arange(half) / (2 * n))), n)
    first = _cut(mixed, 0, (n + 1) // 2)
    second = _reversed(_cut(mixed, (n + 1) // 2, n))
    return _interleaved(first, second)


def _interleaved(first, second):
    """a0 b0 a1 b1 ...; `first` may be longer by one."""
    k, last = second.shape[-1], len(first.shape) - 1
    whole = e.concatenate([e.reshape(v, (*v.shape, 1)) for v in (_cut(first, 0, k), second)], last + 1)
    out = e.reshape(whole, (*first.shape[:-1], 2 * k))
    return _joined(out, _cut(first, k, first.shape[-1]))


def _cosine_4(x):
    """The first half of the transform of twice the length, of turned numbers, turned."""
    n = x.shape[-1]
    j = np.arange(n)
    spectrum = fft.fft(_weighted(_complex(x), _phases(-(2 * j + 1) / (4 * n))), 2 * n)
    return e.real(_weighted(_cut(spectrum, 0, n), 2 * _phases(-j / (2 * n))))


def _sine_1(x):
    """The transform of the signal continued with odd symmetry."""
    n = x.shape[-1]
    zero = e.mul(_cut(x, 0, 1), x.dtype.type(0))
    spectrum = fft.rfft(_joined(zero, x, zero, _reversed(e.neg(x))))
    return e.neg(e.imag(_cut(spectrum, 1, n + 1)))


def _alternating(x):
    return _weighted(x, (-1.0) ** np.arange(x.shape[-1]))


_COSINE = {1: _cosine_1, 2: _cosine_2, 3: _cosine_3, 4: _cosine_4}
_SINE = {
    1: _sine_1,
    2: lambda x: _reversed(_cosine_2(_alternating(x))),
    3: lambda x: _alternating(_cosine_3(_reversed(x))),
    4: lambda x: _alternating(_cosine_4(_reversed(x))),
}

# --- along any axis, with norm --------------------------------------------------------------------------------------


def _at_ends(x: Any, first: float, last: float) -> Any:
    weights = np.ones(x.shape[-1])
    weights[0] *= first
    weights[-1] *= last
    return _weighted(x, weights)


def _orthogonal(x: Any, run: Callable[..., Any], kind: str, type: int) -> Any:
    """The transform with the elements scaled that make its matrix orthogonal: the constant wave's, or the fastest's."""
    if kind == "dct" and type == 1:
        return _at_ends(run(_at_ends(x, _ROOT, _ROOT)), 1 / _ROOT, 1 / _ROOT)
    if type == 2:
        return _at_ends(run(x), *((1 / _ROOT, 1.0) if kind == "dct" else (1.0, 1 / _ROOT)))
    if type == 3:
        return run(_at_ends(x, *((_ROOT, 1.0) if kind == "dct" else (1.0, _ROOT))))
    return run(x)


def _fitted(x: Any, n: int | None) -> Any:
    """x cut off or filled up with zeros to n elements in the last axis."""
    size = x.shape[-1]
    wanted = size if n is None else n
    if wanted < 1:
        raise ArgumentError(f"invalid number of data points ({wanted}) specified")
    config = ((0, 0, 0),) * (len(x.shape) - 1) + ((0, wanted - size, 0),)
    return e.pad(x, x.dtype.type(0), config) if wanted != size else x


def _along(x: Any, kind: str, type: int, n: int | None, axis: int, norm: Any, orthogonalize: Any, inverse: bool) -> Any:
    if dtypes.is_complex(x.dtype):  # SciPy lets `norm` alone decide here
        parts = [_along(v, kind, type, n, axis, norm, norm == "ortho", inverse) for v in (e.real(x), e.imag(x))]
        return e.make_complex(*parts)
    last = len(x.shape) - 1
    x = _fitted(e.moveaxis(x, axis, last), n)
    type = _INVERSE[type] if inverse else type
    run = (_COSINE if kind == "dct" else _SINE)[type]
    count = 2 * (x.shape[-1] + (0 if type != 1 else -1 if kind == "dct" else 1))
    out = _orthogonal(x, run, kind, type) if orthogonalize else run(x)
    factor = float(count) ** -_FACTORS[norm][1 if inverse else 0]
    return e.moveaxis(out if factor == 1 else e.mul(out, out.dtype.type(factor)), last, axis)


def _checked(name: str, x: Any, type: int, norm: Any, orthogonalize: Any, **sizes: Any) -> tuple[Any, str, bool]:
    check_known(name, type=type, **sizes)
    if type not in _INVERSE:
        raise ArgumentError(f"{name}: type must be 1, 2, 3 or 4, got {type!r}.")
    norm = "backward" if norm is None else norm
    if norm not in _FACTORS:
        raise ArgumentError(f'{name}: norm must be "backward", "ortho" or "forward", got {norm!r}.')
    x = to_float(asarray(x))
    if not x.shape:
        raise ArgumentTypeError(f"{name}: expected an array with at least one axis, got a scalar.")
    wide = dtypes.accumulator(x.dtype)
    x = e.convert(x, wide) if wide != x.dtype else x
    return x, norm, norm == "ortho" if orthogonalize is None else bool(orthogonalize)


def _one(name: str, kind: str, inverse: bool) -> Callable[..., Any]:
    def body(
        x: Any, type: int = 2, n: int | None = None, axis: int = -1, norm: str | None = None,
        overwrite_x: bool = False, workers: int | None = None, orthogonalize: bool | None = None,
    ) -> Any:
        x, norm, orthogonalize = _checked(name, x, type, norm, orthogonalize, n=n, axis=axis)
        return _along(x, kind, type, n, normal_axis(axis, len(x.shape)), norm, orthogonalize, inverse)

    body.__name__ = body.__qualname__ = name
    body.__doc__ = f"scipy.fft.{name}: of x [..., n, ...] along `axis`, cut off or filled up with zeros to n."
    return public(f"scipy.fft.{name}")(body)


def _many(name: str, kind: str, inverse: bool) -> Callable[..., Any]:
    def body(
        x: Any, type: int = 2, s: Any = None, axes: Any = None, norm: str | None = None, overwrite_x: bool = False,
        workers: int | None = None, *, orthogonalize: bool | None = None,
    ) -> Any:
        x, norm, orthogonalize = _checked(name, x, type, norm, orthogonalize, s=s, axes=axes)
        rank = len(x.shape)
        sizes = None if s is None else [s] if isinstance(s, int) else list(s)
        if axes is None:
            axes = range(rank) if sizes is None else range(rank - len(sizes), rank)
        axes = [normal_axis(int(a), rank) for a in ([axes] if isinstance(axes, int) else axes)]
        sizes = [None] * len(axes) if sizes is None else sizes
        if len(sizes) != len(axes) or len(set(axes)) != len(axes):
            raise ArgumentError(f"{name}: expected distinct axes and a size for each, got axes {axes}, sizes {sizes}.")
        for axis, n in zip(axes, sizes, strict=True):
            x = _along(x, kind, type, x.shape[axis] if n == -1 else n, axis, norm, orthogonalize, inverse)
        return x

    body.__name__ = body.__qualname__ = name
    body.__doc__ = f"scipy.fft.{name}: over several axes (None: all), each cut off or filled up with zeros to s."
    return public(f"scipy.fft.{name}")(body)


dct = _one("dct", "dct", False)
idct = _one("idct", "dct", True)
dst = _one("dst", "dst", False)
idst = _one("idst", "dst", True)
dctn = _many("dctn", "dct", False)
idctn = _many("idctn", "dct", True)
dstn = _many("dstn", "dst", False)
idstn = _many("idstn", "dst", True)
