# SPDX-License-Identifier: MIT
"""What an index expression selects: `x[i, :, None, mask, ...]` as a plan that lookups and updates share.

    box      a regular grid of each axis (integers and slices): a `slice` and a `rev`
    arrays   the axes indexed by integer arrays, which are broadcast together: a `gather` or a `scatter`
    layout   where the arrays' common shape lands among the other axes, and the new axes of size 1

The rules are NumPy's: an integer beside an array counts as an array; arrays that are not side by side put their common
shape in front.

Source: NumPy user guide, "Indexing on ndarrays".
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, BoundsError, ConcretizationError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.promotion import asarray, broadcast_shapes, broadcast_to, has_tracer

_MANY = 4096  # positions: fewer are not worth a look at them


class Entry(NamedTuple):
    """One item of an index expression.

    kind: "slice", "int", "array", "new" (an axis of size `value`) or "gap" (an ellipsis, which separates arrays).
    axis: the axis of the operand that it indexes, or -1.
    value: the slice's (start, count, step), the integer, the index array, or the size.
    """

    kind: str
    axis: int
    value: Any


def items_of(index: Any) -> tuple[Any, ...]:
    """An index expression as a tuple of items."""
    return index if isinstance(index, tuple) else (index,)


def _is_boolean(item: Any) -> bool:
    return isinstance(item, (bool, np.bool_)) or (hasattr(item, "dtype") and item.dtype == bool)


def _array_item(item: Any) -> Any:
    """The item as an index array, where it is not one of Python's own kinds of index."""
    if isinstance(item, (list, tuple)):
        item = np.zeros(0, np.intp) if not len(item) else asarray(item)
    if isinstance(item, np.generic) or (isinstance(item, np.ndarray) and not item.ndim and item.dtype != bool):
        item = np.asarray(item)[()]
        if isinstance(item, np.integer):
            return int(item)
    if not hasattr(item, "dtype"):
        raise BoundsError(
            f"only integers, slices, `...`, None, and integer or boolean arrays are indices, got {type(item).__name__}."
        )
    if item.dtype.kind not in "biu":
        raise BoundsError(f"an index array must be of integer or boolean dtype, got {item.dtype}.")
    return item


def _mask_arrays(mask: Any, axis: int, shape: tuple[int, ...]) -> list[Entry]:
    if isinstance(mask, Tracer):
        value = mask.concrete()
        if value is None:
            raise ConcretizationError(
                f"a boolean mask of {mask.aval} inside {mask.tag!r} selects a number of elements that is not known. "
                "Use fl.numpy.where(mask, x, 0), x.at[mask].set(v), or fl.numpy.nonzero(mask, size=n)."
            )
        mask = value
    if not mask.ndim:
        return [Entry("new", -1, int(mask))]
    covered = shape[axis : axis + mask.ndim]
    if mask.shape != covered:
        raise BoundsError(
            f"a boolean index of shape {mask.shape} does not match the axes of size {covered} it selects from."
        )
    return [Entry("array", axis + i, found) for i, found in enumerate(mask.nonzero())]


def _checked_int(i: int, n: int, axis: int) -> int:
    if not -n <= i < n:
        raise BoundsError(f"index {i} is out of bounds for axis {axis} with size {n}")
    return i + n if i < 0 else i


def _checked_array(index: Any, n: int, axis: int) -> Any:
    """A constant index array, non-negative and in bounds."""
    if index.size and (index.min() < -n or index.max() >= n):
        bad = index[(index < -n) | (index >= n)].ravel()[0]
        raise BoundsError(f"index {int(bad)} is out of bounds for axis {axis} with size {n}")
    index = index.astype(np.int64)
    return index + n * (index < 0) if index.size and index.min() < 0 else index


def _slice_entry(item: slice, axis: int, n: int) -> Entry:
    if has_tracer([item.start, item.stop, item.step]) and any(
        isinstance(v, Tracer) and v.concrete() is None for v in (item.start, item.stop, item.step)
    ):
        raise ConcretizationError(
            "a slice with traced bounds has a size that is not known. Use "
            "fl.lax.dynamic_slice_in_dim(x, start, size, axis), whose size is a Python integer."
        )
    start, stop, step = item.indices(n)
    return Entry("slice", axis, (start, len(range(start, stop, step)), step))


def _width(item: Any) -> int:
    if item is None or item is Ellipsis or isinstance(item, (bool, np.bool_)):
        return 0
    return item.ndim if _is_boolean(item) else 1


