# SPDX-License-Identifier: MIT
"""Kernels of sliding windows: sums, extrema and their positions, and reading or adding at a position of each window.

Sums, extrema and positions go by rows of windows (`sliding`); derivatives add up, for each element, what the windows
over it give it (`window_sums`). Nothing is padded in memory: rows that lie in the border are masked. A sum or extremum
over a large box is taken one axis at a time. Axes over which nothing slides are merged, and read as one contiguous run.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.rules import Pair, is_complex, kernel_rules, linear, strides_of
from functorch_lite.compiler.lowering.sliding import Box, Position, Reduction, Slide, Windows
from functorch_lite.compiler.lowering.window_sums import MOST_TERMS, Sums, cells_of, terms_of
from functorch_lite.core import dtypes
from functorch_lite.core.primitive import Primitive
from functorch_lite.primitives.windows import (
    reduce_window_max_p,
    reduce_window_min_p,
    reduce_window_sum_p,
    window_argmax_p,
    window_argmin_p,
    window_put_p,
    window_spread_p,
    window_take_p,
)

SEPARATED = 24
"""Windows of more elements than this along leading axes are reduced axis by axis."""
ROW_BYTES = 24 << 10
"""Of a row between two passes: part of a first-level cache."""
COMBINES = {reduce_window_sum_p: "add", reduce_window_max_p: "max", reduce_window_min_p: "min"}

Ints = tuple[int, ...]


class Axis(NamedTuple):
    """How a window slides along one axis: n elements, m positions."""

    n: int
    m: int
    window: int
    stride: int
    low: int
    high: int
    dilation: int

    @property
    def slides(self) -> bool:
        return self != Axis(self.n, self.n, 1, 1, 0, 0, 1)

    @property
    def padded(self) -> "Axis":
        """The same axis after padding."""
        return self._replace(n=self.n + self.low + self.high, low=0, high=0)


def axes_of(shape: Ints, out: Ints, window: Ints, strides: Ints, padding: Any, dilation: Ints) -> list[Axis]:
    """The axes of a sliding window."""
    rows = zip(shape, out, window, strides, padding, dilation, strict=True)
    return [Axis(n, m, k, s, lo, hi, d) for n, m, k, s, (lo, hi), d in rows]


def merged(axes: Sequence[Axis]) -> list[Axis]:
    """The axes with neighbours over which nothing slides made one."""
    found: list[Axis] = []
    for axis in axes:
        if found and not axis.slides and not found[-1].slides:
            size = axis.n * found.pop().n
            axis = Axis(size, size, 1, 1, 0, 0, 1)
        found.append(axis)
    return found


def _of_lanes(axes: Sequence[Axis]) -> tuple[list[Axis], int, list[int]]:
    """The axes without the last one, if nothing slides over it; its size, or 1; and the windows of the others."""
    axes = list(axes) or [Axis(1, 1, 1, 1, 0, 0, 1)]
    lanes = axes.pop().n if len(axes) > 1 and not axes[-1].slides else 1
    return axes, lanes, [a.window for a in axes]


def _nest(b: Builder, extents: Sequence[int], body: Callable[[list[Index]], None], vector: bool = True) -> None:
    """Loops over all positions, the innermost in vectors."""

    def level(index):
        if len(index) == len(extents):
            body(index)
            return
        with b.loop(extents[len(index)], vector=vector and len(index) == len(extents) - 1) as i:
            level([*index, i])

    level([])


# --- sums and extrema -------------------------------------------------------------------------------------------------


class After(Protocol):
    """What is computed of each result before it is stored."""

    def follows(self, strides: Sequence[int], size: int) -> bool:
        """Whether it can go along axes with these strides in what is made, all it has."""
        ...

    def after(self, at: Index, value: Value) -> Value:
        """What is stored at a position, of the value there."""
        ...


def _register(prim):
    def rule(b, inputs, outputs, **params):
        (x,), (out,) = inputs, outputs
        if out.aval.size:
            write_pool(b, prim, x, out.shape, out.buffer, None, **params)

    kernel_rules.add(prim, rule)


for _prim in COMBINES:
    _register(_prim)


def write_pool(
    b: Builder, prim: Primitive, x: Any, shape: Ints, out: Buffer, tail: After | None, **params: Any
) -> None:
    """Write a sum, maximum or minimum over windows of an array; tail: goes over the results before they are stored."""
    combine, wide = COMBINES[prim], "f32" if dtypes.accumulator(x.aval.dtype) != x.aval.dtype else x.kind
    box = Box(b, combine, wide if combine == "add" else x.kind)
    axes = axes_of(x.shape, shape, **params)
    if is_complex(x.aval.dtype):  # a sum of pairs is two sums
        axes.append(Axis(2, 2, 1, 1, 0, 0, 1))
    together = merged(axes)
    if tail is not None and not _follows(tail, together):
        together = [a for a in axes if a.n != 1 or a.slides]
        assert _follows(tail, together)
    _reduce_box(box, x.buffer, together, out, tail, x.kind)


def _follows(tail: After, axes: Sequence[Axis]) -> bool:
    counts = [a.m for a in axes]
    return tail.follows([s for s, n in zip(strides_of(counts), counts, strict=True) if n > 1], math.prod(counts))


def _reduce_box(
    box: Box, source: Buffer, axes: list[Axis], out: Buffer, tail: After | None = None, kind: str = ""
) -> None:
    """Reduce all windows: at once, or axis by axis if they are large; kind: of what a tail goes over."""
    sliding = [k for k, a in enumerate(axes) if a.window > 1]
    if math.prod(axes[k].window for k in sliding[:-1]) > SEPARATED and len(sliding) > 2:
        for k in sliding[:-2]:
            only = [a if i == k else Axis(a.n, a.n, 1, 1, 0, 0, 1) for i, a in enumerate(axes)]
            target = box.b.workspace(f"over{k}", box.kind, math.prod(a.m for a in only))
            _over_windows(box, source, merged(only), target)
            source = target
            axes = [Axis(a.m, a.m, 1, 1, 0, 0, 1) if i == k else a for i, a in enumerate(axes)]
    after = None if tail is None else lambda at, value: tail.after(at, box.b.op("convert", value, kind=kind))
    _over_windows(box, source, axes if tail is not None else merged(axes), out, after=after)


def _over_windows(
    found: Reduction, source: Buffer, axes: list[Axis], out: Buffer, which: int = 0,
    after: Callable[[Index, Value], Value] | None = None,
) -> None:
    """Write one of the numbers that are found of all windows, with the columns of the last axis in the lanes.

    after: what is stored at a position, of the number there.
    """
    b, kind = found.b, found.kinds[0]
    if not source.size:
        with b.loop(out.size, vector=True) as i:
            b.store(out, i, b.op("convert", found.fill[which], kind=out.kind))
        return
    axes, lanes, _ = _of_lanes(axes)
    *outer, last = axes
    slides = [Slide(a.m, a.window, a.stride, a.low, a.dilation, a.n) for a in axes]
    most = max(ROW_BYTES // (ITEM_BYTES[kind] * lanes * last.stride), 1)
    several = lanes == 1 or any(a.window > 1 for a in outer)
    if several and last.m <= most + most // 4 and last.low >= 0:
        slides[-1] = slides[-1]._replace(border=not slides[-1].is_padded)
    shape = [*(a.m for a in axes), lanes]

    def value(where: Sequence[Index], lane: Index) -> Value:
        at, inside = ZERO, None
        for i, a in zip(where[:-1], outer, strict=True):
            place, inside = _clamped(b, i - a.low, a.n if a.low > 0 or a.high > 0 else 0, inside)
            at = at * a.n + place
        each = lanes if windows.flat else 1  # elements of a column
        column = where[-1] + (slides[-1].first - last.low) * each
        if slides[-1].border and slides[-1].is_padded:
            column, inside = _clamped(b, column, last.n * each, inside)
        here = at * (last.n * lanes) + column * (lanes // each) + lane
        read = b.op("convert", b.load(source, here), kind=kind)
        return read if inside is None else b.op("select", inside, read, found.fill[0])

    def put(place: Sequence[Index], lane: Index, numbers: Sequence[Value]) -> None:
        at, number = linear([*place, lane], shape), numbers[which]
        b.store(out, at, b.op("convert", number if after is None else after(at, number), kind=out.kind))

    windows = Windows(found, slides, shape[:-1], lanes, value, put, b.workspace, most=most)
    windows = windows._replace(flat=lanes > 1 and not windows.is_at_once)
    windows.write()


def _clamped(b: Builder, place: Index, n: int, inside: Value | None) -> tuple[Index, Value | None]:
    """A place moved into the n that there are, and whether it is one of them; n 0: it is."""
    if not n:
        return place, inside
    number = b.value_of(place)
    moved = b.op("min", b.op("max", number, b.constant(0, "i64")), b.constant(n - 1, "i64"))
    here = b.op("eq", number, moved)
    return b.index_of(moved), here if inside is None else b.op("and", inside, here)


# --- the position of a window's extremum ------------------------------------------------------------------------------


def _register_position(prim, combine):
    def rule(b, inputs, outputs, **params):
        (x,), (out,) = inputs, outputs
        if out.aval.size:
            axes = merged(axes_of(x.shape, out.shape, **params))
            *_, window = _of_lanes(axes)
            _over_windows(Position(b, combine, x.kind, window[-1]), x.buffer, axes, out.buffer, 1)

    kernel_rules.add(prim, rule)


_register_position(window_argmax_p, "max")
_register_position(window_argmin_p, "min")


# --- reading and adding at a tap of each window -----------------------------------------------------------------------


def _tapped(b: Builder, tap: Value, position: Sequence[Index], axes: Sequence[Axis]) -> tuple[Index, Value]:
    """Where in the unpadded array (clamped into it) tap number `tap` of a window is, and whether it is in the array."""
    number = b.op("convert", tap, kind="i64")
    window = [a.window for a in axes]
    inside = b.op("lt", b.op("convert", number, kind="u64"), b.constant(math.prod(window), "u64"))
    index: list[Index] = []
    for i, a in reversed(list(zip(position, axes, strict=True))):
        size = b.constant(a.window, "i64")
        t = b.op("rem", number, size) if a.window > 1 else b.constant(0, "i64")
        number = b.op("div", number, size) if a.window > 1 else number
        at = b.value_of(i * a.stride + b.index_of(t) * a.dilation - a.low)
        if a.slides:
            ok = b.op("lt", b.op("convert", at, kind="u64"), b.constant(a.n, "u64"))
            inside = b.op("and", inside, ok)
            at = b.op("select", ok, at, b.constant(0, "i64"))
            at = b.op("max", b.op("min", at, b.constant(a.n - 1, "i64")), b.constant(0, "i64"))
        index.append(b.index_of(at))
    return linear(index[::-1], [a.n for a in axes]), inside


@kernel_rules.register(window_take_p)
def _(b, inputs, outputs, **params):
    (x, taps), (out,) = inputs, outputs
    if not out.aval.size:
        return
    axes = merged(axes_of(x.shape, out.shape, **params))
    zero = b.constant(0, out.kind)

    def body(position):
        here = linear(position, [a.m for a in axes])
        if not x.aval.size:
            out.store(b, here, Pair(zero, zero) if is_complex(out.aval.dtype) else zero)
            return
        at, inside = _tapped(b, taps.load(b, here), position, axes)
        found = x.load(b, at)
        if isinstance(found, Pair):
            out.store(b, here, Pair(b.op("select", inside, found.real, zero), b.op("select", inside, found.imag, zero)))
        else:
            out.store(b, here, b.op("select", inside, found, zero))

    _nest(b, [a.m for a in axes], body)


@kernel_rules.register(window_put_p)
def _(b, inputs, outputs, *, shape, **params):
    (values, taps), (out,) = inputs, outputs
    axes = merged(axes_of(shape, values.shape, **params))
    if values.aval.size and out.aval.size and not is_complex(out.aval.dtype) and _sum_at_taps(
        b, values, taps, out, axes
    ):
        return
    wide = dtypes.accumulator(out.aval.dtype) != out.aval.dtype
    sums = b.workspace("sums", "f32", max(out.aval.size, 1)) if wide else out.buffer
    b.fill(sums, out.buffer.size)
    if values.aval.size and out.aval.size:
        _add_at_taps(b, values, taps, sums, axes)
    if wide and out.aval.size:
        with b.loop(out.aval.size, vector=True) as i:
            b.store(out.buffer, i, b.op("convert", b.load(sums, i), kind=out.kind))


def _sum_at_taps(b: Builder, values: Any, taps: Any, out: Any, axes: list[Axis]) -> bool:
    """Write, for each element, the values of the windows whose taps name it; False where that is too much code."""
    *_, window = _of_lanes(axes)

    def named(value: Value, at: Index, tap: Sequence[int]) -> Value:
        number = b.value_of(linear([Index(t) for t in tap], window), taps.kind)
        here = b.op("eq", taps.load(b, at), number)
        return b.op("select", here, value, b.constant(0, value.kind))

    return _sum_over_windows(b, values.buffer, out.buffer, axes, _sum_kind(out), named)


def _sum_kind(out: Any) -> str:
    return "f32" if dtypes.accumulator(out.aval.dtype) != out.aval.dtype else out.kind


def _sum_over_windows(
    b: Builder, values: Buffer, out: Buffer, axes: Sequence[Axis], kind: str,
    part: Callable[[Value, Index, Sequence[int]], Value],
) -> bool:
    """Write, for each element, the sum of what the windows over it give it; False where that is too much code.

    part: of a value, at a position, for an element of its window.
    """
    axes, lanes, _ = _of_lanes(axes)
    cells = [cells_of(a.n, a.m, a.window, a.stride, a.low, a.dilation) for a in axes]
    if terms_of(cells) > MOST_TERMS:
        return False
    counts, shape = [*(a.m for a in axes), lanes], [*(a.n for a in axes), lanes]

    def value(place: Sequence[Index], lane: Index, tap: Sequence[int]) -> Value:
        at = linear([*place, lane], counts)
        return part(b.op("convert", b.load(values, at), kind=kind), at, tap)

    def put(place: Sequence[Index], lane: Index, total: Value) -> None:
        b.store(out, linear([*place, lane], shape), b.op("convert", total, kind=out.kind))

    Sums(b, cells, [a.stride for a in axes], lanes, kind, value, put).write()
    return True


@kernel_rules.register(window_spread_p)
def _(b, inputs, outputs, *, shape, **params):
    (values,), (out,) = inputs, outputs
    axes = axes_of(shape, values.shape, **params)
    if is_complex(out.aval.dtype):
        axes.append(Axis(2, 2, 1, 1, 0, 0, 1))
    axes, kind = merged(axes), _sum_kind(out)
    if not out.aval.size or (values.aval.size and _sum_over_windows(
        b, values.buffer, out.buffer, axes, kind, lambda value, at, tap: value
    )):
        return
    sums = b.workspace("sums", kind, out.buffer.size) if kind != out.kind else out.buffer
    b.fill(sums, sums.size)
    if values.aval.size:
        _add_over_windows(b, values.buffer, sums, axes)
    if sums is not out.buffer:
        with b.loop(sums.size, vector=True) as i:
            b.store(out.buffer, i, b.op("convert", b.load(sums, i), kind=out.kind))


def _add_over_windows(b: Builder, values: Buffer, sums: Buffer, axes: Sequence[Axis]) -> None:
    """Add each window's value to all of its elements, those beside one another at once."""
    axes, lanes, window = _of_lanes(axes)
    last = axes[-1]
    apart = lanes == 1 and last.low <= 0 and last.high <= 0

    def element(place: Sequence[Index], tap: Sequence[Index], lane: Index) -> None:
        at, inside = ZERO, None
        for i, t, a in zip(place, tap, axes, strict=True):
            here = i * a.stride + t * a.dilation - a.low
            here, inside = _clamped(b, here, a.n if a.low > 0 or a.high > 0 else 0, inside)
            at = at * a.n + here
        value = b.op("convert", b.load(values, linear([*place, lane], [*(a.m for a in axes), lanes])), kind=sums.kind)
        if inside is not None:
            value = b.op("select", inside, value, b.constant(0, value.kind))
        at = at * lanes + lane
        b.store(sums, at, b.op("add", b.load(sums, at), value))

    def elements(place: list[Index]) -> None:
        if lanes > 1:
            _nest(b, [*window, lanes], lambda tap: element(place, tap[:-1], tap[-1]))
        else:
            _nest(b, window, lambda tap: element(place, tap, ZERO), vector=apart)

    _nest(b, [a.m for a in axes], elements, vector=False)


def _add_at_taps(b, values, taps, sums, axes):
    """One after the other, or in vectors where no two windows along the last axis share an element (or lack one)."""
    last = axes[-1] if axes else Axis(1, 1, 1, 1, 0, 0, 1)
    apart = (last.window - 1) * last.dilation < last.stride and last.low <= 0 and last.high <= 0
    each = 2 if is_complex(values.aval.dtype) else 1

    def body(position):
        here = linear(position, [a.m for a in axes])
        at, inside = _tapped(b, taps.load(b, here), position, axes)
        found = values.load(b, here)
        for k, v in enumerate(found if isinstance(found, Pair) else (found,)):
            v = b.op("select", inside, v, b.constant(0, v.kind))
            to = at * each + k
            b.store(sums, to, b.op("add", b.load(sums, to), b.op("convert", v, kind=sums.kind)))

    _nest(b, [a.m for a in axes], body, vector=apart)


__all__ = ["COMBINES", "Axis", "axes_of", "merged"]
