# SPDX-License-Identifier: MIT
"""Lowering of random bits and keys: the hash of an element's position, computed where it is read.

The bits are those of `backends.threefry`: word i of a random array is the Threefry-2x32 hash of (i >> 32, i) under its
key. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11, section 4.2.
"""

from collections.abc import Callable, Sequence

from functorch_lite.compiler.loop_ir.nodes import Index, Value
from functorch_lite.compiler.lowering.rules import Point, elementwise_rules, linear, movement_rules, scalar
from functorch_lite.primitives import random_bits as p

_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry(at: Point, k0: Value, k1: Value, x0: Value, x1: Value) -> tuple[Value, Value]:
    """The two words of the hash of the counter (x0, x1) under the key (k0, k1), all u32."""

    def add(a, b):
        return at.op("add", a, b)

    def rotated(x, by):
        return at.op("or", at.op("shl", x, at.constant(by, "u32")), at.op("shr", x, at.constant(32 - by, "u32")))

    words = (k0, k1, at.op("xor", at.op("xor", k0, k1), at.constant(_PARITY, "u32")))
    x0, x1 = add(x0, k0), add(x1, k1)
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = add(x0, x1)
            x1 = at.op("xor", rotated(x1, distance), x0)
        x0 = add(x0, words[(group + 1) % 3])
        x1 = add(x1, add(words[(group + 2) % 3], at.constant(group + 1, "u32")))
    return x0, x1


def _hashed(at: Point, key: Callable[..., Value], lead: Sequence[Index], inner: Sequence[Index], shape: Sequence[int]):
    """The hash of the element at `inner` of `shape` under the key at `lead`."""
    position = linear(inner, shape)
    size = 1
    for n in shape:
        size *= n
    high = at.constant(0, "u32")
    if size > 1 << 32:
        wide = at.op("shr", at.b.value_of(position, "u64"), at.constant(32, "u64"))
        high = at.op("convert", wide, kind="u32")
    return threefry(at, key([*lead, Index(0)]), key([*lead, Index(1)]), high, at.b.value_of(position, "u32"))


def _random_bits(at, reads, index, *, shape, bit_width):
    n = len(index) - len(shape)
    y0, y1 = _hashed(at, reads[0], index[:n], index[n:], shape)
    if bit_width == 64:
        high, low = (at.op("convert", y, kind="u64") for y in (y0, y1))
        return at.op("or", at.op("shl", high, at.constant(32, "u64")), low)
    return at.op("convert", at.op("xor", y0, y1), kind=at.kind)


def _word(at, which, words):
    """One of the two words of a key."""
    if not which.terms:
        return words[which.constant]
    return at.select(at.op("eq", at.b.value_of(which, "i64"), at.constant(0, "i64")), *words)


def _split_key(at, reads, index, *, shape):
    *index, which = index
    n = len(index) - len(shape)
    return _word(at, which, _hashed(at, reads[0], index[:n], index[n:], shape))


def _fold_in_key(at, reads, index):
    *lead, which = index
    key, data = reads
    words = threefry(at, key([*lead, Index(0)]), key([*lead, Index(1)]), at.constant(0, "u32"), data(lead))
    return _word(at, which, words)


movement_rules.add(p.random_bits_p, _random_bits)
movement_rules.add(p.split_key_p, _split_key)
movement_rules.add(p.fold_in_key_p, _fold_in_key)
elementwise_rules.add(p.fused_multiply_add_p, scalar("fused_multiply_add"))
elementwise_rules.add(p.erf_inv_p, scalar("erf_inv"))
