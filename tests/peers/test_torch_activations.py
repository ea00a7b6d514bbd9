# SPDX-License-Identifier: MIT
"""Our activations against PyTorch's in float64: values, gradients at kinks too, second derivatives elsewhere."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from tests.peers.double_backward import assert_same, ours, theirs

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
F = torch.nn.functional

X = np.concatenate([np.linspace(-7, 7, 29), [0.1, -0.3, 30.0, -30.0, 2.37]]).reshape(2, 17)

PAIRS = {
    "relu": (nn.relu, F.relu),
    "relu6": (nn.relu6, F.relu6),
    "leaky_relu": (nn.leaky_relu, F.leaky_relu),
    "leaky_relu_0.3": (lambda x: nn.leaky_relu(x, 0.3), lambda x: F.leaky_relu(x, 0.3)),
    "elu": (lambda x: nn.elu(x, 1.7), lambda x: F.elu(x, 1.7)),
    "celu": (lambda x: nn.celu(x, 2.0), lambda x: F.celu(x, 2.0)),
    "selu": (nn.selu, F.selu),
    "gelu": (nn.gelu, F.gelu),
    "gelu_tanh": (lambda x: nn.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "silu": (nn.silu, F.silu),
    "mish": (nn.mish, F.mish),
    "sigmoid": (nn.sigmoid, torch.sigmoid),
    "log_sigmoid": (nn.log_sigmoid, F.logsigmoid),
    "tanh": (nn.tanh, torch.tanh),
    "softplus": (nn.softplus, lambda x: F.softplus(x, threshold=100)),
    "softplus_beta": (lambda x: nn.softplus(x, 2.0), lambda x: F.softplus(x, 2.0, threshold=100)),
    "softsign": (nn.softsign, F.softsign),
    "hard_shrink": (nn.hard_shrink, F.hardshrink),
    "soft_shrink": (nn.soft_shrink, F.softshrink),
    "soft_shrink_1": (lambda x: nn.soft_shrink(x, 1.0), lambda x: F.softshrink(x, 1.0)),
    "tanh_shrink": (nn.tanh_shrink, F.tanhshrink),
    "hard_tanh": (lambda x: nn.hard_tanh(x, -1.5, 2.0), lambda x: F.hardtanh(x, -1.5, 2.0)),
    "threshold": (lambda x: nn.threshold(x, 0.5, -3.0), lambda x: F.threshold(x, 0.5, -3.0)),
    "softmax": (nn.softmax, lambda x: F.softmax(x, -1)),
    "softmin": (lambda x: nn.softmin(x, 0), lambda x: F.softmin(x, 0)),
    "log_softmax": (nn.log_softmax, lambda x: F.log_softmax(x, -1)),
    "glu": (lambda x: nn.glu(x, 0), lambda x: F.glu(x, 0)),
    "swiglu": (lambda x: nn.swiglu(x, 0), lambda x: F.silu(x[:1]) * x[1:]),
    "geglu": (lambda x: nn.geglu(x, 0), lambda x: F.gelu(x[:1]) * x[1:]),
    "reglu": (lambda x: nn.reglu(x, 0), lambda x: F.relu(x[:1]) * x[1:]),
    "squareplus": (nn.squareplus, lambda x: (x + torch.sqrt(x * x + 4)) / 2),
    "rrelu": (nn.RReLU(), F.rrelu),
}


@pytest.mark.parametrize("name", PAIRS)
def test_an_activation_and_its_derivatives_are_torchs(name):
    fun, peer = PAIRS[name]
    assert_same(ours(fun, X), theirs(torch, peer, X), second=False)
    assert_same(ours(fun, X + 0.013), theirs(torch, peer, X + 0.013))


def test_hard_sigmoid_is_torchs_which_has_no_second_derivative():
    # PyTorch holds 1/6 in float32.
    assert_same(ours(nn.hard_sigmoid, X), theirs(torch, F.hardsigmoid, X, second=False), 1e-7, second=False)


def test_hard_swish_is_torchs_away_from_its_kinks():
    x = X[abs(X) != 3]
    assert_same(ours(nn.hard_swish, x), theirs(torch, F.hardswish, x))


@pytest.mark.parametrize("weight", [[0.25], [0.1, -0.4, 0.7]])
def test_prelu_is_torchs(weight):
    x = X[:, :15].reshape(2, 3, 5) + 0.013
    assert_same(ours(nn.prelu, x, np.array(weight)), theirs(torch, F.prelu, x, np.array(weight)))


def test_gumbel_softmax_has_torchs_gradient_whether_hard_or_not():
    logits, key = X[:, :4], fl.random.key(0)
    soft, hard = (nn.gumbel_softmax(logits, key, tau=0.7, hard=hard) for hard in (False, True))
    np.testing.assert_allclose(hard, np.eye(4)[soft.argmax(-1)], atol=1e-12)
    slopes = [
        fl.grad(lambda z, hard=hard: (nn.gumbel_softmax(z, key, tau=0.7, hard=hard) * logits).sum())(logits)
        for hard in (False, True)
    ]
    np.testing.assert_allclose(*slopes, rtol=1e-12, atol=1e-14)


def test_rrelu_draws_a_slope_for_each_element_in_training():
    x = np.concatenate([-np.ones(5000), np.ones(10)])
    out, _ = nn.apply(nn.RReLU(0.1, 0.5), x, key=fl.random.key(3), training=True)
    np.testing.assert_array_equal(out[5000:], 1)
    assert -0.5 <= out[:5000].min() < -0.49 and -0.11 < out[:5000].max() <= -0.1
    assert abs(out[:5000].mean() + 0.3) < 0.01
