# SPDX-License-Identifier: MIT
"""Functional update: `at(x)[index].set(v)` is a new array, x stays as it is.

On plain NumPy arrays it is a copy and NumPy's own assignment (`numpy.add.at` for the combining ones); on traced
arrays a `dynamic_update_slice` for a box, a `scatter` for index arrays. Where an index occurs twice, `set` keeps the
last update and the others combine all of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import DTypeError, ImmutableError, ShapeError
from functorch_lite.numpy import ops as e
from functorch_lite.numpy import ufuncs
from functorch_lite.numpy.axes import normal_axis, size_of
from functorch_lite.numpy.dispatch import is_eager_call
from functorch_lite.numpy.index_plan import Plan, common_to_position, index_arrays, items_of, make_plan, mode_of
from functorch_lite.numpy.indexing import along_axis, lookup
from functorch_lite.numpy.promotion import PYTHON_SCALARS, asarray, broadcast_to, cast, operand, unfit
from functorch_lite.primitives.blocks import dynamic_update_slice
from functorch_lite.primitives.indexing import scatter
from functorch_lite.transforms.arguments import on_its_device

_combine: dict[str, Callable[[Any, Any], Any]] = {
    "set": lambda old, new: new,
    "add": e.add,
    "multiply": e.mul,
    "min": e.minimum,
    "max": e.maximum,
}
_numpy_at = {
    "add": np.add,
    "multiply": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "subtract": np.subtract,
    "divide": np.divide,
    "power": np.power,
}


class Updates:
    """`at(x)`: index it to say where."""

    __slots__ = ("_x",)

    def __init__(self, x: Any):
        self._x = x

    def __getitem__(self, index: Any) -> "Update":
        return Update(self._x, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise ImmutableError("`x.at[i] = v` assigns nothing. Write `x = x.at[i].set(v)`.")


class Update:
    """`at(x)[index]`: each method returns a new array.

    mode: what an index array out of bounds does: "raise" (default), "clip" (the nearest element), "fill" (or "drop": no
    update; `get` gives `fill_value`), "wrap", "unchecked".

        at(np.zeros(3))[1].set(5.0)      # array([0., 5., 0.])
    """

    __slots__ = ("_x", "_index")

    def __init__(self, x: Any, index: Any):
        self._x = x
        self._index = index

    def get(self, *, mode: str | None = None, fill_value: Any = None, **hints: Any) -> Any:
        """The elements selected."""
        if mode is None and is_eager_call((self._x, *items_of(self._index)), {}):
            return self._x[self._index]
        return lookup(asarray(self._x), self._index, mode, fill_value)

    def set(self, values: Any, *, mode: str | None = None, **hints: Any) -> Any:
        """x with the elements selected replaced; the last of several updates of one element stays."""
        return self._update("set", values, mode)

    def add(self, values: Any, *, mode: str | None = None, **hints: Any) -> Any:
        """x with `values` added to the elements selected."""
        return self._update("add", values, mode)

    def subtract(self, values: Any, *, mode: str | None = None, **hints: Any) -> Any:
        """x with `values` subtracted from the elements selected."""
        return self._update("add", _negated(operand(values)), mode)

    def multiply(self, values: Any, *, mode: str | None = None, **hints: Any) -> Any:
        """x with the elements selected multiplied by `values`."""
        return self._update("multiply", values, mode)

    mul = multiply

    def divide(self, values: Any, *, mode: str | None = None, **hints: Any) -> Any:
        """x with the elements selected divided by `values`."""
        ones = constant(e.full(self._x.shape, 1, self._x.dtype), self._x)
        return ufuncs.divide(self._x, Update(ones, self._index).multiply(values, mode=mode))

    def power(self, values: Any, *, mode: str | None = None, **hints: Any) -> Any:
        """x with the elements selected raised to the power `values`."""
        ones = constant(e.full(self._x.shape, 1, self._x.dtype), self._x)
        return ufuncs.power(self._x, Update(ones, self._index).multiply(values, mode=mode))

    def min(self, values: Any, *, mode: str | None = None, **hints: Any) -> Any:
        """x with the elements selected replaced by `values` where these are smaller."""
        return self._update("min", values, mode)

    def max(self, values: Any, *, mode: str | None = None, **hints: Any) -> Any:
        """x with the elements selected replaced by `values` where these are larger."""
        return self._update("max", values, mode)

    def apply(self, fun: Callable[[Any], Any], *, mode: str | None = None, **hints: Any) -> Any:
        """x with `fun` applied to the elements selected (once to each, though it be selected twice)."""
        return self._update("set", fun(self.get(mode=mode)), mode)

    def _update(self, combine: str, values: Any, mode: str | None) -> Any:
        x, index = self._x, self._index
        if mode is None and type(x) is np.ndarray and is_eager_call((x, values, *items_of(index)), {}):
            return _numpy_update(x, index, values, combine)
        return _update(asarray(x), index, values, combine, mode_of(mode))


def at(x: Any) -> Updates:
    """Functional update of any array: `at(x)[index].set(v)`, `.add`, `.subtract`, `.multiply`, `.divide`, `.power`,
    `.min`, `.max`, `.apply(f)`, and `.get(mode=...)`.

        x = np.arange(4.0)
        at(x)[1:3].add(10.0)             # array([ 0., 11., 12.,  3.]); x is unchanged
    """
    return Updates(asarray(x))


def _negated(values):
    return -values if type(values) in PYTHON_SCALARS else ufuncs.negative(values)


def _is_simple(index):
    return all(i is None or i is Ellipsis or isinstance(i, (slice, int, np.integer)) for i in items_of(index))


def _numpy_update(x, index, values, combine):
    out = x.copy()
    if combine == "set":
        out[index] = values
    elif _is_simple(index):
        out[index] = _numpy_at[combine](out[index], values, casting="same_kind", dtype=x.dtype)
    else:
        _numpy_at[combine].at(out, index, values)
    return out


# --- traced -------------------------------------------------------------------------------------------------------


def _fitting(values: Any, dtype: np.dtype) -> Any:
    """The update in the array's dtype."""
    values = operand(values)
    if type(values) not in PYTHON_SCALARS and values.dtype.kind == "c" and dtype.kind != "c":
        raise DTypeError(
            f"at[...]: a {values.dtype} update does not fit an array of dtype {dtype}. Take its real part."
        )
    return cast(values, dtype)


