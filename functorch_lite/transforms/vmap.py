# SPDX-License-Identifier: MIT
"""vmap: a function of one example becomes a function of a batch, without a Python loop."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.core.aval import aval_of
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ShapeError
from functorch_lite.primitives.movement import concatenate, moveaxis, slice_in_axis
from functorch_lite.transforms.arguments import (
    FlatFunction,
    argument_names,
    canonical_leaves,
    check_callable,
    check_outputs,
    leaf_paths,
    name_of,
    quiet,
)
from functorch_lite.transforms.batching import batch_flat, materialize


def vmap(
    fun: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0, axis_name: Any = None, axis_size: int | None = None,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """`fun` mapped over an axis of its arguments.

    in_axes: an int (which may be negative) or None (not mapped), or a pytree prefix of the positional arguments with
    these as leaves; keyword arguments are mapped over axis 0. out_axes: likewise for the result.
    axis_name: a name by which collectives (`lax.psum`) refer to the mapped axis.
    chunk_size: map over at most so many rows at a time, to bound memory.

    >>> vmap(lambda x, y: x * y, in_axes=(0, None))(np.arange(3.0), 2.0)
    array([0., 2., 4.])

    Raises: ShapeError when mapped axes differ in size, TreeError when in_axes or out_axes is no prefix.
    """
    check_callable("vmap", fun)
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)

    @functools.wraps(fun)
    def batched(*args, **kwargs):
        leaves, treedef = tree.flatten((args, kwargs))
        paths = functools.partial(leaf_paths, fun, args, kwargs)
        axes = _in_axes(fun, in_axes, args, kwargs)
        values, _ = canonical_leaves("vmap", fun, leaves, paths)
        axes = [_normalize(a, v, i, paths) for i, (a, v) in enumerate(zip(axes, values, strict=True))]
        size = _mapped_size(values, axes, axis_size, paths)
        front = [v if a is None else moveaxis(v, a, 0) for v, a in zip(values, axes, strict=True)]
        flags = [a is not None for a in axes]
        flat_fun = FlatFunction(fun, lambda flat: tree.unflatten(treedef, flat))

        def run(rows, count):
            outs, out_flags = batch_flat(
                flat_fun, rows, flags, size=count, axis_name=axis_name, name=name_of(fun), paths=paths
            )
            check_outputs("vmap", fun, outs, flat_fun.out_tree)
            return outs, out_flags

        with quiet():
            outs, out_flags = run(front, size) if chunk_size is None else _chunked(run, front, flags, size, chunk_size)
            return _place(fun, outs, out_flags, flat_fun.out_tree, out_axes, size)

    return batched


def _in_axes(fun, in_axes, args, kwargs) -> list[Any]:
    if in_axes is None or isinstance(in_axes, int):
        return [in_axes] * tree.structure(args).num_leaves + [0] * tree.structure(kwargs).num_leaves
    if not isinstance(in_axes, tuple):
        raise ArgumentTypeError(f"vmap: in_axes must be an int, None, or a tuple, got {in_axes!r}.")
    if len(in_axes) != len(args):
        raise ArgumentError(
            f"vmap: in_axes has {len(in_axes)} entries, but {name_of(fun)} was called with {len(args)} positional "
            "arguments. Give one entry for each: an axis, or None for what is not mapped."
        )
    axes = []
    for name, prefix, arg in zip(argument_names(fun, len(args)), in_axes, args, strict=True):
        axes += tree.broadcast_prefix(prefix, arg, what=f"vmap: in_axes for `{name}`")
    return axes + [0] * tree.structure(kwargs).num_leaves


def _normalize(axis, value, i, paths):
    if axis is None:
        return None
    shape = aval_of(value).shape
    if not isinstance(axis, int | np.integer):
        raise ArgumentTypeError(f"vmap: in_axes for `{paths()[i]}` must be an int or None, got {axis!r}.")
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(
            f"vmap: axis {axis} of `{paths()[i]}` does not exist: it has shape {shape}. "
            "Use in_axes=None for what is not mapped."
        )
    return int(axis) % len(shape)


def _mapped_size(values, axes, axis_size, paths) -> int:
    sizes = [(i, a, v.shape[a]) for i, (v, a) in enumerate(zip(values, axes, strict=True)) if a is not None]
    if axis_size is None:
        if not sizes:
            raise ArgumentError("vmap: no argument is mapped: give at least one in_axes entry, or axis_size.")
        axis_size = sizes[0][2]
    bad = [s for s in sizes if s[2] != axis_size]
    if bad:
        names = paths()
        one = f"`{names[sizes[0][0]]}` axis {sizes[0][1]} has {sizes[0][2]}" if sizes[0] is not bad[0] else (
            f"axis_size is {axis_size}"
        )
        raise ShapeError(
            f"vmap: mapped axes differ in size: argument {one}, `{names[bad[0][0]]}` axis {bad[0][1]} has {bad[0][2]}. "
            "Use in_axes=None for what is not mapped."
        )
    return axis_size


def _chunked(run, front: Sequence[Any], flags: Sequence[bool], size: int, chunk_size: int):
    if chunk_size < 1:
        raise ArgumentError(f"vmap: chunk_size must be at least 1, got {chunk_size}.")
    pieces = []
    for start in range(0, max(size, 1), chunk_size):
        stop = min(start + chunk_size, size)
        rows = [slice_in_axis(v, start, stop, 0) if f else v for v, f in zip(front, flags, strict=True)]
        pieces.append(run(rows, stop - start))
    out_flags = pieces[0][1]
    columns = zip(*(outs for outs, _ in pieces), strict=True)
    return [concatenate(c, 0) if f else c[0] for c, f in zip(columns, out_flags, strict=True)], out_flags


def _place(fun, outs, out_flags, out_tree, out_axes, size):
    """Move the mapped axis of each output to its place; an unmapped output is repeated where an axis is wanted."""
    result = tree.unflatten(out_tree, outs)
    if out_axes is None or isinstance(out_axes, int):
        axes = [out_axes] * len(outs)
    else:
        axes = tree.broadcast_prefix(out_axes, result, what="vmap: out_axes")
    placed = []
    for i, (out, flag, axis) in enumerate(zip(outs, out_flags, axes, strict=True)):
        if axis is None:
            if flag:
                path = tree.paths(result)[i]
                raise ArgumentError(
                    f"vmap: out_axes is None for `output{path}` of {name_of(fun)}, but it differs between rows. "
                    "Give it an axis."
                )
            placed.append(out)
            continue
        out = out if flag else materialize(out, size)
        n = len(out.shape)
        if not -n <= axis < n:
            raise ShapeError(
                f"vmap: out_axes {axis} for `output{tree.paths(result)[i]}` of {name_of(fun)} does not exist: "
                f"with the mapped axis it has {n} dimension{'s' * (n != 1)}. Use -{n} to {n - 1}."
            )
        placed.append(moveaxis(out, 0, axis % n))
    return tree.unflatten(out_tree, placed)
