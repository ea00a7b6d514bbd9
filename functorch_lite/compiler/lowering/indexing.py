# SPDX-License-Identifier: MIT
"""Kernels of the indexing family: gather, scatter, run-time slices and row permutations.

Rows are copied or combined whole, in vectors; where a row goes is a scalar found from the index arrays. Threads share
long gathers by rows, and scatters of many long rows by columns: each goes through all indices in order, so what meets
in one place is combined in the order it has. A kernel whose mode is "raise" looks at all indices before it writes
anything, and leaves with status `OUT_OF_RANGE` if one is out of range: the caller then runs the equation by its eval
rule, which raises the error that names the index.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ITEM_BYTES, ZERO, Buffer, Index, Value
from functorch_lite.compiler.lowering.rules import (
    Element,
    Operand,
    Pair,
    Point,
    is_complex,
    kernel_rules,
    load_element,
    movement_rules,
    store_element,
    strides_of,
)
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.primitives.blocks import dynamic_slice_p, dynamic_update_slice_p
from functorch_lite.primitives.indexing import gather_p, scatter_p, scatter_reduce_p
from functorch_lite.primitives.matrix import permute_rows_p

OUT_OF_RANGE = 1
"""The status of a kernel that found an index out of range in mode "raise": the eval rule tells the user which."""

MOST_PARTS = 8
PART_BYTES = 512
"""Of a row that a thread scatters at least: rows begin anywhere in a cache line, so two threads write the line between
two parts. Measured on two cores: rows of 1 KB take 0.8 of the time in parts, rows of 3 KB 0.65; shorter ones gain
nothing."""
LONG_BYTES = 1 << 20
"""What threads copy together, and of updates what they scatter together."""
_DROPPING = ("fill", "zero")
_COMBINE = {"add": "add", "multiply": "mul", "min": "min", "max": "max"}


def words_each(dtype: Any) -> int:
    """How many loop IR elements one element of this dtype is."""
    return 2 if is_complex(dtype) else 1


# --- positions from index arrays --------------------------------------------------------------------------------------


def refuse_outside(b: Builder, indices: Sequence[Operand], sizes: Sequence[int]) -> None:
    """Leave with `OUT_OF_RANGE` if an index is not in [-n, n) of its axis."""

    def look(i, so_far):
        found = b.constant(False, "bool")
        for index, n in zip(indices, sizes, strict=True):
            v = b.op("convert", index.load(b, i), kind="i64")
            shifted = b.op("convert", b.op("add", v, b.constant(n, "i64")), kind="u64")
            found = b.op("or", found, b.op("ge", shifted, b.constant(2 * n, "u64")))
        return [b.op("or", so_far, found)]

    count = indices[0].aval.size
    bad = b.reduce(count, [b.constant(False, "bool")], look, combine=["or"], vector=True)[0]
    b.branch(bad, lambda: b.exit(OUT_OF_RANGE))


def resolve(b: Builder, index: Value, n: int, mode: str) -> tuple[Value, Value | None]:
    """An index of an axis of size n >= 1 as an i64 in [0, n), and whether it was in range (None: known to be)."""
    v = b.op("convert", index, kind="i64")
    zero, size = b.constant(0, "i64"), b.constant(n, "i64")
    if mode in ("clip", "unchecked"):
        return b.op("min", b.op("max", v, zero), b.constant(n - 1, "i64")), None
    if mode == "wrap":
        v = b.op("rem", v, size)
    v = b.op("select", b.op("lt", v, zero), b.op("add", v, size), v)
    if mode not in _DROPPING:
        return v, None
    inside = b.op("lt", b.op("convert", v, kind="u64"), b.constant(n, "u64"))
    return b.op("select", inside, v, zero), inside


def place(
    b: Builder, indices: Sequence[Operand], i: Index, sizes: Sequence[int], row: int, mode: str
) -> tuple[Index, Value | None]:
    """Where the row that entry i of the index arrays names begins (rows have `row` words), and whether it exists."""
    at, all_inside = ZERO, None
    for index, n, stride in zip(indices, sizes, strides_of(sizes), strict=True):
        v, inside = resolve(b, index.load(b, i), n, mode)
        at = at + b.index_of(v) * (stride * row)
        if inside is not None:
            all_inside = inside if all_inside is None else b.op("and", all_inside, inside)
    return at, all_inside


def copy_run(b: Builder, target: Buffer, at: Index, source: Buffer, start: Index, count: int) -> None:
    """`count` contiguous words from one buffer to another."""
    if count == 1:
        b.store(target, at, b.load(source, start))
    else:
        b.copy(target, source, count, at, start)


def copy_whole(b: Builder, target: Buffer, source: Buffer) -> None:
    """A whole buffer into another of its size, which may lie where it does; by a loop, which threads share, if long."""
    if source.nbytes < LONG_BYTES:
        b.copy(target, source, source.size)
        return
    with b.loop(source.size, vector=True) as i:
        b.store(target, i, b.load(source, i))


# --- gather -----------------------------------------------------------------------------------------------------------


@kernel_rules.register(gather_p)
def _(b, inputs, outputs, *, mode, lead=0):
    (x, *indices), (out,) = inputs, outputs
    sizes, count = x.shape[lead : lead + len(indices)], indices[0].aval.size
    if not count:
        return
    if mode == "raise":
        refuse_outside(b, indices, sizes)
    if 0 in sizes:
        _gather_from_nothing(b, out, mode)
        return
    width = math.prod(x.shape[lead + len(indices) :]) * words_each(x.aval.dtype)
    first = math.prod(x.shape[:lead])
    if not width * first:
        return
    gather = _gather_elements if width == 1 else _gather_rows
    if first == 1:
        gather(b, x, indices, out, ZERO, ZERO, sizes, width, mode)
        return
    with b.loop(first) as k:
        gather(b, x, indices, out, k * (math.prod(sizes) * width), k * (count * width), sizes, width, mode)


def _looked_up(at: Point, reads: Sequence[Callable[..., Element]], index: Sequence[Index], *, mode: str, lead: int = 0):
    """The element that a gather reads, where the schedule has it read by who needs it."""
    read, *indices = reads
    sizes, s = at.avals[0].shape[lead:], len(at.avals[1].shape)
    where, places, all_inside = index[lead : lead + s], [], None
    for number, n in zip(indices, sizes, strict=False):
        found = number(where)
        assert isinstance(found, Value)
        place, inside = resolve(at.b, found, n, mode)
        places.append(at.b.index_of(place))
        if inside is not None:
            all_inside = inside if all_inside is None else at.op("and", all_inside, inside)
    element = read([*index[:lead], *places, *index[lead + s :]])
    if all_inside is None:
        return element
    nan = mode == "fill" and dtypes.is_inexact(at.out.dtype)
    fill, zero = at.constant(np.nan if nan else 0), at.constant(0)
    return at.select(all_inside, element, Pair(fill, zero) if isinstance(element, Pair) else fill)


movement_rules.add(gather_p, _looked_up)


def _gather_from_nothing(b, out, mode):
    if mode in _DROPPING:
        _store_fill(b, out, ZERO, out.aval.size, mode)
    else:
        b.exit(OUT_OF_RANGE)


def _gather_elements(b, x, indices, out, start, to, sizes, width, mode):
    fill = _fill_value(b, out, mode)
    with b.loop(indices[0].aval.size, vector=True) as i:
        at, inside = place(b, indices, i, sizes, width, mode)
        found = b.load(x.buffer, start + at)
        b.store(out.buffer, to + i, found if inside is None else b.op("select", inside, found, fill))


def _gather_rows(b, x, indices, out, start, to, sizes, width, mode):
    each = words_each(x.aval.dtype)
    with b.loop(indices[0].aval.size) as i:
        at, inside = place(b, indices, i, sizes, width, mode)

        def copy(i=i, at=at):
            copy_run(b, out.buffer, to + i * width, x.buffer, start + at, width)

        if inside is None:
            copy()
        else:
            b.branch(inside, copy, lambda i=i: _store_fill(b, out, _elements(to, each) + i * (width // each),
                                                           width // each, mode))


def _elements(words: Index, each: int) -> Index:
    """A place in words of so many an element, in elements."""
    return Index(words.constant // each, tuple((v, c // each) for v, c in words.terms))


def _store_fill(b, out, at, count, mode):
    value = _fill_value(b, out, mode)
    if count:
        with b.loop(count, vector=True) as j:
            out.store(b, at + j, Pair(value, b.constant(0, out.kind)) if is_complex(out.aval.dtype) else value)


def _fill_value(b, out, mode):
    nan = mode == "fill" and dtypes.is_inexact(out.aval.dtype)
    return b.constant(np.nan if nan else 0, out.kind)


# --- scatter ----------------------------------------------------------------------------------------------------------


@kernel_rules.register(scatter_p)
@kernel_rules.register(scatter_reduce_p)
def _(b, inputs, outputs, *, combine, mode):
    (x, updates, *indices), (out,) = inputs, outputs
    if combine in ("add", "multiply") and dtypes.accumulator(out.aval.dtype) != out.aval.dtype:
        _scatter_wide(b, x, updates, indices, out, combine, mode)
        return
    copy_whole(b, out.buffer, x.buffer)
    scatter_into(b, out, updates, indices, combine=combine, mode=mode)


def _scatter_wide(b, x, updates, indices, out, combine, mode):
    """16-bit floats are accumulated in float32 and rounded once."""
    aval = Aval(x.shape, dtypes.accumulator(x.aval.dtype))
    wide = Operand(b.scratch("wide", "f32", aval.size), aval)
    _convert_all(b, wide.buffer, x.buffer)
    scatter_into(b, wide, updates, indices, combine=combine, mode=mode)
    _convert_all(b, out.buffer, wide.buffer)


def _convert_all(b, target, source):
    if target.size:
        with b.loop(target.size, vector=True) as i:
            b.store(target, i, b.op("convert", b.load(source, i), kind=target.kind))


def scatter_into(
    b: Builder, target: Operand, updates: Operand, indices: Sequence[Operand], *, combine: str, mode: str
) -> None:
    """Put or combine the rows of `updates` into `target`, in order: of several for one place, "set" keeps the last.

    target may be wider than the updates, which are converted. In mode "raise" nothing is written if an index is out.
    """
    sizes, count = target.shape[: len(indices)], indices[0].aval.size
    if not count:
        return
    if mode == "raise":
        refuse_outside(b, indices, sizes)
    width = math.prod(target.shape[len(indices) :])
    if 0 in sizes:
        if mode not in _DROPPING:
            b.exit(OUT_OF_RANGE)
        return
    if width:
        _scatter_rows(b, target, updates, indices, sizes, width, combine, mode)


def _scatter_rows(b, target, updates, indices, sizes, width, combine, mode):
    dtype = target.aval.dtype
    if combine in ("set", "add"):  # component by component: complex rows are real ones of twice the length
        width, dtype = width * words_each(dtype), None
    rows = indices[0].aval.size
    columns = width // parts_of_rows(rows, width, ITEM_BYTES[target.kind] * words_each(dtype or np.dtype(bool)))
    with b.loop(width // columns) as k, b.loop(rows) as i:
        at, inside = place(b, indices, i, sizes, width, mode)
        at, start = at + k * columns, i * width + k * columns

        def update(at=at, start=start):
            if combine == "set":
                copy_run(b, target.buffer, at, updates.buffer, start, columns)
            else:
                _combine_row(b, target.buffer, updates.buffer, at, start, columns, combine, dtype)

        if inside is None:
            update()
        else:
            b.branch(inside, update)


def parts_of_rows(rows: int, width: int, item_bytes: int) -> int:
    """In how many equal parts rows are scattered, one after the other or by threads: 1 where that does not pay."""
    parts = MOST_PARTS if rows * width * item_bytes >= LONG_BYTES else 1
    while parts > 1 and (width % parts or width * item_bytes < parts * PART_BYTES):
        parts //= 2
    return parts


def _combine_row(b, target, updates, at, start, width, combine, dtype):
    """dtype: what the words stand for, None for real words."""
    dtype = np.dtype(bool) if dtype is None else dtype
    with b.loop(width, vector=True) as j:
        new = load_element(b, updates, start + j, dtype)
        if not isinstance(new, Pair):
            new = b.op("convert", new, kind=target.kind)
        old = load_element(b, target, at + j, dtype)
        store_element(b, target, at + j, combined(b, combine, old, new))


def combined(b: Builder, combine: str, old: Element, new: Element) -> Element:
    """Two elements combined: "add", "multiply", "min" or "max", as NumPy's ufuncs (NaN wins an extremum)."""
    if not isinstance(old, Pair):
        return b.op(_COMBINE[combine], old, new)
    if combine == "add":
        return Pair(b.op("add", old.real, new.real), b.op("add", old.imag, new.imag))
    if combine == "multiply":
        return complex_product(b, old, new)
    return _complex_extreme(b, "gt" if combine == "max" else "lt", old, new)


