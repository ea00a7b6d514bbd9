# SPDX-License-Identifier: MIT
"""Blocks of a network that `jit` traces once, however many equal ones there are.

    class TransformerEncoderLayer(Module):
        @traced_once
        def __call__(self, x, mask=None, *, is_causal=False): ...

In a staged function, the call of a block is the call of a program, which equal blocks (of one class, the same static
fields, shapes and dtypes) share. Nothing else changes: the keys of a forward pass are numbered as without, and a block
is traced where it stands if it has buffers that a pass may change, or holds a function or a module that is not of this
package, which may do more than compute.

Your own block does the same with the decorator, which says that its `__call__` does nothing but compute.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.config import config
from functorch_lite.core.staging import StagingTrace, staging_trace
from functorch_lite.core.tracer import Tracer
from functorch_lite.nn.context import Pass, forward_pass, in_pass, pass_variable
from functorch_lite.nn.module import Module
from functorch_lite.transforms.repeated import call_repeated

_PACKAGE = __name__.split(".")[0]
_PLAIN = (type(None), bool, int, float, str)


def traced_once(call: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a block's `__call__`: `jit` traces it once for equal blocks, which take arrays and plain values.

    For what only computes: a side effect in it, such as a print, happens once for all of them. A block that holds
    modules or functions of yours without the decorator is traced each time.

    >>> from functorch_lite import jit, make_program, nn, random
    >>> class Block(nn.Module):
    ...     linear: nn.Linear
    ...     @nn.traced_once
    ...     def __call__(self, x):
    ...         return x + nn.relu(self.linear(x))
    >>> model = nn.Sequential(*[Block(nn.Linear(4, 4, key=key)) for key in random.split(random.key(0), 24)])
    >>> program = make_program(model)(np.ones(4, np.float32))
    >>> len(program.equations), len({id(e.params["program"]) for e in program.equations})
    (24, 1)
    """

    @functools.wraps(call)
    def block(self: Module, *args: Any, **kwargs: Any) -> Any:
        trace = staging_trace()
        if trace is None or config.check_key_reuse:
            return call(self, *args, **kwargs)
        current, (leaves, treedef) = forward_pass(), tree.flatten(self)
        if not all(map(_is_simple, (*args, *kwargs.values()))) or not is_known(self, treedef, current is not None):
            return call(self, *args, **kwargs)
        return _call(trace, call, type(self).__name__, leaves, treedef, args, kwargs, current)

    block.is_traced_once = True  # type: ignore[attr-defined]
    return block


def _is_simple(value: Any) -> bool:
    return type(value) in _PLAIN or isinstance(value, Tracer | np.ndarray)


def _call(
    trace: StagingTrace, call: Callable[..., Any], name: str, leaves: list[Any], treedef: Any, args: Any,
    kwargs: Any, current: Pass | None,
) -> Any:
    given = [*args, *kwargs.values()]
    static = tuple([(type(v), v) if type(v) in _PLAIN else None for v in given])
    arrays = [v for v in given if type(v) not in _PLAIN]
    names, n, m = tuple(kwargs), len(leaves), len(args)
    keys = [] if current is None or current.key is None else [current.key, np.uint32(current.n_keys)]

    def fun(*values):
        left = iter(values[n : n + len(arrays)])
        filled = [next(left) if s is None else s[1] for s in static]
        module, named = tree.unflatten(treedef, values[:n]), dict(zip(names, filled[m:], strict=True))
        with in_pass(current, *values[n + len(arrays) :]) as inner:
            out = call(module, *filled[:m], **named)
        return out, 0 if inner is None else inner.n_keys

    key = (call, treedef, static, names, m, None if current is None else (current.training, bool(keys)))
    out, used = call_repeated(trace, fun, key, [*leaves, *arrays, *keys], name=name, apart=(pass_variable,))
    if current is not None:
        current.n_keys += used
    return out


# --- what may be shared -----------------------------------------------------------------------------------------------


def is_known(module: Module, treedef: Any, in_pass: bool) -> bool:
    """Whether a module and all in it is of this package, and in a forward pass holds no buffers."""
    key = treedef, in_pass
    found = _known.get(key)
    if found is None:
        found = _known[key] = _is_ours(module) and not (in_pass and _has_buffers(module))
        if len(_known) > 1000:
            _known.pop(next(iter(_known)))
    return found


_known: dict[Any, bool] = {}


def _is_ours(value: Any) -> bool:
    """Whether a module's class, the functions in its static fields, and all inside it only compute: they are of this
    package or NumPy, or say so."""
    if isinstance(value, Module):
        return _is_pure(type(value)) and all(map(_is_ours, vars(value).values()))
    if isinstance(value, list | tuple):
        return all(map(_is_ours, value))
    if isinstance(value, dict):
        return all(map(_is_ours, value.values()))
    if callable(value) and not isinstance(value, type | np.ufunc | types.BuiltinFunctionType):
        return _is_defined_here(value)
    return True


def _is_pure(cls: type) -> bool:
    return _is_defined_here(cls) or getattr(vars(cls).get("__call__"), "is_traced_once", False)


def _is_defined_here(thing: Any) -> bool:
    """Whether a class or function stands at the top level of one of this package's files."""
    inside = getattr(thing, "__module__", "").split(".")[0] == _PACKAGE
    return inside and "<locals>" not in getattr(thing, "__qualname__", "<locals>")


def _has_buffers(value: Any) -> bool:
    if isinstance(value, Module):
        return bool(value._buffer_names) or any(map(_has_buffers, vars(value).values()))
    if isinstance(value, list | tuple):
        return any(map(_has_buffers, value))
    return isinstance(value, dict) and any(map(_has_buffers, value.values()))
