# SPDX-License-Identifier: MIT
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import optim
from functorch_lite.errors import ArgumentError


def path_of(scale, finite):
    found = []
    for ok in finite:
        scale = scale.updated(ok)
        found.append((float(scale.scale), int(scale.n_finite)))
    return found


def test_it_grows_after_an_interval_and_backs_off_at_once():
    scale = optim.DynamicScale(8.0, growth=4.0, backoff=0.25, interval=2)
    assert path_of(scale, [True, True, True, False, True, True]) == [
        (8, 1), (32, 0), (32, 1), (8, 0), (8, 1), (32, 0)
    ]  # fmt: skip


def test_the_defaults_are_torchs():
    scale = optim.DynamicScale()
    assert (float(scale.scale), scale.growth, scale.backoff, scale.interval) == (65536.0, 2.0, 0.5, 2000)


def test_it_does_not_grow_to_infinity():
    scale = optim.DynamicScale(2.0**127, interval=1)
    assert float(scale.updated(True).scale) == 2.0**127 and int(scale.updated(True).n_finite) == 0


def test_value_and_gradients_are_those_of_the_loss():
    def loss(p, x):
        return ((p["w"] * x) ** 2).sum(), x.shape

    p, x = {"w": np.arange(3, dtype=np.float32)}, np.float32(2)
    scale = optim.DynamicScale()
    (value, aux), grads = scale.value_and_grad(loss, has_aux=True)(p, x * np.ones(3, np.float32))
    assert value == 20 and aux == (3,)
    np.testing.assert_array_equal(grads["w"], 8 * p["w"])
    value, (g, h) = scale.value_and_grad(lambda a, b: a * b, (0, 1))(np.float32(2), np.float32(3))
    assert (value, g, h) == (6, 3, 2)


def test_small_gradients_survive_float16():
    def loss(p):
        return ((p.astype(np.float16) * np.float16(1e-3)) * np.float16(1e-5)).astype(np.float32).sum()

    p = np.ones(2, np.float32)
    assert np.all(fl.grad(loss)(p) != 1e-8)
    _, grads = optim.DynamicScale(2.0**15).value_and_grad(loss)(p)
    np.testing.assert_allclose(grads, 1e-8, rtol=2e-2)


def test_a_step_that_is_not_finite_is_left_out():
    opt, scale = optim.adam(0.1), optim.DynamicScale(8.0)
    p = {"w": np.ones(2, np.float32), "frozen": np.ones(1, np.float32)}
    state = opt.init(p)
    bad = {"w": np.array([1, np.inf], np.float32), "frozen": None}
    same, same_state, lower = scale.step(opt, p, bad, state)
    np.testing.assert_array_equal(same["w"], p["w"])
    assert int(fl.tree.leaves(same_state)[0]) == 0 and float(lower.scale) == 4
    new, new_state, kept = lower.step(opt, same, {"w": np.ones(2, np.float32), "frozen": None}, same_state)
    np.testing.assert_allclose(new["w"], 0.9, rtol=1e-6)
    assert float(kept.scale) == 4 and int(kept.n_finite) == 1


def test_a_loss_that_overflows_when_scaled_lowers_the_scale():
    scale, opt, p = optim.DynamicScale(), optim.sgd(0.1), np.float32(1)
    _, grads = scale.value_and_grad(lambda p: p * np.float32(1e35))(p)
    p, _, scale = scale.step(opt, p, grads, opt.init(p))
    assert p == 1 and float(scale.scale) == 2.0**15


def test_jit_scan_and_eager_agree():
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(20, 3)).astype(np.float32)
    xs[[4, 5, 11]] = np.inf
    opt = optim.adam(0.1)

    def step(carry, x):
        p, state, scale = carry
        loss, grads = scale.value_and_grad(lambda p: ((p - x) ** 2).sum())(p)
        p, state, scale = scale.step(opt, p, grads, state)
        return (p, state, scale), (loss, scale.scale)

    p = np.zeros(3, np.float32)
    start = (p, opt.init(p), optim.DynamicScale(interval=3))
    carry, eager = start, []
    for x in xs:
        carry, out = step(carry, x)
        eager.append(float(out[1]))
    scanned, (_, scales) = fl.jit(lambda c, xs: fl.lax.scan(step, c, xs))(start, xs)
    np.testing.assert_array_equal(scales, eager)
    np.testing.assert_allclose(scanned[0], carry[0], rtol=1e-5)
    assert len(set(eager)) == 3 and np.isfinite(carry[0]).all()


def test_it_maps():
    scales = fl.vmap(lambda ok: optim.DynamicScale(4.0, interval=1).updated(ok))(np.array([True, False]))
    np.testing.assert_array_equal(scales.scale, [8, 2])


@pytest.mark.parametrize("bad", [{"growth": 1.0}, {"backoff": 1.0}, {"interval": 0}, {"init": 0.0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ArgumentError, match="should be"):
        optim.DynamicScale(**bad)
