# SPDX-License-Identifier: MIT
"""A model as a flat dictionary of named tensors, with PyTorch's names and layouts, and back.

    tensors = nn.state_dict(model)                      # {"conv1.weight": ..., "layers.0.bias": ...}
    model = nn.load_state_dict(model, tensors)          # also what torch.nn.Module.state_dict() gave, as NumPy arrays

A name is the path of field names, indices and keys with dots between, so that a model of one's own has the names that
the same fields have in PyTorch. Where a layer of ours is laid out otherwise than PyTorch's, its entry in `state_names`
says how; a model with other field names than its checkpoint adds one of its own:

    @nn.state_names.register
    def _(block: Block) -> dict:
        return {"fc_in": "linear1", "fc_out": "linear2"}
"""

from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
import optree

from functorch_lite import tree
from functorch_lite.backends.registry import constant, on_device
from functorch_lite.core.dtypes import dtype_kind
from functorch_lite.errors import ArgumentError
from functorch_lite.nn.attention import MultiheadAttention
from functorch_lite.nn.containers import Listed, ModuleDict
from functorch_lite.nn.embedding import EmbeddingBag
from functorch_lite.nn.linear import Linear
from functorch_lite.nn.module import Module
from functorch_lite.nn.norm import _BatchNorm
from functorch_lite.nn.recurrent import _Recurrent
from functorch_lite.nn.transformer import TransformerDecoderLayer, _Layer
from functorch_lite.transforms.arguments import ShapeDtype


class Joined(NamedTuple):
    """A tensor made of several of our arrays, one after the other along axis 0; `fields` are their paths."""

    fields: tuple[str, ...]


class Fixed(NamedTuple):
    """A tensor that PyTorch keeps and our layer has no use for: written as `value`, not missed and not read."""

    value: np.ndarray


# How the fields of a layer are named.


@singledispatch
def state_names(module: Any) -> dict[str, str | Joined | Fixed]:
    """For each name in PyTorch's state the field of ours, `a.b.0` for `module.a.b[0]`; a table by class.

    Register a function for a class, or any of its bases, to change it; see the file's head. It is called with a module
    whose leaves are not arrays, so it may look at static fields and at what is None only.

    >>> from functorch_lite import random
    >>> from functorch_lite.nn import Linear, Sequential
    >>> state_names(Sequential(Linear(2, 2, key=random.key(0))))
    {'0': 'layers.0'}
    """
    return {name: name for name in module._child_names}


@state_names.register
def _listed(module: Listed) -> dict[str, Any]:
    return {str(i): f"layers.{i}" for i in range(len(module))}


@state_names.register
def _module_dict(module: ModuleDict) -> dict[str, Any]:
    return {name: f"layers.{name}" for name in module}


@state_names.register
def _embedding_bag(module: EmbeddingBag) -> dict[str, Any]:
    return {"weight": "embedding.weight"}


@state_names.register
def _batch_norm(module: _BatchNorm) -> dict[str, Any]:
    names = {name: name for name in module._child_names}
    return names if module.running_mean is None else {**names, "num_batches_tracked": Fixed(np.zeros((), np.int64))}


@state_names.register
def _attention(module: MultiheadAttention) -> dict[str, Any]:
    """One matrix for q, k and v where they are equally large, as in PyTorch; fewer heads of k and v have no equal."""
    parts = ("q_proj", "k_proj", "v_proj")
    layers = [getattr(module, part) for part in parts]
    if module.num_kv_heads != module.num_heads or not all(isinstance(layer, Linear) for layer in layers):
        return {name: name for name in module._child_names}
    if len({layer.in_features for layer in layers}) == 1:
        names: dict[str, Any] = {"in_proj_weight": Joined(tuple(f"{part}.weight" for part in parts))}
    else:
        names = {f"{part}_weight": f"{part}.weight" for part in parts}
    if module.q_proj.bias is not None:
        names["in_proj_bias"] = Joined(tuple(f"{part}.bias" for part in parts))
    return {**names, "out_proj": "out_proj"}


