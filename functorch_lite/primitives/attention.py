# SPDX-License-Identifier: MIT
"""Attention: softmax(scale q k' where seen) v, with its tangent and cotangents, none of which keeps the n x m weights.

    q [B, n, e]   k [B / groups, m, e]   v [B / groups, m, f]   ->   out [B, n, f],   lse [B, n]

Query i sees keys i - before to i + after (None: no bound); one that sees none gets zeros. `groups` neighbours of q's
first axis share a key and a value. A fourth operand is a mask [B / c, n or 1, m], where c neighbours of q's first axis
share one: boolean, True where a query may look, or of q's dtype, added to the scores.

lse is the logarithm of the sum of a row's exponentials; it and `out` are what the cotangents need to compute the
weights again. They are given to the derivatives for that alone: as functions these depend on q, k, v and the mask, so
lse has no derivative of its own.

    attention_tangent     (tq, tk, tv; q, k, v, out, lse[, mask]) -> the tangent of out
    attention_cotangents  (ct; q, k, v, out, lse[, mask])         -> the cotangents of q, k, v: its transpose

strict: infinities and NaN act as where a softmax is written plainly, without a thought for them. A query that sees
nothing gets NaN, and a value that no query sees is still multiplied by zero.

Each is written below as what it is composed of, which is how it is evaluated and differentiated again; compiled code
has kernels for two of them.

Source: T. Dao and others, "FlashAttention", arXiv:2205.14135; M. Rabe, C. Staats, arXiv:2112.05682; grouped queries:
J. Ainslie and others, arXiv:2305.13245.
"""

import functools
from typing import Any

import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core.aval import Aval, aval_of
from functorch_lite.core.linear import zeros_of
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind
from functorch_lite.errors import DTypeError, ShapeError
from functorch_lite.primitives.broadcast import broadcast_in_dim, iota, reduce_sum
from functorch_lite.primitives.casts import stop_gradient_of
from functorch_lite.primitives.comparison import and_p, eq, ge, is_finite, le, ne, select
from functorch_lite.primitives.contraction import dot_general
from functorch_lite.primitives.declare import not_linear
from functorch_lite.primitives.elementwise import add, div, mul, scale, sub
from functorch_lite.primitives.indexing import widen
from functorch_lite.primitives.movement import reshape
from functorch_lite.primitives.reduction import along, reduce_max
from functorch_lite.primitives.transcendental import exp, log

Bound = int | None

attention_p = Primitive("attention", Kind.OPAQUE, multiple=True)
attention_tangent_p = Primitive("attention_tangent", Kind.OPAQUE)
attention_cotangents_p = Primitive("attention_cotangents", Kind.OPAQUE, multiple=True)


def attention(
    q: Any, k: Any, v: Any, mask: Any = None, *, factor: float, before: Bound = None, after: Bound = None,
    groups: int = 1, strict: bool = False,
) -> list[Any]:  # fmt: skip
    """[out, lse]; see the module. factor: what scores are multiplied by. All of one dtype, float32 or float64.

    Raises ShapeError where sizes do not fit, DTypeError for other dtypes.
    """
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    return bind(attention_p, *operands, factor=float(factor), before=before, after=after, groups=groups, strict=strict)


# --- types ------------------------------------------------------------------------------------------------------------


def _check(q, k, v, groups, mask=()):
    if not (q.ndim == k.ndim == v.ndim == 3) or q.shape[2] != k.shape[2] or k.shape[:2] != v.shape[:2]:
        raise ShapeError(f"attention: query {q.shape}, key {k.shape} and value {v.shape} do not fit together.")
    if q.shape[0] != k.shape[0] * groups:
        raise ShapeError(f"attention: {q.shape[0]} queries do not share {k.shape[0]} keys in groups of {groups}.")
    if not q.dtype == k.dtype == v.dtype or q.dtype not in (np.float32, np.float64):
        raise DTypeError(f"attention: takes float32 or float64, all alike; got {q.dtype}, {k.dtype}, {v.dtype}.")
    for x in mask:
        _check_mask(x, q, k)


def _check_mask(mask, q, k):
    if mask.ndim != 3 or mask.shape[1] not in (1, q.shape[1]) or mask.shape[2] != k.shape[1] or (
        q.shape[0] % mask.shape[0] if mask.shape[0] else q.shape[0]
    ):
        raise ShapeError(f"attention: mask {mask.shape} does not fit query {q.shape} and key {k.shape}.")
    if mask.dtype not in (np.bool_, q.dtype):
        raise DTypeError(f"attention: a mask of {mask.dtype} is neither boolean nor of the query's dtype, {q.dtype}.")


