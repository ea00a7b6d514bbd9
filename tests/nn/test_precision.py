# SPDX-License-Identifier: MIT
import ml_dtypes
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim
from functorch_lite.errors import ArgumentError

KEY = fl.random.key(0)
BF16, F16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16), np.dtype(np.float32)
HALVES = pytest.mark.parametrize("half", [BF16, F16], ids=["bf16", "f16"])


def dtypes(x):
    return {leaf.dtype for leaf in fl.tree.leaves(x)}


def test_a_policy_is_read_from_text_and_shown_as_text():
    policy = nn.Policy("params=float32, compute=bf16")
    assert repr(policy) == "Policy('params=float32,compute=bfloat16,output=float32')"
    assert policy == nn.Policy("p=f32,c=bf16,o=f32") == nn.Policy(compute=ml_dtypes.bfloat16)
    assert hash(policy) == hash(nn.Policy("compute=bfloat16")) and policy != nn.Policy()
    assert nn.Policy("params=bf16") == nn.Policy("p=bf16,c=bf16,o=bf16")


@pytest.mark.parametrize("text", ["bfloat16", "work=float32", "compute=int8", "compute="])
def test_what_is_no_policy_is_refused(text):
    with pytest.raises(ArgumentError, match="should be"):
        nn.Policy(text)


@HALVES
def test_casting_leaves_norms_buffers_and_integers(half):
    model = nn.Sequential(nn.Linear(2, 2, key=KEY), nn.BatchNorm1d(2), nn.LayerNorm(2))
    cast = nn.Policy(compute=half).cast_to_compute({"m": [model], "n": np.ones(2, np.int64), "x": np.ones(2)})
    assert dtypes(cast["m"][0][0]) == {half} and dtypes(cast["m"][0][1]) == {F32}
    assert dtypes(cast["m"][0][2]) == {F32}
    assert cast["n"].dtype == np.int64 and cast["x"].dtype == half


@HALVES
def test_the_work_is_done_in_the_compute_dtype_and_the_output_is_wide(half):
    seen = []

    class Spy(nn.Module):
        linear: nn.Linear

        def __call__(self, x):
            out = self.linear(x)
            seen.append((self.linear.weight.dtype, x.dtype, out.dtype))
            return out

    policy = nn.Policy(compute=half)
    one, two = Spy(nn.Linear(4, 4, key=KEY)), Spy(nn.Linear(4, 2, key=KEY))
    model = nn.Sequential(nn.LayerNorm(4), one, nn.BatchNorm1d(4), two)
    x = np.ones((3, 4), np.float32)
    out, same = policy.apply(model, x)
    assert out.dtype == F32 and same is model
    assert policy.wrap(model)(x).dtype == F32 and fl.jit(policy.wrap(model))(x).dtype == F32
    assert set(seen) == {(half,) * 3}


@HALVES
def test_gradients_have_the_dtype_of_the_parameters(half):
    policy, model = nn.Policy(compute=half), nn.Linear(4, 2, key=KEY)
    x = np.ones((3, 4), np.float32)
    grads = fl.jit(fl.grad(lambda model: (policy.apply(model, x)[0] ** 2).sum()))(model)
    wide = fl.grad(lambda model: (model(x) ** 2).sum())(model)
    assert dtypes(grads) == {F32}
    np.testing.assert_allclose(grads.weight, wide.weight, rtol=0.05)


@HALVES
def test_statistics_are_float32_and_parameters_unrounded(half):
    policy = nn.Policy(compute=half)
    model = nn.Sequential(nn.Linear(4, 4, key=KEY), nn.BatchNorm1d(4))
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    _, new = fl.jit(lambda model, x: policy.apply(model, x, training=True))(model, x)
    _, wide = nn.apply(model, x, training=True)
    np.testing.assert_array_equal(new[0].weight, model[0].weight)
    assert dtypes(new) == {F32}
    np.testing.assert_allclose(new[1].running_var, wide[1].running_var, rtol=1e-2)
    assert np.any(new[1].running_mean != 0)


def test_parameters_in_halves_keep_their_norms_wide():
    policy = nn.Policy("params=bfloat16")
    model = policy.cast_to_params(nn.Sequential(nn.Linear(4, 4, key=KEY), nn.BatchNorm1d(4)))
    assert dtypes(model[0]) == {BF16} and dtypes(model[1]) == {F32}
    out, new = policy.apply(model, np.ones((8, 4), BF16), training=True)
    assert out.dtype == BF16 and fl.tree.structure(new) == fl.tree.structure(model)
    assert dtypes(new[1]) == {F32}


