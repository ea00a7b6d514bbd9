# SPDX-License-Identifier: MIT
"""Calls of compiled programs without Python in between: a builtin for each program, all around one native function.

`native_call(spec)` gives a builtin that checks its arguments against the signature of the program, hands the data
pointers of their arrays to it, and builds the result. What does not fit goes to `spec.slow`, so the builtin can be
called with anything. The native function (call_path_ir.py) is compiled once; a program adds tables only.

    x, params  ->  walk plan: pointers of leaves  ->  fresh outputs  ->  run(inputs, outputs, ...)  ->  result

It reads Python's and NumPy's objects by their layout in memory, which is tested on known objects before the first use
(object_layout.py); where a test fails there are no native calls, and `native_call` returns None.
"""

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
import optree

from functorch_lite.compiler.runtime import call_path_ir as ir
from functorch_lite.compiler.runtime import engine
from functorch_lite.compiler.runtime.call_path_ir import Build, Output, State, Walk
from functorch_lite.compiler.runtime.object_layout import (
    API_NEW_FROM_DESCR,
    API_SCALAR,
    array_api,
    donation_layout_is_known,
    layout_is_known,
)
from functorch_lite.core import dtypes
from functorch_lite.tree import TreeDef

_METH_FASTCALL_KEYWORDS = 0x80 | 0x02
_LARGEST_SCALAR = 16  # bytes of a cell
_INSIDE = 2  # references of an array that only a container holds: the container's, and the call's


_new_builtin = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCFunction_NewEx", ctypes.pythonapi)
)
_raw_free = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyMem_RawFree", ctypes.pythonapi))


class LeafType(NamedTuple):
    """The type of an argument or result; weak: it is a Python scalar."""

    shape: tuple[int, ...]
    dtype: np.dtype
    weak: bool


class CallSpec(NamedTuple):
    """A compiled program and the calls it answers.

    in_tree: the structure of (args, kwargs), with None in place of static arguments.
    in_types: of the leaves of in_tree, each (shape, dtype, weak). A strong leaf is an exact, C-contiguous and aligned
        np.ndarray, or a NumPy scalar of its dtype where the shape is (). A weak leaf is a float, int, bool or complex
        itself; the program finds it as a float64, int64, bool or complex128.
    captured: arrays that come first among the program's inputs.
    out_tree, out_types: the result. A strong leaf of rank 0 becomes a NumPy scalar, a weak one a Python scalar.
    entry: address of a word that holds the address of
        `int32 run(void **inputs, void **outputs, void *arena, void *context)`: the word may change between calls.
    slow: called with the arguments of a call that does not fit; its result is that of the call.
    failure: called with the status of a run that is not 0, unless that left a Python error: it raises.
    arena_bytes: scratch memory of a run, aligned to 64 bytes; its content is undefined.
    context: the last argument of `run`.
    release_gil: whether other threads may run Python meanwhile.
    static: (position or name, value) of the static arguments: these very objects, or equal ones of the same type.
    contexts: (variable, value): context variables that must hold these very objects.
    allowed: (address of an int64, value that it must have); address 0 is no condition.
    donated: numbers of the leaves that a call gives away, arrays of a rank above 0.
    takes: for an output that is made in the memory of a donated leaf, the numbers of the two.
    mark: called with the list of these outputs; it gives the object that is the base of donated leaves from then on,
        and keeps the list.
    keep: what must live as long as the builtin: the word at `entry`, the code, the owners of `context` and `allowed`.
    """

    in_tree: TreeDef
    in_types: Sequence[tuple[tuple[int, ...], np.dtype, bool]]
    captured: Sequence[Any]
    out_tree: TreeDef
    out_types: Sequence[tuple[tuple[int, ...], np.dtype, bool]]
    entry: int
    slow: Callable[..., Any]
    failure: Callable[[int], Any]
    arena_bytes: int = 0
    context: int = 0
    release_gil: bool = False
    static: Sequence[tuple[int | str, Any]] = ()
    contexts: Sequence[tuple[ContextVar, Any]] = ()
    allowed: tuple[int, int] = (0, 0)
    donated: Sequence[int] = ()
    takes: Mapping[int, int] = MappingProxyType({})
    mark: Callable[[list[np.ndarray]], Any] | None = None
    keep: Any = None


def _direct_references() -> int:
    """References of an array that only a variable holds, which is an argument itself: the caller's, those of the way to
    a builtin that a class has for `__call__`, and the call's."""
    counting: Any = type("Counting", (), {"__call__": sys.getrefcount})()
    argument = object()
    return counting(argument) + 1


