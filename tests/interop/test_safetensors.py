# SPDX-License-Identifier: MIT
import json

import ml_dtypes
import numpy as np
import pytest

from functorch_lite import interop
from functorch_lite.errors import ArgumentError, DTypeError
from functorch_lite.interop.safetensors import _DTYPES

MMAP = pytest.mark.parametrize("mmap", [True, False], ids=["mapped", "read"])
PEER_DTYPES = [
    *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "complex64", "bool", "bfloat16"),
]


def ones(dtype):
    return np.ones((2, 3), dtype)


@MMAP
@pytest.mark.parametrize("name", _DTYPES)
def test_an_array_of_each_dtype_comes_back(tmp_path, name, mmap):
    array = np.arange(1, 7).reshape(2, 3).astype(_DTYPES[name])
    loaded = interop.load_safetensors(interop.save_safetensors(tmp_path / "a", {"x": array}), mmap=mmap)["x"]
    assert loaded.dtype == array.dtype and loaded.flags.aligned
    assert np.array_equal(loaded, array) and type(loaded) is np.ndarray


@MMAP
def test_scalars_empty_arrays_and_views_come_back(tmp_path, mmap):
    arrays = {
        "scalar": np.float32(3.0),
        "empty": np.zeros((0, 3)),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "stepped": np.arange(10)[::-3],
        "swapped": np.arange(3, dtype=">f4"),
        "ä.1": np.array([True]),
    }
    loaded = interop.load_safetensors(interop.save_safetensors(tmp_path / "a", arrays), mmap=mmap)
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        assert np.array_equal(loaded[name], array) and loaded[name].shape == array.shape


def test_no_arrays_at_all_come_back(tmp_path):
    assert interop.load_safetensors(interop.save_safetensors(tmp_path / "a", {}, {"step": "3"})) == {}
    assert interop.safetensors_metadata(tmp_path / "a") == {"step": "3"}


def test_names_choose_what_is_read(tmp_path):
    path = interop.save_safetensors(tmp_path / "a", {"x": ones("f4"), "y": ones("i4")})
    assert list(interop.load_safetensors(path, ["y"])) == ["y"]
    with pytest.raises(ArgumentError, match="has no tensor 'z'; it has x, y"):
        interop.load_safetensors(path, ["z"])


@MMAP
def test_writing_to_a_loaded_array_leaves_the_file_alone(tmp_path, mmap):
    path = interop.save_safetensors(tmp_path / "a", {"x": ones("f4")})
    before = path.read_bytes()
    loaded = interop.load_safetensors(path, mmap=mmap)["x"]
    loaded[:] = 7.0
    assert loaded.sum() == 42.0
    assert path.read_bytes() == before


def test_a_mapped_file_may_be_replaced_while_its_arrays_are_in_use(tmp_path):
    path = interop.save_safetensors(tmp_path / "a", {"x": ones("f4")})
    loaded = interop.load_safetensors(path)["x"]
    interop.save_safetensors(path, {"x": 2 * ones("f4")})
    assert loaded.sum() == 6.0 and interop.load_safetensors(path)["x"].sum() == 12.0


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = interop.save_safetensors(tmp_path / "a", {"x": ones("f4")})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        interop.save_safetensors(path, {"x": ones("f8")})
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert interop.load_safetensors(path)["x"].dtype == np.float32


def test_what_the_format_does_not_have_is_named(tmp_path):
    with pytest.raises(DTypeError, match="`x` has dtype complex128"):
        interop.save_safetensors(tmp_path / "a", {"x": ones("c16")})
    with pytest.raises(ArgumentError, match="other than '__metadata__'"):
        interop.save_safetensors(tmp_path / "a", {"__metadata__": ones("f4")})
    with pytest.raises(ArgumentError, match="`metadata` should hold texts by text"):
        interop.save_safetensors(tmp_path / "a", {}, {"step": 3})
    assert not list(tmp_path.iterdir())


