# SPDX-License-Identifier: MIT
import gzip
import struct

import numpy as np
import pytest

from functorch_lite.data import read_idx
from functorch_lite.errors import ArgumentError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, CODES[array.dtype.str[1:]], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 3)])
def test_every_item_type_and_rank_is_read_back(code, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(code)
    result = read_idx(idx_bytes(array))
    np.testing.assert_array_equal(result, array, strict=True)
    assert result.dtype.isnative


def test_result_owns_writeable_memory():
    result = read_idx(idx_bytes(np.zeros(3, "u1")))
    result[0] = 7
    assert result.tolist() == [7, 0, 0]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_path_gives_the_same_as_its_bytes_gzipped_or_not(tmp_path, pack):
    array = np.arange(6, dtype="u1").reshape(2, 3)
    path = tmp_path / "file"
    path.write_bytes(pack(idx_bytes(array)))
    np.testing.assert_array_equal(read_idx(path), array)
    np.testing.assert_array_equal(read_idx(path.read_bytes()), array)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"PNG.....", b"\0\0\x07\x01\0\0\0\0"])
def test_content_without_the_magic_number_is_refused(content):
    with pytest.raises(ArgumentError, match="should start with an IDX magic number"):
        read_idx(content)


def test_a_file_torn_in_its_header_is_named(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(np.zeros((2, 3), "u1"))[:9])
    with pytest.raises(ArgumentError, match=r"images ends inside its header of 12 bytes"):
        read_idx(path)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0"])
def test_a_wrong_length_is_refused(change):
    with pytest.raises(ArgumentError, match=r"should hold 18 bytes for shape \(2, 3\), but holds 1[79]"):
        read_idx(change(idx_bytes(np.zeros((2, 3), "u1"))))


def test_torn_gzip_is_refused():
    with pytest.raises(ArgumentError, match="the bytes given is not a whole gzip file"):
        read_idx(gzip.compress(idx_bytes(np.arange(100, dtype="u1")))[:-20])
