# SPDX-License-Identifier: MIT
"""Lowering of Fourier transforms: one kernel for each axis, which reads blocks of lines, transforms and writes them.

Lines are what lies along the axis; those beside each other in memory, or several short ones, are transformed at once.
A real line of even length is one of half the length with complex numbers: x_2j + i x_(2j+1) has the transform

    z_k = e_k + i o_k,   x_k = e_k + exp(-2 pi i k / n) o_k,

e and o those of the even and the odd elements, which are real: e_k is (z_k + conj z_-k) / 2.
"""

import math
from typing import NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, KernelCall
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
SHORT = 128
"""Lines up to this length are transformed several at once."""


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

    starts: (count, step in x, step in out) of the loops over blocks.
    """

    lines: int
    x: tuple[int, int]
    out: tuple[int, int]
    starts: tuple[tuple[int, int, int], ...]


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
        Transform(b, line, buffers[0], target, Planes(*buffers[1:]) if places else None).write()
        kernel = low.kernels[key] = b.finish()
        low.sources[kernel.name] = [equation]
    scratch = [low.scratch(s) for s in kernel.scratch]
    low.b.add(KernelCall(kernel, [x.operand, *(p.operand for p in places), out.operand, *scratch]))


def block_of(line: Line) -> Block:
    """The lines that are transformed together: those beside each other in memory, or several short ones."""
    before, after = line.sizes
    size = padded_length(line.length)
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
        self.b, self.line, self.x, self.out = b, line, x, out
        self.block = block_of(line)
        self.lines = self.block.lines
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

        nest(0, ZERO, ZERO)

    def _one(self, x: Index, out: Index) -> None:
        first = self.passes.planes[0]
        self._read(x, first.swapped if self.inverse else first)
        found = self.passes.transform()
        self._write_out(found.swapped if self.inverse else found, out)

    def _number(self, at: Index) -> Pair:
        """The complex number at a position of x."""
        return Pair(self.b.load(self.x, at * 2), self.b.load(self.x, at * 2 + 1))

    # --- in -----------------------------------------------------------------------------------------------------------

    def _read(self, x: Index, planes: Planes) -> None:
        b, lines, (axis, lane) = self.b, self.lines, self.block.x
        if self.line.kind == "irfft":
            (self._read_packed if self.line.packed else self._read_half)(x, planes)
            return

        def one(j: Index, q: Index) -> None:
            at = x + j * axis + q * lane
            if self.line.packed:
                at = x + j * (2 * axis) + q * lane
                number = Pair(b.load(self.x, at), b.load(self.x, at + axis))
            elif self.line.kind == "rfft":
                number = Pair(b.load(self.x, at), b.constant(0, self.out.kind))
            else:
                number = self._number(at)
            planes.store(b, j * lines + q, number)

        self.passes.each(self.line.length, one)

    def _read_half(self, x: Index, planes: Planes) -> None:
        """The spectrum of a real line of odd length: the second half mirrors the first."""
        b, n, lines, (axis, lane) = self.b, self.line.n, self.lines, self.block.x
        zero = b.constant(0, self.out.kind)
        self.passes.each(1, lambda _, q: planes.store(b, q, Pair(self._number(x + q * lane).real, zero)))

        def both(j: Index, q: Index) -> None:
            z = self._number(x + (j + 1) * axis + q * lane)
            planes.store(b, (j + 1) * lines + q, z)
            planes.store(b, (n - 1 - j) * lines + q, Pair(z.real, b.op("neg", z.imag)))

        if n > 2:
            self.passes.each(n // 2, both)

    def _read_packed(self, x: Index, planes: Planes) -> None:
        """2 z_k = (x_k + conj x_(h-k)) + i (x_k - conj x_(h-k)) exp(2 pi i k / n), with h = n / 2."""
        b, h, lines, (axis, lane) = self.b, self.line.length, self.lines, self.block.x

        def first(_: Index, q: Index) -> None:
            low, high = (self._number(x + j * axis + q * lane).real for j in (0, h))
            planes.store(b, q, Pair(b.op("add", low, high), b.op("sub", low, high)))

        def one(j: Index, q: Index) -> None:
            k = j + 1
            z = self._number(x + k * axis + q * lane)
            mirrored = self._conjugate(self._number(x + (h - k) * axis + q * lane))
            odd = product(b, total(b, z, mirrored, "sub"), self._conjugate(self.passes.factor(k)))
            even = total(b, z, mirrored)
            planes.store(b, k * lines + q, Pair(b.op("sub", even.real, odd.imag), b.op("add", even.imag, odd.real)))

        self.passes.each(1, first)
        if h > 1:
            self.passes.each(h - 1, one)

    def _conjugate(self, z: Pair) -> Pair:
        return Pair(z.real, self.b.op("neg", z.imag))

    # --- out ----------------------------------------------------------------------------------------------------------

    def _write_out(self, planes: Planes, out: Index) -> None:
        b, lines, (axis, lane) = self.b, self.lines, self.block.out
        if self.line.kind == "rfft" and self.line.packed:
            self._write_packed(planes, out)
            return

        def one(j: Index, q: Index) -> None:
            at = out + j * axis + q * lane
            number = self._scaled(planes.load(b, j * lines + q))
            if self.line.kind != "irfft":
                self._store(at, number)
            elif self.line.packed:
                at = out + j * (2 * axis) + q * lane
                b.store(self.out, at, number.real)
                b.store(self.out, at + axis, number.imag)
            else:
                b.store(self.out, at, number.real)

        count = self.line.length if self.line.kind == "irfft" else self.line.sizes[1]
        self.passes.each(count, one)

    def _write_packed(self, planes: Planes, out: Index) -> None:
        """x_k from z_k and z_(h-k), h = n / 2: see the top of this file."""
        b, h, lines, (axis, lane) = self.b, self.line.length, self.lines, self.block.out
        half, zero = b.constant(0.5, self.out.kind), b.constant(0, self.out.kind)

        def ends(_: Index, q: Index) -> None:
            z = planes.load(b, q)
            self._store(out + q * lane, Pair(b.op("add", z.real, z.imag), zero))
            self._store(out + h * axis + q * lane, Pair(b.op("sub", z.real, z.imag), zero))

        def one(j: Index, q: Index) -> None:
            k = j + 1
            z, mirrored = planes.load(b, k * lines + q), self._conjugate(planes.load(b, (h - k) * lines + q))
            even, odd = total(b, z, mirrored), total(b, z, mirrored, "sub")
            odd = product(b, Pair(odd.imag, b.op("neg", odd.real)), self.passes.factor(k))
            number = total(b, even, odd)
            self._store(out + k * axis + q * lane, Pair(b.op("mul", number.real, half), b.op("mul", number.imag, half)))

        self.passes.each(1, ends)
        if h > 1:
            self.passes.each(h - 1, one)

    def _scaled(self, z: Pair) -> Pair:
        """An inverse transform is divided by n."""
        if not self.inverse or self.line.n == 1:
            return z
        scale = self.b.constant(1 / self.line.n, self.out.kind)
        return Pair(self.b.op("mul", z.real, scale), self.b.op("mul", z.imag, scale))

    def _store(self, at: Index, z: Pair) -> None:
        self.b.store(self.out, at * 2, z.real)
        self.b.store(self.out, at * 2 + 1, z.imag)
