# SPDX-License-Identifier: MIT
"""The spelling of each scalar operation of loop IR in LLVM IR: `SCALAR_OPS[name](emitter, kind, *values) -> value`.

`kind` is the loop IR kind of the operands (signedness is in it). What is not here is in `maths.MATHS`.
"""

from collections.abc import Callable
from typing import Any

from functorch_lite.compiler.codegen.llvm.emitter import Emitter, Value
from functorch_lite.compiler.codegen.llvm.maths import MATHS

REGISTER = {
    "bool": "i1", "i8": "i8", "u8": "i8", "i16": "i16", "u16": "i16", "bf16": "i16", "i32": "i32", "u32": "i32",
    "i64": "i64", "u64": "i64", "f16": "f16", "f32": "f32", "f64": "f64",
}
_BITS = {"bool": 1, "f16": 16, "f32": 32, "f64": 64, "bf16": 16}


def bits(kind: str) -> int:
    """The width of a kind in bits."""
    return _BITS.get(kind) or int(kind[1:])


def is_float(kind: str) -> bool:
    """Whether the kind is held in a floating-point register."""
    return kind in ("f16", "f32", "f64")


def is_signed(kind: str) -> bool:
    """Whether the kind is a signed integer."""
    return kind[0] == "i"


def emit_op(e: Emitter, name: str, kind: str, *args: Value) -> Value:
    """The operation on operands of this kind."""
    rule = SCALAR_OPS.get(name)
    if rule is not None:
        return rule(e, kind, *args)
    return MATHS[name](e, *e.same_lanes(*args))


# --- arithmetic -----------------------------------------------------------------------------------------------------


def _arithmetic(for_float: str, for_integer: str, for_bool: str) -> Callable[..., Value]:
    def rule(e, kind, a, b):
        opcode = for_float if is_float(kind) else for_bool if kind == "bool" else for_integer
        return e.binary(opcode, a, b)

    return rule


def _divide(e, kind, a, b):
    """Integers truncate; x / 0 is 0, and the smallest integer / -1 is itself."""
    if is_float(kind):
        return e.binary("fdiv", a, b)
    return _guarded(e, kind, a, b, "sdiv" if is_signed(kind) else "udiv", 0)


def _remainder(e, kind, a, b):
    """The remainder with the sign of a; of a float through `fmod`; x rem 0 is 0 for integers."""
    if is_float(kind):
        return MATHS["rem"](e, *e.same_lanes(a, b))
    return _guarded(e, kind, a, b, "srem" if is_signed(kind) else "urem", 0)


def _guarded(e, kind, a, b, opcode, otherwise):
    a, b = e.same_lanes(a, b)
    if b.text[0] != "%" and "%" not in b.text and _literal(b.text) > 0:  # a positive constant needs no guard
        return e.binary(opcode, a, b)
    one, zero = e.constant(1, a.kind, a.lanes), e.constant(otherwise, a.kind, a.lanes)
    bad = e.compare("eq", b, e.constant(0, a.kind, a.lanes))
    safe = e.select(bad, one, b)
    if is_signed(kind):
        minus = e.compare("eq", b, e.constant(-1, a.kind, a.lanes))
        quotient = e.binary(opcode, a, e.select(minus, one, safe))
        negated = e.binary("sub", zero, a) if opcode == "sdiv" else zero
        return e.select(bad, zero, e.select(minus, negated, quotient))
    return e.select(bad, zero, e.binary(opcode, a, safe))


def _literal(text):
    number = text.rsplit(" ", 1)[-1].rstrip(")")
    return int(number) if number.lstrip("-").isdigit() else -1


def _negate(e, kind, a):
    if is_float(kind):
        return e.negate(a)
    return e.binary("sub", e.constant(0, a.kind, a.lanes), a)


def _absolute(e, kind, a):
    if is_float(kind):
        return e.intrinsic("fabs", a)
    if not is_signed(kind):
        return a
    return e.select(e.compare("slt", a, e.constant(0, a.kind, a.lanes)), _negate(e, kind, a), a)