def native_call(spec: CallSpec) -> Callable[..., Any] | None:
    """A builtin that runs the program of `spec`, or None where this machine or the structures do not allow one."""
    address = _native_address()
    if address is None:
        return None
    try:
        state = _state(spec)
    except _Unsupported:
        return None
    return _new_builtin(ctypes.addressof(_method(address)), state, None)


def calls_of(builtin: Any) -> int:
    """How many calls a builtin of `native_call` has answered itself."""
    return int(builtin.__self__[State.calls])


class _Unsupported(Exception):
    """A structure or type that native code does not know."""


# --- tables -----------------------------------------------------------------------------------------------------------


class _State(np.ndarray):
    """The int64 words that native code reads, and the objects they point to."""

    keep: Any


class _Arena:
    """The word that holds the scratch memory of a program while no call uses it."""

    def __init__(self, state: np.ndarray):
        self._word = ctypes.c_void_p.from_address(state.ctypes.data + 8 * State.arena)
        self._state = np.asarray(state)  # keeps the memory

    def __del__(self, free=_raw_free):
        if self._word.value:
            free(self._word)


def _state(spec: CallSpec) -> _State:
    keep: list[Any] = [spec]
    captured = [_captured(a) for a in spec.captured]
    walk, keywords = _walk_plan(spec, keep)
    donated = _donated(spec)
    outputs = [_output(LeafType(*t), keep, spec.takes.get(k, -1)) for k, t in enumerate(spec.out_types)]
    build = _build_plan(spec.out_tree, keep)
    _check_count("the result", spec.out_tree, outputs)
    n_leaves = len(spec.in_types)
    n_cells = n_leaves + len(outputs)
    fields = {
        State.allowed: spec.allowed[0], State.allowed_value: spec.allowed[1],
        State.n_contexts: len(spec.contexts),
        State.contexts: _table([id(x) for pair in spec.contexts for x in pair], keep),
        State.n_args: spec.in_tree.child(0).num_children, State.n_keywords: len(keywords),
        State.keywords: _table([id(k) for k in keywords], keep), State.walk: _table(walk, keep),
        State.n_leaves: n_leaves, State.n_captured: len(captured),
        State.captured: _table([a.ctypes.data for a in captured], keep),
        State.n_outputs: len(outputs), State.outputs: _table([w for words in outputs for w in words], keep),
        State.build: _table(build, keep), State.entry: spec.entry, State.context: spec.context,
        State.arena_bytes: spec.arena_bytes, State.release_gil: int(spec.release_gil),
        State.slow: id(spec.slow), State.failure: id(spec.failure), State.n_cells: n_cells,
        State.n_donated: len(spec.donated), State.donated: _table(donated, keep), State.n_takes: len(spec.takes),
        State.takes: _table([n for pair in spec.takes.items() for n in pair], keep), State.mark: id(spec.mark),
        State.frame_bytes: 16 * n_cells + 8 * (len(captured) + 2 * n_leaves + 2 * len(outputs)),
    }  # fmt: skip
    words = np.zeros(len(State), np.int64)
    for field, value in fields.items():
        words[field] = value
    state = words.view(_State)
    state.keep = (keep, captured, keywords, _Arena(words))
    return state


def _donated(spec: CallSpec) -> list[int]:
    """The donated leaves, each with the references it has when nothing but its argument holds it, in a call."""
    if not spec.donated:
        return []
    if not donation_layout_is_known():
        raise _Unsupported
    direct, number = set(), 0
    for node in (*spec.in_tree.child(0).children(), *spec.in_tree.child(1).children()):
        direct |= {number} if node.kind == optree.PyTreeKind.LEAF else set()
        number += node.num_leaves
    most = _direct_references()
    return [n for k in spec.donated for n in (k, most if k in direct else _INSIDE)]


def _check_count(what: str, node: TreeDef, types: Sequence[Any]) -> None:
    if node.num_leaves != len(types):
        raise ValueError(f"{what} of a native call: {node.num_leaves} leaves, but {len(types)} types.")


def _table(words: Sequence[int], keep: list[Any]) -> int:
    """The address of the words, which stay where they are as long as `keep` holds them."""
    table = np.array([*words, 0], np.int64)
    keep.append(table)
    return table.ctypes.data


def _address(value: Any, keep: list[Any]) -> int:
    keep.append(value)
    return id(value)


