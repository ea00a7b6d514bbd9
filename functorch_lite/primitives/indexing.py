# SPDX-License-Identifier: MIT
"""Indexing family: gather and scatter. Slices whose start is known only at run time are in blocks.py.

    gather(x, i, j)            x[i, j]: k index arrays of one shape S pick from the first k axes of x
    scatter(x, u, i, j)        x with u put, added, multiplied, ... at [i, j]

`mode` says what an index outside its axis does:

    "raise"      a BoundsError naming axis, index and size; -n ... -1 count from the end, as in Python
    "clip"       the nearest index of the axis (negative: 0)
    "wrap"       the index modulo the size
    "fill"       gather gives NaN (0 for integers and booleans), scatter leaves the update out; -n ... -1 as in Python
    "zero"       as "fill", but gather gives 0: the derivative of "fill"
    "unchecked"  the caller knows that every index is in range
"""

from typing import Any

import numpy as np

from functorch_lite.backends.orders import stable_order
from functorch_lite.backends.registry import constant
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, aval_of
from functorch_lite.core.linear import is_linear
from functorch_lite.core.numpy_code import numpy_form
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Literal
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import ArgumentError, BoundsError, DTypeError, ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim, full, iota, zeros_like, zeros_of
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import bit_or, eq, ge, lt, select, zero_like
from functorch_lite.primitives.declare import check_dtypes, not_linear, zero_derivative
from functorch_lite.primitives.elementwise import add, add_any, div, maximum, minimum, mul, rem, scale
from functorch_lite.primitives.movement import concatenate, permute_dims, reshape, slice_in_axis

MODES = ("raise", "clip", "wrap", "fill", "zero", "unchecked")

# --- gather: x[i, j, ...] ---------------------------------------------------------------------------------------------
gather_p = Primitive("gather", Kind.INDEXING)


def gather(x: Any, *indices: Any, mode: str = "raise") -> Any:
    """`x[indices]`: shape S + x.shape[k:] for k index arrays of shape S.

    Raises: BoundsError for an index out of range in mode "raise".
    """
    return bind1(gather_p, x, *_beside(x, indices), mode=mode)


def _beside(x, indices):
    """The index arrays, NumPy's on the device of `x`: CuPy's own indexing takes them, too."""
    return [constant(i, x) for i in indices]


def check_indices(name: str, x: Aval, indices: tuple[Aval, ...], mode: str) -> tuple[int, ...]:
    """The common shape of the index arrays; refuses float indices, differing shapes and too many arrays."""
    if mode not in MODES:
        raise ArgumentError(f"{name}: mode {mode!r} is none of {', '.join(MODES)}.")
    if not 1 <= len(indices) <= x.ndim:
        raise ShapeError(f"{name}: {len(indices)} index arrays for an array with {x.ndim} dimensions.")
    for i in indices:
        if i.dtype.kind not in "iu":
            raise DTypeError(f"{name}: indices must be integers, got {i.dtype}.")
        if i.shape != indices[0].shape:
            raise ShapeError(f"{name}: index shapes {indices[0].shape} and {i.shape} differ.")
    return indices[0].shape


@shape_rules.register(gather_p)
def _(x, *indices, mode, lead=0):
    found = check_indices("gather", Aval(x.shape[lead:], x.dtype), indices, mode)
    return Aval((*x.shape[:lead], *found, *x.shape[lead + len(indices) :]), x.dtype)


@eval_rules.register(gather_p)
def _(xp, x, *indices, mode, lead=0):
    if lead:  # axes before the indexed ones: the compiler's, see `passes/turn_gathers.py`
        k, s = len(indices), indices[0].ndim
        moved = xp.moveaxis(x, range(lead, lead + k), range(k))
        found = eval_rules[gather_p](xp, moved, *indices, mode=mode)
        return xp.ascontiguousarray(xp.moveaxis(found, range(s), range(lead, lead + s)))
    if mode in ("raise", "unchecked"):
        return _take(xp, x, indices, mode)
    places, inside = _resolve(xp, indices, x.shape, mode)
    if inside is None or 0 in x.shape[: len(indices)]:
        return _take(xp, x, places, "unchecked") if inside is None else _filled(xp, x, indices, mode)
    found = _take(xp, x, places, "unchecked")
    inside = inside.reshape(inside.shape + (1,) * (found.ndim - inside.ndim))
    return xp.where(inside, found, xp.asarray(_fill_value(x.dtype, mode)))


