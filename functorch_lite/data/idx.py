# SPDX-License-Identifier: MIT
"""The IDX format of the MNIST family: a magic number, the sizes, then the items, all big-endian.

    byte 0-1   zero
    byte 2     item type (0x08 is uint8)
    byte 3     number of axes
    then       one uint32 a axis, then the items in C order

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from functorch_lite.errors import ArgumentError

_GZIP_MAGIC = b"\x1f\x8b"
_ITEM_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(source: str | os.PathLike[str] | bytes) -> np.ndarray:
    """The array in an IDX file, given by its path or by its bytes, gzipped or not.

    The result has the file's shape, the file's item type in the machine's byte order, and memory of its own.

    Raises ArgumentError when the content is not IDX, or is shorter or longer than its header says.

    >>> read_idx(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6)))
    array([[0, 1, 2],
           [3, 4, 5]], dtype=uint8)
    """
    name = "the bytes given" if isinstance(source, bytes) else str(source)
    content = unzip(source if isinstance(source, bytes) else Path(source).read_bytes(), name)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _ITEM_TYPES:
        raise ArgumentError(f"read_idx: {name} should start with an IDX magic number, but starts with {content[:4]!r}.")
    dtype, n_axes = np.dtype(_ITEM_TYPES[content[2]]), content[3]
    start = 4 + 4 * n_axes
    if len(content) < start:
        raise ArgumentError(f"read_idx: {name} ends inside its header of {start} bytes; the file is torn.")
    shape = struct.unpack(f">{n_axes}I", content[4:start])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise ArgumentError(
            f"read_idx: {name} should hold {expected} bytes for shape {shape}, but holds {len(content)}; "
            "the file is torn or not IDX."
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def unzip(content: bytes, name: str) -> bytes:
    """`content` decompressed when it is gzip, else as it is; `name` is what an error calls it.

    >>> unzip(b"plain", "a file")
    b'plain'
    """
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as e:
        raise ArgumentError(f"{name} is not a whole gzip file ({e}); it is torn.") from e
