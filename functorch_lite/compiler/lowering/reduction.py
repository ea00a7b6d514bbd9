# SPDX-License-Identifier: MIT
"""Lowering of reductions: operations that combine, and kernels for argmax, argmin, logsumexp and negligible."""

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


def _wide(b: Builder, x: Value) -> Value:
    return b.op("convert", x, kind="f32") if x.kind in ("f16", "bf16") else x


def _wide_kind(kind: str) -> str:
    return "f32" if kind in ("f16", "bf16") else kind


# --- argmax and argmin -----------------------------------------------------------------------------------------------


def _position(combine: str):
    """The kernel: the extremum, then the first position that holds it; a NaN is the extremum where there is one."""

    def rule(b, inputs, outputs, *, axis):
        x, out = inputs[0], outputs[0]
        if not out.aval.size:
            return
        n, inner = x.shape[axis], strides_of(x.shape)[axis]
        find = _find_along_vectors if inner == 1 else _find_beside
        with b.loop(out.aval.size // inner) as i:
            if inner == 1:
                out.store(b, i, find(b, x, n, 1, i * n, combine))
                return
            with b.loop(inner, vector=True) as j:
                out.store(b, i * inner + j, find(b, x, n, inner, i * (n * inner) + j, combine))

    return rule


def _find_along_vectors(b, x, n, stride, start, combine):
    """In one row: both passes in vectors."""
    kind, number = _wide_kind(x.kind), "i32" if n < 1 << 31 else "i64"
    best = reduced(b, [n], [stride], True, combine, kind, lambda at: _wide(b, x.load(b, start + at)))
    end = b.constant(n, number)

    def place(at):
        value = _wide(b, x.load(b, start + at))
        hit = b.op("eq", value, best)
        if kind[0] == "f":
            hit = b.op("or", hit, b.op("and", b.op("is_nan", value), b.op("is_nan", best)))
        return b.op("select", hit, b.value_of(at, number), end)

    return b.op("convert", reduced(b, [n], [stride], True, "min", number, place), kind="i64")


def _find_beside(b, x, n, stride, start, combine):
    """In columns, a lane each: one pass, which remembers the position."""
    first = _wide(b, x.load(b, start))
    name = "gt" if combine == "max" else "lt"

    def step(i, best, place):
        value = _wide(b, x.load(b, start + i * stride))
        better = b.op(name, value, best)
        if value.kind[0] == "f":
            better = b.op("or", better, b.op("and", b.op("is_nan", value), b.op("not", b.op("is_nan", best))))
        return [b.op("select", better, value, best), b.op("select", better, b.value_of(i, "i64"), place)]

    return b.reduce(n, [first, b.constant(0, "i64")], step)[1]


kernel_rules.add(p.argmax_p, _position("max"))
kernel_rules.add(p.argmin_p, _position("min"))


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
    kind = _wide_kind(x.kind)
    zero = b.constant(0, kind)
    if 0 in sizes:
        return b.constant(-math.inf, kind)

    def entry(at):
        return _wide(b, x.load(b, start + at))

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
