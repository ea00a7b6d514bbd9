# SPDX-License-Identifier: MIT
"""What each scalar operation of loop IR computes, in NumPy: the table `OPS` and the conversions between kinds.

It says the same as `codegen/llvm/scalar_ops.py` and `maths.py` and shares nothing with them: the interpreter built on
it is what compiled code is tested against. Operands are arrays or NumPy scalars of one kind's dtype. Half precision
never comes here: the interpreter computes it in float32. Functions of float32 are computed in float64 and rounded.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from functorch_lite.backends.special import special_module
from functorch_lite.core import dtypes

DTYPES: dict[str, np.dtype] = {
    "bool": np.dtype(bool), "i8": np.dtype(np.int8), "i16": np.dtype(np.int16), "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64), "u8": np.dtype(np.uint8), "u16": np.dtype(np.uint16), "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64), "f16": np.dtype(np.float16), "bf16": dtypes.bfloat16, "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
_SPLIT = 2.0**27 + 1


# --- arithmetic -----------------------------------------------------------------------------------------------------


def _divide(a, b):
    """Integers truncate; x / 0 is 0, and the smallest integer / -1 is itself."""
    if a.dtype.kind == "f":
        return a / b
    if a.dtype.kind == "b":
        return a & b
    safe = np.where((b == 0) | _minus_one(b), np.ones_like(b), b)
    quotient = a // safe
    short = (a - quotient * safe != 0) & ((a < 0) != (safe < 0))
    quotient = quotient + short.astype(a.dtype)
    return np.where(b == 0, np.zeros_like(a), np.where(_minus_one(b), -a, quotient))


def _remainder(a, b):
    """With the sign of a; integer x rem 0 is 0."""
    if a.dtype.kind == "f":
        return np.fmod(a, b)
    if a.dtype.kind == "b":
        return np.zeros_like(a & b)
    dead = (b == 0) | _minus_one(b)
    return np.where(dead, np.zeros_like(a), np.fmod(a, np.where(dead, np.ones_like(b), b)))


def _minus_one(b):
    return b == -1 if b.dtype.kind == "i" else np.zeros(np.shape(b), bool)


def _negate(a):
    return a if a.dtype.kind == "b" else -a


def _absolute(a):
    return np.abs(a) if a.dtype.kind in "if" else a


def _extreme(better: Callable[..., Any]) -> Callable[..., Any]:
    """Maximum or minimum: the second operand on ties; of floats a NaN in either operand wins."""

    def rule(a, b):
        chosen = np.where(better(a, b), a, b)
        return np.where(np.isnan(a), a, chosen) if a.dtype.kind == "f" else chosen

    return rule


def _shift_left(a, b):
    return np.where(_inside(b), np.left_shift(a, _safe_shift(b)), np.zeros_like(a)) if a.dtype.kind != "b" else a & ~b


def _shift_right(a, b):
    """Shifts of the width or more give 0, or all sign bits."""
    if a.dtype.kind == "b":
        return a & ~b
    all_the_way = np.right_shift(a, a.dtype.type(8 * a.dtype.itemsize - 1)) if a.dtype.kind == "i" else np.zeros_like(a)
    return np.where(_inside(b), np.right_shift(a, _safe_shift(b)), all_the_way)


def _inside(b):
    return (b >= 0) & (b < 8 * b.dtype.itemsize)


def _safe_shift(b):
    return np.where(_inside(b), b, np.zeros_like(b))


def _fma(a, b, c):
    """a b + c rounded once: exact for float32, off by a few ulp of the result at most for float64."""
    if a.dtype == np.float32:
        return _fma_to_odd(*(x.astype(np.float64) for x in (a, b, c))).astype(np.float32)
    plain = a * b + c
    product, low = _two_product(a, b)
    total, rest = _two_sum(product, c)
    exact = total + (rest + low)
    return np.where(np.isfinite(exact), exact, plain)


def _fma_to_odd(a, b, c):
    """a b + c of numbers of 24 bits in float64, rounded to odd: rounding it again is the same as rounding once."""
    total, rest = _two_sum(a * b, c)
    even = (np.asarray(total).view(np.int64) & 1) == 0
    towards = np.nextafter(total, np.copysign(np.inf, rest))
    return np.where(even & (rest != 0) & np.isfinite(total) & np.isfinite(rest), towards, total)


def _two_sum(a, b):
    """a + b as its rounded value and the rest. Source: D. Knuth, TAOCP 2, 4.2.2, theorem B."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def _two_product(a, b):
    """a b as its rounded value and the rest. Source: T. Dekker, Numer. Math. 18 (1971)."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a):
    scaled = a * _SPLIT
    high = scaled - (scaled - a)
    return high, a - high


# --- conversions ----------------------------------------------------------------------------------------------------


def convert(a: Any, source: str, target: str) -> Any:
    """A value of one kind as another: NumPy's casts, and those of the machine where NumPy leaves them open."""
    if source == target:
        return a
    if source == "bf16" or (source == "f16" and target not in ("f32", "f64")):
        return convert(a.astype(np.float32), "f32", target)
    if target == "bool":
        return a != 0
    if target == "bf16":
        return convert(a, source, "f32").astype(DTYPES["bf16"])
    if a.dtype.kind == "f" and DTYPES[target].kind in "iu":
        return _float_to_integer(a, target)
    return a.astype(DTYPES[target])


