# SPDX-License-Identifier: MIT
"""Algebra: cheaper equations that give the same bits.

Every rewrite is exact for all values of the dtypes it is applied to, -0, infinities and subnormal numbers included,
and NaN stays NaN (its sign and payload are not looked at). So x + 0.0 stays (it turns -0 into 0), x - 0.0 goes; x * 0
is 0 for integers only; x / 4 is x * 0.25, x / 3 stays. Rewrites that reorder sums or products are for integers, whose
arithmetic is modular. Complex products and quotients are left alone: by 1 + 0i they turn an infinity into NaN.

`scale(c, t)`, the product of a derivative in which zero times anything is zero, is a plain product where one factor
is a finite literal other than zero; `safe_div(t, c)`, where zero by anything is zero, a plain quotient where c is
one. The sign of the zero that the two give is not defined.

Literals are in canonical form: second, and of rank 0.
"""

from typing import Any

import ml_dtypes
import numpy as np

from functorch_lite.compiler.passes.algebra_of_pads import joined_pads
from functorch_lite.compiler.passes.algebra_of_reductions import REDUCTION_RULES, kind_of
from functorch_lite.compiler.passes.rewriting import (
    Rewriter,
    Rule,
    literal,
    program_pass,
    replaced,
    rewrite,
    scalar,
)
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Atom, Equation, Literal, Program
from functorch_lite.primitives.broadcast import broadcast_in_dim_p
from functorch_lite.primitives.comparison import and_p, eq_p, ge_p, gt_p, le_p, lt_p, ne_p, not_p, or_p, select_p, xor_p
from functorch_lite.primitives.complex_parts import abs_p, complex_p, conj_p, imag_p, real_p
from functorch_lite.primitives.elementwise import (
    add_p,
    div_p,
    integer_pow_p,
    max_p,
    min_p,
    mul_p,
    neg_p,
    pow_p,
    safe_div_p,
    scale_p,
    sub_p,
)


@program_pass
def simplify(program: Program) -> Program:
    """The program with cheaper equations of the same values."""
    return rewrite(program, RULES, simplify)


def _if_whole(x: Atom, eqn: Equation) -> Any:
    """`x` as the result, where it has the type of the result."""
    return x if x.aval == eqn.outputs[0].aval else None


def _number(value: Any) -> Any:
    """A scalar of any dtype as a Python number, whose products and quotients below are exact."""
    return value.item() if hasattr(value, "item") else value


def _is_negative_zero(c: Any) -> bool:
    return c == 0 and bool(np.signbit(np.asarray(c, np.float64)))


# --- sums -------------------------------------------------------------------------------------------------------------


