# SPDX-License-Identifier: MIT
"""Records of gather, scatter and run-time slices: every mode and combination, duplicates, negative indices, size 0."""

import numpy as np

from functorch_lite.primitives import blocks
from functorch_lite.primitives import indexing as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, distinct, normal

FLOATS = ("float32", "float16", "bfloat16")
ALL_FLOATS = (*FLOATS, "complex64")
_DUPLICATES = np.array([2, 0, 2, -1, 0])
_OUTSIDE = np.array([1, 7, -2, -9, 3])


def _indices(rng, *shape, n=4):
    return rng.integers(0, n, shape)


def _resolve(i, n, mode):
    """Index arrays in range, and which were in range."""
    if mode == "clip":
        return np.clip(i, 0, n - 1), np.ones(i.shape, bool)
    if mode == "wrap":
        return i % n, np.ones(i.shape, bool)
    j = np.where(i < 0, i + n, i)
    inside = (j >= 0) & (j < n)
    return np.where(inside, j, 0), inside


def _gather_reference(mode):
    def reference(x, *indices):
        pairs = [_resolve(i, n, mode) for i, n in zip(indices, x.shape, strict=False)]
        out = x[tuple(i for i, _ in pairs)]
        inside = np.logical_and.reduce([ok for _, ok in pairs])
        missing = np.asarray(np.nan if mode == "fill" and x.dtype.kind in "fc" else 0, x.dtype)
        return np.where(inside.reshape(inside.shape + (1,) * (out.ndim - inside.ndim)), out, missing)

    return reference


_COMBINE = {
    "set": lambda old, new: new, "add": np.add, "multiply": np.multiply, "min": np.minimum, "max": np.maximum,
}


def _scatter_reference(combine, mode):
    def reference(x, updates, *indices):
        out = x.copy()
        pairs = [_resolve(i, n, mode) for i, n in zip(indices, x.shape, strict=False)]
        inside = np.logical_and.reduce([ok for _, ok in pairs])
        for where in np.ndindex(*indices[0].shape):
            if inside[where]:
                place = tuple(int(i[where]) for i, _ in pairs)
                out[place] = _COMBINE[combine](out[place], updates[where])
        return out

    return reference


def _gather(mode, *makers):
    return OpRecord(
        f"gather_{mode}", lambda x, *i: p.gather(x, *i, mode=mode), calls(*makers), _gather_reference(mode), ALL_FLOATS,
        order=1,
    )


_IN_RANGE = (
    lambda rng: (normal(rng, 4, 3), _indices(rng, 5)),
    lambda rng: (normal(rng, 4), _indices(rng, 2, 3)),
    lambda rng: (complex_normal(rng, 4, 2), _indices(rng, 3)),
    lambda rng: (normal(rng, 4, 3, 2), _indices(rng, 2), _indices(rng, 2, n=3)),
    lambda rng: (normal(rng, 4, 3), _indices(rng, 2, 2), _indices(rng, 2, 2, n=3)),
    lambda rng: Sample((normal(rng, 4, 3), rng.integers(0, 4)), "one index"),
    lambda rng: Sample((normal(rng, 4, 3), np.zeros(0, int)), "no indices"),
    lambda rng: (rng.integers(0, 99, 4), _indices(rng, 3)),
)
_NEGATIVE = (lambda rng: Sample((normal(rng, 4, 2), _DUPLICATES), "negative"),)
_OUT = (
    lambda rng: Sample((normal(rng, 4, 2), _OUTSIDE), "out of range"),
    lambda rng: Sample((normal(rng, 4, 3), _OUTSIDE, _OUTSIDE[::-1]), "out of range twice"),
    lambda rng: Sample((np.arange(4), _OUTSIDE), "integers out of range"),
)
_FILLED = (
    lambda rng: Sample((normal(rng, 4, 2), _OUTSIDE), "out of range", smooth=False),
    lambda rng: Sample((np.arange(4), _OUTSIDE), "integers out of range"),
)


