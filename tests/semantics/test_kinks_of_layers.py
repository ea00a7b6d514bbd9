# SPDX-License-Identifier: MIT
"""SEMANTICS B, the rows about layers and activations: relu at 0, saturation, ties in a pooling window."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn


@pytest.mark.parametrize("x", [0.0, np.float32(0.0)])
def test_B7_relu_has_slope_zero_at_zero(x):
    assert fl.grad(nn.relu)(x) == 0.0
    assert fl.jvp(nn.relu, (x,), (np.ones_like(x)[()],))[1] == 0.0


def test_B22_saturated_activations_are_exact():
    assert [fl.grad(nn.softplus)(x) for x in (1000.0, -1000.0)] == [1.0, 0.0]
    assert nn.log_sigmoid(np.float64(-1000.0)) == -1000.0
    np.testing.assert_array_equal(nn.softmax(np.array([1e4, 0.0])), [1.0, 0.0])


def test_B23_a_pooling_window_takes_its_first_maximum():
    pool = nn.MaxPool1d(2)
    found = fl.grad(lambda x: np.sum(pool(x)))(np.array([[1.0, 1.0, 2.0, 0.0]]))
    np.testing.assert_array_equal(found, [[1.0, 0.0, 1.0, 0.0]])
