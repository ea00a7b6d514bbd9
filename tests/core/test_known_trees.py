# SPDX-License-Identifier: MIT
"""Trees whose leaves are known: found by identity where nobody can change them, with the structure that they have."""

from typing import NamedTuple

import numpy as np

import functorch_lite as fl
from functorch_lite import nn, random, tree
from functorch_lite.core.known_trees import LEAST, KnownTrees


class State(NamedTuple):
    count: object
    mean: object
    nothing: object = None


def model():
    return nn.Sequential(*[nn.Linear(2, 2, key=k) for k in random.split(random.key(0), LEAST)])


def known(x):
    found = KnownTrees()
    found.remember(x, *tree.flatten(x))
    return found


def test_trees_in_containers_are_found():
    m, mean = model(), model()
    given = ([m, {"z": 1, "state": State(np.zeros(()), mean)}], {})
    trees = known(given)
    for x in (m, mean):
        leaves, treedef = trees.find(x)
        assert treedef == tree.structure(x)
        assert all(a is b for a, b in zip(leaves, tree.leaves(x), strict=True))


def test_what_may_change_is_not_known():
    weights = {f"w{k:02}": np.zeros(2) for k in range(LEAST)}
    trees = known((weights, list(weights.values())))
    assert trees.find(weights) is None and trees.find(list(weights.values())) is None


def test_flattening_gives_the_structure_that_a_tree_has():
    m, mean = model(), model()
    trees = known((m, mean))
    mixed = m, None, State(np.ones(()), mean), [m], {"a": mean}
    for x in (m, (m, mean), mixed, State(m, mean), (), None, np.ones(2)):
        leaves, treedef = trees.flatten(x)
        wanted, structure = tree.flatten(x)
        assert treedef == structure and hash(treedef) == hash(structure)
        assert all(a is b for a, b in zip(leaves, wanted, strict=True))
        assert tree.structure(tree.unflatten(treedef, leaves)) == structure


def test_a_model_put_into_a_changed_list_is_read_anew():
    models = [model() for _ in range(2)]

    def swapped(models, other):
        models[0] = other
        return tree.map(lambda x: 2 * x, models)

    other = model().replace(layers=models[1].layers)
    found = fl.jit(lambda ms, o: swapped(list(ms), o))(models, other)
    assert all((a == 2 * b).all() for a, b in zip(tree.leaves(found[0]), tree.leaves(other), strict=True))
