# SPDX-License-Identifier: MIT
"""Passes of a Fourier transform, in memory order, over planes of real and imaginary parts.

A length n is transformed in passes, one for each factor r of n. With n = r m left to do and stride s,

    y[q + s (r p + k)] = w^(p k) sum over l of x[q + s (p + m l)] exp(-2 pi i k l / r),   w = exp(-2 pi i / n)

for p < m, q < s and k < r; then n becomes m and s becomes r s, and the result is in order at the end. The first pass
can read, and the last one write, elsewhere than the planes. The first s is how many lines are transformed side by side:
they go along in the lanes. Lengths with a large prime factor become convolutions of a longer, smooth length
(Bluestein). Factors are computed in double precision.

Source: C. Van Loan, "Computational frameworks for the fast Fourier transform", 1992, sections 1.7 and 4.2.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Buffer, Index, Value
from functorch_lite.compiler.lowering.rules import Pair

Read = Callable[[Index, Index], Pair]
"""Element j of line q."""
Write = Callable[[Index, Index, Pair], None]
"""Puts element j of line q in its place."""
LARGEST_PRIME = 13
"""Lengths with a larger prime factor are transformed by Bluestein's convolution."""
LANES = 8
"""Strides from this on are walked in vectors; below, the positions of the transform are."""


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
    """The factors of n in the order of their passes: eights, fours, then primes."""
    twos = (n & -n).bit_length() - 1
    fours = {0: 0, 1: 2 if twos > 4 else 0, 2: 1}[twos % 3]
    found = [8] * ((twos - 2 * fours) // 3) + [4] * fours
    left = n // math.prod(found)
    for r in (2, 3, 5, 7, 11, 13):
        while left % r == 0:
            found.append(r)
            left //= r
    return found if left == 1 else [*found, left]


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


# --- passes -----------------------------------------------------------------------------------------------------------


class Passes:
    """Writes transforms of length n of `lines` lines side by side; element j of line q is at `j * lines + q`.

    table: the real and imaginary parts of `tables(n)`, from position `base` on.
    """

    def __init__(self, b: Builder, n: int, lines: int, kind: str, table: Planes | None, base: int):
        self.b, self.n, self.lines, self.table, self.base = b, n, lines, table, base
        self.size = padded_length(n)
        self.planes = [Planes(*(b.workspace(f"{part}{k}", kind, self.size * lines) for part in ("real", "imag")))
                       for k in range(2)]

    def transform(self, read: Read | None, write: Write | None) -> Planes:
        """Transform what `read` gives, or what is in the first of `planes`; returns the one of them with the result.

        The result goes to `write` instead if there is such. There may be neither where `needs_planes`.
        """
        first, second = self.planes
        if self.needs_planes:
            assert read is None and write is None
            return first if self.n == 1 else self._convolved(first, second)
        return self._passes(first, second, 0, read, write)

    @property
    def needs_planes(self) -> bool:
        """Whether elements are touched more than once before the first pass, or after the last."""
        return self.n == 1 or self.size != self.n

    def factor(self, at: Index) -> Pair:
        """The number at a position of the table."""
        assert self.table is not None
        return self.table.load(self.b, at)

    def each(self, count: int, body: Callable[[Index, Index], None]) -> None:
        """`body(j, q)` for positions along the axis and lines, the longer loop in vectors."""
        lines = self.lines
        if lines >= LANES or count == 1:
            with self.b.loop(count) as j, self.b.loop(lines, vector=True) as q:
                body(j, q)
        else:
            with self.b.loop(lines) as q, self.b.loop(count, vector=True) as j:
                body(j, q)

    def _passes(
        self, source: Planes, target: Planes, table: int, read: Read | None = None, write: Write | None = None
    ) -> Planes:
        """Transform `source` with the factors from place `table` on; returns which of the two has the result.

        The first pass reads by `read` and the last one writes by `write`, where there are such.
        """
        left, stride = self.size, self.lines
        for r in radices(self.size):
            m = left // r
            if m > 1 or write is None:
                self._pass(r, m, stride, table, read or source, target)
            else:
                self._last_pass(r, stride, read or source, write)
            read, (source, target) = None, (target, source)
            table += (r - 1) * m
            left, stride = m, stride * r
        return source

    def _pass(self, r: int, m: int, s: int, table: int, source: Planes | Read, target: Planes) -> None:
        b = self.b

        def given(p: Index, q: Index, k: int) -> Pair:
            if isinstance(source, Planes):
                return source.load(b, q + p * s + k * (s * m))
            return source(p + k * m, q)  # the first pass: s is the number of lines

        def one(p: Index, q: Index) -> None:
            values = butterfly(b, [given(p, q, k) for k in range(r)])
            if m > 1:
                factors = (self.factor(p + (self.base + table + (k - 1) * m)) for k in range(1, r))
                values[1:] = [product(b, *pair) for pair in zip(values[1:], factors, strict=True)]
            for part, buffer in enumerate(target):  # parts one after the other: places side by side are one store
                for k, value in enumerate(values):
                    b.store(buffer, q + p * (s * r) + k * s, value[part])

        if s >= LANES or m == 1:
            with b.loop(m) as p, b.loop(s, vector=True) as q:
                one(p, q)
        else:
            with b.loop(s) as q, b.loop(m, vector=True) as p:
                one(p, q)

    def _last_pass(self, r: int, s: int, source: Planes | Read, write: Write) -> None:
        """The pass after which all is in order; element j of line q is written by `write`."""
        b, lines, count = self.b, self.lines, s // self.lines

        def one(j: Index, q: Index) -> None:
            places = [j + k * count for k in range(r)]
            given = [source.load(b, place * lines + q) if isinstance(source, Planes) else source(place, q)
                     for place in places]
            for place, value in zip(places, butterfly(b, given), strict=True):
                write(place, q, value)

        self.each(count, one)

    def _convolved(self, first: Planes, second: Planes) -> Planes:
        """Bluestein: the chirp times the convolution of (x times the chirp) with the inverse chirp."""
        b, n, lines, table = self.b, self.n, self.lines, self.n + self.size

        def times(planes: Planes, target: Planes, count: int, start: int) -> None:
            def one(j: Index, q: Index) -> None:
                at = j * lines + q
                target.store(b, at, product(b, planes.load(b, at), self.factor(j + (self.base + start))))

            self.each(count, one)

        times(first, first, n, 0)
        for buffer in first:
            b.fill(buffer, (self.size - n) * lines, Index(n * lines))
        found = self._passes(first, second, table)
        times(found, found, self.size, n)
        other = second if found is first else first
        found = self._passes(found.swapped, other.swapped, table).swapped
        times(found, found, n, 0)
        return found


# --- numbers ----------------------------------------------------------------------------------------------------------


def product(b: Builder, x: Pair, y: Pair) -> Pair:
    """x y."""
    return Pair(b.op("fma", x.real, y.real, b.op("neg", b.op("mul", x.imag, y.imag))),
                b.op("fma", x.real, y.imag, b.op("mul", x.imag, y.real)))


def total(b: Builder, x: Pair, y: Pair, op: str = "add") -> Pair:
    """x + y, or x - y."""
    return Pair(b.op(op, x.real, y.real), b.op(op, x.imag, y.imag))


def turned(b: Builder, x: Pair, y: Pair) -> tuple[Pair, Pair]:
    """x - i y and x + i y."""
    return (Pair(b.op("add", x.real, y.imag), b.op("sub", x.imag, y.real)),
            Pair(b.op("sub", x.real, y.imag), b.op("add", x.imag, y.real)))


def butterfly(b: Builder, x: Sequence[Pair]) -> list[Pair]:
    """The transform of a few numbers: 2, 4, 8 or an odd number of them."""
    if len(x) == 2:
        return [total(b, x[0], x[1]), total(b, x[0], x[1], "sub")]
    if len(x) == 4:
        even, odd = butterfly(b, (x[0], x[2])), butterfly(b, (x[1], x[3]))
        second, fourth = turned(b, even[1], odd[1])
        return [total(b, even[0], odd[0]), second, total(b, even[0], odd[0], "sub"), fourth]
    if len(x) % 4 == 0:
        return _by_fours(b, x)
    r = len(x)
    sums = [total(b, x[k], x[r - k]) for k in range(1, r // 2 + 1)]
    differences = [total(b, x[k], x[r - k], "sub") for k in range(1, r // 2 + 1)]
    first = functools.reduce(functools.partial(total, b), sums, x[0])
    pairs = []
    for k in range(1, r // 2 + 1):
        factors = roots(k * np.arange(1, r // 2 + 1), r)
        even = _combined(b, np.real(factors), sums, x[0])
        odd = _combined(b, -np.imag(factors), differences)
        pairs.append(turned(b, even, odd))
    return [first, *(p[0] for p in pairs), *(p[1] for p in reversed(pairs))]


def _by_fours(b: Builder, x: Sequence[Pair]) -> list[Pair]:
    """The transform of 4 m numbers: m transforms of four, then, of what they give, turned, four of m."""
    m = len(x) // 4
    fours = [butterfly(b, x[j::m]) for j in range(m)]
    found: list[Pair] = [x[0]] * len(x)
    for k in range(4):
        found[k::4] = butterfly(b, [_turned_by(b, four[k], j * k, len(x)) for j, four in enumerate(fours)])
    return found


def _turned_by(b: Builder, x: Pair, k: int, n: int) -> Pair:
    """x exp(-2 pi i k / n)."""
    if k == 0:
        return x
    if 4 * k == n:
        return Pair(x.imag, b.op("neg", x.real))
    factor = complex(roots(np.array([k]), n)[0])
    real, imag = (b.constant(part, x.real.kind) for part in (factor.real, factor.imag))
    return product(b, x, Pair(real, imag))


def _combined(b: Builder, factors: np.ndarray, numbers: Sequence[Pair], start: Pair | None = None) -> Pair:
    """The sum of real factors times numbers."""

    def part(values: Sequence[Value], total: Value | None) -> Any:
        for c, v in zip(factors, values, strict=True):
            term = b.op("mul", v, b.constant(float(c), v.kind))
            total = term if total is None else b.op("add", total, term)
        return total

    return Pair(part([z.real for z in numbers], start and start.real),
                part([z.imag for z in numbers], start and start.imag))
