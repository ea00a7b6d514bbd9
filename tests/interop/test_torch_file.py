# SPDX-License-Identifier: MIT
import os
import pickle
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from functorch_lite import interop
from functorch_lite.errors import ArgumentTypeError, DTypeError
from functorch_lite.interop.torch_file import DTYPES

DTYPE_NAMES = sorted(DTYPES)
LAYOUTS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the reference is torch")


def some(dtype, shape=(2, 3)):
    n = int(np.prod(shape))
    values = np.arange(n).reshape(shape) % 2
    return (values if dtype.kind == "b" else values + 1).astype(dtype)  # not every float has a zero


# --- without torch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DTYPE_NAMES)
def test_an_array_of_each_dtype_comes_back(tmp_path, name):
    array = some(np.dtype(DTYPES[name]))
    loaded = interop.load_torch(interop.save_torch(tmp_path / "a.pt", {"x": array}))
    assert loaded["x"].dtype == array.dtype and np.array_equal(loaded["x"], array)


def test_shapes_without_axes_and_without_elements_come_back(tmp_path):
    arrays = {"scalar": np.float32(3.0), "empty": np.zeros((0, 3)), "turned": np.arange(6.0).reshape(2, 3).T}
    loaded = interop.load_torch(interop.save_torch(tmp_path / "a.pt", arrays))
    assert list(loaded) == list(arrays)
    assert all(np.array_equal(loaded[name], array) for name, array in arrays.items())


def test_loaded_arrays_may_be_written_to(tmp_path):
    loaded = interop.load_torch(interop.save_torch(tmp_path / "a.pt", {"x": np.zeros(3)}))
    loaded["x"][0] = 1.0
    assert loaded["x"].sum() == 1.0


def test_a_dtype_that_torch_lacks_is_named(tmp_path):
    with pytest.raises(DTypeError, match="`x` has dtype .*U3"):
        interop.save_torch(tmp_path / "a.pt", {"x": np.array(["abc"])})
    with pytest.raises(ArgumentTypeError, match="should be a text, but is 3"):
        interop.save_torch(tmp_path / "a.pt", {3: np.zeros(1)})
    assert not list(tmp_path.iterdir())


