# SPDX-License-Identifier: MIT
"""RegularGridInterpolator and trapezoid: SciPy's values, derivatives by differences, points outside of a grid."""

import functools

import numpy as np
import pytest
import scipy.integrate
import scipy.interpolate

import functorch_lite as fl
from functorch_lite import errors
from functorch_lite.scipy import integrate
from functorch_lite.scipy.interpolate import RegularGridInterpolator

from .agreement import check_agrees, check_derivatives

RNG = np.random.default_rng(8)
GRID = [np.sort(RNG.uniform(0, 5, n)) for n in (5, 6, 4)]
VALUES = RNG.standard_normal((5, 6, 4, 2))
BOUNDS = np.array([[g[0], g[-1]] for g in GRID])


def inside(m, d=3):
    return RNG.uniform(BOUNDS[:d, 0], BOUNDS[:d, 1], (m, d))


def both(points, values, *options):
    """The interpolator of this library and SciPy's, as functions of where they are evaluated."""
    return [lambda xi, make=make: make(points, values, *options)(xi)
            for make in (RegularGridInterpolator, scipy.interpolate.RegularGridInterpolator)]


@pytest.mark.parametrize("fill", [np.nan, 3.0, None])
@pytest.mark.parametrize("method", ["linear", "nearest"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_interpolation_equals_scipys(d, method, fill):
    xi = RNG.uniform(-1, 6, (3, 7, d))
    xi[1, 1] = [g[1] for g in GRID[:d]]
    xi[0, 0, 0] = np.nan
    values = VALUES[(slice(None),) * d + (0,) * (3 - d)]
    check_agrees(*both(GRID[:d], values, method, False, fill), xi)
    check_agrees(*both([g[::-1] for g in GRID[:d]], values, method, False, fill), xi)


def test_dtypes_and_single_points_are_scipys():
    check_agrees(*both(GRID, VALUES.astype("f4"), "linear", False), inside(4))
    check_agrees(*both(GRID, VALUES.astype("f4"), "nearest", False), inside(4))
    check_agrees(*both(GRID, VALUES * 1j, "linear", False), inside(4))
    xi = np.array([[2.0, 0.5], [1.0, 0.5]])
    check_agrees(*both(([2.0], [0.0, 1.0]), RNG.standard_normal((1, 2)), "linear", False), xi)


def test_a_tuple_of_coordinates_broadcasts():
    xs = (np.full((3, 1), 1.5), np.linspace(1, 2, 4), 1.5)
    ours, reference = both(GRID, VALUES, "linear", False, None)
    np.testing.assert_allclose(fl.jit(lambda *a: ours(a))(*xs), reference(xs), rtol=1e-12)


def test_gradients_in_values_places_and_points():
    check_derivatives(lambda v, xi: RegularGridInterpolator(GRID, v, "linear", False)(xi), VALUES, inside(6))
    check_derivatives(lambda v: RegularGridInterpolator(GRID, v, "nearest", False)(inside(1)[:0]), VALUES)
    grid = np.arange(4.0)
    places = np.array([0.5, 2.3])
    check_derivatives(lambda g, v: RegularGridInterpolator((g,), v, "linear", False)(places), grid, grid**2)


def test_a_point_outside_has_gradient_zero_where_it_is_filled():
    fun = RegularGridInterpolator(GRID[:1], VALUES[:, 0, 0, 0], "linear", False)
    assert fl.grad(lambda x: fun(x)[0])(np.array([9.0])) == 0


def test_bounds_are_checked_where_values_are_known():
    fun = RegularGridInterpolator(GRID, VALUES)
    assert np.isfinite(fl.grad(lambda xi: np.sum(fun(xi)))(inside(3))).all()
    with pytest.raises(errors.ArgumentError, match="out of bounds in dimension 0"):
        fl.grad(lambda xi: np.sum(fun(xi)))(inside(3) + 9)
    with pytest.raises(errors.ConcretizationError, match="bounds_error=False"):
        fl.jit(lambda xi: fun(xi))(inside(3))


@pytest.mark.parametrize(("message", "make", "kind"), [
    ("2 vectors of points", lambda v: RegularGridInterpolator(GRID[:2], v[:, 0, 0, 0]), errors.ShapeError),
    ("expected 5 points along axis 0", lambda v: RegularGridInterpolator(GRID[1:], v), errors.ShapeError),
    ("strictly ascending", lambda v: RegularGridInterpolator((np.zeros(5),), v), errors.ArgumentError),
    ("method 'linear' or 'nearest'", lambda v: RegularGridInterpolator(GRID, v, "cubic")(inside(1)),
     errors.MissingRuleError),
    (r"expected points \[..., 3\]", lambda v: RegularGridInterpolator(GRID, v)(inside(1, 2)), errors.ShapeError),
])
def test_a_mistake_is_named(message, make, kind):
    with pytest.raises(kind, match=message):
        fl.jit(make)(VALUES)


def test_trapezoid_equals_scipys():
    y, x = RNG.standard_normal((4, 4)), np.sort(RNG.uniform(0, 3, 4))
    for options in ({}, {"dx": 0.3}, {"axis": 0}):
        check_agrees(*(functools.partial(m.trapezoid, **options) for m in (integrate, scipy.integrate)), y)
    check_agrees(integrate.trapezoid, scipy.integrate.trapezoid, y, x)
    check_agrees(integrate.trapezoid, scipy.integrate.trapezoid, (9 * y).astype(int), y)
    check_agrees(integrate.trapezoid, scipy.integrate.trapezoid, y.astype("f4"), rtol=1e-6)
    check_derivatives(lambda y, x: integrate.trapezoid(y, x, axis=0), y, x)
