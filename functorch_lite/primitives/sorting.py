# SPDX-License-Identifier: MIT
"""Sorting family: sort (with several keys and payloads) and top_k, along the last axis.

NaN sorts last, as in NumPy. A derivative moves with its element: it is a gather by the order found for the values.
"""

from typing import Any

import numpy as np

from functorch_lite.backends.orders import stable_order
from functorch_lite.backends.registry import constant
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval, aval_of
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules
from functorch_lite.core.tracer import Tracer, bind
from functorch_lite.errors import DTypeError, ShapeError
from functorch_lite.primitives.broadcast import iota
from functorch_lite.primitives.declare import not_linear
from functorch_lite.primitives.indexing import gather, index_order, widen

# --- sort -------------------------------------------------------------------------------------------------------------
sort_p = Primitive("sort", Kind.OPAQUE, multiple=True)


def sort(*operands: Any, num_keys: int = 1, stable: bool = True) -> list[Any]:
    """The operands (one shape), rearranged along the last axis so that the first `num_keys` of them ascend.

    Keys are compared in order, the first one first. Source: `jax.lax.sort`, `numpy.lexsort`.
    """
    return bind(sort_p, *operands, num_keys=num_keys, stable=stable)


def argsort(x: Any, stable: bool = True) -> Any:
    """The int64 positions that sort `x` along its last axis."""
    if stable or isinstance(x, Tracer):  # what is compiled is stable
        return index_order(x)
    return sort(x, constant(positions(aval_of(x).shape), x), num_keys=1, stable=stable)[1]


def positions(shape: tuple[int, ...]) -> Any:
    """The int64 position along the last axis of each entry of an array of `shape`."""
    return iota(np.dtype(np.int64), shape, len(shape) - 1)


@shape_rules.register(sort_p)
def _(*avals, num_keys, stable):
    shape = avals[0].shape
    if not shape or any(a.shape != shape for a in avals):
        raise ShapeError(f"sort: operands need one shape with an axis, got {', '.join(str(a.shape) for a in avals)}.")
    if not 1 <= num_keys <= len(avals):
        raise ShapeError(f"sort: num_keys={num_keys} for {len(avals)} operands.")
    return list(avals)


def _sortable(xp, x):
    """`x` or a wider copy in the same order: NumPy does not put a bfloat16 NaN last."""
    return x.astype(np.float32) if x.dtype.kind == "V" else x


def _order(xp, keys, stable):
    if len(keys) == 1:
        return stable_order(xp, keys[0]) if stable or xp is not np else np.argsort(keys[0], axis=-1)
    if xp is np or keys[0].ndim == 1:
        rows = keys[::-1] if xp is np else xp.stack(keys[::-1])
        return xp.lexsort(rows)
    order = xp.argsort(keys[-1], axis=-1, kind="stable")  # CuPy's lexsort takes vectors only
    for key in keys[-2::-1]:
        finer = xp.argsort(xp.take_along_axis(key, order, -1), axis=-1, kind="stable")
        order = xp.take_along_axis(order, finer, -1)
    return order


@eval_rules.register(sort_p)
def _(xp, *operands, num_keys, stable):
    keys = [_sortable(xp, x) for x in operands[:num_keys]]
    if len(operands) == 1:
        return [xp.sort(keys[0], axis=-1, kind="stable" if stable else None).astype(operands[0].dtype, copy=False)]
    order = _order(xp, keys, stable)
    return [xp.take_along_axis(x, order, -1) for x in operands]


@batch_rules.register(sort_p)
def _(size, args, batched, **params):
    return sort(*[widen(a, b, size) for a, b in zip(args, batched, strict=True)], **params), [True] * len(args)


def take_along_last(x: Any, order: Any) -> Any:
    """`x[..., order]` entry by entry: `order` holds positions along the last axis of `x`, one array of them per row."""
    shape = order.shape
    rows = [constant(iota(np.dtype(np.int64), shape, axis), x) for axis in range(len(shape) - 1)]
    return gather(x, *rows, order, mode="unchecked")


@jvp_rules.register(sort_p)
def _(primals, tangents, *, num_keys, stable):
    if all(t is None for t in tangents):
        return sort(*primals, num_keys=num_keys, stable=stable), [None] * len(primals)
    places = constant(positions(primals[0].shape), primals[0])
    *outs, order = sort(*primals, places, num_keys=num_keys, stable=stable)
    return outs, [None if t is None else take_along_last(t, order) for t in tangents]


not_linear(sort_p)

# --- top_k: the largest entries ---------------------------------------------------------------------------------------
top_k_p = Primitive("top_k", Kind.OPAQUE, multiple=True)


def top_k(x: Any, k: int) -> list[Any]:
    """The `k` largest entries along the last axis in descending order, and their int64 positions.

    Of equal entries the first come first; NaN counts as largest.
    """
    return bind(top_k_p, x, k=k)


@shape_rules.register(top_k_p)
def _(x, *, k):
    if not x.shape or not 0 <= k <= x.shape[-1]:
        raise ShapeError(f"top_k: k={k} does not fit shape {x.shape}.")
    if dtypes.is_complex(x.dtype):
        raise DTypeError(f"top_k: does not take dtype {x.dtype}.")
    shape = (*x.shape[:-1], k)
    return [Aval(shape, x.dtype), Aval(shape, np.dtype(np.int64))]


@eval_rules.register(top_k_p)
def _(xp, x, *, k):
    backwards = _sortable(xp, x)[..., ::-1]  # ascending, stable from the back is descending, stable from the front
    order = x.shape[-1] - 1 - xp.argsort(backwards, axis=-1, kind="stable")[..., ::-1][..., :k]
    return [xp.take_along_axis(x, order, -1), order]


@jvp_rules.register(top_k_p)
def _(primals, tangents, *, k):
    values, order = top_k(primals[0], k)
    return [values, order], [None if tangents[0] is None else take_along_last(tangents[0], order), None]


batch_rules.add(top_k_p, lambda size, args, batched, *, k: (top_k(args[0], k), [True, True]))
not_linear(top_k_p)
