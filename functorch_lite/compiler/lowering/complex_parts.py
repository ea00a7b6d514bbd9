# SPDX-License-Identifier: MIT
"""Lowering of the parts of complex numbers, abs and sign."""

from functorch_lite.compiler.lowering import complex_maths
from functorch_lite.compiler.lowering.rules import Pair, elementwise_rules
from functorch_lite.primitives import complex_parts as p


def _abs(at, x):
    return complex_maths.hypot(at, x.real, x.imag) if isinstance(x, Pair) else at.op("abs", x)


def _sign(at, x):
    if isinstance(x, Pair):
        return complex_maths.sign(at, x)
    one, zero = at.constant(1), at.constant(0)
    if x.kind[0] == "u":
        return at.op("select", at.op("ne", x, zero), one, zero)
    below = at.op("select", at.op("lt", x, zero), at.constant(-1), zero)
    found = at.op("select", at.op("gt", x, zero), one, below)
    return found if x.kind[0] == "i" else at.op("select", at.op("is_nan", x), x, found)


elementwise_rules.add(p.real_p, lambda at, x: x.real)
elementwise_rules.add(p.imag_p, lambda at, x: x.imag)
elementwise_rules.add(p.conj_p, lambda at, x: Pair(x.real, at.op("neg", x.imag)))
elementwise_rules.add(p.complex_p, lambda at, x, y: Pair(*[at.op("convert", v, kind=at.kind) for v in (x, y)]))
elementwise_rules.add(p.abs_p, _abs)
elementwise_rules.add(p.sign_p, _sign)
