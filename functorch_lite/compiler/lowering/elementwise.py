# SPDX-License-Identifier: MIT
"""Lowering of element-wise arithmetic: sums, products, quotients, powers, maximum and minimum.

Integers wrap; their quotient truncates, and x / 0 is 0. Complex numbers are pairs: `complex_maths` has their products
and quotients.
"""

from collections.abc import Callable

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Value
from functorch_lite.compiler.lowering import complex_maths
from functorch_lite.compiler.lowering.rules import Element, Pair, Point, elementwise_rules, scalar
from functorch_lite.primitives import elementwise as p


def by_parts(name: str) -> Callable[..., Element]:
    """The rule that is one scalar operation, applied to both parts of complex values."""

    def rule(at: Point, *values: Element) -> Element:
        if isinstance(values[0], Pair):
            return Pair(at.op(name, *[v.real for v in values]), at.op(name, *[v.imag for v in values]))
        return at.op(name, *values)

    return rule


def product(at: Point, x: Element, y: Element) -> Element:
    """x y."""
    return complex_maths.mul(at, x, y) if isinstance(x, Pair) else at.op("mul", x, y)


def quotient(at: Point, x: Element, y: Element) -> Element:
    """x / y."""
    return complex_maths.div(at, x, y) if isinstance(x, Pair) else at.op("div", x, y)


def zero(at: Point) -> Element:
    """The zero of the output's type."""
    return Pair(at.constant(0), at.constant(0)) if at.out.dtype.kind == "c" else at.constant(0)


def is_zero(at: Point, x: Element) -> Value:
    """Whether x is 0."""
    if isinstance(x, Pair):
        return at.op("and", is_zero(at, x.real), is_zero(at, x.imag))
    return at.op("eq", x, at.constant(0, x.kind))


def _scale(at, c, t):
    either = at.op("or", is_zero(at, c), is_zero(at, t))
    return at.select(either, zero(at), product(at, c, t))


def _safe_div(at, t, c):
    return at.select(is_zero(at, t), zero(at), quotient(at, t, c))


def _log_or_zero(at, x):
    if isinstance(x, Pair):
        return at.select(is_zero(at, x), zero(at), complex_maths.log(at, x))
    return at.op("log_or_zero", x)


def _clamp(at, low, x, high):
    return at.op("min", at.op("max", x, low), high)


# --- powers ----------------------------------------------------------------------------------------------------------


def _pow(at, x, y):
    if isinstance(x, Pair):
        return _complex_pow(at, x, y)
    if x.kind[0] in "iu":
        return _whole_pow(at, x, y)
    if y.op == "constant":
        if y.attr == 1:
            return x
        if y.attr == 2:
            return at.op("mul", x, x)
        if y.attr == -1:
            return at.op("div", at.constant(1), x)
    return at.op("pow", x, y)


def _complex_pow(at, x, y):
    """A constant whole power by products, as NumPy does."""
    if all(v.op == "constant" for v in y) and y.imag.attr == 0 and abs(y.real.attr) < 100 and y.real.attr % 1 == 0:
        return integer_pow(at, x, n=int(y.real.attr))
    return complex_maths.pow(at, x, y)


def _whole_pow(at, x, y):
    """Integer powers by repeated squaring, one step a bit of y. A negative power is the quotient, cut to an integer."""
    one, total = at.constant(1), at.constant(1)
    power = x
    for bit in range(8 * ITEM_BYTES[x.kind] - (x.kind[0] == "i")):
        is_on = at.op("ne", at.op("and", y, at.constant(1 << bit)), at.constant(0))
        total = at.op("select", is_on, at.op("mul", total, power), total)
        power = at.op("mul", power, power)
    if x.kind[0] == "u":
        return total
    unit = at.op("or", at.op("eq", x, one), at.op("eq", x, at.constant(-1)))
    is_odd = at.op("ne", at.op("and", y, one), at.constant(0))
    cut = at.op("select", unit, at.op("select", is_odd, x, one), at.constant(0))
    return at.op("select", at.op("lt", y, at.constant(0)), cut, total)


def integer_pow(at: Point, x: Element, *, n: int) -> Element:
    """x to the power n, by repeated squaring."""
    if n < 0:
        power = integer_pow(at, x, n=-n)
        return complex_maths.reciprocal(at, power) if isinstance(power, Pair) else at.op("div", at.constant(1), power)
    if n == 0:
        return Pair(at.constant(1), at.constant(0)) if isinstance(x, Pair) else at.constant(1)
    while not n & 1:
        x, n = product(at, x, x), n >> 1
    result, n = x, n >> 1
    while n:
        x = product(at, x, x)
        if n & 1:
            result = product(at, result, x)
        n >>= 1
    return result


for _prim, _name in ((p.add_any_p, "add"), (p.add_p, "add"), (p.sub_p, "sub"), (p.neg_p, "neg")):
    elementwise_rules.add(_prim, by_parts(_name))
for _prim in (p.rem_p, p.max_p, p.min_p):
    elementwise_rules.add(_prim, scalar(_prim.name))
elementwise_rules.add(p.mul_p, product)
elementwise_rules.add(p.div_p, quotient)
elementwise_rules.add(p.scale_p, _scale)
elementwise_rules.add(p.safe_div_p, _safe_div)
elementwise_rules.add(p.pow_p, _pow)
elementwise_rules.add(p.integer_pow_p, integer_pow)
elementwise_rules.add(p.log_for_pow_p, _log_or_zero)
elementwise_rules.add(p.clamp_p, _clamp)
