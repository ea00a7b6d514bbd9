# SPDX-License-Identifier: MIT
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.errors import ArgumentTypeError

KEY = fl.random.key(0)


def rows_of(summary):
    return {row.path: row for row in summary.rows}


def network():
    conv, linear = nn.Conv2d(3, 8, 3, key=KEY), nn.Linear(72, 5, key=KEY)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.relu, nn.Flatten(-3), linear)


def test_rows_have_shapes_parameters_operations_and_bytes():
    s = nn.summary(network(), (2, 3, 5, 5))
    rows = rows_of(s)
    assert [row.kind for row in s.rows] == ["Sequential", "Conv2d", "BatchNorm2d", "Lambda(relu)", "Flatten", "Linear"]
    conv, linear = rows[".layers[0]"], rows[".layers[4]"]
    assert conv.outputs == ((2, 8, 3, 3),) and conv.parameters == 8 * 27 + 8
    assert conv.flops == 2 * 144 * 27 + 144 and conv.activation_bytes == 4 * 144
    assert linear.flops == 2 * 2 * 72 * 5 + 10 and linear.outputs == ((2, 5),)
    assert rows[".layers[1]"].parameters == 16 and s.buffers == 16
    assert s.parameters == s.trainable == 224 + 16 + 72 * 5 + 5
    assert s.flops == rows[""].flops == sum(row.flops for row in s.rows[1:])
    assert s.bytes == 4 * (s.parameters + s.buffers)


def test_shapes_arrays_and_models_of_shapes_are_alike():
    x = np.ones((2, 3, 5, 5), np.float32)
    shapes = fl.eval_shape(network)
    assert nn.summary(network(), x) == nn.summary(network(), x.shape) == nn.summary(shapes, fl.eval_shape(lambda: x))


def test_a_large_model_is_not_computed():
    s = nn.summary(fl.eval_shape(lambda key: nn.Linear(10**6, 10**6, key=key), KEY), (1, 10**6))
    assert s.parameters == 10**12 + 10**6 and s.flops == 2 * 10**12 + 10**6


def test_shared_arrays_count_once():
    layer = nn.Linear(4, 4, key=KEY)
    s = nn.summary(nn.Sequential(layer, nn.relu, layer), (4,))
    assert s.parameters == 20 and s.shared == 2
    assert [row.parameters for row in s.rows] == [20, 20, 0, 20]
    assert str(s).endswith("2 arrays stand at a second place and are counted once in each sum")


def test_frozen_leaves_are_not_trainable():
    s = nn.summary(network(), (2, 3, 5, 5), trainable=".layers[4].*")
    assert s.trainable == 365 and s.parameters == 605
    integers = nn.summary(nn.Sequential(nn.Linear(2, 2, key=KEY).replace(bias=np.zeros(2, np.int8))), (2,))
    assert integers.parameters == 6 and integers.trainable == 4


def test_a_layer_called_twice_and_one_not_called():
    class Odd(nn.Module):
        used: nn.Linear
        unused: nn.Linear

        def __call__(self, x):
            return self.used(self.used(x)) @ self.unused.weight

    s = nn.summary(Odd(nn.Linear(4, 4, key=KEY), nn.Linear(4, 4, key=KEY)), (3, 4))
    rows = rows_of(s)
    assert rows[".used"].calls == 2 and rows[".used"].flops == 2 * (2 * 3 * 16 + 12)
    assert rows[".unused"].calls == 0 and "3, 4 (x2)" in str(s)
    assert rows[""].flops == rows[".used"].flops + 2 * 3 * 16


def test_loops_jit_vmap_and_checkpoints_are_counted():
    class Deep(nn.Module):
        layer: nn.Linear

        def __call__(self, x):
            def turn(x, _):
                return self.layer(x), None

            x = fl.vmap(self.layer)(fl.checkpoint(fl.jit(self.layer))(x))
            return fl.lax.scan(turn, x, None, length=5)[0]

    s = nn.summary(Deep(nn.Linear(4, 4, key=KEY)), (3, 4))
    one = 2 * 3 * 16 + 12
    assert s.flops == 7 * one
    assert rows_of(s)[".layer"].flops == 3 * one  # a loop's body counts one turn in the rows inside


def test_layers_may_be_stacked_in_the_forward_pass():
    class Stacked(nn.Module):
        layers: tuple[nn.Linear, ...]

        def __call__(self, x):
            whole = fl.tree.map(lambda *leaves: np.stack(leaves), *self.layers)
            return fl.lax.scan(lambda x, layer: (layer(x), None), x, whole)[0]

    layers = tuple(nn.Linear(4, 4, key=k) for k in fl.random.split(KEY, 3))
    assert nn.summary(Stacked(layers), (2, 4)).flops == 3 * (2 * 2 * 16 + 8)


def test_inputs_may_be_several_and_keywords_settings():
    s = nn.summary(nn.MultiheadAttention(8, 2, key=KEY), (2, 3, 8), (2, 5, 8), is_causal=True)
    assert s.rows[0].outputs == ((2, 3, 8),)
    lstm = nn.summary(nn.LSTM(4, 6, key=KEY), (5, 2, 4))
    assert lstm.activation_bytes == lstm.rows[0].activation_bytes == 4 * (5 * 2 * 6 + 2 * 2 * 6)
    ids = nn.summary(nn.Embedding(10, 4, key=KEY), np.zeros((2, 7), np.int64))
    assert ids.rows[0].outputs == ((2, 7, 4),) and ids.flops == 0


def test_depth_hides_rows_and_keeps_the_sums():
    model = nn.TransformerEncoder(2, 8, 2, 16, key=KEY)
    whole, short = nn.summary(model, (3, 8)), nn.summary(model, (3, 8), depth=1)
    assert len(short.rows) == 3 and short[1:] == whole[1:]


def test_what_is_no_module_is_refused():
    with pytest.raises(ArgumentTypeError, match="expected a module, got function"):
        nn.summary(nn.relu, (3,))


def test_the_model_is_as_it_was():
    model = network()
    before = fl.tree.structure(model)
    nn.summary(model, (2, 3, 5, 5))
    assert fl.tree.structure(model) == before and type(model[0]) is nn.Conv2d
