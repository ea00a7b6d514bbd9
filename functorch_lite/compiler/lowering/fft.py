# SPDX-License-Identifier: MIT
"""Lowering of Fourier transforms: self-sorting mixed-radix passes over planes of real and imaginary parts.

An axis of length n is transformed in passes, one for each factor r of n. With n = r m left to do and stride s,

    y[q + s (r p + k)] = w^(p k) sum over l of x[q + s (p + m l)] exp(-2 pi i k l / r),   w = exp(-2 pi i / n)

for p < m, q < s and k < r; then n becomes m and s becomes r s, and the result is in order at the end. What is beside
the axis in memory is the first s, so it goes along in the lanes. Lengths with a large prime factor become convolutions
of a longer, smooth length (Bluestein). Twiddle factors are computed in double precision.

Source: C. Van Loan, "Computational frameworks for the fast Fourier transform", 1992, sections 1.7 and 4.2.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, KernelCall, Value
from functorch_lite.compiler.lowering import lapack
from functorch_lite.compiler.lowering.program import Place, ProgramLowering
from functorch_lite.compiler.lowering.rules import Pair, kind_of, words
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Literal
from functorch_lite.primitives.fft import fft_p

LARGEST_PRIME = 13
"""Axes with a larger prime factor are transformed by Bluestein's convolution."""
LANES = 8
"""Strides from this on are walked in vectors; below, the positions of the transform are."""
IN_CACHE = 1 << 14
"""Elements that are transformed side by side."""
SHORT = 128
"""Lines up to this length are transformed several at once."""


class Line(NamedTuple):
    """What one kernel transforms: `outer` times an axis of length n with `inner` elements beside each of its own."""

    kind: str
    outer: int
    n: int
    inner: int

    @property
    def sizes(self) -> tuple[int, int]:
        """The elements along the axis before and after."""
        half = self.n // 2 + 1
        return half if self.kind == "irfft" else self.n, half if self.kind == "rfft" else self.n


class Block(NamedTuple):
    """How many lines are transformed at once; element j of line q is at `j * axis + q * lane` of x, and of the output.

    starts: (count, step in x, step in out) of the loops over blocks.
    """

    lines: int
    x: tuple[int, int]
    out: tuple[int, int]
    starts: tuple[tuple[int, int, int], ...]


class Planes(NamedTuple):
    """Complex numbers as two buffers."""

    real: Buffer
    imag: Buffer

    def load(self, b: Builder, at: Index) -> Pair:
        """The number at a position."""
        return Pair(b.load(self.real, at), b.load(self.imag, at))

    def store(self, b: Builder, at: Index, x: Pair) -> None:
        """Write the number at a position."""
        b.store(self.real, at, x.real)
        b.store(self.imag, at, x.imag)

    @property
    def swapped(self) -> "Planes":
        """The parts exchanged: the transform of these, exchanged again, is the inverse transform times n."""
        return Planes(self.imag, self.real)


# --- lengths and tables -----------------------------------------------------------------------------------------------


def radices(n: int) -> list[int]:
    """The factors of n in the order of their passes: fours first, then primes."""
    found = []
    for r in (4, 2, 3, 5, 7, 11, 13):
        while n % r == 0:
            found.append(r)
            n //= r
    return found if n == 1 else [*found, n]


def is_smooth(n: int) -> bool:
    """Whether every prime factor of n has a pass of its own."""
    return max(radices(n), default=1) <= LARGEST_PRIME


def padded_length(n: int) -> int:
    """The length of the transforms: n, or that of Bluestein's convolution, the next power of two that holds it."""
    return n if is_smooth(n) else 1 << (2 * n - 2).bit_length()


def roots(k: np.ndarray, n: int) -> np.ndarray:
    """exp(-2 pi i k / n), from angles of at most a quarter of a right one either way."""
    k = k % n
    quarter = (8 * k + n) // (2 * n)
    angle = (4 * k - quarter * n) * (math.pi / (2 * n))
    return (np.cos(angle) - 1j * np.sin(angle)) * np.array([1, -1j, -1, 1j])[quarter % 4]


