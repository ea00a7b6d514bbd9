# SPDX-License-Identifier: MIT
"""Index maps of movement operations that keep axes whole: which axis of the operand is which axis of the output.

`axis_map(equation)` tells, for each axis of the operand, the output axis that walks it and by how many elements, so a
chain of such operations is one map from a base array, and costs nothing.
"""

import functools
from typing import NamedTuple

from functorch_lite.core.program import Equation
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.movement import permute_dims_p, reshape_p, rev_p, slice_p


class AxisMap(NamedTuple):
    """axes[d]: the output axis that walks axis d of the base, or -1 where that has one element to read.

    steps[d]: elements of axis d for one step of that output axis. whole: nothing is cut off, turned or skipped.
    """

    axes: tuple[int, ...]
    steps: tuple[int, ...]
    whole: bool


@functools.cache
def identity_map(ndim: int) -> AxisMap:
    """The map of an array to itself."""
    return AxisMap(tuple(range(ndim)), (1,) * ndim, True)


def axis_map(equation: Equation) -> AxisMap | None:
    """The map of a movement equation with one operand, or None where axes are merged or split."""
    rule = _MAPS.get(equation.prim)
    return rule(equation.inputs[0].aval.shape, equation.outputs[0].aval.shape, **equation.params) if rule else None


def compose(inner: AxisMap, outer: AxisMap) -> AxisMap:
    """From a base through `inner` to a middle array, then through `outer` (a map of the middle) to the output."""
    axes, steps = [], []
    for axis, step in zip(inner.axes, inner.steps, strict=True):
        through = outer.axes[axis] if axis >= 0 else -1
        axes.append(through)
        steps.append(step * outer.steps[axis] if through >= 0 else 1)
    return AxisMap(tuple(axes), tuple(steps), inner.whole and outer.whole)


def _broadcast(shape, out, /, *, dims, **params):
    axes = tuple(-1 if n == 1 and out[d] != 1 else d for n, d in zip(shape, dims, strict=True))
    return AxisMap(axes, (1,) * len(shape), True)


def _permute(shape, out, /, *, axes):
    place = [0] * len(axes)
    for new, old in enumerate(axes):
        place[old] = new
    return AxisMap(tuple(place), (1,) * len(axes), True)


def _reshape(shape, out, /, **params):
    """Only axes of size 1 come or go."""
    kept = [(d, n) for d, n in enumerate(shape) if n != 1]
    new = [(d, n) for d, n in enumerate(out) if n != 1]
    if [n for _, n in kept] != [n for _, n in new]:
        return None
    axes = [-1] * len(shape)
    for (old, _), (d, _) in zip(kept, new, strict=True):
        axes[old] = d
    return AxisMap(tuple(axes), (1,) * len(shape), True)


def _slice(shape, out, /, *, start, limit, strides):
    steps = tuple(strides) if strides is not None else (1,) * len(shape)
    return AxisMap(tuple(range(len(shape))), steps, shape == out)


def _rev(shape, out, /, *, axes):
    return AxisMap(tuple(range(len(shape))), tuple(-1 if d in axes else 1 for d in range(len(shape))), False)


_MAPS = {
    broadcast_in_dim_p: _broadcast, permute_dims_p: _permute, reshape_p: _reshape, slice_p: _slice, rev_p: _rev,
}