def parse(shape: tuple[int, ...], index: Any, checked: bool = True) -> list[Entry]:
    """The entries of an index expression on an array of `shape`; `checked`: refuse constants out of bounds."""
    items = [
        i if i is None or i is Ellipsis or type(i) in (int, slice, bool, np.bool_) else _array_item(i)
        for i in items_of(index)
    ]
    used = sum(_width(i) for i in items)
    if used > len(shape):
        raise BoundsError(f"too many indices: the array has {len(shape)} dimensions, but {used} were indexed")
    if sum(i is Ellipsis for i in items) > 1:
        raise BoundsError("an index can only have a single ellipsis ('...')")
    if not any(i is Ellipsis for i in items):
        items.append(Ellipsis)
    entries: list[Entry] = []
    axis = 0
    for item in items:
        if item is Ellipsis:
            entries.append(Entry("gap", -1, None))
            for _ in range(len(shape) - used):
                entries.append(Entry("slice", axis, (0, shape[axis], 1)))
                axis += 1
        elif item is None:
            entries.append(Entry("new", -1, 1))
        elif _is_boolean(item):
            mask = np.asarray(item) if isinstance(item, (bool, np.bool_)) else item
            found = _mask_arrays(mask, axis, shape)
            entries += found
            axis += mask.ndim
        else:
            entries.append(_axis_entry(item, axis, shape[axis], checked))
            axis += 1
    return entries


def _axis_entry(item, axis, n, checked):
    if type(item) is slice:
        return _slice_entry(item, axis, n)
    if type(item) is int:
        if checked:
            return Entry("int", axis, _checked_int(item, n, axis))
        return Entry("int", axis, item) if 0 <= item < n else Entry("array", axis, np.int64(item))
    if checked and isinstance(item, np.ndarray):
        item = _checked_array(item, n, axis)
    return Entry("array", axis, item)


