# SPDX-License-Identifier: MIT
"""Formulas over emitted values: `Term` puts Python's operators on an LLVM value, the functions below are its algebra.

    y = fma(r * r, polynomial(EXP, r), r) + 1.0

emits the instructions of that formula for the lanes and the kind of `r`. Numbers become constants of the same kind.
NaN passes through `at_most` and `at_least`; nothing here converts a possible NaN to an integer (that is poison).

Source of the error-free sums and products: T. J. Dekker, "A floating-point technique for extending the available
precision", 1971.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from functorch_lite.compiler.codegen.llvm.emitter import Emitter, Value, type_text

RARELY = '!prof !{!"branch_weights", i32 1, i32 2000}'


class Format(NamedTuple):
    """Facts of a floating-point kind; adding `magic` rounds to an integer, kept in the low bits of the sum."""

    whole: str  # the integer kind of its bits
    mantissa: int
    bias: int
    magic: float
    magic_bits: int
    sign: int
    least: float  # the smallest normal number
    splitter: float


FORMATS = {
    "f16": Format("i16", 10, 15, 1536.0, 0x6600, -(1 << 15), 2.0**-14, 65.0),
    "f32": Format("i32", 23, 127, 12582912.0, 0x4B400000, -(1 << 31), 2.0**-126, 4097.0),
    "f64": Format("i64", 52, 1023, 6755399441055744.0, 0x4338000000000000, -(1 << 63), 2.0**-1022, 134217729.0),
}


class Term:
    """A value with the emitter that computes it. Comparisons of floats are false for NaN."""

    __slots__ = ("emitter", "value")

    def __init__(self, emitter: Emitter, value: Value):
        self.emitter, self.value = emitter, value

    @property
    def kind(self) -> str:
        return self.value.kind

    @property
    def lanes(self) -> int:
        return self.value.lanes

    @property
    def format(self) -> Format:
        return FORMATS[self.kind]

    @property
    def is_double(self) -> bool:
        return self.kind == "f64"

    def constant(self, number: "Operand") -> "Term":
        """`number` in the kind and lanes of this term."""
        if isinstance(number, Term):
            return number
        return Term(self.emitter, self.emitter.constant(number, self.kind, self.lanes))

    def convert(self, opcode: str, kind: str) -> "Term":
        """`fpext`, `sitofp`, ... to another kind."""
        return Term(self.emitter, self.emitter.convert(opcode, self.value, kind))

    def bits(self) -> "Term":
        """The same bits as an integer."""
        return self.convert("bitcast", self.format.whole)

    def as_float(self) -> "Term":
        """The same bits as a float."""
        return self.convert("bitcast", "f" + self.kind[1:])

    def _binary(self, opcode, other, swap=False):
        other = self.constant(other)
        a, b = (other, self) if swap else (self, other)
        return Term(self.emitter, self.emitter.binary(opcode, a.value, b.value))

    def _arithmetic(self, opcode, other, swap=False):
        return self._binary("f" + opcode if self.kind[0] == "f" else opcode, other, swap)

    def _compare(self, predicate, other):
        prefix = "o" if self.kind[0] == "f" else "s"
        return Term(self.emitter, self.emitter.compare(prefix + predicate, self.value, self.constant(other).value))

    def __add__(self, other: "Operand") -> "Term":
        return self._arithmetic("add", other)

    def __sub__(self, other: "Operand") -> "Term":
        return self._arithmetic("sub", other)

    def __rsub__(self, other: "Operand") -> "Term":
        return self._arithmetic("sub", other, swap=True)

    def __mul__(self, other: "Operand") -> "Term":
        return self._arithmetic("mul", other)

    def __truediv__(self, other: "Operand") -> "Term":
        return self._binary("fdiv", other)

    def __rtruediv__(self, other: "Operand") -> "Term":
        return self._binary("fdiv", other, swap=True)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> "Term":
        return Term(self.emitter, self.emitter.negate(self.value))

    def __and__(self, other: "Operand") -> "Term":
        return self._binary("and", other)

    def __or__(self, other: "Operand") -> "Term":
        return self._binary("or", other)

    def __xor__(self, other: "Operand") -> "Term":
        return self._binary("xor", other)

    def __invert__(self) -> "Term":
        return self._binary("xor", True if self.kind == "i1" else -1)

    def __lshift__(self, count: "Operand") -> "Term":
        return self._binary("shl", count)

    def __rshift__(self, count: "Operand") -> "Term":
        return self._binary("ashr", count)

    def __lt__(self, other: "Operand") -> "Term":
        return self._compare("lt", other)

    def __le__(self, other: "Operand") -> "Term":
        return self._compare("le", other)

    def __gt__(self, other: "Operand") -> "Term":
        return self._compare("gt", other)

    def __ge__(self, other: "Operand") -> "Term":
        return self._compare("ge", other)

    def equals(self, other: "Operand") -> "Term":
        """Equal; false for NaN."""
        predicate = "oeq" if self.kind[0] == "f" else "eq"
        return Term(self.emitter, self.emitter.compare(predicate, self.value, self.constant(other).value))

    def unordered(self, other: "Operand") -> "Term":
        """Either is NaN."""
        return Term(self.emitter, self.emitter.compare("uno", self.value, self.constant(other).value))


Operand = Term | float | int


# --- choices and basic functions -------------------------------------------------------------------------------------
def select(condition: Term, a: Operand, b: Operand) -> Term:
    """a where the condition holds, else b; one of them at least is a term."""
    like = a if isinstance(a, Term) else b
    assert isinstance(like, Term)
    emitter = condition.emitter
    return Term(emitter, emitter.select(condition.value, like.constant(a).value, like.constant(b).value))


def at_most(x: Term, bound: Operand) -> Term:
    """min(x, bound), NaN where x is."""
    return select(x > bound, bound, x)


def at_least(x: Term, bound: Operand) -> Term:
    """max(x, bound), NaN where x is."""
    return select(x < bound, bound, x)


def intrinsic(name: str, *args: Term) -> Term:
    """`llvm.<name>` of terms of one kind."""
    return Term(args[0].emitter, args[0].emitter.intrinsic(name, *[a.value for a in args]))


def absolute(x: Term) -> Term:
    """|x|."""
    return intrinsic("fabs", x)


def square_root(x: Term) -> Term:
    """The correctly rounded square root."""
    return intrinsic("sqrt", x)


def copy_sign(size: Term, sign: Term) -> Term:
    """|size| with the sign of `sign`."""
    return intrinsic("copysign", size, sign)


def negative_bit(x: Term) -> Term:
    """The sign bit is set (of -0 and NaN too)."""
    return x.bits() < 0


def fma(a: Operand, b: Operand, c: Operand) -> Term:
    """a b + c: one rounding where the machine has it, else two."""
    like = next(t for t in (a, b, c) if isinstance(t, Term))
    a, b, c = (like.constant(t) for t in (a, b, c))
    return Term(like.emitter, like.emitter.fma(a.value, b.value, c.value))


def polynomial(coefficients: Sequence[float], x: Term) -> Term:
    """c0 + c1 x + c2 x^2 + ... by Horner's rule."""
    total = x.constant(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = fma(total, x, c)
    return total


# --- exponents -------------------------------------------------------------------------------------------------------
def nearest_integer(shifted: Term) -> tuple[Term, Term]:
    """(n as a float, n as an integer) of `shifted` = t + magic, where n is t rounded to nearest and |t| < 2^22."""
    facts = shifted.format
    return shifted - facts.magic, shifted.bits() - facts.magic_bits


def power_of_two(n: Term, kind: str) -> Term:
    """2^n for a normal result; `n` is an integer of the width of the kind."""
    facts = FORMATS[kind]
    return ((n + facts.bias) << facts.mantissa).as_float()


def scale_by_power(y: Term, n: Term) -> Term:
    """y 2^n, rounded once: denormal results and overflow included. |n| < 2 bias."""
    emitter = y.emitter
    if emitter.lanes_bytes == 64 and y.lanes > 1:  # one instruction in AVX-512
        if n.kind == "i64":
            n = n.convert("trunc", "i32")
        suffix = f"v{y.lanes}"
        name = f"llvm.ldexp.{suffix}{y.kind}.{suffix}i32"
        return Term(emitter, emitter.call(name, y.kind, y.lanes, y.value, n.value))
    half = n >> 1
    return y * power_of_two(half, y.kind) * power_of_two(n - half, y.kind)


# --- error-free transformations --------------------------------------------------------------------------------------
def exact_sum(a: Operand, b: Term) -> tuple[Term, Term]:
    """(a + b rounded, its error), for |a| >= |b| or a = 0."""
    total = b + a
    return total, b - (total - a)


def exact_product(a: Term, b: Operand) -> tuple[Term, Term]:
    """(a b rounded, its error): by a fused multiply-add, else by halves (no factor beyond 2^990)."""
    product = a * b
    if a.emitter.has_fma:
        return product, fma(a, b, -product)
    (high_a, low_a), (high_b, low_b) = _halves(a), _halves(a.constant(b))
    return product, ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b


def _halves(x):
    scaled = x * x.format.splitter
    high = scaled - (scaled - x)
    return high, x - high


# --- rare cases ------------------------------------------------------------------------------------------------------
def rarely(condition: Term, usual: Sequence[Term], repair: Callable[[], Sequence[Term]]) -> tuple[Term, ...]:
    """`usual`, or what `repair` emits (for all lanes) where the condition holds in any lane: one branch a vector."""
    emitter = condition.emitter
    rare, join = emitter.label("rare"), emitter.label("join")
    before = emitter.block
    anywhere = emitter.any_lane(condition.value)
    emitter.line(f"br i1 {anywhere.text}, label %{rare}, label %{join}, {RARELY}")
    emitter.start(rare)
    emitter.open()
    repaired = repair()
    emitter.close()
    after = emitter.block
    emitter.line(f"br label %{join}")
    emitter.start(join)
    return tuple(
        Term(emitter, emitter.new(
            f"phi {a.value.type} [{a.value.text}, %{before}], [{b.value.text}, %{after}]", a.kind, a.lanes
        ))
        for a, b in zip(usual, repaired, strict=True)
    )


def library_call(name: str, *args: Term) -> Term:
    """The C library's function, lane by lane (float32: its name with an f)."""
    emitter, kind, lanes = args[0].emitter, args[0].kind, args[0].lanes
    name = name if kind == "f64" else name + "f"
    if lanes == 1:
        return Term(emitter, emitter.call(name, kind, 1, *[a.value for a in args]))
    vector = type_text(kind, lanes)
    before, loop, done = emitter.block, emitter.label("lane"), emitter.label("lanes_done")
    following, filled = emitter.fresh(), emitter.fresh()
    emitter.line(f"br label %{loop}")
    emitter.start(loop)
    index = emitter.new(f"phi i64 [0, %{before}], [{following}, %{loop}]", "i64")
    partial = emitter.new(f"phi {vector} [poison, %{before}], [{filled}, %{loop}]", kind, lanes)
    given = [emitter.new(f"extractelement {vector} {a.value.text}, i64 {index.text}", kind) for a in args]
    one = emitter.call(name, kind, 1, *given)
    emitter.line(f"{filled} = insertelement {vector} {partial.text}, {one.type} {one.text}, i64 {index.text}")
    emitter.line(f"{following} = add i64 {index.text}, 1")
    again = emitter.new(f"icmp ult i64 {following}, {lanes}", "i1")
    emitter.line(f"br i1 {again.text}, label %{loop}, label %{done}")
    emitter.start(done)
    return Term(emitter, Value(filled, kind, lanes))
