# SPDX-License-Identifier: MIT
"""Convolutions of many small examples: filters are in the lanes, outputs are the rows of a tile.

Lanes are full whatever the size of an example, and strides cost nothing, as inputs are read one by one. The kernel is
copied into panels first, once for all examples. The outputs of an example are put in order after they are computed,
which pays where each is a sum of many terms. Jobs that threads share are blocks of examples.
"""

import itertools
import math
from dataclasses import dataclass

from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, Index
from functorch_lite.compiler.lowering.convolution_image import (
    WRITTEN_OUT,
    Image,
    Phase,
    Way,
    over_blocks,
    pack_kernel,
    phases_of,
    whole,
)
from functorch_lite.compiler.lowering.product_tiles import Axis, merged, over_axes
from functorch_lite.compiler.lowering.rules import strides_of
from functorch_lite.compiler.lowering.tiles import (
    Cut,
    Panels,
    Walk,
    cuts,
    cycles,
    most_rows,
    panels_of,
    store_tile,
    tile,
)

FEW_ROWS = 8  # of a tile: its numbers and sums fit the registers where taps are written out
MOST_ROWS = 28  # outputs in the tiles of one unit
KERNEL_BYTES = 1 << 20  # of the panels, in a second-level cache
MANY_OUTPUTS = 64  # that a panel is read for, where not all panels stay in a cache
EXAMPLE_BYTES = 160 << 10  # of the images, and of the outputs, in working space
FAR = 15.0  # cycles to put a vector of outputs in order


@dataclass
class Unit:
    """The outputs whose tiles are written out: of `group` examples, `rows` rows and a cut of the columns of a phase.

    panels: of filters, with the cuts of these outputs in tiles.
    """

    phase: tuple[Phase, ...]
    group: int
    rows: int
    columns: Cut
    panels: list[Panels]

    @property
    def outputs(self) -> int:
        return self.group * self.rows * self.columns.size

    def cost(self, channels: int) -> float:
        """Cycles for an example."""
        taps = channels * math.prod(len(p.taps) for p in self.phase)
        once = sum(p.count * c.count * cycles(c.size, p.vectors) * taps
                   + p.count * c.count * c.size * p.vectors * FAR for p in self.panels for c in p.rows)
        times = math.prod(p.count for p in self.phase[:-1]) * self.columns.count
        return once * times / (self.group * self.rows)


