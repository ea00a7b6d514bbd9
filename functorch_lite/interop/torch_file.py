# SPDX-License-Identifier: MIT
"""Files that `torch.save` wrote, read without torch and without running anything that is in them.

    zip archive (since torch 1.6):  <name>/data.pkl, and the bytes of storage k in <name>/data/k
    TorchScript:                    such an archive, whose objects are those of the program
    before torch 1.6:               five pickles (magic, version, system, object, keys), then for each key
                                    its number of elements and its bytes

The pickle says what is to be called to build the object. Here only a table of a few names is known, each of which
makes an array, a dict or a tuple; any other name is an error, so a file cannot run code. Sizes, offsets and strides are
checked against the bytes that are there.

Source: torch/serialization.py and torch/_utils.py of PyTorch.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from functorch_lite.files import FilePath
from functorch_lite.interop.files import FileFormatError

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001

_REFUSED = """\
{path}: the file asks for {name}, which is none of the names that build tensors, so it is not run.
Where the file can be trusted and torch is at hand, save its tensors alone, and load that:
    torch.save(torch.load(path, weights_only=False).state_dict(), new_path)"""

STORAGES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
    "UntypedStorage": np.uint8,
}
"""The dtype of the elements of each class of storage."""

DTYPES: dict[str, Any] = {
    **{name: name for name in ("float16", "float32", "float64", "complex64", "complex128", "bool")},
    **{f"{kind}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
}
"""torch's dtypes by name."""


class _Function(tuple):
    """A function that a pickle may name: as a tuple without attributes it cannot be changed by the pickle."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        (function,) = self
        return function(*args)


def load_torch(path: FilePath) -> Any:
    """The object in the file `path` that `torch.save` wrote, with NumPy arrays for its tensors; torch is not needed.

    Dicts, lists, tuples, numbers and texts come as they are, torch's dtypes and devices as texts; so a saved
    `state_dict()` gives a dict of arrays by name. Tensors that shared memory still do. Nothing in the file is run: a
    name that builds no tensor is an error.

    Of a TorchScript program (`torch.jit.save`) it gives the tensors of its modules by their dotted names.

    Raises FileFormatError, naming the file, when it is torn, of another format, or holds other objects.

    >>> load_torch("resnet.pth")["conv1.weight"].shape                                   # doctest: +SKIP
    (64, 3, 7, 7)
    """
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        try:
            return _load_zip(path, file) if is_zip else _load_legacy(path, file)
        except FileFormatError:
            raise
        except Exception as e:  # a torn pickle can fail in any way
            raise FileFormatError(f"{path}: is no file of torch.save, or is torn: {e or type(e).__name__}.") from e


# The layouts.


def _load_zip(path: FilePath, file: Any) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise FileFormatError(f"{path}: is a zip archive, but not one of torch.save: it has no <name>/data.pkl.")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise FileFormatError(f"{path}: was written on a big-endian machine.")
        storages: dict[str, np.ndarray] = {}

        def storage(kind: Any, key: Any, _location: Any, n: Any) -> np.ndarray:
            if key not in storages:
                storages[key] = _record(path, archive, f"{folder}data/{key}", n * kind.itemsize)
            return storages[key].view(kind)

        unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])), path, storage)
        result = unpickler.load()
        return dict(_tensors_of(result, "")) if isinstance(result, unpickler.script_object) else result


def _record(path: FilePath, archive: zipfile.ZipFile, name: str, n_bytes: int) -> np.ndarray:
    found = archive.getinfo(name).file_size
    if found != n_bytes:
        raise FileFormatError(f"{path}: the storage {name} should have {n_bytes} bytes, but has {found}.")
    content = np.empty(n_bytes, np.uint8)
    opened: Any = archive.open(name)
    with opened as record:
        if record.readinto(content.data) != n_bytes or record.read(1):  # the end checks the sum of the archive
            raise FileFormatError(f"{path}: the storage {name} ends early.")
    return content


def _load_legacy(path: FilePath, file: Any) -> Any:
    size = Path(path).stat().st_size
    storages: dict[str, np.ndarray] = {}

    def storage(kind: Any, key: Any, _location: Any, n: Any, view: Any = None) -> np.ndarray:
        if key not in storages:
            if not 0 <= n * kind.itemsize <= size:
                raise FileFormatError(f"{path}: the storage {key} of {n} {kind} cannot be in {size} bytes: it is torn.")
            storages[key] = np.zeros(n, kind)
        if view is None:
            return storages[key]
        _, start, length = view
        return storages[key][start : start + length]

    def read(persistent: Any = None) -> Any:
        return _Unpickler(file, path, persistent).load()

    if read() != _MAGIC or read() != _VERSION:
        raise FileFormatError(f"{path}: is no file of torch.save: it begins with another magic number.")
    if not read().get("little_endian", True):
        raise FileFormatError(f"{path}: was written on a big-endian machine.")
    start = file.tell()
    read(storage)  # says which storages there are; their bytes come behind it
    for key in read():
        _fill(path, file, key, storages[key])
    file.seek(start)
    return read(storage)


def _fill(path: FilePath, file: Any, key: str, storage: np.ndarray) -> None:
    n = int.from_bytes(file.read(8), "little")
    if n != storage.size:
        raise FileFormatError(f"{path}: the storage {key} should have {storage.size} elements, but has {n}.")
    content = storage.view(np.uint8)
    if file.readinto(content.data) != content.size:
        raise FileFormatError(f"{path}: ends within the storage {key}: it is torn.")


def _tensors_of(node: Any, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors that a program's objects hold, by the names of the attributes that lead to them."""
    for name, value in vars(node).items():
        if isinstance(value, np.ndarray):
            yield prefix + name, value
        elif isinstance(value, type(node)):
            yield from _tensors_of(value, f"{prefix}{name}.")