def _shaped(values: Any, shape: tuple[int, ...]) -> Any:
    extra = len(values.shape) - len(shape)
    if extra > 0 and values.shape[:extra] == (1,) * extra:  # as in an assignment: leading axes of size 1 go away
        values = e.reshape(values, values.shape[extra:])
    try:
        return broadcast_to(values, shape)
    except ShapeError:
        raise unfit("at[...]", (values,), f"does not fit what the index selects, of shape {tuple(shape)}") from None


@on_its_device
def _update(x: Any, index: Any, values: Any, combine: str, mode: str) -> Any:
    values = _fitting(values, x.dtype)
    items = items_of(index)
    if len(items) == 1 and isinstance(items[0], Tracer) and items[0].dtype == bool and items[0].concrete() is None:
        return _masked(x, items[0], values, combine)
    plan = make_plan(x.shape, index, mode == "raise")
    if 0 in plan.shape_out:
        _shaped(values, plan.shape_out)
        return x
    values = _shaped(values, plan.shape_out)
    if values.shape != plan.shape_flat:
        values = e.reshape(values, plan.shape_flat)
    if not plan.arrays and all(s == 1 for s in plan.step):
        return _update_box(x, plan, values, combine)
    return _scatter(x, plan, values, combine, mode)


def _masked(x, mask, values, combine):
    shape = (*mask.shape, *[1] * (len(x.shape) - len(mask.shape)))
    if mask.shape != x.shape:
        mask = broadcast_to(e.reshape(mask, shape), x.shape)
    return e.select(mask, _combine[combine](x, broadcast_to(values, x.shape)), x)


def _update_box(x, plan: Plan, values, combine):
    if values.shape != plan.count:
        values = e.reshape(values, plan.count)
    whole = plan.count == plan.shape
    if combine != "set":
        limit = tuple(a + n for a, n in zip(plan.start, plan.count, strict=True))
        old = x if whole else e.slice(x, plan.start, limit, (1,) * len(limit))
        values = _combine[combine](old, values)
    return values if whole else dynamic_update_slice(x, values, *[np.int64(a) for a in plan.start])


