# SPDX-License-Identifier: MIT
"""Initializers: variances, structure and messages of those that `test_functions` does not hold."""

import math

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.errors import ArgumentError
from functorch_lite.nn import initializers as init

KEY = fl.random.key(0)
SHAPE = (200, 100, 3)
FAN_IN, FAN_OUT = 300, 600


@pytest.mark.parametrize(
    "make, variance, bound",
    [
        (init.lecun_uniform, 1 / FAN_IN, math.sqrt(3 / FAN_IN)),
        (init.glorot_uniform, 2 / (FAN_IN + FAN_OUT), math.sqrt(6 / (FAN_IN + FAN_OUT))),
        (init.glorot_normal, 2 / (FAN_IN + FAN_OUT), 2.28 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
        (init.he_uniform, 2 / FAN_IN, math.sqrt(6 / FAN_IN)),
        (init.he_normal, 2 / FAN_IN, 2.28 * math.sqrt(2 / FAN_IN)),
    ],
)
def test_the_variance_is_that_of_the_formula(make, variance, bound):
    weight = make()(KEY, SHAPE, np.float64)
    assert abs(weight.var() / variance - 1) < 0.02
    assert abs(weight.mean()) < 5 * math.sqrt(variance / weight.size)
    assert np.abs(weight).max() <= bound


def test_a_dirac_convolution_copies_channels():
    x = np.random.default_rng(0).normal(size=(2, 4, 7)).astype(np.float32)
    conv = fl.nn.Conv1d(4, 6, 3, padding=1, bias=False, init=init.dirac(), key=KEY)
    np.testing.assert_array_equal(conv(x), np.concatenate([x, np.zeros_like(x[:, :2])], axis=1))
    grouped = fl.nn.Conv1d(4, 4, 3, padding=1, groups=2, bias=False, init=init.dirac(2), key=KEY)
    np.testing.assert_array_equal(grouped(x), x)


def test_a_delta_orthogonal_convolution_keeps_norms():
    x = np.random.default_rng(0).normal(size=(3, 5, 6))
    settings = {"padding": 1, "padding_mode": "circular", "bias": False, "dtype": np.float64}
    conv = fl.nn.Conv2d(3, 4, 3, init=init.delta_orthogonal(2.0), key=KEY, **settings)
    np.testing.assert_allclose(np.linalg.norm(conv(x), axis=0), 2 * np.linalg.norm(x, axis=0), rtol=1e-12)


def test_a_part_of_each_column_is_zero():
    weight = init.sparse(0.25, std=0.5)(KEY, (10, 400), np.float64)
    np.testing.assert_array_equal((weight == 0).sum(axis=0), np.full(400, 3))
    assert abs(weight[weight != 0].std() - 0.5) < 0.02
    assert len({tuple(column) for column in (weight == 0).T}) > 50


def test_gains_are_pytorchs():
    assert init.calculate_gain("conv2d") == init.calculate_gain("sigmoid") == 1.0
    assert init.calculate_gain("tanh") == 5 / 3 and init.calculate_gain("selu") == 0.75
    assert init.calculate_gain("relu") == pytest.approx(math.sqrt(2))
    assert init.calculate_gain("leaky_relu", 1.0) == pytest.approx(1.0)


def test_initializers_are_the_same_under_jit():
    for make in (init.he_normal(), init.delta_orthogonal(), init.dirac()):
        expected = make(KEY, (6, 4, 3))
        np.testing.assert_allclose(fl.jit(lambda key, make=make: make(key, (6, 4, 3)))(KEY), expected, atol=1e-6)
        assert expected.dtype == np.float32


def test_wrong_arguments_are_named():
    with pytest.raises(ArgumentError, match=r"dirac: the weight should have 3, 4 or 5 axes .* its shape is \(3, 4\)"):
        init.dirac()(KEY, (3, 4))
    with pytest.raises(ArgumentError, match="`groups` 2 divide the first"):
        init.dirac(2)(KEY, (3, 4, 3))
    with pytest.raises(ArgumentError, match="as many output as input channels or more"):
        init.delta_orthogonal()(KEY, (3, 4, 3))
    with pytest.raises(ArgumentError, match=r"sparse: the weight should have 2 axes, but its shape is \(3,\)"):
        init.sparse(0.5)(KEY, (3,))
    with pytest.raises(ArgumentError, match=r"`sparsity` should be in 0..1, but is 2"):
        init.sparse(2)
    with pytest.raises(ArgumentError, match="`nonlinearity` should be linear, sigmoid, tanh, .* but is 'gelu'"):
        init.calculate_gain("gelu")