@functools.lru_cache(64)
def tables(n: int) -> np.ndarray:
    """The factors w^(p k) of the passes, for each pass for each k from 1 on for each p.

    Of a length that is not smooth, those of the padded length; before them the chirp exp(-pi i j^2 / n), j < n, and the
    transform of its circular inverse, divided by the padded length.
    """
    size = padded_length(n)
    parts, left = [np.zeros(0, complex)], size
    if size != n:
        chirp = roots(np.arange(n) ** 2, 2 * n)
        filter_ = np.zeros(size, complex)
        filter_[:n] = chirp.conj()
        filter_[-1 : -n : -1] = chirp[1:].conj()
        parts += [chirp, np.fft.fft(filter_) / size]
    for r in radices(size):
        m = left // r
        parts.append(roots(np.outer(np.arange(1, r), np.arange(m)), left).reshape(-1))
        left = m
    return np.concatenate(parts)


# --- the equation -----------------------------------------------------------------------------------------------------


@lapack.lowering(fft_p)
def _(low: ProgramLowering, equation: Equation) -> None:
    """Axes are transformed one after the other; the one that is half as long when complex first, or last of all."""
    kind, lengths = equation.params["kind"], equation.params["lengths"]
    place, target = low.place(equation.inputs[0]), lapack.outputs(low, equation)[0]
    lead = len(place.aval.shape) - len(lengths)
    others = [k for k, n in enumerate(lengths[:-1]) if n > 1]
    steps = [(kind, len(lengths) - 1), *(("fft" if kind == "rfft" else kind, k) for k in reversed(others))]
    if kind == "irfft":
        steps = [*(("ifft", k) for k in others), steps[0]]
    for number, (how, k) in enumerate(steps):
        shape = place.aval.shape
        axis = lead + k
        line = Line(how, math.prod(shape[:axis]), lengths[k], math.prod(shape[axis + 1 :]))
        last = number == len(steps) - 1
        dtype = target.aval.dtype if last else dtypes.complex_dtype(place.aval.dtype)
        following = target if last else low.temp(Aval((*shape[:axis], line.sizes[1], *shape[axis + 1 :]), dtype))
        _call(low, equation, line, place, following)
        place = following


def _call(low: ProgramLowering, equation: Equation, line: Line, x: Place, out: Place) -> None:
    kind = kind_of(out.aval.dtype)
    assert kind is not None
    table = tables(line.n)
    parts = [np.ascontiguousarray(part, lapack.real_dtype(out.aval.dtype)) for part in (table.real, table.imag)]
    places = [low.place(Literal(part, Aval(part.shape, part.dtype))) for part in parts] if table.size else []
    key = line, x.aval.dtype, out.aval.dtype, "fft"
    kernel = low.kernels.get(key)
    if kernel is None:
        b = Builder(f"{line.kind}_{len(low.kernels)}")
        buffers = [b.input(name, kind, size) for name, size in (
            ("x", words(x.aval)), *zip(("real", "imag"), (table.size,) * len(places), strict=False))]
        target = b.output("out", kind, words(out.aval))
        Transform(b, line, buffers[0], target, Planes(*buffers[1:]) if places else None).write()
        kernel = low.kernels[key] = b.finish()
        low.sources[kernel.name] = [equation]
    scratch = [low.scratch(s) for s in kernel.scratch]
    low.b.add(KernelCall(kernel, [x.operand, *(p.operand for p in places), out.operand, *scratch]))


