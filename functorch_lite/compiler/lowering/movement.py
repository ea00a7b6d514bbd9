# SPDX-License-Identifier: MIT
"""Lowering of the movement family: reshape, permute_dims, slice and rev are index maps; pad and concatenate, loops."""

from collections.abc import Sequence
from typing import Any

from functorch_lite.compiler.loop_ir.builder import Builder
from functorch_lite.compiler.loop_ir.nodes import ZERO, Index
from functorch_lite.compiler.lowering.rules import (
    Element,
    Operand,
    is_complex,
    kernel_rules,
    linear,
    movement_rules,
    strides_of,
)
from functorch_lite.primitives import movement as p

# --- index maps ------------------------------------------------------------------------------------------------------


def _permute_dims(at, reads, index, *, axes):
    found: list[Any] = [ZERO] * len(axes)
    for i, axis in zip(index, axes, strict=True):
        found[axis] = i
    return reads[0](found)


def _slice(at, reads, index, *, start, limit, strides):
    return reads[0]([i * s + a for i, a, s in zip(index, start, strides, strict=True)])


def _rev(at, reads, index, *, axes):
    sizes = at.avals[0].shape
    return reads[0]([n - 1 - i if d in axes else i for d, (i, n) in enumerate(zip(index, sizes, strict=True))])


def _reshape(at, reads, index, *, shape):
    return reads[0](reshaped(at.b, index, shape, at.avals[0].shape))


def reshaped(b: Builder, index: Sequence[Index], shape: Sequence[int], source: Sequence[int]) -> list[Index]:
    """The index into `source` of the element that is at `index` of `shape`, in row-major order.

    Where neighbouring axes of both have the same product, they are mapped on their own; axes are divided only where
    one of `shape` becomes several of `source`.
    """
    found: list[Index] = []
    for ours, theirs in matching_axes(shape, source):
        position = linear([index[k] for k in ours], [shape[k] for k in ours])
        found += _split(b, position, [source[k] for k in theirs])
    return found


def matching_axes(left: Sequence[int], right: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Neighbouring axes of two shapes of one size (not 0), in the smallest groups with equal products."""
    groups, i, j = [], 0, 0
    while i < len(left) or j < len(right):
        ours, theirs, a, b = [], [], 1, 1
        while not (ours or theirs) or a != b:
            if i < len(left) and (a <= b or j == len(right)):
                ours.append(i)
                a *= left[i]
                i += 1
            else:
                theirs.append(j)
                b *= right[j]
                j += 1
        groups.append((ours, theirs))
    return groups


def _split(b, position, sizes):
    """A position as an index into an array of these sizes."""
    wide = [k for k, n in enumerate(sizes) if n != 1]
    found = [ZERO] * len(sizes)
    if not wide:
        return found
    size = 1
    for n in sizes:
        size *= n
    kind = "u32" if size < 1 << 31 else "i64"
    for k in reversed(wide[1:]):
        position, found[k] = _divided(b, position, sizes[k], kind)
    found[wide[0]] = position
    return found


def _divided(b, position, n, kind):
    """Quotient and remainder of a position."""
    if all(c % n == 0 for _, c in position.terms):  # then only the constant has a remainder
        quotient = Index(position.constant // n, tuple((v, c // n) for v, c in position.terms))
        return quotient, Index(position.constant % n)
    value, divisor = b.value_of(position, kind), b.constant(n, kind)
    return b.index_of(b.op("div", value, divisor)), b.index_of(b.op("rem", value, divisor))


movement_rules.add(p.reshape_p, _reshape)
movement_rules.add(p.permute_dims_p, _permute_dims)
movement_rules.add(p.slice_p, _slice)
movement_rules.add(p.rev_p, _rev)

# --- concatenate -----------------------------------------------------------------------------------------------------


@kernel_rules.register(p.concatenate_p)
def _(b, inputs, outputs, *, axis):
    out = outputs[0]
    width = 2 if is_complex(out.aval.dtype) else 1
    whole = _product(out.shape[axis:]) * width
    start = 0
    for x in inputs:
        count = _product(x.shape[axis:]) * width
        if x.aval.size:
            with b.loop(_product(x.shape[:axis])) as i:
                b.copy(out.buffer, x.buffer, count, i * whole + start, i * count)
        start += count


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for n in sizes:
        total *= n
    return total


# --- pad -------------------------------------------------------------------------------------------------------------


@kernel_rules.register(p.pad_p)
def _(b, inputs, outputs, *, config):
    out = outputs[0]
    if out.aval.size:
        _Padding(b, inputs[0], inputs[1].load(b, ()), out, config).axis(0, ZERO, ZERO)


class _Padding:
    """Writes the output axis by axis: the border below, what lies inside, the border above."""

    def __init__(self, b: Builder, x: Operand, value: Element, out: Operand, config: Any):
        self.b, self.x, self.value, self.out = b, x, value, out
        self.places = [_places(n, *c) for n, c in zip(x.shape, config, strict=True)]
        self.x_strides, self.out_strides = strides_of(x.shape), strides_of(out.shape)
        self.plain = len(config)  # from this axis on, nothing is added or removed
        while self.plain and tuple(config[self.plain - 1]) == (0, 0, 0):
            self.plain -= 1

    def axis(self, d: int, to: Index, source: Index) -> None:
        """The elements of the output from `to` on that differ in axes d and later; `source` is where x begins."""
        if d == self.plain:
            self.copy(_product(self.out.shape[d:]), 1, to, source)
            return
        begin, step, first, count = self.places[d]
        size, stride, x_stride = self.out.shape[d], self.out_strides[d], self.x_strides[d]
        end = begin + (count - 1) * step + 1 if count else begin
        self.fill(begin * stride, to)
        if step > 1 and count > 1:
            self.fill((end - begin) * stride, to + begin * stride)
        to_inside, source = to + begin * stride, source + first * x_stride
        if d == len(self.places) - 1:
            self.copy(count, step, to_inside, source)
        elif count:
            with self.b.loop(count) as i:
                self.axis(d + 1, to_inside + i * (step * stride), source + i * x_stride)
        self.fill((size - end) * stride, to + end * stride)

    def fill(self, count: int, to: Index) -> None:
        """The padding value, from `to` on."""
        if count:
            with self.b.loop(count, vector=True) as i:
                self.out.store(self.b, to + i, self.value)

    def copy(self, count: int, step: int, to: Index, source: Index) -> None:
        """Elements of x, `step` apart in the output."""
        if count:
            with self.b.loop(count, vector=True) as i:
                self.out.store(self.b, to + i * step, self.x.load(self.b, source + i))


def _places(n: int, low: int, high: int, interior: int) -> tuple[int, int, int, int]:
    """Along one axis: where the first element goes, how far apart they go, which is the first, and how many."""
    step = interior + 1
    grown = n + max(n - 1, 0) * interior
    first = 0 if low >= 0 else -(low // step)  # elements cut off by a negative low
    last = n if high >= 0 else (grown + high - 1) // step + 1
    count = max(last - first, 0)
    return (low + first * step if count else 0), step, first, count