def _scatter(x, plan: Plan, values, combine, mode):
    """Every axis that is not whole gets an index array; all of them are broadcast to (common shape, sliced axes)."""
    indexed = dict(zip([a for a, _ in plan.arrays], index_arrays(plan), strict=True))
    sliced = [a for a in plan.kept if (plan.start[a], plan.count[a], plan.step[a]) != (0, plan.shape[a], 1)]
    whole = [a for a in plan.kept if a not in sliced]
    fixed = [a for a in range(len(plan.shape)) if a not in plan.kept and a not in indexed]
    shape = (*plan.common, *[plan.count[a] for a in sliced])
    arrays = [_unfolded(i, shape) for i in indexed.values()]
    for place, a in enumerate(sliced):
        positions = plan.start[a] + plan.step[a] * np.arange(plan.count[a])
        inner = [1] * len(shape)
        inner[len(plan.common) + place] = -1
        arrays.append(np.broadcast_to(positions.reshape(inner), shape))
    arrays += [np.broadcast_to(np.int64(plan.start[a]), shape) for a in fixed]
    axes = (*indexed, *sliced, *fixed, *whole)
    if mode in ("fill", "clip"):
        arrays = [_from_end_or_out(i, plan.shape[a], mode) for i, a in zip(arrays, axes, strict=False)]
    elif mode == "raise" and plan.is_static:
        mode = "unchecked"
    values = e.permute_dims(values, e.inverse_permutation(common_to_position(plan)))
    n = len(plan.common)
    order = (*range(n), *[n + plan.kept.index(a) for a in (*sliced, *whole)])
    values = e.permute_dims(values, order)
    out = scatter(e.permute_dims(x, axes), values, *arrays, combine=combine, mode=mode)
    return e.permute_dims(out, e.inverse_permutation(axes))


def _unfolded(index, shape):
    inner = (*index.shape, *[1] * (len(shape) - len(index.shape)))
    if isinstance(index, Tracer):
        return broadcast_to(e.reshape(index, inner), shape)
    return np.broadcast_to(np.reshape(index, inner), shape)


def _from_end_or_out(index, n, mode):
    """A negative index counts from the end; one that is still negative is out of bounds on the far side for "fill"."""
    index = cast(index, np.dtype(np.int64))
    zero = np.int64(0)
    index = e.add(index, e.mul(e.convert(e.lt(index, zero), index.dtype), np.int64(n)))
    if mode == "clip":
        return index
    return e.select(e.lt(index, zero), np.int64(n), index)


# --- functions that update ----------------------------------------------------------------------------------------


def put_along_axis(arr: Any, indices: Any, values: Any, axis: int | None, inplace: bool = False) -> Any:
    """`arr` with `values` put at `indices` along `axis`, the inverse of `take_along_axis`: a new array."""
    _refuse_in_place("put_along_axis", inplace)
    x, indices = asarray(arr), asarray(indices)
    if axis is None:
        flat = e.reshape(x, (size_of(x.shape),))
        return e.reshape(at(flat)[indices].set(values), x.shape)
    indices = broadcast_to(
        indices,
        tuple(
            max(n, m) if i != normal_axis(axis, len(x.shape)) else m
            for i, (n, m) in enumerate(zip(x.shape, indices.shape, strict=True))
        ),
    )
    return at(x)[along_axis(x, indices, axis)].set(values)


def put(a: Any, ind: Any, v: Any, mode: str | None = None, *, inplace: bool = False) -> Any:
    """`a`, with the elements at `ind` of it flattened replaced by `v` (repeated to fit): a new array."""
    _refuse_in_place("put", inplace)
    x, ind, v = asarray(a), asarray(ind), asarray(v)
    n = size_of(ind.shape)
    size = size_of(v.shape)
    picked = at(e.reshape(v, (size,)))[np.arange(n) % max(size, 1)].get()
    flat = e.reshape(x, (size_of(x.shape),))
    return e.reshape(at(flat)[e.reshape(ind, (n,))].set(picked, mode=mode), x.shape)


def fill_diagonal(a: Any, val: Any, wrap: bool = False, *, inplace: bool = False) -> Any:
    """`a` with `val` on its main diagonal: a new array."""
    _refuse_in_place("fill_diagonal", inplace)
    x = asarray(a)
    i = np.arange(min(x.shape))
    return at(x)[(i,) * len(x.shape)].set(val)


def _refuse_in_place(name, inplace):
    if inplace:
        raise ImmutableError(
            f"{name}: arrays are not changed in place here. Pass inplace=False and use the returned array."
        )