def _scatter(combine, mode="raise", outside=False, order=1):
    index = _OUTSIDE if outside else _DUPLICATES
    makers = (
        lambda rng: Sample((distinct(rng, 4, 2) + 0.03, distinct(rng, 5, 2), index), "duplicates"),
        lambda rng: Sample((distinct(rng, 4) + 0.03, distinct(rng, 5), index), "vector"),
        lambda rng: Sample((distinct(rng, 4, 3) + 0.03, distinct(rng, 5), index, np.array([0, 1, 0, 2, 1])),
                       "two axes"),
        lambda rng: Sample((normal(rng, 4, 2), np.zeros((0, 2)), np.zeros(0, int)), "no updates"),
        lambda rng: Sample((normal(rng, 4, 2), normal(rng, 2), rng.integers(0, 4)), "one update"),
    )
    if combine in ("set", "add", "multiply"):
        makers += (lambda rng: Sample((complex_normal(rng, 4), complex_normal(rng, 5), index), "complex"),)
    if combine == "multiply":
        makers += (
            lambda rng: Sample((np.array([2.0, 0.0, 3.0, 1.0]), np.array([0.0, 4.0, 5.0, 0.0, 0.0]), index), "zeros"),
        )
    if combine in ("min", "max"):
        makers += (lambda rng: Sample((np.ones(4), np.ones(5), index), "ties", smooth=False),)
    kinds = ALL_FLOATS if combine in ("set", "add", "multiply") else FLOATS
    return OpRecord(
        f"scatter_{combine}_{mode}", lambda x, u, *i: p.scatter(x, u, *i, combine=combine, mode=mode), calls(*makers),
        _scatter_reference(combine, mode), kinds, order=order,
    )


def _block(rng):
    return rng.integers(0, 3), rng.integers(0, 2)


def _blocks(rng):
    return rng.integers(-2, 5, 3), rng.integers(-3, 6, 3).astype(np.int32)


def _clamped(x, i, j):
    if np.ndim(i):
        return np.stack([_clamped(*each) for each in zip(x, i, j, strict=True)])
    i, j = min(max(int(i), 0), 2), min(max(int(j), 0), 1)
    return x[i : i + 2, j : j + 2]


def _updated(x, u, i, j):
    if np.ndim(i):
        return np.stack([_updated(*each) for each in zip(x, u, i, j, strict=True)])
    out = x.copy()
    _clamped(out, i, j)[...] = u
    return out


RECORDS = [
    _gather("raise", *_IN_RANGE, *_NEGATIVE),
    _gather("unchecked", *_IN_RANGE[:2]),
    _gather("clip", *_OUT),
    _gather("wrap", *_OUT),
    _gather("zero", *_OUT),
    _gather("fill", *_FILLED),
    OpRecord("gather_plain", lambda x, i: p.gather(x, i), calls(_IN_RANGE[0]), lambda x, i: x[i],
             plain=lambda x, i: np.take(x, i, axis=0)),
    _scatter("set"),
    _scatter("add"),
    _scatter("multiply", order=3),
    _scatter("min", order=2),
    _scatter("max", order=2),
    *[_scatter(c, "fill", outside=True, order=2) for c in ("set", "add", "multiply", "max")],
    *[_scatter(c, "clip", outside=True) for c in ("set", "add", "multiply", "min")],
    *[_scatter(c, "wrap", outside=True) for c in ("set", "add", "multiply", "max")],
    OpRecord("index_order", p.index_order,
             calls(lambda rng: (rng.integers(0, 3, 7),), lambda rng: (rng.integers(0, 3, (2, 5)),)),
             lambda x: np.argsort(x, axis=-1, kind="stable"), (), order=0),
    OpRecord(
        "dynamic_slice", lambda x, i, j: blocks.dynamic_slice(x, i, j, sizes=(2, 2)),
        calls(lambda rng: (normal(rng, 4, 3), *_block(rng)),
              lambda rng: Sample((normal(rng, 4, 3), np.int64(9), np.int32(-4)), "clamped"),
              lambda rng: Sample((normal(rng, 3, 4, 3), *_blocks(rng)), "each its own")),
        _clamped, ALL_FLOATS, order=1,
    ),
    OpRecord(
        "dynamic_update_slice", blocks.dynamic_update_slice,
        calls(lambda rng: (normal(rng, 4, 3), normal(rng, 2, 2), *_block(rng)),
              lambda rng: Sample((normal(rng, 4, 3), normal(rng, 2, 2), np.int64(9), np.int32(-4)), "clamped"),
              lambda rng: Sample((normal(rng, 3, 4, 3), normal(rng, 3, 2, 2), *_blocks(rng)), "each its own")),
        _updated, ALL_FLOATS, order=1,
    ),
]