def _add(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    kind, c = kind_of(y), scalar(y)
    if kind in "?c":
        return None
    if c is not None and not c and (kind != "f" or _is_negative_zero(_number(c))):
        return _if_whole(x, eqn)  # x + -0.0
    if kind == "b":
        return None
    negated = rewriter.maker(y, neg_p)
    if negated is not None:
        return replaced(eqn, sub_p, x, negated.inputs[0])
    negated = rewriter.maker(x, neg_p)
    if negated is not None and type(y) is not Literal:
        return replaced(eqn, sub_p, y, negated.inputs[0])
    return _regrouped(eqn, rewriter, kind, c) or joined_pads(eqn, rewriter)


def _regrouped(eqn: Equation, rewriter: Rewriter, kind: str, c: Any) -> Any:
    """(x op a) op c = x op (a op c) for integers, modulo a power of two."""
    if c is None or kind not in "iu":
        return None
    x, y = eqn.inputs
    inner = rewriter.maker(x, eqn.prim)
    a = None if inner is None else scalar(inner.inputs[1])
    if inner is None or a is None:
        return None
    a, c = np.asarray(a, y.aval.dtype), np.asarray(c, y.aval.dtype)
    with np.errstate(over="ignore"):
        both = a + c if eqn.prim is add_p else a * c
    return replaced(eqn, eqn.prim, inner.inputs[0], literal(both, y.aval.dtype))


def _sub(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    kind, c = kind_of(y), scalar(y)
    if kind in "?c":
        return None
    if c is not None and not c and not _is_negative_zero(_number(c)):
        return _if_whole(x, eqn)  # x - 0.0
    c = scalar(x)
    if c is not None and not c and (kind != "f" or _is_negative_zero(_number(c))):
        return replaced(eqn, neg_p, y) if y.aval == eqn.outputs[0].aval else None
    if x is y and kind in "iu":
        return rewriter.filled(eqn.outputs[0].aval, 0)
    negated = rewriter.maker(y, neg_p)
    return None if negated is None else replaced(eqn, add_p, x, negated.inputs[0])


def _neg(eqn: Equation, rewriter: Rewriter) -> Any:
    inner = rewriter.maker(eqn.inputs[0], neg_p)
    return None if inner is None else inner.inputs[0]


# --- products ---------------------------------------------------------------------------------------------------------


def _mul(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    kind, c = kind_of(y), scalar(y)
    if kind in "?c":
        return None
    if c is not None:
        if c == 1:
            return _if_whole(x, eqn)
        if not c and kind != "f":
            return rewriter.filled(eqn.outputs[0].aval, 0)
        if kind in "fi" and c == -1 and x.aval == eqn.outputs[0].aval:
            return replaced(eqn, neg_p, x)
    left, right = rewriter.maker(x, neg_p), rewriter.maker(y, neg_p)
    if left is not None and right is not None:
        return replaced(eqn, mul_p, left.inputs[0], right.inputs[0])
    if left is not None and c is not None and kind == "f":
        return replaced(eqn, mul_p, left.inputs[0], literal(-np.asarray(c, y.aval.dtype), y.aval.dtype))
    return _regrouped(eqn, rewriter, kind, c)


def _scale(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    kind = kind_of(y)
    plain = kind in "biu" or any(c is not None and c != 0 and np.isfinite(c) for c in map(scalar, (x, y)))
    if kind != "?" and plain:
        return replaced(eqn, mul_p, *((y, x) if type(x) is Literal else (x, y)))
    if kind != "?" and any(c is not None and c == 0 for c in map(scalar, (x, y))):
        return rewriter.filled(eqn.outputs[0].aval, 0)
    return None


def _div(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    kind, c = kind_of(y), scalar(y)
    if c is None or kind in "?c":
        return None
    if c == 1:
        return _if_whole(x, eqn)
    if kind != "f":
        return None
    if c == -1 and x.aval == eqn.outputs[0].aval:
        return replaced(eqn, neg_p, x)
    inverse = _exact_inverse(c, y.aval.dtype)
    return None if inverse is None else replaced(eqn, mul_p, x, inverse)


def _exact_inverse(c: Any, dtype: np.dtype) -> Literal | None:
    """1 / c where c is a power of two whose reciprocal is a normal number: x / c and x (1 / c) then round the same."""
    number = float(_number(c))
    if not np.isfinite(number) or abs(np.frexp(number)[0]) != 0.5:
        return None
    limits = ml_dtypes.finfo(dtype)
    if not float(limits.tiny) <= abs(1 / number) <= float(limits.max):
        return None
    return literal(dtype.type(1 / number), dtype)


def _safe_div(eqn: Equation, rewriter: Rewriter) -> Any:
    t, y = eqn.inputs
    c = scalar(y)
    plain = c is not None and kind_of(y) == "f" and c != 0 and np.isfinite(c)
    return replaced(eqn, div_p, t, y) if plain else None


# --- powers -----------------------------------------------------------------------------------------------------------


def _integer_pow(eqn: Equation, rewriter: Rewriter) -> Any:
    (x,), n = eqn.inputs, eqn.params["n"]
    if n == 1:
        return x
    if n == 2:
        return replaced(eqn, mul_p, x, x)
    return None if n else rewriter.filled(x.aval, 1)


def _pow(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    c = scalar(y)
    if c is None or (y.aval.dtype.char not in "fd" and y.aval.dtype.kind not in "iu"):
        return None  # the float16 and complex powers of NumPy round x**1
    if c == 1:
        return _if_whole(x, eqn)
    return rewriter.filled(eqn.outputs[0].aval, 1) if c == 0 else None


# --- choices ----------------------------------------------------------------------------------------------------------


def _same_operands(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    return x if x is y else None


def _select(eqn: Equation, rewriter: Rewriter) -> Any:
    pred, x, y = eqn.inputs
    c = scalar(pred)
    if c is not None:
        return _if_whole(x if c else y, eqn) or _spread(x if c else y, eqn)
    if x is y:
        return _if_whole(x, eqn) or _spread(x, eqn)
    a, b = scalar(x), scalar(y)
    if a is not None and b is not None and x.aval == y.aval and _bytes(x) == _bytes(y):
        return _spread(x, eqn)
    if a is not None and b is not None and kind_of(x) == "b" and pred.aval == eqn.outputs[0].aval:
        return pred if a else replaced(eqn, not_p, pred)
    inverted = rewriter.maker(pred, not_p)
    return None if inverted is None else replaced(eqn, select_p, inverted.inputs[0], y, x)


def _spread(x: Atom, eqn: Equation) -> Any:
    shape = eqn.outputs[0].aval.shape
    if x.aval.shape == shape:
        return x
    return None if x.aval.shape else replaced(eqn, broadcast_in_dim_p, x, shape=shape, dims=())


def _bytes(x: Any) -> bytes:
    return np.asarray(x.value, x.aval.dtype).tobytes()


# --- logic ------------------------------------------------------------------------------------------------------------


def _all_ones(c: Any, dtype: np.dtype) -> bool:
    return c == ~np.asarray(0, dtype)


def _and(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    c = scalar(y)
    if x is y or (c is not None and _all_ones(c, y.aval.dtype)):
        return _if_whole(x, eqn)
    return rewriter.filled(eqn.outputs[0].aval, 0) if c is not None and c == 0 else None


def _or(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    c = scalar(y)
    if x is y or (c is not None and c == 0):
        return _if_whole(x, eqn)
    return rewriter.filled(eqn.outputs[0].aval, c) if c is not None and _all_ones(c, y.aval.dtype) else None


def _xor(eqn: Equation, rewriter: Rewriter) -> Any:
    x, y = eqn.inputs
    c = scalar(y)
    if x is y:
        return rewriter.filled(eqn.outputs[0].aval, 0)
    if c is not None and c == 0:
        return _if_whole(x, eqn)
    ones = c is not None and _all_ones(c, y.aval.dtype) and x.aval == eqn.outputs[0].aval
    return replaced(eqn, not_p, x) if ones else None


_OPPOSITE = {eq_p: ne_p, ne_p: eq_p}
_OPPOSITE_OF_ORDERED = {lt_p: ge_p, ge_p: lt_p, gt_p: le_p, le_p: gt_p}


def _not(eqn: Equation, rewriter: Rewriter) -> Any:
    inner = rewriter.made.get(eqn.inputs[0])
    if inner is None:
        return None
    if inner.prim is not_p:
        return inner.inputs[0]
    opposite = _OPPOSITE.get(inner.prim)
    if opposite is None and inner.prim in _OPPOSITE_OF_ORDERED and kind_of(inner.inputs[0]) in "biu":
        opposite = _OPPOSITE_OF_ORDERED[inner.prim]  # there is no NaN, for which both are false
    return None if opposite is None else replaced(eqn, opposite, *inner.inputs)


def _truth(wanted: bool) -> Rule:
    """x == True and x != False are x."""

    def rule(eqn, rewriter):
        x, y = eqn.inputs
        return _if_whole(x, eqn) if kind_of(y) == "b" and scalar(y) is not None and bool(scalar(y)) is wanted else None

    return rule


# --- complex numbers, absolute values ---------------------------------------------------------------------------------


def _part(index: int) -> Rule:
    """real(complex(x, y)) = x and imag(complex(x, y)) = y."""

    def rule(eqn, rewriter):
        inner = rewriter.maker(eqn.inputs[0], complex_p)
        return None if inner is None else _if_whole(inner.inputs[index], eqn)

    return rule


def _conj(eqn: Equation, rewriter: Rewriter) -> Any:
    inner = rewriter.maker(eqn.inputs[0], conj_p)
    return None if inner is None else inner.inputs[0]


def _abs(eqn: Equation, rewriter: Rewriter) -> Any:
    x = eqn.inputs[0]
    if rewriter.maker(x, abs_p) is not None and x.aval == eqn.outputs[0].aval:
        return x
    inner = rewriter.maker(x, neg_p)
    return None if inner is None else replaced(eqn, abs_p, inner.inputs[0])


RULES: dict[Primitive, Rule] = {
    add_p: _add,
    sub_p: _sub,
    neg_p: _neg,
    mul_p: _mul,
    scale_p: _scale,
    div_p: _div,
    safe_div_p: _safe_div,
    integer_pow_p: _integer_pow,
    pow_p: _pow,
    max_p: _same_operands,
    min_p: _same_operands,
    select_p: _select,
    and_p: _and,
    or_p: _or,
    xor_p: _xor,
    not_p: _not,
    eq_p: _truth(True),
    ne_p: _truth(False),
    real_p: _part(0),
    imag_p: _part(1),
    conj_p: _conj,
    abs_p: _abs,
    **REDUCTION_RULES,
}
