# SPDX-License-Identifier: MIT
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.errors import ArgumentError

KEY = fl.random.key(0)


def model(n=2):
    return nn.Sequential(nn.Linear(3, 4, key=KEY), nn.relu, nn.BatchNorm1d(4), nn.Linear(4, n, key=KEY))


def test_a_state_goes_out_and_in_bit_for_bit():
    old = fl.tree.map(lambda x: x + 1, model())
    new = nn.load_state_dict(model(), nn.state_dict(old))
    assert fl.tree.structure(new) == fl.tree.structure(old)
    assert fl.tree.all(fl.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), new, old))


def test_loaded_arrays_are_copies():
    tensors = nn.state_dict(model())
    new = nn.load_state_dict(model(), tensors)
    tensors["0.weight"][:] = 0
    assert np.any(new[0].weight != 0)


def test_any_tree_of_modules_and_arrays_has_names():
    assert set(nn.state_dict({"net": [nn.Linear(1, 1, key=KEY), None], "t": np.ones(2)})) == {
        "net.0.weight", "net.0.bias", "t"
    }  # fmt: skip


def test_tensors_are_cast_to_the_models_floating_dtype():
    half = fl.tree.map(lambda x: x.astype(np.float16), model())
    new = nn.load_state_dict(half, nn.state_dict(model()))
    assert {leaf.dtype for leaf in fl.tree.leaves(new)} == {np.dtype(np.float16)}


def test_a_model_of_shapes_is_enough():
    shapes = fl.eval_shape(lambda key: nn.MultiheadAttention(8, 2, key=key), KEY)
    tensors = nn.state_dict(nn.MultiheadAttention(8, 2, key=KEY))
    new = nn.load_state_dict(shapes, tensors)
    np.testing.assert_array_equal(new.k_proj.weight, tensors["in_proj_weight"][8:16])
    with pytest.raises(ArgumentError, match="shapes in place of arrays"):
        nn.state_dict(shapes)


def test_a_difference_names_what_is_missing_unexpected_and_wrong():
    tensors = nn.state_dict(model(5))
    tensors["extra"] = tensors.pop("0.bias")
    tensors["2.weight"] = np.ones(4, np.int64)
    difference = nn.compare_state_dict(model(), tensors)
    assert difference.missing == ("0.bias",) and difference.unexpected == ("extra",)
    assert difference.wrong == (
        ("2.weight", "float32[4]", "int64[4]"),
        ("3.weight", "float32[2, 4]", "float32[5, 4]"),
        ("3.bias", "float32[2]", "float32[5]"),
    )
    assert not nn.compare_state_dict(model(), nn.state_dict(model()))


def test_strict_loading_raises_the_difference_in_a_few_lines():
    with pytest.raises(ArgumentError, match="do not fit Sequential") as error:
        nn.load_state_dict(model(), {f"x{i}": np.ones(1) for i in range(30)} | nn.state_dict(model(7)))
    text = str(error.value).split("\nIn ")[0]
    assert "(30 in all)" in text and "3.bias: expected float32[2], found float32[7]" in text
    assert len(text.splitlines()) <= 8


def test_partial_loading_keeps_the_rest_and_prints_the_difference(capsys):
    old, tensors = model(), nn.state_dict(fl.tree.map(lambda x: x + 1, model(5)))
    new = nn.load_state_dict(old, tensors, strict=False)
    np.testing.assert_array_equal(new[0].weight, old[0].weight + 1)
    assert new[3].weight is old[3].weight
    assert capsys.readouterr().out == (
        "wrong: 3.weight: expected float32[2, 4], found float32[5, 4]\n"
        "wrong: 3.bias: expected float32[2], found float32[5]\n"
    )


def test_a_prefix_before_all_names_is_pointed_out():
    tensors = {f"module.{name}": value for name, value in nn.state_dict(model()).items()}
    with pytest.raises(ArgumentError, match=r"all names start with 'module\.'"):
        nn.load_state_dict(model(), tensors)


def test_an_integer_for_a_float_does_not_fit():
    assert nn.compare_state_dict({"w": np.ones(2, np.float32)}, {"w": np.ones(2, np.int64)}).wrong
    assert not nn.compare_state_dict({"n": np.ones(2, np.int64)}, {"n": np.ones(2, np.int32)})


def test_arrays_held_twice_may_take_two_values():
    w = np.zeros(2, np.float32)
    new = nn.load_state_dict({"a": w, "b": w}, {"a": np.ones(2), "b": np.full(2, 2.0)})
    assert new["a"][0] == 1 and new["b"][0] == 2


class Block(nn.Module):
    linear1: nn.Linear
    linear2: nn.Linear


@nn.state_names.register
def _(block: Block) -> dict:
    return {"qkv": nn.Joined(("linear1.weight", "linear2.weight")), "biases.0": "linear1.bias"}


def test_a_layout_of_ones_own():
    whole = Block(nn.Linear(3, 2, key=KEY), nn.Linear(3, 5, bias=False, key=KEY))
    tensors = nn.state_dict(whole)
    assert {name: x.shape for name, x in tensors.items()} == {"qkv": (7, 3), "biases.0": (2,)}
    new = nn.load_state_dict(whole, {name: x * 2 for name, x in tensors.items()})
    np.testing.assert_array_equal(new.linear2.weight, 2 * whole.linear2.weight)


def test_a_layout_that_forgets_an_array_is_refused():
    with pytest.raises(ArgumentError, match=r"no name stands for `\.linear2\.bias`"):
        nn.state_dict(Block(nn.Linear(3, 2, key=KEY), nn.Linear(3, 5, key=KEY)))


def test_a_tied_leaf_has_both_names_and_needs_one():
    model = nn.Sequential(nn.Embedding(5, 3, key=KEY), nn.Linear(3, 5, bias=False, key=KEY))
    tied = nn.tie(model, ".layers[0].weight", ".layers[1].weight")
    tensors = nn.state_dict(tied)
    assert set(tensors) == {"0.weight", "1.weight"}
    for names in (["0.weight", "1.weight"], ["0.weight"], ["1.weight"]):
        new = nn.load_state_dict(tied, {name: np.full((5, 3), 2.0) for name in names})
        assert [leaf[0, 0] for leaf in fl.tree.leaves(new)] == [2.0]


_PROJECTIONS = ["*.q_proj", "*.v_proj"]


@pytest.mark.parametrize("change", [nn.quantize, lambda model: nn.lora(model, 2, where=_PROJECTIONS, key=KEY)])
def test_attention_with_other_projections_has_their_names(change):
    model = change(nn.MultiheadAttention(8, 2, key=KEY))
    tensors = nn.state_dict(model)
    assert "in_proj_weight" not in tensors and any(name.startswith("q_proj.") for name in tensors)
    new = nn.load_state_dict(model, tensors)
    assert fl.tree.all(fl.tree.map(lambda a, b: np.array_equal(a, b), new, model))