def block_of(line: Line) -> Block:
    """The lines that are transformed together: those beside each other in memory, or several short ones."""
    before, after = line.sizes
    size = padded_length(line.n)
    if line.inner == 1:
        lines = _divisor(line.outer, min(IN_CACHE // size, 64)) if size <= SHORT else 1
        steps = lines * before, lines * after
        return Block(lines, (1, before), (1, after), ((line.outer // lines, *steps),))
    lines = _divisor(line.inner, max(IN_CACHE // size, 1))
    return Block(lines, (line.inner, 1), (line.inner, 1), (
        (line.outer, before * line.inner, after * line.inner), (line.inner // lines, lines, lines)))


def _divisor(n: int, most: int) -> int:
    return max(d for d in range(1, min(n, most) + 1) if n % d == 0)


# --- the kernel -------------------------------------------------------------------------------------------------------


class Transform:
    """Writes one kernel: blocks of lines are read into planes, transformed there, and written out."""

    def __init__(self, b: Builder, line: Line, x: Buffer, out: Buffer, table: Planes | None):
        self.b, self.line, self.x, self.out, self.table = b, line, x, out, table
        self.block = block_of(line)
        self.size = padded_length(line.n)
        count = self.size * self.block.lines
        self.planes = [Planes(*(b.workspace(f"{part}{k}", out.kind, count) for part in ("real", "imag")))
                       for k in range(2)]
        self.inverse = line.kind in ("ifft", "irfft")

    def write(self) -> None:
        """Write all blocks."""

        def nest(k: int, x: Index, out: Index) -> None:
            if k == len(self.block.starts):
                self._one(x, out)
                return
            count, x_step, out_step = self.block.starts[k]
            with self.b.loop(count) as i:
                nest(k + 1, x + i * x_step, out + i * out_step)

        nest(0, ZERO, ZERO)

    def _each(self, count: int, body: Callable[[Index, Index], None]) -> None:
        """`body(j, q)` for positions along the axis and lines, the longer loop in vectors."""
        lines = self.block.lines
        if lines >= LANES or count == 1:
            with self.b.loop(count) as j, self.b.loop(lines, vector=True) as q:
                body(j, q)
        else:
            with self.b.loop(lines) as q, self.b.loop(count, vector=True) as j:
                body(j, q)

    def _one(self, x: Index, out: Index) -> None:
        first, second = self.planes
        side = first.swapped if self.inverse else first
        self._read(x, side)
        if self.size == self.line.n:
            found = self._passes(first, second, 0)
        else:
            found = self._convolved(first, second)
        self._write_out(found.swapped if self.inverse else found, out)

    # --- in and out ---------------------------------------------------------------------------------------------------

    def _read(self, x: Index, planes: Planes) -> None:
        b, lines, (axis, lane) = self.b, self.block.lines, self.block.x
        n, kind = self.line.n, self.line.kind
        zero = b.constant(0, self.out.kind)

        def number(j: Index, q: Index) -> Pair:
            at = x + j * axis + q * lane
            if kind == "rfft":
                return Pair(b.load(self.x, at), zero)
            return Pair(b.load(self.x, at * 2), b.load(self.x, at * 2 + 1))

        if kind != "irfft":
            self._each(n, lambda j, q: planes.store(b, j * lines + q, number(j, q)))
            return
        for j in (0, n // 2) if n % 2 == 0 else (0,):
            self._each(1, lambda _, q, j=j: planes.store(b, q + j * lines, Pair(number(Index(j), q).real, zero)))

        def both(j: Index, q: Index) -> None:
            z = number(j + 1, q)
            planes.store(b, (j + 1) * lines + q, z)
            planes.store(b, (n - 1 - j) * lines + q, Pair(z.real, b.op("neg", z.imag)))

        if n > 2:
            self._each((n - 1) // 2, both)

    def _write_out(self, planes: Planes, out: Index) -> None:
        b, lines, (axis, lane) = self.b, self.block.lines, self.block.out
        scale = b.constant(1 / self.line.n, self.out.kind) if self.inverse and self.line.n > 1 else None

        def one(j: Index, q: Index) -> None:
            at = out + j * axis + q * lane
            parts = planes.load(b, j * lines + q)
            if scale is not None:
                parts = Pair(*(b.op("mul", v, scale) for v in parts))
            if self.line.kind == "irfft":
                b.store(self.out, at, parts.real)
            else:
                b.store(self.out, at * 2, parts.real)
                b.store(self.out, at * 2 + 1, parts.imag)

        self._each(self.line.sizes[1], one)

    # --- transforms ---------------------------------------------------------------------------------------------------

    def _passes(self, source: Planes, target: Planes, table: int) -> Planes:
        """Transform `source` with the factors from place `table` on; returns which of the two has the result."""
        left, stride = self.size, self.block.lines
        for r in radices(self.size):
            m = left // r
            self._pass(r, m, stride, table, source, target)
            source, target = target, source
            table += (r - 1) * m
            left, stride = m, stride * r
        return source

    def _pass(self, r: int, m: int, s: int, table: int, source: Planes, target: Planes) -> None:
        b = self.b

        def one(p: Index, q: Index) -> None:
            given = [source.load(b, q + p * s + k * (s * m)) for k in range(r)]
            for k, value in enumerate(butterfly(b, given)):
                if k and m > 1:
                    value = _product(b, value, self._factor(p + (table + (k - 1) * m)))
                target.store(b, q + p * (s * r) + k * s, value)

        if s >= LANES or m == 1:
            with b.loop(m) as p, b.loop(s, vector=True) as q:
                one(p, q)
        else:
            with b.loop(s) as q, b.loop(m, vector=True) as p:
                one(p, q)

    def _factor(self, at: Index) -> Pair:
        assert self.table is not None
        return self.table.load(self.b, at)

    def _convolved(self, first: Planes, second: Planes) -> Planes:
        """Bluestein: the chirp times the convolution of (x times the chirp) with the inverse chirp."""
        b, n, lines, table = self.b, self.line.n, self.block.lines, self.line.n + self.size

        def times(planes: Planes, target: Planes, count: int, start: int) -> None:
            def one(j: Index, q: Index) -> None:
                at = j * lines + q
                target.store(b, at, _product(b, planes.load(b, at), self._factor(j + start)))

            self._each(count, one)

        times(first, first, n, 0)
        for buffer in first:
            b.fill(buffer, (self.size - n) * lines, Index(n * lines))
        found = self._passes(first, second, table)
        times(found, found, self.size, n)
        other = second if found is first else first
        found = self._passes(found.swapped, other.swapped, table).swapped
        times(found, found, n, 0)
        return found


def _product(b: Builder, x: Pair, y: Pair) -> Pair:
    return Pair(b.op("sub", b.op("mul", x.real, y.real), b.op("mul", x.imag, y.imag)),
                b.op("add", b.op("mul", x.real, y.imag), b.op("mul", x.imag, y.real)))


def _sum(b: Builder, x: Pair, y: Pair, op: str = "add") -> Pair:
    return Pair(b.op(op, x.real, y.real), b.op(op, x.imag, y.imag))


def _turned(b: Builder, x: Pair, y: Pair) -> tuple[Pair, Pair]:
    """x - i y and x + i y."""
    return (Pair(b.op("add", x.real, y.imag), b.op("sub", x.imag, y.real)),
            Pair(b.op("sub", x.real, y.imag), b.op("add", x.imag, y.real)))


def butterfly(b: Builder, x: Sequence[Pair]) -> list[Pair]:
    """The transform of a few numbers: 2, 4 or an odd number of them."""
    if len(x) == 2:
        return [_sum(b, x[0], x[1]), _sum(b, x[0], x[1], "sub")]
    if len(x) == 4:
        even, odd = butterfly(b, (x[0], x[2])), butterfly(b, (x[1], x[3]))
        first, third = _turned(b, even[1], odd[1])
        return [_sum(b, even[0], odd[0]), first, _sum(b, even[0], odd[0], "sub"), third]
    r = len(x)
    sums = [_sum(b, x[k], x[r - k]) for k in range(1, r // 2 + 1)]
    differences = [_sum(b, x[k], x[r - k], "sub") for k in range(1, r // 2 + 1)]
    total = functools.reduce(functools.partial(_sum, b), sums, x[0])
    pairs = []
    for k in range(1, r // 2 + 1):
        factors = roots(k * np.arange(1, r // 2 + 1), r)
        even = _combined(b, factors.real, sums, x[0])
        odd = _combined(b, -factors.imag, differences)
        pairs.append(_turned(b, even, odd))
    return [total, *(p[0] for p in pairs), *(p[1] for p in reversed(pairs))]


def _combined(b: Builder, factors: np.ndarray, numbers: Sequence[Pair], start: Pair | None = None) -> Pair:
    """The sum of real factors times numbers."""

    def part(values: Sequence[Value], total: Value | None) -> Any:
        for c, v in zip(factors, values, strict=True):
            term = b.op("mul", v, b.constant(float(c), v.kind))
            total = term if total is None else b.op("add", total, term)
        return total

    return Pair(part([z.real for z in numbers], start and start.real),
                part([z.imag for z in numbers], start and start.imag))
