# SPDX-License-Identifier: MIT
"""Blocks of arrays whose starts are known only at run time.

    dynamic_slice(x, i, j, sizes=(2, 3))       x[i : i + 2, j : j + 3], with starts clamped so that the block fits
    dynamic_update_slice(x, u, i, j)           x with that block replaced by u

Starts that are arrays of one shape S are those of as many blocks, one of each array that the first axes of x, whose
shape is S, count: what `vmap` makes of one block, and `transpose` of that.
"""

from typing import Any

import numpy as np

from functorch_lite.core.aval import Aval, aval_of
from functorch_lite.core.linear import is_linear
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import DTypeError, ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim, iota, zeros_like, zeros_of
from functorch_lite.primitives.casts import convert
from functorch_lite.primitives.comparison import zero_like
from functorch_lite.primitives.declare import check_dtypes
from functorch_lite.primitives.elementwise import add, maximum, minimum
from functorch_lite.primitives.indexing import gather, widen

dynamic_slice_p = Primitive("dynamic_slice", Kind.INDEXING)
dynamic_update_slice_p = Primitive("dynamic_update_slice", Kind.INDEXING)

# --- dynamic_slice ----------------------------------------------------------------------------------------------------


def dynamic_slice(x: Any, *starts: Any, sizes: tuple[int, ...]) -> Any:
    """The block [*S, *sizes] of x [*S, ...] that begins at `starts`, integers of shape S, clamped so that it fits."""
    return bind1(dynamic_slice_p, x, *starts, sizes=sizes)


def lead_of(starts: Any) -> tuple[int, ...]:
    """The shape of the starts: of one block (), else of so many."""
    return starts[0].shape if starts else ()


def _check_block(name, x, starts, sizes):
    lead = lead_of(starts)
    fits = len(starts) == len(sizes) == x.ndim - len(lead) and x.shape[: len(lead)] == lead
    if not fits or any(not 0 <= m <= n for m, n in zip(sizes, x.shape[len(lead) :], strict=True)):
        raise ShapeError(f"{name}: {len(starts)} starts and block shape {sizes} do not fit shape {x.shape}.")
    for s in starts:
        if s.shape != lead or s.dtype.kind not in "iu":
            raise DTypeError(f"{name}: a start must be an integer scalar, got {s}.")


@shape_rules.register(dynamic_slice_p)
def _(x, *starts, sizes):
    _check_block("dynamic_slice", x, starts, sizes)
    return Aval((*lead_of(starts), *sizes), x.dtype)


def _block(xp, x, starts, sizes):
    """What indexes the blocks: slices, or arrays that broadcast."""
    lead = np.shape(starts[0]) if starts else ()
    room = [n - m for n, m in zip(x.shape[len(lead) :], sizes, strict=True)]
    if not lead:
        clamped = [min(max(int(s), 0), r) for s, r in zip(starts, room, strict=True)]
        return tuple(np.s_[s : s + m] for s, m in zip(clamped, sizes, strict=True))
    axes, ndim = len(sizes), len(lead) + len(sizes)
    own = [xp.arange(n).reshape([n if d == k else 1 for d in range(ndim)]) for k, n in enumerate(lead)]
    for k, (s, r, m) in enumerate(zip(starts, room, sizes, strict=True)):
        first = xp.clip(s, 0, r).astype(np.int64).reshape(*lead, *[1] * axes)
        own.append(first + xp.arange(m).reshape([m if d == len(lead) + k else 1 for d in range(ndim)]))
    return tuple(own)


eval_rules.add(dynamic_slice_p, lambda xp, x, *starts, sizes: x[_block(xp, x, starts, sizes)])


@jvp_rules.register(dynamic_slice_p)
def _(primals, tangents, *, sizes):
    x, *starts = primals
    t = tangents[0]
    return dynamic_slice(x, *starts, sizes=sizes), None if t is None else dynamic_slice(t, *starts, sizes=sizes)


@transpose_rules.register(dynamic_slice_p)
def _(ct, x, *starts, sizes):
    return dynamic_update_slice(zeros_of(x.aval), ct, *starts), *[None] * len(starts)


