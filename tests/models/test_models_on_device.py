# SPDX-License-Identifier: MIT
"""The models on a device, as the strict stand-in for CuPy has it: what is on the host and what is not never mix."""

from unittest import mock

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import interop, models, nn
from functorch_lite.backends import registry
from tests.device import strict
from tests.models.reference_inputs import NET_SIZES, audio, windows

CONFIG = models.BertConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def device():
    """The module of the stand-in for CuPy."""
    with mock.patch.dict(registry._modules), mock.patch.object(registry, "_devices", []):
        yield strict.library()


def there(xp, tree):
    return fl.tree.map(xp.asarray, tree)


def assert_same(found, expected):
    for a, b in zip(fl.tree.leaves(found), fl.tree.leaves(expected), strict=True):
        assert isinstance(a, strict.ndarray)
        np.testing.assert_allclose(a.get(), b, atol=1e-5)


def test_texts_are_embedded_where_the_model_is_and_come_to_the_host(device):
    model = models.Bert(CONFIG, key=fl.random.key(0))
    tokenizer = models.WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmno"])
    texts = ["a b", "c d e f", "g"]
    out = models.embed(texts, there(device, model), tokenizer, batch_size=2)
    assert type(out) is np.ndarray
    np.testing.assert_allclose(out, models.embed(texts, model, tokenizer, batch_size=2), atol=1e-5)


def test_silero_and_mtcnn_and_efficientnet_run_where_they_are(device):
    silero, sound = models.SileroVAD(8_000, key=fl.random.key(0)), audio(8_000)
    found = models.speech_probabilities(there(device, silero), device.asarray(sound))
    assert_same(found, models.speech_probabilities(silero, sound))
    sound = sound[None, :1000]
    assert_same(there(device, silero).probabilities(device.asarray(sound)), silero.probabilities(sound))
    for net, size in zip((models.PNet, models.RNet, models.ONet), NET_SIZES.values(), strict=True):
        model, x = net(key=fl.random.key(0)), windows(size)
        assert_same(there(device, model)(device.asarray(x)), model(x))
    model, images = models.EfficientNetLite0(3, key=fl.random.key(0)), np.full((1, 32, 32, 3), 9, np.uint8)
    assert_same(there(device, model)(models.to_imagenet(device.asarray(images))), model(models.to_imagenet(images)))


def test_arrays_of_a_device_are_written_to_files(device, tmp_path):
    model = there(device, models.Bert(CONFIG, key=fl.random.key(0)))
    tensors = nn.state_dict(model)
    for save, load in ((interop.save_safetensors, interop.load_safetensors), (interop.save_torch, interop.load_torch)):
        loaded = load(save(tmp_path / "a", {name: device.asarray(x) for name, x in tensors.items()}))
        assert all(np.array_equal(loaded[name], x) for name, x in tensors.items())
        assert_same(nn.load_state_dict(model, loaded), fl.tree.map(lambda x: x.get(), model))
