# SPDX-License-Identifier: MIT
"""Every optimizer of the table against PyTorch's, over 100 steps; the reference values are kept in a file."""

from pathlib import Path

import numpy as np
import pytest

import functorch_lite as fl
from tests.records.optimizers import OPTIMIZERS, problem

REFERENCE = np.load(Path(__file__).with_name("torch_reference.npz"))
WITH_TORCH = [record for record in OPTIMIZERS if record.torch]


def run(opt, step):
    matrix, centre, start, noise = problem()
    params, state, path = {"p": start}, opt.init({"p": start}), []
    for extra in noise:
        grads = {"p": matrix @ (params["p"] - centre) + extra}
        params, state = step(params, grads, state)
        path.append(params["p"])
    return np.stack([path[0], path[9], path[-1]])


@pytest.mark.parametrize("record", WITH_TORCH, ids=lambda record: record.name)
def test_steps_1_10_and_100_are_torchs(record):
    opt = record.make()
    np.testing.assert_allclose(run(opt, opt.step), REFERENCE[record.name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("record", OPTIMIZERS, ids=lambda record: record.name)
def test_a_jitted_step_is_the_eager_step(record):
    opt = record.make()
    np.testing.assert_allclose(run(opt, fl.jit(opt.step)), run(opt, opt.step), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("record", OPTIMIZERS, ids=lambda record: record.name)
def test_the_bowl_is_descended(record):
    opt = record.make()
    matrix, centre, start, _ = problem()

    def loss(p):
        return 0.5 * (p - centre) @ matrix @ (p - centre)

    p, state = start, opt.init(start)
    for _ in range(60):
        p, state = opt.step(p, fl.grad(loss)(p), state)
    assert loss(p) < 0.5 * loss(start)


@pytest.mark.parametrize("record", OPTIMIZERS, ids=lambda record: record.name)
def test_the_state_keeps_its_structure_and_dtypes(record):
    opt = record.make()
    params = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float16)}
    state = opt.init(params)
    new_params, new_state = opt.step(params, params, state)
    assert fl.tree.structure(new_state) == fl.tree.structure(state)
    assert [leaf.dtype for leaf in fl.tree.leaves(new_state)] == [leaf.dtype for leaf in fl.tree.leaves(state)]
    assert {name: leaf.dtype for name, leaf in new_params.items()} == {"w": np.float32, "b": np.float16}


@pytest.mark.parametrize("record", OPTIMIZERS, ids=lambda record: record.name)
def test_a_frozen_leaf_and_its_state_stay(record):
    opt = record.make()
    params = {"frozen": np.ones(2), "w": np.ones(2)}
    grads = {"frozen": None, "w": np.ones(2)}
    state = opt.init(params)
    for _ in range(2):
        params, state = opt.step(params, grads, state)
    np.testing.assert_array_equal(params["frozen"], np.ones(2))
    assert np.all(params["w"] < 1)
