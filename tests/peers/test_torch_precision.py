# SPDX-License-Identifier: MIT
"""Loss scaling and float32 islands against PyTorch's, where PyTorch is installed."""

import ml_dtypes
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
functional = torch.nn.functional


def test_a_dynamic_scale_is_torchs_grad_scaler_step_by_step():
    rng = np.random.default_rng(0)
    settings = {"growth_factor": 3.0, "backoff_factor": 0.25, "growth_interval": 3}
    theirs = torch.amp.GradScaler("cpu", init_scale=1024.0, **settings)
    scale = optim.DynamicScale(1024.0, growth=3.0, backoff=0.25, interval=3)
    point = torch.nn.Parameter(torch.ones(4))
    sgd, opt = torch.optim.SGD([point], lr=0.01, momentum=0.9), optim.sgd(0.01, momentum=0.9)
    p = np.ones(4, np.float32)
    state = opt.init(p)
    step = fl.jit(lambda scale, p, state, x: scaled_step(opt, scale, p, state, x))
    for i in range(60):
        x = rng.normal(size=4).astype(np.float32)
        if rng.uniform() < 0.15:
            x[i % 4] = [np.inf, np.nan][i % 2]
        sgd.zero_grad()
        theirs.scale(((point - torch.tensor(x)) ** 2).sum()).backward()
        theirs.step(sgd)
        theirs.update()
        p, state, scale = step(scale, p, state, x)
        assert float(scale.scale) == theirs.get_scale(), i
        assert int(scale.n_finite) == theirs._get_growth_tracker(), i
        np.testing.assert_allclose(p, point.detach().numpy(), rtol=1e-5, atol=1e-6)


def scaled_step(opt, scale, p, state, x):
    _, grads = scale.value_and_grad(lambda p: ((p - x) ** 2).sum())(p)
    return scale.step(opt, p, grads, state)


def test_the_scale_falls_and_rises_at_the_ends_of_float32_as_torchs():
    for start, finite in [(2.0**127, True), (2.0**-149, False)]:
        theirs = torch.amp.GradScaler("cpu", init_scale=start, growth_interval=1)
        theirs.scale(torch.ones(1))
        point = torch.nn.Parameter(torch.zeros(1))
        point.grad = torch.tensor([0.0 if finite else np.inf])
        theirs.step(torch.optim.SGD([point], lr=1.0))
        theirs.update()
        assert float(optim.DynamicScale(start, interval=1).updated(finite).scale) == theirs.get_scale()


def as_torch(x):
    return torch.tensor(x.astype(np.float32)).to(torch.bfloat16 if x.dtype == ml_dtypes.bfloat16 else torch.float16)


ISLANDS = {
    "softmax": (nn.softmax, lambda x: functional.softmax(x, -1)),
    "log_softmax": (nn.log_softmax, lambda x: functional.log_softmax(x, -1)),
    "layer_norm": (lambda x: nn.LayerNorm(16)(x), lambda x: functional.layer_norm(x, (16,))),
    "rms_norm": (lambda x: nn.RMSNorm(16, eps=1e-6)(x), lambda x: functional.rms_norm(x, (16,), eps=1e-6)),
    "group_norm": (lambda x: nn.GroupNorm(4, 16, n_spatial=0)(x), lambda x: functional.group_norm(x, 4)),
    "batch_norm": (
        lambda x: nn.apply(nn.BatchNorm1d(16), x, training=True)[0],
        lambda x: functional.batch_norm(x, None, None, training=True),
    ),
}


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16], ids=["bf16", "f16"])
@pytest.mark.parametrize("name", ISLANDS)
def test_norms_and_softmax_of_halves_are_torchs_in_float32_rounded(name, dtype):
    ours, theirs = ISLANDS[name]
    x = (np.random.default_rng(0).normal(size=(32, 16)) * 3 + 20).astype(dtype)
    for out in (ours(x), fl.jit(ours)(x)):
        assert out.dtype == dtype
        expected = theirs(as_torch(x).float()).numpy()
        half_a_bit = 0.51 * float(ml_dtypes.finfo(dtype).eps)
        np.testing.assert_allclose(out.astype(np.float32), expected, rtol=half_a_bit, atol=2e-6)


def test_a_loss_of_halves_is_the_float32_loss_of_autocast():
    x = np.random.default_rng(0).normal(size=(64, 16)).astype(ml_dtypes.bfloat16)
    labels = np.arange(64) % 16
    with torch.autocast("cpu", torch.bfloat16):
        expected = functional.cross_entropy(as_torch(x), torch.tensor(labels))
    for loss in (nn.cross_entropy, fl.jit(nn.cross_entropy)):
        out = loss(x, labels)
        assert out.dtype == np.float32 and expected.dtype == torch.float32
        np.testing.assert_allclose(out, expected.numpy(), rtol=1e-6)
