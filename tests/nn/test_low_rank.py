# SPDX-License-Identifier: MIT
"""Low-rank adapters: where they go, what they compute, that only they are trained, and merging."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim, tree
from functorch_lite.errors import ArgumentError, ArgumentTypeError

KEY = fl.random.key(0)
RNG = np.random.default_rng(4)
IDS = np.array([[0, 3, 2], [6, 6, 1]])

LAYERS = {
    "linear": (lambda: nn.Linear(5, 3, dtype=np.float64, key=KEY), RNG.normal(size=(4, 5))),
    "linear_no_bias": (lambda: nn.Linear(5, 3, bias=False, dtype=np.float64, key=KEY), RNG.normal(size=(2, 4, 5))),
    "embedding": (lambda: nn.Embedding(7, 4, padding_idx=2, dtype=np.float64, key=KEY), IDS),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1, stride=2, dtype=np.float64, key=KEY), RNG.normal(size=(2, 4, 8))),
    "conv2d_groups": (
        lambda: nn.Conv2d(4, 6, (3, 2), dilation=2, groups=2, dtype=np.float64, key=KEY),
        RNG.normal(size=(2, 4, 7, 6)),
    ),
    "conv2d_reflect": (
        lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect", dtype=np.float64, key=KEY),
        RNG.normal(size=(4, 7, 6)),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, dtype=np.float64, key=KEY), RNG.normal(size=(1, 2, 3, 4, 3))),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def adapted(name, **options):
    """The layer, the layer with an adapter whose arrays are all drawn anew, and an input."""
    make, x = LAYERS[name]
    layer = make()
    model = nn.lora(layer, 2, 6.0, where="*", key=fl.random.key(1), **options)
    rng = np.random.default_rng(5)
    a, b = (rng.normal(size=leaf.shape) for leaf in (model.lora_a, model.lora_b))
    return layer, model.replace(lora_a=a, lora_b=b), x


def assert_close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@each_layer
def test_a_new_adapter_changes_nothing(name):
    make, x = LAYERS[name]
    layer = make()
    np.testing.assert_array_equal(nn.lora(layer, 2, where="*", key=KEY)(x), layer(x))


@each_layer
def test_the_adapted_layer_has_the_weight_plus_the_scaled_product(name):
    layer, model, x = adapted(name)
    if name == "embedding":
        delta = (model.lora_b @ model.lora_a).T
    else:
        groups = getattr(layer, "groups", 1)
        a = model.lora_a.reshape(groups, 2, -1)
        b = model.lora_b.reshape(groups, -1, 2)
        delta = np.concatenate([b[g] @ a[g] for g in range(groups)]).reshape(layer.weight.shape)
    expected = layer.replace(weight=layer.weight + 3.0 * delta)(x)
    assert_close(model(x), expected)
    assert_close(nn.merge_lora(model)(x), expected)
    assert_close(model.weight, layer.weight + 3.0 * delta)


@each_layer
def test_a_merged_model_has_the_structure_it_had(name):
    layer, model, _ = adapted(name)
    assert tree.structure(nn.merge_lora(model)) == tree.structure(layer)


@each_layer
def test_gradients_of_the_adapters_are_those_of_the_product(name):
    _, model, x = adapted(name)
    adapters, frozen = nn.partition(model, nn.LORA)

    def through_input(adapters):
        return (nn.combine(adapters, frozen)(x) ** 3).sum()

    def through_weight(adapters):
        return (nn.merge_lora(nn.combine(adapters, frozen))(x) ** 3).sum()

    for first, second in zip(
        *(tree.leaves(fl.grad(f)(adapters)) for f in (through_input, through_weight)), strict=True
    ):
        if name != "embedding":  # a lookup of the padding has no gradient, a merged table has
            assert_close(first, second, 1e-8)
    jitted = fl.jit(fl.grad(through_input))(adapters)
    for first, second in zip(tree.leaves(jitted), tree.leaves(fl.grad(through_input)(adapters)), strict=True):
        assert_close(first, second, 1e-8)


def test_adapters_go_to_all_linear_layers_or_where_they_are_asked():
    model = nn.TransformerEncoderLayer(8, 2, 12, key=KEY)
    every = _adapted_paths(nn.lora(model, 2, key=KEY))
    assert {path.split(".")[-1] for path in every} == {
        "q_proj", "k_proj", "v_proj", "out_proj", "linear1", "linear2"
    }  # fmt: skip
    chosen = nn.lora(model, 2, where=["*.q_proj", "*.v_proj"], key=KEY)
    assert {path.split(".")[-1] for path in _adapted_paths(chosen)} == {"q_proj", "v_proj"}
    wide = nn.lora(model, 2, where=lambda path, layer: layer.out_features == 12, key=KEY)
    assert len(_adapted_paths(wide)) == 1


def _adapted_paths(model):
    return {path.removesuffix(".lora_a") for path in tree.paths(model) if path.endswith(".lora_a")}


def test_each_adapter_has_a_key_of_its_own():
    model = nn.lora(nn.MLP((4, 4, 4), key=KEY), 3, key=KEY)
    assert (model.layers[0].lora_a != model.layers[1].lora_a).all()
    assert np.abs(model.layers[0].lora_a).max() <= 0.5 and not model.layers[0].lora_b.any()


def test_the_scaling_is_alpha_over_rank_or_its_root():
    layer = nn.Linear(4, 4, key=KEY)
    assert nn.lora(layer, 4, key=KEY).scaling == 1.0
    assert nn.lora(layer, 4, 16, key=KEY).scaling == 4.0
    assert nn.lora(layer, 4, 16, rank_stabilized=True, key=KEY).scaling == 8.0


def test_training_moves_the_adapters_alone():
    model = nn.lora(nn.MLP((5, 8, 2), key=KEY), 2, key=fl.random.key(1))
    x, y = RNG.normal(size=(16, 5)).astype(np.float32), RNG.normal(size=(16, 2)).astype(np.float32)
    adapters, frozen = nn.partition(model, nn.LORA)

    def loss(adapters):
        return nn.mse(nn.combine(adapters, frozen)(x), y)

    opt = optim.adam(3e-2)
    state, first = opt.init(adapters), loss(adapters)
    step = fl.jit(fl.value_and_grad(loss))
    for _ in range(40):
        adapters, state = opt.step(adapters, step(adapters)[1], state)
    assert loss(adapters) < 0.8 * first
    tuned = nn.combine(adapters, frozen)
    assert tree.structure(tuned) == tree.structure(model)
    assert_close(nn.merge_lora(tuned)(x), tuned(x), 1e-5)


def test_dropout_is_on_the_adapters_path_alone():
    _, model, x = adapted("linear", dropout=0.5)
    base, expected = model.layer(x), model(x)
    out, _ = nn.apply(model, x, key=KEY, training=True)
    assert not np.allclose(out, expected)
    assert_close(nn.apply(model.replace(dropout=nn.Dropout(1.0)), x, key=KEY, training=True)[0], base)


def test_settings_of_the_layer_show_through():
    model = nn.lora(nn.Linear(5, 3, key=KEY), 2, key=KEY)
    assert (model.in_features, model.out_features, model.bias.shape) == (5, 3, (3,))
    with pytest.raises(AttributeError, match="nowhere"):
        _ = model.nowhere
    attention = nn.lora(nn.MultiheadAttention(8, 2, key=KEY), 2, key=KEY)
    x = RNG.normal(size=(1, 3, 8)).astype(np.float32)
    out, _ = attention(x, cache=attention.init_cache((1,), 4))
    assert out.shape == x.shape


def test_logits_of_a_tied_embedding_follow_the_adapter():
    _, model, _ = adapted("embedding")
    x = RNG.normal(size=(2, 4))
    assert_close(model.attend(x), nn.merge_lora(model).attend(x))
    assert_close(model.attend(x), x @ model.weight.T)


def test_adapters_over_a_quantized_model_train_and_merge():
    model = nn.MLP((5, 8, 2), dtype=np.float64, key=KEY)
    small = nn.lora(nn.quantize(model), 2, 4, key=KEY)
    rng = np.random.default_rng(0)
    adapters, frozen = nn.partition(small, nn.LORA)
    adapters = tree.map(lambda leaf: rng.normal(size=leaf.shape), adapters)
    tuned, x = nn.combine(adapters, frozen), RNG.normal(size=(3, 5))
    merged = nn.merge_lora(tuned)
    assert tree.structure(merged) == tree.structure(model)
    assert_close(merged(x), tuned(x))
    grads = fl.grad(lambda adapters: nn.combine(adapters, frozen)(x).sum())(adapters)
    assert len(tree.leaves(grads)) == 4 and all(leaf.any() for leaf in tree.leaves(grads))


def test_an_ensemble_of_adapters_shares_the_frozen_weights():
    _, model, x = adapted("linear")
    adapters, frozen = nn.partition(model, nn.LORA)
    stacked = tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), adapters)
    out = fl.vmap(lambda adapters: nn.combine(adapters, frozen)(x))(stacked)
    assert_close(out[0], model(x))
    assert_close(out[1] - model.layer(x), 4 * (out[0] - model.layer(x)))


def test_wrong_uses_are_named():
    layer = nn.Linear(4, 4, key=KEY)
    with pytest.raises(ArgumentError, match="`rank` should be an int of 1 or more, but is 0"):
        nn.lora(layer, 0, key=KEY)
    with pytest.raises(ArgumentError, match=r"`where` '\*.q' selects no layer .* the model's are at '.layers\[0\]'"):
        nn.lora(nn.MLP((2, 3), key=KEY), 2, where="*.q", key=KEY)
    with pytest.raises(ArgumentTypeError, match="`where` should be patterns for paths or a predicate"):
        nn.lora(layer, 2, where=[1], key=KEY)
    with pytest.raises(ArgumentError, match="has an adapter already; `merge_lora` the model first"):
        nn.lora(nn.lora(layer, 2, key=KEY), 2, key=KEY)
    with pytest.raises(ArgumentError, match="selects no layer of the kinds LoRA"):
        nn.merge_lora(layer)


def test_the_state_of_the_adapters_has_pefts_names():
    model = nn.lora(nn.Sequential(nn.Embedding(7, 4, key=KEY), nn.Linear(4, 3, key=KEY)), 2, where="*", key=KEY)
    adapters, frozen = nn.partition(model, nn.LORA)
    state = nn.state_dict(adapters)
    assert {name: x.shape for name, x in state.items()} == {
        "0.lora_embedding_A": (2, 7), "0.lora_embedding_B": (4, 2),
        "1.lora_A.weight": (2, 4), "1.lora_B.weight": (3, 2),
    }  # fmt: skip
    assert "1.base_layer.weight" in nn.state_dict(model)
    doubled = nn.load_state_dict(adapters, {name: 2 * x for name, x in state.items()})
    np.testing.assert_array_equal(nn.combine(doubled, frozen).layers[1].lora_a, 2 * model.layers[1].lora_a)


def test_adapters_of_another_dtype_leave_the_output_its_own():
    layer = nn.Linear(4, 3, dtype=np.float16, key=KEY)
    model = nn.lora(layer, 2, dtype=np.float32, key=KEY)
    assert model.lora_a.dtype == np.float32 and model(np.ones(4, np.float16)).dtype == np.float16
    assert nn.merge_lora(model).weight.dtype == np.float16
