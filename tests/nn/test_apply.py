# SPDX-License-Identifier: MIT
"""nn.apply: what is random or changes in a forward pass."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, tree
from functorch_lite.errors import ArgumentError, ShapeError


def assert_close(a, b, tolerance=1e-6):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


X = np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)


def model(p=0.5):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, key=fl.random.key(0)), nn.BatchNorm2d(4), nn.relu, nn.Dropout(p), nn.Flatten(-3)
    )


def test_a_plain_call_is_deterministic_inference():
    m = model()
    assert_close(m(X), m(X))
    assert_close(m(X), nn.apply(m, X)[0])
    assert nn.apply(m, X)[1] is m


def test_batch_statistics_come_out_as_in_torch():
    norm = nn.BatchNorm2d(3)
    out, new = nn.apply(norm, X, training=True)
    mean, var = X.mean((0, 2, 3)), X.var((0, 2, 3))
    assert_close(out, (X - mean.reshape(-1, 1, 1)) / np.sqrt(var.reshape(-1, 1, 1) + 1e-5), 1e-5)
    assert_close(new.running_mean, 0.1 * mean)
    assert_close(new.running_var, 0.9 + 0.1 * X.var((0, 2, 3), ddof=1))
    assert norm.running_mean.sum() == 0 and tree.structure(new) == tree.structure(norm)
    assert new.running_mean.dtype == np.float32


def test_a_layer_called_twice_updates_twice():
    class Twice(nn.Module):
        norm: nn.BatchNorm1d

        def __call__(self, x):
            return self.norm(self.norm(x))

    x = X.reshape(-1, 4)
    _, once = nn.apply(nn.BatchNorm1d(4), x, training=True)
    _, twice = nn.apply(Twice(nn.BatchNorm1d(4)), x, training=True)
    assert_close(twice.norm.running_mean, 0.9 * once.running_mean)


def test_dropout_zeros_and_rescales():
    x = np.ones((100, 100), np.float32)
    out, _ = nn.apply(nn.Dropout(0.25), x, key=fl.random.key(1), training=True)
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    same, _ = nn.apply(nn.Dropout(0.25), x, key=fl.random.key(1), training=True)
    np.testing.assert_array_equal(out, same)
    assert np.all(nn.apply(nn.Dropout(1.0), x, key=fl.random.key(1), training=True)[0] == 0)


def test_each_dropout_has_a_key_of_its_own():
    two = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    out, _ = nn.apply(two, np.ones(10_000, np.float32), key=fl.random.key(1), training=True)
    assert abs((out != 0).mean() - 0.25) < 0.02


def test_shared_axes_drop_whole_channels():
    out, _ = nn.apply(nn.Dropout(0.5, shared_axes=(-2, -1)), np.ones((8, 8, 4, 4)), key=fl.random.key(0), training=True)
    assert set(np.unique(out.sum((-2, -1)))) == {0.0, 32.0}


def test_a_missing_key_is_an_error_that_shows_the_call():
    with pytest.raises(ArgumentError, match=r"Dropout draws random numbers.*\n.*\n.*key=key, training=True"):
        nn.apply(nn.Dropout(0.5), X, training=True)


def test_apply_is_the_same_under_jit():
    def step(m, x, key):
        return nn.apply(m, x, key=key, training=True)

    m, key = model(), fl.random.key(5)
    out, new = step(m, X, key)
    jit_out, jit_new = fl.jit(step)(m, X, key)
    assert_close(jit_out, out, 1e-5)
    assert tree.structure(jit_new) == tree.structure(m)
    for a, b in zip(tree.leaves(jit_new), tree.leaves(new), strict=True):
        assert_close(a, b)


def loss(m, x, key):
    out, m = nn.apply(m, x, key=key, training=True)
    return (out**2).mean(), m


def test_statistics_leave_a_gradient_as_auxiliary_values():
    m, key = model(), fl.random.key(5)
    (value, new), grads = fl.value_and_grad(loss, has_aux=True)(m, X, key)
    expected, same = loss(m, X, key)
    assert_close(value, expected)
    assert_close(new[1].running_mean, same[1].running_mean)
    assert isinstance(new[1].running_mean, np.ndarray)
    assert not np.any(grads[1].running_mean) and not np.any(grads[1].running_var)
    assert np.any(grads[1].weight)


def test_running_statistics_have_no_gradient_in_inference():
    grads = fl.grad(lambda m: (m(X) ** 2).mean())(nn.BatchNorm2d(3))
    assert not np.any(grads.running_mean) and not np.any(grads.running_var) and np.any(grads.weight)


def test_an_ensemble_is_a_vmap_of_apply():
    keys = fl.random.split(fl.random.key(0), 3)
    models = [nn.Sequential(nn.Linear(4, 2, key=k), nn.BatchNorm1d(2), nn.Dropout(0.5)) for k in keys]
    stacked = tree.map(lambda *leaves: np.stack(leaves), *models)
    x = X.reshape(-1, 4)
    out, new = fl.vmap(lambda m, k: nn.apply(m, x, key=k, training=True))(stacked, keys)
    for i, m in enumerate(models):
        one, one_new = nn.apply(m, x, key=keys[i], training=True)
        assert_close(out[i], one, 1e-5)
        assert_close(new[1].running_var[i], one_new[1].running_var, 1e-5)


def test_vmap_over_examples_with_an_axis_name_is_the_batch():
    norm = nn.BatchNorm2d(3, axis_name="batch")
    out, new = fl.vmap(
        lambda x: nn.apply(norm, x, training=True), axis_name="batch", out_axes=(0, None)
    )(X)  # fmt: skip
    expected, same = nn.apply(nn.BatchNorm2d(3), X, training=True)
    assert_close(out, expected, 1e-5)
    assert_close(new.running_mean, same.running_mean)
    assert_close(new.running_var, same.running_var, 1e-5)


def test_one_value_a_channel_cannot_be_normalised():
    with pytest.raises(ShapeError, match="more than one value for each channel. Under vmap"):
        nn.apply(nn.BatchNorm1d(4), np.ones((1, 4)), training=True)


def test_a_layer_outside_the_model_may_not_change():
    outside = nn.BatchNorm1d(4)

    class Leaky(nn.Module):
        def __call__(self, x):
            return outside(x)

    with pytest.raises(ArgumentError, match="a BatchNorm1d that is no part of the model changed its statistics"):
        nn.apply(Leaky(), np.ones((2, 4)), training=True)


def test_the_context_is_restored_after_an_error():
    with pytest.raises(ShapeError):
        nn.apply(nn.BatchNorm1d(4), np.ones((2, 5)), training=True)
    assert not nn.is_training()


def test_a_function_jitted_inside_the_model_follows_the_forward_pass():
    class Block(nn.Module):
        dropout: nn.Dropout

        def __init__(self):
            self.dropout = nn.Dropout(0.5)

        def __call__(self, x):
            return _jitted_block(self.dropout, x)

    x = np.ones(64, np.float32)
    block = Block()
    first, _ = nn.apply(block, x, key=fl.random.key(0), training=True)
    second, _ = nn.apply(block, x, key=fl.random.key(1), training=True)
    assert (np.asarray(first) != np.asarray(second)).any()
    np.testing.assert_array_equal(block(x), x)


@fl.jit
def _jitted_block(dropout, x):
    return dropout(x)