@numpy_form(gather_p)
def _(x, *indices, mode, lead=0):
    places = ", ".join([f"{{{i + 1}}}" for i in range(len(indices))])
    return f"{{0}}[{places}]" if mode in ("raise", "unchecked") and len(indices) > 1 and not lead else None


def _take(xp, x, indices, mode):
    if xp is not np and mode == "raise":
        _resolve(xp, indices, x.shape, mode)  # CuPy itself wraps silently
    try:
        return x.take(indices[0], 0) if len(indices) == 1 and x.flags.c_contiguous else x[indices]
    except IndexError:
        _refuse(np, indices, x.shape)
        raise


def _filled(xp, x, indices, mode):
    """Gathering from an axis of size 0: there is nothing but the fill value."""
    shape = (*xp.asarray(indices[0]).shape, *x.shape[len(indices) :])
    return xp.full(shape, _fill_value(x.dtype, mode), x.dtype)


def _fill_value(dtype, mode):
    return dtype.type(np.nan) if mode == "fill" and dtypes.is_inexact(dtype) else dtype.type(0)


def _refuse(xp, indices, sizes):
    """Raise for the first index that is out of range."""
    for axis, (i, n) in enumerate(zip(indices, sizes, strict=False)):
        i = xp.asarray(i)
        bad = i[(i < -n) | (i >= n)]
        if bad.size:
            raise BoundsError(
                f"index {int(bad.reshape(-1)[0])} is out of range for axis {axis} with size {n}. Where that is meant, "
                "say what it does: x.at[i].get(mode='clip' or 'fill'), x.at[i].set(v, mode='drop')."
            )


def _resolve(xp, indices, sizes, mode):
    """Indices in range (int64), and where the given ones were in range (None: everywhere)."""
    places, inside = [], None
    for i, n in zip(indices, sizes, strict=False):
        i = xp.asarray(i).astype(np.int64)
        if mode == "clip":
            i = xp.clip(i, 0, max(n - 1, 0))
        elif mode == "wrap":
            i = i % max(n, 1)
        elif mode != "unchecked":
            i = xp.where(i < 0, i + n, i)
            ok = (i >= 0) & (i < n)
            if mode == "raise" and not ok.all():
                _refuse(xp, indices, sizes)
            if mode != "raise":
                inside = ok if inside is None else inside & ok
                i = xp.where(ok, i, 0)
        places.append(i)
    return tuple(places), inside


def lanes(size: int, shape: tuple[int, ...]) -> Any:
    """The number of the example, for index arrays of `shape` with the mapped axis in front: int64 [size, *shape]."""
    return iota(np.dtype(np.int64), (size, *shape), 0)


def widen(value: Any, batched: bool, size: int) -> Any:
    """`value` with the mapped axis in front, repeated if it had none."""
    if batched:
        return value
    aval = aval_of(value)
    return broadcast_in_dim(value, (size, *aval.shape), tuple(range(1, aval.ndim + 1)))


@batch_rules.register(gather_p)
def _(size, args, batched, *, mode):
    x, *indices = args
    k = len(indices)
    if not any(batched[1:]):  # keep the indices: put the mapped axis behind the indexed ones
        n, s = len(x.shape), len(aval_of(indices[0]).shape)
        out = gather(permute_dims(x, (*range(1, k + 1), 0, *range(k + 1, n))), *indices, mode=mode)
        return permute_dims(out, (s, *range(s), *range(s + 1, len(out.shape)))), True
    indices = [widen(i, b, size) for i, b in zip(indices, batched[1:], strict=True)]
    if not batched[0]:
        return gather(x, *indices, mode=mode), True
    return gather(x, lanes(size, indices[0].shape[1:]), *indices, mode=mode), True


def _gather_jvp(primals, tangents, *, mode):
    out = gather(*primals, mode=mode)
    t = tangents[0]
    return out, None if t is None else gather(t, *primals[1:], mode="zero" if mode == "fill" else mode)


jvp_rules.add(gather_p, _gather_jvp)


@transpose_rules.register(gather_p)
def _(ct, x, *indices, mode):
    return scatter(zeros_of(x.aval), ct, *indices, combine="add", mode=mode), *[None] * len(indices)