class Plan(NamedTuple):
    """An index expression on an array of `shape`, taken apart.

    start, count, step: the box (step may be negative); an array's axis is whole.
    kept: the axes with a slice, in order.
    arrays: (axis, index array) in order; common: the shape they broadcast to.
    position: how many of the kept axes come before the arrays' common shape in the result.
    shape_out: the result's shape, new axes included; shape_flat: without them.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    count: tuple[int, ...]
    step: tuple[int, ...]
    kept: tuple[int, ...]
    arrays: tuple[tuple[int, Any], ...]
    common: tuple[int, ...]
    position: int
    shape_out: tuple[int, ...]
    shape_flat: tuple[int, ...]

    @property
    def is_static(self) -> bool:
        """Whether every index array is a constant, checked against its bounds."""
        return not any(isinstance(a, Tracer) for _, a in self.arrays)


def make_plan(shape: tuple[int, ...], index: Any, checked: bool = True) -> Plan:
    """The plan of an index expression. Raises BoundsError (an IndexError) as NumPy does."""
    entries = parse(shape, index, checked)
    start, count, step = [0] * len(shape), list(shape), [1] * len(shape)
    kept, arrays = [], []
    for entry in entries:
        if entry.kind == "slice":
            start[entry.axis], count[entry.axis], step[entry.axis] = entry.value
            kept.append(entry.axis)
        elif entry.kind == "int":
            start[entry.axis], count[entry.axis] = entry.value, 1
        elif entry.kind == "array":
            arrays.append((entry.axis, entry.value))
    try:
        common = broadcast_shapes(*[a.shape for _, a in arrays]) if arrays else ()
    except ValueError:
        shapes = " ".join(str(a.shape) for _, a in arrays)
        raise BoundsError(
            f"shape mismatch: indexing arrays could not be broadcast together with shapes {shapes}"
        ) from None
    first = _place_of_arrays(entries) if arrays else 0
    out: list[int] = []
    flat: list[int] = []
    position = 0
    for place, entry in enumerate(entries):
        if arrays and place == first:
            position = len(flat)
            out += common
            flat += common
        if entry.kind == "slice":
            out.append(entry.value[1])
            flat.append(entry.value[1])
        elif entry.kind == "new":
            out.append(entry.value)
    return Plan(
        shape,
        tuple(start),
        tuple(count),
        tuple(step),
        tuple(kept),
        tuple(arrays),
        common,
        position,
        tuple(out),
        tuple(flat),
    )


def _place_of_arrays(entries):
    advanced = [i for i, entry in enumerate(entries) if entry.kind in ("array", "int")]
    together = advanced[-1] - advanced[0] + 1 == len(advanced)
    return advanced[0] if together else 0


# --- lookup -------------------------------------------------------------------------------------------------------


class Box(NamedTuple):
    """The arguments of the primitives that cut a box: slice (None: all of it), rev, and the shape after integers go."""

    cut: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None
    flipped: tuple[int, ...]
    shape: tuple[int, ...]


def make_box(plan: Plan) -> Box:
    """The box of a plan: the grid of the axes that have a slice or an integer."""
    low, high, strides, flipped = [], [], [], []
    for axis, (a, n, s) in enumerate(zip(plan.start, plan.count, plan.step, strict=True)):
        last = a + (n - 1) * s if n else a
        bottom = min(a, last) if n else 0
        low.append(bottom)
        high.append(max(a, last) + 1 if n else bottom)
        strides.append(abs(s))
        if s < 0 and n > 1:
            flipped.append(axis)
    whole = plan.count == plan.shape and all(s == 1 for s in plan.step)
    rest = tuple(n for axis, n in enumerate(plan.count) if axis in plan.kept or _is_array_axis(plan, axis))
    return Box(None if whole else (tuple(low), tuple(high), tuple(strides)), tuple(flipped), rest)


def cut_box(x: Any, box: Box) -> Any:
    """The part of x in the box, axes with an integer removed."""
    if box.cut is not None:
        x = e.slice(x, *box.cut)
        if box.flipped:
            x = e.rev(x, box.flipped)
    return x if box.shape == x.shape else e.reshape(x, box.shape)


@functools.lru_cache(4096)
def basic_box(shape: tuple[int, ...], key: tuple[Any, ...]) -> Box:
    """The box of an index of integers, slices, None and `...` (as `basic_key` gives it), new axes in its shape."""
    plan = make_plan(shape, tuple(slice(*k) if type(k) is tuple else k for k in key))
    return make_box(plan)._replace(shape=plan.shape_out)


_BOUNDS = (int, type(None))


def basic_key(index: Any) -> tuple[Any, ...] | None:
    """An index of integers, slices, None and `...` as something hashable; None for any other."""
    key = []
    for item in index if type(index) is tuple else (index,):
        kind = type(item)
        if kind is slice:
            item = (item.start, item.stop, item.step)
            if not all(type(v) in _BOUNDS for v in item):
                return None
        elif kind is not int and item is not None and item is not Ellipsis:
            return None
        key.append(item)
    return tuple(key)


def _is_array_axis(plan, axis):
    return any(axis == a for a, _ in plan.arrays)


def arrays_first(plan: Plan) -> tuple[int, ...]:
    """The permutation that brings the arrays' axes of a box to the front."""
    axes = [a for a in range(len(plan.shape)) if a in plan.kept or _is_array_axis(plan, a)]
    front = [axes.index(a) for a, _ in plan.arrays]
    return (*front, *[i for i in range(len(axes)) if i not in front])


def index_arrays(plan: Plan) -> list[Any]:
    """The index arrays, broadcast to their common shape."""
    return [a if a.shape == plan.common else _spread(a, plan.common) for _, a in plan.arrays]


def _spread(index, shape):
    if isinstance(index, Tracer):
        return broadcast_to(index, shape)
    return np.broadcast_to(_short(index) if math.prod(shape) >= _MANY else index, shape)


def _short(index):
    """Known positions in the shortest dtype that has them: where they are repeated, time goes by bytes."""
    if not index.size:
        return index
    least, largest = int(index.min()), int(index.max())
    return index.astype(np.min_scalar_type(min(least, -largest - 1)))


def common_to_position(plan: Plan) -> tuple[int, ...]:
    """The permutation from (common shape, kept axes) to the result's order."""
    n, k, p = len(plan.common), len(plan.kept), plan.position
    return (*range(n, n + p), *range(n), *range(n + p, n + k))


_MODES = {None: "raise", "promise_in_bounds": "unchecked", "drop": "fill"}


def mode_of(mode: str | None) -> str:
    """The primitives' name of an out-of-bounds mode."""
    mode = _MODES.get(mode, mode)
    if mode not in ("raise", "clip", "fill", "wrap", "unchecked"):
        raise ArgumentError(f"mode must be 'raise', 'clip', 'fill', 'wrap' or 'unchecked', got {mode!r}.")
    return mode
