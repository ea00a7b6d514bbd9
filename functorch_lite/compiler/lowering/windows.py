# SPDX-License-Identifier: MIT
"""Kernels of sliding windows: sums, extrema and their positions, and reading or adding at a position of each window.

The array is padded into working space where it must be, so that no tap needs a test. A sum or extremum over a large box
is taken one axis at a time. Axes over which nothing slides are merged, so that they are read as one contiguous run.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from functorch_lite.compiler.loop_ir.builder import Builder, identity
from functorch_lite.compiler.loop_ir.nodes import ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.indexing import copy_run
from functorch_lite.compiler.lowering.rules import Pair, is_complex, kernel_rules, linear
from functorch_lite.core import dtypes
from functorch_lite.primitives.windows import (
    reduce_window_max_p,
    reduce_window_min_p,
    reduce_window_sum_p,
    window_argmax_p,
    window_argmin_p,
    window_put_p,
    window_take_p,
)

UNROLLED = 16
"""Windows of up to this many elements are written out tap by tap."""
SEPARATED = 24
"""Windows of more elements than this are reduced axis by axis, if they slide over several."""

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


class Box(NamedTuple):
    """A reduction over windows: how it combines, in which kind, and what padding is."""

    b: Builder
    combine: str
    kind: str
    fill: Any

    def load(self, buffer: Buffer, at: Index) -> Value:
        """An element in the kind of the accumulator."""
        return self.b.op("convert", self.b.load(buffer, at), kind=self.kind)


def _register(prim, combine):
    def rule(b, inputs, outputs, **params):
        (x,), (out,) = inputs, outputs
        if not out.aval.size:
            return
        wide = "f32" if dtypes.accumulator(x.aval.dtype) != x.aval.dtype else x.kind
        box = Box(b, combine, wide if combine == "add" else x.kind, identity(combine, x.kind))
        axes = axes_of(x.shape, out.shape, **params)
        if is_complex(x.aval.dtype):  # a sum of pairs is two sums
            axes.append(Axis(2, 2, 1, 1, 0, 0, 1))
        source, axes = _padded(b, x.buffer, merged(axes), box.fill)
        _reduce_box(box, source, axes, out.buffer)

    kernel_rules.add(prim, rule)


_register(reduce_window_sum_p, "add")
_register(reduce_window_max_p, "max")
_register(reduce_window_min_p, "min")


def _padded(b: Builder, source: Buffer, axes: list[Axis], fill: Any) -> tuple[Buffer, list[Axis]]:
    """The array with its borders: itself if it has none."""
    if all(a.low == a.high == 0 for a in axes):
        return source, axes
    after = [a.padded for a in axes]
    shape, inner = [a.n for a in after], [max(a.n + min(a.low, 0) + min(a.high, 0), 0) for a in axes]
    target = b.workspace("padded", source.kind, max(math.prod(shape), 1))
    if any(a.low > 0 or a.high > 0 for a in axes):
        value = b.constant(fill, source.kind)
        with b.loop(target.size, vector=True) as i:
            b.store(target, i, value)

    def copy(index):
        to = linear([i + max(a.low, 0) for i, a in zip(index, axes[:-1], strict=True)] + [max(axes[-1].low, 0)], shape)
        frm = linear(
            [i + max(-a.low, 0) for i, a in zip(index, axes[:-1], strict=True)] + [max(-axes[-1].low, 0)],
            [a.n for a in axes],
        )
        copy_run(b, target, to, source, frm, inner[-1])

    if math.prod(inner):
        _nest(b, inner[:-1], copy, vector=False)
    return target, after


def _reduce_box(box: Box, source: Buffer, axes: list[Axis], out: Buffer) -> None:
    """Reduce all windows of a padded array: at once, or axis by axis if the window is large."""
    sliding = [k for k, a in enumerate(axes) if a.window > 1]
    if len(sliding) > 1 and math.prod(axes[k].window for k in sliding) > SEPARATED:
        for k in sliding[:-1]:
            only = [a if i == k else Axis(a.n, a.n, 1, 1, 0, 0, 1) for i, a in enumerate(axes)]
            target = box.b.workspace(f"over{k}", box.kind, math.prod(a.m for a in only))
            _reduce_windows(box, source, merged(only), target)
            source = target
            axes = [Axis(a.m, a.m, 1, 1, 0, 0, 1) if i == k else a for i, a in enumerate(axes)]
    _reduce_windows(box, source, axes, out)


def _reduce_windows(box, source, axes, out):
    *outer, last = axes or [Axis(1, 1, 1, 1, 0, 0, 1)]
    if last.window > 1 and any(a.window > 1 for a in outer):
        _reduce_by_rows(box, source, outer, last, out)
        return

    def body(position):
        def load(tap):
            return box.load(source, _tap_index(position, tap, axes))

        total = _over_taps(box, [a.window for a in axes], load)
        box.b.store(out, linear(position, [a.m for a in axes]), box.b.op("convert", total, kind=out.kind))

    _nest(box.b, [a.m for a in axes], body)


def _tap_index(position, tap, axes):
    """Where a tap of a window lies in the array."""
    index = [i * a.stride + t * a.dilation for i, t, a in zip(position, tap, axes, strict=True)]
    return linear(index, [a.n for a in axes])


def _reduce_by_rows(box, source, outer, last, out):
    """Reduce the rows of a row of windows into one, in contiguous vectors, then the windows along it."""
    b = box.b
    row = b.workspace(f"row_of_{out.name}", box.kind, last.n)

    def body(position):
        with b.loop(last.n, vector=True) as j:
            total = _over_taps(box, [a.window for a in outer], lambda tap: box.load(
                source, _tap_index(position, tap, outer) * last.n + j))
            b.store(row, j, total)
        with b.loop(last.m, vector=True) as i:
            total = _over_taps(box, [last.window], lambda tap: b.load(row, _tap_index([i], tap, [last])))
            at = linear([*position, i], [*(a.m for a in outer), last.m])
            b.store(out, at, b.op("convert", total, kind=out.kind))

    _nest(b, [a.m for a in outer], body, vector=False)


def _over_taps(box: Box, window: Sequence[int], load: Callable[[Sequence[Any]], Value]) -> Value:
    """The reduction over all taps of a window, written out or, if it is large, in loops."""
    b = box.b
    if math.prod(window) <= UNROLLED:
        first, *others = itertools.product(*map(range, window))
        total = load(first)
        for tap in others:
            total = b.op(box.combine, total, load(tap))
        return total

    def level(tap, total):
        if len(tap) == len(window):
            return b.op(box.combine, total, load(tap))
        return b.reduce(window[len(tap)], [total], lambda i, v: [level([*tap, i], v)])[0]

    return level([], b.constant(identity(box.combine, box.kind), box.kind))


# --- the position of a window's extremum ------------------------------------------------------------------------------


def _register_position(prim, better, combine):
    def rule(b, inputs, outputs, **params):
        (x,), (out,) = inputs, outputs
        if not out.aval.size:
            return
        axes = merged(axes_of(x.shape, out.shape, **params))
        source, axes = _padded(b, x.buffer, axes, identity(combine, x.kind))
        _nest(b, [a.m for a in axes], lambda position: _first_extreme(b, source, axes, position, better, out))

    kernel_rules.add(prim, rule)


_register_position(window_argmax_p, "gt", "max")
_register_position(window_argmin_p, "lt", "min")


def _first_extreme(b, source, axes, position, better, out):
    shape, window = [a.n for a in axes], [a.window for a in axes]

    def load(tap):
        where = zip(position, tap, axes, strict=True)
        return b.load(source, linear([i * a.stride + t * a.dilation for i, t, a in where], shape))

    def step(tap, best, number):
        here = load(tap)
        wins = b.op(better, here, best)
        if source.kind[0] in "fb":  # the first NaN wins over everything
            wins = b.op("or", wins, b.op("and", b.op("is_nan", here), b.op("not", b.op("is_nan", best))))
        return [b.op("select", wins, here, best), b.op("select", wins, b.value_of(linear(tap, window), "i32"), number)]

    def level(tap, *state):
        if len(tap) == len(axes):
            return step(tap, *state)
        return b.reduce(window[len(tap)], list(state), lambda i, *s: level([*tap, i], *s))

    state = [load([ZERO] * len(axes)), b.constant(0, "i32")]
    if math.prod(window) > UNROLLED:
        state = level([], *state)
    else:
        for tap in itertools.islice(itertools.product(*map(range, window)), 1, None):
            state = step([Index(t) for t in tap], *state)
    b.store(out.buffer, linear(position, [a.m for a in axes]), state[1])


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
    wide = dtypes.accumulator(out.aval.dtype) != out.aval.dtype
    sums = b.workspace("sums", "f32", max(out.aval.size, 1)) if wide else out.buffer
    b.fill(sums, out.buffer.size)
    if values.aval.size and out.aval.size:
        _add_at_taps(b, values, taps, sums, merged(axes_of(shape, values.shape, **params)))
    if wide and out.aval.size:
        with b.loop(out.aval.size, vector=True) as i:
            b.store(out.buffer, i, b.op("convert", b.load(sums, i), kind=out.kind))


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


__all__ = ["Axis", "axes_of", "merged"]
