# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.ndimage`: values of arrays between their elements. Plain arrays go to SciPy itself."""

import functools
import itertools
from typing import Any

import numpy as np

from functorch_lite import numpy as fnp
from functorch_lite.core import dtypes
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ImmutableError, MissingRuleError, ShapeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.indexing import lookup
from functorch_lite.numpy.promotion import asarray, cast, common_dtype, to_float
from functorch_lite.scipy.dispatch import check_known, public

MODES = ("constant", "nearest", "mirror", "reflect", "grid-mirror", "wrap", "grid-wrap", "grid-constant")


@public("scipy.ndimage.map_coordinates")
def map_coordinates(
    input: Any, coordinates: Any, output: Any = None, order: int = 3, mode: str = "constant", cval: Any = 0.0,
    prefilter: bool = True,
) -> Any:
    """The values [...] of an array of rank r at `coordinates` [r, ...], in units of its elements.

    order: 0 (the nearest element) or 1 (linear) for traced arrays; SciPy's default is 3. Differentiable in the array,
    `cval` and, with order 1, the coordinates: on a grid point the derivative is that to its right.
    output: a dtype (default: the array's); integers are rounded. mode: what lies outside.

        constant       cval               (d d d | a b c | d d d), nothing between a and d
        grid-constant  cval               the same, linear between a and d
        nearest        the border         (a a a | a b c | c c c)
        mirror         about the border   (  c b | a b c | b a  )
        reflect        and twice the border, also "grid-mirror"  (c b a | a b c | c b a)
        wrap           from the last element on as from the first, "grid-wrap": one step later  (a b c | a b c | a b c)

    >>> map_coordinates(np.array([0.0, 10.0, 20.0]), np.array([[0.5, 1.75]]), order=1)
    array([ 5. , 17.5])

    Raises MissingRuleError for other orders, ShapeError where the coordinates do not fit the array.
    """
    x, points = asarray(input), asarray(coordinates)
    _check(x, points, order, mode, output)
    if dtypes.is_complex(points.dtype):
        raise ArgumentTypeError(f"map_coordinates: coordinates must be real, got {points.dtype}.")
    dtype = x.dtype if output is None else np.dtype(output)
    wide = common_dtype(*[asarray(np.zeros((), v.dtype)) for v in (to_float(x), to_float(points))])
    points = cast(points, dtypes.real_dtype(wide))
    values = _interpolated(cast(x, wide), points, order, mode, cast(asarray(cval), wide))
    return _rounded(values, dtype)


def _check(x, points, order, mode, output):
    check_known("map_coordinates", order=order)
    if order not in (0, 1):
        raise MissingRuleError(
            f"map_coordinates: traced arrays take order=0 or order=1, got {order}. For splines of higher order call it "
            "outside of transforms, or through fl.pure_callback (no derivative)."
        )
    if mode not in MODES:
        raise ArgumentError(f"map_coordinates: mode must be one of {', '.join(MODES)}, got {mode!r}.")
    if hasattr(output, "shape") and not isinstance(output, type | np.dtype):
        raise ImmutableError("map_coordinates: output= takes a dtype where arrays are traced. Use the returned array.")
    if len(points.shape) < 2 or not x.shape or points.shape[0] != len(x.shape):
        raise ShapeError(
            f"map_coordinates: an array of shape {x.shape} takes coordinates [{len(x.shape)}, ...] with at least two "
            f"axes, got {points.shape}."
        )


def _interpolated(x, points, order, mode, cval):
    """The sum over the corners around each point of weight times element."""
    corners, inside = [], None
    for axis, n in enumerate(x.shape):
        at = points[axis]
        if mode == "constant":
            within = (at >= 0) & (at <= n - 1)
            inside = within if inside is None else inside & within
        corners.append(_corners(_folded(at, n, mode), n, order, mode))
    total = None
    for chosen in itertools.product(*corners):
        indices, weights, present = zip(*chosen, strict=True)
        value = lookup(x, indices, "clip")
        if mode == "grid-constant":
            value = fnp.where(functools.reduce(fnp.logical_and, present), value, cval)
        weight = functools.reduce(fnp.multiply, weights)
        value = value if order == 0 else value * weight
        total = value if total is None else total + value
    return total if inside is None else fnp.where(inside, total, cval)


def _corners(at, n, order, mode):
    """(index, weight, whether it lies inside) of the elements along an axis that a coordinate takes part of."""
    low = fnp.floor(at if order else at + 0.5)
    share = at - low
    steps = ((0, 1 - share), (1, share)) if order else ((0, fnp.ones_like(at)),)
    found = []
    for step, weight in steps:
        index = cast(e.stop_gradient_of(low), np.dtype(np.int64)) + step
        present = (index >= 0) & (index < n)
        found.append((_bent(index, n, mode), weight, present))
    return found


def _bent(index, n, mode):
    """An index, which may lie one step outside of the array, brought into it."""
    if mode == "grid-wrap":
        return index % n
    if mode == "mirror":
        index = fnp.where(index >= n, 2 * n - 2 - index, index)
    return fnp.minimum(fnp.maximum(index, 0), n - 1)


def _folded(at, n, mode):
    """Coordinates brought into the array as SciPy does; those inside [0, n - 1] stay what they are."""
    if mode in ("constant", "nearest"):
        return fnp.minimum(fnp.maximum(at, 0), n - 1)
    if mode == "grid-constant":
        return at
    if n == 1 and mode in ("mirror", "wrap"):
        return at * 0
    low, high = {"mirror": _mirrored, "wrap": _wrapped, "grid-wrap": _wrapped_later}.get(mode, _reflected)(at, n)
    return fnp.where(at < 0, low, fnp.where(at > n - 1, high, at))


def _mirrored(at, n):
    period = 2 * n - 2
    below, above = at + period * fnp.floor(-at / period), at - period * fnp.floor(at / period)
    return fnp.where(below <= 1 - n, below + period, -below), fnp.where(above >= n, period - above, above)


def _reflected(at, n):
    period = 2 * n
    below, above = at + period * fnp.floor(-at / period), at - period * fnp.floor(at / period)
    return fnp.where(below < -n, below + period, -below - 1), fnp.where(above >= n, period - above - 1, above)


def _wrapped(at, n):
    period = n - 1
    return at + period * (fnp.floor(-at / period) + 1), at - period * fnp.floor(at / period)


def _wrapped_later(at, n):
    return at + n * (fnp.trunc((-1 - at) / n) + 1), at - n * fnp.floor(at / n)


def _rounded(values, dtype):
    """Values in the dtype asked for: halves away from zero, unsigned ones cut to their range."""
    if dtype.kind not in "iu":
        return cast(values, dtype)
    values = fnp.trunc(values + fnp.copysign(0.5, values))
    if dtype.kind == "u":
        limit = float(np.iinfo(dtype).max)
        values = fnp.minimum(fnp.maximum(values, 0.0), limit)
    return cast(values, dtype)