@batch_rules.register(dynamic_slice_p)
def _(size, args, batched, *, sizes):
    x, *starts = args
    lead = lead_of([aval_of(s) for s in starts]) if not any(batched[1:]) else None
    if lead == ():
        return dynamic_slice(x, np.int64(0), *starts, sizes=(size, *sizes)), True
    if not batched[0] and len(sizes) == len(x.shape):
        return gather(x, *_indices(size, x.shape, starts, batched[1:], sizes), mode="unchecked"), True
    starts = _of_each(size, starts, batched[1:])
    return dynamic_slice(widen(x, batched[0], size), *starts, sizes=sizes), True


def _of_each(size, starts, batched):
    """The starts of `size` examples, of one shape."""
    return [widen(s, b, size) for s, b in zip(starts, batched, strict=True)]


def _indices(size, shape, starts, batched, sizes):
    """Index arrays [size, ...] of blocks of one array, for its axes up to the last that is not taken whole."""
    axes = max((k + 1 for k, (n, m) in enumerate(zip(shape, sizes, strict=True)) if n != m), default=1)
    whole = (size, *sizes[:axes])
    indices = []
    for axis, (s, b) in enumerate(zip(starts[:axes], batched, strict=False)):
        s = convert(s, np.int64) if s.dtype != np.uint64 else convert(minimum(s, np.uint64(shape[axis])), np.int64)
        s = minimum(maximum(s, np.int64(0)), np.int64(shape[axis] - sizes[axis]))
        s = broadcast_in_dim(s, whole, (0,) if b else ())
        indices.append(add(s, iota(np.dtype(np.int64), whole, axis + 1)))
    return indices


# --- dynamic_update_slice ---------------------------------------------------------------------------------------------


def dynamic_update_slice(x: Any, update: Any, *starts: Any) -> Any:
    """`x` with the block that begins at `starts` (clamped as in `dynamic_slice`) replaced by `update`."""
    return bind1(dynamic_update_slice_p, x, update, *starts)


@shape_rules.register(dynamic_update_slice_p)
def _(x, update, *starts):
    check_dtypes("dynamic_update_slice", (x, update))
    lead = lead_of(starts)
    if update.shape[: len(lead)] != lead:
        raise ShapeError(f"dynamic_update_slice: an update {update} is not one of {lead} blocks.")
    _check_block("dynamic_update_slice", x, starts, update.shape[len(lead) :])
    return x


@eval_rules.register(dynamic_update_slice_p)
def _(xp, x, update, *starts):
    out = xp.array(x)
    out[_block(xp, x, starts, update.shape[np.ndim(starts[0]) if starts else 0 :])] = update
    return out


@jvp_rules.register(dynamic_update_slice_p)
def _(primals, tangents):
    x, update, *starts = primals
    out = dynamic_update_slice(x, update, *starts)
    t_x, t_u = tangents[:2]
    if t_x is None and t_u is None:
        return out, None
    t_x = zeros_like(x) if t_x is None else t_x
    t_u = zeros_like(update) if t_u is None else t_u
    return out, dynamic_update_slice(t_x, t_u, *starts)


@transpose_rules.register(dynamic_update_slice_p)
def _(ct, x, update, *starts):
    hole = broadcast_in_dim(zero_like(ct), update.shape, ())
    ct_x = dynamic_update_slice(ct, hole, *starts) if is_linear(x) else None
    sizes = update.shape[len(aval_of(starts[0]).shape) if starts else 0 :]
    ct_u = dynamic_slice(ct, *starts, sizes=sizes) if is_linear(update) else None
    return ct_x, ct_u, *[None] * len(starts)


@batch_rules.register(dynamic_update_slice_p)
def _(size, args, batched):
    x, update, *starts = args
    x, update = widen(x, batched[0], size), widen(update, batched[1], size)
    if not any(batched[2:]) and lead_of([aval_of(s) for s in starts]) == ():
        return dynamic_update_slice(x, update, np.int64(0), *starts), True
    return dynamic_update_slice(x, update, *_of_each(size, starts, batched[2:])), True
