# SPDX-License-Identifier: MIT
"""Pytrees as safetensors files: written whole or not at all, and checked when they are read.

    save("model.safetensors", model)
    model = restore("model.safetensors", like=model)

Each leaf is a tensor under its path (`.conv1.weight`), so any reader of safetensors can open the file. Beside the
tensors the file keeps Python scalars, dtypes that the format does not know, which leaves are one array, and a CRC-32 of
each part. Needs the safetensors package.

Source: the format, https://github.com/huggingface/safetensors (README, "Format").
"""

import itertools
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from functorch_lite import tree
from functorch_lite.backends.registry import on_device
from functorch_lite.errors import ArgumentTypeError, FunctorchLiteError
from functorch_lite.packages import need
from functorch_lite.train.matching import filled, some

FORMAT = 1
_KEY = "functorch_lite"
_PYTHON = {"bool": bool, "int": int, "float": float, "complex": complex, "str": str}
_NATIVE = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_MAGIC = {
    b"PK\x03\x04": "a zip archive, as torch.save and numpy.savez write it",
    b"\x93NUMPY": "a .npy file",
    b"\x80": "a pickle",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
}
_numbers = itertools.count()


class CheckpointError(FunctorchLiteError, OSError):
    """A checkpoint cannot be written, or a file is torn, damaged, or none of ours."""


class Snapshot(NamedTuple):
    """A tree on the host, at one moment. tensors: by name; scalars: Python's, as (type, text); same: name of a leaf ->
    name of the leaf that is the same array."""

    tensors: dict[str, np.ndarray]
    scalars: dict[str, tuple[str, str]]
    same: dict[str, str]


class _Spec(NamedTuple):
    """What the format's header says of a tensor."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Contents(NamedTuple):
    """What a file holds. values: arrays and Python scalars by name."""

    path: Path
    values: dict[str, Any]
    metadata: dict[str, Any]

    def tree(self, like: Any, prefix: str = "", *, strict: bool = True) -> Any:
        """The tree under the names that begin with `prefix`, in the form of `like`; see `restore`."""
        own = {name: v for name, v in self.values.items() if name.startswith(prefix)} if prefix else self.values
        return filled(self.path, own, like, prefix, strict)


def save(path: str | os.PathLike[str], values: Any, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a pytree of arrays and Python scalars (bool, int, float, complex, str) to `path`; returns the path.

    The file is complete on the disk before it takes its name, so a crash leaves the old file or the new one. Any dtype
    but object is kept, as are 0-d and empty arrays, and leaves that are one and the same array. metadata: a dict that
    JSON can hold. Folders are made.

    Raises CheckpointError when the file cannot be written, ArgumentTypeError for another kind of leaf or metadata,
    MissingPackageError without safetensors.

    >>> import tempfile
    >>> path = save(tempfile.mkdtemp() + "/w.safetensors", {"w": np.ones(2), "steps": 3}, {"note": "first"})
    >>> restore(path, {"w": np.zeros(2), "steps": 0})
    {'w': array([1., 1.]), 'steps': 3}
    >>> read_metadata(path)
    {'note': 'first'}
    """
    return write(path, snapshot(values, copy=False), metadata)


