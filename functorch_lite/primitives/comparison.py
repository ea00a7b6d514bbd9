# SPDX-License-Identifier: MIT
"""Comparison, element-wise choice, logic and bits."""

from typing import Any

import numpy as np

from functorch_lite.core.aval import Aval
from functorch_lite.core.linear import is_linear
from functorch_lite.core.numpy_code import numpy_form
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, shape_rules, transpose_rules
from functorch_lite.core.tracer import bind1
from functorch_lite.errors import DTypeError
from functorch_lite.primitives.broadcast import fit
from functorch_lite.primitives.declare import (
    BY_KIND,
    check_dtypes,
    check_same,
    elementwise,
    quiet_for_extended,
    ufunc,
    zero_derivative,
)


# --- comparison ------------------------------------------------------------------------------------------------------
def _boolean(dtype):
    return np.dtype(bool)


eq_p = elementwise("eq", ufunc("equal"), out=_boolean)
ne_p = elementwise("ne", ufunc("not_equal"), out=_boolean)
lt_p = elementwise("lt", quiet_for_extended(ufunc("less")), allowed="biuf", out=_boolean)
le_p = elementwise("le", quiet_for_extended(ufunc("less_equal")), allowed="biuf", out=_boolean)
gt_p = elementwise("gt", quiet_for_extended(ufunc("greater")), allowed="biuf", out=_boolean)
ge_p = elementwise("ge", quiet_for_extended(ufunc("greater_equal")), allowed="biuf", out=_boolean)
is_finite_p = elementwise("is_finite", ufunc("isfinite"), allowed="fc", out=_boolean)
for _prim in (eq_p, ne_p, lt_p, le_p, gt_p, ge_p, is_finite_p):
    zero_derivative(_prim)


def eq(x: Any, y: Any) -> Any:
    """x == y."""
    return bind1(eq_p, x, y)


def ne(x: Any, y: Any) -> Any:
    """x != y."""
    return bind1(ne_p, x, y)


def lt(x: Any, y: Any) -> Any:
    """x < y."""
    return bind1(lt_p, x, y)


def le(x: Any, y: Any) -> Any:
    """x <= y."""
    return bind1(le_p, x, y)


def gt(x: Any, y: Any) -> Any:
    """x > y."""
    return bind1(gt_p, x, y)


def ge(x: Any, y: Any) -> Any:
    """x >= y."""
    return bind1(ge_p, x, y)


def is_finite(x: Any) -> Any:
    """Whether x is neither infinite nor NaN."""
    return bind1(is_finite_p, x)

# --- logic and bits --------------------------------------------------------------------------------------------------
not_p = elementwise("not", ufunc("invert"), allowed="biu")
and_p = elementwise("and", ufunc("bitwise_and"), allowed="biu")
or_p = elementwise("or", ufunc("bitwise_or"), allowed="biu")
xor_p = elementwise("xor", ufunc("bitwise_xor"), allowed="biu")
shift_left_p = elementwise("shift_left", ufunc("left_shift"), allowed="iu")
shift_right_p = elementwise("shift_right", ufunc("right_shift"), allowed="iu")


def _bits_set(xp, x):
    """NumPy's bitwise_count, which CuPy lacks; there by sums of bits in pairs, nibbles and bytes.

    Source: H. S. Warren, "Hacker's Delight", 5-1.
    """
    if xp is np:
        return np.bitwise_count(x)
    two, four, seven = np.uint64(2), np.uint64(4), np.uint64(56)
    x = xp.abs(x).astype(np.uint64)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> two) & np.uint64(0x3333333333333333))
    x = (x + (x >> four)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (x * np.uint64(0x0101010101010101)) >> seven


population_count_p = elementwise(
    "population_count", lambda xp, x: _bits_set(xp, x).astype(x.dtype), allowed="iu"
)
for _prim in (not_p, and_p, or_p, xor_p, shift_left_p, shift_right_p, population_count_p):
    zero_derivative(_prim)


def bit_not(x: Any) -> Any:
    """Bitwise (boolean: logical) not."""
    return bind1(not_p, x)


def bit_and(x: Any, y: Any) -> Any:
    """Bitwise (boolean: logical) and."""
    return bind1(and_p, x, y)


def bit_or(x: Any, y: Any) -> Any:
    """Bitwise (boolean: logical) or."""
    return bind1(or_p, x, y)


def bit_xor(x: Any, y: Any) -> Any:
    """Bitwise (boolean: logical) exclusive or."""
    return bind1(xor_p, x, y)


def shift_left(x: Any, y: Any) -> Any:
    """x << y."""
    return bind1(shift_left_p, x, y)


def shift_right(x: Any, y: Any) -> Any:
    """x >> y: arithmetic for signed, logical for unsigned integers."""
    return bind1(shift_right_p, x, y)


def population_count(x: Any) -> Any:
    """The number of bits set; for negative x, of its absolute value, as in NumPy."""
    return bind1(population_count_p, x)

# --- select: element-wise choice -------------------------------------------------------------------------------------
select_p = Primitive("select", Kind.ELEMENTWISE)


def select(pred: Any, on_true: Any, on_false: Any) -> Any:
    """`on_true` where the boolean `pred` holds, else `on_false`. Linear in the two choices."""
    return bind1(select_p, pred, on_true, on_false)


def zero_like(x: Any) -> Any:
    """A rank-0 zero of the dtype of `x`: goes with any shape."""
    return x.dtype.type(0)


@shape_rules.register(select_p)
def _(pred, on_true, on_false):
    if pred.dtype != np.dtype(bool):
        raise DTypeError(f"select: the predicate must be boolean, got {pred.dtype}.")
    dtype = check_dtypes("select", (on_true, on_false))
    return Aval(check_same("select", (pred, on_true, on_false)), dtype)


eval_rules.add(select_p, lambda xp, pred, on_true, on_false: xp.where(pred, on_true, on_false))
numpy_form(select_p, broadcasts=True)(lambda pred, on_true, on_false: "np.where({0}, {1}, {2})")
batch_rules.absent(select_p, BY_KIND)
jvp_rules.add(
    select_p,
    (
        None,
        lambda t, out, pred, x, y: select(pred, t, zero_like(t)),
        lambda t, out, pred, x, y: select(pred, zero_like(t), t),
    ),
)


@transpose_rules.register(select_p)
def _(ct, pred, on_true, on_false):
    left = fit(select(pred, ct, zero_like(ct)), on_true) if is_linear(on_true) else None
    right = fit(select(pred, zero_like(ct), ct), on_false) if is_linear(on_false) else None
    return None, left, right
