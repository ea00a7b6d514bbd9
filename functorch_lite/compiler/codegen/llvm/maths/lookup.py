# SPDX-License-Identifier: MIT
"""Entries of short tables, one for each lane, by the permutations of AVX-512.

A function that is cut into 16 or 32 intervals has one short polynomial for all of them, whose coefficients are looked
up: a permutation of two registers costs what a multiply-add does, where a quotient costs eight of them or more. Other
processors have no such permutation, so their formulas have no tables. Fewer lanes, and single numbers, look up the same
entries, so a result does not depend on the number of lanes.
"""

from collections.abc import Sequence

from functorch_lite.compiler.codegen.llvm.emitter import BYTES, Emitter, Value, type_text
from functorch_lite.compiler.codegen.llvm.maths.terms import Term, fma, select

Table = Sequence[Sequence[float]]
"""The coefficients of one power for all intervals, lowest power first; 16 or 32 for float32, 8 or 16 for float64."""
_SUFFIXES = {"f32": "ps", "f64": "pd"}
_ONE_SUFFIXES = {"f32": "sf", "f64": "df"}
_NAN_IF_NEGATIVE, _FROM_THREE_QUARTERS = 0b1000, 0b0011  # choices of the instruction that takes the mantissa


def has_tables(x: Term) -> bool:
    """Whether the processor permutes lanes by two registers; the formulas of a function differ by this alone."""
    return x.emitter.lanes_bytes == 64


def look_up(name: str, entries: Sequence[float], index: Term, kind: str) -> Term:
    """entries[index], of which the last bits count: as many as number the entries. name: of the table in the module.

    index: an integer of the width of the kind.
    """
    emitter, lanes = index.emitter, index.lanes
    table = emitter.table(f"{name}_{kind}", list(entries), kind)
    if lanes == 1:
        place = emitter.binary("and", index.value, emitter.constant(len(entries) - 1, index.kind))
        pointer = emitter.fresh()
        emitter.line(f"{pointer} = getelementptr {type_text(kind, 1)}, ptr {table}, {place.type} {place.text}")
        return Term(emitter, emitter.load(pointer, kind))
    whole = 64 // BYTES[kind]
    parts = [
        _permuted(emitter, table, len(entries), _cut(emitter, index.value, start, whole), kind)
        for start in range(0, lanes, whole)
    ]
    return Term(emitter, _joined(emitter, parts, lanes))


def _cut(emitter: Emitter, value: Value, start: int, lanes: int) -> Value:
    """`lanes` lanes from `start` on, any values in those that are not there."""
    if value.lanes == lanes:
        return value
    return emitter.shuffled(value, value, [k if k < value.lanes else -1 for k in range(start, start + lanes)])


def _joined(emitter: Emitter, parts: list[Value], lanes: int) -> Value:
    """The first `lanes` lanes of equally long parts, side by side; one part, or a power of two of them."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [emitter.shuffled(a, b, range(2 * a.lanes)) for a, b in pairs]
    return parts[0] if parts[0].lanes == lanes else emitter.shuffled(parts[0], parts[0], range(lanes))


def _permuted(emitter: Emitter, table: str, count: int, index: Value, kind: str) -> Value:
    whole = index.lanes
    first = emitter.load(table, kind, whole)
    if count == whole:
        name = f"llvm.x86.avx512.permvar.{_ONE_SUFFIXES[kind]}.512"
        return emitter.call(name, kind, whole, first, index)
    second = emitter.load(emitter.moved(table, kind, whole), kind, whole)
    return emitter.call(f"llvm.x86.avx512.vpermi2var.{_SUFFIXES[kind]}.512", kind, whole, first, index, second)


def piecewise(name: str, table: Table, step: float, a: Term, rest_of_slope: float = 0.0) -> Term:
    """P_k(a - k step) for the nearest k, of 0 <= a < (intervals - 1/2) step; NaN where a is.

    step: of so few bits that k step, and so the difference, is exact. rest_of_slope: what the rounded slope at 0 lacks;
    in other intervals it is too small to change the lowest coefficient.
    """
    lowest, d, slope, _ = _interval(name, table, step, a)
    return fma(slope, d, fma(d, rest_of_slope, lowest) if rest_of_slope else lowest)


def piecewise_in_parts(name: str, table: Table, rests: Sequence[float], step: float, a: Term) -> tuple[Term, Term]:
    """The same as a sum: the lowest coefficient, and the rest with what that one lacks."""
    lowest, d, slope, index = _interval(name, table, step, a)
    return lowest, fma(slope, d, look_up(f"{name}_rest", rests, index, a.kind))


def _interval(name, table, step, a):
    """(lowest coefficient, d, the other terms over d, number of the interval)."""
    shifted = fma(a, 1 / step, a.format.magic)
    index = shifted.bits()
    d = fma(shifted - a.format.magic, -step, a)
    lowest, *others = (look_up(f"{name}_{power}", row, index, a.kind) for power, row in enumerate(table))
    total = others[-1]
    for row in reversed(others[:-1]):
        total = fma(total, d, row)
    return lowest, d, total, index


# --- exponents, which have instructions of their own there -----------------------------------------------------------
def is_whole(x: Term) -> bool:
    """Whether x fills a register of AVX-512."""
    return has_tables(x) and x.lanes * BYTES[x.kind] == 64


def scale_whole(y: Term, n: Term) -> Term:
    """y 2^floor(n), rounded once, of a whole y."""
    return _masked("scalef", y, n)


def whole_mantissa_and_exponent(x: Term) -> tuple[Term, Term]:
    """(m, e) with x = m 2^e and m in [3/4, 3/2), of a whole x; e is a float: -inf for 0, inf for inf.

    m is 1 there, and NaN for negative numbers.
    """
    m, e = _masked("getmant", x, _NAN_IF_NEGATIVE | _FROM_THREE_QUARTERS), _masked("getexp", x)
    return m, select(m < 1.0, e + 1.0, e)


def inverse_root_estimate(x: Term) -> Term:
    """1 / sqrt(x) with a relative error below 2^-14, of a whole x."""
    vector, mask = x.value.type, f"i{x.lanes}"
    name = f"llvm.x86.avx512.rsqrt14.{_SUFFIXES[x.kind]}.512"
    x.emitter.declarations[name] = f"declare {vector} @{name}({vector}, {vector}, {mask})"
    text = f"call {vector} @{name}({vector} {x.value.text}, {vector} zeroinitializer, {mask} -1)"
    return Term(x.emitter, x.emitter.new(text, x.kind, x.lanes))


def _masked(name: str, *args: Term | int) -> Term:
    """An instruction that has a mask and a way to round, for all lanes and rounded as usual."""
    x = args[0]
    assert isinstance(x, Term)
    vector, mask = x.value.type, f"i{x.lanes}"
    full = f"llvm.x86.avx512.mask.{name}.{_SUFFIXES[x.kind]}.512"
    given = [(vector, a.value.text) if isinstance(a, Term) else ("i32", str(a)) for a in args]
    given += [(vector, "zeroinitializer"), (mask, "-1"), ("i32", "4")]
    x.emitter.declarations[full] = f"declare {vector} @{full}({', '.join(kind for kind, _ in given)})"
    text = ", ".join(f"{kind} {value}" for kind, value in given)
    return Term(x.emitter, x.emitter.new(f"call {vector} @{full}({text})", x.kind, x.lanes))
