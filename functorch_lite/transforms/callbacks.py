# SPDX-License-Identifier: MIT
"""Python from inside a transformed function: pure_callback, and the debug functions that print, call and stop."""

import builtins
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.core.aval import Aval
from functorch_lite.core.tracer import bind, root, tracing
from functorch_lite.errors import ArgumentError
from functorch_lite.primitives.host import debug_callback_p, pure_callback_p
from functorch_lite.transforms.arguments import canonical_leaves, check_callable, leaf_paths, name_of


def pure_callback(
    callback: Callable[..., Any], result_shape_dtypes: Any, *args: Any, vmap_method: str = "sequential", **kwargs: Any
) -> Any:
    """`callback(*args, **kwargs)`, called on arrays when the program runs.

    result_shape_dtypes: a pytree of what it returns; each leaf has shape and dtype (an array, or `ShapeDtype`).
    vmap_method: "sequential" calls it once a row; "expand_dims" or "broadcast_all" calls it once with a leading axis.

    Raises: ShapeError or DTypeError when a result is not what was announced; the callback's own exceptions.
    """
    check_callable("pure_callback", callback)
    if vmap_method not in ("sequential", "expand_dims", "broadcast_all"):
        raise ArgumentError(f"pure_callback: vmap_method {vmap_method!r} is not 'sequential', 'expand_dims' or "
                            "'broadcast_all'.")
    leaves, treedef = tree.flatten((args, kwargs))
    paths = functools.partial(leaf_paths, callback, args, kwargs)
    values, _ = canonical_leaves("pure_callback", callback, leaves, paths)
    wanted, out_tree = tree.flatten(result_shape_dtypes, is_leaf=lambda x: hasattr(x, "shape") and hasattr(x, "dtype"))
    out_avals = tuple(Aval(tuple(w.shape), np.dtype(w.dtype)) for w in wanted)

    def flat(*arrays):
        positional, named = tree.unflatten(treedef, arrays)
        result = callback(*positional, **named)
        found, found_tree = tree.flatten(result)
        if found_tree != out_tree:
            message = tree.first_difference(tree.unflatten(out_tree, [0.0] * len(wanted)), result)
            raise ArgumentError(
                f"pure_callback: {name_of(callback)} returned another structure than announced: {message}"
            )
        return [np.asarray(f) if not hasattr(f, "dtype") else f for f in found]

    outs = bind(
        pure_callback_p, *values, callback=flat, out_avals=out_avals, vectorized=vmap_method != "sequential"
    )
    return tree.unflatten(out_tree, outs)


class debug:
    """Looking inside a transformed function: effects that run in program order, once a row under vmap."""

    @staticmethod
    def callback(callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call `callback(*args, **kwargs)` with arrays when the program passes here; its result is dropped."""
        check_callable("debug.callback", callback)
        leaves, treedef = tree.flatten((args, kwargs))
        is_traced = [hasattr(x, "dtype") for x in leaves]
        values = [x for x, t in zip(leaves, is_traced, strict=True) if t]

        def flat(*arrays):
            it = iter(arrays)
            full = [next(it) if t else x for x, t in zip(leaves, is_traced, strict=True)]
            positional, named = tree.unflatten(treedef, full)
            callback(*positional, **named)

        bind(debug_callback_p, *values, callback=flat)

    @staticmethod
    def print(fmt: str, *args: Any, **kwargs: Any) -> None:
        """Print `fmt.format(*args, **kwargs)` when the program passes here.

        >>> debug.print("x = {}", 3)
        x = 3
        """
        debug.callback(lambda *a, **k: builtins.print(fmt.format(*a, **k), flush=True), *args, **kwargs)

    @staticmethod
    def breakpoint(*args: Any, **kwargs: Any) -> None:
        """Stop in Python's debugger when the program passes here, with the values given as `args` and `kwargs`."""
        debug.callback(_stop, *args, **kwargs)


def _stop(*args, **kwargs):
    builtins.breakpoint()


def ensure_compile_time_eval() -> Any:
    """A context in which operations on arrays run at once, even while a function is being staged.

    >>> with ensure_compile_time_eval():
    ...     n = int(np.sum(np.arange(3)))
    """
    return tracing(root)