# --- scatter: x with updates put or added at [i, j, ...] --------------------------------------------------------------
scatter_p = Primitive("scatter", Kind.INDEXING)
scatter_reduce_p = Primitive("scatter_reduce", Kind.INDEXING)


def scatter(x: Any, updates: Any, *indices: Any, combine: str = "set", mode: str = "raise") -> Any:
    """`x` with `updates` (shape S + x.shape[k:]) combined into the places that `gather(x, *indices)` reads.

    combine: "set" (of several updates of one place the last wins), "add", "multiply", "min" or "max" (all count).
    Raises: BoundsError for an index out of range in mode "raise".
    """
    prim = scatter_p if combine in ("set", "add") else scatter_reduce_p
    return bind1(prim, x, updates, *_beside(x, indices), combine=combine, mode=mode)


def _scatter_shape(x, updates, *indices, combine, mode):
    if combine not in _UFUNCS and combine != "set":
        raise ArgumentError(f"scatter: combine={combine!r} is none of set, add, multiply, min, max.")
    check_dtypes("scatter", (x, updates))
    expected = (*check_indices("scatter", x, indices, mode), *x.shape[len(indices) :])
    if updates.shape != expected:
        raise ShapeError(f"scatter: updates have shape {updates.shape}, expected {expected}.")
    return x


_UFUNCS = {"add": "add", "multiply": "multiply", "min": "minimum", "max": "maximum"}


def _scatter_eval(xp, x, updates, *indices, combine, mode):
    k = len(indices)
    flat, inside = _resolve_flat(xp, indices, x.shape[:k], mode)
    rows = updates.reshape(flat.size, _size(x.shape[k:]))
    if inside is not None:
        keep = inside.reshape(-1)
        rows, flat = rows[keep], flat[keep]
    wide = dtypes.accumulator(x.dtype) if combine in ("add", "multiply") else x.dtype
    out = xp.array(x, dtype=wide, order="C")  # a copy
    target = out.reshape(_size(x.shape[:k]), rows.shape[1])
    if combine == "set":
        _put_last(xp, target, flat, rows)
    else:
        _combine_all(xp, _UFUNCS[combine], target, flat, rows.astype(wide, copy=False))
    return out.astype(x.dtype, copy=False)


def _resolve_flat(xp, indices, sizes, mode):
    """`_resolve` with one number for each place: its position among all that the indexed axes have, int64 [n]."""
    if xp is np and mode in ("raise", "unchecked"):
        try:
            return np.ravel_multi_index(indices, sizes).reshape(-1), None
        except (ValueError, TypeError):  # an index below zero or out of range, or of dtype uint64
            pass
    places, inside = _resolve(xp, indices, sizes, mode)
    return _ravel(places, sizes).reshape(-1), inside


def _size(shape):
    size = 1
    for n in shape:
        size *= n
    return size


def _ravel(places, sizes):
    flat = places[0]
    for i, n in zip(places[1:], sizes[1:], strict=False):
        flat = flat * n + i
    return flat


def _put_last(xp, target, flat, rows):
    if xp is not np and flat.size:  # CuPy does not say which of several updates wins
        order = xp.argsort(flat, kind="stable")
        ordered = flat[order]
        last = xp.concatenate((ordered[1:] != ordered[:-1], xp.ones(1, bool)))
        flat, rows = ordered[last], rows[order[last]]
    target[flat] = rows


def _combine_all(xp, name, target, flat, rows):
    if xp is not np and name == "multiply":
        return _multiply_by_rounds(xp, target, flat, rows)
    width = rows.shape[1]
    if width != 1:  # NumPy's ufunc.at is fast for one axis only
        flat = (flat[:, None] * width + xp.arange(width)).reshape(-1)
    return getattr(xp, name).at(target.reshape(-1), flat, rows.reshape(-1))


def _multiply_by_rounds(xp, target, flat, rows):
    """Multiply the first update of every place, then the second, ...: CuPy has no `multiply.at`."""
    order = xp.argsort(flat, kind="stable")
    ordered = flat[order]
    rank = xp.arange(flat.size) - xp.searchsorted(ordered, ordered, side="left")
    for r in range(int(rank.max()) + 1 if flat.size else 0):
        chosen = order[rank == r]
        target[flat[chosen]] *= rows[chosen]


