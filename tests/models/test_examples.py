# SPDX-License-Identifier: MIT
"""The examples of pretrained models run, on a small random BERT and small texts, and do what they say."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import interop, nn
from functorch_lite.models import Bert, BertConfig
from tests.examples.loading import load

GOOD, BAD = ("good", "fine", "great"), ("bad", "dull", "awful")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "is", ".", *GOOD, *BAD]
CONFIG = BertConfig(
    vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=48, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tensors = nn.state_dict(Bert(CONFIG, key=fl.random.key(0)))
    tensors["embeddings.word_embeddings.weight"] *= 20  # words that differ, as those of a trained model do
    interop.save_huggingface(folder, {"model_type": "bert", **CONFIG._asdict()}, tensors)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return folder


@pytest.fixture
def sentences(tmp_path):
    """Lines that are called good when both of their words are good, or both bad: no linear matter."""
    rng = np.random.Generator(np.random.Philox(0))
    words = rng.choice([*GOOD, *BAD], (200, 2))
    labels = [int((a in BAD) == (b in BAD)) for a, b in words]
    lines = [f"{label}\tthe film is {a} {b} ." for label, (a, b) in zip(labels, words, strict=True)]
    (tmp_path / "texts.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "texts.txt"


def test_adapters_learn_what_a_linear_layer_on_the_frozen_encoder_cannot(bert, sentences, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    argv = ["--bert", bert, "--texts", sentences, "--steps", 120, "--batch-size", 16, "--learning-rate", 0.01]
    before, after = load("finetune_lora").main([*map(str, argv), "--out", str(tmp_path / "out")])
    assert before < 0.75 and after > 0.9
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"adapters.safetensors", "curves.png"}
    adapters = interop.load_safetensors(tmp_path / "out/adapters.safetensors")
    assert len(adapters) == 6 and sum(x.size for x in adapters.values()) == 2 * 2 * 8 * 16 + 2 * 16 + 2
    out = capsys.readouterr().out
    assert "160 sentences to learn from, 40 held out" in out and "546 of 4114 parameters are trained" in out


def test_a_question_finds_the_passage_that_is_like_it(bert, tmp_path, capsys):
    lines = ["the film is good .", "", "the film is fine .", "is is is", ". . .", *["bad dull awful"] * 4]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    example = load("embeddings")
    example.main(["bad dull awful bad dull awful", "--bert", str(bert), "--text", str(tmp_path / "text.txt")])
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("2 passages in")
    assert out[3].endswith("bad dull awful bad dull awful bad dull awful bad dull awful")
    assert float(out[3].split()[0]) > float(out[4].split()[0])


def test_an_excerpt_begins_at_its_line_or_says_that_there_is_none():
    example = load("embeddings")
    assert example.excerpt(["a", "HAMLET", "b", "c"], "HAMLET", 2) == ["HAMLET", "b"]
    with pytest.raises(SystemExit, match="no line of the text is 'MACBETH'"):
        example.excerpt(["a"], "MACBETH", 2)