@shape_rules.register(attention_p)
def _(q, k, v, *mask, groups, **params):
    _check(q, k, v, groups, mask)
    return [Aval((*q.shape[:2], v.shape[2]), q.dtype), Aval(q.shape[:2], q.dtype)]


@shape_rules.register(attention_tangent_p)
def _(tq, tk, tv, q, k, v, out, lse, *mask, groups, **params):
    _check(tq, tk, tv, groups, mask)
    return out


@shape_rules.register(attention_cotangents_p)
def _(ct, q, k, v, out, lse, *mask, groups, **params):
    _check(q, k, v, groups, mask)
    return [q, k, v]


# --- what they are composed of ----------------------------------------------------------------------------------------


def composed(q: Any, k: Any, v: Any, *mask: Any, **params: Any) -> list[Any]:
    """`attention` in other primitives."""
    groups = params["groups"]
    weights, lse = _weights(q, _shared(k, groups), mask, params)
    return [_matmul(weights, _shared(v, groups)), lse]


def composed_tangent(
    tq: Any, tk: Any, tv: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, *mask: Any, **params: Any
) -> Any:
    """`attention_tangent` in other primitives; `out` and `lse` are computed again, for the derivatives' sake."""
    k, v, tk, tv = (_shared(x, params["groups"]) for x in (k, v, tk, tv))
    weights, _ = _weights(q, k, mask, params)
    pushed = _times(add(_inner(tq, k), _inner(q, tk)), params["factor"])
    return add(_pushed(weights, v, pushed), _matmul(weights, tv))


def _tangent_of_mask(t: Any, q: Any, k: Any, v: Any, mask: Any, params: Any) -> Any:
    """What the tangent of an added mask adds to that of out."""
    k, v = (_shared(x, params["groups"]) for x in (k, v))
    weights, _ = _weights(q, k, (mask,), params)
    return _pushed(weights, v, _spread_mask(t, weights))


def _pushed(weights, v, t):
    """The tangent of weights v, where the scores have the tangent t."""
    pushed = scale(weights, t)
    moved = scale(_matmul(weights, v), _spread(reduce_sum(pushed, (2,)), v.shape[2]))
    return sub(_matmul(pushed, v), moved)


def composed_cotangents(
    ct: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, *mask: Any, **params: Any
) -> list[Any]:  # fmt: skip
    """`attention_cotangents` in other primitives; see `composed_tangent`."""
    groups = params["groups"]
    keys, values = _shared(k, groups), _shared(v, groups)
    weights, _ = _weights(q, keys, mask, params)
    total = reduce_sum(scale(_matmul(weights, values), ct), (2,))
    pulled = scale(weights, sub(_inner(ct, values), _spread(total, k.shape[1])))
    seen = _seen(pulled, mask, params)
    if seen is not None and params.get("strict"):  # zero also where weights are NaN
        for x in (_spread_mask(x, pulled) for x in mask if x.dtype != np.bool_):
            seen = bind(and_p, seen, ne(x, x.dtype.type(-np.inf)))
        pulled = select(seen, pulled, q.dtype.type(0))
    pulled = _times(pulled, params["factor"])
    return [_matmul(pulled, keys), _unshared(_outer(pulled, q), groups), _unshared(_outer(weights, ct), groups)]


def _weights(q, k, mask, params):
    scores = _times(_inner(q, k), params["factor"])
    if mask and mask[0].dtype != np.bool_:
        scores = add(scores, _spread_mask(mask[0], scores))
    seen = _seen(scores, mask, params)
    dtype, strict = q.dtype.type, params.get("strict")
    if seen is not None:
        scores = select(seen, scores, dtype(-np.inf))
    if not scores.shape[2]:
        return scores, _of_nothing(scores)
    top = stop_gradient_of(reduce_max(scores, (2,)))
    if strict:
        weights = exp(sub(scores, along(top, scores, (2,))))
        total = reduce_sum(weights, (2,))
        return div(weights, along(total, weights, (2,))), stop_gradient_of(add(log(total), top))
    top = select(is_finite(top), top, dtype(0))
    weights = exp(sub(scores, along(top, scores, (2,))))
    total = reduce_sum(weights, (2,))
    nothing = eq(total, dtype(0))
    total = select(nothing, dtype(1), total)
    lse = stop_gradient_of(select(nothing, dtype(-np.inf), add(log(total), top)))
    return div(weights, along(total, weights, (2,))), lse