def _extreme(ordered: str, signed: str, unsigned: str) -> Callable[..., Value]:
    """Maximum or minimum; of floats a NaN in either operand wins, as in NumPy."""

    def rule(e, kind, a, b):
        a, b = e.same_lanes(a, b)
        if is_float(kind):
            chosen = e.select(e.compare(ordered, a, b), a, b)
            return e.select(e.compare("uno", a, a), a, chosen)
        return e.select(e.compare(signed if is_signed(kind) else unsigned, a, b), a, b)

    return rule


def _shift_right(e, kind, a, b):
    return _shift(e, kind, a, b, "ashr" if is_signed(kind) else "lshr")


def _shift(e, kind, a, b, opcode):
    """Shifts of the width or more give 0, or all sign bits."""
    a, b = e.same_lanes(a, b)
    width = bits(kind)
    if b.text[0] != "%" and 0 <= _literal(b.text) < width:
        return e.binary(opcode, a, b)
    inside = e.compare("ult", b, e.constant(width, a.kind, a.lanes))
    if opcode == "ashr":
        return e.binary(opcode, a, e.select(inside, b, e.constant(width - 1, a.kind, a.lanes)))
    safe = e.select(inside, b, e.constant(0, a.kind, a.lanes))
    return e.select(inside, e.binary(opcode, a, safe), e.constant(0, a.kind, a.lanes))


# --- comparisons ----------------------------------------------------------------------------------------------------


def _comparison(name: str) -> Callable[..., Value]:
    def rule(e, kind, a, b):
        if is_float(kind):
            return e.compare(("une" if name == "ne" else "o" + name), a, b)
        if name in ("eq", "ne"):
            return e.compare(name, a, b)
        return e.compare(("s" if is_signed(kind) else "u") + name, a, b)

    return rule


def _is_finite(e, kind, a):
    return e.compare("olt", e.intrinsic("fabs", a), e.constant(float("inf"), a.kind, a.lanes))


# --- conversions ----------------------------------------------------------------------------------------------------


def convert(e: Emitter, source: str, target: str, a: Value) -> Value:
    """A value of one kind as another: NumPy's casts (floats truncate towards zero, narrowing integers wrap)."""
    if source == target:
        return a
    if target == "bool":
        return _to_bool(e, source, a)
    if source == "bf16":
        return convert(e, "f32", target, bf16_to_f32(e, a))
    if target == "bf16":
        return f32_to_bf16(e, convert(e, source, "f32", a))
    register = REGISTER[target]
    if is_float(source):
        return _from_float(e, source, target, register, a)
    if is_float(target):
        return e.convert("sitofp" if is_signed(source) else "uitofp", a, register)
    if bits(source) == bits(target):
        return a
    if bits(source) > bits(target):
        return e.convert("trunc", a, register)
    return e.convert("sext" if is_signed(source) else "zext", a, register)


def _to_bool(e, source, a):
    if source == "bf16":
        return _to_bool(e, "f32", bf16_to_f32(e, a))
    zero = e.constant(0, a.kind, a.lanes)
    return e.compare("une" if is_float(source) else "ne", a, zero)


def _from_float(e, source, target, register, a):
    """Out of range or NaN, the integer is what the machine's conversion gives: the smallest, then cut."""
    if source == "f64" and target == "f16":
        return _f64_to_f16(e, a)
    if is_float(target):
        return e.convert("fpext" if bits(source) < bits(target) else "fptrunc", a, register)
    if target == "u64":
        return _float_to_u64(e, a)
    wide = "i64" if bits(target) >= 32 and target[0] == "u" or bits(target) == 64 else "i32"
    low, high = (-(2.0**63), 2.0**63) if wide == "i64" else (-(2.0**31), 2.0**31)
    if a.kind == "f16":
        a = e.convert("fpext", a, "f32")
    inside = e.binary("and", e.compare("oge", a, e.constant(low, a.kind, a.lanes)),
                      e.compare("olt", a, e.constant(high, a.kind, a.lanes)))
    safe = e.select(inside, a, e.constant(0.0, a.kind, a.lanes))
    whole = e.convert("fptosi", safe, wide)
    whole = e.select(inside, whole, e.constant(int(low), wide, a.lanes))
    return whole if wide == register else e.convert("trunc", whole, register)


