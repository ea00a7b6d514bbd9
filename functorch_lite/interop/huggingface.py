# SPDX-License-Identifier: MIT
"""A model's folder as Hugging Face lays it out: config.json and the tensors, in one file or in several with an index.

    config.json
    model.safetensors                       one file, or
    model.safetensors.index.json            {"weight_map": {name: file}}, with model-00001-of-00003.safetensors ...
    pytorch_model.bin[.index.json]          the same, as torch.save wrote it

Source: the format as transformers reads and writes it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.errors import ArgumentError
from functorch_lite.files import FilePath, whole_file
from functorch_lite.interop.files import FileFormatError, on_host
from functorch_lite.interop.safetensors import load_safetensors, save_safetensors
from functorch_lite.interop.torch_file import load_torch

_READERS: dict[str, Callable[[FilePath], Any]] = {
    "model.safetensors": load_safetensors,
    "pytorch_model.bin": load_torch,
}


class Checkpoint(NamedTuple):
    """A model as a folder holds it: config is what config.json says, tensors are its arrays by name."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]


def load_huggingface(folder: FilePath) -> Checkpoint:
    """The configuration and the tensors, `Checkpoint(config, tensors)`, in the local folder `folder`.

    Safetensors come before torch's files, one file before several; arrays of safetensors are mapped, not read.

    Raises ArgumentError when the folder lacks config.json or tensors, FileFormatError for files that do not fit.
    """
    folder = Path(folder)
    config = _json(folder / "config.json")
    for name, read in _READERS.items():
        if (folder / name).is_file():
            return Checkpoint(config, dict(read(folder / name)))
        if (folder / f"{name}.index.json").is_file():
            return Checkpoint(config, _load_shards(folder, f"{name}.index.json", read))
    raise ArgumentError(f"{folder}: has none of {', '.join(_READERS)}, nor an index of parts of them.")


def save_huggingface(
    folder: FilePath, config: Mapping[str, Any], tensors: Mapping[str, Any], *, max_part_bytes: int = 5 * 10**9
) -> Path:
    """Write config.json and model.safetensors, in parts of at most `max_part_bytes`, into `folder`; the path.

    The index is written after its parts, so a folder never has an index of parts that are not there.
    """
    folder = Path(folder)
    arrays = {name: on_host(value) for name, value in tensors.items()}
    parts = _parts(arrays, max_part_bytes)
    names = [f"model-{i:05}-of-{len(parts):05}.safetensors" for i in range(1, len(parts) + 1)]
    names = ["model.safetensors"] if len(parts) == 1 else names
    for name, part in zip(names, parts, strict=True):
        save_safetensors(folder / name, {key: arrays[key] for key in part}, {"format": "pt"})
    if len(parts) > 1:
        weight_map = {key: name for name, part in zip(names, parts, strict=True) for key in part}
        total = sum(array.nbytes for array in arrays.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)
    _write_json(folder / "config.json", config)
    return folder


def _parts(arrays: Mapping[str, np.ndarray], limit: int) -> list[list[str]]:
    """The names in order, in groups of at most `limit` bytes or of one array."""
    parts: list[list[str]] = [[]]
    filled = 0
    for name, array in arrays.items():
        if parts[-1] and filled + array.nbytes > limit:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += array.nbytes
    return parts


def _load_shards(folder: Path, index: str, read: Callable[[FilePath], Any]) -> dict[str, np.ndarray]:
    weight_map = _json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise FileFormatError(f"{folder / index}: has no `weight_map` of tensors to files.")
    shards = {name: read(_inside(folder, index, name)) for name in _unique(weight_map.values())}
    for key, name in weight_map.items():
        if key not in shards[name]:
            raise FileFormatError(f"{folder / name}: should hold `{key}`, says {index}, but does not.")
    return {key: shards[name][key] for key, name in weight_map.items()}


def _inside(folder: Path, index: str, name: str) -> Path:
    path = folder / name
    if Path(name).name != name:
        raise FileFormatError(f"{folder / index}: names {name!r}, which is not a file of the folder.")
    if not path.is_file():
        raise FileFormatError(f"{path}: is named by {index}, but is not there.")
    return path


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _json(path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as e:
        raise ArgumentError(f"{path}: there is no such file, so {path.parent} is no folder of a model.") from e
    except ValueError as e:
        raise FileFormatError(f"{path}: is no JSON: {e}.") from e
    if not isinstance(parsed, dict):
        raise FileFormatError(f"{path}: should hold a JSON object, but holds {type(parsed).__name__}.")
    return parsed


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=2).encode() + b"\n")
