# SPDX-License-Identifier: MIT
"""Lowering of rounding: floor, ceil, round, trunc and nextafter."""

from functorch_lite.compiler.lowering.rules import elementwise_rules, scalar
from functorch_lite.primitives import rounding as p


def _nextafter(at, x, y):
    """Of 16-bit floats by their bits, whose order is that of the magnitudes."""
    if x.kind not in ("f16", "bf16"):
        return at.op("nextafter", x, y)

    def number(value):
        return at.constant(value, "u16")

    bits = at.op("bitcast", x, kind="u16")
    sign = at.op("and", at.op("bitcast", y, kind="u16"), number(0x8000))
    is_zero = at.op("eq", x, at.constant(0))
    outwards = at.op("eq", at.op("gt", y, x), at.op("gt", x, at.constant(0)))
    step = at.op("select", outwards, number(1), number(0xFFFF))
    moved = at.op("select", is_zero, at.op("or", sign, number(1)), at.op("add", bits, step))
    moved = at.op("bitcast", moved, kind=x.kind)
    is_nan = at.op("or", at.op("is_nan", x), at.op("is_nan", y))
    return at.select(is_nan, at.op("add", x, y), at.select(at.op("eq", x, y), y, moved))


for _prim in (p.floor_p, p.ceil_p, p.round_p, p.trunc_p):
    elementwise_rules.add(_prim, scalar(_prim.name))
elementwise_rules.add(p.nextafter_p, _nextafter)
