# SPDX-License-Identifier: MIT
"""Lowering of casts: conversions of value and of bits, and identities with a name."""

from typing import Any

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES
from functorch_lite.compiler.lowering.rules import Element, Pair, Point, elementwise_rules, is_complex, kind_of
from functorch_lite.primitives import casts as p


def convert(at: Point, x: Element, *, dtype: Any) -> Element:
    """x with the output's type; a real number is complex with imaginary part 0, a complex one real by its real part."""
    kind = kind_of(dtype)
    if is_complex(dtype):
        if isinstance(x, Pair):
            return Pair(at.op("convert", x.real, kind=kind), at.op("convert", x.imag, kind=kind))
        return Pair(at.op("convert", x, kind=kind), at.constant(0, kind))
    if isinstance(x, Pair):
        real = at.op("convert", x.real, kind=kind)
        return at.op("or", real, at.op("convert", x.imag, kind=kind)) if kind == "bool" else real
    return at.op("convert", x, kind=kind)


def _bitcast(at, x, *, dtype):
    kind = kind_of(dtype)
    if is_complex(dtype):
        return x if isinstance(x, Pair) else _halves(at, x, kind)
    if isinstance(x, Pair):
        return at.op("bitcast", _joined(at, x), kind=kind)
    if "bool" in (x.kind, kind):  # in registers a boolean is one bit
        return x if x.kind == kind else at.op("convert", x, kind=kind)
    return x if x.kind == kind else at.op("bitcast", x, kind=kind)


def _joined(at, x):
    """The bits of a complex number as one integer: the real part is the lower half."""
    half = 8 * ITEM_BYTES[x.real.kind]
    words = [at.op("convert", at.op("bitcast", v, kind=f"u{half}"), kind=f"u{2 * half}") for v in x]
    return at.op("or", words[0], at.op("shl", words[1], at.constant(half, f"u{2 * half}")))


def _halves(at, x, kind):
    half = 8 * ITEM_BYTES[kind]
    word = at.op("bitcast", x, kind=f"u{2 * half}") if x.kind[0] != "u" else x
    parts = (word, at.op("shr", word, at.constant(half, word.kind)))
    return Pair(*[at.op("bitcast", at.op("convert", v, kind=f"u{half}"), kind=kind) for v in parts])


elementwise_rules.add(p.convert_p, convert)
elementwise_rules.add(p.bitcast_p, _bitcast)
elementwise_rules.add(p.stop_gradient_p, lambda at, x: x)
elementwise_rules.add(p.name_p, lambda at, x, *, name: x)
