# SPDX-License-Identifier: MIT
"""Attention: softmax(scale q k' where seen) v, with its tangent and cotangents, none of which keeps the n x m weights.

    q [B, n, e]   k [B / groups, m, e]   v [B / groups, m, f]   ->   out [B, n, f],   lse [B, n]

Query i sees keys i - before to i + after (None: no bound); one that sees none gets zeros. `groups` neighbours of q's
first axis share a key and a value. lse is the logarithm of the sum of a row's exponentials; it and `out` are what the
cotangents need to compute the weights again. They are given to the derivatives for that alone: as functions these
depend on q, k and v, so lse has no derivative of its own.

    attention_tangent     (tq, tk, tv; q, k, v, out, lse) -> the tangent of out
    attention_cotangents  (ct; q, k, v, out, lse)         -> the cotangents of q, k, v: its transpose

Each is written below as what it is composed of, which is how it is evaluated and differentiated again; compiled code
has kernels for two of them.

Source: T. Dao and others, "FlashAttention", arXiv:2205.14135; M. Rabe, C. Staats, arXiv:2112.05682; grouped queries:
J. Ainslie and others, arXiv:2305.13245.
"""

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
from functorch_lite.primitives.comparison import and_p, eq, ge, is_finite, le, select
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
    q: Any, k: Any, v: Any, *, factor: float, before: Bound = None, after: Bound = None, groups: int = 1
) -> list[Any]:
    """[out, lse]; see the module. factor: what scores are multiplied by. All of one dtype, float32 or float64.

    Raises ShapeError where sizes do not fit, DTypeError for other dtypes.
    """
    return bind(attention_p, q, k, v, factor=float(factor), before=before, after=after, groups=groups)


# --- types ------------------------------------------------------------------------------------------------------------


def _check(q, k, v, groups):
    if not (q.ndim == k.ndim == v.ndim == 3) or q.shape[2] != k.shape[2] or k.shape[:2] != v.shape[:2]:
        raise ShapeError(f"attention: query {q.shape}, key {k.shape} and value {v.shape} do not fit together.")
    if q.shape[0] != k.shape[0] * groups:
        raise ShapeError(f"attention: {q.shape[0]} queries do not share {k.shape[0]} keys in groups of {groups}.")
    if not q.dtype == k.dtype == v.dtype or q.dtype not in (np.float32, np.float64):
        raise DTypeError(f"attention: takes float32 or float64, all alike; got {q.dtype}, {k.dtype}, {v.dtype}.")


@shape_rules.register(attention_p)
def _(q, k, v, *, factor, before, after, groups):
    _check(q, k, v, groups)
    return [Aval((*q.shape[:2], v.shape[2]), q.dtype), Aval(q.shape[:2], q.dtype)]


@shape_rules.register(attention_tangent_p)
def _(tq, tk, tv, q, k, v, out, lse, *, factor, before, after, groups):
    _check(tq, tk, tv, groups)
    return out


@shape_rules.register(attention_cotangents_p)
def _(ct, q, k, v, out, lse, *, factor, before, after, groups):
    _check(q, k, v, groups)
    return [q, k, v]


# --- what they are composed of ----------------------------------------------------------------------------------------


def composed(q: Any, k: Any, v: Any, **params: Any) -> list[Any]:
    """`attention` in other primitives."""
    groups = params["groups"]
    weights, lse = _weights(q, _shared(k, groups), params)
    return [_matmul(weights, _shared(v, groups)), lse]


def composed_tangent(tq: Any, tk: Any, tv: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, **params: Any) -> Any:
    """`attention_tangent` in other primitives; `out` and `lse` are computed again, for the derivatives' sake."""
    k, v, tk, tv = (_shared(x, params["groups"]) for x in (k, v, tk, tv))
    weights, _ = _weights(q, k, params)
    pushed = scale(weights, _times(add(_inner(tq, k), _inner(q, tk)), params["factor"]))
    total = reduce_sum(pushed, (2,))
    moved = scale(_matmul(weights, v), _spread(total, v.shape[2]))
    return add(sub(_matmul(pushed, v), moved), _matmul(weights, tv))


def composed_cotangents(ct: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, **params: Any) -> list[Any]:
    """`attention_cotangents` in other primitives; see `composed_tangent`."""
    groups = params["groups"]
    keys, values = _shared(k, groups), _shared(v, groups)
    weights, _ = _weights(q, keys, params)
    total = reduce_sum(scale(_matmul(weights, values), ct), (2,))
    pulled = scale(weights, sub(_inner(ct, values), _spread(total, k.shape[1])))
    pulled = _times(pulled, params["factor"])
    return [_matmul(pulled, keys), _unshared(_outer(pulled, q), groups), _unshared(_outer(weights, ct), groups)]


def _weights(q, k, params):
    scores = _times(_inner(q, k), params["factor"])
    seen = _seen(scores, params["before"], params["after"])
    dtype = q.dtype.type
    if seen is not None:
        scores = select(seen, scores, dtype(-np.inf))
    if not scores.shape[2]:
        return scores, _of_nothing(scores)
    top = stop_gradient_of(reduce_max(scores, (2,)))
    top = select(is_finite(top), top, dtype(0))
    weights = exp(sub(scores, along(top, scores, (2,))))
    total = reduce_sum(weights, (2,))
    lse = stop_gradient_of(add(log(total), top))
    total = select(eq(total, dtype(0)), dtype(1), total)
    return div(weights, along(total, weights, (2,))), lse


def _of_nothing(scores):
    return broadcast_in_dim(scores.dtype.type(-np.inf), scores.shape[:2], ())


def _seen(scores, before, after):
    if before is None and after is None:
        return None
    columns, rows = (constant(iota(np.dtype(np.int64), scores.shape, axis), scores) for axis in (2, 1))
    distance = sub(columns, rows)
    found = [ge(distance, np.int64(-before))] if before is not None else []
    found += [le(distance, np.int64(after))] if after is not None else []
    return found[0] if len(found) == 1 else bind(and_p, *found)


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
    if all(t is None for t in tangents):
        return [out, lse], [None, None]
    return [out, lse], [bind(attention_tangent_p, *filled(tangents, primals), *primals, out, lse, **params), None]


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


def _batched(prim):
    def rule(size, args, batched, **params):
        folded = [_fold(widen(a, on, size)) for a, on in zip(args, batched, strict=True)]
        outs = bind(prim, *folded, **params)
        if not prim.multiple:
            return _unfold(outs, size), True
        return [_unfold(o, size) for o in outs], [True] * len(outs)

    batch_rules.add(prim, rule)


def _fold(x):
    return reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))


def _unfold(x, size):
    return reshape(x, (size, x.shape[0] // size, *x.shape[1:]))


for _prim in (attention_p, attention_tangent_p, attention_cotangents_p):
    _batched(_prim)
del _prim
