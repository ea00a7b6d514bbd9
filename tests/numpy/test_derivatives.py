# SPDX-License-Identifier: MIT
"""Derivatives of composed functions at kinks, at ties and at masked infinities (rows of the catalogue of semantics)."""

import numpy as np
import pytest

import functorch_lite.numpy as fnp
from functorch_lite.transforms import grad, hessian

ONE = np.float64(1.0)
INF = np.inf


@pytest.mark.parametrize(
    "function, x, wanted",
    [
        (lambda x: np.where(x > 0, np.sqrt(x), 0), 0.0, 0.0),
        (lambda x: np.where(x == 0, 1, np.sin(x) / x), 0.0, 0.0),
        (lambda x: np.where(x > 0, 0, x * INF), 1.0, 0.0),
        (lambda x: abs(x), 0.0, 0.0),
        (lambda x: np.clip(x, 0, 1), 0.0, 1.0),
        (lambda x: np.clip(x, 0, 1), 1.0, 1.0),
        (lambda x: np.clip(x, 0, 1), 2.0, 0.0),
        (lambda x: np.clip(x, None, 1), 1.0, 1.0),
        (lambda x: np.clip(x, 0, None), -1.0, 0.0),
        (lambda x: x**0.0, 0.0, 0.0),
        (lambda x: np.power(x, np.float64(0)), 0.0, 0.0),
        (lambda x: x**2.0, 0.0, 0.0),
        (lambda x: np.sinc(x), 0.0, 0.0),
        (lambda x: np.mod(x, 2.0), 5.5, 1.0),
        (lambda x: np.mod(5.5, x), 2.0, -2.0),
        (lambda x: np.mod(x, 2.0), 4.0, 1.0),
        (lambda x: np.floor_divide(x, 2.0), 5.5, 0.0),
        (lambda x: np.hypot(x, 0.0), 0.0, 0.0),
        (lambda x: np.arctan2(x, 0.0), 0.0, 0.0),
        (lambda x: np.maximum(x, 1.0), 1.0, 0.5),
        (lambda x: np.round(x), 2.5, 0.0),
        (lambda x: np.logaddexp(x, -INF), -INF, 0.5),
        (lambda x: np.logaddexp(x, 0.0), -INF, 0.0),
        (lambda x: np.fmax(x, np.nan), 2.0, 1.0),
        (lambda x: np.copysign(x, -1.0), 2.0, -1.0),
        (lambda x: np.interp(x, [0.0, 1.0, 3.0], [0.0, 2.0, 0.0]), 2.0, -1.0),
        (lambda x: np.heaviside(x, 0.5), 1.0, 0.0),
        (lambda x: np.nan_to_num(x), INF, 0.0),
        (lambda x: np.real(np.exp(1j * x)), 0.3, -np.sin(0.3)),
    ],
)
def test_first_derivative(function, x, wanted):
    np.testing.assert_allclose(grad(function)(np.float64(x)), wanted, atol=1e-14)


@pytest.mark.parametrize(
    "function, x, wanted",
    [
        (lambda x: np.std(x), [1.0, 1, 1], [0, 0, 0]),
        (lambda x: np.linalg.norm(x), [0.0, 0], [0, 0]),
        (lambda x: x.max(), [1.0, 1, 0], [0.5, 0.5, 0]),
        (lambda x: np.prod(x), [0.0, 2, 3], [6, 0, 0]),
        (lambda x: np.median(x), [3.0, 1, 2, 9], [0.5, 0, 0.5, 0]),
        (lambda x: np.quantile(x, 0.25), [0.0, 1, 2], [0.5, 0.5, 0]),
        (lambda x: np.sort(x)[0], [3.0, 1, 2], [0, 1, 0]),
        (lambda x: np.nansum(x * x), [1.0, np.nan, 2], [2, 0, 4]),
        (lambda x: np.nanmean(x), [1.0, np.nan, 3], [0.5, 0, 0.5]),
        (lambda x: np.var(x), [1.0, 3], [-1, 1]),
        (lambda x: np.cumprod(x).sum(), [2.0, 0, 3], [1, 8, 0]),
        (lambda x: np.trapezoid(x), [1.0, 2, 3], [0.5, 1, 0.5]),
        (lambda x: fnp.at(x)[[0, 0]].set(np.ones(2)).sum(), [1.0, 2], [0, 1]),
        (lambda x: np.take(x, [0, 0, 1]).sum(), [1.0, 2], [2, 1]),
        (lambda x: np.max(x, where=[True, False], initial=-9.0), [1.0, 2.0], [1, 0]),
        (lambda x: np.diff(x)[0], [1.0, 2], [-1, 1]),
    ],
)
def test_gradient(function, x, wanted):
    np.testing.assert_allclose(grad(function)(np.array(x)), wanted, atol=1e-14)


@pytest.mark.parametrize(
    "function, x, wanted",
    [
        (np.sinc, 0.0, -(np.pi**2) / 3),
        (lambda x: np.logaddexp(x, 0.0), 0.0, 0.25),
        (lambda x: x**3.0, 2.0, 12.0),
        (lambda x: np.hypot(x, 1.0), 0.0, 1.0),
        (lambda x: np.sinc(x), 0.002, None),
    ],
)
def test_second_derivative(function, x, wanted):
    if wanted is None:  # inside the range of the series, against the closed form's own expansion
        wanted = -(np.pi**2) / 3 + np.pi**4 * x**2 / 10
    np.testing.assert_allclose(grad(grad(function))(np.float64(x)), wanted, rtol=1e-9)


def test_hessian_of_a_product_with_a_zero():
    np.testing.assert_allclose(hessian(np.prod)(np.array([0.0, 2, 3])), [[0, 3, 2], [3, 0, 0], [2, 0, 0]])


def test_gradient_has_the_dtype_of_its_input():
    for dtype in (np.float16, np.float32, np.float64):
        assert grad(lambda x: (np.sin(x) * 2.0 + x**2).sum())(np.ones(3, dtype)).dtype == dtype