def complex_product(b: Builder, x: Pair, y: Pair) -> Pair:
    """(a + bi)(c + di) = (ac - bd) + (ad + bc)i."""
    real = b.op("sub", b.op("mul", x.real, y.real), b.op("mul", x.imag, y.imag))
    return Pair(real, b.op("add", b.op("mul", x.real, y.imag), b.op("mul", x.imag, y.real)))


def _complex_extreme(b, better, x, y):
    """NumPy's: by the real part, then the imaginary one; the first operand if it has a NaN."""
    x_nan = b.op("or", b.op("is_nan", x.real), b.op("is_nan", x.imag))
    imag_nan = b.op("or", b.op("is_nan", x.imag), b.op("is_nan", y.imag))
    first = b.op("and", b.op(better, x.real, y.real), b.op("not", imag_nan))
    tie = b.op("and", b.op("eq", x.real, y.real), b.op(better.replace("t", "e"), x.imag, y.imag))
    keep = b.op("or", x_nan, b.op("or", first, tie))
    return Pair(b.op("select", keep, x.real, y.real), b.op("select", keep, x.imag, y.imag))


# --- blocks at run-time positions -------------------------------------------------------------------------------------


def _block_start(
    b: Builder, starts: Sequence[Operand], k: Index, shape: Sequence[int], sizes: Sequence[int]
) -> Index:
    """The position of block k's first element in an array of `shape`, its starts clamped so that the block fits."""
    at = ZERO
    for start, n, m, stride in zip(starts, shape, sizes, strides_of(shape), strict=True):
        if n == m:
            continue
        v = start.load(b, k)
        if v.kind == "u64":
            v = b.op("min", v, b.constant(n - m, "u64"))
        v = b.op("max", b.op("convert", v, kind="i64"), b.constant(0, "i64"))
        at = at + b.index_of(b.op("min", v, b.constant(n - m, "i64"))) * stride
    return at


