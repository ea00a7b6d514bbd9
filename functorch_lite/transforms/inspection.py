# SPDX-License-Identifier: MIT
"""Seeing what a function does without running it: its program, its output types, what it closes over."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite import tree
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.program import Program
from functorch_lite.transforms.arguments import (
    ShapeDtype,
    canonical,
    check_callable,
    leaf_paths,
    leaf_types,
)
from functorch_lite.transforms.jit import Jitted


def make_program(fun: Callable[..., Any], static_argnums: int | Sequence[int] = ()) -> Callable[..., Program]:
    """The program that `fun` is for given arguments (arrays, or anything with shape and dtype): printable, checkable.

    Captured arrays above 4 KB come first among its inputs.
    """
    check_callable("make_program", fun)
    jitted = Jitted(fun, static_argnums, (), (), (), None)

    @functools.wraps(fun)
    def program_of(*args, **kwargs):
        dynamic, static = jitted._split(args, kwargs)
        leaves, treedef = tree.flatten(dynamic, is_leaf=lambda x: isinstance(x, ShapeDtype))
        types = leaf_types("make_program", fun, leaves, functools.partial(jitted._paths, args, kwargs))
        return jitted._stage(types, treedef, static, args)[1].program

    return program_of


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The structure, shapes and dtypes of `fun(*args, **kwargs)`, without computing it.

    Arguments are arrays or anything with shape and dtype.
    """
    check_callable("eval_shape", fun)
    jitted = Jitted(fun, (), (), (), (), None)
    leaves, treedef = tree.flatten((args, kwargs), is_leaf=lambda x: isinstance(x, ShapeDtype))
    types = leaf_types("eval_shape", fun, leaves, functools.partial(jitted._paths, args, kwargs))
    flat_fun, staged, _ = jitted._stage(types, treedef, (), args)
    return tree.unflatten(flat_fun.out_tree, [ShapeDtype(a.shape, a.dtype) for a in staged.program.out_avals])


def closure_convert(fun: Callable[..., Any], *example_args: Any) -> tuple[Callable[..., Any], list[Any]]:
    """`fun` with the arrays it closes over made arguments: (converted, captured), where
    `converted(*args, *captured)` equals `fun(*args)`."""
    check_callable("closure_convert", fun)
    jitted = Jitted(fun, (), (), (), (), None)
    leaves, treedef = tree.flatten((example_args, {}))
    types = leaf_types("closure_convert", fun, leaves, functools.partial(leaf_paths, fun, example_args))
    flat_fun, staged, _ = jitted._stage(types, treedef, (), example_args)
    n = len(staged.captured)

    def converted(*args):
        positional = args[: len(args) - n] if n else args
        flat = [canonical(v)[0] for v in tree.leaves((positional, {}))]
        outs = interpret(staged.program, [*args[len(args) - n :], *flat] if n else flat)
        return tree.unflatten(flat_fun.out_tree, outs)

    return converted, staged.captured
