# SPDX-License-Identifier: MIT
"""Statistics of samples: cov, corrcoef, bincount, histogram, histogram_bin_edges, histogram2d, histogramdd."""

from typing import Any

import ml_dtypes
import numpy as np

from functorch_lite.backends.registry import constant
from functorch_lite.core.tracer import Tracer
from functorch_lite.errors import ArgumentError, ConcretizationError
from functorch_lite.numpy import joining, reductions, shaping, ufuncs
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.contractions import matmul_body
from functorch_lite.numpy.creation import linspace
from functorch_lite.numpy.dispatch import implement, is_eager_call, public
from functorch_lite.numpy.indexing import searchsorted
from functorch_lite.numpy.promotion import asarray, broadcast_to, cast, common_dtype, to_float
from functorch_lite.numpy.selection import where_body
from functorch_lite.primitives.indexing import gather, scatter

_i64, _f64 = np.dtype(np.int64), np.dtype(np.float64)


@public(np.cov)
def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    fweights: Any = None,
    aweights: Any = None,
    *,
    dtype: Any = None,
) -> Any:
    """The covariance matrix of variables (rows of m) over observations (columns)."""
    x = asarray(m)
    wide = common_dtype(x, np.float64(0)) if y is None else common_dtype(x, asarray(y), np.float64(0))
    wide = np.dtype(dtype) if dtype is not None else wide
    x = _variables(cast(x, wide), rowvar)
    if y is not None:
        x = e.concatenate([x, _variables(cast(asarray(y), wide), rowvar)], 0)
    ddof = (0 if bias else 1) if ddof is None else ddof
    weights = None
    for given in (fweights, aweights):
        if given is not None:
            given = cast(asarray(given), x.dtype)
            weights = given if weights is None else e.mul(weights, given)
    n = x.shape[1]
    if weights is None:
        center, total, weighted = reductions.mean(x, axis=1, keepdims=True), float(n), None
        factor = np.maximum(total - ddof, 0)
    else:
        total = reductions.sum(weights)
        center = reductions.average(x, axis=1, weights=weights, keepdims=True)
        weighted = weights
        aw = 1 if aweights is None else cast(asarray(aweights), x.dtype)
        factor = total - ddof * (reductions.sum(weights * aw) / total if aweights is not None else 1)
    gap = x - center
    other = gap if weighted is None else gap * weighted
    return shaping.squeeze(matmul_body(gap, shaping.transpose(ufuncs.conjugate(other))) / factor)


def _variables(x, rowvar):
    x = shaping.atleast_2d(x)
    return x if rowvar or x.shape[0] == 1 else shaping.transpose(x)


