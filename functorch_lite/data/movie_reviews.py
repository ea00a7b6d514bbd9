# SPDX-License-Identifier: MIT
"""Sentences of film reviews with the feeling that people read in them, for sentiment analysis.

Source: C. Hutto, E. Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text",
Proc. ICWSM 2014; the sentences are those of B. Pang, L. Lee, Proc. ACL 2005. The Python source package
`vaderSentiment` 3.3.2 (MIT licence) carries them.
"""

import os
from typing import Literal

import numpy as np

from functorch_lite.data.archive import read_members
from functorch_lite.data.cache import Published, load_files
from functorch_lite.errors import ArgumentError

_ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
_INNER = "hutto_ICWSM_2014.tar.gz"
_TABLE = "movieReviewSnippets_GroundTruth.txt"
_N_TRAIN = 8605

_DATASET = Published(
    name="vader",
    sha256={_ARCHIVE: "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"},
    requirement="vaderSentiment==3.3.2",
    mirrors=("https://files.pythonhosted.org/packages/source/v/vaderSentiment",),
    is_archive=True,
)


def movie_reviews(
    split: Literal["train", "test"] = "train", *, data_dir: str | os.PathLike[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """n sentences of film reviews and their ratings, float32 [n], from -4, very negative, to 4, very positive.

    n is 8,605 for `split` "train" and 2,000 for "test", drawn once and for all. A rating is the mean of about 20
    people's, whole numbers each. The archive (2.5 MB to fetch and keep) is looked for in `data_dir`, or where
    `functorch_lite.data.cache` says.

    Raises DataError when the archive cannot be had or is damaged, ArgumentError for another split.

    >>> texts, ratings = movie_reviews()                                                  # doctest: +SKIP
    >>> texts[0], ratings[0]                                                              # doctest: +SKIP
    """
    if split not in ("train", "test"):
        raise ArgumentError(f"movie_reviews: `split` should be 'train' or 'test', but is {split!r}.")
    (archive,) = load_files(_DATASET, [_ARCHIVE], data_dir=data_dir)
    ((_, inner),) = read_members(archive, lambda path: path.endswith(_INNER), _ARCHIVE).items()
    ((_, table),) = read_members(inner, lambda path: path.endswith(_TABLE), _INNER).items()
    rows = [line.split("\t", 2) for line in table.decode("utf-8").splitlines()]
    order = np.random.Generator(np.random.Philox(0)).permutation(len(rows))
    chosen = order[:_N_TRAIN] if split == "train" else order[_N_TRAIN:]
    return [rows[i][2].strip() for i in chosen], np.array([rows[i][1] for i in chosen], np.float32)