@state_names.register
def _recurrent(module: _Recurrent) -> dict[str, Any]:
    directions = 1 + module.bidirectional
    names = {}
    for i, cell in enumerate(module.cells):
        suffix = f"l{i // directions}{'_reverse' if i % directions else ''}"
        names |= {f"{name}_{suffix}": f"cells.{i}.{name}" for name in cell._child_names}
    return names


@state_names.register
def _transformer_layer(module: _Layer) -> dict[str, Any]:
    linear = {"linear1": "feed_forward.linear1", "linear2": "feed_forward.linear2"}
    return {"self_attn": "self_attn", **linear, "norm1": "norm1", "norm2": "norm2"}


@state_names.register
def _decoder_layer(module: TransformerDecoderLayer) -> dict[str, Any]:
    return {**_transformer_layer(module), "multihead_attn": "cross_attn", "norm3": "norm3"}


# The entries of a model: each name with the numbers of its leaves.


class _Entry(NamedTuple):
    name: str
    leaves: tuple[int, ...]
    fixed: np.ndarray | None = None


def _is_shape(value: Any) -> bool:
    return isinstance(value, ShapeDtype)


def _flat(model: Any) -> tuple[list[Any], tree.TreeDef, list[_Entry]]:
    """The leaves, the structure and the entries of `model`; a leaf that no name stands for is an error."""
    leaves, treedef = tree.flatten(model, _is_shape)
    skeleton = tree.unflatten(treedef, range(len(leaves)))
    entries = list(_entries(skeleton, ""))
    named = {i for entry in entries for i in entry.leaves}
    forgotten = [path for i, path in enumerate(tree.paths(model, _is_shape)) if i not in named]
    if forgotten:
        raise ArgumentError(f"state_names: no name stands for `{forgotten[0]}` of {type(model).__name__}.")
    return leaves, treedef, entries


def _entries(node: Any, prefix: str) -> Iterator[_Entry]:
    if isinstance(node, int):
        yield _Entry(prefix, (node,))
        return
    for name, child in _children(node).items():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(child, Fixed):
            yield _Entry(path, (), child.value)
        elif isinstance(child, Joined):
            yield _Entry(path, tuple(_at(node, field) for field in child.fields))
        else:
            yield from _entries(child, path)


def _children(node: Any) -> dict[str, Any]:
    """What `node` holds, by name: the fields of a module as `state_names` has them, items by index or key."""
    if node is None:
        return {}
    if isinstance(node, Module):
        names = state_names(node)
        return {name: _at(node, where) if isinstance(where, str) else where for name, where in names.items()}
    children, _, entries, _ = optree.tree_flatten_one_level(node, namespace=tree.NAMESPACE)
    keys = getattr(node, "_fields", entries)
    return {str(key): child for key, child in zip(keys, children, strict=True)}