class _Side(NamedTuple):
    """Where a block lies: in an array of `shape` that is in the buffer, from a position on, all in elements."""

    buffer: Buffer
    shape: Sequence[int]
    at: Index


def _copy_block(b: Builder, target: _Side, source: _Side, sizes: Sequence[int], each: int) -> None:
    """A block from one array into another. each: the words of an element."""
    axes, run = len(sizes), 1
    while axes and (axes == len(sizes) or sizes[axes] == target.shape[axes] == source.shape[axes]):
        axes -= 1
        run *= sizes[axes]
    run *= each
    strides = [strides_of(side.shape) for side in (target, source)]

    def nest(axis, to, frm):
        if axis == axes:
            copy_run(b, target.buffer, to, source.buffer, frm, run)
            return
        with b.loop(sizes[axis], vector=run == 1 and axis == axes - 1) as i:
            nest(axis + 1, to + i * (strides[0][axis] * each), frm + i * (strides[1][axis] * each))

    nest(0, target.at * each, source.at * each)


def _blocks(b: Builder, starts: Sequence[Operand], whole: Operand, part: Operand, into: bool) -> None:
    """Copy blocks of `whole` to `part`, or the other way `into` it."""
    lead = len(starts[0].shape) if starts else 0
    shape, sizes = whole.shape[lead:], part.shape[lead:]
    if not part.aval.size:
        return
    with b.loop(math.prod(part.shape[:lead])) as k:
        at = _block_start(b, starts, k, shape, sizes) + k * math.prod(shape)
        sides = _Side(whole.buffer, shape, at), _Side(part.buffer, sizes, k * math.prod(sizes))
        target, source = sides if into else sides[::-1]
        _copy_block(b, target, source, sizes, words_each(part.aval.dtype))


