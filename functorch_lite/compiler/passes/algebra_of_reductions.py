# SPDX-License-Identifier: MIT
"""Algebra of reductions: rules of the pass `algebra`, exact as all of its rules are.

A reduction over axes of size 1 moves elements only; but a sum begins with 0, so that of -0 is 0. A sum over axes along
which an integer is repeated is a product. A running maximum or minimum of one element is that element.
"""

import functools
from typing import Any

import numpy as np

from functorch_lite.compiler.passes.rewriting import Rewriter, Rule, literal, replaced
from functorch_lite.core import dtypes
from functorch_lite.core.aval import StackAval
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Atom, Equation
from functorch_lite.primitives.broadcast import broadcast_in_dim_p, reduce_sum_p
from functorch_lite.primitives.cumulative import cummax_p, cummin_p
from functorch_lite.primitives.elementwise import add_p, mul_p
from functorch_lite.primitives.movement import reshape_p
from functorch_lite.primitives.reduction import reduce_and_p, reduce_max_p, reduce_min_p, reduce_or_p, reduce_prod_p


def kind_of(atom: Atom) -> str:
    """The dtype's kind; "?" for what no rule is for: run-time stacks, and float8, some of whose types lack a -0."""
    return "?" if isinstance(atom.aval, StackAval) else _dtype_kind(atom.aval.dtype)


@functools.cache
def _dtype_kind(dtype: np.dtype) -> str:
    return "?" if dtype in dtypes.float8 else dtypes.dtype_kind(dtype)


def _is_short(eqn: Equation) -> bool:
    shape = eqn.inputs[0].aval.shape
    return all(shape[a] == 1 for a in eqn.params["axes"])


def _reduced(eqn: Equation, rewriter: Rewriter) -> Any:
    """A reduction over axes of size 1 moves elements only."""
    if not _is_short(eqn) or kind_of(eqn.inputs[0]) in "?c":
        return None
    return replaced(eqn, reshape_p, eqn.inputs[0], shape=eqn.outputs[0].aval.shape)


def _reduce_sum(eqn: Equation, rewriter: Rewriter) -> Any:
    x, axes = eqn.inputs[0], eqn.params["axes"]
    kind = kind_of(x)
    if _is_short(eqn):
        if kind != "f":
            return _reduced(eqn, rewriter)
        moved = rewriter.emit(reshape_p, x, shape=eqn.outputs[0].aval.shape) if axes else x
        return replaced(eqn, add_p, moved, literal(0, x.aval.dtype))  # a sum begins with 0: that of -0 is 0
    inner = rewriter.maker(x, broadcast_in_dim_p)
    if inner is None or kind not in "iu":
        return None
    source, dims = inner.inputs[0], inner.params["dims"]
    if any(a in axes for a in dims) or any(
        n != x.aval.shape[d] for n, d in zip(source.aval.shape, dims, strict=True)
    ):
        return None
    count = 1
    for a in axes:
        count *= x.aval.shape[a]
    kept = [i for i in range(len(x.aval.shape)) if i not in axes]
    spread = rewriter.emit(
        broadcast_in_dim_p, source, shape=eqn.outputs[0].aval.shape, dims=tuple([kept.index(d) for d in dims])
    )
    return replaced(eqn, mul_p, spread, literal(np.asarray(count).astype(x.aval.dtype), x.aval.dtype))


def _cumulated(eqn: Equation, rewriter: Rewriter) -> Any:
    return eqn.inputs[0] if eqn.inputs[0].aval.shape[eqn.params["axis"]] == 1 else None


REDUCTION_RULES: dict[Primitive, Rule] = {
    reduce_sum_p: _reduce_sum,
    **dict.fromkeys((cummax_p, cummin_p), _cumulated),
    **dict.fromkeys((reduce_max_p, reduce_min_p, reduce_and_p, reduce_or_p, reduce_prod_p), _reduced),
}
