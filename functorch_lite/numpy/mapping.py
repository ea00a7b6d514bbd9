# SPDX-License-Identifier: MIT
"""Functions of slices applied along axes, and functions of elements applied to whole arrays."""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.numpy import shaping
from functorch_lite.numpy.axes import normal_axis
from functorch_lite.numpy.creation import asarray
from functorch_lite.numpy.dispatch import public
from functorch_lite.transforms.vmap import vmap

_GROUP = r"\(\s*(?:\w+\s*(?:,\s*\w+\s*)*)?\)"
_GROUPS = rf"\s*{_GROUP}(?:\s*,\s*{_GROUP})*\s*"
Dims = tuple[str, ...]


@public(np.apply_along_axis)
def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """`func1d(slice, *args, **kwargs)` of all 1-D slices along an axis.

    The axes of its result stand in the place of that axis. It is called once, with what stands for all slices.
    """
    x = asarray(arr)
    axis, others = normal_axis(axis, len(x.shape)), len(x.shape) - 1
    fun = functools.reduce(lambda f, _: vmap(f), range(others), lambda row: asarray(func1d(row, *args, **kwargs)))
    out = fun(shaping.moveaxis(x, axis, -1))
    of_result = range(others, len(out.shape))
    return shaping.moveaxis(out, tuple(of_result), tuple(k - others + axis for k in of_result))


@public(np.apply_over_axes)
def apply_over_axes(func: Callable[[Any, int], Any], a: Any, axes: Any) -> Any:
    """`func(a, axis)` for one axis after the other; where a result has lost the axis, it is put back with size 1."""
    x = asarray(a)
    for axis in axes if isinstance(axes, Sequence | np.ndarray) else (axes,):
        axis = normal_axis(int(axis), len(x.shape))
        found = asarray(func(x, axis))
        if len(found.shape) not in (len(x.shape) - 1, len(x.shape)):
            raise ShapeError(f"apply_over_axes: `func` gave shape {found.shape} for an array of shape {x.shape}.")
        x = found if len(found.shape) == len(x.shape) else shaping.expand_dims(found, axis)
    return x


def vectorize(
    pyfunc: Callable[..., Any], *, excluded: Iterable[int | str] = (), signature: str | None = None
) -> Callable[..., Any]:
    """A function of single elements, or of the arrays that `signature` tells, as one of arrays that broadcast.

    signature: the dimensions of an element of each argument and result, "(m,n),(n)->(m)"; without one, all are
    scalars. excluded: positions of arguments, and names of keyword arguments, that are handed on as they are. The
    function is called once, with what stands for all elements, and may be differentiated, batched and compiled.
    Source: NumPy, generalized universal function API.

    >>> distance = vectorize(lambda x, y: np.sqrt(np.sum((x - y) ** 2)), signature="(n),(n)->()")
    >>> distance(np.zeros((2, 1, 2)), np.array([[3.0, 4.0], [6.0, 8.0]]))
    array([[ 5., 10.],
           [ 5., 10.]])

    Raises ShapeError where dimensions of one name differ or arguments do not broadcast, ArgumentError for a signature
    that cannot be read or does not fit the arguments.
    """
    inputs, outputs = (None, None) if signature is None else _parsed(signature)
    kept = frozenset(excluded)

    @functools.wraps(pyfunc)
    def vectorized(*args: Any, **kwargs: Any) -> Any:
        unknown = sorted(kwargs.keys() - kept)
        if unknown:
            raise ArgumentError(f"vectorize: `{unknown[0]}` was given by name. Give it by position, or exclude it.")
        mapped = [k for k in range(len(args)) if k not in kept]
        dims = [()] * len(mapped) if inputs is None else inputs
        if len(dims) != len(mapped):
            raise ArgumentError(f"vectorize: {signature!r} is for {len(dims)} arguments, got {len(mapped)}.")

        def of_elements(*elements: Any) -> Any:
            given = dict(zip(mapped, elements, strict=True))
            return pyfunc(*[given.get(k, a) for k, a in enumerate(args)], **kwargs)

        return _mapped(of_elements, [asarray(args[k]) for k in mapped], dims, outputs)

    return vectorized


def _parsed(signature: str) -> tuple[list[Dims], list[Dims]]:
    """The dimensions of the arguments and of the results."""
    if not re.fullmatch(f"{_GROUPS}->{_GROUPS}", signature):
        raise ArgumentError(f"vectorize: {signature!r} is no signature such as '(m,n),(n)->(m)'.")
    inputs, outputs = ([tuple(re.findall(r"\w+", group)) for group in re.findall(_GROUP, side)]
                       for side in signature.split("->"))
    return inputs, outputs


def _mapped(fun: Callable[..., Any], arrays: list[Any], dims: list[Dims], outputs: list[Dims] | None) -> Any:
    """`fun` of the elements of arrays, of which an axis of size 1 is shared by all along it."""
    sizes: dict[str, int] = {}
    for x, names in zip(arrays, dims, strict=True):
        _note_sizes(sizes, x.shape, names)
    cores = [x.shape[len(x.shape) - len(names) :] for x, names in zip(arrays, dims, strict=True)]
    loops = [x.shape[: len(x.shape) - len(names)] for x, names in zip(arrays, dims, strict=True)]
    try:
        shape = np.broadcast_shapes(*loops)
    except ValueError:
        raise ShapeError(f"vectorize: the arguments do not broadcast: {', '.join(map(str, loops))}.") from None
    aligned = [(1,) * (len(shape) - len(loop)) + loop for loop in loops]
    rows = [shaping.reshape(x, (*[n for n in loop if n != 1], *core))
            for x, loop, core in zip(arrays, aligned, cores, strict=True)]
    fun = _checked(fun, sizes, outputs)
    shared = [k for k, n in enumerate(shape) if n == 1]
    for k in reversed(range(len(shape))):
        if k not in shared:
            fun = vmap(fun, tuple(0 if loop[k] != 1 else None for loop in aligned))
    return tree.map(lambda x: shaping.expand_dims(x, tuple(shared)), fun(*rows))


def _note_sizes(sizes: dict[str, int], shape: tuple[int, ...], names: Dims) -> None:
    if len(shape) < len(names):
        raise ShapeError(f"vectorize: expected an array with dimensions ({','.join(names)}), got shape {shape}.")
    for name, n in zip(names, shape[len(shape) - len(names) :], strict=True):
        if sizes.setdefault(name, n) != n:
            raise ShapeError(f"vectorize: dimension {name} is {sizes[name]} in one argument and {n} in another.")


def _checked(fun: Callable[..., Any], sizes: dict[str, int], outputs: list[Dims] | None) -> Callable[..., Any]:
    """`fun`, whose results must have the dimensions that the signature tells; scalars without one."""

    def of_elements(*elements: Any) -> Any:
        found = fun(*elements)
        results = [asarray(x) for x in (found if isinstance(found, tuple) else (found,))]
        wanted = [()] * len(results) if outputs is None else outputs
        if len(results) != len(wanted):
            raise ShapeError(f"vectorize: expected {len(wanted)} results, got {len(results)}.")
        for x, names in zip(results, wanted, strict=True):
            if len(x.shape) != len(names) or any(sizes.get(d, n) != n for d, n in zip(names, x.shape, strict=True)):
                raise ShapeError(f"vectorize: expected a result with dimensions ({','.join(names)}), got {x.shape}.")
        return tuple(results) if isinstance(found, tuple) else results[0]

    return of_elements
