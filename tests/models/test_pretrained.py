# SPDX-License-Identifier: MIT
"""The pretrained models give what they give in the libraries they come from; see make_references.py."""

from pathlib import Path

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import interop, models, nn
from functorch_lite.data import DataError
from functorch_lite.errors import ArgumentError, ShapeError
from tests.models.reference_inputs import NET_SIZES, SAMPLE_RATES, TEXTS, audio, photographs, windows

# One float32 rounding, 6e-8, grows with the square root of the terms and layers that are summed: about a hundredfold.
TOLERANCE = 1e-5

pytestmark = pytest.mark.timeout(600)  # the first test of a model may have to fetch it


@pytest.fixture(scope="module")
def references():
    with np.load(Path(__file__).parent / "references.npz") as rows:
        return dict(rows)


def fetched(load):
    """What `load()` gives, with the files where a user would have them; without them the test is skipped."""
    try:
        return load()
    except DataError as e:
        pytest.skip(f"the weights could not be had: {e.reason.splitlines()[0]}")


@pytest.fixture(scope="module")
def minilm():
    return fetched(models.minilm)


@pytest.fixture(scope="module")
def efficientnet():
    return fetched(models.efficientnet_lite0)


@pytest.fixture(scope="module")
def images():
    pytest.importorskip("sklearn", reason="the photographs come with scikit-learn")
    pytest.importorskip("PIL", reason="scikit-learn reads its photographs with Pillow")
    return photographs()


# --- MiniLM ---------------------------------------------------------------------------------------------------------


def test_minilm_has_the_tokens_of_its_own_tokenizer(minilm, references):
    assert np.array_equal(minilm[1](TEXTS).ids, references["bert/ids"])


def test_minilm_gives_the_embeddings_of_transformers(minilm, references):
    model, tokenizer = minilm
    out, expected = models.embed(TEXTS, model, tokenizer), references["bert/embeddings"]
    assert (out * expected).sum(1).min() >= 0.9999
    np.testing.assert_allclose(out, expected, atol=TOLERANCE)
    tokens = tokenizer(TEXTS)
    np.testing.assert_allclose(model.pooled(model(*tokens)), references["bert/pooled"], atol=TOLERANCE)


def test_minilm_knows_which_sentences_are_alike(minilm):
    cat, kitten, summer, stocks = models.embed(TEXTS, *minilm)
    assert cat @ kitten > 0.4 > max(cat @ summer, cat @ stocks)


def test_minilm_goes_to_a_folder_of_hugging_face_and_back(minilm, tmp_path):
    model, tokenizer = minilm
    interop.save_huggingface(tmp_path, {"model_type": "bert", **model.config._asdict()}, nn.state_dict(model))
    (tmp_path / "vocab.txt").write_text("\n".join(tokenizer.vocabulary), "utf-8")
    again, _ = models.load_bert(tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(fl.tree.leaves(again), fl.tree.leaves(model), strict=True))


# --- EfficientNet-Lite0 ---------------------------------------------------------------------------------------------


def test_efficientnet_gives_the_logits_of_torch(efficientnet, references, images):
    expected = references["efficientnet/logits"]
    x = models.to_imagenet(images)
    assert x.shape == (2, 3, 224, 224) and x.dtype == np.float32
    logits = fl.jit(lambda model, x: model(x))(efficientnet, x)
    np.testing.assert_allclose(logits, expected, atol=1e-4)  # the sums of 1280 features; logits are up to 8
    assert np.array_equal(logits.argmax(-1), expected.argmax(-1))


def test_efficientnet_trains_and_updates_its_statistics():
    model = models.EfficientNetLite0(3, key=fl.random.key(0))
    x, labels = windows(64), np.array([0, 2])

    def loss(model):
        logits, model = nn.apply(model, x, key=fl.random.key(1), training=True)
        return nn.cross_entropy(logits, labels), model

    grads, updated = fl.grad(loss, has_aux=True)(model)
    assert np.any(grads.stem.weight) and np.all(np.isfinite(grads.out.weight))
    assert np.any(updated.stem_norm.running_mean != model.stem_norm.running_mean)
    assert model.features(x).shape == (2, 1280, 2, 2)


def test_efficientnet_takes_back_its_own_state(efficientnet):
    tensors = nn.state_dict(efficientnet)
    assert len(tensors) == 296 and tensors["_blocks.15._project_conv.weight"].shape == (320, 1152, 1, 1)
    with pytest.raises(ArgumentError, match=r"_fc.weight: expected float32\[10, 1280\], found float32\[1000, 1280\]"):
        nn.load_state_dict(models.EfficientNetLite0(10, key=fl.random.key(0)), tensors)


def test_images_without_three_colours_are_refused():
    with pytest.raises(ShapeError, match=r"to_imagenet: expected \[..., h, w, 3\], got \(4, 5, 1\)"):
        models.to_imagenet(np.zeros((4, 5, 1), np.uint8))


# --- MTCNN ----------------------------------------------------------------------------------------------------------


def test_the_nets_of_mtcnn_give_the_outputs_of_torch(references):
    nets = fetched(models.mtcnn)
    for net, (name, size) in zip(nets, NET_SIZES.items(), strict=True):
        outs = net(windows(size))
        for i, out in enumerate(outs):
            np.testing.assert_allclose(out, references[f"{name}/{i}"], atol=TOLERANCE, err_msg=f"{name}/{i}")


# --- Silero VAD -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_silero_gives_the_probabilities_of_torch(references, rate):
    model, expected = fetched(lambda: models.silero_vad(rate)), references[f"silero/{rate}"]
    out = models.speech_probabilities(model, audio(rate))
    assert out.shape == expected.shape and out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=TOLERANCE)


def test_silero_step_by_step_gives_what_it_gives_at_once():
    model = models.SileroVAD(8_000, key=fl.random.key(0))
    sound = audio(8_000)[: 4 * model.chunk - 7]
    padded = np.pad(sound, (model.context, 7))
    state, steps = None, []
    for i in range(4):
        probability, state = model(padded[None, i * model.chunk :][:, : model.context + model.chunk], state)
        steps.append(probability)
    np.testing.assert_allclose(model.probabilities(sound[None]), np.stack(steps, 1), atol=1e-6)
    np.testing.assert_allclose(models.speech_probabilities(model, sound), np.concatenate(steps), atol=1e-6)


def test_silero_refuses_other_rates_and_lengths():
    with pytest.raises(ArgumentError, match=r"`sample_rate` should be one of \[16000, 8000\], but is 44100"):
        models.SileroVAD(44_100, key=fl.random.key(0))
    model = models.SileroVAD(key=fl.random.key(0))
    with pytest.raises(ShapeError, match=r"SileroVAD: expected \[batch, 576\], got \(1, 512\)"):
        model(np.zeros((1, 512), np.float32))
    with pytest.raises(ShapeError, match=r"speech_probabilities: expected \[samples\], got \(1, 512\)"):
        models.speech_probabilities(model, np.zeros((1, 512), np.float32))
