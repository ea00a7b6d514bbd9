# SPDX-License-Identifier: MIT
"""Every optimizer of the table on the stand-in device: the steps are NumPy's, and all state stays there."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import optim
from tests.records.optimizers import MATRICES, OPTIMIZERS

RNG = np.random.default_rng(0)
PARAMS = {"w": RNG.normal(size=(4, 3)), "b": RNG.normal(size=4)}
GRADS = [{"w": RNG.normal(size=(4, 3)), "b": RNG.normal(size=4)} for _ in range(4)]
ROUNDING = {"soap": 1e-8}
"""SOAP divides by eps = 1e-8 what rounding leaves along eigenvectors without a gradient, of which a matrix [4, 3] has
one: 1e-16 becomes 1e-8, times the rate. The two sides take their eigenvectors from different builds of LAPACK."""


def run(xp, opt, jitted):
    """The parameters and the state after the steps."""
    params = fl.tree.map(xp.asarray, PARAMS)
    step, state = fl.jit(opt.step) if jitted else opt.step, opt.init(params)
    for grads in GRADS:
        params, state = step(params, fl.tree.map(xp.asarray, grads), state)
    return params, state


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("record", OPTIMIZERS + MATRICES, ids=lambda record: record.name)
def test_the_steps_and_the_state_of_an_optimizer(device, record, jitted):
    found, expected = run(device, record.make(), jitted), run(np, record.make(), jitted)
    assert all(isinstance(leaf, device.ndarray) for leaf in fl.tree.leaves(found))
    for ours, theirs in zip(fl.tree.leaves(found), fl.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours.get(), theirs, rtol=1e-9, atol=ROUNDING.get(record.name, 1e-12))


@pytest.mark.parametrize("line_search", [False, True])
def test_lbfgs(device, line_search):
    def value_and_grad(p):
        return fl.value_and_grad(lambda p: ((p["w"] - 1) ** 4).sum() + (p["b"] ** 2).sum())(p)

    def minimized(xp):
        opt, params = optim.lbfgs(0.1, history=3, line_search=line_search), fl.tree.map(xp.asarray, PARAMS)
        state = opt.init(params)
        for _ in range(4):
            params, state = opt.step(params, value_and_grad, state)
        return params, state

    found, expected = minimized(device), minimized(np)
    assert all(isinstance(leaf, device.ndarray) for leaf in fl.tree.leaves(found))
    for ours, theirs in zip(fl.tree.leaves(found), fl.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours.get(), theirs, rtol=1e-9, atol=1e-12)