@public(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    """The matrix of correlation coefficients of variables (rows)."""
    c = cov(x, y, rowvar, dtype=dtype)
    if not c.shape:
        return c / c
    scale = ufuncs.sqrt(shaping.diagonal(e.real(c) if c.dtype.kind == "c" else c))
    c = c / scale[:, None] / scale[None, :]
    return reductions.clip(c, -1, 1) if c.dtype.kind != "c" else c


def bincount(x: Any, weights: Any = None, minlength: int = 0, *, length: int | None = None) -> Any:
    """How often each of 0, 1, 2, ... occurs in x, or the sum of its weights.

    length: the number of bins (elements beyond are left out); needed under jit and vmap.
    """
    if length is None and is_eager_call((x, weights), {}):
        return np.bincount(x, weights, minlength)
    x = asarray(x)
    if length is None:
        known = x.concrete() if isinstance(x, Tracer) else x
        if known is None:
            raise ConcretizationError(
                "bincount: the number of bins depends on values that are not known. Give length=n."
            )
        length = max(int(np.max(known, initial=-1)) + 1, minlength)
    updates = constant(np.ones(x.shape, np.int64), x) if weights is None else cast(asarray(weights), _f64)
    # out of range on either side is left out
    place = e.select(e.lt(x, x.dtype.type(0)), broadcast_to(x.dtype.type(length), x.shape), x)
    return scatter(e.full((length,), 0, updates.dtype), updates, place, combine="add", mode="fill")


implement(np.bincount)(bincount)


@public(np.histogram_bin_edges)
def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Any:
    """The edges of the bins of a histogram: `bins` equal ones over the range of x, or those given."""
    if isinstance(bins, str):
        raise ArgumentError(
            "histogram: the number of bins cannot be chosen from traced values. Give a number or edges."
        )
    if not isinstance(bins, (int, np.integer)):
        return asarray(bins)
    x = to_float(a)
    low, high = (reductions.min(x), reductions.max(x)) if range is None else range
    low, high = (cast(v if not isinstance(v, int) else float(v), x.dtype) for v in (low, high))
    flat = e.eq(low, high)
    half = x.dtype.type(0.5)
    low, high = where_body(flat, low - half, low), where_body(flat, high + half, high)
    return linspace(low, high, int(bins) + 1, dtype=x.dtype)


def _is_number(bins):
    return isinstance(bins, (int, np.integer))


def _bin_of(x, edges, equal=False):
    """The number of the bin of each element; the number of bins for those in none.

    equal: the bins are equally long, so the bin is computed, and its edges decide what rounding left open.
    """
    n = edges.shape[0] - 1
    if equal and x.dtype == edges.dtype and n * float(ml_dtypes.finfo(x.dtype).eps) < 1 / 8:
        return _equal_bin_of(x, edges, n)
    i = e.sub(searchsorted(edges, x, side="right"), np.int64(1))
    last = broadcast_to(edges[n], x.shape)
    i = e.select(e.eq(x, cast(last, x.dtype)), broadcast_to(np.int64(n - 1), x.shape), i)
    return e.select(e.lt(i, np.int64(0)), broadcast_to(np.int64(n), x.shape), i)


def _equal_bin_of(x, edges, n):
    low, high = (broadcast_to(edges[k], x.shape) for k in (0, n))
    inside = e.bit_and(e.le(low, x), e.le(x, high))
    place = e.mul(e.div(e.sub(x, low), e.sub(high, low)), broadcast_to(x.dtype.type(n), x.shape))
    i = cast(e.select(inside, place, broadcast_to(x.dtype.type(0), x.shape)), _i64)
    i = e.minimum(e.maximum(i, np.int64(0)), np.int64(n - 1))
    below = e.lt(x, gather(edges, i, mode="unchecked"))
    i = e.sub(i, cast(below, _i64))
    following = e.add(i, np.int64(1))
    beyond = e.bit_and(e.le(gather(edges, following, mode="unchecked"), x), e.lt(following, np.int64(n)))
    return e.select(inside, e.add(i, cast(beyond, _i64)), broadcast_to(np.int64(n), x.shape))


@public(np.histogram)
def histogram(a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> tuple[Any, Any]:
    """The number (or weight) of elements in each bin, and the edges of the bins."""
    x = shaping.ravel(asarray(a))
    edges = histogram_bin_edges(x, bins, range)
    x = cast(x, edges.dtype) if x.dtype.kind in "biu" else x
    updates = constant(np.ones(x.shape, np.int64), x) if weights is None else shaping.ravel(asarray(weights))
    n = edges.shape[0] - 1
    place = _bin_of(x, edges, _is_number(bins))
    counts = scatter(e.full((n,), 0, updates.dtype), updates, place, combine="add", mode="fill")
    if density:
        counts = counts / (edges[1:] - edges[:-1]) / reductions.sum(counts)
    return counts, edges


@public(np.histogramdd)
def histogramdd(sample: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    """The histogram of points [count, dimension], and the edges along each dimension."""
    points = shaping.transpose(sample) if isinstance(sample, (list, tuple)) else asarray(sample)
    n = points.shape[1]
    bins = [bins] * n if isinstance(bins, (int, np.integer)) else list(bins)
    ranges = [None] * n if range is None else list(range)
    columns = [points[:, i] for i in np.arange(n).tolist()]
    edges = [histogram_bin_edges(c, b, r) for c, b, r in zip(columns, bins, ranges, strict=True)]
    updates = constant(np.ones(points.shape[0]), points) if weights is None else cast(asarray(weights), _f64)
    places = [_bin_of(c, g, _is_number(b)) for c, g, b in zip(columns, edges, bins, strict=True)]
    shape = tuple(g.shape[0] - 1 for g in edges)
    counts = scatter(e.full(shape, 0, updates.dtype), updates, *places, combine="add", mode="fill")
    if density:
        volume = edges[0][1:] - edges[0][:-1]
        for g in edges[1:]:
            volume = volume[..., None] * (g[1:] - g[:-1])
        counts = counts / volume / reductions.sum(counts)
    return counts, edges


@public(np.histogram2d)
def histogram2d(x: Any, y: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    """The histogram of points (x, y), and the edges along both."""
    both = joining.stack([to_float(x), to_float(y)], axis=1)
    pair = bins if isinstance(bins, (int, np.integer)) or len(bins) == 2 else [bins, bins]
    counts, edges = histogramdd(both, pair, range, density, weights)
    return counts, edges[0], edges[1]