def _float_to_integer(a, target):
    """Truncated; outside the range of the 32 or 64-bit integer on the way (or NaN), the smallest of those."""
    if target == "u64":
        return _float_to_u64(a)
    wide = np.int64 if target in ("i64", "u32") else np.int32
    low = np.iinfo(wide).min
    inside = (a >= float(low)) & (a < -float(low))
    whole = np.where(inside, a, np.zeros_like(a)).astype(wide)
    return np.where(inside, whole, wide(low)).astype(DTYPES[target])


def _float_to_u64(a):
    inside = (a >= -(2.0**63)) & (a < 2.0**64)
    big = inside & (a >= 2.0**63)
    low_part = np.where(big, a - a.dtype.type(2.0**63), np.where(inside, a, np.zeros_like(a)))
    whole = low_part.astype(np.int64).astype(np.uint64)
    top = np.uint64(1 << 63)
    return np.where(inside, np.where(big, whole ^ top, whole), top)


def bitcast(a: Any, target: str) -> Any:
    """The same bits as another kind of the same width."""
    return np.asarray(a).view(DTYPES[target])


# --- functions ------------------------------------------------------------------------------------------------------


def _wide(fun: Callable[..., Any]) -> Callable[..., Any]:
    """The function computed in float64."""

    def rule(*args):
        return np.asarray(fun(*[a.astype(np.float64) for a in args])).astype(args[0].dtype)

    return rule


def _special(name: str) -> Callable[..., Any]:
    return _wide(lambda *args: getattr(special_module("numpy"), name)(*args))


def _logistic(x):
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1 + small)


def _log_or_zero(x):
    return np.where(x != 0, np.log(np.where(x != 0, x, 1.0)), 0.0)


def _sign(x):
    return np.sign(x) if x.dtype.kind != "b" else x


OPS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": lambda a, b: a ^ b if a.dtype.kind == "b" else a - b,
    "mul": np.multiply,
    "div": _divide,
    "rem": _remainder,
    "neg": _negate,
    "abs": _absolute,
    "max": _extreme(np.greater),
    "min": _extreme(np.less),
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shl": _shift_left,
    "shr": _shift_right,
    "fma": _fma,
    "fused_multiply_add": _fma,
    "copysign": np.copysign,
    "select": np.where,
    "is_nan": np.isnan,
    "is_finite": np.isfinite,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    # Exact in the operands' own precision.
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,
    "nextafter": np.nextafter,
    "sign": _sign,
    "sqrt": np.sqrt,
    "square": np.square,
    # Rounded from float64.
    "rsqrt": _wide(lambda x: 1 / np.sqrt(x)),
    "reciprocal": _wide(lambda x: 1 / x),
    "cbrt": _wide(np.cbrt),
    "exp": _wide(np.exp),
    "exp2": _wide(np.exp2),
    "expm1": _wide(np.expm1),
    "log": _wide(np.log),
    "log_or_zero": _wide(_log_or_zero),
    "log2": _wide(np.log2),
    "log10": _wide(np.log10),
    "log1p": _wide(np.log1p),
    "sin": _wide(np.sin),
    "cos": _wide(np.cos),
    "tan": _wide(np.tan),
    "asin": _wide(np.arcsin),
    "acos": _wide(np.arccos),
    "atan": _wide(np.arctan),
    "atan2": _wide(np.arctan2),
    "sinh": _wide(np.sinh),
    "cosh": _wide(np.cosh),
    "tanh": _wide(np.tanh),
    "asinh": _wide(np.arcsinh),
    "acosh": _wide(np.arccosh),
    "atanh": _wide(np.arctanh),
    "logistic": _wide(_logistic),
    "pow": _wide(np.power),
    "hypot": _wide(np.hypot),
    "logaddexp": _wide(np.logaddexp),
    **{name: _special(scipy_name) for name, scipy_name in {
        "erf": "erf", "erfc": "erfc", "erfinv": "erfinv", "erf_inv": "erfinv", "erfcx": "erfcx", "ndtri": "ndtri",
        "log_ndtr": "log_ndtr", "gamma": "gamma", "lgamma": "gammaln", "digamma": "digamma", "zeta": "zeta",
        "xlogy": "xlogy", "xlog1py": "xlog1py", "gammainc": "gammainc", "gammaincc": "gammaincc",
        "betainc": "betainc", "bessel_i0": "i0", "bessel_i1": "i1", "bessel_i0e": "i0e", "bessel_i1e": "i1e",
        "bessel_j0": "j0", "bessel_j1": "j1",
    }.items()},
}