def _scatter_batch(size, args, batched, *, combine, mode):
    x, updates, *indices = [widen(a, b, size) for a, b in zip(args, batched, strict=True)]
    return scatter(x, updates, lanes(size, indices[0].shape[1:]), *indices, combine=combine, mode=mode), True


for _prim in (scatter_p, scatter_reduce_p):
    shape_rules.add(_prim, _scatter_shape)
    eval_rules.add(_prim, _scatter_eval)
    batch_rules.add(_prim, _scatter_batch)


@numpy_form(scatter_p)
def _(x, updates, *indices, combine, mode):
    if combine != "add" or mode not in ("raise", "unchecked") or x.aval.dtype.char not in "fd" or 0 in x.aval.shape:
        return None
    if any(map(_is_distinct, indices)):
        return _add_apart
    return _add_elements if len(indices) == x.aval.ndim > 1 else None


def _is_distinct(index):
    """Whether no two entries of an index array are the same, so that no two updates meet."""
    if type(index) is not Literal or not index.value.size or index.value.min() < 0:
        return False
    return np.unique(index.value).size == index.value.size


def _add_apart(x, updates, *indices):
    out = np.array(x, order="C")  # a copy
    out[indices] += updates
    return out


def _add_elements(x, updates, *indices):
    try:
        flat = np.ravel_multi_index(indices, x.shape)
    except (ValueError, TypeError):  # an index below zero or out of range, or of dtype uint64
        return _scatter_eval(np, x, updates, *indices, combine="add", mode="raise")
    out = np.array(x, order="C")  # a copy
    np.add.at(out.reshape(-1), flat.reshape(-1), updates.reshape(-1))
    return out


@jvp_rules.register(scatter_p)
def _(primals, tangents, **params):
    x, updates, *indices = primals
    out = scatter(x, updates, *indices, **params)
    t_x, t_u = tangents[:2]
    if t_x is None and t_u is None:
        return out, None
    if t_u is None and params["combine"] == "add":
        return out, t_x
    t_x = zeros_like(x) if t_x is None else t_x
    t_u = zeros_like(updates) if t_u is None else t_u
    return out, scatter(t_x, t_u, *indices, **params)


@transpose_rules.register(scatter_p)
def _(ct, x, updates, *indices, combine, mode):
    ct_x = ct_u = None
    if is_linear(updates):
        ct_u = gather(ct, *indices, mode="zero" if mode == "fill" else mode)
    if combine == "set":
        if ct_u is not None:
            ct_u = select(_is_last(ct, indices, mode, ct_u.shape), ct_u, zero_like(ct_u))
        if is_linear(x):
            hole = broadcast_in_dim(zero_like(ct), updates.shape, ())
            ct_x = scatter(ct, hole, *indices, combine="set", mode=mode)
    elif is_linear(x):
        ct_x = ct
    return ct_x, ct_u, *[None] * len(indices)


def _is_last(x, indices, mode, shape):
    """Whether an update is the last one of its place, broadcast to the updates' `shape`."""
    where = aval_of(indices[0]).shape
    count = _size(where)
    number = reshape(iota(np.dtype(np.int64), (count,)), where)
    sizes = x.shape[: len(indices)]
    winners = scatter(full(sizes, -1, np.dtype(np.int64)), number, *indices, combine="set", mode=mode)
    last = eq(gather(winners, *indices, mode=mode), number)
    return broadcast_in_dim(last, shape, tuple(range(len(where))))


# --- scatter_reduce: multiply, min and max ----------------------------------------------------------------------------
not_linear(scatter_reduce_p)


@jvp_rules.register(scatter_reduce_p)
def _(primals, tangents, *, combine, mode):
    x, updates, *indices = primals
    out = scatter(x, updates, *indices, combine=combine, mode=mode)
    t_x, t_u = tangents[:2]
    if t_x is None and t_u is None:
        return out, None
    t_x = zeros_like(x) if t_x is None else t_x
    t_u = zeros_like(updates) if t_u is None else t_u
    rule = _product_tangent if combine == "multiply" else _extremum_tangent
    return out, rule(out, x, updates, t_x, t_u, indices, mode)