def _captured(value: Any) -> np.ndarray:
    array = np.asarray(value) if isinstance(value, np.generic) else value
    if type(array) is not np.ndarray or not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
        raise _Unsupported
    return array


def _walk_plan(spec: CallSpec, keep: list[Any]) -> tuple[list[int], list[str]]:
    """The plan of all arguments, the positional first, and the names of the others."""
    _check_count("the arguments", spec.in_tree, spec.in_types)
    positional, named = spec.in_tree.children()
    static = dict(spec.static)
    types = (LeafType(*t) for t in spec.in_types)
    words: list[int] = []
    for i, node in enumerate(positional.children()):
        words += _same(static.pop(i), keep) if i in static else _walk(node, types, keep)
    keywords = [sys.intern(name) for name in named.entries()]
    for node in named.children():
        words += _walk(node, types, keep)
    for name, value in static.items():
        keywords.append(sys.intern(str(name)))
        words += _same(value, keep)
    return words, keywords


def _walk(node: TreeDef, types: Iterator[LeafType], keep: list[Any]) -> list[int]:
    kind = node.kind
    if kind == optree.PyTreeKind.LEAF:
        return _leaf(next(types), keep)
    if kind == optree.PyTreeKind.NONE:
        return [Walk.none]
    if kind == optree.PyTreeKind.CUSTOM:
        return _walk_object(node, types, keep)
    op = _WALK_OPS.get(kind)
    if op is None:
        raise _Unsupported
    words = [op, _address(node.type, keep), node.num_children]
    for key, child in zip(node.entries(), node.children(), strict=True):
        words += [_address(key, keep)] if op == Walk.dict else []
        words += _walk(child, types, keep)
    return words


_WALK_OPS = {
    optree.PyTreeKind.TUPLE: Walk.tuple,
    optree.PyTreeKind.NAMEDTUPLE: Walk.tuple,
    optree.PyTreeKind.LIST: Walk.list,
    optree.PyTreeKind.DICT: Walk.dict,
}


def _walk_object(node: TreeDef, types: Iterator[LeafType], keep: list[Any]) -> list[int]:
    children, static = _attributes(node)
    words = [Walk.object, _address(node.type, keep), len(children) + len(static)]
    for name, child in zip(children, node.children(), strict=True):
        words += [_address(sys.intern(name), keep), *_walk(child, types, keep)]
    for name, value in static.items():
        words += [_address(sys.intern(name), keep), *_same(value, keep)]
    return words


