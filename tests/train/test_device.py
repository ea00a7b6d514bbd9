# SPDX-License-Identifier: MIT
"""Training with arrays on a device, here the stand-in for CuPy."""

from unittest import mock

import numpy as np
import pytest

import functorch_lite as fl
import functorch_lite.numpy as fnp
from functorch_lite import train
from functorch_lite.backends import registry
from tests.device import strict

C = 3
LOGITS = np.random.default_rng(0).normal(size=(40, C)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(C, size=40)


@pytest.fixture
def device():
    """The module of the stand-in for CuPy."""
    with mock.patch.dict(registry._modules), mock.patch.object(registry, "_devices", []):
        yield strict.library()


@pytest.mark.parametrize(
    "of",
    [
        train.Accuracy.of,
        train.Perplexity.of,
        train.AUROC.of,
        lambda x, y: train.Mean.of(x),
        lambda x, y: train.TopK.of(x, y, k=2),
        lambda x, y: train.F1.of(x, y, n_classes=C),
        lambda x, y: train.ConfusionMatrix.of(x, y, n_classes=C),
    ],
    ids=["accuracy", "perplexity", "auroc", "mean", "top k", "f1", "confusion"],
)
@pytest.mark.parametrize("wrap", [lambda f: f, fl.jit], ids=["eager", "jit"])
def test_metrics_are_computed_there(device, of, wrap):
    metric = wrap(of)(device.asarray(LOGITS), device.asarray(LABELS))
    merged = metric.merge(metric)
    assert all(isinstance(leaf, device.ndarray | np.generic) for leaf in fl.tree.leaves(merged))
    expected = of(LOGITS, LABELS)
    np.testing.assert_allclose(merged.compute().get(), expected.merge(expected).compute(), rtol=1e-12)


def step(w, batch):
    loss, grad = fl.value_and_grad(lambda w: fnp.mean((w - batch) ** 2))(w)
    return w - np.float32(0.1) * grad, {"loss": loss, "mean": train.Mean.of(loss)}


def test_a_run_and_its_checkpoints(device, tmp_path):
    pytest.importorskip("safetensors", reason="checkpoints are safetensors files")
    start, batches = device.asarray(np.zeros(3, np.float32)), [device.asarray(np.ones(3, np.float32))] * 4
    whole = train.fit(fl.jit(step), start, batches, epochs=3, show=False)
    half = train.fit(fl.jit(step), start, batches, steps=6, show=False, checkpoint=tmp_path, nan_watch=True)
    assert isinstance(half.state, device.ndarray)
    resumed = train.fit(fl.jit(step), start, batches, epochs=3, show=False, checkpoint=tmp_path)
    assert isinstance(resumed.state, device.ndarray) and resumed.state.tobytes() == whole.state.tobytes()
    assert resumed.history["loss"] == whole.history["loss"]
    on_host = train.Checkpoints(tmp_path).restore(like=np.zeros(3, np.float32)).state
    assert type(on_host) is np.ndarray and on_host.tobytes() == whole.state.tobytes()


def test_evaluation_weights_batches(device):
    data = [device.asarray(np.ones(3)), device.asarray(np.array([5.0]))]
    assert train.evaluate(lambda s, x: {"loss": fnp.mean(x)}, None, data) == {"loss": 2.0}


def test_the_line_of_a_nan_is_found(device):
    def bad(w, batch):
        return w, {"loss": fnp.sum(fnp.log(w - batch))}  # here

    with pytest.raises(train.NonFiniteError, match="made by `log`: float32.3. with 3 NaN") as caught:
        ones = device.asarray(np.ones(3, np.float32))
        train.fit(fl.jit(bad), ones, [ones + ones], nan_watch=True, show=False)
    assert "# here" in str(caught.value.source)


def test_microbatches(device):
    x = device.asarray(np.arange(6.0))
    found = fl.jit(train.microbatched(fl.grad(lambda w, x: fnp.mean((w - x) ** 2)), 3))(device.asarray(np.ones(())), x)
    assert isinstance(found, device.ndarray) and float(found) == pytest.approx(-3.0)
