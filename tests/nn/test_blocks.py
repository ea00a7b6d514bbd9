# SPDX-License-Identifier: MIT
"""Blocks that are traced once: the same values, keys, gradients and errors as without, for equal blocks and others."""

import contextvars

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, random
from functorch_lite.nn import blocks
from functorch_lite.primitives.higher_order import jit_p

KEY = random.key(0)
X = np.asarray(random.normal(random.key(1), (2, 5, 8)))


def encoder(n=6, dropout=0.0, key=KEY, **options):
    return nn.TransformerEncoder(n, 8, 2, 16, dropout, key=key, **options)


def programs(fun, *args):
    """The programs that the function calls, call by call."""
    return [e.params["program"] for e in fl.make_program(fun)(*args).equations if e.prim is jit_p]


def plain(monkeypatch):
    """From now on no block is traced once."""
    monkeypatch.setattr(blocks, "is_known", lambda *_: False)


def check_same(monkeypatch, fun, *args, tolerance=1e-5):
    """Compiled with shared blocks, compiled without, and run at once: all alike."""
    shared = fl.jit(fun)(*args)
    plain(monkeypatch)
    for got, want, eager in zip(*map(fl.tree.leaves, (shared, fl.jit(fun)(*args), fun(*args))), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(got, eager, rtol=10 * tolerance, atol=10 * tolerance)
        assert np.asarray(got).dtype == np.asarray(want).dtype


def test_equal_layers_share_a_program():
    found = programs(lambda m, x: m(x, is_causal=True), encoder(), X)
    assert len(found) == 6 and len({id(p) for p in found}) == 1


def test_a_python_list_of_layers_shares_one_too():
    layers = [nn.TransformerDecoderLayer(8, 2, 16, 0.0, key=k) for k in random.split(KEY, 4)]

    def fun(layers, x):
        for layer in layers:
            x = layer(x, x)
        return x

    assert len({id(p) for p in programs(fun, layers, X)}) == 1


@pytest.mark.parametrize("change", ["size", "static", "dtype", "argument"])
def test_different_layers_do_not(change):
    one = nn.TransformerEncoderLayer(8, 2, 16, 0.0, key=KEY)
    other = {
        "size": nn.TransformerEncoderLayer(8, 2, 32, 0.0, key=KEY),
        "static": nn.TransformerEncoderLayer(8, 4, 16, 0.0, key=KEY),
        "dtype": fl.tree.map(lambda p: p.astype(np.float64), one),
        "argument": one,
    }[change]
    found = programs(lambda a, b, x: b(a(x).astype(X.dtype), is_causal=change == "argument"), one, other, X)
    assert len({id(p) for p in found}) == 2


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": nn.gelu}, {"final_norm": True}])
def test_forward(monkeypatch, options):
    check_same(monkeypatch, lambda m, x: m(x, is_causal=True), encoder(**options), X)


def test_gradients(monkeypatch):
    check_same(monkeypatch, fl.value_and_grad(lambda m, x: (m(x) ** 2).mean()), encoder(4, norm_first=True), X)


def test_under_vmap_checkpoint_and_jvp(monkeypatch):
    model = encoder(3, norm_first=True)
    xs = np.stack([X, X + 1])
    fun = fl.checkpoint(lambda m, x: m(x))
    check_same(monkeypatch, lambda m, xs: (
        fl.vmap(fl.grad(lambda x: (m(x) ** 2).sum()))(xs), fl.grad(lambda m: (fun(m, xs[0]) ** 2).mean())(m),
        fl.jvp(lambda x: m(x), (xs[0],), (xs[1],))), model, xs, tolerance=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_keys_of_a_pass_are_numbered_as_without(monkeypatch, training):
    model = nn.Sequential(nn.Dropout(0.5), *encoder(3, 0.3).layers, nn.Dropout(0.5))

    def fun(m, x, key):
        return nn.apply(m, x, key=key, training=training)[0]

    check_same(monkeypatch, fun, model, X, random.key(3))


def test_dropout_differs_from_layer_to_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.5, key=KEY)

    def fun(layer, x, key):
        return nn.apply(nn.Parallel(layer, layer), x, key=key, training=True)[0]

    one, two = fl.jit(fun)(layer, X, random.key(3))
    assert not np.allclose(one, two)


def test_a_missing_key_is_an_error_as_without():
    with pytest.raises(fl.errors.ArgumentError, match="draws random numbers"):
        fl.jit(lambda m, x: nn.apply(m, x, training=True)[0])(encoder(2, 0.5), X)


def test_caches(monkeypatch):
    model = encoder(3, norm_first=True)

    def fun(m, x):
        out, cache = m(x[:, :3], cache=m.init_cache((2,), 5), is_causal=True)
        return out, m(x[:, 3:], cache=cache, is_causal=True)

    check_same(monkeypatch, fun, model, X)


def test_masks(monkeypatch):
    mask = np.tril(np.ones((5, 5), bool))
    check_same(monkeypatch, lambda m, x, mask: (m(x, mask), m(x, mask=mask[None, None])), encoder(3), X, mask)


# --- what is not known ------------------------------------------------------------------------------------------------


def test_a_function_of_the_users_is_called_by_every_layer():
    seen = []

    def activation(x):
        seen.append(x.shape)
        return nn.relu(x)

    model = encoder(4, activation=activation)
    del seen[:]
    fl.jit(lambda m, x: m(x))(model, X)
    assert len(seen) == 4


def test_a_module_of_the_users_is_called_by_every_layer():
    calls = []

    class Counted(nn.TransformerEncoderLayer):
        def __call__(self, x, *args, **kwargs):
            calls.append(1)
            return super().__call__(x, *args, **kwargs)

    layers = [Counted(8, 2, 16, 0.0, key=k) for k in random.split(KEY, 3)]
    inner = [nn.TransformerEncoderLayer(8, 2, 16, 0.0, key=k).replace(norm1=_Loud()) for k in random.split(KEY, 3)]

    def fun(layers, x):
        for layer in layers:
            x = layer(x)
        return x

    fl.jit(fun)(layers, X)
    assert len(calls) == 3
    del _Loud.calls[:]
    fl.jit(fun)(inner, X)
    assert len(_Loud.calls) == 3


class _Loud(nn.Module):
    calls = []

    def __call__(self, x):
        self.calls.append(1)
        return x


def test_context_variables_and_settings_are_part_of_the_signature():
    wanted = contextvars.ContextVar("wanted", default=0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, key=KEY)

    def fun(layer, x):
        for k in range(4):
            wanted.set(k // 2)
            x = layer(x)
        with fl.config(strong_zero=False):
            return layer(x)

    assert len({id(p) for p in programs(fun, layer, X)}) == 3


def test_an_error_in_a_later_layer_names_its_line():
    layers = [nn.TransformerEncoderLayer(n, 2, 16, 0.0, key=KEY) for n in (8, 8, 6)]

    def fun(layers, x):
        for layer in layers:
            x = layer(x)
        return x

    with pytest.raises(fl.errors.ShapeError) as error:
        fl.jit(fun)(layers, X)
    assert f"test_blocks.py:{fun.__code__.co_firstlineno + 2}" in str(error.value)


def test_calls_on_different_lines_keep_their_lines():
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, key=KEY)

    def fun(layer, x):
        x = layer(x)
        return layer(x)

    lines = {e.source.lineno for p in programs(fun, layer, X) for e in p.equations}
    first = fun.__code__.co_firstlineno
    assert lines == {first + 1, first + 2}


class Block(nn.Module):
    linear: nn.Linear
    dropout: nn.Dropout

    @nn.traced_once
    def __call__(self, x):
        return x + self.dropout(nn.relu(self.linear(x)))


class Loud(Block):
    def __call__(self, x):
        return 2.0 * super().__call__(x)


def own_blocks(cls, n=5):
    return nn.Sequential(*[cls(nn.Linear(8, 8, key=k), nn.Dropout(0.5)) for k in random.split(KEY, n)])


def test_a_block_of_the_users_with_the_decorator(monkeypatch):
    found = programs(lambda m, x: m(x), own_blocks(Block), X)
    assert len(found) == 5 and len({id(p) for p in found}) == 1

    def fun(m, x, key):
        return nn.apply(m, x, key=key, training=True)[0]

    check_same(monkeypatch, fun, own_blocks(Block), X, KEY)


def test_a_subclass_without_the_decorator_is_the_users():
    assert not programs(lambda m, x: m(x), own_blocks(Loud), X)


def test_a_block_of_the_users_with_jit():
    class Jitted(nn.Module):
        linear: nn.Linear

        @fl.jit
        def __call__(self, x):
            return x + nn.relu(self.linear(x))

    model = nn.Sequential(*[Jitted(nn.Linear(8, 8, key=k)) for k in random.split(KEY, 5)])
    found = programs(lambda m, x: m(x), model, X)
    assert len(found) == 5 and len({id(p) for p in found}) == 1
    np.testing.assert_allclose(fl.jit(model)(X), model(X), rtol=1e-5, atol=1e-6)
