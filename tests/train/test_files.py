# SPDX-License-Identifier: MIT
import errno
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn, optim, train
from functorch_lite.errors import ArgumentTypeError, DTypeError, ShapeError, TreeError
from functorch_lite.train import files

safetensors = pytest.importorskip("safetensors", reason="checkpoints are safetensors files")

DTYPES = [
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64",
    "complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "int4", "<M8[s]",
]


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


def assert_same(a, b):
    leaves, structure = fl.tree.flatten(a)
    others, other = fl.tree.flatten(b)
    assert structure == other
    for x, y in zip(leaves, others, strict=True):
        assert type(x) is type(y)
        if hasattr(x, "dtype"):
            assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        else:
            assert repr(x) == repr(y)


class State(NamedTuple):
    model: Any
    opt_state: Any
    count: int


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_comes_back_bit_for_bit(tmp_path, name):
    dtype = dtype_of(name)
    raw = np.random.default_rng(0).integers(0, 2, size=24 * dtype.itemsize, dtype=np.uint8)
    values = {
        "matrix": raw.view(dtype).reshape(4, 6),
        "scalar": raw[: dtype.itemsize].view(dtype).reshape(()),
        "empty": np.zeros((0, 3), dtype),
    }
    path = train.save(tmp_path / "x.safetensors", values)
    assert_same(train.restore(path, fl.tree.map(np.zeros_like, values)), values)


def test_bits_of_nan_infinity_and_zero_are_kept(tmp_path):
    odd = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x7F800000, 0x00000001], np.uint32).view(np.float32)
    path = train.save(tmp_path / "x.safetensors", odd)
    assert train.restore(path, odd).tobytes() == odd.tobytes()


def test_python_scalars_and_numpy_scalars_keep_their_types(tmp_path):
    values = [True, 3, 2**80, -0.0, float("inf"), 1e-320, 2 - 3j, "name", np.float32(2.5), np.int8(-1)]
    path = train.save(tmp_path / "x.safetensors", values)
    assert_same(train.restore(path, values), values)


def test_a_model_and_its_optimizer_come_back(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4, key=fl.random.key(0)), nn.Linear(4, 2, bias=False, key=fl.random.key(1)))
    state = State(model, optim.adam(1e-3).init(model), 7)
    path = train.save(tmp_path / "deep" / "x.safetensors", state, {"epoch": 2})
    blank = State(fl.tree.map(np.zeros_like, model), optim.adam(1e-3).init(model), 0)
    assert_same(train.restore(path, blank), state)
    shapes = fl.tree.map(lambda x: fl.ShapeDtype(x.shape, x.dtype) if hasattr(x, "shape") else x, state)
    assert_same(train.restore(path, shapes), state)
    found = files.read(path)
    assert ".model.layers[0].weight" in found.values and found.metadata == {"epoch": 2}


def test_arrays_that_are_one_stay_one(tmp_path):
    shared = np.arange(4.0)
    path = train.save(tmp_path / "x.safetensors", {"a": shared, "b": [shared], "c": shared.copy()})
    found = train.restore(path, {"a": shared, "b": [shared], "c": shared})
    assert found["a"] is found["b"][0] and found["c"] is not found["a"]
    assert path.stat().st_size < 3 * shared.nbytes + 800
    assert_same(found, {"a": shared, "b": [shared], "c": shared})


def test_strided_and_big_endian_arrays_are_written_by_value(tmp_path):
    values = {"t": np.arange(6.0).reshape(2, 3).T, "big": np.arange(3, dtype=">i4"), "step": np.arange(9)[::3]}
    path = train.save(tmp_path / "x.safetensors", values)
    found = train.restore(path, values)
    for name, value in values.items():
        np.testing.assert_array_equal(found[name], value)
    assert found["big"].dtype == np.int32


def test_another_reader_of_safetensors_opens_the_file(tmp_path):
    from safetensors.numpy import load_file

    path = train.save(tmp_path / "x.safetensors", {"w": np.arange(3.0), "n": 3})
    np.testing.assert_array_equal(load_file(path)["['w']"], np.arange(3.0))


def test_what_is_restored_can_be_written_to(tmp_path):
    found = train.restore(train.save(tmp_path / "x.safetensors", np.zeros(3)), np.zeros(3))
    found[0] = 1.0
    assert found.flags.owndata and found.flags.writeable


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    return train.save(tmp_path / "x.safetensors", {"a": np.zeros((2, 3), np.float32), "n": 1, "b": [np.zeros(2)]})


def test_a_wrong_shape_names_path_expected_and_found(stored):
    with pytest.raises(ShapeError, match=r"`\['a'\]`: expected float32\[3, 2\], found float32\[2, 3\]"):
        train.restore(stored, {"a": np.zeros((3, 2), np.float32), "n": 1, "b": [np.zeros(2)]})


def test_a_wrong_dtype_names_path_expected_and_found(stored):
    with pytest.raises(DTypeError, match=r"`\['b'\]\[0\]`: expected int64\[2\], found float64\[2\]"):
        train.restore(stored, {"a": np.zeros((2, 3), np.float32), "n": 1, "b": [np.zeros(2, np.int64)]})
    with pytest.raises(DTypeError, match=r"`\['n'\]`: expected str of Python, found int of Python"):
        train.restore(stored, {"a": np.zeros((2, 3), np.float32), "n": "1", "b": [np.zeros(2)]})


def test_missing_and_unexpected_paths_are_listed(stored):
    with pytest.raises(TreeError, match=r"expected and not found: `\['c'\]`; found and not expected: `\['a'\]`"):
        train.restore(stored, {"c": np.zeros(2), "n": 1, "b": [np.zeros(2)]})