def restore(path: str | os.PathLike[str], like: Any, *, strict: bool = True) -> Any:
    """The pytree in the file, in the form of `like`, a tree of arrays (or `fl.ShapeDtype`s) and Python scalars.

    Leaves that are CuPy arrays in `like` are put on their device. strict: whether every path must be in the file and
    every one in the file be used; else leaves that the file lacks are those of `like`, and a CheckpointWarning lists
    what differs.

    Raises TreeError, ShapeError or DTypeError that name path, expected and found; CheckpointError when the file is
    torn, damaged, or was not written by `save`.
    """
    return read(path).tree(like, strict=strict)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save` was given as `metadata`."""
    return read(path).metadata


# --- taking a tree apart ----------------------------------------------------------------------------------------------


def snapshot(values: Any, prefix: str = "", *, copy: bool = True) -> Snapshot:
    """The leaves of a tree on the host, named by `prefix` and their paths; copies, so that later writes do not show."""
    found = Snapshot({}, {}, {})
    seen: dict[int, str] = {}
    for path, leaf in zip(tree.paths(values), tree.leaves(values), strict=True):
        name = prefix + path
        if type(leaf).__name__ in _PYTHON and type(leaf) is _PYTHON[type(leaf).__name__]:
            found.scalars[name] = (type(leaf).__name__, leaf if type(leaf) is str else repr(leaf))
        elif id(leaf) in seen:
            found.same[name] = seen[id(leaf)]
        else:
            found.tensors[name] = _on_host(name, leaf, copy)
            seen[id(leaf)] = name
    return found


def _on_host(name: str, leaf: Any, copy: bool) -> np.ndarray:
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape") or np.dtype(leaf.dtype).hasobject:
        raise ArgumentTypeError(
            f"save: the leaf `{name}` is {type(leaf).__name__}; a checkpoint holds arrays and Python scalars."
        )
    array = leaf.get() if on_device(leaf) else leaf
    array = np.array(array, copy=True if copy else None, order="C")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


# --- writing ----------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], taken: Snapshot, metadata: Mapping[str, Any] | None = None) -> Path:
    """Write a snapshot; see `save`."""
    target = Path(path)
    own = json.dumps({
        "format": FORMAT,
        "tensors": {n: [_dtype_name(a.dtype), a.shape, zlib.crc32(_bytes(a))] for n, a in taken.tensors.items()},
        "scalars": taken.scalars,
        "same": taken.same,
        "metadata": _checked_metadata(metadata),
    })
    texts = {_KEY: own, _KEY + ".crc32": str(zlib.crc32(own.encode()))}
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}-{next(_numbers)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _serialize(temporary, taken.tensors, texts)
        _to_disk(temporary)
        os.replace(temporary, target)
        _to_disk(target.parent)
    except OSError as e:
        raise CheckpointError(f"{target} could not be written: {e}. What was saved before is untouched.") from e
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(metadata or {})))
    except (TypeError, ValueError) as e:
        raise ArgumentTypeError(f"save: `metadata` should be a dict that JSON can hold: {e}.") from e


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _serialize(path: Path, tensors: Mapping[str, np.ndarray], texts: dict[str, str]) -> None:
    package = _package()
    stored = {name: array if array.dtype.name in _NATIVE else _as_bytes(array) for name, array in tensors.items()}
    specs = {
        name: package.TensorSpec(
            dtype=array.dtype.name, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
        )
        for name, array in stored.items()
    }
    try:
        package.serialize_file(specs, str(path), metadata=texts)
    except package.SafetensorError as e:
        raise OSError(str(e)) from e


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """Bytes on a last axis of their own, for dtypes that the format does not know."""
    return array.reshape(-1).view(np.uint8).reshape(*array.shape, array.dtype.itemsize)


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _package() -> Any:
    return need("safetensors", by="a checkpoint", install="'functorch_lite[train]'")


# --- reading ----------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Contents:
    """What a file written by `save` holds, once every checksum is right. Raises CheckpointError; see `restore`."""
    source = Path(path)
    try:
        with source.open("rb") as file:
            return _read(source, file)
    except CheckpointError:
        raise
    except OSError as e:
        raise CheckpointError(f"{source} cannot be read: {e.strerror}.") from e


def _read(path: Path, file: BinaryIO) -> Contents:
    header, first = _header(path, file)
    own = _own(path, header)
    values: dict[str, Any] = {}
    for name, (dtype, shape, crc) in own["tensors"].items():
        values[name] = array = np.empty(shape, _dtype(dtype))
        stored = [_NATIVE[dtype], shape] if dtype in _NATIVE else ["U8", [*shape, array.dtype.itemsize]]
        spec = header.get(name, {"data_offsets": [0, -1], "dtype": "", "shape": []})
        begin, end = spec["data_offsets"]
        if [spec["dtype"], spec["shape"]] != stored or end - begin != array.nbytes:
            raise CheckpointError(f"{path} is damaged: its header has lost the tensor `{name}`.")
        if array.size:
            file.seek(first + begin)
            file.readinto(_bytes(array))  # type: ignore[attr-defined]
        if zlib.crc32(_bytes(array)) != crc:
            raise CheckpointError(f"{path} is damaged: the checksum of `{name}` is wrong.")
    for name, (kind, text) in own["scalars"].items():
        values[name] = _scalar(kind, text)
    for name, same in own["same"].items():
        values[name] = values[same]
    return Contents(path, values, own["metadata"])


def _header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file whose length is right, and where its tensors begin."""
    size = os.fstat(file.fileno()).st_size
    begin = file.read(16)
    for magic, kind in _MAGIC.items():
        if begin.startswith(magic) and not begin[8:9] == b"{":
            raise CheckpointError(f"{path} is not a safetensors file but {kind}.")
    length = int.from_bytes(begin[:8], "little")
    if size < 8 or not any(begin):
        raise CheckpointError(f"{path} is torn: it has {size} bytes" + (", which begin with zeros." if size else "."))
    if begin[8:9] not in (b"{", b""):
        raise CheckpointError(f"{path} is not a safetensors file: it begins with {begin[:12]!r}.")
    if size < 8 + length:
        raise CheckpointError(f"{path} is torn: its header has {length} bytes, and the file only {size}.")
    file.seek(8)
    try:
        header = json.loads(file.read(length))
        parts = [_Spec(**spec) for name, spec in header.items() if name != "__metadata__"]
        ends = [spec.data_offsets[1] for spec in parts]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, IndexError) as e:
        raise CheckpointError(f"{path} is damaged: its header cannot be read ({e}).") from e
    if size != expected:
        raise CheckpointError(f"{path} is torn: it should have {expected} bytes, and has {size}.")
    return header, 8 + length


def _own(path: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """What `write` put beside the tensors."""
    texts = header.get("__metadata__", {})
    if _KEY not in texts:
        names = [name for name in header if name != "__metadata__"]
        raise CheckpointError(
            f"{path} is a safetensors file that functorch_lite.train did not write; it holds {some(names)}."
        )
    if str(zlib.crc32(texts[_KEY].encode())) != texts.get(_KEY + ".crc32"):
        raise CheckpointError(f"{path} is damaged: the checksum of its header is wrong.")
    own = json.loads(texts[_KEY])
    if own["format"] > FORMAT:
        raise CheckpointError(f"{path} has format {own['format']}; this version of functorch_lite reads {FORMAT}.")
    return own


def _dtype_name(dtype: np.dtype) -> str:
    return dtype.name if dtype.name in _NATIVE or hasattr(ml_dtypes, dtype.name) else dtype.str


def _dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def _scalar(kind: str, text: str) -> Any:
    return text == "True" if kind == "bool" else _PYTHON[kind](text)
