# SPDX-License-Identifier: MIT
"""Pytrees: what flattens comes back, paths select leaves, and two trees that differ are told apart."""

from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functorch_lite import tree
from functorch_lite.errors import TreeError

Point = namedtuple("Point", "x y")


INTEGERS = st.integers()


def trees(leaves=INTEGERS):
    """Nested lists, tuples, dictionaries, named tuples and None over `leaves`."""
    return st.recursive(
        leaves | st.none(),
        lambda sub: st.lists(sub, max_size=3)
        | st.lists(sub, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), sub, max_size=3)
        | st.tuples(sub, sub).map(lambda pair: Point(*pair)),
        max_leaves=8,
    )


@given(trees())
def test_unflatten_undoes_flatten(t):
    leaves, treedef = tree.flatten(t)
    assert tree.unflatten(treedef, leaves) == t
    assert treedef.num_leaves == len(leaves) == len(tree.leaves(t))


@given(trees())
def test_map_keeps_the_structure(t):
    doubled = tree.map(lambda x: 2 * x, t)
    assert tree.structure(doubled) == tree.structure(t)
    assert tree.leaves(doubled) == [2 * x for x in tree.leaves(t)]


@given(trees())
def test_a_path_selects_its_leaf(t):
    for path, leaf in zip(tree.paths(t), tree.leaves(t), strict=True):
        assert eval(f"t{path}", {"t": t}) == leaf


@given(trees(), trees())
def test_first_difference_is_empty_exactly_for_equal_structures(a, b):
    assert (tree.first_difference(a, b) == "") == (tree.structure(a) == tree.structure(b))


@given(trees(st.integers(0, 9)))
def test_reduce_and_all_run_over_the_leaves(t):
    assert tree.reduce(lambda a, b: a + b, t, 0) == sum(tree.leaves(t))
    assert tree.all(tree.map(lambda x: x >= 0, t))


def test_dictionaries_flatten_in_key_order_and_none_is_no_leaf():
    assert tree.leaves({"b": 1, "a": 2, "c": None}) == [2, 1]
    assert tree.leaves(OrderedDict(b=1, a=2)) == [1, 2]


def test_transpose_turns_trees_inside_out():
    outer, inner = tree.structure([0, 0]), tree.structure({"a": 0, "b": 0})
    assert tree.transpose(outer, inner, [{"a": 1, "b": 2}, {"a": 3, "b": 4}]) == {"a": [1, 3], "b": [2, 4]}


def test_map_over_trees_that_differ_names_the_place():
    with pytest.raises(TreeError, match=r"tree.map: at `\['w'\]`"):
        tree.map(lambda a, b: a + b, {"w": [1, 2]}, {"w": [1]})


def test_broadcast_prefix_repeats_a_value_over_the_leaves_below_it():
    assert tree.broadcast_prefix((0, None), ([1, 2], {"a": 3}), what="axes") == [0, 0, None]
    with pytest.raises(TreeError, match="axes must be a prefix"):
        tree.broadcast_prefix({"a": 0}, {"b": 1}, what="axes")


def test_a_registered_class_is_a_container():
    class Pair:
        def __init__(self, a, b):
            self.a, self.b = a, b

    tree.register(Pair, lambda p: ((p.a, p.b), None), lambda _, children: Pair(*children))
    doubled = tree.map(lambda x: 2 * x, Pair(1, [2, 3]))
    assert (doubled.a, doubled.b) == (2, [4, 6])
