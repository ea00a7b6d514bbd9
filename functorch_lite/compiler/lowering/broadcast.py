# SPDX-License-Identifier: MIT
"""Lowering of the broadcast family: which element is repeated, 0, 1, 2, ... along an axis, and the sum."""

from functorch_lite.compiler.loop_ir.nodes import ZERO
from functorch_lite.compiler.lowering.rules import Pair, Reduction, is_complex, movement_rules, reduction_rules
from functorch_lite.primitives import broadcast as p

INT32_TOP = 1 << 31


def _broadcast_in_dim(at, reads, index, *, shape, dims):
    sizes = at.avals[0].shape
    return reads[0]([ZERO if n == 1 else index[d] for n, d in zip(sizes, dims, strict=True)])


def _iota(at, reads, index, *, dtype, shape, axis):
    wide = "i32" if shape[axis] <= INT32_TOP else "i64"
    number = at.op("convert", at.b.value_of(index[axis], wide), kind=at.kind)
    return Pair(number, at.constant(0)) if is_complex(dtype) else number


movement_rules.add(p.broadcast_in_dim_p, _broadcast_in_dim)
movement_rules.add(p.iota_p, _iota)
reduction_rules.add(p.reduce_sum_p, Reduction("add"))
