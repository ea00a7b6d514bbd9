# SPDX-License-Identifier: MIT
"""Weights in int8: the error of each weight and output, the memory, and that the layers work as before."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim, tree
from functorch_lite.errors import ArgumentError, ShapeError

KEY = fl.random.key(0)
RNG = np.random.default_rng(2)
IDS = np.array([[0, 3, 2], [6, 6, 1]])

LAYERS = {
    "linear": (lambda d: nn.Linear(64, 12, dtype=d, key=KEY), RNG.normal(size=(5, 64))),
    "linear_no_bias": (lambda d: nn.Linear(7, 3, bias=False, dtype=d, key=KEY), RNG.normal(size=(2, 4, 7))),
    "embedding": (lambda d: nn.Embedding(7, 9, padding_idx=2, dtype=d, key=KEY), IDS),
    "conv1d": (lambda d: nn.Conv1d(4, 6, 3, padding=1, stride=2, dtype=d, key=KEY), RNG.normal(size=(2, 4, 8))),
    "conv2d": (lambda d: nn.Conv2d(4, 6, 3, groups=2, padding=1, dtype=d, key=KEY), RNG.normal(size=(2, 4, 7, 6))),
    "conv3d": (lambda d: nn.Conv3d(2, 3, 2, bias=False, dtype=d, key=KEY), RNG.normal(size=(1, 2, 3, 4, 3))),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def assert_close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@each_layer
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_weight_is_off_by_half_a_step_at_most(name, bits):
    layer = LAYERS[name][0](np.float64)
    small, largest = nn.quantize(layer, bits=bits), 2 ** (bits - 1) - 1
    rows = layer.weight.reshape(len(layer.weight), -1)
    step = np.abs(rows).max(axis=1, keepdims=True) / largest
    assert (np.abs(small.weight.reshape(rows.shape) - rows) <= step / 2 * (1 + 1e-12)).all()
    assert small.values.dtype == np.int8 and np.abs(small.values).max() == largest


@each_layer
def test_the_layer_computes_with_the_quantized_weight(name):
    make, x = LAYERS[name]
    layer = make(np.float64)
    small = nn.quantize(layer)
    expected = layer.replace(weight=small.weight)(x)
    assert_close(small(x), expected)
    assert_close(nn.dequantize(small)(x), expected)
    assert_close(fl.jit(lambda model, x: model(x))(small, x), expected)
    assert_close(fl.vmap(small)(x), fl.vmap(layer.replace(weight=small.weight))(x))


@pytest.mark.parametrize("name", ["linear", "linear_no_bias"])
def test_an_output_is_off_by_half_a_step_times_the_inputs_sum(name):
    make, x = LAYERS[name]
    layer = make(np.float64)
    bound = np.abs(x).sum(axis=-1, keepdims=True) * nn.quantize(layer).scale / 2
    assert (np.abs(nn.quantize(layer)(x) - layer(x)) <= bound).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@each_layer
def test_dtypes_are_kept(name, dtype):
    make, x = LAYERS[name]
    layer, x = make(dtype), x if x.dtype.kind == "i" else x.astype(dtype)
    small = nn.quantize(layer)
    assert small(x).dtype == layer(x).dtype == dtype and small.scale.dtype == dtype
    rtol = 2e-2 * float(np.abs(layer(x)).max())
    np.testing.assert_allclose(small(x).astype(float), layer(x).astype(float), atol=rtol)


def test_float16_sums_do_not_overflow():
    layer = nn.Linear(4096, 1, init=nn.initializers.constant(0.01), dtype=np.float16, key=KEY)
    assert np.isfinite(nn.quantize(layer)(np.ones(4096, np.float16))).all()


def test_a_model_takes_a_quarter_of_the_memory():
    model = nn.Sequential(nn.Embedding(1000, 64, key=KEY), nn.Linear(64, 256, key=KEY), nn.Linear(256, 64, key=KEY))
    before, after = (sum(leaf.nbytes for leaf in tree.leaves(m)) for m in (model, nn.quantize(model)))
    assert before / after > 3.7
    weights = [leaf for leaf in tree.leaves(nn.quantize(model)) if leaf.dtype == np.int8]
    assert 4 * sum(leaf.nbytes for leaf in weights) == sum(layer.weight.nbytes for layer in model)


def test_only_the_selected_layers_are_quantized():
    model = nn.MLP((4, 5, 6, 2), key=KEY)
    small = nn.quantize(model, where="*[1]")
    assert [type(layer).__name__ for layer in small.layers] == ["Linear", "Quantized", "Linear"]
    assert small.layers[1].out_features == 6 and small.layers[1].bias is model.layers[1].bias
    assert tree.structure(nn.dequantize(small)) == tree.structure(model)


def test_a_channel_of_zeros_stays_zeros():
    layer = nn.Linear(4, 3, bias=False, init=nn.initializers.zeros, key=KEY)
    np.testing.assert_array_equal(nn.quantize(layer)(np.ones(4, np.float32)), np.zeros(3, np.float32))


def test_logits_of_a_tied_embedding():
    small = nn.quantize(nn.Embedding(7, 4, dtype=np.float64, key=KEY))
    x = RNG.normal(size=(2, 4))
    assert_close(small.attend(x), x @ small.weight.T)
    with pytest.raises(ShapeError, match=r"Quantized.attend: expected \[..., 4\], got \(2, 3\)"):
        small.attend(x[:, :3])


def test_weights_are_no_parameters_and_inputs_have_gradients():
    make, x = LAYERS["linear"]
    layer = make(np.float64)
    small = nn.quantize(layer)
    assert tree.leaves(nn.trainable_mask(small)) == [True, False, False]
    dense = layer.replace(weight=small.weight)
    assert_close(fl.grad(lambda x: (small(x) ** 2).sum())(x), fl.grad(lambda x: (dense(x) ** 2).sum())(x))
    grads = fl.grad(lambda model: (model(x) ** 2).sum(), allow_int=True)(small)
    trained, _ = optim.sgd(0.1).step(small, grads, optim.sgd(0.1).init(small))
    np.testing.assert_array_equal(trained.values, small.values)
    assert (trained.bias != small.bias).all()


def test_bits_and_layers_are_checked():
    with pytest.raises(ArgumentError, match="`bits` should be an int from 2 to 8, but is 9"):
        nn.quantize(nn.Linear(2, 2, key=KEY), bits=9)
    with pytest.raises(ArgumentError, match="`where` None selects no layer of the kinds Linear, Embedding, Conv1d"):
        nn.quantize(nn.Flatten())
    with pytest.raises(ArgumentError, match="selects no layer of the kinds Quantized"):
        nn.dequantize(nn.Linear(2, 2, key=KEY))


def test_a_quantized_layer_is_left_as_it_is_and_an_adapted_one_is_quantized_inside():
    model = nn.quantize(nn.MLP((4, 5, 2), key=KEY), where="*[0]")
    both = nn.quantize(model)
    assert both.layers[0].values is model.layers[0].values and both.layers[1].values.dtype == np.int8
    adapted = nn.quantize(nn.lora(nn.Linear(4, 2, key=KEY), 2, key=KEY))
    assert isinstance(adapted, nn.LoRALinear) and isinstance(adapted.layer, nn.Quantized)


def test_a_quantized_model_is_saved_and_loaded():
    model = nn.quantize(nn.MLP((4, 5, 2), key=KEY))
    state = nn.state_dict(model)
    assert state["layers.0.values"].dtype == np.int8
    other = nn.quantize(nn.MLP((4, 5, 2), key=fl.random.key(9)))
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_array_equal(nn.load_state_dict(other, state)(x), model(x))


def test_inputs_of_another_dtype_are_promoted_as_by_the_layer_itself():
    layer = nn.Linear(64, 3, dtype=np.float64, key=KEY)
    small, x = nn.quantize(layer), RNG.normal(size=64).astype(np.float16)
    out = small(x)
    assert out.dtype == layer(x).dtype == np.float64
    assert_close(out, layer.replace(weight=small.weight)(x))
