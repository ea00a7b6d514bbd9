# SPDX-License-Identifier: MIT
"""Arrays by name written as a file that `torch.load` reads, without torch.

The pickle in the archive is put together from its opcodes here, because the functions that it names (those of
`torch_file`) need not exist where it is written.

Source: torch/serialization.py of PyTorch; the opcodes are described in pickletools.
"""

import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from functorch_lite.errors import ArgumentTypeError, DTypeError
from functorch_lite.files import FilePath, whole_file
from functorch_lite.interop.files import on_host
from functorch_lite.interop.torch_file import DTYPES, STORAGES

_ORDERED_DICT = b"ccollections\nOrderedDict\n"
_CLASSES = {np.dtype(dtype): name for name, dtype in reversed(STORAGES.items()) if name != "UntypedStorage"}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


def save_torch(path: FilePath, tensors: Mapping[str, Any]) -> Path:
    """Write the arrays `tensors` by name to `path`, whole or not at all, for `torch.load`; the path.

    tensors: NumPy or CuPy arrays of a dtype that torch has; `nn.state_dict(model)` gives those of a model.

    Raises DTypeError for another dtype, ArgumentTypeError for a name that is no text.

    >>> save_torch("out/model.pt", {"weight": np.ones((2, 3), np.float32)})             # doctest: +SKIP
    >>> torch.load("out/model.pt")["weight"].shape                                      # doctest: +SKIP
    torch.Size([2, 3])
    """
    names = [name for name in tensors if not isinstance(name, str)]
    if names:
        raise ArgumentTypeError(f"save_torch: a name should be a text, but is {names[0]!r}.")
    arrays = {name: _contiguous(name, on_host(value)) for name, value in tensors.items()}
    entries = [_text(name) + _tensor(str(i), array) for i, (name, array) in enumerate(arrays.items())]
    pickled = b"\x80\x02" + _ORDERED_DICT + b")R" + b"(" + b"".join(entries) + b"u."
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", sys.byteorder)
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", array.reshape(-1).view(np.uint8).data)
        archive.writestr("archive/version", "3\n")
    return Path(path)


def _contiguous(name: str, array: np.ndarray) -> np.ndarray:
    array = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    if array.dtype not in _NAMES:
        raise DTypeError(f"save_torch: `{name}` has dtype {array.dtype}, which torch does not have.")
    return array


def _tensor(key: str, array: np.ndarray) -> bytes:
    """The call of `_rebuild_tensor_v2`, or for dtypes without a class of storage `_rebuild_tensor_v3`."""
    kind = _CLASSES.get(array.dtype)
    storage = f"ctorch\n{kind}\n" if kind else "ctorch.storage\nUntypedStorage\n"
    n = array.size if kind else array.nbytes
    stored = _tuple(_text("storage"), storage.encode(), _text(key), _text("cpu"), _int(n)) + b"Q"
    shape = _tuple(*map(_int, array.shape))
    strides = _tuple(*(_int(step // array.dtype.itemsize) for step in array.strides))
    dtype = [] if kind else [f"ctorch\n{_NAMES[array.dtype]}\n".encode()]
    arguments = _tuple(stored, _int(0), shape, strides, b"\x89", _ORDERED_DICT + b")R", *dtype)
    return f"ctorch._utils\n_rebuild_tensor_v{2 if kind else 3}\n".encode() + arguments + b"R"


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def _int(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]  # without the opcodes of beginning and end


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"
