# SPDX-License-Identifier: MIT
"""Text files, and characters as numbers."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentError, ArgumentTypeError


def read_text(path: str | os.PathLike[str], *, encoding: str = "utf-8") -> str:
    r"""The text of a file; every line end becomes "\n", and a byte order mark of UTF-8 is left out.

    Raises ArgumentError, with the place, when the bytes are not of that encoding; OSError when there is no such file.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as e:
        wrong = content[e.start : e.start + 1]
        raise ArgumentError(f"read_text: {path} is not {encoding}: byte {e.start} is {wrong!r} ({e.reason}).") from e
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | os.PathLike[str], *, encoding: str = "utf-8", empty: bool = True) -> list[str]:
    r"""The lines of a text file without their "\n"; `empty=False` leaves out those of white space alone.

    Raises what `read_text` raises.
    """
    lines = read_text(path, encoding=encoding).split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    return lines if empty else [line for line in lines if line.strip()]


class CharTokenizer:
    """Characters as numbers: character `characters[i]` is token i.

    Make it from the text to be learned with `CharTokenizer.of(text)`, whose characters it sorts.

    >>> tokenizer = CharTokenizer.of("hello world")
    >>> tokenizer.characters, len(tokenizer)
    (' dehlorw', 8)
    >>> tokenizer.encode("hold")
    array([3, 5, 4, 1], dtype=int32)
    >>> tokenizer.decode([3, 5, 4, 1])
    'hold'
    """

    def __init__(self, characters: str):
        if len(set(characters)) != len(characters):
            raise ArgumentError("CharTokenizer: `characters` should hold each character once.")
        self.characters = characters

    @classmethod
    def of(cls, text: str) -> "CharTokenizer":
        """The tokenizer of all characters that `text` holds, in the order of their code points."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        """The number of different tokens."""
        return len(self.characters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharTokenizer) and other.characters == self.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __repr__(self) -> str:
        return f"CharTokenizer({self.characters!r})"

    @cached_property
    def _points(self) -> np.ndarray:
        return _code_points(self.characters)

    @cached_property
    def _tokens(self) -> np.ndarray:
        """The token of each code point up to the highest known one and the one after it; -1 where there is none."""
        tokens = np.full(int(self._points.max(initial=0)) + 2, -1, np.int32)
        tokens[self._points] = np.arange(len(self), dtype=np.int32)
        return tokens

    def encode(self, text: str) -> np.ndarray:
        """Tokens int32 [len(text)]. Raises ArgumentError, with its place, for a character that is not known."""
        tokens = self._tokens[np.minimum(_code_points(text), len(self._tokens) - 1)]
        if tokens.min(initial=0) < 0:
            at = int(tokens.argmin())
            raise ArgumentError(
                f"CharTokenizer.encode: character {text[at]!r} at {at} is none of the {len(self)} known ones."
            )
        return tokens

    def decode(self, tokens: Any) -> str:
        """The text of `tokens` [n] of any integer dtype. Raises ArgumentError for a number that is no token."""
        tokens = np.asarray(tokens.get() if hasattr(tokens, "get") else tokens)
        if tokens.size == 0:
            return ""
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ArgumentTypeError(
                f"CharTokenizer.decode: `tokens` should be integers on one axis, but are {tokens.dtype}{tokens.shape}."
            )
        if tokens.min() < 0 or tokens.max() >= len(self):
            raise ArgumentError(
                f"CharTokenizer.decode: tokens should be in 0..{len(self) - 1}, but reach from {tokens.min()} to "
                f"{tokens.max()}."
            )
        return self._points[tokens].tobytes().decode("utf-32-le", "surrogatepass")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
