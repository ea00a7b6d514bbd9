# SPDX-License-Identifier: MIT
"""Lowering of reductions: operations that combine, and kernels for logsumexp and negligible."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder, identity
from functorch_lite.compiler.loop_ir.nodes import ZERO, Index, Value
from functorch_lite.compiler.lowering import complex_maths
from functorch_lite.compiler.lowering.rules import (
    Operand,
    Pair,
    Point,
    Reduction,
    kernel_rules,
    reduction_rules,
    strides_of,
)
from functorch_lite.primitives import matrix
from functorch_lite.primitives import reduction as p

for _prim, _combine in (
    (p.reduce_max_p, "max"), (p.reduce_min_p, "min"), (p.reduce_prod_p, "mul"), (p.reduce_and_p, "and"),
    (p.reduce_or_p, "or"),
):
    reduction_rules.add(_prim, Reduction(_combine))


# --- loops -----------------------------------------------------------------------------------------------------------


def reduced(b: Builder, extents: Sequence[int], strides: Sequence[int], vector: bool, combine: str, kind: str,
            element: Callable[[Index], Value]) -> Value:
    """The elements at the positions of nested loops, combined; the last loop runs in vectors if `vector`."""

    def nest(k, position, total):
        if k == len(extents):
            return b.op(combine, total, element(position))

        def body(i, so_far):
            return [nest(k + 1, position + i * strides[k], so_far)]

        last = vector and k == len(extents) - 1
        return b.reduce(extents[k], [total], body, combine=[combine], vector=last)[0]

    return nest(0, ZERO, b.constant(identity(combine, kind), kind))


def wide(b: Builder, x: Value) -> Value:
    """The number, of a 16-bit float in 32 bits."""
    return b.op("convert", x, kind="f32") if x.kind in ("f16", "bf16") else x


def wide_kind(kind: str) -> str:
    """The kind of `wide` of a number of some kind."""
    return "f32" if kind in ("f16", "bf16") else kind


# --- logsumexp -------------------------------------------------------------------------------------------------------


@kernel_rules.register(p.logsumexp_p)
def _(b, inputs, outputs, *, axes):
    x, out = inputs[0], outputs[0]
    if not out.aval.size:
        return
    kept = [d for d in range(len(x.shape)) if d not in axes]
    reduced_axes = sorted(axes)
    strides, out_strides = strides_of(x.shape), strides_of(out.shape)
    along = not kept or (bool(reduced_axes) and reduced_axes[-1] > kept[-1])

    def each(k, source, to):
        if k < len(kept):
            with b.loop(x.shape[kept[k]], vector=not along and k == len(kept) - 1) as i:
                each(k + 1, source + i * strides[kept[k]], to + i * out_strides[k])
            return
        sizes, steps = [x.shape[d] for d in reduced_axes], [strides[d] for d in reduced_axes]
        out.store(b, to, b.op("convert", _log_sum_exp(b, x, source, sizes, steps, along), kind=out.kind))

    each(0, ZERO, ZERO)


def _log_sum_exp(b, x, start, sizes, strides, vector):
    """log(sum(exp(x - top))) + top, where top is the largest entry, or 0 if that is not finite."""
    kind = wide_kind(x.kind)
    zero = b.constant(0, kind)
    if 0 in sizes:
        return b.constant(-math.inf, kind)

    def entry(at):
        return wide(b, x.load(b, start + at))

    top = reduced(b, sizes, strides, vector, "max", kind, entry)
    top = b.op("select", b.op("is_finite", top), top, zero)
    total = reduced(b, sizes, strides, vector, "add", kind, lambda at: b.op("exp", b.op("sub", entry(at), top)))
    return b.op("add", b.op("log", total), top)


# --- negligible ------------------------------------------------------------------------------------------------------


def _magnitude(b: Builder, x: Operand, at: Index) -> Value:
    element = x.load(b, at)
    if isinstance(element, Pair):
        return complex_maths.hypot(Point(b, [x.aval], x.aval), *element)
    return b.op("abs", element)


@kernel_rules.register(matrix.negligible_p)
def _(b, inputs, outputs):
    (x, values), out = inputs, outputs[0]
    if not out.aval.size:
        return
    n = values.shape[-1]
    lead = values.aval.size // n if n else math.prod(values.shape[:-1])
    rest = x.aval.size // lead
    factor = b.constant(4 * n * float(np.finfo(values.aval.dtype).eps), values.kind)
    with b.loop(lead) as i:
        largest = b.constant(0, values.kind)
        if n:
            found = reduced(b, [n], [1], True, "max", values.kind, lambda k: _magnitude(b, values, i * n + k))
            largest = b.op("max", largest, found)
        bound = b.op("mul", largest, factor)
        with b.loop(rest, vector=True) as j:
            out.store(b, i * rest + j, b.op("le", _magnitude(b, x, i * rest + j), bound))
