# SPDX-License-Identifier: MIT
"""Activations, losses and initializers against their formulas in NumPy."""

import math

import numpy as np
import pytest
import scipy.special

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn import initializers as init

X = np.concatenate([np.linspace(-4, 4, 33), [-30.0, 30.0]])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = [
    (nn.relu, lambda x: np.maximum(x, 0)),
    (nn.relu6, lambda x: np.clip(x, 0, 6)),
    (nn.leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x)),
    (nn.elu, lambda x: np.where(x > 0, x, np.expm1(x))),
    (nn.celu, lambda x: np.where(x > 0, x, np.expm1(x))),
    (nn.selu, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
    (nn.sigmoid, sigmoid),
    (nn.log_sigmoid, lambda x: -np.logaddexp(0, -x)),
    (nn.softplus, lambda x: np.logaddexp(0, x)),
    (nn.softsign, lambda x: x / (1 + abs(x))),
    (nn.tanh, np.tanh),
    (nn.silu, lambda x: x * sigmoid(x)),
    (nn.mish, lambda x: x * np.tanh(np.logaddexp(0, x))),
    (nn.gelu, lambda x: x * scipy.special.ndtr(x)),
    (
        lambda x: nn.gelu(x, approximate=True),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    (nn.hard_tanh, lambda x: np.clip(x, -1, 1)),
    (nn.hard_sigmoid, lambda x: np.clip(x + 3, 0, 6) / 6),
    (nn.hard_swish, lambda x: x * np.clip(x + 3, 0, 6) / 6),
]


@pytest.mark.parametrize("fun, reference", ACTIVATIONS, ids=[getattr(f, "__name__", "?") for f, _ in ACTIVATIONS])
def test_an_activation_is_its_formula_and_keeps_the_dtype(fun, reference):
    np.testing.assert_allclose(fun(X), reference(X), rtol=1e-12, atol=1e-14)
    assert fun(X.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("fun, reference", ACTIVATIONS, ids=[getattr(f, "__name__", "?") for f, _ in ACTIVATIONS])
def test_the_derivative_of_an_activation_is_its_difference_quotient(fun, reference):
    x = np.array([-2.3, -0.7, 0.4, 1.9])  # away from kinks
    slope = fl.vmap(fl.grad(fun))(x)
    np.testing.assert_allclose(slope, (reference(x + 1e-6) - reference(x - 1e-6)) / 2e-6, rtol=1e-6, atol=1e-8)


def test_relu_is_flat_at_zero_and_keeps_nan():
    assert fl.grad(nn.relu)(0.0) == 0
    assert np.isnan(nn.relu(np.array(np.nan)))


def test_softplus_and_log_sigmoid_do_not_overflow():
    assert fl.grad(nn.softplus)(1000.0) == 1 and fl.grad(nn.softplus)(-1000.0) == 0
    assert nn.log_sigmoid(np.array(-1000.0)) == -1000


def test_softmax_logsumexp_and_log_softmax():
    x = np.random.default_rng(0).normal(size=(4, 5)) * 10
    np.testing.assert_allclose(nn.softmax(x), scipy.special.softmax(x, -1), rtol=1e-12)
    np.testing.assert_allclose(nn.log_softmax(x, 0), scipy.special.log_softmax(x, 0), rtol=1e-12)
    np.testing.assert_allclose(nn.logsumexp(x, -1), scipy.special.logsumexp(x, -1), rtol=1e-12)
    np.testing.assert_allclose(nn.softmax(np.array([1e4, 0.0])), [1, 0])


def test_logsumexp_of_minus_infinity_has_gradient_zero():
    x = np.array([-np.inf, -np.inf])
    assert nn.logsumexp(x) == -np.inf
    np.testing.assert_array_equal(fl.grad(nn.logsumexp)(x), [0, 0])


def test_one_hot_and_glu():
    np.testing.assert_array_equal(nn.one_hot(np.array([[1], [-1]]), 3), [[[0, 1, 0]], [[0, 0, 0]]])
    x = np.arange(4.0)
    np.testing.assert_allclose(nn.glu(x), x[:2] * sigmoid(x[2:]))


RNG = np.random.default_rng(3)
LOGITS, LABELS = RNG.normal(size=(6, 4)), np.array([0, 3, 1, -100, 2, 3])
WEIGHT = np.array([0.5, 1.0, 2.0, 1.5])


def by_hand(smoothing, weight):
    """torch's definition, example by example."""
    log_p = scipy.special.log_softmax(LOGITS, -1)
    total, norm = 0.0, 0.0
    for row, label in zip(log_p, LABELS, strict=True):
        if label != -100:
            total += -(1 - smoothing) * weight[label] * row[label] - smoothing * (weight * row).mean()
            norm += weight[label]
    return total / norm


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_labels(smoothing, weighted):
    actual = nn.cross_entropy(LOGITS, LABELS, weight=WEIGHT if weighted else None, label_smoothing=smoothing)
    np.testing.assert_allclose(actual, by_hand(smoothing, WEIGHT if weighted else np.ones(4)), rtol=1e-12)


def test_cross_entropy_takes_unsigned_labels_soft_targets_and_another_axis():
    labels = np.array([0, 3, 1, 1, 2, 3], np.uint8)
    hard = nn.cross_entropy(LOGITS, labels)
    np.testing.assert_allclose(nn.cross_entropy(LOGITS, nn.one_hot(labels, 4, np.float64)), hard)
    np.testing.assert_allclose(nn.cross_entropy(LOGITS.T, labels, axis=0), hard)
    np.testing.assert_allclose(nn.nll(nn.log_softmax(LOGITS), labels), hard)
    assert nn.cross_entropy(LOGITS, labels, reduction="none").shape == (6,)


def test_the_gradient_of_cross_entropy_is_softmax_minus_one_hot():
    labels = np.array([0, 3, 1, 1, 2, 3])
    grad = fl.grad(nn.cross_entropy)(LOGITS, labels)
    np.testing.assert_allclose(grad, (nn.softmax(LOGITS) - np.eye(4)[labels]) / 6, rtol=1e-10, atol=1e-14)


def test_regression_losses():
    a, b = RNG.normal(size=5) * 2, RNG.normal(size=5)
    d = abs(a - b)
    np.testing.assert_allclose(nn.mse(a, b), (d**2).mean())
    np.testing.assert_allclose(nn.l1(a, b, reduction="sum"), d.sum())
    huber = np.where(d <= 0.5, d**2 / 2, 0.5 * (d - 0.25))
    np.testing.assert_allclose(nn.huber(a, b, delta=0.5, reduction="none"), huber)
    np.testing.assert_allclose(nn.smooth_l1(a, b, beta=0.5), huber.mean() / 0.5)


def test_binary_and_divergence_losses():
    z, y = RNG.normal(size=5) * 3, np.array([0.0, 1, 1, 0, 0.5])
    p = sigmoid(z)
    np.testing.assert_allclose(nn.bce_with_logits(z, y), -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
    np.testing.assert_allclose(nn.bce(p, y), nn.bce_with_logits(z, y))
    np.testing.assert_allclose(
        nn.bce_with_logits(z, y, pos_weight=np.array(2.0)), -(2 * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    )
    q, target = scipy.special.log_softmax(LOGITS, -1), np.array([[0.0, 0.5, 0.5, 0.0]] * 6)
    np.testing.assert_allclose(nn.kl_div(q, target), scipy.special.rel_entr(target, np.exp(q)).sum() / 6)


def test_losses_refuse_shapes_that_would_broadcast():
    with pytest.raises(ShapeError, match=r"mse: predictions \(3, 1\) and targets \(3,\) differ"):
        nn.mse(np.ones((3, 1)), np.ones(3))
    with pytest.raises(ShapeError, match="cross_entropy: logits"):
        nn.cross_entropy(np.ones((3, 4)), np.ones((2,), int))
    with pytest.raises(ArgumentError, match="`reduction` should be 'mean'"):
        nn.mse(np.ones(3), np.ones(3), reduction="average")


KEY = fl.random.key(0)


@pytest.mark.parametrize(
    "initializer, std",
    [
        (init.normal(0.3), 0.3),
        (init.uniform(-1, 1), 1 / math.sqrt(3)),
        (init.xavier_uniform(), math.sqrt(2 / 500)),
        (init.xavier_normal(2.0), 2 * math.sqrt(2 / 500)),
        (init.kaiming_uniform(), math.sqrt(2 / 200)),
        (init.kaiming_normal(mode="fan_out"), math.sqrt(2 / 300)),
        (init.lecun_normal(), math.sqrt(1 / 200)),
        (init.torch_default(200), 1 / math.sqrt(3 * 200)),
    ],
)
def test_an_initializer_has_its_standard_deviation(initializer, std):
    weight = initializer(KEY, (300, 200))
    assert weight.shape == (300, 200) and weight.dtype == np.float32
    assert abs(weight.std() / std - 1) < 0.02 and abs(weight.mean()) < 0.03 * std


def test_truncated_normal_stays_inside_its_bounds():
    weight = init.truncated_normal(0.5, 1.0, 0.5, 1.5)(KEY, (1000,))
    assert weight.min() >= 0.5 and weight.max() <= 1.5


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 3, 2, 2)])
def test_orthogonal_weights_are_orthonormal(shape):
    weight = init.orthogonal(2.0)(KEY, shape, np.float64).reshape(shape[0], -1)
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_constants():
    np.testing.assert_array_equal(init.zeros(KEY, (2,)), np.zeros(2, np.float32))
    np.testing.assert_array_equal(init.ones(KEY, (2,), np.float64), np.ones(2))
    np.testing.assert_array_equal(init.constant(3.0)(KEY, (2,)), np.full(2, 3, np.float32))
    np.testing.assert_array_equal(init.identity(2.0)(KEY, (2, 3)), 2 * np.eye(2, 3))


def test_a_vector_has_no_fans():
    with pytest.raises(ArgumentError, match="need a weight with 2 or more axes"):
        init.xavier_uniform()(KEY, (3,))
