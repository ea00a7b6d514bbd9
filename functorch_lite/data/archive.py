# SPDX-License-Identifier: MIT
"""Files inside a .tar.gz archive, read in memory."""

import io
import tarfile
from collections.abc import Callable

from functorch_lite.data.cache import DataError
from functorch_lite.data.idx import unzip


def read_members(archive: bytes, is_wanted: Callable[[str], bool], name: str) -> dict[str, bytes]:
    """The contents of the archive's files whose path `is_wanted`, by path; `name` is what an error calls the archive.

    Raises DataError when the bytes are no archive, or hold none of them.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(unzip(archive, name))) as tar:
            members = [member for member in tar if member.isfile() and is_wanted(member.name)]
            found = {member.name: file.read() for member in members if (file := tar.extractfile(member))}
    except tarfile.TarError as e:
        raise DataError(f"{name} is not a whole archive: {e}") from e
    if not found:
        raise DataError(f"{name} holds none of the files looked for.")
    return found