def _extremum_tangent(out, x, updates, t_x, t_u, indices, mode):
    """Everything that equals the extremum of its place shares the derivative."""
    read = "zero" if mode == "fill" else mode
    one, zero = out.dtype.type(1), out.dtype.type(0)
    own = select(eq(x, out), one, zero)
    theirs = select(eq(updates, gather(out, *indices, mode=read)), one, zero)
    count = maximum(scatter(own, theirs, *indices, combine="add", mode=mode), one)
    t_x = scale(div(own, count), t_x)
    t_u = scale(div(theirs, maximum(gather(count, *indices, mode=read), one)), t_u)
    return scatter(t_x, t_u, *indices, combine="add", mode=mode)


def _product_tangent(out, x, updates, t_x, t_u, indices, mode):
    """By running products over the updates of each place, in order: exact where factors are zero, to every order."""
    k = len(indices)
    places, drop = _traced_places(indices, x.shape, mode), mode in ("fill", "zero")
    count, width = _size(aval_of(indices[0]).shape), _size(x.shape[k:])
    flat = reshape(places, (count,))
    order = index_order(flat)
    segment = gather(flat, order, mode="unchecked")
    factors = gather(reshape(updates, (count, width)), order, mode="unchecked")
    dots = gather(reshape(t_u, (count, width)), order, mode="unchecked")
    factors, dots = _running_products(segment, factors, dots)
    into = "zero" if drop else "unchecked"
    rows = (_size(x.shape[:k]), width)
    product = scatter(full(rows, 1, out.dtype), factors, segment, combine="set", mode=into)
    t_product = scatter(full(rows, 0, out.dtype), dots, segment, combine="set", mode=into)
    product, t_product = reshape(product, x.shape), reshape(t_product, x.shape)
    return add(scale(product, t_x), scale(x, t_product))


def _running_products(segment, factors, dots):
    """Products from the first row of a segment up to each row, and their tangents, in log2(n) steps."""
    count, width = factors.shape
    step = 1
    while step < count:
        same = eq(slice_in_axis(segment, step, count, 0), slice_in_axis(segment, 0, count - step, 0))
        same = broadcast_in_dim(same, (count - step, width), (0,))
        left, here = slice_in_axis(factors, 0, count - step, 0), slice_in_axis(factors, step, count, 0)
        dot_left, dot_here = slice_in_axis(dots, 0, count - step, 0), slice_in_axis(dots, step, count, 0)
        both = add_any(scale(left, dot_here), scale(here, dot_left))
        dots = concatenate((slice_in_axis(dots, 0, step, 0), select(same, both, dot_here)), 0)
        factors = concatenate((slice_in_axis(factors, 0, step, 0), select(same, mul(left, here), here)), 0)
        step *= 2
    return factors, dots


def _traced_places(indices, sizes, mode):
    """One row-major place for each update; out of range (modes "fill", "zero"): a place past the end."""
    flat = outside = None
    for i, n in zip(indices, sizes, strict=False):
        i = convert(i, np.int64)
        top, zero = np.int64(n), np.int64(0)
        if mode == "clip":
            i = minimum(maximum(i, zero), np.int64(n - 1))
        elif mode == "wrap":
            i = rem(add(rem(i, top), top), top)
        else:
            i = select(lt(i, zero), add(i, top), i)
            bad = bit_or(lt(i, zero), ge(i, top))
            outside = bad if outside is None else bit_or(outside, bad)
        flat = i if flat is None else add(mul(flat, top), i)
    if mode not in ("fill", "zero"):
        return flat
    return select(outside, np.int64(_size(sizes[: len(indices)])), flat)


# --- index_order: the stable order that sorts numbers -----------------------------------------------------------------
index_order_p = Primitive("index_order", Kind.OPAQUE)


def index_order(x: Any) -> Any:
    """Int64 positions that sort `x` along the last axis, equal ones in their given order; NaN last."""
    return bind1(index_order_p, x)


shape_rules.add(index_order_p, lambda x: Aval(x.shape, np.dtype(np.int64)))
eval_rules.add(index_order_p, lambda xp, x: stable_order(xp, x.astype(np.float32) if x.dtype.kind == "V" else x))
batch_rules.add(index_order_p, lambda size, args, batched: (index_order(args[0]), True))
zero_derivative(index_order_p)
