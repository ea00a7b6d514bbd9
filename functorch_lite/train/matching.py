# SPDX-License-Identifier: MIT
"""Values by name, as a file holds them, put together to a tree like a given one; what does not fit is told by path."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.backends.registry import home_of, on_device
from functorch_lite.errors import DTypeError, ShapeError, TreeError
from functorch_lite.transforms import ShapeDtype

_MOST_LISTED = 5


class CheckpointWarning(UserWarning):
    """A checkpoint was passed over because it is torn, damaged or none of ours, or only a part of one was taken."""


def filled(path: Path, values: dict[str, Any], like: Any, prefix: str, strict: bool) -> Any:
    """The tree that `values` hold under `prefix` and the paths of `like`; `path` is the file they come from."""
    leaves, treedef = tree.flatten(like, _is_type)
    names = [prefix + p for p in tree.paths(like, _is_type)]
    _check_names(path, names, list(values), strict)
    _check_types(path, {n: (leaf, values[n]) for n, leaf in zip(names, leaves, strict=True) if n in values})
    found = [_placed(values[n], leaf) if n in values else leaf for n, leaf in zip(names, leaves, strict=True)]
    return tree.unflatten(treedef, found)


def _is_type(value: Any) -> bool:
    return isinstance(value, ShapeDtype)


def _check_names(path: Path, expected: list[str], found: list[str], strict: bool) -> None:
    have, want = set(found), set(expected)
    missing = [name for name in expected if name not in have]
    extra = [name for name in found if name not in want]
    if not missing and not extra:
        return
    parts = [f"expected and not found: {some(missing)}"] if missing else []
    parts += [f"found and not expected: {some(extra)}"] if extra else []
    if strict:
        raise TreeError(f"{path} holds another tree than it should: {'; '.join(parts)}. strict=False takes what fits.")
    warnings.warn(f"{path} was taken in part: {'; '.join(parts)}.", CheckpointWarning, stacklevel=5)


def _check_types(path: Path, pairs: Mapping[str, tuple[Any, Any]]) -> None:
    wrong = [(name, _type_text(a), _type_text(b)) for name, (a, b) in pairs.items() if not _fits(a, b)]
    if not wrong:
        return
    lines = [f"  `{name}`: expected {expected}, found {found}" for name, expected, found in wrong[:_MOST_LISTED]]
    lines += [f"  and {len(wrong) - _MOST_LISTED} more"] if len(wrong) > _MOST_LISTED else []
    shapes_fit = all(np.shape(a) == np.shape(b) for a, b in pairs.values())
    kind = DTypeError if shapes_fit else ShapeError
    raise kind(f"{path} does not fit:\n" + "\n".join(lines))


def _fits(like: Any, value: Any) -> bool:
    """Shape and dtype agree; a Python number in `like` (a count from 0, say) may have become an array."""
    if type(value) is type(like) and not hasattr(like, "dtype"):
        return True
    if isinstance(value, str) or isinstance(like, str):
        return False
    if isinstance(like, bool | int | float | complex):
        return np.shape(value) == () and np.asarray(value).dtype.kind in _KINDS[type(like)]
    if np.shape(like) != np.shape(value):
        return False
    if not hasattr(value, "dtype"):
        return np.dtype(like.dtype).kind in _KINDS[type(value)]
    return np.dtype(like.dtype).newbyteorder("=") == value.dtype


_KINDS = {bool: "b", int: "iu", float: "fV", complex: "c"}


def _type_text(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return f"{type(value).__name__} of Python"
    return f"{np.dtype(value.dtype)}[{', '.join(map(str, value.shape))}]"


def _placed(value: Any, like: Any) -> Any:
    """The value as `like` is: a NumPy scalar, or an array on its device."""
    if isinstance(like, np.generic) and isinstance(value, np.ndarray):
        return value[()]
    if on_device(like) and isinstance(value, np.ndarray):
        return home_of([like]).asarray(value)
    return value


def some(names: list[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names[:_MOST_LISTED])
    return listed + (f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else "") or "nothing"
