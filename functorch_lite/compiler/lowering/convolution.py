# SPDX-License-Identifier: MIT
"""Convolutions: conv_general_dilated as kernels made of register tiles.

A convolution is, for each phase (see `convolution_image`), sums over channels and kernel elements ("taps") of numbers
at fixed offsets:

    out[o, t] = sum over c, k of  w[o, c, k] * image[c, t * step + shift[k]]

`image` is one example or some of its rows, copied into working space where it needs a border, with the columns of each
residue modulo `step` side by side where neighbouring outputs are read together. Ways to put it in registers:

    pixels    output columns are in the lanes, filters are the rows of a tile: for few filters, or few taps and channels
    outputs   filters are in the lanes, outputs are the rows of a tile
    filters   the same where the kernel is large, as in a kernel's gradient; or with few outputs kernel columns are in
              the lanes, and the kernel is read where it is
    parts     parts are in the lanes: depthwise convolutions whose channels are the fastest axis

Parts where they can be; pixels or outputs: whichever is estimated to cost less. Each way cuts its work in jobs that
have working space of their own, so that one loop, which threads can share, is around all of it. What follows a
convolution element by element goes over the values of a block while they are in the cache (`epilogue`); pixels and
outputs can also pool them there (`pooled`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import Buffer
from functorch_lite.compiler.lowering.contraction import Product, call_kernel
from functorch_lite.compiler.lowering.convolution_filters import Filters
from functorch_lite.compiler.lowering.convolution_image import LEAST_COLUMNS, Axes, Way, Window
from functorch_lite.compiler.lowering.convolution_outputs import Outputs
from functorch_lite.compiler.lowering.convolution_parts import Parts, PartSums, part_of
from functorch_lite.compiler.lowering.convolution_pixels import Pixels
from functorch_lite.compiler.lowering.epilogue import Epilogue
from functorch_lite.compiler.lowering.pooled import Pooled
from functorch_lite.compiler.lowering.product_tiles import Axis
from functorch_lite.compiler.lowering.program import ProgramLowering
from functorch_lite.compiler.lowering.prologue import Operand, in_memory
from functorch_lite.compiler.lowering.rules import step_rules, strides_of
from functorch_lite.compiler.lowering.sliding import Slide
from functorch_lite.compiler.lowering.tiles import Machine
from functorch_lite.core.program import Equation
from functorch_lite.primitives.convolution import conv_general_dilated_p

MEASURED = 1.15  # what pixels take more than estimated, in comparison with outputs
NO_WINDOW = Window(1, 1, 1, 1, 0, 0, 1, 0, 1, 1)
MOST_OUTPUTS = 128  # of a convolution whose outputs are written out


@dataclass(frozen=True)
class Convolution(Axes):
    """A convolution, told by its axes."""

    def doubled(self, batch: Axis, contracted: Axis) -> "Convolution":
        """The convolution with one more part axis and one more channel axis."""
        return Convolution((batch, *self.parts), self.examples, self.filters, (contracted, *self.channels),
                           self.windows)

    def swapped(self) -> "Convolution":
        """The same convolution with x and the kernel exchanged, which has its outputs in reverse order."""
        windows = tuple(
            v._replace(size=v.kernel, kernel=v.size, x=v.w, w=v.x, to=-v.to, low=(v.out - 1) * v.step - v.low,
                       dilation=v.kernel_dilation, kernel_dilation=v.dilation) for v in self.windows)
        parts, examples, filters, channels = (
            tuple(a._replace(x=a.y, y=a.x) for a in axes)
            for axes in (self.parts, self.filters, self.examples, self.channels))
        return Convolution(parts, examples, filters, channels, windows)

    def write(self, b: Builder, x: Operand, y: Operand, out: Buffer, machine: Machine) -> None:
        """Compute it, on buffers of one kind that is not half precision."""
        product = self._product()
        if product is not None:
            product.write(b, x, y, out, machine)
        else:
            self._way(b, x, y, out, machine).write()

    def write_with(self, b: Builder, x: Operand, y: Operand, machine: Machine, epilogue: Epilogue) -> None:
        """Compute it, and have an epilogue go over the values of each block if it can."""
        if isinstance(epilogue, Pooled):
            way = self._tiles(b, in_memory(b, x, "x_wide"), in_memory(b, y, "w_wide"), epilogue.target, machine,
                              epilogue)
            way.pool_with(epilogue)
            way.write()
            return
        product = self._product()
        if product is not None:
            product.write_with(b, x, y, machine, epilogue)
            return
        way = self._way(b, x, y, epilogue.sums, machine)
        if not isinstance(way, Filters | PartSums):
            way.end_with(epilogue)
        way.write()

    def _way(self, b: Builder, image: Operand, kernel: Operand, out: Buffer, machine: Machine) -> Way:
        """The way to compute it that is estimated to cost least."""
        x, y = in_memory(b, image, "x_wide"), in_memory(b, kernel, "w_wide")
        usual = machine._replace(cutting=machine.cutting._replace(short=False))  # where blocks of sums go by the tiles
        flipped = any(v.w < 0 for v in self.windows)
        part = part_of(self, out.kind, machine)
        if part is not None and not self._is_reduction() and part.out == 1:
            return Parts(b, usual, self, x, y, out)
        if part is not None and self._is_reduction() and part.y == 1 and all(v.dilation == 1 for v in self.windows):
            return PartSums(b, usual, self, x, y, out)
        if self._is_reduction() and not flipped and all(v.dilation == 1 for v in self.windows):
            return Filters(b, usual, self, x, y, out)
        if self._is_reduction() and not flipped and all(v.kernel_dilation == 1 for v in self.windows):
            start = sum((v.out - 1) * v.to for v in self.windows)
            return Filters(b, usual, self.swapped(), y, x, out, start=start)
        return self._tiles(b, x, y, out, machine, None)

    def _tiles(
        self, b: Builder, x: Buffer, y: Buffer, out: Buffer, machine: Machine, pool: Pooled | None
    ) -> Pixels | Outputs:
        """With columns or with filters in the lanes."""
        pixels = Pixels(b, machine, self, x, y, out, None, pool)
        outputs = Outputs(b, machine, self, x, y, out, None, pool)
        less = outputs.cost() < MEASURED * pixels.cost()
        return outputs if outputs.fits() and less != machine.cutting.lanes else pixels

    def _product(self) -> Product | None:
        """The matrix product that it is, if along each spatial axis there is one kernel element or one output."""
        if any(v.w < 0 for v in self.windows):
            return None
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
        return outputs < math.prod(v.kernel for v in self.windows) and outputs <= MOST_OUTPUTS


# --- the equation -----------------------------------------------------------------------------------------------------


@step_rules.register(conv_general_dilated_p)
def _(program: ProgramLowering, equation: Equation):
    x, w = (program.strided(a) for a in equation.inputs)
    shapes = equation.inputs[0].aval.shape, equation.inputs[1].aval.shape, equation.outputs[0].aval.shape
    slides = None
    if isinstance(program.fused, Pooled):
        slides = program.fused.slides = slides_of(program.fused.pool, equation.params.get("order"))
    call_kernel(program, equation, (x.place, w.place),
                convolution_of(*shapes, x.strides, w.strides, slides=slides, **equation.params))


def slides_of(pool: Equation, order: Sequence[int] | None) -> list[Slide]:
    """How the windows of a pooling slide along the axes of a convolution, whose output it reads."""
    out, made = pool.inputs[0].aval.shape, pool.outputs[0].aval.shape
    found = [Slide(1)] * (4 - len(out))
    for axis in range(2, len(out)):
        k = order.index(axis) if order else axis
        window, stride, (low, _), dilation = (pool.params[n][k] for n in ("window", "strides", "padding", "dilation"))
        found.append(Slide(made[k], window, stride, low, dilation, out[k], strides_of(out)[k], strides_of(made)[k]))
    last = found[-1]
    narrow = last.count < 2 * -(-LEAST_COLUMNS // last.stride) and last.window > 1  # it is not cut
    return [*found[:-1], last._replace(border=not (narrow and last.is_padded))]


def convolution_of(
    x_shape, w_shape, made_shape, x_strides, w_strides, *, strides, padding, lhs_dilation, rhs_dilation, groups,
    batch_groups, order=None, flipped=(), slides=None,
) -> Convolution:
    """The convolution that conv_general_dilated is, on operands with these shapes and element strides.

    slides: of windows over its output; it is then the convolution whose output is all that they meet.
    """
    order = order or range(len(x_shape))
    to = [strides_of(made_shape)[order.index(a)] for a in range(len(order))]
    out_shape = [made_shape[order.index(a)] for a in range(len(order))]
    parts = groups * batch_groups
    n, o, c = out_shape[0], w_shape[0] // parts, w_shape[1]
    apart = x_strides[0] * n if batch_groups > 1 else x_strides[1] * c
    windows = tuple(
        Window(x_shape[k], w_shape[k], out_shape[k], x_strides[k], w_strides[k] * (-1 if k in flipped else 1), to[k],
               strides[k - 2], padding[k - 2][0], lhs_dilation[k - 2], rhs_dilation[k - 2])
        for k in range(2, len(x_shape))
    )
    return Convolution(
        (Axis(parts, apart, w_strides[0] * o, to[1] * o),), (Axis(n, x_strides[0], 0, to[0]),),
        (Axis(o, 0, w_strides[0], to[1]),), (Axis(c, x_strides[1], w_strides[1]),),
        _flat(windows) if slides is None else _under(windows, slides),
    )


def _under(windows: tuple[Window, ...], slides: Sequence[Slide]) -> tuple[Window, ...]:
    """The windows of a convolution of all that sliding windows meet, beyond the edges of its output, too."""
    rows = zip((*[NO_WINDOW] * (2 - len(windows)), *windows), slides, strict=True)
    return tuple(w._replace(out=s.values, low=w.low + (s.low - s.first) * w.step) for w, s in rows)


def _flat(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """The windows with trailing axes that a kernel of one element only walks over made one; at least two."""
    found = list(windows)
    while len(found) > 1 and all(_is_plain(w) for w in found[-2:]):
        outer, inner = found[-2:]
        if outer.x != inner.x * inner.size:
            break
        found[-2:] = [inner._replace(size=outer.size * inner.size, out=outer.out * inner.out)]
    return (*[NO_WINDOW] * (2 - len(found)), *found)


def _is_plain(w: Window) -> bool:
    return w.kernel == w.step == w.dilation == 1 and w.low == 0 and w.size == w.out
