# SPDX-License-Identifier: MIT
"""Modules: models that are pytrees.

Subclassing `Module` makes a frozen dataclass and registers it as a pytree. A field whose annotation is made of plain
Python types (int, float, bool, str, a callable, a tuple of those ...) is *static*: part of the structure. Every other
field holds arrays, modules or containers of them, and its leaves are the leaves of the model.

    class Affine(nn.Module):
        weight: nn.Array          # leaf
        activation: Callable      # static

        def __init__(self, n, *, activation=nn.relu, key):
            self.weight = random.normal(key, (n,))
            self.activation = activation

        def __call__(self, x):
            return self.activation(x * self.weight)

`self.name = value` works inside `__init__` only; afterwards `model.replace(name=value)` makes a changed copy.

Source: the dataclass modules of Equinox (P. Kidger, C. Garcia, arXiv:2111.00254), with statics told by annotation.
"""

import collections.abc
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import optree

from functorch_lite import tree
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ImmutableError

Array = Any
"""Annotation of a leaf: a NumPy or CuPy array, or a tracer."""

_PLAIN = (int, float, bool, complex, str, bytes, type, type(None), np.dtype, slice)

_IMMUTABLE = """\
{cls}.{name} cannot be assigned: a module is immutable once it is made.
    model.{name} = value                    # wrong
    model = model.replace({name}=value)     # a changed copy"""

_UNDECLARED = """\
{cls} has no field `{name}`. Declare it in the class body, with an array or module type if it holds arrays:
    class {cls}(nn.Module):
        {name}: nn.Array"""


def static(**options: Any) -> Any:
    """A field that is part of the model's structure whatever its annotation; its value must be hashable.

    `options` are those of dataclasses.field (default, kw_only ...).

    >>> class Scaled(Module):
    ...     settings: Any = static(default=("a", 1))
    >>> tree.leaves(Scaled())
    []
    """
    return _field("static", options)


def buffer(**options: Any) -> Any:
    """A field whose arrays are leaves but are not trained, such as running statistics; see `trainable_mask`."""
    return _field("buffer", options)


def _field(kind: str, options: dict[str, Any]) -> Any:
    metadata = {**options.pop("metadata", {}), "functorch_lite": kind}
    return dataclasses.field(metadata=metadata, **options)


# Registration: which fields are leaves, and the two functions optree calls.


def _register(cls: Any) -> None:
    kinds = {field.name: _kind(cls, field) for field in dataclasses.fields(cls)}
    cls._child_names = children = tuple(name for name, kind in kinds.items() if kind != "static")
    cls._static_names = statics = tuple(name for name, kind in kinds.items() if kind == "static")
    cls._buffer_names = tuple(name for name, kind in kinds.items() if kind == "buffer")
    functions = _tree_functions(cls, children, statics)
    tree.register(cls, *functions, entry_type=optree.GetAttrEntry, is_immutable=True)


_TREE_FUNCTIONS = """\
def flatten(module):
    return ({read_children}), ({read_statics}), children

def unflatten(values, leaves):
    module = new(cls)
    fields = module.__dict__
    [{children}] = leaves
    [{statics}] = values
    return module"""


def _tree_functions(
    cls: type, children: tuple[str, ...], statics: tuple[str, ...]
) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]:
    """The two functions, written out as a dataclass's `__init__` is: a loop over names takes three times as long."""
    text = _TREE_FUNCTIONS.format(
        read_children="".join(f"module.{name}, " for name in children),
        read_statics="".join(f"module.{name}, " for name in statics),
        children=", ".join(f"fields[{name!r}]" for name in children),
        statics=", ".join(f"fields[{name!r}]" for name in statics),
    )
    space: dict[str, Any] = {"new": object.__new__, "cls": cls, "children": children}
    exec(text, space)
    return space["flatten"], space["unflatten"]


def _kind(cls: type, field: dataclasses.Field) -> str:
    declared = field.metadata.get("functorch_lite")
    return declared or ("static" if _is_plain(_annotation(cls, field)) else "child")


def _annotation(cls: type, field: dataclasses.Field) -> Any:
    """The field's type; a text (from `__future__ import annotations`) is evaluated where it was written."""
    if not isinstance(field.type, str):
        return field.type
    owner = next((c for c in cls.__mro__ if field.name in inspect.get_annotations(c)), cls)
    names = {**vars(typing), **vars(sys.modules[owner.__module__])}
    try:
        return eval(field.type, names)
    except NameError:
        return Any


