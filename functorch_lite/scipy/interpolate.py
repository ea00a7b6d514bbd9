# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.interpolate`: functions given on grids. Plain arrays go to SciPy itself."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from functorch_lite import numpy as fnp
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, ConcretizationError, MissingRuleError, ShapeError
from functorch_lite.numpy.indexing import lookup
from functorch_lite.numpy.promotion import asarray, cast, to_float
from functorch_lite.scipy.dispatch import is_of_scipy, of_scipy
from functorch_lite.transforms.arguments import on_its_device

_f64 = np.dtype(np.float64)
METHODS = ("linear", "nearest")


class RegularGridInterpolator:
    """The function with the values [n_1, ..., n_d, ...] on the grid of d vectors `points` of n_1, ..., n_d numbers.

    points: strictly ascending or descending; traced ones are taken to ascend. method: "linear" in each direction, or
    "nearest" (halves go down). bounds_error: points outside are an error, which needs known values: give False within
    `jit` and `vmap`. Then they get `fill_value`, or with None the outermost piece is continued. Differentiable in
    values, in the points of the grid and, with "linear", in where it is evaluated; float64, as SciPy computes.

    >>> f = RegularGridInterpolator((np.array([0.0, 1.0]), np.array([0.0, 2.0])), np.array([[0.0, 2.0], [1.0, 3.0]]))
    >>> f(np.array([[0.5, 1.0], [1.0, 0.5]]))
    array([1.5, 1.5])

    Raises ShapeError where grid and values do not fit, ArgumentError for points that are not in order.
    Source: SciPy; A. Weiser, S. Zarantonello, "A note on piecewise linear and multilinear table interpolation", 1988.
    """

    def __init__(
        self, points: Sequence[Any], values: Any, method: str = "linear", bounds_error: bool = True,
        fill_value: Any = np.nan,
    ):
        self.method, self.bounds_error, self.fill_value = method, bounds_error, fill_value
        given = [asarray(p) for p in points]
        values = asarray(values)
        self._plain = None
        if is_of_scipy((*given, values, fill_value), {}):
            make = of_scipy("scipy.interpolate.RegularGridInterpolator")
            self._plain = make(tuple(given), values, method, bounds_error, fill_value)
        _check_grid(given, values)
        self.grid, turned = _ascending(given)
        values = to_float(values)
        self.values = fnp.flip(values, turned) if turned else values

    def __call__(self, xi: Any, method: str | None = None) -> Any:
        """The values [..., ...] at the points xi [..., d] (or a tuple of d arrays that broadcast)."""
        if self._plain is not None and is_of_scipy((xi,), {}):
            return self._plain(xi, method)
        return self._evaluated(xi, self.method if method is None else method)

    @on_its_device
    def _evaluated(self, xi, method):
        if method not in METHODS:
            raise MissingRuleError(
                f"RegularGridInterpolator: traced arrays take method 'linear' or 'nearest', got {method!r}. For "
                "splines call it outside of transforms, or through fl.pure_callback (no derivative)."
            )
        xi, shape = _points(xi, len(self.grid))
        columns = [xi[:, k] for k in range(len(self.grid))]
        outside = [fnp.logical_or(x < g[0], x > g[-1]) for x, g in zip(columns, self.grid, strict=True)]
        if self.bounds_error:
            _check_bounds(outside)
        rest = self.values.shape[len(self.grid) :]
        places = [_place(x, g) for x, g in zip(columns, self.grid, strict=True)]
        out: Any = (_linear if method == "linear" else _nearest)(self.values, places, len(rest))
        if not self.bounds_error and self.fill_value is not None:
            out = _where(functools.reduce(fnp.logical_or, outside), cast(asarray(self.fill_value), out.dtype), out)
        out = _where(functools.reduce(fnp.logical_or, [fnp.isnan(x) for x in columns]), out.dtype.type(np.nan), out)
        return fnp.reshape(out, (*shape, *rest))


def _check_grid(points, values):
    if len(points) > len(values.shape):
        raise ShapeError(
            f"RegularGridInterpolator: {len(points)} vectors of points, but values of shape {values.shape}."
        )
    for k, p in enumerate(points):
        if len(p.shape) != 1 or p.shape[0] != values.shape[k] or not p.shape[0]:
            raise ShapeError(
                f"RegularGridInterpolator: expected {values.shape[k]} points along axis {k} of values of shape "
                f"{values.shape}, got shape {p.shape}."
            )


def _ascending(points):
    """The vectors in ascending order, float64, and the axes along which the values are to be turned."""
    grid, turned = [], []
    for k, p in enumerate(points):
        p = cast(p, _f64)
        if not isinstance(p, Tracer):
            steps = p[1:] - p[:-1]
            if p.shape[0] > 1 and bool((steps < 0).all()):
                p = p[::-1]
                turned.append(k)
            elif not bool((steps > 0).all()):
                raise ArgumentError(
                    f"RegularGridInterpolator: the points of axis {k} must be strictly ascending or descending."
                )
        grid.append(p)
    return tuple(grid), tuple(turned)


def _points(xi, d):
    """xi as float64 [m, d], and the shape it had before its last axis."""
    if isinstance(xi, tuple):
        xi = fnp.stack(fnp.broadcast_arrays(*[cast(asarray(x), _f64) for x in xi]), axis=-1)
    xi = cast(asarray(xi), _f64)
    if len(xi.shape) == 1:
        xi = fnp.reshape(xi, (-1, 1) if d == 1 else (1, -1))
    if not xi.shape or xi.shape[-1] != d:
        raise ShapeError(f"RegularGridInterpolator: expected points [..., {d}], got shape {xi.shape}.")
    return fnp.reshape(xi, (-1, d)), xi.shape[:-1]


def _check_bounds(outside):
    for k, found in enumerate(outside):
        try:
            any_outside = bool(fnp.any(found))
        except ConcretizationError as error:
            raise ConcretizationError(
                "RegularGridInterpolator: bounds_error=True asks whether points lie outside of the grid, which is not "
                "known under jit and vmap. Give bounds_error=False, and a fill_value or None to extrapolate."
            ) from error
        if any_outside:
            raise ArgumentError(f"RegularGridInterpolator: a point is out of bounds in dimension {k}.")


def _place(x, grid):
    """(i, t): x [m] lies at grid_i + t (grid_(i+1) - grid_i), in the piece that holds it or the outermost."""
    n = grid.shape[0]
    if n == 1:
        return fnp.zeros(x.shape, np.int64), x * 0.0
    i = fnp.minimum(fnp.maximum(fnp.searchsorted(grid, x, side="right") - 1, 0), n - 2)
    low, high = lookup(grid, i, "clip"), lookup(grid, i + 1, "clip")
    return i, (x - low) / (high - low)


def _along_rest(x, extra):
    return fnp.reshape(x, (*x.shape, *(1,) * extra))


def _where(condition, value, out):
    return fnp.where(_along_rest(condition, len(out.shape) - 1), value, out)


def _linear(values, places, extra):
    """The sum over the corners of a piece of value times weight."""
    total = None
    for corner in itertools.product((0, 1), repeat=len(places)):
        found = lookup(values, tuple(i + c for (i, _), c in zip(places, corner, strict=True)), "clip")
        weight = functools.reduce(
            fnp.multiply, [t if c else 1 - t for (_, t), c in zip(places, corner, strict=True)]
        )
        term = cast(found, np.result_type(found.dtype, _f64)) * _along_rest(weight, extra)
        total = term if total is None else total + term
    return total


def _nearest(values, places, extra):
    return lookup(values, tuple(fnp.where(t <= 0.5, i, i + 1) for i, t in places), "clip")