# What a pickle may name.


def _tensor(
    storage: np.ndarray, offset: int, size: Any, stride: Any, _grad: Any = False, _hooks: Any = None, flags: Any = None
) -> np.ndarray:
    """What `torch._utils._rebuild_tensor_v2` makes: a window of `storage`, once it is known to lie within."""
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise ValueError(f"a tensor has offset {offset}, size {tuple(size)} and stride {tuple(stride)}")
    if 0 in size:
        return np.empty(size, storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= storage.size:
        raise ValueError(f"a tensor of size {tuple(size)} needs element {last} of a storage of {storage.size}")
    steps = [step * storage.dtype.itemsize for step in stride]
    start = offset * storage.dtype.itemsize
    window = np.ndarray(tuple(size), storage.dtype, storage.view(np.uint8).data, start, steps)
    window = window.conj() if flags and flags.get("conj") else window  # torch conjugates and negates lazily
    return -window if flags and flags.get("neg") else window


def _tensor_of_dtype(
    storage: np.ndarray, offset: int, size: Any, stride: Any, grad: Any, hooks: Any, dtype: str, flags: Any = None
) -> np.ndarray:
    return _tensor(storage.view(np.dtype(DTYPES[dtype])), offset, size, stride, grad, hooks, flags)


def _first(value: Any, *_: Any) -> Any:
    return value


def _device(*parts: Any) -> str:
    return ":".join(map(str, parts))


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _Function([tuple]),
    ("torch", "device"): _Function([_device]),
    ("torch._utils", "_rebuild_tensor"): _Function([_tensor]),
    ("torch._utils", "_rebuild_tensor_v2"): _Function([_tensor]),
    ("torch._utils", "_rebuild_tensor_v3"): _Function([_tensor_of_dtype]),
    ("torch._utils", "_rebuild_parameter"): _Function([_first]),
    ("torch._utils", "_rebuild_parameter_with_state"): _Function([_first]),
    **{
        ("torch.jit._pickle", name): _Function([_first])
        for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
    },
    ("torch.storage", "UntypedStorage"): "UntypedStorage",
    **{("torch", name): name for name in (*STORAGES, *DTYPES)},
}


def _check_memo(file: Any) -> None:
    """Refuse a pickle that numbers an object beyond how many it has: room is made for as many."""
    start = file.tell()
    for n, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= n:
            raise ValueError(f"a pickle of {n} opcodes numbers an object {argument}")
    file.seek(start)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: FilePath, storage: Callable[..., np.ndarray] | None):
        _check_memo(file)
        super().__init__(file, encoding="utf-8")
        self.path = path
        self.storage = storage
        self.script_object = type("ScriptObject", (), {})  # one for each file, as a pickle may write to a class

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__."):  # a class of the program itself: what it holds is wanted, not its code
            return self.script_object
        known = _KNOWN.get((module, name))
        if known is None:
            raise FileFormatError(_REFUSED.format(path=self.path, name=f"{module}.{name}"))
        return known

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The storage that ("storage", class, key, location, number of elements ...) stands for."""
        tag, storage, *rest = pid
        if tag != "storage" or self.storage is None:
            raise FileFormatError(f"{self.path}: refers to a {tag!r}, which is no storage.")
        return self.storage(np.dtype(STORAGES[storage]), *rest)
