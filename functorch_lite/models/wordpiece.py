# SPDX-License-Identifier: MIT
"""BERT's tokenizer: text into words, and words into the longest pieces that the vocabulary has.

    "Tokenizing!" -> "tokenizing", "!" -> "token", "##izing", "!" -> ids

Source: tokenization.py of google-research/bert; the splitting into longest pieces is from M. Schuster, K. Nakajima,
"Japanese and Korean voice search", Proc. ICASSP 2012.
"""

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from functorch_lite.errors import ArgumentError
from functorch_lite.files import FilePath

_LONGEST_WORD = 100  # characters; a longer one is unknown
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class Tokens(NamedTuple):
    """Texts as integers: ids int32 [batch, length], padded at the end, and mask bool [batch, length] of what counts."""

    ids: np.ndarray
    mask: np.ndarray


class WordPiece:
    """The tokenizer of a vocabulary, `tokenizer(texts) -> Tokens(ids, mask)`; the vocabulary's lines are the tokens.

    lowercase: texts are lowered and accents taken off, as for the "uncased" models.

    >>> tokenizer = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "token", "##izing", "!"])
    >>> tokenizer.pieces("Tokenizing!")
    ['token', '##izing', '!']
    >>> tokenizer(["Tokenizing!", "token"]).ids
    array([[2, 5, 6, 7, 3],
           [2, 5, 3, 0, 0]], dtype=int32)
    """

    def __init__(self, vocabulary: Sequence[str], *, lowercase: bool = True):
        self.vocabulary = tuple(vocabulary)
        self.lowercase = lowercase
        self._ids = {token: i for i, token in enumerate(self.vocabulary)}
        missing = [token for token in _SPECIAL if token not in self._ids]
        if missing:
            raise ArgumentError(f"WordPiece: the vocabulary has no {missing[0]}.")
        self._split = functools.lru_cache(maxsize=65536)(self._pieces_of_word)

    @classmethod
    def from_file(cls, path: FilePath, *, lowercase: bool = True) -> "WordPiece":
        """The tokenizer of a `vocab.txt`, one token a line."""
        text = Path(path).read_text("utf-8")
        return cls(text.removesuffix("\n").split("\n"), lowercase=lowercase)

    def __call__(self, texts: Sequence[str], *, max_length: int = 256, length: int | None = None) -> Tokens:
        """The tokens of `texts`, each between [CLS] and [SEP], padded with [PAD] to the longest of them.

        max_length: longer ones lose their end. length: pad to this one, so that compiled functions see one shape.

        Raises ArgumentError for one text in place of a sequence, or `length` below the longest.
        """
        if isinstance(texts, str):
            raise ArgumentError("WordPiece: `texts` should be a sequence of texts, but is one text.")
        start, end = self._ids["[CLS]"], self._ids["[SEP]"]
        rows = [[start, *self._text_ids(text)[: max_length - 2], end] for text in texts]
        longest = max(map(len, rows), default=0)
        if length is not None and length < longest:
            raise ArgumentError(f"WordPiece: `length` {length} is less than the {longest} tokens of a text.")
        ids = np.full((len(rows), length or longest), self._ids["[PAD]"], np.int32)
        mask = np.zeros(ids.shape, np.bool_)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        return Tokens(ids, mask)

    def _text_ids(self, text: str) -> list[int]:
        return [self._ids[piece] for piece in self.pieces(text)]

    def pieces(self, text: str) -> list[str]:
        """The tokens of `text`, those within a word with "##" before them; "[UNK]" for a word that has none."""
        return [piece for word in _words(text, self.lowercase) for piece in self._split(word)]

    def _pieces_of_word(self, word: str) -> tuple[str, ...]:
        pieces, start = [], 0
        while start < len(word) and len(word) <= _LONGEST_WORD:
            prefix = "##" if start else ""
            ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in self._ids)
            end = next(ends, None)
            if end is None:
                return ("[UNK]",)
            pieces.append(prefix + word[start:end])
            start = end
        return tuple(pieces) or ("[UNK]",)


def _words(text: str, lowercase: bool) -> Iterator[str]:
    """The words of `text`, and each punctuation mark and ideograph as a word of its own."""
    cleaned = "".join(_cleaned(c) for c in text)
    if lowercase:
        decomposed = unicodedata.normalize("NFD", cleaned)
        cleaned = "".join(c for c in decomposed if unicodedata.category(c) != "Mn").lower()
    for word in cleaned.split():
        yield from "".join(f" {c} " if _is_punctuation(c) else c for c in word).split()


@functools.lru_cache(maxsize=65536)
def _cleaned(c: str) -> str:
    """A space for white space, nothing for control characters, an ideograph between spaces."""
    category = unicodedata.category(c)
    if c in "\t\n\r" or category == "Zs":
        return " "
    if c in "\0\ufffd" or category in ("Cc", "Cf", "Cn", "Co", "Cs"):
        return ""
    code = ord(c)
    return f" {c} " if any(low <= code <= high for low, high in _IDEOGRAPHS) else c


@functools.lru_cache(maxsize=65536)
def _is_punctuation(c: str) -> bool:
    is_ascii_mark = c.isascii() and c.isprintable() and not c.isalnum() and c != " "
    return is_ascii_mark or unicodedata.category(c).startswith("P")
