# SPDX-License-Identifier: MIT
import hashlib
import io
import sys
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from functorch_lite.data import DataError, movie_reviews
from functorch_lite.errors import ArgumentError

MODULE = sys.modules[movie_reviews.__module__]


def archive(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder with an archive of ten sentences; six are to learn from."""
    rows = "".join(f"{i}\t{i - 4.5}\tsentence {i}\tof a review \r\n" for i in range(10)).encode()
    inner = archive({"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": rows, "hutto_ICWSM_2014/other.txt": b""})
    whole = archive({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner})
    sha256 = {MODULE._ARCHIVE: hashlib.sha256(whole).hexdigest()}
    monkeypatch.setattr(MODULE, "_DATASET", replace(MODULE._DATASET, sha256=sha256))
    monkeypatch.setattr(MODULE, "_N_TRAIN", 6)
    (tmp_path / "vader").mkdir()
    (tmp_path / "vader" / MODULE._ARCHIVE).write_bytes(whole)
    return tmp_path


def test_the_two_splits_hold_each_sentence_once_with_its_rating(folder):
    parts = [movie_reviews(split, data_dir=folder) for split in ("train", "test")]
    assert [len(texts) for texts, _ in parts] == [6, 4]
    texts = [text for part, _ in parts for text in part]
    ratings = np.concatenate([ratings for _, ratings in parts])
    assert ratings.dtype == np.float32
    assert {text: float(r) for text, r in zip(texts, ratings, strict=True)} == {
        f"sentence {i}\tof a review": i - 4.5 for i in range(10)
    }


def test_the_split_is_always_the_same_one(folder):
    assert movie_reviews(data_dir=folder)[0] == movie_reviews("train", data_dir=folder)[0]


def test_another_split_and_a_torn_archive_are_named(folder):
    with pytest.raises(ArgumentError, match="`split` should be 'train' or 'test', but is 'dev'"):
        movie_reviews("dev", data_dir=folder)
    path = folder / "vader" / MODULE._ARCHIVE
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="the file is torn or another one"):
        movie_reviews(data_dir=folder)