@HALVES
@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(8), nn.RMSNorm(8), nn.GroupNorm(2, 8, n_spatial=0), nn.BatchNorm1d(8), nn.softmax, nn.log_softmax],
    ids=["layer", "rms", "group", "batch", "softmax", "log_softmax"],
)
def test_islands_take_halves_and_compute_in_float32(layer, half):
    x = (np.random.default_rng(0).normal(size=(16, 8)) + 200).astype(half)  # 200^2 * 8 is beyond float16
    out = fl.jit(lambda x: layer(x))(x)
    wide = layer(x.astype(np.float32))
    assert out.dtype == layer(x).dtype == half
    np.testing.assert_array_equal(layer(x), wide.astype(half))
    np.testing.assert_allclose(out.astype(F32), wide, rtol=float(ml_dtypes.finfo(half).eps), atol=1e-7)


def test_losses_of_halves_are_float32():
    x, y = np.full((1000, 4), 300, F16), np.zeros((1000, 4), F16)
    for loss in (nn.mse, nn.l1, nn.huber, nn.smooth_l1):
        out = loss(x, y, reduction="sum")
        assert out.dtype == F32 and np.isfinite(out)
        np.testing.assert_array_equal(out, loss(x.astype(F32), y.astype(F32), reduction="sum"))
    assert nn.cross_entropy(x, np.zeros(1000, np.int64)).dtype == F32
    assert nn.bce_with_logits(x, y).dtype == F32
    assert nn.linear_cross_entropy(x, y[:7], np.zeros(1000, np.int64)).dtype == F32


@HALVES
def test_checkpointed_layers_give_the_same_gradients(half):
    class Block(nn.Module):
        layers: tuple[nn.Linear, ...]
        norm: nn.LayerNorm
        remat: bool

        def __call__(self, x):
            for layer in self.layers:
                def run(layer, x):
                    return x + nn.gelu(layer(self.norm(x)))

                x = (fl.checkpoint(run) if self.remat else run)(layer, x)
            return x

    layers = tuple(nn.Linear(8, 8, key=k) for k in fl.random.split(KEY, 3))
    model, policy = Block(layers, nn.LayerNorm(8), False), nn.Policy(compute=half)
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)

    def gradient(model):
        return fl.jit(fl.grad(lambda model: (policy.apply(model, x)[0] ** 2).mean()))(model)

    plain, kept = gradient(model), gradient(model.replace(remat=True))
    for a, b in zip(fl.tree.leaves(plain), fl.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3)


def mlp():
    return nn.Sequential(nn.Linear(2, 32, key=KEY), nn.LayerNorm(32), nn.gelu, nn.Linear(32, 2, key=fl.random.key(1)))


def cnn():
    conv = nn.Conv2d(1, 8, 3, padding=1, key=KEY)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.relu, nn.MaxPool2d(2), nn.Flatten(-3), nn.Linear(72, 2, key=KEY))


def spirals(n):
    rng = np.random.default_rng(0)
    labels, t = np.arange(n) % 2, rng.uniform(0.2, 2.5, n)
    angle = 2.5 * t + np.pi * labels
    return np.stack([t * np.cos(angle), t * np.sin(angle)], -1).astype(np.float32), labels


def stripes(n):
    """Images 6x6 of horizontal or vertical stripes under noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    wave = np.where(np.arange(6) % 2, 1.0, -1.0) * rng.choice([-1, 1], (n, 1))
    images = np.where(labels[:, None, None], wave[:, :, None], wave[:, None, :]) * np.ones((n, 6, 6))
    return (images + rng.normal(size=images.shape)).astype(np.float32)[:, None], labels


def trained(model, policy, x, y, n_steps, scale):
    opt = optim.adam(1e-2)

    def loss_fn(model):
        logits, model = policy.apply(model, x, training=True)
        return nn.cross_entropy(logits, y), model

    @fl.jit
    def step(model, state, scale):
        (loss, model), grads = scale.value_and_grad(loss_fn, has_aux=True)(model)
        model, state, scale = scale.step(opt, model, grads, state)
        return model, state, scale, loss

    state = opt.init(model)
    for _ in range(n_steps):
        model, state, scale, loss = step(model, state, scale)
    assert dtypes(model) == {F32}
    return float(loss), scale


@HALVES
@pytest.mark.parametrize("make, data, n_steps", [(mlp, spirals, 200), (cnn, stripes, 60)], ids=["mlp", "cnn"])
def test_a_network_trains_in_halves_nearly_as_in_float32(make, data, n_steps, half):
    x, y = data(256)
    first, _ = trained(make(), nn.Policy(), x, y, 1, optim.DynamicScale())
    wide, _ = trained(make(), nn.Policy(), x, y, n_steps, optim.DynamicScale())
    # The first scale is too large for the gradients of float16, so that some steps are left out.
    loss, scale = trained(make(), nn.Policy(compute=half), x, y, n_steps, optim.DynamicScale(2.0**24, interval=50))
    assert wide < 0.25 * first
    assert loss < wide + 0.05 * first
    assert half != F16 or float(scale.scale) < 2.0**24