def _at(node: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(node, Module):
            node = getattr(node, key)
        else:
            node = node[key] if isinstance(node, dict) else node[int(key)]
    return node


# Out.


def state_dict(model: Any) -> dict[str, Any]:
    """The arrays of `model` by PyTorch's names, in PyTorch's layouts and its order, on the host.

    model: a module, or any pytree of modules and arrays. Arrays are the model's own where the layouts agree; an array
    that stands at two places (tied weights) has both names. The result is what `torch.nn.Module.load_state_dict` takes
    of the same model, once `torch.from_numpy` has been mapped over it.

    >>> from functorch_lite import nn, random
    >>> model = nn.Sequential(nn.Linear(3, 2, key=random.key(0)), nn.relu, nn.BatchNorm1d(2))
    >>> list(nn.state_dict(model))
    ['0.weight', '0.bias', '2.weight', '2.bias', '2.running_mean', '2.running_var', '2.num_batches_tracked']
    """
    leaves, _, entries = _flat(model)
    return {entry.name: _value(leaves, entry) for entry in entries}


def _value(leaves: list[Any], entry: _Entry) -> Any:
    if entry.fixed is not None:
        return entry.fixed
    parts = [_host(leaves[i]) for i in entry.leaves]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _host(leaf: Any) -> Any:
    if isinstance(leaf, ShapeDtype):
        raise ArgumentError("state_dict: the model has shapes in place of arrays; load a state into it first.")
    return leaf.get() if on_device(leaf) else np.asarray(leaf)


# In.


class StateDifference(NamedTuple):
    """How named tensors differ from what a model needs; false when they do not.

    missing: names that the model needs, and unexpected: names that it has no place for.
    wrong: (name, expected, found) with dtype and shape as text, where the shape or the kind of dtype differs.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong: tuple[tuple[str, str, str], ...]

    def __bool__(self) -> bool:
        return any(self)

    def __str__(self) -> str:
        lines = [f"{kind}: {_some(names)}" for kind, names in zip(self._fields, self[:2], strict=False) if names]
        shown = self.wrong[:3]
        lines += [f"wrong: {name}: expected {expected}, found {found}" for name, expected, found in shown]
        more = len(self.wrong) - len(shown)
        return "\n".join(lines + ([f"wrong: {more} more"] if more else [])) or "no difference"


def _some(names: tuple[str, ...]) -> str:
    text = ", ".join(names[:4])
    return text if len(names) <= 4 else f"{text}, ... ({len(names)} in all)"


def compare_state_dict(model: Any, tensors: Mapping[str, Any]) -> StateDifference:
    """How `tensors` differ from what `model` needs: names that are missing or unexpected, and wrong shapes or dtypes.

    >>> from functorch_lite import nn, random
    >>> print(nn.compare_state_dict(nn.Linear(3, 2, key=random.key(0)), {"weight": np.ones((3, 2)), "b": np.ones(2)}))
    missing: bias
    unexpected: b
    wrong: weight: expected float32[2, 3], found float64[3, 2]
    """
    return _matched(model, tensors)[0]


def load_state_dict(model: Any, tensors: Mapping[str, Any], *, strict: bool = True) -> Any:
    """`model` with the arrays in `tensors`, named and laid out as `state_dict` gives them.

    model: gives structure, shapes, dtypes and devices; `fl.eval_shape(make, key)` is enough. tensors: NumPy arrays,
    or what `np.asarray` takes; they are copied, and a floating one is cast to the dtype in the model. Arrays that the
    model holds twice (tied weights) need one of their names only, and stay one array when both are there and equal.

    strict: raise ArgumentError when `compare_state_dict` finds a difference. With strict=False it is printed, and what
    is missing or wrong keeps the model's value.

    >>> from functorch_lite import nn, random
    >>> model = nn.Linear(3, 1, key=random.key(0))
    >>> nn.load_state_dict(model, {"weight": np.ones((1, 3)), "bias": np.zeros(1)})(np.ones(3, np.float32))
    array([3.], dtype=float32)
    >>> model = nn.load_state_dict(model, {"bias": np.zeros(1)}, strict=False)
    missing: weight
    """
    difference, leaves, treedef, found = _matched(model, tensors)
    if difference and strict:
        hint = _prefix_hint(difference) or "strict=False loads what fits."
        raise ArgumentError(f"load_state_dict: the tensors do not fit {type(model).__name__}; {hint}\n{difference}")
    if difference:
        print(difference)
    placed = _placed(leaves, found)
    return tree.unflatten(treedef, [placed.get(i, leaf) for i, leaf in enumerate(leaves)])


def _placed(leaves: list[Any], found: dict[int, np.ndarray]) -> dict[int, Any]:
    """The new values where those of the model live; equal values of what is one array in the model are one again."""
    shared: dict[int, list[tuple[np.ndarray, Any]]] = {}
    placed = {}
    for i, value in found.items():
        earlier = shared.setdefault(id(leaves[i]) if _is_array(leaves[i]) else -1 - i, [])
        same = [array for host, array in earlier if np.array_equal(host, value)]
        placed[i] = same[0] if same else constant(value, leaves[i])
        earlier.append((value, placed[i]))
    return placed


def _prefix_hint(difference: StateDifference) -> str:
    """PyTorch's wrappers (DataParallel, compile) and trainers put one word before all names."""
    missing, unexpected = set(difference.missing), difference.unexpected
    prefixes = {name.partition(".")[0] + "." for name in unexpected}
    prefix = next(iter(prefixes)) if len(prefixes) == 1 else ""
    if prefix and missing and missing <= {name.removeprefix(prefix) for name in unexpected}:
        return f"all names start with {prefix!r}: take it off, {{name[{len(prefix)}:]: x for name, x in ...}}."
    return ""


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) or on_device(leaf)


