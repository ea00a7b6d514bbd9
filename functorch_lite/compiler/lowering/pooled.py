# SPDX-License-Identifier: MIT
"""Pooling at the end of a convolution: what goes over a block of values that a job has in working space.

    for each job of the convolution                       blocks of examples, of rows that begin where a window does
      the register tiles of the block                     sums stay in working space of the job
      for each row of windows
        for each column, over the rows of the windows     the epilogue of each value, and what is pooled down a column
        for each window, over its columns                 the result goes to memory

`schedule/pools.py` says where this is done. A block holds the values of whole windows: of `count` windows along an axis
it has `reach(count)`. Where windows overlap, neighbouring blocks both compute what they share, and so does an epilogue.
The convolution is one of more outputs where windows go over its edges; what is there is computed, too, and masked.

Values lie with filters in the lanes or with columns in the lanes, as the convolution leaves them. A sum adds the rows
of a column first, then the columns, in either way: how a convolution is cut changes no bit.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder, identity
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.epilogue import Epilogue, Span
from functorch_lite.compiler.lowering.product_tiles import Axis, merged, over_axes
from functorch_lite.compiler.lowering.prologue import wide_kind
from functorch_lite.compiler.lowering.rules import kind_of, layout, strides_of, words
from functorch_lite.compiler.lowering.sliding import Box, Numbers, Put, Slide, Windows
from functorch_lite.compiler.lowering.tail import tail_of
from functorch_lite.compiler.lowering.windows import COMBINES
from functorch_lite.compiler.schedule.fusion import Group, Schedule
from functorch_lite.core.program import Var


class Block(NamedTuple):
    """Values in working space: of windows `starts` .. `starts + counts` along each axis.

    at: in the convolution's output, that of the example and the first filter. sums, first, steps: where the values are,
    and how far apart along each axis.
    """

    at: Index
    starts: Sequence[Index]
    counts: Sequence[int]
    sums: Buffer
    first: Index
    steps: Sequence[int]


class Pooled(Epilogue):
    """Writes an epilogue, which may be nothing, and the pooling of its result into the kernel of a convolution."""

    slides: Sequence[Slide] = ()  # for each axis of the convolution

    def __init__(self, group: Group, schedule: Schedule, stored: list[Var]):
        super().__init__(group, schedule, [])
        assert group.pool is not None
        self.pool = group.pool
        self.made = self.pool.outputs[0]
        self.tail = tail_of(group, schedule, stored)
        self.results = stored
        self.operand = schedule.root(self.pool.inputs[0])
        self.combine = COMBINES[self.pool.prim]
        self.kind = kind_of(self.made.aval.dtype) or ""
        self.wide = wide_kind(self.made.aval.dtype) if self.combine == "add" else self.kind

    def key(self):
        known, rest = super().key()
        pool = self.pool.prim, *sorted(self.pool.params.items()), self.made.aval
        tail, others = (None, []) if self.tail is None else self.tail.key()
        if known is None or (self.tail is not None and tail is None):
            return None, [*rest, *others]
        return (known, pool, self.operand is self.product, tail), [*rest, *others]

    def takeovers(self, others, first):
        return []

    # --- the kernel -------------------------------------------------------------------------------------------------

    def begin(self, b: Builder) -> None:
        """Declare what the kernel reads and writes besides the operands of the convolution."""
        self.b, self.inputs = b, {}
        self.find_inputs()
        if self.tail is not None:
            self.tail.begin(b)
        result: Any = self.results[0].aval
        self.target = b.output("out0", *layout(result))
        self._find_levels()
        self._spaces: dict[tuple[str, int], Buffer] = {}
        shape = zip(strides_of(self.made.aval.shape), self.product.aval.shape, strict=True)
        self.made_strides = [s for s, n in shape if n != 1]

    def finish(self) -> None:
        """Nothing is left: blocks are all there is."""
        assert self.complete

    def fits(self, strides: Sequence[int]) -> bool:
        fits = super().fits(strides)
        if self.tail is not None:
            shape = self.made.aval.shape
            sizes = [n for n, m in zip(shape, self.product.aval.shape, strict=True) if m != 1]
            made = {self._made(s) for s, position, _ in self.runs if sizes[position] > 1}
            follows = self.tail.follows(sorted(made), words(self.made.aval))
            assert follows, "the axes of what is pooled are those of its tail"
        return fits

    # --- a block ----------------------------------------------------------------------------------------------------

    def by_columns(self, block: Block, filters: Span) -> None:
        """Pool a block in which columns lie side by side; filters.step: from one filter to the next."""
        with self.b.loop(filters.count) as f:
            one = block._replace(at=block.at + f * filters.stride, first=block.first + f * filters.step)
            self._windows(one, Span(0, 1), self._to_memory(one, Span(0, 1))).write()

    def by_filters(self, block: Block, filters: Span) -> None:
        """Pool a block in which filters lie side by side."""
        far = filters.count > 1 and self._made(filters.stride) != 1
        self._windows(block, filters, (self._to_space if far else self._to_memory)(block, filters)).write()
        if far:
            self._turn(block, filters)

    def _windows(self, block: Block, lanes: Span, put: Put) -> Windows:
        box = Box(self.b, self.combine, self.wide)
        return Windows(box, self.slides, block.counts, lanes.count, lambda where, lane: self._value(
            block, lanes, lane, where), put, self._space)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _value(self, block: Block, lanes: Span, lane: Index, where: Sequence[Index]) -> Value:
        """A value of the block after the epilogue; in the border, what changes nothing."""
        b, inside = self.b, None
        self._go(block.at, lanes, lane)
        self._sums, at = block.sums, block.first + lane * lanes.step
        for s, start, u, step in zip(self.slides, block.starts, where, block.steps, strict=True):
            at, place = at + u * step, start * s.stride + u - (s.low - s.first)
            if s.out > 1:
                self.move(place, s.to)
            if s.is_padded and s.border:
                here = b.op("lt", b.op("convert", b.value_of(place), kind="u64"), b.constant(s.out, "u64"))
                inside = here if inside is None else b.op("and", inside, here)
        self._at, self.stage, self.rows, self.pass_values = at, 0, {}, {}
        self._compute([self.operand], [])
        found = self._the_sum() if self.operand is self.product else self.value(self.operand)
        assert isinstance(found, Value)
        self.position = [ZERO] * len(self.position)
        found = b.op("convert", found, kind=self.wide)
        return found if inside is None else b.op("select", inside, found, b.constant(
            identity(self.combine, self.wide), self.wide))

    def _go(self, at: Index, lanes: Span, lane: Index) -> None:
        """Have the position be that of an example and a filter."""
        self.go_to(at)
        if lanes.count > 1:
            self.move(lane, lanes.stride)

    # --- writing ----------------------------------------------------------------------------------------------------

    def _made(self, stride: int) -> int:
        """How far apart in what is made are neighbours along an axis with this stride in the convolution's output."""
        position, steps = next((p, n) for s, p, n in self.runs if s == stride)
        return self.made_strides[position] * steps

    def _to_memory(self, block: Block, lanes: Span) -> Put:
        """How a result is written where it belongs."""

        def put(place: Sequence[Index], lane: Index, found: Numbers) -> None:
            at = self._place_of(block, lanes, lane, place)
            self.b.store(self.target, at, self._result(at, found))

        return put

    def _result(self, at: Index, found: Numbers) -> Value:
        """What is stored of a pooled value."""
        value = self.b.op("convert", found[0], kind=self.kind)
        return value if self.tail is None else self.tail.after(at, value)

    def _place_of(self, block: Block, lanes: Span, lane: Index, place: Sequence[Index] = ()) -> Index:
        """Where in what is made a window of a block is: the first, or that of a place."""
        self._go(block.at, lanes, lane)
        at = ZERO
        for i, stride in zip(self.position, self.made_strides, strict=True):
            at = at + i * stride
        self.position = [ZERO] * len(self.position)
        for start, s in zip(block.starts, self.slides, strict=True):
            at = at + start * s.made
        for q, s in zip(place, self.slides, strict=False):
            at = at + q * s.made
        return at

    def _to_space(self, block: Block, lanes: Span) -> Put:
        """How a result is written to working space, in order of windows, with filters inside."""
        space, steps = self._room(block, lanes), strides_of(block.counts)

        def put(place: Sequence[Index], lane: Index, found: Numbers) -> None:
            at = lane
            for q, step in zip(place, steps, strict=True):
                at = at + q * (step * lanes.count)
            self.b.store(space, at, self._result(self._place_of(block, lanes, lane, place), found))

        return put

    def _turn(self, block: Block, lanes: Span) -> None:
        """Write results from working space where they belong."""
        space, to = self._room(block, lanes), self._place_of(block, lanes, ZERO)
        axes = list(merged([Axis(n, 0, step, s.made) for n, step, s in zip(
            block.counts, strides_of(block.counts), self.slides, strict=True)]))
        run = axes.pop() if axes and axes[-1].out == 1 else Axis(1, 0, 1, 1)
        n, far = lanes.count, self._made(lanes.stride)
        over_axes(self.b, axes, lambda _, y, out: self.b.transpose(
            self.target, to + out, space, y * n, run.size, n, n, far))

    def _room(self, block: Block, lanes: Span) -> Buffer:
        return self._space("windows", self.target.kind, lanes.count * math.prod(block.counts))

    def _space(self, name: str, kind: str, size: int) -> Buffer:
        """Working space of a job."""
        found = self._spaces.get((name, size))
        if found is None:
            found = self._spaces[name, size] = self.b.workspace(f"{name}{len(self._spaces)}", kind, size)
        return found
