# SPDX-License-Identifier: MIT
"""The parts optimizers are chained from: clipping, decay, groups, schedules."""

import math

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim
from functorch_lite.errors import ArgumentError

PARAMS = {"a": np.array([1.0, 2.0]), "b": np.array([3.0])}
GRADS = {"a": np.array([3.0, 0.0]), "b": np.array([-4.0])}


def updates(transformation, grads=None, params=None):
    params = PARAMS if params is None else params
    return transformation.update(GRADS if grads is None else grads, transformation.init(params), params)[0]


def test_global_norm_and_clipping():
    assert optim.global_norm(GRADS) == 5 and optim.global_norm({}) == 0
    clipped = updates(optim.clip_by_global_norm(1.0))
    np.testing.assert_allclose(clipped["a"], [0.6, 0], rtol=1e-6)
    np.testing.assert_array_equal(updates(optim.clip_by_global_norm(6.0))["b"], GRADS["b"])
    np.testing.assert_array_equal(updates(optim.clip(2.0))["b"], [-2.0])


def test_clipping_keeps_the_dtype_and_survives_zero_gradients():
    zeros = {"a": np.zeros(2, np.float32), "b": np.zeros(1, np.float16)}
    clipped = updates(optim.clip_by_global_norm(1.0), zeros, zeros)
    assert {k: v.dtype for k, v in clipped.items()} == {"a": np.float32, "b": np.float16}
    assert not np.any(clipped["a"])


def test_a_chain_applies_its_links_in_order():
    chained = optim.chain(optim.scale(2.0), optim.clip(2.0))
    np.testing.assert_array_equal(updates(chained)["a"], [2.0, 0.0])
    np.testing.assert_array_equal(updates(optim.identity())["a"], GRADS["a"])


def test_decay_leaves_out_what_is_not_selected():
    np.testing.assert_allclose(updates(optim.add_decayed_weights(0.1))["a"], [3.1, 0.2])
    some = updates(optim.add_decayed_weights(0.1, "*b*"))
    np.testing.assert_allclose(some["a"], GRADS["a"])
    np.testing.assert_allclose(some["b"], [-3.7])
    by_mask = updates(optim.add_decayed_weights(0.1, {"a": False, "b": True}))
    np.testing.assert_allclose(by_mask["b"], [-3.7])


def test_decay_needs_the_parameters():
    decay = optim.add_decayed_weights(0.1)
    with pytest.raises(ArgumentError, match="add_decayed_weights needs the parameters"):
        decay.update(GRADS, decay.init(PARAMS))


def test_running_statistics_do_not_decay():
    norm = nn.BatchNorm1d(2)
    opt = optim.adamw(0.1, weight_decay=0.5)
    zeros = fl.tree.map(np.zeros_like, norm)
    new, _ = opt.step(norm, zeros, opt.init(norm))
    np.testing.assert_array_equal(new.running_var, norm.running_var)
    np.testing.assert_allclose(new.weight, 0.95 * norm.weight)


def test_groups_have_settings_of_their_own():
    opt = optim.groups({"*b*": optim.freeze(), "*a*": optim.sgd(1.0)}, default=optim.sgd(0.1))
    params = {**PARAMS, "c": np.array([1.0])}
    new, state = opt.step(params, {**GRADS, "c": np.array([1.0])}, opt.init(params))
    np.testing.assert_allclose(new["a"], [-2.0, 2.0])
    np.testing.assert_allclose(new["b"], [3.0])
    np.testing.assert_allclose(new["c"], [0.9])
    new, _ = opt.step(new, {**GRADS, "c": np.array([1.0])}, state)
    np.testing.assert_allclose(new["c"], [0.8])


def test_masked_passes_the_other_gradients_on():
    opt = optim.masked(optim.scale(10.0), "*a*")
    np.testing.assert_allclose(updates(opt)["a"], [30.0, 0.0])
    np.testing.assert_allclose(updates(opt)["b"], [-4.0])


