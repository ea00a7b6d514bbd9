# SPDX-License-Identifier: MIT
"""Records of attention, its tangent and its cotangents."""

from functools import partial

import numpy as np

from functorch_lite.core.tracer import bind
from functorch_lite.primitives import attention as p
from tests.records.op_record import OpRecord, Sample, calls, normal

_FACTOR = 0.6


def _inputs(rng, groups=1, n=4, m=5, e=3, f=2, heads=2):
    return normal(rng, heads * groups, n, e), normal(rng, heads, m, e), normal(rng, heads, m, f)


def _params(before=None, after=None, groups=1, strict=False):
    return {"factor": _FACTOR, "before": before, "after": after, "groups": groups, "strict": strict}


def _reference(q, k, v, mask=None, *, factor, before, after, groups, strict):
    k, v = (np.repeat(x, groups, 0) for x in (k, v))
    scores = np.einsum("bne,bme->bnm", q, k) * factor
    distance = np.arange(k.shape[1]) - np.arange(q.shape[1])[:, None]
    seen = np.ones(distance.shape, bool) if before is None else distance >= -before
    seen = seen if after is None else seen & (distance <= after)
    if mask is not None:
        mask = np.repeat(mask, q.shape[0] // mask.shape[0], 0)
        seen, scores = (seen & mask, scores) if mask.dtype == bool else (seen, scores + mask)
    weights = np.where(seen, np.exp(scores - scores.max(-1, keepdims=True, initial=-1e300)), 0)
    total = weights.sum(-1, keepdims=True)
    return np.einsum("bnm,bmf->bnf", weights / np.where(total == 0, 1, total), v)


def _out(params):
    return lambda *args: p.attention(*args, **params)[0]


def _tangent(tq, tk, tv, q, k, v, params):
    out, lse = p.attention(q, k, v, **params)
    return bind(p.attention_tangent_p, tq, tk, tv, q, k, v, out, lse, **params)


def _cotangents(ct, q, k, v, params):
    out, lse = p.attention(q, k, v, **params)
    return bind(p.attention_cotangents_p, ct, q, k, v, out, lse, **params)


_CASES = {
    "attention": _params(),
    "attention_causal": _params(after=0),
    "attention_window": _params(before=1, after=1),
    "attention_grouped": _params(after=0, groups=2),
    "attention_unseeing": _params(before=-3, after=None),  # the last queries see no key
}


def _record(name, params):
    groups = params["groups"]
    return OpRecord(
        name, _out(params),
        calls(lambda rng: _inputs(rng, groups), lambda rng: _inputs(rng, groups, n=3, m=3, heads=1),
              lambda rng: Sample(_inputs(rng, groups, n=1, m=1, e=1, f=1), "one number"),
              lambda rng: Sample(_inputs(rng, groups, n=2, m=0), "no keys"),
              lambda rng: Sample(_inputs(rng, groups, n=0), "no queries")),
        partial(_reference, **params),
    )


def _masked(name, make, params):
    """A mask behind query, key and value: `make(generator)`, for 4 heads, 4 queries and 5 keys."""
    return OpRecord(name, _out(params), calls(lambda rng: (*_inputs(rng, params["groups"], heads=2), make(rng))),
                    partial(_reference, **params))


RECORDS = [
    *(_record(name, params) for name, params in _CASES.items()),
    _masked("attention_masked", lambda rng: rng.random((1, 4, 5)) < 0.7, _params(after=1, groups=2)),
    _masked("attention_of_keys", lambda rng: np.arange(5) < np.array([[[3]], [[4]]]), _params(groups=2, strict=True)),
    _masked("attention_added", lambda rng: normal(rng, 4, 4, 5), _params(before=1, groups=2)),
    OpRecord("attention_tangent", lambda *args: _tangent(*args, params=_params(after=1)),
             calls(lambda rng: (*_inputs(rng), *_inputs(rng)))),
    OpRecord("attention_cotangents", lambda *args: _cotangents(*args, params=_params(after=1, groups=2)),
             calls(lambda rng: (normal(rng, 4, 4, 2), *_inputs(rng, 2)))),
]
