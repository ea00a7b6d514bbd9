# SPDX-License-Identifier: MIT
import numpy as np
import pytest

from functorch_lite.errors import ArgumentError
from functorch_lite.models import WordPiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["un", "##aff", "##able", "naive", "cafe", "the", "!", "'", "s", "日", "本", "##s", "$", "100", "Ä"]


@pytest.fixture
def tokenizer():
    return WordPiece([*SPECIAL, *WORDS])


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("unaffable", ["un", "##aff", "##able"]),
        ("The THE the", ["the", "the", "the"]),
        ("naïve café!", ["naive", "cafe", "!"]),
        ("the's", ["the", "'", "s"]),
        ("日本the", ["日", "本", "the"]),
        ("$100", ["$", "100"]),
        ("the\tthe\u00a0the\nthe", ["the"] * 4),
        ("t\u200bh\x00e", ["the"]),
        ("unthe", ["[UNK]"]),
        ("the" * 40, ["[UNK]"]),
        ("", []),
    ],
)
def test_a_text_is_split_as_bert_splits_it(tokenizer, text, pieces):
    assert tokenizer.pieces(text) == pieces


def test_case_and_accents_stay_for_a_cased_model():
    assert WordPiece([*SPECIAL, *WORDS], lowercase=False).pieces("Ä the The") == ["Ä", "the", "[UNK]"]


def test_texts_are_padded_to_the_longest_and_masked(tokenizer):
    ids, mask = tokenizer(["unaffable the", "the"])
    assert ids.dtype == np.int32 and mask.dtype == np.bool_
    assert ids.tolist() == [[2, 5, 6, 7, 10, 3], [2, 10, 3, 0, 0, 0]]
    assert mask.sum(1).tolist() == [6, 3]


def test_long_texts_lose_their_end_and_length_pads(tokenizer):
    assert tokenizer(["the " * 50], max_length=5).ids.tolist() == [[2, 10, 10, 10, 3]]
    assert tokenizer(["the"], length=5).ids.tolist() == [[2, 10, 3, 0, 0]]
    with pytest.raises(ArgumentError, match="`length` 4 is less than the 5 tokens"):
        tokenizer(["the the the"], length=4)


def test_one_text_in_place_of_several_and_a_foreign_vocabulary_are_refused(tokenizer):
    with pytest.raises(ArgumentError, match="should be a sequence of texts, but is one text"):
        tokenizer("the")
    with pytest.raises(ArgumentError, match=r"the vocabulary has no \[UNK\]"):
        WordPiece(["[PAD]", "the"])


def test_a_vocabulary_file_gives_each_line_its_number(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]) + "\n", "utf-8")
    assert WordPiece.from_file(tmp_path / "vocab.txt").vocabulary == (*SPECIAL, *WORDS)