def _matched(model: Any, tensors: Mapping[str, Any]) -> tuple[StateDifference, list[Any], tree.TreeDef, dict[int, Any]]:
    """The difference, the model's leaves and structure, and for the number of a leaf its new value."""
    leaves, treedef, entries = _flat(model)
    twins = {_identity(leaves, e): e.name for e in entries if len(e.leaves) == 1 and e.name in tensors}
    missing, wrong, found = [], [], {}
    for entry in entries:
        if entry.fixed is not None:
            continue
        parts = [leaves[i] for i in entry.leaves]
        name = entry.name if entry.name in tensors else twins.get(_identity(leaves, entry))
        if name is None:
            missing.append(entry.name)
            continue
        value, shape, dtype = _host(tensors[name]), _joined_shape(parts), _dtype(parts[0])
        if value.shape != shape or not _fits(value.dtype, dtype):
            wrong.append((entry.name, _text(dtype, shape), _text(value.dtype, value.shape)))
        else:
            found |= dict(zip(entry.leaves, _pieces(value, parts), strict=True))
    known = {entry.name for entry in entries}
    unexpected = tuple(name for name in tensors if name not in known)
    return StateDifference(tuple(missing), unexpected, tuple(wrong)), leaves, treedef, found


def _identity(leaves: list[Any], entry: _Entry) -> Any:
    """What the entries of one leaf, and of leaves that are one array, have in common."""
    first = leaves[entry.leaves[0]]
    return id(first) if len(entry.leaves) == 1 and _is_array(first) else entry.leaves


def _pieces(value: np.ndarray, parts: list[Any]) -> list[np.ndarray]:
    """Copies of the parts of `value` that belong to the arrays `parts`, in their dtypes."""
    if len(parts) == 1:
        return [np.array(value, _dtype(parts[0]), order="C")]
    ends = np.cumsum([part.shape[0] for part in parts[:-1]])
    return [np.array(x, part.dtype, order="C") for x, part in zip(np.split(value, ends), parts, strict=True)]


def _joined_shape(parts: list[Any]) -> tuple[int, ...]:
    shapes = [part.shape if _is_shape(part) else np.shape(part) for part in parts]
    return shapes[0] if len(parts) == 1 else (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _dtype(leaf: Any) -> np.dtype:
    return np.dtype(getattr(leaf, "dtype", None) or np.result_type(leaf))


def _fits(found: np.dtype, expected: np.dtype) -> bool:
    """Whether `found` may be cast to `expected`: equal, or both floating, or both integers that hold as much."""
    kinds = dtype_kind(found), dtype_kind(expected)
    return found == expected or kinds == ("f", "f") or (kinds[0] in "iu" and np.can_cast(found, expected))


def _text(dtype: Any, shape: tuple[int, ...]) -> str:
    return f"{np.dtype(dtype)}[{', '.join(map(str, shape))}]"
