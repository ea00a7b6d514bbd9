# SPDX-License-Identifier: MIT
"""Maps over leaves that a staged function traces by blocks: the same numbers, and no leaf of a changed tree."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim, random, tree
from functorch_lite.optim.base import is_absent
from functorch_lite.optim.blockwise import map_leaves, map_leaves_to

LAYERS = 12


def network():
    return nn.Sequential(*[nn.MLP([3, 3, 3], key=k) for k in random.split(random.key(0), LAYERS)])


def assert_equal(found, wanted):
    assert tree.structure(found) == tree.structure(wanted)
    for x, y in zip(tree.leaves(found), tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(x, y)


def test_several_results_for_each_leaf():
    def split(m):
        return map_leaves_to(2, lambda x, y: (x + y, x - y), m, m)

    model = network()
    total, nothing = fl.jit(split)(model)
    assert_equal(total, tree.map(lambda x: 2 * x, model))
    assert_equal(nothing, tree.map(np.zeros_like, model))
    assert_equal(split(model), (total, nothing))


def test_equal_layers_are_calls_of_one_program():
    model = network()
    opt = optim.adamw(1e-3)
    program = fl.make_program(lambda m, g, s: opt.step(m, g, s))(model, model, opt.init(model))
    calls = [e.params["program"] for e in program.equations if e.prim.name == "jit"]
    assert len(calls) == LAYERS and len(set(map(id, calls))) == 1  # all stages of the optimizer in one


def test_absent_gradients_stay_absent_from_map_to_map():
    model = network()
    def twice(g):
        first = map_leaves(lambda x: None if x.ndim == 1 else 2 * x, g, is_leaf=is_absent)
        return map_leaves(lambda x: x if x is None else x + 1, first, is_leaf=is_absent)

    assert_equal(fl.jit(twice)(model), twice(model))


@pytest.mark.parametrize("make", (dict, list), ids=("dict", "list"))
def test_a_tree_that_was_changed_between_maps_is_read_anew(make):
    names = [f"w{i:02}" for i in range(40)]

    def changed(*values):
        made = dict(zip(names, values, strict=True)) if make is dict else list(values)
        doubled = map_leaves(lambda x: 2 * x, made)
        doubled[names[3] if make is dict else 3] = values[0]
        return map_leaves(lambda x: x + 1, doubled)

    values = [np.full(2, i, np.float32) for i in range(40)]
    assert_equal(fl.jit(changed)(*values), changed(*values))


def test_a_leaf_that_is_no_tracer_is_left_out_of_blocks():
    constants = [np.full(3, i, np.float32) for i in range(24)]
    found = fl.jit(lambda *xs: map_leaves(lambda x, c: x * c, list(xs), constants))(*[np.ones(3, np.float32)] * 24)
    assert_equal(found, constants)
