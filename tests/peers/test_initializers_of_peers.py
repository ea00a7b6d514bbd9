# SPDX-License-Identifier: MIT
"""Initializers: JAX's numbers from the same key, and PyTorch's where nothing is drawn."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite.nn import initializers as init

SHAPE = (6, 4)


@pytest.mark.parametrize(
    "name", ["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal"]
)
def test_the_draws_are_jaxs(name):
    jax = pytest.importorskip("jax", reason="a comparison with JAX")
    expected = getattr(jax.nn.initializers, name)(in_axis=1, out_axis=0)(jax.random.PRNGKey(3), SHAPE)
    np.testing.assert_allclose(getattr(init, name)()(fl.random.key(3), SHAPE), expected, rtol=2e-6)


@pytest.mark.parametrize("shape, groups", [((5, 4, 3), 1), ((4, 6, 3, 2), 1), ((6, 2, 3, 3, 4), 3)])
def test_dirac_is_torchs(shape, groups):
    torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
    expected = torch.nn.init.dirac_(torch.empty(shape), groups)
    np.testing.assert_array_equal(init.dirac(groups)(fl.random.key(0), shape), expected.numpy())


@pytest.mark.parametrize("name", ["linear", "conv3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains_are_torchs(name):
    torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert init.calculate_gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))