class Evil:
    """Pickles as the call `function(argument)`."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


def write_zip(path, pickled, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in enumerate(storages):
            archive.writestr(f"archive/data/{key}", content)


@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, __import__, os.remove], ids=lambda f: f.__name__)
def test_a_pickle_that_calls_anything_else_is_refused_and_not_run(tmp_path, function):
    witness = tmp_path / "witness"
    witness.touch()
    command = str(witness) if function is os.remove else f"__import__('os').remove({str(witness)!r})"
    write_zip(tmp_path / "a.pt", pickle.dumps({"x": Evil(function, command)}, 2))
    with pytest.raises(interop.FileFormatError, match=f"a.pt: the file asks for .*{function.__name__}.*not run"):
        interop.load_torch(tmp_path / "a.pt")
    legacy = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, Evil(function, command), []]
    (tmp_path / "b.pt").write_bytes(b"".join(pickle.dumps(part, 2) for part in legacy))
    with pytest.raises(interop.FileFormatError, match="b.pt: the file asks for"):
        interop.load_torch(tmp_path / "b.pt")
    assert witness.exists()


@pytest.mark.parametrize("name", ["torch._utils\n_rebuild_tensor_v2", "torch\nSize", "torch\nFloatStorage"])
def test_a_pickle_cannot_change_the_functions_it_may_call(tmp_path, name):
    # BUILD with attributes to set: (None, {"__call__": ...}) and {"__call__": ...}
    for state in (b"N}X\x08\x00\x00\x00__call__K\x01s\x86", b"}X\x08\x00\x00\x00__call__K\x01s"):
        write_zip(tmp_path / "a.pt", b"\x80\x02c" + name.encode() + b"\n" + state + b"b.")
        with pytest.raises(interop.FileFormatError, match="a.pt: is no file of torch.save, or is torn"):
            interop.load_torch(tmp_path / "a.pt")
    array = np.arange(3.0, dtype=np.float32)
    assert np.array_equal(interop.load_torch(interop.save_torch(tmp_path / "b.pt", {"x": array}))["x"], array)


@pytest.mark.parametrize(
    "old, new",
    [
        (b"K\x02K\x03t", b"K\x09K\x03t"),  # a larger shape
        (b"K\x03K\x01t", b"K\x7fK\x01t"),  # a larger stride
        (b"K\x00(K\x02", b"K\x05(K\x02"),  # an offset
        (b"K\x03K\x01t", b"J\xff\xff\xff\xffK\x01t"),  # a negative stride
        (b"K\x06tQ", b"K\x07tQ"),  # a larger storage
        (b"FloatStorage", b"DoubleStorage"),  # wider elements
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, old, new):
    interop.save_torch(tmp_path / "a.pt", {"x": some(np.dtype(np.float32))})
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        pickled, content = archive.read("archive/data.pkl"), archive.read("archive/data/0")
    assert old in pickled
    write_zip(tmp_path / "b.pt", pickled.replace(old, new), [content])
    with pytest.raises(interop.FileFormatError, match="b.pt: "):
        interop.load_torch(tmp_path / "b.pt")


def test_a_pickle_that_asks_for_much_memory_is_refused(tmp_path):
    write_zip(tmp_path / "a.pt", b"\x80\x02}r" + (2**31 - 1).to_bytes(4, "little") + b".")
    with pytest.raises(interop.FileFormatError, match="a pickle of 2 opcodes numbers an object 2147483647"):
        interop.load_torch(tmp_path / "a.pt")
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    storage = b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    huge = storage + b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"NtQ."
    (tmp_path / "b.pt").write_bytes(b"".join(pickle.dumps(part, 2) for part in parts) + huge)
    with pytest.raises(interop.FileFormatError, match="the storage 0 of 1099511627776 float32 cannot be in .* bytes"):
        interop.load_torch(tmp_path / "b.pt")


def test_a_file_torn_anywhere_is_named(tmp_path):
    whole = interop.save_torch(tmp_path / "a.pt", {"x": np.arange(100.0)}).read_bytes()
    for n in range(0, len(whole), 97):
        (tmp_path / "b.pt").write_bytes(whole[:n])
        with pytest.raises(interop.FileFormatError, match="b.pt: is no file of torch.save, or is torn"):
            interop.load_torch(tmp_path / "b.pt")


def test_a_changed_byte_of_a_tensor_is_found(tmp_path):
    whole = bytearray(interop.save_torch(tmp_path / "a.pt", {"x": np.full(100, 7, np.uint8)}).read_bytes())
    whole[whole.index(b"\7" * 100) + 50] ^= 1
    (tmp_path / "b.pt").write_bytes(whole)
    with pytest.raises(interop.FileFormatError, match="b.pt: .*CRC"):
        interop.load_torch(tmp_path / "b.pt")


def test_files_of_other_formats_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(2))
    with pytest.raises(interop.FileFormatError, match="a.npz: is a zip archive, but not one of torch.save"):
        interop.load_torch(tmp_path / "a.npz")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(12))
    with pytest.raises(interop.FileFormatError, match="a.pkl: is no file of torch.save: it begins with another"):
        interop.load_torch(tmp_path / "a.pkl")
    write_zip(tmp_path / "a.pt", pickle.dumps({}, 2))
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(interop.FileFormatError, match="big-endian"):
        interop.load_torch(tmp_path / "a.pt")


# --- against torch --------------------------------------------------------------------------------------------------


def nested(torch):
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return OrderedDict(
        turned=base.T,
        part=base[1:, ::2],
        parameter=torch.nn.Parameter(torch.ones(2)),
        half=torch.ones(3, dtype=torch.bfloat16),
        small=torch.ones(3).to(torch.float8_e4m3fn),
        unsigned=torch.ones(3).to(torch.uint16),
        conjugate=torch.tensor([1 + 2j]).conj(),
        scalar=torch.tensor(3),
        empty=torch.zeros(0, 3),
        inner={"list": [1, 2.5, None, True, "ä"], "size": torch.Size([1, 2]), "dtype": torch.float32},
        device=torch.device("cpu"),
    )


@LAYOUTS
def test_what_torch_saved_is_what_is_loaded(tmp_path, torch, zipped):
    saved = nested(torch)
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    loaded = interop.load_torch(tmp_path / "a.pt")
    assert list(loaded) == list(saved)
    for name in ("turned", "part", "scalar", "empty", "unsigned"):
        assert np.array_equal(loaded[name], saved[name].numpy()) and loaded[name].dtype == saved[name].numpy().dtype
    assert np.array_equal(loaded["parameter"], [1, 1])
    assert loaded["half"].dtype == ml_dtypes.bfloat16 and loaded["small"].dtype == ml_dtypes.float8_e4m3fn
    assert np.array_equal(loaded["conjugate"], [1 - 2j])
    assert loaded["inner"] == {"list": [1, 2.5, None, True, "ä"], "size": (1, 2), "dtype": "float32"}
    assert loaded["device"] == "cpu"


@LAYOUTS
def test_tensors_that_shared_memory_still_do(tmp_path, torch, zipped):
    torch.save(nested(torch), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    loaded = interop.load_torch(tmp_path / "a.pt")
    loaded["turned"][0, 1] = 70.0
    assert loaded["part"][0, 0] == 70.0


def test_torch_loads_what_was_saved(tmp_path, torch):
    arrays = {name: some(np.dtype(DTYPES[name])) for name in DTYPE_NAMES}
    loaded = torch.load(interop.save_torch(tmp_path / "a.pt", arrays), weights_only=True)
    assert list(loaded) == DTYPE_NAMES
    for name, tensor in loaded.items():
        assert str(tensor.dtype) == f"torch.{name}" and tensor.shape == (2, 3)
        assert np.array_equal(interop.from_torch(tensor), arrays[name])


def test_a_module_saved_whole_is_refused_with_advice(tmp_path, torch):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    with pytest.raises(interop.FileFormatError, match=r"asks for torch.nn.modules.linear.Linear(.|\n)*state_dict\(\)"):
        interop.load_torch(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_gives_its_tensors_by_name(tmp_path, torch):
    module = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 1), torch.nn.ReLU(), torch.nn.BatchNorm1d(3)).eval()
    torch.jit.save(torch.jit.trace(module, torch.ones(1, 2, 4)), str(tmp_path / "a.pt"))
    loaded = interop.load_torch(tmp_path / "a.pt")
    state = module.state_dict()
    assert set(state) <= set(loaded)
    assert all(np.array_equal(loaded[name], tensor.numpy()) for name, tensor in state.items())
