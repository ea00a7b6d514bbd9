# SPDX-License-Identifier: MIT
"""Laws that hold for every row of the table: dtypes under jit, and a vmapped step is a loop over members."""

import numpy as np
import pytest

import functorch_lite as fl
from tests.records.optimizers import MATRICES, OPTIMIZERS

ALL = OPTIMIZERS + MATRICES
IDS = [record.name for record in OPTIMIZERS] + [f"{record.name}_matrix" for record in MATRICES]


@pytest.mark.parametrize("record", ALL, ids=IDS)
def test_a_jitted_step_keeps_the_dtypes(record):
    opt = record.make()
    params = {"w": np.arange(1, 7, dtype=np.float32).reshape(2, 3), "b": np.array([1, -2, 0.5], np.float16)}
    step, state = fl.jit(opt.step), opt.init(params)
    new, new_state = params, state
    for _ in range(3):
        new, new_state = step(new, fl.tree.map(lambda p: p / 2, params), new_state)
    dtypes = [leaf.dtype for leaf in fl.tree.leaves((params, state))]
    assert [leaf.dtype for leaf in fl.tree.leaves((new, new_state))] == dtypes
    assert fl.tree.structure(new_state) == fl.tree.structure(state)
    assert np.all(np.isfinite(new["w"]))


@pytest.mark.parametrize("record", ALL, ids=IDS)
def test_a_vmapped_step_is_a_loop_over_the_members(record):
    opt = record.make()
    rng = np.random.default_rng(1)
    starts, grads = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 3, 4, 2))
    params, state = starts, fl.vmap(opt.init)(starts)
    for g in grads:
        params, state = fl.vmap(opt.step)(params, g, state)
    for i in range(3):
        one, own = starts[i], opt.init(starts[i])
        for g in grads:
            one, own = opt.step(one, g[i], own)
        np.testing.assert_allclose(params[i], one, rtol=1e-8, atol=1e-10)