def _f64_to_f16(e, a):
    """Through float32, cut and with its last bit set if anything was lost, so that the result is rounded once."""
    near = e.convert("fptrunc", a, "f32")
    back = e.convert("fpext", near, "f64")
    word = e.convert("bitcast", near, "i32")
    one = e.constant(1, "i32", a.lanes)
    above = e.compare("ogt", e.intrinsic("fabs", back), e.intrinsic("fabs", a))
    odd = e.binary("or", e.select(above, e.binary("sub", word, one), word), one)
    word = e.select(e.compare("one", back, a), odd, word)
    return e.convert("fptrunc", e.convert("bitcast", word, "f32"), "f16")


def _float_to_u64(e, a):
    if a.kind == "f16":
        a = e.convert("fpext", a, "f32")
    half = e.constant(2.0**63, a.kind, a.lanes)
    big = e.compare("oge", a, half)
    inside = e.binary("and", e.compare("olt", a, e.constant(2.0**64, a.kind, a.lanes)),
                      e.compare("oge", a, e.constant(-(2.0**63), a.kind, a.lanes)))
    shifted = e.select(big, e.binary("fsub", a, half), a)
    safe = e.select(inside, shifted, e.constant(0.0, a.kind, a.lanes))
    whole = e.convert("fptosi", safe, "i64")
    top = e.constant(-(2**63), "i64", a.lanes)
    whole = e.select(big, e.binary("xor", whole, top), whole)
    return e.select(inside, whole, top)


def bf16_to_f32(e: Emitter, a: Value) -> Value:
    """bfloat16 is the upper half of a float32."""
    wide = e.binary("shl", e.convert("zext", a, "i32"), e.constant(16, "i32", a.lanes))
    return e.convert("bitcast", wide, "f32")


def f32_to_bf16(e: Emitter, a: Value) -> Value:
    """Rounded to nearest, ties to even; a NaN stays a NaN."""
    word = e.convert("bitcast", a, "i32")
    sixteen, one = e.constant(16, "i32", a.lanes), e.constant(1, "i32", a.lanes)
    odd = e.binary("and", e.binary("lshr", word, sixteen), one)
    rounded = e.binary("add", word, e.binary("add", odd, e.constant(0x7FFF, "i32", a.lanes)))
    quiet = e.binary("or", word, e.constant(0x400000, "i32", a.lanes))
    chosen = e.select(e.compare("uno", a, a), quiet, rounded)
    return e.convert("trunc", e.binary("lshr", chosen, sixteen), "i16")


def _select(e, kind, condition, a, b):
    return e.select(condition, a, b)


def _bitcast(e: Emitter, source: str, target: str, a: Value) -> Value:
    return a if a.kind == REGISTER[target] else e.convert("bitcast", a, REGISTER[target])


SCALAR_OPS: dict[str, Callable[..., Any]] = {
    "add": _arithmetic("fadd", "add", "or"),
    "sub": _arithmetic("fsub", "sub", "xor"),
    "mul": _arithmetic("fmul", "mul", "and"),
    "div": _divide,
    "rem": _remainder,
    "neg": _negate,
    "abs": _absolute,
    "max": _extreme("ogt", "sgt", "ugt"),
    "min": _extreme("olt", "slt", "ult"),
    "and": _arithmetic("and", "and", "and"),
    "or": _arithmetic("or", "or", "or"),
    "xor": _arithmetic("xor", "xor", "xor"),
    "not": lambda e, kind, a: e.binary("xor", a, e.constant(1 if kind == "bool" else -1, a.kind, a.lanes)),
    "shl": lambda e, kind, a, b: _shift(e, kind, a, b, "shl"),
    "shr": _shift_right,
    "fma": lambda e, kind, a, b, c: e.fma(a, b, c),
    "copysign": lambda e, kind, a, b: e.intrinsic("copysign", a, b),
    "select": _select,
    "is_nan": lambda e, kind, a: e.compare("uno", a, a),
    "is_finite": _is_finite,
    **{name: _comparison(name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
}
CONVERSIONS = {"convert": convert, "bitcast": _bitcast}
