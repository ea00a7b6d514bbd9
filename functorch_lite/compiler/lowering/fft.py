# SPDX-License-Identifier: MIT
"""Lowering of Fourier transforms: one kernel for each axis, which reads blocks of lines, transforms and writes them.

Lines are what lies along the axis; those beside each other in memory, or several short ones, are transformed at once.
Short ones are turned first: word by word, with those of all lines side by side.
A real line of even length is one of half the length with complex numbers: x_2j + i x_(2j+1) has the transform

    z_k = e_k + i o_k,   x_k = e_k + exp(-2 pi i k / n) o_k,

e and o those of the even and the odd elements, which are real: e_k is (z_k + conj z_-k) / 2.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, KernelCall, Value
from functorch_lite.compiler.lowering import lapack
from functorch_lite.compiler.lowering.fft_passes import Passes, Planes, padded_length, product, roots, tables, total
from functorch_lite.compiler.lowering.program import Place, ProgramLowering
from functorch_lite.compiler.lowering.rules import Pair, kind_of, words
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.program import Equation, Literal
from functorch_lite.primitives.fft import fft_p

IN_CACHE = 1 << 14
"""Elements that are transformed side by side."""
SHORT = 64
"""Lines of up to this length are transformed several at once, turned so that they go along in the lanes."""
UNEVEN = 256
"""So are lines up to this length whose first pass is none of eight, which would leave lanes idle."""
EVEN_LINES = 16
"""Lines beside each other that are transformed at once, at least, where there are so many."""


class Line(NamedTuple):
    """What one kernel transforms: `outer` times an axis of length n with `inner` elements beside each of its own."""

    kind: str
    outer: int
    n: int
    inner: int

    @property
    def packed(self) -> bool:
        """Whether two real elements go in one complex number."""
        return self.kind in ("rfft", "irfft") and self.n % 2 == 0

    @property
    def length(self) -> int:
        """The length of the complex transform."""
        return self.n // 2 if self.packed else self.n

    @property
    def sizes(self) -> tuple[int, int]:
        """The elements along the axis before and after."""
        half = self.n // 2 + 1
        return half if self.kind == "irfft" else self.n, half if self.kind == "rfft" else self.n


class Block(NamedTuple):
    """How many lines are transformed at once; element j of line q is at `j * axis + q * lane` of x, and of the output.

    starts: (count, step in x, step in out) of the loops over blocks; first: where the first one begins in x and in out.
    """

    lines: int
    x: tuple[int, int]
    out: tuple[int, int]
    starts: tuple[tuple[int, int, int], ...]
    first: tuple[int, int] = (0, 0)


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
    table = tables(line.length)
    if line.packed:
        table = np.concatenate([roots(np.arange(line.length), line.n), table])
    parts = [np.ascontiguousarray(part, lapack.real_dtype(out.aval.dtype)) for part in (np.real(table), np.imag(table))]
    places = [low.place(Literal(part, Aval(part.shape, part.dtype))) for part in parts] if table.size else []
    key = line, x.aval.dtype, out.aval.dtype, "fft"
    kernel = low.kernels.get(key)
    if kernel is None:
        b = Builder(f"{line.kind}_{len(low.kernels)}")
        buffers = [b.input(name, kind, size) for name, size in (
            ("x", words(x.aval)), *zip(("real", "imag"), (table.size,) * len(places), strict=False))]
        target = b.output("out", kind, words(out.aval))
        for block in blocks_of(line, 8 if kind == "f64" else 4):
            Transform(b, line, block, buffers[0], target, Planes(*buffers[1:]) if places else None).write()
        kernel = low.kernels[key] = b.finish()
        low.sources[kernel.name] = [equation]
    scratch = [low.scratch(s) for s in kernel.scratch]
    low.b.add(KernelCall(kernel, [x.operand, *(p.operand for p in places), out.operand, *scratch]))


def blocks_of(line: Line, itemsize: int) -> list[Block]:
    """The lines that are transformed together: those beside each other in memory, or several short ones.

    Where lines cannot be dealt out evenly to blocks that fill vectors, the last block is smaller.
    itemsize: bytes of a real number.
    """
    before, after = line.sizes
    size = padded_length(line.length)
    if line.inner == 1:
        lanes = 64 // itemsize
        short = size <= SHORT or (size % 8 and size <= UNEVEN)
        lines = min(lanes, line.outer) if short and 2 * line.outer > lanes else 1

        def turned(lines: int, count: int, first: int) -> Block:
            starts = ((count, lines * before, lines * after),)
            return Block(lines, (1, before), (1, after), starts, (first * before, first * after))

        return _with_rest(turned, line.outer, lines)
    most = max(IN_CACHE // size, 1)
    lines = _divisor(line.inner, most)
    if lines < min(EVEN_LINES, line.inner) <= most:
        lines = most - most % EVEN_LINES

    def block(lines: int, count: int, first: int) -> Block:
        starts = (line.outer, before * line.inner, after * line.inner), (count, lines, lines)
        return Block(lines, (line.inner, 1), (line.inner, 1), starts, (first, first))

    return _with_rest(block, line.inner, lines)


def _with_rest(block: Callable[[int, int, int], Block], whole: int, lines: int) -> list[Block]:
    """Blocks of so many lines, and one of those left. block: of (lines, how many blocks, number of the first line)."""
    count = whole // lines
    rest = whole - count * lines
    return [block(lines, count, 0), *([block(rest, 1, count * lines)] if rest else [])]


def _divisor(n: int, most: int) -> int:
    return max(d for d in range(1, min(n, most) + 1) if n % d == 0)


# --- the kernel -------------------------------------------------------------------------------------------------------


class Transform:
    """Writes one kernel: blocks of lines are read into planes, transformed there, and written out."""

    def __init__(self, b: Builder, line: Line, block: Block, x: Buffer, out: Buffer, table: Planes | None):
        self.b, self.line, self.block, self.x, self.out = b, line, block, x, out
        self.lines = self.block.lines
        self.turned = self._turned_buffers() if line.inner == 1 and self.lines > 1 else None
        base = line.length if line.packed else 0
        self.passes = Passes(b, line.length, self.lines, out.kind, table, base)
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

        nest(0, *(Index(k) for k in self.block.first))

    def _turned_buffers(self) -> tuple[Buffer, Buffer]:
        """Room for the words of a block's lines, word by word: those of all lines side by side."""
        words_in, words_out = self._words
        return (self.b.workspace("turned_in", self.x.kind, words_in * self.lines),
                self.b.workspace("turned_out", self.out.kind, words_out * self.lines))

    @property
    def _words(self) -> tuple[int, int]:
        """The numbers of a line before and after; a complex one is two."""
        before, after = self.line.sizes
        kind = self.line.kind
        return before * (1 if kind == "rfft" else 2), after * (1 if kind == "irfft" else 2)

    def _one(self, x: Index, out: Index) -> None:
        first = self.passes.planes[0]
        if self.turned:
            count = self._words[0]
            start = x if self.line.kind == "rfft" else x * 2
            self.b.transpose(self.turned[0], ZERO, self.x, start, self.lines, count, count, self.lines)
        mirrors_in, mirrors_out = self.line.kind == "irfft", self.line.kind == "rfft"
        read = None if mirrors_in or self.passes.needs_planes else lambda j, q: self._given(x, j, q)
        write = None if mirrors_out or self.passes.needs_planes else lambda j, q, z: self._put(out, j, q, z)
        if read is None:
            self._read(x, first.swapped if self.inverse else first)
        found = self.passes.transform(read, write)
        if write is None:
            self._write_out(found, out)
        if self.turned:
            count = self._words[1]
            start = out if self.line.kind == "irfft" else out * 2
            self.b.transpose(self.out, start, self.turned[1], ZERO, count, self.lines, self.lines, count)

    def _number(self, x: Index, j: Index | int, q: Index) -> Pair:
        """Complex number j of line q of a block."""
        if self.turned:
            at = j * (2 * self.lines) + q
            return Pair(self.b.load(self.turned[0], at), self.b.load(self.turned[0], at + self.lines))
        axis, lane = self.block.x
        at = x + j * axis + q * lane
        return Pair(self.b.load(self.x, at * 2), self.b.load(self.x, at * 2 + 1))

    def _real(self, x: Index, j: Index | int, q: Index) -> Value:
        """Real number j of line q of a block."""
        if self.turned:
            return self.b.load(self.turned[0], j * self.lines + q)
        axis, lane = self.block.x
        return self.b.load(self.x, x + j * axis + q * lane)

    # --- in -----------------------------------------------------------------------------------------------------------

    def _given(self, x: Index, j: Index, q: Index) -> Pair:
        """Element j of line q as the passes take it: exchanged for an inverse transform."""
        if self.line.packed:
            return Pair(self._real(x, j * 2, q), self._real(x, j * 2 + 1, q))
        if self.line.kind == "rfft":
            return Pair(self._real(x, j, q), self.b.constant(0, self.out.kind))
        number = self._number(x, j, q)
        return Pair(number.imag, number.real) if self.inverse else number

    def _read(self, x: Index, planes: Planes) -> None:
        lines = self.lines
        if self.line.kind == "irfft":
            (self._read_packed if self.line.packed else self._read_half)(x, planes)
            return
        first = self.passes.planes[0]
        self.passes.each(self.line.length, lambda j, q: first.store(self.b, j * lines + q, self._given(x, j, q)))

    def _read_half(self, x: Index, planes: Planes) -> None:
        """The spectrum of a real line of odd length: the second half mirrors the first."""
        b, n, lines = self.b, self.line.n, self.lines
        zero = b.constant(0, self.out.kind)
        self.passes.each(1, lambda _, q: planes.store(b, q, Pair(self._number(x, 0, q).real, zero)))

        def both(j: Index, q: Index) -> None:
            z = self._number(x, j + 1, q)
            planes.store(b, (j + 1) * lines + q, z)
            planes.store(b, (n - 1 - j) * lines + q, Pair(z.real, b.op("neg", z.imag)))

        if n > 2:
            self.passes.each(n // 2, both)

    def _read_packed(self, x: Index, planes: Planes) -> None:
        """2 z_k = (x_k + conj x_(h-k)) + i (x_k - conj x_(h-k)) exp(2 pi i k / n), with h = n / 2."""
        b, h, lines = self.b, self.line.length, self.lines

        def first(_: Index, q: Index) -> None:
            low, high = (self._number(x, j, q).real for j in (0, h))
            planes.store(b, q, Pair(b.op("add", low, high), b.op("sub", low, high)))

        def one(j: Index, q: Index) -> None:
            k = j + 1
            z = self._number(x, k, q)
            mirrored = self._conjugate(self._number(x, h - k, q))
            odd = product(b, total(b, z, mirrored, "sub"), self._conjugate(self.passes.factor(k)))
            even = total(b, z, mirrored)
            planes.store(b, k * lines + q, Pair(b.op("sub", even.real, odd.imag), b.op("add", even.imag, odd.real)))

        self.passes.each(1, first)
        if h > 1:
            self.passes.each(h - 1, one)

    def _conjugate(self, z: Pair) -> Pair:
        return Pair(z.real, self.b.op("neg", z.imag))

    # --- out ----------------------------------------------------------------------------------------------------------

    def _put(self, out: Index, j: Index, q: Index, z: Pair) -> None:
        """Write element j of line q of what the passes give: exchanged after an inverse transform."""
        if not self.inverse:
            self._store(out, j, q, z)
            return
        number = self._scaled(Pair(z.imag, z.real))
        if self.line.kind == "ifft":
            self._store(out, j, q, number)
        elif self.line.packed:
            self._store_real(out, j * 2, q, number.real)
            self._store_real(out, j * 2 + 1, q, number.imag)
        else:
            self._store_real(out, j, q, number.real)

    def _write_out(self, planes: Planes, out: Index) -> None:
        if self.line.kind == "rfft" and self.line.packed:
            self._write_packed(planes, out)
            return
        b, lines = self.b, self.lines
        count = self.line.length if self.line.kind == "irfft" else self.line.sizes[1]
        self.passes.each(count, lambda j, q: self._put(out, j, q, planes.load(b, j * lines + q)))

    def _write_packed(self, planes: Planes, out: Index) -> None:
        """x_k from z_k and z_(h-k), h = n / 2: see the top of this file."""
        b, h, lines = self.b, self.line.length, self.lines
        half, zero = b.constant(0.5, self.out.kind), b.constant(0, self.out.kind)

        def ends(_: Index, q: Index) -> None:
            z = planes.load(b, q)
            self._store(out, 0, q, Pair(b.op("add", z.real, z.imag), zero))
            self._store(out, h, q, Pair(b.op("sub", z.real, z.imag), zero))

        def one(j: Index, q: Index) -> None:
            k = j + 1
            z, mirrored = planes.load(b, k * lines + q), self._conjugate(planes.load(b, (h - k) * lines + q))
            even, odd = total(b, z, mirrored), total(b, z, mirrored, "sub")
            odd = product(b, Pair(odd.imag, b.op("neg", odd.real)), self.passes.factor(k))
            number = total(b, even, odd)
            self._store(out, k, q, Pair(b.op("mul", number.real, half), b.op("mul", number.imag, half)))

        self.passes.each(1, ends)
        if h > 1:
            self.passes.each(h - 1, one)

    def _scaled(self, z: Pair) -> Pair:
        """An inverse transform is divided by n."""
        if self.line.n == 1:
            return z
        scale = self.b.constant(1 / self.line.n, self.out.kind)
        return Pair(self.b.op("mul", z.real, scale), self.b.op("mul", z.imag, scale))

    def _store(self, out: Index, j: Index | int, q: Index, z: Pair) -> None:
        """Write complex number j of line q of a block."""
        if self.turned:
            at = j * (2 * self.lines) + q
            self.b.store(self.turned[1], at, z.real)
            self.b.store(self.turned[1], at + self.lines, z.imag)
            return
        axis, lane = self.block.out
        at = out + j * axis + q * lane
        self.b.store(self.out, at * 2, z.real)
        self.b.store(self.out, at * 2 + 1, z.imag)

    def _store_real(self, out: Index, j: Index | int, q: Index, value: Value) -> None:
        """Write real number j of line q of a block."""
        if self.turned:
            self.b.store(self.turned[1], j * self.lines + q, value)
            return
        axis, lane = self.block.out
        self.b.store(self.out, out + j * axis + q * lane, value)
