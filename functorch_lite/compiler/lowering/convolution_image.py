# SPDX-License-Identifier: MIT
"""Which positions of its input a convolution reads, and one example of the input with its border in working space.

Along each spatial axis, the outputs that meet the input at the same places in its dilation are a phase: in phase r,
output t meets kernel element k at input position `t * step + shift[k]`. Without input dilation there is one phase.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.epilogue import Epilogue, Span
from functorch_lite.compiler.lowering.pooled import Block, Pooled
from functorch_lite.compiler.lowering.product_tiles import Axis, merged, over_axes
from functorch_lite.compiler.lowering.rules import strides_of
from functorch_lite.compiler.lowering.sliding import Slide
from functorch_lite.compiler.lowering.tiles import Cut, Machine, Panels, Walk, cuts, pack

WRITTEN_OUT = 400  # products: taps of no more are written out, else they are a loop
LEAST_RUN = 8  # elements of a filter that are worth a transpose
LEAST_COLUMNS = 128  # of a block of outputs along the last axis
FEWEST_WINDOWS = 7  # of a job, where they overlap, so that little is computed twice
JOBS = 16  # parts of the work that threads share, about
FETCHED_BYTES = 1 << 20  # of an array: what is larger is not in a second-level cache when it is needed


class Window(NamedTuple):
    """A spatial axis: sizes of x, the kernel and the output, their strides in elements, and the settings.

    w is negative where the kernel is read backwards.
    """

    size: int
    kernel: int
    out: int
    x: int
    w: int
    to: int
    step: int
    low: int
    dilation: int
    kernel_dilation: int


@dataclass(frozen=True)
class Axes:
    """The axes of a convolution in x, w and the output: `parts` are convolved apart, channels are added up."""

    parts: tuple[Axis, ...]
    examples: tuple[Axis, ...]
    filters: tuple[Axis, ...]
    channels: tuple[Axis, ...]
    windows: tuple[Window, ...]

    @property
    def kernel_start(self) -> int:
        """Where the first element of the kernel is: at an end of the axes along which it is read backwards."""
        return sum((v.kernel - 1) * -v.w for v in self.windows if v.w < 0)


@dataclass
class Way:
    """What every way to compute a convolution has.

    epilogue: goes over values when they are complete. pool: does, and pools them; `out` is then what is pooled.
    """

    b: Builder
    machine: Machine
    conv: Axes
    x: Buffer
    w: Buffer
    out: Buffer
    epilogue: Epilogue | None = None
    pool: Pooled | None = None

    def __post_init__(self):
        *self.more, self.filters = merged(self.conv.filters) or (Axis(1),)
        self.channels = merged(self.conv.channels)
        self.jobs = self.machine.cutting.wanted(JOBS)
        self.kind = self.out.kind if self.pool is None else self.x.kind

    def write(self) -> None:
        """Compute it."""
        raise NotImplementedError

    def end_with(self, epilogue: Epilogue) -> None:
        """Have an epilogue go over the values in `out`, if it can."""
        places = merged([Axis(v.out, 0, 0, v.to) for v in self.conv.windows])
        if not epilogue.adds and epilogue.fits(self._strides(places)):
            self.epilogue = epilogue

    @property
    def stored(self) -> float:
        """How many numbers go to memory for each output."""
        return 1.0 if self.pool is None else math.prod(s.count / s.values for s in self.pool.slides)

    def pool_with(self, pool: Pooled) -> None:
        """Have values pooled."""
        fits = pool.fits(self._strides([Axis(s.out, 0, 0, s.to) for s in pool.slides]))
        assert fits, "the axes of a convolution's output are those of its epilogue"

    def _strides(self, places: Sequence[Axis]) -> list[int]:
        c = self.conv
        strides = {a.out for a in (*c.parts, *c.examples, *self.more, self.filters, *places) if a.size > 1}
        return [*(strides - {1}), 1]

    def block(
        self, pool: Pooled, at: Index, starts: Sequence[Index], sizes: Sequence[int], sums: Buffer, first: Index,
        steps: Sequence[int],
    ) -> Block:
        """A block of so many values along each axis, the first of which are `starts`, as windows."""
        windows = [Index(t.constant // s.stride, tuple((v, n // s.stride) for v, n in t.terms))
                   for t, s in zip(starts or [ZERO] * len(sizes), pool.slides, strict=True)]
        counts = [s.count if n == s.values else (n - s.reach(1)) // s.stride + 1
                  for n, s in zip(sizes, pool.slides, strict=True)]
        return Block(at, windows, counts, sums, first, steps)

    def end(self, at: Index, filters: int, run: Axis) -> None:
        """Have the epilogue go over complete values: so many filters, for each a run of outputs."""
        if self.epilogue is not None:
            spans = Span(self.filters.out, filters), Span(run.out, run.size)
            self.epilogue.box(at, [s for s in spans if s.count > 1])

    def row_blocks(
        self, phases: Sequence[Sequence["Phase"]], wanted: int, fits: Callable[[list[list[Cut]]], bool]
    ) -> list[list[Cut]]:
        """How the outputs of each phase along each axis are cut: in `wanted` blocks at least, that fit.

        The last axis is cut where it is long and others are not enough. Pooled outputs are cut between windows.
        """
        blocks = whole(phases)
        for k, axis in enumerate(phases):
            slide = Slide(blocks[k][0].size) if self.pool is None else self.pool.slides[k]
            n, least = slide.count, 1 if k < len(phases) - 1 else -(-LEAST_COLUMNS // slide.stride)
            enough = least > 1 and wanted == 1 and fits(blocks)
            if enough or n < 2 * least or any(p.count != slide.values for p in axis):
                continue
            size = max(least, FEWEST_WINDOWS if slide.overlaps else 1, n // wanted)
            blocks[k] = _blocks_of(slide, size)
            while size > least and not fits(blocks):
                size = max(least, -(-size // 2))
                blocks[k] = _blocks_of(slide, size)
            wanted = -(-wanted // sum(cut.count for cut in blocks[k]))
        return blocks


class Phase(NamedTuple):
    """`count` outputs from `first` on, `every` apart: output t meets taps (k, shift) at position t * step + shift."""

    first: int
    count: int
    every: int
    step: int
    taps: tuple[tuple[int, int], ...]

    @property
    def last(self) -> int:
        return (self.count - 1) * self.step


def phases_of(w: Window) -> list[Phase]:
    """The phases of a spatial axis."""
    common = math.gcd(w.step, w.dilation)
    every, step = w.dilation // common, w.step // common
    found = []
    for first in range(min(every, w.out)):
        at = [(k, first * w.step + k * w.kernel_dilation - w.low) for k in range(w.kernel)]
        taps = tuple((k, p // w.dilation) for k, p in at if p % w.dilation == 0)
        found.append(Phase(first, -(-(w.out - first) // every), every, step, taps))
    return found


def kernel_walks(windows: Sequence[Window]) -> list[list[Phase]]:
    """The axes seen from an output: its taps are all outputs, and what it walks over is the kernel."""
    return [[Phase(0, v.kernel, 1, v.kernel_dilation, tuple((t, t * v.step - v.low) for t in range(v.out)))]
            for v in windows]


# --- jobs -----------------------------------------------------------------------------------------------------------


def divisor(n: int, most: int) -> int:
    """The largest divisor of n that is no more than `most` (at least 1)."""
    return next((k for k in range(max(min(n, most), 1), 1, -1) if n % k == 0), 1)


def even_blocks(n: int, most: int) -> list[Cut]:
    """n in blocks of no more than `most`: of one size where n has a divisor near it."""
    size = divisor(n, most)
    return [Cut(0, n // size, size)] if 2 * size > most else cuts(n, most)


def _blocks_of(slide: Slide, most: int) -> list[Cut]:
    """The outputs under windows, in blocks of at most so many windows."""
    return [Cut(c.start * slide.stride, c.count, slide.reach(c.size), c.size * slide.stride)
            for c in even_blocks(slide.count, most)]


def over_blocks(
    b: Builder, axes: Sequence[Axis], jobs: int, begin: Callable[[], None],
    body: Callable[[Index, Index, Index], None],
) -> None:
    """`over_axes`, in about so many blocks of the outermost axis that begin with `begin`: jobs that threads share."""
    if not axes:
        begin()
        body(ZERO, ZERO, ZERO)
        return
    first, *rest = axes
    size = divisor(first.size, -(-first.size // jobs))
    with b.loop(first.size // size) as block:
        begin()
        with b.loop(size) as k:
            i = block * size + k
            over_axes(b, rest, lambda x, y, out: body(x + i * first.x, y + i * first.y, out + i * first.out))


def extents_of(phases: Sequence[Sequence["Phase"]], sizes: Sequence[int]) -> list[int]:
    """The outputs along each axis of a block of so many of each phase."""
    return [sum(min(p.count, n) for p in axis) for axis, n in zip(phases, sizes, strict=True)]


def over_cuts(
    b: Builder, blocks: Sequence[Sequence[Cut]], begin: Callable[[], None],
    body: Callable[[tuple[Index, ...], tuple[int, ...]], None],
) -> None:
    """Run `begin` and the body for each block of an example, with its first outputs and its sizes along the axes."""

    def nest(axis: int, starts: tuple[Index, ...], sizes: tuple[int, ...]) -> None:
        if axis == len(blocks):
            begin()
            body(starts, sizes)
            return
        for cut in blocks[axis]:
            with b.loop(cut.count) as i:
                nest(axis + 1, (*starts, i * cut.every + cut.start), (*sizes, cut.size))

    nest(0, (), ())


def pack_kernel(b: Builder, packed: Buffer, kernel: Walk, extents: Sequence[int], panels: Sequence[Panels]) -> None:
    """`pack`, with filters as columns: by transposes where many elements of a filter lie in order."""
    run, rest = 1, len(extents)
    while rest and (extents[rest - 1] == 1 or kernel.along[rest - 1] == run):
        rest -= 1
        run *= extents[rest]
    if run < LEAST_RUN or kernel.step <= 1:
        pack(b, packed, kernel, extents, panels)
        return
    depth, sizes = math.prod(extents), extents[:rest]
    for p in panels:
        steps = [n * run * p.size for n in strides_of(sizes)]
        axes = [Axis(*a) for a in zip(sizes, kernel.along, [0] * rest, steps, strict=False)]
        with b.loop(p.count) as i:
            column = i * p.size + p.start
            over_axes(b, axes, lambda x, _, to, p=p, column=column: b.transpose(
                packed, column * depth + to, kernel.buffer, kernel.at + column * kernel.step + x, p.size, run,
                kernel.step, p.size))


# --- an example in working space --------------------------------------------------------------------------------------


class Side(NamedTuple):
    """The positions of one axis that an image holds: `turns` of each of `residues` modulo `step`, from `low` on.

    starts: the greatest number of the output that a block begins with; 0: the image holds all.
    """

    low: int
    size: int
    step: int
    residues: tuple[int, ...]
    turns: int
    starts: int

    @property
    def room(self) -> int:
        return len(self.residues) * self.turns

    def position(self, shift: int) -> int:
        """Where in the image the position is that output 0 of a block meets with this shift."""
        u = shift - self.low
        return self.residues.index(u % self.step) * self.turns + u // self.step


def side_of(axis: Sequence[Phase], block: Sequence[Cut], split: bool) -> Side:
    """The positions that a block of the outputs of each phase meets."""
    count = max(cut.size for cut in block)
    shifts = [(shift, (min(p.count, count) - 1) * p.step) for p in axis for _, shift in p.taps] or [(0, 0)]
    low, high = min(s for s, _ in shifts), max(s + last for s, last in shifts)
    step = axis[0].step if split else 1
    residues = tuple(sorted({(s - low) % step for s, _ in shifts}))
    starts = max(cut.start + (cut.count - 1) * cut.every for cut in block)
    return Side(low, high - low + 1, step, residues, -(-(high - low + 1) // step), starts)


def sides_of(phases: Sequence[Sequence[Phase]], blocks: Sequence[Sequence[Cut]], split: bool) -> list[Side]:
    """The positions of all axes. The last one is split by residues, others where taps do not meet them all."""
    found = []
    for k, (axis, block) in enumerate(zip(phases, blocks, strict=True)):
        side = side_of(axis, block, split)
        all_met = k < len(phases) - 1 and len(side.residues) == side.step
        found.append(side_of(axis, block, False) if all_met else side)
    return found


def whole(phases: Sequence[Sequence[Phase]]) -> list[list[Cut]]:
    """All outputs of each phase in one block."""
    return [[Cut(0, 1, max(p.count for p in axis))] for axis in phases]


class Image:
    """A block of one example with its border: the positions that taps reach, its channels in order.

    Where the last axis is walked in steps, its positions u are in the order (u % step, u // step), and only those
    residues are there that taps meet; if `split` is not set, they are in order, and channels that are the fastest axis
    of x are that of the image, too. blocks: how the outputs of each phase along each axis are cut; one of them is in
    the image. rows_outside: its rows are outside of all channels but the first, so that a tile reads in order.
    """

    def __init__(
        self, b: Builder, x: Buffer, channels: tuple[Axis, ...], windows: tuple[Window, ...],
        phases: Sequence[Sequence[Phase]], blocks: Sequence[Sequence[Cut]], split: bool = True,
        name: str = "image", rows_outside: bool = False,
    ):
        self.b, self.x, self.channels, self.windows = b, x, channels, windows
        self.steps = [axis[0].step for axis in phases]
        self.sides = sides_of(phases, blocks, split)
        self.inside = [s.low >= 0 and s.low + s.size + s.starts * step <= w.size
                       for s, step, w in zip(self.sides, self.steps, windows, strict=True)]
        self.direct = all(self.inside) and (not split or self.steps[-1] * windows[-1].x == 1)
        self.buffer = x
        if self.direct:
            self.strides = [w.x for w in windows]
            self.of_channels = [c.x for c in channels]
            return
        self.last = None if split or windows[-1].x == 1 else next(
            (k for k, c in enumerate(channels) if c.x == 1 and c.size > 1), None)
        shape = [*(1 if k == self.last else c.size for k, c in enumerate(channels)), *(s.room for s in self.sides)]
        fastest = 1 if self.last is None else channels[self.last].size
        order = list(range(len(shape)))
        if rows_outside:
            order[1:-1] = [*order[len(channels) : -1], *order[1 : len(channels)]]
        found = dict(zip(order, strides_of([shape[k] for k in order]), strict=True))
        strides = [found[k] * fastest for k in range(len(shape))]
        self.of_channels, self.strides = strides[: len(channels)], strides[len(channels) :]
        if self.last is not None:
            self.of_channels[self.last] = 1
        self.buffer = b.scratch(name, x.kind, math.prod(shape) * fastest)

    def clear(self) -> None:
        """Write zeros, of which those in the border stay."""
        if not self.direct:
            self.b.fill(self.buffer, self.buffer.size)

    def read(self, at: Index, starts: Sequence[Index] = ()) -> Index:
        """Where in `buffer` the example at this position of x is, after copying it if it must be.

        starts: the first outputs of the block; none: the image holds all.
        """
        starts = starts or [ZERO] * len(self.windows)
        if self.direct:
            for t, step, w in zip(starts, self.steps, self.windows, strict=True):
                at = at + t * (step * w.x)
            return at
        axes = [Axis(c.size, c.x, 0, s) for c, s in zip(self.channels, self.of_channels, strict=True)]
        over_axes(self.b, [a for k, a in enumerate(axes) if k != self.last],
                  lambda x, _, to: self._copy(0, at + x, to, starts, None))
        return ZERO

    def _copy(self, axis: int, x: Index, to: Index, starts: Sequence[Index], inside: Value | None) -> None:
        """Copy the positions along an axis; inside: whether those of the axes before are in x."""
        b, side, w, last = self.b, self.sides[axis], self.windows[axis], axis == len(self.windows) - 1
        for number, residue in enumerate(side.residues):
            first, end = self._turns(axis, residue)
            if end <= first:
                continue
            start = starts[axis] * self.steps[axis] + (first * side.step + residue + side.low)
            place = to + (number * side.turns + first) * self.strides[axis]
            if last and self.last is None:
                self._copy_run(end - first, x, place, start, inside)
                continue
            with b.loop(end - first) as i:
                at, there = self._clamped(axis, i * side.step + start, inside)
                here = place + i * self.strides[axis]
                if not last:
                    self._copy(axis + 1, x + at * w.x, here, starts, there)
                    continue
                assert self.last is not None
                with b.loop(self.channels[self.last].size, vector=True) as c:
                    self._move(x + at * w.x + c, here + c, there)

    def _copy_run(self, count: int, x: Index, to: Index, start: Index, inside: Value | None) -> None:
        """Copy so many positions along the last axis; if they may reach over an end, find out first whether they do."""
        b, side, w, stride = self.b, self.sides[-1], self.windows[-1], self.strides[-1]

        def run(first: Index) -> None:
            with b.loop(count, vector=True) as i:
                self._move(x + (i * side.step + first) * w.x, to + i * stride, inside)

        def clamped() -> None:
            with b.loop(count, vector=True) as i:
                at, there = self._clamped(len(self.windows) - 1, i * side.step + start, inside)
                self._move(x + at * w.x, to + i * stride, there)

        if not side.starts or self.inside[-1]:
            run(start)
            return
        first = b.value_of(start)
        low, high = b.constant(0, "i64"), b.constant(w.size - 1 - (count - 1) * side.step, "i64")
        b.branch(b.op("and", b.op("ge", first, low), b.op("le", first, high)), lambda: run(b.index_of(first)), clamped)

    def _move(self, source: Index, to: Index, there: Value | None) -> None:
        """Copy a number, or write zero where it is not there."""
        value = self.b.load(self.x, source)
        if there is not None:
            value = self.b.op("select", there, value, self.b.constant(0, value.kind))
        self.b.store(self.buffer, to, value)

    def _turns(self, axis: int, residue: int) -> tuple[int, int]:
        """The turns of a residue that are in x, if it is known, and in the image."""
        side, size = self.sides[axis], self.windows[axis].size
        room = -(-(side.size - residue) // side.step)
        if side.starts:
            return 0, room
        start = side.low + residue
        return max(0, -(start // side.step)), min(room, -(-(size - start) // side.step))

    def _clamped(self, axis: int, position: Index, inside: Value | None) -> tuple[Index, Value | None]:
        """A position moved into x where a block may reach over its ends, and whether it is in x."""
        if not self.sides[axis].starts or self.inside[axis]:
            return position, inside
        b, end = self.b, self.windows[axis].size - 1
        value = b.value_of(position)
        moved = b.op("min", b.op("max", value, b.constant(0, "i64")), b.constant(end, "i64"))
        here = b.op("eq", value, moved)
        return b.index_of(moved), here if inside is None else b.op("and", inside, here)

    def offset(self, shift: Sequence[int]) -> int:
        """Where a position is."""
        if self.direct:
            return sum(s * stride for s, stride in zip(shift, self.strides, strict=True))
        return sum(side.position(s) * stride for s, side, stride in zip(shift, self.sides, self.strides, strict=True))

    def between(self, axis: int, a: int, b: int) -> int | None:
        """How far apart two neighbouring taps read along an axis, if all neighbours do."""
        side = self.sides[axis]
        if self.direct or side.step == 1:
            return (b - a) * self.strides[axis]
        return (b - a) // side.step * self.strides[axis] if len(side.residues) == 1 else None

    def walk(self) -> list[int]:
        """How far apart neighbouring outputs of a phase read, along each axis."""
        steps = self.steps if self.direct else [n // s.step for n, s in zip(self.steps, self.sides, strict=True)]
        return [s * stride for s, stride in zip(steps, self.strides, strict=True)]