# --- files that are not right ---------------------------------------------------------------------------------------


def written(tmp_path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "b").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return tmp_path / "b"


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_file_torn_anywhere_is_named(tmp_path):
    whole = interop.save_safetensors(tmp_path / "a", {"x": ones("f4"), "y": ones("i8")}, {"k": "v"}).read_bytes()
    for n in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:n])
        with pytest.raises(interop.FileFormatError, match="/b: "):
            interop.load_safetensors(tmp_path / "b")
    (tmp_path / "b").write_bytes(whole + b"\0")
    with pytest.raises(interop.FileFormatError, match="something is appended"):
        interop.load_safetensors(tmp_path / "b")


@pytest.mark.parametrize(
    "header, data, message",
    [
        (b"PK", b"", "is no safetensors file"),
        (b"[1]", b"", "is no safetensors file"),
        (b"{\xff}", b"", "is no safetensors file"),
        ({"__metadata__": 3}, b"", "is no safetensors file"),
        ({"x": entry("F33")}, bytes(8), "`x` has dtype 'F33'; known are BOOL"),
        ({"x": 3}, bytes(8), "the header says of `x` 3, which describes no tensor"),
        ({"x": entry(shape=(-2,))}, bytes(8), r"`x` has the shape \[-2\]"),
        ({"x": entry(shape=(2.0,))}, bytes(8), r"`x` has the shape \[2.0\]"),
        ({"x": entry(shape=(3,))}, bytes(8), r"`x` float32\[3\] should lie at 0 to 12, but the header has 0 to 8"),
        ({"x": entry(offsets=(4, 12))}, bytes(12), "should lie at 0 to 8, but the header has 4 to 12"),
        ({"x": entry(), "y": entry()}, bytes(8), "`y` .* should lie at 8 to 16, but the header has 0 to 8"),
        ({"x": entry()}, bytes(7), "should hold 8 bytes of data, but holds 7: it is torn"),
        ({"x": entry(shape=(2**40,), offsets=(0, 2**42))}, bytes(8), "should hold 4398046511104 bytes of data"),
    ],
)
def test_a_header_that_is_not_right_is_refused_with_its_reason(tmp_path, header, data, message):
    with pytest.raises(interop.FileFormatError, match=message):
        interop.load_safetensors(written(tmp_path, header, data))


def test_a_header_longer_than_the_file_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "b").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(interop.FileFormatError, match="10 bytes hold no whole header"):
        interop.load_safetensors(tmp_path / "b")


def test_tensors_that_lie_unaligned_are_loaded(tmp_path):
    data = b"\1" + np.arange(2, dtype="<f4").tobytes()
    header = {"b": entry("U8", (1,), (0, 1)), "x": entry(offsets=(1, 9))}
    loaded = interop.load_safetensors(written(tmp_path, header, data))
    assert loaded["x"].flags.aligned and np.array_equal(loaded["x"], [0, 1])


# --- against the package that defined the format --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", PEER_DTYPES)
def test_the_package_reads_what_was_written_and_the_other_way_round(tmp_path, dtype):
    peer = pytest.importorskip("safetensors.numpy", reason="the reference is the package safetensors")
    array = ones(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    path = interop.save_safetensors(tmp_path / "a", {"x": array, "b": ones("u1")}, {"k": "v"})
    if dtype == "bfloat16":  # NumPy's side of the package has no bfloat16; its bytes are the same
        raw = dict(peer.deserialize(path.read_bytes()))["x"]
        assert raw["dtype"] == "BF16" and bytes(raw["data"]) == array.tobytes()
        return
    loaded = peer.load_file(path)
    assert loaded["x"].dtype == array.dtype and np.array_equal(loaded["x"], array)
    peer.save_file({"x": array, "b": ones("u1")}, tmp_path / "c", {"k": "v"})
    assert np.array_equal(interop.load_safetensors(tmp_path / "c")["x"], array)
    assert interop.safetensors_metadata(tmp_path / "c") == {"k": "v"}