def _attributes(node: TreeDef) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names of attributes that are children, and the others with their values; a class says which they are.

    A class whose nodes are its attributes has `_child_names` and `_static_names`, as modules do.
    """
    children = getattr(node.type, "_child_names", None)
    static = getattr(node.type, "_static_names", None)
    if children is None or static is None or tuple(node.entries()) != tuple(children):
        raise _Unsupported
    example = _one_level(node, [None] * node.num_children)
    return tuple(children), {name: getattr(example, name) for name in static}


def _one_level(node: TreeDef, children: Sequence[Any]) -> Any:
    return cast(TreeDef, node.one_level()).unflatten(children)


def _same(value: Any, keep: list[Any]) -> list[int]:
    return [Walk.same, _address(value, keep)]


def _leaf(leaf: LeafType, keep: list[Any]) -> list[int]:
    if leaf.weak:
        if leaf.shape != () or leaf.dtype not in _WEAK_LEAVES:
            raise _Unsupported
        return list(_WEAK_LEAVES[leaf.dtype])
    _check_dtype(leaf.dtype)
    scalar = _scalar_type(leaf.dtype) if leaf.shape == () else None
    words = [Walk.array, _address(leaf.dtype, keep), _address(scalar, keep) if scalar else 0, len(leaf.shape)]
    return [*words, *leaf.shape]


_WEAK_LEAVES = {
    np.dtype(np.float64): (Walk.number, id(float)),
    np.dtype(np.complex128): (Walk.number, id(complex)),
    np.dtype(np.bool_): (Walk.truth,),
    np.dtype(np.int64): (Walk.integer,),
}
_WEAK_OUTPUTS = {
    np.dtype(np.float64): Output.float,
    np.dtype(np.complex128): Output.complex,
    np.dtype(np.bool_): Output.truth,
    np.dtype(np.int64): Output.integer,
}


def _check_dtype(dtype: np.dtype) -> None:
    """Refuse dtypes that are not told by their number and byte order alone."""
    if dtype.isbuiltin not in (1, 2) or not dtype.isnative or dtypes.dtype_kind(dtype) not in "biufc":
        raise _Unsupported


@functools.cache
def _scalar_type(dtype: np.dtype) -> type | None:
    """The type of NumPy scalars of `dtype`, where the value lies at the usual place in them."""
    one = np.ones((), dtype)
    scalar = one[()]
    found = ctypes.string_at(id(scalar) + ir.VALUE, dtype.itemsize)
    return type(scalar) if found == one.tobytes() else None


def _output(leaf: LeafType, keep: list[Any], source: int) -> list[int]:
    """The entry of an output. source: the leaf in whose memory it is made, or -1."""
    _check_dtype(leaf.dtype)
    if leaf.weak:
        if leaf.shape != () or leaf.dtype not in _WEAK_OUTPUTS:
            raise _Unsupported
        return [_WEAK_OUTPUTS[leaf.dtype], 0]
    if leaf.shape == ():
        if leaf.dtype.itemsize > _LARGEST_SCALAR:
            raise _Unsupported
        return [Output.scalar, _address(leaf.dtype, keep)]
    return [Output.array, _address(leaf.dtype, keep), len(leaf.shape), source, *leaf.shape]


def _build_plan(node: TreeDef, keep: list[Any]) -> list[int]:
    kind, n = node.kind, node.num_children
    if kind == optree.PyTreeKind.LEAF:
        return [Build.leaf]
    if kind == optree.PyTreeKind.NONE:
        return [Build.constant, id(None)]
    if kind == optree.PyTreeKind.DICT:
        return _build_dict(node, keep)
    if kind == optree.PyTreeKind.CUSTOM and hasattr(node.type, "_child_names"):
        return _build_object(node, keep)
    children = [word for child in node.children() for word in _build_plan(child, keep)]
    if kind == optree.PyTreeKind.TUPLE:
        return [Build.tuple, n, 0, *children]
    if kind == optree.PyTreeKind.LIST:
        return [Build.list, n, 0, *children]
    return [Build.call, n, _address(_maker(node), keep), *children]


def _maker(node: TreeDef) -> Callable[..., Any]:
    """The function of the children that makes a node."""
    if node.kind == optree.PyTreeKind.NAMEDTUPLE:
        return cast(type, node.type)
    return lambda *children: _one_level(node, children)


def _build_dict(node: TreeDef, keep: list[Any]) -> list[int]:
    # Leaves come in sorted order, entries in that of the original: a copy of the template has them in place.
    template = _one_level(node, [None] * node.num_children)
    words = [Build.dict, node.num_children, _address(template, keep)]
    for key, child in zip(node.entries(), node.children(), strict=True):
        words += [_address(key, keep), *_build_plan(child, keep)]
    return words


def _build_object(node: TreeDef, keep: list[Any]) -> list[int]:
    children, static = _attributes(node)
    words = [Build.object, len(children) + len(static), _address(node.type, keep)]
    for name, child in zip(children, node.children(), strict=True):
        words += [_address(sys.intern(name), keep), *_build_plan(child, keep)]
    for name, value in static.items():
        words += [_address(sys.intern(name), keep), Build.constant, _address(value, keep)]
    return words


# --- the native function ----------------------------------------------------------------------------------------------


class _MethodDef(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]  # fmt: skip


@functools.cache
def _method(address: int) -> _MethodDef:
    """The description that every builtin points to; it is never freed."""
    return _MethodDef(b"call", address, _METH_FASTCALL_KEYWORDS, None)


_object_new = object.__new__  # kept: native code has its address


@functools.cache
def _loaded() -> engine.Loaded | None:
    """The native function, compiled at the first use; None where objects do not lie in memory as it expects."""
    if not layout_is_known():
        return None
    symbols = {name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
               for name in ir.FUNCTIONS if name.startswith("Py") and not name.startswith("PyArray")}  # fmt: skip
    table = array_api()
    symbols |= {
        "PyArray_Type": id(np.ndarray), "PyArray_Scalar": table[API_SCALAR],
        "PyArray_NewFromDescr": table[API_NEW_FROM_DESCR],
        "PyLong_Type": id(int), "PyBool_Type": id(bool), "_Py_NoneStruct": id(None), "_Py_TrueStruct": id(True),
        "object_new": id(_object_new),
    }  # fmt: skip
    return engine.load(ir.module_text(), symbols)


def _native_address() -> int | None:
    loaded = _loaded()
    return None if loaded is None else loaded.address("call")
