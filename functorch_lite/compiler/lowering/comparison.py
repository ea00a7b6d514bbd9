# SPDX-License-Identifier: MIT
"""Lowering of comparison, element-wise choice, logic and bits."""

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES
from functorch_lite.compiler.lowering.rules import Pair, elementwise_rules, scalar
from functorch_lite.primitives import comparison as p


def _equal(at, x, y):
    if isinstance(x, Pair):
        return at.op("and", at.op("eq", x.real, y.real), at.op("eq", x.imag, y.imag))
    return at.op("eq", x, y)


def _different(at, x, y):
    if isinstance(x, Pair):
        return at.op("or", at.op("ne", x.real, y.real), at.op("ne", x.imag, y.imag))
    return at.op("ne", x, y)


def _is_finite(at, x):
    if isinstance(x, Pair):
        return at.op("and", at.op("is_finite", x.real), at.op("is_finite", x.imag))
    return at.op("is_finite", x)


def _population_count(at, x):
    """Sums of bits in pairs, nibbles and bytes; of |x|, as in NumPy. Source: H. S. Warren, "Hacker's Delight", 5-1."""
    size = ITEM_BYTES[x.kind]
    kind = f"u{8 * size}"

    def repeated(byte):
        return at.constant(int.from_bytes(bytes([byte]) * size, "little"), kind)

    def shifted(word, by):
        return at.op("shr", word, at.constant(by, kind))

    word = at.op("bitcast", at.op("abs", x), kind=kind)
    word = at.op("sub", word, at.op("and", shifted(word, 1), repeated(0x55)))
    word = at.op("add", at.op("and", word, repeated(0x33)), at.op("and", shifted(word, 2), repeated(0x33)))
    word = at.op("and", at.op("add", word, shifted(word, 4)), repeated(0x0F))
    if size > 1:
        word = shifted(at.op("mul", word, repeated(0x01)), 8 * size - 8)
    return at.op("bitcast", word, kind=x.kind)


elementwise_rules.add(p.eq_p, _equal)
elementwise_rules.add(p.ne_p, _different)
elementwise_rules.add(p.is_finite_p, _is_finite)
elementwise_rules.add(p.population_count_p, _population_count)
elementwise_rules.add(p.select_p, lambda at, condition, x, y: at.select(condition, x, y))
for _prim in (p.lt_p, p.le_p, p.gt_p, p.ge_p, p.not_p, p.and_p, p.or_p, p.xor_p):
    elementwise_rules.add(_prim, scalar(_prim.name))
elementwise_rules.add(p.shift_left_p, scalar("shl"))
elementwise_rules.add(p.shift_right_p, scalar("shr"))