def _spread_mask(mask, scores):
    """[B / c, n or 1, m] -> [B, n, m]."""
    (b, n, m), c = scores.shape, mask.shape[0]
    if mask.shape == scores.shape or not c:
        return mask
    return reshape(broadcast_in_dim(mask, (c, b // c, n, m), (0, 2, 3)), (b, n, m))


def _of_nothing(scores):
    return broadcast_in_dim(scores.dtype.type(-np.inf), scores.shape[:2], ())


def _seen(scores, mask, params):
    """Which scores count, as a boolean array; None for all."""
    before, after = params["before"], params["after"]
    found = [_spread_mask(x, scores) for x in mask if x.dtype == np.bool_]
    if before is not None or after is not None:
        columns, rows = (constant(iota(np.dtype(np.int64), scores.shape, axis), scores) for axis in (2, 1))
        distance = sub(columns, rows)
        found += [ge(distance, np.int64(-before))] if before is not None else []
        found += [le(distance, np.int64(after))] if after is not None else []
    return functools.reduce(lambda x, y: bind(and_p, x, y), found) if found else None


def _shared(x, groups):
    """[B, m, e] -> [B groups, m, e]: each once for every member of its group."""
    if groups == 1:
        return x
    b, m, e = x.shape
    return reshape(broadcast_in_dim(x, (b, groups, m, e), (0, 2, 3)), (b * groups, m, e))


def _unshared(ct, groups):
    """The transpose of `_shared`."""
    if groups == 1:
        return ct
    b, m, e = ct.shape
    return reduce_sum(reshape(ct, (b // groups, groups, m, e)), (1,))


def _times(x, factor):
    return mul(x, x.dtype.type(factor))


def _spread(x, n):
    return broadcast_in_dim(x, (*x.shape, n), (0, 1))


def _inner(x, y):
    """[B, n, e], [B, m, e] -> [B, n, m]."""
    return dot_general(x, y, ((2,), (2,)), ((0,), (0,)))


def _matmul(x, y):
    """[B, n, m], [B, m, f] -> [B, n, f]."""
    return dot_general(x, y, ((2,), (1,)), ((0,), (0,)))


def _outer(x, y):
    """[B, n, m], [B, n, e] -> [B, m, e]."""
    return dot_general(x, y, ((1,), (1,)), ((0,), (0,)))


eval_rules.add(attention_p, lambda xp, *args, **params: composed(*args, **params))
eval_rules.add(attention_tangent_p, lambda xp, *args, **params: composed_tangent(*args, **params))
eval_rules.add(attention_cotangents_p, lambda xp, *args, **params: composed_cotangents(*args, **params))

# --- derivatives; those of the tangent and the cotangents are in transforms, by composition --------------------------


@jvp_rules.register(attention_p)
def _(primals, tangents, **params):
    out, lse = bind(attention_p, *primals, **params)
    q, k, v, *mask = primals
    parts = []
    if any(t is not None for t in tangents[:3]):
        given = filled(tangents[:3], primals[:3])
        parts.append(bind(attention_tangent_p, *given, q, k, v, out, lse, *mask, **params))
    if any(t is not None for t in tangents[3:]):
        parts.append(_tangent_of_mask(tangents[3], q, k, v, mask[0], params))
    return [out, lse], [functools.reduce(add, parts) if parts else None, None]


def filled(tangents: Any, primals: Any) -> list[Any]:
    """The tangents, with zeros for those that are None."""
    return [zeros_of(aval_of(p)) if t is None else t for t, p in zip(tangents, primals, strict=True)]


not_linear(attention_p)


@transpose_rules.register(attention_tangent_p)
def _(ct, tq, tk, tv, *rest, **params):
    return (*bind(attention_cotangents_p, ct, *rest, **params), *[None] * len(rest))


@transpose_rules.register(attention_cotangents_p)
def _(cts, ct, *rest, **params):
    tangents = filled(cts, rest[:3])
    return (bind(attention_tangent_p, *tangents, *rest, **params), *[None] * len(rest))


# --- mapped: one more axis is folded into the first -------------------------------------------------------------------


def _batched(prim, operands):
    """operands: how many come before the mask. A mask that all share stays as it is."""

    def rule(size, args, batched, **params):
        folded = [a if i >= operands and not on and a.shape[0] == 1 else _fold(widen(a, on, size))
                  for i, (a, on) in enumerate(zip(args, batched, strict=True))]
        outs = bind(prim, *folded, **params)
        if not prim.multiple:
            return _unfold(outs, size), True
        return [_unfold(o, size) for o in outs], [True] * len(outs)

    batch_rules.add(prim, rule)


def _fold(x):
    return reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))


def _unfold(x, size):
    return reshape(x, (size, x.shape[0] // size, *x.shape[1:]))


_batched(attention_p, 3)
_batched(attention_tangent_p, 8)
_batched(attention_cotangents_p, 6)