def test_integer_parameters_stay():
    params = {"w": np.ones(2), "count": np.array(3)}
    grads = fl.grad(lambda p: (p["w"] ** 2).sum(), allow_int=True)(params)
    new, _ = optim.sgd(0.1).step(params, grads, optim.sgd(0.1).init(params))
    assert new["count"] == 3 and new["count"].dtype == params["count"].dtype
    np.testing.assert_allclose(new["w"], 0.8)


def test_a_scheduled_rate_is_that_of_the_step():
    opt = optim.sgd(optim.linear(1.0, 0.0, 4))
    p, state = np.array([0.0], np.float32), opt.init(np.array([0.0], np.float32))
    seen = []
    for _ in range(5):
        new, state = opt.step(p, np.array([-1.0], np.float32), state)
        seen.append(float((new - p)[0]))
        p = new
    np.testing.assert_allclose(seen, [1.0, 0.75, 0.5, 0.25, 0.0])
    assert p.dtype == np.float32


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (optim.constant(0.3), lambda i: 0.3),
        (optim.linear(1.0, 0.5, 10), lambda i: 1 - 0.5 * min(i, 10) / 10),
        (optim.polynomial(1.0, 0.0, 10, 2.0), lambda i: (1 - min(i, 10) / 10) ** 2),
        (optim.cosine_decay(2.0, 10, end=1.0), lambda i: 1 + 0.5 * (1 + math.cos(math.pi * min(i, 10) / 10))),
        (
            optim.cosine_decay(2.0, 12, warmup=2),
            lambda i: i if i < 2 else 1 + math.cos(math.pi * min(i - 2, 10) / 10),
        ),
        (optim.exponential(1.0, 0.5, 3), lambda i: 0.5 ** (i / 3)),
        (optim.exponential(1.0, 0.5, 3, staircase=True), lambda i: 0.5 ** (i // 3)),
        (optim.step(1.0, [3, 6], 0.1), lambda i: 0.1 ** (int(i >= 3) + int(i >= 6))),
        (optim.join([optim.constant(1.0), optim.linear(5.0, 0.0, 5)], [4]), lambda i: 1.0 if i < 4 else 9.0 - i),
    ],
    ids=["constant", "linear", "polynomial", "cosine", "warmup", "exponential", "staircase", "step", "join"],
)
def test_a_schedule_is_its_formula(schedule, expected):
    steps = np.arange(9)
    wanted = [expected(i) for i in steps]
    np.testing.assert_allclose([schedule(np.asarray(i)) for i in steps], wanted, atol=1e-15)
    np.testing.assert_allclose(fl.vmap(schedule)(steps), wanted, atol=1e-15)
    np.testing.assert_allclose([fl.jit(schedule)(np.asarray(i)) for i in steps[:5]], wanted[:5], atol=1e-12)


def test_wrong_settings_are_refused():
    with pytest.raises(ArgumentError, match=r"adam: `b1` should be in \[0.0, 1.0\), but is 1.0"):
        optim.adam(b1=1.0)
    with pytest.raises(ArgumentError, match="nesterov needs a momentum above 0"):
        optim.sgd(0.1, nesterov=True)
    with pytest.raises(ArgumentError, match="cosine_decay: the number of steps should be at least 1, but is -1"):
        optim.cosine_decay(1.0, 3, warmup=4)
    with pytest.raises(ArgumentError, match="2 schedules need one boundary fewer, got 0"):
        optim.join([optim.constant(1.0)] * 2, [])


def test_per_member_optimizers_are_a_vmap():
    opt = optim.adam(0.1)
    params, grads = np.ones((3, 2)), np.arange(6.0).reshape(3, 2)
    state = fl.vmap(opt.init)(params)
    new, state = fl.vmap(opt.step)(params, grads, state)
    for i in range(3):
        one, _ = opt.step(params[i], grads[i], opt.init(params[i]))
        np.testing.assert_allclose(new[i], one, rtol=1e-12)