def test_not_strict_takes_what_fits(stored):
    told = r"in part: .*not found: `\['c'\]`; found .*: `\['a'\]`, `\['b'\]\[0\]`"
    with pytest.warns(train.CheckpointWarning, match=told) as warned:
        found = train.restore(stored, {"c": np.ones(2), "n": 5}, strict=False)
    assert found["n"] == 1 and found["c"].tolist() == [1, 1] and warned[0].filename == __file__
    with pytest.warns(train.CheckpointWarning), pytest.raises(ShapeError, match=r"\['a'\]"):
        train.restore(stored, {"a": np.zeros(1, np.float32)}, strict=False)


def test_lists_and_tuples_have_the_same_paths(stored):
    found = train.restore(stored, {"a": np.zeros((2, 3), np.float32), "n": 1, "b": (np.ones(2),)})
    assert isinstance(found["b"], tuple)


def test_a_count_that_was_a_python_number_may_have_become_an_array(tmp_path):
    path = train.save(tmp_path / "x.safetensors", {"n": np.array(4), "x": np.float32(2.0)})
    assert train.restore(path, {"n": 0, "x": 0.0}) == {"n": 4, "x": 2.0}
    with pytest.raises(DTypeError, match=r"`\['n'\]`: expected float of Python, found int64\[\]"):
        train.restore(path, {"n": 0.0, "x": 0.0})


def test_leaves_that_are_no_arrays_are_refused(tmp_path):
    with pytest.raises(ArgumentTypeError, match=r"the leaf `\['f'\]` is function"):
        train.save(tmp_path / "x.safetensors", {"f": lambda: 0})
    with pytest.raises(ArgumentTypeError, match="the leaf `` is ndarray"):
        train.save(tmp_path / "x.safetensors", np.array([{}], object))
    with pytest.raises(ArgumentTypeError, match="`metadata` should be a dict that JSON can hold"):
        train.save(tmp_path / "x.safetensors", np.zeros(1), {"a": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


# --- torn, damaged and foreign files ----------------------------------------------------------------------------------


def test_a_file_cut_anywhere_is_torn(stored):
    data = stored.read_bytes()
    for n in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        stored.write_bytes(data[:n])
        with pytest.raises(train.CheckpointError, match=r"x\.safetensors is torn"):
            train.read_metadata(stored)
    stored.write_bytes(bytes(len(data)))
    with pytest.raises(train.CheckpointError, match="torn: it has .* begin with zeros"):
        train.read_metadata(stored)
    stored.write_bytes(data + b"more")
    with pytest.raises(train.CheckpointError, match="torn: it should have"):
        train.read_metadata(stored)


def test_any_flipped_byte_is_noticed(stored):
    data = bytearray(stored.read_bytes())
    like = {"a": np.zeros((2, 3), np.float32), "n": 1, "b": [np.zeros(2)]}
    for n in range(8, len(data), 3):
        if data[n : n + 1] == b" ":
            continue  # padding after the header
        data[n] ^= 1
        stored.write_bytes(data)
        with pytest.raises(train.CheckpointError, match="damaged|torn|not a safetensors file|did not write"):
            train.restore(stored, like)
        data[n] ^= 1


def test_a_damaged_tensor_is_named(stored):
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    with pytest.raises(train.CheckpointError, match=r"damaged: the checksum of `\['\w'\].*` is wrong"):
        train.read_metadata(stored)


@pytest.mark.parametrize(
    "data, named",
    [
        (b"PK\x03\x04" + bytes(50), "but a zip archive"),
        (b"\x93NUMPY\x01\x00" + bytes(50), r"but a \.npy file"),
        (b"\x80\x04\x95" + bytes(50), "but a pickle"),
        (b"hello, this is a text file", "it begins with b'hello, this "),
    ],
)
def test_a_foreign_file_is_named(tmp_path, data, named):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(train.CheckpointError, match=r"x\.safetensors is not a safetensors file.*" + named):
        train.read_metadata(path)


def test_safetensors_of_others_are_told_from_ours(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(train.CheckpointError, match="that functorch_lite.train did not write; it holds `weight`"):
        train.restore(tmp_path / "x.safetensors", np.zeros(2))


def test_a_later_format_is_refused(stored, monkeypatch):
    monkeypatch.setattr(files, "FORMAT", 0)
    with pytest.raises(train.CheckpointError, match="has format 1; this version of functorch_lite reads 0"):
        train.read_metadata(stored)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(train.CheckpointError, match=r"none\.safetensors cannot be read: No such file"):
        train.read_metadata(tmp_path / "none.safetensors")


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_file_before(stored, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = stored.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(train.CheckpointError, match="could not be written: .*No space left on device.*untouched"):
        train.save(stored, {"w": np.zeros(10)})
    assert stored.read_bytes() == before and [p.name for p in stored.parent.iterdir()] == [stored.name]


def test_a_write_that_the_system_cuts_short_leaves_the_file_before(stored):
    before, limits = stored.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(train.CheckpointError, match="could not be written"):
            train.save(stored, {"w": np.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert stored.read_bytes() == before and len(list(stored.parent.iterdir())) == 1


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (order.append("fsync"), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    train.save(tmp_path / "x.safetensors", np.zeros(3))
    assert order == ["fsync", "replace", "fsync"]


def test_without_safetensors_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'functorch_lite\[train\]'"):
        train.save(tmp_path / "x.safetensors", np.zeros(3))


def test_the_header_is_plain_json(stored):
    data = stored.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["['a']"]["dtype"] == "F32" and Path(stored).suffix == ".safetensors"