@kernel_rules.register(dynamic_slice_p)
def _(b, inputs, outputs, *, sizes):
    x, *starts = inputs
    _blocks(b, starts, x, outputs[0], into=False)


@kernel_rules.register(dynamic_update_slice_p)
def _(b, inputs, outputs):
    x, update, *starts = inputs
    copy_whole(b, outputs[0].buffer, x.buffer)
    update_block(b, outputs[0], update, starts)


def update_block(b: Builder, target: Operand, update: Operand, starts: Sequence[Operand]) -> None:
    """Replace the block of `target` that begins at the (clamped) starts by `update`; or one of each array in it."""
    _blocks(b, starts, target, update, into=True)


# --- permute_rows -----------------------------------------------------------------------------------------------------


@kernel_rules.register(permute_rows_p)
def _(b, inputs, outputs, *, inverse):
    (x, order), (out,) = inputs, outputs
    if not x.aval.size:
        return
    rows, width = x.shape[-2], x.shape[-1] * words_each(x.aval.dtype)
    with b.loop(math.prod(x.shape[:-2])) as k, b.loop(rows) as i:
        here = (k * rows + i) * width
        v, _ = resolve(b, order.load(b, k * rows + i), rows, "clip")
        there = (k * rows + b.index_of(v)) * width
        copy_run(b, out.buffer, there if inverse else here, x.buffer, here if inverse else there, width)