def _is_plain(hint: Any) -> bool:
    """Whether a value of type `hint` can hold no array: int, str | None, tuple[int, ...], Callable[..., Any] ..."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _PLAIN or collections.abc.Callable in (hint, origin) or hint is typing.Callable:
        return True
    if origin in (typing.Literal, type, np.dtype):
        return True
    if origin in (tuple, frozenset, types.UnionType, typing.Union, typing.Final):
        return all(_is_plain(arg) for arg in args if arg is not Ellipsis)
    return False


@typing.dataclass_transform(field_specifiers=(static, buffer, dataclasses.field))
class _ModuleType(type):
    """Makes each subclass a dataclass and a pytree, and closes an instance when its `__init__` has returned."""

    def __new__(mcs, name, bases, namespace):
        cls = super().__new__(mcs, name, bases, namespace)
        generated = "__init__" not in namespace and not any(getattr(b, "_has_own_init", False) for b in bases)
        cls._has_own_init = not generated  # type: ignore[attr-defined]
        dataclasses.dataclass(eq=False, repr=False, init=generated)(cls)  # type: ignore[call-overload]
        _register(cls)
        return cls

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        module: Any = object.__new__(cls)
        state = module.__dict__
        state["_open"] = True
        module.__init__(*args, **kwargs)
        del state["_open"]
        _check(module)
        return module


class Module(metaclass=_ModuleType):
    """Base of all layers and models; see the module's docstring. Define `__call__`, a pure function of the input."""

    __call__: ClassVar[Callable[..., Any]]
    _child_names: ClassVar[tuple[str, ...]]
    _static_names: ClassVar[tuple[str, ...]]
    _buffer_names: ClassVar[tuple[str, ...]]

    def __setattr__(self, name: str, value: Any) -> None:
        if "_open" not in self.__dict__:
            raise ImmutableError(_IMMUTABLE.format(cls=type(self).__name__, name=name))
        if name not in self._child_names and name not in self._static_names:
            raise ArgumentError(_UNDECLARED.format(cls=type(self).__name__, name=name))
        vars(self)[name] = value

    def __delattr__(self, name: str) -> None:
        raise ImmutableError(_IMMUTABLE.format(cls=type(self).__name__, name=name))

    def replace(self, **changes: Any) -> Self:
        """A copy with the fields in `changes` replaced; the module itself is left as it is.

        Raises ArgumentError for a name that is no field.
        """
        unknown = [name for name in changes if name not in self.__dict__]
        if unknown:
            raise ArgumentError(f"{type(self).__name__}.replace: no field `{unknown[0]}`; it has {_names(self)}.")
        copy: Any = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(changes)
        return copy

    def __repr__(self) -> str:
        return "\n".join(_lines(self))


def _names(module: Module) -> str:
    return ", ".join(module.__dict__) or "none"


# What a new module must fulfil.


def _check(module: Module) -> None:
    cls = type(module).__name__
    missing = [n for n in (*module._child_names, *module._static_names) if n not in module.__dict__]
    if missing:
        raise ArgumentError(f"{cls}.__init__ did not set the field `{missing[0]}`.")
    for name in module._static_names:
        _check_static(cls, name, getattr(module, name))
    for path, leaf in tree.leaves_with_path(module):
        if isinstance(leaf, str | bytes) or callable(leaf):
            raise ArgumentTypeError(
                f"{cls}{_dotted(path)} holds {leaf!r}, which is no array. Annotate the field with its type "
                "(Callable, str ...) or declare it with nn.static(); wrap a function in a list in nn.Lambda."
            )


def _check_static(cls: str, name: str, value: Any) -> None:
    try:
        hash(value)
    except TypeError as e:
        raise ArgumentTypeError(
            f"{cls}.{name} is a static field, so its value must be hashable, but it is {type(value).__name__}. "
            "Annotate it as nn.Array if it holds an array; use a tuple instead of a list."
        ) from e


def _dotted(path: Any) -> str:
    return "".join(f".{key}" if isinstance(key, str) else f"[{key!r}]" for key in path)


# How a module is shown.


def _lines(module: Module) -> list[str]:
    shown = [(field.name, _shown(getattr(module, field.name))) for field in dataclasses.fields(module)]  # type: ignore
    name = type(module).__name__
    short = f"{name}({', '.join(f'{n}={lines[0]}' for n, lines in shown)})"
    if len(short) <= 100 and all(len(lines) == 1 for _, lines in shown):
        return [short]
    body = [f"  {n}={lines[0]}" + "".join(f"\n  {line}" for line in lines[1:]) + "," for n, lines in shown]
    return [f"{name}(", *"\n".join(body).split("\n"), ")"]


def _shown(value: Any) -> list[str]:
    if isinstance(value, Module):
        return _lines(value)
    dtype = getattr(value, "dtype", None)
    if dtype is not None:
        return [f"{dtype}[{', '.join(map(str, value.shape))}]"]
    if isinstance(value, list | tuple) and any(isinstance(item, Module) for item in value):
        inner = [f"  {line}" for item in value for line in _with_comma(_shown(item))]
        return ["(" if isinstance(value, tuple) else "[", *inner, ")" if isinstance(value, tuple) else "]"]
    return [getattr(value, "__name__", None) or repr(value)]


def _with_comma(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1] + ","]
