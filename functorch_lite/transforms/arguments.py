# SPDX-License-Identifier: MIT
"""Between the user's pytrees of arguments and the flat lists that transforms work on; errors that name paths."""

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite import tree
from functorch_lite.backends.registry import enter_home, is_array, is_scalar, knows_devices, leave_home
from functorch_lite.core import dtypes
from functorch_lite.core.staging import staging_trace
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, ArgumentTypeError

quiet = functools.partial(np.errstate, all="ignore")
"""Inside a transform, floating-point exceptions are silent, as they are in compiled code."""


class ShapeDtype(NamedTuple):
    """A shape and dtype: what `eval_shape` returns for each output, and takes for an input."""

    shape: tuple[int, ...]
    dtype: Any


def on_its_device(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a function composed of others: the arrays that it creates live where those of its arguments do."""

    @functools.wraps(fun)
    def call(*args, **kwargs):
        token = enter_home(tree.leaves((args, kwargs))) if knows_devices() else None
        try:
            return fun(*args, **kwargs)
        finally:
            leave_home(token)

    return call


def name_of(fun: Callable[..., Any]) -> str:
    """The name of a function for messages."""
    return getattr(fun, "__name__", None) or type(fun).__name__


def argument_names(fun: Callable[..., Any], count: int) -> list[str]:
    """Names of the first `count` positional arguments of `fun`."""
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names: list[str] = []
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            names += [f"{p.name}[{i}]" for i in range(count - len(names))]
        elif p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            names.append(p.name)
    return (names + [f"argument {i}" for i in range(len(names), count)])[:count]


def leaf_paths(fun: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> list[str]:
    """The path of every leaf of the arguments, as the user would write it: `params['w']`."""
    named = list(zip(argument_names(fun, len(args)), args, strict=True)) + sorted((kwargs or {}).items())
    return [name + path for name, arg in named for path in tree.paths(arg)]


def is_value(leaf: Any) -> bool:
    """Whether a leaf is something the transforms compute with: an array, a scalar or a tracer."""
    return isinstance(leaf, Tracer) or is_array(leaf) or is_scalar(leaf)


def canonical(leaf: Any) -> tuple[Any, bool]:
    """An array leaf and whether it was a Python scalar (which is weakly typed)."""
    kind = dtypes.weak_type(leaf)
    if kind is None:
        return leaf, isinstance(leaf, Tracer) and leaf.weak
    return dtypes.python_dtype(kind).type(leaf), True


def is_weak(value: Any) -> bool:
    """Whether a value is a Python scalar or stands for one, so that it takes the dtype of what it meets."""
    return value.weak if isinstance(value, Tracer) else dtypes.weak_type(value) is not None


def weakened(values: Sequence[Any], weak: Sequence[bool]) -> Sequence[Any]:
    """The results of a staged call, with those that are Python scalars where it is not staged made so again."""
    return [_weaken(v) if w else v for v, w in zip(values, weak, strict=True)] if any(weak) else values


def _weaken(value):
    if isinstance(value, Tracer):
        value.weak = True
        return value
    return value.item() if hasattr(value, "item") else value


def as_weak(values: Sequence[Any], weak: Sequence[bool]) -> list[Any]:
    """Arguments of a user's function, with those that are Python scalars, or stand for one, made so again."""
    return [weak_copy(v) if w else v for v, w in zip(values, weak, strict=True)]


def weak_copy(value: Any) -> Any:
    """The Python scalar of `value`, or a weak tracer of it: `value` itself may be in use elsewhere, as an array."""
    known = value.weak if isinstance(value, Tracer) else getattr(value, "dtype", None) == dtypes.float0
    return value if known else _weaken(copy.copy(value))


def canonical_leaves(
    transform: str, fun: Callable[..., Any], leaves: Sequence[Any], paths: Callable[[], list[str]]
) -> tuple[list[Any], list[bool]]:
    """`canonical` for all leaves; a leaf that is no array raises with its path."""
    values, weak = [], []
    for i, leaf in enumerate(leaves):
        if type(leaf) is np.ndarray:
            values.append(leaf)
            weak.append(False)
            continue
        if isinstance(leaf, Tracer):
            values.append(leaf)
            weak.append(leaf.weak)
            continue
        if not is_value(leaf):
            leaf = _from_protocol(leaf)
            if leaf is None:
                raise ArgumentTypeError(
                    f"{transform}: `{paths()[i]}` of {name_of(fun)} is {_describe(leaves[i])}, expected an array or a "
                    f"number. {_WAYS_OUT.get(transform, _CLOSE_OVER)}"
                )
        value, is_weak = canonical(leaf)
        values.append(value)
        weak.append(is_weak)
    return values, weak


_CLOSE_OVER = "Close over it: lambda x: f(x, setting)."
_WAYS_OUT = {
    "jit": "Mark the argument that holds it with static_argnames=..., or close over it.",
    "grad": "Close over it, or hold it in a static field of an nn.Module.",
    "value_and_grad": "Close over it, or hold it in a static field of an nn.Module.",
}


def _from_protocol(leaf):
    if isinstance(leaf, str | bytes) or callable(leaf):
        return None
    if hasattr(leaf, "__dlpack__"):
        return np.from_dlpack(leaf)
    return np.asarray(leaf) if hasattr(leaf, "__array__") else None


def _describe(value):
    text = repr(value)
    return f"a {type(value).__name__} ({text if len(text) <= 40 else text[:37] + '...'})"


def type_text(value: Any) -> str:
    """A value by its type, for messages: None, `a dict`, `shape (3,)` of an array."""
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"an array of shape {tuple(shape)}"


def normalize_argnums(transform: str, fun: Callable[..., Any], argnums: Any, count: int) -> tuple[int, ...]:
    """`argnums` as non-negative positions, checked against the number of arguments given."""
    if type(argnums) is int and 0 <= argnums < count:
        return (argnums,)
    if not isinstance(argnums, int | np.integer) and not (
        isinstance(argnums, tuple | list) and all(isinstance(a, int | np.integer) for a in argnums)
    ):
        raise ArgumentTypeError(f"{transform}: argnums must be an int or a tuple of ints, got {argnums!r}.")
    numbers = (argnums,) if isinstance(argnums, int | np.integer) else tuple(argnums)
    for a in numbers:
        if not -count <= a < count:
            raise ArgumentError(
                f"{transform}: argnums names argument {a}, but {name_of(fun)} was called with {count} positional "
                f"argument{'s' * (count != 1)}."
            )
    return tuple(int(a) % count for a in numbers)


def check_callable(transform: str, fun: Any) -> None:
    """Refuse a first argument that is no function."""
    if not callable(fun):
        raise ArgumentTypeError(f"{transform}: expected a function, got {_describe(fun)}.")


LEAF = tree.structure(0)
"""The structure of a single leaf."""


class Flattener:
    """`tree.flatten` of values that mostly have the structure of the one before, whose leaves are found much sooner.

    Remembered are structures of lists and tuples alone (`flatten_up_to` takes one kind of dictionary for another), and
    only where all leaves are arrays (nothing else says that a leaf is no subtree).
    """

    __slots__ = ("_known",)

    def __init__(self):
        self._known: tree.TreeDef | None = None

    def __call__(self, value: Any) -> tuple[list[Any], tree.TreeDef]:
        """The leaves of `value` in order, and its structure."""
        known = self._known
        if known is not None:
            try:
                leaves = known.flatten_up_to(value)
            except ValueError:  # it has another structure
                leaves = []
            if leaves and all([type(x) is np.ndarray for x in leaves]):
                return leaves, known
        leaves, treedef = tree.flatten(value)
        self._known = treedef if _is_of_lists(treedef) else None
        return leaves, treedef


def _is_of_lists(treedef):
    return treedef.is_leaf() or (treedef.type in (list, tuple) and all(map(_is_of_lists, treedef.children())))


class FlatFunction:
    """`fun` of pytrees as a function of flat leaves; the structure of its last result is kept in `out_tree`."""

    __slots__ = ("fun", "rebuild", "out_tree")

    def __init__(self, fun: Callable[..., Any], rebuild: Callable[[Sequence[Any]], tuple[Any, dict[str, Any]]]):
        self.fun = fun
        self.rebuild = rebuild
        self.out_tree: Any = None

    def __call__(self, *leaves: Any) -> list[Any]:
        args, kwargs = self.rebuild(leaves)
        out = self.fun(*args, **kwargs)
        if isinstance(out, Tracer):
            self.out_tree = LEAF
            return [out]
        trace = staging_trace()
        out, self.out_tree = tree.flatten(out) if trace is None else trace.trees.flatten(out)
        return list(out)


def check_outputs(
    transform: str, fun: Callable[..., Any], outs: Sequence[Any], out_tree: Any, count: int | None = None
) -> None:
    """Refuse a result whose leaves (the first `count`) are something else than arrays and numbers, naming the path."""
    for i, leaf in enumerate(outs[:count]):
        if not isinstance(leaf, Tracer) and not is_value(leaf):
            path = tree.paths(tree.unflatten(out_tree, list(range(len(outs)))))[i]
            raise ArgumentTypeError(
                f"{transform}: {name_of(fun)} returned {_describe(leaf)} at `output{path}`, "
                "expected arrays or numbers. Return it some other way, or None in its place."
            )


def leaf_types(
    transform: str, fun: Callable[..., Any], leaves: Sequence[Any], paths: Callable[[], list[str]]
) -> tuple[tuple[Any, ...], ...]:
    """(shape, dtype, is weak) of each leaf: an array, a number, or anything with shape and dtype."""
    def of(i: int, leaf: Any) -> tuple[Any, ...]:
        if isinstance(leaf, ShapeDtype) or (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            return tuple(leaf.shape), leaf.dtype, isinstance(leaf, Tracer) and leaf.weak
        (value,), (weak,) = canonical_leaves(transform, fun, [leaf], lambda: [paths()[i]])
        return value.shape, value.dtype, weak

    return tuple([(leaf.shape, leaf.dtype, False) if type(leaf) is np.ndarray else of(i, leaf)
                  for i, leaf in enumerate(leaves)])
