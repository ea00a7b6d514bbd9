# SPDX-License-Identifier: MIT
"""BERT on a small random model: shapes, masks, names, training, errors. test_pretrained.py has the real one."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import interop, nn
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.models import Bert, BertConfig, WordPiece, embed, load_bert

CONFIG = BertConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=12,
)  # fmt: skip
JSON = {**CONFIG._asdict(), "model_type": "bert"}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmno"]
IDS = np.array([[2, 5, 6, 3, 0, 0], [2, 7, 8, 9, 10, 3]], np.int32)
MASK = IDS != 0


@pytest.fixture(scope="module")
def model():
    return Bert(CONFIG, key=fl.random.key(0))


@pytest.fixture
def folder(model, tmp_path):
    tensors = {**nn.state_dict(model), "embeddings.position_ids": np.arange(12)[None]}
    interop.save_huggingface(tmp_path, JSON, tensors)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    return tmp_path


def test_padding_changes_nothing_where_the_mask_is_true(model):
    out = model(IDS, MASK)
    assert out.shape == (2, 6, 8) and out.dtype == np.float32
    np.testing.assert_allclose(out[0, :4], model(IDS[:1, :4])[0], atol=1e-6)
    assert np.abs(out[0, :4] - model(IDS)[0, :4]).max() > 1e-3


def test_a_mask_of_zeros_and_ones_is_taken_as_one_of_booleans(model):
    assert np.array_equal(model(IDS, MASK.astype(np.int64)), model(IDS, MASK))


def test_embeddings_are_of_length_one_and_do_not_depend_on_the_batch(model):
    out = model.embed(IDS, MASK)
    np.testing.assert_allclose(np.linalg.norm(out, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(model.embed(IDS[:1, :4], MASK[:1, :4])[0], out[0], atol=1e-6)


def test_token_types_and_the_pooler_count(model):
    out = model(IDS, MASK, np.ones_like(IDS))
    assert np.abs(out - model(IDS, MASK)).max() > 1e-3
    pooled = model.pooled(out)
    assert pooled.shape == (2, 8) and np.abs(pooled).max() <= 1


def test_compiled_mapped_and_plain_forward_agree(model):
    plain = model(IDS, MASK)
    np.testing.assert_allclose(fl.jit(lambda m, x, mask: m(x, mask))(model, IDS, MASK), plain, atol=1e-5)
    np.testing.assert_allclose(fl.vmap(model)(IDS, MASK), plain, atol=1e-5)


def test_every_parameter_that_is_used_has_a_gradient(model):
    grads = fl.grad(lambda m: (m.pooled(m(IDS, MASK)) ** 2).sum())(model)
    dead = [path for path, g in zip(fl.tree.paths(grads), fl.tree.leaves(grads), strict=True) if not np.any(g)]
    # A bias of the keys moves all scores of a query alike, so softmax does not see it; what is left is rounding.
    assert all(path.endswith("k_proj.bias") for path in dead), dead


def test_dropout_drops_in_training_alone(model):
    one, _ = nn.apply(model, IDS, MASK, key=fl.random.key(1), training=True)
    two, _ = nn.apply(model, IDS, MASK, key=fl.random.key(2), training=True)
    assert np.abs(one - two).max() > 1e-3
    assert np.array_equal(nn.apply(model, IDS, MASK)[0], model(IDS, MASK))


def test_the_names_are_those_of_hugging_face(model):
    names = set(nn.state_dict(model))
    assert {
        "embeddings.word_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.1.attention.self.query.weight",
        "encoder.layer.0.attention.output.LayerNorm.weight",
        "encoder.layer.0.intermediate.dense.bias",
        "encoder.layer.0.output.dense.weight",
        "pooler.dense.weight",
    } <= names
    assert len(names) == 5 + 2 * 16 + 2


def test_a_folder_of_hugging_face_gives_the_model_back(model, folder):
    loaded, tokenizer = load_bert(folder)
    assert loaded.config == CONFIG
    assert all(np.array_equal(a, b) for a, b in zip(fl.tree.leaves(loaded), fl.tree.leaves(model), strict=True))
    out = embed(["a b", "c d e f", "a b"], loaded, tokenizer, batch_size=2)
    np.testing.assert_allclose(out[0], model.embed(*tokenizer(["a b"]))[0], atol=1e-6)
    np.testing.assert_allclose(out[0], out[2], atol=1e-6)


def test_names_with_the_prefix_of_a_larger_model_are_taken(model, folder):
    head = {"cls.predictions.bias": np.zeros(20, np.float32)}
    prefixed = {f"bert.{name}": x for name, x in nn.state_dict(model).items() if "pooler" not in name} | head
    interop.save_huggingface(folder, JSON, prefixed)
    loaded, _ = load_bert(folder)
    assert np.array_equal(loaded(IDS), model(IDS)) and loaded.pooler is None
    with pytest.raises(ArgumentError, match="the model has no pooler"):
        loaded.pooled(loaded(IDS))


def test_the_names_of_the_oldest_files_are_taken(model, folder):
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = nn.state_dict(model)
    for new, ending in old.items():
        tensors = {name.replace(new, ending): x for name, x in tensors.items()}
    interop.save_huggingface(folder, JSON, tensors)
    assert np.array_equal(load_bert(folder)[0](IDS), model(IDS))


def test_a_cased_tokenizer_is_told_by_its_settings(folder):
    assert load_bert(folder)[1].pieces("A") == ["a"]
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_bert(folder)[1].pieces("A a") == ["[UNK]", "a"]


def test_a_tensor_that_is_missing_or_has_another_shape_is_named(model, folder):
    tensors = nn.state_dict(model)
    interop.save_huggingface(folder, JSON, {k: x for k, x in tensors.items() if k != "pooler.dense.bias"})
    with pytest.raises(ArgumentError, match="missing: pooler.dense.bias"):
        load_bert(folder)
    interop.save_huggingface(folder, {**JSON, "intermediate_size": 12}, tensors)
    with pytest.raises(ArgumentError, match=r"layer.0.intermediate.dense.weight: expected .*\[12, 8\], found .*16"):
        load_bert(folder)


def test_other_models_and_inputs_that_do_not_fit_are_refused(model):
    with pytest.raises(ArgumentError, match="`model_type` should be 'bert', but is 'gpt2'"):
        BertConfig.from_json({"model_type": "gpt2"})
    with pytest.raises(ArgumentError, match="`hidden_act` should be one of .*, but is 'tan'"):
        Bert(CONFIG._replace(hidden_act="tan"), key=fl.random.key(0))
    with pytest.raises(ShapeError, match=r"`ids` \(1, 13\) are longer than the 12 positions"):
        model(np.ones((1, 13), np.int32))


def test_texts_of_many_lengths_come_back_in_their_order(model):
    tokenizer = WordPiece(VOCABULARY)
    texts = ["a", "b c d", "e f", "g", "h i j k"]
    out = embed(texts, model, tokenizer, batch_size=2)
    for text, row in zip(texts, out, strict=True):
        np.testing.assert_allclose(row, model.embed(*tokenizer([text]))[0], atol=1e-6)
    assert embed([], model, tokenizer).shape == (0, 8)
