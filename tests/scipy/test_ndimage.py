# SPDX-License-Identifier: MIT
"""map_coordinates: SciPy's values in every mode, rounding of integers, derivatives by differences."""

import functools

import numpy as np
import pytest
import scipy.ndimage

import functorch_lite as fl
from functorch_lite import errors
from functorch_lite.scipy import ndimage

from .agreement import check_agrees, check_derivatives

RNG = np.random.default_rng(7)
ALONG = np.concatenate([RNG.uniform(-20, 20, 60), np.arange(-20, 20, 0.5)])
PLANE = 10 * RNG.standard_normal((4, 5))
POINTS = np.stack([RNG.permutation(ALONG), RNG.permutation(ALONG)]).reshape(2, 2, -1)


def both(**options):
    return (functools.partial(module.map_coordinates, cval=7.0, **options) for module in (ndimage, scipy.ndimage))


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("mode", ndimage.MODES)
def test_every_mode_equals_scipys(mode, order):
    check_agrees(*both(mode=mode, order=order), PLANE, POINTS)
    for n in (1, 2, 5):
        check_agrees(*both(mode=mode, order=order), PLANE[0, :n].copy(), ALONG[None])


@pytest.mark.parametrize("dtype", ["f4", "c16", "i4", "u1"])
def test_results_have_the_arrays_dtype_and_integers_are_rounded(dtype):
    x = np.abs(PLANE).astype(dtype)
    check_agrees(*both(order=1, mode="nearest"), x, POINTS, rtol=1e-5)
    check_agrees(*both(order=1, mode="mirror", output=np.float32), x.real, POINTS, rtol=1e-5)


@pytest.mark.parametrize("mode", ndimage.MODES)
def test_gradients_in_the_array_and_in_the_coordinates(mode):
    points = RNG.uniform(-9, 9, (2, 20))
    check_derivatives(functools.partial(ndimage.map_coordinates, order=1, mode=mode), PLANE, points)


def test_gradients_with_order_0_are_those_of_a_choice():
    points = np.array([[0.2, 2.9], [1.2, 3.6]])
    gradient = fl.grad(lambda x: np.sum(ndimage.map_coordinates(x, points, order=0)))(PLANE)
    expected = np.zeros_like(PLANE)
    expected[[0, 3], [1, 4]] = 1
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize(("message", "options", "points", "kind"), [
    ("order=0 or order=1, got 3", {}, POINTS, errors.MissingRuleError),
    ("mode must be one of", {"order": 1, "mode": "edge"}, POINTS, errors.ArgumentError),
    ("takes coordinates", {"order": 1}, POINTS[:1], errors.ShapeError),
    ("must be real", {"order": 1}, POINTS * 1j, errors.ArgumentTypeError),
    ("takes a dtype", {"order": 1, "output": np.zeros((2, 70))}, POINTS, errors.ImmutableError),
])
def test_a_mistake_is_named(message, options, points, kind):
    with pytest.raises(kind, match=message):
        fl.jit(lambda x: ndimage.map_coordinates(x, points, **options))(PLANE)
