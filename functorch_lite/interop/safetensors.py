# SPDX-License-Identifier: MIT
"""The safetensors format, read and written without a further package: named arrays and nothing that can run.

    8 bytes: n, little endian | n bytes: JSON {name: {dtype, shape, data_offsets: [begin, end]}} | the arrays' bytes

The arrays lie one behind the other without gaps, each row-major and little endian. A file is read lazily: its arrays
are windows of the mapped file, which the system fetches when they are first touched.

Source: the format's description, https://github.com/huggingface/safetensors.
"""

import json
import mmap as memory
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from functorch_lite.errors import ArgumentError, DTypeError
from functorch_lite.files import FilePath, whole_file
from functorch_lite.interop.files import FileFormatError, on_host

_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_METADATA = "__metadata__"
_HEADER_LIMIT = 100_000_000  # bytes; that of the format


class _Header(NamedTuple):
    """What a file holds: per name (dtype, shape, begin, end), the metadata, and where its data begins."""

    entries: dict[str, tuple[np.dtype, tuple[int, ...], int, int]]
    metadata: dict[str, str]
    start: int


def save_safetensors(path: FilePath, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Path:
    """Write the arrays `tensors` and the texts `metadata` to `path`, whole or not at all; the path.

    tensors: NumPy or CuPy arrays or scalars by name, of any dtype of the format: bool, integers, float16 to float64,
    complex64, bfloat16 and 8-bit floats. Larger elements come first in the file, so that all lie aligned.

    Raises DTypeError for another dtype, ArgumentError for names or metadata that are no text.

    >>> save_safetensors("out/model.safetensors", {"weight": np.ones((2, 3))}, {"format": "np"})    # doctest: +SKIP
    """
    _check_texts(tensors, metadata or {})
    arrays = {name: _little_endian(name, on_host(value)) for name, value in tensors.items()}
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the data begins aligned
    with whole_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return Path(path)


def _check_texts(tensors: Mapping[Any, Any], metadata: Mapping[Any, Any]) -> None:
    wrong = [name for name in tensors if not isinstance(name, str) or name == _METADATA]
    if wrong:
        raise ArgumentError(f"save_safetensors: a name should be a text other than {_METADATA!r}, but is {wrong[0]!r}.")
    pairs = [item for item in metadata.items() if not all(isinstance(part, str) for part in item)]
    if pairs:
        raise ArgumentError(f"save_safetensors: `metadata` should hold texts by text, but has {pairs[0]!r}.")


def _little_endian(name: str, array: np.ndarray) -> np.ndarray:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype not in _NAMES:
        raise DTypeError(f"save_safetensors: `{name}` has dtype {array.dtype}, which the format does not have.")
    return native.byteswap() if sys.byteorder == "big" else native


def load_safetensors(path: FilePath, names: Iterable[str] | None = None, *, mmap: bool = True) -> dict[str, np.ndarray]:
    """The arrays of the file `path` by name, in its order; with `names` those alone.

    mmap: the arrays are windows of the file, mapped privately: nothing is read before it is touched, and writing to
    them changes the array and not the file. With mmap=False all is read at once and the file is left alone.

    Raises FileFormatError, naming the file, when it is torn or of another format; ArgumentError for a name it lacks.

    >>> load_safetensors("out/model.safetensors")["weight"].shape                       # doctest: +SKIP
    (2, 3)
    """
    with open(path, "rb") as file:
        header = _read_header(path, file)
        wanted = list(header.entries) if names is None else list(names)
        missing = [name for name in wanted if name not in header.entries]
        if missing:
            raise ArgumentError(f"{path}: has no tensor {missing[0]!r}; it has {_some(header.entries)}.")
        if mmap:
            data: Any = memory.mmap(file.fileno(), 0, access=memory.ACCESS_COPY)
            return {name: _window(data, header, name) for name in wanted}
        return {name: _read(file, header, name) for name in wanted}


def safetensors_metadata(path: FilePath) -> dict[str, str]:
    """The texts that were saved beside the arrays of the file `path`; only its header is read."""
    with open(path, "rb") as file:
        return _read_header(path, file).metadata


def _window(data: memory.mmap, header: _Header, name: str) -> np.ndarray:
    dtype, shape, begin, _ = header.entries[name]
    if 0 in shape:
        return np.empty(shape, dtype)
    array = np.ndarray(shape, dtype.newbyteorder("<"), data, header.start + begin)
    return _native(array if array.flags.aligned else array.copy(), dtype)


def _read(file: Any, header: _Header, name: str) -> np.ndarray:
    dtype, shape, begin, _ = header.entries[name]
    array = np.empty(shape, dtype.newbyteorder("<"))
    file.seek(header.start + begin)
    file.readinto(array.reshape(-1).view(np.uint8).data)
    return _native(array, dtype)


def _native(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array.astype(dtype) if sys.byteorder == "big" else array


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (f", ... ({len(names)} in all)" if len(names) > 6 else "")


# The header, which is trusted in nothing.


def _read_header(path: FilePath, file: Any) -> _Header:
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= min(_HEADER_LIMIT, size - 8):
        raise FileFormatError(f"{path}: is no safetensors file, or is torn: its {size} bytes hold no whole header.")
    try:
        parsed = json.loads(file.read(length).decode())
        metadata = {str(key): str(value) for key, value in dict(parsed.pop(_METADATA, {})).items()}
        entries = {name: _entry(path, name, entry) for name, entry in parsed.items()}
    except (ValueError, TypeError, AttributeError) as e:
        raise e if isinstance(e, FileFormatError) else FileFormatError(f"{path}: is no safetensors file: {e}.") from e
    _check_layout(path, entries, size - 8 - length)
    return _Header(entries, metadata, 8 + length)


def _entry(path: FilePath, name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    try:
        kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as e:
        raise FileFormatError(f"{path}: the header says of `{name}` {entry!r}, which describes no tensor.") from e
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise FileFormatError(f"{path}: `{name}` has the shape {list(shape)} and offsets {[begin, end]}.")
    if kind not in _DTYPES:
        raise FileFormatError(f"{path}: `{name}` has dtype {kind!r}; known are {', '.join(_DTYPES)}.")
    return np.dtype(_DTYPES[kind]), shape, begin, end


def _check_layout(path: FilePath, entries: Mapping[str, tuple[np.dtype, tuple[int, ...], int, int]], n: int) -> None:
    """Each tensor has the bytes that its shape needs, and together they are the `n` bytes behind the header."""
    position = 0
    for name, (dtype, shape, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        needed = dtype.itemsize
        for size in shape:
            needed *= size
        if begin != position or end - begin != needed:
            raise FileFormatError(
                f"{path}: `{name}` {dtype}{list(shape)} should lie at {position} to {position + needed}, "
                f"but the header has {begin} to {end}."
            )
        position = end
    if position != n:
        torn = "it is torn" if n < position else "something is appended"
        raise FileFormatError(f"{path}: should hold {position} bytes of data, but holds {n}: {torn}.")
