# SPDX-License-Identifier: MIT
"""Transformations in one pass over the leaves: the numbers, states and absences of one pass each."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import optim, tree
from functorch_lite.optim.leafwise import Leafwise, LeafwiseUpdate, in_a_row

PARAMS = {"a": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float32),
          "n": np.arange(2), "frozen": np.full(2, 3.0, np.float32)}
GRADS = {"a": np.full((2, 3), 0.5, np.float32), "b": np.linspace(0, 1, 3, dtype=np.float32), "n": None, "frozen": None}

PARTS = {
    "adam": [optim.scale_by_adam(), optim.scale_by_learning_rate(0.1)],
    "decay": [optim.add_decayed_weights(0.1, where="*a*"), optim.scale_by_adam(amsgrad=True), optim.scale(-0.1)],
    "schedule": [optim.trace(0.9, nesterov=True), optim.scale_by_schedule(lambda count: -0.1 / (count + 1))],
    "clip first": [optim.clip_by_global_norm(0.5), optim.scale_by_adam(), optim.scale(-1.0)],
    "clip between": [optim.scale_by_adam(), optim.clip_by_global_norm(0.5), optim.scale(-1.0), optim.scale(0.5)],
}


def assert_same(found, wanted):
    assert tree.structure(found) == tree.structure(wanted)
    for x, y in zip(tree.leaves(found), tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def one_by_one(parts, grads, states, params):
    """The updates and states of transformations, each in a pass of its own."""
    new = []
    for part, state in zip(parts, states, strict=True):
        grads, state = part.update(grads, state, params)
        new.append(state)
    return grads, tuple(new)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("jitted", (False, True), ids=("eager", "jit"))
def test_a_chain_is_its_parts_one_after_the_other(name, jitted):
    parts = PARTS[name]
    opt = optim.chain(*parts)
    update = fl.jit(opt.update) if jitted else opt.update
    apart = fl.jit(lambda *a: one_by_one(parts, *a)) if jitted else lambda *a: one_by_one(parts, *a)
    state = wanted = opt.init(PARAMS)
    for _ in range(3):
        updates, state = update(GRADS, state, PARAMS)
        found, wanted = apart(GRADS, wanted, PARAMS)
        assert_same((updates, state), (found, wanted))
        assert updates["n"] is None and updates["frozen"] is None


@pytest.mark.parametrize("name", PARTS)
def test_a_step_is_the_update_added(name):
    opt = optim.chain(*PARTS[name])
    state = opt.init(PARAMS)
    updates, new = opt.update(GRADS, state, PARAMS)
    found = opt.step(PARAMS, GRADS, state)
    assert_same(found, (optim.apply_updates(PARAMS, updates), new))
    assert found[0]["frozen"] is PARAMS["frozen"] and found[0]["n"] is PARAMS["n"]


def test_half_precision_parameters_stay_so():
    params = {"w": np.ones(4, np.float16)}
    opt = optim.adamw(1e-2)
    assert opt.step(params, params, opt.init(params))[0]["w"].dtype == np.float16


def test_parameters_are_asked_for_where_they_are_needed():
    opt = optim.adamw(1e-2)
    with pytest.raises(fl.errors.ArgumentError, match="add_decayed_weights needs the parameters"):
        opt.update(GRADS, opt.init(PARAMS))
    adam = optim.adam(1e-2)
    assert_same(adam.update(GRADS, adam.init(PARAMS)), adam.update(GRADS, adam.init(PARAMS), PARAMS))


def test_parts_keep_their_own_states_and_others():
    def part(k):
        return Leafwise(lambda g, p, s, t, other: (g + k, s + g, t + other), (10 * k, 20 * k),
                        lambda s, t: (k, s, t), (100 * k,))

    row = in_a_row([part(1), Leafwise(lambda g, p: (g * p,)), part(2)])
    assert row.states == (10, 20, 20, 40) and row.others == (100, 200)
    assert row.fun(1, 3, *row.states, *row.others) == (8, 11, 120, 26, 240)
    assert row.state(11, 120, 26, 240) == ((1, 11, 120), (), (2, 26, 240))


def test_an_empty_chain_gives_the_gradients():
    opt = optim.chain()
    assert opt.update(GRADS, opt.init(PARAMS)) == (GRADS, ())
    assert not isinstance(opt.update, LeafwiseUpdate)
