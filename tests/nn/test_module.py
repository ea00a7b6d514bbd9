# SPDX-License-Identifier: MIT
import copy
import pickle
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from functorch_lite import nn, tree
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ImmutableError, TreeError


class Affine(nn.Module):
    weight: nn.Array
    bias: nn.Array | None
    name: str = "affine"
    activation: Callable[[Any], Any] = nn.relu
    sizes: tuple[int, ...] = (1, 2)
    mode: Literal["a", "b"] | None = None


class Pair(nn.Module):
    parts: list
    table: dict
    note: Any = nn.static(default=None)


def affine(**changes):
    return Affine(np.ones(2), np.zeros(2)).replace(**changes)


def test_array_fields_are_leaves_and_plain_fields_are_not():
    model = affine()
    assert len(tree.leaves(model)) == 2
    assert tree.paths(model) == [".weight", ".bias"]
    assert len(tree.leaves(affine(bias=None))) == 1


def test_paths_go_through_containers():
    model = Pair([affine(), np.ones(1)], {"k": affine(bias=None)})
    assert tree.paths(model) == [
        ".parts[0].weight", ".parts[0].bias", ".parts[1]", ".table['k'].weight"
    ]  # fmt: skip


def test_structures_are_equal_when_statics_are():
    one, two = tree.structure(affine()), tree.structure(affine())
    assert one == two and hash(one) == hash(two)
    assert tree.structure(affine(name="other")) != one
    assert tree.structure(affine(activation=nn.tanh)) != one


def test_any_value_may_stand_at_a_leaf_of_a_mapped_tree():
    mask = tree.map(lambda leaf: True, affine())
    assert tree.leaves(mask) == [True, True] and tree.structure(mask) == tree.structure(affine())


def test_a_custom_init_sets_fields_and_closes():
    class Made(nn.Module):
        weight: nn.Array
        n: int

        def __init__(self, n):
            self.n = n
            self.weight = np.ones(n)

    class Child(Made):
        extra: nn.Array = None

    model = Made(3)
    assert (model.n, model.weight.shape) == (3, (3,))
    assert Child.__init__ is Made.__init__
    with pytest.raises(ImmutableError, match=r"model = model.replace\(n=value\)"):
        model.n = 4
    with pytest.raises(ImmutableError, match="immutable"):
        del model.n


def test_annotations_may_be_texts():
    class Text(nn.Module):
        weight: "nn.Array"
        n: "int | None"

    assert tree.paths(Text(np.ones(1), 3)) == [".weight"]


def test_an_undeclared_field_is_refused():
    class Wrong(nn.Module):
        def __init__(self):
            self.weight = np.ones(1)

    with pytest.raises(ArgumentError, match="Wrong has no field `weight`. Declare it in the class body"):
        Wrong()


def test_a_field_that_was_not_set_is_named():
    class Unset(nn.Module):
        weight: nn.Array

        def __init__(self):
            pass

    with pytest.raises(ArgumentError, match="Unset.__init__ did not set the field `weight`"):
        Unset()


def test_a_function_or_text_at_a_leaf_is_refused():
    with pytest.raises(ArgumentTypeError, match=r"Pair.parts\[0\] holds .*nn.Lambda"):
        Pair([np.tanh], {})
    with pytest.raises(ArgumentTypeError, match=r"Pair.table\['a'\]|Pair.table.a"):
        Pair([], {"a": "text"})


def test_an_unhashable_static_is_refused():
    with pytest.raises(ArgumentTypeError, match="Affine.sizes is a static field, so its value must be hashable"):
        Affine(np.ones(1), None, sizes=[1, 2])


def test_replace_leaves_the_module_and_names_unknown_fields():
    model = affine()
    other = model.replace(weight=np.zeros(2))
    assert model.weight.sum() == 2 and other.weight.sum() == 0 and other.bias is model.bias
    with pytest.raises(ArgumentError, match="Affine.replace: no field `wieght`; it has weight, bias"):
        model.replace(wieght=1)


def test_the_repr_shows_shapes_and_nests():
    assert repr(affine(activation=nn.tanh)) == (
        "Affine(weight=float64[2], bias=float64[2], name='affine', activation=tanh, sizes=(1, 2), mode=None)"
    )
    model = nn.Sequential(nn.Flatten(), nn.relu)
    assert repr(model).splitlines()[:3] == ["Sequential(", "  layers=(", "    Flatten(start_axis=1, end_axis=-1),"]


def test_modules_copy_and_pickle():
    model = nn.Sequential(nn.Flatten(-2), nn.Dropout(0.1))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert tree.structure(other) == tree.structure(model)


def test_mask_selects_by_pattern_and_predicate():
    model = Pair([affine(), affine()], {})
    assert tree.leaves(nn.mask(model, "*.weight")) == [True, False, True, False]
    assert tree.leaves(nn.mask(model, ".parts[1].*")) == [False, False, True, True]
    assert tree.leaves(nn.mask(model, lambda path, leaf: path.endswith("bias"))) == [False, True, False, True]
    with pytest.raises(ArgumentError, match="selects no leaf; the paths are .parts"):
        nn.mask(model, "*.kernel")


def test_partition_and_combine_are_inverse():
    model = Pair([affine(), affine(bias=None)], {})
    weights, rest = nn.partition(model, "*.weight")
    assert (len(tree.leaves(weights)), len(tree.leaves(rest))) == (2, 1)
    again = nn.combine(weights, rest)
    assert tree.structure(again) == tree.structure(model)
    assert all(a is b for a, b in zip(tree.leaves(again), tree.leaves(model), strict=True))
    by_mask, _ = nn.partition(model, nn.mask(model, "*.weight"))
    assert tree.structure(by_mask) == tree.structure(weights)
    with pytest.raises(TreeError, match="a mask should have the structure of the model: at the top: Pair"):
        nn.partition(model, {"a": True})


def test_buffers_are_leaves_that_are_not_trained():
    model = {"norm": [nn.BatchNorm1d(2)], "w": np.ones(1)}
    mask = nn.trainable_mask(model)
    norm = mask["norm"][0]
    assert (norm.weight, norm.bias, norm.running_mean, norm.running_var, mask["w"]) == (True, True, False, False, True)