@dataclass
class Outputs(Way):
    """Writes a convolution with filters in the lanes, whose kernel is copied once."""

    def __post_init__(self):
        super().__post_init__()
        c = self.conv
        *self.examples, self.example = merged(c.examples) or (Axis(1),)
        self.phases = [phases_of(w) for w in c.windows]
        depth = math.prod(a.size for a in self.channels) * math.prod(v.kernel for v in c.windows)
        self.packed_size = depth * self.filters.size
        self.group, self.units = self._units()
        self.held = self._held()

    def _units(self) -> tuple[int, list[Unit]]:
        """How many examples make a unit, and the units of all phases, that cost least."""
        small = math.prod(axis[0].count for axis in self.phases)
        groups = [k for k in range(1, max(MOST_ROWS // small, 1) + 1) if self.example.size % k == 0]
        found = [(k, [u for phase in itertools.product(*self.phases) for u in self._units_of(phase, k)])
                 for k in groups]
        for _, units in found:
            panels = self._panels(max(u.outputs for u in units))
            for u in units:
                u.panels = [self._recut(p, u.outputs) for p in panels]
        return min(found, key=lambda f: self._cost(f[1]))

    def _units_of(self, phase: tuple[Phase, ...], group: int) -> list[Unit]:
        """The units of a phase: some rows, or parts of the columns of one."""
        rows, columns = phase[-2].count, phase[-1].count
        most = max(MOST_ROWS // (columns * group), 1)
        height = max(k for k in range(1, min(most, rows) + 1) if rows % k == 0)
        parts = cuts(columns, MOST_ROWS // 2) if columns * group > MOST_ROWS else [Cut(0, 1, columns)]
        return [Unit(phase, group, height, cut, []) for cut in parts]

    def _panels(self, outputs: int) -> list[Panels]:
        return panels_of(outputs, self.filters.size, self.out.kind, self.machine)

    def _recut(self, panel: Panels, outputs: int) -> Panels:
        """The panel with tiles for so many outputs."""
        return panel._replace(rows=cuts(outputs, most_rows(panel.vectors, self.machine.registers)))

    def _cost(self, units: list[Unit]) -> float:
        channels = math.prod(a.size for a in self.channels)
        return sum(u.cost(channels) for u in units)

    def _held(self) -> int:
        """How many examples are in working space at once: more where each panel of the kernel is large."""
        item, e = ITEM_BYTES[self.out.kind], self.example.size
        room = EXAMPLE_BYTES // (item * max(self._image(), self._outputs()))
        most = 1 if self.packed_size * item <= KERNEL_BYTES else min(room, -(-MANY_OUTPUTS // self._places()))
        return max((k for k in range(self.group, most + 1, self.group) if e % k == 0), default=self.group)

    def _places(self) -> int:
        return math.prod(v.out for v in self.conv.windows)

    def _image(self) -> int:
        """About the numbers in the image of an example."""
        sizes = ((v.size - 1) + v.kernel * v.kernel_dilation for v in self.conv.windows)
        return math.prod(sizes) * math.prod(a.size for a in self.channels)

    def _outputs(self) -> int:
        """The outputs of an example."""
        return self._places() * self.filters.size

    def cost(self) -> float:
        """Cycles for an example."""
        copied = self.packed_size / math.prod(a.size for a in (*self.examples, self.example))
        return self._cost(self.units) + copied

    def fits(self) -> bool:
        """Whether the caches have room for the kernel, and for examples; a large one must be read for many outputs."""
        item = ITEM_BYTES[self.out.kind]
        few = self.packed_size * item > KERNEL_BYTES and self.held * self._places() < MANY_OUTPUTS // 2
        return not few and self.held * max(self._image(), self._outputs()) * item <= EXAMPLE_BYTES

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Loop over parts, whose kernels are copied, and examples, and the phases of each."""
        channels = (self.example._replace(size=self.held), *self.channels)
        self.image = Image(self.b, self.x, channels, self.conv.windows, self.phases, whole(self.phases), split=False)
        self.packed = self.b.scratch("packed", self.out.kind, self.packed_size)
        self.sums = self.b.scratch("sums", self.out.kind, self.held * self._outputs())
        over_axes(self.b, merged((*self.conv.parts, *self.more)), self._part)

    def _part(self, x: Index, w: Index, out: Index) -> None:
        windows, e = self.conv.windows, self.example
        kernel = Walk(self.w, w, (), [*(c.y for c in self.channels), *(v.w for v in windows)], self.filters.y)
        extents = [*(c.size for c in self.channels), *(v.kernel for v in windows)]
        pack_kernel(self.b, self.packed, kernel, extents, self.units[0].panels)
        held = e._replace(size=e.size // self.held, x=e.x * self.held, out=e.out * self.held)

        def examples(dx: Index, _: Index, to: Index) -> None:
            at = self.image.read(x + dx)
            for k, panel in enumerate(self.units[0].panels):
                with self.b.loop(panel.count) as i:
                    for unit in self.units:
                        self._unit(unit, unit.panels[k], i * panel.size + panel.start, at)
            self._put(out + to)

        def begin() -> None:
            self.image.clear()
            self.b.fill(self.sums, self.sums.size)  # a job reads nothing that it has not written: it has its own

        over_blocks(self.b, merged((*self.examples, held)), begin, examples)

    def _put(self, out: Index) -> None:
        """Write the outputs of some examples."""
        places, n = self._places(), self.filters.size
        with self.b.loop(self.held) as e:
            at, start = out + e * self.example.out, e * (places * n)
            if n == 1:
                self.b.copy(self.out, self.sums, places, at, start)
            else:
                self.b.transpose(self.out, at, self.sums, start, places, n, n, self.filters.out)

    def _unit(self, unit: Unit, panel: Panels, first: Index, at: Index) -> None:
        """All outputs that units of one sort are, for the filters of a panel from `first` on.

        They go to working space: those of an example in order, filters inside.
        """
        windows, walk, group = self.conv.windows, self.image.walk(), self.group
        phase, columns = unit.phase, unit.columns
        n, strides = self.filters.size, strides_of([v.out for v in windows])
        to = [p.every * n * stride for p, stride in zip(phase, strides, strict=True)]
        start = sum(p.first * n * stride for p, stride in zip(phase, strides, strict=True))
        counts = [self.held // group, *(p.count for p in phase[:-2]), phase[-2].count // unit.rows, columns.count]
        steps = [group, *([1] * (len(phase) - 2)), unit.rows, columns.size]
        walk, to = [self.image.of_channels[0], *walk], [self._outputs(), *to]
        axes = [Axis(n, k * s, 0, k * t) for n, k, s, t in zip(counts, steps, walk, to, strict=True)]
        places = list(itertools.product(range(group), range(unit.rows), range(columns.size)))
        reads = [e * walk[0] + r * walk[-2] + (columns.start + u) * walk[-1] for e, r, u in places]
        writes = [start + e * to[0] + r * to[-2] + (columns.start + u) * to[-1] for e, r, u in places]
        over_axes(self.b, [a for a in axes if a.size > 1],
                  lambda x, _, o: self._tiles(unit.phase, panel, first, at + x, o + first, reads, writes))

    def _tiles(
        self, phase: tuple[Phase, ...], panel: Panels, first: Index, at: Index, to: Index, reads: list[int],
        writes: list[int],
    ) -> None:
        """The tiles of one unit."""
        columns = [v * panel.width for v in range(panel.vectors)]
        kernel = first * (self.packed_size // self.filters.size)
        for start, size in ((c.start + k * c.size, c.size) for c in panel.rows for k in range(c.count)):
            extents, along_x, along_w, taps = self._steps(phase, panel, size)
            left = Walk(self.image.buffer, at, reads[start : start + size], along_x)
            rows = [to + o for o in writes[start : start + size]]
            tile(self.b, panel.width, extents, left, Walk(self.packed, kernel, columns, along_w, 1),
                 store_tile(self.b, self.sums, rows, columns, 1, False), taps)

    def _steps(self, phase: tuple[Phase, ...], panel: Panels, rows: int):
        """The loops over channels and kernel axes: extents, steps in the image and in a panel; the taps written out."""
        sizes = [*(c.size for c in self.channels), *(v.kernel for v in self.conv.windows)]
        strides = [panel.size * n for n in strides_of(sizes)]
        n = len(self.channels)
        extents, along_x, along_w = sizes[:n], list(self.image.of_channels[1:]), strides[:n]
        axes, written = [p.taps for p in phase], WRITTEN_OUT if rows <= FEW_ROWS else 0
        for k, (x, w) in enumerate(zip(self.image.strides, strides[n:], strict=True)):
            if len(axes[k]) == 1 or math.prod(map(len, axes[k:])) * rows * panel.vectors <= written:
                continue
            (k0, s0), (k1, s1) = axes[k][:2]
            extents.append(len(axes[k]))
            along_x.append((s1 - s0) * x)
            along_w.append((k1 - k0) * w)
            axes[k] = axes[k][:1]
        taps = [(self.image.offset([s for _, s in tap]), sum(k * w for (k, _), w in zip(tap, strides[n:], strict=True)))
                for tap in itertools.product(*axes)]
        return extents, along_x, along_w, taps
