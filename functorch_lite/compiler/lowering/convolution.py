# SPDX-License-Identifier: MIT
"""Convolutions: conv_general_dilated as kernels made of register tiles.

A convolution is, for each phase (see `convolution_image`), sums over channels and kernel elements ("taps") of numbers
at fixed offsets:

    out[o, t] = sum over c, k of  w[o, c, k] * image[c, t * step + shift[k]]

`image` is one example, copied into working space where it needs a border, with the columns of each residue modulo
`step` side by side, so that neighbouring outputs read neighbouring numbers. Ways to put it in registers:

    pixels    output columns are in the lanes, filters are the rows of a tile
    filters   the kernel is large, as in a kernel's gradient: filters are in the lanes, outputs are the rows of a tile;
              if there are few outputs, kernel columns are in the lanes instead, and the kernel is read where it is
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Buffer, Index
from functorch_lite.compiler.lowering.contraction import Product, call_kernel
from functorch_lite.compiler.lowering.convolution_image import Image, Phase, Window, kernel_walks, phases_of
from functorch_lite.compiler.lowering.product_tiles import Axis, merged, over_axes
from functorch_lite.compiler.lowering.program import ProgramLowering
from functorch_lite.compiler.lowering.rules import step_rules, strides_of
from functorch_lite.compiler.lowering.tiles import (
    Cut,
    Machine,
    Panels,
    Walk,
    cuts,
    even_cuts,
    inner_tile,
    most_rows,
    over,
    pack,
    packed_walk,
    panels_of,
    store_tile,
    tile,
)
from functorch_lite.core.program import Equation
from functorch_lite.primitives.convolution import conv_general_dilated_p

WRITTEN_OUT = 400  # products: taps of no more are written out, else they are a loop
MOST_OUTPUTS = 128  # of a convolution whose outputs are written out
IMAGE_BYTES = 24 << 10  # of a part of an example that stays in the first-level cache
FEW_OUTPUTS = 32  # of all examples: a kernel in order would be read that often
ONE_TILE = 9  # outputs of a tile with kernel columns in the lanes
KERNEL_BYTES = 512 << 10  # of a part of a kernel that stays in the second-level cache


@dataclass(frozen=True)
class Convolution:
    """The axes of a convolution in x, w and the output: `parts` are convolved apart, channels are added up."""

    parts: tuple[Axis, ...]
    examples: tuple[Axis, ...]
    filters: tuple[Axis, ...]
    channels: tuple[Axis, ...]
    windows: tuple[Window, ...]

    def doubled(self, batch: Axis, contracted: Axis) -> "Convolution":
        """The convolution with one more part axis and one more channel axis."""
        return Convolution((batch, *self.parts), self.examples, self.filters, (contracted, *self.channels),
                           self.windows)

    def write(self, b: Builder, x: Buffer, y: Buffer, out: Buffer, machine: Machine) -> None:
        """Compute it, on buffers of one kind that is not half precision."""
        product = self._product()
        if product is not None:
            product.write(b, x, y, out, machine)
        elif self._is_reduction():
            Filters(b, machine, self, x, y, out).write()
        else:
            Pixels(b, machine, self, x, y, out).write()

    def _product(self) -> Product | None:
        """The matrix product that it is, if along each spatial axis there is one kernel element or one output."""
        rows, contracted = list(self.examples), list(self.channels)
        for v in self.windows:
            if _is_plain(v):
                rows.append(Axis(v.size, v.x, 0, v.to))
            elif v.out == v.dilation == v.kernel_dilation == 1 and v.low == 0 and v.kernel <= v.size:
                contracted.append(Axis(v.kernel, v.x, v.w))
            else:
                return None
        return Product(self.parts, tuple(rows), self.filters, tuple(contracted))

    def _is_reduction(self) -> bool:
        """Whether the kernel is larger than the output."""
        outputs = math.prod(v.out for v in self.windows)
        large = outputs < math.prod(v.kernel for v in self.windows) and outputs <= MOST_OUTPUTS
        return large and all(v.dilation == 1 for v in self.windows)


# --- the equation -----------------------------------------------------------------------------------------------------


@step_rules.register(conv_general_dilated_p)
def _(program: ProgramLowering, equation: Equation):
    x, w = (program.strided(a) for a in equation.inputs)
    shapes = equation.inputs[0].aval.shape, equation.inputs[1].aval.shape, equation.outputs[0].aval.shape
    call_kernel(program, equation, (x.place, w.place),
                convolution_of(*shapes, x.strides, w.strides, **equation.params))


def convolution_of(
    x_shape, w_shape, out_shape, x_strides, w_strides, *, strides, padding, lhs_dilation, rhs_dilation, groups,
    batch_groups,
) -> Convolution:
    """The convolution that conv_general_dilated is, on operands with these shapes and element strides."""
    parts = groups * batch_groups
    n, o, c = out_shape[0], w_shape[0] // parts, w_shape[1]
    to = strides_of(out_shape)
    apart = x_strides[0] * n if batch_groups > 1 else x_strides[1] * c
    windows = tuple(
        Window(x_shape[k], w_shape[k], out_shape[k], x_strides[k], w_strides[k], to[k], strides[k - 2],
               padding[k - 2][0], lhs_dilation[k - 2], rhs_dilation[k - 2])
        for k in range(2, len(x_shape))
    )
    return Convolution(
        (Axis(parts, apart, w_strides[0] * o, to[1] * o),), (Axis(n, x_strides[0], 0, to[0]),),
        (Axis(o, 0, w_strides[0], to[1]),), (Axis(c, x_strides[1], w_strides[1]),), _flat(windows),
    )


def _flat(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """The windows with trailing axes that a kernel of one element only walks over made one; at least two."""
    found = list(windows)
    while len(found) > 1 and all(_is_plain(w) for w in found[-2:]):
        outer, inner = found[-2:]
        if outer.x != inner.x * inner.size:
            break
        found[-2:] = [inner._replace(size=outer.size * inner.size, out=outer.out * inner.out)]
    return (*[Window(1, 1, 1, 1, 0, 0, 1, 0, 1, 1)] * (2 - len(found)), *found)


def _is_plain(w: Window) -> bool:
    return w.kernel == w.step == w.dilation == 1 and w.low == 0 and w.size == w.out


# --- output columns in the lanes --------------------------------------------------------------------------------------


class Strip(NamedTuple):
    """Tiles side by side along the last axis: `count`, `size` apart from `start` on, with vectors at `starts`."""

    start: int
    count: int
    size: int
    width: int
    starts: tuple[int, ...]


class Tiling(NamedTuple):
    """How a phase is cut: output rows in each tile, the cuts of all rows, strips of columns, and most filters."""

    down: list[Cut]
    strips: list[Strip]
    filters: int


def strips_of(count: int, lanes: int, most: int) -> list[Strip]:
    """Columns in tiles of at most `most` vectors. The last vector may overlap the one before: both write the same."""
    vectors = -(-count // lanes)
    if vectors <= most:
        width = -(-count // vectors)
        return [Strip(0, 1, count, width, tuple(min(k * width, count - width) for k in range(vectors)))]
    found = [Strip(c.start * lanes, c.count, c.size * lanes, lanes, tuple(k * lanes for k in range(c.size)))
             for c in cuts(count // lanes, most)]
    return found if count % lanes == 0 else [*found, Strip(count - lanes, 1, lanes, lanes, (0,))]


@dataclass
class Pixels:
    """Writes a convolution with output columns in the lanes."""

    b: Builder
    machine: Machine
    conv: Convolution
    x: Buffer
    w: Buffer
    out: Buffer

    def write(self) -> None:
        """Loop over parts and examples, and over the phases of each."""
        c = self.conv
        *more, self.filters = merged(c.filters) or (Axis(1),)
        self.channels = merged(c.channels)
        phases = [phases_of(w) for w in c.windows]
        self.image = Image(self.b, self.x, self.channels, c.windows, phases)
        self.walk = self.image.walk()

        def example(x: Index, w: Index, out: Index) -> None:
            at = self.image.read(x)
            for phase in itertools.product(*phases):
                over_axes(self.b, more, lambda _, dw, do, phase=phase: self._phase(phase, at, w + dw, out + do))

        over_axes(self.b, merged((*c.parts, *c.examples)), example)

    def _phase(self, phase: tuple[Phase, ...], at: Index, w: Index, out: Index) -> None:
        """All outputs of one phase of an example."""
        windows = self.conv.windows
        out = out + sum(p.first * v.to for p, v in zip(phase, windows, strict=True))
        self.to = [p.every * v.to for p, v in zip(phase, windows, strict=True)]
        lead = [Axis(p.count, s, 0, t) for p, s, t in zip(phase[:-2], self.walk, self.to, strict=False)]
        tiling = self._tiling(phase)
        for cut in cuts(self.filters.size, tiling.filters):
            for strip, down in itertools.product(tiling.strips, tiling.down):
                with self.b.loop(cut.count) as f, self.b.loop(down.count) as t, self.b.loop(strip.count) as u:
                    row, column = t * down.size + down.start, u * strip.size + strip.start
                    first = f * cut.size + cut.start
                    over_axes(self.b, lead, lambda x, _, o, cut=cut, strip=strip, down=down, f=first, r=row, c=column: (
                        self._tile(phase, strip, down.size, cut.size,
                                   at + x + r * self.walk[-2] + c * self.walk[-1],
                                   w + f * self.filters.y,
                                   out + o + f * self.filters.out + r * self.to[-2] + c * self.to[-1])))

    def _tiling(self, phase: tuple[Phase, ...]) -> Tiling:
        """The tiling that costs least."""
        lanes, registers = self.machine.lanes(self.out.kind), self.machine.registers - 1  # one for a mask
        choices = []
        for rows, most in itertools.product((1, 2, 3, 4), (1, 2, 3, 4)):
            if rows * most <= 4 and rows <= phase[-2].count:
                strips = strips_of(phase[-1].count, lanes, most)
                vectors = rows * max(len(s.starts) for s in strips)
                choices.append(Tiling(cuts(phase[-2].count, rows), strips, most_rows(vectors, registers)))
        return min(choices, key=lambda t: self._cost(t) * (1 + 0.03 * len(t.strips) * len(t.down)))

    def _cost(self, t: Tiling) -> float:
        """Cycles for one tap: two products and two loads begin in each, and a product takes four."""
        total = 0.0
        for f, strip, down in itertools.product(cuts(self.filters.size, t.filters), t.strips, t.down):
            vectors = down.size * len(strip.starts)
            total += f.count * strip.count * down.count * (max(f.size * vectors, f.size + vectors, 8) / 2 + 1)
        return total

    def _tile(self, phase, strip: Strip, rows: int, filters: int, at: Index, w: Index, out: Index) -> None:
        """Tiles at this position of the image, of the kernel and of the output."""
        offsets = [r * self.walk[-2] + s * self.walk[-1] for r in range(rows) for s in strip.starts]
        columns = [r * self.to[-2] + s * self.to[-1] for r in range(rows) for s in strip.starts]
        extents, along_w, along_x, taps = self._taps(phase, filters * len(offsets))
        left = Walk(self.w, w, [f * self.filters.y for f in range(filters)], along_w)
        right = Walk(self.image.buffer, at, offsets, along_x, self.walk[-1])
        put = store_tile(self.b, self.out, [out + f * self.filters.out for f in range(filters)], columns, self.to[-1],
                         False)
        tile(self.b, strip.width, extents, left, right, put, taps)

    def _taps(self, phase: tuple[Phase, ...], sums: int):
        """Loops over channels and leading kernel axes, with their steps in w and the image; and the taps inside."""
        windows, image = self.conv.windows, self.image
        extents, along_w = [c.size for c in self.channels], [c.y for c in self.channels]
        along_x = list(image.of_channels)
        axes = [p.taps for p in phase]
        for k in range(len(axes)):
            left = math.prod(len(a) for a in axes)
            if left * sums <= WRITTEN_OUT or len(axes[k]) < 2 or (k == len(axes) - 1 and self.image.steps[-1] > 1):
                continue
            (k0, s0), (k1, s1) = axes[k][:2]
            extents.append(len(axes[k]))
            along_w.append((k1 - k0) * windows[k].w)
            along_x.append((s1 - s0) * image.strides[k])
            axes[k] = axes[k][:1]
        taps = [(sum(k * v.w for (k, _), v in zip(tap, windows, strict=True)), image.offset([s for _, s in tap]))
                for tap in itertools.product(*axes)]
        return extents, along_w, along_x, taps


# --- filters in the lanes ---------------------------------------------------------------------------------------------


@dataclass
class Filters:
    """Writes a convolution with filters in the lanes: the outputs of an example are rows of tiles."""

    b: Builder
    machine: Machine
    conv: Convolution
    x: Buffer
    w: Buffer
    out: Buffer

    def write(self) -> None:
        """Loop over parts, blocks of channels, whose kernels are put in order, and examples."""
        c = self.conv
        *more, self.filters = merged(c.filters) or (Axis(1),)
        *others, channel = merged(c.channels) or (Axis(1),)
        self.places = list(itertools.product(*(range(v.out) for v in c.windows)))
        self.writes = [sum(t * v.to for t, v in zip(p, c.windows, strict=True)) for p in self.places]
        self.panels = panels_of(len(self.places), self.filters.size, self.out.kind, self.machine)
        self.inner = self._is_inner()
        blocks = even_cuts(channel.size, self._block(others))
        self.adds = sum(cut.count for cut in blocks) > 1
        if self.adds:
            self.b.fill(self.out, self.out.size)
        if not self.inner:
            sizes = (*(a.size for a in others), *(v.kernel for v in c.windows), self.filters.size)
            self.packed = self.b.scratch("packed", self.out.kind, max(cut.size for cut in blocks) * math.prod(sizes))
        for cut in blocks:
            channels = (*others, channel._replace(size=cut.size))
            image = Image(self.b, self.x, channels, c.windows, kernel_walks(c.windows))

            def part(x: Index, w: Index, out: Index, cut: Cut = cut, image: Image = image) -> None:
                over(self.b, cut, lambda k: self._part(image, x + k * channel.x, w + k * channel.y, out))

            over_axes(self.b, merged((*c.parts, *more)), part)

    def _is_inner(self) -> bool:
        """Whether kernel columns are in the lanes: each kernel element meets few outputs, and need not be copied."""
        last, outputs = self.conv.windows[-1], len(self.places) * math.prod(a.size for a in self.conv.examples)
        return outputs <= FEW_OUTPUTS and last.w == 1 and last.kernel >= self.machine.lanes(self.out.kind) // 2

    def _block(self, others: Sequence[Axis]) -> int:
        """How many channels the caches have room for."""
        size = ITEM_BYTES[self.out.kind] * math.prod(a.size for a in others)
        image = size * math.prod((v.kernel - 1) * v.kernel_dilation + (v.out - 1) * v.step + 1
                                 for v in self.conv.windows)
        kernel = size * math.prod(v.kernel for v in self.conv.windows) * self.filters.size
        return max(1, min(IMAGE_BYTES // image, KERNEL_BYTES // kernel))

    def _part(self, image: Image, x: Index, w: Index, out: Index) -> None:
        """All examples of a part, or what a block of channels adds to them."""
        windows = self.conv.windows
        self.reads = [image.offset([t * v.step - v.low for t, v in zip(p, windows, strict=True)]) for p in self.places]
        extents = [*(c.size for c in image.channels), *(v.kernel for v in windows)]
        kernel = Walk(self.w, w, (), [*(c.y for c in image.channels), *(v.w for v in windows)], self.filters.y)
        if not self.inner:
            pack(self.b, self.packed, kernel, extents, self.panels)

        def example(dx: Index, _: Index, to: Index) -> None:
            at = image.read(x + dx)
            if self.inner:
                self._inner_tiles(image, kernel, extents, at, out + to)
                return
            for panel in self.panels:
                self._tiles(image, panel, extents, at, out + to)

        over_axes(self.b, merged(self.conv.examples), example)

    def _tiles(self, image: Image, panel: Panels, extents: list[int], at: Index, out: Index) -> None:
        """The outputs of one example, for the filters of some panels."""
        columns = [v * panel.width * self.filters.out for v in range(panel.vectors)]
        for first, size in ((c.start + k * c.size, c.size) for c in panel.rows for k in range(c.count)):
            left = Walk(image.buffer, at, self.reads[first : first + size], [*image.of_channels, *image.walk()])
            with self.b.loop(panel.count) as i:
                filters = i * panel.size + panel.start
                rows = [out + filters * self.filters.out + to for to in self.writes[first : first + size]]
                tile(self.b, panel.width, extents, left, packed_walk(self.packed, panel, filters, extents),
                     store_tile(self.b, self.out, rows, columns, self.filters.out, self.adds))

    def _inner_tiles(self, image: Image, kernel: Walk, extents: list[int], at: Index, out: Index) -> None:
        """The outputs of one example, with kernel columns in the lanes."""
        step, registers = self.filters, self.machine.registers - 3  # masks and a number take the others
        vectors = max(1, min(registers // (min(len(self.places), ONE_TILE) + 1), self.filters.size))
        along = [*image.of_channels, *image.walk()]
        for part in cuts(len(self.places), most_rows(vectors, registers)):
            for first in range(part.start, part.start + part.count * part.size, part.size):
                left = Walk(image.buffer, at, self.reads[first : first + part.size], along[:-1], along[-1])
                for cut in cuts(step.size, vectors):
                    with self.b.loop(cut.count) as i:
                        f = i * cut.size + cut.start
                        right = Walk(self.w, kernel.at + f * step.y, [k * step.y for k in range(cut.size)],
                                     kernel.along[:-1], kernel.along[-1])
                        rows = [out + f * step.out + to for to in self.writes[first : first + part.size]]
                        columns = [k * step.out for k in range(cut.size)]
                        inner_tile(self.b, extents[-1], extents[:-1], left, right,
                                   store_tile(self.b, self.out, rows, columns, 0, self.adds))
